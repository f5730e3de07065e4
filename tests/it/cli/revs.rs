//! Branches, tags, and the commits that changed data.

use std::fs;

use insta::assert_snapshot;
use serde_json::Value;

use super::said;
use crate::{
    registry_builder::RegistryBuilder,
    support::{Sandbox, lose_manifests, noise, registry_on_disk, registry_on_s3, text},
};

/// Commits on `main`, a day apart: data, none, data in a folder, none, a renamed file, a merge of
/// a side branch; two tags and a branch.
fn history(sandbox: &Sandbox, registry: &RegistryBuilder) {
    let date = |day: u32| format!("2026-01-{day:02}T12:00:00+00:00");
    let [one, two, three] = [1, 2, 3].map(|seed| registry.put(&noise(seed, 100)).unwrap());
    registry.track_file("one.wav", &one).unwrap();
    registry.commit("Add the first file", &date(1)).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    registry.text("README.md", "About\n").unwrap();
    registry.commit("Say what this is", &date(2)).unwrap();
    registry.track_folder("speech", &[("a.wav", two), ("deep/b.wav", three)]).unwrap();
    registry.commit("Add speech", &date(3)).unwrap();
    registry.git(&["tag", "-a", "-m", "Second", "v2"]).unwrap();
    registry.git(&["branch", "side"]).unwrap();
    // A pipeline without outputs, and a comment, change no data.
    registry.text("dvc.yaml", "stages: {}\n").unwrap();
    let declared = fs::read_to_string(registry.repository().join("one.wav.dvc")).unwrap();
    registry.text("one.wav.dvc", &format!("# the first\n{declared}")).unwrap();
    registry.commit("Comment", &date(4)).unwrap();
    fs::remove_file(registry.repository().join("one.wav.dvc")).unwrap();
    registry.track_file("first.wav", &one).unwrap();
    registry.track_folder("speech", &[("a.wav", three), ("deep/b.wav", three)]).unwrap();
    registry.commit("Rename the first file", &date(5)).unwrap();
    registry.git(&["checkout", "--quiet", "side"]).unwrap();
    let four = registry.put(&noise(4, 100)).unwrap();
    registry.track_file("side.wav", &four).unwrap();
    registry.commit("Add on the side", &date(6)).unwrap();
    registry.git(&["checkout", "--quiet", "main"]).unwrap();
    let mut merge = sandbox.git(registry.repository());
    let merge =
        merge.args(["merge", "--quiet", "--no-ff", "-Xours", "-m", "Merge the side", "side"]);
    crate::support::succeed(merge.env("GIT_COMMITTER_DATE", date(7)));
}

/// Text with the hashes of commits replaced.
fn without_hashes(said: &str) -> String {
    let is_hash = |word: &str| word.len() == 7 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let line = |line: &str| {
        let words = line.split(' ').map(|word| if is_hash(word) { "[HASH]" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    said.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn branches_tags_and_commits_that_changed_data_are_listed_newest_first() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    history(&sandbox, &registry);
    let revs = |args: &[&str]| {
        without_hashes(&said(&sandbox, sandbox.dvcfs(["revs", "registry"]).args(args)))
    };
    assert_snapshot!(revs(&["--commits"]), @r"
    exit 0
    branches
    * main  [HASH]  2026-01-07  Merge the side
      side  [HASH]  2026-01-06  Add on the side
    tags
      v2  [HASH]  2026-01-03  Add speech
      v1  [HASH]  2026-01-01  Add the first file
    commits of main that changed data
      [HASH]  2026-01-07  1 added                Merge the side
      [HASH]  2026-01-05  1 renamed, 1 modified  Rename the first file
      [HASH]  2026-01-03  2 added                Add speech
      [HASH]  2026-01-01  1 added                Add the first file
    ");
    assert_snapshot!(revs(&["--commits=1", "--rev", "v2"]), @r"
    exit 0
    branches
    * main  [HASH]  2026-01-07  Merge the side
      side  [HASH]  2026-01-06  Add on the side
    tags
      v2  [HASH]  2026-01-03  Add speech
      v1  [HASH]  2026-01-01  Add the first file
    commits of v2 that changed data
      [HASH]  2026-01-03  2 added  Add speech
    ");
}

#[test]
fn a_url_has_the_branches_and_tags_of_its_upstream() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    history(&sandbox, &registry);
    let url = format!("file://{}", registry.repository().display());
    let of = |repository: &str| {
        let json = text(&mut sandbox.dvcfs(["revs", "--json", "--commits", repository]));
        serde_json::from_str::<Value>(&json).unwrap()
    };
    assert_eq!(of(&url), of("registry"));
}

#[test]
fn json_has_whole_hashes_dates_and_counts() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    history(&sandbox, &registry);
    let json = text(&mut sandbox.dvcfs(["revs", "registry", "--json", "--commits"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    let head = registry.git(&["rev-parse", "HEAD"]).unwrap();
    let main = &json["branches"][0];
    assert_eq!((&main["name"], &main["default"]), (&"main".into(), &true.into()));
    assert_eq!((&main["commit"], &main["date"]), (&head.into(), &"2026-01-07T12:00:00Z".into()));
    let annotated = registry.git(&["rev-parse", "v2^{commit}"]).unwrap();
    assert_eq!(json["tags"][0]["commit"], annotated);
    let renamed = &json["commits"][1];
    assert_eq!(renamed["subject"], "Rename the first file");
    let counts = ["added", "deleted", "renamed", "modified"].map(|name| renamed[name].as_u64());
    assert_eq!(counts, [Some(0), Some(0), Some(1), Some(1)]);
    let json = text(&mut sandbox.dvcfs(["revs", "registry", "--json"]));
    assert!(!json.contains("\"commits\""), "{json}");
}

#[test]
fn what_dvc_does_not_track_is_asked_of_no_remote() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    history(&sandbox, &registry);
    said(&sandbox, &mut sandbox.dvcfs(["revs", "registry"]));
    assert!(server.log().is_empty(), "{:?}", server.log());
    said(&sandbox, &mut sandbox.dvcfs(["revs", "registry", "--commits"]));
    let asked = server.log();
    // Two manifests, however many commits have them.
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|request| request.path.ends_with(".dir")), "{asked:?}");
}

#[test]
fn a_commit_whose_manifest_is_lost_is_listed_without_counts() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    history(&sandbox, &registry);
    lose_manifests(&registry);
    let revs = said(&sandbox, &mut sandbox.dvcfs(["revs", "registry", "--commits=2"]));
    let revs = without_hashes(&revs);
    let (lines, error) = revs.split_once("error: ").unwrap();
    assert_snapshot!(lines, @r"
    exit 4
    branches
    * main  [HASH]  2026-01-07  Merge the side
      side  [HASH]  2026-01-06  Add on the side
    tags
      v2  [HASH]  2026-01-03  Add speech
      v1  [HASH]  2026-01-01  Add the first file
    commits of main that changed data
      [HASH]  2026-01-07  1 added  Merge the side
      [HASH]  2026-01-05  unknown  Rename the first file
    ");
    assert!(error.contains("files/md5") && error.contains(".dir"), "{error}");
}

#[test]
fn repositories_and_revisions_that_there_are_not() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let revs = |args: &[&str]| said(&sandbox, sandbox.dvcfs(["revs"]).args(args));
    assert_snapshot!(revs(&["registry"]), @"exit 0");
    assert_snapshot!(revs(&["registry", "--commits"]), @r"
    exit 3
    error: list [SANDBOX]/registry: the repository [SANDBOX]/registry/.git/ is empty: it has no commit yet
    hint: commit something first
    ");
    history(&sandbox, &registry);
    assert_snapshot!(revs(&["registry", "--commits", "--rev", "mian"]), @r"
    exit 3
    error: list [SANDBOX]/registry: unknown revision `mian`; nearest: main
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(revs(&["none"]), @r"
    exit 3
    error: open [SANDBOX]/none: not a git repository: [SANDBOX]/none
    hint: name a git repository: a path, or a URL that `git clone` takes
    ");
    assert_snapshot!(revs(&["registry", "--rev", "side"]), @r"
    exit 2
    error: the following required arguments were not provided:
      --commits[=<N>]

    Usage: dvcfs revs --commits[=<N>] --rev <REV> --cache-dir <DIR> --state-dir <DIR> --runtime-dir <DIR> <REPO>

    For more information, try '--help'.
    ");
    assert_snapshot!(revs(&["registry", "--commits=many"]), @r"
    exit 2
    error: invalid value 'many' for '--commits[=<N>]': invalid digit found in string

    For more information, try '--help'.
    ");
}
