//! How a download begins: the cache, then the first request; small blobs end here as well.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{
    BlobError, FIRST, Fetch, SMALL,
    budget::{Permit, Urgency},
    fetch::Phase,
    memory::Part,
    stream::{self, Stream},
    target::MISMATCH,
};
use crate::{
    cache::{CachedBlob, Lookup},
    dvc::checksum::Checker,
    remote::Body,
    sizes::Size,
};

/// Brings the fetch to its end, or to where it streams.
pub(super) async fn run(fetch: &Arc<Fetch>, life: u64) -> Result<(), BlobError> {
    let begun = fetch.with_life(life, |state| (state.size, state.is_past_cache));
    let Some((told, is_past_cache)) = begun else {
        return Ok(());
    };
    let start = Start { fetch, life, is_past_cache };
    let known = told.map(|bytes| Size { bytes, is_verified: true }).or_else(|| start.known_size());
    if !is_past_cache && let Some(blob) = start.look_in_cache(known).await {
        start.succeed(blob);
        return Ok(());
    }
    match known {
        Some(size) if size.bytes > SMALL => start.stream(size, Bytes::new()).await,
        Some(size) => start.whole(size.bytes).await,
        None => start.unknown().await,
    }
}

/// One beginning of a fetch.
struct Start<'a> {
    fetch: &'a Arc<Fetch>,
    life: u64,
    is_past_cache: bool,
}

impl Start<'_> {
    fn known_size(&self) -> Option<Size> {
        let target = &self.fetch.target;
        target.context.sizes.get(&target.key, target.scope())
    }

    /// What another fetch or process brought meanwhile, or a file that only needs hashing.
    async fn look_in_cache(&self, known: Option<Size>) -> Option<CachedBlob> {
        let target = self.fetch.target.clone();
        let size = known.filter(|size| size.is_verified && target.key.fixes_bytes());
        let look = move || match target.context.cache.open_blob(&target.key, size.map(|s| s.bytes))
        {
            Lookup::Hit(blob) => Some(blob),
            Lookup::NeedsCheck(unchecked) => unchecked.check(),
            Lookup::Miss => None,
        };
        self.fetch.target.context.runtime.spawn_blocking(look).await.ok().flatten()
    }

    /// Of known size: one request for everything.
    async fn whole(&self, size: u64) -> Result<(), BlobError> {
        let _permit = self.permit(size).await;
        let body = self.fetch.target.get(None).await?;
        if body.size > size {
            self.learn(body.size);
            self.fetch.restart(self.life, Some(body.size), false);
            return Ok(());
        }
        self.learn(body.size);
        let mut arriving = Arriving::new(self.fetch);
        arriving.receive(body, 0).await?;
        self.finish(arriving).await
    }

    /// Of unknown size: one request for the beginning, whose answer tells the size.
    async fn unknown(&self) -> Result<(), BlobError> {
        let target = &self.fetch.target;
        let mut permit = self.permit(FIRST).await;
        let body = target.get(Some(0..FIRST)).await?;
        let size = body.size;
        self.learn(size);
        target.context.budget.shrink(&mut permit, size);
        let mut arriving = Arriving::new(self.fetch);
        arriving.receive(body, 0).await?;
        if size > SMALL {
            drop(permit);
            let size = Size { bytes: size, is_verified: true };
            return self.stream(size, arriving.bytes.into()).await;
        }
        if size > FIRST {
            // Waiting for more while holding some could make all wait for each other.
            let Some(_rest) = target.context.budget.try_admit(size - FIRST) else {
                self.fetch.restart(self.life, Some(size), false);
                return Ok(());
            };
            let body = target.get(Some(FIRST..size)).await?;
            if body.size != size {
                return Err(target.unreachable("its size changes while it is read"));
            }
            arriving.receive(body, FIRST).await?;
        }
        self.finish(arriving).await
    }

    async fn permit(&self, size: u64) -> Permit {
        self.fetch.target.context.budget.admit(size, &self.fetch.rank).await
    }

    /// Keeps what an answer says of the size, and tells who waits for it.
    fn learn(&self, size: u64) {
        let target = &self.fetch.target;
        target.context.sizes.record_claim(&target.key, target.scope(), size);
        self.fetch.with_life(self.life, |state| state.size = Some(size));
    }

    /// Checks a small blob and puts it in the cache, or in memory where that fails.
    async fn finish(&self, arriving: Arriving) -> Result<(), BlobError> {
        let target = &self.fetch.target;
        let (key, shared) = (target.key, target.context.clone());
        let (content, checker) = (Bytes::from(arriving.bytes), arriving.checker);
        let is_right = match checker {
            Some(checker) => checker.finish().matches(&key.digest),
            None => self.is_right(&content).await,
        };
        if !is_right {
            shared.stats.verification_failures.add(1);
            shared.sizes.forget_claim(&key, target.scope());
            tracing::warn!(%key, url = target.url(), "content does not match its name");
            return Err(target.integrity(MISMATCH));
        }
        let size = content.len() as u64;
        if !self.is_past_cache {
            let (cache, copy, room) = (shared.cache.clone(), content.clone(), self.fetch.room());
            let admit = move || cache.admit(&key, &copy, room).ok();
            if let Ok(Some(blob)) = shared.runtime.spawn_blocking(admit).await {
                self.succeed(blob);
                return Ok(());
            }
        }
        shared.sizes.record_verified(&key, target.scope(), size);
        shared.memory.put(target.owner, Part::Whole, content);
        self.fetch.complete(self.life, Phase::Whole, size);
        Ok(())
    }

    /// Whether content that was not hashed as it came is the right one.
    async fn is_right(&self, content: &Bytes) -> bool {
        let (key, shared) = (self.fetch.target.key, self.fetch.target.context.clone());
        let together = shared.hashing.md5(&shared.runtime, content.clone());
        let hashed = self.fetch.rank.unless_above(Urgency::Ahead, together).await;
        if let Some(digest) = hashed {
            return digest == Some(key.digest);
        }
        // Somebody waits for it now.
        let content = content.clone();
        let check = move || {
            let mut checker = Checker::new(key.scheme, key.is_manifest);
            checker.update(&content);
            checker.finish().matches(&key.digest)
        };
        shared.runtime.spawn_blocking(check).await.unwrap_or(false)
    }

    fn succeed(&self, blob: CachedBlob) {
        let (target, size) = (&self.fetch.target, blob.size());
        target.context.sizes.record_verified(&target.key, target.scope(), size);
        self.fetch.complete(self.life, Phase::Cached(Arc::new(blob)), size);
    }

    /// Goes over to blocks, the first of which may have come already.
    async fn stream(&self, size: Size, beginning: Bytes) -> Result<(), BlobError> {
        let target = self.fetch.target.clone();
        let bytes = size.bytes;
        let opened = if self.is_past_cache {
            None
        } else {
            let partial = move || target.context.cache.partial(&target.key, bytes).ok();
            self.fetch.target.context.runtime.spawn_blocking(partial).await.ok().flatten()
        };
        let blocks = crate::cache::blocks_of(0..beginning.len() as u64);
        self.fetch.with_life(self.life, |state| {
            let came = std::mem::take(&mut state.came);
            let stream = Stream::new(&self.fetch.target, size, opened, blocks, came);
            state.size = Some(bytes);
            state.phase = Phase::Streaming(Box::new(stream));
        });
        if !beginning.is_empty() {
            stream::store(self.fetch, self.life, 0, vec![beginning]).await;
        }
        stream::hash_on(self.fetch, self.life);
        Ok(())
    }
}

/// A small blob as it arrives.
struct Arriving {
    fetch: Arc<Fetch>,
    bytes: Vec<u8>,
    /// Missing where nobody waits, so that it may be hashed together with others in the end.
    checker: Option<Checker>,
}

impl Arriving {
    fn new(fetch: &Arc<Fetch>) -> Self {
        let key = fetch.target.key;
        let is_for_later = !fetch.rank.is(Urgency::Demand) && key.fixes_bytes();
        let checker = (!is_for_later).then(|| Checker::new(key.scheme, key.is_manifest));
        Self { fetch: fetch.clone(), bytes: Vec::new(), checker }
    }

    /// Appends a body that begins at `start`.
    async fn receive(&mut self, mut body: Body, start: u64) -> Result<(), BlobError> {
        let target = &self.fetch.target;
        let end = body.range.end;
        if body.range.start != start || end > body.size {
            return Err(target.unreachable("it answered with another range"));
        }
        self.bytes.reserve((end.saturating_sub(start)).min(SMALL) as usize);
        while let Some(chunk) = body.chunks.next().await {
            target.context.budget.give_way(&self.fetch.rank).await;
            let chunk = chunk.map_err(|error| BlobError::from_remote(target.key, error))?;
            if self.bytes.len() as u64 + chunk.len() as u64 > end {
                return Err(target.unreachable("it sent more than it announced"));
            }
            if let Some(checker) = &mut self.checker {
                checker.update(&chunk);
            }
            self.bytes.extend_from_slice(&chunk);
        }
        if (self.bytes.len() as u64) < end {
            return Err(target.unreachable("it sent less than it announced"));
        }
        Ok(())
    }
}
