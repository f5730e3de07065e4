//! Upstream moves while a mount has changes: `dvcfs refresh` brings both together, or neither.

use std::{
    fs::{self, File},
    io::{Read, Write},
    process::Command,
};

use super::{SMALL, Writable, in_both_open_modes};
use crate::support::{DATE, noise, output, succeed, text};

in_both_open_modes! {
    changes_stay_above_the_newest_commit,
    what_both_sides_changed_is_named_and_nothing_moves,
    commits_that_are_not_pushed_are_merged_with_upstreams,
    commits_that_cannot_be_merged_are_kept,
}

impl Writable {
    /// What a colleague does upstream: a file more in `data`, `a.bin` of this seed, and the given
    /// text files; gives the commit.
    fn upstream(&self, seed: u64, texts: &[(&str, &str)]) -> String {
        let put = |seed, size| self.registry.put(&noise(seed, size)).unwrap();
        let files = [
            ("a.bin", put(seed, SMALL)),
            ("b.bin", put(2, 10)),
            ("sub/c.bin", put(3, 5000)),
            ("sub/theirs.bin", put(11, 700)),
        ];
        self.registry.track_folder("data", &files).unwrap();
        for (name, text) in texts {
            self.registry.text(name, text).unwrap();
        }
        self.registry.commit("Go on upstream", DATE).unwrap()
    }

    /// Refreshes, which must succeed; gives what was said.
    fn refresh(&self) -> String {
        let (code, said) = self.run("refresh", &[]);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn shown_commit(&self) -> String {
        let dir = self.mounted().dir();
        let printed = succeed(self.sandbox.dvcfs(["status", "--json"]).arg(dir));
        let status: serde_json::Value = serde_json::from_slice(&printed).unwrap();
        let mount = status.as_array().map_or(&status, |list| &list[0]);
        mount["overlay"]["base"].as_str().unwrap_or_else(|| panic!("{status:#}")).to_owned()
    }
}

fn changes_stay_above_the_newest_commit() {
    let mut writable = Writable::new();
    fs::write(writable.path("data/ours.bin"), "ours").unwrap();
    fs::remove_file(writable.path("data/b.bin")).unwrap();
    fs::write(writable.path("README.md"), "read this\n").unwrap();
    fs::create_dir(writable.path("new")).unwrap();
    fs::write(writable.path("new/ours.txt"), "ours").unwrap();
    fs::rename(writable.path("docs/deep"), writable.path("docs/deeper")).unwrap();
    assert_eq!(writable.refresh(), "nothing new\n");
    let mut held = File::open(writable.path("data/a.bin")).unwrap();
    let before = writable.changes();

    let commit = writable.upstream(21, &[("new/theirs.txt", "theirs"), ("other.txt", "new")]);
    assert_eq!(writable.refresh(), "there are new commits\n");
    assert_eq!(writable.shown_commit(), commit);
    assert_eq!(writable.changes(), before);
    assert!(fs::read(writable.path("data/a.bin")).unwrap() == noise(21, SMALL));
    assert!(fs::read(writable.path("data/sub/theirs.bin")).unwrap() == noise(11, 700));
    assert_eq!(writable.names("data"), ["a.bin", "ours.bin", "sub"]);
    assert_eq!(writable.names("new"), ["ours.txt", "theirs.txt"]);
    assert_eq!(writable.names("docs"), ["deeper"]);
    assert_eq!(writable.read("docs/deeper/page.txt"), "a page\n");
    assert_eq!(writable.read("README.md"), "read this\n");
    assert_eq!(writable.read("other.txt"), "new");
    let mut bytes = Vec::new();
    held.read_to_end(&mut bytes).unwrap();
    assert!(bytes == noise(1, SMALL), "what was open keeps its bytes");

    writable.remount();
    assert_eq!((writable.shown_commit(), writable.changes()), (commit.clone(), before));
    let snapshot = writable.snapshot(&[]);
    let git = || writable.sandbox.git(writable.registry.repository());
    assert_eq!(text(git().args(["rev-parse", &format!("{snapshot}^")])), commit);
}

fn what_both_sides_changed_is_named_and_nothing_moves() {
    let writable = Writable::new();
    let before = writable.shown_commit();
    fs::write(writable.path("data/a.bin"), "ours").unwrap();
    fs::remove_file(writable.path("README.md")).unwrap();
    fs::write(writable.path("note.txt"), "ours").unwrap();
    let commit = writable.upstream(21, &[("README.md", "theirs"), ("note.txt", "theirs")]);
    let (code, said) = writable.run("refresh", &[]);
    assert_eq!(code, Some(8), "{said}");
    let expected = "conflict: README.md: removed here, modified upstream\n\
                    conflict: data/a.bin: modified on both sides\n\
                    conflict: note.txt: added on both sides, with different content\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("dvcfs discard"), "{said}");
    assert_eq!((writable.shown_commit(), writable.changes().len()), (before, 3));
    assert_eq!(writable.read("data/a.bin"), "ours");

    let (code, said) = writable.run("discard", &["README.md", "data/a.bin", "note.txt"]);
    assert_eq!(code, Some(0), "{said}");
    fs::write(writable.path("data/other"), "one").unwrap();
    let mut file = File::options().append(true).open(writable.path("data/other")).unwrap();
    let (code, said) = writable.run("refresh", &[]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("open for writing: data/other"), "{said}");
    file.write_all(b" two").unwrap();
    drop(file);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while writable.run("refresh", &[]).0 != Some(0) {
        assert!(std::time::Instant::now() < until, "the file stays open");
    }
    assert_eq!(writable.shown_commit(), commit);
    assert_eq!(writable.read("data/other"), "one two");
    assert_eq!(writable.read("note.txt"), "theirs");
}

/// A snapshot, and something else upstream.
fn parted() -> (Writable, [String; 2]) {
    let writable = Writable::new();
    fs::write(writable.path("data/ours.bin"), noise(7, 300)).unwrap();
    fs::write(writable.path("data/b.bin"), "ours").unwrap();
    fs::write(writable.path("ours.wav"), noise(8, 90_000)).unwrap();
    let ours = writable.snapshot(&[]);
    let put = |seed, size| writable.registry.put(&noise(seed, size)).unwrap();
    writable.registry.track_file("theirs.wav", &put(12, 80_000)).unwrap();
    let theirs = writable.upstream(21, &[]);
    (writable, [ours, theirs])
}

fn commits_that_are_not_pushed_are_merged_with_upstreams() {
    let (mut writable, [ours, theirs]) = parted();
    fs::write(writable.path("later.txt"), "later").unwrap();
    assert_eq!(writable.refresh(), "there are new commits\n");
    let merged = writable.shown_commit();
    let git = |writable: &Writable| writable.sandbox.git(writable.registry.repository());
    let shown = text(git(&writable).args(["log", "-1", "--format=%an|%P|%s", &merged]));
    let name = writable.registry.repository().display();
    assert_eq!(shown, format!("Ann|{ours} {theirs}|Merge branch 'main' of {name}"));
    succeed(git(&writable).args(["fsck", "--strict"]));
    assert_eq!(text(git(&writable).args(["rev-parse", "main"])), theirs);
    assert_eq!(writable.changes(), ["added later.txt git"]);
    assert_eq!(writable.names("data"), ["a.bin", "b.bin", "ours.bin", "sub"]);
    assert!(fs::read(writable.path("data/a.bin")).unwrap() == noise(21, SMALL));
    assert_eq!(writable.read("data/b.bin"), "ours");
    assert!(fs::read(writable.path("data/sub/theirs.bin")).unwrap() == noise(11, 700));
    assert!(fs::read(writable.path("theirs.wav")).unwrap() == noise(12, 80_000));
    let (_, said) = writable.run("status", &[]);
    assert!(said.contains(&format!("snapshot    {merged} (not pushed)")), "{said}");
    assert_eq!(writable.refresh(), "nothing new\n");
    writable.remount();
    assert_eq!(writable.shown_commit(), merged);

    // Once upstream has it all, nothing is left to be pushed.
    succeed(git(&writable).args(["merge", "--quiet", "--ff-only", &merged]));
    let next = writable.upstream(22, &[("more.txt", "more")]);
    let (code, said) = writable.run("refresh", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("upstream has the snapshot") && said.contains("dvcfs push"), "{said}");
    let (code, said) = writable.run("push", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(writable.shown_commit(), next);
    let (_, said) = writable.run("status", &[]);
    assert!(!said.contains("not pushed"), "{said}");
    assert_eq!(writable.read("later.txt"), "later");
}

/// Every step of a refresh that merges; the last one is the command's.
const STEPS: [&str; 4] = ["move prepared", "move noted", "move kept", "merge committed"];

impl Writable {
    /// Refreshes, where the daemon or the command kills itself at a step, and mounts again.
    fn refresh_until(&mut self, step: &str) {
        if step == "merge committed" {
            let mut refresh = self.sandbox.dvcfs(["refresh"]);
            refresh.env("DVCFS_TEST_END_AT", step).arg(self.mounted().dir());
            assert_eq!(output(&mut refresh).status.code(), None, "{step}");
            self.remount();
        } else {
            self.remount_until(step);
            assert_ne!(self.run("refresh", &[]).0, Some(0), "{step}");
            self.remount_dead();
        }
    }

    /// Pushes, which must succeed, and gives where the branch is.
    fn pushed(&self) -> String {
        // Git moves no branch that is checked out.
        succeed(
            self.sandbox.git(self.registry.repository()).args(["checkout", "--quiet", "--detach"]),
        );
        let (code, said) = self.run("push", &[]);
        assert_eq!(code, Some(0), "{said}");
        text(self.sandbox.git(self.registry.repository()).args(["rev-parse", "main"]))
    }

    fn assert_ours(&self) {
        assert!(fs::read(self.path("data/ours.bin")).unwrap() == noise(7, 300));
        assert!(fs::read(self.path("ours.wav")).unwrap() == noise(8, 90_000));
        assert_eq!(self.read("data/b.bin"), "ours");
    }
}

#[test]
fn a_refresh_that_is_killed_at_any_step_loses_no_commit() {
    for step in STEPS {
        let (mut writable, [ours, theirs]) = parted();
        fs::write(writable.path("later.txt"), "later").unwrap();
        writable.refresh_until(step);
        writable.assert_ours();
        assert_eq!(writable.read("later.txt"), "later", "{step}");
        let (shown, kept) = (writable.shown_commit(), writable.snapshot_ref());
        let (_, said) = writable.run("status", &[]);
        assert!(said.contains(&format!("snapshot    {kept} (not pushed)")), "{step}: {said}");
        assert_eq!(shown, kept, "{step}");
        let is_late = ["move noted", "move kept"].contains(&step);
        assert_eq!(shown != ours, is_late, "{step}");
        let news = if is_late { "nothing new\n" } else { "there are new commits\n" };
        assert_eq!(writable.refresh(), news, "{step}");
        let merged = writable.shown_commit();
        let git = || writable.sandbox.git(writable.registry.repository());
        let parents = text(git().args(["log", "-1", "--format=%P", &merged]));
        assert_eq!(parents, format!("{ours} {theirs}"), "{step}");
        assert!(fs::read(writable.path("theirs.wav")).unwrap() == noise(12, 80_000), "{step}");
        writable.assert_ours();
        assert_eq!(writable.pushed(), merged, "{step}");
        assert_eq!(writable.changes(), ["added later.txt git"], "{step}");
    }
}

#[test]
fn a_push_that_merges_and_is_killed_at_any_step_loses_no_commit() {
    for step in STEPS {
        let (mut writable, [ours, theirs]) = parted();
        succeed(
            writable
                .sandbox
                .git(writable.registry.repository())
                .args(["checkout", "--quiet", "--detach"]),
        );
        if step == "merge committed" {
            let mut push = writable.sandbox.dvcfs(["push"]);
            push.env("DVCFS_TEST_END_AT", step).arg(writable.mounted().dir());
            assert_eq!(output(&mut push).status.code(), None, "{step}");
            writable.remount();
        } else {
            writable.remount_until(step);
            assert_ne!(writable.run("push", &[]).0, Some(0), "{step}");
            writable.remount_dead();
        }
        writable.assert_ours();
        assert_eq!(writable.shown_commit(), writable.snapshot_ref(), "{step}");
        let pushed = writable.pushed();
        assert_eq!(pushed, writable.shown_commit(), "{step}");
        let git = || writable.sandbox.git(writable.registry.repository());
        let parents = text(git().args(["log", "-1", "--format=%P", "main"]));
        assert_eq!(parents, format!("{ours} {theirs}"), "{step}");
        writable.assert_ours();
        assert_eq!(writable.run("push", &[]).1.lines().next(), Some(NOTHING), "{step}");
    }
}

const NOTHING: &str = "nothing to push: dvcfs snapshot records what was changed";

#[test]
fn commits_of_an_overlay_that_is_gone_are_merged_into_the_next_one() {
    let (mut writable, [ours, theirs]) = parted();
    writable.mount = None;
    fs::remove_dir_all(&writable.upper).unwrap();
    writable.mount();
    assert_eq!((writable.shown_commit(), writable.snapshot_ref()), (theirs.clone(), ours.clone()));
    fs::write(writable.path("later.txt"), "later").unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "Too early"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("the snapshot {ours} does not lie below yet")), "{said}");
    assert_eq!(writable.refresh(), "there are new commits\n");
    writable.assert_ours();
    let merged = writable.shown_commit();
    assert_eq!(writable.snapshot_ref(), merged);
    let git = || writable.sandbox.git(writable.registry.repository());
    let parents = text(git().args(["log", "-1", "--format=%P", &merged]));
    assert_eq!(parents, format!("{ours} {theirs}"));
    let last = writable.snapshot(&[]);
    assert_eq!(writable.pushed(), last);
    writable.assert_ours();
}

#[test]
fn a_base_that_cannot_be_noted_moves_nothing() {
    let (writable, [ours, _]) = parted();
    let noted = writable.upper.join("base.json");
    // Nothing takes the name of what is mounted on.
    succeed(Command::new("mount").arg("--bind").args([&noted, &noted]));
    let (code, said) = writable.run("refresh", &[]);
    succeed(Command::new("umount").arg(&noted));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("note the base of"), "{said}");
    assert_eq!((writable.snapshot_ref(), writable.shown_commit()), (ours.clone(), ours));
    writable.assert_ours();
    assert_eq!(writable.refresh(), "there are new commits\n");
    writable.assert_ours();
}

#[test]
fn commits_that_upstream_has_dropped_do_not_come_back() {
    let writable = Writable::new();
    let git = |args: &[&str]| text(writable.sandbox.git(writable.registry.repository()).args(args));
    let first = writable.shown_commit();
    let secret = writable.upstream(21, &[("secret.txt", "secret")]);
    assert_eq!(writable.refresh(), "there are new commits\n");
    fs::write(writable.path("data/ours.bin"), "ours").unwrap();
    let ours = writable.snapshot(&[]);
    let anew = git(&["commit-tree", &format!("{first}^{{tree}}"), "-p", &first, "-m", "Anew"]);
    for tip in [&anew, &first] {
        git(&["update-ref", "refs/heads/main", tip]);
        for command in ["refresh", "push", "refresh"] {
            let (code, said) = writable.run(command, &[]);
            assert_eq!(code, Some(8), "{said}");
            assert!(said.contains("written anew") && said.contains(&secret), "{said}");
            assert!(said.contains(&format!("hint: nothing is lost; to push it as a branch of its own, mount with --rev {secret}")), "{said}");
        }
        assert_eq!((&git(&["rev-parse", "main"]), writable.shown_commit()), (tip, ours.clone()));
        assert_eq!(
            (writable.read("data/ours.bin"), writable.snapshot_ref()),
            ("ours".into(), ours.clone())
        );
    }
}

#[test]
fn changes_without_commits_go_along_with_a_history_that_was_written_anew() {
    let writable = Writable::new();
    let git = |args: &[&str]| text(writable.sandbox.git(writable.registry.repository()).args(args));
    let first = writable.shown_commit();
    writable.upstream(1, &[("secret.txt", "secret")]);
    writable.refresh();
    fs::write(writable.path("data/ours.bin"), "ours").unwrap();
    git(&["update-ref", "refs/heads/main", &first]);
    assert_eq!(writable.refresh(), "there are new commits\n");
    assert_eq!(writable.shown_commit(), first);
    assert!(!writable.path("secret.txt").exists());
    writable.snapshot(&[]);
    writable.pushed();
    assert_eq!(git(&["rev-parse", "main^"]), first);
}

fn commits_that_cannot_be_merged_are_kept() {
    let writable = Writable::new();
    fs::write(writable.path("data/a.bin"), "ours").unwrap();
    fs::remove_file(writable.path("large.bin")).unwrap();
    let ours = writable.snapshot(&[]);
    let large = writable.registry.put(b"other").unwrap();
    writable.registry.track_file("large.bin", &large).unwrap();
    let theirs = writable.upstream(21, &[]);
    let (code, said) = writable.run("refresh", &[]);
    assert_eq!(code, Some(8), "{said}");
    let expected = "conflict: data/a.bin: modified on both sides\n\
                    conflict: large.bin.dvc: removed here, modified upstream\n";
    assert!(said.starts_with(expected), "{said}");
    let git = || writable.sandbox.git(writable.registry.repository());
    let name = said.split(' ').find(|word| word.starts_with("refs/dvcfs/snapshots/"));
    let kept = text(git().args(["rev-parse", name.unwrap_or_else(|| panic!("{said}"))]));
    assert_eq!((kept, writable.shown_commit()), (ours.clone(), ours));
    assert_eq!(text(git().args(["rev-parse", "main"])), theirs);
    assert_eq!(writable.read("data/a.bin"), "ours");
}

#[test]
fn a_refresh_that_cannot_be_done_says_why_by_its_code() {
    let mut writable = Writable::new();
    let head = writable.shown_commit();
    let git = |args: &[&str]| text(writable.sandbox.git(writable.registry.repository()).args(args));
    git(&["branch", "passing"]);
    let origin = writable.sandbox.path("origin.git");
    succeed(
        writable
            .sandbox
            .git(writable.registry.repository())
            .args(["clone", "--quiet", "--bare", "."])
            .arg(&origin),
    );
    git(&["branch", "-D", "passing"]);
    let url = format!("file://{}", origin.display());
    let (dir, overlay) = (writable.sandbox.folder("mnt"), writable.sandbox.path("other"));
    let overlay = format!("--overlay={}", overlay.display());
    for (args, code, why) in [
        (["--rev", &head], 2, "hint: dvcfs umount, then mount with --branch NAME"),
        (["--rev", "passing"], 8, "upstream has no branch passing any more"),
        (["--rev", "main"], 3, "not a git repository"),
    ] {
        writable.mount = None;
        writable.mount =
            Some(writable.sandbox.mount_at(&dir, &url, &[&args[..], &[&overlay]].concat()));
        let git = || writable.sandbox.git(&origin);
        if args[1] == "passing" {
            succeed(git().args(["branch", "-D", "passing"]));
        } else if args[1] == "main" {
            fs::rename(&origin, writable.sandbox.path("moved.git")).unwrap();
        }
        let (found, said) = writable.run("refresh", &[]);
        assert_eq!(found, Some(code), "{said}");
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn history_with_nothing_in_common_is_refused() {
    let writable = Writable::new();
    fs::write(writable.path("data/ours.bin"), "ours").unwrap();
    let ours = writable.snapshot(&[]);
    let git = || writable.sandbox.git(writable.registry.repository());
    succeed(git().args(["checkout", "--quiet", "--orphan", "anew"]));
    let commit = writable.upstream(21, &[]);
    succeed(git().args(["branch", "--force", "main", &commit]));
    let (code, said) = writable.run("refresh", &[]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("written anew"), "{said}");
    assert_eq!((writable.shown_commit(), writable.read("data/ours.bin")), (ours, "ours".into()));
}

#[test]
fn dvc_agrees_with_a_merge_to_the_byte() {
    let (writable, _) = parted();
    writable.refresh();
    let names = ["data/a.bin", "data/b.bin", "data/ours.bin", "ours.wav", "theirs.wav"];
    let added = ["data", "large.bin", "ours.wav", "theirs.wav"];
    writable.assert_dvc_agrees(&writable.shown_commit(), &names, &added);
}
