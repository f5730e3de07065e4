//! Repositories made by the real git for the tests, away from the user's configuration.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    id::{CommitId, GitTreeId},
    location::{Location, Url},
};

/// The committer date of a fixture's first commit; each later one is a day younger.
pub(crate) const FIRST_COMMIT: i64 = 1_700_000_000;

/// A work tree in a temporary folder.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    time: Cell<i64>,
}

impl Fixture {
    /// A repository without commits, on branch `main`.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fixture = Self { folder, time: Cell::new(FIRST_COMMIT) };
        fs::create_dir(fixture.path()).unwrap();
        fixture.git(&["init", "--quiet", "--initial-branch=main"]);
        fixture
    }

    /// A repository with one commit of one file.
    pub(crate) fn new() -> Self {
        let fixture = Self::empty();
        fixture.commit("a.txt", "one");
        fixture
    }

    /// The work tree.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("registry")
    }

    /// Room for other files of the test.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where mirrors go.
    pub(crate) fn state(&self) -> PathBuf {
        self.outside("state")
    }

    pub(crate) fn url(&self) -> Url {
        url(&format!("file://{}", self.path().display()))
    }

    /// Runs git in the work tree; gives what it prints, trimmed.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_in(&self.path(), arguments)
    }

    pub(crate) fn git_in(&self, folder: &Path, arguments: &[&str]) -> String {
        let date = format!("{} +0000", self.time.get());
        let output = Command::new("git")
            .current_dir(folder)
            .args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "gc.auto=0"])
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("HOME", self.folder.path())
            .env("GIT_AUTHOR_DATE", &date)
            .env("GIT_COMMITTER_DATE", &date)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Writes a file and commits it.
    pub(crate) fn commit(&self, file: &str, content: &str) -> CommitId {
        fs::write(self.path().join(file), content).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", content]);
        self.time.set(self.time.get() + 86_400);
        self.id("HEAD")
    }

    /// A commit of a tree, without parents; quicker than git makes one.
    pub(crate) fn commit_tree(&self, tree: GitTreeId) -> CommitId {
        let text = format!(
            "tree {tree}\nauthor A <a@example.org> {FIRST_COMMIT} +0000\n\
             committer A <a@example.org> {FIRST_COMMIT} +0000\n\na tree\n"
        );
        let repository = git2::Repository::open(self.path()).unwrap();
        let objects = repository.odb().unwrap();
        let id = objects.write(git2::ObjectType::Commit, text.as_bytes()).unwrap();
        CommitId::parse(&id.to_string()).unwrap()
    }

    /// The id git itself gives to a revision.
    pub(crate) fn id(&self, revision: &str) -> CommitId {
        CommitId::parse(&self.git(&["rev-parse", revision])).unwrap()
    }

    /// Writes a program for the test.
    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.outside(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

pub(crate) fn url(text: &str) -> Url {
    match Location::parse(text, Path::new("/")) {
        Ok(Location::Url(url)) => url,
        other => panic!("{text}: {other:?}"),
    }
}
