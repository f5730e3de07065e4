//! What commands say around a push: in JSON, and of what was typed wrong.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use super::{Lab, hook};
use crate::support::{noise, output, succeed, text};

#[test]
fn nothing_to_push_is_an_object_of_the_same_kind() {
    let lab = Lab::new();
    lab.change();
    let object = |args: &[&str]| {
        let told = lab.push(args);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told.as_object().unwrap().clone()
    };
    let some = object(&["--json"]);
    for (args, is_done) in [(&["--json"][..], true), (&["--json", "--dry-run"], false)] {
        let none = object(args);
        assert!(none.keys().eq(some.keys()), "{none:?}");
        assert_eq!((&none["commit"], &none["sent"]), (&serde_json::Value::Null, &0.into()));
        assert_eq!((&none["branch"], &none["is_done"]), (&"main".into(), &is_done.into()));
    }
}

#[test]
fn where_upstream_merged_by_hand_that_commit_is_told() {
    let lab = Lab::new();
    let commit = lab.change();
    // The data goes first, as from a push that was cut off.
    hook(&lab.origin(), "update", "exit 1");
    lab.push_fails(1, &[]);
    fs::remove_file(lab.origin().join("hooks/update")).unwrap();
    let origin = lab.origin();
    let mirrors = fs::read_dir(lab.sandbox.path("state/mirrors")).unwrap();
    let mirror = mirrors.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    succeed(lab.sandbox.git(&origin).arg("fetch").arg(&mirror).args(["--quiet", &commit]));
    let git = |args: &[&str]| text(lab.sandbox.git(&origin).args(args)).trim().to_owned();
    let tree = format!("{commit}^{{tree}}");
    let (tip, message) = (lab.tip("main"), ["-m", "Merge by hand"]);
    let merge = [&["commit-tree", &tree, "-p", &tip, "-p", &commit][..], &message].concat();
    let merged = git(&merge);
    git(&["update-ref", "refs/heads/main", &merged]);
    let said = lab.push(&["--json"]);
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["commit"], merged.as_str());
    assert_eq!((lab.tip("main"), lab.unpushed()), (merged, None));
}

#[test]
fn names_in_json_are_the_names_themselves() {
    let lab = Lab::new();
    let names = ["q\"uo\nte.txt", "q\"uo\\nte.txt", "\u{202e}\u{fffd}"];
    for name in names {
        fs::write(lab.path(name), "text\n").unwrap();
    }
    let odd = b"odd\xff";
    fs::write(lab.path("").join(OsStr::from_bytes(odd)), "text\n").unwrap();
    let changes = [("snapshot", &["--dry-run", "--json"][..]), ("diff", &["--json"])];
    for (command, args) in changes {
        let mut dvcfs = lab.sandbox.dvcfs([command]);
        let told = succeed(dvcfs.arg(lab.sandbox.path("mnt")).args(args));
        let told: Vec<serde_json::Value> = serde_json::from_slice(&told).unwrap();
        for name in names {
            let change = told.iter().find(|change| change["path"] == name);
            assert!(change.is_some_and(|change| change.get("path_bytes").is_none()), "{told:?}");
        }
        let change = told.iter().find(|change| change["path"] == "odd\u{fffd}").unwrap();
        assert_eq!(change["path_bytes"], serde_json::json!(odd));
    }
    let (_, said) = lab.run("diff", &[]);
    assert!(said.contains("    odd\\xff\n") && said.contains("q\"uo\\nte.txt\n"), "{said}");
    let refused = lab.path("").join(OsStr::from_bytes(b"\xff.dvc"));
    fs::write(refused, "outs").unwrap();
    let mut dvcfs = lab.sandbox.dvcfs(["snapshot", "-m", "x", "--json"]);
    let told = output(dvcfs.arg(lab.sandbox.path("mnt"))).stdout;
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let left = told["left"].as_array().unwrap();
    assert!(left.iter().any(|left| left["path_bytes"] == serde_json::json!(b"\xff.dvc")), "{told}");
}

#[test]
fn a_folder_to_be_tracked_that_is_none_is_named_before_anything_is_recorded() {
    let lab = Lab::new();
    fs::create_dir(lab.path("recordings")).unwrap();
    fs::write(lab.path("recordings/a.wav"), noise(1, 100)).unwrap();
    for (folder, why) in [
        ("recordigns", "recordigns: it is not in the mount"),
        ("recordings/a.wav", "recordings/a.wav: it is no folder"),
    ] {
        let mut dvcfs = lab.sandbox.dvcfs(["snapshot", "-m", "x", "--dir", folder]);
        let output = output(dvcfs.arg(lab.sandbox.path("mnt")));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why), "{said}");
        assert_eq!(lab.unpushed(), None);
    }
    let (code, said) = lab.run("snapshot", &["-m", "x", "--dir", "/recordings/"]);
    assert_eq!(code, Some(2), "a path in the mount is relative: {said}");
    let (code, said) = lab.run("snapshot", &["-m", "x", "--dir", "recordings/"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(lab.path("recordings.dvc").exists());
}
