//! What a snapshot leaves out so that DVC can use what is pushed, and goes on after it was made right.

use std::{ffi::OsStr, fs, path::Path};

use super::Lab;
use crate::support::{Dvc, md5_of, noise, succeed, text};

const PIPELINE: &str = "\
stages:
  copy:
    cmd: cp large.bin copy.bin
    deps: [large.bin]
    outs: [copy.bin, words.txt]
    metrics: [score.json: {cache: false}]
  each:
    foreach: [one, two]
    do:
      wdir: .
      cmd: split large.bin ${prefix}/${item}.bin
      outs: [\"${prefix}/${item}.bin\"]
  folder:
    cmd: split large.bin parts
    plots: [parts: {x: a}]
";

/// What stages make of which DVC keeps a copy.
const MADE: [&str; 6] =
    ["copy.bin", "words.txt", "out/one.bin", "out/two.bin", "parts/a", "parts/deep/b"];

impl Lab {
    /// A snapshot that has to leave something out; gives what is said.
    fn leaves(&self, args: &[&str]) -> String {
        let (code, said) = self.run("snapshot", &[&["-m", "Change"], args].concat());
        assert_eq!(code, Some(1), "{said}");
        said
    }

    /// What git has at the commit that the branch is at upstream.
    fn listed(&self) -> String {
        text(self.sandbox.git(&self.origin()).args(["ls-tree", "-r", "main"]))
    }
}

fn lock_entry(path: &str, file: &Path) -> String {
    let (md5, size) = md5_of(file).unwrap();
    format!("    - path: {path}\n      hash: md5\n      md5: {md5}\n      size: {size}\n")
}

/// Writes a pipeline and what its stages make.
fn with_pipeline(lab: &Lab) {
    fs::write(lab.path("dvc.yaml"), PIPELINE).unwrap();
    fs::write(lab.path("params.yaml"), "prefix: out\n").unwrap();
    for (name, seed) in MADE.iter().zip(30..) {
        let path = lab.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_text = Path::new(name).extension() == Some(OsStr::new("txt"));
        fs::write(path, if is_text { b"words\n".to_vec() } else { noise(seed, 100) }).unwrap();
    }
    fs::write(lab.path("score.json"), "{}\n").unwrap();
}

#[test]
fn what_a_new_stage_makes_gets_no_record_beside_the_pipeline() {
    let lab = Lab::new();
    with_pipeline(&lab);
    for force in [&[][..], &["--force"]] {
        let (_, said) = lab.run("snapshot", &[&["--dry-run"], force].concat());
        for name in MADE {
            let why = "a stage of dvc.yaml makes it, and dvc.lock does not tell of it yet";
            let line = said.lines().find(|line| line.contains(name)).unwrap_or_default();
            assert!(line.contains(why), "{name}: {said}");
        }
    }
    let said = lab.leaves(&["--dir", "out"]);
    assert!(said.contains("out cannot be tracked as one: a stage of dvc.yaml makes"), "{said}");
    lab.push(&[]);
    let listed = lab.listed();
    assert!(listed.contains("score.json") && listed.contains("params.yaml"), "{listed}");
    assert!(!MADE.iter().any(|name| listed.contains(name)), "{listed}");
    let clone = lab.sandbox.path("clone");
    succeed(lab.sandbox.git(&lab.origin()).args(["clone", "--quiet", "."]).arg(&clone));
    fs::write(clone.join("new.bin"), "new").unwrap();
    let mut dvc = Dvc::start(&lab.sandbox);
    dvc.must(&lab.sandbox, &clone, &[&["add", "new.bin"]]);
}

#[test]
fn what_a_stage_made_in_the_mount_is_recorded_by_force_together_with_the_lock() {
    let lab = Lab::new();
    let pipeline = "stages:\n  copy:\n    cmd: cp large.bin copy.bin\n    deps: [large.bin]\n    \
        outs: [copy.bin]\n";
    fs::write(lab.path("dvc.yaml"), pipeline).unwrap();
    fs::copy(lab.path("large.bin"), lab.path("copy.bin")).unwrap();
    let dep = lock_entry("large.bin", &lab.path("large.bin"));
    let out = lock_entry("copy.bin", &lab.path("copy.bin"));
    let head = "schema: '2.0'\nstages:\n  copy:\n    cmd: cp large.bin copy.bin\n";
    let lock = format!("{head}    deps:\n{dep}    outs:\n{out}");
    fs::write(lab.path("dvc.lock"), &lock).unwrap();
    fs::write(lab.path(".gitignore"), "/data\n/large.bin\n/copy.bin\n").unwrap();
    let said = lab.leaves(&[]);
    for line in [
        "copy.bin: a stage of dvc.yaml makes it; change what goes in, and dvc repro, or say --force",
        "dvc.lock: it tells of copy.bin, which is not recorded",
        "2 paths recorded",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let (code, said) = lab.run("snapshot", &["-m", "Change", "--force", "copy.bin"]);
    assert_eq!(code, Some(0), "{said}");
    lab.push(&[]);
    assert_eq!(fs::read_to_string(lab.path("dvc.lock")).unwrap(), lock);
    let clone = lab.colleague_pulls("main", "clone");
    assert!(fs::read(clone.join("copy.bin")).unwrap() == noise(4, 100_000));

    // The lock follows what was changed by hand.
    fs::write(lab.path("copy.bin"), "by hand").unwrap();
    let (code, said) = lab.run("snapshot", &["-m", "Change", "--force"]);
    assert_eq!(code, Some(0), "{said}");
    lab.push(&[]);
    lab.colleague_pulls("main", "again");
}

#[test]
fn what_is_tracked_already_is_not_declared_again() {
    let lab = Lab::new();
    let copy = |from: &str, to: &str| fs::copy(lab.path(from), lab.path(to)).unwrap();
    copy("large.bin.dvc", "again.dvc");
    fs::write(lab.path("dvc.yaml"), "stages: {a: {cmd: x, outs: [data/sub]}}\n").unwrap();
    let said = lab.leaves(&[]);
    assert!(said.contains("again.dvc: large.bin.dvc tracks large.bin already"), "{said}");
    assert!(said.contains("dvc.yaml: data.dvc tracks data/sub already"), "{said}");
    // A record may be of another name.
    fs::remove_file(lab.path("dvc.yaml")).unwrap();
    fs::remove_file(lab.path("large.bin.dvc")).unwrap();
    lab.snapshot();
    lab.push(&[]);
    lab.colleague_pulls("main", "clone");
}
