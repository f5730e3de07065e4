//! `dvcfs cache`: what is in it, whether it is right, and making room.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::{
    registry_builder::{Blob, RegistryBuilder},
    support::{DATE, Sandbox, lose_manifests, noise, output, registry_on_disk, succeed, text},
};

/// A sandbox whose cache has two blobs of ours, and one of DVC's making that is wrong.
fn filled() -> (Sandbox, [Blob; 3]) {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blobs = [1, 2, 3].map(|seed| registry.put(&noise(seed, 10_000)).unwrap());
    for (name, blob) in ["one", "two", "three"].into_iter().zip(&blobs) {
        registry.track_file(name, blob).unwrap();
    }
    registry.commit("Add files", DATE).unwrap();
    for name in ["one", "two"] {
        succeed(sandbox.dvcfs(["cat"]).arg(registry.repository()).arg(name));
    }
    let foreign = sandbox.cache().join(blobs[2].path());
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, noise(3, 10_000)).unwrap();
    (sandbox, blobs)
}

fn info(sandbox: &Sandbox) -> serde_json::Value {
    serde_json::from_str(&text(&mut sandbox.dvcfs(["cache", "info", "--json"]))).unwrap()
}

#[test]
fn info_tells_ours_from_those_of_others() {
    let (sandbox, _) = filled();
    let told = info(&sandbox);
    assert_eq!((told["blobs"].as_u64(), told["bytes"].as_u64()), (Some(2), Some(20_000)));
    assert_eq!(told["foreign_blobs"].as_u64(), Some(1), "{told}");
    let shown = text(&mut sandbox.dvcfs(["cache", "info", "--cache-size", "1G"]));
    for part in ["blobs      2 (19.53 KiB)", "of others  1 (9.77 KiB), never evicted", "1.00 GiB"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

#[test]
fn check_finds_what_is_damaged_and_removes_what_is_ours_of_it() {
    let (sandbox, [one, _, three]) = filled();
    assert_eq!(
        text(&mut sandbox.dvcfs(["cache", "check"])),
        "3 blobs checked (29.30 KiB), 0 damaged, 0 removed"
    );
    for blob in [&one, &three] {
        let path = sandbox.cache().join(blob.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path, noise(9, 10_000)).unwrap();
    }
    let checked = output(&mut sandbox.dvcfs(["cache", "check"]));
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(7), "{said}");
    for blob in [&one, &three] {
        assert!(said.contains(&format!("damaged  {}\n", blob.path())), "{said}");
    }
    assert!(said.ends_with("3 blobs checked (29.30 KiB), 2 damaged, 0 removed\n"), "{said}");
}

#[test]
fn gc_makes_room_of_ours_alone() {
    let (sandbox, [one, two, three]) = filled();
    let is_there = |blob: &Blob| sandbox.cache().join(blob.path()).exists();
    assert_eq!(text(&mut sandbox.dvcfs(["cache", "gc"])), "0 B freed");
    assert_eq!(text(&mut sandbox.dvcfs(["cache", "gc", "--size", "10K"])), "9.77 KiB freed");
    assert_eq!([&one, &two].into_iter().filter(|blob| is_there(blob)).count(), 1);
    assert_eq!(text(&mut sandbox.dvcfs(["cache", "gc", "--older-than", "1d"])), "0 B freed");
    assert_eq!(text(&mut sandbox.dvcfs(["cache", "gc", "--all"])), "9.77 KiB freed");
    assert!(!is_there(&one) && !is_there(&two) && is_there(&three));
}

/// A sandbox with everything of two revisions in the cache, each a tracked folder of two files; one
/// file is in both.
fn two_revisions() -> (Sandbox, RegistryBuilder, [Blob; 3]) {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blobs = [1, 2, 3].map(|seed| registry.put(&noise(seed, 10_000)).unwrap());
    let [old, both, new] = blobs;
    registry.track_folder("data", &[("a", old), ("b", both)]).unwrap();
    registry.commit("Begin", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    registry.track_folder("data", &[("a", new), ("b", both)]).unwrap();
    registry.commit("Change", DATE).unwrap();
    for (revision, name) in [("v1", "a"), ("v1", "b"), ("main", "a")] {
        let path = format!("data/{name}");
        let mut cat = sandbox.dvcfs(["cat", "--rev", revision]);
        succeed(cat.arg(registry.repository()).arg(path));
    }
    (sandbox, registry, blobs)
}

fn gc_keeping(sandbox: &Sandbox, registry: &RegistryBuilder, args: &[&str]) -> Command {
    let mut gc = sandbox.dvcfs(["cache", "gc"]);
    gc.arg(registry.repository()).args(args);
    gc
}

#[test]
fn gc_keeps_what_revisions_name() {
    let (sandbox, registry, blobs) = two_revisions();
    let there = || blobs.map(|blob| sandbox.cache().join(blob.path()).exists());
    assert_eq!(there(), [true; 3]);
    let both = ["--keep", "main", "--keep", "v1"];
    assert_eq!(text(&mut gc_keeping(&sandbox, &registry, &both)), "0 B freed");
    let aged = ["--keep", "v1", "--older-than", "1d"];
    assert_eq!(text(&mut gc_keeping(&sandbox, &registry, &aged)), "0 B freed");
    succeed(&mut gc_keeping(&sandbox, &registry, &["--keep", "v1"]));
    assert_eq!(there(), [true, true, false]);
    // One of the other revision goes; what is kept stays even if the cache is too large then.
    succeed(&mut gc_keeping(&sandbox, &registry, &["--keep", "main", "--size", "0"]));
    assert_eq!(there(), [false, true, false]);
}

#[test]
fn gc_fetches_the_manifests_of_what_it_keeps_and_removes_nothing_without_them() {
    let (sandbox, registry, blobs) = two_revisions();
    let there = || blobs.map(|blob| sandbox.cache().join(blob.path()).exists());
    let forget_manifests = || {
        fs::remove_dir_all(sandbox.path("state")).unwrap();
        for shard in fs::read_dir(sandbox.cache().join("files/md5")).unwrap() {
            for file in fs::read_dir(shard.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "dir") {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    };
    forget_manifests();
    succeed(&mut gc_keeping(&sandbox, &registry, &["--keep", "main"]));
    assert_eq!(there(), [false, true, true]);
    forget_manifests();
    lose_manifests(&registry);
    let refused = output(&mut gc_keeping(&sandbox, &registry, &["--keep", "v1"]));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.starts_with("error: nothing is removed: keep v1: "), "{said}");
    assert_eq!(there(), [false, true, true]);
    let refused = output(&mut gc_keeping(&sandbox, &registry, &["--keep", "nowhere"]));
    assert_eq!(refused.status.code(), Some(3));
}
