//! What reading for the first time costs, in requests and bytes: counts, which no machine changes.

use std::{
    fs::{self, File},
    io::{Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
};

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, Gate, Request, S3Server},
    support::{DATE, EIO, Mount, Sandbox, eventually, in_each_open_mode, noise, registry_on_s3},
};

in_each_open_mode! {
    a_cold_file_of_up_to_a_mebibyte_is_one_request,
    the_beginning_and_the_end_of_a_gigabyte_are_a_request_each,
    scattered_reads_fetch_little_more_than_they_ask,
    a_large_file_read_in_order_comes_in_few_requests_and_once,
    files_opened_in_order_are_fetched_ahead_and_once,
    a_large_file_is_read_in_little_memory_past_a_small_cache,
    a_large_file_is_right_whatever_the_server_does_for_a_while,
}

const MD5_OF_A_GIGABYTE_OF_ZEROS: &str = "cd573cfaace07e7949bc0c46028904ff";

/// Requests for blobs; manifests are none.
fn blobs_asked(server: &S3Server) -> Vec<Request> {
    let log = server.log().into_iter();
    log.filter(|request| !request.path.ends_with(".dir")).collect()
}

/// A registry with one folder of small files and nothing else, mounted; their sizes are unknown.
fn clips(sandbox: &Sandbox, count: u64) -> (S3Server, Mount) {
    let (registry, server) = registry_on_s3(sandbox);
    let names: Vec<_> = (0..count).map(|n| format!("{n:03}.wav")).collect();
    let files: Vec<_> = (0..count).map(|n| registry.put(&noise(n, CLIP)).unwrap()).collect();
    let files: Vec<_> = names.iter().map(String::as_str).zip(files).collect();
    registry.track_folder("clips", &files).unwrap();
    registry.commit("Add clips", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    (server, mount)
}

const CLIP: usize = 40_000;

fn read_clip(mount: &Mount, n: u64) {
    assert!(fs::read(mount.path(format!("clips/{n:03}.wav"))).unwrap() == noise(n, CLIP), "{n}");
}

fn a_cold_file_of_up_to_a_mebibyte_is_one_request() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let blobs: Vec<_> =
        [1 << 20, 300_000].map(|size| registry.put(&noise(9, size)).unwrap()).into();
    registry.track_folder("folder", &[("unknown", blobs[0])]).unwrap();
    registry.track_file("known", &blobs[1]).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    for (name, size) in [("folder/unknown", 1 << 20), ("known", 300_000)] {
        server.reset();
        assert!(fs::read(mount.path(name)).unwrap() == noise(9, size));
        assert_eq!(blobs_asked(&server).len(), 1, "{name}: {:?}", server.log());
    }
}

/// A registry with a file of a gigabyte of zeros, mounted.
fn gigabyte(sandbox: &Sandbox, args: &[&str]) -> (S3Server, Mount) {
    let (registry, server) = registry_on_s3(sandbox);
    let zeros = sandbox.path("zeros");
    File::create(&zeros).unwrap().set_len(1 << 30).unwrap();
    let digest = dvcfs::id::parse_digest(MD5_OF_A_GIGABYTE_OF_ZEROS).unwrap();
    let blob = registry.put_known(&zeros, digest).unwrap();
    registry.track_file("long.wav", &blob).unwrap();
    registry.commit("Add a long recording", DATE).unwrap();
    let args = [&["--rev", "main"], args].concat();
    let mount = sandbox.mount_with(registry.repository(), &args);
    server.reset();
    (server, mount)
}

fn the_beginning_and_the_end_of_a_gigabyte_are_a_request_each() {
    let sandbox = Sandbox::new();
    let (server, mount) = gigabyte(&sandbox, &[]);
    let mut piece = vec![1; 64 << 10];
    File::open(mount.path("long.wav")).unwrap().read_exact(&mut piece).unwrap();
    assert!(piece.iter().all(|byte| *byte == 0));
    // Whatever else came of it would be here by the time of the second.
    let file = File::open(mount.path("long.wav")).unwrap();
    for length in [22, 64 << 10] {
        file.read_exact_at(&mut piece[..length], (1 << 30) - length as u64).unwrap();
    }
    assert_eq!(server.requests("GET"), 2, "{:?}", server.log());
    assert!(server.bytes_sent() <= (1 << 20) + (512 << 10), "{} bytes", server.bytes_sent());
}

fn scattered_reads_fetch_little_more_than_they_ask() {
    let sandbox = Sandbox::new();
    let (server, mount) = gigabyte(&sandbox, &[]);
    let file = File::open(mount.path("long.wav")).unwrap();
    let mut piece = vec![1; 128 << 10];
    for n in 0..64 {
        let at = (n * 397 % 1021 + 1) * (1 << 20) + 12_345;
        file.read_exact_at(&mut piece, at).unwrap();
        assert!(piece.iter().all(|byte| *byte == 0));
    }
    let requests = server.requests("GET");
    assert!((64..=72).contains(&requests), "{requests} requests: {:?}", server.log());
    assert!(server.bytes_sent() <= 24 << 20, "{} bytes", server.bytes_sent());
}

/// A registry with one large file, mounted.
fn large(sandbox: &Sandbox, size: usize, args: &[&str]) -> (RegistryBuilder, S3Server, Mount) {
    let (registry, server) = registry_on_s3(sandbox);
    registry.track_file("large", &registry.put(&noise(3, size)).unwrap()).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let args: Vec<_> = ["--rev", "main"].iter().chain(args).copied().collect();
    let mount = sandbox.mount_with(registry.repository(), &args);
    server.reset();
    (registry, server, mount)
}

fn a_large_file_read_in_order_comes_in_few_requests_and_once() {
    const SIZE: usize = 48 << 20;
    let sandbox = Sandbox::new();
    let (_registry, server, mount) = large(&sandbox, SIZE, &[]);
    assert!(fs::read(mount.path("large")).unwrap() == noise(3, SIZE));
    assert_eq!(server.bytes_sent(), SIZE as u64);
    assert!(server.requests("GET") <= 32, "{:?}", server.log());
}

fn files_opened_in_order_are_fetched_ahead_and_once() {
    const COUNT: u64 = 60;
    let sandbox = Sandbox::new();
    let (server, mount) = clips(&sandbox, COUNT);
    (0..10).for_each(|n| read_clip(&mount, n));
    eventually("the next files are fetched", || blobs_asked(&server).len() > 10);
    (10..COUNT).for_each(|n| read_clip(&mount, n));
    assert_eq!(blobs_asked(&server).len(), COUNT as usize, "{:?}", server.log());
}

#[test]
fn going_through_folders_in_order_fetches_ahead_beyond_their_ends() {
    const FOLDERS: u64 = 4;
    const EACH: u64 = 30;
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let name = |n| format!("{}/{:02}.wav", n / EACH, n % EACH);
    let names: Vec<_> = (0..FOLDERS * EACH).map(name).collect();
    let blobs = (0..FOLDERS * EACH).map(|n| registry.put(&noise(n, CLIP)).unwrap());
    let files: Vec<_> = names.iter().map(String::as_str).zip(blobs).collect();
    registry.track_folder("clips", &files).unwrap();
    registry.commit("Add clips", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    let read = |n: u64| {
        let path = mount.path("clips").join(&names[n as usize]);
        assert!(fs::read(path).unwrap() == noise(n, CLIP), "{n}");
    };
    (0..EACH).for_each(read);
    assert!(blobs_asked(&server).len() <= EACH as usize, "nobody went on: {:?}", server.log());
    read(EACH);
    eventually("the next files are fetched", || blobs_asked(&server).len() > EACH as usize + 1);
    (EACH + 1..FOLDERS * EACH).for_each(read);
    assert_eq!(blobs_asked(&server).len(), names.len(), "{:?}", server.log());
}

#[test]
fn files_opened_in_any_other_order_are_fetched_when_they_are_read() {
    const COUNT: u64 = 59;
    let sandbox = Sandbox::new();
    let (server, mount) = clips(&sandbox, COUNT);
    for n in 0..COUNT {
        assert_eq!(blobs_asked(&server).len(), n as usize, "{:?}", server.log());
        read_clip(&mount, n * 23 % COUNT);
    }
    assert_eq!(blobs_asked(&server).len(), COUNT as usize);
}

#[test]
fn several_programs_that_open_files_of_one_folder_are_no_listing_of_it() {
    const COUNT: u64 = 59;
    const READERS: u64 = 8;
    let sandbox = Sandbox::new();
    let (server, mount) = clips(&sandbox, COUNT);
    read_clip(&mount, 50);
    let gate = Gate::new();
    let held = gate.clone();
    server.set_rule(move |_| Some(Fault::Stall(held.clone())));
    thread::scope(|scope| {
        for n in 0..READERS {
            let mount = &mount;
            scope.spawn(move || read_clip(mount, n * 23 % COUNT));
        }
        let all = 1 + READERS as usize;
        eventually("all are asked for", || blobs_asked(&server).len() == all);
        gate.open();
    });
    let asked = blobs_asked(&server);
    assert!(asked.len() == 1 + READERS as usize && server.requests("HEAD") == 0, "{asked:?}");
}

fn a_large_file_is_read_in_little_memory_past_a_small_cache() {
    const SIZE: usize = 24 << 20;
    let sandbox = Sandbox::new();
    let small = ["--memory-limit", "16M", "--cache-size", "6M", "--min-free", "0"];
    let (_registry, _server, mount) = large(&sandbox, SIZE, &small);
    for _ in 0..2 {
        assert!(fs::read(mount.path("large")).unwrap() == noise(3, SIZE));
    }
}

#[test]
fn a_gigabyte_is_read_in_64_mebibytes_of_memory_past_a_cache_of_16() {
    let sandbox = Sandbox::new();
    let small = ["--memory-limit", "64M", "--cache-size", "16M", "--min-free", "0"];
    let (server, mount) = gigabyte(&sandbox, &small);
    let mut file = File::open(mount.path("long.wav")).unwrap();
    assert_eq!(zeros_in(&mut file), 1 << 30);
    let (sent, peak) = (server.bytes_sent(), mount.peak_memory());
    assert!(sent <= (1 << 30) + (64 << 20), "{sent} bytes were fetched");
    assert!(peak <= (64 << 20) + PROGRAM, "{peak} bytes of memory");
}

#[test]
fn sixty_four_readers_share_one_budget_of_memory() {
    const READERS: u64 = 64;
    const EACH: u64 = 2 << 20;
    let sandbox = Sandbox::new();
    let (server, mount) = gigabyte(&sandbox, &["--memory-limit", "32M"]);
    thread::scope(|scope| {
        for reader in 0..READERS {
            let mut file = File::open(mount.path("long.wav")).unwrap();
            scope.spawn(move || {
                file.seek(SeekFrom::Start(reader * ((1 << 30) / READERS))).unwrap();
                assert_eq!(zeros_in(&mut file.take(EACH)), EACH);
            });
        }
    });
    let (sent, peak) = (server.bytes_sent(), mount.peak_memory());
    assert!(sent <= READERS * 4 * EACH, "{sent} bytes were fetched");
    assert!(peak <= (32 << 20) + PROGRAM, "{peak} bytes of memory");
}

/// What the daemon takes beside the bytes of files: itself, buffers of the kernel's requests.
const PROGRAM: u64 = 96 << 20;

/// Reads to the end; gives how many bytes there were, all of them 0.
fn zeros_in(source: &mut impl Read) -> u64 {
    let (mut count, mut piece) = (0, vec![1; 1 << 20]);
    loop {
        let length = source.read(&mut piece).unwrap();
        assert!(piece[..length].iter().all(|byte| *byte == 0), "from {count} on");
        match length {
            0 => return count,
            length => count += length as u64,
        }
    }
}

fn read_in_vain(path: &Path) -> Option<i32> {
    fs::read(path).err().and_then(|error| error.raw_os_error())
}

fn a_large_file_is_right_whatever_the_server_does_for_a_while() {
    const SIZE: usize = 9 << 20;
    let troubles: [&[Fault]; 6] = [
        &[Fault::Cut(100_000), Fault::Cut(1_000_000), Fault::Cut(0)],
        &[Fault::Status(503, "SlowDown"), Fault::Status(500, "InternalError")],
        &[Fault::IgnoreRange],
        &[Fault::ShiftRange, Fault::ShiftRange],
        &[Fault::Longer(7), Fault::Longer(100_000)],
        &[Fault::Page, Fault::Delay(50)],
    ];
    for faults in troubles {
        let sandbox = Sandbox::new();
        let (_registry, server, mount) = large(&sandbox, SIZE, &[]);
        server.fail_next(faults.to_vec());
        match fs::read(mount.path("large")) {
            Ok(bytes) => assert!(bytes == noise(3, SIZE), "{faults:?}"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(EIO), "{faults:?}: {error}"),
        }
        server.heal();
        assert!(fs::read(mount.path("large")).unwrap() == noise(3, SIZE), "{faults:?}");
    }
}

#[test]
fn a_server_that_fails_for_ever_is_an_error_until_it_is_well_again() {
    const SIZE: usize = 9 << 20;
    const EACCES: i32 = 13;
    let sandbox = Sandbox::new();
    let (_registry, server, mount) = large(&sandbox, SIZE, &[]);
    for (fault, errno) in [
        (Fault::Status(503, "SlowDown"), EIO),
        (Fault::Status(400, "ExpiredToken"), EACCES),
        (Fault::Cut(1000), EIO),
    ] {
        server.fail_always(fault.clone());
        assert_eq!(read_in_vain(&mount.path("large")), Some(errno), "{fault:?}");
    }
    server.heal();
    assert!(fs::read(mount.path("large")).unwrap() == noise(3, SIZE));
}
