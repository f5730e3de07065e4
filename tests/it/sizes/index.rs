//! A mount over an index of sizes that is spoilt, or cannot be written to.

use std::fs;

use crate::{
    bad_input::in_namespace,
    support::{DATE, Sandbox, noise, registry_on_disk, succeed, text},
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
