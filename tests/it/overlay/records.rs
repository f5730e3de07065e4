//! The `.dvc` files of what is tracked from now on, where something is there already.

use std::fs;

use super::Writable;
use crate::support::{DATE, Dvc, noise};

#[test]
fn rules_in_a_folder_that_is_tracked_as_one_are_data() {
    let writable = Writable::new();
    fs::create_dir_all(writable.path("set/deep")).unwrap();
    let files = [(".gitignore", "*.log\n"), (".gitattributes", "* text\n"), ("a.log", "a\n")];
    for (name, content) in files.iter().chain(&[("deep/.gitignore", "x\n"), ("deep/x", "x\n")]) {
        fs::write(writable.path("set").join(name), content).unwrap();
    }
    let commit = writable.snapshot(&["--dir", "set"]);
    assert_eq!(writable.touched(&commit), [".gitignore", "set.dvc"]);
    assert_eq!(writable.names("set"), [".gitattributes", ".gitignore", "a.log", "deep"]);
    let names = ["set/.gitignore", "set/.gitattributes", "set/a.log", "set/deep/.gitignore"];
    writable.assert_dvc_agrees(&commit, &names, &["set"]);
}

#[test]
fn a_folder_that_git_or_dvc_has_files_of_is_not_tracked_as_one() {
    let mut writable = Writable::new();
    let blob = writable.registry.put(b"one").unwrap();
    fs::create_dir(writable.registry.repository().join("sub")).unwrap();
    writable.registry.track_file("sub/one.bin", &blob).unwrap();
    writable.registry.commit("Track one", DATE).unwrap();
    writable.remount();
    let files = ["docs/new", "sub/new", "set/.dvcignore", "set/new", ".dvc/new"];
    for name in files {
        fs::create_dir_all(writable.path(name).parent().unwrap()).unwrap();
        fs::write(writable.path(name), "new").unwrap();
    }
    let folders = ["docs", "sub", "set", "."];
    let args: Vec<_> = folders.iter().flat_map(|folder| ["--dir", folder]).collect();
    let (code, said) = writable.run("snapshot", &[&["-m", "x"][..], &args[..6]].concat());
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "docs/new: docs cannot be tracked as one: git tracks docs/deep/page.txt in it",
        "sub/new: sub cannot be tracked as one: sub/one.bin.dvc tracks sub/one.bin in it",
        "set/.dvcignore: DVC cannot hold its name",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let (code, said) = writable.run("snapshot", &["-m", "x", "--dir", "."]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot be tracked as one"), "{said}");

    // DVC says the same.
    let clone = writable.clone_at("main", "clone");
    let mut dvc = Dvc::start(&writable.sandbox);
    for folder in ["docs", "sub", "set"] {
        fs::create_dir_all(clone.join(folder)).unwrap();
        fs::write(clone.join(folder).join("new"), "new").unwrap();
    }
    fs::write(clone.join("set/.dvcignore"), "new").unwrap();
    for folder in ["docs", "sub", "set"] {
        let case = vec![folder.to_owned()];
        assert!(dvc.run(&writable.sandbox, &clone, "add", &[case])[0].is_none(), "{folder}");
    }

    // Once git has let go of its files, the folder can be tracked.
    fs::rename(writable.path("docs/deep/page.txt"), writable.path("page.txt")).unwrap();
    let commit = writable.snapshot(&["--dir", "docs", "docs", "page.txt"]);
    assert!(writable.touched(&commit).contains(&"docs.dvc".to_owned()));
    writable.assert_dvc_agrees_in(&commit, "again", &["docs/new", "page.txt"], &["docs"]);
}

#[test]
fn a_record_of_something_else_is_not_written_over() {
    let mut writable = Writable::new();
    let blob = writable.registry.put(b"bar\0").unwrap();
    writable.registry.track_file("bar", &blob).unwrap();
    let repository = writable.registry.repository();
    fs::rename(repository.join("bar.dvc"), repository.join("foo.dvc")).unwrap();
    writable.registry.text("folder.dvc/text", "a folder\n").unwrap();
    writable.registry.text("broken.dvc", "outs: [").unwrap();
    writable.registry.commit("Track bar by foo.dvc", DATE).unwrap();
    writable.remount();
    for name in ["foo", "folder", "broken"] {
        fs::write(writable.path(name), noise(1, 100)).unwrap();
    }
    fs::rename(writable.path("data"), writable.path("other")).unwrap();
    fs::write(writable.path("other.dvc"), "outs:\n- path: large.bin\n").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x", "foo", "folder", "broken"]);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "foo: foo.dvc, which would track it, tracks bar already",
        "folder: folder.dvc is something else already",
        "broken: DVC could not read broken.dvc",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let (_, said) = writable.run("status", &[]);
    assert!(said.contains("other.dvc, which would track it, tracks large.bin already"), "{said}");
    assert_eq!(fs::read(writable.path("bar")).unwrap(), b"bar\0");

    // With what it tracked gone, it is free.
    fs::remove_file(writable.path("bar")).unwrap();
    let commit = writable.snapshot(&["foo", "bar"]);
    assert_eq!(writable.touched(&commit), [".gitignore", "foo.dvc"]);
    assert!(writable.text_at(&commit, "foo.dvc").ends_with("path: foo"));
    assert!(writable.text_at(&commit, ".gitignore").ends_with("/large.bin\n/foo"));
}

#[test]
fn a_record_that_was_written_by_hand_keeps_what_it_says() {
    let writable = Writable::new();
    let records = [
        ("foo.dvc", "desc: mine  # why\nouts:\n# here\n- path: foo\n  desc: data\n  labels: [a]\n"),
        ("set.dvc", "meta:\n  who: me\nouts:\n- path: set\n  desc: a folder\n"),
        ("else.dvc", "outs:\n- path: sound\n  desc: elsewhere\n"),
    ];
    for (name, content) in records {
        fs::write(writable.path(name), content).unwrap();
    }
    fs::create_dir(writable.path("set")).unwrap();
    for name in ["foo", "set/x", "sound"] {
        fs::write(writable.path(name), "text").unwrap();
    }
    // Neither makes sense without the other.
    let commit = writable.snapshot(&["foo", "set.dvc", "sound"]);
    let touched = [".gitignore", "else.dvc", "foo.dvc", "set.dvc"];
    assert_eq!(writable.touched(&commit), touched);
    assert_eq!(writable.changes(), Vec::<String>::new());

    let clone = writable.clone_at("main", "by-dvc");
    for (name, content) in records {
        fs::write(clone.join(name), content).unwrap();
    }
    fs::create_dir(clone.join("set")).unwrap();
    for name in ["foo", "set/x", "sound"] {
        fs::write(clone.join(name), "text").unwrap();
    }
    let mut dvc = Dvc::start(&writable.sandbox);
    writable.dvc(&mut dvc, &clone, "add", &["foo", "set", "sound"]);
    for (name, _) in records {
        let theirs = fs::read_to_string(clone.join(name)).unwrap();
        assert_eq!(writable.text_at(&commit, name), theirs.trim_end(), "{name}");
    }
    writable.assert_dvc_agrees(&commit, &["foo", "set/x", "sound"], &["foo", "set", "sound"]);
}

#[test]
fn what_dvc_added_in_the_mount_is_recorded_as_it_says() {
    let writable = Writable::new();
    fs::write(writable.path("sound"), "text").unwrap();
    let record =
        "outs:\n- md5: 1cb251ec0d568de6a929b520c4aed8d1\n  size: 4\n  hash: md5\n  path: sound\n";
    fs::write(writable.path("sound.dvc"), record).unwrap();
    let rules = fs::read_to_string(writable.path(".gitignore")).unwrap() + "/sound\n";
    fs::write(writable.path(".gitignore"), rules).unwrap();
    let commit = writable.snapshot(&[]);
    assert_eq!(writable.touched(&commit), [".gitignore", "sound.dvc"]);
    assert_eq!(writable.text_at(&commit, "sound.dvc"), record.trim_end());
    assert_eq!(writable.changes(), Vec::<String>::new());
    writable.assert_dvc_agrees(&commit, &["sound"], &["sound"]);
}

#[test]
fn records_that_were_changed_with_what_they_track_are_told_before_a_snapshot() {
    let writable = Writable::new();
    fs::write(writable.path("large.bin"), "other").unwrap();
    let record = fs::read_to_string(writable.path("large.bin.dvc")).unwrap();
    fs::write(writable.path("large.bin.dvc"), format!("desc: large\n{record}")).unwrap();
    fs::write(writable.path("data/new"), "new").unwrap();
    fs::write(writable.path("data.dvc"), "outs: [").unwrap();
    let lines = [
        "large.bin (5 B): large.bin.dvc, which tracks it, was changed as well",
        "data/new (3 B): data.dvc, which tracks it, was changed as well",
        "data.dvc (7 B): DVC could not read it",
    ];
    let (code, said) = writable.run("status", &[]);
    assert_eq!(code, Some(0), "{said}");
    for line in lines {
        assert!(said.contains(line), "{line}: {said}");
    }
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 path recorded"), "{said}");
    assert_eq!(writable.changes().len(), 3);
    assert_eq!(fs::read_to_string(writable.path("large.bin")).unwrap(), "other");
    let commit = writable.snapshot_ref();
    let told = format!("desc: large\n{}", record.trim_end());
    assert_eq!(writable.text_at(&commit, "large.bin.dvc"), told);
}

#[test]
fn a_record_that_cannot_be_written_anew_costs_its_own_output_alone() {
    let mut writable = Writable::new();
    let record = writable.registry.repository().join("large.bin.dvc");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, format!("{text}meta:\n  rate: 0x1F\n")).unwrap();
    let record = writable.registry.repository().join("data.dvc");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, format!("{text}meta:\n  rate: 1e-3\n")).unwrap();
    writable.registry.commit("Annotate", DATE).unwrap();
    writable.remount();
    let (place, other) = (writable.path("large.bin"), writable.path("other.bin"));
    fs::rename(&place, &other).unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("other.bin: large.bin.dvc, which tracks it: line 7"), "{said}");
    fs::rename(&other, &place).unwrap();
    fs::write(&place, "other").unwrap();
    fs::write(writable.path("data/a.bin"), "other").unwrap();
    let line = ": large.bin.dvc, which tracks it: line 7: dvcfs does not rewrite numbers";
    for args in [&["--dry-run"][..], &["-m", "x"]] {
        let (code, said) = writable.run("snapshot", args);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(writable.changes(), ["modified large.bin"]);
    assert_eq!(fs::read_to_string(&place).unwrap(), "other");
    assert!(fs::read_to_string(writable.path("data.dvc")).unwrap().ends_with("  rate: 1e-3\n"));
}
