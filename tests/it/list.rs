//! `dvcfs list` against real `dvc list`: every byte, at every revision of every fixture.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Dvc, Entry, FIXTURES, Fixture, Place, Revision, Sandbox, output, succeed};

/// Arguments after the repository, without the revision.
type Case = Vec<String>;

/// What is asked of every revision.
const FLAGS: [&str; 12] = [
    "",
    "-R",
    "--json",
    "-R --json",
    "--size",
    "--show-hash",
    "--size --show-hash",
    "--tree",
    "--tree --size --show-hash",
    "-R --dvc-only",
    "-R -L 2 --dvc-only --json",
    "--tree -L 2",
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

    /// Compares a revision in all cases; gives those in which DVC failed.
    fn revision(&mut self, place: &Place, tag: &str, cases: Vec<Case>) -> Vec<Case> {
        self.revision_but(place, tag, cases, |_, printed| printed)
    }

    /// [`Self::revision`], with something done to both outputs first; `true` stands for ours.
    fn revision_but(
        &mut self,
        place: &Place,
        tag: &str,
        cases: Vec<Case>,
        prepare: impl Fn(bool, Vec<u8>) -> Vec<u8>,
    ) -> Vec<Case> {
        let asked: Vec<_> = cases.into_iter().map(|case| full(tag, &case)).collect();
        let expected = self.dvc.run(&self.sandbox, &place.work_tree(), "list", &asked);
        let mut refused = Vec::new();
        for (case, expected) in asked.into_iter().zip(expected) {
            let Some(expected) = expected else {
                refused.push(case);
                continue;
            };
            let (code, printed) = ours(&self.sandbox, place, &case);
            let (expected, printed) = (prepare(false, expected), prepare(true, printed));
            self.compared += 1;
            if code != Some(0) || printed != expected {
                let place = place.top.file_name().unwrap().display();
                let texts = [&expected, &printed].map(|text| String::from_utf8_lossy(text));
                let [expected, printed] = texts;
                let message = format!("{place} {case:?}, {code:?}:\n{expected}\nours:\n{printed}");
                self.failures.push(message);
            }
        }
        refused
    }

    fn finish(self, at_least: usize) {
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n\n"));
        assert!(self.compared >= at_least, "only {} listings were compared", self.compared);
    }
}

/// What we print, and the exit code.
fn ours(sandbox: &Sandbox, place: &Place, case: &Case) -> (Option<i32>, Vec<u8>) {
    let mut command = sandbox.dvcfs(["list"]);
    let output = output(command.args(case).current_dir(place.work_tree()));
    (output.status.code(), output.stdout)
}

/// The arguments of a case: repository, path, revision, flags.
fn full(tag: &str, case: &Case) -> Case {
    let (flags, paths): (Vec<_>, Vec<_>) =
        case.iter().cloned().partition(|word| word.starts_with('-') || word == "2");
    [vec![".".into()], paths, vec!["--rev".into(), tag.into()], flags].concat()
}

fn case(flags: &str, path: &str) -> Case {
    let words = flags.split(' ').chain([path]).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// The flags on the whole, and some on folders and files of the revision.
fn cases(revision: &Revision) -> Vec<Case> {
    let mut cases: Vec<Case> = FLAGS.iter().map(|flags| case(flags, "")).collect();
    let tree = revision.tree();
    let is_shown = |path: &str| path.split('/').all(|name| name != ".dvc");
    let paths = |is_folder: bool| {
        let of_kind = tree.iter().filter(move |(_, entry)| (**entry == Entry::Folder) == is_folder);
        let paths = of_kind.filter_map(|(path, _)| std::str::from_utf8(path).ok());
        paths.filter(|path| is_shown(path)).collect::<Vec<_>>()
    };
    let (folders, files) = (paths(true), paths(false));
    for folder in folders.first().into_iter().chain(folders.last()) {
        cases.extend(["", "-R --size"].map(|flags| case(flags, folder)));
    }
    if let Some(file) = files.last() {
        cases.extend(["--json", "--tree"].map(|flags| case(flags, file)));
    }
    cases
}

#[test]
fn sound_registries_are_listed_as_dvc_lists_them() {
    let mut comparison = Comparison::new();
    for name in FIXTURES.into_iter().filter(|name| !SPECIAL.contains(name)) {
        let fixture = Fixture::read(name);
        let place = fixture.unpack_for_dvc(&comparison.sandbox);
        for (tag, revision) in &fixture.manifest.revisions {
            for refused in comparison.revision(&place, tag, cases(revision)) {
                // What is ignored is not listed, nor are the forms of DVC 1, nor the settings of a
                // subrepo.
                let is_settings = refused.iter().any(|word| word.ends_with("/.dvc"));
                let is_expected =
                    is_settings || name == "legacy-2x" && tag == "l3" || name == "remotes";
                assert!(is_expected, "DVC refuses {name} {refused:?}");
            }
        }
    }
    comparison.finish(400);
}

/// Fixtures with a test of their own.
const SPECIAL: [&str; 3] = ["hostile", "imports", "odd-names"];

#[test]
fn imports_are_listed_as_dvc_lists_them_but_for_what_only_their_sources_tell() {
    const PARTIAL: [&str; 2] = ["partial", "url_partial.txt"];
    let mut comparison = Comparison::new();
    let fixture = Fixture::read("imports");
    let place = fixture.unpack_for_dvc(&comparison.sandbox);
    let without_partial = |_, printed: Vec<u8>| {
        filtered(&printed, |path| (!PARTIAL.contains(&path)).then(|| path.to_owned()))
    };
    for tag in fixture.manifest.revisions.keys() {
        let cases = [("", ""), ("", "dir_r1"), ("-R --size", "url_dir")];
        comparison.revision(&place, tag, cases.map(|(flags, path)| case(flags, path)).into());
        let cases = ["--json", "--dvc-only --json"].map(|flags| case(flags, ""));
        comparison.revision_but(&place, tag, cases.into(), without_partial);
    }
    comparison.finish(10);
}

/// A listing in JSON with each path as `rename` says, or without it.
fn filtered(printed: &[u8], rename: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let mut entries: Vec<Value> = serde_json::from_slice(printed).unwrap();
    entries.retain_mut(|entry| match rename(entry["path"].as_str().unwrap()) {
        Some(path) => {
            entry["path"] = path.into();
            true
        }
        None => false,
    });
    entries.sort_by_key(ToString::to_string);
    serde_json::to_vec_pretty(&entries).unwrap()
}

#[test]
fn odd_names_are_listed_as_dvc_lists_them_but_for_those_it_garbles() {
    /// DVC reads the paths of outputs as URLs: these bytes are lost, and what follows a `#` is all.
    fn is_garbled(path: &str) -> bool {
        path.contains(['\n', '\r', '\t', '#'])
    }
    let mut comparison = Comparison::new();
    let fixture = Fixture::read("odd-names");
    let place = fixture.unpack_for_dvc(&comparison.sandbox);
    let ours: BTreeSet<String> = {
        let (_, printed) = ours(&comparison.sandbox, &place, &full("o1", &case("-R --json", "")));
        let entries: Vec<Value> = serde_json::from_slice(&printed).unwrap();
        entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    };
    let garbled: BTreeSet<String> = ours
        .iter()
        .filter(|path| is_garbled(path))
        .flat_map(|path| [path.replace(['\n', '\r', '\t'], ""), path.replace("single/", "")])
        .collect();
    let sound = |_, printed: Vec<u8>| {
        let is_sound = |path: &str| !is_garbled(path) && !garbled.contains(path);
        filtered(&printed, |path| is_sound(path).then(|| path.to_owned()))
    };
    comparison.revision_but(&place, "o1", vec![case("-R --json", "")], sound);
    let flags = ["", "--json", "--size", "--show-hash", "--size --show-hash", "--dvc-only"];
    comparison.revision(&place, "o1", flags.map(|flags| case(flags, "tree")).into());
    comparison.finish(7);
}

/// Where we do not follow DVC, and why.
const HOSTILE: [(&str, &str); 12] = [
    ("overlap", "DVC forgets the outer folder"),
    ("path-escapes", "DVC lists what lies outside"),
    ("md5-upper", "no object can have this name"),
    ("md5-traversal", "a path is no hash"),
    ("size-negative", "no file has such a size"),
    ("hash-sha256", "DVC stores nothing under such hashes"),
    ("dir-absolute", "DVC lists a folder without a name"),
    ("dir-empty-name", "DVC lists a file without a name"),
    ("dir-extra-keys", "no version of DVC writes sizes into manifests"),
    ("dir-missing-md5", "DVC tells another size the second time"),
    ("dir-nul-name", "no file can have this name"),
    ("dir-long-name", "no file can have this name"),
];

#[test]
fn hostile_registries_are_listed_as_far_as_they_are_sound() {
    let mut comparison = Comparison::new();
    let fixture = Fixture::read("hostile");
    let place = fixture.unpack_for_dvc(&comparison.sandbox);
    for tag in fixture.manifest.revisions.keys() {
        let asked = ["-R --json", "--tree --size --show-hash"].map(|flags| case(flags, ""));
        let refused = if HOSTILE.iter().any(|(other, _)| tag == other) {
            asked.iter().map(|case| full(tag, case)).collect()
        } else {
            comparison.revision(&place, tag, asked.into())
        };
        for case in refused {
            let (code, printed) = ours(&comparison.sandbox, &place, &case);
            let printed = String::from_utf8_lossy(&printed);
            assert!(printed.contains("good.bin") && printed.contains("gooddir"), "{printed}");
            let is_whole =
                !tag.starts_with("dir-") || HOSTILE.iter().any(|(other, _)| tag == other);
            assert!(!is_whole || code == Some(0), "{case:?}: {code:?}");
        }
    }
    comparison.finish(50);
}

#[test]
fn all_sizes_are_those_of_the_files() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read("audio-registry");
    let place = fixture.unpack(&sandbox);
    for (tag, revision) in &fixture.manifest.revisions {
        let asked = full(tag, &case("-R --json --all-sizes", ""));
        let (code, printed) = ours(&sandbox, &place, &asked);
        assert_eq!(code, Some(0));
        let entries: Vec<Value> = serde_json::from_slice(&printed).unwrap();
        let tree = revision.tree();
        for entry in entries {
            let path = entry["path"].as_str().unwrap();
            let Entry::File { size, .. } = &tree[path.as_bytes()] else { panic!("{path}") };
            assert_eq!(entry["size"].as_u64(), size.as_ref().ok().copied(), "{tag} {path}");
        }
    }
}

#[test]
fn what_is_not_there_is_refused_with_the_exit_code_of_its_kind() {
    let sandbox = Sandbox::new();
    let place = Fixture::read("subrepos").unpack(&sandbox);
    let cases = [
        (&["no/such"][..], 1, "list \"no/such\": no such file or folder"),
        (&["top.bin/x"], 1, "no such file or folder"),
        (&["../x"], 1, "no such file or folder"),
        (&["--rev", "nope"], 3, "nope"),
        (&["--tree", "--json"], 2, "--json"),
    ];
    for (arguments, code, message) in cases {
        let mut command = sandbox.dvcfs(["list", "."]);
        let output = output(command.args(arguments).current_dir(place.work_tree()));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(message) && output.stdout.is_empty(), "{arguments:?}: {errors}");
    }
}

#[test]
fn options_may_stand_anywhere_and_projects_are_hidden_from_those_around_them() {
    let sandbox = Sandbox::new();
    let place = Fixture::read("subrepos").unpack(&sandbox);
    let list = |arguments: &[&str]| {
        let mut command = sandbox.dvcfs(["list"]);
        let printed = succeed(command.args(arguments).current_dir(place.work_tree()));
        String::from_utf8(printed).unwrap()
    };
    assert_eq!(list(&["--rev", "s1", ".", "proj"]), "");
    let inner = list(&["-R", ".", "--rev", "s1", "proj/a", "--dvc-only"]);
    assert_eq!(inner, list(&[".", "proj/a", "--dvc-only", "-R", "--rev", "s1"]));
    assert_eq!(inner, "a.bin\ndir/x\n");
}
