//! Objects that the remote does not have, or not as they should be: never ENOENT, never short,
//! never other bytes.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use insta::assert_snapshot;
use rustix::fs::{Advice, fadvise};

use super::{
    LARGE, SMALL, assert_prints, cat, errno_of_opening, errno_of_reading, refused, replace,
    three_files,
};
use crate::{
    registry_builder::{Blob, RegistryBuilder},
    s3server::{Fault, S3Server},
    support::{DATE, EIO, Mount, Sandbox, eventually, in_each_open_mode, noise, registry_on_s3},
};

/// Makes of right bytes what the bucket has instead, if it has anything.
type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

/// How an object in the bucket is not what it should be.
const DAMAGES: [(&str, Damage); 8] = [
    ("missing", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("cut", |mut bytes| {
        bytes.truncate(bytes.len() / 2);
        Some(bytes)
    }),
    ("first byte flipped", |bytes| Some(flipped(bytes, 0))),
    ("last byte flipped", |bytes| {
        let last = bytes.len() - 1;
        Some(flipped(bytes, last))
    }),
    ("longer", |mut bytes| {
        bytes.push(0);
        Some(bytes)
    }),
    ("zeros", |bytes| Some(vec![0; bytes.len()])),
    ("a web page", |_| Some(b"<html>Please log in</html>".to_vec())),
];

fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    bytes
}

/// A registry in a bucket with a small and a large blob.
struct Store {
    sandbox: Sandbox,
    server: S3Server,
    registry: RegistryBuilder,
    blobs: [Blob; 2],
}

impl Store {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (registry, server) = registry_on_s3(&sandbox);
        let blobs = three_files(&registry);
        Self { sandbox, server, registry, blobs }
    }

    fn mount(&self, args: &[&str]) -> Mount {
        let args = [&["--rev", "main"], args].concat();
        self.sandbox.mount_with(self.registry.repository(), &args)
    }

    fn damage(&self, blob: &Blob, whole: Vec<u8>, damage: Damage) {
        match damage(whole) {
            Some(bytes) => replace(&self.registry, blob, &bytes),
            None => fs::remove_file(self.registry.objects().join(blob.path())).unwrap(),
        }
    }

    fn object(&self, blob: &Blob) -> PathBuf {
        self.registry.objects().join(blob.path())
    }

    fn repair(&self, blob: &Blob, bytes: &[u8]) {
        fs::write(self.registry.objects().join(blob.path()), bytes).unwrap();
    }
}

/// Reads up to the end or an error; gives what came and the errno.
fn read_on(path: &Path) -> (Vec<u8>, Option<i32>) {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    (bytes, read.err().and_then(|error| error.raw_os_error()))
}

/// Asserts that a file cannot be read to its end, and that what came before the error was right
/// up to the damage. `object` is what the remote has of it.
fn assert_is_refused(what: &str, path: &Path, whole: &[u8], object: &Path) {
    let (bytes, errno) = read_on(path);
    assert_eq!(errno, Some(EIO), "{what}: {} bytes", bytes.len());
    assert!(bytes.len() < whole.len(), "{what}: all of it was served");
    let wrong = bytes.iter().zip(whole).filter(|(a, b)| a != b).count();
    let is_streamed_flip = what.contains("flipped") || what.contains("zeros");
    assert!(wrong == 0 || is_streamed_flip, "{what}: {wrong} bytes are wrong");
    // The remote's size counts as long as the bytes were not checked, unless it is none.
    let of_remote = object.metadata().ok().map(|object| object.len()).filter(|length| *length > 0);
    let length = path.metadata().unwrap().len();
    let is_told = length == whole.len() as u64 || Some(length) == of_remote;
    assert!(is_told, "{what}: the size is said to be {length}, not {of_remote:?}");
}

fn damaged_objects_are_refused(args: &[&str]) {
    let store = Store::new();
    let whole = [noise(1, SMALL), noise(2, LARGE)];
    for (what, damage) in DAMAGES {
        let mount = store.mount(args);
        for (index, name) in ["small", "large"].into_iter().enumerate() {
            let blob = &store.blobs[index];
            let path = mount.path(name);
            let what = format!("{name} {what} {args:?}");
            store.damage(blob, whole[index].clone(), damage);
            assert_is_refused(&what, &path, &whole[index], &store.object(blob));
            assert_eq!(fs::read(mount.path("text")).unwrap(), b"text\n");
            if args.contains(&"strict") {
                assert_eq!(errno_of_opening(&path), Some(EIO), "{what}");
            }
            store.repair(blob, &whole[index]);
            assert!(fs::read(&path).unwrap() == whole[index], "{what}: after the repair");
        }
        drop(mount);
        fs::remove_dir_all(store.sandbox.cache()).unwrap();
    }
}

#[test]
fn damaged_objects_are_refused_while_they_stream() {
    damaged_objects_are_refused(&[]);
}

#[test]
fn damaged_objects_are_refused_before_they_open() {
    damaged_objects_are_refused(&["--verify", "strict"]);
}

/// Has one damage done to both blobs while they are mounted, and undone.
fn assert_is_refused_and_read_when_repaired(store: &Store, what: &str, damage: Damage) {
    let mount = store.mount(&[]);
    for (blob, name, whole) in
        [(&store.blobs[0], "small", noise(1, SMALL)), (&store.blobs[1], "large", noise(2, LARGE))]
    {
        let (path, what) = (mount.path(name), format!("{name} {what}"));
        store.damage(blob, whole.clone(), damage);
        assert_is_refused(&what, &path, &whole, &store.object(blob));
        store.repair(blob, &whole);
        // Without opens a file that gave wrong bytes fails for some seconds.
        eventually("the repaired file is read", || match fs::read(&path) {
            Ok(bytes) => {
                assert!(bytes == whole, "{what}: {} other bytes", bytes.len());
                true
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EIO), "{what}");
                false
            }
        });
    }
}

fn damaged_objects_are_refused_until_they_are_repaired() {
    let stores = DAMAGES.map(|(what, damage)| (Store::new(), what, damage));
    std::thread::scope(|scope| {
        for (store, what, damage) in &stores {
            scope.spawn(move || assert_is_refused_and_read_when_repaired(store, what, *damage));
        }
    });
}

#[test]
fn each_damage_has_its_line_and_exit_code() {
    let store = Store::new();
    let repository = store.registry.repository();
    let said = |index: usize| {
        let (what, damage) = DAMAGES[index];
        let (blob, whole) = (&store.blobs[0], noise(1, SMALL));
        store.damage(blob, whole.clone(), damage);
        let said = refused(&store.sandbox, &mut cat(&store.sandbox, repository, "small"));
        let large = &store.blobs[1];
        store.damage(large, noise(2, LARGE), damage);
        let of_large = refused(&store.sandbox, &mut cat(&store.sandbox, repository, "large"));
        assert_eq!(said.lines().next(), of_large.lines().next(), "{what}: {said} {of_large}");
        store.repair(blob, &whole);
        store.repair(large, &noise(2, LARGE));
        format!("{what}: {said}")
    };
    assert_snapshot!(said(0), @r"
    missing: exit 4
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: NoSuchKey: there is no object registry/files/md5/15/86e726d857c4ae4bd088258617dd5b
    hint: push it again from where it was added
    ");
    assert_snapshot!(said(1), @r"
    empty: exit 7
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: its content does not match its name
    hint: remove this object from the remote, and push it again from where it was added
    ");
    assert_snapshot!(said(2), @r"
    cut: exit 7
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: its content does not match its name
    hint: remove this object from the remote, and push it again from where it was added
    ");
    assert_snapshot!(said(3), @r"
    first byte flipped: exit 7
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: its content does not match its name
    hint: remove this object from the remote, and push it again from where it was added
    ");
    assert_snapshot!(said(5), @r"
    longer: exit 7
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: its content does not match its name
    hint: remove this object from the remote, and push it again from where it was added
    ");
    assert_snapshot!(said(7), @r"
    a web page: exit 7
    error: print small: read files/md5/15/86e726d857c4ae4bd088258617dd5b from s3://bucket/registry: its content does not match its name
    hint: remove this object from the remote, and push it again from where it was added
    ");
    assert_prints(&store.sandbox, repository, "small", &noise(1, SMALL));
}

#[test]
fn a_copy_that_fails_leaves_nothing_behind() {
    let store = Store::new();
    store.damage(&store.blobs[1], noise(2, LARGE), DAMAGES[4].1);
    let out = store.sandbox.path("out");
    let mut get = store.sandbox.dvcfs(["get"]);
    get.arg(store.registry.repository()).args(["large", "-o"]).arg(&out);
    assert_snapshot!(refused(&store.sandbox, &mut get), @r"
    exit 7
    error: get large: [SANDBOX]/out: read files/md5/47/9b9940820711c37015b805fba97d83 from s3://bucket/registry: its content does not match its name
    hint: remove this object from the remote, and push it again from where it was added
    ");
    let left: Vec<_> =
        fs::read_dir(store.sandbox.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name == "out" || name.to_string_lossy().starts_with(".dvcfs")),
        "{left:?}"
    );
}

/// What goes wrong on the wire only.
fn faults() -> [Fault; 11] {
    [
        Fault::Cut(1000),
        Fault::Flip(70_000),
        Fault::Longer(9),
        Fault::Shorter(9),
        Fault::Page,
        Fault::ShiftRange,
        Fault::IgnoreRange,
        Fault::Status(404, "NoSuchKey"),
        Fault::Status(403, "AccessDenied"),
        Fault::Status(500, "InternalError"),
        Fault::Status(301, "PermanentRedirect"),
    ]
}

/// Asserts that a fault costs the files that need the server, gives EIO or EACCES and never other
/// bytes, and that all is well when it is over. Some faults a client can make good by itself.
fn assert_is_survived(store: &Store, fault: &Fault, args: &[&str]) {
    let mount = store.mount(args);
    store.server.fail_always(fault.clone());
    for (name, whole) in [("small", noise(1, SMALL)), ("large", noise(2, LARGE))] {
        let (bytes, errno) = read_on(&mount.path(name));
        match errno {
            None => assert!(bytes == whole, "{name} {fault:?}: {} other bytes", bytes.len()),
            Some(super::EACCES) => assert!(matches!(fault, Fault::Status(403, _)), "{fault:?}"),
            Some(errno) => assert_eq!(errno, EIO, "{name} {fault:?}"),
        }
        assert_eq!(fs::read(mount.path("text")).unwrap(), b"text\n");
    }
    store.server.heal();
    for (name, whole) in [("small", noise(1, SMALL)), ("large", noise(2, LARGE))] {
        let bytes = fs::read(mount.path(name)).unwrap();
        assert!(bytes == whole, "{name} {fault:?}: other bytes after the fault");
    }
    drop(mount);
    fs::remove_dir_all(store.sandbox.cache()).unwrap();
}

#[test]
fn faults_on_the_wire_never_give_other_bytes() {
    std::thread::scope(|scope| {
        for fault in faults() {
            scope.spawn(move || assert_is_survived(&Store::new(), &fault, &[]));
        }
    });
}

#[test]
fn faults_on_the_wire_never_give_other_bytes_where_all_is_checked_first() {
    std::thread::scope(|scope| {
        for fault in faults() {
            scope.spawn(move || assert_is_survived(&Store::new(), &fault, &["--verify", "strict"]));
        }
    });
}

#[test]
fn a_file_that_turned_out_wrong_fails_until_it_is_opened_anew_and_its_pages_go() {
    let store = Store::new();
    let whole = noise(2, LARGE);
    store.damage(&store.blobs[1], whole.clone(), DAMAGES[3].1);
    let mount = store.mount(&[]);
    let path = mount.path("large");
    let mut open = File::open(&path).unwrap();
    let mut head = vec![0; 4096];
    open.read_exact(&mut head).unwrap();
    assert!(head == flipped(whole.clone(), 0)[..4096], "the wrong byte was not shown");
    let mut rest = Vec::new();
    let failed = open.read_to_end(&mut rest).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(EIO));
    assert!(mount.counter("verification_failures") > 0);
    store.repair(&store.blobs[1], &whole);
    assert!(fs::read(&path).unwrap() == whole, "pages of wrong bytes were kept");
    // What the file opened before has shown cannot be taken back.
    let anew = File::open(&path).unwrap();
    fadvise(&anew, 0, None, Advice::DontNeed).unwrap();
    assert_eq!(open.read_exact_at(&mut head, 0).unwrap_err().raw_os_error(), Some(EIO));
    assert!(fs::read(&path).unwrap() == whole);
}

fn an_empty_object_in_a_tracked_folder_whose_list_tells_no_sizes() {
    let sandbox = Sandbox::new();
    let (registry, _server) = registry_on_s3(&sandbox);
    let [bad, large, good] =
        [noise(1, SMALL), noise(2, LARGE), noise(3, 10)].map(|b| registry.put(&b).unwrap());
    registry.track_folder("data", &[("bad", bad), ("good", good), ("large", large)]).unwrap();
    registry.commit("Add files", DATE).unwrap();
    for blob in [&bad, &large] {
        replace(&registry, blob, b"");
    }
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    assert_eq!(fs::read_dir(mount.path("data")).unwrap().count(), 3);
    for name in ["data/bad", "data/large"] {
        let path = mount.path(name);
        // Nor is there a size to be told: the remote's would make an empty file of it.
        assert_eq!(path.metadata().unwrap_err().raw_os_error(), Some(EIO), "{name}");
        assert_eq!(errno_of_reading(&path), Some(EIO), "{name}");
    }
    assert_eq!(fs::read(mount.path("data/good")).unwrap(), noise(3, 10));
    for (blob, name, whole) in
        [(bad, "data/bad", noise(1, SMALL)), (large, "data/large", noise(2, LARGE))]
    {
        replace(&registry, &blob, &whole);
        // Without opens a file that gave wrong bytes fails for some seconds.
        eventually("the repaired file is read", || match fs::read(mount.path(name)) {
            Ok(bytes) => {
                assert!(bytes == whole, "{name}: {} other bytes", bytes.len());
                true
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EIO), "{name}");
                false
            }
        });
    }
}

/// Reads a file that is cut on the remote, and once more when it is whole again: all of it, or an
/// error, whatever sizes were told in between; under its other name, too.
fn a_cut_object_in_a_tracked_folder_whose_list_tells_no_sizes() {
    let sandbox = Sandbox::new();
    let (registry, _server) = registry_on_s3(&sandbox);
    for (number, size) in [SMALL, LARGE].into_iter().enumerate() {
        let whole = noise(number as u64, size);
        let blob = registry.put(&whole).unwrap();
        let folder = format!("data-{number}");
        registry.track_folder(&folder, &[("one", blob), ("two", blob)]).unwrap();
        registry.commit("Add files", DATE).unwrap();
        replace(&registry, &blob, &whole[..whole.len() / 2]);
        let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
        let paths = ["one", "two"].map(|name| mount.path(&folder).join(name));
        // After a listing sizes are asked for without beginning downloads, which would find out.
        assert_eq!(fs::read_dir(mount.path(&folder)).unwrap().count(), 2);
        for path in &paths {
            assert_eq!(path.metadata().unwrap().len(), size as u64 / 2, "as the remote says");
        }
        assert_eq!(errno_of_reading(&paths[0]), Some(EIO));
        replace(&registry, &blob, &whole);
        for path in &paths {
            eventually("the repaired file is read", || match fs::read(path) {
                Ok(bytes) => {
                    assert!(bytes == whole, "{}: {} bytes", path.display(), bytes.len());
                    true
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(EIO), "{}", path.display());
                    false
                }
            });
        }
    }
}

in_each_open_mode! {
    damaged_objects_are_refused_until_they_are_repaired,
    an_empty_object_in_a_tracked_folder_whose_list_tells_no_sizes,
    a_cut_object_in_a_tracked_folder_whose_list_tells_no_sizes,
}
