//! Keeps the cache within its limits.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

use super::{CacheError, Entry, Item, Key, Shared, Victim, now_secs, usage::lock_patiently};

/// What was used so lately makes no room for what nobody has asked for.
const LATELY: Duration = Duration::from_mins(10);

/// For whom room is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// For somebody who wants it now: whatever was not used for the longest time goes.
    Wanted,
    /// For somebody who may want it later: what was used within the last ten minutes stays.
    Spare,
}

impl Room {
    /// Only what was last used before then may go, in seconds since 1970.
    fn unused_since(self) -> i64 {
        match self {
            Self::Wanted => i64::MAX,
            Self::Spare => now_secs() - LATELY.as_secs() as i64,
        }
    }
}

impl Shared {
    /// Counts `bytes` more, evicting what the limits demand.
    pub(super) fn reserve(&self, bytes: u64, room: Room) -> Result<(), CacheError> {
        self.require_ours()?;
        let full = || match room {
            Room::Wanted => CacheError::Full { bytes, dir: self.layout.root.clone() },
            Room::Spare => CacheError::NoneToSpare { bytes },
        };
        if bytes > self.max_bytes {
            return Err(full());
        }
        let total = self
            .usage
            .add(bytes.cast_signed())
            .map_err(CacheError::io("count the bytes of", &self.layout.root))?;
        if total <= self.max_bytes && self.lacking_free(bytes) == 0 || self.make_room(bytes, room) {
            return Ok(());
        }
        if let Err(error) = self.usage.cancel(bytes) {
            tracing::debug!(%error, "cache use not counted");
        }
        Err(full())
    }

    /// Counts `bytes` less.
    pub(super) fn release(&self, bytes: u64) {
        if let Err(error) = self.usage.add(-bytes.cast_signed()) {
            tracing::debug!(%error, "cache use not counted");
        }
    }

    /// Brings the cache, with `bytes` that are counted but not yet written, within its limits.
    fn make_room(&self, bytes: u64, room: Room) -> bool {
        // One evictor at a time, so that two processes do not both evict for the same excess.
        let lock =
            OpenOptions::new().create(true).append(true).open(self.layout.own().join("evict"));
        let _guard = lock.inspect(lock_patiently);
        let excess = self.usage.total().saturating_sub(self.max_bytes);
        let is_within = self.evict(excess, room) >= excess;
        let lacking = self.lacking_free(bytes);
        is_within && self.evict(lacking, room) >= lacking
    }

    /// How many bytes must go so that the disk keeps its minimum after `bytes` more.
    fn lacking_free(&self, bytes: u64) -> u64 {
        self.free_bytes().map_or(0, |free| (self.min_free_bytes + bytes).saturating_sub(free))
    }

    /// The disk's free bytes for us; nothing where that cannot be told.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.layout.root).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Evicts until `bytes` are gone or all that is left is in use; returns how many are gone.
    pub(super) fn evict(&self, bytes: u64, room: Room) -> u64 {
        let mut freed = 0;
        while freed < bytes {
            let steps = self.scans.steps();
            match self.view.take_victim(room.unused_since()) {
                Some(victim) => freed += self.evict_item(victim),
                // Whoever may want it later must not wait for a scan: somebody may come to want it
                // meanwhile.
                None if room == Room::Wanted && self.find_more_than(steps) => {}
                None => break,
            }
        }
        freed
    }

    /// Evicts one item; returns the bytes that went, which are none when it is gone already, is no
    /// longer ours, or was used by another process since.
    pub(super) fn evict_item(&self, victim: Victim) -> u64 {
        let Victim { item, entry, counted_by } = victim;
        let freed = match item {
            Item::Blob(key) => self.evict_blob(&key, entry),
            Item::Partial(key) => self.evict_partial(&key, entry),
        };
        if freed > 0 {
            self.release(freed);
            if let Some(scan) = counted_by {
                self.scans.note_gone(scan, freed);
            }
            self.stats.evictions.add(1);
        }
        freed
    }

    fn evict_blob(&self, key: &Key, entry: Entry) -> u64 {
        let path = self.layout.blob(key);
        let Ok(found) = fs::symlink_metadata(&path) else {
            return 0;
        };
        if !self.is_ours(key, &found) {
            return 0;
        }
        if found.atime() > entry.used_secs {
            let used = Entry { used_secs: found.atime(), ..entry };
            self.view.touch(Item::Blob(*key), used);
            return 0;
        }
        if fs::remove_file(&path).is_ok() { found.size() } else { 0 }
    }

    /// Removes a download unless somebody is at it.
    fn evict_partial(&self, key: &Key, entry: Entry) -> u64 {
        let path = self.layout.partial_data(key);
        let Ok(file) = OpenOptions::new().write(true).open(&path) else {
            return 0;
        };
        if file.try_lock().is_err() || fs::remove_file(&path).is_err() {
            return 0;
        }
        // A map that stays behind belongs to no data and is ignored.
        drop(fs::remove_file(self.layout.partial_map(key)));
        entry.bytes
    }
}
