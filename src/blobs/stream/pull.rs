//! One ranged request: brings blocks and lets go of its claim however it ends.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};

use super::keep::store;
use crate::blobs::{
    BlobError, Fetch,
    budget::{Rank, Urgency},
    fetch::WeakFetch,
    target::Target,
};
use crate::cache::{BLOCK, bytes_of};
use crate::remote::Body;

/// Bytes that are written at a time where nobody waits for them.
const BATCH: u64 = 512 << 10;

/// One request for some blocks of a large blob. Lets go of its claim however it ends.
pub(in crate::blobs) struct Pull {
    fetch: WeakFetch,
    target: Arc<Target>,
    life: u64,
    blocks: Range<u64>,
    rank: Arc<Rank>,
    error: Option<BlobError>,
}

impl Pull {
    pub(in crate::blobs) fn new(
        fetch: &Arc<Fetch>,
        life: u64,
        blocks: Range<u64>,
        rank: Arc<Rank>,
    ) -> Self {
        let target = fetch.target.clone();
        let error = Some(target.unreachable("the download ended early"));
        Self { fetch: Arc::downgrade(fetch), target, life, blocks, rank, error }
    }

    /// Brings the blocks.
    pub(in crate::blobs) async fn run(mut self) {
        let context = self.target.context.clone();
        let bytes = (self.blocks.end - self.blocks.start) * BLOCK;
        let _permit = context.budget.admit(bytes, &self.rank).await;
        self.error = self.bring().await.err();
    }

    async fn bring(&self) -> Result<(), BlobError> {
        let Some(size) = self.size() else {
            return Ok(());
        };
        let range = bytes_of(&self.blocks, size);
        let body = self.target.get(Some(range.clone())).await?;
        if body.size != size {
            self.correct_size(body.size);
            return Ok(());
        }
        if body.range != range {
            return Err(self.target.unreachable("it answered with another range"));
        }
        self.confirm();
        self.receive(body).await
    }

    /// Keeps the blocks as they come: in batches, or where somebody waits for them and there is
    /// nothing more yet, at once.
    async fn receive(&self, mut body: Body) -> Result<(), BlobError> {
        let end = body.range.end;
        let mut arrived = Arrived { start: body.range.start, pieces: Vec::new(), bytes: 0 };
        loop {
            let next = if let Some(next) = body.chunks.next().now_or_never() {
                next
            } else {
                self.target.context.budget.give_way(&self.rank).await;
                match self.rank.unless_above(Urgency::Ahead, body.chunks.next()).await {
                    Some(next) => next,
                    None if self.keep(&mut arrived, end).await => body.chunks.next().await,
                    None => return Ok(()),
                }
            };
            match next {
                None => break,
                Some(Ok(chunk)) => arrived.push(chunk),
                Some(Err(error)) => {
                    self.keep(&mut arrived, end).await;
                    return Err(BlobError::from_remote(self.target.key, error));
                }
            }
            if arrived.end() > end {
                return Err(self.target.unreachable("it sent more than it announced"));
            }
            if arrived.bytes >= BATCH && !self.keep(&mut arrived, end).await {
                return Ok(());
            }
        }
        if !self.keep(&mut arrived, end).await {
            return Ok(());
        }
        if arrived.start < end {
            return Err(self.target.unreachable("it sent less than it announced"));
        }
        Ok(())
    }

    /// Keeps the whole blocks that have arrived; false when nobody is there any more to have them.
    async fn keep(&self, arrived: &mut Arrived, end: u64) -> bool {
        let (start, blocks) = (arrived.start, arrived.take_blocks(end));
        if blocks.is_empty() {
            return true;
        }
        let Some(fetch) = self.fetch.upgrade() else {
            return false;
        };
        store(&fetch, self.life, start / BLOCK, blocks).await;
        true
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
            stream.let_go(&self.blocks, &self.rank);
            if let Some(error) = self.error.take() {
                stream.failures += 1;
                stream.error = Some(error);
            }
        });
    }
}

/// What has come and is not kept yet, in the pieces in which it came.
struct Arrived {
    /// Where it begins, at the border of a block.
    start: u64,
    pieces: Vec<Bytes>,
    bytes: u64,
}

impl Arrived {
    fn end(&self) -> u64 {
        self.start + self.bytes
    }

    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len() as u64;
        self.pieces.push(piece);
    }

    /// Takes out the pieces of whole blocks, and of the last one where it ends at `end`.
    fn take_blocks(&mut self, end: u64) -> Vec<Bytes> {
        let whole = if self.end() == end { self.bytes } else { self.bytes / BLOCK * BLOCK };
        let mut rest = self.bytes - whole;
        let mut left = Vec::new();
        while rest > 0
            && let Some(mut piece) = self.pieces.pop()
        {
            let cut = (piece.len() as u64).saturating_sub(rest) as usize;
            let tail = piece.split_off(cut);
            rest -= tail.len() as u64;
            left.insert(0, tail);
            if !piece.is_empty() {
                self.pieces.push(piece);
            }
        }
        self.start += whole;
        self.bytes -= whole;
        std::mem::replace(&mut self.pieces, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_taken_out_of_pieces_of_any_size() {
        let content: Vec<u8> = (0..5 * BLOCK as usize + 77).map(|n| (n % 251) as u8).collect();
        for step in [1000, 40_000, BLOCK as usize, 200_000, content.len()] {
            let mut arrived = Arrived { start: 0, pieces: Vec::new(), bytes: 0 };
            let mut taken = Vec::new();
            for piece in content.chunks(step) {
                arrived.push(Bytes::copy_from_slice(piece));
                assert_eq!(arrived.start % BLOCK, 0);
                let blocks = arrived.take_blocks(content.len() as u64).concat();
                let is_end = arrived.start == content.len() as u64;
                assert!(is_end || (blocks.len() as u64).is_multiple_of(BLOCK));
                taken.extend(blocks);
                assert!(arrived.bytes < BLOCK);
            }
            assert!(taken == content && arrived.pieces.is_empty(), "{step}");
        }
    }
}
