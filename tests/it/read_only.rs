//! Every call that would change a mount: it fails with the right errno and changes nothing.

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    ptr,
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, SeekFrom, StatVfsMountFlags,
        Timespec, Timestamps, Uid, XattrFlags,
    },
    io::{self, Errno},
};

use crate::support::{
    DATE, Mount, Sandbox, assert_same, in_each_open_mode, list, noise, registry_on_disk,
};

in_each_open_mode! {
    no_call_changes_anything,
    calls_that_make_no_sense_get_their_errno,
    the_mount_says_that_it_is_read_only,
}

const SIZE: usize = 200_000;

/// What a call is, what came of it, and which errnos it may fail with.
type Call<'a> = (&'a str, io::Result<()>, &'a [Errno]);

fn mounted(sandbox: &Sandbox) -> Mount {
    let registry = registry_on_disk(sandbox);
    let large = registry.put(&noise_bytes()).unwrap();
    let small = registry.put(b"small").unwrap();
    registry.track_folder("folder", &[("b/c", large), ("d", small)]).unwrap();
    registry.text("plain", "in git").unwrap();
    registry.commit("Add files", DATE).unwrap();
    sandbox.mount_with(registry.repository(), &["--rev", "main"])
}

fn noise_bytes() -> Vec<u8> {
    noise(5, SIZE)
}

fn opened(path: &Path, flags: OFlags) -> io::Result<()> {
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map(drop)
}

fn for_reading(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn assert_refused(calls: Vec<Call>) {
    for (call, result, allowed) in calls {
        let error = result.expect_err(call);
        assert!(allowed.contains(&error), "{call}: {error}");
    }
}

fn no_call_changes_anything() {
    let sandbox = Sandbox::new();
    let mount = mounted(&sandbox);
    let before = list(&mount.path(""));
    for file in ["folder/b/c", "plain"] {
        assert_refused(changes_of_a_file(&mount, &mount.path(file)));
    }
    assert_refused(changes_of_names(&mount));
    assert_same("after every change", &before, &list(&mount.path("")));
}

fn changes_of_a_file<'a>(mount: &Mount, file: &Path) -> Vec<Call<'a>> {
    let new = mount.path("new");
    let now = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: now, last_modification: now };
    let owner = (Some(Uid::from_raw(1)), Some(Gid::from_raw(1)));
    let name = "user.note";
    vec![
        ("open to write", opened(file, OFlags::WRONLY), &[Errno::ROFS]),
        ("open for both", opened(file, OFlags::RDWR), &[Errno::ROFS]),
        ("open and truncate", opened(file, OFlags::TRUNC), &[Errno::ROFS]),
        ("open to append", opened(file, OFlags::WRONLY | OFlags::APPEND), &[Errno::ROFS]),
        (
            "create what is there",
            opened(file, OFlags::CREATE | OFlags::EXCL),
            &[Errno::EXIST, Errno::ROFS],
        ),
        ("unlink", rustix::fs::unlink(file), &[Errno::ROFS]),
        ("rename", rustix::fs::rename(file, &new), &[Errno::ROFS]),
        ("rename onto", rustix::fs::rename(file, mount.path("folder/d")), &[Errno::ROFS]),
        ("link", rustix::fs::link(file, &new), &[Errno::ROFS]),
        ("chmod", rustix::fs::chmod(file, Mode::from_raw_mode(0o777)), &[Errno::ROFS]),
        ("chown", rustix::fs::chown(file, owner.0, owner.1), &[Errno::ROFS]),
        ("set times", rustix::fs::utimensat(CWD, file, &times, AtFlags::empty()), &[Errno::ROFS]),
        ("truncate", truncate(file), &[Errno::ROFS]),
        (
            "set an attribute",
            rustix::fs::setxattr(file, name, b"1", XattrFlags::empty()),
            &[Errno::ROFS],
        ),
        ("remove an attribute", rustix::fs::removexattr(file, name), &[Errno::ROFS]),
    ]
}

fn changes_of_names<'a>(mount: &Mount) -> Vec<Call<'a>> {
    let (new, folder) = (mount.path("new"), mount.path("folder"));
    let create = OFlags::CREATE;
    let rights = Mode::from_raw_mode(0o755);
    let node = |kind, device| rustix::fs::mknodat(CWD, &new, kind, rights, device);
    vec![
        ("create", opened(&new, create | OFlags::WRONLY), &[Errno::ROFS]),
        ("create to read", opened(&new, create), &[Errno::ROFS]),
        (
            "create without a name",
            opened(&folder, OFlags::TMPFILE | OFlags::RDWR),
            &[Errno::ROFS, Errno::OPNOTSUPP],
        ),
        ("mkdir", rustix::fs::mkdir(&new, rights), &[Errno::ROFS]),
        ("mkdir over one", rustix::fs::mkdir(&folder, rights), &[Errno::ROFS, Errno::EXIST]),
        ("rmdir", rustix::fs::rmdir(&folder), &[Errno::ROFS]),
        ("rename a folder", rustix::fs::rename(&folder, &new), &[Errno::ROFS]),
        ("symlink", rustix::fs::symlink("x", &new), &[Errno::ROFS]),
        ("make a pipe", node(FileType::Fifo, 0), &[Errno::ROFS]),
        (
            "make a device",
            node(FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            &[Errno::ROFS, Errno::PERM],
        ),
        ("make a socket", bind(&new), &[Errno::ROFS]),
    ]
}

fn truncate(path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the path ends with a zero byte and lives until the call is over.
    let result = unsafe { libc::truncate(path.as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()
}

fn map_to_write(file: &OwnedFd) -> io::Result<()> {
    let (protection, flags) = (libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping at a place of the kernel's choice.
    let place =
        unsafe { libc::mmap(ptr::null_mut(), SIZE, protection, flags, file.as_raw_fd(), 0) };
    if place == libc::MAP_FAILED { Err(last_errno()) } else { Ok(()) }
}

fn bind(path: &Path) -> io::Result<()> {
    let bound = UnixListener::bind(path);
    bound.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap())
}

fn calls_that_make_no_sense_get_their_errno() {
    let sandbox = Sandbox::new();
    let mount = mounted(&sandbox);
    let path = mount.path("folder/b/c");
    let file = for_reading(&path);
    let folder = for_reading(&mount.path("folder"));
    let mut buffer = [0; 10];
    assert_refused(vec![
        ("write where reading", io::write(&file, b"x").map(drop), &[Errno::BADF]),
        ("cut where reading", rustix::fs::ftruncate(&file, 0), &[Errno::INVAL, Errno::BADF]),
        (
            "make room where reading",
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 10),
            &[Errno::BADF],
        ),
        (
            "copy into itself",
            rustix::fs::copy_file_range(&file, None, &file, None, 1).map(drop),
            &[Errno::BADF, Errno::INVAL],
        ),
        ("map to write", map_to_write(&file), &[Errno::ACCESS]),
        ("a name below none", opened(&mount.path("none/x"), OFlags::RDONLY), &[Errno::NOENT]),
        ("a file as folder", opened(&path.join("x"), OFlags::RDONLY), &[Errno::NOTDIR]),
        (
            "a folder to write",
            opened(&mount.path("folder"), OFlags::WRONLY),
            &[Errno::ISDIR, Errno::ROFS],
        ),
        (
            "a long name",
            opened(&mount.path("n".repeat(256)), OFlags::RDONLY),
            &[Errno::NAMETOOLONG],
        ),
        ("read a folder", io::read(&folder, &mut buffer).map(drop), &[Errno::ISDIR]),
        ("seek before", rustix::fs::seek(&file, SeekFrom::Current(-1)).map(drop), &[Errno::INVAL]),
    ]);
    assert_eq!(io::pread(&file, &mut buffer, SIZE as u64 + 5), Ok(0), "past the end");
}

fn the_mount_says_that_it_is_read_only() {
    let sandbox = Sandbox::new();
    let mount = mounted(&sandbox);
    let told = rustix::fs::statvfs(mount.dir()).unwrap();
    let wanted = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
    assert!(told.f_flag.contains(wanted), "{:?}", told.f_flag);
    assert_eq!(told.f_namemax, 255);
    assert_ne!(told.f_bsize, 0);
    for file in ["folder/b/c", "folder/d", "plain"] {
        let mode = rustix::fs::stat(mount.path(file)).unwrap().st_mode;
        assert_eq!(mode & 0o6222, 0, "{file}: {mode:o}");
    }
}
