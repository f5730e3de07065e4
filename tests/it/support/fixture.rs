//! The registries in `tests/fixtures` and what their manifests say.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use super::{Content, Entry, Listing, Sandbox, succeed};

/// Every fixture.
pub(crate) const FIXTURES: [&str; 14] = [
    "audio-registry",
    "cloud-versioned",
    "git-extras",
    "hostile",
    "imports",
    "layouts",
    "legacy-2x",
    "mixed-2-3",
    "modes",
    "nested-dirs",
    "odd-names",
    "pipeline",
    "remotes",
    "subrepos",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A registry in an archive, and its manifest.
pub(crate) struct Fixture {
    name: &'static str,
    pub(crate) manifest: Manifest,
}

/// What a fixture holds.
#[derive(Deserialize)]
pub(crate) struct Manifest {
    setup: Vec<SetupStep>,
    pub(crate) revisions: BTreeMap<String, Revision>,
}

#[derive(Deserialize)]
struct SetupStep {
    bare: String,
    clone: String,
}

/// What one tag of it holds.
#[derive(Deserialize)]
pub(crate) struct Revision {
    pub(crate) commit: String,
    /// How `dvc pull` ended; 0 when it gave everything.
    pub(crate) rc: i32,
    entries: Vec<Line>,
    entries_legacy_reader: Option<Vec<Line>>,
}

#[derive(Deserialize)]
struct Line {
    path: String,
    kind: Kind,
    size: Option<u64>,
    md5: Option<String>,
    exec: Option<bool>,
    target: Option<String>,
    from: Option<Origin>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    File,
    Dir,
    Symlink,
}

#[derive(PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    Git,
    Dvc,
}

impl Fixture {
    pub(crate) fn read(name: &'static str) -> Self {
        let manifest = File::open(folder().join(format!("{name}.json"))).unwrap();
        Self { name, manifest: serde_json::from_reader(manifest).unwrap() }
    }

    /// Unpacks the registry in a sandbox and clones it where its settings expect that.
    pub(crate) fn unpack(&self, sandbox: &Sandbox) -> Place {
        let archive = folder().join(format!("{}.tar.gz", self.name));
        let parent = sandbox.folder("fixture");
        let extract = ["--extract", "--preserve-permissions", "--no-same-owner", "--file"];
        succeed(Command::new("tar").args(extract).arg(archive).arg("-C").arg(&parent));
        let place = Place { top: parent.join(self.name) };
        let repo = SetupStep { bare: "repo.git".into(), clone: "clone".into() };
        for step in self.manifest.setup.iter().chain([&repo]) {
            let mut clone = sandbox.git(&place.top);
            succeed(clone.args(["clone", "--quiet", &step.bare, &step.clone]));
        }
        place
    }

    /// [`Self::unpack`], with all that DVC needs to look into tracked folders at any revision: it
    /// would look for relative remotes from the root of the machine.
    pub(crate) fn unpack_for_dvc(&self, sandbox: &Sandbox) -> Place {
        let place = self.unpack(sandbox);
        let clone = place.work_tree();
        for project in ["", "proj/a", "proj/a/nested", "proj/b"] {
            let dot_dvc = clone.join(project).join(".dvc");
            if !dot_dvc.is_dir() {
                continue;
            }
            fs::create_dir_all(dot_dvc.join("cache")).unwrap();
            for entry in fs::read_dir(&place.top).unwrap() {
                let store = entry.unwrap().path();
                if store.file_name().unwrap().to_str().unwrap().starts_with("store") {
                    let objects = store.join(".");
                    succeed(Command::new("cp").arg("-rn").arg(objects).arg(dot_dvc.join("cache")));
                }
            }
        }
        place
    }
}

/// An unpacked fixture.
pub(crate) struct Place {
    pub(crate) top: PathBuf,
}

impl Place {
    /// The clone that is mounted.
    pub(crate) fn work_tree(&self) -> PathBuf {
        self.top.join("clone")
    }

    /// Gives the clone settings of its own, which git does not know.
    pub(crate) fn local_config(&self, text: &str) {
        fs::write(self.work_tree().join(".dvc/config.local"), text).unwrap();
    }
}

impl Revision {
    /// The whole tree, as the oldest DVC that understands it makes it.
    pub(crate) fn tree(&self) -> Listing {
        to_listing(self.entries_legacy_reader.as_ref().unwrap_or(&self.entries))
    }

    /// Whether DVC gave the whole tree.
    pub(crate) fn is_whole(&self) -> bool {
        self.rc == 0 || self.entries_legacy_reader.is_some()
    }

    /// The part of the tree that git holds.
    pub(crate) fn git_part(&self) -> Listing {
        to_listing(self.entries.iter().filter(|line| line.from == Some(Origin::Git)))
    }
}

fn to_listing<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Listing {
    let entries = lines.into_iter().map(|line| (line.path.clone().into_bytes(), line.entry()));
    entries.collect()
}

impl Line {
    fn entry(&self) -> Entry {
        match self.kind {
            Kind::Dir => Entry::Folder,
            Kind::Symlink => Entry::Link(self.target.clone().unwrap().into_bytes()),
            Kind::File => Entry::File {
                size: Ok(self.size.unwrap()),
                is_exec: self.exec.unwrap(),
                content: Content::Md5(self.md5.clone().unwrap()),
            },
        }
    }
}
