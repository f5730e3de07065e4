//! What becomes of blocks that came: kept on disk or in memory, hashed in order, and in the end
//! the whole blob is right and cached, or wrong and thrown away.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{HASH_FROM, HASH_STEP};
use crate::{
    blobs::{
        Fetch,
        fetch::{Phase, WeakFetch},
        target::MISMATCH,
    },
    cache::{BLOCK, Partial, blocks_of, bytes_of},
    dvc::checksum::Checker,
};

/// Keeps blocks that came in some pieces, on disk or else in memory, and has them hashed.
pub(in crate::blobs) async fn store(fetch: &Arc<Fetch>, life: u64, first: u64, pieces: Vec<Bytes>) {
    let Some(partial) = fetch.with_stream(life, |stream| stream.partial.clone()) else {
        return;
    };
    let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
    let blocks = first..first + blocks_of(0..bytes).end;
    if let Some(partial) = partial {
        let (copy, room) = (pieces.clone(), fetch.room());
        let write = move || partial.write(first, &copy, room).is_ok();
        let turn = fetch.target.writes.acquire().await;
        let written = fetch.target.context.runtime.spawn_blocking(write).await;
        drop(turn);
        if let Ok(true) = written {
            fetch.with_stream(life, |stream| {
                stream.present.insert(blocks.clone());
                stream.came.insert(blocks.clone());
                stream.claimed.remove(blocks);
            });
            hash_on(fetch, life);
            return;
        }
        fetch.with_stream(life, |stream| stream.leave_disk(&fetch.target.key));
    }
    let target = fetch.target.clone();
    let content = Bytes::from(pieces.concat());
    let is_good = fetch.with_stream(life, |stream| {
        let is_good = stream.take_into_memory(&target, first, &content);
        stream.came.insert(blocks.clone());
        stream.claimed.remove(blocks);
        is_good.then_some(stream.is_verified.then_some(stream.size))
    });
    match is_good {
        Some(None) => reject(fetch, life).await,
        Some(Some(Some(size))) => {
            target.context.sizes.record_verified(&target.key, target.scope(), size);
        }
        Some(Some(None)) | None => {}
    }
}

/// Has the prefix that is on disk hashed further, unless that is under way.
pub(in crate::blobs) fn hash_on(fetch: &Arc<Fetch>, life: u64) {
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
    // The size of wrong bytes is no size of the right ones.
    target.context.sizes.forget_claim(&target.key, target.scope());
    tracing::warn!(key = %target.key, url = target.url(), "content does not match its name");
    let (invalid, key) = (target.context.invalid.clone(), target.key);
    // Not in this task: it ends with the fetch, and the word must get through. Whoever no longer
    // listens keeps no pages either.
    target.context.runtime.spawn(async move { invalid.send(key).await.unwrap_or(()) });
    let partial = fetch.with_stream(life, |stream| stream.partial.take()).flatten();
    if let Some(partial) = partial {
        // Whether the files are gone decides nothing: nobody goes on with them here.
        drop(target.context.runtime.spawn_blocking(move || partial.discard()).await);
    }
    fetch.fail(life, target.integrity(MISMATCH));
}
