//! Pushes that are killed at each of their steps: nothing is lost, and the next one completes.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Lab, files_below, hook, is_manifest};
use crate::{
    s3server::{Fault, Gate, Request},
    support::{eventually, noise, output, succeed, text},
};

impl Lab {
    fn start_push(&self) -> Child {
        let mut push = self.sandbox.dvcfs(["push", "--jobs", "1"]);
        push.arg(self.sandbox.path("mnt"));
        push.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Kills a push whose request is the first of which `is_it` says so, before it is answered.
    fn kill_at(&self, is_it: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        let (gate, reached) = (Gate::new(), Arc::new(AtomicBool::new(false)));
        let (held, seen) = (gate.clone(), Arc::clone(&reached));
        self.server.set_rule(move |request| {
            is_it(request).then(|| {
                seen.store(true, Ordering::Release);
                Fault::Stall(held.clone())
            })
        });
        let mut push = self.start_push();
        eventually("the push comes so far", || reached.load(Ordering::Acquire));
        push.kill().unwrap();
        push.wait().unwrap();
        self.server.heal();
        gate.open();
    }

    /// Kills a push while a hook of the upstream runs.
    /// It goes on as soon as it looks, if it still lives, and as long as what is given lives.
    fn kill_in_hook(&self, name: &str) -> File {
        let (began, goes_on) = (self.sandbox.path("began"), self.sandbox.path("goes-on"));
        mknodat(CWD, &goes_on, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        // Open for both, so that neither side waits for the other.
        let mut fifo = File::options().read(true).write(true).open(&goes_on).unwrap();
        let (tell, wait) = (began.display(), goes_on.display());
        hook(&self.origin(), name, &format!(": > {tell}; read line < {wait}; exit 0"));
        let mut push = self.start_push();
        eventually("the hook runs", || began.exists());
        push.kill().unwrap();
        push.wait().unwrap();
        fs::remove_file(self.origin().join("hooks").join(name)).unwrap();
        fifo.write_all(b"\n").unwrap();
        fifo
    }

    /// What a colleague adds to the branch upstream; gives the commit.
    fn upstream_goes_on(&self) -> String {
        let clone = self.sandbox.path("colleague");
        let mut git = self.sandbox.git(self.sandbox.folder("dvc").as_path());
        succeed(git.args(["clone", "--quiet"]).arg(self.origin()).arg(&clone));
        fs::write(clone.join("theirs.txt"), "theirs").unwrap();
        let git = |args: &[&str]| drop(succeed(self.sandbox.git(&clone).args(args)));
        git(&["add", "theirs.txt"]);
        git(&["commit", "--quiet", "--message", "Go on"]);
        git(&["push", "--quiet", "origin", "main"]);
        self.tip("main")
    }

    /// A refresh leaves what waits to a push, which completes and goes on from upstream.
    fn refresh_leaves_it_to_a_push(&self, commit: &str) {
        let next = self.upstream_goes_on();
        let (code, said) = self.run("refresh", &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("upstream has the snapshot"), "{said}");
        assert!(said.contains("hint: dvcfs push "), "{said}");
        assert_eq!((self.unpushed().as_deref(), self.waiting()), (Some(commit), 4));
        self.push(&[]);
        assert_eq!((self.unpushed(), self.waiting(), self.tip("main")), (None, 0, next));
        assert_eq!(files_below(&self.sandbox.path("state/outbox")), 0);
        assert_eq!(fs::read_to_string(self.path("theirs.txt")).unwrap(), "theirs");
        self.colleague_pulls("main", "clone");
    }

    /// The mirror of the upstream.
    fn mirror(&self) -> PathBuf {
        let mirrors = fs::read_dir(self.sandbox.path("state/mirrors")).unwrap();
        let mut mirrors = mirrors.map(|entry| entry.unwrap().path());
        mirrors.find(|path| path.is_dir()).unwrap()
    }

    /// Nothing is lost, and the next push completes.
    fn recovers(&self, commit: &str) {
        assert_eq!(self.unpushed().as_deref(), Some(commit));
        assert!(fs::read(self.path("sound.wav")).unwrap() == noise(8, 400_000));
        assert!(fs::read(self.path("data/new.bin")).unwrap() == noise(7, 30_000));
        self.push(&[]);
        assert_eq!((self.tip("main").as_str(), self.waiting()), (commit, 0));
        assert_eq!(self.unpushed(), None);
        succeed(self.sandbox.git(&self.origin()).args(["fsck", "--strict"]));
        self.colleague_pulls("main", "clone");
    }
}

#[test]
fn while_the_remote_is_looked_at() {
    let lab = Lab::new();
    let (commit, before) = (lab.change(), lab.tip("main"));
    lab.kill_at(|_| true);
    assert_eq!((lab.tip("main"), lab.waiting()), (before, 4));
    lab.recovers(&commit);
}

#[test]
fn while_blobs_are_sent() {
    let lab = Lab::new();
    let (commit, before) = (lab.change(), lab.tip("main"));
    let puts = AtomicUsize::new(0);
    lab.kill_at(move |request| {
        request.method == "PUT" && puts.fetch_add(1, Ordering::Relaxed) == 1
    });
    assert_eq!((lab.tip("main"), lab.waiting()), (before, 4));
    lab.recovers(&commit);
}

#[test]
fn before_the_manifest_is_sent() {
    let lab = Lab::new();
    let (commit, before) = (lab.change(), lab.tip("main"));
    lab.kill_at(|request| request.method == "PUT" && is_manifest(request));
    assert_eq!((lab.tip("main"), lab.waiting()), (before, 4));
    lab.recovers(&commit);
}

#[test]
fn before_it_is_confirmed() {
    let lab = Lab::new();
    let (commit, before) = (lab.change(), lab.tip("main"));
    let is_sent = AtomicBool::new(false);
    lab.kill_at(move |request| {
        let was_sent = is_sent.load(Ordering::Relaxed);
        let is_last = request.method == "PUT" && is_manifest(request);
        is_sent.fetch_or(is_last, Ordering::Relaxed);
        was_sent
    });
    assert_eq!((lab.tip("main"), lab.waiting()), (before, 4));
    lab.recovers(&commit);
}

#[test]
fn while_git_pushes() {
    let lab = Lab::new();
    let commit = lab.change();
    let _hook = lab.kill_in_hook("pre-receive");
    lab.recovers(&commit);
}

#[test]
fn before_it_is_known_that_git_has_pushed() {
    let lab = Lab::new();
    let commit = lab.change();
    let _hook = lab.kill_in_hook("post-receive");
    assert_eq!(lab.tip("main"), commit);
    lab.recovers(&commit);
}

#[test]
fn before_a_refresh_that_finds_it_upstream() {
    let lab = Lab::new();
    let commit = lab.change();
    let _hook = lab.kill_in_hook("post-receive");
    lab.server.reset();
    lab.refresh_leaves_it_to_a_push(&commit);
    assert_eq!(lab.server.requests("PUT"), 0);
}

#[test]
fn before_a_refresh_that_finds_it_upstream_without_its_data() {
    let lab = Lab::new();
    let commit = lab.change();
    let mut git = lab.sandbox.git(&lab.mirror());
    succeed(git.args(["push", "--quiet"]).arg(lab.origin()).arg(format!("{commit}:main")));
    lab.server.reset();
    lab.refresh_leaves_it_to_a_push(&commit);
    assert_eq!(lab.server.requests("PUT"), 4);
}

#[test]
fn before_the_snapshot_is_let_go_of() {
    let lab = Lab::new();
    let commit = lab.change();
    let mirror = lab.mirror();
    let git = |args: &[&str]| text(lab.sandbox.git(&mirror).args(args));
    let kept = git(&["for-each-ref", "--format=%(refname) %(objectname)", "refs/dvcfs"]);
    lab.push(&[]);
    // As a kill leaves it after the last blob has moved to the cache.
    for (name, id) in kept.lines().filter_map(|line| line.split_once(' ')) {
        git(&["update-ref", name, id]);
    }
    lab.server.reset();
    lab.recovers(&commit);
    assert_eq!(lab.server.requests("PUT"), 0);
}

#[test]
fn while_blobs_are_handed_over_to_the_cache() {
    for step in ["handed over", "handed over#3", "handed over#4", "outbox emptied"] {
        let lab = Lab::new();
        let commit = lab.change();
        let mut push = lab.sandbox.dvcfs(["push"]);
        push.env("DVCFS_TEST_END_AT", step).arg(lab.sandbox.path("mnt"));
        assert_eq!(output(&mut push).status.code(), None, "{step}");
        assert_eq!(lab.tip("main"), commit, "{step}");
        assert!(lab.waiting() < 4, "{step}");
        lab.server.reset();
        lab.recovers(&commit);
        assert_eq!(lab.server.requests("PUT"), 0, "{step}");
        assert_eq!(files_below(&lab.sandbox.path("state/outbox")), 0, "{step}");
    }
}

#[test]
fn while_a_large_file_is_sent_in_parts() {
    let lab = Lab::new();
    let large = noise(9, (64 << 20) + 5);
    fs::write(lab.path("large.wav"), &large).unwrap();
    let commit = lab.snapshot();
    lab.kill_at(|request| request.query.contains("partNumber=3"));
    assert_eq!(files_below(&lab.sandbox.path("state/outbox/uploads")), 1);
    lab.server.reset();
    lab.push(&["--jobs", "1"]);
    let log = lab.server.log();
    let part = |request: &Request| {
        let number = request.query.split('&').find_map(|word| word.strip_prefix("partNumber="));
        number.map(|number| number.parse::<u32>().unwrap())
    };
    let parts: Vec<_> = log.iter().filter_map(part).collect();
    assert_eq!(parts, [3, 4, 5], "what was sent is not sent again");
    assert_eq!((lab.tip("main"), lab.unpushed()), (commit, None));
    assert_eq!(files_below(&lab.sandbox.path("state/outbox")), 0);
    let clone = lab.colleague_pulls("main", "clone");
    assert!(fs::read(clone.join("large.wav")).unwrap() == large);
}
