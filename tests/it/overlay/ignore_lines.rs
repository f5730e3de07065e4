//! The lines of a `.gitignore` that keep outputs out of git, as DVC writes and removes them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Writable;
use crate::support::{DATE, Dvc, noise};

impl Writable {
    /// A clone of what is mounted with all of its data.
    fn pulled(&self, dvc: &mut Dvc, name: &str) -> PathBuf {
        let clone = self.clone_at("origin/main", name);
        self.dvc(dvc, &clone, "pull", &[]);
        clone
    }

    /// Fails unless a commit has the rules and the `.dvc` files of a work tree.
    fn assert_same(&self, commit: &str, clone: &Path, names: &[&str]) {
        for name in names {
            let theirs = fs::read_to_string(clone.join(name)).unwrap();
            assert_eq!(self.text_at(commit, name), theirs.trim_end(), "{name}");
        }
    }
}

#[test]
fn the_line_goes_with_the_record_as_by_dvc_remove() {
    let writable = Writable::new();
    let mut dvc = Dvc::start(&writable.sandbox);
    let clone = writable.pulled(&mut dvc, "clone");
    fs::remove_file(writable.path("large.bin")).unwrap();
    fs::remove_file(writable.path("large.bin.dvc")).unwrap();
    // Neither is recorded without the other.
    let commit = writable.snapshot(&["large.bin"]);
    assert_eq!(writable.touched(&commit), [".gitignore", "large.bin.dvc"]);
    writable.dvc(&mut dvc, &clone, "remove", &["large.bin.dvc"]);
    writable.assert_same(&commit, &clone, &[".gitignore"]);

    fs::remove_dir_all(writable.path("data")).unwrap();
    fs::remove_file(writable.path("data.dvc")).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), [".gitignore", "data.dvc"]);
    writable.dvc(&mut dvc, &clone, "remove", &["data.dvc"]);
    assert!(!clone.join(".gitignore").exists() && !writable.path(".gitignore").exists());

    // What comes there again is new.
    fs::write(writable.path("large.bin"), noise(9, 100)).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), [".gitignore", "large.bin.dvc"]);
}

#[test]
fn the_line_goes_along_with_a_rename_as_by_dvc_move() {
    let writable = Writable::new();
    let mut dvc = Dvc::start(&writable.sandbox);
    let clone = writable.pulled(&mut dvc, "clone");
    for (old, new) in [("large.bin", "huge.bin"), ("large.bin.dvc", "huge.bin.dvc")] {
        fs::rename(writable.path(old), writable.path(new)).unwrap();
    }
    let commit = writable.snapshot(&[]);
    writable.dvc(&mut dvc, &clone, "move", &["large.bin", "huge.bin"]);
    writable.assert_same(&commit, &clone, &[".gitignore", "huge.bin.dvc"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
}

#[test]
fn a_record_that_is_only_called_otherwise_keeps_the_line() {
    let writable = Writable::new();
    fs::rename(writable.path("large.bin.dvc"), writable.path("renamed.dvc")).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), ["large.bin.dvc", "renamed.dvc"]);
    assert!(fs::read(writable.path("large.bin")).unwrap() == noise(4, super::LARGE));
}

#[test]
fn a_line_that_is_missing_comes_with_a_change_as_by_dvc_add() {
    let mut writable = Writable::new();
    writable.registry.text(".gitignore", "# mine\r\n/data").unwrap();
    let blob = writable.registry.put(b"two").unwrap();
    fs::create_dir(writable.registry.repository().join("sub")).unwrap();
    writable.registry.track_file("sub/two.bin", &blob).unwrap();
    writable.registry.commit("Lose a line", DATE).unwrap();
    writable.remount();
    let mut dvc = Dvc::start(&writable.sandbox);
    let clone = writable.pulled(&mut dvc, "clone");
    let change = |name: &str| {
        for root in [writable.path(""), clone.clone()] {
            let place = root.join(name);
            // DVC's own file is a protected link.
            if place.exists() {
                fs::remove_file(&place).unwrap();
            }
            fs::write(&place, format!("other {name}")).unwrap();
        }
    };
    change("large.bin");
    let commit = writable.snapshot(&[]);
    writable.dvc(&mut dvc, &clone, "add", &["large.bin"]);
    writable.assert_same(&commit, &clone, &[".gitignore", "large.bin.dvc"]);

    // Also where the file with the line is gone, for whatever reason.
    for root in [writable.path(""), clone.clone()] {
        fs::remove_file(root.join("sub/.gitignore")).unwrap();
        fs::write(root.join(".gitignore"), "/large.bin\n").unwrap();
    }
    change("sub/two.bin");
    change("data/b.bin");
    let commit = writable.snapshot(&[]);
    writable.dvc(&mut dvc, &clone, "add", &["sub/two.bin", "data"]);
    let same = [".gitignore", "sub/.gitignore", "sub/two.bin.dvc", "data.dvc"];
    writable.assert_same(&commit, &clone, &same);
    assert_eq!(writable.changes(), Vec::<String>::new());

    // What is ignored by another line needs none.
    for root in [writable.path(""), clone.clone()] {
        fs::remove_file(root.join("sub/.gitignore")).unwrap();
        fs::write(root.join(".gitignore"), "*.bin\n/data\n").unwrap();
    }
    fs::remove_file(clone.join("sub/two.bin")).unwrap();
    for root in [writable.path(""), clone.clone()] {
        fs::write(root.join("sub/two.bin"), "again").unwrap();
    }
    let commit = writable.snapshot(&[]);
    writable.dvc(&mut dvc, &clone, "add", &["sub/two.bin"]);
    writable.assert_same(&commit, &clone, &[".gitignore", "sub/two.bin.dvc"]);
    assert!(!clone.join("sub/.gitignore").exists());
    assert!(!writable.path("sub/.gitignore").exists());
}

#[test]
fn what_a_stage_makes_by_now_keeps_the_line() {
    let writable = Writable::new();
    let record = fs::read_to_string(writable.path("large.bin.dvc")).unwrap();
    let id = record.lines().find_map(|line| line.split_once("md5: ")).unwrap().1;
    let stage = "stages:\n  make:\n    cmd: make\n    outs:\n    - ";
    let lock = format!("path: large.bin\n      hash: md5\n      md5: {id}\n");
    fs::write(writable.path("dvc.yaml"), format!("{stage}large.bin\n")).unwrap();
    fs::write(writable.path("dvc.lock"), format!("schema: '2.0'\n{stage}{lock}")).unwrap();
    fs::remove_file(writable.path("large.bin.dvc")).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), ["dvc.lock", "dvc.yaml", "large.bin.dvc"]);
    assert!(fs::read(writable.path("large.bin")).unwrap() == noise(4, super::LARGE));
}
