//! Repositories that are none, that lack something, or that are damaged.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use insta::assert_snapshot;

use super::{assert_prints, cat, errno_of_listing, errno_of_reading, mount, refused, three_files};
use crate::{
    registry_builder::RegistryBuilder,
    support::{DATE, EIO, Sandbox, noise, registry_on_disk},
};

#[test]
fn a_folder_that_is_no_repository() {
    let sandbox = Sandbox::new();
    let folder = sandbox.folder("folder");
    assert_snapshot!(refused(&sandbox, &mut mount(&sandbox, &folder)), @r"
    exit 3
    error: open [SANDBOX]/folder: not a git repository: [SANDBOX]/folder
    hint: name a git repository: a path, or a URL that `git clone` takes
    ");
    assert_snapshot!(refused(&sandbox, &mut cat(&sandbox, &folder, "a")), @r"
    exit 3
    error: open [SANDBOX]/folder: not a git repository: [SANDBOX]/folder
    hint: name a git repository: a path, or a URL that `git clone` takes
    ");
}

#[test]
fn a_path_where_nothing_is() {
    let sandbox = Sandbox::new();
    assert_snapshot!(refused(&sandbox, &mut mount(&sandbox, &sandbox.path("none"))), @r"
    exit 3
    error: open [SANDBOX]/none: not a git repository: [SANDBOX]/none
    hint: name a git repository: a path, or a URL that `git clone` takes
    ");
}

#[test]
fn a_file() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("file");
    fs::write(&file, "text").unwrap();
    assert_snapshot!(refused(&sandbox, &mut mount(&sandbox, &file)), @r"
    exit 3
    error: open [SANDBOX]/file: not a git repository: [SANDBOX]/file
    hint: name a git repository: a path, or a URL that `git clone` takes
    ");
}

#[test]
fn a_url_that_git_would_run_a_program_for() {
    let sandbox = Sandbox::new();
    let mut command = mount(&sandbox, Path::new("ext::sh -c touch% ran"));
    assert_snapshot!(refused(&sandbox, &mut command), @r"
    exit 2
    error: cannot use `ext::sh -c touch% ran` as a repository: remote helpers are not allowed
    ");
    assert!(!sandbox.path("ran").exists());
}

#[test]
fn urls_that_name_no_place() {
    let sandbox = Sandbox::new();
    let said = |url: &str| refused(&sandbox, &mut mount(&sandbox, Path::new(url)));
    assert_snapshot!(said("file://storage/srv/registry"), @r"
    exit 2
    error: cannot use `file://storage/srv/registry` as a repository: a file URL needs an absolute path, as in file:///srv/registry.git
    ");
    assert_snapshot!(said("me:hush@storage:team/registry.git"), @r"
    exit 2
    error: cannot use `***@storage:team/registry.git` as a repository: this form takes no password; write ssh://user@host/path
    ");
    assert_snapshot!(said("https:///registry"), @r"
    exit 2
    error: cannot use `https:///registry` as a repository: it has no host
    ");
}

#[test]
fn a_url_where_no_repository_is() {
    let sandbox = Sandbox::new();
    let url = format!("file://{}", sandbox.path("none").display());
    assert_snapshot!(refused(&sandbox, &mut mount(&sandbox, Path::new(&url))), @r"
    exit 3
    error: open file://[SANDBOX]/none: not a git repository: file://[SANDBOX]/none
    hint: name a git repository: a path, or a URL that `git clone` takes
    ");
}

#[test]
fn a_url_where_nobody_listens() {
    let sandbox = Sandbox::new();
    // Port 1 is reserved, and nobody serves it.
    let url = Path::new("http://127.0.0.1:1/team/registry.git");
    assert_snapshot!(refused(&sandbox, &mut mount(&sandbox, url)), @r"
    exit 6
    error: open http://[SERVER]/team/registry.git: cannot fetch from http://[SERVER]/team/registry.git: fatal: unable to access 'http://[SERVER]/team/registry.git/': Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server
    ");
}

#[test]
fn an_empty_repository() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    assert_snapshot!(refused(&sandbox, &mut mount(&sandbox, registry.repository())), @r"
    exit 3
    error: mount [SANDBOX]/registry: the repository [SANDBOX]/registry/.git/ is empty: it has no commit yet
    hint: commit something first
    ");
    assert_snapshot!(refused(&sandbox, &mut cat(&sandbox, registry.repository(), "a")), @r"
    exit 3
    error: the repository [SANDBOX]/registry/.git/ is empty: it has no commit yet
    hint: commit something first
    ");
}

#[test]
fn an_unknown_revision_names_the_nearest() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    three_files(&registry);
    registry.git(&["tag", "v1.2"]).unwrap();
    registry.git(&["branch", "review"]).unwrap();
    let repository = registry.repository();
    let with_rev = |rev| {
        let mut command = mount(&sandbox, repository);
        command.args(["--rev", rev]);
        refused(&sandbox, &mut command)
    };
    assert_snapshot!(with_rev("reveiw"), @r"
    exit 3
    error: mount [SANDBOX]/registry: unknown revision `reveiw`; nearest: review
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(with_rev("v1.3"), @r"
    exit 3
    error: mount [SANDBOX]/registry: unknown revision `v1.3`; nearest: v1.2
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(with_rev("main~7"), @r"
    exit 3
    error: mount [SANDBOX]/registry: unknown revision `main~7`
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(with_rev("0123456789012345678901234567890123456789"), @r"
    exit 3
    error: mount [SANDBOX]/registry: unknown revision `0123456789012345678901234567890123456789`
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(with_rev(""), @r"
    exit 3
    error: mount [SANDBOX]/registry: unknown revision ``
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(with_rev("a\nb\u{1b}[31m"), @r"
    exit 3
    error: mount [SANDBOX]/registry: unknown revision `a\nb\u{1b}[31m`
    hint: git log, git branch -a and git tag show what there is
    ");
}

#[test]
fn a_path_that_the_revision_does_not_have() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    three_files(&registry);
    let repository = registry.repository();
    let refused = |path| refused(&sandbox, &mut cat(&sandbox, repository, path));
    assert_snapshot!(refused("smal"), @r"
    exit 1
    error: print smal: no such file or folder: smal
    ");
    assert_snapshot!(refused("small/below"), @r"
    exit 1
    error: print small/below: no such file or folder: small/below
    ");
    assert_snapshot!(refused("../outside"), @r"
    exit 1
    error: print ../outside: path leads outside the repository: no such file or folder: ../outside
    ");
}

#[test]
fn a_repository_without_dvc_is_mounted_as_it_is_with_a_note() {
    let sandbox = Sandbox::new();
    let repository = sandbox.path("plain");
    let plain = RegistryBuilder::start(&repository, &sandbox.path("store")).unwrap();
    plain.text("a.txt", "of git\n").unwrap();
    plain.commit("Add a file", DATE).unwrap();
    let mount = sandbox.mount_with(&repository, &["--rev", "main"]);
    assert_eq!(fs::read(mount.path("a.txt")).unwrap(), b"of git\n");
    let note = super::without_places(&sandbox, &mount.log());
    assert_snapshot!(note, @r"
    note: [SANDBOX]/plain has no .dvc folder; its files are shown as git has them
    ");
}

/// Where git keeps an object that is not packed.
fn loose(repository: &Path, id: &str) -> PathBuf {
    repository.join(".git/objects").join(&id[..2]).join(&id[2..])
}

/// Makes an object unreadable.
fn damage(registry: &RegistryBuilder, name: &str) {
    let id = registry.git(&["rev-parse", name]).unwrap();
    let path = loose(registry.repository(), &id);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, "damaged").unwrap();
}

#[test]
fn unreadable_git_objects_cost_themselves_alone() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blob = registry.put(&noise(3, 10)).unwrap();
    registry.track_file("tracked", &blob).unwrap();
    registry.text("folder/inner.txt", "inner\n").unwrap();
    registry.text("bad.txt", "bad\n").unwrap();
    three_files(&registry);
    for name in ["main:tracked.dvc", "main:bad.txt", "main:folder"] {
        damage(&registry, name);
    }
    let repository = registry.repository();
    let mount = sandbox.mount_with(repository, &["--rev", "main"]);
    assert_eq!(errno_of_reading(&mount.path("bad.txt")), Some(EIO));
    assert_eq!(errno_of_reading(&mount.path("tracked.dvc")), Some(EIO));
    assert_eq!(errno_of_listing(&mount.path("folder")), Some(EIO));
    assert_eq!(fs::read(mount.path("text")).unwrap(), b"text\n");
    assert!(fs::read(mount.path("small")).unwrap() == noise(1, super::SMALL));

    assert_snapshot!(refused(&sandbox, &mut cat(&sandbox, repository, "bad.txt")), @r"
    exit 3
    fc45c07ba54fe24b7d24caf705cda4479d02f1a5: folder: git object 108aabee1ecf7ab27858b9b94edb90863ce0f006 cannot be read: failed to read loose object header
    fc45c07ba54fe24b7d24caf705cda4479d02f1a5: tracked.dvc: git object d2cdefb9d595cae3049e9e6510ecb83271341e79 cannot be read: failed to read loose object header
    error: print bad.txt: git object 67be85f1274474029aad8a75b823592324305aa4 cannot be read: failed to read loose object header
    hint: `git fsck` in the repository shows what is damaged
    ");
    assert_prints(&sandbox, repository, "text", b"text\n");
}

#[test]
fn an_unreadable_commit_costs_its_revision_alone() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    three_files(&registry);
    registry.git(&["branch", "good"]).unwrap();
    registry.text("text", "changed\n").unwrap();
    registry.commit("Change", DATE).unwrap();
    damage(&registry, "main");
    let repository = registry.repository();
    let mut whole = mount(&sandbox, repository);
    assert_snapshot!(refused(&sandbox, whole.args(["--rev", "main"])), @r"
    exit 3
    error: mount [SANDBOX]/registry: git object f02d255b9598aac4c560ecc18d7c90acc7f1ff8d cannot be read: failed to inflate loose object
    hint: `git fsck` in the repository shows what else is damaged
    ");
    let mount = sandbox.mount_with(repository, &["--rev", "good"]);
    assert_eq!(fs::read(mount.path("text")).unwrap(), b"text\n");
}
