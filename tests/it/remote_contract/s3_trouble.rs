//! S3: what goes wrong, and what is said about it.

use std::{sync::Arc, time::Duration};

use dvcfs::{
    id::Key,
    remote::{Body, Cause, Remote, RemoteError, RequestLimits, S3Remote, S3Settings},
};
use futures_util::TryStreamExt;
use tempfile::TempDir;

use super::{
    cause,
    objects::Objects,
    read,
    s3::{server, settings},
};
use crate::s3server::{Fault, Gate, Options, S3Server};

/// Both ways to ask fail for the same reason; gives one of the errors.
async fn refused(settings: S3Settings, expected: Cause) -> RemoteError {
    let key = Objects::new().small().0;
    let remote = S3Remote::new(settings);
    let size = remote.size(key).await.unwrap_err();
    assert_eq!(size.cause, expected, "{size}");
    let get = read(&remote, key, None).await.unwrap_err();
    assert_eq!(get.cause, expected, "{get}");
    assert!(get.hint.is_some(), "{get}");
    get
}

fn simple() -> (S3Server, TempDir, S3Settings) {
    let (server, root) = server(Options::default());
    let settings = settings(&server.endpoint());
    (server, root, settings)
}

#[tokio::test]
async fn wrong_keys_are_denied() {
    let (_server, _root, good) = simple();
    let secret = Some("wrong".to_owned());
    let error =
        refused(S3Settings { secret_access_key: secret, ..good.clone() }, Cause::Denied).await;
    assert!(error.reason.contains("SignatureDoesNotMatch"), "{error}");
    let id = Some("AKIDOTHER".to_owned());
    refused(S3Settings { access_key_id: id, ..good }, Cause::Denied).await;
}

#[tokio::test]
async fn no_credentials_are_denied_without_asking_the_server() {
    let (server, _root, good) = simple();
    let error = refused(S3Settings { access_key_id: None, ..good }, Cause::Denied).await;
    assert!(error.hint.unwrap().contains("aws sso login"), "{}", error.reason);
    assert!(server.log().is_empty());
}

#[tokio::test]
async fn an_unsigned_request_to_a_closed_bucket_is_denied() {
    let (_server, _root, good) = simple();
    refused(S3Settings { allow_anonymous_login: true, ..good }, Cause::Denied).await;
}

#[tokio::test]
async fn an_expired_token_is_denied_and_says_how_to_get_a_new_one() {
    let (server, _root, good) = simple();
    server.fail_always(Fault::Status(400, "ExpiredToken"));
    let error = refused(good, Cause::Denied).await;
    assert!(error.hint.unwrap().contains("aws sso login"));
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_not_a_missing_object() {
    let (_server, _root, good) = simple();
    let bucket = "elsewhere".to_owned();
    refused(S3Settings { bucket, ..good }, Cause::Misconfigured).await;
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_misconfigured() {
    let (_server, _root, good) = simple();
    let endpoint_url = Some("localhost:9000".to_owned());
    refused(S3Settings { endpoint_url, ..good }, Cause::Misconfigured).await;
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_unreachable() {
    let (server, _root, good) = simple();
    drop(server);
    refused(good, Cause::Unreachable).await;
}

#[tokio::test]
async fn a_throttled_request_succeeds_in_the_end_or_is_unreachable() {
    let (server, _root, good) = simple();
    let objects = Objects::new();
    let (key, content) = objects.small();
    let slow = || Fault::Status(503, "SlowDown");
    server.fail_next([slow(), slow(), slow()]);
    assert_eq!(read(&S3Remote::new(good.clone()), key, None).await.unwrap(), content);
    assert_eq!(server.requests("GET"), 4);
    server.fail_always(slow());
    refused(good, Cause::Unreachable).await;
}

/// How many bytes come.
async fn drain(body: Body) -> Result<u64, RemoteError> {
    body.chunks.try_fold(0, async |sum, chunk| Ok(sum + chunk.len() as u64)).await
}

/// What one get gives while the server does wrong once.
async fn read_through(key: Key, faults: impl IntoIterator<Item = Fault>) -> (Vec<u8>, S3Server) {
    let (server, _root, good) = simple();
    server.fail_next(faults);
    let bytes = read(&S3Remote::new(good), key, None).await.unwrap();
    (bytes, server)
}

#[tokio::test]
async fn a_body_that_breaks_is_resumed_where_it_stopped() {
    let objects = Objects::new();
    let (key, content) = objects.big();
    let faults = [Fault::Cut(1_000_000), Fault::Status(500, "InternalError"), Fault::Cut(7)];
    let (bytes, server) = read_through(key, faults).await;
    assert!(bytes == content);
    let log = server.log();
    let resumed = &log.last().unwrap();
    assert_eq!(resumed.range.as_deref(), Some("bytes=1000007-5242879"), "{log:?}");
    assert!(resumed.headers.contains(&"if-match".into()));
    assert!(server.bytes_sent() < content.len() as u64 + 2000);
}

#[tokio::test]
async fn a_body_that_always_breaks_is_an_error_and_never_short() {
    let (server, _root, good) = simple();
    let (key, _) = Objects::new().big();
    server.fail_always(Fault::Cut(1000));
    let body = S3Remote::new(good).get(key, None).await.unwrap();
    assert_eq!(drain(body).await.unwrap_err().cause, Cause::Unreachable);
    assert!(server.requests("GET") < 20, "retries end");
}

#[tokio::test]
async fn an_object_that_changes_while_it_is_read_is_an_error() {
    let (server, root, good) = simple();
    let (key, _) = Objects::new().big();
    server.fail_next([Fault::Cut(1000)]);
    let mut body = S3Remote::new(good).get(key, None).await.unwrap();
    assert!(body.chunks.try_next().await.unwrap().is_some());
    let path = root.path().join("registry/dvc/store").join(key.path());
    std::fs::write(path, vec![0; 5 << 20]).unwrap();
    let error = drain(body).await.unwrap_err();
    assert!(error.hint.unwrap().contains("changed"), "{}", error.reason);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_through() {
    let (server, _root, good) = simple();
    let objects = Objects::new();
    let (key, content) = objects.big();
    server.fail_always(Fault::IgnoreRange);
    let remote = S3Remote::new(good);
    assert!(read(&remote, key, Some(1000..5000)).await.unwrap() == content[1000..5000]);
}

#[tokio::test]
async fn a_range_that_is_another_than_asked_for_is_an_error() {
    let (server, _root, good) = simple();
    let (key, _) = Objects::new().big();
    server.fail_always(Fault::ShiftRange);
    let outcome = S3Remote::new(good).get(key, Some(1000..5000)).await;
    assert_eq!(outcome.unwrap_err().cause, Cause::Unreachable);
}

#[tokio::test]
async fn a_ranged_answer_longer_than_its_range_is_an_error() {
    let (server, _root, good) = simple();
    let (key, _) = Objects::new().big();
    server.fail_always(Fault::Longer(10));
    let outcome = S3Remote::new(good).get(key, Some(1000..5000)).await;
    assert_eq!(outcome.unwrap_err().cause, Cause::Unreachable);
}

#[tokio::test]
async fn a_web_page_in_place_of_the_object_is_an_error() {
    let (server, _root, good) = simple();
    server.fail_always(Fault::Page);
    let key = Objects::new().small().0;
    assert_eq!(cause(&S3Remote::new(good), key).await, Cause::Unreachable);
}

#[tokio::test]
async fn silence_before_and_within_a_body_ends_and_is_unreachable() {
    let (server, _root, good) = simple();
    let limits = RequestLimits { idle: Duration::from_millis(300), ..good.limits.clone() };
    let remote = Arc::new(S3Remote::new(S3Settings { limits, ..good }));
    let (key, _) = Objects::new().big();
    let gate = Gate::new();
    server.fail_always(Fault::Stall(gate.clone()));
    assert_eq!(cause(&*remote, key).await, Cause::Unreachable);
    assert_eq!(remote.size(key).await.unwrap_err().cause, Cause::Unreachable);
    server.fail_always(Fault::Hang(1000, gate));
    assert_eq!(cause(&*remote, key).await, Cause::Unreachable);
}

#[tokio::test]
async fn a_body_that_hangs_again_and_again_is_given_up_though_each_answer_brings_a_little() {
    let (server, _root, good) = simple();
    let limits =
        RequestLimits { idle: Duration::from_millis(900), retries: 100, ..good.limits.clone() };
    let (key, _) = Objects::new().big();
    server.fail_always(Fault::Hang(1000, Gate::new()));
    assert_eq!(cause(&S3Remote::new(S3Settings { limits, ..good }), key).await, Cause::Unreachable);
    // Each is given half of the time.
    assert!(server.requests("GET") <= 3, "{} requests", server.requests("GET"));
}

#[tokio::test]
async fn a_body_that_hangs_is_asked_for_again() {
    let (server, _root, good) = simple();
    let limits = RequestLimits { idle: Duration::from_secs(3), ..good.limits.clone() };
    let objects = Objects::new();
    let (key, content) = objects.big();
    server.fail_next([Fault::Hang(1000, Gate::new())]);
    let remote = S3Remote::new(S3Settings { limits, ..good });
    assert!(read(&remote, key, None).await.unwrap() == content);
}
