//! What a snapshot leaves out so that DVC can use what is pushed, and goes on after it was made right.

use std::{ffi::OsStr, fs, path::Path};

use super::Lab;
use crate::support::{Dvc, Sandbox, md5_of, noise, succeed, text};

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
fn a_folder_that_a_stage_made_follows_its_pipeline() {
    let lab = Lab::new();
    let pipeline = "stages:\n  split:\n    cmd: split large.bin\n    outs: [parts]\n";
    fs::write(lab.path("dvc.yaml"), pipeline).unwrap();
    lab.snapshot();
    // What was never made shows as a file that cannot be read.
    fs::remove_file(lab.path("parts")).unwrap();
    fs::create_dir(lab.path("parts")).unwrap();
    fs::write(lab.path("parts/a"), noise(5, 100)).unwrap();
    let entry =
        "    - path: parts\n      hash: md5\n      md5: d751713988987e9331980363e24189ce.dir\n";
    let head = "schema: '2.0'\nstages:\n  split:\n    cmd: split large.bin\n    outs:\n";
    fs::write(lab.path("dvc.lock"), [head, entry].concat()).unwrap();
    assert!(lab.leaves(&[]).contains("dvc.lock: it tells of parts, which is not recorded"));
    let (code, said) = lab.run("snapshot", &["-m", "Change", "--force"]);
    assert_eq!(code, Some(0), "{said}");
    lab.push(&[]);
    let clone = lab.colleague_pulls("main", "clone");
    assert!(fs::read(clone.join("parts/a")).unwrap() == noise(5, 100));
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

#[test]
fn nothing_comes_into_a_submodule_or_in_its_place() {
    let commit = "1".repeat(40);
    let mut lab = Lab::unmounted(Sandbox::new(), |registry| {
        fs::create_dir_all(registry.repository().join("vendor/sm")).unwrap();
        let entry = format!("160000,{commit},vendor/sm");
        registry.git(&["update-index", "--add", "--cacheinfo", &entry]).unwrap();
    });
    lab.mount(&lab.url(), &["--rev", "main"]);
    fs::write(lab.path("vendor/sm/x"), "x\n").unwrap();
    fs::create_dir(lab.path("vendor/sm/data")).unwrap();
    fs::write(lab.path("vendor/sm/data/y"), noise(1, 100)).unwrap();
    fs::write(lab.path("vendor/note"), "a note\n").unwrap();
    let said = lab.leaves(&["--dir", "vendor/sm/data"]);
    assert!(said.contains("vendor/sm/x: vendor/sm is a submodule"), "{said}");
    assert!(said.contains("vendor/sm/data/y: vendor/sm is a submodule"), "{said}");
    assert!(said.contains("1 path recorded"), "{said}");
    fs::remove_dir_all(lab.path("vendor/sm")).unwrap();
    fs::write(lab.path("vendor/sm"), "x\n").unwrap();
    assert!(lab.leaves(&[]).contains("vendor/sm: vendor/sm is a submodule"));
    lab.push(&[]);
    let listed = lab.listed();
    let kept = format!("160000 commit {commit}\tvendor/sm");
    assert!(listed.contains(&kept) && listed.contains("vendor/note"), "{listed}");
}

#[test]
fn settings_and_rules_that_would_break_the_repository_are_named_and_stay() {
    let lab = Lab::new();
    let config = fs::read_to_string(lab.path(".dvc/config")).unwrap();
    let ignored = fs::read_to_string(lab.path(".gitignore")).unwrap();
    fs::write(lab.path(".dvc/config"), config + "[core\n").unwrap();
    fs::write(lab.path(".dvcignore"), "# none of these\n*.bin\n").unwrap();
    fs::write(lab.path(".gitignore"), ignored.clone() + "*.dvc\n").unwrap();
    fs::write(lab.path("dvc.lock"), "stages: [\n").unwrap();
    fs::write(lab.path("note.txt"), "a note\n").unwrap();
    let said = lab.leaves(&[]);
    for line in [
        ".dvc/config: DVC could not read it: line ",
        ".dvcignore: it would hide large.bin, which large.bin.dvc tracks",
        ".gitignore: it would hide data.dvc, which DVC then refuses to read",
        "dvc.lock: DVC could not read it: ",
        "1 path recorded",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    fs::write(lab.path(".dvcignore"), "*.tmp\n").unwrap();
    fs::write(lab.path(".gitignore"), ignored + "*.log\n").unwrap();
    assert!(lab.leaves(&[]).contains("2 paths recorded"));
    lab.push(&[]);
    lab.colleague_pulls("main", "clone");
}

#[test]
fn rules_that_hide_only_what_goes_as_well_are_recorded() {
    let lab = Lab::new();
    fs::write(lab.path(".dvcignore"), "large.bin\n").unwrap();
    fs::remove_file(lab.path("large.bin")).unwrap();
    fs::remove_file(lab.path("large.bin.dvc")).unwrap();
    lab.snapshot();
    lab.push(&[]);
    lab.colleague_pulls("main", "clone");
}

#[test]
fn the_settings_of_dvc_do_not_go_while_it_tracks_anything() {
    let lab = Lab::new();
    fs::remove_dir_all(lab.path(".dvc")).unwrap();
    fs::write(lab.path("new.bin"), noise(9, 70_000)).unwrap();
    let said = lab.leaves(&[]);
    assert!(said.contains(".dvc/config: DVC needs it for what it tracks, such as data"), "{said}");
    lab.push(&[]);
    let clone = lab.colleague_pulls("main", "clone");
    assert!(fs::read(clone.join("new.bin")).unwrap() == noise(9, 70_000));

    // Without DVC there is only git.
    for name in ["data", "large.bin", "new.bin"] {
        fs::remove_file(lab.path(&format!("{name}.dvc"))).unwrap();
        let path = lab.path(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    fs::write(lab.path("last.bin"), noise(9, 10)).unwrap();
    lab.snapshot();
    lab.push(&[]);
    let listed = lab.listed();
    assert!(listed.contains("last.bin") && !listed.contains(".dvc/"), "{listed}");
}
