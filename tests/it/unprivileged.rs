//! Mounts of an ordinary user, through fusermount3.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Fixture, Sandbox, assert_same, list, succeed};

/// `nobody`, who owns nothing on any system.
const USER: u32 = 65534;

/// What the user does, in a mount namespace of its own: mounts, packs every revision, unmounts.
///
/// Where `/dev/fuse` is closed to users, as in many containers, the namespace is given a node that
/// is as open as udev makes it elsewhere. Root cannot look into the mount, so the user packs it.
const SCRIPT: &str = r#"
set -eu
umask 022
mknod "$TOP/fuse" c 10 229
chmod 666 "$TOP/fuse"
mount --bind "$TOP/fuse" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -euc '
    "$PROGRAM" mount "$REPOSITORY" "$TOP/mnt"
    trap "\"$PROGRAM\" umount \"$TOP/mnt\"" EXIT
    tar -cf "$TOP/tree.tar" -C "$TOP/mnt/tags" .
    "$PROGRAM" status "$TOP/mnt" --json > "$TOP/status.json"
'
"#;

/// Gives a folder and all below to the user.
fn give(path: &Path) {
    succeed(Command::new("chown").args(["-R", "-h", &format!("{USER}:{USER}")]).arg(path));
}

/// The program where the user can reach it.
fn reachable_program(sandbox: &Sandbox) -> PathBuf {
    let program = sandbox.path("dvcfs");
    fs::copy(env!("CARGO_BIN_EXE_dvcfs"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

fn an_ordinary_user_sees(name: &'static str) {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read(name);
    let place = fixture.unpack(&sandbox);
    let program = reachable_program(&sandbox);
    sandbox.folder("mnt");
    let top = sandbox.path("");
    give(&top);
    let mut unshare = sandbox.tool("unshare");
    unshare.args(["--mount", "sh", "-c", SCRIPT]).env("TOP", &top).env("PROGRAM", program);
    succeed(unshare.env("REPOSITORY", place.work_tree()));
    chown(&top, Some(0), Some(0)).unwrap();

    let unpacked = sandbox.folder("unpacked");
    let mut tar = sandbox.tool("tar");
    succeed(tar.arg("-xf").arg(sandbox.path("tree.tar")).arg("-C").arg(&unpacked));
    for (tag, revision) in &fixture.manifest.revisions {
        assert_same(tag, &revision.tree(), &list(&unpacked.join(tag)));
    }
    let status = fs::read_to_string(sandbox.path("status.json")).unwrap();
    assert!(status.contains("mnt"), "{status}");
}

#[test]
fn an_ordinary_user_mounts_an_audio_registry() {
    an_ordinary_user_sees("audio-registry");
}

#[test]
fn an_ordinary_user_mounts_data_of_dvc_1_and_2() {
    an_ordinary_user_sees("legacy-2x");
}
