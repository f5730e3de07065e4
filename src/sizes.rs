//! The permanent index from content hash to size.
//!
//! Entries of a manifest carry no size, yet `stat` must tell the truth, so every size that was
//! ever learned is kept in one append-only file of the state directory ([`Records`], 30 bytes an
//! entry). Only the sizes of checked contents of the present scheme are global: what a `.dvc` file
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
//! No content but the empty one has size 0, whoever says so.
//!
//! In memory an entry is two words: a hash of (key, scope) under a key of this process, which
//! nobody outside can make collide, and the size.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    num::NonZeroUsize,
    path::Path,
};

use lru::LruCache;
use md5::{Digest as _, Md5};
use parking_lot::{Mutex, RwLock};

use crate::{
    atomic::records::Records,
    id::{Key, Scheme},
};

/// Bytes of a record.
const WIDTH: usize = 30;

/// Records kept before the older half is dropped; in memory about 20 bytes each.
const LIMIT: u64 = 1 << 23;

/// Revisions that are remembered; wrong sizes are few.
const REVISED: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();

/// Sizes above this fit no record; no store holds such an object.
const LARGEST: u64 = (1 << 47) - 1;

const LEGACY: u8 = 1;
const MANIFEST: u8 = 2;
const VERIFIED: u8 = 4;
const FORGOTTEN: u8 = 8;

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
/// Nothing here fails: without its file the index lives in memory only.
#[derive(Debug)]
pub struct SizeIndex {
    known: RwLock<HashMap<u64, Size>>,
    /// Objects of which another size was told before.
    revised: Mutex<LruCache<Key, ()>>,
    hasher: RandomState,
    records: Option<Records<WIDTH>>,
    /// How far the file was read. Only ever tried, so that nobody waits for another's reading.
    read_to: Mutex<u64>,
}

impl SizeIndex {
    /// Opens or creates the index file; one that cannot be used is logged and done without.
    pub fn open(path: &Path) -> Self {
        let records = Records::open(path, LIMIT)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "size index is not kept");
            })
            .ok();
        let index = Self { records, ..Self::in_memory() };
        index.refresh();
        index
    }

    /// An index that forgets everything when it is dropped.
    pub fn in_memory() -> Self {
        Self {
            known: RwLock::default(),
            revised: Mutex::new(LruCache::new(REVISED)),
            hasher: RandomState::new(),
            records: None,
            read_to: Mutex::new(0),
        }
    }

    /// What is known of `key`'s size at the remote `scope`. Reads what other processes added when
    /// it is not known yet.
    pub fn get(&self, key: &Key, scope: Scope) -> Option<Size> {
        self.known_size(key, scope)
            .or_else(|| self.refresh().then(|| self.known_size(key, scope)).flatten())
    }

    /// Keeps a size whose content was checked against `key`.
    pub fn record_verified(&self, key: &Key, scope: Scope, bytes: u64) {
        let kept_at = if is_global(key) { Scope::GLOBAL } else { scope };
        self.note_revision(key, self.known_size(key, scope), Some(bytes));
        self.record(key, kept_at, Some(Size { bytes, is_verified: true }));
    }

    /// Keeps a size that a `.dvc` file or the remote `scope` claims; never above a verified one.
    pub fn record_claim(&self, key: &Key, scope: Scope, bytes: u64) {
        let known = self.known_size(key, scope);
        if !known.is_some_and(|size| size.is_verified) {
            self.note_revision(key, known, Some(bytes));
            self.record(key, scope, Some(Size { bytes, is_verified: false }));
        }
    }

    /// Drops a claim that turned out wrong; verified sizes stay.
    pub fn forget_claim(&self, key: &Key, scope: Scope) {
        let known = self.known_size(key, scope);
        if known.is_some_and(|size| !size.is_verified) {
            self.note_revision(key, known, None);
            self.record(key, scope, None);
        }
    }

    /// Whether another size of this object was told before, so that somebody may still believe it.
    pub fn is_revised(&self, key: &Key) -> bool {
        self.revised.lock().contains(key)
    }

    /// Notes that readers may have been told another size than the one that is right.
    pub fn revise(&self, key: &Key) {
        self.revised.lock().put(*key, ());
    }

    fn note_revision(&self, key: &Key, before: Option<Size>, now: Option<u64>) {
        if before.is_some_and(|before| Some(before.bytes) != now) {
            self.revise(key);
        }
    }

    fn known_size(&self, key: &Key, scope: Scope) -> Option<Size> {
        let known = self.known.read();
        let global = is_global(key).then(|| known.get(&self.slot(key, Scope::GLOBAL))).flatten();
        let size = global.or_else(|| known.get(&self.slot(key, scope))).copied();
        size.filter(|size| size.bytes > 0 || key.is_of_nothing())
    }

    fn record(&self, key: &Key, scope: Scope, size: Option<Size>) {
        let slot = self.slot(key, scope);
        if size.is_some_and(|size| size.bytes > LARGEST)
            || self.known.read().get(&slot).copied() == size
        {
            return;
        }
        self.apply(slot, size);
        if let Some(records) = &self.records
            && let Err(error) = records.append(encode(key, scope, size))
        {
            tracing::debug!(%key, %error, "size not kept");
        }
    }

    fn apply(&self, slot: u64, size: Option<Size>) {
        let mut known = self.known.write();
        match size {
            Some(size) => drop(known.insert(slot, size)),
            None => drop(known.remove(&slot)),
        }
    }

    /// Reads what was appended since the last time; true when there was something.
    fn refresh(&self) -> bool {
        let (Some(records), Some(mut read_to)) = (&self.records, self.read_to.try_lock()) else {
            return false;
        };
        if !records.has_grown(*read_to) {
            return false;
        }
        // What was there before the first look was not told to anybody.
        let is_told = *read_to > 0;
        let end = records.read_from(*read_to, |record| {
            let (key, scope, size) = decode(record);
            if is_told {
                let now = size.map(|size| size.bytes);
                self.note_revision(&key, self.known_size(&key, scope), now);
            }
            self.apply(self.slot(&key, scope), size);
        });
        *read_to = end.unwrap_or(*read_to);
        true
    }

    fn slot(&self, key: &Key, scope: Scope) -> u64 {
        self.hasher.hash_one((key, scope))
    }
}

/// Manifests are never normalised, so their hash fixes their bytes in either scheme.
fn is_global(key: &Key) -> bool {
    key.scheme == Scheme::Md5 || key.is_manifest
}

fn encode(key: &Key, scope: Scope, size: Option<Size>) -> [u8; WIDTH] {
    let mut record = [0; WIDTH];
    record[..16].copy_from_slice(&key.digest);
    record[16..22].copy_from_slice(&size.map_or(0, |size| size.bytes).to_le_bytes()[..6]);
    record[22] = if key.scheme == Scheme::Dos2Unix { LEGACY } else { 0 }
        | if key.is_manifest { MANIFEST } else { 0 }
        | match size {
            Some(Size { is_verified: true, .. }) => VERIFIED,
            Some(_) => 0,
            None => FORGOTTEN,
        };
    record[23..28].copy_from_slice(&scope.0);
    record
}

fn decode(record: &[u8; WIDTH]) -> (Key, Scope, Option<Size>) {
    let (mut digest, mut bytes, mut scope) = ([0; 16], [0; 8], [0; 5]);
    digest.copy_from_slice(&record[..16]);
    bytes[..6].copy_from_slice(&record[16..22]);
    scope.copy_from_slice(&record[23..28]);
    let bits = record[22];
    let scheme = if bits & LEGACY == 0 { Scheme::Md5 } else { Scheme::Dos2Unix };
    let size = Size { bytes: u64::from_le_bytes(bytes), is_verified: bits & VERIFIED != 0 };
    (
        Key { digest, scheme, is_manifest: bits & MANIFEST != 0 },
        Scope(scope),
        (bits & FORGOTTEN == 0).then_some(size),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8, scheme: Scheme) -> Key {
        Key { digest: [n; 16], scheme, is_manifest: false }
    }

    /// The MD5 of nothing.
    const EMPTY: [u8; 16] = [
        0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42,
        0x7e,
    ];

    fn here() -> Scope {
        Scope::of("s3://here")
    }

    fn there() -> Scope {
        Scope::of("s3://there")
    }

    #[test]
    fn verified_sizes_are_global_and_claims_are_not() {
        let index = SizeIndex::in_memory();
        let key = key(1, Scheme::Md5);
        index.record_claim(&key, here(), 10);
        assert_eq!(index.get(&key, here()), Some(Size { bytes: 10, is_verified: false }));
        assert_eq!(index.get(&key, there()), None);
        index.record_verified(&key, here(), 12);
        assert_eq!(index.get(&key, there()), Some(Size { bytes: 12, is_verified: true }));
        index.record_claim(&key, there(), 99);
        assert_eq!(index.get(&key, there()).unwrap().bytes, 12);
    }

    #[test]
    fn nothing_but_the_empty_content_is_empty() {
        let index = SizeIndex::in_memory();
        let (some, none) = (key(1, Scheme::Md5), Key { digest: EMPTY, ..key(1, Scheme::Md5) });
        for key in [&some, &none] {
            index.record_claim(key, here(), 0);
        }
        assert_eq!(index.get(&some, here()), None);
        assert_eq!(index.get(&none, here()).unwrap().bytes, 0);
    }

    #[test]
    fn a_size_that_was_told_otherwise_before_is_revised() {
        let index = SizeIndex::in_memory();
        let sound = key(1, Scheme::Md5);
        index.record_claim(&sound, here(), 10);
        index.record_verified(&sound, here(), 10);
        assert!(!index.is_revised(&sound));
        let (moved, forgotten, wrong) =
            (key(2, Scheme::Md5), key(3, Scheme::Md5), key(4, Scheme::Md5));
        for key in [&moved, &forgotten, &wrong] {
            index.record_claim(key, here(), 10);
        }
        index.record_claim(&moved, here(), 11);
        index.forget_claim(&forgotten, here());
        index.record_verified(&wrong, here(), 12);
        for key in [&moved, &forgotten, &wrong] {
            assert!(index.is_revised(key));
        }
    }

    #[test]
    fn a_legacy_size_belongs_to_its_remote_even_when_verified() {
        let index = SizeIndex::in_memory();
        let key = key(1, Scheme::Dos2Unix);
        index.record_verified(&key, here(), 12);
        index.record_verified(&key, there(), 14);
        assert_eq!(index.get(&key, here()).unwrap().bytes, 12);
        assert_eq!(index.get(&key, there()).unwrap().bytes, 14);
        let manifest = Key { is_manifest: true, ..key };
        index.record_verified(&manifest, here(), 5);
        assert_eq!(index.get(&manifest, there()).unwrap().bytes, 5);
    }

    #[test]
    fn everything_survives_a_restart_and_forgotten_claims_stay_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sizes");
        let first = SizeIndex::open(&path);
        first.record_verified(&key(1, Scheme::Md5), here(), 1 << 40);
        first.record_claim(&key(2, Scheme::Md5), here(), 7);
        first.record_claim(&key(3, Scheme::Md5), here(), 8);
        first.forget_claim(&key(3, Scheme::Md5), here());
        let second = SizeIndex::open(&path);
        assert_eq!(second.get(&key(1, Scheme::Md5), there()).unwrap().bytes, 1 << 40);
        assert_eq!(second.get(&key(2, Scheme::Md5), here()).unwrap().bytes, 7);
        assert_eq!(second.get(&key(3, Scheme::Md5), here()), None);
    }

    #[test]
    fn two_writers_see_what_the_other_learned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sizes");
        let (a, b) = (SizeIndex::open(&path), SizeIndex::open(&path));
        for n in 0..50 {
            a.record_verified(&key(2 * n, Scheme::Md5), here(), 1);
            b.record_verified(&key(2 * n + 1, Scheme::Md5), here(), 1);
        }
        for n in 0..100 {
            assert!(a.get(&key(n, Scheme::Md5), here()).is_some());
            assert!(b.get(&key(n, Scheme::Md5), here()).is_some());
        }
    }

    #[test]
    fn what_is_damaged_is_skipped_and_an_unusable_file_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sizes");
        let index = SizeIndex::open(&path);
        (0..4).for_each(|n| index.record_verified(&key(n, Scheme::Md5), here(), 9));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[WIDTH + 3] ^= 1;
        bytes.truncate(4 * WIDTH - 5);
        bytes.splice(0..0, vec![0xee; WIDTH]);
        std::fs::write(&path, bytes).unwrap();
        let again = SizeIndex::open(&path);
        let found: Vec<u8> =
            (0..4).filter(|n| again.get(&key(*n, Scheme::Md5), here()).is_some()).collect();
        assert_eq!(found, [0, 2]);

        let nowhere = SizeIndex::open(dir.path());
        nowhere.record_claim(&key(1, Scheme::Md5), here(), 3);
        assert_eq!(nowhere.get(&key(1, Scheme::Md5), here()).unwrap().bytes, 3);
    }

    #[test]
    fn a_size_that_no_record_holds_is_not_kept() {
        let index = SizeIndex::in_memory();
        index.record_claim(&key(1, Scheme::Md5), here(), u64::MAX);
        assert_eq!(index.get(&key(1, Scheme::Md5), here()), None);
    }
}
