//! Repositories that say themselves where the user's credentials shall go.

use std::process::Command;

use insta::assert_snapshot;

use super::{SMALL, cat, errno_of_opening, refused, three_files};
use crate::{
    registry_builder::RegistryBuilder,
    s3server::S3Server,
    support::{DATE, PREFIX, Sandbox, Terminal, noise, registry_on_s3, succeed},
};

/// A registry that names its own server; the user's settings say nothing.
fn presumptuous() -> (Sandbox, RegistryBuilder, S3Server) {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let endpoint = server.endpoint();
    let remote = format!("['remote \"s3\"']\n    url = s3://{PREFIX}\n");
    let config = format!("[core]\n    remote = s3\n{remote}    endpointurl = {endpoint}\n");
    registry.text(".dvc/config", &config).unwrap();
    three_files(&registry);
    sandbox.user_config("");
    (sandbox, registry, server)
}

fn read(sandbox: &Sandbox, registry: &RegistryBuilder) -> Command {
    cat(sandbox, registry.repository(), "small")
}

#[test]
fn without_consent_nothing_is_asked() {
    let (sandbox, registry, server) = presumptuous();
    assert_snapshot!(refused(&sandbox, &mut read(&sandbox, &registry)), @r#"
    exit 5
    error: the repository's configuration sets endpointurl = http://[SERVER] for remote "s3", and you have not agreed to that
    hint: if you trust this repository with your credentials, add --trust-remote
    "#);
    let mut mount = super::mount(&sandbox, registry.repository());
    assert_snapshot!(refused(&sandbox, &mut mount), @r#"
    exit 5
    error: the repository's configuration sets endpointurl = http://[SERVER] for remote "s3", and you have not agreed to that
    hint: if you trust this repository with your credentials, add --trust-remote
    "#);
    let mut get = sandbox.dvcfs(["get"]);
    get.arg(registry.repository()).arg("small");
    assert_snapshot!(refused(&sandbox, &mut get), @r#"
    exit 5
    error: the repository's configuration sets endpointurl = http://[SERVER] for remote "s3", and you have not agreed to that
    hint: if you trust this repository with your credentials, add --trust-remote
    "#);
    assert!(!sandbox.path("small").exists());
    assert!(server.log().is_empty(), "{:?}", server.log());
}

#[test]
fn consent_by_flag_variable_and_settings() {
    let (sandbox, registry, server) = presumptuous();
    let flag = succeed(read(&sandbox, &registry).arg("--trust-remote"));
    assert!(flag == noise(1, SMALL));
    let variable = succeed(read(&sandbox, &registry).env("DVCFS_TRUST_REMOTE", "1"));
    assert!(variable == noise(1, SMALL));
    let settings = sandbox.path("settings.toml");
    let text = format!("trusted-endpoints = ['{}']\n", server.endpoint());
    std::fs::write(&settings, text).unwrap();
    let named = succeed(read(&sandbox, &registry).arg("--config").arg(&settings));
    assert!(named == noise(1, SMALL));
    // None of these is remembered.
    refused(&sandbox, &mut read(&sandbox, &registry));
}

#[test]
fn consent_that_is_no_consent() {
    let (sandbox, registry, server) = presumptuous();
    for no in ["0", "false"] {
        let mut command = read(&sandbox, &registry);
        refused(&sandbox, command.env("DVCFS_TRUST_REMOTE", no));
    }
    assert!(server.log().is_empty(), "{:?}", server.log());
}

/// Runs `cat` of a file on a terminal where this is typed; gives the exit code and all that was
/// shown.
fn on_a_terminal(sandbox: &Sandbox, registry: &RegistryBuilder, typed: &str) -> (i32, String) {
    let line = format!("exec \"$DVCFS\" cat '{}' text", registry.repository().display());
    let mut terminal = Terminal::run(sandbox, &line);
    terminal.wait_for("[y/N]");
    terminal.type_in(typed);
    terminal.end()
}

#[test]
fn a_yes_on_a_terminal_is_remembered() {
    let (sandbox, registry, _server) = presumptuous();
    let (code, said) = on_a_terminal(&sandbox, &registry, "y\n");
    assert!(said.contains("endpointurl = http://127.0.0.1"), "{said}");
    assert_eq!(code, 0, "{said}");
    // Nobody is asked again, with a terminal or without.
    assert!(succeed(&mut read(&sandbox, &registry)) == noise(1, SMALL));
    let line = format!("exec \"$DVCFS\" cat '{}' text", registry.repository().display());
    assert_eq!(Terminal::run(&sandbox, &line).end(), (0, "text\r\n".into()));

    // Another registry is another question.
    let copy = sandbox.path("copy");
    let mut git = sandbox.git(registry.repository());
    succeed(git.args(["clone", "--quiet", "."]).arg(&copy));
    let said = refused(&sandbox, &mut cat(&sandbox, &copy, "small"));
    assert!(said.starts_with("exit 5\n"), "{said}");

    // Another server is another question.
    let other = S3Server::start(sandbox.path("s3"), crate::s3server::Options::default());
    let config = format!(
        "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://{PREFIX}\n    endpointurl = {}\n",
        other.endpoint()
    );
    registry.text(".dvc/config", &config).unwrap();
    registry.commit("Move", DATE).unwrap();
    let said = refused(&sandbox, &mut read(&sandbox, &registry));
    assert!(said.starts_with("exit 5\n"), "{said}");
}

#[test]
fn a_no_on_a_terminal_is_a_no() {
    let (sandbox, registry, server) = presumptuous();
    for no in ["n\n", "\n", "perhaps\n"] {
        let (code, said) = on_a_terminal(&sandbox, &registry, no);
        assert_eq!(code, 5, "{said}");
        assert!(said.contains("--trust-remote"), "{said}");
    }
    refused(&sandbox, &mut read(&sandbox, &registry));
    assert!(server.log().is_empty(), "{:?}", server.log());
}

#[test]
fn another_revision_that_asks_for_another_server_gets_nothing() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    three_files(&registry);
    let own = S3Server::start(sandbox.path("s3"), crate::s3server::Options::default());
    registry.git(&["checkout", "--quiet", "-b", "greedy"]).unwrap();
    let config = format!(
        "[core]\n    remote = own\n['remote \"own\"']\n    url = s3://{PREFIX}\n    endpointurl = {}\n",
        own.endpoint()
    );
    registry.text(".dvc/config", &config).unwrap();
    registry.commit("Move", DATE).unwrap();
    registry.git(&["checkout", "--quiet", "main"]).unwrap();

    let mount = sandbox.mount(registry.repository());
    assert_eq!(errno_of_opening(&mount.path("greedy/small")), Some(super::EACCES));
    assert!(own.log().is_empty(), "{:?}", own.log());
    assert!(std::fs::read(mount.path("main/small")).unwrap() == noise(1, SMALL));
    assert!(server.requests("GET") > 0);
    let log = mount.log();
    assert!(log.contains("not agreed") && log.contains("endpointurl"), "{log}");
}
