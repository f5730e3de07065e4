//! The folders of the upper layer that were used last, open, so that what is done at one name after
//! the other does not begin with the way there each time.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, OnceLock},
};

use lru::LruCache;
use parking_lot::Mutex;

use super::marks::Marks;
use crate::path::RepoPath;

/// As many as a copy from one folder to another needs, and the folders above both.
const MOST: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// A folder that is open.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    marks: OnceLock<Marks>,
}

impl Folder {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, marks: OnceLock::new() }
    }

    /// Its marks as they were when they were asked for first; whoever changes those of a folder has
    /// it [forgotten](Folders::forget).
    pub(super) fn marks(&self) -> io::Result<&Marks> {
        if let Some(marks) = self.marks.get() {
            return Ok(marks);
        }
        let marks = Marks::of(&self.fd)?;
        Ok(self.marks.get_or_init(|| marks))
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Open folders by their paths.
#[derive(Debug)]
pub(super) struct Folders(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    open: LruCache<RepoPath, Arc<Folder>>,
    /// How often some were forgotten.
    rounds: u64,
}

impl Folders {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Kept { open: LruCache::new(MOST), rounds: 0 }))
    }

    /// The folder at a path, if it is open.
    pub(super) fn find(&self, path: &RepoPath) -> Option<Arc<Folder>> {
        self.0.lock().open.get(path).cloned()
    }

    /// The folder at a path, opened if it is not open yet.
    pub(super) fn get<E>(
        &self,
        path: &RepoPath,
        open: impl FnOnce() -> Result<OwnedFd, E>,
    ) -> Result<Arc<Folder>, E> {
        let round = {
            let mut kept = self.0.lock();
            if let Some(folder) = kept.open.get(path) {
                return Ok(Arc::clone(folder));
            }
            kept.rounds
        };
        let folder = Arc::new(Folder::new(open()?));
        let mut kept = self.0.lock();
        // What was forgotten meanwhile may be this one.
        if kept.rounds == round {
            kept.open.put(path.clone(), Arc::clone(&folder));
        }
        Ok(folder)
    }

    /// What was at a path is elsewhere now, or gone, and all that is in it; or it has other marks.
    pub(super) fn forget(&self, path: &RepoPath) {
        let mut kept = self.0.lock();
        kept.rounds += 1;
        let gone: Vec<_> = kept
            .open
            .iter()
            .map(|(at, _)| at)
            .filter(|at| at.strip_prefix(path).is_some())
            .cloned()
            .collect();
        for at in gone {
            kept.open.pop(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    fn open() -> io::Result<OwnedFd> {
        Ok(File::open("/")?.into())
    }

    fn is_open(folders: &Folders, text: &str) -> bool {
        folders.find(&path(text)).is_some()
    }

    #[test]
    fn a_folder_that_goes_takes_along_those_in_it_and_no_others() {
        let folders = Folders::new();
        for text in ["a", "a/b", "a/b/c", "ab"] {
            folders.get(&path(text), open).unwrap();
        }
        folders.forget(&path("a/b"));
        let open = ["a", "a/b", "a/b/c", "ab"].map(|text| is_open(&folders, text));
        assert_eq!(open, [true, false, false, true]);
    }

    #[test]
    fn a_folder_that_goes_while_it_is_opened_is_not_kept() {
        let folders = Folders::new();
        let opened = || {
            folders.forget(&path("a"));
            open()
        };
        folders.get(&path("a"), opened).unwrap();
        assert!(!is_open(&folders, "a"));
    }

    #[test]
    fn few_are_kept() {
        let folders = Folders::new();
        for number in 0..20 {
            folders.get(&path(&number.to_string()), open).unwrap();
        }
        assert!(is_open(&folders, "19") && is_open(&folders, "12") && !is_open(&folders, "11"));
    }
}
