//! Bytes kept in memory where the cache's disk cannot be used: bounded, refetched when gone.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

/// Which bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// All of a small blob.
    Whole,
    /// One block of a large blob.
    Block(u64),
}

/// One beginning of one download: what another brought is not taken for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Owner(u64);

/// Parts of blobs, least recently used out first. Shared by all downloads.
#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    owners: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    parts: LruCache<(Owner, Part), Bytes>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        let kept = Mutex::new(Kept { parts: LruCache::unbounded(), bytes: 0 });
        Self { limit, owners: AtomicU64::new(0), kept }
    }

    /// How many bytes are kept at most.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn new_owner(&self) -> Owner {
        Owner(self.owners.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn put(&self, owner: Owner, part: Part, content: Bytes) {
        let mut kept = self.kept.lock();
        kept.bytes += content.len();
        if let Some(old) = kept.parts.put((owner, part), content) {
            kept.bytes -= old.len();
        }
        // The newest part stays even where it alone is over the limit: somebody waits for it.
        while kept.bytes > self.limit && kept.parts.len() > 1 {
            if let Some((_, old)) = kept.parts.pop_lru() {
                kept.bytes -= old.len();
            }
        }
    }

    pub(super) fn get(&self, owner: Owner, part: Part) -> Option<Bytes> {
        self.kept.lock().parts.get(&(owner, part)).cloned()
    }

    pub(super) fn contains(&self, owner: Owner, part: Part) -> bool {
        self.kept.lock().parts.contains(&(owner, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_kept_and_the_newest_part_stays() {
        let memory = Memory::new(100);
        let (owner, other) = (memory.new_owner(), memory.new_owner());
        for block in 0..5 {
            memory.put(owner, Part::Block(block), Bytes::from(vec![0; 40]));
        }
        assert!(memory.get(owner, Part::Block(2)).is_none());
        assert!(memory.get(owner, Part::Block(3)).is_some());
        assert!(memory.contains(owner, Part::Block(4)));
        assert!(!memory.contains(other, Part::Block(4)));
        memory.put(owner, Part::Whole, Bytes::from(vec![0; 400]));
        assert!(memory.contains(owner, Part::Whole) && !memory.contains(owner, Part::Block(4)));
        memory.put(owner, Part::Whole, Bytes::from(vec![0; 4]));
        assert_eq!(memory.kept.lock().bytes, 4);
    }
}
