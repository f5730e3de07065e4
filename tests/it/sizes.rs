//! What sizes cost that nobody knew, counted at the server.

mod index;
mod lies;

use std::{collections::HashSet, fs, path::Path, thread};

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, Request, S3Server},
    support::{DATE, Mount, Sandbox, registry_on_s3},
};

/// Files in each of the two folders.
const FILES: usize = 2000;

/// A registry on S3 with two folders of small files, mounted, whose manifests were not read yet.
struct Store {
    // In this order: the folder that all of it lies in can go only when nothing is mounted.
    mount: Mount,
    server: S3Server,
    registry: RegistryBuilder,
    sandbox: Sandbox,
}

fn content(folder: &str, n: usize) -> Vec<u8> {
    format!("{folder} {n:0width$}", width = n % 50 + 1).into_bytes()
}

impl Store {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (registry, server) = registry_on_s3(&sandbox);
        for folder in ["one", "two"] {
            let names: Vec<_> = (0..FILES).map(|n| format!("{n:04}")).collect();
            let blob = |n| registry.put(&content(folder, n)).unwrap();
            let files: Vec<_> = names.iter().zip(0..).map(|(it, n)| (&it[..], blob(n))).collect();
            registry.track_folder(folder, &files).unwrap();
        }
        registry.commit("Add files", DATE).unwrap();
        let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
        Self { mount, server, registry, sandbox }
    }

    /// Has the server refuse to list.
    fn refuse_lists(&self) {
        let refuse = |it: &Request| is_list(it).then_some(Fault::Status(403, "AccessDenied"));
        self.server.set_rule(refuse);
    }

    /// How many listings and questions for single objects there were.
    fn asked(&self) -> (usize, usize) {
        let log = self.server.log();
        (log.iter().filter(|it| is_list(it)).count(), self.server.requests("HEAD"))
    }
}

fn is_list(request: &Request) -> bool {
    request.query.contains("list-type=2")
}

/// Asks for the attributes of every file, as `ls -l` does, and compares the sizes.
fn assert_sizes(mount: &Path, folder: &str) {
    let entries = fs::read_dir(mount.join(folder)).unwrap();
    let count = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let n: usize = entry.file_name().to_str().unwrap().parse().unwrap();
            let size = entry.metadata().unwrap().len();
            assert_eq!(size, content(folder, n).len() as u64, "{folder}/{n}");
        })
        .count();
    assert_eq!(count, FILES);
}

#[test]
fn the_sizes_of_a_small_store_take_a_few_listings() {
    let store = Store::new();
    assert_sizes(store.mount.dir(), "one");
    let (lists, questions) = store.asked();
    assert!(lists <= 8 && questions == 0, "{lists} listings, {questions} questions");
    assert_eq!(store.server.requests("GET"), lists + 1, "the manifest, and no content");
    // Most of the other folder was seen on the way.
    assert_sizes(store.mount.dir(), "two");
    let (more_lists, questions) = store.asked();
    assert!(more_lists <= 2 * lists && questions <= 300, "{more_lists}, {questions} questions");
    assert_sizes(store.mount.dir(), "one");
    assert_eq!(store.asked(), (more_lists, questions), "what is known was asked again");
}

#[test]
fn a_server_that_refuses_to_list_is_asked_file_by_file_and_each_one_once() {
    let store = Store::new();
    store.refuse_lists();
    assert_sizes(store.mount.dir(), "one");
    let (lists, questions) = store.asked();
    assert_eq!(lists, 1);
    assert!(questions <= FILES, "{questions} questions");
    let requests = store.server.log().len();
    assert!(
        requests <= FILES + 1,
        "{requests} requests, with the manifest and the refused listing"
    );
    assert_sizes(store.mount.dir(), "two");
    assert_eq!(store.asked().0, 1, "it was asked to list again");
}

#[test]
fn a_sum_that_cannot_be_right_tells_no_size() {
    let store = Store::new();
    let declaration = store.registry.repository().join("one.dvc");
    let text = fs::read_to_string(&declaration).unwrap();
    let lines = text.lines().map(|line| if line.contains("size:") { "  size: 7" } else { line });
    let text: Vec<_> = lines.collect();
    store.registry.text("one.dvc", &text.join("\n")).unwrap();
    store.registry.commit("Tell a wrong sum", DATE).unwrap();
    store.refuse_lists();
    let mount = store.sandbox.mount_with(store.registry.repository(), &["--rev", "main"]);
    assert_sizes(mount.dir(), "one");
}

#[test]
fn many_programs_that_list_one_folder_cost_one_sizing() {
    let store = Store::new();
    store.refuse_lists();
    let mount = store.mount.dir();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_sizes(mount, "one"));
        }
    });
    let heads = store.server.log().into_iter().filter(|it| it.method == "HEAD");
    let paths: Vec<_> = heads.map(|it| it.path).collect();
    let different: HashSet<_> = paths.iter().collect();
    assert!(paths.len() <= FILES && different.len() == paths.len(), "{} questions", paths.len());
}

#[test]
fn what_one_daemon_has_learnt_another_knows() {
    let store = Store::new();
    let other = store.sandbox.mount_with(store.registry.repository(), &["--rev", "main"]);
    // The other one has the index open already, with next to nothing in it.
    assert_eq!(fs::metadata(other.path("two/0000")).unwrap().len(), 5);
    assert_sizes(store.mount.dir(), "one");
    let asked = store.asked();
    assert_sizes(other.dir(), "one");
    assert_eq!(store.asked(), asked);
    let before = store.server.log().len();
    let third = store.sandbox.mount_with(store.registry.repository(), &["--rev", "main"]);
    assert_sizes(third.dir(), "one");
    assert_eq!(store.server.log().len(), before, "a new daemon asks nothing");
}

#[test]
fn files_that_no_remote_has_fail_alone_and_are_asked_for_once() {
    const LOST: usize = 300;
    let store = Store::new();
    for n in 0..LOST {
        let blob = store.registry.put(&content("one", n)).unwrap();
        fs::remove_file(store.registry.objects().join(blob.path())).unwrap();
    }
    store.refuse_lists();
    let entries = fs::read_dir(store.mount.path("one")).unwrap();
    let failed = entries.filter(|entry| entry.as_ref().unwrap().metadata().is_err()).count();
    assert_eq!(failed, LOST);
    // A question for a missing object is followed by one that tells why.
    let requests = store.server.log().len();
    assert!(requests <= FILES + LOST + 2, "{requests} requests");
}
