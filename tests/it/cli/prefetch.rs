//! Filling the cache ahead.

use std::fs;

use super::said;
use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, S3Server},
    support::{DATE, Mount, Sandbox, eventually, noise, registry_on_s3, succeed},
};

const CLIPS: u64 = 20;
const CLIP: usize = 30_000;
const LARGE: usize = 9 << 20;

/// A registry with a folder of clips and a large file, and a branch with one clip more.
fn registry(sandbox: &Sandbox) -> (RegistryBuilder, S3Server) {
    let (registry, server) = registry_on_s3(sandbox);
    let track = |count: u64| {
        let names: Vec<_> = (0..count).map(|n| format!("{n:02}.wav")).collect();
        let blobs = (0..count).map(|n| registry.put(&noise(n, CLIP)).unwrap());
        let files: Vec<_> = names.iter().map(String::as_str).zip(blobs).collect();
        registry.track_folder("clips", &files).unwrap();
    };
    track(CLIPS);
    registry.track_file("large", &registry.put(&noise(1000, LARGE)).unwrap()).unwrap();
    registry.commit("Add files", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    track(CLIPS + 1);
    registry.commit("Add a clip", DATE).unwrap();
    (registry, server)
}

fn prefetch(sandbox: &Sandbox, place: &std::path::Path, args: &[&str]) -> String {
    said(sandbox, sandbox.dvcfs(["prefetch"]).arg(place).args(args))
}

fn assert_clips_are_read_without_a_request(mount: &Mount, folder: &str, server: &S3Server) {
    server.reset();
    for n in 0..CLIPS {
        let path = mount.path(format!("{folder}/clips/{n:02}.wav"));
        assert!(fs::read(path).unwrap() == noise(n, CLIP));
    }
    assert!(server.log().is_empty(), "{:?}", server.log());
}

#[test]
fn a_registry_is_prefetched_checked_and_evicted_without_a_mount() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry(&sandbox);
    let prefetch = |args: &[&str]| prefetch(&sandbox, registry.repository(), args);
    assert_eq!(prefetch(&["clips", "--check"]), "exit 1\n0 of 21 files cached\n");
    assert_eq!(prefetch(&["clips"]), "exit 0\n21 files fetched, 615.23 KiB; 0 cached before\n");
    assert_eq!(prefetch(&["clips", "--check"]), "exit 0\n21 of 21 files cached\n");
    server.reset();
    assert_eq!(prefetch(&["clips"]), "exit 0\n0 files fetched, 0 B; 21 cached before\n");
    assert!(server.log().is_empty(), "{:?}", server.log());
    assert_eq!(prefetch(&[]), "exit 0\n1 file fetched, 9.00 MiB; 21 cached before\n");
    let sent = server.bytes_sent();
    assert_eq!(sent, LARGE as u64, "the large file came once");
    assert_eq!(prefetch(&["large", "--evict"]), "exit 0\n1 file, 9.00 MiB freed\n");
    assert_eq!(prefetch(&["--check"]), "exit 1\n21 of 22 files cached\n");

    let list = sandbox.path("list");
    fs::write(&list, "clips/00.wav\nclips/01.wav\n").unwrap();
    let named = ["-f", list.to_str().unwrap(), "--rev", "v1"];
    assert_eq!(prefetch(&named), "exit 0\n0 files fetched, 0 B; 2 cached before\n");
}

#[test]
fn what_cannot_be_prefetched_is_said_with_its_exit_code() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry(&sandbox);
    let prefetch = |args: &[&str]| prefetch(&sandbox, registry.repository(), args);
    let absent = prefetch(&["clips/none.wav"]);
    assert!(absent.starts_with("exit 2\n") && absent.contains("clips/none.wav"), "{absent}");
    let outside = prefetch(&["../x"]);
    assert!(outside.starts_with("exit 2\n"), "{outside}");
    let no_list = prefetch(&["-f", "/nowhere"]);
    assert!(no_list.starts_with("exit 2\n"), "{no_list}");
    let unknown = prefetch(&["--rev", "nowhere"]);
    assert!(unknown.starts_with("exit 3\n"), "{unknown}");
    let too_large = prefetch(&["--cache-size", "5M", "--min-free", "0", "large"]);
    assert!(too_large.starts_with("exit 2\n"), "{too_large}");
    assert!(too_large.contains("--cache-size"), "{too_large}");

    server.set_rule(|request| {
        let is_blob = request.method == "GET" && !request.path.ends_with(".dir");
        is_blob.then_some(Fault::Status(404, "NoSuchKey"))
    });
    let missing = prefetch(&["clips"]);
    assert!(missing.contains("exit 4\n") && missing.contains("clips/"), "{missing}");
    server.heal();
    assert!(prefetch(&["clips"]).starts_with("exit 0\n"));
}

#[test]
fn the_daemon_of_a_mount_prefetches_for_the_command() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry(&sandbox);
    let mount = sandbox.mount(registry.repository());
    let prefetch = |args: &[&str]| prefetch(&sandbox, mount.dir(), args);
    assert_eq!(prefetch(&["main/clips", "--check"]), "exit 1\n0 of 21 files cached\n");
    assert_eq!(
        prefetch(&["tags/v1/clips"]),
        "exit 0\n20 files fetched, 585.94 KiB; 0 cached before\n"
    );
    assert_clips_are_read_without_a_request(&mount, "main", &server);
    let by_revision = prefetch(&["clips", "--rev", "main"]);
    assert_eq!(by_revision, "exit 0\n1 file fetched, 29.30 KiB; 20 cached before\n");
    let absent = prefetch(&["main/none"]);
    assert!(absent.starts_with("exit 2\n") && absent.contains("main/none"), "{absent}");
    let no_revision = prefetch(&["branches"]);
    assert!(no_revision.starts_with("exit 2\n"), "{no_revision}");
    assert_eq!(prefetch(&["main", "--evict"]), "exit 0\n22 files, 615.23 KiB freed\n");

    let one = sandbox.mount_with(registry.repository(), &["--rev", "v1"]);
    let said = super::said(&sandbox, sandbox.dvcfs(["prefetch"]).arg(one.dir()).arg("clips"));
    assert_eq!(said, "exit 0\n20 files fetched, 585.94 KiB; 0 cached before\n");
}

#[test]
fn a_mount_prefetches_by_itself_what_it_is_told_to() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry(&sandbox);
    let args = ["--prefetch", "main/clips", "--prefetch", "main/none"];
    let mount = sandbox.mount_with(registry.repository(), &args);
    eventually("the clips are cached", || {
        let clips = server.log().iter().filter(|r| !r.path.ends_with(".dir")).count() as u64;
        clips == CLIPS + 1 && mount.counter("in_flight") == 0
    });
    assert_clips_are_read_without_a_request(&mount, "main", &server);
    eventually("what is not there is logged", || mount.log().contains("main/none"));
}

#[test]
fn an_interrupted_prefetch_goes_on_where_it_was() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry(&sandbox);
    // The first requests are answered, the others not any more.
    let answered = std::sync::atomic::AtomicUsize::new(0);
    server.set_rule(move |_| {
        let number = answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (number > 8).then_some(Fault::Status(403, "AccessDenied"))
    });
    let failed = prefetch(&sandbox, registry.repository(), &[]);
    assert!(failed.contains("exit 5\n"), "{failed}");
    server.heal();
    server.reset();
    let done = prefetch(&sandbox, registry.repository(), &[]);
    assert!(done.starts_with("exit 0\n"), "{done}");
    assert!(server.bytes_sent() < (LARGE + CLIP * 21) as u64, "nothing was kept");
    succeed(&mut sandbox.dvcfs(["cache", "check"]));
}
