//! What every way to answer opens must stand, and which one is chosen.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    process::Command,
    thread,
};

use rustix::{
    fs::{Advice, OFlags, fadvise},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::{
    s3server::S3Server,
    support::{
        DATE, Mount, Sandbox, eventually, in_each_open_mode, noise, output, registry_on_disk,
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
    let mut status = sandbox.dvcfs(["status", "--json"]);
    let status = text(status.arg(mount.dir()));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let word = |name: &str| status[0]["open_mode"][name].as_str().unwrap().to_owned();
    (word("mode"), word("why"))
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
    assert_eq!(open_mode(&sandbox, &mount).0, "passthrough");
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
        let dir = sandbox.folder("mnt");
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
        let mut mount = sandbox.dvcfs(["mount", "--rev", "main", "--open-mode", mode]);
        mount.arg(registry.repository()).arg(&dir);
        limited.arg(mount.get_program()).args(mount.get_args());
        limited.env_clear();
        for (name, value) in mount.get_envs() {
            limited.env(name, value.unwrap());
        }
        succeed(&mut limited);
        let checked = thread::scope(|scope| {
            let readers: Vec<_> = (0..16)
                .map(|reader| {
                    let dir = &dir;
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
        succeed(sandbox.dvcfs(["umount"]).arg(&dir));
        assert_eq!(checked, FILES as usize);
    }
}
