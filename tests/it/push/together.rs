//! Several who push to one branch: nothing is lost, and what cannot be merged is named.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{Lab, files_below};
use crate::{
    s3server::{Fault, Gate},
    support::{Mount, Sandbox, eventually, noise, output, succeed, text},
};

/// A writable mount as of another machine: bucket and upstream are all that it shares.
struct Other<'a> {
    lab: &'a Lab,
    own: [String; 2],
    mount: Mount,
}

impl<'a> Other<'a> {
    fn new(lab: &'a Lab) -> Self {
        let place = |name: &str| lab.sandbox.path(format!("other/{name}")).display().to_string();
        let own = ["state", "cache"].map(|name| format!("--{name}-dir={}", place(name)));
        let overlay = format!("--overlay={}", place("overlay"));
        let dir = lab.sandbox.folder("mnt-other");
        let args = ["--rev", "main", &overlay, &own[0], &own[1]];
        let mount = lab.sandbox.mount_at(&dir, lab.url(), &args);
        Self { lab, own, mount }
    }

    fn run(&self, command: &str, args: &[&str]) -> String {
        let mut dvcfs = self.lab.sandbox.dvcfs([command]);
        let output = output(dvcfs.args(&self.own).arg(self.mount.dir()).args(args));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    }

    /// Puts a file of this content there, and makes a snapshot.
    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.mount.path(name), content).unwrap();
        self.run("snapshot", &["-m", "Theirs"]);
    }

    fn waiting(&self) -> usize {
        files_below(&self.lab.sandbox.path("other/state/outbox/files"))
    }
}

#[test]
fn two_machines_that_push_at_once_lose_nothing() {
    let lab = Lab::new();
    let other = Other::new(&lab);
    other.put("data/theirs.bin", &noise(20, 50_000));
    lab.change();
    thread::scope(|scope| {
        let pushed = scope.spawn(|| lab.run("push", &[]));
        other.run("push", &[]);
        let (code, said) = pushed.join().unwrap();
        assert_eq!(code, Some(0), "{said}");
    });
    let mut merges = lab.sandbox.git(&lab.origin());
    assert_eq!(text(merges.args(["rev-list", "--count", "--merges", "main"])), "1");
    other.run("refresh", &[]);
    let (code, said) = lab.run("refresh", &[]);
    assert_eq!(code, Some(0), "{said}");
    for dir in [lab.sandbox.path("mnt"), other.mount.dir().to_owned()] {
        assert!(fs::read(dir.join("data/theirs.bin")).unwrap() == noise(20, 50_000));
        assert!(fs::read(dir.join("data/new.bin")).unwrap() == noise(7, 30_000));
        assert!(!dir.join("data/b.bin").exists());
    }
    assert_eq!((lab.unpushed(), lab.waiting(), other.waiting()), (None, 0, 0));
    let clone = lab.colleague_pulls("main", "clone");
    assert!(fs::read(clone.join("data/theirs.bin")).unwrap() == noise(20, 50_000));
}

#[test]
fn what_others_have_pushed_is_merged_first() {
    let lab = Lab::new();
    let other = Other::new(&lab);
    let ours = lab.change();
    other.put("data/theirs.bin", b"theirs");
    other.put("theirs.wav", &noise(21, 90_000));
    other.run("push", &[]);
    let theirs = lab.tip("main");
    fs::write(lab.path("data/later.bin"), "not recorded yet").unwrap();
    let said = lab.push(&["--dry-run"]);
    let ends = format!("main of {} is at {theirs}, which would be merged first", lab.url());
    assert!(said.contains(&ends), "{said}");
    let said: serde_json::Value =
        serde_json::from_str(&lab.push(&["--dry-run", "--json"])).unwrap();
    assert_eq!((said["merges"].as_str(), &said["is_done"]), (Some(&*theirs), &false.into()));
    assert_eq!((lab.tip("main"), lab.unpushed()), (theirs.clone(), Some(ours.clone())));

    let said = lab.push(&[]);
    assert!(said.contains("5 files pushed"), "with the manifest of both: {said}");
    let tip = lab.tip("main");
    let parents =
        text(lab.sandbox.git(&lab.origin()).args(["log", "-1", "--format=%P %s", "main"]));
    let subject = format!("Merge branch 'main' of {}", lab.url());
    assert_eq!(parents, format!("{ours} {theirs} {subject}"));
    assert!(said.contains(&tip), "{said}");
    assert_eq!((lab.unpushed(), lab.waiting()), (None, 0));
    assert_eq!(fs::read_to_string(lab.path("data/theirs.bin")).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(lab.path("data/later.bin")).unwrap(), "not recorded yet");
    lab.colleague_pulls("main", "clone");
    lab.snapshot();
    lab.push(&[]);
}

#[test]
fn a_clone_merges_what_its_own_branch_does_not_have() {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    let clone = lab.sandbox.path("work");
    let mut git = lab.sandbox.git(lab.sandbox.folder("dvc").as_path());
    succeed(git.args(["clone", "--quiet"]).arg(lab.origin()).arg(&clone));
    lab.mount(clone.to_str().unwrap(), &["--rev", "main"]);
    lab.change();
    {
        let other = Other::new(&lab);
        other.put("data/theirs.bin", b"theirs");
        other.run("push", &[]);
    }
    lab.push(&[]);
    assert_eq!(fs::read_to_string(lab.path("data/theirs.bin")).unwrap(), "theirs");
    assert_eq!(text(lab.sandbox.git(&clone).args(["status", "--porcelain"])), "");
    lab.colleague_pulls("main", "clone");
}

#[test]
fn a_conflict_is_named_and_both_sides_are_kept_until_it_is_solved() {
    let lab = Lab::new();
    let other = Other::new(&lab);
    let ours = lab.change();
    other.put("data/a.bin", b"theirs");
    other.run("push", &[]);
    let theirs = lab.tip("main");
    let said = lab.push_fails(8, &[]);
    assert!(said.contains("conflict: data/a.bin: modified on both sides"), "{said}");
    assert_eq!((lab.tip("main"), lab.unpushed()), (theirs.clone(), Some(ours)));
    assert_eq!(fs::read_to_string(lab.path("data/a.bin")).unwrap(), "other");

    // By hand, as the hint says; all data is there already.
    let hint = said.split("hint: ").nth(1).unwrap();
    let words: Vec<_> = hint.split("git fetch ").nth(1).unwrap().split_whitespace().collect();
    let clone = lab.sandbox.path("by-hand");
    let mut git = lab.sandbox.git(lab.sandbox.folder("dvc").as_path());
    succeed(git.args(["clone", "--quiet"]).arg(lab.origin()).arg(&clone));
    let git = |args: &[&str]| drop(succeed(lab.sandbox.git(&clone).args(args)));
    git(&["fetch", "--quiet", words[0], words[1]]);
    git(&["merge", "--quiet", "--strategy=ours", "--message=Theirs is right", "FETCH_HEAD"]);
    git(&["push", "--quiet", "origin", "main"]);
    let solved = lab.tip("main");
    lab.push(&[]);
    assert_eq!((lab.tip("main"), lab.unpushed(), lab.waiting()), (solved, None, 0));
    assert_eq!(fs::read_to_string(lab.path("data/a.bin")).unwrap(), "theirs");
    lab.colleague_pulls("main", "clone");
}

#[test]
fn the_hint_of_a_refresh_leads_to_a_merge_whose_data_everybody_has() {
    let lab = Lab::new();
    let other = Other::new(&lab);
    lab.change();
    fs::write(lab.path("data/both.bin"), "ours").unwrap();
    lab.snapshot();
    other.put("data/both.bin", b"theirs");
    other.run("push", &[]);
    let (code, said) = lab.run("refresh", &[]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.starts_with("conflict: data/both.bin: added on both sides, with "), "{said}");
    assert_eq!(lab.waiting(), 6);

    let hint = said.split("hint: nothing was changed; dvcfs ").nth(1).unwrap();
    let (first, by_hand) =
        hint.split_once(" sends the data and stops here as well; then ").unwrap();
    let push = output(&mut lab.sandbox.dvcfs(first.split_whitespace()));
    assert_eq!(push.status.code(), Some(8));
    let clone = lab.sandbox.path("by-hand");
    let mut git = lab.sandbox.git(lab.sandbox.folder("dvc").as_path());
    succeed(git.args(["clone", "--quiet"]).arg(lab.origin()).arg(&clone));
    let git = |args: &[&str]| drop(succeed(lab.sandbox.git(&clone).args(args)));
    let words: Vec<_> = by_hand.split("git fetch ").nth(1).unwrap().split_whitespace().collect();
    git(&["fetch", "--quiet", words[0], words[1]]);
    git(&["merge", "--quiet", "--strategy-option=theirs", "--message=Ours is right", "FETCH_HEAD"]);
    git(&["push", "--quiet", "origin", "main"]);
    let pulled = lab.colleague_pulls("main", "clone");
    assert_eq!(fs::read_to_string(pulled.join("data/both.bin")).unwrap(), "ours");
    lab.push(&[]);
    assert_eq!((lab.unpushed(), lab.waiting()), (None, 0));
}

#[test]
fn a_conflict_is_json_for_whoever_wants_json() {
    let lab = Lab::new();
    let other = Other::new(&lab);
    lab.change();
    other.put("data/a.bin", b"theirs");
    other.run("push", &[]);
    let mut push = lab.sandbox.dvcfs(["push", "--json"]);
    let push = output(push.arg(lab.sandbox.path("mnt")));
    assert_eq!(push.status.code(), Some(8));
    let said: serde_json::Value = serde_json::from_slice(&push.stdout).unwrap();
    let conflicts = serde_json::json!([{"path": "data/a.bin", "why": "modified on both sides"}]);
    assert_eq!((&said["conflicts"], &said["is_done"]), (&conflicts, &false.into()));
}

#[test]
fn of_two_pushes_of_one_mount_the_later_is_told_of_the_other() {
    let lab = Lab::new();
    let commit = lab.change();
    let (gate, is_sent) = (Gate::new(), Arc::new(AtomicBool::new(false)));
    let (held, seen) = (gate.clone(), Arc::clone(&is_sent));
    lab.server.set_rule(move |request| {
        (request.method == "PUT").then(|| {
            seen.store(true, Ordering::Release);
            Fault::Stall(held.clone())
        })
    });
    thread::scope(|scope| {
        let pushed = scope.spawn(|| lab.run("push", &[]));
        eventually("the first one sends something", || is_sent.load(Ordering::Acquire));
        for args in [&[][..], &["--dry-run"]] {
            let said = lab.push_fails(9, args);
            assert!(said.contains("another push of this mount is under way"), "{said}");
        }
        gate.open();
        let (code, said) = pushed.join().unwrap();
        assert_eq!(code, Some(0), "{said}");
    });
    assert_eq!((lab.tip("main"), lab.unpushed()), (commit, None));
    assert_eq!(lab.push(&[]), "nothing to push: dvcfs snapshot records what was changed\n");
}

#[test]
fn a_history_that_was_written_anew_is_not_merged() {
    let mut lab = Lab::new();
    let base = lab.tip("main");
    let commit = lab.change();
    let work = lab.sandbox.path("registry");
    succeed(lab.sandbox.git(&work).args(["commit", "--quiet", "--amend", "--message", "Anew"]));
    let mut git = lab.sandbox.git(&work);
    succeed(git.args(["push", "--quiet", "--force"]).arg(lab.origin()).arg("HEAD:main"));
    let anew = lab.tip("main");
    for _ in 0..2 {
        let said = lab.push_fails(8, &[]);
        assert!(said.contains("written anew") && said.contains(&base), "{said}");
    }
    assert_eq!((lab.tip("main"), lab.unpushed()), (anew, Some(commit.clone())));
    lab.mount(&lab.url(), &["--rev", &base, "--branch", "rescued"]);
    lab.push(&[]);
    assert_eq!(lab.tip("rescued"), commit);
    lab.colleague_pulls("rescued", "clone");
}

#[test]
fn commits_that_upstream_has_dropped_are_not_pushed_again() {
    let by_url = Lab::new();
    let mut by_clone = Lab::unmounted(Sandbox::new(), |_| {});
    let clone = by_clone.sandbox.path("work");
    let mut git = by_clone.sandbox.git(by_clone.sandbox.folder("dvc").as_path());
    succeed(git.args(["clone", "--quiet"]).arg(by_clone.origin()).arg(&clone));
    by_clone.mount(clone.to_str().unwrap(), &["--rev", "main"]);
    for lab in [by_url, by_clone] {
        let first = lab.tip("main");
        let pushed = lab.change();
        lab.push(&[]);
        fs::write(lab.path("data/next.bin"), "next").unwrap();
        let next = lab.snapshot();
        let origin = lab.origin();
        let git = |args: &[&str]| text(lab.sandbox.git(&origin).args(args));
        let tree = format!("{first}^{{tree}}");
        let anew = git(&["commit-tree", &tree, "-p", &first, "-m", "Without that"]);
        for tip in [&first, &anew] {
            git(&["update-ref", "refs/heads/main", tip]);
            for _ in 0..2 {
                let said = lab.push_fails(8, &[]);
                assert!(said.contains("written anew") && said.contains(&pushed), "{said}");
            }
            assert_eq!((&lab.tip("main"), lab.unpushed()), (tip, Some(next.clone())));
        }
    }
}
