//! What a mount tells of its work: `.dvcfs/stats` and `dvcfs status`.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    thread,
};

use serde_json::Value;

use crate::{
    s3server::{Fault, Gate, S3Server},
    support::{
        DATE, Mount, Sandbox, eventually, noise, registry_on_s3, succeed, text, with_open_mode,
    },
};

const SMALL: usize = 10_000;
const LARGE: usize = 9 << 20;

/// A small and a large file in a bucket, mounted.
fn mounted(sandbox: &Sandbox) -> (S3Server, Mount) {
    let (registry, server) = registry_on_s3(sandbox);
    registry.track_file("small", &registry.put(&noise(1, SMALL)).unwrap()).unwrap();
    registry.track_file("large", &registry.put(&noise(2, LARGE)).unwrap()).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    (server, mount)
}

fn stats(mount: &Mount) -> Value {
    serde_json::from_slice(&fs::read(mount.path(".dvcfs/stats")).unwrap()).unwrap()
}

fn status(sandbox: &Sandbox, dir: &Path) -> Value {
    let mut command = sandbox.dvcfs(["status", "--json"]);
    serde_json::from_slice(&succeed(command.arg(dir))).unwrap()
}

fn count(stats: &Value, operation: &str) -> u64 {
    stats["latencies_ns"][operation]["count"].as_u64().unwrap()
}

#[test]
fn every_kind_of_request_is_counted_and_timed() {
    with_open_mode("served", || {
        let sandbox = Sandbox::new();
        let (server, mount) = mounted(&sandbox);
        let before = stats(&mount);
        assert_eq!(count(&before, "read_miss"), 0);
        assert_eq!(before["misses"], 0);
        assert!(fs::read_dir(mount.dir()).unwrap().count() > 2);
        assert!(fs::read(mount.path("small")).unwrap() == noise(1, SMALL));
        assert!(fs::read(mount.path("large")).unwrap() == noise(2, LARGE));
        let after = stats(&mount);
        for operation in ["lookup", "open", "read_hit", "read_miss"] {
            assert!(count(&after, operation) > count(&before, operation), "{operation}: {after:#}");
        }
        // These the kernel may know already.
        for operation in ["getattr", "readdir"] {
            assert!(count(&after, operation) > 0, "{operation}: {after:#}");
        }
        assert_eq!(after["misses"], 2);
        assert_eq!(count(&after, "remote"), after["remote_requests"].as_u64().unwrap());
        assert_eq!(after["remote_requests"], server.log().len());
        assert!(after["remote_bytes"].as_u64().unwrap() >= (SMALL + LARGE) as u64, "{after:#}");
        assert!(after["read_bytes"].as_u64().unwrap() >= (SMALL + LARGE) as u64, "{after:#}");
        for (operation, times) in after["latencies_ns"].as_object().unwrap() {
            let [p50, p90, p99, max] =
                ["p50", "p90", "p99", "max"].map(|name| times[name].as_u64().unwrap());
            assert_eq!(p50 == 0, count(&after, operation) == 0, "{operation}: {times}");
            assert!(p50 <= p90 && p90 <= p99 && p99 <= max, "{operation}: {times}");
        }
    });
}

#[test]
fn a_file_that_is_cached_is_a_hit() {
    let sandbox = Sandbox::new();
    let (_server, mount) = mounted(&sandbox);
    fs::read(mount.path("small")).unwrap();
    let misses = mount.counter("misses");
    drop(mount);
    let mount = sandbox.mount_with(sandbox.path("registry"), &["--rev", "main"]);
    fs::read(mount.path("small")).unwrap();
    assert_eq!((misses, mount.counter("misses")), (1, 0));
    assert!(mount.counter("hits") >= 1);
}

#[test]
fn downloads_and_requests_under_way_are_told_while_they_last() {
    with_open_mode("served", || {
        let sandbox = Sandbox::new();
        let (server, mount) = mounted(&sandbox);
        let gate = Gate::new();
        server.fail_always(Fault::Stall(gate.clone()));
        let file = mount.path("small");
        let reader = thread::spawn(move || fs::read(file).unwrap());
        eventually("somebody waits", || mount.counter("waiting") > 0);
        eventually("the download is under way", || mount.counter("in_flight") == 1);
        server.heal();
        gate.open();
        assert!(reader.join().unwrap() == noise(1, SMALL));
        eventually("nothing is under way", || {
            mount.counter("in_flight") == 0 && mount.counter("waiting") == 0
        });
    });
}

#[test]
fn status_tells_the_same_and_what_the_process_takes() {
    let sandbox = Sandbox::new();
    let (_server, mount) = mounted(&sandbox);
    let open: Vec<_> = (0..10).map(|_| File::open(mount.path("large")).unwrap()).collect();
    open[0].read_exact_at(&mut [0; 100], 0).unwrap();
    let told = status(&sandbox, mount.dir());
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&told[0]["stats"]), keys(&stats(&mount)));
    let process = &told[0]["stats"]["process"];
    let [memory, descriptors, limit] = ["resident_bytes", "descriptors", "descriptor_limit"]
        .map(|name| process[name].as_u64().unwrap());
    assert!((1 << 20..1 << 30).contains(&memory), "{process}");
    assert!(descriptors > 3 && descriptors < limit, "{process}");
    let said = text(sandbox.dvcfs(["status"]).arg(mount.dir()));
    for part in ["latency     lookup ", "process     ", " descriptors", "read        "] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
}

#[test]
fn contents_that_are_wrong_and_blobs_that_make_room_are_counted() {
    let sandbox = Sandbox::new().with("DVCFS_CACHE_SIZE", "50K");
    let (registry, _server) = registry_on_s3(&sandbox);
    for n in 0..8 {
        let blob = registry.put(&noise(n, 20_000)).unwrap();
        registry.track_file(&n.to_string(), &blob).unwrap();
    }
    let wrong = registry.put(b"right").unwrap();
    let object = registry.objects().join(wrong.path());
    fs::remove_file(&object).unwrap();
    fs::write(&object, "wrong").unwrap();
    registry.track_file("wrong", &wrong).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    for n in 0..8 {
        assert!(fs::read(mount.path(n.to_string())).unwrap() == noise(n, 20_000));
    }
    fs::read(mount.path("wrong")).unwrap_err();
    assert!(mount.counter("verification_failures") >= 1);
    eventually("blobs made room", || mount.counter("evictions") >= 4);
}
