//! Where blobs live for everyone: S3, a directory, HTTP.
//!
//! A [`Remote`] streams objects by [`Key`] and tells their sizes. It never verifies content, never
//! caches and never decides whether an endpoint may be trusted; that is for the floors above.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::id::Key;

mod failing;
mod http;
mod listing;
mod local;
mod memory;
mod range;
mod resume;
mod retry;
mod s3;
mod source;
mod transport;

pub use failing::{FailingRemote, Fault};
pub use http::{HttpAuth, HttpRemote, HttpSettings};
pub(crate) use listing::list_action;
pub use listing::{PAGE, Page, Prefix};
pub use local::{LocalRemote, Strictness};
pub use memory::MemoryRemote;
pub use retry::RequestLimits;
pub use s3::{S3Remote, S3Settings};
pub use source::{Put, Sent, Source};
pub use transport::TlsVerify;

/// Somewhere objects can be had from and put into.
///
/// Every call ends within a deadline: no progress for 30 s is [`Cause::Unreachable`]. Retries with
/// back-off happen inside. Dropping a future or a [`Body`] cancels its request.
#[async_trait]
pub trait Remote: Send + Sync + fmt::Debug {
    /// Streams `range` of an object, or all of it.
    ///
    /// A range that reaches past the end is cut there; one that begins at or past the end gives an
    /// empty body. `Body::size` is the size of the whole object in either case.
    async fn get(&self, key: Key, range: Option<Range<u64>>) -> Result<Body, RemoteError>;

    /// The size of an object in bytes.
    async fn size(&self, key: Key) -> Result<u64, RemoteError>;

    /// A page of the objects of `prefix` whose names come after `after`, or the first page.
    ///
    /// Names are those below the remote's URL, as [`Key::path`] gives them; `after` need not exist.
    /// [`Cause::Unsupported`] where nothing can be listed.
    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Page, RemoteError>;

    /// Puts an object; what is there under its name already stays, where the store can promise that.
    ///
    /// No one ever sees a part of it. The bytes are checked where they arrive, as far as the store
    /// can; [`Cause::Local`] if they cannot be read here or are found not to be what the key names,
    /// [`Cause::Full`] if there is no room, [`Cause::Unsupported`] where nothing can be put.
    async fn put(&self, key: Key, source: &Source) -> Result<Put, RemoteError>;

    /// Whether a page of a listing costs about as much as the question for one size.
    fn lists_cheaply(&self) -> bool;

    /// The URL, without credentials, for messages and as the scope of size claims.
    fn url(&self) -> &str;
}

/// An object's bytes as they arrive.
pub struct Body {
    /// The size of the whole object in bytes.
    pub size: u64,
    /// Which bytes of it `chunks` will give; already cut at `size`.
    pub range: Range<u64>,
    /// The bytes in order. Ends after exactly `range`, or with an error: a body cut short by the
    /// server is [`Cause::Unreachable`], never a silent end.
    pub chunks: BoxStream<'static, Result<Bytes, RemoteError>>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("size", &self.size)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// What kept a remote from answering, sorted by whose move is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The object is not there.
    Missing,
    /// No credentials, or the remote refuses them.
    Denied,
    /// The bucket, folder or host does not exist, or the remote's settings cannot be used.
    Misconfigured,
    /// The settings come from the repository and the user has not agreed to them.
    Untrusted,
    /// Network trouble, time-outs, throttling or server errors that outlasted the retries.
    Unreachable,
    /// This kind of remote offers no such thing.
    Unsupported,
    /// There is no room left for an object.
    Full,
    /// What was to be put cannot be read on this side, or is not what its key names.
    Local,
}

/// A failed request: what was asked of which remote, and why it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{action} {url}: {reason}")]
pub struct RemoteError {
    /// Whose move is next.
    pub cause: Cause,
    /// What was attempted, such as `get files/md5/ab/cdef from`.
    pub action: String,
    /// The remote's URL, without credentials.
    pub url: String,
    /// Why it failed, in one line, without secrets.
    pub reason: String,
    /// What the user could do about it.
    pub hint: Option<String>,
    /// The error underneath, if there is one worth keeping.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl RemoteError {
    /// An error without hint or source.
    pub(crate) fn new(
        cause: Cause,
        action: impl Into<String>,
        url: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            cause,
            action: action.into(),
            url: url.into(),
            reason: reason.into(),
            hint: None,
            source: None,
        }
    }

    /// Adds what the user could do about it.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error underneath.
    pub(crate) fn with_source(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

/// What [`RemoteError::action`] says of a download.
pub(crate) fn get_action(key: Key) -> String {
    format!("get {key} from")
}

/// What [`RemoteError::action`] says of an upload.
pub(crate) fn put_action(key: Key) -> String {
    format!("put {key} into")
}

/// What [`RemoteError::action`] says of a question for a size.
pub(crate) fn size_action(key: Key) -> String {
    format!("ask the size of {key} at")
}
