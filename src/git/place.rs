//! Where mirrors lie, and the lock of each.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::{error::GitError, location::Url};

/// Where a URL's mirror is or will be.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) url: Url,
    /// The mirror itself.
    pub(super) folder: PathBuf,
    lock_file: PathBuf,
    /// Where a first fetch goes.
    pub(super) unfinished: PathBuf,
}

impl Place {
    pub(super) fn new(state_dir: &Path, url: &Url) -> Self {
        let mirrors = state_dir.join("mirrors");
        let name = url.mirror_name();
        Self {
            url: url.clone(),
            lock_file: mirrors.join(format!("{name}.lock")),
            unfinished: mirrors.join(format!("{name}.new")),
            folder: mirrors.join(name),
        }
    }

    /// Takes the lock between processes and threads, held until the file is dropped.
    pub(super) fn lock(&self, timeout: Duration) -> Result<File, GitError> {
        if let Some(mirrors) = self.lock_file.parent() {
            // Private, since the URL in a mirror's configuration may hold a password.
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(mirrors);
            made.map_err(GitError::io("create", mirrors))?;
        }
        let file = File::options().create(true).append(true).open(&self.lock_file);
        let file = file.map_err(GitError::io("create", &self.lock_file))?;
        let deadline = Instant::now() + timeout;
        // The system offers no wait for a lock with a deadline, so this asks now and then.
        let mut pause = Duration::from_millis(5);
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(GitError::io("lock", &self.lock_file)(e.into())),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GitError::Busy { folder: self.folder.clone() });
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// Removes what an earlier first fetch left; the lock must be held.
    pub(super) fn remove_unfinished(&self) -> Result<(), GitError> {
        match fs::remove_dir_all(&self.unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(GitError::io("remove", &self.unfinished)(e))
            }
            _ => Ok(()),
        }
    }
}
