//! The settings in force, and who says so.

use std::{collections::BTreeSet, fs};

use insta::assert_snapshot;
use serde_json::Value;

use super::said;
use crate::support::{DATE, Fixture, Sandbox, registry_on_disk, succeed, text};

#[test]
fn each_setting_of_dvcfs_tells_who_says_so() {
    let sandbox = Sandbox::new();
    let settings = sandbox.path("settings.toml");
    fs::write(
        &settings,
        "min-free = '2.5G'\ncache-size = '1G'\nmemory-limit = '64M'\n\
         trusted-endpoints = ['https://s3.team.example']\n",
    )
    .unwrap();
    let mut command = sandbox.dvcfs(["--cache-size", "3G", "config", "list", "--origin"]);
    command.arg("--config").arg(&settings).env_remove("DVCFS_RUNTIME_DIR");
    let runtime = "default\truntime-dir=/run/dvcfs\n";
    let said_of_root = said(&sandbox, &mut command);
    assert!(said_of_root.contains(runtime), "{said_of_root}");
    assert_snapshot!(said_of_root, @r"
    exit 0
    environment DVCFS_CACHE_DIR	cache-dir=[SANDBOX]/cache
    flag --cache-size	cache-size=3G
    file [SANDBOX]/settings.toml	min-free=2560M
    file [SANDBOX]/settings.toml	memory-limit=64M
    environment DVCFS_STATE_DIR	state-dir=[SANDBOX]/state
    default	runtime-dir=/run/dvcfs
    default	log-format=auto
    file [SANDBOX]/settings.toml	trusted-endpoints=https://s3.team.example
    ");
    // A flag after the command is as good as one before it.
    let mut command = sandbox.dvcfs(["config", "list", "--origin", "--cache-size", "3G"]);
    assert!(text(&mut command).contains("flag --cache-size\tcache-size=3G"));
}

/// A registry with settings on every level, secrets among them.
fn with_settings_on_every_level(sandbox: &Sandbox) {
    let registry = registry_on_disk(sandbox);
    registry
        .text(
            ".dvc/config",
            "[core]\n    remote = team\n['remote \"team\"']\n    url = s3://bucket/prefix\n\
             \x20   profile = theirs\n",
        )
        .unwrap();
    registry.commit("Add settings", DATE).unwrap();
    let system = "['remote \"team\"']\n    region = eu-west-1\n";
    fs::write(sandbox.path("dvc/system/config"), system).unwrap();
    sandbox.user_config(
        "['remote \"team\"']\n    profile = mine\n['remote \"web\"']\n\
         \x20   url = https://ann:hunter2@web.example/x?sig=hunter2\n    password = hunter2\n",
    );
    let local = "['remote \"team\"']\n    profile = local\n    secret_access_key = hunter2\n";
    fs::write(registry.repository().join(".dvc/config.local"), local).unwrap();
}

#[test]
fn each_setting_of_dvc_tells_its_level_and_no_secret() {
    let sandbox = Sandbox::new();
    with_settings_on_every_level(&sandbox);
    let list = |args: &[&str]| {
        let all = said(&sandbox, sandbox.dvcfs(["config", "list", "--origin"]).args(args));
        all.lines()
            .filter(|line| line.contains('.') && !line.contains("-dir="))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_snapshot!(list(&["registry"]), @r"
    repo .dvc/config	core.remote=team
    local [SANDBOX]/registry/.dvc/config.local	remote.team.profile=local
    system [SANDBOX]/dvc/system/config	remote.team.region=eu-west-1
    local [SANDBOX]/registry/.dvc/config.local	remote.team.secret_access_key=***
    repo .dvc/config	remote.team.url=s3://bucket/prefix
    global [SANDBOX]/dvc/global/config	remote.web.password=***
    global [SANDBOX]/dvc/global/config	remote.web.url=https://web.example/x
    ");
    assert_snapshot!(list(&[]), @r"
    global [SANDBOX]/dvc/global/config	remote.team.profile=mine
    system [SANDBOX]/dvc/system/config	remote.team.region=eu-west-1
    global [SANDBOX]/dvc/global/config	remote.web.password=***
    global [SANDBOX]/dvc/global/config	remote.web.url=https://web.example/x
    ");
    let json = text(&mut sandbox.dvcfs(["config", "list", "--json", "registry"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(!json.to_string().contains("hunter2"), "{json}");
    let profile = json["dvc"].as_array().unwrap().iter();
    let profile = profile.filter(|line| line["name"] == "remote.team.profile");
    let profile: Vec<_> = profile.collect();
    assert_eq!(profile.len(), 1);
    assert_eq!((&profile[0]["value"], &profile[0]["origin"]), (&"local".into(), &"local".into()));
}

#[test]
fn settings_are_those_that_dvc_lists() {
    let sandbox = Sandbox::new();
    let place = Fixture::read("remotes").unpack(&sandbox);
    let venv = std::env::var("DVCFS_TEST_VENV").unwrap();
    let mut dvc = sandbox.tool(format!("{venv}/bin/dvc"));
    let dvcs = text(dvc.args(["config", "--list"]).current_dir(place.work_tree()));
    let ours = text(sandbox.dvcfs(["config", "list"]).arg(place.work_tree()));
    let ours: BTreeSet<_> =
        ours.lines().filter(|line| line.split('=').next().unwrap().contains('.')).collect();
    assert_eq!(ours, dvcs.lines().collect::<BTreeSet<_>>());
}

#[test]
fn a_registry_that_is_not_there_and_settings_that_make_no_sense() {
    let sandbox = Sandbox::new();
    assert_snapshot!(said(&sandbox, &mut sandbox.dvcfs(["config", "list", "none"])), @r"
    exit 3
    error: open [SANDBOX]/none: not a git repository: [SANDBOX]/none
    hint: name a git repository: a path, or a URL that `git clone` takes
    ");
    fs::write(sandbox.path("settings.toml"), "cache-sice = '1G'\n").unwrap();
    let mut command = sandbox.dvcfs(["config", "list", "--config"]);
    assert_snapshot!(said(&sandbox, command.arg(sandbox.path("settings.toml"))), @r"
    exit 2
    error: read the settings file [SANDBOX]/settings.toml: line 1: unknown field `cache-sice`, expected one of `cache-dir`, `cache-size`, `min-free`, `memory-limit`, `state-dir`, `runtime-dir`, `log-format`, `trusted-endpoints`
    ");
    succeed(&mut sandbox.dvcfs(["config", "list"]));
}
