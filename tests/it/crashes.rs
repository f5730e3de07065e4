//! Daemons that are killed, and mounts that come after them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use rustix::process::Signal;

use crate::{
    s3server::{Fault, Gate},
    support::{DATE, Fixture, Sandbox, eventually, is_mounted, noise, registry_on_s3, succeed},
};

#[test]
fn a_download_goes_on_where_a_killed_daemon_left_it() {
    const SIZE: usize = 32 << 20;
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let bytes = noise(3, SIZE);
    registry.track_file("big.bin", &registry.put(&bytes).unwrap()).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let gate = Gate::new();
    let (held, asked) = (gate.clone(), AtomicU64::new(0));
    // What begins in the second half waits until the daemon is dead.
    server.set_rule(move |request| {
        asked.fetch_add(1, Ordering::Relaxed);
        let first = request.range.as_deref()?.strip_prefix("bytes=")?.split('-').next()?;
        (first.parse::<usize>().ok()? >= SIZE / 2).then(|| Fault::Stall(held.clone()))
    });
    let mount = sandbox.mount(registry.repository());
    let dir = mount.dir().to_owned();
    let file = mount.path("main/big.bin");
    let reader = thread::spawn({
        let file = file.clone();
        move || fs::read(file)
    });
    eventually("half of the file has come", || server.bytes_sent() >= SIZE as u64 / 2);
    let partial = || cached_bytes(&sandbox.cache());
    eventually("most of that is on disk", || partial() >= SIZE as u64 / 4);
    let _dead = mount.kill();
    assert!(reader.join().unwrap().is_err(), "the reader got a whole file");

    server.heal();
    gate.open();
    server.reset();
    let again = sandbox.mount_at(&dir, registry.repository(), &[]);
    assert!(fs::read(file).unwrap() == bytes);
    let sent = server.bytes_sent();
    assert!(sent <= SIZE as u64 * 3 / 4, "{sent} bytes were sent again");
    drop(again);
}

/// How many bytes the files below a folder take on disk.
fn cached_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.map_while(Result::ok).map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => cached_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// The inode number of everything below a folder.
fn inodes(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        found.insert(entry.path(), metadata.ino());
        if metadata.is_dir() {
            found.extend(inodes(&entry.path()));
        }
    }
    found
}

#[test]
fn the_mount_after_a_crash_clears_the_dead_one_and_gives_every_inode_again() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read("audio-registry");
    let place = fixture.unpack(&sandbox);
    let mount = sandbox.mount(place.work_tree());
    let (dir, tags) = (mount.dir().to_owned(), mount.path("tags"));
    // In an order that is not the listing's, to make the numbers depend on it.
    let late = inodes(&mount.path("tags/v2.1"));
    let before = inodes(&tags);
    assert!(late.iter().all(|(path, ino)| before[path] == *ino));
    let _dead = mount.kill();
    assert!(is_mounted(&dir));
    assert!(rustix::fs::statfs(&dir).is_err(), "a dead mount answers");

    let again = sandbox.mount_at(&dir, place.work_tree(), &[]);
    assert_eq!(inodes(&tags), before);
    drop(again);
    assert!(!is_mounted(&dir));
}

#[test]
fn signals_and_umount_end_a_mount_well() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read("audio-registry");
    let place = fixture.unpack(&sandbox);
    for signal in [Signal::TERM, Signal::INT] {
        let mount = sandbox.mount(place.work_tree());
        mount.signal(signal);
        mount.wait();
    }
    let mount = sandbox.mount(place.work_tree());
    succeed(&mut sandbox.dvcfs(["umount".as_ref(), mount.dir().as_os_str()]));
    mount.wait();
}

#[test]
fn a_mount_in_the_background_answers_when_the_command_returns() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read("audio-registry");
    let place = fixture.unpack(&sandbox);
    let dir = sandbox.folder("background");
    let mut mount = sandbox.dvcfs(["mount"]);
    succeed(mount.arg(place.work_tree()).arg(&dir));
    let names = fs::read_dir(dir.join("tags")).unwrap().count();
    succeed(&mut sandbox.dvcfs(["umount".as_ref(), dir.as_os_str()]));
    assert_eq!(names, fixture.manifest.revisions.len());
    assert!(!is_mounted(&dir));
}
