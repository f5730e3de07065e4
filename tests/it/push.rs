//! Pushing: blobs to the remotes, the commit to its branch, and everything that is in the way.

mod bad_input;
mod crashes;
mod pruned;
mod sound;
mod story;
mod together;
mod told;
mod unmounted;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, Gate, Request, S3Server},
    support::{
        DATE, Dvc, Mount, PREFIX, Sandbox, Terminal, noise, output, registry_on_s3, succeed, text,
    },
};

/// A registry whose remote is a bucket, its bare upstream, and a writable mount of that.
struct Lab {
    server: S3Server,
    mount: Option<Mount>,
    /// Last, so that it outlives the mount.
    sandbox: Sandbox,
}

impl Lab {
    /// Mounts the upstream by its URL.
    fn new() -> Self {
        let mut lab = Self::unmounted(Sandbox::new(), |_| {});
        lab.mount(&lab.url(), &["--rev", "main"]);
        lab
    }

    /// With what `more` adds to the registry.
    fn unmounted(sandbox: Sandbox, more: impl FnOnce(&RegistryBuilder)) -> Self {
        let (registry, server) = registry_on_s3(&sandbox);
        let put = |seed, size| registry.put(&noise(seed, size)).unwrap();
        let files = [("a.bin", put(1, 20_000)), ("b.bin", put(2, 10)), ("c.bin", put(3, 5000))];
        registry.track_folder("data", &files).unwrap();
        registry.track_file("large.bin", &put(4, 100_000)).unwrap();
        registry.text("README.md", "read me\n").unwrap();
        more(&registry);
        registry.commit("Add data", DATE).unwrap();
        let origin = sandbox.path("origin.git");
        let mut git = sandbox.git(registry.repository());
        succeed(git.args(["clone", "--quiet", "--bare", "."]).arg(&origin));
        Self { sandbox, server, mount: None }
    }

    fn origin(&self) -> PathBuf {
        self.sandbox.path("origin.git")
    }

    fn url(&self) -> String {
        format!("file://{}", self.origin().display())
    }

    fn mount(&mut self, repository: &str, args: &[&str]) {
        self.mount = None;
        let overlay = format!("--overlay={}", self.sandbox.path("overlay").display());
        let dir = self.sandbox.folder("mnt");
        self.mount = Some(self.sandbox.mount_at(&dir, repository, &[args, &[&overlay]].concat()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mount.as_ref().unwrap().path(name)
    }

    fn run(&self, command: &str, args: &[&str]) -> (Option<i32>, String) {
        let mut dvcfs = self.sandbox.dvcfs([command]);
        let output = output(dvcfs.arg(self.sandbox.path("mnt")).args(args));
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Changes a folder, adds a file and makes a snapshot; gives its commit.
    fn change(&self) -> String {
        fs::write(self.path("data/new.bin"), noise(7, 30_000)).unwrap();
        fs::write(self.path("data/a.bin"), "other").unwrap();
        fs::remove_file(self.path("data/b.bin")).unwrap();
        fs::write(self.path("sound.wav"), noise(8, 400_000)).unwrap();
        fs::write(self.path("note.txt"), "a note\n").unwrap();
        self.snapshot()
    }

    fn snapshot(&self) -> String {
        let (code, said) = self.run("snapshot", &["-m", "Change things"]);
        assert_eq!(code, Some(0), "{said}");
        said.lines().next().unwrap().to_owned()
    }

    /// Pushes, which must succeed; gives what is said.
    fn push(&self, args: &[&str]) -> String {
        let (code, said) = self.run("push", args);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// Pushes, which must fail with this code; gives what is said.
    fn push_fails(&self, expected: i32, args: &[&str]) -> String {
        let (code, said) = self.run("push", args);
        assert_eq!(code, Some(expected), "{said}");
        assert!(said.contains("error: push ") && said.contains("hint: "), "{said}");
        said
    }

    /// Where the branch is upstream.
    fn tip(&self, branch: &str) -> String {
        text(self.sandbox.git(&self.origin()).args(["rev-parse", &format!("refs/heads/{branch}")]))
    }

    /// The snapshot that `status` says is not pushed, if it does.
    fn unpushed(&self) -> Option<String> {
        let mut status = self.sandbox.dvcfs(["status", "--json"]);
        let told = succeed(status.arg(self.sandbox.path("mnt")));
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        told[0]["overlay"]["snapshot"].as_str().map(str::to_owned)
    }

    /// The blobs and manifests that wait for being pushed.
    fn waiting(&self) -> usize {
        files_below(&self.sandbox.path("state/outbox/files"))
    }

    fn objects(&self) -> usize {
        files_below(&self.sandbox.path("s3").join(PREFIX))
    }

    /// A colleague with plain DVC gets everything, and finds nothing to do.
    fn colleague_pulls(&self, branch: &str, name: &str) -> PathBuf {
        let clone = self.sandbox.path(name);
        let mut git = self.sandbox.git(self.sandbox.folder("dvc").as_path());
        let from = self.origin();
        succeed(git.args(["clone", "--quiet", "--branch", branch]).arg(from).arg(&clone));
        let mut dvc = Dvc::start(&self.sandbox);
        let mut run = |command: &str, words: &[&str]| {
            let case = words.iter().map(|word| (*word).to_owned()).collect();
            let printed = dvc.run(&self.sandbox, &clone, command, &[case]).remove(0);
            String::from_utf8(printed.unwrap_or_else(|| panic!("dvc {command}"))).unwrap()
        };
        run("pull", &[]);
        assert_eq!(run("status", &[]), "Data and pipelines are up to date.\n");
        assert_eq!(run("status", &["-c"]), "Cache and remote 's3' are in sync.\n");
        assert_eq!(run("data", &["status"]), "No changes.\n");
        clone
    }
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count = |path: PathBuf| if path.is_dir() { files_below(&path) } else { 1 };
    entries.map(|entry| count(entry.unwrap().path())).sum()
}

/// Puts a hook into a repository.
fn hook(repository: &Path, name: &str, body: &str) {
    let hook = repository.join("hooks").join(name);
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).unwrap();
}

fn is_manifest(request: &Request) -> bool {
    request.path.ends_with(".dir")
}

#[test]
fn what_is_pushed_a_colleague_pulls() {
    let lab = Lab::new();
    let commit = lab.change();
    assert_eq!(lab.unpushed(), Some(commit.clone()));
    assert_eq!(lab.waiting(), 4);
    let before = lab.tip("main");
    lab.server.reset();
    let said = lab.push(&["--dry-run"]);
    assert!(said.contains("4 files would be pushed"), "{said}");
    assert_eq!((lab.tip("main"), lab.waiting(), lab.server.requests("PUT")), (before, 4, 0));

    lab.server.reset();
    let said = lab.push(&[]);
    assert!(said.contains("4 files pushed (") && said.contains("), 0 there before"), "{said}");
    assert!(said.contains(&format!("main of {} is at {commit}", lab.url())), "{said}");
    assert_eq!(lab.tip("main"), commit);
    let log = lab.server.log();
    let puts: Vec<_> = log.iter().filter(|request| request.method == "PUT").collect();
    assert!(puts.len() == 4 && is_manifest(puts[3]), "the manifest comes last: {puts:?}");
    let last_put = log.iter().rposition(|request| request.method == "PUT").unwrap();
    assert!(log.len() > last_put + 4, "everything is asked for again");

    // It is as it was, and nothing waits any more.
    assert_eq!((lab.unpushed(), lab.waiting()), (None, 0));
    assert!(fs::read(lab.path("sound.wav")).unwrap() == noise(8, 400_000));
    assert_eq!(lab.push(&[]), "nothing to push: dvcfs snapshot records what was changed\n");
    lab.server.reset();
    assert!(fs::read(lab.path("data/new.bin")).unwrap() == noise(7, 30_000));
    assert_eq!(lab.server.requests("GET"), 0, "the cache has it");

    let clone = lab.colleague_pulls("main", "clone");
    for name in ["data/a.bin", "data/c.bin", "data/new.bin", "large.bin", "note.txt", "sound.wav"] {
        let ours = fs::read(lab.path(name)).unwrap();
        assert!(fs::read(clone.join(name)).unwrap() == ours, "{name}");
    }
    assert!(!clone.join("data/b.bin").exists());
    let mirrors = lab.sandbox.path("state/mirrors");
    let mirror = fs::read_dir(mirrors).unwrap().map(|entry| entry.unwrap().path());
    let mirror = mirror.into_iter().find(|path| path.is_dir()).unwrap();
    let refs = text(lab.sandbox.git(&mirror).args(["for-each-ref", "refs/dvcfs"]));
    assert!(!refs.contains("snapshots") && !refs.contains("bases"), "{refs}");
    succeed(lab.sandbox.git(&mirror).args(["rev-list", "--objects", "--all", "--quiet"]));
    succeed(lab.sandbox.git(&lab.origin()).args(["fsck", "--strict"]));
}

#[test]
fn a_terminal_shows_how_far_it_is() {
    let lab = Lab::new();
    lab.change();
    let gate = Gate::new();
    let held = gate.clone();
    lab.server.set_rule(move |request| {
        let is_last = request.method == "PUT" && is_manifest(request);
        is_last.then(|| Fault::Stall(held.clone()))
    });
    let line = format!("exec \"$DVCFS\" push '{}'", lab.sandbox.path("mnt").display());
    let mut terminal = Terminal::run(&lab.sandbox, &line);
    for part in ["push", "3/4 files", " left"] {
        terminal.wait_for(part);
    }
    gate.open();
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("4 files pushed"), "{shown:?}");
}

#[test]
fn snapshots_that_were_not_pushed_go_together_and_the_next_ones_after_them() {
    let mut lab = Lab::new();
    lab.change();
    fs::remove_file(lab.path("data/new.bin")).unwrap();
    fs::write(lab.path("data/second.bin"), "second").unwrap();
    let second = lab.snapshot();
    lab.mount(&lab.url(), &["--rev", "main"]);
    assert_eq!(lab.unpushed(), Some(second.clone()));
    let (_, said) = lab.run("status", &[]);
    assert_eq!(said.matches("(not pushed)").count(), 2, "{said}");
    // The first one needs what the second has not any more.
    assert!(lab.push(&["--jobs", "1"]).contains("6 files pushed"));
    assert_eq!((lab.tip("main"), lab.waiting()), (second, 0));
    fs::write(lab.path("data/third.bin"), "third").unwrap();
    let third = lab.snapshot();
    assert!(lab.push(&[]).contains("2 files pushed"));
    assert_eq!(lab.tip("main"), third);
    lab.mount(&lab.url(), &["--rev", "main"]);
    assert_eq!(fs::read_to_string(lab.path("data/third.bin")).unwrap(), "third");
    lab.colleague_pulls("main", "clone");
}

#[test]
fn what_the_remote_has_is_not_sent_again() {
    let lab = Lab::new();
    fs::copy(lab.path("data/a.bin"), lab.path("copy.wav")).unwrap();
    fs::copy(lab.path("data/c.bin"), lab.path("data/copy.bin")).unwrap();
    fs::copy(lab.path("large.bin"), lab.path("again.wav")).unwrap();
    fs::create_dir(lab.path("twin")).unwrap();
    for name in ["a.bin", "b.bin", "c.bin"] {
        fs::copy(lab.path("data").join(name), lab.path("twin").join(name)).unwrap();
    }
    fs::write(lab.path("data/empty.wav"), "").unwrap();
    let (code, said) = lab.run("snapshot", &["-m", "Copy things", "--dir", "twin"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(lab.waiting(), 7);
    let said = lab.push(&["--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["sent"].as_u64(), said["present"].as_u64()), (Some(2), Some(5)), "{said}");
    assert_eq!((lab.waiting(), lab.unpushed()), (0, None), "nothing stays behind");
    lab.colleague_pulls("main", "clone");
}

#[test]
fn a_clone_pushes_to_where_it_came_from_and_is_not_disturbed() {
    let sandbox = Sandbox::new();
    let mut lab = Lab::unmounted(sandbox, |_| {});
    let clone = lab.sandbox.path("work");
    let mut git = lab.sandbox.git(lab.sandbox.folder("dvc").as_path());
    succeed(git.args(["clone", "--quiet"]).arg(lab.origin()).arg(&clone));
    let git = |args: &[&str]| text(lab.sandbox.git(&clone).args(args));
    let before = git(&["rev-parse", "main"]);
    hook(&clone.join(".git"), "pre-push", "exit 1");
    lab.mount(clone.to_str().unwrap(), &["--rev", "main"]);
    let commit = lab.change();
    lab.push(&[]);
    assert_eq!(lab.tip("main"), commit);
    let git = |args: &[&str]| text(lab.sandbox.git(&clone).args(args));
    assert_eq!(git(&["rev-parse", "main"]), before);
    assert_eq!(git(&["rev-parse", "origin/main"]), commit);
    assert_eq!(git(&["status", "--porcelain"]), "");
    // The branch here is behind, and the mount goes on from what was pushed.
    lab.mount(clone.to_str().unwrap(), &["--rev", "main"]);
    assert_eq!(fs::read_to_string(lab.path("note.txt")).unwrap(), "a note\n");
    fs::write(lab.path("note.txt"), "another\n").unwrap();
    let next = lab.snapshot();
    lab.push(&[]);
    assert_eq!(lab.tip("main"), next);
    lab.colleague_pulls("main", "clone");
}

#[test]
fn a_repository_without_a_remote_is_its_own_upstream() {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    succeed(lab.sandbox.git(&lab.origin()).args(["remote", "remove", "origin"]));
    let origin = lab.origin();
    lab.mount(origin.to_str().unwrap(), &["--rev", "main"]);
    let commit = lab.change();
    lab.push(&[]);
    assert_eq!(lab.tip("main"), commit);
    lab.colleague_pulls("main", "clone");
}

#[test]
fn a_branch_of_another_name_is_made() {
    let mut lab = Lab::unmounted(Sandbox::new(), |_| {});
    let base = lab.tip("main");
    lab.mount(&lab.url(), &["--rev", &base, "--branch", "team/new"]);
    let commit = lab.change();
    let said = lab.push(&[]);
    assert!(said.contains("team/new of "), "{said}");
    assert_eq!((lab.tip("team/new"), lab.tip("main")), (commit, base));
    lab.colleague_pulls("team/new", "clone");
}

#[test]
fn each_output_goes_to_its_own_remote() {
    let sandbox = Sandbox::new();
    let other = sandbox.folder("other");
    fs::create_dir(other.join("files")).unwrap();
    let mut lab = Lab::unmounted(sandbox, |registry| {
        let config = fs::read_to_string(registry.repository().join(".dvc/config")).unwrap();
        let config = format!("{config}['remote \"other\"']\n    url = ../../other\n");
        registry.text(".dvc/config", &config).unwrap();
        let blob = registry.put(b"pinned").unwrap();
        registry.track_file("pinned.bin", &blob).unwrap();
        registry.track_file("private.bin", &blob).unwrap();
        let pin = |name: &str, line: &str| {
            let path = format!("{name}.dvc");
            let text = fs::read_to_string(registry.repository().join(&path)).unwrap();
            registry.text(&path, &format!("{text}  {line}\n")).unwrap();
        };
        pin("pinned.bin", "remote: other");
        pin("private.bin", "push: false");
    });
    lab.mount(&lab.url(), &["--rev", "main"]);
    fs::write(lab.path("pinned.bin"), "goes to the other").unwrap();
    fs::write(lab.path("private.bin"), "goes nowhere").unwrap();
    fs::write(lab.path("data/new.bin"), "goes to the bucket").unwrap();
    lab.snapshot();
    let before = lab.objects();
    assert!(lab.push(&[]).contains("3 files pushed"));
    assert_eq!((files_below(&other), lab.objects() - before), (1, 2));
    assert_eq!(lab.waiting(), 1, "what goes nowhere stays");
    let dotfile = fs::read_to_string(lab.path("private.bin.dvc")).unwrap();
    assert!(dotfile.contains("push: false"), "{dotfile}");
}

#[test]
fn another_remote_can_be_named_and_what_clones_look_for_goes_on_waiting() {
    let lab = Lab::new();
    let other = lab.sandbox.folder("other");
    fs::create_dir(other.join("files")).unwrap();
    let user = fs::read_to_string(lab.sandbox.path("dvc/global/config")).unwrap();
    let own = format!("{user}['remote \"other\"']\n    url = {}\n", other.display());
    lab.sandbox.user_config(&own);
    let commit = lab.change();
    let before = lab.objects();
    let said = lab.push(&["--remote", "other"]);
    assert!(said.contains("4 files pushed"), "{said}");
    let warning = format!("warning: clones look for it on s3://{PREFIX}, which");
    let hint = format!("dvcfs push {}", lab.sandbox.path("mnt").display());
    assert!(said.contains(&warning) && said.contains(&hint), "{said}");
    assert_eq!((files_below(&other), lab.objects()), (4, before));
    assert_eq!(
        (lab.tip("main"), lab.waiting(), lab.unpushed()),
        (commit.clone(), 4, Some(commit.clone()))
    );

    assert!(lab.push(&["--remote", "other"]).contains("0 files pushed"));
    assert_eq!((lab.waiting(), lab.unpushed()), (4, Some(commit.clone())));
    let said = lab.push(&[]);
    assert!(said.contains("4 files pushed") && !said.contains("warning"), "{said}");
    assert_eq!(
        (lab.objects(), lab.tip("main"), lab.waiting(), lab.unpushed()),
        (before + 4, commit, 0, None)
    );
    lab.colleague_pulls("main", "clone");
}

#[test]
fn a_remote_that_is_named_as_clones_know_it_is_where_they_look() {
    let lab = Lab::new();
    lab.change();
    let said = lab.push(&["--remote", "s3"]);
    assert!(said.contains("4 files pushed") && !said.contains("warning"), "{said}");
    assert_eq!((lab.waiting(), lab.unpushed()), (0, None));
}

#[test]
fn a_remote_that_is_named_is_where_it_goes_if_clones_know_none() {
    let mut lab = Lab::unmounted(Sandbox::new(), |registry| {
        let config = fs::read_to_string(registry.repository().join(".dvc/config")).unwrap();
        let without = config.lines().filter(|line| !line.contains("remote = "));
        registry.text(".dvc/config", &without.collect::<Vec<_>>().join("\n")).unwrap();
    });
    lab.mount(&lab.url(), &["--rev", "main", "--remote", "s3"]);
    lab.change();
    let said = lab.push(&["--remote", "s3"]);
    assert!(said.contains("4 files pushed") && !said.contains("warning"), "{said}");
    assert_eq!((lab.waiting(), lab.unpushed()), (0, None));
}
