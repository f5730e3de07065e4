//! Putting objects into a bucket: small ones by one request, large ones in parts.
//!
//! The server is asked to check what arrives (by CRC-32, and by the MD5 that most keys are) and to
//! leave alone what is there. A server that does not know how is asked for less.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering},
    },
    time::Duration,
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_types::base64;
use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture, stream};
use tokio::time::timeout;

use super::{
    S3Remote,
    connector::Moves,
    errors::{ALLOW, Failure, NETWORK_HINT},
};
use crate::{
    id::Key,
    remote::{
        Cause, Put, Remote as _, RemoteError, Source, put_action, resume::Ranged, retry::Retry,
    },
};

mod notes;
mod parts;

/// Larger objects are put in parts.
const LARGEST: u64 = 64 << 20;

/// How long a server may take to put an object together from its parts, or to say no.
const COMPLETION: Duration = Duration::from_mins(10);

const ALLOW_PUT: &str = "check the AWS profile; these credentials need s3:PutObject here";

/// What a server is asked for beside storing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wishes(u8);

impl Wishes {
    /// Leave alone what is there.
    const fn is_conditional(self) -> bool {
        self.0 == 0
    }

    /// Check a CRC-32.
    const fn has_crc(self) -> bool {
        self.0 < 2
    }

    /// The same without the one that fewest servers know.
    fn fewer(self) -> Option<Self> {
        (self.0 < 2).then_some(Self(self.0 + 1))
    }
}

/// A request under way: an answer, a refusal, or what kept it from being sent.
type Request<'a, T> = BoxFuture<'a, Result<Result<T, Failure>, RemoteError>>;

/// What the server of a bucket has shown to understand.
#[derive(Debug, Default)]
pub(super) struct Understood(AtomicU8);

impl S3Remote {
    pub(super) async fn put_source(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        if source.size() > LARGEST {
            self.put_in_parts(key, source).await
        } else {
            self.put_whole(key, source).await
        }
    }

    async fn put_whole(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        let (action, name) = (put_action(key), self.object_name(key));
        let whole = 0..source.size();
        let sums = source.sums(whole.clone(), false).await;
        let (crc, _) = sums.map_err(|error| self.unreadable(&action, error))?;
        // Of other keys the bytes may differ in their line ends.
        let md5 = key.fixes_bytes().then(|| base64::encode(key.digest));
        let customer = self.0.customer_key.as_ref();
        let sending = Sending::new(source, whole);
        let (action, name, md5, sending) = (&*action, &*name, &md5, &sending);
        let request = |wishes: Wishes, moves: Moves| -> Request<'_, _> {
            Box::pin(async move {
                let sent = self.send(action, |client| {
                    let moves = moves.clone();
                    client
                        .put_object()
                        .bucket(&self.0.settings.bucket)
                        .key(name)
                        .content_length(source.size() as i64)
                        .set_content_md5(md5.clone())
                        .set_checksum_crc32(wishes.has_crc().then(|| crc_text(crc)))
                        .set_if_none_match(wishes.is_conditional().then(|| "*".to_owned()))
                        .set_sse_customer_algorithm(customer.map(|it| it.algorithm.clone()))
                        .set_sse_customer_key(customer.map(|it| it.key.clone()))
                        .set_sse_customer_key_md5(customer.map(|it| it.md5.clone()))
                        .body(sending.body(&moves))
                        .customize()
                        .mutate_request(move |request| request.add_extension(moves.clone()))
                        .send()
                });
                Ok(sent.await?.map_err(|error| Failure::new(&error)))
            })
        };
        match self.insist(action, request).await? {
            Ok(_) => Ok(Put::Stored),
            Err(failure) => {
                sending.forget();
                match failure.status {
                    Some(412) => Ok(Put::Present),
                    _ => Err(self.not_put(action, failure)),
                }
            }
        }
    }

    /// Tries until the server takes it or says no; asks for less where it does not understand.
    async fn insist<'a, T>(
        &self,
        action: &str,
        request: impl Fn(Wishes, Moves) -> Request<'a, T> + Send,
    ) -> Result<Result<T, Failure>, RemoteError> {
        let understood = &self.0.understood.0;
        let mut wishes = Wishes(understood.load(Ordering::Relaxed));
        let mut retry = Retry::new(self.limits());
        loop {
            let moves = Moves::new();
            let answer = moves.watch(self.patience(), request(wishes, moves.clone())).await;
            let failure = match answer {
                None => self.stalled(action),
                Some(Err(error)) => error,
                Some(Ok(Ok(done))) => {
                    understood.store(wishes.0, Ordering::Relaxed);
                    return Ok(Ok(done));
                }
                Some(Ok(Err(failure))) if failure.is_good() => {
                    // What it says of it did not come.
                    RemoteError { cause: Cause::Unreachable, ..self.not_put(action, failure) }
                }
                Some(Ok(Err(failure))) => match (failure.is_too_much(), wishes.fewer()) {
                    (true, Some(fewer)) => {
                        tracing::debug!("{action} {}: {}", self.url(), failure.reason);
                        wishes = fewer;
                        continue;
                    }
                    _ if failure.cause == Cause::Unreachable && failure.status != Some(412) => {
                        self.not_put(action, failure)
                    }
                    _ => return Ok(Err(failure)),
                },
            };
            retry.pause(retry.deadline(), failure).await?;
        }
    }

    /// How long nothing may move. No program waits for it as for what it reads.
    fn patience(&self) -> Duration {
        self.limits().idle * 2
    }

    fn stalled(&self, action: &str) -> RemoteError {
        let seconds = self.patience().as_secs_f32();
        let reason = format!("nothing moved for {seconds} s");
        self.error(Cause::Unreachable, action, reason).with_hint(NETWORK_HINT)
    }

    fn not_put(&self, action: &str, mut failure: Failure) -> RemoteError {
        if failure.hint == Some(ALLOW) {
            failure.hint = Some(ALLOW_PUT);
        }
        self.failed(action, failure)
    }

    fn unreadable(&self, action: &str, error: std::io::Error) -> RemoteError {
        self.error(Cause::Local, action, format!("read what is to be put: {error}"))
            .with_source(error)
    }

    /// Waits for an answer that comes without anything moving meanwhile.
    async fn in_time<T>(
        &self,
        action: &str,
        request: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        timeout(COMPLETION, request).await.unwrap_or_else(|_elapsed| Err(self.stalled(action)))
    }
}

fn crc_text(crc: u32) -> String {
    base64::encode(crc.to_be_bytes())
}

/// A range of a source on its way; may be sent again from its beginning.
#[derive(Clone)]
struct Sending {
    source: Source,
    range: std::ops::Range<u64>,
    /// The bytes that were told to be on their way.
    told: Arc<AtomicI64>,
}

impl Sending {
    fn new(source: &Source, range: std::ops::Range<u64>) -> Self {
        Self { source: source.clone(), range, told: Arc::default() }
    }

    fn body(&self, moves: &Moves) -> ByteStream {
        let (sending, moves) = (self.clone(), moves.clone());
        ByteStream::new(SdkBody::retryable(move || {
            let chunks = sending.clone().chunks(moves.clone());
            SdkBody::from_body_1_x(reqwest::Body::wrap_stream(chunks))
        }))
    }

    fn chunks(self, moves: Moves) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        self.forget();
        let rest = self.range.clone();
        stream::try_unfold((self, moves, rest), |(sending, moves, rest)| async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let chunk = sending.source.first(rest.clone()).await?;
            let sent = chunk.len() as i64;
            sending.told.fetch_add(sent, Ordering::Relaxed);
            sending.source.tell(sent);
            moves.touch();
            let rest = rest.start + chunk.len() as u64..rest.end;
            Ok(Some((chunk, (sending, moves, rest))))
        })
    }

    /// What was sent so far does not count.
    fn forget(&self) {
        self.source.tell(-self.told.swap(0, Ordering::Relaxed));
    }
}
