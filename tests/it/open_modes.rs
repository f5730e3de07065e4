//! What every way to answer opens must stand, and which one is chosen.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rustix::{
    fs::{Advice, OFlags, fadvise},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::{
    registry_builder::RegistryBuilder,
    s3server::S3Server,
    support::{
        DATE, EIO, Mount, Sandbox, eventually, in_each_open_mode, noise, output, registry_on_disk,
        registry_on_s3, succeed, text,
    },
};

in_each_open_mode! {
    a_file_is_opened_while_another_reader_streams_it,
    a_blob_that_is_evicted_while_it_is_open_is_opened_again,
    thirty_thousand_files_are_opened_one_after_another_and_stay_open,
    a_file_is_read_past_the_page_cache,
    sixty_four_cold_files_are_read_at_once,
    sixty_four_readers_of_one_cold_file_cost_one_download,
}

const LARGE: usize = 20 << 20;

/// How a mount answers opens, and why so.
fn open_mode(sandbox: &Sandbox, mount: &Mount) -> (String, String) {
    let status = |args: &[&str]| text(sandbox.dvcfs(["status"]).args(args).arg(mount.dir()));
    let told: serde_json::Value = serde_json::from_str(&status(&["--json"])).unwrap();
    let word = |name: &str| told[0]["open_mode"][name].as_str().unwrap().to_owned();
    let (mode, why) = (word("mode"), word("why"));
    let line = format!("  open mode   {mode} ({why})");
    assert!(status(&[]).lines().any(|shown| shown == line), "no {line}");
    (mode, why)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A registry on S3 with one large file, mounted.
fn one_large_file(sandbox: &Sandbox) -> (S3Server, Mount) {
    let (registry, server) = registry_on_s3(sandbox);
    registry.track_file("large", &registry.put(&noise(1, LARGE)).unwrap()).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    (server, mount)
}

fn read_some(file: &File, offset: usize) {
    let mut bytes = vec![0; 100_000];
    file.read_exact_at(&mut bytes, offset as u64).unwrap();
    assert!(bytes == noise(1, LARGE)[offset..offset + bytes.len()]);
}

fn a_file_is_opened_while_another_reader_streams_it() {
    let sandbox = Sandbox::new();
    let (server, mount) = one_large_file(&sandbox);
    let first = File::open(mount.path("large")).unwrap();
    read_some(&first, 0);
    let second = File::open(mount.path("large")).unwrap();
    read_some(&second, LARGE - 100_000);
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    // Whole by now, and still as both have opened it.
    read_some(&first, 5_000_000);
    let third = File::open(mount.path("large")).unwrap();
    read_some(&third, 7_000_000);
    drop((first, second, third));
    let fourth = File::open(mount.path("large")).unwrap();
    fadvise(&fourth, 0, None, Advice::DontNeed).unwrap();
    read_some(&fourth, 9_000_000);
    assert_eq!(server.bytes_sent(), LARGE as u64);
}

fn a_blob_that_is_evicted_while_it_is_open_is_opened_again() {
    let sandbox = Sandbox::new();
    let (_server, mount) = one_large_file(&sandbox);
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    let open = File::open(mount.path("large")).unwrap();
    read_some(&open, 0);
    succeed(&mut sandbox.dvcfs(["cache", "gc", "--all"]));
    let again = File::open(mount.path("large")).unwrap();
    for file in [&open, &again] {
        fadvise(file, 0, None, Advice::DontNeed).unwrap();
        read_some(file, 3_000_000);
    }
    drop((open, again));
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
}

/// Opens the files of the folder that is its argument one after another, as many as two processes
/// may have open together, and then reads from each.
const OPEN_MANY: &str = r"
import os, resource, sys
folder, expected = sys.argv[1], int(sys.argv[2])
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
names = sorted(os.listdir(folder))
assert len(names) == expected, len(names)
def check(fd, name):
    assert os.pread(fd, 100, 0) == b'content %d' % (int(name) % 50), name
share = min(15000, limit - 100)
child = os.fork()
mine = names[:share] if child else names[-share:]
held = [(os.open(f'{folder}/{name}', os.O_RDONLY), name) for name in mine]
for fd, name in held:
    check(fd, name)
if child:
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
";

fn thirty_thousand_files_are_opened_one_after_another_and_stay_open() {
    const FILES: u64 = 30_000;
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blobs: Vec<_> =
        (0..50).map(|n| registry.put(format!("content {n}").as_bytes()).unwrap()).collect();
    let names: Vec<_> = (0..FILES).map(|n| format!("{n:05}")).collect();
    let files = names.iter().enumerate().map(|(n, name)| (&name[..], blobs[n % 50]));
    registry.track_folder("data", &files.collect::<Vec<_>>()).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    let mut python = sandbox.tool("python3");
    python.args(["-c", OPEN_MANY]).arg(mount.path("data")).arg(FILES.to_string());
    succeed(&mut python);
}

fn a_file_is_read_past_the_page_cache() {
    const ALIGNED: usize = 4096;
    let sandbox = Sandbox::new();
    let (_server, mount) = one_large_file(&sandbox);
    let direct = OFlags::DIRECT.bits().cast_signed();
    let check = |what: &str| {
        let open = File::options().read(true).custom_flags(direct).open(mount.path("large"));
        let file = open.unwrap();
        let mut buffer = vec![0; 1 << 20];
        let start = buffer.as_ptr().align_offset(ALIGNED);
        let bytes = &mut buffer[start..start + (512 << 10)];
        file.read_exact_at(bytes, 4 << 20).unwrap();
        assert!(*bytes == noise(1, LARGE)[4 << 20..][..512 << 10], "{what}");
    };
    check("cold");
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    check("warm");
}

fn sixty_four_cold_files_are_read_at_once() {
    const FILES: u64 = 64;
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let size = |n: u64| if n.is_multiple_of(8) { 9 << 20 } else { 50_000 };
    let files: Vec<_> =
        (0..FILES).map(|n| (format!("{n}"), registry.put(&noise(n, size(n))).unwrap())).collect();
    let files: Vec<_> = files.iter().map(|(name, blob)| (&name[..], *blob)).collect();
    registry.track_folder("data", &files).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    server.reset();
    thread::scope(|scope| {
        for n in 0..FILES {
            let path = mount.path("data").join(n.to_string());
            scope.spawn(move || assert!(fs::read(path).unwrap() == noise(n, size(n)), "{n}"));
        }
    });
    let total: usize = (0..FILES).map(size).sum();
    let manifest = server.log().iter().filter(|r| r.path.ends_with(".dir")).count() as u64;
    assert!(server.bytes_sent() < total as u64 + manifest * 10_000, "bytes came twice");
}

fn sixty_four_readers_of_one_cold_file_cost_one_download() {
    let sandbox = Sandbox::new();
    let (server, mount) = one_large_file(&sandbox);
    thread::scope(|scope| {
        for n in 0..64 {
            let path = mount.path("large");
            scope.spawn(move || read_some(&File::open(path).unwrap(), n * 300_000));
        }
    });
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    assert_eq!(server.bytes_sent(), LARGE as u64);
}

#[test]
fn root_reads_cached_files_without_the_daemon() {
    if !is_root() {
        return println!("only root can have the kernel read cached files");
    }
    let sandbox = Sandbox::new();
    let (_server, mount) = one_large_file(&sandbox);
    let chosen = ("passthrough".into(), "the kernel takes cached files".into());
    assert_eq!(open_mode(&sandbox, &mount), chosen);
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    let file = eventually_whole(&mount);
    let before = mount.counter("hits");
    read_some(&file, 1_000_000);
    assert_eq!(mount.counter("hits"), before);
    assert_eq!(mount.counter("passthrough_refusals"), 0);
}

/// Opens the file after the earlier opens of it have ended, of which the kernel tells later.
fn eventually_whole(mount: &Mount) -> File {
    let mut file = None;
    eventually("the file is passed", || {
        let before = mount.counter("hits");
        file = File::open(mount.path("large")).ok();
        mount.counter("hits") > before
    });
    file.unwrap()
}

#[test]
fn the_mode_can_be_chosen_and_what_cannot_be_had_is_refused() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("a", "a\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    for mode in ["no-open", "served"] {
        let mount = sandbox.mount_with(registry.repository(), &["--open-mode", mode]);
        assert_eq!(open_mode(&sandbox, &mount), (mode.to_owned(), "as asked for".to_owned()));
    }
    let dir = sandbox.folder("refused");
    let mut strict = sandbox.dvcfs(["mount", "--verify", "strict", "--open-mode", "no-open"]);
    let refused = output(strict.arg(registry.repository()).arg(&dir));
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("open mode no-open") && said.contains("--open-mode auto"), "{said}");
}

/// A file system on top of another that the kernel keeps count of. It ends with its value.
struct Overlay(std::path::PathBuf);

impl Overlay {
    fn new(sandbox: &Sandbox, name: &str, lower: &Path) -> Self {
        let dir = |part: &str| sandbox.folder(format!("{name}-{part}"));
        let (upper, work, merged) = (dir("upper"), dir("work"), dir("merged"));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", &merged, "overlay", MountFlags::empty(), &*options).unwrap();
        Self(merged)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_cache_on_a_stacked_file_system_is_passed_too() {
    if !is_root() {
        return println!("only root can mount an overlay");
    }
    let sandbox = Sandbox::new();
    let overlay = Overlay::new(&sandbox, "stack", &sandbox.folder("lower"));
    let sandbox = sandbox.with("DVCFS_CACHE_DIR", overlay.0.to_str().unwrap());
    let (_server, mount) = one_large_file(&sandbox);
    assert_eq!(open_mode(&sandbox, &mount).0, "passthrough");
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    read_some(&eventually_whole(&mount), 1_000_000);
    assert_eq!(mount.counter("passthrough_refusals"), 0);
    drop(mount);
    drop(overlay);
}

#[test]
fn a_cached_file_that_the_kernel_does_not_take_is_served() {
    if !is_root() {
        return println!("only root can mount an overlay");
    }
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blob = registry.put(&noise(1, LARGE)).unwrap();
    registry.track_file("large", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    // The neighbour cache lies on a stack that the mount, made for the own cache, may not top.
    let lower = sandbox.folder("lower");
    let cached = lower.join(blob.path());
    fs::create_dir_all(cached.parent().unwrap()).unwrap();
    fs::write(&cached, noise(1, LARGE)).unwrap();
    fs::remove_dir_all(registry.objects()).unwrap();
    let overlay = Overlay::new(&sandbox, "neighbour", &lower);
    let config = registry.repository().join(".dvc/config.local");
    fs::write(&config, format!("[cache]\n    dir = {}\n", overlay.0.display())).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    assert_eq!(open_mode(&sandbox, &mount).0, "passthrough");
    let file = File::open(mount.path("large")).unwrap();
    read_some(&file, 0);
    drop(file);
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    eventually("the kernel refuses the file", || {
        read_some(&File::open(mount.path("large")).unwrap(), 2_000_000);
        mount.counter("passthrough_refusals") > 0
    });
    assert!(mount.log().contains("served"), "{}", mount.log());
    drop(mount);
    drop(overlay);
}

/// A mount by a daemon that may have 64 descriptors: 16 for files that are open, 8 for those of
/// passthrough that are not.
fn mounted_with_descriptors(sandbox: &Sandbox, registry: &RegistryBuilder, mode: &str) -> Mount {
    let dir = sandbox.folder("mnt");
    let mut mount = sandbox.dvcfs(["mount", "--foreground", "--rev", "main", "--open-mode", mode]);
    mount.arg(registry.repository()).arg(&dir);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
    limited.arg(mount.get_program()).args(mount.get_args()).env_clear();
    for (name, value) in mount.get_envs() {
        limited.env(name, value.unwrap());
    }
    Mount::start(limited, &dir, &sandbox.path("run"))
}

/// Files of a folder, all of them cached, mounted by root with few descriptors; and where they lie in
/// the cache.
fn many_cached(sandbox: &Sandbox, count: u64) -> (Mount, Vec<PathBuf>) {
    let registry = registry_on_disk(sandbox);
    let files: Vec<_> =
        (0..count).map(|n| (n.to_string(), registry.put(&noise(n, 3000)).unwrap())).collect();
    let files: Vec<_> = files.iter().map(|(name, blob)| (&name[..], *blob)).collect();
    registry.track_folder("data", &files).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    for n in 0..count {
        fs::read(mount.path(format!("data/{n}"))).unwrap();
    }
    drop(mount);
    let cached = files.iter().map(|(_, blob)| sandbox.cache().join(blob.path())).collect();
    (mounted_with_descriptors(sandbox, &registry, "passthrough"), cached)
}

#[test]
fn a_cached_file_without_a_descriptor_that_somebody_wrote_to_is_refused_until_it_is_closed() {
    const FILES: u64 = 40;
    if !is_root() {
        return println!("only root can have the kernel read cached files");
    }
    let sandbox = Sandbox::new();
    let (mount, cached) = many_cached(&sandbox, FILES);
    let path = |n: u64| mount.path(format!("data/{n}"));
    let mut open: Vec<_> = (0..FILES).map(|n| File::open(path(n)).unwrap()).collect();
    assert!(mount.open_below(&sandbox.cache().join("files")).len() < FILES as usize);
    for n in [FILES - 1, 0] {
        let cached = &cached[n as usize];
        fs::set_permissions(cached, Permissions::from_mode(0o644)).unwrap();
        fs::write(cached, noise(100, 3000)).unwrap();
        assert_eq!(File::open(path(n)).unwrap_err().raw_os_error(), Some(EIO), "{n}");
    }
    // One that is removed is passed on as it is.
    let removed = FILES - 2;
    fs::remove_file(&cached[removed as usize]).unwrap();
    assert!(fs::read(path(removed)).unwrap() == noise(removed, 3000));
    open.clear();
    for n in 0..FILES {
        eventually("it can be opened again", || {
            fs::read(path(n)).is_ok_and(|bytes| bytes == noise(n, 3000))
        });
    }
}

#[test]
fn no_more_files_that_nobody_has_open_are_kept_than_descriptors_are_meant_for_them() {
    const FILES: u64 = 40;
    // Those of which the kernel has yet to tell that they were closed.
    const UNTOLD: usize = 4;
    if !is_root() {
        return println!("only root can have the kernel read cached files");
    }
    let sandbox = Sandbox::new();
    let (mount, _cached) = many_cached(&sandbox, FILES);
    let blobs = sandbox.cache().join("files");
    let mut most = 0;
    for n in 0..FILES {
        assert!(fs::read(mount.path(format!("data/{n}"))).unwrap() == noise(n, 3000));
        most = most.max(mount.open_below(&blobs).len());
    }
    assert!((2..=8 + UNTOLD).contains(&most), "{most} were kept");
}

/// A disk of its own in memory. It ends with its value.
struct Disk(PathBuf);

impl Disk {
    fn new(dir: PathBuf) -> Self {
        mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(dir)
    }

    fn used(&self) -> u64 {
        let told = rustix::fs::statvfs(&self.0).unwrap();
        (told.f_blocks - told.f_bfree) * told.f_frsize
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn the_room_of_a_removed_file_that_nobody_has_open_is_given_back_after_a_while() {
    if !is_root() {
        return println!("only root can have the kernel read cached files");
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(sandbox.folder("disk"));
    let cache = disk.0.join("cache");
    let sandbox = sandbox.with("DVCFS_CACHE_DIR", cache.to_str().unwrap());
    let sandbox = sandbox.with("DVCFS_MIN_FREE", "0");
    let (_server, mount) = one_large_file(&sandbox);
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    drop(eventually_whole(&mount));
    succeed(&mut sandbox.dvcfs(["cache", "gc", "--all"]));
    assert!(disk.used() > LARGE as u64, "what was open a moment ago keeps its room");
    eventually("its room is free again", || disk.used() < 1 << 20);
    assert_eq!(mount.open_below(&cache.join("files")), Vec::<PathBuf>::new());
    assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    drop(mount);
    drop(disk);
}

#[test]
fn a_cache_on_file_systems_stacked_too_high_is_served_from_the_start() {
    if !is_root() {
        return println!("only root can mount an overlay");
    }
    let sandbox = Sandbox::new();
    let lower = Overlay::new(&sandbox, "lower", &sandbox.folder("bottom"));
    let upper = Overlay::new(&sandbox, "upper", &lower.0);
    let sandbox = sandbox.with("DVCFS_CACHE_DIR", upper.0.to_str().unwrap());
    let (_server, mount) = one_large_file(&sandbox);
    let (mode, why) = open_mode(&sandbox, &mount);
    assert_eq!(mode, "no-open");
    assert!(why.contains("stacked too high"), "{why}");
    for _ in 0..2 {
        assert!(fs::read(mount.path("large")).unwrap() == noise(1, LARGE));
    }
    assert_eq!(mount.counter("passthrough_refusals"), 0, "nothing is tried in vain");
    drop(mount);
    let dir = sandbox.folder("refused");
    let mut asked = sandbox.dvcfs(["mount", "--open-mode", "passthrough"]);
    let refused = output(asked.arg(sandbox.path("registry")).arg(&dir));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("stacked too high"), "{said}");
    drop((upper, lower));
}

#[test]
fn a_daemon_with_sixty_four_descriptors_reads_everything() {
    const FILES: u64 = 300;
    for mode in ["auto", "no-open", "served"] {
        let sandbox = Sandbox::new();
        let (registry, _server) = registry_on_s3(&sandbox);
        let files: Vec<_> =
            (0..FILES).map(|n| (format!("{n}"), registry.put(&noise(n, 3000)).unwrap())).collect();
        let files: Vec<_> = files.iter().map(|(name, blob)| (&name[..], *blob)).collect();
        registry.track_folder("data", &files).unwrap();
        registry.track_file("large", &registry.put(&noise(1, LARGE)).unwrap()).unwrap();
        registry.commit("Add files", DATE).unwrap();
        let mount = mounted_with_descriptors(&sandbox, &registry, mode);
        let dir = mount.dir();
        let checked = thread::scope(|scope| {
            let readers: Vec<_> = (0..16)
                .map(|reader| {
                    scope.spawn(move || {
                        let mut held = Vec::new();
                        for n in (reader..FILES).step_by(16) {
                            let file = File::open(dir.join("data").join(n.to_string())).unwrap();
                            let mut bytes = vec![0; 3000];
                            file.read_exact_at(&mut bytes, 0).unwrap();
                            assert!(bytes == noise(n, 3000), "{mode}: {n}");
                            held.push(file);
                        }
                        held.len()
                    })
                })
                .collect();
            let large = fs::read(dir.join("large")).unwrap();
            assert!(large == noise(1, LARGE), "{mode}: large");
            readers.into_iter().map(|reader| reader.join().unwrap()).sum::<usize>()
        });
        assert_eq!(checked, FILES as usize);
        assert_eq!(mount.counter("passthrough_refusals"), 0, "a backing file takes no descriptor");
    }
}
