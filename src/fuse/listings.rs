//! Listings that are under way.
//!
//! Folders have no handles, so a listing is taken up again by its offset alone. That of a folder
//! which never changes is a position. Of a folder that may change, the listing is kept as it was
//! when it began, and the offset also tells which one it is, so that nobody gets half of one and
//! half of another.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;

use crate::vfs::{Answer, Ino, Listed, Vfs};

/// Listings of folders that may change that are under way at a time.
const KEPT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Where the number of a kept listing begins in an offset.
const NUMBER_SHIFT: u32 = 40;

/// Numbers lie below this; an offset is a positive one of 64 bits.
const NUMBERS: u64 = 1 << 23;

/// The listings of folders that may change.
pub(super) struct Listings {
    kept: Mutex<Kept>,
}

struct Kept {
    /// By number, each with its folder.
    listings: LruCache<u64, (Ino, Arc<Listed>)>,
    next: u64,
}

/// A listing and the place in it from which to go on.
pub(super) struct Listing {
    pub(super) listed: Arc<Listed>,
    pub(super) position: u64,
    number: u64,
}

impl Default for Listings {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept { listings: LruCache::new(KEPT), next: 1 }) }
    }
}

impl Listings {
    /// The listing that an offset belongs to. One that is not known any more goes on as it is now, and
    /// so does a folder at an offset of another one's.
    pub(super) fn listing(self: &Arc<Self>, vfs: &Vfs, ino: Ino, offset: u64) -> Answer<Listing> {
        let (number, position) = (offset >> NUMBER_SHIFT, offset & ((1 << NUMBER_SHIFT) - 1));
        if let Some(listed) = self.find(ino, number) {
            return Answer::Now(Ok(Listing { listed, position, number }));
        }
        let listings = Arc::clone(self);
        vfs.list(ino, position).map(move |listed| {
            let listed = Arc::new(listed);
            let number = if listed.is_fixed { 0 } else { listings.keep(ino, &listed) };
            Listing { listed, position, number }
        })
    }

    /// Lets go of a listing that was told to its end.
    pub(super) fn end(&self, listing: &Listing) {
        let ended = self.kept.lock().listings.pop(&listing.number);
        drop(ended);
    }

    fn find(&self, ino: Ino, number: u64) -> Option<Arc<Listed>> {
        let mut kept = self.kept.lock();
        let (of, listed) = kept.listings.get(&number)?;
        (*of == ino).then(|| Arc::clone(listed))
    }

    fn keep(&self, ino: Ino, listed: &Arc<Listed>) -> u64 {
        let mut kept = self.kept.lock();
        let number = kept.next;
        kept.next = if number + 1 < NUMBERS { number + 1 } else { 1 };
        kept.listings.put(number, (ino, Arc::clone(listed)));
        number
    }
}

impl Listing {
    /// The offset that goes on at a position.
    pub(super) fn offset(&self, position: u64) -> u64 {
        self.number << NUMBER_SHIFT | position
    }
}
