//! Finds a blob on this disk and decides whether it must be hashed before it is served.

use std::{
    fs::{self, File, Metadata},
    io,
    num::NonZeroU64,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use rustix::fs::{Advice, fadvise};

use super::{
    BlobCache, CachedBlob, Item, Key, Layout, RECENCY, Shared,
    fate::Looks,
    layout::{Standing, standing},
    now_secs, open_regular, read_full_at,
    seen::Fingerprint,
    set_times,
};
use crate::dvc::checksum::Checker;

/// Bytes hashed at a time, and how far ahead of that the disk reads: else each waits for the other.
const HASH_STEP: usize = 256 * 1024;
const READ_AHEAD: u64 = 4 << 20;

/// What the disk has under a key.
#[derive(Debug)]
pub enum Lookup {
    /// The checked content.
    Hit(CachedBlob),
    /// A file that has to be hashed first, which may take long.
    NeedsCheck(Unchecked),
    /// Nothing.
    Miss,
}

/// A file under a blob's name whose content nobody vouches for yet.
#[derive(Debug)]
pub struct Unchecked {
    cache: BlobCache,
    key: Key,
    size: Option<u64>,
    place: usize,
    file: File,
    found: Metadata,
}

impl BlobCache {
    /// Looks for `key` here, then in the neighbours. `size` is its verified size, where known.
    ///
    /// A disk that cannot be read is a miss.
    pub fn open_blob(&self, key: &Key, size: Option<u64>) -> Lookup {
        self.look_from(0, key, size)
    }

    fn look_from(&self, first: usize, key: &Key, size: Option<u64>) -> Lookup {
        for place in first..=self.shared.neighbours.len() {
            match self.look_at(place, key, size) {
                Lookup::Miss => {}
                found => return found,
            }
        }
        Lookup::Miss
    }

    fn look_at(&self, place: usize, key: &Key, size: Option<u64>) -> Lookup {
        let shared = &self.shared;
        let layout = shared.place_at(place);
        let path = layout.blob(key);
        // Asked before the file is looked at: the syncer may stamp it in between.
        let is_checked_by_us = place == 0 && shared.view.is_unsynced(key);
        let (file, found) = match open_regular(&path, false) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Lookup::Miss,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "not read from the cache");
                shared.stats.cache_failures.add(1);
                return Lookup::Miss;
            }
        };
        match shared.trust(key, size, &found, is_checked_by_us, layout) {
            Trust::Good => Lookup::Hit(self.hit(place, key, file, &found)),
            Trust::Bad => Lookup::Miss,
            Trust::Unknown => Lookup::NeedsCheck(Unchecked {
                cache: self.clone(),
                key: *key,
                size,
                place,
                file,
                found,
            }),
        }
    }

    fn hit(&self, place: usize, key: &Key, file: File, found: &Metadata) -> CachedBlob {
        let is_evictable = place == 0 && self.shared.is_ours(key, found);
        if is_evictable {
            let now = now_secs();
            if now - found.atime() >= RECENCY.as_secs() as i64
                && let Err(error) = set_times(&file, Some(now), None)
            {
                tracing::debug!(%key, %error, "use not noted on disk");
            }
        }
        let pin = is_evictable.then(|| self.shared.view.pin(*key, found.size()));
        CachedBlob {
            file: Arc::new(file),
            size: found.size(),
            looks: Some(Looks::of(key, found)),
            pin,
        }
    }
}

enum Trust {
    Good,
    Bad,
    Unknown,
}

impl Shared {
    fn place_at(&self, place: usize) -> &Layout {
        place.checked_sub(1).map_or(&self.layout, |neighbour| &self.neighbours[neighbour])
    }

    fn trust(
        &self,
        key: &Key,
        size: Option<u64>,
        found: &Metadata,
        is_checked_by_us: bool,
        layout: &Layout,
    ) -> Trust {
        let is_size_right = size.is_none_or(|size| size == found.size());
        let is_trusted = match standing(key, found, self.user) {
            Standing::Stamped => self.trusts_stamps(layout),
            Standing::Marked => is_checked_by_us,
            Standing::Foreign => false,
        };
        if is_trusted && is_size_right {
            return Trust::Good;
        }
        match self.seen.verdict(Fingerprint::of(key, found)) {
            Some(true) if is_size_right => Trust::Good,
            Some(false) => Trust::Bad,
            _ => Trust::Unknown,
        }
    }

    /// In a directory of another user, anybody's file may lie under any name.
    fn trusts_stamps(&self, layout: &Layout) -> bool {
        fs::metadata(&layout.root).is_ok_and(|found| found.uid() == self.user || found.uid() == 0)
    }
}

impl Unchecked {
    /// The size in bytes of the file as it was found.
    pub fn size(&self) -> u64 {
        self.found.size()
    }

    /// Hashes the file, and those of the neighbours behind it, until one is good. Slow.
    ///
    /// A bad file of ours is removed; one of others is left alone and remembered.
    pub fn check(self) -> Option<CachedBlob> {
        let mut candidate = self;
        loop {
            let (cache, next, key, size) =
                (candidate.cache.clone(), candidate.place + 1, candidate.key, candidate.size);
            if let Some(blob) = candidate.check_this() {
                return Some(blob);
            }
            match cache.look_from(next, &key, size) {
                Lookup::Hit(blob) => return Some(blob),
                Lookup::NeedsCheck(unchecked) => candidate = unchecked,
                Lookup::Miss => return None,
            }
        }
    }

    fn check_this(self) -> Option<CachedBlob> {
        let shared = &self.cache.shared;
        let before = Fingerprint::of(&self.key, &self.found);
        let is_good = match hash_matches(&self.file, &self.key) {
            Ok(is_good) => is_good,
            Err(error) => {
                tracing::warn!(key = %self.key, %error, "cached blob cannot be read");
                shared.stats.cache_failures.add(1);
                return None;
            }
        };
        // A file that changed while it was hashed proves nothing.
        let now = self.file.metadata().ok()?;
        if Fingerprint::of(&self.key, &now) != before {
            return None;
        }
        if is_good { Some(self.accept()) } else { self.reject(before) }
    }

    fn accept(self) -> CachedBlob {
        let shared = &self.cache.shared;
        if self.place == 0 && standing(&self.key, &self.found, shared.user) == Standing::Marked {
            shared.view.set_unsynced(self.key, true);
            self.cache.syncer.enqueue(&self.key);
        } else {
            shared.seen.remember(Fingerprint::of(&self.key, &self.found), true);
        }
        self.cache.hit(self.place, &self.key, self.file, &self.found)
    }

    fn reject(self, fingerprint: Fingerprint) -> Option<CachedBlob> {
        let shared = &self.cache.shared;
        let path = shared.place_at(self.place).blob(&self.key);
        shared.stats.verification_failures.add(1);
        tracing::warn!(path = %path.display(), "cached content does not match its name");
        if self.place == 0 && shared.is_ours(&self.key, &self.found) {
            shared.discard(&self.key, &self.found);
        } else {
            shared.seen.remember(fingerprint, false);
        }
        None
    }
}

impl Shared {
    /// Removes a blob of ours that was found bad, unless another has taken its name since.
    pub(super) fn discard(&self, key: &Key, bad: &Metadata) {
        let path = self.layout.blob(key);
        let is_same = fs::symlink_metadata(&path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (bad.dev(), bad.ino()));
        if is_same && fs::remove_file(&path).is_ok() {
            self.view.forget(&Item::Blob(*key));
            self.release(bad.size());
        }
    }
}

/// Whether the bytes of `file` are what `key` names.
pub(super) fn hash_matches(file: &File, key: &Key) -> io::Result<bool> {
    let mut checker = Checker::new(key.scheme, key.is_manifest);
    let mut buffer = vec![0; HASH_STEP];
    let mut offset = 0_u64;
    loop {
        // A disk that reads nothing ahead is read all the same.
        if offset.is_multiple_of(READ_AHEAD / 2) {
            _ = fadvise(file, offset, NonZeroU64::new(READ_AHEAD), Advice::WillNeed);
        }
        let count = read_full_at(file, &mut buffer, offset)?;
        checker.update(&buffer[..count]);
        offset += count as u64;
        if count < buffer.len() {
            return Ok(checker.finish().matches(&key.digest));
        }
    }
}
