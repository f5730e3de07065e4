//! `dvcfs diff` against real `dvc diff`: every byte, between revisions of every fixture. Then what
//! DVC does not do.

use std::{fs, process::Command};

use insta::assert_snapshot;
use serde_json::Value;

use crate::{
    bad_input::without_places,
    registry_builder::{Blob, RegistryBuilder},
    support::{
        DATE, Dvc, FIXTURES, Fixture, Place, Sandbox, lose_manifests, noise, output,
        registry_on_disk, registry_on_s3, succeed,
    },
};

/// How both are asked about one pair of revisions; about the others only as scripts ask.
const FLAGS: [&[&str]; 6] = [
    &["--json", "--show-hash"],
    &["--json"],
    &["--show-hash"],
    &[],
    &["--md"],
    &["--md", "--show-hash"],
];

/// Both programs and what they have said differently.
struct Comparison {
    sandbox: Sandbox,
    dvc: Dvc,
    compared: usize,
    failures: Vec<String>,
}

impl Comparison {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let dvc = Dvc::start(&sandbox);
        Self { sandbox, dvc, compared: 0, failures: Vec::new() }
    }

    /// Compares two revisions in these forms; tells whether DVC compares them at all.
    fn pair(&mut self, place: &Place, (old, new): (&str, &str), flags: &[&[&str]]) -> bool {
        let words = |flags: &&[&str]| {
            let words = [old, new].into_iter().chain(flags.iter().copied());
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        let cases: Vec<_> = flags.iter().map(words).collect();
        let expected = self.dvc.run(&self.sandbox, &place.work_tree(), "diff", &cases);
        let is_sound = expected.iter().all(Option::is_some);
        for (case, expected) in cases.iter().zip(expected) {
            let Some(expected) = expected else { continue };
            let mut ours = self.sandbox.dvcfs(["diff", "."]);
            let ours = output(ours.args(case).arg("--dvc-only").current_dir(place.work_tree()));
            self.compared += 1;
            if !ours.status.success() || ours.stdout != expected {
                let place = place.top.file_name().unwrap().display();
                let texts = [&expected, &ours.stdout, &ours.stderr];
                let [expected, printed, said] = texts.map(|text| String::from_utf8_lossy(text));
                self.failures.push(format!(
                    "{place} {case:?}, {}:\n{expected}\nours:\n{printed}{said}",
                    ours.status
                ));
            }
        }
        is_sound
    }

    fn finish(self, at_least: usize) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n\n"));
        assert!(self.compared >= at_least, "only {} were compared", self.compared);
    }
}

/// Each revision and the next, the first and the last, and the way back.
fn pairs(fixture: &Fixture) -> Vec<(String, String)> {
    let tags: Vec<_> = fixture.manifest.revisions.keys().cloned().collect();
    let mut pairs: Vec<_> =
        tags.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    if let [first, .., last] = &tags[..] {
        pairs.extend([(first.clone(), last.clone()), (last.clone(), first.clone())]);
    }
    pairs
}

#[test]
fn sound_registries_are_compared_as_dvc_compares_them() {
    let mut comparison = Comparison::new();
    for name in FIXTURES.into_iter().filter(|name| *name != "hostile") {
        let fixture = Fixture::read(name);
        let place = fixture.unpack_for_dvc(&comparison.sandbox);
        for (old, new) in pairs(&fixture) {
            let is_chosen = (&old[..], &new[..]) == ("v1.0", "v2.1");
            let flags = if is_chosen { &FLAGS[..] } else { &FLAGS[..1] };
            // The forms of DVC 1.
            let is_refused = [&old, &new].into_iter().any(|tag| tag == "l3");
            let is_compared = comparison.pair(&place, (&old, &new), flags);
            assert_eq!(is_compared, !is_refused, "{name} {old} {new}");
        }
    }
    comparison.finish(30);
}

/// Where we do not follow DVC, and why.
const HOSTILE: [(&str, &str); 14] = [
    ("dir-dots", "no file can have this name"),
    ("dir-empty-name", "no file can have this name"),
    ("dir-escape", "no file can have this name"),
    ("dir-long-name", "no file can have this name"),
    ("dir-nul-name", "no file can have this name"),
    ("dir-lone-surrogate", "the versions of DVC that wrote such names can read them"),
    ("dir-nested-dir", "one bad entry costs itself alone"),
    ("dir-missing", "DVC says nothing of a manifest that is lost"),
    ("dir-not-list", "DVC says nothing of a manifest that is damaged"),
    ("dir-truncated", "DVC says nothing of a manifest that is damaged"),
    ("md5-traversal", "a path is no hash"),
    ("md5-upper", "no object can have this name"),
    ("overlap", "DVC tells everything twice"),
    ("path-escapes", "DVC tells what lies outside"),
];

#[test]
fn hostile_registries_are_compared_as_far_as_they_are_sound() {
    let mut comparison = Comparison::new();
    let fixture = Fixture::read("hostile");
    let place = fixture.unpack_for_dvc(&comparison.sandbox);
    let tags = fixture.manifest.revisions.keys().map(String::as_str);
    // An output elsewhere makes DVC forget all others.
    for tag in tags.filter(|tag| *tag != "path-external") {
        if HOSTILE.iter().any(|(other, _)| tag == *other) {
            let mut ours = comparison.sandbox.dvcfs(["diff", ".", "base", tag, "--dvc-only"]);
            let ours = output(ours.current_dir(place.work_tree()));
            let printed = String::from_utf8_lossy(&ours.stdout);
            assert!(!printed.contains("Deleted"), "{tag}: {printed}");
            assert!([0, 4, 7].contains(&ours.status.code().unwrap()), "{tag}: {}", ours.status);
        } else {
            comparison.pair(&place, ("base", tag), &FLAGS[..1]);
        }
    }
    comparison.finish(20);
}

#[test]
fn folders_that_are_split_joined_or_replaced_are_compared_as_dvc_compares_them() {
    let mut comparison = Comparison::new();
    let registry = registry_on_disk(&comparison.sandbox);
    let [one, two, three] = [1, 2, 3].map(|seed| registry.put(&noise(seed, 10)).unwrap());
    let track = |path: &str, files: &[(&str, Blob)]| registry.track_folder(path, files).unwrap();
    let forget = |path: &str| {
        fs::remove_file(registry.repository().join(format!("{path}.dvc"))).unwrap();
    };
    let tag = |name: &str| {
        registry.commit(name, DATE).unwrap();
        registry.git(&["tag", name]).unwrap();
    };
    track("whole", &[("a/x", one), ("a/y", two), ("b/x", three), ("z", one)]);
    track("swapped", &[("x", one)]);
    registry.track_file("file", &two).unwrap();
    tag("t1");
    forget("whole");
    track("whole/a", &[("x", one), ("y", three)]);
    track("whole/b", &[("x", three)]);
    forget("swapped");
    registry.track_file("swapped", &one).unwrap();
    forget("file");
    track("file", &[("inside", two)]);
    tag("t2");
    forget("whole/a");
    forget("whole/b");
    track("elsewhere", &[("a/x", one), ("a/y", three), ("b/x", three), ("empty-twin", one)]);
    tag("t3");
    let cache = registry.repository().join(".dvc/cache");
    succeed(Command::new("cp").arg("-r").arg(registry.objects()).arg(cache));
    let place = Place { top: comparison.sandbox.path("") };
    std::os::unix::fs::symlink("registry", comparison.sandbox.path("clone")).unwrap();
    for pair in [("t1", "t2"), ("t2", "t1"), ("t2", "t3"), ("t3", "t2"), ("t1", "t3")] {
        assert!(comparison.pair(&place, pair, &FLAGS[..1]), "{pair:?}");
    }
    comparison.finish(5);
}

/// What we print of two revisions of a repository `registry`, and how that ends.
fn diff(sandbox: &Sandbox, args: &[&str]) -> String {
    let output = output(sandbox.dvcfs(["diff", "registry"]).args(args));
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let said = format!("exit {}\n{}", output.status.code().unwrap(), texts.concat());
    without_places(sandbox, &said)
}

/// Two revisions, tagged: files that are kept, added, deleted, modified and renamed, in git, as
/// outputs and in a tracked folder.
fn two_revisions(registry: &RegistryBuilder) {
    let [kept, gone, moved, old, new] =
        [1, 2, 3, 4, 5].map(|seed| registry.put(&noise(seed, 100)).unwrap());
    let remove = |name: &str| fs::remove_file(registry.repository().join(name)).unwrap();
    registry.text("git/kept", "kept").unwrap();
    registry.text("git/gone", "gone").unwrap();
    registry.text("git/moved", "moved").unwrap();
    registry.text("git/changed", "old").unwrap();
    registry.track_file("single.wav", &old).unwrap();
    let folder = [("deep/gone", gone), ("deep/moved", moved), ("changed", old), ("kept", kept)];
    registry.track_folder("folder", &folder).unwrap();
    registry.track_folder("same", &folder).unwrap();
    registry.commit("Begin", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    remove("git/gone");
    fs::rename(registry.repository().join("git/moved"), registry.repository().join("git/new"))
        .unwrap();
    registry.text("git/changed", "new").unwrap();
    registry.track_file("single.wav", &new).unwrap();
    let folder = [("elsewhere/moved", moved), ("changed", new), ("kept", kept), ("added", gone)];
    registry.track_folder("folder", &folder[..3]).unwrap();
    registry.track_file("added", &registry.put(&noise(6, 100)).unwrap()).unwrap();
    registry.commit("Go on", DATE).unwrap();
    registry.git(&["tag", "v2"]).unwrap();
}

#[test]
fn what_git_holds_is_compared_too() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    two_revisions(&registry);
    assert_snapshot!(diff(&sandbox, &["v1", "v2"]), @r"
    exit 0
    Added:
        added
        added.dvc

    Deleted:
        folder/deep/gone
        git/gone

    Renamed:
        folder/deep/moved -> folder/elsewhere/moved
        git/moved -> git/new

    Modified:
        .gitignore
        folder.dvc
        folder/
        folder/changed
        git/changed
        single.wav
        single.wav.dvc

    files summary: 2 added, 2 deleted, 2 renamed, 6 modified
    ");
    assert_eq!(diff(&sandbox, &["v1"]), diff(&sandbox, &["v1", "v2"]));
    assert_snapshot!(diff(&sandbox, &["v1", "v2", "--show-hash", "git", "single.wav"]), @r"
    exit 0
    Deleted:
        git/gone

    Renamed:
        git/moved -> git/new

    Modified:
        git/changed
        f66679c1..7a7c0d5f  single.wav

    files summary: 1 deleted, 1 renamed, 2 modified
    ");
    assert_snapshot!(diff(&sandbox, &["v1", "v2", "--json", "--show-hash", "git/changed"]), @r#"
    exit 0
    {"added": [], "deleted": [], "modified": [{"path": "git/changed", "hash": {"old": null, "new": null}}], "renamed": []}
    "#);
    assert_eq!(diff(&sandbox, &["v2", "v2"]), "exit 0\n");
    assert_eq!(diff(&sandbox, &["v2", "v2", "--json"]), "exit 0\n{}\n");
}

#[test]
fn on_a_terminal_headings_are_painted_and_names_can_do_no_harm() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("a", "").unwrap();
    registry.commit("Begin", DATE).unwrap();
    registry.text("\u{1b}[2J", "").unwrap();
    registry.commit("Attack", DATE).unwrap();
    let command = format!("{} diff registry HEAD~", env!("CARGO_BIN_EXE_dvcfs"));
    let printed = succeed(sandbox.tool("script").args(["-qec", &command, "/dev/null"]));
    let printed = String::from_utf8(printed).unwrap().replace("\r\n", "\n");
    let expected = "\u{1b}[32mAdded\u{1b}[0m:\n    \\u{1b}[2J\n\nfiles summary: 1 added\n";
    assert_eq!(printed, expected);
}

#[test]
fn only_the_paths_that_are_named_are_compared() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    two_revisions(&registry);
    assert_snapshot!(diff(&sandbox, &["v1", "v2", "folder/changed", "/added", "same"]), @r"
    exit 0
    Added:
        added

    Modified:
        folder/changed

    files summary: 1 added, 1 modified
    ");
    assert_snapshot!(diff(&sandbox, &["v1", "v2", "folder/deep", "folder/elsewhere/"]), @r"
    exit 0
    Deleted:
        folder/deep/gone

    Renamed:
        folder/deep/moved -> folder/elsewhere/moved

    files summary: 1 deleted, 1 renamed
    ");
    // What is there and did not change is no mistake.
    for path in ["same", "same/deep/moved", "folder/kept", "git/kept"] {
        assert_eq!(diff(&sandbox, &["v1", "v2", path]), "exit 0\n", "{path}");
    }
    assert_snapshot!(diff(&sandbox, &["v1", "v2", "same/none"]), @r"
    exit 1
    error: compare v1: no such file or folder in either revision: same/none
    ");
    assert_snapshot!(diff(&sandbox, &["v1", "v2", "../x"]), @r#"
    exit 2
    error: compare "../x": path leads outside the repository
    "#);
}

#[test]
fn no_blob_is_fetched_and_no_manifest_that_both_have() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    two_revisions(&registry);
    diff(&sandbox, &["v1", "v1"]);
    assert!(server.log().is_empty(), "{:?}", server.log());
    diff(&sandbox, &["v1", "v2"]);
    let asked = server.log();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|request| request.path.ends_with(".dir")), "{asked:?}");
}

#[test]
fn a_file_that_goes_to_dvc_with_the_same_bytes_did_not_change() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("same", "same bytes").unwrap();
    registry.text("other", "some bytes").unwrap();
    registry.commit("Into git", DATE).unwrap();
    for (path, bytes) in [("same", "same bytes"), ("other", "other bytes")] {
        fs::remove_file(registry.repository().join(path)).unwrap();
        registry.track_file(path, &registry.put(bytes.as_bytes()).unwrap()).unwrap();
    }
    registry.commit("Into DVC", DATE).unwrap();
    assert_snapshot!(diff(&sandbox, &["HEAD~", "HEAD", "--show-hash"]), @r"
    exit 0
    Added:
        .gitignore
        other.dvc
        same.dvc

    Modified:
        -..6eff3450  other

    files summary: 3 added, 1 modified
    ");
    assert_snapshot!(diff(&sandbox, &["HEAD", "HEAD~", "same", "other", "--json", "--show-hash"]), @r#"
    exit 0
    {"added": [], "deleted": [], "modified": [{"path": "other", "hash": {"old": "6eff3450105497cc2ce22ea267f564ba", "new": null}}], "renamed": []}
    "#);
}

#[test]
fn a_manifest_that_is_lost_costs_its_folder_alone() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    two_revisions(&registry);
    let declared = registry.git(&["show", "v2:folder.dvc"]).unwrap();
    let md5 = declared.lines().find_map(|line| line.strip_prefix("- md5: ")).unwrap();
    fs::remove_file(registry.objects().join(format!("files/md5/{}/{}", &md5[..2], &md5[2..])))
        .unwrap();
    assert_snapshot!(diff(&sandbox, &["v1", "v2", "--dvc-only"]), @r"
    exit 4
    Added:
        added

    Modified:
        folder/
        single.wav

    files summary: 1 added, 1 modified
    error: compare v1: folder: read files/md5/70/d255a3dae81e2acafc4c91f7a4fed3.dir from [SANDBOX]/store: there is no such object
    hint: push it again from where it was added
    ");
}

#[test]
fn nothing_is_said_of_files_that_may_have_been_in_a_lost_manifest() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blob = registry.put(&noise(1, 10)).unwrap();
    registry.track_folder("whole", &[("part/a", blob)]).unwrap();
    registry.commit("Begin", DATE).unwrap();
    lose_manifests(&registry);
    fs::remove_file(registry.repository().join("whole.dvc")).unwrap();
    registry.track_folder("whole/part", &[("a", blob), ("b", blob)]).unwrap();
    registry.track_file("other", &blob).unwrap();
    registry.commit("Split", DATE).unwrap();
    let said = diff(&sandbox, &["HEAD~", "HEAD", "--dvc-only"]);
    assert_snapshot!(said.split("error: ").next().unwrap(), @r"
    exit 4
    Added:
        other

    Deleted:
        whole/

    files summary: 1 added
    ");
}

#[test]
fn revisions_that_there_are_not_and_exit_codes_for_scripts() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    two_revisions(&registry);
    assert_snapshot!(diff(&sandbox, &["v3", "v2"]), @r"
    exit 3
    error: unknown revision `v3`; nearest: v1, v2
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(diff(&sandbox, &["v1", "v3"]), @r"
    exit 3
    error: unknown revision `v3`; nearest: v1, v2
    hint: git log, git branch -a and git tag show what there is
    ");
    let ended = |args: &[&str]| {
        let mut command = sandbox.dvcfs(["diff", "registry", "--exit-code"]);
        output(command.args(args)).status.code()
    };
    assert_eq!(ended(&["v1", "v2"]), Some(1));
    assert_eq!(ended(&["v2", "main"]), Some(0));
}

#[test]
fn tags_of_a_url_are_compared_without_asking_upstream_again() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    two_revisions(&registry);
    let expected = succeed(&mut sandbox.dvcfs(["diff", "registry", "v1", "v2", "--json"]));
    let url = format!("file://{}", registry.repository().display());
    let of_url = || succeed(&mut sandbox.dvcfs(["diff", &url, "v1", "v2", "--json"]));
    assert!(of_url() == expected);
    fs::rename(registry.repository(), sandbox.path("away")).unwrap();
    assert!(of_url() == expected);
}

#[test]
fn projects_in_one_repository_are_compared_as_dvc_compares_each() {
    let sandbox = Sandbox::new();
    let mut dvc = Dvc::start(&sandbox);
    let place = Fixture::read("subrepos").unpack_for_dvc(&sandbox);
    let file = |name: &str| place.work_tree().join(name);
    // One output renamed, one gone, two exchanged.
    fs::rename(file("proj/a/a.bin.dvc"), file("proj/a/z.bin.dvc")).unwrap();
    let renamed = fs::read_to_string(file("proj/a/z.bin.dvc")).unwrap().replace("a.bin", "z.bin");
    fs::write(file("proj/a/z.bin.dvc"), renamed).unwrap();
    fs::remove_file(file("proj/a/dir.dvc")).unwrap();
    let [n, b] = ["proj/a/nested/n.bin", "proj/b/b.bin"].map(|name| file(&format!("{name}.dvc")));
    let [of_n, of_b] = [&n, &b].map(|path| fs::read_to_string(path).unwrap());
    fs::write(n, of_b.replace("b.bin", "n.bin")).unwrap();
    fs::write(b, of_n.replace("n.bin", "b.bin")).unwrap();
    let commit = ["commit", "--quiet", "--all", "--message", "Change every project"];
    succeed(sandbox.git(&place.work_tree()).args(["add", "--all"]));
    succeed(sandbox.git(&place.work_tree()).args(commit));

    for project in ["proj/a", "proj/a/nested", "proj/b"] {
        let case = ["HEAD~", "HEAD", "--json", "--show-hash"].map(str::to_owned);
        let expected = dvc.run(&sandbox, &file(project), "diff", &[case.into()]).remove(0);
        let mut ours = sandbox.dvcfs(["diff", ".", "HEAD~", "HEAD", project, "--dvc-only"]);
        let ours = ours.args(["--json", "--show-hash"]).current_dir(place.work_tree());
        let printed = [expected.expect("DVC compares it"), succeed(ours)];
        let [expected, ours] = printed.map(|json| changed(&json, project));
        assert_eq!(ours, expected, "{project}");
        assert!(!ours.is_empty(), "{project}");
    }
}

/// What changed, by path below a project; what lies in one further down is left out.
fn changed(json: &[u8], project: &str) -> Vec<String> {
    let lists: Value = serde_json::from_slice(json).unwrap();
    let lists = lists.as_object().unwrap().iter();
    let lines = lists.flat_map(|(status, lines)| {
        lines.as_array().unwrap().iter().map(move |line| format!("{status} {line}"))
    });
    let lines = lines.map(|line| line.replace(&format!("\"{project}/"), "\""));
    let mut lines: Vec<_> = lines.filter(|line| !line.contains("\"nested/")).collect();
    lines.sort();
    lines
}
