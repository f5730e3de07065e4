//! Ends that come while something is still open or under way.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    thread,
};

use rustix::process::Signal;

use crate::{
    s3server::{Fault, Gate},
    support::{
        DATE, Sandbox, eventually, is_mounted, noise, registry_on_disk, registry_on_s3, succeed,
    },
};

const LARGE: usize = 9 << 20;

#[test]
fn sigterm_with_open_files_ends_cleanly() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blob = registry.put(&noise(1, LARGE)).unwrap();
    registry.track_file("file", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let mount = sandbox.mount(registry.repository());
    let dir = mount.dir().to_owned();
    let file = File::open(mount.path("main/file")).unwrap();
    let folder = File::open(mount.path("main")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    mount.signal(Signal::TERM);
    mount.wait();
    assert!(fs::read_dir(&dir).unwrap().next().is_none(), "the folder below is bare again");
    // What is still open is an error from now on, and nothing hangs.
    assert!(file.read_exact_at(&mut byte, LARGE as u64 - 1).is_err());
    drop((file, folder));
    let again = sandbox.mount_at(&dir, registry.repository(), &[]);
    assert!(fs::read(again.path("main/file")).unwrap() == noise(1, LARGE));
}

#[test]
fn sigterm_during_a_download_ends_it_and_its_readers() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let blob = registry.put(&noise(1, LARGE)).unwrap();
    registry.track_file("file", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let gate = Gate::new();
    server.fail_always(Fault::Stall(gate.clone()));
    let mount = sandbox.mount(registry.repository());
    let dir = mount.dir().to_owned();
    let path = mount.path("main/file");
    let reader = thread::spawn(move || fs::read(path));
    eventually("the download has begun", || !server.log().is_empty());
    mount.signal(Signal::TERM);
    mount.wait();
    assert!(reader.join().unwrap().is_err());
    gate.open();
    server.heal();
    let again = sandbox.mount_at(&dir, registry.repository(), &[]);
    assert!(fs::read(again.path("main/file")).unwrap() == noise(1, LARGE));
}

#[test]
fn a_daemon_killed_during_a_download_leaves_a_cache_that_is_right() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let blob = registry.put(&noise(1, LARGE)).unwrap();
    registry.track_file("file", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let gate = Gate::new();
    server.fail_always(Fault::Hang(100_000, gate.clone()));
    let mount = sandbox.mount(registry.repository());
    let dir = mount.dir().to_owned();
    let path = mount.path("main/file");
    let reader = thread::spawn(move || fs::read(path));
    eventually("a part has come", || server.bytes_sent() >= 100_000);
    let _dead = mount.kill();
    assert!(reader.join().unwrap().is_err());
    gate.open();
    server.heal();
    succeed(&mut sandbox.dvcfs(["cache", "check"]));
    assert!(is_mounted(&dir));
    let again = sandbox.mount_at(&dir, registry.repository(), &[]);
    assert!(fs::read(again.path("main/file")).unwrap() == noise(1, LARGE));
}

#[test]
fn umount_of_a_busy_mount_says_so_and_detaches_it_where_that_is_wanted() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("text", "text\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let mount = sandbox.mount(registry.repository());
    let file = File::open(mount.path("main/text")).unwrap();
    let umount = |args: &[&str]| {
        let mut command = sandbox.dvcfs(["umount"]);
        command.args(args).arg(mount.dir());
        command
    };
    let output = crate::support::output(&mut umount(&[]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.starts_with("error: unmount ") && said.contains("--lazy"), "{said}");
    drop(file);
    succeed(&mut umount(&["--lazy"]));
    mount.wait();
}
