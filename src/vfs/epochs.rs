//! Epochs: commits as seen under one name, alive as long as the kernel knows a node of them.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use tokio::sync::OnceCell;

use super::inodes::{Ino, Slot};
use crate::{git::CommitId, tree::Tree};

/// One commit under one name. Its tree is built when something first looks inside, so that listing
/// a thousand branches builds none.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) slot: Slot,
    pub(super) commit: CommitId,
    /// Where the kernel has it: the folder's inode, and the name; without one at the root.
    pub(super) place: (Ino, Box<str>),
    tree: OnceLock<Arc<Tree>>,
    /// How many trees had been built when it was last asked for.
    used: AtomicU64,
    /// Look-ups the kernel has been answered less those it has forgotten.
    lookups: AtomicU64,
}

/// The epochs that are alive.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    by_slot: RwLock<HashMap<Slot, Arc<Epoch>>>,
    /// How many trees were built.
    built: AtomicU64,
}

impl Epochs {
    pub(super) fn find(&self, slot: Slot) -> Option<Arc<Epoch>> {
        let epoch = self.by_slot.read().get(&slot).cloned()?;
        epoch.used.store(self.built.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(epoch)
    }

    /// The epoch of a slot, made if it is not alive, with one more look-up counted: the caller
    /// answers the kernel with a node of it.
    pub(super) fn enter(&self, slot: Slot, commit: CommitId, place: (Ino, &str)) -> Arc<Epoch> {
        let mut by_slot = self.by_slot.write();
        let epoch = by_slot.entry(slot).or_insert_with(|| {
            let (tree, lookups) = (OnceLock::new(), AtomicU64::new(0));
            let used = AtomicU64::new(self.built.load(Ordering::Relaxed));
            let place = (place.0, place.1.into());
            Arc::new(Epoch { slot, commit, place, tree, used, lookups })
        });
        epoch.lookups.fetch_add(1, Ordering::AcqRel);
        Arc::clone(epoch)
    }

    /// The kernel is about to be answered with another node of an epoch. It may have been dropped
    /// since the caller found it; then it lives again.
    pub(super) fn count_lookup(&self, epoch: &Arc<Epoch>) {
        if let Some(living) = self.by_slot.read().get(&epoch.slot) {
            living.lookups.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let mut by_slot = self.by_slot.write();
        let living = by_slot.entry(epoch.slot).or_insert_with(|| Arc::clone(epoch));
        living.lookups.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes look-ups back; an epoch that has none left is dropped.
    pub(super) fn forget(&self, slot: Slot, count: u64) {
        let Some(epoch) = self.find(slot) else { return };
        if !epoch.take_back(count) {
            return;
        }
        let mut by_slot = self.by_slot.write();
        if epoch.lookups.load(Ordering::Acquire) == 0 {
            by_slot.remove(&slot);
        }
    }

    /// Another tree was built. Gives the epochs that the kernel should forget, those asked for
    /// longest ago, so that the trees of the others weigh no more than `limit`; the latest two
    /// stay whatever they weigh.
    pub(super) fn note_built(&self, limit: u64) -> Vec<Arc<Epoch>> {
        self.built.fetch_add(1, Ordering::Relaxed);
        let mut epochs = self.all();
        epochs.retain(|epoch| epoch.tree().is_some() && !epoch.place.1.is_empty());
        epochs.sort_by_key(|epoch| std::cmp::Reverse(epoch.used.load(Ordering::Relaxed)));
        let mut known = HashSet::new();
        let mut weight = 0;
        let is_too_much = |(at, epoch): &(usize, Arc<Epoch>)| {
            // Two names of one commit share its tree.
            if let Some(tree) = epoch.tree().filter(|_| known.insert(epoch.commit)) {
                weight += tree.weight();
            }
            *at >= 2 && weight > limit
        };
        epochs.into_iter().enumerate().filter(is_too_much).map(|(_, epoch)| epoch).collect()
    }

    /// How many are alive.
    pub(super) fn len(&self) -> usize {
        self.by_slot.read().len()
    }

    /// Every living epoch.
    pub(super) fn all(&self) -> Vec<Arc<Epoch>> {
        self.by_slot.read().values().cloned().collect()
    }
}

impl Epoch {
    /// The tree, if it is built.
    pub(super) fn tree(&self) -> Option<&Arc<Tree>> {
        self.tree.get()
    }

    /// Puts the built tree in place, once.
    pub(super) fn set_tree(&self, tree: Arc<Tree>) {
        // Whoever came first built the same.
        _ = self.tree.set(tree);
    }

    /// Whether nothing is left.
    fn take_back(&self, count: u64) -> bool {
        let take = |lookups: u64| Some(lookups.saturating_sub(count));
        let before = self.lookups.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        before.is_ok_and(|before| before <= count)
    }
}

/// Something made once per key however many ask at a time; the latest are kept, bounded in number
/// and in what they weigh together.
#[derive(Debug)]
pub(super) struct Memo<K: std::hash::Hash + Eq, V> {
    cells: Mutex<LruCache<K, Arc<OnceCell<V>>>>,
    /// About how many bytes of memory a value takes.
    weigh: fn(&V) -> u64,
}

/// What is kept in one memo, beyond what others hold as well, takes about so many bytes.
const MAX_WEIGHT: u64 = 64 << 20;

impl<K: std::hash::Hash + Eq + Copy, V: Clone> Memo<K, V> {
    pub(super) fn new(capacity: NonZeroUsize, weigh: fn(&V) -> u64) -> Self {
        Self { cells: Mutex::new(LruCache::new(capacity)), weigh }
    }

    /// The value of `key`, made by `make` unless it is there. A failure is not kept.
    pub(super) async fn get_or_make<E>(
        &self,
        key: K,
        make: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        let cell = Arc::clone(self.cells.lock().get_or_insert(key, Arc::default));
        if let Some(value) = cell.get() {
            return Ok(value.clone());
        }
        let value = cell.get_or_try_init(|| make).await.cloned();
        drop(self.lighten());
        value
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.cells.lock().len()
    }

    /// Takes out what is too much, the latest excepted.
    fn lighten(&self) -> Vec<Arc<OnceCell<V>>> {
        let weight = |cell: &OnceCell<V>| cell.get().map_or(0, self.weigh);
        let mut cells = self.cells.lock();
        let mut total: u64 = cells.iter().map(|(_, cell)| weight(cell)).sum();
        let mut gone = Vec::new();
        while total > MAX_WEIGHT && cells.len() > 1 {
            let Some((_, cell)) = cells.pop_lru() else { break };
            total -= weight(&cell);
            gone.push(cell);
        }
        gone
    }
}

/// Trees that were built lately, shared by every epoch of their commit.
pub(super) type Trees = Memo<CommitId, Arc<Tree>>;
