//! Credentials from every place where AWS tools look for them.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    process::Command,
};

use insta::assert_snapshot;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{assert_is_read, configure, read, served};
use crate::{
    bad_input::{EACCES, refused},
    registry_builder::RegistryBuilder,
    s3server::{ACCESS_KEY, Fault, Options, S3Server, SECRET_KEY},
    support::{Sandbox, WebAnswer, WebServer, noise},
};

/// A registry whose server lets in who has the right keys, and a user who has none yet.
struct Place {
    sandbox: Sandbox,
    registry: RegistryBuilder,
    server: S3Server,
}

impl Place {
    fn new() -> Self {
        let (sandbox, registry, server) = served(Options::default());
        Self { sandbox, registry, server }
    }

    /// Reads with nothing of AWS in the environment but these variables.
    fn read(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = read(&self.sandbox, &self.registry);
        strip(&mut command);
        command.envs(variables.iter().copied());
        command
    }

    /// Writes a file below the user's home.
    fn home(&self, name: &str, text: &str) -> String {
        let path = self.sandbox.path("home").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Writes a program that prints this.
    fn program(&self, name: &str, printed: &str) -> String {
        let path = self.home(name, &format!("#!/bin/sh\ncat <<'END'\n{printed}\nEND\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn has_sent_a_token(&self) -> bool {
        let log = self.server.log();
        !log.is_empty() && log.iter().all(|r| r.headers.contains(&"x-amz-security-token".into()))
    }
}

/// Takes what every test's environment has of AWS out of a program's.
fn strip(command: &mut Command) {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        command.env_remove(name);
    }
}

/// The keys as a credentials file has them.
fn keys() -> String {
    format!("aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
}

/// A time so many seconds from now, as JSON has it.
fn in_seconds(seconds: i64) -> String {
    let time = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    time.format(&Rfc3339).unwrap()
}

/// Keys for so long, as programs and containers hand them out.
fn temporary(seconds: i64) -> String {
    let expiration = in_seconds(seconds);
    json!({"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY,
        "SessionToken": "token", "Token": "token", "Expiration": expiration})
    .to_string()
}

/// A token service that gives the right keys to whoever asks by this action, and what a program
/// has to know of it.
fn token_service(action: &'static str) -> WebServer {
    WebServer::start(move |request| {
        if !request.body.contains(&format!("Action={action}&")) {
            return WebAnswer::status(400);
        }
        let expiration = in_seconds(3600);
        let answer = format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
             <AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/reader/x</Arn>\
             <AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser>\
             <Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>token</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials>\
             </{action}Result></{action}Response>"
        );
        WebAnswer::ok(answer).with("content-type", "text/xml")
    })
}

const ROLE: &str = "arn:aws:iam::123456789012:role/reader";

#[test]
fn of_the_environment() {
    let place = Place::new();
    let variables = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", "token"),
    ];
    assert_is_read(&mut place.read(&variables));
    assert!(place.has_sent_a_token());
}

#[test]
fn of_the_shared_file() {
    let place = Place::new();
    place.home(".aws/credentials", &format!("[default]\n{}[lab]\n{}", keys(), "a = b\n"));
    assert_is_read(&mut place.read(&[]));
    // A profile without keys is no reason to take another's.
    let said = refused(&place.sandbox, &mut place.read(&[("AWS_PROFILE", "lab")]));
    assert!(said.starts_with("exit 5\n"), "{said}");
}

#[test]
fn of_a_file_and_a_profile_that_the_environment_names() {
    let place = Place::new();
    let file = place.home("my keys", &format!("[lab]\n{}", keys()));
    let variables = [("AWS_SHARED_CREDENTIALS_FILE", file.as_str()), ("AWS_PROFILE", "lab")];
    assert_is_read(&mut place.read(&variables));
    let config = place.home("my config", &format!("[profile lab]\n{}", keys()));
    let variables = [("AWS_CONFIG_FILE", config.as_str()), ("AWS_PROFILE", "lab")];
    assert_is_read(&mut place.read(&variables));
}

#[test]
fn of_the_files_and_the_profile_that_dvc_names_before_those_of_the_environment() {
    let place = Place::new();
    let credentials = place.home("my keys", &format!("[lab]\n{}", keys()));
    let config = place.home("my config", "[profile lab]\nregion = eu-north-1\n");
    let more = format!(
        "    profile = lab\n    credentialpath = {credentials}\n    configpath = {config}\n"
    );
    configure(&place.sandbox, &place.server.endpoint(), &more);
    let wrong = [("AWS_ACCESS_KEY_ID", "AKIDOTHER"), ("AWS_SECRET_ACCESS_KEY", "wrong")];
    assert_is_read(&mut place.read(&wrong));
}

#[test]
fn of_the_keys_in_dvcs_settings_before_all_others() {
    let place = Place::new();
    let more = format!(
        "    access_key_id = {ACCESS_KEY}\n    secret_access_key = {SECRET_KEY}\n    \
         session_token = token\n"
    );
    configure(&place.sandbox, &place.server.endpoint(), &more);
    let wrong = [("AWS_ACCESS_KEY_ID", "AKIDOTHER"), ("AWS_SECRET_ACCESS_KEY", "wrong")];
    assert_is_read(&mut place.read(&wrong));
    assert!(place.has_sent_a_token());
}

#[test]
fn of_a_role_that_another_profile_may_take_on() {
    let place = Place::new();
    let service = token_service("AssumeRole");
    place.home(".aws/credentials", "[base]\naws_access_key_id = A\naws_secret_access_key = B\n");
    let profile = format!(
        "[profile lab]\nregion = eu-north-1\nrole_arn = {ROLE}\nsource_profile = base\n\
         external_id = seven\n"
    );
    place.home(".aws/config", &profile);
    let url = service.url();
    assert_is_read(&mut place.read(&[("AWS_PROFILE", "lab"), ("AWS_ENDPOINT_URL_STS", &url)]));
    assert!(place.has_sent_a_token());
    let [asked] = &service.log()[..] else { panic!("{:?}", service.log()) };
    assert!(asked.body.contains("role%2Freader"), "{asked:?}");
    assert!(asked.body.contains("ExternalId=seven"), "{asked:?}");
    assert!(asked.header("authorization").unwrap().contains("Credential=A/"), "{asked:?}");
}

#[test]
fn of_a_role_that_is_refused() {
    let place = Place::new();
    let service = WebServer::start(|_| {
        let error = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message>\
                     </Error></ErrorResponse>";
        WebAnswer { status: 403, ..WebAnswer::ok(error) }
    });
    place.home(".aws/credentials", "[base]\naws_access_key_id = A\naws_secret_access_key = B\n");
    let profile = format!("[profile lab]\nregion = x\nrole_arn = {ROLE}\nsource_profile = base\n");
    place.home(".aws/config", &profile);
    let variables = [("AWS_PROFILE", "lab"), ("AWS_ENDPOINT_URL_STS", &service.url())];
    assert_snapshot!(refused(&place.sandbox, &mut place.read(&variables)), @r#"
    exit 5
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: AWS credentials cannot be had: service error: unhandled error (AccessDenied): Error { code: "AccessDenied", message: "not you" }
    hint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure` or `aws sso login`, or set `allow_anonymous_login` for a public bucket
    "#);
}

#[test]
fn of_a_program() {
    let place = Place::new();
    let program = place.program("tools/give keys", &temporary(3600));
    place.home(".aws/config", &format!("[default]\ncredential_process = \"{program}\"\n"));
    assert_is_read(&mut place.read(&[]));
    assert!(place.has_sent_a_token());
}

#[test]
fn of_a_program_that_fails() {
    let place = Place::new();
    let said = |text: &str| {
        place.home(".aws/config", &format!("[default]\ncredential_process = {text}\n"));
        refused(&place.sandbox, &mut place.read(&[]))
    };
    assert_snapshot!(said("sh -c 'echo the vault is locked >&2; exit 3'"), @r"
    exit 5
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: AWS credentials cannot be had: Error retrieving credentials: external process exited with code exit status: 3. Stderr: the vault is locked
    hint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure` or `aws sso login`, or set `allow_anonymous_login` for a public bucket
    ");
    assert_snapshot!(said("echo '{\"SecretAccessKey\": \"hush\"}'"), @r"
    exit 5
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: AWS credentials cannot be had: Error retrieving credentials from external process, could not parse response: Expected field `Version` in response but it was missing
    hint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure` or `aws sso login`, or set `allow_anonymous_login` for a public bucket
    ");
    assert!(place.server.log().is_empty());
}

/// A profile that signs in once for all, and the token that `aws sso login` got, for so long.
fn signed_in(place: &Place, seconds: i64) {
    place.home(
        ".aws/config",
        "[profile lab]\nsso_session = lab\nsso_account_id = 123456789012\n\
         sso_role_name = reader\n\
         [sso-session lab]\nsso_region = eu-north-1\nsso_start_url = https://lab.example/start\n\
         sso_registration_scopes = sso:account:access\n",
    );
    // The name is the SHA-1 of the session's.
    let token = json!({"accessToken": "signed in", "expiresAt": in_seconds(seconds)});
    place.home(".aws/sso/cache/3953f9ddf975ab5097ee468d99555c5b441169bf.json", &token.to_string());
}

#[test]
fn of_a_single_sign_on() {
    let place = Place::new();
    signed_in(&place, 3600);
    let portal = WebServer::start(|_| {
        let expiration = (OffsetDateTime::now_utc().unix_timestamp() + 3600) * 1000;
        let keys = json!({"accessKeyId": ACCESS_KEY, "secretAccessKey": SECRET_KEY,
            "sessionToken": "token", "expiration": expiration});
        WebAnswer::ok(json!({"roleCredentials": keys}).to_string())
    });
    let url = portal.url();
    assert_is_read(&mut place.read(&[("AWS_PROFILE", "lab"), ("AWS_ENDPOINT_URL_SSO", &url)]));
    assert!(place.has_sent_a_token());
    let [asked] = &portal.log()[..] else { panic!("{:?}", portal.log()) };
    assert!(asked.target.contains("role_name=reader"), "{asked:?}");
    assert_eq!(asked.header("x-amz-sso_bearer_token"), Some("signed in"));
}

#[test]
fn of_a_single_sign_on_that_is_over() {
    let place = Place::new();
    signed_in(&place, -60);
    assert_snapshot!(refused(&place.sandbox, &mut place.read(&[("AWS_PROFILE", "lab")])), @r"
    exit 5
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: AWS credentials cannot be had: an error occurred while loading an access token: the SSO token has expired and cannot be refreshed
    hint: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws configure` or `aws sso login`, or set `allow_anonymous_login` for a public bucket
    ");
    assert!(place.server.log().is_empty());
}

#[test]
fn of_a_web_identity() {
    let place = Place::new();
    let service = token_service("AssumeRoleWithWebIdentity");
    let token = place.home("token", "who I am");
    let url = service.url();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_REGION", "eu-north-1"),
        ("AWS_ENDPOINT_URL_STS", &url),
    ];
    assert_is_read(&mut place.read(&variables));
    assert!(place.has_sent_a_token());
    let [asked] = &service.log()[..] else { panic!("{:?}", service.log()) };
    assert!(asked.body.contains("WebIdentityToken=who%20I%20am"), "{asked:?}");
}

/// A container's own service, whose keys are good for so long.
fn container(seconds: i64) -> WebServer {
    WebServer::start(move |request| match request.header("authorization") {
        Some("let me in") => WebAnswer::ok(temporary(seconds)),
        _ => WebAnswer::status(401),
    })
}

#[test]
fn of_a_container() {
    let place = Place::new();
    let service = container(3600);
    let url = format!("{}/role", service.url());
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in"),
    ];
    assert_is_read(&mut place.read(&variables));
    assert!(place.has_sent_a_token());
    assert!(service.log().iter().all(|asked| asked.target == "/role"), "{:?}", service.log());
}

/// The service that a cloud machine has for what runs on it.
fn machine() -> WebServer {
    const LIFE: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    WebServer::start(|request| match (&request.method[..], &request.target[..]) {
        ("PUT", "/latest/api/token") => WebAnswer::ok("let me in").with(LIFE, "600"),
        _ if request.header("x-aws-ec2-metadata-token") != Some("let me in") => {
            WebAnswer::status(401)
        }
        ("GET", ROLES) => WebAnswer::ok("reader"),
        ("GET", target) if target.strip_prefix(ROLES) == Some("reader") => {
            let keys = json!({"Code": "Success", "LastUpdated": in_seconds(-60),
                "Type": "AWS-HMAC", "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY,
                "Token": "token", "Expiration": in_seconds(3600)});
            WebAnswer::ok(keys.to_string())
        }
        _ => WebAnswer::status(404),
    })
}

#[test]
fn of_the_machine_unless_that_is_not_to_be_asked() {
    let place = Place::new();
    let service = machine();
    let url = service.url();
    let endpoint = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str());
    let off = refused(&place.sandbox, &mut place.read(&[endpoint]));
    assert!(off.contains("no AWS credentials were found"), "{off}");
    assert!(service.log().is_empty(), "{:?}", service.log());
    assert_is_read(&mut place.read(&[endpoint, ("AWS_EC2_METADATA_DISABLED", "false")]));
    assert!(place.has_sent_a_token());
}

#[test]
fn that_run_out_are_asked_for_anew_by_a_mount() {
    let place = Place::new();
    let more = place.registry.put(&noise(2, 5000)).unwrap();
    place.registry.track_file("more", &more).unwrap();
    place.registry.commit("Add more", crate::support::DATE).unwrap();
    // So short that each request finds them too old.
    let service = container(5);
    let url = format!("{}/role", service.url());
    let sandbox = &place.sandbox;
    let mut command = sandbox.dvcfs(["mount", "--foreground", "--rev", "main"]);
    strip(&mut command);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url);
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in");
    let dir = sandbox.folder("mnt");
    command.arg(place.registry.repository()).arg(&dir);
    let mount = crate::support::Mount::start(command, &dir, &sandbox.path("run"));
    assert!(fs::read(mount.path("small")).unwrap() == noise(1, super::SIZE));
    let asked = service.log().len();
    assert!(fs::read(mount.path("more")).unwrap() == noise(2, 5000));
    assert!(service.log().len() > asked, "the old ones were used");
}

#[test]
fn that_the_server_calls_expired_are_looked_for_again_in_mid_read() {
    const LARGE: usize = 9 << 20;
    let place = Place::new();
    let large = place.registry.put(&noise(2, LARGE)).unwrap();
    place.registry.track_file("large", &large).unwrap();
    place.registry.commit("Add more", crate::support::DATE).unwrap();
    let sandbox = &place.sandbox;
    let credentials = place.home(".aws/credentials", &format!("[default]\n{}", keys()));
    let mut command = sandbox.dvcfs(["mount", "--foreground", "--rev", "main"]);
    strip(&mut command);
    let dir = sandbox.folder("mnt");
    command.arg(place.registry.repository()).arg(&dir);
    let mount = crate::support::Mount::start(command, &dir, &sandbox.path("run"));
    let file = fs::File::open(mount.path("large")).unwrap();
    let mut bytes = vec![0; LARGE];
    file.read_exact_at(&mut bytes[..4096], 0).unwrap();
    // Without a session token, that is, since the file has none yet.
    place.server.set_rule(|request| {
        let is_new = request.headers.contains(&"x-amz-security-token".into());
        (!is_new).then_some(Fault::Status(400, "ExpiredToken"))
    });
    assert_eq!(file.read_at(&mut [0], LARGE as u64 - 1).unwrap_err().raw_os_error(), Some(EACCES));
    fs::write(credentials, format!("[default]\n{}aws_session_token = new\n", keys())).unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(2, LARGE));
}

#[test]
fn that_are_not_needed_for_an_open_bucket() {
    let (sandbox, registry, server) = served(Options { anonymous: true, ..Options::default() });
    configure(&sandbox, &server.endpoint(), "    allow_anonymous_login = true\n");
    assert_is_read(&mut read(&sandbox, &registry));
    let log = server.log();
    assert!(!log.iter().any(|r| r.headers.contains(&"authorization".into())), "{log:?}");
}
