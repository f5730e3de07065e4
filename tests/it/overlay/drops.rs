//! What goes and what stays when changes are dropped.

use std::{
    fs::{self, File, FileTimes, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::{SMALL, Writable};
use crate::support::{Terminal, noise};

impl Writable {
    fn discard(&self, paths: &[&str]) {
        let (code, said) = self.run("discard", paths);
        assert_eq!(code, Some(0), "{said}");
    }

    /// What `discard` says where it refuses.
    fn keeps(&self, paths: &[&str]) -> String {
        let before = self.changes();
        let (code, said) = self.run("discard", paths);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(self.changes(), before);
        said
    }

    fn move_to(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn make(&self, folder: &str) {
        fs::create_dir_all(self.path(folder)).unwrap();
    }
}

#[test]
fn what_was_moved_into_a_folder_goes_back_with_it() {
    let writable = Writable::new();
    writable.make("new/deep");
    writable.move_to("data/a.bin", "new/a.bin");
    writable.move_to("data/sub", "new/deep/sub");
    writable.move_to("new/deep/sub/c.bin", "new/c.bin");
    writable.move_to("docs", "new/docs");
    fs::write(writable.path("new/note"), "new").unwrap();
    writable.discard(&["new"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert!(fs::read(writable.path("data/a.bin")).unwrap() == noise(1, SMALL));
    assert!(fs::read(writable.path("data/sub/c.bin")).unwrap() == noise(3, 5000));
    assert_eq!(fs::read_to_string(writable.path("docs/deep/page.txt")).unwrap(), "a page\n");

    writable.move_to("docs", "data/docs");
    writable.discard(&["data"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
}

#[test]
fn what_came_from_a_folder_that_was_moved_goes_back_into_it() {
    let writable = Writable::new();
    writable.make("new");
    writable.move_to("docs", "texts");
    writable.move_to("texts/deep", "new/deep");
    writable.discard(&["new"]);
    assert_eq!(writable.changes(), ["renamed docs/deep/page.txt texts/deep/page.txt git"]);
    writable.discard(&["texts"]);
    assert_eq!(writable.changes(), Vec::<String>::new());

    writable.make("new");
    writable.move_to("docs", "texts");
    writable.move_to("texts/deep", "new/deep");
    let said = writable.keeps(&["texts"]);
    assert!(said.contains("docs/deep: was moved to new/deep; discard that one, too"), "{said}");
    writable.discard(&["texts", "new"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
}

#[test]
fn what_cannot_go_back_stays_and_says_why() {
    let writable = Writable::new();
    writable.make("new");
    writable.move_to("docs/deep/page.txt", "new/page.txt");
    fs::remove_dir(writable.path("docs/deep")).unwrap();
    fs::remove_dir(writable.path("docs")).unwrap();
    let why = "new/page.txt: was moved from docs/deep/page.txt, and docs was removed";
    for path in ["new", "new/page.txt"] {
        let said = writable.keeps(&[path]);
        assert!(said.contains(why), "{said}");
    }
    writable.discard(&["new", "docs"]);
    assert_eq!(writable.changes(), Vec::<String>::new());

    writable.move_to("docs", "new");
    writable.make("docs");
    fs::write(writable.path("docs/other"), "other").unwrap();
    let said = writable.keeps(&["new"]);
    assert!(said.contains("new: was moved from docs, and docs was replaced"), "{said}");
    writable.discard(&["new", "docs"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
}

#[test]
fn nothing_of_the_base_is_there_twice() {
    let writable = Writable::new();
    writable.move_to("README.md", "README.md~");
    fs::write(writable.path("README.md"), "other\n").unwrap();
    let said = writable.keeps(&["README.md"]);
    assert!(said.contains("README.md: was moved to README.md~"), "{said}");
    writable.discard(&["README.md~"]);
    assert_eq!(writable.changes(), ["modified README.md git"]);
    writable.discard(&["README.md"]);
    assert_eq!(fs::read_to_string(writable.path("README.md")).unwrap(), "read me\n");
}

#[test]
fn a_folder_in_whose_place_a_file_came_is_named() {
    let writable = Writable::new();
    fs::remove_dir_all(writable.path("docs")).unwrap();
    fs::write(writable.path("docs"), "a file\n").unwrap();
    let said = writable.keeps(&["docs/deep/page.txt"]);
    assert!(said.contains("the folder docs was replaced; discard that one"), "{said}");
}

#[test]
fn a_folder_that_is_back_is_where_it_was() {
    let writable = Writable::new();
    writable.move_to("data", "away");
    fs::write(writable.path("away/a.bin"), "other").unwrap();
    writable.move_to("away", "data");
    assert_eq!(writable.changes(), ["modified data/a.bin manifest data.dvc"]);
    writable.discard(&["data/a.bin"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert!(fs::read(writable.path("data/a.bin")).unwrap() == noise(1, SMALL));
    assert!(!writable.kept("data").exists());
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
