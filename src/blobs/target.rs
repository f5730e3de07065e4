//! What a download is of, and what all downloads share.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
};

use super::{
    BlobError, Sources,
    budget::Budget,
    hashing::Hashing,
    memory::{Memory, Owner},
};
use crate::{
    cache::BlobCache,
    id::Key,
    remote::{Body, Cause},
    sizes::{Scope, SizeIndex},
    stats::Stats,
};

/// What all downloads of a process share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) cache: BlobCache,
    pub(super) sizes: Arc<SizeIndex>,
    pub(super) stats: Arc<Stats>,
    pub(super) runtime: Handle,
    pub(super) memory: Memory,
    /// For what is on its way.
    pub(super) budget: Budget,
    pub(super) hashing: Arc<Hashing>,
    pub(super) invalid: mpsc::Sender<Key>,
}

impl Context {
    /// What is said of an object without bytes whose name is that of some.
    ///
    /// Nothing has to arrive to know that it is wrong; and its size must not be shown, since an
    /// empty file is read without asking for any of it.
    pub(super) fn empty(&self, key: Key, url: &str) -> BlobError {
        self.stats.verification_failures.add(1);
        self.sizes.forget_claim(&key, Scope::of(url));
        tracing::warn!(%key, url, "content does not match its name: it is empty");
        BlobError::integrity(key, url, MISMATCH)
    }
}

/// What is said of content that is not what its name says.
pub(super) const MISMATCH: &str = "its content does not match its name";

/// An object and where it may be had.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) context: Arc<Context>,
    pub(super) key: Key,
    /// Whose a small blob in memory is.
    pub(super) owner: Owner,
    /// One write to its file at a time: others would spin for the file's lock meanwhile.
    pub(super) writes: Semaphore,
    sources: Sources,
    /// The remote that had it last.
    active: AtomicUsize,
}

impl Target {
    pub(super) fn new(context: Arc<Context>, key: Key, sources: Sources) -> Self {
        let owner = context.memory.new_owner();
        Self {
            context,
            key,
            owner,
            writes: Semaphore::new(1),
            sources,
            active: AtomicUsize::new(0),
        }
    }

    /// Asks the remotes in turn, beginning with the one that had it last, until one has it.
    pub(super) async fn get(&self, range: Option<Range<u64>>) -> Result<Body, BlobError> {
        let first = self.active.load(Ordering::Relaxed);
        let count = self.sources.len();
        let mut missing = None;
        for index in (0..count).map(|step| (first + step) % count) {
            self.context.stats.remote_requests.add(1);
            let asked = Instant::now();
            let answer = self.sources[index].get(self.key, range.clone()).await;
            self.context.stats.latencies.remote.record(asked.elapsed());
            match answer {
                Ok(body) => {
                    self.active.store(index, Ordering::Relaxed);
                    if body.size == 0 && !self.key.is_of_nothing() {
                        return Err(self.context.empty(self.key, self.url()));
                    }
                    return Ok(self.counted(body));
                }
                Err(error) => {
                    self.context.stats.remote_errors.add(1);
                    if error.cause != Cause::Missing {
                        return Err(BlobError::from_remote(self.key, error));
                    }
                    missing.get_or_insert(error);
                }
            }
        }
        Err(missing.map_or_else(
            || BlobError::unreachable(self.key, "nowhere", "no remote is known for it"),
            |error| BlobError::from_remote(self.key, error),
        ))
    }

    fn counted(&self, body: Body) -> Body {
        let stats = self.context.stats.clone();
        let count = move |chunk: &Bytes| stats.remote_bytes.add(chunk.len() as u64);
        Body { chunks: body.chunks.inspect_ok(count).boxed(), ..body }
    }

    /// The remote that is read from.
    pub(super) fn url(&self) -> &str {
        self.sources
            .get(self.active.load(Ordering::Relaxed))
            .map_or("nowhere", |remote| remote.url())
    }

    pub(super) fn scope(&self) -> Scope {
        Scope::of(self.url())
    }

    pub(super) fn integrity(&self, reason: impl Into<String>) -> BlobError {
        BlobError::integrity(self.key, self.url(), reason)
    }

    pub(super) fn unreachable(&self, reason: impl Into<String>) -> BlobError {
        BlobError::unreachable(self.key, self.url(), reason)
    }
}
