//! Disks of the cache that fail under a reader, or lose what they had not written yet. They cost
//! time, never a byte.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rustix::mount::{UnmountFlags, unmount};

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, Gate, S3Server},
    support::{DATE, Mount, Sandbox, eventually, noise, output, registry_on_s3},
};

const LARGE: usize = 24 << 20;
const SMALL: usize = 300_000;
const FEW: u64 = 20;

/// A disk for the cache of a sandbox alone. Only root can make one.
struct Disk(PathBuf);

impl Disk {
    /// One in memory, of so many bytes.
    fn in_memory(sandbox: &Sandbox, bytes: u64) -> Option<Self> {
        let dir = sandbox.folder("cache");
        let size = format!("size={bytes}");
        mounts(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir))
            .then_some(Self(dir))
    }

    /// One with a journal, in a file.
    fn in_file(sandbox: &Sandbox) -> Option<Self> {
        let image = image(sandbox);
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let is_made = mounts(Command::new("mkfs.ext4").arg("-qF").arg(&image));
        if is_made { Self::of(sandbox) } else { None }
    }

    /// The one in the file, as it is.
    fn of(sandbox: &Sandbox) -> Option<Self> {
        let dir = sandbox.folder("cache");
        mounts(Command::new("mount").args(["-o", "loop"]).arg(image(sandbox)).arg(&dir))
            .then_some(Self(dir))
    }

    /// Waits until nobody uses it any more.
    fn put_away(self) {
        let dir = std::mem::ManuallyDrop::new(self).0.clone();
        eventually("nobody uses the disk", || unmount(&dir, UnmountFlags::empty()).is_ok());
    }

    /// Cuts the power: what was not written yet never will be, and everything fails.
    fn lose_power(&self) {
        // EXT4_IOC_SHUTDOWN without flushing the journal.
        let script = "import fcntl, os, struct, sys; \
             fcntl.ioctl(os.open(sys.argv[1], 0), 0x8004587d, struct.pack('I', 2))";
        let cut = output(Command::new("python3").args(["-c", script]).arg(&self.0));
        assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it keeps it.
        _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn image(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("disk")
}

/// Runs what only root can do, and not everywhere.
fn mounts(command: &mut Command) -> bool {
    let output = output(command);
    if !output.status.success() {
        println!("not tested here: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// A registry with a large file and a few small ones.
fn registry(sandbox: &Sandbox) -> (RegistryBuilder, S3Server) {
    let (registry, server) = registry_on_s3(sandbox);
    registry.track_file("large", &registry.put(&noise(1, LARGE)).unwrap()).unwrap();
    for n in 0..FEW {
        let blob = registry.put(&noise(100 + n, SMALL)).unwrap();
        registry.track_file(&format!("small-{n}"), &blob).unwrap();
    }
    registry.commit("Add files", DATE).unwrap();
    (registry, server)
}

fn mount(sandbox: &Sandbox, registry: &RegistryBuilder) -> Mount {
    sandbox.mount_with(registry.repository(), &["--rev", "main", "--min-free", "0"])
}

/// Has whatever begins in the second half of the large file wait.
fn hold_back_half(server: &S3Server) -> Gate {
    let gate = Gate::new();
    let held = gate.clone();
    server.reset();
    server.set_rule(move |request| {
        let first = request.range.as_deref()?.strip_prefix("bytes=")?.split('-').next()?;
        (first.parse::<usize>().ok()? >= LARGE / 2).then(|| Fault::Stall(held.clone()))
    });
    gate
}

fn assert_small_ones_are_read(mount: &Mount) {
    for n in 0..FEW {
        let bytes = fs::read(mount.path(format!("small-{n}"))).unwrap();
        assert!(bytes == noise(100 + n, SMALL), "{n}");
    }
}

/// Asserts that a reader gets every byte of a large file though its cache comes to harm when half
/// of the file has come, and that everything can be read afterwards.
fn survives(disk: impl FnOnce(&Sandbox) -> Option<Disk>, harm: impl FnOnce(&Disk)) {
    let sandbox = Sandbox::new();
    let Some(disk) = disk(&sandbox) else { return };
    let (registry, server) = registry(&sandbox);
    let mount = mount(&sandbox, &registry);
    let gate = hold_back_half(&server);
    let path = mount.path("large");
    let reader = thread::spawn(move || fs::read(path));
    eventually("half of the file has come", || server.bytes_sent() >= LARGE as u64 / 2);
    harm(&disk);
    gate.open();
    server.heal();
    assert!(reader.join().unwrap().unwrap() == noise(1, LARGE));
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    assert_small_ones_are_read(&mount);
    // It must be let go before its folder is.
    drop(mount);
}

#[test]
fn one_that_is_full() {
    survives(
        |sandbox| Disk::in_memory(sandbox, 64 << 20),
        |disk| {
            let mut filler = File::create(disk.0.join("filler")).unwrap();
            while filler.write_all(&[1; 4096]).is_ok() {}
        },
    );
}

#[test]
fn one_that_cannot_be_written_to_any_more() {
    survives(Disk::in_file, |disk| {
        // As the system does when it finds an error; it says that it failed.
        output(Command::new("mount").args(["-o", "remount,abort"]).arg(&disk.0));
        File::create(disk.0.join("new")).unwrap_err();
    });
}

#[test]
fn one_that_fails() {
    survives(Disk::in_file, Disk::lose_power);
}

#[test]
fn one_that_is_emptied() {
    survives(
        |sandbox| Disk::in_memory(sandbox, 64 << 20),
        |disk| {
            for entry in fs::read_dir(&disk.0).unwrap() {
                fs::remove_dir_all(entry.unwrap().path()).unwrap();
            }
        },
    );
}

#[test]
fn one_that_is_taken_away() {
    survives(
        |sandbox| Disk::in_memory(sandbox, 64 << 20),
        |disk| unmount(&disk.0, UnmountFlags::DETACH).unwrap(),
    );
}

/// A cut of power while small files come in and a large one is under way: whatever of them was on
/// the disk, and whatever the disk made of it.
#[test]
fn one_that_loses_power() {
    let sandbox = Sandbox::new();
    let Some(mut disk) = Disk::in_file(&sandbox) else { return };
    let (registry, server) = registry(&sandbox);
    for round in 1..=3 {
        let running = mount(&sandbox, &registry);
        let gate = hold_back_half(&server);
        let path = running.path("large");
        let reader = thread::spawn(move || fs::read(path));
        for n in 0..FEW / 3 * round {
            fs::read(running.path(format!("small-{n}"))).unwrap();
        }
        eventually("some of the large file is here", || is_begun(&disk.0));
        disk.lose_power();
        let dead = running.kill();
        reader.join().unwrap().unwrap_err();
        drop(dead);
        gate.open();
        server.heal();
        disk.put_away();
        disk = Disk::of(&sandbox).unwrap();
        let again = mount(&sandbox, &registry);
        assert!(fs::read(again.path("large")).unwrap() == noise(1, LARGE), "{round}");
        assert_small_ones_are_read(&again);
        drop(again);
        fs::remove_dir_all(disk.0.join("files")).unwrap();
    }
}

/// Whether a large file is under way in a cache.
fn is_begun(cache: &Path) -> bool {
    let partials = fs::read_dir(cache.join("dvcfs/partial")).into_iter().flatten().flatten();
    partials.filter_map(|entry| entry.metadata().ok()).any(|found| found.len() == LARGE as u64)
}
