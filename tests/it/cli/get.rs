//! `dvcfs get` and `cat`: copies out of a registry, whole or not at all.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use insta::assert_snapshot;

use crate::{
    bad_input::refused,
    registry_builder::RegistryBuilder,
    support::{DATE, Sandbox, noise, registry_on_disk, succeed, text},
};

/// A registry whose folder `set` has a tracked folder, a program of git's and a link; its first
/// commit has other bytes.
fn registry(sandbox: &Sandbox) -> RegistryBuilder {
    let registry = registry_on_disk(sandbox);
    let put = |seed| registry.put(&noise(seed, 3000)).unwrap();
    registry.track_folder("set/data", &[("a", put(1)), ("sub/b", put(2))]).unwrap();
    registry.commit("One", DATE).unwrap();
    registry.track_folder("set/data", &[("a", put(3)), ("sub/b", put(2))]).unwrap();
    registry.text("set/run.sh", "#!/bin/sh\n").unwrap();
    let program = registry.repository().join("set/run.sh");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("data/a", registry.repository().join("set/link")).unwrap();
    registry.commit("Two", DATE).unwrap();
    registry
}

fn get(sandbox: &Sandbox, registry: &RegistryBuilder, args: &[&str]) -> String {
    text(sandbox.dvcfs(["get"]).arg(registry.repository()).args(args))
}

fn is_noise(path: &Path, seed: u64) -> bool {
    fs::read(path).unwrap() == noise(seed, 3000)
}

#[test]
fn a_folder_is_copied_with_links_and_executable_bits() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let said = get(&sandbox, &registry, &["set"]);
    assert!(said.ends_with(" -> set"), "{said}");
    let copy = sandbox.path("set");
    assert!(is_noise(&copy.join("data/a"), 3) && is_noise(&copy.join("data/sub/b"), 2));
    assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("data/a"));
    let mode = |name: &str| copy.join(name).metadata().unwrap().permissions().mode();
    assert_eq!(mode("run.sh") & 0o111, 0o111 & !umask());
    assert_eq!(mode("data/a") & 0o111, 0);
}

/// What this process's files are made without.
fn umask() -> u32 {
    let made = tempfile::tempdir().unwrap();
    let path = made.path().join("folder");
    fs::create_dir(&path).unwrap();
    !path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_goes_where_it_is_told_to_at_the_revision_that_is_named() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    get(&sandbox, &registry, &["set/data/a", "--rev", "main~1", "-o", "old"]);
    assert!(is_noise(&sandbox.path("old"), 1));
    sandbox.folder("there");
    get(&sandbox, &registry, &["set/data/a", "-o", "there"]);
    assert!(is_noise(&sandbox.path("there/a"), 3), "into the folder");
    let printed = succeed(sandbox.dvcfs(["cat"]).arg(registry.repository()).args([
        "set/data/a",
        "--rev",
        "main~1",
    ]));
    assert!(printed == noise(1, 3000));
}

#[test]
fn what_is_there_is_replaced_by_force_alone() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    fs::write(sandbox.path("a"), "mine").unwrap();
    let mut again = sandbox.dvcfs(["get"]);
    again.arg(registry.repository()).arg("set/data/a");
    assert_snapshot!(refused(&sandbox, &mut again), @r"
    exit 8
    error: get set/data/a: a exists
    hint: --force replaces it
    ");
    assert_eq!(fs::read(sandbox.path("a")).unwrap(), b"mine");
    get(&sandbox, &registry, &["set/data/a", "--force"]);
    assert!(is_noise(&sandbox.path("a"), 3));

    // What a link stands for is not written through.
    fs::write(sandbox.path("elsewhere"), "mine").unwrap();
    fs::remove_file(sandbox.path("a")).unwrap();
    symlink("elsewhere", sandbox.path("a")).unwrap();
    get(&sandbox, &registry, &["set/data/a", "--force"]);
    assert!(is_noise(&sandbox.path("a"), 3));
    assert_eq!(fs::read(sandbox.path("elsewhere")).unwrap(), b"mine");
}

#[test]
fn what_cannot_be_copied_or_printed_says_so() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let said = |args: &[&str]| {
        let mut command = sandbox.dvcfs([args[0]]);
        refused(&sandbox, command.arg(registry.repository()).args(&args[1..]))
    };
    assert_snapshot!(said(&["get", "set/none"]), @r"
    exit 1
    error: get set/none: no such file or folder: set/none
    ");
    assert_snapshot!(said(&["get", ".."]), @r"
    exit 2
    error: get ..: this path has no name to copy to
    hint: name one with -o OUT
    ");
    assert_snapshot!(said(&["get", "set/data/a", "-o", "none/at/all"]), @r"
    exit 2
    error: get set/data/a: no such folder: none/at
    hint: make it first: mkdir -p none/at
    ");
    assert_snapshot!(said(&["cat", "set"]), @r"
    exit 2
    error: print set: is a folder
    hint: dvcfs get copies folders
    ");
}
