//! One ranged request: brings blocks and lets go of its claim however it ends.

use std::{ops::Range, sync::Arc};

use bytes::BytesMut;
use futures_util::StreamExt as _;

use super::keep::store;
use crate::blobs::{BlobError, Fetch, fetch::WeakFetch, target::Target};
use crate::cache::{BLOCK, bytes_of};

/// One request for some blocks of a large blob. Lets go of its claim however it ends.
pub(in crate::blobs) struct Pull {
    fetch: WeakFetch,
    target: Arc<Target>,
    life: u64,
    blocks: Range<u64>,
    error: Option<BlobError>,
}

impl Pull {
    pub(in crate::blobs) fn new(fetch: &Arc<Fetch>, life: u64, blocks: Range<u64>) -> Self {
        let target = fetch.target.clone();
        let error = Some(target.unreachable("the download ended early"));
        Self { fetch: Arc::downgrade(fetch), target, life, blocks, error }
    }

    /// Brings the blocks.
    pub(in crate::blobs) async fn run(mut self, is_ahead: bool) {
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
