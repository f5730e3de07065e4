//! What a snapshot leaves in the overlay, and why: the rest is recorded, and nothing is lost.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::Writable;
use crate::support::{DATE, md5_of, noise, succeed};

impl Writable {
    fn replace_folder(&self, name: &str, by: &str) {
        let place = self.path(name);
        fs::remove_dir_all(&place).unwrap();
        match by {
            "link" => symlink("elsewhere", &place).unwrap(),
            "pipe" => _ = succeed(Command::new("mkfifo").arg(&place)),
            _ => fs::write(&place, by).unwrap(),
        }
    }

    /// What `data.dvc` says, of another manifest of this text, and where the remote would have it.
    fn record_of(&self, manifest: &str) -> (String, std::path::PathBuf) {
        let file = self.sandbox.path("manifest");
        fs::write(&file, manifest).unwrap();
        let id = md5_of(&file).unwrap().0;
        let record = fs::read_to_string(self.path("data.dvc")).unwrap();
        let old = record.lines().find_map(|line| line.split_once("md5: ")).unwrap().1;
        let object = self.registry.objects().join("files/md5").join(&id[..2]);
        (record.replace(old, &format!("{id}.dir")), object.join(format!("{}.dir", &id[2..])))
    }
}

#[test]
fn what_took_the_place_of_a_folder_and_is_not_chosen_stays() {
    for by in ["a file", "link", "pipe"] {
        let mut writable = Writable::new();
        writable.replace_folder("docs", by);
        writable.replace_folder("data", by);
        fs::write(writable.path("new.txt"), "new\n").unwrap();
        let commit = writable.snapshot(&["new.txt"]);
        assert_eq!(writable.touched(&commit), ["new.txt"], "{by}");
        let told = writable.changes();
        writable.remount();
        assert_eq!(writable.changes(), told, "{by}");
        for name in ["docs", "data"] {
            let place = writable.path(name);
            assert!(!fs::symlink_metadata(&place).unwrap().is_dir(), "{by}");
            if by == "a file" {
                assert_eq!(fs::read_to_string(place).unwrap(), by);
            }
        }
    }
}

#[test]
fn what_took_the_place_of_a_folder_that_has_to_stay_is_left_with_it() {
    let mut writable = Writable::new();
    let record = fs::read_to_string(writable.path("data.dvc")).unwrap();
    let manifest = record.lines().find_map(|line| line.split_once("md5: ")).unwrap().1;
    let texts = [
        ("dvc.yaml", "stages:\n  make:\n    cmd: make\n    outs:\n    - out\n".to_owned()),
        (
            "dvc.lock",
            format!(
                "schema: '2.0'\nstages:\n  make:\n    cmd: make\n    outs:\n    - path: out\n      \
                 hash: md5\n      md5: {manifest}\n"
            ),
        ),
        (
            "imported.dvc",
            format!(
                "frozen: true\ndeps:\n- etag: e\n  path: s3://bucket/x\nouts:\n- md5: {manifest}\n  \
                 hash: md5\n  path: imported\n"
            ),
        ),
    ];
    for (name, text) in &texts {
        writable.registry.text(name, text).unwrap();
    }
    writable.registry.commit("Make and import", DATE).unwrap();
    writable.remount();
    for name in ["out", "imported"] {
        assert!(writable.path(name).join("a.bin").exists());
        writable.replace_folder(name, "a file");
    }
    fs::write(writable.path("new.txt"), "new\n").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "1 path recorded",
        "left as it is: imported: it goes with imported/",
        "left as it is: imported/a.bin: it is imported from a URL",
        "left as it is: out: ",
        "left as it is: out/a.bin: a stage of dvc.yaml makes it",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    writable.remount();
    for name in ["out", "imported"] {
        assert_eq!(fs::read_to_string(writable.path(name)).unwrap(), "a file");
    }
}

#[test]
fn a_rename_into_a_place_that_is_refused_leaves_both_sides_and_no_more() {
    let mut writable = Writable::new();
    fs::rename(writable.path("data/b.bin"), writable.path("data/b.dvc")).unwrap();
    fs::rename(writable.path("large.bin"), writable.path("data/y.dvc")).unwrap();
    fs::write(writable.path("large.bin"), "another").unwrap();
    fs::write(writable.path("new.txt"), "new\n").unwrap();
    let told = writable.changes();
    let (code, said) = writable.run("snapshot", &["--dry-run"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("would be recorded: 1 added (4 B)"), "{said}");
    let (code, said) = writable.run("snapshot", &["-m", "x", "large.bin"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing can be recorded"), "{said}");
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "1 path recorded",
        "left as it is: data/b.bin: it goes with data/b.dvc, which cannot be recorded",
        "left as it is: data/b.dvc: DVC cannot hold its name",
        "left as it is: data/y.dvc: DVC cannot hold its name",
        "left as it is: large.bin: it goes with data/y.dvc, which cannot be recorded",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    writable.remount();
    let left: Vec<_> = told.into_iter().filter(|line| !line.contains("new.txt")).collect();
    assert_eq!(writable.changes(), left);
    assert!(fs::read(writable.path("data/y.dvc")).unwrap() == noise(4, super::LARGE));
    assert!(fs::read(writable.path("data/b.dvc")).unwrap() == noise(2, 10));
    assert_eq!(fs::read_to_string(writable.path("large.bin")).unwrap(), "another");
    assert!(!writable.path("data/b.bin").exists());
    // With a name that can be recorded nothing is in the way any more.
    fs::rename(writable.path("data/y.dvc"), writable.path("data/y")).unwrap();
    fs::rename(writable.path("data/b.dvc"), writable.path("data/b.bin")).unwrap();
    writable.snapshot(&[]);
    assert!(fs::read(writable.path("data/y")).unwrap() == noise(4, super::LARGE));
    assert_eq!(writable.changes(), Vec::<String>::new());
}

#[test]
fn what_no_gitignore_can_keep_out_of_git_is_not_tracked() {
    let writable = Writable::new();
    for (folder, by) in [("g", "folder"), ("h", "link")] {
        let ignore = writable.path(folder).join(".gitignore");
        fs::create_dir(writable.path(folder)).unwrap();
        match by {
            "folder" => {
                fs::create_dir(&ignore).unwrap();
                fs::write(ignore.join("x"), "mine\n").unwrap();
            }
            _ => symlink("mine", &ignore).unwrap(),
        }
        fs::write(writable.path(folder).join("y.bin"), noise(5, 100)).unwrap();
    }
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    let why = ".gitignore, which has to keep it out of git, is no file";
    for line in [
        "2 paths recorded".to_owned(),
        format!("left as it is: g/y.bin: g/{why}"),
        format!("left as it is: h/y.bin: h/{why}"),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    let commit = writable.snapshot_ref();
    assert_eq!(writable.touched(&commit), ["g/.gitignore/x", "h/.gitignore"]);
    // So it is where the base has them.
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing can be recorded") && said.contains(why), "{said}");
    assert_eq!(fs::read_to_string(writable.path("g/.gitignore/x")).unwrap(), "mine\n");
    assert!(fs::read(writable.path("g/y.bin")).unwrap() == noise(5, 100));
    // A file comes in the place of the link.
    fs::remove_file(writable.path("h/.gitignore")).unwrap();
    let commit = writable.snapshot(&["h"]);
    assert_eq!(writable.touched(&commit), ["h/.gitignore", "h/y.bin.dvc"]);
    assert_eq!(writable.text_at(&commit, "h/.gitignore"), "/y.bin");
}

#[test]
fn a_dry_run_counts_what_would_be_recorded_and_ends_as_the_snapshot_does() {
    let writable = Writable::new();
    let dry_run = || {
        let (code, said) = writable.run("snapshot", &["--dry-run"]);
        (code, said.lines().last().unwrap_or_default().to_owned())
    };
    assert_eq!(dry_run(), (Some(1), "would be recorded: none".to_owned()));
    fs::write(writable.path("data/x.dvc"), "x").unwrap();
    assert_eq!(dry_run(), (Some(1), "would be recorded: none".to_owned()));
    fs::write(writable.path("note"), "note").unwrap();
    assert_eq!(dry_run(), (Some(1), "would be recorded: 1 added (4 B)".to_owned()));
    fs::remove_file(writable.path("data/x.dvc")).unwrap();
    fs::create_dir_all(writable.path(".dvc/tmp")).unwrap();
    fs::write(writable.path(".dvc/tmp/lock"), "ignored").unwrap();
    assert_eq!(dry_run(), (Some(0), "would be recorded: 1 added (4 B)".to_owned()));
    writable.snapshot(&[]);
}

#[test]
fn a_record_that_names_another_path_by_now_lets_go_of_the_old_one() {
    let writable = Writable::new();
    for (old, new) in [("large.bin", "huge.bin"), ("data", "set")] {
        let record = writable.path(format!("{old}.dvc"));
        let text = fs::read_to_string(&record).unwrap();
        fs::write(&record, text.replace(&format!("path: {old}"), &format!("path: {new}"))).unwrap();
        fs::rename(writable.path(old), writable.path(new)).unwrap();
    }
    let commit = writable.snapshot(&["huge.bin", "set"]);
    assert_eq!(writable.touched(&commit), [".gitignore", "data.dvc", "large.bin.dvc"]);
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert_eq!(fs::read_dir(writable.upper.join("upper")).unwrap().count(), 0);
    assert!(fs::read(writable.path("huge.bin")).unwrap() == noise(4, super::LARGE));
    assert!(fs::read(writable.path("set/a.bin")).unwrap() == noise(1, super::SMALL));
    let rules = writable.text_at(&commit, ".gitignore");
    let mut rules: Vec<_> = rules.lines().collect();
    rules.sort_unstable();
    assert_eq!(rules, ["/huge.bin", "/set"]);
}

#[test]
fn a_record_of_a_manifest_that_is_nowhere_is_left_until_it_can_be_had() {
    let writable = Writable::new();
    let large = fs::read_to_string(writable.path("large.bin.dvc")).unwrap();
    let large = large.lines().find_map(|line| line.split_once("md5: ")).unwrap().1.to_owned();
    let manifest = format!("[{{\"md5\": \"{large}\", \"relpath\": \"c.bin\"}}]");
    let (record, object) = writable.record_of(&manifest);
    fs::write(writable.path("data.dvc"), &record).unwrap();
    fs::write(writable.path("data/mine.txt"), "mine\n").unwrap();
    let id = record.lines().find_map(|line| line.split_once("md5: ")).unwrap().1;
    let yaml = "stages:\n  make:\n    cmd: make\n    outs:\n    - out\n";
    let lock = format!(
        "schema: '2.0'\nstages:\n  make:\n    cmd: make\n    outs:\n    - path: out\n      hash: \
         md5\n      md5: {id}\n"
    );
    fs::create_dir(writable.path("sub")).unwrap();
    fs::write(writable.path("sub/dvc.yaml"), yaml).unwrap();
    fs::write(writable.path("sub/dvc.lock"), lock).unwrap();
    fs::write(writable.path("new.txt"), "new\n").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    let why = "is neither here nor on its remote; dvc push it from where it was made";
    for line in [
        "1 path recorded".to_owned(),
        format!("left as it is: data.dvc: the manifest of data {why}"),
        "left as it is: data/mine.txt: ".to_owned(),
        format!("left as it is: sub/dvc.lock: the manifest of sub/out {why}"),
        format!("left as it is: sub/dvc.yaml: the manifest of sub/out {why}"),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }
    assert_eq!(fs::read_to_string(writable.path("data/mine.txt")).unwrap(), "mine\n");
    assert!(fs::read(writable.path("data/b.bin")).unwrap() == noise(2, 10));
    assert_eq!(fs::read_to_string(writable.path("data.dvc")).unwrap(), record);

    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::write(object, manifest).unwrap();
    fs::remove_file(writable.path("data/mine.txt")).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), ["data.dvc", "sub/dvc.lock", "sub/dvc.yaml"]);
    assert_eq!(writable.names("data"), ["c.bin"]);
    assert_eq!(writable.names("sub/out"), ["c.bin"]);
}

#[test]
fn a_record_whose_manifest_nobody_can_be_asked_for_is_left_alone() {
    let writable = Writable::new();
    let (record, _) = writable.record_of("[]");
    fs::write(writable.path("data.dvc"), record + "  remote: other\n").unwrap();
    fs::write(writable.path("new.txt"), "new\n").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    for line in ["1 path recorded", "left as it is: data.dvc: the manifest of data is not here: "] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn a_record_of_a_folder_that_is_new_as_well_needs_no_manifest_from_elsewhere() {
    let writable = Writable::new();
    let (record, _) = writable.record_of("[]");
    fs::create_dir(writable.path("set")).unwrap();
    fs::write(writable.path("set/x"), "x").unwrap();
    fs::write(writable.path("set.dvc"), record.replace("path: data", "path: set")).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), [".gitignore", "set.dvc"]);
    assert_eq!(writable.names("set"), ["x"]);
}
