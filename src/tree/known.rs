//! What was read of a repository for one tree and is kept for the next.
//!
//! A folder's listing is kept by its git id. What a `.dvc` file declares depends on its own bytes,
//! its place and the project it is in, so it is kept by these: the next revision reads what changed,
//! whichever folder that is in. Pipelines may take their paths from any other file of the commit
//! and are read each time.

use std::{num::NonZeroUsize, sync::Arc};

use md5::{Digest as _, Md5};
use parking_lot::Mutex;

use crate::{
    dvc::{BadEntry, Parsed, output::Output},
    git::{GitError, GitId, GitTreeId, Listing, Repository},
    id::Digest,
    path::RepoPath,
    recent::Recent,
};

/// What the kept listings take together, about, in bytes.
const LISTINGS: u64 = 32 << 20;

/// What the kept declarations take together, about, in bytes.
const DECLARED: u64 = 96 << 20;

/// How many of either are kept at most.
const MOST: NonZeroUsize = NonZeroUsize::new(1 << 20).unwrap();

/// What is kept of one repository; shared by all who build trees of it.
#[derive(Debug)]
pub struct Known {
    listings: Mutex<Recent<GitTreeId, Arc<Listing>>>,
    declared: Mutex<Recent<Digest, Arc<Declared>>>,
}

/// What one file declares.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) outputs: Vec<Arc<Output>>,
    pub(super) bad: Vec<BadEntry>,
}

impl From<Parsed> for Declared {
    fn from(parsed: Parsed) -> Self {
        Self { outputs: parsed.outputs.into_iter().map(Arc::new).collect(), bad: parsed.bad }
    }
}

impl Default for Known {
    fn default() -> Self {
        Self {
            listings: Mutex::new(Recent::new(MOST, LISTINGS)),
            declared: Mutex::new(Recent::new(MOST, DECLARED)),
        }
    }
}

impl Known {
    /// What a folder holds.
    pub(super) fn listing(
        &self,
        repository: &Repository,
        tree: GitTreeId,
    ) -> Result<Arc<Listing>, GitError> {
        /// An entry, with a name of usual length.
        const ENTRY: u64 = 80;
        if let Some(listing) = self.listings.lock().get(&tree) {
            return Ok(Arc::clone(listing));
        }
        let listing = Arc::new(repository.entries(tree)?);
        let weight = ENTRY * (1 + listing.entries.len() + listing.refused.len()) as u64;
        let gone = self.listings.lock().put(tree, Arc::clone(&listing), weight);
        drop(gone);
        Ok(listing)
    }

    /// What a `.dvc` file declares, read by `read` unless it is known. A failure is not kept.
    pub(super) fn dotfile<E>(
        &self,
        (id, path, project): (GitId, &RepoPath, &RepoPath),
        read: impl FnOnce() -> Result<Parsed, E>,
    ) -> Result<Arc<Declared>, E> {
        /// An output, with a path of usual length.
        const OUTPUT: u64 = 320;
        let key = key(id, path, project);
        if let Some(declared) = self.declared.lock().get(&key) {
            return Ok(Arc::clone(declared));
        }
        let declared = Arc::new(Declared::from(read()?));
        let weight = OUTPUT * (1 + declared.outputs.len() + declared.bad.len()) as u64;
        let gone = self.declared.lock().put(key, Arc::clone(&declared), weight);
        drop(gone);
        Ok(declared)
    }
}

/// Stands for a file's bytes, its place and its project. A registry that makes two of its files
/// collide lies about nothing but itself.
fn key(id: GitId, path: &RepoPath, project: &RepoPath) -> Digest {
    let mut hasher = Md5::new();
    hasher.update(id.0);
    hasher.update(path.as_bytes());
    hasher.update([0]);
    hasher.update(project.as_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_is_read_once_for_each_place_and_project() {
        let known = Known::default();
        let file = path("a/x.dvc");
        let place = |id: u8, path, project| (GitId([id; 20]), path, project);
        let root = RepoPath::root();
        let unread = || -> Result<Parsed, ()> { Err(()) };
        assert!(known.dotfile(place(1, &file, &root), unread).is_err());
        let read = known.dotfile(place(1, &file, &root), || Ok::<_, ()>(Parsed::default()));
        let again = known.dotfile(place(1, &file, &root), unread).unwrap();
        assert!(Arc::ptr_eq(&read.unwrap(), &again));
        for other in
            [place(2, &file, &root), place(1, &path("b/x.dvc"), &root), place(1, &file, &path("a"))]
        {
            assert!(known.dotfile(other, unread).is_err());
        }
    }
}
