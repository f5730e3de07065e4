//! The merged view of a writable mount: an [`Overlay`] above the tree of one commit.
//!
//! What is shown at a name is what the upper folder has there, or else what the base has, unless a
//! whiteout says that it is gone. A folder has the inode of the base's folder whose entries show
//! through it, so a folder's inode alone tells what lies below; one that shows nothing of the base
//! has a number of the overlay's own, and so has every file that was created.
//!
//! | file | is about |
//! |---|---|
//! | `names` | what stands where: entries that are not at the place the base has them at |
//! | `below` | the base |
//! | `view` | what is at a name: look-ups and attributes |
//! | `list` | folders |
//! | `create`, `remove`, `rename` | names that come, go and move |
//! | `change` | attributes |
//! | `copy_up` | files of the base that get bytes here |
//! | `files` | files that are open |
//! | `rebase` | another base below, once changes are recorded or dropped |
//!
//! One lock guards the names. It is held across the system calls of a single change of the upper
//! folder, which is on a disk of this machine, since nothing else keeps a path and what is done at
//! it together; it is never held while anybody waits for the network or copies bytes.

mod below;
mod change;
mod copy_up;
mod create;
mod files;
mod list;
mod names;
mod rebase;
mod remove;
mod rename;
mod view;

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Semaphore;

pub(super) use self::list::MergedList;
pub use self::{
    change::{Before, Change},
    create::New,
    files::{Opened, Opening, Sought},
    rebase::{Rebased, Stillness},
    rename::Moved,
};
use self::{
    names::Names,
    view::{Seen, Standing},
};
use super::{
    Answer, Attr, Epoch, Ino, Lookup, ROOT_INO, Ttl, Vfs, VfsError, inodes::Slot, lookup::Wanting,
};
use crate::{
    overlay::{Kind, Overlay, Totals},
    path::Name,
    tree::{NeedsManifest, Tree},
};

/// Files whose way to the disk is begun at a time. What finds no turn waits until the kernel or a
/// snapshot sees to it.
const WRITING_BACK: usize = 16;

/// What a writable mount has beyond its base.
#[derive(Debug)]
pub(super) struct Upper {
    overlay: Overlay,
    /// The base. Whoever puts another in its place holds the names meanwhile.
    epoch: RwLock<Arc<Epoch>>,
    /// How many numbers were taken for other bases.
    turns: AtomicU64,
    own: Slot,
    names: Mutex<Names>,
    open: Mutex<HashMap<Ino, Open>>,
    /// How often something was opened for writing.
    writes: AtomicU64,
    /// Files that are being copied up, each by one at a time.
    copying: Mutex<HashMap<Ino, Weak<tokio::sync::Mutex<()>>>>,
    /// Turns for those who begin to write to the disk what was closed.
    writing_back: Arc<Semaphore>,
}

/// An inode that is open, so many times.
#[derive(Debug, Default)]
struct Open {
    count: u64,
    /// How many of these may write.
    writers: u64,
    /// Its file in the overlay, once it has bytes there.
    file: Option<Arc<File>>,
    /// What has its attributes, once it has lost its name and as long as it has no bytes here.
    nameless: Option<Arc<OwnedFd>>,
    /// Whether it had lost its name when another base came, and so is nobody else's.
    is_loose: bool,
}

/// Why a question was not answered.
enum Stop {
    /// Something has to be had first.
    Wants(Wanting),
    Failed(VfsError),
}

impl From<VfsError> for Stop {
    fn from(error: VfsError) -> Self {
        match error {
            VfsError::Compiled(output) => Self::Wants(Wanting::Manifest(output)),
            error => Self::Failed(error),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<NeedsManifest> for Stop {
    fn from(needs: NeedsManifest) -> Self {
        Self::Wants(Wanting::Manifest(needs.0))
    }
}

/// The file system and all that a question in a writable mount needs of it.
#[derive(Clone, Copy)]
struct View<'a> {
    vfs: &'a Vfs,
    upper: &'a Upper,
    epoch: &'a Arc<Epoch>,
    tree: &'a Arc<Tree>,
}

impl Vfs {
    /// Puts an overlay above the tree of a mount that shows one revision, which is writable from
    /// then on. To be done before the first question, and once.
    pub fn put_over(&self, overlay: Overlay) {
        let Some(epoch) = self.current.read().clone() else { return };
        let Some(own) = self.table.slot(epoch.commit, "overlay") else {
            tracing::error!("no inode numbers are left for an overlay");
            return;
        };
        let upper = Upper {
            overlay,
            names: Mutex::new(Names::new(own, epoch.slot)),
            epoch: RwLock::new(epoch),
            turns: AtomicU64::new(0),
            own,
            open: Mutex::default(),
            writes: AtomicU64::new(0),
            copying: Mutex::default(),
            writing_back: Arc::new(Semaphore::new(WRITING_BACK)),
        };
        if self.upper.set(upper).is_err() {
            tracing::error!("a mount has one overlay");
        }
    }

    /// The layer of changes, in a mount that takes any.
    pub fn overlay(&self) -> Option<&Overlay> {
        Some(&self.upper.get()?.overlay)
    }

    /// Whether programs may change anything.
    pub fn is_writable(&self) -> bool {
        self.upper.get().is_some()
    }

    /// Nobody is served any more: what is on its way to the disk without being asked for stops.
    pub fn end(&self) {
        if let Some(upper) = self.upper.get() {
            upper.writing_back.close();
        }
    }

    /// The disk that changes go to; nothing in a mount that takes none.
    pub fn disk(&self) -> Option<Result<Totals, VfsError>> {
        Some(self.upper.get()?.overlay.totals().map_err(VfsError::from))
    }

    /// Whether an inode is one of the merged view.
    pub fn is_merged(&self, ino: Ino) -> bool {
        self.upper.get().is_some_and(|upper| {
            let is_of_base = ino == ROOT_INO || ino.slot() == upper.epoch().slot;
            is_of_base || ino.slot() == upper.own || upper.open_file(ino).is_some()
        })
    }

    /// [`Vfs::lookup`] in a folder of the merged view.
    pub(super) fn lookup_merged(&self, folder: Ino, name: &[u8]) -> Answer<Lookup> {
        let Ok(name) = Name::new(name) else { return Answer::Now(Err(VfsError::NotFound)) };
        self.ask(move |view| view.lookup(folder, &name))
    }

    /// [`Vfs::getattr`] in the merged view.
    pub(super) fn getattr_merged(&self, ino: Ino) -> Answer<(Attr, Ttl)> {
        self.with_size(self.ask(move |view| view.getattr(ino)))
    }

    /// Attributes with a size that is asked for where nobody knows it.
    fn with_size(&self, seen: Answer<Seen>) -> Answer<(Attr, Ttl)> {
        let vfs = self.myself();
        seen.and_then(move |Seen { attr, ttl, unsized_node }| {
            let (Some(index), Some(upper)) = (unsized_node, vfs.upper.get()) else {
                return Answer::Now(Ok((attr, ttl)));
            };
            let epoch = upper.epoch();
            Answer::later(async move {
                let size = vfs.learn_size(&epoch, index).await?;
                Ok((Attr { size, ..attr }, Ttl::Second))
            })
        })
    }

    /// The kernel has forgotten an inode so many times; gives whether it is one of the overlay's.
    pub(super) fn forget_own(&self, ino: Ino, count: u64) -> bool {
        let Some(upper) = self.upper.get() else { return false };
        let mut names = upper.names.lock();
        let is_own = names.is_own(ino);
        if is_own {
            names.forget(ino, count);
        }
        is_own
    }

    /// Where a link of the upper folder leads; nothing if it is not there that the link is.
    pub(super) fn own_link(&self, ino: Ino) -> Result<Option<Vec<u8>>, VfsError> {
        if !self.is_merged(ino) {
            return Ok(None);
        }
        self.on_disk(|view| match view.standing(&*view.names()?, ino)? {
            Standing::Upper(path, _) => Ok(Some(view.upper.overlay.read_link(&path)?)),
            Standing::Base(..) => Ok(None),
            Standing::Gone(_) => Err(VfsError::NotFound.into()),
        })
    }

    /// Whether what an inode shows has nothing to do with any tree.
    pub(super) fn has_own_content(&self, ino: Ino) -> bool {
        let Some(upper) = self.upper.get() else { return false };
        if ino.slot() == upper.own || upper.open_file(ino).is_some() {
            return true;
        }
        let is_own = |view: View<'_>| match view.standing(&*view.names()?, ino)? {
            Standing::Upper(_, entry) => Ok(matches!(entry.kind, Kind::File { origin: None })),
            Standing::Base(..) | Standing::Gone(_) => Ok(false),
        };
        self.is_merged(ino) && self.on_disk(is_own).unwrap_or(false)
    }

    fn with_view<T>(&self, question: impl FnOnce(View<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        let upper = self.upper.get().ok_or(VfsError::ReadOnly)?;
        let epoch = upper.epoch();
        let tree = epoch.tree().ok_or(VfsError::Stale)?;
        question(View { vfs: self, upper, epoch: &epoch, tree })
    }

    /// Asks at once, and again as often as something has to be had before.
    fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(View<'_>) -> Result<T, Stop> + Send + 'static,
    ) -> Answer<T> {
        match self.with_view(&question) {
            Ok(answer) => Answer::Now(Ok(answer)),
            Err(Stop::Failed(error)) => Answer::Now(Err(error)),
            Err(Stop::Wants(_)) => {
                let vfs = self.myself();
                Answer::later(async move { vfs.ask_until(question).await })
            }
        }
    }

    async fn ask_until<T>(
        &self,
        question: impl Fn(View<'_>) -> Result<T, Stop>,
    ) -> Result<T, VfsError> {
        loop {
            let wanting = match self.with_view(&question) {
                Ok(answer) => return Ok(answer),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Wants(wanting)) => wanting,
            };
            let upper = self.upper.get().ok_or(VfsError::ReadOnly)?;
            self.provide(&upper.epoch(), wanting).await?;
        }
    }
}

impl View<'_> {
    /// The names, unless the base that this looks at is no longer the one below them.
    fn names(&self) -> Result<MutexGuard<'_, Names>, Stop> {
        let names = self.upper.names.lock();
        self.upper.overlay.check()?;
        if names.base() == self.epoch.slot { Ok(names) } else { Err(VfsError::Stale.into()) }
    }
}

impl Upper {
    /// Counts one more open of an inode.
    fn begin(&self, ino: Ino, writes: bool) {
        self.open.lock().entry(ino).or_default().begin(writes);
        self.writes.fetch_add(u64::from(writes), Ordering::SeqCst);
    }

    fn epoch(&self) -> Arc<Epoch> {
        Arc::clone(&self.epoch.read())
    }

    /// The file of an inode that is open and has bytes here.
    fn open_file(&self, ino: Ino) -> Option<Arc<File>> {
        self.open.lock().get(&ino)?.file.clone()
    }

    /// What has the attributes of an inode that is open without a name and without bytes here.
    fn nameless(&self, ino: Ino) -> Option<Arc<OwnedFd>> {
        self.open.lock().get(&ino)?.nameless.clone()
    }

    /// Keeps the attributes of an inode that is without a name, if anybody has it open.
    fn keep_nameless(&self, ino: Ino, entry: OwnedFd) {
        if let Some(open) = self.open.lock().get_mut(&ino) {
            open.nameless = Some(Arc::new(entry));
        }
    }
}

#[cfg(test)]
mod tests;
