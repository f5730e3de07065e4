//! A mount over an index of sizes that is spoilt, or cannot be written to.

use std::{fs, process::Command, thread};

use serde_json::Value;

use crate::{
    bad_input::in_namespace,
    s3server::Fault,
    support::{DATE, Sandbox, noise, registry_on_disk, registry_on_s3, succeed, text},
};

const CONTENTS: [&[u8]; 3] = [b"one", b"three", b"seven-seven"];

/// A registry on this disk with a folder of three files, whose sizes and manifest are known.
fn known() -> Sandbox {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blobs = CONTENTS.map(|content| registry.put(content).unwrap());
    let files: Vec<_> = ["a", "b", "c"].into_iter().zip(blobs).collect();
    registry.track_folder("data", &files).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let list = ["list", "-R", "--size", "--all-sizes"];
    succeed(sandbox.dvcfs(list).arg(registry.repository()));
    sandbox
}

#[test]
fn one_that_cannot_be_written_to_is_read() {
    let sandbox = known();
    // The objects that could be asked for are gone; what is cached stays.
    for blob in fs::read_dir(sandbox.path("store/files/md5")).unwrap() {
        fs::remove_dir_all(blob.unwrap().path()).unwrap();
    }
    let script = r#"
        mkdir -p "$TOP/mnt"
        mount --bind "$DVCFS_STATE_DIR" "$DVCFS_STATE_DIR"
        mount -o remount,bind,ro "$DVCFS_STATE_DIR"
        "$PROGRAM" mount --rev main "$TOP/registry" "$TOP/mnt" >&2
        trap '"$PROGRAM" umount "$TOP/mnt"' EXIT
        stat -c %s "$TOP"/mnt/data/*
    "#;
    assert_eq!(text(&mut in_namespace(&sandbox, script)), "3\n5\n11");
}

#[test]
fn one_that_is_spoilt_in_any_way_costs_questions_and_nothing_else() {
    let sandbox = known();
    let (state, registry) = (sandbox.path("state/sizes"), sandbox.path("registry"));
    let whole = fs::read(&state).unwrap();
    assert!(whole.len() >= 90, "{} bytes", whole.len());
    let mut shifted = whole.clone();
    shifted.insert(7, 7);
    for spoilt in [vec![], whole[..47].to_vec(), shifted, noise(1, 200_003), vec![0; 9000]] {
        fs::write(&state, &spoilt).unwrap();
        let mount = sandbox.mount_with(&registry, &["--rev", "main"]);
        for (name, content) in ["a", "b", "c"].iter().zip(CONTENTS) {
            let path = mount.path("data").join(name);
            assert_eq!(path.metadata().unwrap().len(), content.len() as u64, "{}", spoilt.len());
            assert_eq!(fs::read(path).unwrap(), content);
        }
    }
}

#[test]
fn processes_that_learn_at_once_while_one_tidies_lose_nothing() {
    const FOLDERS: [&str; 4] = ["one", "two", "three", "four"];
    const FILES: usize = 500;
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let size = |folder: usize, n: usize| folder * FILES + n + 10;
    for (folder, name) in FOLDERS.iter().enumerate() {
        let blob = |n| registry.put(&noise(1, size(folder, n))).unwrap();
        let files: Vec<_> = (0..FILES).map(|n| (format!("{n:03}"), blob(n))).collect();
        let files: Vec<_> = files.iter().map(|(name, blob)| (&name[..], *blob)).collect();
        registry.track_folder(name, &files).unwrap();
    }
    registry.commit("Add files", DATE).unwrap();
    let listing = |folder: &str| -> Command {
        let mut command = sandbox.dvcfs(["list", "--json", "--size", "--all-sizes"]);
        command.arg(registry.repository()).arg(folder);
        command
    };
    let state = sandbox.path("state/sizes");
    // The mount is the second kind of process, which lives on.
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    succeed(&mut listing("one"));
    // What was said so often has the next one that learns something write the file anew.
    let repeated = fs::read(&state).unwrap().repeat(12);
    fs::write(&state, &repeated).unwrap();
    thread::scope(|scope| {
        for folder in &FOLDERS[1..3] {
            scope.spawn(|| succeed(&mut listing(folder)));
        }
        let last = mount.path(FOLDERS[3]);
        for n in 0..FILES {
            let told = last.join(format!("{n:03}")).metadata().unwrap().len();
            assert_eq!(told, size(3, n) as u64);
        }
    });
    drop(mount);
    assert!(fs::metadata(&state).unwrap().len() < repeated.len() as u64 / 2, "it was tidied");
    // Whoever comes later knows all of it and has to ask nobody.
    server.fail_always(Fault::Status(403, "AccessDenied"));
    server.reset();
    for (folder, name) in FOLDERS.iter().enumerate() {
        let listed: Value = serde_json::from_slice(&succeed(&mut listing(name))).unwrap();
        let sizes = listed.as_array().unwrap().iter().map(|file| file["size"].as_u64());
        assert!(sizes.eq((0..FILES).map(|n| Some(size(folder, n) as u64))), "{name}: {listed}");
    }
    assert!(server.log().is_empty(), "{:?}", server.log());
}
