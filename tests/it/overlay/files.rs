//! Bytes and attributes of files in a writable mount.

use std::{
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use rustix::fs::{
    FallocateFlags, FlockOperation, XattrFlags, fallocate, flock, getxattr, setxattr,
};

use super::{LARGE, SMALL, Writable, in_both_open_modes};
use crate::support::{eventually, noise, output, succeed, text};

in_both_open_modes! {
    a_new_file_has_what_was_written_also_after_a_remount,
    a_file_of_the_base_is_changed_in_parts,
    a_large_file_is_copied_up_whole,
    whoever_reads_already_sees_what_is_written,
    what_is_emptied_is_not_fetched,
    an_open_to_read_can_empty_a_file_too,
    attributes_change_without_the_content,
    attributes_of_ones_own_are_kept,
    attributes_that_tell_of_content_are_carried_along_without_effect,
    what_lost_its_name_has_attributes_until_it_is_closed,
    times_before_1970_are_kept,
    a_folder_has_the_attributes_that_it_gets_when_something_deep_in_it_changes,
    room_is_given_and_taken_away,
    bytes_are_copied_within_the_mount,
    locks_exclude_each_other,
    locks_of_ranges_exclude_other_processes,
    a_mapping_writes_and_reads,
    the_kernel_reads_what_was_written_and_the_daemon_the_rest,
    the_disk_is_that_of_the_overlay,
    a_write_takes_set_id_bits_away,
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn a_new_file_has_what_was_written_also_after_a_remount() {
    let mut writable = Writable::new();
    let path = writable.path("data/new.txt");
    fs::write(&path, "one").unwrap();
    append(&path, " two");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one two");
    OpenOptions::new().write(true).open(&path).unwrap().set_len(5).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    File::open(writable.path("data")).unwrap().sync_all().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 5);
    assert_eq!(fs::read_to_string(writable.kept("data/new.txt")).unwrap(), "one t");
    writable.remount();
    assert_eq!(fs::read_to_string(&path).unwrap(), "one t");
    assert_eq!(writable.names("data"), ["a.bin", "b.bin", "new.txt", "sub"]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
}

fn a_file_of_the_base_is_changed_in_parts() {
    let mut writable = Writable::new();
    let small = writable.path("data/a.bin");
    assert_eq!(fs::metadata(&small).unwrap().mode() & 0o777, 0o644);
    let mut expected = noise(1, SMALL);
    expected[7000..7005].copy_from_slice(b"hello");
    let file = OpenOptions::new().read(true).write(true).open(&small).unwrap();
    file.write_all_at(b"hello", 7000).unwrap();
    let mut whole = Vec::new();
    (&file).read_to_end(&mut whole).unwrap();
    assert!(whole == expected, "through the handle");
    drop(file);
    append(&writable.path("README.md"), "more\n");
    append(&writable.path("data/b.bin"), "tail");
    for again in [false, true] {
        if again {
            writable.remount();
        }
        assert!(fs::read(&small).unwrap() == expected);
        assert_eq!(fs::read_to_string(writable.path("README.md")).unwrap(), "read me\nmore\n");
        assert_eq!(fs::read(writable.path("data/b.bin")).unwrap()[10..], *b"tail");
    }
}

fn a_large_file_is_copied_up_whole() {
    let writable = Writable::new();
    let path = writable.path("large.bin");
    let before = fs::metadata(&path).unwrap();
    let mut expected = noise(4, LARGE);
    expected[LARGE - 3..].copy_from_slice(b"end");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"end", LARGE as u64 - 3).unwrap();
    file.sync_all().unwrap();
    assert!(fs::read(&path).unwrap() == expected);
    let after = fs::metadata(&path).unwrap();
    assert_eq!(after.ino(), before.ino(), "it is still the same file");
    assert!(after.mtime() > before.mtime());
    assert_eq!(fs::metadata(writable.kept("large.bin")).unwrap().len(), LARGE as u64);
}

fn whoever_reads_already_sees_what_is_written() {
    let writable = Writable::new();
    let path = writable.path("data/a.bin");
    let reader = File::open(&path).unwrap();
    let mut begin = [0; 4];
    reader.read_exact_at(&mut begin, 0).unwrap();
    assert_eq!(begin, noise(1, 4)[..]);
    fs::write(&path, "all new").unwrap();
    let mut all = String::new();
    (&reader).read_to_string(&mut all).unwrap();
    assert_eq!(all, "all new");
    append(&path, "er");
    assert_eq!(fs::read_to_string(&path).unwrap(), "all newer");
    let mut tail = [0; 2];
    reader.read_exact_at(&mut tail, 7).unwrap();
    assert_eq!(&tail, b"er");
    assert_eq!(reader.metadata().unwrap().len(), 9);
}

fn what_is_emptied_is_not_fetched() {
    let writable = Writable::new();
    // The manifest comes first, and the sizes of what is listed.
    for folder in ["data", "data/sub"] {
        writable.names(folder);
    }
    let fetched = |writable: &Writable| writable.mounted().counter("remote_bytes");
    let before = fetched(&writable);
    fs::write(writable.path("data/a.bin"), "new").unwrap();
    let emptied = OpenOptions::new().write(true).open(writable.path("data/sub/c.bin")).unwrap();
    emptied.set_len(0).unwrap();
    fs::write(writable.path("large.bin"), "small").unwrap();
    assert_eq!(fetched(&writable), before);
    assert_eq!(fs::read(writable.path("data/a.bin")).unwrap(), b"new");
    assert_eq!(fs::read(writable.path("data/sub/c.bin")).unwrap(), b"");
    assert_eq!(fs::read(writable.path("large.bin")).unwrap(), b"small");
}

fn an_open_to_read_can_empty_a_file_too() {
    let mut writable = Writable::new();
    fs::write(writable.path("new"), "text").unwrap();
    let names = ["data/a.bin", "large.bin", "README.md", "new"];
    for name in names {
        let path = writable.path(name);
        let reader = File::open(&path).unwrap();
        let before = reader.metadata().unwrap().modified().unwrap();
        let emptied = OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&path);
        let emptied = emptied.unwrap();
        assert_eq!(emptied.metadata().unwrap().len(), 0, "{name}");
        assert!(emptied.metadata().unwrap().modified().unwrap() > before, "{name}");
        assert_eq!((&reader).read(&mut [0; 8]).unwrap(), 0, "{name}");
        assert!((&emptied).write(b"x").is_err(), "{name}: it is open to read");
        append(&path, "more");
        assert_eq!((&emptied).read(&mut [0; 8]).unwrap(), 4, "{name}");
    }
    let stats = writable.path(".dvcfs/stats");
    let refused = OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(stats);
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EROFS));
    writable.remount();
    for name in names {
        assert_eq!(fs::read_to_string(writable.path(name)).unwrap(), "more", "{name}");
    }
}

fn attributes_change_without_the_content() {
    let mut writable = Writable::new();
    writable.names("data");
    let before = writable.mounted().counter("remote_bytes");
    let path = writable.path("large.bin");
    let ino = fs::metadata(&path).unwrap().ino();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    File::open(writable.path("docs")).unwrap().set_times(times).unwrap();
    let page = OpenOptions::new().write(true).open(writable.path("docs/deep/page.txt")).unwrap();
    page.set_times(times).unwrap();
    drop(page);
    assert_eq!(writable.mounted().counter("remote_bytes"), before);
    for again in [false, true] {
        if again {
            writable.remount();
        }
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.len()), (0o600, LARGE as u64));
        for name in ["docs", "docs/deep/page.txt"] {
            let found = fs::metadata(writable.path(name)).unwrap();
            assert_eq!(found.modified().unwrap(), time, "{name}");
        }
        assert_eq!(fs::metadata(&path).unwrap().ino(), ino);
        assert_eq!(fs::read_to_string(writable.path("docs/deep/page.txt")).unwrap(), "a page\n");
    }
    assert!(fs::read(&path).unwrap() == noise(4, LARGE));
}

fn attributes_of_ones_own_are_kept() {
    let mut writable = Writable::new();
    for name in ["data/b.bin", "data", "new"] {
        let path = writable.path(name);
        if name == "new" {
            fs::write(&path, "x").unwrap();
        }
        setxattr(&path, "user.note", b"one", XattrFlags::CREATE).unwrap();
        let twice = setxattr(&path, "user.note", b"two", XattrFlags::CREATE);
        assert_eq!(twice, Err(rustix::io::Errno::EXIST));
        setxattr(&path, "user.note", b"two", XattrFlags::REPLACE).unwrap();
        let absent = setxattr(&path, "user.other", b"x", XattrFlags::REPLACE);
        assert_eq!(absent, Err(rustix::io::Errno::NODATA));
        let refused = setxattr(&path, "user.dvcfs.origin", b"x", XattrFlags::empty());
        assert_eq!(refused, Err(rustix::io::Errno::PERM));
    }
    append(&writable.path("data/b.bin"), "grown");
    writable.remount();
    let mut value = [0; 16];
    for name in ["data/b.bin", "data", "new"] {
        let path = writable.path(name);
        assert_eq!(getxattr(&path, "user.note", &mut value), Ok(3), "{name}");
        assert_eq!(&value[..3], b"two");
        let mut list = [0; 256];
        let length = rustix::fs::listxattr(&path, &mut list).unwrap();
        assert!(!String::from_utf8_lossy(&list[..length]).contains("dvcfs"), "marks are told");
        rustix::fs::removexattr(&path, "user.note").unwrap();
        let gone = getxattr(&path, "user.note", &mut value);
        assert_eq!(gone, Err(rustix::io::Errno::NODATA));
    }
}

fn attributes_that_tell_of_content_are_carried_along_without_effect() {
    let writable = Writable::new();
    setxattr(writable.path("data"), "user.note", b"one", XattrFlags::empty()).unwrap();
    let dir = writable.mounted().dir();
    let copy = |program: &str, args: &[&str]| {
        succeed(writable.sandbox.tool(program).current_dir(dir).args(args));
    };
    copy("cp", &["--preserve=xattr", "data/a.bin", "copied.bin"]);
    copy("cp", &["-a", "--preserve=xattr", "docs", "texts"]);
    for _again in 0..2 {
        copy("rsync", &["-aX", "data/", "synced/"]);
        copy("rsync", &["-aX", "--delete", "link", "docs", "synced-docs/"]);
    }
    assert!(fs::read(writable.path("synced/a.bin")).unwrap() == noise(1, SMALL));
    let value = |name: &str, attribute: &str| {
        let mut value = [0; 64];
        let length = getxattr(writable.path(name), attribute, &mut value)?;
        Ok(String::from_utf8_lossy(&value[..length]).into_owned())
    };
    assert_eq!(value("synced", "user.note").as_deref(), Ok("one"));
    let md5 = value("data/a.bin", "user.dvc.md5").unwrap();
    for name in ["copied.bin", "synced/a.bin", "data/a.bin"] {
        setxattr(writable.path(name), "user.dvc.md5", b"x", XattrFlags::empty()).unwrap();
        rustix::fs::removexattr(writable.path(name), "user.dvc.md5").unwrap();
    }
    assert_eq!(value("data/a.bin", "user.dvc.md5"), Ok(md5));
    for name in ["copied.bin", "synced/a.bin"] {
        assert_eq!(value(name, "user.dvc.md5"), Err(rustix::io::Errno::NODATA), "{name}");
    }
    let beside = setxattr(writable.path(".dvcfs"), "user.dvc.md5", b"x", XattrFlags::empty());
    assert_eq!(beside, Err(rustix::io::Errno::ROFS));
}

fn what_lost_its_name_has_attributes_until_it_is_closed() {
    let writable = Writable::new();
    // One that the overlay has an entry of, one that it has none of, and one that is replaced.
    let names = ["data/a.bin", "data/b.bin", "data/sub/c.bin"];
    setxattr(writable.path("data/a.bin"), "user.note", b"before", XattrFlags::empty()).unwrap();
    fs::write(writable.path("new"), "new").unwrap();
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 5);
    for (name, seed) in names.into_iter().zip(1..) {
        let path = writable.path(name);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let size = file.metadata().unwrap().len();
        if name == "data/sub/c.bin" {
            fs::rename(writable.path("new"), &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        let owner = (rustix::process::getuid(), rustix::process::getgid());
        rustix::fs::fchown(&file, Some(owner.0), Some(owner.1)).unwrap();
        rustix::fs::fsetxattr(&file, "user.more", b"after", XattrFlags::empty()).unwrap();
        let check = |has_time: bool| {
            let found = file.metadata().unwrap();
            assert_eq!((found.mode() & 0o7777, found.nlink(), found.len()), (0o600, 0, size));
            assert_eq!(found.modified().unwrap() == time, has_time, "{name}");
            let mut value = [0; 16];
            assert_eq!(rustix::fs::fgetxattr(&file, "user.more", &mut value), Ok(5), "{name}");
            let before = rustix::fs::fgetxattr(&file, "user.note", &mut value);
            assert_eq!(before.is_ok(), name == "data/a.bin", "{name}");
            file.sync_all().unwrap();
        };
        check(true);
        let mut expected = noise(seed, size as usize);
        let mut whole = vec![0; expected.len()];
        file.read_exact_at(&mut whole, 0).unwrap();
        assert!(whole == expected, "{name}");
        expected[..2].copy_from_slice(b"xy");
        file.write_all_at(b"xy", 0).unwrap();
        file.read_exact_at(&mut whole, 0).unwrap();
        assert!(whole == expected, "{name}");
        check(false);
    }
    assert_eq!(writable.names("data"), ["sub"]);
    assert_eq!(fs::read_to_string(writable.path("data/sub/c.bin")).unwrap(), "new");
    fs::create_dir(writable.path("made")).unwrap();
    for name in ["made", "docs/deep"] {
        let folder = File::open(writable.path(name)).unwrap();
        fs::remove_dir_all(writable.path(name)).unwrap();
        folder.sync_all().unwrap();
    }
}

fn times_before_1970_are_kept() {
    let writable = Writable::new();
    let file = File::create(writable.path("old")).unwrap();
    for before in [Duration::from_millis(500), Duration::new(7, 0), Duration::new(7, 1)] {
        let time = UNIX_EPOCH - before;
        file.set_times(FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
        for found in [file.metadata().unwrap(), fs::metadata(writable.kept("old")).unwrap()] {
            assert_eq!(found.modified().unwrap(), time);
            assert_eq!(found.accessed().unwrap(), time);
        }
    }
}

fn room_is_given_and_taken_away() {
    let writable = Writable::new();
    let path = writable.path("room");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    file.write_all_at(&vec![7; 1 << 20], 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 1 << 16, 1 << 16).unwrap();
    let mut byte = [1];
    file.read_exact_at(&mut byte, 1 << 16).unwrap();
    assert_eq!(byte, [0]);
    let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap();
    assert_eq!(hole, 1 << 16);
    let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole)).unwrap();
    assert_eq!(data, 2 << 16);
    assert_eq!((&file).seek(SeekFrom::End(0)).unwrap(), 1 << 20);
    let base = OpenOptions::new().read(true).open(writable.path("data/a.bin")).unwrap();
    let end = rustix::fs::seek(&base, rustix::fs::SeekFrom::Hole(5)).unwrap();
    assert_eq!(end, SMALL as u64);
}

fn bytes_are_copied_within_the_mount() {
    let writable = Writable::new();
    fs::write(writable.path("one"), noise(8, 100_000)).unwrap();
    fs::copy(writable.path("one"), writable.path("two")).unwrap();
    fs::copy(writable.path("data/a.bin"), writable.path("three")).unwrap();
    assert!(fs::read(writable.path("two")).unwrap() == noise(8, 100_000));
    assert!(fs::read(writable.path("three")).unwrap() == noise(1, SMALL));
}

fn locks_exclude_each_other() {
    let writable = Writable::new();
    let path = writable.path("data/a.bin");
    let (one, two) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    flock(&one, FlockOperation::LockExclusive).unwrap();
    let refused = flock(&two, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(rustix::io::Errno::WOULDBLOCK));
    // Not by closing it: a process that another test is about to start may have it open, too.
    flock(&one, FlockOperation::Unlock).unwrap();
    flock(&two, FlockOperation::NonBlockingLockExclusive).unwrap();
}

/// Locks five bytes of a file, tells so, and waits until it is told to end.
const LOCK: &str = "import fcntl, sys
file = open(sys.argv[1], 'r+')
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, int(sys.argv[2]))
print('held', flush=True)
sys.stdin.read()";

fn locks_of_ranges_exclude_other_processes() {
    let writable = Writable::new();
    let python = format!("{}/bin/python", std::env::var("DVCFS_TEST_VENV").unwrap());
    let lock = |from: &str| {
        let mut command = Command::new(&python);
        command.args(["-c", LOCK]).arg(writable.path("data/a.bin")).arg(from);
        command
    };
    let mut holder = lock("10");
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = [0; "held\n".len()];
    holder.stdout.take().unwrap().read_exact(&mut told).unwrap();
    succeed(lock("15").stdin(Stdio::null()));
    let refused = output(lock("14").stdin(Stdio::null()));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("BlockingIOError"), "{said}");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    succeed(lock("14").stdin(Stdio::null()));
}

/// A shared mapping of a file's first page; it needs no descriptor to go on.
pub(super) struct Mapped(*mut libc::c_void);

impl Mapped {
    const PAGE: usize = 4096;

    pub(super) fn new(file: &File, is_writable: bool) -> Self {
        use std::os::fd::AsRawFd;
        let protection = libc::PROT_READ | if is_writable { libc::PROT_WRITE } else { 0 };
        let (length, file) = (Self::PAGE, file.as_raw_fd());
        // SAFETY: a new mapping of a file that is open.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file, 0)
        };
        assert_ne!(address, libc::MAP_FAILED);
        Self(address)
    }

    pub(super) fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::PAGE];
        // SAFETY: the mapping is a page long, and so is what it is copied to.
        unsafe { std::ptr::copy_nonoverlapping(self.0.cast(), bytes.as_mut_ptr(), Self::PAGE) };
        bytes
    }

    /// Writes at the beginning of one that is writable.
    pub(super) fn write(&self, bytes: &[u8]) {
        // SAFETY: the mapping is a page long, and nobody else writes to its address.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.0.cast(),
                bytes.len().min(Self::PAGE),
            );
            assert_eq!(libc::msync(self.0, Self::PAGE, libc::MS_SYNC), 0);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: nobody has the address any more.
        assert_eq!(unsafe { libc::munmap(self.0, Self::PAGE) }, 0);
    }
}

fn a_mapping_writes_and_reads() {
    let mut writable = Writable::new();
    for (name, length) in [("data/a.bin", SMALL), ("fresh", 8192)] {
        let path = writable.path(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        file.set_len(length as u64).unwrap();
        let mut expected = fs::read(&path).unwrap();
        expected[..6].copy_from_slice(b"mapped");
        Mapped::new(&file, true).write(b"mapped");
        let mut first = [0; 6];
        file.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(&first, b"mapped", "{name}");
        drop(file);
        assert!(fs::read(&path).unwrap() == expected, "{name}");
        assert!(fs::read(writable.kept(name)).unwrap() == expected, "{name}");
    }
    writable.remount();
    assert_eq!(&fs::read(writable.path("data/a.bin")).unwrap()[..6], b"mapped");
}

fn the_kernel_reads_what_was_written_and_the_daemon_the_rest() {
    let mut writable = Writable::new();
    let told = text(writable.sandbox.dvcfs(["status", "--json"]).arg(writable.mounted().dir()));
    let is_passed = told.contains("\"mode\": \"passthrough\"");
    fs::write(writable.path("made"), noise(5, SMALL)).unwrap();
    append(&writable.path("data/sub/c.bin"), "copied up");
    // The kernel keeps pages of what was written.
    writable.remount();
    for (name, size, is_upper) in
        [("made", SMALL, true), ("data/sub/c.bin", 5009, true), ("data/a.bin", SMALL, false)]
    {
        let before = writable.mounted().counter("read_bytes");
        assert_eq!(fs::read(writable.path(name)).unwrap().len(), size);
        let served = writable.mounted().counter("read_bytes") - before;
        assert_eq!(served < size as u64, is_passed && is_upper, "{name}: {served}, {told}");
    }
}

fn the_disk_is_that_of_the_overlay() {
    let writable = Writable::new();
    let shown = rustix::fs::statvfs(writable.mounted().dir()).unwrap();
    let disk = rustix::fs::statvfs(&writable.upper).unwrap();
    assert_eq!((shown.f_blocks, shown.f_frsize), (disk.f_blocks, disk.f_frsize));
    assert!(shown.f_bavail > 0);
}

fn a_write_takes_set_id_bits_away() {
    let mut writable = Writable::new();
    fs::set_permissions(writable.sandbox.path(""), Permissions::from_mode(0o755)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let by_nobody = |script: &str, path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script, "-"]);
        succeed(command.arg(path));
    };
    let writes = [
        ("a", "echo more >> \"$1\"", 0o777),
        ("b", "echo less > \"$1\"", 0o777),
        ("c", "truncate -s 1 \"$1\"", 0o777),
        ("d", "perl -MFcntl -e 'sysopen F, shift, O_TRUNC or die' \"$1\"", 0o777),
        ("e", "cat \"$1\" > /dev/null", 0o6777),
    ];
    for (name, ..) in writes {
        fs::write(writable.path(name), "text").unwrap();
        fs::set_permissions(writable.path(name), Permissions::from_mode(0o6777)).unwrap();
    }
    // The kernel tells only after `close` has returned that nobody has a file open any more.
    writable.remount();
    for (name, script, left) in writes {
        let path = writable.path(name);
        assert_eq!(mode(&path), 0o6777);
        by_nobody(script, &path);
        assert_eq!(mode(&path), left, "{script}");
    }
}

fn a_folder_has_the_attributes_that_it_gets_when_something_deep_in_it_changes() {
    let writable = Writable::new();
    let ctime = |path: &Path| path.metadata().map(|it| (it.ctime(), it.ctime_nsec())).unwrap();
    let (docs, root) = (writable.path("docs"), writable.path(""));
    let before = [ctime(&docs), ctime(&root)];
    fs::write(writable.path("docs/deep/new"), "new").unwrap();
    let upper = writable.upper.join("upper");
    let own = || [ctime(&upper.join("docs")), ctime(&upper)];
    assert_ne!(own()[0], before[0]);
    eventually("the kernel asks again", || [ctime(&docs), ctime(&root)] == own());
}
