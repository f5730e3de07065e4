//! Snapshots of overlays that are not mounted: they are listed until they are pushed.

use std::{fs, path::Path};

use serde_json::Value;

use super::Lab;
use crate::support::{Sandbox, output, succeed, text};

impl Lab {
    fn told(&self) -> String {
        text(&mut self.sandbox.dvcfs(["status"]))
    }

    fn told_as_json(&self) -> Vec<Value> {
        let printed = succeed(&mut self.sandbox.dvcfs(["status", "--json"]));
        serde_json::from_slice(&printed).unwrap()
    }

    /// Makes a snapshot in an overlay of its own, and unmounts it; gives its commit.
    fn leave_a_snapshot(&self, repository: &str, overlay: &str) -> String {
        let overlay = format!("--overlay={}", self.sandbox.path(overlay).display());
        let mount = self.sandbox.mount_with(repository, &["--rev", "main", &overlay]);
        fs::write(mount.path("data/left.bin"), overlay).unwrap();
        let mut snapshot = self.sandbox.dvcfs(["snapshot", "-m", "Leave"]);
        text(snapshot.arg(mount.dir())).lines().next().unwrap().to_owned()
    }
}

#[test]
fn what_waits_is_listed_with_and_without_its_mount() {
    let mut lab = Lab::new();
    let first = lab.change();
    fs::write(lab.path("data/second.bin"), "second").unwrap();
    let second = lab.snapshot();
    let mounted = lab.told_as_json();
    assert_eq!(mounted.len(), 1, "{mounted:#?}");
    assert_eq!(mounted[0]["overlay"]["snapshots"], serde_json::json!([second, first]));

    lab.mount = None;
    let left = lab.told_as_json();
    assert_eq!(left.len(), 1, "{left:#?}");
    assert!(left[0].as_object().unwrap().contains_key("mount_point"));
    assert!(left[0]["mount_point"].is_null() && left[0]["error"].is_null(), "{left:#?}");
    assert_eq!(left[0]["repository"], mounted[0]["repository"]);
    for key in ["dir", "base", "branch", "snapshot", "snapshots"] {
        assert_eq!(left[0]["overlay"][key], mounted[0]["overlay"][key], "{key}");
    }
    let overlay = lab.sandbox.path("overlay").display().to_string();
    let told = lab.told();
    for expected in [
        "nothing is mounted\nnot mounted\n",
        &format!("overlay     {overlay} (for main)\n"),
        &format!("snapshot    {second} (not pushed)\n"),
        &format!("snapshot    {first} (not pushed)\n"),
        &format!("to push     mount it with --overlay={overlay}, then dvcfs push"),
    ] {
        assert!(told.contains(expected), "{expected:?}: {told}");
    }

    lab.mount(&lab.url(), &["--rev", "main"]);
    assert!(!lab.told().contains("not mounted"), "{}", lab.told());
    let dead = lab.mount.take().unwrap().kill();
    let output = output(&mut lab.sandbox.dvcfs(["status"]));
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("does not answer") && told.contains(&second), "{told}");
    drop(dead);
    lab.mount(&lab.url(), &["--rev", "main"]);
    lab.push(&[]);
    lab.mount = None;
    assert_eq!((lab.told().as_str(), lab.told_as_json()), ("nothing is mounted", Vec::new()));
}

#[test]
fn what_is_gone_or_damaged_is_told_beside_the_others() {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    let clone = lab.sandbox.path("work");
    let mut git = lab.sandbox.git(lab.sandbox.folder("dvc").as_path());
    succeed(git.args(["clone", "--quiet"]).arg(lab.origin()).arg(&clone));
    let kept = lab.leave_a_snapshot(&lab.url(), "overlay");
    let other = lab.leave_a_snapshot(&lab.url(), "other");
    lab.leave_a_snapshot(clone.to_str().unwrap(), "third");
    // What is left belongs to the repository around it.
    succeed(lab.sandbox.git(lab.sandbox.folder("").as_path()).arg("init"));
    fs::remove_dir_all(clone.join(".git")).unwrap();
    fs::remove_dir_all(lab.sandbox.path("overlay")).unwrap();
    fs::write(lab.sandbox.path("state/outbox/holders/damaged"), "{").unwrap();

    let told = lab.told();
    assert_eq!(told.matches("not mounted\n").count(), 4, "{told}");
    let overlay = lab.sandbox.path("overlay").display().to_string();
    assert!(told.contains(&format!("{overlay} (for main; the folder is gone)")), "{told}");
    let place = told.split("kept as     ").nth(1).unwrap();
    assert!(place.starts_with("refs/dvcfs/snapshots/"), "{told}");
    for expected in [&kept, &other] {
        assert!(told.contains(&format!("snapshot    {expected} (not pushed)")), "{told}");
    }
    assert!(told.contains("holders/damaged: EOF"), "{told}");
    let gone = format!("error       not a git repository: {}", clone.join(".git").display());
    assert!(told.contains(&gone), "{told}");

    // The commit does not need its overlay, and a new one goes on from it.
    lab.mount(&lab.url(), &["--rev", "main"]);
    assert_eq!(lab.unpushed(), Some(kept.clone()));
    assert!(lab.path("data/left.bin").exists());
    fs::write(lab.path("data/next.bin"), "next").unwrap();
    let next = lab.snapshot();
    let (_, told) = lab.run("status", &[]);
    assert_eq!(told.matches("(not pushed)").count(), 2, "{told}");
    lab.push(&[]);
    assert_eq!(lab.tip("main"), next);
    assert_eq!(text(lab.sandbox.git(&lab.origin()).args(["rev-parse", "main^"])), kept);
    assert!(!lab.told().contains(&kept));
}

#[test]
fn looking_makes_nothing() {
    let sandbox = Sandbox::new();
    assert_eq!(text(&mut sandbox.dvcfs(["status"])), "nothing is mounted");
    assert!(!sandbox.path("state").exists());
    let lab = Lab::unmounted(sandbox, |_| {});
    lab.leave_a_snapshot(&lab.url(), "overlay");
    let files = |root: &Path| {
        let mut find = lab.sandbox.tool("find");
        text(find.arg(root).args(["-printf", "%p %T@ %C@\n"]))
    };
    let places = ["state", "overlay", "cache"].map(|name| lab.sandbox.path(name));
    let before = places.each_ref().map(|place| files(place));
    assert!(lab.told().contains("(not pushed)"));
    assert_eq!(places.each_ref().map(|place| files(place)), before);
}
