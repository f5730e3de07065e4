//! A remote that fails on demand, for tests of every floor above.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    Body, Cause, Page, Prefix, Put, Remote, RemoteError, Source, get_action, list_action,
    put_action, size_action,
};
use crate::id::Key;

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: the request passes.
    Pass,
    /// The request is answered by an error.
    Refuse(Cause),
    /// The body ends in an error after so many bytes; what is put does not arrive.
    Break {
        /// How many bytes arrive.
        after: u64,
    },
    /// One bit of one byte of the body is wrong.
    Flip {
        /// Which byte, counted from the body's first.
        at: u64,
    },
    /// The answer waits for a permit, which the test adds when it likes.
    Wait(Arc<Semaphore>),
}

/// Another remote with faults in front of it.
///
/// Each request takes the next fault of the script; when the script is used up, the standing
/// fault holds.
#[derive(Debug)]
pub struct FailingRemote {
    inner: Arc<dyn Remote>,
    script: Mutex<VecDeque<Fault>>,
    standing: Mutex<Fault>,
}

impl FailingRemote {
    /// Lets everything pass until told otherwise.
    pub fn new(inner: Arc<dyn Remote>) -> Self {
        let (script, standing) = (Mutex::default(), Mutex::new(Fault::Pass));
        Self { inner, script, standing }
    }

    /// Gives the next requests these faults, in order.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().extend(faults);
    }

    /// Gives every request after the script this fault.
    pub fn always(&self, fault: Fault) {
        *self.standing.lock() = fault;
    }

    fn next(&self) -> Fault {
        let scripted = self.script.lock().pop_front();
        scripted.unwrap_or_else(|| self.standing.lock().clone())
    }

    fn refusal(&self, cause: Cause, action: String) -> RemoteError {
        RemoteError::new(cause, action, self.url(), "the test says so")
    }
}

/// Waits until the test adds a permit; a closed semaphore lets all pass.
async fn wait(gate: &Semaphore) {
    if let Ok(permit) = gate.acquire().await {
        permit.forget();
    }
}

#[async_trait]
impl Remote for FailingRemote {
    async fn get(&self, key: Key, range: Option<Range<u64>>) -> Result<Body, RemoteError> {
        let fault = self.next();
        match &fault {
            Fault::Refuse(cause) => return Err(self.refusal(*cause, get_action(key))),
            Fault::Wait(gate) => wait(gate).await,
            Fault::Pass | Fault::Break { .. } | Fault::Flip { .. } => {}
        }
        let mut body = self.inner.get(key, range).await?;
        body.chunks = match fault {
            Fault::Break { after } => {
                let error = self.refusal(Cause::Unreachable, get_action(key));
                let end = stream::once(future::ready(Err(error)));
                head(body.chunks, after).chain(end).boxed()
            }
            Fault::Flip { at } => flip(body.chunks, at).boxed(),
            _ => body.chunks,
        };
        Ok(body)
    }

    async fn size(&self, key: Key) -> Result<u64, RemoteError> {
        match self.next() {
            Fault::Refuse(cause) => return Err(self.refusal(cause, size_action(key))),
            Fault::Wait(gate) => wait(&gate).await,
            Fault::Pass | Fault::Break { .. } | Fault::Flip { .. } => {}
        }
        self.inner.size(key).await
    }

    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Page, RemoteError> {
        match self.next() {
            Fault::Refuse(cause) => return Err(self.refusal(cause, list_action(prefix))),
            Fault::Wait(gate) => wait(&gate).await,
            Fault::Pass | Fault::Break { .. } | Fault::Flip { .. } => {}
        }
        self.inner.list(prefix, after).await
    }

    async fn put(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        match self.next() {
            Fault::Refuse(cause) => return Err(self.refusal(cause, put_action(key))),
            Fault::Break { .. } => return Err(self.refusal(Cause::Unreachable, put_action(key))),
            Fault::Wait(gate) => wait(&gate).await,
            Fault::Pass | Fault::Flip { .. } => {}
        }
        self.inner.put(key, source).await
    }

    fn lists_cheaply(&self) -> bool {
        self.inner.lists_cheaply()
    }

    fn url(&self) -> &str {
        self.inner.url()
    }
}

type Chunk = Result<Bytes, RemoteError>;

/// The first `length` bytes.
fn head(
    chunks: impl futures_util::Stream<Item = Chunk>,
    length: u64,
) -> impl futures_util::Stream<Item = Chunk> {
    let mut left = length;
    chunks
        .map(move |chunk| {
            let mut chunk = chunk?;
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= chunk.len() as u64;
            Ok(chunk)
        })
        .take_while(|chunk| future::ready(!matches!(chunk, Ok(bytes) if bytes.is_empty())))
}

/// All bytes, with the lowest bit of one changed.
fn flip(
    chunks: impl futures_util::Stream<Item = Chunk>,
    at: u64,
) -> impl futures_util::Stream<Item = Chunk> {
    let mut position = 0;
    chunks.map(move |chunk| {
        let mut bytes = Vec::from(chunk?);
        let index = usize::try_from(at.wrapping_sub(position)).unwrap_or(usize::MAX);
        position += bytes.len() as u64;
        if let Some(byte) = bytes.get_mut(index) {
            *byte ^= 1;
        }
        Ok(Bytes::from(bytes))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;
    use crate::{id::Scheme, remote::MemoryRemote};

    const KEY: Key = Key { digest: [1; 16], scheme: Scheme::Md5, is_manifest: false };

    fn failing() -> FailingRemote {
        let memory = MemoryRemote::new();
        memory.insert(KEY, vec![0; 200_000]);
        FailingRemote::new(Arc::new(memory))
    }

    #[tokio::test]
    async fn a_script_runs_out_and_leaves_the_standing_fault() {
        let remote = failing();
        remote.script([Fault::Pass, Fault::Refuse(Cause::Denied)]);
        remote.always(Fault::Refuse(Cause::Unreachable));
        assert_eq!(remote.size(KEY).await.unwrap(), 200_000);
        assert_eq!(remote.get(KEY, None).await.unwrap_err().cause, Cause::Denied);
        assert_eq!(remote.size(KEY).await.unwrap_err().cause, Cause::Unreachable);
    }

    #[tokio::test]
    async fn a_broken_body_gives_exactly_its_head_and_then_an_error() {
        let remote = failing();
        remote.script([Fault::Break { after: 100_000 }]);
        let mut chunks = remote.get(KEY, None).await.unwrap().chunks;
        let mut arrived = 0;
        let error = loop {
            match chunks.try_next().await {
                Ok(chunk) => arrived += chunk.unwrap().len(),
                Err(error) => break error,
            }
        };
        assert_eq!((arrived, error.cause), (100_000, Cause::Unreachable));
    }

    #[tokio::test]
    async fn a_flipped_byte_is_the_only_change() {
        let remote = failing();
        remote.script([Fault::Flip { at: 150_000 }]);
        let body = remote.get(KEY, None).await.unwrap();
        let bytes: Vec<Bytes> = body.chunks.try_collect().await.unwrap();
        let wrong: Vec<usize> =
            bytes.concat().iter().enumerate().filter(|(_, b)| **b != 0).map(|(i, _)| i).collect();
        assert_eq!(wrong, [150_000]);
    }
}
