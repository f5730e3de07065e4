//! Folders that cannot be mounted on, and systems that cannot mount.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use insta::assert_snapshot;
use rustix::process::Signal;

use super::{in_namespace, refused, three_files};
use crate::support::{Sandbox, is_mounted, registry_on_disk, succeed, text};

/// A registry, and the path of its repository.
fn registry(sandbox: &Sandbox) -> PathBuf {
    let registry = registry_on_disk(sandbox);
    three_files(&registry);
    registry.repository().to_owned()
}

/// What `dvcfs mount` says of a mount point, in the foreground and in the background.
fn refused_on(sandbox: &Sandbox, repository: &Path, dir: &Path) -> String {
    let [in_background, in_foreground] = [&["mount"][..], &["mount", "--foreground"]].map(|args| {
        let mut command = sandbox.dvcfs(args);
        refused(sandbox, command.arg(repository).arg(dir))
    });
    assert_eq!(in_background, in_foreground);
    in_background
}

#[test]
fn a_mount_point_that_is_missing() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    assert_snapshot!(refused_on(&sandbox, &repository, &sandbox.path("none")), @r"
    exit 2
    error: mount on [SANDBOX]/none: no such folder
    hint: make it first: mkdir -p [SANDBOX]/none
    ");
    assert_snapshot!(refused_on(&sandbox, &repository, &sandbox.path("none/below")), @r"
    exit 2
    error: mount on [SANDBOX]/none/below: no such folder
    hint: make it first: mkdir -p [SANDBOX]/none/below
    ");
}

#[test]
fn a_mount_point_that_is_no_folder() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let file = sandbox.path("file");
    fs::write(&file, "text").unwrap();
    assert_snapshot!(refused_on(&sandbox, &repository, &file), @r"
    exit 2
    error: mount on [SANDBOX]/file: not a folder
    ");
    assert_snapshot!(refused_on(&sandbox, &repository, &file.join("below")), @r"
    exit 2
    error: mount on [SANDBOX]/file/below: Not a directory (os error 20)
    ");
}

#[test]
fn a_mount_point_that_is_not_empty_unless_that_is_wanted() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let dir = sandbox.folder("full");
    fs::write(dir.join("mine"), "text").unwrap();
    assert_snapshot!(refused_on(&sandbox, &repository, &dir), @r"
    exit 2
    error: mount on [SANDBOX]/full: the folder is not empty
    hint: --nonempty hides what is in it
    ");
    let mount = sandbox.mount_at(&dir, &repository, &["--nonempty", "--rev", "main"]);
    assert_eq!(fs::read(mount.path("text")).unwrap(), b"text\n");
    drop(mount);
    assert_eq!(fs::read(dir.join("mine")).unwrap(), b"text");
}

#[test]
fn a_mount_point_that_is_a_mount_already() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let mount = sandbox.mount(&repository);
    let dir = sandbox.path("mnt-0");
    assert_eq!(mount.dir(), dir);
    assert_snapshot!(refused_on(&sandbox, &repository, &dir), @r"
    exit 9
    error: mount on [SANDBOX]/mnt-0: it is a mount already
    hint: end it first: dvcfs umount [SANDBOX]/mnt-0
    ");
    assert!(mount.path("main/text").exists());
    assert_snapshot!(refused_on(&sandbox, &repository, Path::new("/proc")), @r"
    exit 9
    error: mount on /proc: it is a mount already
    hint: mount on another folder
    ");
}

#[test]
fn a_mount_point_that_is_a_link_stands_for_what_it_leads_to() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let folder = sandbox.folder("folder");
    let link = sandbox.path("link");
    symlink("folder", &link).unwrap();
    let mount = sandbox.mount_at(&link, &repository, &["--rev", "main"]);
    assert!(is_mounted(&folder));
    for place in [&link, &folder] {
        assert!(text(sandbox.dvcfs(["status"]).arg(place)).starts_with(folder.to_str().unwrap()));
        succeed(sandbox.dvcfs(["refresh"]).arg(place));
    }
    assert_snapshot!(refused_on(&sandbox, &repository, &link), @r"
    exit 9
    error: mount on [SANDBOX]/link: it is a mount already
    hint: end it first: dvcfs umount [SANDBOX]/link
    ");
    mount.signal(Signal::TERM);
    mount.wait();
    assert!(!is_mounted(&folder));
    let umount = || {
        succeed(sandbox.dvcfs(["umount"]).arg(&link));
        assert!(!is_mounted(&folder));
    };
    let mount = sandbox.mount_at(&link, &repository, &[]);
    umount();
    mount.wait();
    let _dead = sandbox.mount_at(&link, &repository, &[]).kill();
    umount();
}

#[test]
fn of_two_who_mount_on_one_folder_at_once_one_does() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let dir = sandbox.folder("mnt");
    let mount = || {
        let mut command = sandbox.dvcfs(["mount"]);
        command.arg(&repository).arg(&dir).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [mount(), mount()].map(|process| process.wait_with_output().unwrap());
    succeed(sandbox.dvcfs(["umount"]).arg(&dir));
    assert!(!is_mounted(&dir), "there were two");
    let mut codes = both.each_ref().map(|output| output.status.code());
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(9)]);
    let said = both.map(|output| String::from_utf8(output.stderr).unwrap()).concat();
    assert!(said.contains("it is a mount already"), "{said}");
}

#[test]
fn umount_of_what_is_not_ours() {
    let sandbox = Sandbox::new();
    let refused =
        |dir: &Path| refused(&sandbox, &mut sandbox.dvcfs(["umount".as_ref(), dir.as_os_str()]));
    assert_snapshot!(refused(Path::new("/proc")), @r"
    exit 2
    error: unmount /proc: it is a mount, but not one of dvcfs
    ");
    assert_snapshot!(refused(&sandbox.folder("folder")), @r"
    exit 2
    error: unmount [SANDBOX]/folder: nothing is mounted there
    hint: dvcfs status lists your mounts
    ");
    assert_snapshot!(refused(&sandbox.path("none")), @r"
    exit 2
    error: unmount [SANDBOX]/none: nothing is mounted there
    hint: dvcfs status lists your mounts
    ");
    assert!(is_mounted(Path::new("/proc")));
}

#[test]
fn commands_about_a_folder_where_nothing_is_mounted() {
    let sandbox = Sandbox::new();
    let dir = sandbox.folder("folder");
    let refused =
        |command: &str| refused(&sandbox, &mut sandbox.dvcfs([command.as_ref(), dir.as_os_str()]));
    assert_snapshot!(refused("status"), @r"
    exit 1
    error: [SANDBOX]/folder: no dvcfs is mounted there
    hint: without a folder, all your mounts are shown
    ");
    assert_snapshot!(refused("refresh"), @r"
    exit 2
    error: refresh [SANDBOX]/folder: no dvcfs is mounted there
    hint: dvcfs status lists your mounts
    ");
}

#[test]
fn a_system_without_fuse() {
    const SCRIPT: &str = r#"
        mkdir "$TOP/dev" "$TOP/mnt"
        mknod -m 666 "$TOP/dev/null" c 1 3
        mount --bind "$TOP/dev" /dev
        exec "$PROGRAM" mount "$TOP/registry" "$TOP/mnt"
    "#;
    let sandbox = Sandbox::new();
    registry(&sandbox);
    assert_snapshot!(refused(&sandbox, &mut in_namespace(&sandbox, SCRIPT)), @r"
    exit 1
    error: /dev/fuse cannot be used: No such file or directory (os error 2)
    hint: load the fuse module (modprobe fuse); in a container pass --device /dev/fuse
    ");
}

#[test]
fn a_fuse_device_that_is_not_given_to_this_place() {
    const SCRIPT: &str = r#"
        mkdir "$TOP/mnt"
        mknod -m 666 "$TOP/fuse" c 10 229
        mount --bind -o nodev "$TOP/fuse" /dev/fuse
        mount -o remount,bind,nodev /dev/fuse
        exec "$PROGRAM" mount "$TOP/registry" "$TOP/mnt"
    "#;
    let sandbox = Sandbox::new();
    registry(&sandbox);
    assert_snapshot!(refused(&sandbox, &mut in_namespace(&sandbox, SCRIPT)), @r"
    exit 1
    error: /dev/fuse cannot be used: Permission denied (os error 13)
    hint: load the fuse module (modprobe fuse); in a container pass --device /dev/fuse
    ");
}

/// The beginning of a script that goes on as an ordinary user with everything of his own.
const AS_USER: &str = r#"
    umask 022
    mkdir -p "$TOP/mnt"
    chown -R -h 65534:65534 "$TOP"
    mknod -m 666 "$TOP/fuse" c 10 229
    mount --bind "$TOP/fuse" /dev/fuse
    as_user() {
        exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
    }
"#;

#[test]
fn a_system_without_fusermount3() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = format!(
        r#"{AS_USER}
        mount --bind /dev/null "$(command -v fusermount3)"
        as_user "$PROGRAM" mount "$TOP/registry" "$TOP/mnt""#
    );
    assert_snapshot!(refused(&sandbox, &mut in_namespace(&sandbox, &script)), @r"
    exit 1
    error: fusermount3 is not installed
    hint: install it: apt install fuse3
    ");
}

#[test]
fn a_mount_point_of_somebody_else() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = format!(
        r#"{AS_USER}
        chown root:root "$TOP/mnt"
        as_user "$PROGRAM" mount "$TOP/registry" "$TOP/mnt""#
    );
    assert_snapshot!(refused(&sandbox, &mut in_namespace(&sandbox, &script)), @r"
    exit 1
    error: mount [SANDBOX]/mnt: fusermount3: user has no write access to mountpoint [SANDBOX]/mnt
    hint: do you own the folder?
    ");
}

#[test]
fn other_users_are_let_in_by_root_alone() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = format!(
        r#"{AS_USER}
        : > "$TOP/fuse.conf"
        mount --bind "$TOP/fuse.conf" /etc/fuse.conf
        as_user "$PROGRAM" mount --allow-other "$TOP/registry" "$TOP/mnt""#
    );
    assert_snapshot!(refused(&sandbox, &mut in_namespace(&sandbox, &script)), @r"
    exit 1
    error: allow_other needs the line `user_allow_other` in /etc/fuse.conf
    hint: let root add that line, or mount without --allow-other
    ");
}
