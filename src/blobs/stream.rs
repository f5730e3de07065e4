//! A large blob: blocks as they are demanded, hashed in order behind the readers.

use std::{hash::Hasher as _, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use super::{
    BlobError, FIRST, Fetch,
    fetch::{Phase, WeakFetch},
    memory::{Owner, Part},
    target::Target,
};
use crate::{
    cache::{BLOCK, BlockSet, Partial, blocks_of, bytes_of},
    dvc::checksum::Checker,
    id::Key,
    sizes::Size,
};

/// Blocks of one request: 4 MiB.
const PIECE: u64 = 64;

/// Blocks that are hashed together, when there are as many: 1 MiB.
const HASH_FROM: u64 = 16;

/// Blocks hashed before somebody else gets the thread: 8 MiB.
const HASH_STEP: u64 = 128;

/// The state of a large blob.
#[derive(Debug)]
pub(super) struct Stream {
    /// Whose its blocks in memory are.
    owner: Owner,
    size: u64,
    /// Whether the size is the remote's word and no mere claim.
    is_confirmed: bool,
    /// Missing where the disk failed and blocks are kept in memory.
    partial: Option<Arc<Partial>>,
    /// Blocks that came: on disk all are still there, in memory some may be gone.
    present: BlockSet,
    /// Blocks that a request is under way for.
    claimed: BlockSet,
    /// Missing while a thread hashes with it, and when it has done its work.
    checker: Option<Checker>,
    /// How many blocks from the beginning went into the checker.
    hashed: u64,
    /// Of each block that was hashed in memory: what it must look like when it is fetched again.
    prints: Vec<u64>,
    is_verified: bool,
    failures: u64,
    error: Option<BlobError>,
}

/// What a read is told.
pub(super) enum Answer {
    Wait,
    /// Memory let it go; it must be fetched anew.
    Gone,
    Partial(Arc<Partial>, Range<u64>),
    Bytes(Bytes),
    Failed(BlobError),
}

impl Stream {
    /// `coming` are the blocks that the first request brings.
    pub(super) fn new(
        target: &Target,
        size: Size,
        opened: Option<(Partial, BlockSet)>,
        coming: Range<u64>,
    ) -> Self {
        let (partial, present) = opened.unzip();
        let mut claimed = BlockSet::default();
        claimed.insert(coming);
        Self {
            owner: target.context.memory.new_owner(),
            size: size.bytes,
            is_confirmed: size.is_verified,
            partial: partial.map(Arc::new),
            present: present.unwrap_or_default(),
            claimed,
            checker: Some(Checker::new(target.key.scheme, target.key.is_manifest)),
            hashed: 0,
            prints: Vec::new(),
            is_verified: false,
            failures: 0,
            error: None,
        }
    }

    /// Answers a read of `range`, and claims what must be requested for it and ahead of it.
    ///
    /// `failures` is the reader's note of how many requests had failed when it came: only later
    /// ones are its own.
    pub(super) fn answer(
        &mut self,
        target: &Target,
        range: &Range<u64>,
        ahead_to: u64,
        failures: &mut Option<u64>,
        pulls: &mut Vec<Range<u64>>,
    ) -> Answer {
        let known = *failures.get_or_insert(self.failures);
        let clipped = range.start.min(self.size)..range.end.min(self.size);
        let mut wanted = blocks_of(clipped.clone());
        if clipped.is_empty() {
            if self.is_confirmed {
                return Answer::Bytes(Bytes::new());
            }
            // Only an answer of the remote makes an end of file of a claim.
            wanted = 0..1;
        }
        let is_here = self.gaps(target, &wanted).is_empty();
        if self.is_complete() && !self.is_verified {
            if self.partial.is_none() {
                self.claim(target, self.hashed..self.hashed + HASH_FROM, known, pulls);
            }
            return self.failure_since(known).unwrap_or(Answer::Wait);
        }
        let ahead = match self.partial {
            Some(_) => ahead_to,
            None => ahead_to.min(range.start.saturating_add(FIRST)),
        };
        if is_here && self.is_confirmed {
            self.claim(target, wanted.end..blocks_of(0..ahead).end, known, pulls);
            if let Some(answer) = self.deliver(target, clipped) {
                return answer;
            }
        }
        if let Some(failed) = self.failure_since(known) {
            return failed;
        }
        self.claim(target, wanted.start..wanted.end.max(blocks_of(0..ahead).end), known, pulls);
        Answer::Wait
    }

    fn failure_since(&self, known: u64) -> Option<Answer> {
        let error = self.error.as_ref().filter(|_| self.failures > known)?;
        Some(Answer::Failed(error.clone()))
    }

    /// The bytes of `range`; nothing when memory has let go of some meanwhile.
    fn deliver(&self, target: &Target, range: Range<u64>) -> Option<Answer> {
        if let Some(partial) = &self.partial {
            return Some(Answer::Partial(partial.clone(), range));
        }
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        for block in blocks_of(range.clone()) {
            let content = target.context.memory.get(self.owner, Part::Block(block))?;
            let start = range.start.saturating_sub(block * BLOCK) as usize;
            let end = (range.end - block * BLOCK).min(content.len() as u64) as usize;
            bytes.extend_from_slice(&content[start..end]);
        }
        Some(Answer::Bytes(bytes.freeze()))
    }

    /// The blocks of `wanted` that cannot be read now.
    fn gaps(&self, target: &Target, wanted: &Range<u64>) -> Vec<Range<u64>> {
        if self.partial.is_some() {
            return self.present.gaps(wanted.clone());
        }
        let memory = &target.context.memory;
        let is_gone = |block: &u64| !memory.contains(self.owner, Part::Block(*block));
        let mut gone = BlockSet::default();
        wanted.clone().filter(is_gone).for_each(|block| gone.insert(block..block + 1));
        gone.ranges().collect()
    }

    /// Claims those blocks of `wanted` that are neither here nor coming, in pieces.
    fn claim(
        &mut self,
        target: &Target,
        wanted: Range<u64>,
        known: u64,
        pulls: &mut Vec<Range<u64>>,
    ) {
        if self.failures > known {
            return;
        }
        let wanted = wanted.start..wanted.end.min(self.blocks());
        for gap in self.gaps(target, &wanted) {
            for free in self.claimed.gaps(gap) {
                self.claimed.insert(free.clone());
                let pieces = free.clone().step_by(PIECE as usize);
                pulls.extend(pieces.map(|start| start..(start + PIECE).min(free.end)));
            }
        }
    }

    fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK)
    }

    fn is_complete(&self) -> bool {
        self.present.contains(&(0..self.blocks()))
    }

    /// Goes on in memory. What was hashed is hashed again: its bytes may be out of reach now.
    fn leave_disk(&mut self, key: &Key) {
        if self.partial.take().is_some() {
            self.checker = Some(Checker::new(key.scheme, key.is_manifest));
            self.hashed = 0;
        }
    }

    /// Takes blocks into memory and hashes what continues the prefix; false when a block that was
    /// hashed before has come back different, or the whole is not what it should be.
    fn take_into_memory(&mut self, target: &Target, first: u64, content: &Bytes) -> bool {
        for (block, at) in (first..).zip((0..content.len()).step_by(BLOCK as usize)) {
            let end = content.len().min(at + BLOCK as usize);
            let bytes = content.slice(at..end);
            let print = self.prints.get(block as usize);
            if print.is_some_and(|print| *print != print_of(&bytes)) {
                return false;
            }
            // A copy, or it would keep the whole received buffer alive beyond the budget.
            let copy = Bytes::copy_from_slice(&bytes);
            target.context.memory.put(self.owner, Part::Block(block), copy);
        }
        self.hash_in_memory(target)
    }

    fn hash_in_memory(&mut self, target: &Target) -> bool {
        let memory = &target.context.memory;
        while self.hashed < self.blocks()
            && let Some(checker) = &mut self.checker
            && let Some(bytes) = memory.get(self.owner, Part::Block(self.hashed))
        {
            checker.update(&bytes);
            self.prints.push(print_of(&bytes));
            self.hashed += 1;
        }
        if self.hashed < self.blocks() || self.is_verified {
            return true;
        }
        self.is_verified =
            self.checker.take().is_some_and(|c| c.finish().matches(&target.key.digest));
        self.is_verified
    }
}

fn print_of(bytes: &Bytes) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// One request for some blocks of a large blob. Lets go of its claim however it ends.
pub(super) struct Pull {
    fetch: WeakFetch,
    target: Arc<Target>,
    life: u64,
    blocks: Range<u64>,
    error: Option<BlobError>,
}

impl Pull {
    pub(super) fn new(fetch: &Arc<Fetch>, life: u64, blocks: Range<u64>) -> Self {
        let target = fetch.target.clone();
        let error = Some(target.unreachable("the download ended early"));
        Self { fetch: Arc::downgrade(fetch), target, life, blocks, error }
    }

    /// Brings the blocks.
    pub(super) async fn run(mut self, is_ahead: bool) {
        let context = self.target.context.clone();
        let _ahead = if is_ahead { context.ahead.acquire().await.ok() } else { None };
        let _request = context.requests.acquire().await.ok();
        self.error = self.bring().await.err();
    }

    async fn bring(&self) -> Result<(), BlobError> {
        let Some(size) = self.size() else {
            return Ok(());
        };
        let range = bytes_of(&self.blocks, size);
        let mut body = self.target.get(Some(range.clone())).await?;
        if body.size != size {
            self.correct_size(body.size);
            return Ok(());
        }
        if body.range != range {
            return Err(self.target.unreachable("it answered with another range"));
        }
        self.confirm();
        let mut buffer = BytesMut::new();
        let mut at = range.start;
        while let Some(chunk) = body.chunks.next().await {
            buffer.extend_from_slice(
                &chunk.map_err(|error| BlobError::from_remote(self.target.key, error))?,
            );
            let end = at + buffer.len() as u64;
            if end > range.end {
                return Err(self.target.unreachable("it sent more than it announced"));
            }
            let ready = if end == range.end { end - at } else { (end - at) / BLOCK * BLOCK };
            if ready > 0 {
                let Some(fetch) = self.fetch.upgrade() else {
                    return Ok(());
                };
                let blocks = buffer.split_to(ready as usize).freeze();
                store(&fetch, self.life, at / BLOCK, blocks).await;
                at += ready;
            }
        }
        if at < range.end {
            return Err(self.target.unreachable("it sent less than it announced"));
        }
        Ok(())
    }

    fn size(&self) -> Option<u64> {
        self.fetch.upgrade()?.with_stream(self.life, |stream| stream.size)
    }

    fn confirm(&self) {
        if let Some(fetch) = self.fetch.upgrade() {
            fetch.with_stream(self.life, |stream| stream.is_confirmed = true);
        }
    }

    /// The size was a wrong claim: everything begins anew with the true one.
    fn correct_size(&self, size: u64) {
        let target = &self.target;
        tracing::warn!(key = %target.key, url = target.url(), size, "size was claimed wrong");
        target.context.sizes.forget_claim(&target.key, target.scope());
        target.context.sizes.record_claim(&target.key, target.scope(), size);
        let Some(fetch) = self.fetch.upgrade() else {
            return;
        };
        let partial = fetch.with_stream(self.life, |stream| stream.partial.take()).flatten();
        if let Some(partial) = partial {
            partial.discard();
        }
        fetch.restart(self.life, Some(size), false);
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        let Some(fetch) = self.fetch.upgrade() else {
            return;
        };
        fetch.with_stream(self.life, |stream| {
            stream.claimed.remove(self.blocks.clone());
            if let Some(error) = self.error.take() {
                stream.failures += 1;
                stream.error = Some(error);
            }
        });
    }
}

/// Keeps blocks that came, on disk or else in memory, and has them hashed.
pub(super) async fn store(fetch: &Arc<Fetch>, life: u64, first: u64, content: Bytes) {
    let Some(partial) = fetch.with_stream(life, |stream| stream.partial.clone()) else {
        return;
    };
    let blocks = first..first + blocks_of(0..content.len() as u64).end;
    if let Some(partial) = partial {
        let copy = content.clone();
        let write = move || partial.write(first, &copy).is_ok();
        if let Ok(true) = fetch.target.context.runtime.spawn_blocking(write).await {
            fetch.with_stream(life, |stream| {
                stream.present.insert(blocks.clone());
                stream.claimed.remove(blocks);
            });
            hash_on(fetch, life);
            return;
        }
        fetch.with_stream(life, |stream| stream.leave_disk(&fetch.target.key));
    }
    let target = fetch.target.clone();
    let is_good = fetch.with_stream(life, |stream| {
        let is_good = stream.take_into_memory(&target, first, &content);
        stream.present.insert(blocks.clone());
        stream.claimed.remove(blocks);
        is_good.then_some(stream.is_verified.then_some(stream.size))
    });
    match is_good {
        Some(None) => reject(fetch, life).await,
        Some(Some(Some(size))) => {
            target.context.sizes.record_verified(&target.key, target.scope(), size)
        }
        Some(Some(None)) | None => {}
    }
}

/// Has the prefix that is on disk hashed further, unless that is under way.
pub(super) fn hash_on(fetch: &Arc<Fetch>, life: u64) {
    let job = fetch.with_stream(life, |stream| {
        let partial = stream.partial.clone()?;
        let end = stream.present.run_end(0).min(stream.blocks());
        if end < stream.blocks() && end < stream.hashed + HASH_FROM {
            return None;
        }
        let blocks = stream.hashed..end.min(stream.hashed + HASH_STEP);
        Some((partial, stream.checker.take()?, blocks))
    });
    if let Some((partial, checker, blocks)) = job.flatten() {
        let weak = Arc::downgrade(fetch);
        fetch.spawn(hash_step(weak, life, partial, checker, blocks));
    }
}

async fn hash_step(
    fetch: WeakFetch,
    life: u64,
    partial: Arc<Partial>,
    checker: Checker,
    blocks: Range<u64>,
) {
    let Some(runtime) = fetch.upgrade().map(|fetch| fetch.target.context.runtime.clone()) else {
        return;
    };
    let (source, range) = (partial.clone(), bytes_of(&blocks, partial.size()));
    let hashed = runtime.spawn_blocking(move || hash_range(&source, checker, range)).await;
    let Some(fetch) = fetch.upgrade() else { return };
    let Ok(Some(checker)) = hashed else {
        fetch.with_stream(life, |stream| stream.leave_disk(&fetch.target.key));
        return;
    };
    let finished = fetch.with_stream(life, |stream| {
        // The disk may have failed meanwhile; then memory has begun its own hash.
        stream.partial.as_ref()?;
        stream.hashed = blocks.end;
        if blocks.end == stream.blocks() {
            return Some(checker);
        }
        stream.checker = Some(checker);
        None
    });
    match finished.flatten() {
        Some(checker) => conclude(&fetch, life, partial, checker).await,
        None => hash_on(&fetch, life),
    }
}

fn hash_range(partial: &Partial, mut checker: Checker, range: Range<u64>) -> Option<Checker> {
    let mut buffer = vec![0; 4 * BLOCK as usize];
    let mut at = range.start;
    while at < range.end {
        let want = (range.end - at).min(buffer.len() as u64) as usize;
        if partial.read_at(&mut buffer[..want], at).ok()? < want {
            return None;
        }
        checker.update(&buffer[..want]);
        at += want as u64;
    }
    Some(checker)
}

/// All blocks are here and hashed: the blob is right and cached, or wrong and thrown away.
async fn conclude(fetch: &Arc<Fetch>, life: u64, partial: Arc<Partial>, checker: Checker) {
    let target = &fetch.target;
    if !checker.finish().matches(&target.key.digest) {
        return reject(fetch, life).await;
    }
    let (cache, size) = (target.context.cache.clone(), partial.size());
    let admit = move || cache.admit_partial(&partial);
    match target.context.runtime.spawn_blocking(admit).await {
        Ok(blob) => {
            target.context.sizes.record_verified(&target.key, target.scope(), size);
            fetch.complete(life, Phase::Cached(Arc::new(blob)), size);
        }
        Err(error) => fetch.fail(life, target.unreachable(error.to_string())),
    }
}

/// Ends a fetch whose bytes are wrong, and tells who may have kept some of them.
async fn reject(fetch: &Arc<Fetch>, life: u64) {
    let target = &fetch.target;
    target.context.stats.verification_failures.add(1);
    tracing::warn!(key = %target.key, url = target.url(), "content does not match its name");
    let partial = fetch.with_stream(life, |stream| stream.partial.take()).flatten();
    if let Some(partial) = partial {
        partial.discard();
    }
    fetch.fail(life, target.integrity("its content does not match its name"));
    let (invalid, key) = (target.context.invalid.clone(), target.key);
    // Not in this task: it ends with the fetch, and the word must get through. Whoever no longer
    // listens keeps no pages either.
    target.context.runtime.spawn(async move { invalid.send(key).await.unwrap_or(()) });
}
