//! Files of the cache that are cut, overwritten or removed while they are open and mounted.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, fadvise};

use crate::{
    registry_builder::RegistryBuilder,
    support::{DATE, EIO, Mount, Sandbox, eventually, noise, registry_on_disk},
};

const SIZE: usize = 9 << 20;

/// A mounted registry with one file, which is cached and open.
///
/// Dropped in this order: the folder that all of it lies in can go only when nothing is mounted.
struct Opened {
    file: File,
    mount: Mount,
    cached: PathBuf,
    registry: RegistryBuilder,
    sandbox: Sandbox,
}

impl Opened {
    fn new(open_mode: &str) -> Self {
        let sandbox = Sandbox::new();
        let registry = registry_on_disk(&sandbox);
        let blob = registry.put(&noise(1, SIZE)).unwrap();
        registry.track_file("file", &blob).unwrap();
        registry.commit("Add a file", DATE).unwrap();
        let mount = sandbox.mount_with(registry.repository(), &args(open_mode));
        assert!(fs::read(mount.path("file")).unwrap() == noise(1, SIZE));
        let file = File::open(mount.path("file")).unwrap();
        let cached = sandbox.cache().join(blob.path());
        make_writable(&cached);
        Self { file, mount, cached, registry, sandbox }
    }

    /// The same by another daemon, which finds the file in the cache, on the disk and stamped.
    fn again(self, open_mode: &str) -> Self {
        let Self { file, mount, cached, registry, sandbox } = self;
        drop((file, mount));
        let mount = sandbox.mount_with(registry.repository(), &args(open_mode));
        assert!(fs::read(mount.path("file")).unwrap() == noise(1, SIZE));
        let file = File::open(mount.path("file")).unwrap();
        make_writable(&cached);
        Self { file, mount, cached, registry, sandbox }
    }

    /// Reads the open file, and not from pages that the kernel has.
    fn read(&self) -> std::io::Result<Vec<u8>> {
        fadvise(&self.file, 0, None, Advice::DontNeed).unwrap();
        let mut bytes = vec![0; SIZE];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Reads the file anew.
    fn read_anew(&self) -> Vec<u8> {
        let file = File::open(self.mount.path("file")).unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let mut bytes = vec![0; SIZE];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }
}

fn args(open_mode: &str) -> [&str; 4] {
    ["--rev", "main", "--open-mode", open_mode]
}

fn make_writable(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

const SERVED: [&str; 2] = ["served", "no-open"];
const ALL: [&str; 3] = ["served", "no-open", "passthrough"];

/// Asserts that what happens to the cached file costs neither the open file nor new ones.
fn is_survived(open_modes: &[&str], happens: impl Fn(&Path)) {
    for open_mode in open_modes {
        let opened = Opened::new(open_mode);
        happens(&opened.cached);
        assert!(opened.read().unwrap() == noise(1, SIZE), "{open_mode}: the open file");
        assert!(opened.read_anew() == noise(1, SIZE), "{open_mode}: the file");
        assert!(opened.read().unwrap() == noise(1, SIZE), "{open_mode}: later, the open file");
    }
}

/// Asserts that a file that the kernel reads by itself, and that somebody wrote to, fails for
/// whoever opens it until nobody has it open any more, and is whole again then.
fn fails_until_it_is_closed(happens: impl FnOnce(&Path)) {
    let Opened { file, mount, cached, registry, sandbox } = Opened::new("passthrough");
    happens(&cached);
    let refused = File::open(mount.path("file")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(EIO));
    drop(file);
    let reopened = eventually_open(&mount.path("file"));
    let opened = Opened { file: reopened, mount, cached, registry, sandbox };
    assert!(opened.read().unwrap() == noise(1, SIZE));
}

/// Opens a file as soon as that is possible; the kernel tells of the end of an earlier open later.
fn eventually_open(path: &Path) -> File {
    let mut file = None;
    eventually("the file can be opened again", || {
        file = File::open(path).ok();
        file.is_some()
    });
    file.unwrap()
}

fn cut(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(5000).unwrap();
}

fn overwrite(path: &Path) {
    fs::write(path, noise(2, SIZE)).unwrap();
}

/// Changes some bytes.
fn damage(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[7; 100], 5_000_000).unwrap();
}

/// The same, and sets the time back.
fn damage_in_secret(path: &Path) {
    let time = path.metadata().unwrap().modified().unwrap();
    damage(path);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_cached_file_that_is_removed() {
    is_survived(&ALL, |path| fs::remove_file(path).unwrap());
}

#[test]
fn a_cached_file_that_is_cut() {
    is_survived(&SERVED, cut);
    fails_until_it_is_closed(cut);
}

#[test]
fn a_cached_file_that_is_emptied() {
    is_survived(&SERVED, |path| fs::write(path, "").unwrap());
}

#[test]
fn a_cached_file_that_is_replaced() {
    is_survived(&ALL, |path| {
        fs::remove_file(path).unwrap();
        fs::write(path, noise(2, SIZE)).unwrap();
    });
}

/// Asserts that nobody is shown a byte of a cached file that somebody wrote to, whatever has it open
/// and whichever pages the kernel keeps, and that the cache has it whole again.
fn is_never_shown(opened: &Opened, open_mode: &str, happens: fn(&Path)) {
    happens(&opened.cached);
    let is_whole = |what: &str, bytes: &[u8]| {
        assert!(bytes == noise(1, SIZE), "{open_mode}: {what}");
    };
    is_whole("the open file", &opened.read().unwrap());
    is_whole("from pages", &fs::read(opened.mount.path("file")).unwrap());
    is_whole("a new open", &opened.read_anew());
    is_whole("from pages again", &fs::read(opened.mount.path("file")).unwrap());
    is_whole("later, the open file", &opened.read().unwrap());
    assert_eq!(opened.mount.counter("verification_failures"), 1, "{open_mode}");
    eventually("the cache has it whole again", || {
        fs::read(&opened.cached).is_ok_and(|bytes| bytes == noise(1, SIZE))
    });
}

#[test]
fn a_cached_file_that_is_overwritten_in_place_is_shown_to_nobody_and_fetched_again() {
    for open_mode in SERVED {
        for happens in [overwrite, damage] {
            let opened = Opened::new(open_mode);
            is_never_shown(&opened, open_mode, happens);
            // By now it may be another kind of file to the daemon; and a second damage is one more.
            make_writable(&opened.cached);
            happens(&opened.cached);
            assert!(opened.read().unwrap() == noise(1, SIZE), "{open_mode}: a second time");
            is_never_shown(&opened.again(open_mode), open_mode, happens);
        }
    }
    fails_until_it_is_closed(overwrite);
    fails_until_it_is_closed(damage);
}

#[test]
fn a_cached_file_that_is_overwritten_and_has_its_time_set_back_is_fetched_again() {
    for open_mode in SERVED {
        let opened = Opened::new(open_mode).again(open_mode);
        is_never_shown(&opened, open_mode, damage_in_secret);
    }
    // What the kernel reads by itself is found out once nobody has it open.
    let Opened { file, mount, cached, registry: _registry, sandbox: _sandbox } =
        Opened::new("passthrough").again("passthrough");
    damage_in_secret(&cached);
    drop(file);
    eventually("the file is whole again", || {
        fs::read(mount.path("file")).unwrap() == noise(1, SIZE)
    });
}

#[test]
fn the_whole_cache_that_is_removed() {
    ALL.into_iter().for_each(survives_without_its_cache);
}

fn survives_without_its_cache(open_mode: &str) {
    let opened = Opened::new(open_mode);
    fs::remove_dir_all(opened.sandbox.cache()).unwrap();
    assert!(opened.read().unwrap() == noise(1, SIZE));
    assert!(opened.read_anew() == noise(1, SIZE));
    // New blobs come into the cache again.
    let blob = opened.registry.put(b"new").unwrap();
    opened.registry.track_file("new", &blob).unwrap();
    opened.registry.commit("Add another", DATE).unwrap();
    let again = opened.sandbox.mount_with(opened.registry.repository(), &["--rev", "main"]);
    assert_eq!(fs::read(again.path("new")).unwrap(), b"new");
}

#[test]
fn the_whole_cache_and_the_remote_that_are_removed_are_an_error_and_nothing_else() {
    let opened = Opened::new("auto");
    fs::remove_dir_all(opened.sandbox.cache()).unwrap();
    fs::remove_dir_all(opened.registry.objects()).unwrap();
    // The open file lives; a new one cannot be had.
    assert!(opened.read().unwrap() == noise(1, SIZE));
    let file = opened.mount.path("file");
    assert_eq!(fs::metadata(&file).unwrap().len(), SIZE as u64);
    assert_eq!(fs::read(opened.mount.path("file.dvc")).unwrap().first(), Some(&b'o'));
}
