//! DVC settings, and settings of our own, that make no sense: what can be used is used.

use std::fs;

use insta::assert_snapshot;

use super::{assert_prints, cat, refused, three_files};
use crate::{
    registry_builder::RegistryBuilder,
    support::{Sandbox, noise, output, registry_on_disk},
};

/// A registry whose settings are this text.
fn registry_with(sandbox: &Sandbox, config: &str) -> RegistryBuilder {
    let registry = registry_on_disk(sandbox);
    registry.text(".dvc/config", config).unwrap();
    three_files(&registry);
    registry
}

/// What `cat` says of a tracked file. What is in git is printed all the same.
fn said(config: &str) -> String {
    let sandbox = Sandbox::new();
    let registry = registry_with(&sandbox, config);
    let refused = refused(&sandbox, &mut cat(&sandbox, registry.repository(), "small"));
    assert_prints(&sandbox, registry.repository(), "text", b"text\n");
    refused
}

#[test]
fn no_default_remote() {
    assert_snapshot!(said(""), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from nowhere: no default remote is configured
    hint: name one with --remote, or set core.remote in DVC's configuration
    ");
    assert_snapshot!(said("['remote \"disk\"']\n    url = ../../store\n"), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from nowhere: no default remote is configured
    hint: name one with --remote, or set core.remote in DVC's configuration
    ");
}

#[test]
fn a_default_remote_that_is_not_there() {
    assert_snapshot!(said("[core]\n    remote = dsik\n['remote \"disk\"']\n    url = ../../store\n"), @r#"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from dsik: remote "dsik" is not configured
    hint: `dvc remote list` shows what there is; --remote NAME reads from another
    "#);
}

#[test]
fn a_remote_without_url() {
    assert_snapshot!(said("[core]\n    remote = disk\n['remote \"disk\"']\n    jobs = 4\n"), @r#"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from disk: remote "disk" has no url
    hint: `dvc remote list` shows what there is; --remote NAME reads from another
    "#);
}

#[test]
fn a_remote_of_a_kind_that_is_not_known() {
    assert_snapshot!(said("[core]\n    remote = a\n['remote \"a\"']\n    url = carrier://pigeon\n"), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from carrier://pigeon: carrier remotes cannot be read yet
    hint: remotes can be S3, http(s) and folders
    ");
}

#[test]
fn a_list_where_a_value_is_expected() {
    assert_snapshot!(said("[core]\n    remote = disk\n['remote \"disk\"']\n    url = ../../store, ../../other\n"), @r#"
    exit 1
    [SANDBOX]/registry: .dvc/config of .: Repo config: [remote "disk"] url: a list where one value is wanted (quote the comma), ignored
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from disk: remote "disk" has no url
    hint: `dvc remote list` shows what there is; --remote NAME reads from another
    "#);
}

#[test]
fn settings_that_refer_to_themselves() {
    assert_snapshot!(said("[core]\n    remote = a\n['remote \"a\"']\n    url = %(url)s/x\n"), @r#"
    exit 1
    [SANDBOX]/registry: .dvc/config of .: Repo config: [remote "a"] url: %(name)s without end, ignored
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from a: remote "a" has no url
    hint: `dvc remote list` shows what there is; --remote NAME reads from another
    "#);
    assert_snapshot!(said("[core]\n    remote = a\n['remote \"a\"']\n    url = remote://a/x\n"), @r#"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from a: remote "a" refers to itself
    hint: `dvc remote list` shows what there is; --remote NAME reads from another
    "#);
}

#[test]
fn a_folder_as_remote_that_is_not_there() {
    assert_snapshot!(said("[core]\n    remote = a\n['remote \"a\"']\n    url = ../../none\n"), @r"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from [SANDBOX]/none: there is no such folder
    hint: check the path, and that its file system is mounted
    ");
}

#[test]
fn a_remote_named_on_the_command_line_that_is_not_there() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    three_files(&registry);
    let mut command = cat(&sandbox, registry.repository(), "small");
    assert_snapshot!(refused(&sandbox, command.args(["--remote", "dsik"])), @r#"
    exit 1
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from dsik: remote "dsik" is not configured
    hint: `dvc remote list` shows what there is; --remote NAME reads from another
    "#);
}

#[test]
fn unknown_keys_and_sections_and_odd_lines_are_passed_over_with_a_word() {
    let sandbox = Sandbox::new();
    let config = "[core]\n    remote = disk\n    weird = 7\n    autostage = a, b\n[strange]\n    a = b\n\
                  ['remote \"disk\"']\n    url = ../../store\n    urll = nowhere\n    no sense here\n";
    let registry = registry_with(&sandbox, config);
    let printed = output(&mut cat(&sandbox, registry.repository(), "small"));
    assert!(printed.status.success(), "{printed:?}");
    assert!(printed.stdout == noise(1, super::SMALL));
    let said = String::from_utf8(printed.stderr).unwrap();
    for key in ["weird", "urll"] {
        assert!(said.contains(key), "{key} is not named in {said}");
    }
}

#[test]
fn a_settings_file_of_ours_that_makes_no_sense() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("settings.toml");
    let said = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut command = sandbox.dvcfs(["cache", "info", "--config"]);
        refused(&sandbox, command.arg(&file))
    };
    assert_snapshot!(said("cache-sice = '1G'\n"), @r"
    exit 2
    error: read the settings file [SANDBOX]/settings.toml: line 1: unknown field `cache-sice`, expected one of `cache-dir`, `cache-size`, `min-free`, `memory-limit`, `state-dir`, `runtime-dir`, `log-format`, `trusted-endpoints`
    ");
    assert_snapshot!(said("cache-size = ['1G']\n"), @r"
    exit 2
    error: read the settings file [SANDBOX]/settings.toml: line 1: invalid type: sequence, expected a string
    ");
    assert_snapshot!(said("cache-size = 'lots'\n"), @r#"
    exit 2
    error: cache-size in the settings file: "lots" is not a size; write a number with K, M, G or T, like 50G
    "#);
    assert_snapshot!(said("[[[\n"), @r"
    exit 2
    error: read the settings file [SANDBOX]/settings.toml: line 1: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`
    ");
    let mut command = sandbox.dvcfs(["cache", "info", "--config", "none.toml"]);
    assert_snapshot!(refused(&sandbox, &mut command), @r"
    exit 2
    error: read the settings file none.toml: No such file or directory (os error 2)
    ");
}
