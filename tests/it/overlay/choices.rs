//! What a snapshot records of what was changed: chosen paths, outputs of stages, folders of DVC 2.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use itertools::Itertools as _;

use super::{Writable, snapshots::change};
use crate::support::{
    DATE, Dvc, Fixture, Mount, Place, Sandbox, md5_of, noise, output, registry_on_s3, succeed, text,
};

/// What a mount shows, but for what DVC keeps about its files, with bytes, modes and times.
pub(super) fn shown(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                walk(root, &path, found);
            } else if metadata.is_symlink() {
                found.insert(name, fs::read_link(&path).unwrap().display().to_string());
            } else if !name.ends_with(".dvc") && !name.ends_with(".gitignore") {
                let digest = md5_of(&path).unwrap().0;
                let mode = metadata.mode() & 0o100;
                found.insert(name, format!("{} {mode:o} {digest}", metadata.len()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

impl Writable {
    /// What git has at a commit: the text of what DVC and git read, the id of all else.
    pub(super) fn tree_of(&self, commit: &str) -> BTreeMap<String, String> {
        let git = || self.sandbox.git(self.registry.repository());
        let listed = text(git().args(["ls-tree", "-r", commit]));
        let entries = listed.lines().filter_map(|line| line.split_once('\t'));
        let told = entries.map(|(entry, name)| {
            let is_text = name.ends_with(".dvc") || name.ends_with(".gitignore");
            let show = || text(git().args(["show", &format!("{commit}:{name}")]));
            // Lines are in the order in which they were added.
            let sorted = |text: String| text.lines().sorted().join("\n");
            (name.to_owned(), if is_text { sorted(show()) } else { entry.to_owned() })
        });
        told.collect()
    }

    /// With changes of every kind, and folders that were moved, replaced and removed.
    pub(super) fn changed() -> Self {
        let mut writable = Self::new();
        let put = |seed| writable.registry.put(&noise(seed, 5000)).unwrap();
        let songs = [("one", put(11)), ("two", put(12)), ("deep/three", put(13))];
        writable.registry.track_folder("songs", &songs).unwrap();
        writable.registry.text("texts/one", "one").unwrap();
        writable.registry.text("texts/two", "two").unwrap();
        writable.registry.commit("Add songs", DATE).unwrap();
        writable.remount();
        change(&writable);
        let path = |name: &str| writable.path(name);
        fs::rename(path("songs"), path("tunes")).unwrap();
        fs::rename(path("texts"), path("more/texts")).unwrap();
        fs::rename(path("data"), path("archive")).unwrap();
        fs::create_dir(path("data")).unwrap();
        fs::write(path("data/b.bin"), "another").unwrap();
        fs::remove_file(path("link")).unwrap();
        fs::create_dir(path("link")).unwrap();
        fs::write(path("link/inside.txt"), "inside\n").unwrap();
        fs::create_dir_all(path("empty/folder")).unwrap();
        symlink("../note.txt", path("more/link")).unwrap();
        writable
    }
}

#[test]
fn chosen_paths_are_recorded_and_the_rest_shows_as_before() {
    let all = Writable::changed();
    let whole = all.snapshot(&["--dir", "set"]);
    let orders: [&[&[&str]]; 4] = [
        &[&["archive/a.bin"], &["note.txt", "more/texts/one"], &["set/y"], &["link", "tunes"], &[]],
        &[&["data"], &["docs/deeper/page.txt", "set"], &["songs/deep", "texts"], &[]],
        &[&["archive/deep", "README.md"], &["data/b.bin"], &["large.bin", "more/tool"], &[]],
        &[&["archive/moved.bin", "tunes/two"], &["docs"], &["archive", "tunes/one"], &[]],
    ];
    for order in orders {
        let mut writable = Writable::changed();
        let before = shown(writable.mounted().dir());
        let mut last = String::new();
        for paths in order {
            let told = writable.changes().len();
            let args = [&["--dir", "set"], *paths].concat();
            last = writable.snapshot(&args);
            assert_eq!(shown(writable.mounted().dir()), before, "{order:?} after {paths:?}");
            assert!(writable.changes().len() < told, "{order:?} after {paths:?}");
            let is_all = paths.is_empty();
            assert_eq!(writable.path("empty/folder").exists(), !is_all, "{order:?} {paths:?}");
            writable.remount();
            assert_eq!(shown(writable.mounted().dir()), before, "{order:?} mounted {paths:?}");
        }
        assert_eq!(writable.changes(), Vec::<String>::new());
        let mut git = writable.sandbox.git(writable.registry.repository());
        succeed(git.args(["fsck", "--strict"]));
        let (ours, expected) = (writable.tree_of(&last), all.tree_of(&whole));
        let others = ours.iter().filter(|(name, text)| expected.get(*name) != Some(text));
        assert_eq!(others.collect::<Vec<_>>(), [], "{order:?}");
        assert_eq!(ours.len(), expected.len(), "{order:?}");
    }
}

#[test]
fn a_dry_run_says_what_the_choice_and_the_rules_come_to() {
    let writable = Writable::new();
    change(&writable);
    let (code, said) = writable.run("snapshot", &["--dry-run", "more", "note.txt"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("would be recorded: 3 added"), "{said}");
    assert!(said.contains("[more/tool.dvc]") && !said.contains("README.md"), "{said}");
    let rules = ["--dry-run", "--git", "more/*", "--dvc", "/note.txt", "--dir", "set"];
    let (_, said) = writable.run("snapshot", &rules);
    for line in ["more/tool (68.36 KiB)  [git]", "note.txt (7 B)  [note.txt.dvc]", "[set.dvc]"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(writable.changes().len(), 13);
    let (code, said) = writable.run("snapshot", &["-m", "x", ".dvc/config"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing has changed"), "{said}");
    let (code, said) = writable.run("snapshot", &["-m", "x", "../out"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn what_comes_from_git_or_goes_there_keeps_its_bytes() {
    let writable = Writable::new();
    fs::rename(writable.path("README.md"), writable.path("data/readme")).unwrap();
    fs::rename(writable.path("docs/deep/page.txt"), writable.path("page.wav")).unwrap();
    let before = shown(writable.mounted().dir());
    writable.snapshot(&["--dvc", "*.wav"]);
    assert_eq!(shown(writable.mounted().dir()), before);
    assert!(writable.path("page.wav.dvc").exists());
    fs::rename(writable.path("data/readme"), writable.path("text")).unwrap();
    let (code, said) = writable.run("snapshot", &["-m", "x", "--git", "text"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("its bytes are with DVC"), "{said}");
    assert_eq!(fs::read_to_string(writable.path("text")).unwrap(), "read me\n");
}

#[test]
fn dvcignore_keeps_new_files_out() {
    let mut writable = Writable::new();
    writable.registry.text("data.dvcignore", "").unwrap();
    writable.registry.text(".dvcignore", "*.tmp\ncache/\n").unwrap();
    writable.registry.commit("Ignore", DATE).unwrap();
    writable.remount();
    fs::create_dir(writable.path("data/cache")).unwrap();
    for name in ["data/x.tmp", "data/cache/y", "sound.tmp", "data/kept"] {
        fs::write(writable.path(name), noise(7, 70_000)).unwrap();
    }
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(0), "what is ignored is no failure: {said}");
    assert!(said.contains("data/x.tmp: a .dvcignore keeps it out"), "{said}");
    assert!(said.contains("1 path recorded"), "{said}");
    assert_eq!(writable.changes(), ["added data/cache/y", "added data/x.tmp", "added sound.tmp"]);
    assert!(fs::read(writable.path("data/cache/y")).unwrap() == noise(7, 70_000));
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing has changed but what is kept out"), "{said}");
    // The rules themselves may be among the changes.
    fs::write(writable.path(".dvcignore"), "cache/\n").unwrap();
    let (_, said) = writable.run("snapshot", &["-m", "x"]);
    assert!(said.contains("3 paths recorded"), "{said}");
}

#[test]
fn a_manifest_that_was_made_by_hand_is_composed_as_by_dvc() {
    let mut writable = Writable::new();
    let manifest = |registry: &crate::registry_builder::RegistryBuilder| {
        let dotfile = fs::read_to_string(registry.repository().join("data.dvc")).unwrap();
        let md5 = dotfile.split("md5: ").nth(1).unwrap().split(".dir").next().unwrap().to_owned();
        let (two, rest) = md5.split_at(2);
        (md5.clone(), registry.objects().join(format!("files/md5/{two}/{rest}.dir")), dotfile)
    };
    let (old, place, dotfile) = manifest(&writable.registry);
    let sorted = fs::read_to_string(&place).unwrap();
    let mut entries: Vec<_> =
        sorted.trim_matches(['[', ']']).split("}, ").map(|it| it.trim_end_matches('}')).collect();
    entries.reverse();
    let by_hand = format!("[\n  {}}}\n]\n", entries.join("},\n  "));
    let md5 = writable.registry.put(by_hand.as_bytes()).unwrap().md5();
    let (two, rest) = md5.split_at(2);
    let object = writable.registry.objects().join(format!("files/md5/{two}/{rest}"));
    fs::rename(&object, object.with_extension("dir")).unwrap();
    writable.registry.text("data.dvc", &dotfile.replace(&old, &md5)).unwrap();
    writable.registry.commit("Write a manifest by hand", DATE).unwrap();
    writable.remount();
    fs::write(writable.path("data/new"), "new").unwrap();
    writable.snapshot(&[]);
    fs::remove_file(writable.path("data/new")).unwrap();
    writable.snapshot(&[]);
    let now = fs::read_to_string(writable.path("data.dvc")).unwrap();
    assert!(now.contains(&old), "{now}");
}

/// A fixture with a writable mount of one of its tags.
pub(super) struct Changed {
    top: PathBuf,
    mount: Mount,
    /// Last, so that it outlives the mount.
    pub(super) sandbox: Sandbox,
}

impl Changed {
    fn new(name: &'static str, tag: &str) -> Self {
        let sandbox = Sandbox::new();
        let place = Fixture::read(name).unpack(&sandbox);
        Self::at(place, tag, sandbox)
    }

    /// With all that the fixture's remotes have, and those of its imports, in DVC's cache.
    pub(super) fn cached(name: &'static str, tag: &str) -> Self {
        let sandbox = Sandbox::new();
        let place = Fixture::read(name).unpack_for_dvc(&sandbox);
        Self::at(place, tag, sandbox)
    }

    fn at(place: Place, tag: &str, sandbox: Sandbox) -> Self {
        let dir = sandbox.folder("mnt");
        let overlay = format!("--overlay={}", sandbox.path("overlay").display());
        let mount = sandbox.mount_at(&dir, place.work_tree(), &["--rev", tag, &overlay]);
        Self { sandbox, top: place.top, mount }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.mount.path(name)
    }

    pub(super) fn snapshot(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut dvcfs = self.sandbox.dvcfs(["snapshot", "-m", "Change"]);
        let output = output(dvcfs.arg(self.mount.dir()).args(args));
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// A clone at the commit of a snapshot with everything pulled, as the other side of DVC.
    fn pulled(&self, said: &str, dvc: &mut Dvc) -> PathBuf {
        let clone = self.clone_at(said.lines().next().unwrap(), "other");
        let outbox = self.sandbox.path("state/outbox");
        self.dvc(dvc, &clone, &["cache", "dir", "--local", outbox.to_str().unwrap()]);
        self.dvc(dvc, &clone, &["pull"]);
        clone
    }

    /// A clone at a commit, or a tag.
    pub(super) fn clone_at(&self, commit: &str, name: &str) -> PathBuf {
        let clone = self.top.join(name);
        let mut git = self.sandbox.git(&self.top);
        succeed(git.args(["clone", "--quiet", "clone", name]));
        let git = || self.sandbox.git(&clone);
        succeed(git().args(["fetch", "--quiet", "origin", "refs/dvcfs/*:refs/theirs/*"]));
        succeed(git().args(["checkout", "--quiet", "-B", "main", commit]));
        clone
    }

    pub(super) fn dvc(&self, dvc: &mut Dvc, clone: &Path, words: &[&str]) -> String {
        let case = words[1..].iter().map(|word| (*word).to_owned()).collect();
        let printed = dvc.run(&self.sandbox, clone, words[0], &[case]).remove(0);
        String::from_utf8(printed.unwrap_or_else(|| panic!("dvc {words:?}"))).unwrap()
    }

    fn assert_clean(&self, clone: &Path) {
        let mut git = self.sandbox.git(clone);
        assert_eq!(text(git.args(["diff"])), "");
        let mut git = self.sandbox.git(clone);
        assert_eq!(text(git.args(["status", "--porcelain"])), "");
    }
}

#[test]
fn what_dvc_2_recorded_is_upgraded_as_dvc_3_does() {
    let changed = Changed::new("legacy-2x", "l2");
    fs::write(changed.path("docs/new.txt"), "a\r\nb\r\n").unwrap();
    fs::write(changed.path("crlf.txt"), "other\r\n").unwrap();
    fs::rename(changed.path("wav"), changed.path("sounds")).unwrap();
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(0), "{said}");
    let mut dvc = Dvc::start(&changed.sandbox);
    let clone = changed.pulled(&said, &mut dvc);
    assert_eq!(
        changed.dvc(&mut dvc, &clone, &["status", "docs", "crlf.txt", "sounds"]),
        "Data and pipelines are up to date.\n"
    );
    for name in ["docs/new.txt", "crlf.txt"] {
        assert_eq!(fs::read(clone.join(name)).unwrap(), fs::read(changed.path(name)).unwrap());
    }
    changed.dvc(&mut dvc, &clone, &["add", "docs", "crlf.txt", "sounds"]);
    changed.assert_clean(&clone);
}

#[test]
fn what_dvc_2_recorded_stays_as_it_is_where_its_files_cannot_be_had() {
    let changed = Changed::new("legacy-2x", "l2");
    fs::write(changed.path("docs/new.txt"), "new\n").unwrap();
    let lost = lose_contents(&changed.top.join("store"));
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("docs: "), "{said}");
    assert!(said.contains("there is no such object"), "{said}");
    assert_eq!(fs::read_to_string(changed.path("docs/new.txt")).unwrap(), "new\n");
    let mut git = changed.sandbox.git(&changed.top.join("clone"));
    assert_eq!(text(git.args(["for-each-ref", "refs/dvcfs/snapshots"])), "");

    // What does not go through their hashes can be recorded.
    fs::write(changed.path("note"), "a note\n").unwrap();
    let (code, said) = changed.snapshot(&[changed.path("note").to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    for (path, bytes) in lost {
        fs::write(path, bytes).unwrap();
    }
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(changed.path("docs/new.txt")).unwrap(), "new\n");
}

/// Takes all contents out of a store, but not the manifests.
fn lose_contents(store: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut lost = Vec::new();
    for entry in fs::read_dir(store).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            lost.extend(lose_contents(&path));
        } else if path.extension().is_none() {
            lost.push((path.clone(), fs::read(&path).unwrap()));
            fs::remove_file(path).unwrap();
        }
    }
    lost
}

#[test]
fn a_file_that_goes_to_another_remote_and_cannot_be_had_stays_where_it_was() {
    let mut writable = Writable::new();
    let repository = writable.registry.repository().to_owned();
    let other = "['remote \"other\"']\n    url = ../../other\n";
    let config = fs::read_to_string(repository.join(".dvc/config")).unwrap() + other;
    writable.registry.text(".dvc/config", &config).unwrap();
    let record = fs::read_to_string(repository.join("data.dvc")).unwrap();
    writable.registry.text("data.dvc", &(record + "  remote: other\n")).unwrap();
    writable.registry.commit("Keep data elsewhere", DATE).unwrap();
    let copied = ["-r", "store", "other"];
    let mut copy = std::process::Command::new("cp");
    succeed(copy.current_dir(writable.sandbox.path("")).args(copied));
    writable.remount();
    fs::rename(writable.path("large.bin"), writable.path("data/large.bin")).unwrap();
    fs::write(writable.path("data/new"), "new").unwrap();
    let lost = lose_contents(writable.registry.objects());
    let told = writable.changes();
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("data/large.bin: "), "{said}");
    assert!(said.contains("there is no such object"), "{said}");
    assert_eq!((writable.changes(), writable.snapshot_ref()), (told, String::new()));
    for (path, bytes) in lost {
        fs::write(path, bytes).unwrap();
    }
    let commit = writable.snapshot(&[]);
    let touched = [".gitignore", "data.dvc", "large.bin.dvc"];
    assert_eq!(writable.touched(&commit), touched);
    let large = noise(4, super::LARGE);
    assert!(fs::read(writable.path("data/large.bin")).unwrap() == large);
    let waits = walkdir_count(&writable.outbox().join("files"));
    assert_eq!(waits, 3, "the two files and the manifest");
}

#[test]
fn adding_to_a_folder_fetches_its_manifest_and_none_of_its_files() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let names: Vec<_> = (0..50).map(|n| format!("{n:02}")).collect();
    let put = |n: u64| registry.put(&noise(n, 1000)).unwrap();
    let files: Vec<_> = names.iter().zip(1..).map(|(name, n)| (&name[..], put(n))).collect();
    registry.track_folder("data", &files).unwrap();
    registry.commit("Add data", DATE).unwrap();
    let overlay = format!("--overlay={}", sandbox.path("overlay").display());
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main", &overlay]);
    fs::write(mount.path("data/new"), "new").unwrap();
    let mut snapshot = sandbox.dvcfs(["snapshot", "-m", "Add a file"]);
    succeed(snapshot.arg(mount.dir()));
    let asked: Vec<_> = server.log().into_iter().map(|it| (it.method, it.path)).collect();
    assert!(asked.len() == 1 && asked[0].1.ends_with(".dir"), "{asked:?}");
    let record = fs::read_to_string(mount.path("data.dvc")).unwrap();
    assert!(record.contains("  size: 50003\n  nfiles: 51\n"), "{record}");
}

#[test]
fn what_a_stage_makes_is_recorded_by_force_as_by_dvc_commit() {
    let changed = Changed::new("pipeline", "p2");
    fs::write(changed.path("prepared/a.out"), "by hand\n").unwrap();
    fs::write(changed.path("prepared/more"), "more\n").unwrap();
    fs::write(changed.path("one.bin"), "two\n").unwrap();
    fs::write(changed.path("train.json"), "{\"n\": 2}\n").unwrap();
    fs::write(changed.path("work/en/rate.txt"), "en 9\n").unwrap();
    fs::write(changed.path("shared/en.txt"), "english\n").unwrap();
    let (code, said) = changed.snapshot(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("train.json: a stage of dvc.yaml makes it"), "{said}");
    assert!(said.contains("nothing can be recorded") && said.contains("--force"), "{said}");
    let (code, said) = changed.snapshot(&["--force"]);
    assert_eq!(code, Some(0), "{said}");
    let mut dvc = Dvc::start(&changed.sandbox);
    let clone = changed.pulled(&said, &mut dvc);
    changed.dvc(&mut dvc, &clone, &["commit", "-f"]);
    changed.assert_clean(&clone);
    for name in ["prepared/a.out", "prepared/more", "one.bin", "train.json", "shared/en.txt"] {
        assert_eq!(fs::read(clone.join(name)).unwrap(), fs::read(changed.path(name)).unwrap());
    }
}

#[test]
fn outputs_without_a_copy_stay_in_git_and_their_hash_is_recorded() {
    let mut writable = Writable::new();
    let dotfile = |hash: &str, path: &str| {
        format!("outs:\n- md5: {hash}\n  size: 1\n  hash: md5\n  path: {path}\n  cache: false\n")
    };
    let old = "0cc175b9c0f1b6a831c399e269772661";
    writable.registry.text("plain.csv", "a").unwrap();
    writable.registry.text("plain.csv.dvc", &dotfile(old, "plain.csv")).unwrap();
    writable.registry.text("plots/a", "a").unwrap();
    let folder = dotfile(&format!("{old}.dir"), "plots").replace("  hash", "  nfiles: 1\n  hash");
    writable.registry.text("plots.dvc", &folder).unwrap();
    writable.registry.commit("Track without a copy", DATE).unwrap();
    writable.remount();
    fs::write(writable.path("plain.csv"), noise(5, 70_000)).unwrap();
    fs::write(writable.path("plots/b"), "b").unwrap();
    fs::set_permissions(writable.path("plots/b"), fs::Permissions::from_mode(0o644)).unwrap();
    let commit = writable.snapshot(&[]);
    let clone = writable.clone_at(&commit, "clone");
    let mut dvc = Dvc::start(&writable.sandbox);
    let status = writable.dvc(&mut dvc, &clone, "status", &["plain.csv.dvc", "plots.dvc"]);
    assert_eq!(status, "Data and pipelines are up to date.\n");
    writable.dvc(&mut dvc, &clone, "commit", &["-f", "plain.csv.dvc", "plots.dvc"]);
    let mut git = writable.sandbox.git(&clone);
    assert_eq!(text(git.args(["status", "--porcelain"])), "");
    let blobs = walkdir_count(&writable.outbox().join("files"));
    assert_eq!(blobs, 0, "nothing of it goes to the outbox");
}

/// How many files there are below a folder.
fn walkdir_count(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { walkdir_count(&path) } else { 1 }).sum()
}

#[test]
fn what_is_not_pushed_keeps_saying_so() {
    let mut writable = Writable::new();
    let dotfile = writable.registry.repository().join("large.bin.dvc");
    let text = fs::read_to_string(dotfile).unwrap() + "  push: false\n  remote: disk\n";
    writable.registry.text("large.bin.dvc", &text).unwrap();
    writable.registry.commit("Keep it here", DATE).unwrap();
    writable.remount();
    fs::write(writable.path("large.bin"), "small").unwrap();
    writable.snapshot(&[]);
    let now = fs::read_to_string(writable.path("large.bin.dvc")).unwrap();
    assert!(now.ends_with("  push: false\n  remote: disk\n"), "{now}");
    assert!(now.contains("size: 5\n"), "{now}");
}

#[test]
fn a_path_that_nobody_knows_is_a_mistake() {
    let writable = Writable::new();
    fs::remove_file(writable.path("data/a.bin")).unwrap();
    for args in [&["data/nope"][..], &["data/a.bin", "data/*.bin", "--dry-run"]] {
        let (code, said) = writable.run("snapshot", &[&["-m", "x"], args].concat());
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("no such file or folder, now or before: data/"), "{said}");
    }
    assert_eq!(writable.changes().len(), 1);
    writable.snapshot(&["data/a.bin"]);
}
