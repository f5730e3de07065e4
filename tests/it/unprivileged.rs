//! Mounts of an ordinary user, through fusermount3.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::registry_builder::RegistryBuilder;
use crate::support::{DATE, Fixture, Sandbox, assert_same, list, noise, registry_on_disk, succeed};

/// `nobody`, who owns nothing on any system.
const USER: u32 = 65534;

/// Makes a user of root, in a mount namespace of its own, and runs the script of that user.
///
/// Where `/dev/fuse` is closed to users, as in many containers, the namespace is given a node that
/// is as open as udev makes it elsewhere.
const AS_USER: &str = r#"
set -eu
umask 022
mknod "$TOP/fuse" c 10 229
chmod 666 "$TOP/fuse"
mount --bind "$TOP/fuse" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -euc "$SCRIPT"
"#;

/// What the user does: mounts, packs every revision, unmounts. Root cannot look into the mount.
const READING: &str = r#"
    "$PROGRAM" mount "$REPOSITORY" "$TOP/mnt"
    trap "\"$PROGRAM\" umount \"$TOP/mnt\"" EXIT
    tar -cf "$TOP/tree.tar" -C "$TOP/mnt/tags" .
    "$PROGRAM" status "$TOP/mnt" > "$TOP/status"
"#;

/// What the user does in a writable mount, which is there again after it was ended.
const WRITING: &str = r#"
    begin() {
        "$PROGRAM" mount --rev main --overlay="$TOP/overlay" "$REPOSITORY" "$TOP/mnt"
    }
    begin
    trap "\"$PROGRAM\" umount \"$TOP/mnt\"" EXIT
    m="$TOP/mnt"
    echo new > "$m/new"
    chmod 044 "$m/new"
    echo more >> "$m/README.md"
    printf changed | dd of="$m/data/a.bin" conv=notrunc status=none
    mv "$m/data" "$m/moved"
    mkdir "$m/folder"
    chmod 500 "$m/folder"
    rm "$m/gone.txt"
    mkfifo -m 600 "$m/pipe"
    ln -s new "$m/symbolic"
    if ln "$m/new" "$m/hard" 2> /dev/null; then exit 1; fi
    if chown 1 "$m/new" 2> /dev/null; then exit 1; fi
    if cat "$m/new" 2> /dev/null; then exit 1; fi
    if echo x 2> /dev/null > "$m/folder/x"; then exit 1; fi
    "$PROGRAM" umount "$m"
    begin
    cd "$m"
    { stat -c "%a %n" new folder pipe symbolic README.md; ls . moved; cat README.md; } > "$TOP/told"
    cp moved/a.bin "$TOP/a.bin"
    cd /
"#;

/// What the user records: files that nobody may read, and then one that the daemon cannot.
const RECORDING: &str = r#"
    m="$TOP/mnt"
    "$PROGRAM" mount --rev main --overlay="$TOP/overlay" "$REPOSITORY" "$m"
    trap "\"$PROGRAM\" umount \"$m\"" EXIT
    echo secret | tee "$m/secret" > "$m/data/secret"
    chmod 000 "$m/secret" "$m/data/secret"
    if cat "$m/secret" 2> /dev/null; then exit 1; fi
    if cat "$m/data/secret" 2> /dev/null; then exit 1; fi
    "$PROGRAM" snapshot "$m" -m Secrets
    cat "$m/secret" "$m/data/secret" > "$TOP/read"
    echo lost > "$m/data/lost"
    echo late > "$m/late"
    chmod 000 "$TOP/overlay/upper/data/lost"
    if "$PROGRAM" snapshot "$m" -m Lost 2> "$TOP/said"; then exit 1; fi
    chmod 600 "$TOP/overlay/upper/data/lost"
    "$PROGRAM" snapshot "$m" -m Found
    cat "$m/data/lost" "$m/late" >> "$TOP/read"
"#;

#[test]
fn an_ordinary_user_records_what_may_not_be_read_and_not_what_cannot_be() {
    let sandbox = Sandbox::new();
    let registry = registry_to_change(&sandbox);
    in_the_name_of_the_user(&sandbox, RECORDING, registry.repository());
    let read = fs::read_to_string(sandbox.path("read")).unwrap();
    assert_eq!(read, "secret\nsecret\nlost\nlate\n");
    let said = fs::read_to_string(sandbox.path("said")).unwrap();
    assert!(said.contains("data/lost: Permission denied"), "{said}");
}

fn registry_to_change(sandbox: &Sandbox) -> RegistryBuilder {
    let registry = registry_on_disk(sandbox);
    registry.track_folder("data", &[("a.bin", registry.put(&noise(1, 5000)).unwrap())]).unwrap();
    registry.text("README.md", "read me\n").unwrap();
    registry.text("gone.txt", "going\n").unwrap();
    registry.commit("Add data", DATE).unwrap();
    registry
}

#[test]
fn an_ordinary_user_has_a_writable_mount() {
    let sandbox = Sandbox::new();
    let registry = registry_to_change(&sandbox);
    in_the_name_of_the_user(&sandbox, WRITING, registry.repository());
    let told = fs::read_to_string(sandbox.path("told")).unwrap();
    let expected = "44 new\n500 folder\n600 pipe\n777 symbolic\n644 README.md\n\
        .:\nREADME.md\ndata.dvc\nfolder\nmoved\nnew\npipe\nsymbolic\n\n\
        moved:\na.bin\nread me\nmore\n";
    assert_eq!(told, expected);
    let mut bytes = noise(1, 5000);
    bytes[..7].copy_from_slice(b"changed");
    assert!(fs::read(sandbox.path("a.bin")).unwrap() == bytes);
}

/// What the user does with two mounts in one place: the first ends by itself, the second is told to.
const ENDING: &str = r#"
    m="$TOP/mnt"
    pid() {
        "$PROGRAM" status "$m" | sed -n "s/^  pid *//p"
    }
    "$PROGRAM" mount --rev main "$REPOSITORY" "$m"
    first=$(pid)
    exec 9< "$m/text"
    "$PROGRAM" umount --lazy "$m"
    "$PROGRAM" mount --rev main "$REPOSITORY" "$m"
    trap "fusermount3 -u -z \"$m\" 2> /dev/null || true" EXIT
    exec 9<&-
    tail --pid="$first" -s 0.1 -f /dev/null
    cat "$m/text"
    second=$(pid)
    kill "$second"
    tail --pid="$second" -s 0.1 -f /dev/null
    if mountpoint -q "$m"; then exit 1; fi
"#;

#[test]
fn an_ordinary_users_mount_unmounts_itself_and_no_other() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("text", "text\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    in_the_name_of_the_user(&sandbox, ENDING, registry.repository());
}

/// Runs a script in a mount namespace of its own, in a sandbox that is the user's.
fn in_the_name_of_the_user(sandbox: &Sandbox, script: &str, repository: &Path) {
    let program = reachable_program(sandbox);
    sandbox.folder("mnt");
    let top = sandbox.path("");
    give(&top);
    let mut unshare = sandbox.tool("unshare");
    unshare.args(["--mount", "sh", "-c", AS_USER]).env("SCRIPT", script);
    unshare.env("TOP", &top).env("PROGRAM", program);
    succeed(unshare.env("REPOSITORY", repository));
    chown(&top, Some(0), Some(0)).unwrap();
}

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
    in_the_name_of_the_user(&sandbox, READING, &place.work_tree());

    let unpacked = sandbox.folder("unpacked");
    let mut tar = sandbox.tool("tar");
    succeed(tar.arg("-xf").arg(sandbox.path("tree.tar")).arg("-C").arg(&unpacked));
    for (tag, revision) in &fixture.manifest.revisions {
        assert_same(tag, &revision.tree(), &list(&unpacked.join(tag)));
    }
    let status = fs::read_to_string(sandbox.path("status")).unwrap();
    let expected = "\n  open mode   no-open (no passthrough: it needs CAP_SYS_ADMIN)\n";
    assert!(status.contains(expected), "{status}");
}

#[test]
fn an_ordinary_user_mounts_an_audio_registry() {
    an_ordinary_user_sees("audio-registry");
}

#[test]
fn an_ordinary_user_mounts_data_of_dvc_1_and_2() {
    an_ordinary_user_sees("legacy-2x");
}
