//! Who keeps commits from git's collection, and whether they are still there to do so.
//!
//! A keeper is known by a name of its own, under which its refs lie, and by a lock on a file of
//! that name in the state directory. The system ends the lock with its owner, however that ends, so
//! whoever opens the repository next can tell refs that are needed from what a killed mount left.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{FlockOperation, flock};

use super::{error::GitError, id::CommitId, repository::Repository};

/// The right to keep commits, for as long as it is held.
#[derive(Debug)]
pub struct Keeper {
    name: String,
    lock_file: PathBuf,
    /// Locked until it is dropped.
    _lock: File,
}

impl Keeper {
    /// Makes a keeper with a name that nobody had before.
    pub fn new(state_dir: &Path) -> Result<Self, GitError> {
        let folder = folder(state_dir);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(GitError::io("create", &folder))?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("mount-{}-{:x}", std::process::id(), since.as_nanos());
        let lock_file = folder.join(&name);
        let lock = File::options().write(true).create_new(true).open(&lock_file);
        let lock = lock.map_err(GitError::io("create", &lock_file))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| GitError::io("lock", &lock_file)(errno.into()))?;
        Ok(Self { name, lock_file, _lock: lock })
    }

    /// Keeps a commit and all it needs. Fails on repositories that the user may not write to,
    /// whose commits are then kept by their branches alone.
    pub fn keep(&self, repository: &Repository, commit: CommitId) -> Result<(), GitError> {
        repository.keep(commit, &self.name)
    }

    /// Ends what [`Self::keep`] began; not an error if there is nothing to end.
    pub fn release(&self, repository: &Repository, commit: CommitId) -> Result<(), GitError> {
        repository.release(commit, &self.name)
    }

    /// Ends what keepers of this state directory began that are no more.
    pub fn sweep(repository: &Repository, state_dir: &Path) -> Result<(), GitError> {
        let kept = repository.kept()?;
        let holders: BTreeSet<&str> = kept.iter().map(|(holder, _)| holder.as_str()).collect();
        for holder in holders {
            let Some((lock_file, _lock)) = lock_of_the_dead(state_dir, holder) else { continue };
            for (_, commit) in kept.iter().filter(|(of, _)| of == holder) {
                repository.release(*commit, holder)?;
            }
            fs::remove_file(&lock_file).map_err(GitError::io("remove", &lock_file))?;
            tracing::info!("removed what the killed {holder} kept");
        }
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // What is left is swept by the next one, too.
        _ = fs::remove_file(&self.lock_file);
    }
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("keepers")
}

/// The file and the lock of a keeper that is no more. Of one without a file nothing is known: it
/// may have another state directory, or be another user's.
fn lock_of_the_dead(state_dir: &Path, holder: &str) -> Option<(PathBuf, File)> {
    let path = folder(state_dir).join(holder);
    let file = match File::options().write(true).open(&path) {
        Ok(file) => file,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!("{}: {error}", path.display());
            }
            return None;
        }
    };
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some((path, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::fixture::Fixture;

    #[test]
    fn what_the_dead_kept_is_swept_and_nothing_else() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let commit = fixture.id("HEAD");
        let keepers = || {
            let kept = repository.kept().unwrap();
            kept.into_iter().map(|(holder, _)| holder).collect::<Vec<_>>()
        };
        let living = Keeper::new(&fixture.state()).unwrap();
        living.keep(&repository, commit).unwrap();
        repository.keep(commit, "of-somebody-else").unwrap();
        repository.keep(commit, "mount-dead").unwrap();
        // Its file is there, and nobody has it locked.
        fs::write(folder(&fixture.state()).join("mount-dead"), "").unwrap();
        assert_eq!(keepers().len(), 3);

        Keeper::sweep(&repository, &fixture.state()).unwrap();
        assert_eq!(keepers(), [living.name.as_str(), "of-somebody-else"]);
        living.release(&repository, commit).unwrap();
        assert_eq!(keepers(), ["of-somebody-else"]);
        drop(living);
        assert_eq!(fs::read_dir(folder(&fixture.state())).unwrap().count(), 0);
    }
}
