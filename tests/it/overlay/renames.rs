//! Outputs that are renamed, alone or with their `.dvc` files, beside `dvc move`.

use std::{fs, path::Path};

use super::{Writable, choices::Changed};
use crate::support::{DATE, Dvc, noise, succeed, text};

/// What is said of outputs behind their content.
const ABOUT_FILE: &str = "  desc: a file\n  type: model\n  labels: [a, b]\n  meta:\n    k: v\n  \
                          persist: true\n  push: false\n";
const ABOUT_FOLDER: &str = "  remote: other # and not the default\n  desc: a folder\n";
const ABOUT_STAGE: &str = "meta: {who: me}\n# comments\ndesc: \"in front\"\n";

impl Writable {
    /// With records that say more than the content.
    fn annotated() -> Self {
        let mut writable = Self::new();
        let registry = &writable.registry;
        let repository = registry.repository().to_owned();
        let other = "['remote \"other\"']\n    url = ../../store\n";
        let config = fs::read_to_string(repository.join(".dvc/config")).unwrap() + other;
        registry.text(".dvc/config", &config).unwrap();
        registry.track_file("plain.bin", &registry.put(&noise(5, 100)).unwrap()).unwrap();
        fs::rename(repository.join("plain.bin.dvc"), repository.join("called.dvc")).unwrap();
        let says = |name: &str, behind: &[&str]| {
            let text = fs::read_to_string(repository.join(name)).unwrap();
            registry.text(name, &format!("# {name}\n{text}{}", behind.concat())).unwrap();
        };
        says("large.bin.dvc", &[ABOUT_FILE, ABOUT_STAGE]);
        says("data.dvc", &[ABOUT_FOLDER]);
        says("called.dvc", &["  desc: plain # as it is\n"]);
        registry.commit("Say more", DATE).unwrap();
        writable.remount();
        writable
    }

    fn rename(&self, from: &str, to: &str) {
        fs::create_dir_all(self.path(to).parent().unwrap()).unwrap();
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Files of a commit, and of git's that a clone has now, are the same.
    fn assert_as_in(&self, commit: &str, clone: &Path) {
        let git = || self.sandbox.git(clone);
        succeed(git().args(["add", "--all"]));
        let changed = text(git().args(["diff", "--cached", "--name-only", "--no-renames"]));
        assert_eq!(self.touched(commit), changed.lines().collect::<Vec<_>>());
        for name in changed.lines().filter(|name| clone.join(name).exists()) {
            let theirs = fs::read_to_string(clone.join(name)).unwrap();
            assert_eq!(self.text_at(commit, name), theirs.trim_end(), "{name}");
        }
    }
}

#[test]
fn a_renamed_output_leaves_what_dvc_move_leaves() {
    let writable = Writable::annotated();
    let renames =
        [("large.bin", "sub/new name.bin"), ("data", "set"), ("plain.bin", "sub/other.bin")];
    for (from, to) in renames {
        writable.rename(from, to);
    }
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.changes(), Vec::<String>::new());
    let waits = fs::read_dir(writable.outbox().join("files/md5")).unwrap().count();
    assert_eq!(waits, 1, "but for the manifest, all is on the remotes that are named");

    let clone = writable.clone_at("main", "by-dvc");
    let mut dvc = Dvc::start(&writable.sandbox);
    writable.dvc(&mut dvc, &clone, "pull", &[]);
    fs::create_dir(clone.join("sub")).unwrap();
    for (from, to) in renames {
        writable.dvc(&mut dvc, &clone, "move", &[from, to]);
    }
    writable.assert_as_in(&commit, &clone);
    writable.assert_dvc_agrees(&commit, &["set/a.bin"], &["set", "sub/new name.bin"]);
}

#[test]
fn a_record_that_is_moved_with_its_output_keeps_what_it_says() {
    let writable = Writable::annotated();
    let renames = [
        ("large.bin", "small.bin"),
        ("large.bin.dvc", "small.bin.dvc"),
        ("data", "sub/set"),
        ("data.dvc", "sub/set.dvc"),
        ("plain.bin", "plain"),
        ("called.dvc", "other.dvc"),
    ];
    for (from, to) in renames {
        writable.rename(from, to);
    }
    fs::write(writable.path("small.bin"), "other").unwrap();
    fs::write(writable.path("sub/set/new"), "new").unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.changes(), Vec::<String>::new());

    let clone = writable.clone_at("main", "by-dvc");
    let mut dvc = Dvc::start(&writable.sandbox);
    writable.dvc(&mut dvc, &clone, "pull", &[]);
    fs::create_dir(clone.join("sub")).unwrap();
    for (from, to) in renames {
        fs::rename(clone.join(from), clone.join(to)).unwrap();
    }
    let paths = [
        ("small.bin.dvc", "large.bin", "small.bin"),
        ("sub/set.dvc", "data", "set"),
        ("other.dvc", "plain.bin", "plain"),
    ];
    for (record, from, to) in paths {
        let text = fs::read_to_string(clone.join(record)).unwrap();
        let text = text.replace(&format!("path: {from}"), &format!("path: {to}"));
        fs::write(clone.join(record), text).unwrap();
    }
    fs::remove_file(clone.join("small.bin")).unwrap();
    fs::write(clone.join("small.bin"), "other").unwrap();
    fs::write(clone.join("sub/set/new"), "new").unwrap();
    let rules = fs::read_to_string(clone.join(".gitignore")).unwrap();
    let old = ["/large.bin", "/data", "/plain.bin"];
    let kept: Vec<_> = rules.lines().filter(|line| !old.contains(line)).collect();
    fs::write(clone.join(".gitignore"), kept.join("\n")).unwrap();
    writable.dvc(&mut dvc, &clone, "add", &["sub/set", "small.bin", "plain"]);
    let names = [("small.bin.dvc", "# large.bin.dvc\n"), ("sub/set.dvc", "# data.dvc\n")];
    for (name, head) in names.into_iter().chain([("other.dvc", "# called.dvc\n")]) {
        let theirs = fs::read_to_string(clone.join(name)).unwrap();
        assert!(theirs.starts_with(head), "{theirs}");
        assert_eq!(writable.text_at(&commit, name), theirs.trim_end(), "{name}");
    }
    assert!(!writable.text_at(&commit, ".gitignore").contains("/plain.bin"));
    writable.assert_dvc_agrees(&commit, &["sub/set/new", "small.bin"], &["plain", "small.bin"]);
}

#[test]
fn what_a_record_says_comes_along_where_something_new_takes_the_place() {
    let writable = Writable::annotated();
    writable.rename("large.bin", "old.bin");
    fs::write(writable.path("large.bin"), "new").unwrap();
    let commit = writable.snapshot(&[]);
    let touched = [".gitignore", "large.bin.dvc", "old.bin.dvc"];
    assert_eq!(writable.touched(&commit), touched);
    for name in &touched[1..] {
        assert!(writable.text_at(&commit, name).contains("  push: false"), "{name}");
    }
}

#[test]
fn an_output_of_several_stays_in_its_record_where_that_has_another_name() {
    let mut writable = Writable::new();
    let put = |seed| writable.registry.put(&noise(seed, 100)).unwrap();
    let entry = |name, seed| {
        let md5 = put(seed).md5();
        format!("- md5: {md5}\n  size: 100\n  hash: md5\n  path: {name}\n  desc: {name} # mine\n")
    };
    let all = format!("outs:\n{}{}", entry("one", 11), entry("two", 12));
    writable.registry.text("all.dvc", &all).unwrap();
    let rules = fs::read_to_string(writable.registry.repository().join(".gitignore")).unwrap();
    writable.registry.text(".gitignore", &format!("{rules}/one\n/two\n")).unwrap();
    writable.registry.commit("Track two by one file", DATE).unwrap();
    writable.remount();
    writable.rename("one", "sub/three");
    let commit = writable.snapshot(&[]);
    let touched = [".gitignore", "all.dvc", "sub/.gitignore"];
    assert_eq!(writable.touched(&commit), touched);
    let expected = all.replace("path: one", "path: sub/three");
    assert_eq!(writable.text_at(&commit, "all.dvc"), expected.trim_end());
}

#[test]
fn a_renamed_output_without_a_copy_stays_by_name() {
    let mut writable = Writable::new();
    let entry = |path: &str, hash: &str| {
        format!("outs:\n- md5: {hash}\n  size: 1\n  hash: md5\n  path: {path}\n  cache: false\n")
    };
    let hash = "0cc175b9c0f1b6a831c399e269772661";
    let files = [("plain.csv", "plain.csv.dvc", hash), ("plots/a", "plots.dvc", "0.dir")];
    for (name, record, hash) in files {
        writable.registry.text(name, "a").unwrap();
        writable.registry.text(record, &entry(record.trim_end_matches(".dvc"), hash)).unwrap();
    }
    writable.registry.commit("Track without a copy", DATE).unwrap();
    writable.remount();
    writable.rename("plain.csv", "other.csv");
    writable.rename("plots", "pictures");
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    for (from, to) in [("plain.csv", "other.csv"), ("plots", "pictures/a")] {
        let line = format!("{to}: {from}.dvc tracks it as {from}, without a copy; dvc move it");
        assert!(said.contains(&line), "{line}: {said}");
    }
    assert_eq!(writable.snapshot_ref(), "");
    let (code, said) = writable.run("snapshot", &["--dry-run"]);
    assert!(code == Some(1) && said.contains("would be recorded: none"), "{said}");
}

#[test]
fn an_import_is_renamed_with_its_record_or_not_at_all() {
    let changed = Changed::cached("imports", "i1");
    let rename = |from: &str, to: &str| fs::rename(changed.path(from), changed.path(to)).unwrap();
    rename("url_one.txt", "one.txt");
    rename("file_r1.bin", "file.bin");
    rename("dir_r1", "dir");
    let (code, said) = changed.snapshot(&["--dry-run"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("would be recorded: none"), "{said}");
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(1), "{said}");
    let why = "it is imported from a URL; rename url_one.txt.dvc with it";
    assert!(said.contains(&format!("one.txt: {why}")), "{said}");
    assert!(said.contains("nothing can be recorded"), "{said}");

    // What is taken out of one stays as well, here and there.
    rename("dir_head/a1.wav", "a1.wav");
    let (code, said) = changed.snapshot(&["a1.wav"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("a1.wav: it is imported from ../registry"), "{said}");
    rename("a1.wav", "dir_head/a1.wav");

    let records = [("url_one.txt", "one.txt"), ("file_r1.bin", "file.bin"), ("dir_r1", "dir")];
    for (from, to) in records {
        rename(&format!("{from}.dvc"), &format!("{to}.dvc"));
    }
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(changed.path("one.txt")).unwrap(), "one\n");

    let mut dvc = Dvc::start(&changed.sandbox);
    let clone = changed.clone_at("i1", "by-dvc");
    for (from, to) in records {
        changed.dvc(&mut dvc, &clone, &["pull", from]);
        changed.dvc(&mut dvc, &clone, &["move", from, to]);
    }
    let ours = changed.clone_at(said.lines().next().unwrap(), "ours");
    for (_, to) in records {
        let [ours, theirs] =
            [&ours, &clone].map(|top| fs::read_to_string(top.join(format!("{to}.dvc"))).unwrap());
        assert_eq!(ours, theirs);
    }
    for (_, to) in records {
        changed.dvc(&mut dvc, &ours, &["pull", to]);
        let said = changed.dvc(&mut dvc, &ours, &["status", &format!("{to}.dvc")]);
        assert_eq!(said, "Data and pipelines are up to date.\n");
    }
}

#[test]
fn an_import_in_a_folder_that_is_moved_stays_as_it_is() {
    let changed = Changed::cached("imports", "i1");
    fs::create_dir(changed.path("sets")).unwrap();
    let names = ["file_r1.bin", "dir_r1"];
    for name in names.iter().flat_map(|name| [(*name).to_owned(), format!("{name}.dvc")]) {
        fs::rename(changed.path(&name), changed.path(&format!("sets/{name}"))).unwrap();
    }
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(0), "{said}");
    fs::rename(changed.path("sets"), changed.path("moved")).unwrap();
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(0), "{said}");
    let clone = changed.clone_at(said.lines().next().unwrap(), "ours");
    let mut git = changed.sandbox.git(&clone);
    let told = text(git.args(["diff", "--find-renames", "--name-status", "HEAD^"]));
    let expected = [".gitignore", "dir_r1.dvc", "file_r1.bin.dvc"];
    let expected = expected.map(|name| format!("R100\tsets/{name}\tmoved/{name}"));
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);

    // With something else in it, it is no longer what it was.
    fs::write(changed.path("moved/dir_r1/new"), "new").unwrap();
    fs::rename(changed.path("moved"), changed.path("again")).unwrap();
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(1), "{said}");
    let line = "again/dir_r1/new: again/dir_r1.dvc says that it comes from elsewhere";
    assert!(said.contains(line), "{said}");

    // So is one whose source is named by the way there.
    fs::create_dir(changed.path("deep")).unwrap();
    for name in ["url_one.txt", "url_one.txt.dvc"] {
        fs::rename(changed.path(name), changed.path(&format!("deep/{name}"))).unwrap();
    }
    let (code, said) = changed.snapshot(&["deep"]);
    assert_eq!(code, Some(1), "{said}");
    let line = "deep/url_one.txt: deep/url_one.txt.dvc says that it comes from elsewhere";
    assert!(said.contains(line), "{said}");
}
