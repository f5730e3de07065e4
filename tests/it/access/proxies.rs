//! Proxies, as the environment names them.
//!
//! The hosts have names that mean nothing but to the proxy, so nothing is reached without it.

use insta::assert_snapshot;

use super::{assert_is_read, configure, read, served};
use crate::{
    bad_input::refused,
    s3server::Options,
    support::{Proxy, WebAnswer, WebServer},
};

const STORAGE: &str = "http://storage.invalid:9000";

#[test]
fn are_used_for_s3() {
    let (sandbox, registry, server) = served(Options::default());
    let proxy = Proxy::to(server.address());
    configure(&sandbox, STORAGE, "");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let before = proxy.log().len();
        assert_is_read(read(&sandbox, &registry).env(name, proxy.url("")));
        let log = &proxy.log()[before..];
        assert!(!log.is_empty(), "{name} is not used");
        assert!(log.iter().all(|asked| asked.target.starts_with(STORAGE)), "{log:?}");
    }
    let proxied = server.log().len();
    // Those for https do not count.
    let mut command = read(&sandbox, &registry);
    command.env("HTTPS_PROXY", proxy.url(""));
    configure(&sandbox, &server.endpoint(), "");
    assert_is_read(&mut command);
    assert!(server.log().len() > proxied);
}

#[test]
fn are_tunnelled_through_for_https() {
    let (sandbox, registry, server) = served(Options { tls: true, ..Options::default() });
    let certificate = sandbox.path("ca.pem");
    std::fs::write(&certificate, server.certificate().unwrap()).unwrap();
    let proxy = Proxy::to(server.address());
    configure(&sandbox, &server.endpoint(), "");
    let mut command = read(&sandbox, &registry);
    command.env("HTTPS_PROXY", proxy.url("")).env("AWS_CA_BUNDLE", certificate);
    assert_is_read(&mut command);
    let log = proxy.log();
    assert!(!log.is_empty() && log.iter().all(|asked| asked.method == "CONNECT"), "{log:?}");
}

#[test]
fn are_passed_by_where_no_proxy_says_so() {
    let (sandbox, registry, server) = served(Options::default());
    let proxy = Proxy::to(server.address());
    let by_name = server.endpoint().replace("127.0.0.1", "localhost");
    for (exempt, endpoint) in [
        ("127.0.0.1", server.endpoint()),
        ("10.0.0.0/8,127.0.0.0/8", server.endpoint()),
        ("localhost", by_name.clone()),
        ("*", by_name),
    ] {
        configure(&sandbox, &endpoint, "");
        let mut command = read(&sandbox, &registry);
        command.env("HTTP_PROXY", proxy.url("")).env("NO_PROXY", exempt);
        assert_is_read(&mut command);
        assert!(proxy.log().is_empty(), "{exempt}: {:?}", proxy.log());
    }
    let mut command = read(&sandbox, &registry);
    assert_is_read(command.env("HTTP_PROXY", proxy.url("")).env("NO_PROXY", "other.invalid"));
    assert!(!proxy.log().is_empty());
}

#[test]
fn are_used_for_http_remotes_of_the_users_own() {
    let (sandbox, registry, server) = served(Options { anonymous: true, ..Options::default() });
    let proxy = Proxy::to(server.address());
    let files = format!("http://files.invalid/{}", crate::support::PREFIX);
    sandbox
        .user_config(&format!("[core]\n    remote = web\n['remote \"web\"']\n    url = {files}\n"));
    let mut command = read(&sandbox, &registry);
    command.args(["--remote", "web"]).env("HTTP_PROXY", proxy.url(""));
    assert_is_read(&mut command);
    let log = proxy.log();
    assert!(log.iter().all(|asked| asked.target.starts_with(&files)), "{log:?}");
    assert!(!log.is_empty());
}

#[test]
fn do_not_lead_where_a_repository_may_not_send_anybody() {
    let (sandbox, registry, server) = served(Options { anonymous: true, ..Options::default() });
    let proxy = Proxy::to(server.address());
    let files = server.endpoint().replace("127.0.0.1", "localhost");
    let files = format!("{files}/{}", crate::support::PREFIX);
    registry
        .text(
            ".dvc/config",
            &format!("[core]\n    remote = web\n['remote \"web\"']\n    url = {files}\n"),
        )
        .unwrap();
    registry.commit("Move", crate::support::DATE).unwrap();
    sandbox.user_config("");
    let mut command = read(&sandbox, &registry);
    let said = refused(&sandbox, command.env("HTTP_PROXY", proxy.url("")));
    assert!(said.starts_with("exit 5\n") && said.contains("this machine"), "{said}");
    assert!(proxy.log().is_empty() && server.log().is_empty(), "{:?}", proxy.log());
    // Whoever trusts the repository says so.
    let mut trusting = read(&sandbox, &registry);
    assert_is_read(trusting.arg("--trust-remote").env("HTTP_PROXY", proxy.url("")));
    assert!(!proxy.log().is_empty());
}

#[test]
fn are_told_their_password_and_nobody_else_is() {
    let (sandbox, registry, server) = served(Options::default());
    let proxy = Proxy::to(server.address());
    configure(&sandbox, STORAGE, "");
    assert_is_read(read(&sandbox, &registry).env("HTTP_PROXY", proxy.url("me:hush@")));
    let told = |asked: &crate::support::WebRequest| asked.header("proxy-authorization").is_some();
    assert!(proxy.log().iter().all(told), "{:?}", proxy.log());

    let gone = proxy.url("me:hush@");
    drop(proxy);
    let mut command = read(&sandbox, &registry);
    assert_snapshot!(refused(&sandbox, command.env("HTTP_PROXY", gone)), @r"
    exit 6
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)
    hint: check the network, the proxy settings and the remote's URL
    ");
}

#[test]
fn that_want_a_password_say_so() {
    let (sandbox, registry, _server) = served(Options::default());
    let proxy = WebServer::start(|_| WebAnswer::status(407));
    configure(&sandbox, STORAGE, "");
    let mut command = read(&sandbox, &registry);
    assert_snapshot!(refused(&sandbox, command.env("HTTP_PROXY", proxy.url())), @r"
    exit 5
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: the server says 407
    hint: the proxy wants to know who you are: say so in HTTP_PROXY or HTTPS_PROXY, as in http://user:password@host:port
    ");
    configure(&sandbox, "https://storage.invalid", "");
    let mut command = read(&sandbox, &registry);
    assert_snapshot!(refused(&sandbox, command.env("HTTPS_PROXY", proxy.url())), @r"
    exit 5
    error: print small: read files/md5/d1/6f0543fc95679be086be82ba3386a9 from s3://bucket/registry: error sending request: client error (Connect): tunnel error: proxy authorization required
    hint: the proxy wants to know who you are: say so in HTTP_PROXY or HTTPS_PROXY, as in http://user:password@host:port
    ");
}
