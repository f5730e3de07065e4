//! What is written for DVC against what DVC itself writes: every byte.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use dvcfs::{
    dvc::{
        dotfile, gitignore, manifest,
        output::{Content, Output},
        record::{self, Change, Recorded},
    },
    id::{Digest, hex},
    path::RepoPath,
};
use md5::{Digest as _, Md5};

use crate::support::{Dvc, Fixture, Sandbox, succeed};

fn md5(bytes: &[u8]) -> Digest {
    Md5::digest(bytes).into()
}

/// Names that some format has to quote, escape or fold, and that DVC can hold.
fn odd_names() -> Vec<String> {
    let long = [
        "w".repeat(90) + " word " + &"x".repeat(90) + ".txt",
        "with words ".repeat(12) + "end",
        "it's quoted ".repeat(12) + "end",
        "é: ".repeat(40) + "end",
        "tab\\t and words ".replace("\\t", "\t").repeat(9) + "end",
        "n".repeat(251),
    ];
    let short = "a.txt|123|1.5|1e3|1_000|012|08|0o17|0b11|0x1F|+1|.5|0.|true|TRUE|null|~|.inf|NaN|yes|off|\
                 2024-01-01|2001-1-1 1:00:00|12:30:45|#hash|a #b|x#y|&a|*star|!bang|>gt|\"dq|%pc|@at|`bt|\
                 {brace|[br]|}x|a: b|a:|a:b|- a|? a|-|?|---|...|...x|=|<<|'sq|it's|a'\"b|back\\slash| lead|trail |\
                 two  blanks|tab\tx|bell\x07|esc\x1b|del\x7f|\u{feff}bom|nbsp\u{a0}x|\u{2028}ls|c1\u{9b}|ü|\
                 u\u{308}|日本語|😀|\u{fffd}|,comma|x?m|q!|e1|a]|~a|1.2.3|null |0123456789e12345|-x|a\rb";
    let short = short.split('|').filter(|name| !name.is_empty()).map(str::to_owned);
    short.chain(long).chain(["line\nbreak", "|pipe"].map(str::to_owned)).collect()
}

/// A repository of git and DVC, empty.
fn repository(sandbox: &Sandbox, dvc: &mut Dvc) -> PathBuf {
    let folder = sandbox.folder("repo");
    succeed(sandbox.git(&folder).args(["init", "--quiet"]));
    run(sandbox, dvc, &folder, "init", &["--quiet"]);
    folder
}

fn run(sandbox: &Sandbox, dvc: &mut Dvc, folder: &Path, command: &str, words: &[&str]) {
    let case = words.iter().map(|word| (*word).to_owned()).collect();
    let printed = dvc.run(sandbox, folder, command, &[case]);
    assert!(printed[0].is_some(), "dvc {command} {words:?} failed");
}

/// Fails with both texts where they differ.
#[track_caller]
fn assert_text(what: &str, dvc: &[u8], ours: &[u8]) {
    let [expected, written] = [dvc, ours].map(|text| String::from_utf8_lossy(text));
    assert!(dvc == ours, "{what}\n--- DVC\n{expected}\n--- ours\n{written}");
}

#[test]
fn new_files_of_any_name_are_recorded_and_ignored_as_by_dvc_add() {
    let sandbox = Sandbox::new();
    let mut dvc = Dvc::start(&sandbox);
    let folder = repository(&sandbox, &mut dvc);
    let names = odd_names();
    let mut targets = Vec::new();
    for (number, name) in names.iter().enumerate() {
        fs::write(folder.join(name), number.to_string()).unwrap();
        targets.push(format!("./{name}"));
    }
    fs::set_permissions(folder.join("a.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    let targets: Vec<_> = targets.iter().map(String::as_str).collect();
    run(&sandbox, &mut dvc, &folder, "add", &targets);
    let mut ignored = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let content = number.to_string();
        let recorded = Recorded::File {
            digest: md5(content.as_bytes()),
            size: content.len() as u64,
            is_exec: name == "a.txt",
        };
        let ours = record::create(name.as_bytes(), &recorded).unwrap();
        let theirs = fs::read(folder.join(format!("{name}.dvc"))).unwrap();
        assert_text(&format!("{name:?}"), &theirs, ours.as_bytes());
        ignored = gitignore::add(&ignored, name.as_bytes()).unwrap();
    }
    assert_text(".gitignore", &fs::read(folder.join(".gitignore")).unwrap(), &ignored);
}

#[test]
fn names_that_dvc_does_not_read_back_are_refused() {
    let sandbox = Sandbox::new();
    let mut dvc = Dvc::start(&sandbox);
    let folder = repository(&sandbox, &mut dvc);
    let names = ["a\u{85}b".to_owned(), "a  ".to_owned() + &"y".repeat(90)];
    for name in names {
        let recorded = Recorded::File { digest: md5(b"x"), size: 1, is_exec: false };
        record::create(name.as_bytes(), &recorded).unwrap_err();
        fs::write(folder.join(&name), "x").unwrap();
        run(&sandbox, &mut dvc, &folder, "add", &[&name]);
        fs::remove_file(folder.join(&name)).unwrap();
        // DVC restores another name than it was given.
        dvc.run(&sandbox, &folder, "checkout", &[vec![format!("{name}.dvc")]]);
        assert!(!folder.join(&name).exists(), "{name:?}");
    }
}

/// The manifest and record of a folder that holds files of all the odd names.
#[test]
fn a_folder_with_names_of_any_kind_gets_the_manifest_of_dvc() {
    let sandbox = Sandbox::new();
    let mut dvc = Dvc::start(&sandbox);
    let folder = repository(&sandbox, &mut dvc);
    let mut files = BTreeMap::new();
    for (number, name) in odd_names().into_iter().enumerate() {
        let relpath = if number % 3 == 0 { format!("sub/{name}/{name}") } else { name };
        let path = folder.join("data").join(&relpath);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &relpath).unwrap();
        manifest::write::check_new(relpath.as_bytes()).unwrap();
        files.insert(relpath.clone().into_bytes(), md5(relpath.as_bytes()));
    }
    let compose = |files: &BTreeMap<Vec<u8>, Digest>| {
        let mut out = Vec::new();
        let entries = files
            .iter()
            .map(|(relpath, digest)| manifest::Entry { relpath, digest: Some(*digest) });
        let written = manifest::write::compose(entries, &mut out).unwrap();
        (out, written)
    };
    let total =
        |files: &BTreeMap<Vec<u8>, Digest>| files.keys().map(|name| name.len() as u64).sum();
    let check = |files: &BTreeMap<Vec<u8>, Digest>, ours: &[u8], digest: &Digest| {
        let hex = hex(digest);
        let (two, rest) = hex.split_at(2);
        let theirs = fs::read(folder.join(format!(".dvc/cache/files/md5/{two}/{rest}.dir")));
        assert_text("manifest", &theirs.unwrap(), ours);
        let recorded = Recorded::Folder {
            digest: *digest,
            size: Some(total(files)),
            file_count: files.len() as u64,
        };
        let ours = record::create(b"data", &recorded).unwrap();
        assert_text("record", &fs::read(folder.join("data.dvc")).unwrap(), ours.as_bytes());
    };
    run(&sandbox, &mut dvc, &folder, "add", &["data"]);
    let (old, written) = compose(&files);
    check(&files, &old, &written.digest);

    // And once more with one file less, one other and one more.
    let mut changes = manifest::edit::Changes::new();
    for (name, content) in [("123", None), ("true", Some("true")), ("more/é", Some("more/é"))] {
        let path = folder.join("data").join(name);
        let key = name.as_bytes().to_vec();
        match content {
            None => {
                fs::remove_file(&path).unwrap();
                files.remove(&key);
            }
            Some(content) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                // Checkout may have linked the file to the cache.
                _ = fs::remove_file(&path);
                fs::write(&path, content).unwrap();
                files.insert(key.clone(), md5(content.as_bytes()));
            }
        }
        changes.insert(key, content.map(|content| md5(content.as_bytes())));
    }
    run(&sandbox, &mut dvc, &folder, "add", &["data"]);
    let mut ours = Vec::new();
    let written = manifest::edit::edit(|| Ok(&old[..]), &changes, &mut ours, &mut |_| ()).unwrap();
    check(&files, &ours, &written.digest);
}

/// Gives each output of a `.dvc` file new content in the work tree, and says what it is.
fn renew(work_tree: &Path, outputs: &[Output]) -> BTreeMap<RepoPath, Change> {
    let mut changes = BTreeMap::new();
    for output in outputs {
        let name = String::from_utf8(output.path.as_bytes().to_vec()).unwrap();
        let path = work_tree.join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        _ = fs::remove_dir_all(&path);
        _ = fs::remove_file(&path);
        let content = format!("new content of {name}");
        let recorded = if matches!(output.content, Content::Tree(_)) {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("file"), &content).unwrap();
            let entry = manifest::Entry { relpath: b"file", digest: Some(md5(content.as_bytes())) };
            Recorded::Folder {
                digest: manifest::write::digest([entry]),
                size: Some(content.len() as u64),
                file_count: 1,
            }
        } else {
            fs::write(&path, &content).unwrap();
            Recorded::File {
                digest: md5(content.as_bytes()),
                size: content.len() as u64,
                is_exec: false,
            }
        };
        changes.insert(output.path.clone(), Change::Content(recorded));
    }
    changes
}

/// Changes every output of these `.dvc` files, by DVC in the work tree and by us in the text.
fn compare_changes(sandbox: &Sandbox, dvc: &mut Dvc, work_tree: &Path, files: &[String]) {
    let mut ours = Vec::new();
    let mut words = vec!["--force", "--quiet"];
    for file in files {
        let text = fs::read(work_tree.join(file)).unwrap();
        let place = RepoPath::new(file.as_bytes()).unwrap();
        let dir = place.parent().unwrap();
        let parsed = dotfile::parse(&text, &dir, &RepoPath::root()).unwrap();
        let changes = renew(work_tree, &parsed.outputs);
        let new = record::update(&text, &dir, &RepoPath::root(), &changes);
        ours.push(new.unwrap_or_else(|error| panic!("{file}: {error}")).unwrap());
    }
    words.extend(files.iter().map(String::as_str));
    run(sandbox, dvc, work_tree, "commit", &words);
    for (file, ours) in files.iter().zip(ours) {
        let theirs = fs::read(work_tree.join(file)).unwrap();
        assert_text(&work_tree.join(file).display().to_string(), &theirs, ours.as_bytes());
    }
}

const OLD: &str = "0cc175b9c0f1b6a831c399e269772661";

/// Texts of `.dvc` files, with comments and layouts that people give them.
fn hand_made() -> Vec<String> {
    let texts = [
        "outs:\n- md5: OLD\n  size: 1\n  hash: md5\n  path: x\n",
        "outs:\n- md5: OLD\n  path: x\n",
        "# head\n\n# second\nouts:   # behind\n  # before\n  - md5: OLD   # first\n    # between\n    path: x\n\n  # after\n",
        "outs:\n    # out comment\n    - path: x      # path first\n      desc: \"the 'data'\"\n      labels: [x, y]\n      md5: OLD  # hash\n      size: 1\n",
        "desc: mine   # mine\nmeta:\n    who: [me, you]   # us\n    deep: {a: 1, b: [c, d]}\nouts: [{md5: OLD, path: x}]\n",
        "outs: [{md5: OLD, path: x, labels: [a, b], desc: 'a long text that goes on and on and on'}]  # one\n",
        "{outs: [{md5: OLD, path: x}]}\n",
        "outs:\n- md5: OLD\n  size: 1\n  path: x\n  cache: false\n  push: false\n  persist: false\n  desc: ''\n  meta: {}\n  labels: []\n",
        "outs:\n- md5: OLD\n  size: 1\n  path: x\n  cache: true   # cached\n  # about push\n  push: true\n  remote: r\n  type: model\n",
        "frozen: false\nwdir: .\nouts:\n- md5: OLD\n  path: ./x\n  isexec: true\n",
        "wdir: ../DIR/\nouts:\n- md5: OLD\n  hash: md5\n  path: sub/../x\n",
        "wdir: sub\nouts:\n- md5: OLD\n  hash: md5\n  path: x\n",
        "---\nouts:\n- md5: OLD.dir\n  nfiles: 3\n  size: 12\n  path: x\n...\n",
        "\u{feff}outs:\r\n- md5: OLD   # crlf\r\n  path: x\r\n# end\r\n",
        "outs:\n- md5: OLD\n  path: x\n  desc: |\n    line one\n\n    line two\n\n  # behind a block\n  meta:\n    text: >-\n      folded\n      text\n",
        "outs:\n- md5: 'OLD'\n  size: 0001\n  path: \"x\"\n  desc: word word word word word word word word word word word word word word word word word\n",
        "outs:\n# one\n- md5: OLD\n  path: x\n# two\n- md5: OLD.dir\n  path: sub/y # y\n  labels: [b]\n# three\n",
        "meta:\n  when: 2024-01-01\n  count: 07\n  ratio: 0.50\n  on: yes\n  off: False\n  none: ~\nouts:\n- path: x\n",
        "outs:\n\n\n- md5: OLD\n\n  path: x\n\n\n\n# far\n\n",
        "outs:\n-   md5: OLD\n    path:   x\n    labels:\n        - a  # a\n        # b follows\n        - b\n    meta:\n        k:   # k\n            - 1\n",
        "outs:\n- md5: OLD # tight\n  size: 123456789   # size\n  nfiles: 3 # gone\n  # about the path\n  path: x # path\n",
    ];
    texts.map(|text| text.replace("OLD", OLD)).to_vec()
}

#[test]
fn changed_outputs_are_recorded_as_by_dvc_commit() {
    let sandbox = Sandbox::new();
    let mut dvc = Dvc::start(&sandbox);
    let folder = repository(&sandbox, &mut dvc);
    let mut files = Vec::new();
    for (number, text) in hand_made().into_iter().enumerate() {
        let dir = folder.join(number.to_string());
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("x.dvc"), text.replace("DIR", &number.to_string())).unwrap();
        files.push(format!("{number}/x.dvc"));
    }
    compare_changes(&sandbox, &mut dvc, &folder, &files);
}

/// The `.dvc` files of a work tree that record data of its own.
fn records(work_tree: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(work_tree.join(prefix)).unwrap() {
        let entry = entry.unwrap();
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && name != ".git" && name != ".dvc" {
            records(work_tree, &path, found);
        } else if kind.is_file() && name.ends_with(".dvc") {
            found.push(path);
        }
    }
}

#[test]
fn changed_outputs_of_the_fixtures_are_recorded_as_by_dvc_commit() {
    // The last revision with stages of DVC 1 is one that DVC 3 refuses as a whole.
    let fixtures = [
        ("layouts", "HEAD"),
        ("legacy-2x", "l2"),
        ("mixed-2-3", "HEAD"),
        ("modes", "HEAD"),
        ("remotes", "HEAD"),
        ("audio-registry", "HEAD"),
    ];
    for (name, revision) in fixtures {
        let sandbox = Sandbox::new();
        let mut dvc = Dvc::start(&sandbox);
        let work_tree = Fixture::read(name).unpack(&sandbox).work_tree();
        succeed(sandbox.git(&work_tree).args(["checkout", "--quiet", "--detach", revision]));
        let mut files = Vec::new();
        records(&work_tree, "", &mut files);
        // Named by the .dvcignore.
        files.retain(|file| file != "hidden.bin.dvc");
        files.sort();
        assert!(!files.is_empty(), "{name}");
        compare_changes(&sandbox, &mut dvc, &work_tree, &files);
    }
}
