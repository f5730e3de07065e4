//! S3: the contract over two servers, and how one gets in.

use std::{path::PathBuf, sync::Arc, time::Duration};

use dvcfs::remote::{Cause, Remote, RequestLimits, S3Remote, S3Settings, TlsVerify};
use tempfile::TempDir;

use super::{cause, holds, moto::Moto, objects::Objects, read};
use crate::s3server::{ACCESS_KEY, Options, S3Server, SECRET_KEY};

pub(super) const BUCKET: &str = "registry";

/// A server with the objects below `dvc/store` in its bucket.
pub(super) fn server(options: Options) -> (S3Server, TempDir) {
    let root = tempfile::tempdir().unwrap();
    Objects::new().write_below(&root.path().join(BUCKET).join("dvc/store"));
    (S3Server::start(root.path().into(), options), root)
}

/// Settings that look at nothing of this machine's own, and wait briefly.
pub(super) fn settings(endpoint: &str) -> S3Settings {
    S3Settings {
        bucket: BUCKET.into(),
        prefix: "dvc/store".into(),
        endpoint_url: Some(endpoint.into()),
        region: Some("us-east-1".into()),
        access_key_id: Some(ACCESS_KEY.into()),
        secret_access_key: Some(SECRET_KEY.into()),
        credential_path: Some(PathBuf::from("/dev/null")),
        config_path: Some(PathBuf::from("/dev/null")),
        instance_metadata: false,
        limits: RequestLimits { first_delay: Duration::from_millis(1), ..Default::default() },
        ..Default::default()
    }
}

#[tokio::test]
async fn s3_holds_the_contract() {
    let (server, _root) = server(Options::default());
    holds(Arc::new(S3Remote::new(settings(&server.endpoint())))).await;
}

#[tokio::test]
async fn s3_by_another_maker_holds_the_contract() {
    let moto = Moto::start();
    moto.fill(BUCKET, "dvc/store", &Objects::new()).await;
    holds(Arc::new(S3Remote::new(settings(moto.endpoint())))).await;
}

#[tokio::test]
async fn a_remote_that_is_only_made_asks_nothing() {
    let (server, _root) = server(Options::default());
    let remote = S3Remote::new(settings(&server.endpoint()));
    assert_eq!(remote.url(), "s3://registry/dvc/store");
    assert!(server.log().is_empty());
}

#[tokio::test]
async fn a_cold_get_is_one_request_and_no_checksum_is_asked_for() {
    let (server, _root) = server(Options::default());
    let objects = Objects::new();
    let (key, content) = objects.small();
    let remote = S3Remote::new(settings(&server.endpoint()));
    assert_eq!(read(&remote, key, Some(0..1 << 20)).await.unwrap(), content);
    let log = server.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(log[0].path, format!("registry/dvc/store/{}", key.path()));
    assert_eq!(log[0].range.as_deref(), Some("bytes=0-1048575"));
    assert!(!log[0].headers.iter().any(|name| name.contains("checksum")), "{log:?}");
    assert_eq!(server.bytes_sent(), content.len() as u64);
}

#[tokio::test]
async fn an_open_bucket_is_read_without_a_signature() {
    let (server, _root) = server(Options { anonymous: true, ..Default::default() });
    let settings = S3Settings {
        allow_anonymous_login: true,
        access_key_id: None,
        ..settings(&server.endpoint())
    };
    let objects = Objects::new();
    let (key, content) = objects.small();
    assert_eq!(read(&S3Remote::new(settings), key, None).await.unwrap(), content);
    assert!(!server.log()[0].headers.contains(&"authorization".into()));
}

#[tokio::test]
async fn credentials_of_a_profile_are_found_in_the_named_file() {
    let (server, root) = server(Options::default());
    let file = root.path().join("credentials");
    let text =
        format!("[lab]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n");
    std::fs::write(&file, text).unwrap();
    let settings = S3Settings {
        access_key_id: None,
        profile: Some("lab".into()),
        credential_path: Some(file),
        ..settings(&server.endpoint())
    };
    let key = Objects::new().small().0;
    assert!(read(&S3Remote::new(settings), key, None).await.is_ok());
}

#[tokio::test]
async fn a_bucket_in_another_region_is_followed_once_and_remembered() {
    let (server, _root) =
        server(Options { region: Some("eu-north-1".into()), ..Default::default() });
    let objects = Objects::new();
    let (key, content) = objects.small();
    let remote = S3Remote::new(settings(&server.endpoint()));
    assert_eq!(remote.size(key).await.unwrap(), content.len() as u64);
    assert_eq!(server.requests("HEAD"), 2);
    assert_eq!(read(&remote, key, None).await.unwrap(), content);
    assert_eq!(server.requests("GET"), 1);
}

#[tokio::test]
async fn tls_is_checked_against_the_bundle_unless_told_not_to() {
    let (server, root) = server(Options { tls: true, ..Default::default() });
    let bundle = root.path().join("ca.pem");
    std::fs::write(&bundle, server.certificate().unwrap()).unwrap();
    let objects = Objects::new();
    let (key, content) = objects.small();
    let remote = |tls| S3Remote::new(S3Settings { tls, ..settings(&server.endpoint()) });

    let error = read(&remote(TlsVerify::System), key, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
    assert!(error.reason.contains("certificate"), "{error}");
    assert!(error.hint.unwrap().contains("ssl_verify"));

    assert_eq!(read(&remote(TlsVerify::Bundle(bundle)), key, None).await.unwrap(), content);
    assert_eq!(read(&remote(TlsVerify::Off), key, None).await.unwrap(), content);

    let missing = TlsVerify::Bundle(root.path().join("none.pem"));
    assert_eq!(cause(&remote(missing), key).await, Cause::Misconfigured);
    let garbage = root.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate").unwrap();
    assert_eq!(cause(&remote(TlsVerify::Bundle(garbage)), key).await, Cause::Misconfigured);
}

#[tokio::test]
async fn a_customers_key_is_sent_with_get_and_head() {
    let (server, _root) = server(Options::default());
    let settings = S3Settings {
        sse_customer_key: Some("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".into()),
        ..settings(&server.endpoint())
    };
    let key = Objects::new().small().0;
    let remote = S3Remote::new(settings);
    drop((remote.size(key).await, read(&remote, key, None).await));
    for request in server.log() {
        for name in ["algorithm", "key", "key-md5"] {
            let name = format!("x-amz-server-side-encryption-customer-{name}");
            assert!(request.headers.contains(&name), "{request:?} lacks {name}");
        }
    }
}
