//! What the Debian package is made of.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{DATE, Sandbox, registry_on_disk, succeed, text};

/// The text of a file of the repository.
fn content(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What is packed: where it comes from, where it goes, its mode.
fn assets() -> Vec<[String; 3]> {
    let manifest: toml::Table = toml::from_str(&content("Cargo.toml")).unwrap();
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
    let brought = content("systemd/debian/config.toml");
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
        assert!(content(script).starts_with("#!/bin/sh\nset -e\n"), "{script}");
    }
}

/// Makes the package from the program under test, in a copy of the project without its sources.
fn package(sandbox: &Sandbox) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = sandbox.folder("project");
    for name in ["Cargo.toml", "Cargo.lock", "README.md", "CHANGELOG.md", "docs", "systemd"] {
        succeed(sandbox.tool("cp").arg("-a").arg(top.join(name)).arg(&copy));
    }
    for name in ["src", "tests", "benches"] {
        symlink(top.join(name), copy.join(name)).unwrap();
    }
    let built = sandbox.folder("project/target/release").join("dvcfs");
    fs::copy(env!("CARGO_BIN_EXE_dvcfs"), built).unwrap();
    // With the variables of this process, among which are those that cargo finds its things by.
    let mut script = Command::new(copy.join("systemd/package.sh"));
    script.args(["--no-build", "--fast"]).env_remove("CARGO_TARGET_DIR");
    let made = text(&mut script);
    PathBuf::from(made.lines().last().expect("cargo deb tells where the package is"))
}

/// Puts the machine's own system under a layer that takes what is written, in there runs `$TRIAL`,
/// and lists what this has left there, besides the notes of dpkg, caches of others, and the marks (as
/// devices) of what the machine had before and that is gone.
const IN_A_LAYER: &str = r#"
    mkdir "$TOP/layers"
    mount -t tmpfs none "$TOP/layers"
    cd "$TOP/layers"
    mkdir written work system
    mount -t overlay -o lowerdir=/,upperdir=written,workdir=work none system
    mount --rbind /dev system/dev
    mount -t proc none system/proc
    mkdir system/trial
    cp -a "$PACKAGE" system/trial/dvcfs.deb
    cp -a "$REGISTRY" system/trial/registry
    chroot system env -i PATH="$PATH" HOME=/trial/home sh -euxc "$TRIAL" >&2
    cd written
    find . \( -path ./trial -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache/man \
        -o -path ./var/cache/ldconfig -o -path ./etc/ld.so.cache \) -prune \
        -o -type c -o \( -type f -o -type l -o -name "*dvcfs*" \) -print
"#;

/// Installs the package, mounts by it, and removes it: once where something was not pushed, and
/// once where nothing keeps it from going altogether.
const TRIAL: &str = r#"
    dpkg --install /trial/dvcfs.deb
    test -z "$(dpkg --verify dvcfs)"
    dvcfs --version
    gzip -t /usr/share/man/man1/dvcfs.1.gz /usr/share/man/man8/mount.dvcfs.8.gz
    test "$(stat -c %a /etc/dvcfs/mounts)" = 700
    mkdir /trial/shown
    mount -t dvcfs /trial/registry /trial/shown -o rev=v1
    test "$(cat /trial/shown/text)" = one
    dvcfs umount /trial/shown

    mkdir -p /var/lib/dvcfs/overlays/one/upper /var/lib/dvcfs/outbox/needed
    touch /var/lib/dvcfs/overlays/one/upper/note
    dpkg --remove dvcfs
    test ! -e /usr/bin/dvcfs
    test -e /etc/dvcfs/config.toml
    dpkg --purge dvcfs 2>&1 | grep "/var/lib/dvcfs is kept"
    test ! -e /etc/dvcfs
    rm /var/lib/dvcfs/overlays/one/upper/note

    dpkg --install /trial/dvcfs.deb
    touch /var/lib/dvcfs/outbox/needed/snapshot
    dpkg --purge dvcfs 2>&1 | grep "/var/lib/dvcfs is kept"
    rm /var/lib/dvcfs/outbox/needed/snapshot

    dpkg --install /trial/dvcfs.deb
    dpkg --purge dvcfs
"#;

#[test]
fn it_installs_mounts_and_leaves_nothing_but_what_was_not_pushed() {
    if !rustix::process::geteuid().is_root() {
        return println!("only root installs packages");
    }
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("text", "one\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    let mut unshare = sandbox.tool("unshare");
    unshare.args(["--mount", "sh", "-euc", IN_A_LAYER]).env("TOP", sandbox.path(""));
    unshare.env("PACKAGE", package(&sandbox)).env("REGISTRY", registry.repository());
    assert_eq!(text(unshare.env("TRIAL", TRIAL)), "", "this was left");
}
