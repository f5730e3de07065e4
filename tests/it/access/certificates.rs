//! Servers whose certificates the system does not know.

use super::{assert_is_read, configure, read, served};
use crate::{
    bad_input::refused,
    registry_builder::RegistryBuilder,
    s3server::{Options, S3Server},
    support::{PREFIX, Proxy, Sandbox},
};

/// A server that speaks TLS, and where its certificate lies.
fn with_own_certificate() -> (Sandbox, RegistryBuilder, S3Server, String) {
    let options = Options { tls: true, anonymous: true, ..Options::default() };
    let (sandbox, registry, server) = served(options);
    let path = sandbox.path("ca.pem");
    std::fs::write(&path, server.certificate().unwrap()).unwrap();
    (sandbox, registry, server, path.to_str().unwrap().to_owned())
}

#[test]
fn are_known_by_a_bundle_that_dvc_names() {
    let (sandbox, registry, server, bundle) = with_own_certificate();
    configure(&sandbox, &server.endpoint(), &format!("    ssl_verify = {bundle}\n"));
    assert_is_read(&mut read(&sandbox, &registry));
}

#[test]
fn of_another_host_are_refused() {
    let (sandbox, registry, server, bundle) = with_own_certificate();
    let proxy = Proxy::to(server.address());
    configure(&sandbox, "https://storage.invalid", "");
    let mut command = read(&sandbox, &registry);
    command.env("HTTPS_PROXY", proxy.url("")).env("AWS_CA_BUNDLE", bundle);
    let said = refused(&sandbox, &mut command);
    assert!(said.starts_with("exit 6\n"), "{said}");
    assert!(said.contains("certificate not valid for name \"storage.invalid\""), "{said}");
    assert!(server.log().is_empty(), "{:?}", server.log());
}

#[test]
fn are_not_looked_at_where_the_user_says_so() {
    let (sandbox, registry, server, _) = with_own_certificate();
    configure(&sandbox, &server.endpoint(), "    ssl_verify = false\n");
    assert_is_read(&mut read(&sandbox, &registry));
}

#[test]
fn of_http_remotes_are_held_against_the_same_settings() {
    let (sandbox, registry, server, bundle) = with_own_certificate();
    let remote = |more: &str| {
        let url = format!("{}/{PREFIX}", server.endpoint());
        sandbox.user_config(&format!("['remote \"web\"']\n    url = {url}\n{more}"));
        let mut command = read(&sandbox, &registry);
        command.args(["--remote", "web"]);
        command
    };
    let said = refused(&sandbox, &mut remote(""));
    assert!(said.starts_with("exit 6\n") && said.contains("certificate"), "{said}");
    assert_is_read(&mut remote(&format!("    ssl_verify = {bundle}\n")));
    assert_is_read(&mut remote("    ssl_verify = false\n"));
}
