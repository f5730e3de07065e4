//! Random questions to a mount, answered as a plain map of the manifest answers them.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use crate::support::{
    Entry, Fixture, Listing, Mount, Sandbox, assert_same, in_each_open_mode, list, succeed,
};

/// One question. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Question {
    /// Attributes of the path at an index.
    Look(usize),
    /// A name that may not be there, in the folder of the path at an index.
    LookFor(usize, String),
    /// The names in the folder of the path at an index.
    List(usize),
    /// Some bytes of the file at an index.
    Read(usize, u64, usize),
    /// A second handle is opened on the file at an index, or the oldest one closed.
    Hold(usize),
}

fn question() -> impl Strategy<Value = Question> {
    let index = 0..10_000_usize;
    prop_oneof![
        index.clone().prop_map(Question::Look),
        (index.clone(), "[a-z][a-z.]{0,11}").prop_map(|(at, name)| Question::LookFor(at, name)),
        index.clone().prop_map(Question::List),
        (index.clone(), 0..5000_u64, 0..3000_usize)
            .prop_map(|(at, offset, size)| Question::Read(at, offset, size)),
        index.prop_map(Question::Hold),
    ]
}

/// What the mount must answer, and what it keeps open.
struct Model<'a> {
    root: PathBuf,
    tree: &'a Listing,
    paths: Vec<&'a [u8]>,
    /// The bytes of every file, from an ordinary disk.
    copy: PathBuf,
    held: Vec<(usize, File)>,
}

fn join(base: &Path, path: &[u8]) -> PathBuf {
    base.join(OsStr::from_bytes(path))
}

/// The folder a path lies in, with a slash at its end unless it is the root.
fn folder_of(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    &path[..end]
}

impl Model<'_> {
    fn at(&self, index: usize) -> &[u8] {
        self.paths[index % self.paths.len()]
    }

    fn ask(&mut self, question: &Question) {
        match question {
            Question::Look(at) => self.look(self.at(*at)),
            Question::LookFor(at, name) => {
                let path = [folder_of(self.at(*at)), name.as_bytes()].concat();
                self.look(&path);
            }
            Question::List(at) => self.list(folder_of(self.at(*at))),
            Question::Read(at, offset, size) => self.read(*at, *offset, *size),
            Question::Hold(at) => self.hold(*at),
        }
    }

    fn look(&self, path: &[u8]) {
        let found = fs::symlink_metadata(join(&self.root, path));
        let found = match (self.tree.get(path), found) {
            (None, Err(error)) => {
                return assert_eq!(
                    error.kind(),
                    io::ErrorKind::NotFound,
                    "{}",
                    path.escape_ascii()
                );
            }
            (None, Ok(_)) => panic!("{} should not be there", path.escape_ascii()),
            (Some(_), Err(error)) => panic!("{}: {error}", path.escape_ascii()),
            (Some(entry), Ok(found)) => (entry, found),
        };
        match found {
            (Entry::Folder, metadata) => assert!(metadata.is_dir()),
            (Entry::Link(target), metadata) => {
                assert!(metadata.is_symlink());
                assert_eq!(metadata.len(), target.len() as u64);
            }
            (Entry::File { size, is_exec, .. }, metadata) => {
                assert_eq!(Ok(metadata.len()), *size);
                assert_eq!(metadata.mode() & 0o777, if *is_exec { 0o555 } else { 0o444 });
                assert_eq!(metadata.nlink(), 1);
            }
            (Entry::ClosedFolder(_), _) => unreachable!("manifests know no such folder"),
        }
    }

    fn list(&self, folder: &[u8]) {
        let entries = fs::read_dir(join(&self.root, folder)).unwrap();
        let found: BTreeSet<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
        let below = self.tree.keys().filter_map(|path| path.strip_prefix(folder));
        let names = below.filter(|rest| !rest.contains(&b'/'));
        assert_eq!(found, names.map(|name| OsString::from_vec(name.to_vec())).collect());
    }

    /// The path of a regular file, the next one from an index on.
    fn file(&self, index: usize) -> &[u8] {
        let is_file = |path: &[u8]| matches!(self.tree[path], Entry::File { .. });
        let mut candidates = (index..index + self.paths.len()).map(|at| self.at(at));
        candidates.find(|path| is_file(path)).unwrap()
    }

    fn read(&self, index: usize, offset: u64, size: usize) {
        let path = self.file(index);
        let read = |file: &File| {
            let mut bytes = vec![0; size];
            let count = file.read_at(&mut bytes, offset).unwrap();
            bytes.truncate(count);
            bytes
        };
        let expected = read(&File::open(join(&self.copy, path)).unwrap());
        let held = self.held.iter().filter(|(at, _)| *at == index).map(|(_, file)| read(file));
        let fresh = read(&File::open(join(&self.root, path)).unwrap());
        for found in held.chain([fresh]) {
            assert!(found == expected, "{} at {offset}, {size} bytes", path.escape_ascii());
        }
    }

    fn hold(&mut self, index: usize) {
        if self.held.len() > 20 {
            self.held.remove(0);
        }
        let file = File::open(join(&self.root, self.file(index))).unwrap();
        self.held.push((index, file));
    }
}

/// Copies a mounted tree to an ordinary disk.
fn copy(sandbox: &Sandbox, mount: &Mount, tag: &str) -> PathBuf {
    let copy = sandbox.path(format!("copy of {tag}"));
    let mut cp = sandbox.tool("cp");
    succeed(cp.args(["-dR", "--preserve=mode"]).arg(mount.path("tags").join(tag)).arg(&copy));
    copy
}

in_each_open_mode! {
    random_questions_are_answered_as_the_manifest_says,
}

fn random_questions_are_answered_as_the_manifest_says() {
    for name in ["audio-registry", "legacy-2x", "modes", "nested-dirs", "odd-names"] {
        let sandbox = Sandbox::new();
        let fixture = Fixture::read(name);
        let place = fixture.unpack(&sandbox);
        // The copy comes from a mount of its own, so that the one that is asked begins cold.
        let (tag, revision) = fixture.manifest.revisions.first_key_value().unwrap();
        let tree = revision.tree();
        let copy = copy(&sandbox, &sandbox.mount(place.work_tree()), tag);
        assert_same(name, &tree, &list(&copy));
        let cold = Sandbox::new();
        let mount = cold.mount(place.work_tree());
        let mut model = Model {
            root: mount.path("tags").join(tag),
            tree: &tree,
            paths: tree.keys().map(|path| &path[..]).collect(),
            copy,
            held: Vec::new(),
        };
        let config =
            ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
        let mut runner = TestRunner::new(config);
        let model = RefCell::new(&mut model);
        let asked = runner.run(&vec(question(), 1..60), |questions| {
            for question in &questions {
                model.borrow_mut().ask(question);
            }
            Ok(())
        });
        asked.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
