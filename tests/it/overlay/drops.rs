//! What goes and what stays when changes are dropped.

use std::{
    fs::{self, File, FileTimes, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::Writable;
use crate::support::Terminal;

impl Writable {
    fn discard(&self, paths: &[&str]) {
        let (code, said) = self.run("discard", paths);
        assert_eq!(code, Some(0), "{said}");
    }

    fn make(&self, folder: &str) {
        fs::create_dir_all(self.path(folder)).unwrap();
    }
}

const LABEL: &str = "user.label";

/// Gives a folder a mode, a time and an attribute; [`has_attributes`] looks for them.
fn give_attributes(folder: &Path) {
    fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    setxattr(folder, LABEL, b"mine", XattrFlags::empty()).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(folder).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

fn has_attributes(folder: &Path) -> [bool; 3] {
    let has = fs::metadata(folder).unwrap();
    let is_labelled = getxattr(folder, LABEL, &mut [0; 9][..]).is_ok();
    [has.mode() & 0o777 == 0o700, has.mtime() == 1_000_000_000, is_labelled]
}

#[test]
fn what_a_folder_was_given_stays_when_a_file_in_it_is_dropped() {
    let writable = Writable::new();
    for name in ["data/a.bin", "data/sub/c.bin", "made/new"] {
        writable.make("made");
        fs::write(writable.path(name), "x").unwrap();
    }
    for name in ["data", "made"] {
        give_attributes(&writable.path(name));
    }
    writable.discard(&["data/a.bin", "made/new"]);
    writable.discard(&["data/sub/c.bin"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
    for name in ["data", "made"] {
        assert_eq!(has_attributes(&writable.path(name)), [true; 3], "{name}");
    }
    assert!(!writable.kept("data/sub").exists(), "it only led to a file");
    writable.discard(&["data", "made"]);
    assert_eq!(has_attributes(&writable.path("data")), [false; 3]);
    assert!(!writable.path("made").exists());
}

#[test]
fn what_the_root_was_given_goes_with_everything() {
    let writable = Writable::new();
    let root = || writable.mounted().dir();
    let before = fs::metadata(root()).unwrap();
    give_attributes(root());
    rustix::fs::chown(root(), Some(rustix::fs::Uid::from_raw(12)), None).unwrap();
    assert_eq!(has_attributes(root()), [true; 3]);
    writable.discard(&["--yes"]);
    assert_eq!(has_attributes(root()), [false; 3]);
    let after = fs::metadata(root()).unwrap();
    assert_eq!([after.mode(), after.uid()], [before.mode(), before.uid()]);
}

#[test]
fn a_terminal_is_asked_before_everything_is_dropped() {
    let writable = Writable::new();
    fs::write(writable.path("new"), "new").unwrap();
    let line = format!("\"$DVCFS\" discard {}", writable.mounted().dir().display());
    for (answer, code, is_there) in [("\n", 1, true), ("n\n", 1, true), ("y\n", 0, false)] {
        let mut terminal = Terminal::run(&writable.sandbox, &line);
        terminal.wait_for("Drop all changes for good: 1 added (3 B)? [y/N] ");
        terminal.type_in(answer);
        let (ended, shown) = terminal.end();
        assert_eq!(ended, code, "{shown}");
        let said = if is_there { "nothing was dropped" } else { "dropped: everything" };
        assert!(shown.contains(said), "{shown}");
        assert_eq!(writable.path("new").exists(), is_there, "{answer:?}");
    }
}
