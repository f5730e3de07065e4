//! What a writable mount says that it changes, and how changes are dropped.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
};

use super::{SMALL, Writable, in_both_open_modes};
use crate::support::{noise, output, succeed, text};

in_both_open_modes! {
    every_change_is_told_with_where_it_goes,
    what_comes_back_is_no_change,
    what_cannot_be_recorded_says_why,
    changes_are_dropped_one_by_one_and_all_at_once,
    nothing_is_dropped_while_a_file_is_written,
}

impl Writable {
    pub(super) fn run(&self, command: &str, args: &[&str]) -> (Option<i32>, String) {
        let mut dvcfs = self.sandbox.dvcfs([command]);
        let output = output(dvcfs.arg(self.mounted().dir()).args(args));
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The changes as `what path [from] into`.
    pub(super) fn changes(&self) -> Vec<String> {
        let mut diff = self.sandbox.dvcfs(["diff", "--json"]);
        let printed = succeed(diff.arg(self.mounted().dir()));
        let changes: Vec<serde_json::Value> = serde_json::from_slice(&printed).unwrap();
        let line = |change: &serde_json::Value| {
            let keys = ["change", "from", "path", "into", "file"];
            let words = keys.iter().filter_map(|key| change[key].as_str());
            words.collect::<Vec<_>>().join(" ")
        };
        changes.iter().map(line).collect()
    }
}

fn every_change_is_told_with_where_it_goes() {
    let writable = Writable::new();
    assert_eq!(writable.changes(), Vec::<String>::new());
    fs::write(writable.path("data/new.bin"), noise(7, 10)).unwrap();
    fs::write(writable.path("data/a.bin"), "other").unwrap();
    fs::remove_file(writable.path("data/b.bin")).unwrap();
    fs::rename(writable.path("docs/deep"), writable.path("docs/deeper")).unwrap();
    fs::write(writable.path("README.md"), "read this").unwrap();
    fs::write(writable.path("large.bin"), "small now").unwrap();
    fs::write(writable.path("note.txt"), "a note\n").unwrap();
    fs::create_dir(writable.path("more")).unwrap();
    fs::write(writable.path("more/sound.wav"), noise(8, 100_000)).unwrap();
    assert_eq!(
        writable.changes(),
        [
            "modified README.md git",
            "modified data/a.bin manifest data.dvc",
            "deleted data/b.bin manifest data.dvc",
            "added data/new.bin manifest data.dvc",
            "renamed docs/deep/page.txt docs/deeper/page.txt git",
            "modified large.bin dvc large.bin.dvc",
            "added more/sound.wav dvc more/sound.wav.dvc",
            "added note.txt git",
        ]
    );
    let (code, said) = writable.run("status", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("changes     3 added, 3 modified, 1 deleted, 1 renamed"), "{said}");
    assert!(said.contains("added     data/new.bin (10 B)  [data.dvc]"), "{said}");
    let (code, said) = writable.run("diff", &["--exit-code"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Renamed:\n    docs/deep/page.txt -> docs/deeper/page.txt\n"), "{said}");
}

fn what_comes_back_is_no_change() {
    let writable = Writable::new();
    fs::rename(writable.path("data"), writable.path("away")).unwrap();
    assert_eq!(writable.changes().len(), 3);
    assert_eq!(writable.changes()[0], "renamed data/a.bin away/a.bin manifest away.dvc");
    fs::rename(writable.path("away"), writable.path("data")).unwrap();
    fs::create_dir(writable.path("empty")).unwrap();
    assert_eq!(writable.changes(), Vec::<String>::new());
}

fn what_cannot_be_recorded_says_why() {
    let writable = Writable::new();
    fs::create_dir_all(writable.path("project/.git")).unwrap();
    fs::write(writable.path("project/.git/HEAD"), "x").unwrap();
    fs::write(writable.path("data/x.dvc"), "x").unwrap();
    std::os::unix::fs::symlink("a.bin", writable.path("data/link")).unwrap();
    fs::write(writable.path("line\u{85}.wav"), noise(1, 99)).unwrap();
    let (code, said) = writable.run("status", &[]);
    assert_eq!(code, Some(0));
    for why in ["a folder .git", "files of DVC itself", "DVC follows links", "another name"] {
        assert!(said.contains(why), "{why}: {said}");
    }
}

fn changes_are_dropped_one_by_one_and_all_at_once() {
    let writable = Writable::new();
    fs::rename(writable.path("README.md"), writable.path("READ.md")).unwrap();
    fs::write(writable.path("data/sub/new"), "x").unwrap();
    fs::remove_file(writable.path("data/a.bin")).unwrap();
    fs::rename(writable.path("docs"), writable.path("texts")).unwrap();
    let (code, said) = writable.run("discard", &["texts/deep"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("texts was moved"), "{said}");
    let (code, said) = writable.run("discard", &["no/such"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing was changed there"), "{said}");

    let mut held = File::open(writable.path("READ.md")).unwrap();
    let (code, said) = writable.run("discard", &["READ.md", "data/sub/new"]);
    assert_eq!((code, said.as_str()), (Some(0), "dropped: 2 paths\n"));
    assert_eq!(fs::read_to_string(writable.path("README.md")).unwrap(), "read me\n");
    assert!(!writable.path("READ.md").exists() && !writable.path("data/sub/new").exists());
    let mut read = String::new();
    held.read_to_string(&mut read).unwrap();
    assert_eq!(read, "read me\n", "what is open keeps its bytes");
    assert!(writable.path("texts/deep/page.txt").exists());
    fs::write(writable.path("data/sub/new"), "y").unwrap();

    let (code, said) = writable.run("discard", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--yes"), "{said}");
    let (code, said) = writable.run("discard", &["--yes"]);
    assert_eq!((code, said.as_str()), (Some(0), "dropped: everything\n"));
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert!(fs::read(writable.path("data/a.bin")).unwrap() == noise(1, SMALL));
    assert_eq!(writable.names("data/sub"), ["c.bin"]);
    assert_eq!(writable.names("docs"), ["deep"]);
    assert_eq!(fs::read_dir(writable.upper.join("upper")).unwrap().count(), 0);
    fs::write(writable.path("data/again"), "x").unwrap();
    assert_eq!(writable.changes(), ["added data/again manifest data.dvc"]);
}

fn nothing_is_dropped_while_a_file_is_written() {
    let writable = Writable::new();
    let mut file = File::create(writable.path("data/new")).unwrap();
    file.write_all(b"one").unwrap();
    let (code, said) = writable.run("discard", &["--yes"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("open for writing: data/new"), "{said}");
    file.write_all(b" two").unwrap();
    drop(file);
    assert_eq!(text(writable.sandbox.tool("cat").arg(writable.path("data/new"))), "one two");
    // The kernel tells of the end of a file after whoever closed it goes on.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while writable.run("discard", &["--yes"]).0 != Some(0) {
        assert!(std::time::Instant::now() < until);
    }
    assert!(!writable.path("data/new").exists());
}

#[test]
fn folders_in_each_other_are_recorded_as_deep_as_they_are_shown_and_deeper_ones_named() {
    let writable = Writable::new();
    let deepen = "import os, sys
os.chdir(sys.argv[1])
for depth in range(1, 801):
    os.mkdir('d')
    os.chdir('d')
    if depth in (510, 800):
        open('leaf', 'w').close()
";
    succeed(writable.sandbox.tool("python3").args(["-c", deepen]).arg(writable.path("docs")));
    let (code, said) = writable.run("status", &[]);
    assert_eq!(code, Some(0), "{said:.1000}");
    let (code, said) = writable.run("snapshot", &["--dry-run"]);
    assert_eq!(code, Some(1), "{said:.1000}");
    assert!(said.contains("more than 512 folders deep"), "{said:.1000}");
    let (code, said) = writable.run("snapshot", &["-m", "deep"]);
    assert_eq!(code, Some(1), "{said:.1000}");
    assert!(said.contains("1 path recorded"), "{said:.1000}");
    let listed = writable.changes();
    let [left] = &listed[..] else { panic!("{} changes", listed.len()) };
    assert!(left.len() > 1600, "{left}");
    let mut find = writable.sandbox.tool("sh");
    let found =
        text(find.args(["-c", "find docs -name leaf | wc -l"]).current_dir(writable.path("")));
    assert_eq!(found.trim(), "2");
    let (code, said) = writable.run("discard", &["-y"]);
    assert_eq!(code, Some(0), "{said:.1000}");
}

#[test]
fn what_a_change_by_hand_brings_about_is_told() {
    let writable = Writable::new();
    fs::remove_file(writable.path("data.dvc")).unwrap();
    fs::write(writable.path(".gitignore"), "/data\n").unwrap();
    let (code, said) = writable.run("status", &[]);
    assert_eq!(code, Some(0), "{said}");
    let lines = [
        "deleted   data.dvc  [git]: data is tracked no more and goes with it\n",
        "modified  .gitignore (6 B)  [git]: git would see large.bin, which DVC tracks\n",
    ];
    for line in lines {
        assert!(said.contains(line), "{said}");
    }
    // Whoever removes both means it.
    fs::remove_dir_all(writable.path("data")).unwrap();
    fs::write(writable.path(".gitignore"), "/data\n/large.bin\n").unwrap();
    let (_, said) = writable.run("status", &[]);
    assert!(!said.contains("goes with it") && !said.contains("git would see"), "{said}");
}

#[test]
fn that_a_file_of_a_tracked_folder_may_be_executed_is_no_change() {
    let writable = Writable::new();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(writable.path("data/a.bin"), executable.clone()).unwrap();
    assert_eq!(writable.changes(), Vec::<String>::new());
    fs::set_permissions(writable.path("large.bin"), executable).unwrap();
    assert_eq!(writable.changes(), ["modified large.bin dvc large.bin.dvc"]);
    writable.snapshot(&[]);
    assert_eq!(writable.path("large.bin").metadata().unwrap().permissions().mode() & 0o111, 0o111);
}
