//! Downloads over connections that break.
//!
//! A store answers single requests ([`Ranged`]). [`get`] makes a [`Body`] of such answers: it
//! checks that each brings the bytes that were asked for, and when one stops early or stalls, asks
//! again from the byte where it stopped. The entity tag of the first answer pins all later ones,
//! so that bytes of two contents are never joined.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::Instant;

use super::{
    Body, Cause, Remote, RemoteError, get_action,
    range::cut,
    retry::{RequestLimits, Retry, persist},
};
use crate::id::Key;

/// How much unwanted data is read through when a server ignores ranges.
const SKIP_MAX: u64 = 8 << 20;

/// How much must arrive before earlier failures are forgotten.
const PROGRESS: u64 = 1 << 20;

/// A store that answers single requests.
#[async_trait]
pub(super) trait Ranged: Remote {
    /// Sends one request for a range that is not empty, or for everything.
    ///
    /// With `etag`, the store should refuse if the object is another one now. A range past the
    /// end is answered by an empty one.
    async fn request(
        &self,
        key: Key,
        range: Option<Range<u64>>,
        etag: Option<&str>,
    ) -> Result<Answer, RemoteError>;

    /// How patient to be.
    fn limits(&self) -> &RequestLimits;
}

/// What a store says to one request.
pub(super) struct Answer {
    /// The size of the whole object.
    pub(super) size: u64,
    /// Which bytes follow.
    pub(super) range: Range<u64>,
    /// Changes whenever the content does; only strong tags.
    pub(super) etag: Option<String>,
    /// The bytes, which may end early.
    pub(super) chunks: BoxStream<'static, Result<Bytes, RemoteError>>,
}

/// Streams `range` of an object, or all of it, asking again where a connection breaks.
pub(super) async fn get(
    store: Arc<dyn Ranged>,
    key: Key,
    range: Option<Range<u64>>,
) -> Result<Body, RemoteError> {
    if range.as_ref().is_some_and(Range::is_empty) {
        let size = store.size(key).await?;
        return Ok(Body { size, range: cut(range, size), chunks: stream::empty().boxed() });
    }
    let stalled = || stalled(&*store, key);
    let answer =
        persist(store.limits(), stalled, || store.request(key, range.clone(), None)).await?;
    let size = answer.size;
    let wanted = cut(range, size);
    let mut download = Download {
        retry: Retry::new(store.limits()),
        store,
        key,
        size,
        etag: answer.etag.clone(),
        position: wanted.start,
        end: wanted.end,
        source: None,
        since_failure: 0,
        silence: Duration::ZERO,
    };
    download.source = Some(download.fit(answer)?);
    let chunks = stream::try_unfold(download, Download::next).boxed();
    Ok(Body { size, range: wanted, chunks })
}

fn stalled(store: &dyn Ranged, key: Key) -> RemoteError {
    let seconds = store.limits().per_request().as_secs_f32();
    let reason = format!("nothing arrived for {seconds} s");
    RemoteError::new(Cause::Unreachable, get_action(key), store.url(), reason)
        .with_hint("check the network; a slow server can be given more time by `read_timeout`")
}

/// A download under way.
struct Download {
    store: Arc<dyn Ranged>,
    key: Key,
    size: u64,
    etag: Option<String>,
    /// The next byte to hand out.
    position: u64,
    end: u64,
    /// Absent until the next request is answered.
    source: Option<Source>,
    retry: Retry,
    since_failure: u64,
    /// How long was waited for nothing since there was progress.
    silence: Duration,
}

/// An answer being read.
struct Source {
    /// Bytes to drop because they lie before the wanted ones.
    skip: u64,
    chunks: BoxStream<'static, Result<Bytes, RemoteError>>,
}

impl Download {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, RemoteError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let (begun, before) = (Instant::now(), self.silence);
        let deadline = self.retry.deadline() - before;
        loop {
            match self.advance(deadline).await {
                Ok(chunk) => return Ok(Some((chunk, self))),
                Err(error) => {
                    self.source = None;
                    self.since_failure = 0;
                    self.retry.pause(deadline, error).await?;
                    // The next bytes may be few, and then there is silence again.
                    self.silence = before + begun.elapsed();
                }
            }
        }
    }

    /// Gives the next bytes, from a new answer if there is none.
    async fn advance(&mut self, deadline: Instant) -> Result<Bytes, RemoteError> {
        let (store, key) = (self.store.clone(), self.key);
        let stalled = || stalled(&*store, key);
        let mut source = if let Some(source) = self.source.take() {
            source
        } else {
            let rest = Some(self.position..self.end);
            let request = store.request(key, rest, self.etag.as_deref());
            let answer = self.retry.attempt(deadline, &stalled, request).await?;
            self.fit(answer)?
        };
        loop {
            let next = async { Ok(source.chunks.next().await) };
            let next = self.retry.attempt(deadline, &stalled, next).await?;
            let mut chunk = next.unwrap_or_else(|| Err(self.short()))?;
            let skipped = source.skip.min(chunk.len() as u64);
            chunk.advance(skipped as usize);
            source.skip -= skipped;
            chunk.truncate(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
            if !chunk.is_empty() {
                self.source = Some(source);
                self.count(chunk.len() as u64);
                return Ok(chunk);
            }
        }
    }

    fn count(&mut self, bytes: u64) {
        self.position += bytes;
        self.since_failure += bytes;
        if self.since_failure >= PROGRESS {
            self.retry.reset();
            self.silence = Duration::ZERO;
        }
    }

    /// Checks that an answer brings the rest of this object.
    fn fit(&self, answer: Answer) -> Result<Source, RemoteError> {
        if answer.size != self.size || answer.etag != self.etag {
            let error = self.error(Cause::Unreachable, "the object changed while it was read");
            return Err(error.with_hint("try again"));
        }
        let skip = self.position.checked_sub(answer.range.start);
        match skip {
            Some(skip) if skip <= SKIP_MAX && answer.range.end >= self.end => {
                Ok(Source { skip, chunks: answer.chunks })
            }
            Some(_) if answer.range == (0..answer.size) => {
                let error = self.error(Cause::Misconfigured, "the server ignores byte ranges");
                Err(error.with_hint("a proxy in between may be the reason"))
            }
            _ => {
                let (got, want) = (&answer.range, self.position..self.end);
                let reason = format!("bytes {got:?} came where {want:?} were asked for");
                Err(self.error(Cause::Unreachable, &reason))
            }
        }
    }

    fn short(&self) -> RemoteError {
        let reason = format!("the answer ended at byte {} instead of {}", self.position, self.end);
        self.error(Cause::Unreachable, &reason)
    }

    fn error(&self, cause: Cause, reason: &str) -> RemoteError {
        RemoteError::new(cause, get_action(self.key), self.store.url(), reason)
    }
}
