//! The permanent index from content hash to size.
//!
//! Entries of a manifest carry no size, yet `stat` must tell the truth, so every size that was
//! ever learned is kept in one append-only file of the state directory ([`Records`], 30 bytes a
//! size). Only the sizes of checked contents of the present scheme are global: what a `.dvc` file
//! or a remote says is a *claim*, and the two forms that a text can have under one legacy hash
//! differ in length, so both are kept by the remote they were learned from.
//!
//! | bytes | meaning |
//! |---|---|
//! | 0..16 | digest |
//! | 16..22 | size, little endian |
//! | 22 | bits: 1 legacy scheme, 2 manifest, 4 verified, 8 forgotten |
//! | 23..28 | scope: the start of the MD5 of the remote's URL, zeros for global sizes |
//! | 28..30 | check |
//!
//! In memory ([`table`]) a size is two words: a hash of (key, scope) under a key of this process,
//! which nobody outside can make collide, and the size itself.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    num::NonZeroUsize,
    path::Path,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use lru::LruCache;
use md5::{Digest as _, Md5};
use parking_lot::{Mutex, RwLock};

use self::{
    record::{WIDTH, decode, encode},
    table::Table,
};
use crate::{atomic::records::Records, id::Key};

mod record;
mod table;
#[cfg(test)]
mod tests;

/// Sizes kept at most: in memory some 110 MB, and not much more on disk.
const LIMIT: usize = 1 << 22;

/// The file is written anew when it has this many records that say nothing new, and a quarter more
/// than there are sizes.
const STALE: u64 = 4096;

/// Tables, so that learning does not stop those who look up, and growing takes little memory.
const SHARDS: usize = 16;

/// Revisions that are remembered; wrong sizes are few.
const REVISED: NonZeroUsize = NonZeroUsize::new(1 << 14).unwrap();

/// Remotes whose claims are let go of once a size is global.
const SCOPES: usize = 32;

/// Sizes above this fit no record; no store holds such an object.
const LARGEST: u64 = (1 << 47) - 1;

/// What is known of an object's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The size in bytes.
    pub bytes: u64,
    /// Whether the bytes were counted and their hash checked; otherwise somebody's claim.
    pub is_verified: bool,
}

/// The remote that a claim is about, as a short hash of its URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope([u8; 5]);

impl Scope {
    /// The scope of the remote at `url`.
    pub fn of(url: &str) -> Self {
        let digest: [u8; 16] = Md5::digest(url.as_bytes()).into();
        let mut scope = [0; 5];
        scope.copy_from_slice(&digest[..5]);
        Self(scope)
    }

    const GLOBAL: Self = Self([0; 5]);
}

/// The sizes that were learned, by this process and by others that share the state directory.
///
/// Nothing here fails: without its file the index lives in memory only. The file is read at the
/// first question.
#[derive(Debug)]
pub struct SizeIndex {
    known: [RwLock<Table>; SHARDS],
    hasher: RandomState,
    /// Whose claims there are.
    scopes: RwLock<Vec<Scope>>,
    /// Objects of which another size was told before.
    revised: Mutex<LruCache<Key, ()>>,
    is_any_revised: AtomicBool,
    records: Option<Records<WIDTH>>,
    loaded: Once,
}

impl SizeIndex {
    /// Opens or creates the index file; one that cannot be used is logged and done without.
    pub fn open(path: &Path) -> Self {
        let records = Records::open(path, LIMIT as u64 * 3 / 2)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "size index is not kept");
            })
            .ok();
        Self { records, ..Self::in_memory() }
    }

    /// An index that forgets everything when it is dropped.
    pub fn in_memory() -> Self {
        Self {
            known: std::array::from_fn(|_| RwLock::new(Table::new(LIMIT / SHARDS))),
            hasher: RandomState::new(),
            scopes: RwLock::default(),
            revised: Mutex::new(LruCache::new(REVISED)),
            is_any_revised: AtomicBool::new(false),
            records: None,
            loaded: Once::new(),
        }
    }

    /// What is known of `key`'s size at the remote `scope`. Reads what other processes added when
    /// it is not known yet.
    pub fn get(&self, key: &Key, scope: Scope) -> Option<Size> {
        self.known_size(key, scope)
            .or_else(|| self.refresh().then(|| self.known_size(key, scope)).flatten())
    }

    /// The size of an object whose content was checked, where its name fixes it everywhere.
    pub fn verified(&self, key: &Key) -> Option<u64> {
        if !key.fixes_bytes() {
            return None;
        }
        let size = self.get(key, Scope::GLOBAL)?;
        size.is_verified.then_some(size.bytes)
    }

    /// Keeps a size whose content was checked against `key`.
    pub fn record_verified(&self, key: &Key, scope: Scope, bytes: u64) {
        let scope = if key.fixes_bytes() { Scope::GLOBAL } else { scope };
        self.record(scope, [(*key, Some(Size { bytes, is_verified: true }))]);
    }

    /// Keeps a size that a `.dvc` file or the remote `scope` claims; never above a verified one.
    pub fn record_claim(&self, key: &Key, scope: Scope, bytes: u64) {
        self.record_claims([(*key, bytes)], scope);
    }

    /// [`Self::record_claim`] for many objects at once.
    pub fn record_claims(&self, sizes: impl IntoIterator<Item = (Key, u64)>, scope: Scope) {
        // Of sizes that are global that is seen to below.
        let sizes = sizes.into_iter().filter(|(key, _)| {
            key.fixes_bytes() || !self.held(key, scope).is_some_and(|known| known.is_verified)
        });
        let claim = |bytes| Some(Size { bytes, is_verified: false });
        self.record(scope, sizes.map(|(key, bytes)| (key, claim(bytes))));
    }

    /// Drops a claim that turned out wrong; verified sizes stay.
    pub fn forget_claim(&self, key: &Key, scope: Scope) {
        if self.known_size(key, scope).is_some_and(|size| !size.is_verified) {
            self.record(scope, [(*key, None)]);
        }
    }

    /// Whether another size of this object was told before, so that somebody may still believe it.
    pub fn is_revised(&self, key: &Key) -> bool {
        self.is_any_revised.load(Ordering::Acquire) && self.revised.lock().contains(key)
    }

    /// Notes that readers may have been told another size than the one that is right.
    pub fn revise(&self, key: &Key) {
        self.revised.lock().put(*key, ());
        self.is_any_revised.store(true, Ordering::Release);
    }

    /// How many sizes are known.
    pub fn len(&self) -> usize {
        self.load();
        self.known.iter().map(|table| table.read().len()).sum()
    }

    /// Whether no size is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn known_size(&self, key: &Key, scope: Scope) -> Option<Size> {
        let global = key.fixes_bytes().then(|| self.held(key, Scope::GLOBAL)).flatten();
        global.or_else(|| self.held(key, scope))
    }

    fn record(&self, scope: Scope, sizes: impl IntoIterator<Item = (Key, Option<Size>)>) {
        self.load();
        let is_kept = |size: &Option<Size>| size.is_none_or(|size| size.bytes <= LARGEST);
        let news =
            sizes.into_iter().filter(|(key, size)| is_kept(size) && self.apply(key, scope, *size));
        let mut news: Vec<_> = news.map(|(key, size)| encode(&key, scope, size)).collect();
        if let Some(records) = &self.records
            && !news.is_empty()
            && let Err(error) = records.append_all(&mut news)
        {
            tracing::debug!(count = news.len(), %error, "sizes not kept");
        }
    }

    /// Takes a size over; false if that says nothing new. A global size takes the place of claims.
    /// Nothing but empty content has no bytes.
    fn apply(&self, key: &Key, scope: Scope, size: Option<Size>) -> bool {
        let set = |scope, new| {
            let slot = self.slot(key, scope);
            let before = self.table(slot).write().set(slot, new);
            self.note_revision(key, before, size);
            before != new
        };
        if size.is_some_and(|size| size.bytes == 0) && !key.is_of_nothing() {
            return false;
        }
        if scope == Scope::GLOBAL {
            for claimed in &*self.scopes.read() {
                set(*claimed, None);
            }
        } else {
            self.note_scope(scope);
            if size.is_some() && key.fixes_bytes() && self.held(key, Scope::GLOBAL).is_some() {
                return false;
            }
        }
        set(scope, size)
    }

    /// Notes a size that was known and is no longer; what the file said before it was read to its
    /// end nobody was told.
    fn note_revision(&self, key: &Key, before: Option<Size>, now: Option<Size>) {
        let Some(before) = before.filter(|_| self.loaded.is_completed()) else { return };
        if now.is_none_or(|now| now.bytes != before.bytes) {
            self.revise(key);
        }
    }

    fn note_scope(&self, scope: Scope) {
        if !self.scopes.read().contains(&scope) {
            let mut scopes = self.scopes.write();
            if scopes.len() < SCOPES && !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
    }

    fn held(&self, key: &Key, scope: Scope) -> Option<Size> {
        let slot = self.slot(key, scope);
        self.table(slot).read().get(slot)
    }

    /// Reads the file the first time; others wait for that, or they would ask a remote for what
    /// is about to be known.
    fn load(&self) {
        self.loaded.call_once(|| {
            if self.read_new() {
                self.tidy();
            }
        });
    }

    /// Reads what was appended since the last time; true when there was something.
    fn refresh(&self) -> bool {
        if self.loaded.is_completed() {
            return self.read_new();
        }
        self.load();
        true
    }

    fn read_new(&self) -> bool {
        let Some(records) = &self.records else { return false };
        let read = records.read_new(|record| {
            if let Some((key, scope, size)) = decode(record) {
                self.apply(&key, scope, size);
            }
        });
        read.unwrap_or(false)
    }

    /// Writes the file anew without what is damaged, forgotten or said twice, if that is much.
    fn tidy(&self) {
        let Some(records) = &self.records else { return };
        let sizes: usize = self.known.iter().map(|table| table.read().len()).sum();
        let stale = records.count().saturating_sub(sizes as u64);
        if stale < STALE.max(sizes as u64 / 4) {
            return;
        }
        let mut kept = Table::new(usize::MAX);
        let rewritten = records.rewrite(|record| {
            let Some((key, scope, Some(size))) = decode(record) else { return false };
            let is_valid = self.held(&key, scope) == Some(size);
            is_valid && kept.set(self.slot(&key, scope), Some(size)).is_none()
        });
        if let Err(error) = rewritten {
            tracing::debug!(%error, "size index not tidied");
        }
    }

    fn slot(&self, key: &Key, scope: Scope) -> u64 {
        self.hasher.hash_one((key, scope))
    }

    fn table(&self, slot: u64) -> &RwLock<Table> {
        &self.known[slot as usize % SHARDS]
    }
}
