//! What can be in the way of a push: it says so, loses nothing, and completes once it is gone.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{Lab, hook, is_manifest};
use crate::{
    s3server::Fault,
    support::{PREFIX, Sandbox, noise, output, succeed, text},
};

impl Lab {
    /// After what was in the way is gone, everything is pushed.
    fn completes(&self, commit: &str) {
        assert_eq!(self.unpushed().as_deref(), Some(commit));
        assert!(fs::read(self.path("sound.wav")).unwrap() == noise(8, 400_000));
        self.push(&[]);
        assert_eq!((self.tip("main").as_str(), self.waiting()), (commit, 0));
        self.colleague_pulls("main", "clone");
    }
}

#[test]
fn a_hook_or_a_protected_branch_refuses() {
    let lab = Lab::new();
    let commit = lab.change();
    let words = "GH006: \\033[31mno pushing\\nerror: 1 approval is missing\\n";
    hook(&lab.origin(), "update", &format!("printf '{words}' >&2; exit 1"));
    let before = lab.tip("main");
    let said = lab.push_fails(1, &[]);
    let why = "does not take main: [remote rejected] (hook declined): \
               GH006: \\u{1b}[31mno pushing; error: 1 approval is missing; error: hook declined";
    assert!(said.contains(why), "{said}");
    assert_eq!((lab.tip("main"), lab.waiting()), (before, 4));
    fs::remove_file(lab.origin().join("hooks/update")).unwrap();
    lab.server.reset();
    lab.completes(&commit);
    assert_eq!(lab.server.requests("PUT"), 0, "the data was there");
}

#[test]
fn a_bucket_that_may_not_be_written() {
    let lab = Lab::new();
    let commit = lab.change();
    lab.server.set_rule(|request| {
        (request.method == "PUT").then_some(Fault::Status(403, "AccessDenied"))
    });
    let said = lab.push_fails(5, &[]);
    assert!(said.contains("s3:PutObject"), "{said}");
    assert_eq!(lab.waiting(), 4);
    lab.server.heal();
    lab.completes(&commit);
}

#[test]
fn an_upstream_that_may_be_read_and_not_written() {
    let script = "case \"$*\" in *receive-pack*)
        echo 'git@git.example: Permission denied (publickey).' >&2; exit 255;;
    esac
    for command; do :; done
    eval exec git \"${command#git-}\"";
    let sandbox = Sandbox::new();
    let ssh = sandbox.path("ssh");
    fs::write(&ssh, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let sandbox = sandbox.with("GIT_SSH_COMMAND", ssh.to_str().unwrap());
    let mut lab = Lab::unmounted(sandbox, |_| {});
    let url = format!("ssh://git@git.example{}", lab.origin().display());
    lab.mount(&url, &["--rev", "main"]);
    let commit = lab.change();
    let said = lab.push_fails(5, &[]);
    assert!(said.contains("refused access") && said.contains("publickey"), "{said}");
    let open = script.replace("*receive-pack*", "none");
    fs::write(&ssh, format!("#!/bin/sh\n{open}\n")).unwrap();
    lab.completes(&commit);
}

#[test]
fn credentials_that_expire_in_the_midst() {
    let lab = Lab::new();
    let commit = lab.change();
    let puts = AtomicUsize::new(0);
    lab.server.set_rule(move |request| {
        let is_late = request.method == "PUT" && puts.fetch_add(1, Ordering::Relaxed) >= 2;
        is_late.then_some(Fault::Status(400, "ExpiredToken"))
    });
    let said = lab.push_fails(5, &["--jobs", "1"]);
    assert!(said.contains("aws sso login"), "{said}");
    lab.server.heal();
    lab.server.reset();
    lab.completes(&commit);
    assert_eq!(lab.server.requests("PUT"), 2, "the rest is sent");
}

#[test]
fn a_bucket_that_is_full() {
    let lab = Lab::new();
    let commit = lab.change();
    lab.server.set_rule(|request| {
        (request.method == "PUT").then_some(Fault::Status(507, "XMinioStorageFull"))
    });
    let said = lab.push_fails(1, &[]);
    assert!(said.contains("make room in the bucket"), "{said}");
    lab.server.heal();
    lab.completes(&commit);
}

#[test]
fn a_server_that_is_away() {
    let lab = Lab::new();
    let commit = lab.change();
    lab.server.fail_always(Fault::Status(503, "SlowDown"));
    lab.push_fails(6, &[]);
    lab.server.heal();
    lab.completes(&commit);
}

#[test]
fn an_object_that_is_there_with_other_content() {
    let lab = Lab::new();
    let commit = lab.change();
    let key = fs::read_to_string(lab.path("sound.wav.dvc")).unwrap();
    let key = key.lines().find_map(|line| line.split_once("md5: ")).unwrap().1.to_owned();
    let object = lab.sandbox.path("s3").join(PREFIX).join("files/md5");
    let object = object.join(&key[..2]).join(&key[2..]);
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::write(&object, "something else").unwrap();
    let said = lab.push_fails(7, &[]);
    assert!(said.contains("has 14 bytes") && said.contains("sound.wav has 400000"), "{said}");
    assert_ne!(lab.tip("main"), commit);
    assert_eq!(fs::read(&object).unwrap(), b"something else");
    fs::remove_file(&object).unwrap();
    lab.completes(&commit);
}

#[test]
fn a_server_that_loses_what_it_has_taken() {
    let lab = Lab::new();
    let (commit, before) = (lab.change(), lab.tip("main"));
    let key = fs::read_to_string(lab.path("sound.wav.dvc")).unwrap();
    let key = key.lines().find_map(|line| line.split_once("md5: ")).unwrap().1.to_owned();
    let object = lab.sandbox.path("s3").join(PREFIX).join("files/md5");
    let object = object.join(&key[..2]).join(&key[2..]);
    let lost = object.clone();
    let is_sent = AtomicBool::new(false);
    lab.server.set_rule(move |request| {
        // The manifest comes last.
        is_sent.fetch_or(request.method == "PUT" && is_manifest(request), Ordering::Relaxed);
        if request.method != "PUT" && is_sent.load(Ordering::Relaxed) {
            // It is asked for more than once.
            _ = fs::remove_file(&lost);
        }
        None
    });
    let said = lab.push_fails(1, &[]);
    assert!(said.contains("has taken what it does not have now: sound.wav"), "{said}");
    assert_eq!((lab.tip("main"), lab.waiting(), object.exists()), (before, 4, false));
    lab.server.heal();
    lab.server.reset();
    lab.completes(&commit);
    assert_eq!(lab.server.requests("PUT"), 1);
}

#[test]
fn a_blob_that_is_nowhere_or_damaged() {
    let lab = Lab::new();
    lab.change();
    let key = fs::read_to_string(lab.path("sound.wav.dvc")).unwrap();
    let key = key.lines().find_map(|line| line.split_once("md5: ")).unwrap().1.to_owned();
    let waits = lab.sandbox.path("state/outbox/files/md5").join(&key[..2]).join(&key[2..]);
    fs::set_permissions(&waits, fs::Permissions::from_mode(0o644)).unwrap();
    let sound = fs::read(&waits).unwrap();
    let mut damaged = sound.clone();
    damaged[1000] ^= 1;
    fs::write(&waits, &damaged).unwrap();
    let said = lab.push_fails(7, &[]);
    assert!(said.contains("what is here of sound.wav does not match its hash"), "{said}");
    fs::remove_file(&waits).unwrap();
    let said = lab.push_fails(4, &[]);
    assert!(said.contains("neither here nor on s3://") && said.contains("sound.wav"), "{said}");
    assert!(lab.unpushed().is_some());
    // Another one has it.
    let object = lab.sandbox.path("s3").join(PREFIX).join("files/md5");
    let object = object.join(&key[..2]).join(&key[2..]);
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::write(&object, &sound).unwrap();
    lab.push(&[]);
}

/// A mount of a branch that was deleted upstream, its snapshot, and what a push says.
fn with_deleted_branch() -> (Lab, String, String) {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    let origin = lab.origin();
    succeed(lab.sandbox.git(&origin).args(["branch", "work", "main"]));
    lab.mount(&lab.url(), &["--rev", "work"]);
    let commit = lab.change();
    succeed(lab.sandbox.git(&origin).args(["branch", "-D", "work"]));
    let said = lab.push_fails(8, &[]);
    (lab, commit, said)
}

#[test]
fn a_branch_that_was_deleted_upstream() {
    let (mut lab, commit, said) = with_deleted_branch();
    assert!(said.contains("work was deleted at file://"), "{said}");
    let base = lab.tip("main");
    assert!(said.contains(&format!("{base}:refs/heads/work")), "{said}");
    // With another name for it.
    lab.mount(&lab.url(), &["--rev", &commit, "--branch", "rescued"]);
    lab.push(&[]);
    assert_eq!(lab.tip("rescued"), commit);
}

#[test]
fn a_branch_that_was_deleted_is_brought_back_by_the_command_of_the_hint() {
    let (lab, commit, said) = with_deleted_branch();
    let command = said.split("git -C ").nth(1).unwrap().split(';').next().unwrap();
    succeed(lab.sandbox.tool("git").arg("-C").args(command.split_whitespace()));
    assert_eq!(lab.tip("work"), lab.tip("main"));
    lab.push(&[]);
    assert_eq!((lab.tip("work"), lab.waiting()), (commit, 0));
}

/// Follows the hint that says how to bring a branch back, after which a push completes.
fn brought_back(lab: &Lab, branch: &str, was: &str, commit: &str) {
    for _ in 0..2 {
        let said = lab.push_fails(8, &[]);
        assert!(said.contains(&format!("{branch} was deleted at file://")), "{said}");
        let found = output(lab.sandbox.git(&lab.origin()).args(["rev-parse", "--verify", branch]));
        assert!(!found.status.success(), "nobody asked for it");
        let (code, said) = lab.run("refresh", &[]);
        assert_eq!(code, Some(8), "{said}");
        let hint = "hint: nothing is lost; to push it as a branch of its own, mount with --rev ";
        assert!(said.contains(hint), "{said}");
    }
    let said = lab.push_fails(8, &[]);
    let command = said.split("git -C ").nth(1).unwrap().split(';').next().unwrap();
    succeed(lab.sandbox.tool("git").arg("-C").args(command.split_whitespace()));
    assert_eq!(lab.tip(branch), was);
    lab.push(&[]);
    assert_eq!((lab.tip(branch).as_str(), lab.waiting(), lab.unpushed()), (commit, 0, None));
}

#[test]
fn a_branch_whose_deletion_was_fetched_is_brought_back_as_it_was() {
    let (lab, commit, _) = with_deleted_branch();
    brought_back(&lab, "work", &lab.tip("main"), &commit);
    // Now it is at what was pushed from here.
    fs::write(lab.path("next.txt"), "next").unwrap();
    let next = lab.snapshot();
    succeed(lab.sandbox.git(&lab.origin()).args(["branch", "-D", "work"]));
    brought_back(&lab, "work", &commit, &next);
    lab.colleague_pulls("work", "clone");
}

#[test]
fn a_branch_that_a_push_made_and_somebody_deleted() {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    lab.mount(&lab.url(), &["--rev", "main", "--branch", "team/new"]);
    let commit = lab.change();
    lab.push(&[]);
    fs::write(lab.path("next.txt"), "next").unwrap();
    let next = lab.snapshot();
    succeed(lab.sandbox.git(&lab.origin()).args(["branch", "-D", "team/new"]));
    let said = lab.push_fails(8, &[]);
    let rev = said.split("--rev ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(rev, commit);
    brought_back(&lab, "team/new", &commit, &next);

    fs::write(lab.path("last.txt"), "last").unwrap();
    let last = lab.snapshot();
    succeed(lab.sandbox.git(&lab.origin()).args(["branch", "-D", "team/new"]));
    assert!(lab.push_fails(8, &[]).contains(&format!("--rev {next} --branch NAME")));
    lab.mount(&lab.url(), &["--rev", &next, "--branch", "rescued"]);
    lab.push(&[]);
    assert_eq!(lab.tip("rescued"), last);
}

#[test]
fn a_remote_that_nobody_has_configured() {
    let lab = Lab::new();
    let commit = lab.change();
    let said = lab.push_fails(2, &["--remote", "nope"]);
    assert!(said.contains("no remote is called nope\nhint: there are these: s3\n"), "{said}");
    lab.completes(&commit);
}

#[test]
fn a_daemon_that_has_died() {
    let mut lab = Lab::new();
    let commit = lab.change();
    let dead = lab.mount.take().unwrap().kill();
    for command in ["push", "refresh", "snapshot", "discard"] {
        let args: &[&str] = match command {
            "snapshot" => &["-m", "x"],
            "discard" => &["--yes"],
            _ => &[],
        };
        let (code, said) = lab.run(command, args);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("the daemon of this mount has died\nhint: mount there"), "{said}");
    }
    drop(dead);
    lab.mount(&lab.url(), &["--rev", "main"]);
    lab.completes(&commit);
}

#[test]
fn a_commit_that_is_no_branch() {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    let base = lab.tip("main");
    lab.mount(&lab.url(), &["--rev", &base]);
    let commit = lab.change();
    let said = lab.push_fails(2, &[]);
    assert!(said.contains("which is no branch") && said.contains("--branch NAME"), "{said}");
    lab.mount(&lab.url(), &["--rev", &base, "--branch", "main"]);
    lab.completes(&commit);
}

#[test]
fn a_name_that_is_none_of_a_branch() {
    let lab = Lab::unmounted(Sandbox::new(), |_| {});
    let (dir, overlay) = (lab.sandbox.folder("mnt"), lab.sandbox.path("overlay"));
    let overlay = format!("--overlay={}", overlay.display());
    for name in ["a..b", "", "-x", "a b"] {
        let mut mount = lab.sandbox.dvcfs(["mount", "--rev", "main", &overlay]);
        let said = output(mount.arg(format!("--branch={name}")).arg(lab.url()).arg(&dir));
        assert_eq!(said.status.code(), Some(2), "{name}");
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(text.contains("no name of a branch"), "{text}");
    }
}

#[test]
fn remotes_that_take_nothing() {
    for (name, config, why) in [
        ("web", "url = http://127.0.0.1:9/dvc", "read, not written"),
        ("cloud", "url = s3://bucket/cloud\n    version_aware = true", "only DVC can"),
        ("none", "url = gs://bucket/x", "gs remotes"),
    ] {
        let lab = Lab::new();
        let user = fs::read_to_string(lab.sandbox.path("dvc/global/config")).unwrap();
        lab.sandbox.user_config(&format!("{user}['remote \"{name}\"']\n    {config}\n"));
        lab.change();
        let (code, said) = lab.run("push", &["-r", name]);
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(said.contains(why) && lab.unpushed().is_some(), "{name}: {said}");
    }
}

#[test]
fn nothing_that_is_mounted_or_nothing_writable() {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    let (code, said) = lab.run("push", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no dvcfs is mounted there"), "{said}");
    let dir = lab.sandbox.folder("mnt");
    lab.mount = Some(lab.sandbox.mount_at(&dir, lab.url(), &["--rev", "main"]));
    let (code, said) = lab.run("push", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the mount is not writable"), "{said}");
    assert_eq!(text(lab.sandbox.git(&lab.origin()).args(["rev-list", "--count", "main"])), "1");
}

#[test]
fn an_identity_that_git_does_not_know() {
    let lab = Lab::new();
    fs::write(lab.path("sound.wav"), noise(8, 400_000)).unwrap();
    let mut snapshot = lab.sandbox.dvcfs(["snapshot", "-m", "Mine"]);
    snapshot.env("GIT_AUTHOR_NAME", "").env("GIT_COMMITTER_NAME", "");
    let said = output(snapshot.arg(lab.sandbox.path("mnt")));
    assert_eq!(said.status.code(), Some(1));
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("does not know who you are") && text.contains("hint: "), "{text}");
    assert_eq!(lab.unpushed(), None);
    let commit = lab.snapshot();
    lab.completes(&commit);
}

#[test]
fn a_cache_that_is_deleted_and_a_fetch_that_prunes() {
    let lab = Lab::new();
    let origin = lab.origin();
    succeed(lab.sandbox.git(&origin).args(["branch", "passing", "main"]));
    assert_eq!(lab.run("refresh", &[]).0, Some(0));
    let commit = lab.change();
    fs::remove_dir_all(lab.sandbox.cache()).unwrap();
    succeed(lab.sandbox.git(&origin).args(["branch", "-D", "passing"]));
    assert_eq!(lab.run("refresh", &[]).0, Some(0));
    lab.completes(&commit);
}

#[test]
fn a_record_whose_bucket_does_not_tell_whether_it_has_the_manifest_is_left() {
    let lab = Lab::new();
    let record = fs::read_to_string(lab.path("data.dvc")).unwrap();
    let id = record.lines().find_map(|line| line.split_once("md5: ")).unwrap().1;
    let other = record.replace(id, &format!("{}.dir", "1".repeat(32)));
    fs::write(lab.path("data.dvc"), &other).unwrap();
    fs::write(lab.path("note.txt"), "a note\n").unwrap();
    lab.server.set_rule(|_| Some(Fault::Status(403, "AccessDenied")));
    let (code, said) = lab.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("left as it is: data.dvc: the manifest of data is not here: "), "{said}");
    assert!(said.contains("AccessDenied") || said.contains("refuse"), "{said}");
    assert!(lab.unpushed().is_some(), "the note is recorded");
    lab.server.heal();
    let (code, said) = lab.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("data.dvc: the manifest of data is neither here nor on"), "{said}");
    lab.push(&[]);
    assert_eq!(fs::read_to_string(lab.path("data.dvc")).unwrap(), other);
}
