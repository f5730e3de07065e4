//! Credentials, buckets and servers that are not as they should be. Each case is shown by a
//! command; what a mount makes of it is in `faults`.

use std::{fs, path::PathBuf, process::Command};

use insta::assert_snapshot;

use super::{SMALL, assert_prints, cat, refused, three_files};
use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, Options, S3Server},
    support::{PREFIX, Sandbox, noise, registry_on_s3, succeed},
};

/// A registry whose bucket a server of any kind serves; the user's settings name the server and
/// have more lines.
fn served(options: Options, more: &str) -> (Sandbox, RegistryBuilder, S3Server) {
    let sandbox = Sandbox::new();
    let (registry, _) = registry_on_s3(&sandbox);
    three_files(&registry);
    let server = S3Server::start(sandbox.path("s3"), options);
    let endpoint = server.endpoint();
    sandbox.user_config(&format!(
        "['remote \"s3\"']\n    url = s3://{PREFIX}\n    endpointurl = {endpoint}\n{more}"
    ));
    (sandbox, registry, server)
}

fn simple() -> (Sandbox, RegistryBuilder, S3Server) {
    served(Options::default(), "")
}

/// `dvcfs cat` of the small file.
fn read(sandbox: &Sandbox, registry: &RegistryBuilder) -> Command {
    cat(sandbox, registry.repository(), "small")
}

/// What is in git does not suffer.
fn assert_text_is_readable(sandbox: &Sandbox, registry: &RegistryBuilder) {
    assert_prints(sandbox, registry.repository(), "text", b"text\n");
}

#[test]
fn no_credentials() {
    let (sandbox, registry, server) = simple();
    let mut command = read(&sandbox, &registry);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    assert_snapshot!(refused(&sandbox, &mut command), @r"
    exit 5
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: no AWS credentials were found
    hint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure` or `aws sso login`, or set `allow_anonymous_login` for a public bucket
    ");
    assert!(server.log().is_empty(), "{:?}", server.log());
    assert_text_is_readable(&sandbox, &registry);
}

#[test]
fn a_profile_that_is_not_there() {
    let (sandbox, registry, _server) = simple();
    let mut command = read(&sandbox, &registry);
    command.env_remove("AWS_ACCESS_KEY_ID").env("AWS_PROFILE", "nobody");
    assert_snapshot!(refused(&sandbox, &mut command), @r"
    exit 5
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: no AWS credentials were found
    hint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure` or `aws sso login`, or set `allow_anonymous_login` for a public bucket
    ");
}

#[test]
fn wrong_credentials() {
    let (sandbox, registry, _server) = simple();
    let mut wrong_secret = read(&sandbox, &registry);
    wrong_secret.env("AWS_SECRET_ACCESS_KEY", "wrong");
    assert_snapshot!(refused(&sandbox, &mut wrong_secret), @r"
    exit 5
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: SignatureDoesNotMatch
    hint: the secret key is not right
    ");
    let mut unknown_id = read(&sandbox, &registry);
    unknown_id.env("AWS_ACCESS_KEY_ID", "AKIDOTHER");
    assert_snapshot!(refused(&sandbox, &mut unknown_id), @r"
    exit 5
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: NotSignedUp: Your account is not signed up
    hint: these credentials are not of this service: check the AWS profile
    ");
    assert_text_is_readable(&sandbox, &registry);
}

#[test]
fn an_expired_token() {
    let (sandbox, registry, server) = simple();
    server.fail_always(Fault::Status(400, "ExpiredToken"));
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 5
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: ExpiredToken: on purpose
    hint: get new credentials, for example by `aws sso login`
    ");
    assert_text_is_readable(&sandbox, &registry);
    server.heal();
    assert_prints(&sandbox, registry.repository(), "small", &noise(1, SMALL));
}

#[test]
fn credentials_that_may_not_read_this() {
    let (sandbox, registry, server) = simple();
    server.fail_always(Fault::Status(403, "AccessDenied"));
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 5
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: AccessDenied: on purpose
    hint: check the AWS profile; these credentials need s3:GetObject here, and without s3:ListBucket an object that is absent is refused too
    ");
}

#[test]
fn no_such_bucket() {
    let (sandbox, registry, _server) = simple();
    fs::rename(sandbox.path("s3/bucket"), sandbox.path("s3/other")).unwrap();
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: NoSuchBucket: there is no bucket bucket
    hint: check the bucket in `url`, and `endpointurl`
    ");
    assert_text_is_readable(&sandbox, &registry);
}

#[test]
fn a_wrong_region_is_put_right_where_the_server_tells_it() {
    let options = Options { region: Some("eu-central-1".into()), ..Options::default() };
    let (sandbox, registry, _server) = served(options, "");
    assert_prints(&sandbox, registry.repository(), "small", &noise(1, SMALL));
}

#[test]
fn a_wrong_region_where_the_server_does_not_tell() {
    let (sandbox, registry, server) = simple();
    server.fail_always(Fault::Status(400, "AuthorizationHeaderMalformed"));
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: AuthorizationHeaderMalformed: on purpose
    hint: set `region` to the bucket's region
    ");
}

#[test]
fn an_endpoint_where_nobody_listens() {
    let (sandbox, registry, server) = simple();
    drop(server);
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 6
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)
    hint: check the network, the proxy settings and the remote's URL
    ");
    assert_text_is_readable(&sandbox, &registry);
}

#[test]
fn an_endpoint_that_is_no_url() {
    let sandbox = Sandbox::new();
    let (registry, _server) = registry_on_s3(&sandbox);
    three_files(&registry);
    sandbox.user_config("['remote \"s3\"']\n    endpointurl = storage:9000\n");
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: the endpoint is not an http or https URL
    hint: check `endpointurl`
    ");
}

/// A server with a certificate that no system trusts, and where that certificate lies.
fn with_own_certificate(more: &str) -> (Sandbox, RegistryBuilder, S3Server, PathBuf) {
    let (sandbox, registry, server) = served(Options { tls: true, ..Options::default() }, more);
    let certificate = sandbox.path("ca.pem");
    fs::write(&certificate, server.certificate().unwrap()).unwrap();
    (sandbox, registry, server, certificate)
}

#[test]
fn a_certificate_that_nobody_vouches_for() {
    let (sandbox, registry, server, certificate) = with_own_certificate("");
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 6
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: error sending request: client error (Connect): invalid peer certificate: UnknownIssuer
    hint: for a private certificate authority set `ssl_verify` to its bundle, or AWS_CA_BUNDLE for S3
    ");
    assert!(server.log().is_empty(), "{:?}", server.log());
    let mut trusting = read(&sandbox, &registry);
    assert!(succeed(trusting.env("AWS_CA_BUNDLE", certificate)) == noise(1, SMALL));
}

#[test]
fn a_certificate_bundle_that_is_none() {
    let (sandbox, registry, _server, certificate) = with_own_certificate("");
    fs::write(&certificate, "nonsense").unwrap();
    let mut command = read(&sandbox, &registry);
    assert_snapshot!(refused(&sandbox, command.env("AWS_CA_BUNDLE", &certificate)), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: CA bundle [SANDBOX]/ca.pem: no certificate in it
    hint: check `ssl_verify` and AWS_CA_BUNDLE
    ");
    let mut command = read(&sandbox, &registry);
    let missing = sandbox.path("none.pem");
    assert_snapshot!(refused(&sandbox, command.env("AWS_CA_BUNDLE", missing)), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: CA bundle [SANDBOX]/none.pem: No such file or directory (os error 2)
    hint: check `ssl_verify` and AWS_CA_BUNDLE
    ");
}

#[test]
fn a_server_that_does_not_speak_tls() {
    let (sandbox, registry, server) = simple();
    let endpoint = server.endpoint().replace("http:", "https:");
    sandbox.user_config(&format!("['remote \"s3\"']\n    endpointurl = {endpoint}\n"));
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r"
    exit 6
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: error sending request: client error (Connect): received corrupt message of type InvalidContentType
    hint: check the network, the proxy settings and the remote's URL
    ");
}
