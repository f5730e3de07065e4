//! The demonstration's registry, judged by DVC itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    demo_registry::{self, DemoRevision, REMOTE_PATH},
    s3server::{ACCESS_KEY, Options, S3Server, SECRET_KEY},
    support::{Sandbox, md5_of, text},
};

/// The demonstration's registry, served.
struct Demo {
    sandbox: Sandbox,
    registry: PathBuf,
    revisions: Vec<DemoRevision>,
    _server: S3Server,
}

impl Demo {
    fn start() -> Self {
        let sandbox = Sandbox::new()
            .with("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .with("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        let (registry, root) = (sandbox.path("registry"), sandbox.path("s3"));
        let server = S3Server::start(root.clone(), Options::default());
        let revisions = demo_registry::make(&registry, &root.join(REMOTE_PATH), &server.endpoint());
        Self { sandbox, registry, revisions: revisions.unwrap(), _server: server }
    }

    /// DVC itself, from the virtual environment that `tests/all.sh` makes.
    fn dvc(&self, dir: &Path, args: &[&str]) -> Command {
        let environment = std::env::var_os("DVCFS_TEST_VENV");
        let environment = environment.expect("DVCFS_TEST_VENV names an environment that has DVC");
        let mut command = self.sandbox.tool(Path::new(&environment).join("bin/dvc"));
        command.args(args).current_dir(dir);
        command
    }

    fn git(&self, dir: &Path, args: &[&str]) -> String {
        text(self.sandbox.git(dir).args(args))
    }
}

#[test]
fn dvc_clones_and_pulls_every_revision_of_the_demo_registry() {
    let demo = Demo::start();
    let clone = demo.sandbox.path("clone");
    demo.git(&demo.registry, &["clone", "--quiet", ".", clone.to_str().unwrap()]);
    for revision in &demo.revisions {
        demo.git(&clone, &["checkout", "--quiet", revision.name]);
        text(&mut demo.dvc(&clone, &["pull", "--quiet"]));
        let md5 = |path: &String| (path.clone(), md5_of(&clone.join(path)).unwrap().0);
        let found: BTreeMap<_, _> = revision.files.keys().map(md5).collect();
        assert_eq!(found, revision.files, "{}", revision.name);
        let status = text(&mut demo.dvc(&clone, &["status"]));
        assert_eq!(status, "Data and pipelines are up to date.", "{}", revision.name);
        assert_eq!(demo.git(&clone, &["status", "--porcelain"]), "", "{}", revision.name);
    }
}

#[test]
fn dvc_adds_the_files_of_the_demo_registry_again_without_changing_a_byte() {
    let demo = Demo::start();
    text(&mut demo.dvc(&demo.registry, &["pull", "--quiet"]));
    text(&mut demo.dvc(&demo.registry, &["add", "--quiet", "clips", "raw/audio/recording.wav"]));
    assert_eq!(demo.git(&demo.registry, &["status", "--porcelain"]), "");
}

#[test]
fn dvc_and_dvcfs_list_the_demo_registry_alike() {
    let demo = Demo::start();
    for revision in &demo.revisions {
        let args = ["list", ".", "-R", "--json", "--rev", revision.name];
        let theirs = entries(&mut demo.dvc(&demo.registry, &args));
        let ours = demo.sandbox.dvcfs([&args[..], &["--trust-remote"]].concat());
        let ours = entries({ ours }.current_dir(&demo.registry));
        assert_eq!(without_sizes(&ours), without_sizes(&theirs), "{}", revision.name);
        // DVC does not know the sizes inside tracked folders.
        for (our, their) in ours.iter().zip(&theirs).filter(|(_, their)| !their["size"].is_null()) {
            assert_eq!(our["size"], their["size"], "{}: {their:?}", revision.name);
        }
    }
}

/// An entry of a listing in JSON.
type Entry = serde_json::Map<String, Value>;

fn entries(list: &mut Command) -> Vec<Entry> {
    serde_json::from_str(&text(list)).unwrap()
}

fn without_sizes(entries: &[Entry]) -> Vec<Entry> {
    let without = |entry: &Entry| {
        let mut entry = entry.clone();
        entry.remove("size");
        entry
    };
    entries.iter().map(without).collect()
}
