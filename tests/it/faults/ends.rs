//! Ends that come while something is still open or under way.

use std::{
    fs::{self, File},
    mem,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, UnmountFlags},
    process::{Pid, Signal},
    thread::gettid,
};

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, Gate},
    support::{
        DATE, Mount, Sandbox, eventually, in_each_open_mode, is_mounted, noise, output,
        registry_on_disk, registry_on_s3, succeed, text,
    },
};

in_each_open_mode! {
    a_daemon_that_is_stopped_and_goes_on_answers_what_waited,
    an_aborted_connection_is_an_error_for_everybody_and_can_be_mounted_over,
    a_mount_that_is_detached_under_load_ends_when_its_readers_do,
    the_end_of_a_detached_mount_leaves_another_file_system_in_its_place,
    a_mount_point_that_another_namespace_removes_takes_the_mount_along,
}

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
fn a_dead_mount_is_forgotten_once_it_is_unmounted() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("text", "text\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let status = || text(&mut sandbox.dvcfs(["status"]));
    for options in [&["umount", "--lazy"][..], &["umount"]] {
        let mount = sandbox.mount(registry.repository());
        let dir = mount.dir().to_owned();
        let _dead = mount.kill();
        succeed(sandbox.dvcfs(options).arg(&dir));
        assert_eq!(status(), "nothing is mounted");
    }
    // Also where something else has unmounted it.
    let mount = sandbox.mount(registry.repository());
    let dir = mount.dir().to_owned();
    drop(mount.kill());
    assert!(!output(sandbox.dvcfs(["umount", "--lazy"]).arg(&dir)).status.success());
    assert_eq!(status(), "nothing is mounted");
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
    let output = output(&mut umount(&[]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(9), "{said}");
    assert!(said.starts_with("error: unmount ") && said.contains("--lazy"), "{said}");
    drop(file);
    succeed(&mut umount(&["--lazy"]));
    mount.wait();
}

/// A registry with many files, mounted, some of them read.
fn busy(sandbox: &Sandbox) -> (RegistryBuilder, Mount) {
    let registry = registry_on_disk(sandbox);
    let names: Vec<_> = (0..FILES).map(|n| format!("{n}")).collect();
    let blobs = names.iter().zip(0..).map(|(name, n)| (&name[..], registry.put(&noise(n, SIZE))));
    let blobs: Vec<_> = blobs.map(|(name, blob)| (name, blob.unwrap())).collect();
    registry.track_folder("data", &blobs).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    read_all(mount.dir(), 0..FILES / 2);
    (registry, mount)
}

const FILES: u64 = 40;
const SIZE: usize = 30_000;

fn read_all(dir: &Path, numbers: std::ops::Range<u64>) {
    for n in numbers {
        assert!(fs::read(dir.join("data").join(n.to_string())).unwrap() == noise(n, SIZE), "{n}");
    }
}

fn a_daemon_that_is_stopped_and_goes_on_answers_what_waited() {
    let sandbox = Sandbox::new();
    let (_registry, mount) = busy(&sandbox);
    let dir = mount.dir().to_owned();
    mount.signal(Signal::STOP);
    eventually("the daemon has stopped", || mount.is_stopped());
    thread::scope(|scope| {
        let (sender, readers) = mpsc::channel();
        for _ in 0..4 {
            let (sender, dir) = (sender.clone(), &dir);
            scope.spawn(move || {
                sender.send(gettid()).unwrap();
                read_all(dir, FILES / 2..FILES);
            });
        }
        for reader in readers.iter().take(4) {
            eventually("the reader waits", || waits_in_open(reader));
        }
        assert!(mount.is_stopped());
        mount.signal(Signal::CONT);
    });
    read_all(&dir, 0..FILES);
}

/// Whether a thread of this process waits for an open file.
fn waits_in_open(thread: Pid) -> bool {
    let path = format!("/proc/self/task/{}/syscall", thread.as_raw_nonzero());
    // Once it has read everything it is gone.
    let call = fs::read_to_string(path).unwrap_or_default();
    call.starts_with(&format!("{} ", libc::SYS_openat))
}

fn an_aborted_connection_is_an_error_for_everybody_and_can_be_mounted_over() {
    if !rustix::process::geteuid().is_root() {
        return println!("only root can abort a connection");
    }
    let sandbox = Sandbox::new();
    let (registry, mount) = busy(&sandbox);
    let dir = mount.dir().to_owned();
    let device = rustix::fs::minor(fs::metadata(&dir).unwrap().dev());
    let control = sandbox.folder("connections");
    rustix::mount::mount("none", &control, "fusectl", MountFlags::empty(), None).unwrap();
    let aborted = fs::write(control.join(device.to_string()).join("abort"), "1");
    rustix::mount::unmount(&control, UnmountFlags::empty()).unwrap();
    aborted.unwrap();
    assert!(fs::read(dir.join("data").join((FILES - 1).to_string())).is_err());
    mount.wait_for_code(1);
    let again = sandbox.mount_at(&dir, registry.repository(), &["--rev", "main"]);
    read_all(again.dir(), 0..FILES);
}

fn a_mount_that_is_detached_under_load_ends_when_its_readers_do() {
    let sandbox = Sandbox::new();
    let (registry, mount) = busy(&sandbox);
    let dir = mount.dir().to_owned();
    let folder = File::open(dir.join("data")).unwrap();
    let enough = AtomicBool::new(false);
    let again = thread::scope(|scope| {
        for reader in 0..4 {
            let (folder, enough) = (&folder, &enough);
            scope.spawn(move || {
                let mut round = reader;
                while !enough.load(Ordering::Relaxed) {
                    round += 1;
                    let name = (round % FILES).to_string();
                    // What is started meanwhile must not keep it open.
                    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                    let file = rustix::fs::openat(folder, &*name, flags, Mode::empty());
                    let mut bytes = vec![0; SIZE];
                    File::from(file.unwrap()).read_exact_at(&mut bytes, 0).unwrap();
                    assert!(bytes == noise(round % FILES, SIZE));
                }
            });
        }
        succeed(sandbox.dvcfs(["umount", "--lazy"]).arg(&dir));
        assert!(!is_mounted(&dir));
        let again = sandbox.mount_at(&dir, registry.repository(), &["--rev", "main"]);
        read_all(again.dir(), 0..FILES);
        enough.store(true, Ordering::Relaxed);
        again
    });
    drop(folder);
    mount.wait_detached();
    // What was mounted there meanwhile is not affected by its end.
    read_all(again.dir(), 0..FILES);
}

fn the_end_of_a_detached_mount_leaves_another_file_system_in_its_place() {
    if !rustix::process::geteuid().is_root() {
        return println!("only root can mount another file system");
    }
    let ends: [fn(&Mount, File); 2] = [
        |_, file| drop(file),
        |mount, file| {
            mount.signal(Signal::TERM);
            // Held until the daemon's patience ends.
            mem::forget(file);
        },
    ];
    for end in ends {
        let sandbox = Sandbox::new();
        let (_registry, mount) = busy(&sandbox);
        let dir = mount.dir().to_owned();
        let file = File::open(dir.join("data/0")).unwrap();
        succeed(sandbox.dvcfs(["umount", "--lazy"]).arg(&dir));
        rustix::mount::mount("none", &dir, "tmpfs", MountFlags::empty(), None).unwrap();
        end(&mount, file);
        mount.wait_detached();
        assert!(is_mounted(&dir));
        rustix::mount::unmount(&dir, UnmountFlags::empty()).unwrap();
    }
}

fn a_mount_point_that_another_namespace_removes_takes_the_mount_along() {
    if !rustix::process::geteuid().is_root() {
        return println!("only root can make a namespace");
    }
    let sandbox = Sandbox::new();
    let (registry, mount) = busy(&sandbox);
    let dir = mount.dir().to_owned();
    let file = File::open(dir.join("data/0")).unwrap();
    let mut elsewhere = sandbox.tool("unshare");
    elsewhere.args(["--mount", "sh", "-euc", "umount -l \"$0\" && rmdir \"$0\""]).arg(&dir);
    succeed(&mut elsewhere);
    assert!(!dir.exists());
    // Who has a file open reads on; the daemon ends when nobody has.
    let mut bytes = vec![0; SIZE];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(0, SIZE));
    drop(file);
    mount.wait();
    let again = sandbox.mount_at(&sandbox.folder(&dir), registry.repository(), &["--rev", "main"]);
    read_all(again.dir(), 0..FILES);
}
