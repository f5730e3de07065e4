//! A fetch of the user's that prunes takes our refs away, and nothing is lost.

use std::{fs, path::Path};

use super::Lab;
use crate::support::{Sandbox, noise, succeed, text};

/// A local mirror of the upstream, as `git clone --mirror` makes it, mounted with a snapshot.
fn with_mirror() -> (Lab, std::path::PathBuf, String) {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    let mirror = lab.sandbox.path("own.git");
    let mut git = lab.sandbox.git(lab.sandbox.folder("dvc").as_path());
    succeed(git.args(["clone", "--quiet", "--mirror"]).arg(lab.origin()).arg(&mirror));
    lab.mount(mirror.to_str().unwrap(), &["--rev", "main"]);
    let commit = lab.change();
    (lab, mirror, commit)
}

impl Lab {
    fn own_refs(&self, repository: &Path) -> String {
        let names = ["refs/dvcfs/snapshots", "refs/dvcfs/bases"];
        text(
            self.sandbox
                .git(repository)
                .args(["for-each-ref", "--format=%(objectname)"])
                .args(names),
        )
    }

    fn prune(&self, repository: &Path) {
        succeed(self.sandbox.git(repository).args(["fetch", "--quiet", "--prune"]));
        assert_eq!(self.own_refs(repository), "");
    }
}

#[test]
fn a_mounted_snapshot_is_found_again_and_pushed() {
    let (lab, mirror, first) = with_mirror();
    let base = lab.tip("main");
    lab.prune(&mirror);
    assert_eq!(lab.unpushed(), Some(first.clone()));
    assert_eq!(lab.own_refs(&mirror), format!("{base}\n{first}"));
    lab.prune(&mirror);
    fs::write(lab.path("data/second.bin"), "second").unwrap();
    let second = lab.snapshot();
    lab.prune(&mirror);
    assert!(lab.push(&[]).contains("6 files pushed"));
    assert_eq!((lab.tip("main"), lab.waiting(), lab.unpushed()), (second, 0, None));
    assert_eq!(lab.own_refs(&mirror), "");
    lab.colleague_pulls("main", "clone");
}

#[test]
fn a_snapshot_that_is_not_mounted_is_found_again() {
    let (mut lab, mirror, commit) = with_mirror();
    let refs = lab.own_refs(&mirror);
    lab.mount = None;
    lab.prune(&mirror);
    let told = text(&mut lab.sandbox.dvcfs(["status"]));
    assert!(told.contains(&format!("snapshot    {commit} (not pushed)")), "{told}");
    assert_eq!(lab.own_refs(&mirror), refs);
    lab.prune(&mirror);
    lab.mount(mirror.to_str().unwrap(), &["--rev", "main"]);
    assert_eq!((lab.own_refs(&mirror), lab.unpushed()), (refs, Some(commit.clone())));
    lab.push(&[]);
    assert_eq!((lab.tip("main"), lab.waiting()), (commit, 0));
    lab.colleague_pulls("main", "clone");
}

#[test]
fn commits_that_were_merged_are_found_again() {
    let (lab, mirror, ours) = with_mirror();
    let work = lab.sandbox.path("registry");
    fs::write(work.join("theirs.txt"), "theirs").unwrap();
    succeed(lab.sandbox.git(&work).args(["add", "theirs.txt"]));
    succeed(lab.sandbox.git(&work).args(["commit", "--quiet", "--message", "Theirs"]));
    succeed(lab.sandbox.git(&work).args(["push", "--quiet"]).arg(lab.origin()).arg("HEAD:main"));
    lab.prune(&mirror);
    let (code, said) = lab.run("refresh", &[]);
    assert_eq!((code, said.as_str()), (Some(0), "there are new commits\n"));
    let merged = lab.unpushed().unwrap();
    assert_ne!(merged, ours);
    lab.prune(&mirror);
    assert!(fs::read(lab.path("sound.wav")).unwrap() == noise(8, 400_000));
    lab.push(&[]);
    assert_eq!((lab.tip("main"), lab.unpushed()), (merged, None));
}
