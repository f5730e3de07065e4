//! A place of its own for a test: home, settings, cache, state, and programs run in it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use super::{Mount, open_mode::open_mode};
use crate::s3server::{ACCESS_KEY, SECRET_KEY};

/// Folders that a test shares with nobody. They go when it is dropped.
pub(crate) struct Sandbox {
    folder: TempDir,
    program: PathBuf,
    variables: Vec<(String, String)>,
    mounts: AtomicU32,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("dvcfs-it-").tempdir().unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_dvcfs"));
        for name in ["home", "dvc/global", "dvc/system", "run"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let open_mode = open_mode().map(|mode| ("DVCFS_OPEN_MODE".to_owned(), mode.to_owned()));
        let variables = open_mode.into_iter().collect();
        Self { folder, program, variables, mounts: AtomicU32::new(0) }
    }

    /// With a variable in the environment of every program.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// A path in the sandbox.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder in the sandbox, made if it is not there.
    pub(crate) fn folder(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Where blobs are cached.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    /// Writes the user's own DVC settings.
    pub(crate) fn user_config(&self, text: &str) {
        fs::write(self.path("dvc/global/config"), text).unwrap();
    }

    /// A program that knows the sandbox and nothing else of this machine's user.
    pub(crate) fn tool(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(FIXED);
        for (name, place) in PLACES {
            command.env(name, self.path(place));
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.folder.path());
        command
    }

    /// The program under test.
    pub(crate) fn dvcfs<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.tool(&self.program);
        command.args(args);
        command
    }

    /// Git, for what a test does to a repository.
    pub(crate) fn git(&self, repository: &Path) -> Command {
        let mut command = self.tool("git");
        command.arg("-C").arg(repository);
        command
    }

    /// Mounts a repository with every revision as a folder.
    pub(crate) fn mount(&self, repository: impl AsRef<OsStr>) -> Mount {
        self.mount_with(repository, &[])
    }

    /// Mounts a repository with more arguments.
    pub(crate) fn mount_with(&self, repository: impl AsRef<OsStr>, args: &[&str]) -> Mount {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let dir = self.folder(format!("mnt-{number}"));
        self.mount_at(&dir, repository, args)
    }

    /// Mounts a repository on a folder that the test chose.
    pub(crate) fn mount_at(
        &self,
        dir: &Path,
        repository: impl AsRef<OsStr>,
        args: &[&str],
    ) -> Mount {
        let mut command = self.dvcfs(["mount", "--foreground"]);
        command.args(args).arg(repository).arg(dir);
        Mount::start(command, dir, &self.path("run"))
    }
}

/// Variables that are the same for every test.
const FIXED: [(&str, &str); 12] = [
    ("DVC_NO_ANALYTICS", "1"),
    ("LC_ALL", "C.UTF-8"),
    ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
    ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ("AWS_REGION", "us-east-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_AUTHOR_NAME", "Ann"),
    ("GIT_AUTHOR_EMAIL", "ann@localhost"),
    ("GIT_COMMITTER_NAME", "Ann"),
    ("GIT_COMMITTER_EMAIL", "ann@localhost"),
    ("RUST_BACKTRACE", "1"),
];

/// Variables that point into the sandbox.
const PLACES: [(&str, &str); 11] = [
    ("HOME", "home"),
    ("XDG_CONFIG_HOME", "home/.config"),
    ("XDG_CACHE_HOME", "home/.cache"),
    ("XDG_STATE_HOME", "home/.state"),
    ("XDG_RUNTIME_DIR", "run"),
    ("DVC_GLOBAL_CONFIG_DIR", "dvc/global"),
    ("DVC_SYSTEM_CONFIG_DIR", "dvc/system"),
    ("DVC_SITE_CACHE_DIR", "dvc/site"),
    ("DVCFS_CACHE_DIR", "cache"),
    ("DVCFS_STATE_DIR", "state"),
    ("DVCFS_RUNTIME_DIR", "run/dvcfs"),
];
