//! Snapshots: what was changed in a mount becomes a commit that DVC could have made.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{SMALL, Writable, files::Mapped, in_both_open_modes};
use crate::support::{Dvc, eventually, noise, succeed, text};

in_both_open_modes! {
    a_snapshot_is_shown_and_the_overlay_is_empty,
    what_is_written_or_cannot_be_recorded_stays,
    a_snapshot_that_is_not_pushed_is_there_after_a_remount,
    a_folder_with_files_that_are_not_pushed_can_be_listed_with_their_sizes,
    what_is_mapped_to_write_is_recorded_once_it_is_not,
    what_is_mapped_to_read_keeps_its_bytes,
}

impl Writable {
    /// Makes a snapshot that must succeed; gives its commit.
    pub(super) fn snapshot(&self, args: &[&str]) -> String {
        let (code, said) = self.run("snapshot", &[&["-m", "Change things"], args].concat());
        assert_eq!(code, Some(0), "{said}");
        said.lines().next().unwrap().to_owned()
    }

    /// A clone of the repository at a commit of its own, as a colleague gets it who has the blobs
    /// that wait in the outbox in the cache.
    pub(super) fn clone_at(&self, commit: &str, name: &str) -> PathBuf {
        let clone = self.sandbox.path(name);
        let mut git = self.sandbox.git(self.sandbox.folder("dvc").as_path());
        succeed(git.args(["clone", "--quiet"]).arg(self.registry.repository()).arg(&clone));
        let git = || self.sandbox.git(&clone);
        succeed(git().args(["fetch", "--quiet", "origin", "refs/dvcfs/*:refs/theirs/*"]));
        succeed(git().args(["checkout", "--quiet", "-B", "main", commit]));
        clone
    }

    pub(super) fn outbox(&self) -> PathBuf {
        self.sandbox.path("state/outbox")
    }

    pub(super) fn dvc(
        &self,
        dvc: &mut Dvc,
        folder: &Path,
        command: &str,
        words: &[&str],
    ) -> String {
        let case = words.iter().map(|word| (*word).to_owned()).collect();
        let printed = dvc.run(&self.sandbox, folder, command, &[case]).remove(0);
        String::from_utf8(printed.unwrap_or_else(|| panic!("dvc {command} {words:?}"))).unwrap()
    }
}

/// Changes of every kind.
pub(super) fn change(writable: &Writable) {
    fs::write(writable.path("data/new.bin"), noise(7, 10)).unwrap();
    fs::create_dir(writable.path("data/deep")).unwrap();
    fs::write(writable.path("data/deep/more.bin"), noise(9, 3000)).unwrap();
    fs::write(writable.path("data/a.bin"), "other").unwrap();
    fs::remove_file(writable.path("data/b.bin")).unwrap();
    fs::rename(writable.path("data/sub/c.bin"), writable.path("data/moved.bin")).unwrap();
    fs::rename(writable.path("docs/deep"), writable.path("docs/deeper")).unwrap();
    fs::write(writable.path("README.md"), "read this").unwrap();
    fs::write(writable.path("large.bin"), "small now").unwrap();
    fs::write(writable.path("note.txt"), "a note\n").unwrap();
    fs::create_dir(writable.path("more")).unwrap();
    fs::write(writable.path("more/sound [1].wav"), noise(8, 100_000)).unwrap();
    let tool = writable.path("more/tool");
    fs::write(&tool, noise(5, 70_000)).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(writable.path("set/one")).unwrap();
    fs::write(writable.path("set/one/x"), "x").unwrap();
    fs::write(writable.path("set/y"), "y").unwrap();
}

fn a_snapshot_is_shown_and_the_overlay_is_empty() {
    let writable = Writable::new();
    let git = || writable.sandbox.git(writable.registry.repository());
    let before = text(git().args(["status", "--porcelain", "--branch"]));
    change(&writable);
    let mut held = File::open(writable.path("data/new.bin")).unwrap();
    let commit = writable.snapshot(&["--dir", "set"]);

    assert_eq!(writable.changes(), Vec::<String>::new());
    assert_eq!(fs::read_dir(writable.upper.join("upper")).unwrap().count(), 0);
    assert!(fs::read(writable.path("data/new.bin")).unwrap() == noise(7, 10));
    assert!(fs::read(writable.path("data/moved.bin")).unwrap() == noise(3, 5000));
    assert_eq!(writable.names("data"), ["a.bin", "deep", "moved.bin", "new.bin"]);
    assert_eq!(fs::read_to_string(writable.path("large.bin")).unwrap(), "small now");
    assert_eq!(writable.names("docs"), ["deeper"]);
    assert_eq!(writable.names("set"), ["one", "y"]);
    let mode = fs::metadata(writable.path("more/tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let mut bytes = Vec::new();
    held.read_to_end(&mut bytes).unwrap();
    assert!(bytes == noise(7, 10));
    let (_, said) = writable.run("status", &[]);
    assert!(said.contains(&format!("snapshot    {commit} (not pushed)")), "{said}");

    let shown = text(git().args(["log", "-1", "--format=%an|%s|%P", &commit]));
    let parent = text(git().args(["rev-parse", "main"]));
    assert_eq!(shown, format!("Ann|Change things|{parent}"));
    assert_eq!(text(git().args(["status", "--porcelain", "--branch"])), before);
    succeed(git().args(["fsck", "--strict"]));

    // Another one goes on from it.
    fs::write(writable.path("data/again"), "again").unwrap();
    let next = writable.snapshot(&[]);
    assert_eq!(text(git().args(["rev-parse", &format!("{next}^")])), commit);
    assert_eq!(fs::read_to_string(writable.path("data/again")).unwrap(), "again");
    let (code, said) = writable.run("snapshot", &["-m", "Nothing"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing has changed"), "{said}");
}

fn what_is_written_or_cannot_be_recorded_stays() {
    let writable = Writable::new();
    fs::write(writable.path("data/line\n.bin"), "held by a manifest").unwrap();
    fs::write(writable.path("line\u{85}.wav"), noise(1, 99)).unwrap();
    let mut file = File::create(writable.path("data/new")).unwrap();
    file.write_all(b"one").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("open for writing: data/new"), "{said}");
    file.write_all(b" two").unwrap();
    drop(file);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let said = loop {
        let (code, said) = writable.run("snapshot", &["-m", "x"]);
        if code != Some(9) {
            break said;
        }
        assert!(std::time::Instant::now() < until, "{said}");
    };
    assert!(said.contains("left as it is: line"), "{said}");
    assert!(said.contains("2 paths recorded"), "{said}");
    assert_eq!(fs::read_to_string(writable.path("data/new")).unwrap(), "one two");
    assert!(fs::read(writable.path("line\u{85}.wav")).unwrap() == noise(1, 99));
    assert_eq!(writable.changes().len(), 1);
}

fn a_snapshot_that_is_not_pushed_is_there_after_a_remount() {
    let mut writable = Writable::new();
    fs::write(writable.path("data/new"), noise(7, 100)).unwrap();
    let commit = writable.snapshot(&[]);
    fs::remove_dir_all(writable.sandbox.cache()).unwrap();
    writable.remount();
    assert!(fs::read(writable.path("data/new")).unwrap() == noise(7, 100));
    assert!(fs::read(writable.path("data/a.bin")).unwrap() == noise(1, SMALL));
    let (_, said) = writable.run("status", &[]);
    assert!(said.contains(&commit), "{said}");
    fs::write(writable.path("data/more"), "more").unwrap();
    writable.remount();
    assert_eq!(writable.changes(), ["added data/more manifest data.dvc"]);
}

fn a_folder_with_files_that_are_not_pushed_can_be_listed_with_their_sizes() {
    let writable = Writable::new();
    for number in 0..4 {
        fs::write(writable.path(format!("data/new {number}")), noise(number, 100)).unwrap();
    }
    writable.snapshot(&[]);
    let entries = fs::read_dir(writable.path("data")).unwrap();
    let sizes = entries.map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    });
    let new: Vec<_> = sizes.filter(|(name, _)| name.starts_with("new")).collect();
    assert!(new.len() == 4 && new.iter().all(|(_, size)| *size == 100), "{new:?}");
}

fn what_is_mapped_to_write_is_recorded_once_it_is_not() {
    let writable = Writable::new();
    let path = writable.path("data/new");
    fs::write(&path, noise(7, 8192)).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mapped = Mapped::new(&file, true);
    drop(file);
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("open for writing") && said.contains("data/new"), "{said}");
    assert_eq!(writable.run("discard", &["--yes"]).0, Some(9));
    mapped.write(b"mapped");
    drop(mapped);
    // The kernel tells of the end of a mapping after whoever had it goes on.
    eventually("it is recorded", || writable.run("snapshot", &["-m", "x"]).0 == Some(0));
    let mut expected = noise(7, 8192);
    expected[..6].copy_from_slice(b"mapped");
    assert!(fs::read(&path).unwrap() == expected);
    writable.assert_outbox();
}

fn what_is_mapped_to_read_keeps_its_bytes() {
    let writable = Writable::new();
    let path = writable.path("data/new");
    fs::write(&path, noise(7, 8192)).unwrap();
    let mapped = Mapped::new(&File::open(&path).unwrap(), false);
    eventually("it is recorded", || writable.run("snapshot", &["-m", "x"]).0 == Some(0));
    assert!(mapped.read() == noise(7, 4096));
    fs::write(&path, noise(8, 8192)).unwrap();
    assert!(mapped.read() == noise(7, 4096));
    assert!(fs::read(&path).unwrap() == noise(8, 8192));
    writable.assert_outbox();
}

/// Signs nothing, and waits until it may go on.
const SIGN: &str = r#"#!/bin/sh
touch "$READY"
timeout 60 cat "$GO"
cat > /dev/null
echo '[GNUPG:] SIG_CREATED ' >&2
echo '-----SIGNED-----'
"#;

/// A snapshot whose tree is prepared and whose commit is being signed.
struct Signing {
    snapshot: std::process::Child,
    go: PathBuf,
}

impl Signing {
    fn start(writable: &Writable, name: &str) -> Self {
        let [ready, go] = ["ready", "go"].map(|end| writable.sandbox.path(format!("{name}.{end}")));
        succeed(writable.sandbox.tool("mkfifo").arg(&go));
        let mut command = writable.sandbox.dvcfs(["snapshot", "-m", name]);
        command.arg(writable.mounted().dir()).env("READY", &ready).env("GO", &go);
        let snapshot = command.spawn().unwrap();
        eventually("it is being signed", || ready.exists());
        Self { snapshot, go }
    }

    /// Lets it go on; gives its exit code.
    fn end(mut self) -> Option<i32> {
        fs::write(&self.go, "go").unwrap();
        self.snapshot.wait().unwrap().code()
    }
}

#[test]
fn of_two_snapshots_at_once_one_is_made_and_the_other_told_to_wait() {
    let writable = Writable::new();
    let program = writable.sandbox.path("sign");
    fs::write(&program, SIGN).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let config = [("gpg.program", program.to_str().unwrap()), ("commit.gpgsign", "true")];
    for (name, value) in config.into_iter().chain([("user.signingkey", "KEY")]) {
        succeed(writable.sandbox.git(writable.registry.repository()).args(["config", name, value]));
    }
    fs::write(writable.path("data/one"), "one").unwrap();
    let first = Signing::start(&writable, "first");
    fs::write(writable.path("data/two"), "two").unwrap();
    let second = Signing::start(&writable, "second");
    assert_eq!(first.end(), Some(9));
    assert_eq!(second.end(), Some(0));
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert_eq!(writable.names("data"), ["a.bin", "b.bin", "one", "sub", "two"]);

    // The one that is done first takes away what the other would record.
    fs::write(writable.path("data/one"), "three").unwrap();
    let (one, other) = (Signing::start(&writable, "one"), Signing::start(&writable, "other"));
    assert_eq!(other.end(), Some(0));
    assert_eq!(one.end(), Some(9));
    assert_eq!(fs::read_to_string(writable.path("data/one")).unwrap(), "three");
}

impl Writable {
    /// DVC has nothing to say of a commit: it gets these files as they are here, and adding what it
    /// tracks changes nothing.
    pub(super) fn assert_dvc_agrees(&self, commit: &str, names: &[&str], added: &[&str]) {
        self.assert_dvc_agrees_in(commit, "agreeing", names, added);
    }

    /// The same, in a clone of this name.
    pub(super) fn assert_dvc_agrees_in(
        &self,
        commit: &str,
        clone: &str,
        names: &[&str],
        added: &[&str],
    ) {
        let clone = self.clone_at(commit, clone);
        let git = || self.sandbox.git(&clone);
        let mut dvc = Dvc::start(&self.sandbox);
        let outbox = self.outbox();
        self.dvc(&mut dvc, &clone, "cache", &["dir", "--local", outbox.to_str().unwrap()]);
        self.dvc(&mut dvc, &clone, "pull", &[]);
        let up_to_date = self.dvc(&mut dvc, &clone, "status", &[]);
        assert_eq!(up_to_date, "Data and pipelines are up to date.\n");
        assert_eq!(self.dvc(&mut dvc, &clone, "data", &["status"]), "No changes.\n");
        assert_eq!(text(git().args(["status", "--porcelain"])), "");
        for name in names {
            let ours = fs::read(self.path(name)).unwrap();
            assert!(fs::read(clone.join(name)).unwrap() == ours, "{name}");
        }
        self.dvc(&mut dvc, &clone, "add", added);
        assert_eq!(text(git().args(["status", "--porcelain"])), "", "dvc add changes nothing");
    }
}

#[test]
fn dvc_agrees_with_a_snapshot_to_the_byte() {
    let writable = Writable::new();
    change(&writable);
    writable.snapshot(&["--dir", "set"]);
    // What no remote has yet is replaced.
    fs::write(writable.path("data/new.bin"), noise(17, 1000)).unwrap();
    let commit = writable.snapshot(&[]);
    let names = ["data/a.bin", "data/deep/more.bin", "data/moved.bin", "set/one/x", "large.bin"];
    let added = ["data", "large.bin", "more/sound [1].wav", "more/tool", "set"];
    writable.assert_dvc_agrees(&commit, &names, &added);
}

#[test]
fn whoever_may_execute_a_file_it_is_executable_for_dvc() {
    let writable = Writable::new();
    let names = ["group", "others", "nobody"];
    for (name, mode) in names.into_iter().zip([0o654, 0o601, 0o666]) {
        fs::write(writable.path(name), noise(7, 100_000)).unwrap();
        fs::set_permissions(writable.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let clone = writable.clone_at("main", "by-dvc");
    for name in names {
        fs::copy(writable.path(name), clone.join(name)).unwrap();
    }
    let commit = writable.snapshot(&[]);
    let mut dvc = Dvc::start(&writable.sandbox);
    writable.dvc(&mut dvc, &clone, "add", &names);
    for name in names.map(|name| format!("{name}.dvc")) {
        let theirs = fs::read_to_string(clone.join(&name)).unwrap();
        assert_eq!(writable.text_at(&commit, &name), theirs.trim_end());
    }
}
