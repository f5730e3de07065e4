//! What the Debian package is made of.

use std::{fs, path::Path};

use crate::support::{Sandbox, succeed};

/// The text of a file of the repository.
fn text(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What is packed: where it comes from, where it goes, its mode.
fn assets() -> Vec<[String; 3]> {
    let manifest: toml::Table = toml::from_str(&text("Cargo.toml")).unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let asset = |asset: &toml::Value| asset.clone().try_into().unwrap();
    assets.iter().map(asset).collect()
}

/// The files that a pattern with at most one star in its name stands for.
fn matching(pattern: &Path) -> usize {
    let name = pattern.file_name().unwrap().to_str().unwrap();
    let Some((before, after)) = name.split_once('*') else {
        return usize::from(pattern.symlink_metadata().is_ok());
    };
    let Ok(entries) = fs::read_dir(pattern.parent().unwrap()) else { return 0 };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(before) && name.ends_with(after)).count()
}

#[test]
fn everything_that_the_package_holds_is_there() {
    let sandbox = Sandbox::new();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = sandbox.path("assets");
    let mut script = sandbox.tool(top.join("systemd/package.sh"));
    succeed(script.args(["--assets", env!("CARGO_BIN_EXE_dvcfs")]).arg(&made));
    for [from, to, _mode] in assets() {
        let found = match from.strip_prefix("target/assets/") {
            Some(name) => matching(&made.join(name)),
            None if from == "target/release/dvcfs" => 1,
            None => matching(&top.join(&from)),
        };
        assert!(found > 0, "{from} for {to}");
    }
    let program = fs::read_link(made.join("mount.dvcfs")).unwrap();
    assert_eq!(Path::new("/usr/sbin").join(program), Path::new("/usr/sbin/../bin/dvcfs"));
}

#[test]
fn the_settings_that_it_brings_are_settings_and_all_of_them_are_off() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("settings.toml");
    let brought = text("systemd/debian/config.toml");
    let list = || succeed(sandbox.dvcfs(["config", "list", "--config"]).arg(&file));
    fs::write(&file, "").unwrap();
    let defaults = list();
    fs::write(&file, &brought).unwrap();
    assert_eq!(list(), defaults);
    // With the marks gone from before the settings they are taken, each of them.
    let lines = brought.lines().map(|line| match line.strip_prefix("# ") {
        Some(setting) if setting.contains(" = ") => setting.to_owned(),
        _ => line.to_owned(),
    });
    fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert_ne!(list(), defaults);
}

#[test]
fn the_scripts_of_the_package_are_sound() {
    let sandbox = Sandbox::new();
    for script in ["systemd/debian/postinst", "systemd/debian/prerm", "systemd/debian/postrm"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        succeed(sandbox.tool("sh").arg("-n").arg(path));
        assert!(text(script).starts_with("#!/bin/sh\nset -e\n"), "{script}");
    }
}
