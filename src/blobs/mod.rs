//! The read-through store: give me an open file for this id.
//!
//! [`Blobs::open`] answers at once: from the cache, where reading is a positional read without a
//! lock, or with the one [`Fetch`] of that blob, shared by all who ask. Cache and remotes meet only
//! here. How a fetch goes:
//!
//! 1. A file in the cache that nobody vouches for is hashed first ([`crate::cache`]).
//! 2. Up to [`SMALL`] bytes: one request; the bytes are hashed as they arrive and served only once
//!    they are right ([`first`]). Of unknown size: the first request asks for [`FIRST`] bytes and
//!    learns the size from its answer.
//! 3. Larger: blocks of a partial file, demanded ones first, with a window of read-ahead per place
//!    of reading ([`stream`], [`window`]); hashed in order as the prefix grows, from the beginning also when a
//!    partial was resumed. They are served unchecked until all are there; from then on every read
//!    waits for the check.
//! 4. Where the cache's disk fails, both go on in bounded memory ([`memory`]).
//!
//! Sizes alone are learnt one by one, or in [`bulk`]. All downloads share one budget of memory, in
//! which those who wait go first ([`budget`]).

use std::{sync::Arc, time::Instant};

use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    cache::{BlobCache, CachedBlob, Lookup},
    id::Key,
    remote::Cause,
    sizes::{Scope, SizeIndex},
    stats::Stats,
};

mod budget;
mod bulk;
mod error;
mod fetch;
mod first;
mod flight;
mod hashing;
mod memory;
mod sources;
mod stream;
mod target;
mod text;
mod window;

pub use bulk::{Learnt, Unsized};
pub use error::{BlobError, Failure};
pub use fetch::{Fetch, Reader};
pub use sources::Sources;
pub use text::Text;

use budget::{Budget, Urgency};
use bulk::Surveys;
use flight::Flights;
use memory::Memory;
use target::{Context, Target};

/// Blobs up to this size are checked before their first byte is served.
pub const SMALL: u64 = 8 << 20;

/// What the first request for a blob of unknown size asks for.
pub const FIRST: u64 = 1 << 20;

/// The least memory that downloads can do with.
pub const LEAST_MEMORY: u64 = 2 * SMALL;

/// How much a process may do at once.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of blobs in memory: three quarters for what is on its way, one for what is kept
    /// where the cache's disk cannot be used. At least [`LEAST_MEMORY`].
    pub memory_limit: u64,
    /// Requests to remotes at once.
    pub requests: usize,
    /// Learns the key of every large blob whose content turned out wrong after some of it was
    /// served, so that the kernel's pages of it can be dropped.
    pub invalid: mpsc::Sender<Key>,
}

impl Options {
    /// The usual limits.
    pub const fn new(invalid: mpsc::Sender<Key>) -> Self {
        Self { memory_limit: 128 << 20, requests: 160, invalid }
    }
}

/// The cache in front of the remotes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs {
    context: Arc<Context>,
    flights: Arc<Flights<(Key, Option<Scope>), Fetch>>,
    surveys: Arc<Surveys>,
}

/// The answer to an open.
#[derive(Debug)]
pub enum Opened {
    /// A file without content; there is nothing to fetch.
    Empty,
    /// The checked content on this disk.
    Ready(CachedBlob),
    /// It has to be fetched, or hashed, first.
    Fetch(Arc<Fetch>),
}

/// What came of a prefetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefetched {
    /// It was in the cache already, of so many bytes.
    Here(u64),
    /// It is in the cache now, of so many bytes.
    Fetched(u64),
    /// The cache did not take it.
    NotKept,
}

/// Content that was checked as a whole.
#[derive(Debug)]
pub enum Verified {
    /// No bytes.
    Empty,
    /// A file of the cache.
    Cached(Arc<CachedBlob>),
    /// Kept past the cache, whose disk failed; what memory let go is fetched and compared again.
    Uncached(Reader),
}

impl Blobs {
    /// Joins a cache, the index of sizes and a runtime for downloads.
    pub fn new(
        cache: BlobCache,
        sizes: Arc<SizeIndex>,
        stats: Arc<Stats>,
        runtime: Handle,
        options: Options,
    ) -> Self {
        let limit = options.memory_limit.max(LEAST_MEMORY);
        let context = Context {
            cache,
            sizes,
            stats,
            runtime,
            memory: Memory::new((limit / 4) as usize),
            budget: Budget::new(limit / 4 * 3, options.requests),
            hashing: Arc::default(),
            invalid: options.invalid,
        };
        Self { context: Arc::new(context), flights: Arc::default(), surveys: Arc::default() }
    }

    /// Opens an object without waiting: no hashing and no network on the calling thread.
    pub fn open(&self, id: impl Into<Key>, sources: &Sources) -> Opened {
        let key = id.into();
        if is_empty(&key) {
            return Opened::Empty;
        }
        if let Lookup::Hit(blob) = self.look(&key) {
            self.context.stats.hits.add(1);
            return Opened::Ready(blob);
        }
        self.context.stats.misses.add(1);
        Opened::Fetch(self.fetch(key, sources, Urgency::Demand))
    }

    /// Opens an object without its cached file, which turned out to be unreadable.
    pub fn open_past_cache(&self, id: impl Into<Key>, sources: &Sources) -> Arc<Fetch> {
        let target = Target::new(self.context.clone(), id.into(), sources.clone());
        let fetch = Arc::new(Fetch::new(target, Urgency::Demand).past_cache());
        fetch.begin();
        fetch
    }

    /// Brings an object into the cache when nothing more urgent has to be done. `progress` is told
    /// of bytes as they come.
    pub async fn prefetch(
        &self,
        id: impl Into<Key>,
        sources: &Sources,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Prefetched, BlobError> {
        let key = id.into();
        if is_empty(&key) {
            return Ok(Prefetched::Here(0));
        }
        let (context, size) = (self.context.clone(), self.context.sizes.verified(&key));
        let look = move || match context.cache.open_blob(&key, size) {
            Lookup::Hit(blob) => Some(blob.size()),
            Lookup::NeedsCheck(_) | Lookup::Miss => None,
        };
        if let Ok(Some(size)) = self.context.runtime.spawn_blocking(look).await {
            return Ok(Prefetched::Here(size));
        }
        let fetch = self.fetch(key, sources, Urgency::Background);
        Ok(fetch.fill(progress).await?.map_or(Prefetched::NotKept, Prefetched::Fetched))
    }

    /// Begins to bring what is likely to be opened next: a small blob, or the beginning of one of
    /// unknown size. It waits for nothing, and nothing comes of it that an open would not tell.
    pub fn look_ahead(&self, id: impl Into<Key>, sources: &Sources) {
        let key = id.into();
        let is_large = self.known_size(key, sources).is_some_and(|size| size > SMALL);
        let is_here = || !matches!(self.look(&key), Lookup::Miss);
        if !is_empty(&key) && !is_large && !is_here() {
            // Its first request holds it.
            drop(self.fetch(key, sources, Urgency::Ahead));
        }
    }

    /// Removes an object from the cache; gives the bytes that this freed.
    pub fn evict(&self, id: impl Into<Key>) -> u64 {
        self.context.cache.evict(&id.into())
    }

    /// Opens an object and waits until all of it is here and checked.
    pub async fn open_verified(
        &self,
        id: impl Into<Key>,
        sources: &Sources,
    ) -> Result<Verified, BlobError> {
        match self.open(id, sources) {
            Opened::Empty => Ok(Verified::Empty),
            Opened::Ready(blob) => Ok(Verified::Cached(Arc::new(blob))),
            Opened::Fetch(fetch) => {
                let reader = fetch.reader();
                reader.verified().await?;
                Ok(fetch.cached().map_or(Verified::Uncached(reader), Verified::Cached))
            }
        }
    }

    /// The size of an object in bytes: what is known of it, else what its remotes say.
    pub async fn resolve_size(
        &self,
        id: impl Into<Key>,
        sources: &Sources,
    ) -> Result<u64, BlobError> {
        let key = id.into();
        if let Some(bytes) = self.size_at_hand(key, sources).await {
            return Ok(bytes);
        }
        match self.flights.find(&(key, sources.scope())).filter(|fetch| !fetch.has_failed()) {
            Some(fetch) => fetch.size().await,
            None => self.ask_size(key, sources).await,
        }
    }

    /// The size of an object in bytes as far as this machine knows it: from the index, or else the
    /// cache.
    pub async fn size_at_hand(&self, id: impl Into<Key>, sources: &Sources) -> Option<u64> {
        let key = id.into();
        if is_empty(&key) {
            return Some(0);
        }
        let scope = sources.scope();
        let known = scope.and_then(|scope| self.context.sizes.get(&key, scope));
        if let Some(size) = known {
            return Some(size.bytes);
        }
        let context = Arc::clone(&self.context);
        let look = move || match context.cache.open_blob(&key, None) {
            Lookup::Hit(blob) => Some(blob.size()),
            Lookup::NeedsCheck(_) | Lookup::Miss => None,
        };
        let bytes = self.context.runtime.spawn_blocking(look).await.ok().flatten()?;
        if let Some(scope) = scope {
            self.context.sizes.record_verified(&key, scope, bytes);
        }
        Some(bytes)
    }

    /// What is known of an object's size without asking: verified, or claimed by its remote.
    pub fn known_size(&self, id: impl Into<Key>, sources: &Sources) -> Option<u64> {
        let size = self.context.sizes.get(&id.into(), sources.scope()?)?;
        Some(size.bytes)
    }

    /// The size in bytes of a copy on this disk that nobody has vouched for, which is hashed first:
    /// for objects that no remote has, such as those of a snapshot that is not pushed.
    pub async fn size_by_check(&self, id: impl Into<Key>, sources: &Sources) -> Option<u64> {
        let (key, context) = (id.into(), Arc::clone(&self.context));
        let check = move || match context.cache.open_blob(&key, None) {
            Lookup::Hit(blob) => Some(blob.size()),
            Lookup::NeedsCheck(unchecked) => unchecked.check().map(|blob| blob.size()),
            Lookup::Miss => None,
        };
        let bytes = self.context.runtime.spawn_blocking(check).await.ok().flatten()?;
        if let Some(scope) = sources.scope() {
            self.context.sizes.record_verified(&key, scope, bytes);
        }
        Some(bytes)
    }

    /// The size of an object, learnt from the headers of its download, which goes on: a program
    /// that asks for the size of one file is likely to read it next.
    pub async fn size_by_fetch(
        &self,
        id: impl Into<Key>,
        sources: &Sources,
    ) -> Result<u64, BlobError> {
        match self.open(id, sources) {
            Opened::Empty => Ok(0),
            Opened::Ready(blob) => Ok(blob.size()),
            Opened::Fetch(fetch) => fetch.size().await,
        }
    }

    /// Notes what a declaration says of an object's size, unless more is known: a download then
    /// knows how much to ask for.
    pub fn claim_size(&self, id: impl Into<Key>, sources: &Sources, bytes: u64) {
        let key = id.into();
        if let Some(scope) = sources.scope()
            && self.context.sizes.get(&key, scope).is_none()
        {
            self.context.sizes.record_claim(&key, scope, bytes);
        }
    }

    /// Puts the size that content turned out to have in place of a wrong claim; it is one itself
    /// as long as the content was not checked.
    pub fn correct_size(
        &self,
        id: impl Into<Key>,
        sources: &Sources,
        bytes: u64,
        is_verified: bool,
    ) {
        let key = id.into();
        self.context.sizes.revise(&key);
        let Some(scope) = sources.scope() else { return };
        if is_verified {
            self.context.sizes.record_verified(&key, scope, bytes);
        } else {
            self.context.sizes.record_claim(&key, scope, bytes);
        }
    }

    /// Whether another size of the object was told before, so that somebody may still believe it.
    pub fn is_size_revised(&self, id: impl Into<Key>) -> bool {
        self.context.sizes.is_revised(&id.into())
    }

    /// Whether the cache has the object, checked or not.
    pub fn is_cached(&self, id: impl Into<Key>) -> bool {
        let key = id.into();
        is_empty(&key) || !matches!(self.context.cache.open_blob(&key, None), Lookup::Miss)
    }

    /// The counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.context.stats
    }

    /// The cache.
    pub fn cache(&self) -> &BlobCache {
        &self.context.cache
    }

    async fn ask_size(&self, key: Key, sources: &Sources) -> Result<u64, BlobError> {
        let mut missing = None;
        for remote in sources.iter() {
            self.context.stats.remote_requests.add(1);
            self.context.stats.size_questions.add(1);
            let asked = Instant::now();
            let answer = remote.size(key).await;
            self.context.stats.latencies.remote.record(asked.elapsed());
            match answer {
                Ok(0) if !key.is_of_nothing() => {
                    return Err(self.context.empty(key, remote.url()));
                }
                Ok(bytes) => {
                    if let Some(scope) = sources.scope() {
                        self.context.sizes.record_claim(&key, scope, bytes);
                    }
                    return Ok(bytes);
                }
                Err(error) if error.cause == Cause::Missing => {
                    missing.get_or_insert(error);
                }
                Err(error) => return Err(BlobError::from_remote(key, error)),
            }
        }
        Err(missing.map_or_else(
            || BlobError::unreachable(key, "nowhere", "no remote is known for it"),
            |error| BlobError::from_remote(key, error),
        ))
    }

    fn fetch(&self, key: Key, sources: &Sources, urgency: Urgency) -> Arc<Fetch> {
        let what = (key, sources.scope());
        let spoilt = self.flights.find(&what).filter(|fetch| fetch.is_spoilt());
        let is_spoilt =
            |fetch| spoilt.as_ref().is_some_and(|spoilt| std::ptr::eq(Arc::as_ptr(spoilt), fetch));
        let (fetch, is_new) = self.flights.join(
            what,
            |fetch| !fetch.has_failed() && !is_spoilt(fetch),
            || Fetch::new(Target::new(self.context.clone(), key, sources.clone()), urgency),
        );
        if is_new {
            fetch.begin();
        } else {
            fetch.rank.raise(urgency);
        }
        fetch
    }

    /// Looks in the cache for a file of the size that it must have, where that is known.
    fn look(&self, key: &Key) -> Lookup {
        self.context.cache.open_blob(key, self.context.sizes.verified(key))
    }
}

fn is_empty(key: &Key) -> bool {
    !key.is_manifest && key.is_of_nothing()
}

#[cfg(test)]
mod tests;
