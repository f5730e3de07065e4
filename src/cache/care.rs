//! What the user asks of a cache: how full it is, whether it is sound, to make it smaller.

use std::{
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::Serialize;

use super::{
    BlobCache, Entry, Item, Key, Room, Shared, Victim,
    layout::SCHEMES,
    lookup::hash_matches,
    open_regular,
    scan::{Found, Last},
};

/// How full a cache is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Bytes of our blobs and of unfinished downloads.
    pub bytes: u64,
    /// Number of our blobs.
    pub blobs: u64,
    /// Bytes of blobs that others put there; they are never evicted.
    pub foreign_bytes: u64,
    /// Number of blobs that others put there.
    pub foreign_blobs: u64,
    /// The most bytes that ours may take.
    pub max_bytes: u64,
    /// The least bytes that the disk must keep free.
    pub min_free_bytes: u64,
    /// Bytes free on the disk, where that can be told.
    pub free_bytes: Option<u64>,
}

/// What hashing every blob has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs that were hashed.
    pub checked: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that do not match their name, or cannot be read.
    pub bad: Vec<Key>,
    /// How many of the bad ones were removed.
    pub removed: u64,
}

/// What `gc` is to bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GcTarget {
    /// Our blobs take no more than this many bytes.
    Bytes(u64),
    /// Blobs not used since then are gone.
    UnusedSince(SystemTime),
    /// All our blobs are gone.
    Everything,
}

impl BlobCache {
    /// Scans the directory and tells how full it is.
    pub fn info(&self) -> Info {
        self.shared.info(&self.shared.walk(|_, _| ()))
    }

    /// How full it is by the shared counter, and what the last scan found else; looks at no blob.
    pub fn glance(&self) -> Info {
        let shared = &self.shared;
        Info { bytes: shared.usage.total(), ..shared.info(&shared.scans.found()) }
    }

    /// Hashes every blob of the directory on all processors; `progress` is told the bytes of each.
    ///
    /// With `is_repair` bad blobs of ours are removed; those of others are only reported.
    pub fn check(&self, is_repair: bool, progress: &(dyn Fn(u64) + Sync)) -> CheckReport {
        let mut keys = Vec::new();
        for scheme in SCHEMES {
            self.shared.walk_blobs(scheme, |key, _| keys.push(key));
        }
        let next = Mutex::new(keys.into_iter());
        let report = Mutex::new(CheckReport::default());
        let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(key) = { next.lock().next() } {
                        self.shared.check_one(&key, is_repair, progress, &report);
                    }
                });
            }
        });
        let mut report = report.into_inner();
        report.bad.sort_unstable();
        report
    }

    /// Evicts blobs of ours but for those `kept`, those used longest ago first, until the target is
    /// met; returns the bytes freed.
    pub fn gc<'a>(&self, target: GcTarget, kept: impl IntoIterator<Item = &'a Key>) -> u64 {
        let shared = &self.shared;
        let _pins: Vec<_> = kept.into_iter().map(|key| shared.view.pin(*key, 0)).collect();
        self.look_around();
        match target {
            GcTarget::Bytes(bytes) => {
                shared.evict(shared.usage.total().saturating_sub(bytes), Room::Wanted)
            }
            GcTarget::UnusedSince(since) => {
                let secs = since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                shared.evict_each(|entry| entry.used_secs < secs as i64)
            }
            GcTarget::Everything => shared.evict_each(|_| true),
        }
    }
}

impl BlobCache {
    /// Finds out what is in the directory unless that was done lately, so that room can be made of
    /// all of it. Waits for the disk.
    pub fn look_around(&self) {
        self.shared.scan_if(Last::is_old);
    }

    /// How many bytes our blobs may take.
    pub fn max_bytes(&self) -> u64 {
        self.shared.max_bytes
    }

    /// Evicts one blob of ours, used or not; returns the bytes freed.
    pub fn evict(&self, key: &Key) -> u64 {
        let shared = &self.shared;
        let item = Item::Blob(*key);
        shared.view.forget(&item);
        let entry = Entry { bytes: 0, used_secs: i64::MAX };
        shared.evict_item(Victim { item, entry, counted_by: None })
    }
}

impl Shared {
    fn info(&self, found: &Found) -> Info {
        Info {
            bytes: found.ours.0,
            blobs: found.ours.1,
            foreign_bytes: found.foreign.0,
            foreign_blobs: found.foreign.1,
            max_bytes: self.max_bytes,
            min_free_bytes: self.min_free_bytes,
            free_bytes: self.free_bytes(),
        }
    }

    fn check_one(
        &self,
        key: &Key,
        is_repair: bool,
        progress: &(dyn Fn(u64) + Sync),
        report: &Mutex<CheckReport>,
    ) {
        let opened = open_regular(&self.layout.blob(key), true);
        let Ok(Some((file, found))) = opened else {
            return;
        };
        let is_good = hash_matches(&file, key).unwrap_or(false);
        let is_removed = !is_good && is_repair && self.is_ours(key, &found);
        if is_removed {
            self.discard(key, &found);
        }
        progress(found.len());
        let mut report = report.lock();
        report.checked += 1;
        report.bytes += found.len();
        report.removed += u64::from(is_removed);
        if !is_good {
            self.stats.verification_failures.add(1);
            report.bad.push(*key);
        }
    }

    fn evict_each(&self, is_victim: impl Fn(&Entry) -> bool) -> u64 {
        let mut freed = 0;
        self.walk(|item: Item, entry| {
            if is_victim(&entry) && !self.view.is_in_use(&item) {
                self.view.forget(&item);
                freed += self.evict_item(Victim { item, entry, counted_by: None });
            }
        });
        freed
    }
}
