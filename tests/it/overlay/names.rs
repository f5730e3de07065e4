//! Names in a writable mount: what is created, removed and moved.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, RenameFlags, mknodat, renameat_with},
    io::Errno,
};

use super::{SMALL, Writable, in_both_open_modes};
use crate::support::noise;

in_both_open_modes! {
    names_come_and_go,
    a_file_that_is_open_outlives_its_name,
    a_temporary_file_takes_the_place_of_another,
    files_of_the_base_move_without_being_fetched,
    folders_of_the_base_move_with_what_is_in_them,
    a_folder_comes_back_empty_where_one_was_removed,
    a_folder_moves_over_an_empty_one,
    links_are_made_and_moved,
    what_is_refused_is_refused_clearly,
    files_that_dvc_reads_are_files_like_any_other,
    modes_are_inherited_as_on_a_disk,
    a_listing_goes_on_while_names_go,
    threads_do_not_disturb_each_other,
    a_path_may_be_longer_than_the_kernel_takes,
}

fn os_error<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

fn names_come_and_go() {
    let mut writable = Writable::new();
    fs::create_dir_all(writable.path("data/sub/more/deep")).unwrap();
    fs::write(writable.path("data/sub/more/deep/file"), "x").unwrap();
    fs::remove_file(writable.path("data/a.bin")).unwrap();
    fs::remove_file(writable.path("README.md")).unwrap();
    assert_eq!(os_error(fs::remove_dir(writable.path("data/sub"))), Errno::NOTEMPTY);
    assert_eq!(os_error(fs::remove_dir(writable.path("docs"))), Errno::NOTEMPTY);
    fs::remove_dir_all(writable.path("docs")).unwrap();
    for again in [false, true] {
        if again {
            writable.remount();
        }
        assert_eq!(writable.names("data"), ["b.bin", "sub"]);
        assert_eq!(writable.names("data/sub"), ["c.bin", "more"]);
        for gone in ["data/a.bin", "README.md", "docs", "docs/deep/page.txt"] {
            assert_eq!(os_error(fs::metadata(writable.path(gone))), Errno::NOENT, "{gone}");
        }
        assert_eq!(fs::read_to_string(writable.path("data/sub/more/deep/file")).unwrap(), "x");
    }
    fs::write(writable.path("README.md"), "again").unwrap();
    assert_eq!(fs::read_to_string(writable.path("README.md")).unwrap(), "again");
    fs::remove_file(writable.path("README.md")).unwrap();
    assert_eq!(os_error(fs::metadata(writable.path("README.md"))), Errno::NOENT);
}

fn a_file_that_is_open_outlives_its_name() {
    let writable = Writable::new();
    fs::write(writable.path("own"), "own bytes").unwrap();
    for (name, begin) in [("own", b"own by".to_vec()), ("data/a.bin", noise(1, 6))] {
        let path = writable.path(name);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another file").unwrap();
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, begin[..], "{name}");
        file.write_all_at(b"changed", 0).unwrap();
        let mut bytes = [0; 7];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"changed");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.set_len(3).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        file.sync_all().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "another file");
    }
}

fn a_temporary_file_takes_the_place_of_another() {
    let mut writable = Writable::new();
    for name in ["data/a.bin", "README.md", "new"] {
        let (path, temporary) = (writable.path(name), writable.path(format!("{name}.tmp")));
        fs::write(&temporary, name).unwrap();
        fs::rename(&temporary, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), name);
        assert_eq!(os_error(fs::metadata(&temporary)), Errno::NOENT);
    }
    writable.remount();
    for name in ["data/a.bin", "README.md", "new"] {
        assert_eq!(fs::read_to_string(writable.path(name)).unwrap(), name);
    }
    assert_eq!(writable.names("data"), ["a.bin", "b.bin", "sub"]);
}

fn files_of_the_base_move_without_being_fetched() {
    let mut writable = Writable::new();
    // The sizes of what is listed are asked for at once.
    for folder in ["data", "data/sub"] {
        writable.names(folder);
    }
    let ino = fs::metadata(writable.path("data/a.bin")).unwrap().ino();
    let sized = writable.mounted().counter("remote_bytes");
    fs::rename(writable.path("large.bin"), writable.path("data/moved.bin")).unwrap();
    fs::rename(writable.path("data/a.bin"), writable.path("data/sub/c.bin")).unwrap();
    assert_eq!(writable.mounted().counter("remote_bytes"), sized);
    for again in [false, true] {
        if again {
            writable.remount();
        }
        assert_eq!(writable.names("data"), ["b.bin", "moved.bin", "sub"]);
        assert_eq!(fs::metadata(writable.path("data/sub/c.bin")).unwrap().ino(), ino);
        assert_eq!(os_error(fs::metadata(writable.path("large.bin"))), Errno::NOENT);
    }
    assert!(fs::read(writable.path("data/sub/c.bin")).unwrap() == noise(1, SMALL));
    let file = OpenOptions::new().write(true).open(writable.path("data/sub/c.bin")).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let mut expected = noise(1, SMALL);
    expected[0] = b'x';
    assert!(fs::read(writable.path("data/sub/c.bin")).unwrap() == expected);
    fs::rename(writable.path("data/sub/c.bin"), writable.path("back")).unwrap();
    writable.remount();
    assert!(fs::read(writable.path("back")).unwrap() == expected);
}

fn folders_of_the_base_move_with_what_is_in_them() {
    let mut writable = Writable::new();
    let page = File::open(writable.path("docs/deep/page.txt")).unwrap();
    fs::rename(writable.path("data"), writable.path("docs/data")).unwrap();
    fs::rename(writable.path("docs"), writable.path("texts")).unwrap();
    fs::rename(writable.path("texts/data/sub"), writable.path("sub")).unwrap();
    fs::write(writable.path("sub/new"), "new").unwrap();
    fs::create_dir(writable.path("docs")).unwrap();
    for again in [false, true] {
        if again {
            writable.remount();
        }
        assert_eq!(writable.names("docs"), [""; 0]);
        assert_eq!(writable.names("texts"), ["data", "deep"]);
        assert_eq!(writable.names("texts/data"), ["a.bin", "b.bin"]);
        assert_eq!(writable.names("sub"), ["c.bin", "new"]);
        assert!(fs::read(writable.path("texts/data/a.bin")).unwrap() == noise(1, SMALL));
        assert!(fs::read(writable.path("sub/c.bin")).unwrap() == noise(3, 5000));
        assert_eq!(os_error(fs::metadata(writable.path("data"))), Errno::NOENT);
        if !again {
            let mut text = [0; 6];
            page.read_exact_at(&mut text, 0).unwrap();
            assert_eq!(&text, b"a page");
            // What is open keeps a mount busy.
            let copy = page.try_clone().unwrap();
            drop(copy);
        }
    }
    fs::rename(writable.path("texts/data"), writable.path("data")).unwrap();
    fs::remove_dir_all(writable.path("texts")).unwrap();
    assert_eq!(writable.names("data"), ["a.bin", "b.bin"]);
}

fn a_folder_comes_back_empty_where_one_was_removed() {
    let mut writable = Writable::new();
    fs::remove_dir_all(writable.path("data")).unwrap();
    fs::create_dir(writable.path("data")).unwrap();
    assert_eq!(writable.names("data"), [""; 0]);
    fs::write(writable.path("data/a.bin"), "mine").unwrap();
    writable.remount();
    assert_eq!(writable.names("data"), ["a.bin"]);
    assert_eq!(fs::read_to_string(writable.path("data/a.bin")).unwrap(), "mine");
    fs::remove_dir_all(writable.path("data")).unwrap();
    fs::write(writable.path("data"), "a file now").unwrap();
    writable.remount();
    assert_eq!(fs::read_to_string(writable.path("data")).unwrap(), "a file now");
}

fn a_folder_moves_over_an_empty_one() {
    let mut writable = Writable::new();
    let (old, new) = (writable.path("docs"), writable.path("data/sub"));
    assert_eq!(os_error(fs::rename(&old, &new)), Errno::NOTEMPTY);
    fs::remove_file(writable.path("data/sub/c.bin")).unwrap();
    fs::rename(&old, &new).unwrap();
    writable.remount();
    assert_eq!(writable.names("data/sub"), ["deep"]);
    assert_eq!(fs::read_to_string(writable.path("data/sub/deep/page.txt")).unwrap(), "a page\n");
}

fn links_are_made_and_moved() {
    let mut writable = Writable::new();
    symlink("nowhere/at all", writable.path("dangling")).unwrap();
    fs::rename(writable.path("link"), writable.path("data/link")).unwrap();
    for again in [false, true] {
        if again {
            writable.remount();
        }
        let target = |name| fs::read_link(writable.path(name)).unwrap();
        assert_eq!(target("dangling"), Path::new("nowhere/at all"));
        assert_eq!(target("data/link"), Path::new("README.md"));
        assert_eq!(os_error(fs::symlink_metadata(writable.path("link"))), Errno::NOENT);
    }
    fs::remove_file(writable.path("dangling")).unwrap();
    fs::remove_file(writable.path("data/link")).unwrap();
}

fn what_is_refused_is_refused_clearly() {
    let writable = Writable::new();
    let (old, new) = (writable.path("README.md"), writable.path("new"));
    assert_eq!(os_error(fs::hard_link(&old, &new)), Errno::PERM);
    let node = |kind| mknodat(CWD, &new, kind, Mode::RWXU, rustix::fs::makedev(1, 3));
    for kind in [FileType::CharacterDevice, FileType::BlockDevice, FileType::Socket] {
        assert_eq!(node(kind), Err(Errno::PERM));
    }
    node(FileType::Fifo).unwrap();
    assert!(fs::metadata(&new).unwrap().file_type().is_fifo());
    let renamed = |flags| renameat_with(CWD, &old, CWD, &new, flags);
    assert_eq!(renamed(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(renamed(RenameFlags::EXCHANGE), Err(Errno::INVAL));
    assert_eq!(os_error(fs::rename(&old, writable.path("data"))), Errno::ISDIR);
    assert_eq!(os_error(fs::create_dir(writable.path("data"))), Errno::EXIST);
    let nameless = rustix::fs::open(
        writable.path("data"),
        rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR,
        Mode::RWXU,
    );
    assert_eq!(nameless.unwrap_err(), Errno::OPNOTSUPP);
    let other = writable.path(".revs/main/README.md");
    assert_eq!(os_error(fs::write(&other, "x")), Errno::ROFS);
    assert_eq!(os_error(fs::remove_file(&other)), Errno::ROFS);
    assert_eq!(os_error(fs::create_dir(writable.path(".dvcfs/x"))), Errno::ROFS);
    let long = writable.path("n".repeat(256));
    assert_eq!(os_error(fs::write(long, "x")), Errno::NAMETOOLONG);
}

fn files_that_dvc_reads_are_files_like_any_other() {
    let mut writable = Writable::new();
    let before = fs::read_to_string(writable.path("large.bin.dvc")).unwrap();
    fs::write(writable.path("large.bin.dvc"), format!("{before}# mine\n")).unwrap();
    fs::write(writable.path("dvc.yaml"), "stages: {}\n").unwrap();
    fs::write(writable.path(".gitignore"), "/x\n").unwrap();
    writable.remount();
    let text = fs::read_to_string(writable.path("large.bin.dvc")).unwrap();
    assert!(text.ends_with("# mine\n"));
    assert_eq!(fs::read_to_string(writable.path("dvc.yaml")).unwrap(), "stages: {}\n");
    assert_eq!(fs::read_to_string(writable.path(".gitignore")).unwrap(), "/x\n");
}

fn modes_are_inherited_as_on_a_disk() {
    let writable = Writable::new();
    let shared = writable.path("shared");
    fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, None, Some(12)).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2775)).unwrap();
    fs::create_dir(shared.join("folder")).unwrap();
    fs::write(shared.join("file"), "x").unwrap();
    let folder = fs::metadata(shared.join("folder")).unwrap();
    assert_eq!((folder.mode() & 0o7000, folder.gid()), (0o2000, 12));
    assert_eq!(fs::metadata(shared.join("file")).unwrap().gid(), 12);
}

fn a_listing_goes_on_while_names_go() {
    let writable = Writable::new();
    let folder = writable.path("data");
    for number in 0..500 {
        fs::write(folder.join(format!("file {number:03}")), "x").unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::remove_file(entry.path()).unwrap();
            seen += 1;
        }
    }
    assert_eq!(seen, 502);
    assert_eq!(writable.names("data"), ["sub"]);
}

/// What one of several threads does in folders that all of them use.
fn come_and_go(root: &Path, thread: usize) {
    for number in 0..150 {
        let (own, moved) = (format!("{thread} {number}"), format!("moved {thread} {number}"));
        let folder = root.join(["data", "docs/deep", ""][number % 3]);
        fs::write(folder.join(&own), &own).unwrap();
        fs::rename(folder.join(&own), root.join("docs").join(&moved)).unwrap();
        assert_eq!(fs::read_to_string(root.join("docs").join(&moved)).unwrap(), own);
        fs::create_dir(folder.join(&own)).unwrap();
        fs::rename(root.join("docs").join(&moved), folder.join(&own).join("in")).unwrap();
        assert!(fs::read_dir(&folder).unwrap().count() > 0);
        if number % 2 == 0 {
            fs::remove_dir_all(folder.join(&own)).unwrap();
        }
        // A folder that all of them write below moves meanwhile.
        if thread == 0 {
            fs::rename(root.join("docs/deep/sub"), root.join("sub")).unwrap();
            fs::rename(root.join("sub"), root.join("docs/deep/sub")).unwrap();
        }
    }
}

fn threads_do_not_disturb_each_other() {
    let mut writable = Writable::new();
    let root = writable.mounted().dir().to_owned();
    fs::rename(root.join("data/sub"), root.join("docs/deep/sub")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let root = &root;
            scope.spawn(move || come_and_go(root, thread));
        }
    });
    writable.remount();
    // Each thread has left a folder for each odd number.
    let left =
        |folder: &str| writable.names(folder).iter().filter(|name| name.contains(' ')).count();
    assert_eq!(left("data") + left("docs/deep") + left(""), 4 * 75);
    assert_eq!(left("docs"), 0);
    assert!(fs::read(root.join("docs/deep/sub/c.bin")).unwrap() == noise(3, 5000));
}

/// Opens a folder some names below another, one name after the other; those that are missing are made.
fn enter(folder: &Path, names: &[&str]) -> File {
    names.iter().fold(File::open(folder).unwrap(), |at, name| {
        _ = rustix::fs::mkdirat(&at, *name, Mode::RWXU);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&at, *name, flags, Mode::empty()).unwrap().into()
    })
}

fn a_path_may_be_longer_than_the_kernel_takes() {
    let mut writable = Writable::new();
    let (x, y) = ("x".repeat(200), "y".repeat(200));
    let (xs, ys) = ([&x[..]; 12], [&y[..]; 12]);
    let top = writable.mounted().dir().to_owned();
    let open = |folder: &File, flags| {
        let mode = Mode::RUSR | Mode::WUSR;
        File::from(rustix::fs::openat(folder, "file", flags | OFlags::CLOEXEC, mode).unwrap())
    };
    let made = open(&enter(&top, &[&["a"], &xs[..]].concat()), OFlags::WRONLY | OFlags::CREATE);
    (&made).write_all(b"text\n").unwrap();
    let (from, to) = (enter(&top, &["a"]), enter(&top, &[&["b"], &ys[..]].concat()));
    rustix::fs::renameat(&from, &x, &to, "moved").unwrap();
    drop((made, from, to));
    let names = [&["b"], &ys[..], &["moved"], &xs[1..]].concat();
    let read = || io::read_to_string(open(&enter(&top, &names), OFlags::RDONLY)).unwrap();
    enter(&top, &names).sync_all().unwrap();
    for is_recorded in [false, true] {
        if is_recorded {
            writable.snapshot(&[]);
            assert!(writable.changes().is_empty(), "{:?}", writable.changes());
        }
        writable.remount();
        assert_eq!(read(), "text\n");
        let (code, said) = writable.run("status", &[]);
        assert_eq!(code, Some(0), "{said}");
    }
    fs::remove_dir_all(top.join("b")).unwrap();
    assert_eq!(writable.changes().len(), 1, "{:?}", writable.changes());
    let (code, said) = writable.run("discard", &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(read(), "text\n");
}
