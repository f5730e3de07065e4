//! What a snapshot cannot record, and disks that fail it.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, process::Command};

use super::Writable;
use crate::support::{noise, output, succeed};

#[test]
fn what_dvc_or_git_cannot_hold_is_named_and_the_rest_goes_through() {
    let writable = Writable::new();
    let odd = OsStr::from_bytes(b"data/\xff.bin");
    fs::write(writable.path(odd), "odd").unwrap();
    fs::write(writable.path("data/new"), "new").unwrap();
    fs::write(writable.path("data/x.dvc"), "x").unwrap();
    fs::write(writable.path("x.dvc"), "no record").unwrap();
    fs::write(writable.path("line\u{85}.wav"), noise(1, 99)).unwrap();
    fs::create_dir_all(writable.path("project/.git")).unwrap();
    fs::write(writable.path("project/.git/HEAD"), "x").unwrap();
    fs::write(writable.path("project/code.py"), "pass\n").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("2 paths recorded"), "{said}");
    for line in [
        "data/\\xff.bin: DVC cannot hold its name: it is not UTF-8",
        "data/x.dvc: DVC cannot hold its name: files of DVC itself are not data",
        "left as it is: x.dvc: DVC could not read it",
        "another name from its own file",
        "project/.git/HEAD: git does not take what lies in a folder .git",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(writable.changes().len(), 5);
    assert_eq!(fs::read_to_string(writable.path(odd)).unwrap(), "odd");
    assert_eq!(fs::read_to_string(writable.path("data/new")).unwrap(), "new");
    assert_eq!(fs::read_to_string(writable.path("project/code.py")).unwrap(), "pass\n");
    let mut git = writable.sandbox.git(writable.registry.repository());
    succeed(git.args(["fsck", "--strict"]));
}

#[test]
fn a_record_that_was_broken_by_hand_is_not_committed() {
    let writable = Writable::new();
    fs::write(writable.path("data.dvc"), "outs: [").unwrap();
    fs::write(writable.path("dvc.yaml"), "- no mapping\n").unwrap();
    fs::write(writable.path("note"), "fine\n").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("data.dvc: DVC could not read it"), "{said}");
    assert!(said.contains("dvc.yaml: DVC could not read it"), "{said}");
    assert!(said.contains("1 path recorded"), "{said}");
}

#[test]
fn an_outbox_that_is_full_fails_the_snapshot_and_nothing_else() {
    let writable = Writable::new();
    let outbox = writable.outbox();
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&outbox));
    let disk = super::ends::Unmounted(outbox.clone());
    fs::create_dir_all(outbox.join("files/md5")).unwrap();
    fs::create_dir_all(outbox.join("tmp")).unwrap();
    fs::write(writable.path("data/large"), noise(7, 8 << 20)).unwrap();
    fs::write(writable.path("data/small"), "small").unwrap();
    let told = writable.changes();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("data/large: No space left on device"), "{said}");
    assert_eq!(writable.changes(), told);
    assert!(fs::read(writable.path("data/large")).unwrap() == noise(7, 8 << 20));
    assert_eq!(fs::read_dir(outbox.join("tmp")).unwrap().count(), 0);
    // From another disk files are copied.
    let commit = writable.snapshot(&["data/small"]);
    assert_eq!(commit.len(), 40);
    assert_eq!(fs::read_to_string(writable.path("data/small")).unwrap(), "small");
    drop(disk);
}

#[test]
fn a_branch_needs_a_name_that_git_takes() {
    let writable = Writable::new();
    for name in ["a..b", "-x", "a b", "x.lock", ""] {
        let mut mount = writable.sandbox.dvcfs(["mount", "--foreground", "--rev", "main"]);
        mount.arg(format!("--branch={name}"));
        mount.arg(format!("--overlay={}", writable.sandbox.path("other").display()));
        let output =
            output(mount.arg(writable.registry.repository()).arg(writable.sandbox.folder("m")));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains("branch"), "{name}: {said}");
    }
}
