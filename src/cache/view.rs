//! What this process knows of the order in which blobs were used.
//!
//! The file system is the truth; this is a view of it that may be stale and is bounded: what this
//! process used, in that order, and the oldest of what a scan found. What is in use is in neither,
//! so nobody who looks for a victim comes across it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use lru::LruCache;
use parking_lot::Mutex;

use super::now_secs;
use crate::id::Key;

/// Items held at most of each kind, about 100 bytes each.
const CAPACITY: usize = 1 << 18;

/// Something on disk that may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Item {
    /// A whole blob.
    Blob(Key),
    /// A download that nobody goes on with.
    Partial(Key),
}

/// What is known of an item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub(super) used_secs: i64,
}

/// An item that nobody here uses, and that was not used for the longest time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Victim {
    pub(super) item: Item,
    pub(super) entry: Entry,
    /// The number of the scan that has counted its bytes.
    pub(super) counted_by: Option<u64>,
}

/// Items by last use, blobs in use, and blobs that this process checked but has not synced.
#[derive(Debug, Default)]
pub(super) struct View(Mutex<State>);

#[derive(Debug)]
struct State {
    /// What this process used, and uses no more.
    order: LruCache<Item, Entry>,
    /// What the last scan has found so far, by last use.
    found: BTreeSet<(i64, Item, u64)>,
    /// How many scans there were.
    scans: u64,
    pins: HashMap<Key, Pinned>,
    unsynced: HashSet<Key>,
}

#[derive(Debug)]
struct Pinned {
    count: usize,
    /// In bytes; nothing once it was removed.
    bytes: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            order: LruCache::unbounded(),
            found: BTreeSet::default(),
            scans: 0,
            pins: HashMap::default(),
            unsynced: HashSet::default(),
        }
    }
}

impl State {
    /// A full order takes no newcomers: they are the last to be evicted anyway.
    fn touch(&mut self, item: Item, entry: Entry) {
        if self.order.len() < CAPACITY || self.order.contains(&item) {
            self.order.put(item, entry);
        }
    }

    fn is_in_use(&self, item: &Item) -> bool {
        matches!(item, Item::Blob(key) if self.pins.contains_key(key))
    }
}

impl View {
    /// Notes when something was last used.
    pub(super) fn touch(&self, item: Item, entry: Entry) {
        self.0.lock().touch(item, entry);
    }

    /// Forgets what an earlier scan found; gives the number of this one.
    pub(super) fn begin_scan(&self) -> u64 {
        let mut state = self.0.lock();
        state.found.clear();
        state.scans += 1;
        state.scans
    }

    /// Adds what a scan has come across.
    pub(super) fn add_found(&self, items: impl IntoIterator<Item = (self::Item, Entry)>) {
        let found = &mut self.0.lock().found;
        for (item, entry) in items {
            found.insert((entry.used_secs, item, entry.bytes));
            if found.len() > CAPACITY {
                found.pop_last();
            }
        }
    }

    pub(super) fn forget(&self, item: &Item) {
        let mut state = self.0.lock();
        state.order.pop(item);
        if let Item::Blob(key) = item
            && let Some(pinned) = state.pins.get_mut(key)
        {
            pinned.bytes = None;
        }
    }

    /// Takes what was not used for the longest time, if it was last used before `unused_since`.
    pub(super) fn take_victim(&self, unused_since: i64) -> Option<Victim> {
        let state = &mut *self.0.lock();
        loop {
            let found = state.found.first().map(|(used_secs, ..)| *used_secs);
            let known = state.order.peek_lru().map(|(_, entry)| entry.used_secs);
            if found.into_iter().chain(known).min()? >= unused_since {
                return None;
            }
            if known.is_some_and(|known| found.is_none_or(|found| known < found)) {
                let (item, entry) = state.order.pop_lru()?;
                return Some(Victim { item, entry, counted_by: None });
            }
            let (used_secs, item, bytes) = state.found.pop_first()?;
            // What was used since then has its place among what was used.
            if !state.is_in_use(&item) && !state.order.contains(&item) {
                let entry = Entry { bytes, used_secs };
                return Some(Victim { item, entry, counted_by: Some(state.scans) });
            }
        }
    }

    /// Whether somebody here keeps it from eviction.
    pub(super) fn is_in_use(&self, item: &Item) -> bool {
        self.0.lock().is_in_use(item)
    }

    /// Keeps `key`, of `bytes` bytes, from eviction until the pin is dropped.
    pub(super) fn pin(self: &Arc<Self>, key: Key, bytes: u64) -> Pin {
        let mut state = self.0.lock();
        state.order.pop(&Item::Blob(key));
        let pinned = state.pins.entry(key).or_insert(Pinned { count: 0, bytes: None });
        pinned.count += 1;
        pinned.bytes = Some(bytes);
        Pin { view: self.clone(), key }
    }

    pub(super) fn set_unsynced(&self, key: Key, is_unsynced: bool) {
        let mut state = self.0.lock();
        if is_unsynced {
            state.unsynced.insert(key);
        } else {
            state.unsynced.remove(&key);
        }
    }

    /// Whether this process checked `key` and has not synced it yet.
    pub(super) fn is_unsynced(&self, key: &Key) -> bool {
        self.0.lock().unsynced.contains(key)
    }
}

/// Keeps a blob from being evicted. It counts as used until this is dropped.
#[derive(Debug)]
pub struct Pin {
    view: Arc<View>,
    key: Key,
}

impl Pin {
    /// Another one for the same blob.
    pub(super) fn again(&self) -> Self {
        if let Some(pinned) = self.view.0.lock().pins.get_mut(&self.key) {
            pinned.count += 1;
        }
        Self { view: self.view.clone(), key: self.key }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.view.0.lock();
        let Some(pinned) = state.pins.get_mut(&self.key) else { return };
        pinned.count -= 1;
        if pinned.count == 0
            && let Some(bytes) = state.pins.remove(&self.key).and_then(|pinned| pinned.bytes)
        {
            state.touch(Item::Blob(self.key), Entry { bytes, used_secs: now_secs() });
        }
    }
}
