//! Cached files that were handed to the kernel, so that reads of them never come here.
//!
//! The kernel insists that all opens of an inode at a time are of one kind: *passed*, and then all
//! with the same backing file, or *served*. So an inode keeps what its first open gave it until its
//! last release, even when its blob is evicted meanwhile. Backing files of inodes that nobody has
//! open are kept for the next open, a bounded number and for a short time only, since one of them
//! also keeps the room that a removed blob takes.

use std::{collections::HashMap, io, num::NonZeroUsize, sync::Arc};

use fuser::{BackingId, ReplyOpen};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    cache::{CachedBlob, Fate, Seal},
    recent::Recent,
    stats::Stats,
    vfs::{Ino, Keeper, Rounds},
};

/// Bytes of blobs that nobody has open and whose room is kept all the same, at most, and what part
/// of the cache they are at most.
const IDLE_BYTES: u64 = 4 << 30;
const IDLE_PART: u64 = 4;

/// A file that the kernel reads by itself, and that is open here too.
#[derive(Debug, Clone)]
struct Backing {
    id: Arc<BackingId>,
    blob: Arc<CachedBlob>,
}

/// How an inode is open, and how many times.
#[derive(Debug)]
enum Open {
    Passed(Backing, u64),
    /// Without a descriptor here, of which there are fewer than files may be open.
    PassedOn {
        id: Arc<BackingId>,
        count: u64,
        seal: Option<Arc<Seal>>,
    },
    Served(u64),
}

impl Open {
    fn count(&mut self) -> &mut u64 {
        match self {
            Self::Passed(_, count) | Self::PassedOn { count, .. } | Self::Served(count) => count,
        }
    }

    /// What is passed, if anything is.
    fn id(&self) -> Option<Arc<BackingId>> {
        match self {
            Self::Passed(backing, _) => Some(Arc::clone(&backing.id)),
            Self::PassedOn { id, .. } => Some(Arc::clone(id)),
            Self::Served(_) => None,
        }
    }
}

/// What the earlier opens of an inode have made of it.
enum Known {
    Not,
    Served,
    Passed(Arc<CachedBlob>),
    PassedOn(Option<Arc<Seal>>),
}

/// What becomes of an open that an inode's earlier ones decide.
pub(super) enum Again {
    /// It is passed like those before it.
    Passed(Arc<BackingId>),
    /// Somebody wrote to the file that those before it read; the kernel takes no other.
    Damaged,
    /// Nothing is decided yet, or it is served.
    Ask,
}

/// The inodes that are open, and backing files for the next opens.
#[derive(Debug)]
pub(super) struct Backings {
    open: Mutex<HashMap<Ino, Open>>,
    /// How many inodes that are open may have a descriptor here.
    most_held: usize,
    idle: Mutex<Recent<Ino, Backing>>,
    rounds: Rounds,
    runtime: Handle,
    stats: Arc<Stats>,
}

impl Backings {
    /// Takes at most `held` descriptors for inodes that are open, and `idle` for others, as a cache
    /// of `cache_bytes` bytes can do without.
    pub(super) fn new(
        (held, idle): (usize, NonZeroUsize),
        cache_bytes: u64,
        runtime: Handle,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            open: Mutex::default(),
            most_held: held,
            idle: Mutex::new(Recent::new(idle, IDLE_BYTES.min(cache_bytes / IDLE_PART))),
            rounds: Rounds::default(),
            runtime,
            stats,
        }
    }

    /// Opens an inode once more with the backing file that it has, if it has one.
    pub(super) fn open_again(&self, ino: Ino) -> Again {
        let fate = match self.known(ino) {
            Known::Not => return self.wake(ino),
            Known::Served => return Again::Ask,
            Known::Passed(blob) => Some(blob.fate()),
            Known::PassedOn(seal) => seal.map(|seal| seal.fate()),
        };
        if fate == Some(Fate::Changed) {
            return Again::Damaged;
        }
        self.pass(ino, None).map_or(Again::Ask, Again::Passed)
    }

    fn known(&self, ino: Ino) -> Known {
        match self.open.lock().get(&ino) {
            Some(Open::Passed(backing, _)) => Known::Passed(Arc::clone(&backing.blob)),
            Some(Open::PassedOn { seal, .. }) => Known::PassedOn(seal.clone()),
            Some(Open::Served(_)) => Known::Served,
            None => Known::Not,
        }
    }

    /// Takes a backing file up again that nobody had open, if its blob is still in the cache.
    fn wake(&self, ino: Ino) -> Again {
        let idle = self.idle.lock().take(&ino);
        let sound = idle.filter(|backing| backing.blob.fate() == Fate::Sound);
        let Some(backing) = sound else { return Again::Ask };
        self.stats.hits.add(1);
        self.pass(ino, Some(backing)).map_or(Again::Ask, Again::Passed)
    }

    /// Decides how an open is answered and counts it: with the id of a backing file, or not.
    pub(super) fn open(
        &self,
        ino: Ino,
        whole: Option<&Arc<CachedBlob>>,
        reply: &ReplyOpen,
    ) -> Option<Arc<BackingId>> {
        let is_first = !self.open.lock().contains_key(&ino);
        let backing = whole.filter(|_| is_first).and_then(|blob| {
            let id = reply.open_backing(blob.file());
            let id = id.inspect_err(|error| note_refusal(&self.stats, error)).ok()?;
            Some(Backing { id: Arc::new(id), blob: Arc::clone(blob) })
        });
        self.count(&mut self.open.lock(), ino, backing)
    }

    /// Counts an open if it is passed: as the inode's earlier ones are, or by `backing`. Any other
    /// is counted by [`Self::open`].
    fn pass(&self, ino: Ino, backing: Option<Backing>) -> Option<Arc<BackingId>> {
        let mut open = self.open.lock();
        let is_passed = match open.get(&ino) {
            Some(known) => known.id().is_some(),
            None => backing.is_some(),
        };
        if is_passed { self.count(&mut open, ino, backing) } else { None }
    }

    /// Counts an open as what the inode's earlier ones are, or as what `backing` makes of it.
    fn count(
        &self,
        open: &mut HashMap<Ino, Open>,
        ino: Ino,
        backing: Option<Backing>,
    ) -> Option<Arc<BackingId>> {
        let may_hold = open.len() < self.most_held;
        let entry = open.entry(ino).or_insert_with(|| match backing {
            Some(backing) if may_hold => Open::Passed(backing, 0),
            Some(Backing { id, blob }) => {
                Open::PassedOn { id, count: 0, seal: blob.seal().map(Arc::new) }
            }
            None => Open::Served(0),
        });
        *entry.count() += 1;
        entry.id()
    }

    /// One open of an inode has ended.
    pub(super) fn release(self: &Arc<Self>, ino: Ino) {
        let ended = {
            let mut open = self.open.lock();
            let Some(count) = open.get_mut(&ino).map(Open::count) else { return };
            *count -= 1;
            if *count > 0 { None } else { open.remove(&ino) }
        };
        if let Some(Open::Passed(backing, _)) = ended {
            let bytes = backing.blob.size();
            let gone = self.idle.lock().put(ino, backing, bytes);
            drop(gone);
            Rounds::begin(self, &self.runtime);
        }
    }
}

/// Counts a file that the kernel does not take, and logs the first.
pub(super) fn note_refusal(stats: &Stats, error: &io::Error) {
    if stats.passthrough_refusals.value() == 0 {
        tracing::warn!("files are served, since the kernel does not take one: {error}");
    }
    stats.passthrough_refusals.add(1);
}

impl Keeper for Backings {
    fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    fn end_round(&self) -> bool {
        let (gone, is_left) = {
            let mut idle = self.idle.lock();
            (idle.end_round(), !idle.is_empty())
        };
        drop(gone);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_that_another_made_served_meanwhile_counts_once() {
        let (ino, one) = (Ino(5), NonZeroUsize::MIN);
        let backings = Backings::new((9, one), 1 << 30, Handle::current(), Arc::default());
        let backings = Arc::new(backings);
        assert!(backings.count(&mut backings.open.lock(), ino, None).is_none());
        assert!(backings.pass(ino, None).is_none(), "it is served");
        backings.release(ino);
        assert!(backings.open.lock().is_empty());
    }
}
