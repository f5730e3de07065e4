//! Daemons that are killed, and disks that lose power, at each step of a write and of a snapshot.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use super::{Writable, choices::shown};
use crate::support::{Mount, md5_of, noise, output, succeed, text};

impl Writable {
    /// Mounts again, by a daemon that kills itself at a step.
    pub(super) fn remount_until(&mut self, step: &str) {
        self.remount_until_in("auto", step);
    }

    fn remount_until_in(&mut self, open_mode: &str, step: &str) {
        self.mount = None;
        let dir = self.sandbox.folder("mnt");
        let mut command = self.sandbox.dvcfs(["mount", "--foreground", "--rev", "main"]);
        command.env("DVCFS_TEST_END_AT", step);
        command.arg(format!("--overlay={}", self.upper.display()));
        command.args(["--open-mode", open_mode]);
        command.arg(self.registry.repository()).arg(&dir);
        self.mount = Some(Mount::start(command, &dir, &self.sandbox.path("run")));
    }

    /// Waits for the daemon's own end, and mounts again.
    pub(super) fn remount_dead(&mut self) {
        drop(self.mount.take().unwrap().wait_for_death());
        self.mount();
    }

    fn try_snapshot(&self, step_of_command: Option<&str>) -> bool {
        self.try_snapshot_of(step_of_command, &[])
    }

    fn try_snapshot_of(&self, step_of_command: Option<&str>, paths: &[&str]) -> bool {
        let mut dvcfs = self.sandbox.dvcfs(["snapshot", "-m", "Try"]);
        if self.path("set").is_dir() {
            dvcfs.args(["--dir", "set"]);
        }
        if let Some(step) = step_of_command {
            dvcfs.env("DVCFS_TEST_END_AT", step);
        }
        output(dvcfs.arg(self.mounted().dir()).args(paths)).status.success()
    }

    /// The commit that was made, if any was.
    fn made(&self) -> Option<String> {
        let mut git = self.sandbox.git(self.registry.repository());
        let refs =
            text(git.args(["for-each-ref", "--format=%(objectname)", "refs/dvcfs/snapshots"]));
        (!refs.is_empty()).then_some(refs)
    }

    /// Fails unless every blob of a commit is in the outbox or the remote, with the bytes that its
    /// name says.
    fn assert_whole(&self, commit: &str) {
        let git = || self.sandbox.git(self.registry.repository());
        succeed(git().args(["fsck", "--strict"]));
        let names = text(git().args(["ls-tree", "-r", "--name-only", commit]));
        let dotfiles = names.lines().filter(|name| name.ends_with(".dvc"));
        let texts = dotfiles.map(|name| text(git().args(["show", &format!("{commit}:{name}")])));
        for md5 in texts.flat_map(|text| hashes(&text, "md5: ")) {
            let bytes = self.blob(&md5);
            if md5.ends_with(".dir") {
                let manifest = String::from_utf8(bytes).unwrap();
                for md5 in hashes(&manifest, "\"md5\": \"") {
                    self.blob(&md5);
                }
            }
        }
    }

    fn blob(&self, md5: &str) -> Vec<u8> {
        let (two, rest) = md5.split_at(2);
        let places = [self.outbox(), self.registry.objects().to_owned()];
        let mut places = places.iter().map(|place| place.join(format!("files/md5/{two}/{rest}")));
        let bytes = places.find_map(|place| fs::read(place).ok());
        bytes.unwrap_or_else(|| panic!("{md5} is on neither side"))
    }

    /// Fails unless all that is in the outbox is sound, and shared with nobody.
    pub(super) fn assert_outbox(&self) {
        for folder in fs::read_dir(self.outbox().join("files/md5")).unwrap() {
            let folder = folder.unwrap();
            for blob in fs::read_dir(folder.path()).unwrap() {
                let blob = blob.unwrap();
                let name =
                    [folder.file_name(), blob.file_name()].map(|it| it.into_string().unwrap());
                let digest = md5_of(&blob.path()).unwrap().0;
                assert_eq!(name.concat().trim_end_matches(".dir"), digest);
                let metadata = blob.metadata().unwrap();
                assert_eq!((metadata.nlink(), metadata.permissions().mode() & 0o777), (1, 0o444));
            }
        }
    }
}

/// The words of a text behind a key that look like hashes.
fn hashes(text: &str, key: &str) -> Vec<String> {
    let word = |rest: &str| rest.split(['\n', '"']).next().unwrap().to_owned();
    text.split(key).skip(1).map(word).collect()
}

#[test]
fn a_file_of_the_base_that_is_cut_short_is_so_from_its_first_moment_on() {
    let mut writable = Writable::new();
    writable.remount_until("copied up");
    let path = writable.path("large.bin");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    File::options().write(true).open(&path).unwrap().set_len(7000).unwrap_err();
    writable.remount_dead();
    assert!(fs::read(&path).unwrap() == noise(4, super::LARGE)[..7000]);
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > before);
}

/// Every step of a snapshot.
const STEPS: [&str; 13] = [
    "hashed",
    "prepared",
    "noted",
    "named",
    "synced",
    "decided",
    "rebased",
    "protected",
    "taken out",
    "taken out#2",
    "taken out#5",
    "let go",
    "committed",
];

#[test]
fn a_snapshot_that_is_killed_at_any_step_is_nothing_or_everything() {
    let all = Writable::changed();
    let whole = all.snapshot(&["--dir", "set"]);
    for step in STEPS {
        let mut writable = Writable::changed();
        // What stays has to be written while the rest goes.
        fs::write(writable.path("line\u{85}.wav"), noise(1, 99)).unwrap();
        let before = shown(writable.mounted().dir());
        let told = writable.changes();
        if step == "committed" {
            assert!(!writable.try_snapshot(Some(step)));
            writable.remount();
        } else {
            writable.remount_until(step);
            assert!(!writable.try_snapshot(None));
            writable.remount_dead();
        }
        assert_eq!(shown(writable.mounted().dir()), before, "{step}");
        assert!(!writable.upper.join("snapshot.json").exists(), "{step}");
        writable.assert_outbox();
        let is_late =
            !["hashed", "prepared", "noted", "named", "synced", "committed"].contains(&step);
        if let Some(commit) = writable.made() {
            assert!(is_late, "{step}");
            writable.assert_whole(&commit);
            assert_eq!(writable.tree_of(&commit), all.tree_of(&whole), "{step}");
            assert_eq!(writable.changes().len(), 1, "{step}");
        } else {
            assert!(!is_late, "{step}");
            assert_eq!(writable.changes(), told, "{step}");
            // What was interrupted can be done again.
            assert!(!writable.try_snapshot(None), "one path is left");
            let commit = writable.made().unwrap();
            assert_eq!(writable.tree_of(&commit), all.tree_of(&whole), "{step}");
        }
        assert_eq!(shown(writable.mounted().dir()), before, "{step}");
    }
}

#[test]
fn a_snapshot_that_cannot_be_ended_takes_no_more_writes_and_the_next_mount_ends_it() {
    let mut writable = Writable::changed();
    let before = shown(writable.mounted().dir());
    // What is mounted cannot be replaced.
    let base = writable.upper.join("base.json");
    succeed(Command::new("mount").arg("--bind").arg(&base).arg(&base));
    let fixed = super::ends::Unmounted(base);
    let (code, said) = writable.run("snapshot", &["-m", "Try", "--dir", "set"]);
    assert_eq!(code, Some(1), "{said}");
    let commit = writable.made().unwrap();
    assert!(said.contains(&commit) && said.contains("mount it again"), "{said}");
    for name in ["late", "note.txt", "data/b.bin"] {
        fs::write(writable.path(name), "late").expect_err(name);
    }
    fs::remove_file(writable.path("note.txt")).unwrap_err();
    let (_, said) = writable.run("status", &[]);
    assert!(said.contains("mount it again"), "{said}");
    let (code, said) = writable.run("snapshot", &["-m", "Again"]);
    assert_eq!(code, Some(1), "{said}");
    drop(fixed);
    writable.remount();
    assert_eq!(shown(writable.mounted().dir()), before);
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert_eq!(writable.made(), Some(commit.clone()));
    writable.assert_whole(&commit);
    writable.assert_outbox();
    fs::write(writable.path("late"), "late").unwrap();
}

#[test]
fn changes_whose_dropping_is_killed_are_dropped_all_together() {
    for step in ["dropped", "taken out", "taken out#2"] {
        let mut writable = Writable::new();
        writable.remount_until(step);
        fs::rename(writable.path("README.md"), writable.path("READ.md")).unwrap();
        fs::remove_file(writable.path("data/b.bin")).unwrap();
        fs::write(writable.path("data/new"), "new").unwrap();
        fs::write(writable.path("stays"), "stays\n").unwrap();
        let paths = ["READ.md", "data/b.bin", "data/new"];
        assert_ne!(writable.run("discard", &paths).0, Some(0), "{step}");
        writable.remount_dead();
        assert_eq!(writable.changes(), ["added stays git"], "{step}");
        assert_eq!(fs::read_to_string(writable.path("README.md")).unwrap(), "read me\n");
        assert_eq!(fs::read_dir(writable.upper.join("upper")).unwrap().count(), 1, "{step}");
        // What comes later is not dropped.
        fs::write(writable.path("data/new"), "newer").unwrap();
        writable.remount();
        assert_eq!(fs::read_to_string(writable.path("data/new")).unwrap(), "newer");
    }
}

#[test]
fn everything_is_dropped_or_nothing_where_that_is_killed() {
    for step in ["dropped", "taken out", "taken out#2"] {
        let mut writable = Writable::new();
        writable.remount_until(step);
        fs::rename(writable.path("README.md"), writable.path("READ.md")).unwrap();
        fs::write(writable.path("data/new"), "new").unwrap();
        assert_ne!(writable.run("discard", &["--yes"]).0, Some(0), "{step}");
        writable.remount_dead();
        assert_eq!(writable.changes(), Vec::<String>::new(), "{step}");
        assert_eq!(fs::read_dir(writable.upper.join("upper")).unwrap().count(), 0, "{step}");
    }
}

#[test]
fn a_single_path_whose_dropping_is_killed_is_dropped() {
    let mut writable = Writable::new();
    writable.remount_until("taken out");
    fs::create_dir(writable.path("more")).unwrap();
    fs::write(writable.path("more/new"), "new").unwrap();
    assert_ne!(writable.run("discard", &["more"]).0, Some(0));
    writable.remount_dead();
    assert!(!writable.path("more").exists());
    assert_eq!(fs::read_dir(writable.upper.join("work")).unwrap().count(), 0);
}

#[test]
fn a_discard_that_fails_midway_shows_nothing_until_the_next_mount_ends_it() {
    let mut writable = Writable::new();
    fs::create_dir(writable.path("one")).unwrap();
    for name in ["one/x", "two"] {
        fs::write(writable.path(name), "x").unwrap();
    }
    // What is mounted cannot be moved.
    let two = writable.kept("two");
    succeed(Command::new("mount").arg("--bind").arg(writable.kept("one/x")).arg(&two));
    let fixed = super::ends::Unmounted(two);
    let (code, said) = writable.run("discard", &["one", "two"]);
    assert_eq!(code, Some(1), "{said}");
    fs::read(writable.path("one/x")).unwrap_err();
    fs::write(writable.path("three"), "late").unwrap_err();
    drop(fixed);
    writable.remount();
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert!(!writable.path("one").exists() && !writable.path("two").exists());
}

#[test]
fn a_part_that_is_killed_while_the_rest_is_kept_shows_as_before() {
    for step in ["named", "decided", "taken out", "draft filled", "draft filled#2", "let go"] {
        let mut writable = Writable::changed();
        let before = shown(writable.mounted().dir());
        writable.remount_until(step);
        assert!(
            !writable.try_snapshot_of(None, &["tunes/two", "more/texts/one", "note.txt"]),
            "{step}"
        );
        writable.remount_dead();
        assert_eq!(shown(writable.mounted().dir()), before, "{step}");
        writable.assert_outbox();
        assert_eq!(writable.made().is_some(), step != "named", "{step}");
        assert!(writable.try_snapshot(None), "{step}");
        writable.assert_whole(&writable.made().unwrap());
        assert_eq!(shown(writable.mounted().dir()), before, "{step}");
        assert_eq!(writable.changes(), Vec::<String>::new());
    }
}

/// A step, a change of a place in a mount, and what may be there if the daemon ends at that step:
/// the old, or the new.
type Attempt = (&'static str, &'static str, Change, [Option<&'static str>; 2]);

type Change = fn(&Path, &Path) -> std::io::Result<()>;

/// What the base has and was removed.
const REMOVED: &str = "data/b.bin";

const ATTEMPTS: [Attempt; 6] = [
    ("file made", REMOVED, |_, to| fs::write(to, ""), [None, Some("")]),
    (
        "draft filled",
        "docs/deep/page.txt",
        |_, to| File::options().append(true).open(to)?.write_all(b"x"),
        [Some("a page\n"), Some("a page\nx")],
    ),
    ("folder removed", "bare", |_, to| fs::remove_dir(to), [Some(""), None]),
    ("places changed", REMOVED, |root, to| fs::rename(root.join("made"), to), [None, Some("")]),
    ("folder placed", REMOVED, |_, to| fs::create_dir(to), [None, Some("")]),
    ("folder emptied", "bare", |root, to| fs::rename(root.join("made"), to), [Some(""), Some("")]),
];

#[test]
fn a_change_that_is_killed_at_any_step_is_nothing_or_everything() {
    for (step, place, attempt, allowed) in ATTEMPTS {
        let mut writable = Writable::new();
        fs::create_dir(writable.path("made")).unwrap();
        fs::remove_file(writable.path(REMOVED)).unwrap();
        fs::rename(writable.path("docs/deep"), writable.path("deeper")).unwrap();
        fs::rename(writable.path("deeper"), writable.path("docs/deep")).unwrap();
        fs::create_dir(writable.path("bare")).unwrap();
        writable.remount_until(step);
        let root = writable.mounted().dir().to_owned();
        attempt(&root, &root.join(place)).expect_err(step);
        writable.remount_dead();
        let path = writable.path(place);
        let there = if path.is_dir() { Some(String::new()) } else { fs::read_to_string(path).ok() };
        assert!(allowed.contains(&there.as_deref()), "{step}: {there:?}");
        assert_eq!(fs::read_dir(writable.upper.join("work")).unwrap().count(), 0, "{step}");
        assert_eq!(fs::read_to_string(writable.path("README.md")).unwrap(), "read me\n");
    }
}

#[test]
fn what_was_synced_before_a_kill_is_there_and_what_was_written_is_not_torn() {
    // Writes that the kernel does by itself reach no step.
    let steps = ["sync asked for#2", "file synced#2"].map(|step| ("auto", step));
    for (open_mode, step) in steps.into_iter().chain([("served", "written#3")]) {
        let mut writable = Writable::new();
        writable.remount_until_in(open_mode, step);
        let (synced, late) = (writable.path("data/synced"), writable.path("data/late"));
        let attempt = || -> std::io::Result<()> {
            let mut file = File::create(synced)?;
            file.write_all(b"synced")?;
            file.sync_all()?;
            drop(file);
            let mut file = File::create(late)?;
            file.write_all(b"one")?;
            file.write_all(b"two")?;
            file.sync_all()?;
            file.sync_all()
        };
        attempt().expect_err(step);
        writable.remount_dead();
        assert_eq!(fs::read_to_string(writable.path("data/synced")).unwrap(), "synced", "{step}");
        let late = fs::read_to_string(writable.path("data/late")).unwrap();
        assert!(["", "one", "onetwo"].contains(&&late[..]), "{step}: {late}");
    }
}

/// An ext4 in a file, which can lose its power.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(image: PathBuf, at: PathBuf) -> Self {
        succeed(Command::new("truncate").args(["-s", "256M"]).arg(&image));
        succeed(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let disk = Self { image, at };
        disk.mount();
        disk
    }

    fn mount(&self) {
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at));
    }

    /// Forgets everything that was not told to be on the disk.
    fn lose_power(&self) {
        const SCRIPT: &str = "import fcntl, os, struct, sys\n\
                              fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        let python = format!("{}/bin/python", std::env::var("DVCFS_TEST_VENV").unwrap());
        succeed(Command::new(python).args(["-c", SCRIPT]).arg(&self.at));
    }

    fn unmount(&self) {
        crate::support::eventually("nobody uses the disk", || {
            rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::empty()).is_ok()
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is not there if the test failed between two lives.
        _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_loss_of_power_takes_nothing_that_was_synced_or_recorded() {
    let mut writable = Writable::new();
    writable.mount = None;
    let at = writable.sandbox.folder("disk");
    let disk = Disk::new(writable.sandbox.path("image"), at);
    // The overlay, the outbox and the repository are on that disk.
    for (place, name) in
        [(writable.sandbox.path("state"), "state"), (writable.upper.clone(), "over")]
    {
        fs::create_dir_all(disk.at.join(name)).unwrap();
        if place.exists() {
            fs::remove_dir_all(&place).unwrap();
        }
        std::os::unix::fs::symlink(disk.at.join(name), place).unwrap();
    }
    let repository = writable.registry.repository().to_owned();
    succeed(Command::new("mv").arg(&repository).arg(disk.at.join("repository")));
    std::os::unix::fs::symlink(disk.at.join("repository"), &repository).unwrap();
    std::os::unix::fs::symlink(writable.registry.objects(), disk.at.join("store")).unwrap();
    succeed(Command::new("sync").arg("--file-system").arg(&disk.at));
    for (is_recorded, syncs_folder) in [(false, false), (false, true), (true, true)] {
        writable.mount();
        let mut file = File::create(writable.path("data/synced")).unwrap();
        file.write_all(&noise(7, 300_000)).unwrap();
        file.sync_all().unwrap();
        drop(file);
        fs::rename(writable.path("data/b.bin"), writable.path("data/c.bin")).unwrap();
        let synced = if syncs_folder { "data" } else { "data/c.bin" };
        File::open(writable.path(synced)).unwrap().sync_all().unwrap();
        let commit = is_recorded.then(|| {
            fs::write(writable.path("data/recorded"), noise(8, 100_000)).unwrap();
            crate::support::eventually("it is recorded", || writable.try_snapshot(None));
            writable.made().unwrap()
        });
        fs::write(writable.path("data/late"), "perhaps").unwrap();
        disk.lose_power();
        let dead = writable.mount.take().unwrap().kill();
        drop(dead);
        disk.unmount();
        disk.mount();
        writable.mount();
        assert!(fs::read(writable.path("data/synced")).unwrap() == noise(7, 300_000));
        assert!(!writable.path("data/b.bin").exists() && writable.path("data/c.bin").exists());
        writable.assert_outbox();
        if let Some(commit) = commit {
            assert_eq!(writable.made(), Some(commit.clone()));
            assert!(fs::read(writable.path("data/recorded")).unwrap() == noise(8, 100_000));
            writable.assert_whole(&commit);
        } else {
            fs::rename(writable.path("data/c.bin"), writable.path("data/b.bin")).unwrap();
        }
        writable.mount = None;
    }
    writable.mount = None;
}
