//! Caches that are too small for what is read through them, or that hold more than anybody would
//! wait for.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    registry_builder::{Blob, RegistryBuilder},
    support::{
        DATE, Mount, Sandbox, eventually, in_each_open_mode, noise, registry_on_disk,
        registry_on_s3, succeed,
    },
};

in_each_open_mode! {
    a_working_set_larger_than_the_cache_is_right_and_keeps_its_limit,
}

const FILES: u64 = 60;
const SIZE: usize = 200_000;

/// A quarter of all files.
const LIMIT: u64 = FILES * SIZE as u64 / 4;

fn registry(sandbox: &Sandbox) -> (RegistryBuilder, Vec<Blob>) {
    let registry = registry_on_disk(sandbox);
    let blobs: Vec<_> = (0..FILES).map(|n| registry.put(&noise(n, SIZE)).unwrap()).collect();
    let names: Vec<_> = (0..FILES).map(|n| n.to_string()).collect();
    let files: Vec<_> = names.iter().map(String::as_str).zip(blobs.iter().copied()).collect();
    registry.track_folder("data", &files).unwrap();
    registry.commit("Add files", DATE).unwrap();
    (registry, blobs)
}

fn mount(sandbox: &Sandbox, registry: &RegistryBuilder, args: &[&str]) -> Mount {
    let limit = LIMIT.to_string();
    let args = [&["--rev", "main", "--cache-size", &limit, "--min-free", "0"], args].concat();
    sandbox.mount_with(registry.repository(), &args)
}

fn assert_is_read(mount: &Path, n: u64) {
    assert!(fs::read(mount.join("data").join(n.to_string())).unwrap() == noise(n, SIZE), "{n}");
}

/// The files below a folder and their bytes; those that come or go meanwhile are there or not.
fn files_below(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    let files = found.map(|(path, metadata)| {
        let is_folder = metadata.is_dir();
        if is_folder { files_below(&path) } else { BTreeMap::from([(path, metadata.len())]) }
    });
    files.flatten().collect()
}

/// Looks at the cache of a mount as long as something else goes on: it never holds more than its
/// limit. The daemon is stopped for each look, or that would find what comes and what went for it.
fn watched(mount: &Mount, cache: &Path, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                mount.signal(Signal::STOP);
                most = most.max(settled(&cache.join("files")));
                mount.signal(Signal::CONT);
                thread::park_timeout(Duration::from_millis(20));
            }
            most
        });
        let ends = Ends(&is_over);
        work();
        drop(ends);
        let most = watching.join().unwrap();
        assert!(most > LIMIT / 4, "no more than {most} bytes were cached");
        assert!(most <= LIMIT, "{most} bytes were cached of {LIMIT}");
    });
}

/// The bytes of the files below a folder as soon as two looks find the same.
fn settled(folder: &Path) -> u64 {
    let mut before = files_below(folder);
    loop {
        let now = files_below(folder);
        if now == before {
            return now.values().sum();
        }
        before = now;
    }
}

/// Says that it is over, also when that was a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn a_working_set_larger_than_the_cache_is_right_and_keeps_its_limit() {
    let sandbox = Sandbox::new();
    let (registry, _) = registry(&sandbox);
    let mount = mount(&sandbox, &registry, &[]);
    watched(&mount, &sandbox.cache(), || {
        thread::scope(|scope| {
            for reader in 0..4 {
                let dir = mount.dir();
                // Each in an order of its own.
                scope.spawn(move || {
                    (0..2 * FILES).for_each(|n| assert_is_read(dir, n * (2 * reader + 7) % FILES));
                });
            }
        });
    });
    assert!(mount.counter("evictions") > 0);
    // One at the start, and none for all the blobs that came and went.
    assert_eq!(mount.counter("cache_scans"), 1);
}

/// Of each of several daemons.
const READERS: u64 = 2;

#[test]
fn several_daemons_share_a_small_cache_while_it_is_cleared_and_one_is_killed() {
    let sandbox = Sandbox::new();
    let (registry, _) = registry(&sandbox);
    let modes = ["served", "no-open", "auto"];
    let mounts = modes.map(|mode| mount(&sandbox, &registry, &["--open-mode", mode]));
    let doomed = mount(&sandbox, &registry, &[]);
    let doomed_dir = doomed.dir().to_owned();
    let is_over = AtomicBool::new(false);
    let reads_of_the_doomed = AtomicU64::new(0);
    thread::scope(|scope| {
        let ends = Ends(&is_over);
        let clearing = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                succeed(&mut sandbox.dvcfs(["cache", "gc", "--size", "1M"]));
            }
        });
        let dying = scope.spawn(|| {
            for n in 0.. {
                let path = doomed_dir.join("data").join((n % FILES).to_string());
                match fs::read(path) {
                    Ok(bytes) => assert!(bytes == noise(n % FILES, SIZE), "{n}"),
                    Err(_) => return,
                }
                reads_of_the_doomed.fetch_add(1, Ordering::Relaxed);
            }
        });
        let readers: Vec<_> = mounts
            .iter()
            .zip(0..)
            .flat_map(|(mount, at)| (0..READERS).map(move |n| (mount, at + 10 * n)))
            .map(|(mount, seed)| {
                scope.spawn(move || {
                    (0..2 * FILES)
                        .for_each(|n| assert_is_read(mount.dir(), n * (2 * seed + 7) % FILES));
                })
            })
            .collect();
        let enough = || reads_of_the_doomed.load(Ordering::Relaxed) >= FILES / 2;
        eventually("the doomed one is at work", enough);
        let dead = doomed.kill();
        dying.join().unwrap();
        drop(dead);
        for reader in readers {
            reader.join().unwrap();
        }
        drop(ends);
        clearing.join().unwrap();
    });
    succeed(&mut sandbox.dvcfs(["cache", "check"]));
    let cached: u64 = files_below(&sandbox.cache().join("files")).values().sum();
    // A scan cannot tell what was under way in another daemon meanwhile.
    let under_way = (READERS * mounts.len() as u64 + 1) * SIZE as u64;
    assert!(cached > 0 && cached <= LIMIT + under_way, "{cached} bytes are cached of {LIMIT}");
}

/// A folder that cannot be listed is a scan that does not end: here it is one of a mount whose
/// daemon is stopped.
#[test]
fn a_mount_answers_and_makes_room_before_its_cache_was_scanned() {
    let sandbox = Sandbox::new();
    let (registry, blobs) = registry(&sandbox);
    let filled = mount(&sandbox, &registry, &[]);
    (0..FILES / 2).for_each(|n| assert_is_read(filled.dir(), n));
    drop(filled);
    // The last folder that a scan comes to; no blob lies there.
    let last = sandbox.cache().join("ff");
    let stopped = mount(&sandbox, &registry, &[]);
    assert!(!last.exists() && blobs.len() as u64 == FILES);
    symlink(stopped.path("data"), &last).unwrap();
    stopped.signal(Signal::STOP);
    let fresh = mount(&sandbox, &registry, &[]);
    for n in FILES / 2..FILES {
        assert_is_read(fresh.dir(), n);
    }
    stopped.signal(Signal::CONT);
}

const MD5_OF_A_GIGABYTE_OF_ZEROS: &str = "cd573cfaace07e7949bc0c46028904ff";

#[test]
fn a_gigabyte_is_read_in_little_memory_past_a_small_cache() {
    const MEMORY: u64 = 64 << 20;
    let sandbox = Sandbox::new();
    let (registry, _server) = registry_on_s3(&sandbox);
    let zeros = sandbox.path("zeros");
    File::create(&zeros).unwrap().set_len(1 << 30).unwrap();
    let digest = dvcfs::id::parse_digest(MD5_OF_A_GIGABYTE_OF_ZEROS).unwrap();
    registry.track_file("large", &registry.put_known(&zeros, digest).unwrap()).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let args = ["--rev", "main", "--memory-limit", "64M", "--cache-size", "16M", "--min-free", "0"];
    let mount = sandbox.mount_with(registry.repository(), &args);
    let before = resident(&mount);
    let mut file = File::open(mount.path("large")).unwrap();
    let (mut piece, mut all) = (vec![1; 1 << 20], 0);
    let nothing = vec![0; piece.len()];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => break,
            count => {
                assert!(piece[..count] == nothing[..count], "at {all}");
                all += count;
            }
        }
    }
    assert_eq!(all, 1 << 30);
    let grown = resident(&mount).saturating_sub(before);
    assert!(grown <= MEMORY + MEMORY / 4, "{grown} bytes more are resident");
}

fn resident(mount: &Mount) -> u64 {
    let stats = fs::read(mount.path(".dvcfs/stats")).unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
    stats["process"]["resident_bytes"].as_u64().unwrap()
}
