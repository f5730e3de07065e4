//! What this process knows of the order in which blobs were used.
//!
//! The file system is the truth; this is a view of it that may be stale and is bounded: it holds
//! the items that will be evicted next, and when those run out another scan brings more.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use lru::LruCache;
use parking_lot::Mutex;

use super::now_secs;
use crate::id::Key;

/// Items held at most, about 100 bytes each.
pub(super) const CAPACITY: usize = 1 << 18;

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

/// Items by last use, blobs in use, and blobs that this process checked but has not synced.
#[derive(Debug, Default)]
pub(super) struct View(Mutex<State>);

#[derive(Debug)]
struct State {
    order: LruCache<Item, Entry>,
    pins: HashMap<Key, usize>,
    unsynced: HashSet<Key>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            order: LruCache::unbounded(),
            pins: HashMap::default(),
            unsynced: HashSet::default(),
        }
    }
}

impl View {
    /// Notes a use. A full view takes no newcomers: they are the last to be evicted anyway.
    pub(super) fn touch(&self, item: Item, entry: Entry) {
        let mut state = self.0.lock();
        if state.order.len() < CAPACITY || state.order.contains(&item) {
            state.order.put(item, entry);
        }
    }

    /// Adds what a scan found, newest first, as older than everything known.
    pub(super) fn extend(&self, found: impl IntoIterator<Item = (Item, Entry)>) {
        let mut state = self.0.lock();
        for (item, entry) in found {
            if !state.order.contains(&item) {
                state.order.put(item, entry);
                state.order.demote(&item);
            }
        }
    }

    pub(super) fn forget(&self, item: &Item) {
        let mut state = self.0.lock();
        state.order.pop(item);
    }

    /// Takes the item that was not used for the longest time, if that is since `unused_since`; one
    /// in use only when `may_be_used` and nothing else is left.
    pub(super) fn take_victim(
        &self,
        may_be_used: bool,
        unused_since: i64,
    ) -> Option<(Item, Entry)> {
        let mut state = self.0.lock();
        for _ in 0..state.order.len() {
            if state.order.peek_lru().is_some_and(|(_, entry)| entry.used_secs >= unused_since) {
                return None;
            }
            let (item, entry) = state.order.pop_lru()?;
            match item {
                Item::Blob(key) if state.pins.contains_key(&key) => {
                    state.order.put(item, entry);
                }
                _ => return Some((item, entry)),
            }
        }
        if may_be_used { state.order.pop_lru() } else { None }
    }

    /// Keeps `key` from eviction until the pin is dropped.
    pub(super) fn pin(self: &Arc<Self>, key: Key) -> Pin {
        *self.0.lock().pins.entry(key).or_default() += 1;
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

/// Keeps a blob from being evicted while others may be.
#[derive(Debug)]
pub struct Pin {
    view: Arc<View>,
    key: Key,
}

impl Pin {
    /// Another one for the same blob.
    pub(super) fn again(&self) -> Self {
        self.view.pin(self.key)
    }

    /// Notes a use of the blob, of `bytes` bytes.
    pub(super) fn note_use(&self, bytes: u64) {
        self.view.touch(Item::Blob(self.key), Entry { bytes, used_secs: now_secs() });
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.view.0.lock();
        if let Some(count) = state.pins.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                state.pins.remove(&self.key);
            }
        }
    }
}
