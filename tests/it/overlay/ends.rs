//! Overlays that end badly, or are not what they should be.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    process::Command,
};

use rustix::io::Errno;

use super::Writable;
use crate::support::{DATE, eventually, noise, output, succeed, text};

impl Writable {
    fn mount_command(&self, rev: &str, overlay: &Path, dir: &str) -> Command {
        let dir = self.sandbox.folder(dir);
        let mut command = self.sandbox.dvcfs(["mount", "--foreground", "--rev", rev]);
        command.arg(format!("--overlay={}", overlay.display()));
        command.arg(self.registry.repository()).arg(dir);
        command
    }

    fn refused(&self, rev: &str, overlay: &Path) -> (Option<i32>, String) {
        let output = output(&mut self.mount_command(rev, overlay, "other"));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn everything_is_there_after_a_kill() {
    let mut writable = Writable::new();
    let file = fs::File::create(writable.path("data/new.bin")).unwrap();
    file.write_all_at(&noise(7, 300_000), 0).unwrap();
    file.sync_all().unwrap();
    fs::rename(writable.path("data/a.bin"), writable.path("moved")).unwrap();
    fs::rename(writable.path("docs"), writable.path("texts")).unwrap();
    fs::remove_file(writable.path("README.md")).unwrap();
    let dead = writable.mount.take().unwrap().kill();
    drop(file);
    drop(dead);
    writable.mount();
    assert!(fs::read(writable.path("data/new.bin")).unwrap() == noise(7, 300_000));
    assert!(fs::read(writable.path("moved")).unwrap() == noise(1, super::SMALL));
    assert_eq!(fs::read_to_string(writable.path("texts/deep/page.txt")).unwrap(), "a page\n");
    assert!(!writable.path("README.md").exists());
    assert_eq!(fs::read_dir(writable.upper.join("work")).unwrap().count(), 0);
}

/// What a thread did to a mount until it died.
struct Steps {
    /// Names that a file and a folder of the base were moved to, so many times.
    moved: usize,
    /// The number that a file was replaced with.
    replaced: usize,
}

/// Moves things and replaces a file in a mount, until that fails.
fn change_until_the_end(root: &Path) -> Steps {
    let mut steps = Steps { moved: 0, replaced: 0 };
    loop {
        let name = |kind: &str, number: usize| root.join(format!("{kind} {number}"));
        for kind in ["file", "folder"] {
            let moved = fs::rename(name(kind, steps.moved), name(kind, steps.moved + 1));
            if moved.is_err() {
                return steps;
            }
        }
        steps.moved += 1;
        let temporary = root.join("data/temporary");
        let text = format!("{}", steps.replaced + 1).repeat(1000);
        let replaced = fs::write(&temporary, text);
        if replaced.and_then(|()| fs::rename(&temporary, root.join("data/b.bin"))).is_err() {
            return steps;
        }
        steps.replaced += 1;
    }
}

#[test]
fn a_kill_between_any_two_steps_leaves_the_old_or_the_new() {
    let mut writable = Writable::new();
    for round in 0..8 {
        let start = |kind: &str| writable.path(format!("{kind} 0"));
        if round == 0 {
            fs::rename(writable.path("data/a.bin"), start("file")).unwrap();
            fs::rename(writable.path("docs"), start("folder")).unwrap();
            fs::write(writable.path("data/b.bin"), "0".repeat(1000)).unwrap();
        }
        let root = writable.mounted().dir().to_owned();
        let changing = std::thread::spawn(move || change_until_the_end(&root));
        // Somewhere in the midst of it.
        let before = 3 + round * 17;
        crate::support::eventually("some steps were done", || {
            let moved = |number| writable.kept(&format!("file {number}")).exists();
            (before..before + 200).any(moved)
        });
        let dead = writable.mount.take().unwrap().kill();
        let steps = changing.join().unwrap();
        drop(dead);
        writable.mount();
        for (kind, inside) in [("file", ""), ("folder", "/deep/page.txt")] {
            let at = |number| writable.path(format!("{kind} {number}{inside}"));
            let there: Vec<_> =
                (0..steps.moved + 2).filter(|number| at(*number).exists()).collect();
            assert!(there.len() == 1 && there[0] >= steps.moved, "{there:?} of {}", steps.moved);
            let bytes = fs::read(at(there[0])).unwrap();
            let expected = if kind == "file" { noise(1, super::SMALL) } else { b"a page\n".into() };
            assert!(bytes == expected, "{kind}");
            let back = |name: &str| writable.path(name);
            fs::rename(back(&format!("{kind} {}", there[0])), back(&format!("{kind} 0"))).unwrap();
        }
        let text = fs::read_to_string(writable.path("data/b.bin")).unwrap();
        let wanted = [steps.replaced, steps.replaced + 1].map(|n| format!("{n}").repeat(1000));
        assert!(wanted.contains(&text), "{}: {}", steps.replaced, &text[..20]);
        fs::write(writable.path("data/b.bin"), "0".repeat(1000)).unwrap();
    }
}

#[test]
fn an_overlay_without_a_folder_belongs_to_its_mount_point() {
    let writable = Writable::new();
    let repository = writable.registry.repository();
    let mount = |name: &str| {
        let dir = writable.sandbox.folder(name);
        writable.sandbox.mount_at(&dir, repository, &["--rev", "main", "--overlay"])
    };
    let (one, two) = (mount("one"), mount("two"));
    fs::write(one.path("new"), "mine").unwrap();
    assert!(!two.path("new").exists());
    drop(one);
    assert_eq!(fs::read_to_string(mount("one").path("new")).unwrap(), "mine");
    drop(two);
}

#[test]
fn one_daemon_has_an_overlay_at_a_time() {
    let writable = Writable::new();
    let (code, said) = writable.refused("main", &writable.upper);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("in use by another mount"), "{said}");
}

#[test]
fn an_overlay_with_changes_stays_above_its_commit() {
    let mut writable = Writable::new();
    let base =
        text(writable.sandbox.git(writable.registry.repository()).args(["rev-parse", "HEAD"]));
    writable.registry.text("README.md", "moved on\n").unwrap();
    let next = writable.registry.commit("Move on", DATE).unwrap();
    writable.remount();
    let readme = |writable: &Writable| fs::read_to_string(writable.path("README.md")).unwrap();
    assert_eq!(readme(&writable), "moved on\n", "an overlay without changes moves along");
    fs::write(writable.path("new"), "x").unwrap();
    writable.registry.text("README.md", "and on\n").unwrap();
    writable.registry.commit("Move on again", DATE).unwrap();
    writable.remount();
    assert_eq!(readme(&writable), "moved on\n");
    writable.mount = None;
    let (code, said) = writable.refused(&base, &writable.upper);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains(next.trim()) && said.contains("hint: mount --rev"), "{said}");
}

#[test]
fn status_tells_of_the_overlay() {
    let writable = Writable::new();
    let mut status = writable.sandbox.dvcfs(["status"]);
    let plain = text(status.arg(writable.mounted().dir()));
    assert!(plain.contains("overlay") && plain.contains("(for main)"), "{plain}");
    let mut status = writable.sandbox.dvcfs(["status", "--json"]);
    let told: serde_json::Value =
        serde_json::from_slice(&succeed(status.arg(writable.mounted().dir()))).unwrap();
    assert_eq!(told[0]["overlay"]["base"], told[0]["commit"]);
    assert_eq!(told[0]["overlay"]["dir"], writable.upper.to_str().unwrap());
}

#[test]
fn the_command_line_says_what_does_not_go_together() {
    let writable = Writable::new();
    let inside = writable.sandbox.path("other/inside");
    let (code, said) = writable.refused("main", &inside);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("below the mount itself"), "{said}");
    let mut all = writable.sandbox.dvcfs(["mount", "--overlay", "--foreground"]);
    let all = output(all.arg(writable.registry.repository()).arg(writable.sandbox.path("other")));
    assert_eq!(all.status.code(), Some(2));
    let mut no_open = writable.mount_command("main", &writable.sandbox.path("o"), "other");
    let no_open = output(no_open.arg("--open-mode=no-open"));
    assert_eq!(no_open.status.code(), Some(1));
    let said = String::from_utf8_lossy(&no_open.stderr);
    assert!(said.contains("has to be opened first"), "{said}");
}

#[test]
fn a_disk_that_is_full_says_so_and_loses_nothing() {
    let mut writable = Writable::new();
    writable.mount = None;
    let disk = writable.sandbox.folder("disk");
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(&disk));
    let disk = Unmounted(disk);
    writable.upper = disk.0.join("overlay");
    writable.mount();
    let mut file = fs::File::create(writable.path("data/big")).unwrap();
    fs::write(writable.path("small"), "kept").unwrap();
    let full = file.write_all(&noise(9, 4 << 20)).unwrap_err();
    assert_eq!(Errno::from_io_error(&full), Some(Errno::NOSPC));
    let copied_up = fs::OpenOptions::new().append(true).open(writable.path("large.bin"));
    let full = copied_up.unwrap().write_all(b"x").unwrap_err();
    assert_eq!(Errno::from_io_error(&full), Some(Errno::NOSPC));
    assert!(fs::read(writable.path("large.bin")).unwrap() == noise(4, super::LARGE));
    drop(file);
    fs::remove_file(writable.path("data/big")).unwrap();
    // The kernel does not wait for the daemon to close what was removed.
    let fits = || fs::write(writable.path("data/b.bin"), "fits").is_ok();
    eventually("there is room again", fits);
    writable.remount();
    assert_eq!(fs::read_to_string(writable.path("small")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(writable.path("data/b.bin")).unwrap(), "fits");
    assert_eq!(writable.names("data"), ["a.bin", "b.bin", "sub"]);
    writable.mount = None;
}

#[test]
fn an_overlay_lies_on_one_disk() {
    let writable = Writable::new();
    let (disk, overlay) = (writable.sandbox.folder("disk"), writable.sandbox.folder("two"));
    succeed(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&disk));
    let disk = Unmounted(disk);
    std::os::unix::fs::symlink(&disk.0, overlay.join("upper")).unwrap();
    let (code, said) = writable.refused("main", &overlay);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("move files into place in the overlay"), "{said}");
}

#[test]
fn a_new_overlay_on_a_full_disk_asks_for_room() {
    let writable = Writable::new();
    let disk = writable.sandbox.folder("disk");
    succeed(Command::new("mount").args(["-t", "tmpfs", "-o", "nr_inodes=2", "none"]).arg(&disk));
    let disk = Unmounted(disk);
    let (code, said) = writable.refused("main", &disk.0.join("overlay"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("make room on its disk"), "{said}");
}

impl Writable {
    /// One whose overlay is on a disk of its own.
    fn on_disk(options: &str) -> (Self, Unmounted) {
        let mut writable = Self::new();
        writable.mount = None;
        let disk = writable.sandbox.folder("disk");
        succeed(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&disk));
        writable.upper = disk.join("overlay");
        writable.mount();
        (writable, Unmounted(disk))
    }
}

/// Writes until the disk is full.
fn fill(place: &Path) {
    let mut file = fs::File::create(place).unwrap();
    let full = std::iter::repeat_with(|| file.write_all(&[1; 4096])).find_map(Result::err);
    assert_eq!(Errno::from_io_error(&full.unwrap()), Some(Errno::NOSPC));
}

#[test]
fn an_overlay_with_changes_is_mounted_on_a_full_disk_and_makes_room() {
    let (mut writable, disk) = Writable::on_disk("size=2m");
    fs::create_dir(writable.path("more")).unwrap();
    fs::write(writable.path("more/small"), "kept").unwrap();
    fs::remove_file(writable.path("README.md")).unwrap();
    writable.mount = None;
    fill(&writable.kept("big"));
    for round in ["Move on", "Move on again"] {
        // What is seen of the branch then cannot be noted.
        writable.registry.text("docs/deep/page.txt", round).unwrap();
        writable.registry.commit(round, DATE).unwrap();
        writable.remount();
        assert_eq!(fs::read_to_string(writable.path("more/small")).unwrap(), "kept");
        assert_eq!(writable.changes().len(), 3);
    }
    let (code, said) = writable.run("discard", &["README.md", "more"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("discard one new file or folder by itself"), "{said}");
    assert_eq!(writable.changes().len(), 3);
    let (code, said) = writable.run("discard", &["more"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = writable.run("discard", &["README.md", "big"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(writable.changes(), Vec::<String>::new());

    fill(&writable.path("big"));
    fs::remove_file(writable.path("README.md")).unwrap();
    eventually("nobody writes", || writable.run("discard", &["--yes"]).0 == Some(0));
    assert_eq!(writable.changes(), Vec::<String>::new());
    writable.mount = None;
    drop(disk);
}

#[test]
fn an_overlay_with_changes_is_mounted_where_no_file_can_be_made() {
    let (mut writable, disk) = Writable::on_disk("nr_inodes=40");
    fs::write(writable.path("small"), "kept").unwrap();
    writable.mount = None;
    let full = (0..).find_map(|number| fs::write(writable.kept(&number.to_string()), "").err());
    assert_eq!(Errno::from_io_error(&full.unwrap()), Some(Errno::NOSPC));
    writable.mount();
    assert_eq!(fs::read_to_string(writable.path("small")).unwrap(), "kept");
    let (code, said) = writable.run("discard", &["small"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = writable.run("discard", &["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(writable.changes(), Vec::<String>::new());
    writable.mount = None;
    drop(disk);
}

#[test]
fn an_overlay_does_not_lie_in_what_another_keeps() {
    let mut writable = Writable::new();
    fs::create_dir(writable.path("raw")).unwrap();
    let link = writable.sandbox.path("link");
    std::os::unix::fs::symlink(writable.kept("raw"), &link).unwrap();
    for is_mounted in [true, false] {
        if !is_mounted {
            writable.mount = None;
        }
        let work = writable.upper.join("work/own");
        for place in [writable.kept("raw"), writable.kept("none/yet"), work, link.join("more")] {
            let (code, said) = writable.refused("main", &place);
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains("would lie within the one in"), "{said}");
        }
    }
    writable.mount();
    assert_eq!(writable.changes(), Vec::<String>::new());
}

/// A disk that goes when this is dropped.
pub(super) struct Unmounted(pub(super) std::path::PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        assert!(gone.is_ok() || std::thread::panicking());
    }
}

#[test]
fn an_upper_folder_that_is_gone_fails_what_needs_it() {
    let writable = Writable::new();
    fs::write(writable.path("new"), "x").unwrap();
    fs::remove_dir_all(&writable.upper).unwrap();
    assert!(fs::write(writable.path("other"), "x").is_err());
    assert!(fs::remove_file(writable.path("README.md")).is_err());
    assert_eq!(fs::read_to_string(writable.path("README.md")).unwrap(), "read me\n");
    assert_eq!(fs::metadata(writable.path("data/b.bin")).unwrap().size(), 10);
}
