//! What is meant to stay out of commits: secrets, and what `.gitignore` names.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path};

use super::Writable;
use crate::support::{DATE, noise, succeed, text};

impl Writable {
    /// A registry with these files in git besides.
    fn with_texts(files: &[(&str, &str)]) -> Self {
        let mut writable = Self::new();
        for (path, text) in files {
            writable.registry.text(path, text).unwrap();
        }
        let mut git = writable.sandbox.git(writable.registry.repository());
        succeed(git.args(["add", "--all", "--force", "."]));
        writable.registry.commit("Add rules", DATE).unwrap();
        writable.remount();
        writable
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The paths of git that a commit changes.
    pub(super) fn touched(&self, commit: &str) -> Vec<String> {
        let mut git = self.sandbox.git(self.registry.repository());
        let range = [&format!("{commit}^"), commit];
        let told = text(git.args(["diff", "--name-only", "--no-renames"]).args(range));
        told.lines().map(str::to_owned).collect()
    }

    /// What git has of a file at a commit.
    pub(super) fn text_at(&self, commit: &str, path: &str) -> String {
        let mut git = self.sandbox.git(self.registry.repository());
        text(git.args(["show", &format!("{commit}:{path}")]))
    }
}

/// Files that are all text, so that none goes to DVC by itself.
const TEXTS: [&str; 20] = [
    ".dvc/config.local",
    ".dvc/plots/own.json",
    ".dvc/tmp/lock",
    ".dvc/cache/files/md5/aa/bb",
    ".env",
    ".gitattributes",
    "app.log",
    "keep.log",
    "build/out.txt",
    "docs/build/page.txt",
    "docs/note.tmp",
    "docs/kept.tmp",
    "docs/deep/kept.tmp",
    "docs/deep/secret",
    "sub/.gitignore",
    "sub/local",
    "sub/shared",
    "sub/.env",
    "space ",
    "tracked.log",
];

#[test]
fn what_git_add_leaves_out_stays_in_the_overlay() {
    let writable = Writable::with_texts(&[
        (".gitignore", "/data\n/large.bin\n*.log\n!keep.log\n.env\n/build/\nspace\\ \n"),
        ("docs/.gitignore", "*.tmp\n!kept.tmp\nsecret\n"),
        ("tracked.log", "before\n"),
    ]);
    let clone = writable.clone_at("main", "clone");
    for name in TEXTS {
        let content = if name.ends_with(".gitignore") { "local\n" } else { name };
        writable.write(name, content);
        let path = clone.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    symlink("x", writable.path("link.log")).unwrap();
    symlink("x", clone.join("link.log")).unwrap();
    let git = || writable.sandbox.git(&clone);
    succeed(git().args(["add", "."]));
    let expected = text(git().args(["diff", "--cached", "--name-only"]));
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), expected.lines().collect::<Vec<_>>());
    for name in TEXTS {
        assert!(writable.path(name).exists(), "{name}");
    }
    let left: BTreeSet<_> = writable.changes().into_iter().collect();
    assert!(left.contains("added .dvc/config.local") && left.contains("added .env"), "{left:?}");
    assert_eq!(left.len(), TEXTS.len() + 1 - expected.lines().count());

    let (_, said) = writable.run("status", &[]);
    for line in [
        ".dvc/config.local (17 B): it is DVC's own, for this machine alone",
        "app.log (7 B): a .gitignore keeps it out",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing has changed"), "{said}");
}

#[test]
fn the_end_of_a_long_gitignore_counts() {
    let long = "# a line\n".repeat(200_000) + "secret\n";
    let writable = Writable::with_texts(&[(".gitignore", &long)]);
    writable.write("secret", "x");
    writable.write("note", "x");
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), ["note"]);
}

#[test]
fn what_dvc_keeps_for_one_machine_is_never_committed() {
    let writable = Writable::with_texts(&[(".dvc/.gitignore", ""), ("sub/.dvc/config", "")]);
    let secret = "[remote \"r\"]\n    password = hidden\n";
    for name in [".dvc/config.local", "sub/.dvc/config.local", ".dvc/tmp/x", ".dvc/cache/y"] {
        writable.write(name, secret);
    }
    writable.write("note", "a note\n");
    let commit = writable.snapshot(&["--git", "*", "--git", ".dvc/config.local"]);
    assert_eq!(writable.touched(&commit), ["note"]);
    assert_eq!(fs::read_to_string(writable.path(".dvc/config.local")).unwrap(), secret);
}

#[test]
fn a_name_takes_into_git_what_is_ignored_and_a_pattern_does_not() {
    let writable = Writable::with_texts(&[(".gitignore", "*.log\n/out/\n")]);
    for name in ["a.log", "b.log", "out/x", "note"] {
        writable.write(name, "text\n");
    }
    let commit = writable.snapshot(&["--git", "*"]);
    assert_eq!(writable.touched(&commit), ["note"]);
    let commit = writable.snapshot(&["--git", "/a.log", "--git", "out"]);
    assert_eq!(writable.touched(&commit), ["a.log", "out/x"]);
    // What git has, it keeps.
    writable.write("a.log", "more text\n");
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), ["a.log"]);
    assert_eq!(writable.changes(), ["added b.log"]);
}

#[test]
fn data_goes_to_dvc_where_the_user_says_so_or_dvc_has_it_already() {
    let mut writable = Writable::with_texts(&[(".gitignore", "*.wav\n*.log\n/data\n/large.bin\n")]);
    let put = |seed| writable.registry.put(&noise(seed, 5000)).unwrap();
    let dotfile = |name: &str, seed| {
        let blob = put(seed);
        let (md5, size) = (blob.md5(), blob.size);
        format!("outs:\n- md5: {md5}\n  size: {size}\n  hash: md5\n  path: {name}\n")
    };
    writable.registry.text("old.wav.dvc", &dotfile("old.wav", 21)).unwrap();
    writable.registry.text("moves.wav.dvc", &dotfile("moves.wav", 22)).unwrap();
    writable.registry.commit("Track sounds", DATE).unwrap();
    writable.remount();
    for name in ["new.wav", "old.wav", "data/x.log", "data/.env", "set/x.log", "other.log"] {
        writable.write(name, noise(name.len() as u64, 70_000));
    }
    fs::rename(writable.path("moves.wav"), writable.path("moved.wav")).unwrap();
    let told = writable.changes();
    assert!(told.contains(&"added new.wav".to_owned()), "{told:?}");
    let commit = writable.snapshot(&["--dvc", "new.*", "--dir", "set"]);
    assert_eq!(
        writable.touched(&commit),
        [
            ".gitignore",
            "data.dvc",
            "moved.wav.dvc",
            "moves.wav.dvc",
            "new.wav.dvc",
            "old.wav.dvc",
            "set.dvc",
        ]
    );
    assert_eq!(writable.changes(), ["added other.log"]);
    let rules = writable.text_at(&commit, ".gitignore");
    assert_eq!(rules, "*.wav\n*.log\n/data\n/large.bin\n/set");
    let names = ["new.wav", "old.wav", "moved.wav", "data/x.log", "set/x.log"];
    writable.assert_dvc_agrees(&commit, &names, &["new.wav", "old.wav", "data", "set"]);
}

#[test]
fn a_record_that_git_ignores_is_refused_as_by_dvc() {
    let writable = Writable::with_texts(&[(".gitignore", "*.raw.dvc\n")]);
    writable.write("x.raw", noise(1, 100));
    writable.write("set.raw/y", "y");
    let (code, said) = writable.run("snapshot", &["-m", "x", "--dir", "set.raw"]);
    assert_eq!(code, Some(1), "{said}");
    for name in ["x.raw", "set.raw/y"] {
        let record = if name == "x.raw" { "x.raw.dvc" } else { "set.raw.dvc" };
        let line = format!("{name}: a .gitignore keeps {record} out, which would track it");
        assert!(said.contains(&line), "{said}");
    }
}

#[test]
fn what_was_renamed_to_an_ignored_name_keeps_its_bytes() {
    let mut writable = Writable::with_texts(&[
        (".gitignore", "/data\n/large.bin\n*~\n/out/\n"),
        (".dvcignore", "*.tmp\n"),
        ("src/a", "code a\n"),
        ("src/b", "code b\n"),
    ]);
    // As editors do it.
    fs::rename(writable.path("README.md"), writable.path("README.md~")).unwrap();
    writable.write("README.md", "other\n");
    fs::rename(writable.path("src"), writable.path("out")).unwrap();
    fs::rename(writable.path("data/a.bin"), writable.path("data/a.tmp")).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), ["README.md", "data.dvc", "src/a", "src/b"]);
    writable.remount();
    let read = |name: &str| fs::read_to_string(writable.path(name)).unwrap();
    assert_eq!(read("README.md~"), "read me\n");
    assert_eq!(read("README.md"), "other\n");
    assert_eq!((read("out/a"), read("out/b")), ("code a\n".to_owned(), "code b\n".to_owned()));
    assert!(fs::read(writable.path("data/a.tmp")).unwrap() == noise(1, super::SMALL));
    assert_eq!(writable.changes().len(), 4);
}

#[test]
fn what_takes_the_place_of_an_output_is_not_hidden_by_its_line() {
    let writable = Writable::with_texts(&[("data.dvc.txt", "")]);
    fs::remove_file(writable.path("large.bin")).unwrap();
    writable.write("large.bin/text", "a text\n");
    fs::remove_dir_all(writable.path("data")).unwrap();
    writable.write("data", noise(3, 70_000));
    let commit = writable.snapshot(&[]);
    let touched = [".gitignore", "data.dvc", "large.bin.dvc", "large.bin/text"];
    assert_eq!(writable.touched(&commit), touched);
    writable.assert_dvc_agrees(&commit, &["data", "large.bin/text"], &["data"]);
    assert!(Path::new(&writable.path("data")).is_file());
}

#[test]
fn a_dvcignore_that_would_hide_a_file_of_a_tracked_folder_stays_by_name() {
    let writable = Writable::with_texts(&[(".dvcignore", "*.tmp\n")]);
    writable.write(".dvcignore", "*.tmp\nc.bin\n");
    writable.write("note.txt", "fine\n");
    let line = ": it would hide data/sub/c.bin, which data.dvc tracks";
    for args in [&["--dry-run"][..], &["-m", "x"]] {
        let (code, said) = writable.run("snapshot", args);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(line), "{said}");
    }
    // Where that file goes, too, it is hidden no more.
    fs::remove_file(writable.path("data/sub/c.bin")).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), [".dvcignore", "data.dvc"]);
    writable.assert_dvc_agrees(&commit, &[".dvcignore"], &["data"]);
}
