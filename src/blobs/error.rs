use std::{error::Error, fmt, sync::Arc};

use crate::{
    id::Key,
    remote::{Cause, RemoteError},
};

/// Why a blob cannot be read, sorted by whose move is next. Asking again starts anew.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlobError {
    /// It is on none of its remotes.
    #[error("{0}")]
    Missing(#[source] Failure),
    /// No credentials, or the remote refuses them.
    #[error("{0}")]
    Denied(#[source] Failure),
    /// Network trouble or server errors that outlasted the retries.
    #[error("{0}")]
    Unreachable(#[source] Failure),
    /// The remote's settings cannot be used.
    #[error("{0}")]
    Misconfigured(#[source] Failure),
    /// The remote's settings come from the repository and the user has not agreed to them.
    #[error("{0}")]
    Untrusted(#[source] Failure),
    /// The bytes that came are not what the id names; they were thrown away.
    #[error("{0}")]
    Integrity(#[source] Failure),
}

/// What was read from where, and why that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The blob or manifest.
    pub key: Key,
    /// The remote's URL, without credentials.
    pub url: String,
    /// Why, in one line.
    pub reason: String,
    /// What the user could do about it.
    pub hint: Option<String>,
    /// The remote's own error, where it failed there.
    pub source: Option<Arc<RemoteError>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read {} from {}: {}", self.key, self.url, self.reason)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn Error + 'static))
    }
}

impl BlobError {
    /// What failed, whatever the kind.
    pub const fn failure(&self) -> &Failure {
        match self {
            Self::Missing(failure)
            | Self::Denied(failure)
            | Self::Unreachable(failure)
            | Self::Misconfigured(failure)
            | Self::Untrusted(failure)
            | Self::Integrity(failure) => failure,
        }
    }

    pub(super) fn from_remote(key: Key, error: RemoteError) -> Self {
        let kind = match error.cause {
            Cause::Missing => Self::Missing,
            Cause::Denied => Self::Denied,
            Cause::Misconfigured | Cause::Unsupported | Cause::Full | Cause::Local => {
                Self::Misconfigured
            }
            Cause::Untrusted => Self::Untrusted,
            Cause::Unreachable => Self::Unreachable,
        };
        kind(Failure {
            key,
            url: error.url.clone(),
            reason: error.reason.clone(),
            hint: error.hint.clone(),
            source: Some(Arc::new(error)),
        })
    }

    pub(super) fn unreachable(key: Key, url: &str, reason: impl Into<String>) -> Self {
        Self::Unreachable(Failure::new(key, url, reason))
    }

    pub(super) fn integrity(key: Key, url: &str, reason: impl Into<String>) -> Self {
        Self::Integrity(Failure::new(key, url, reason))
    }
}

impl Failure {
    fn new(key: Key, url: &str, reason: impl Into<String>) -> Self {
        Self { key, url: url.into(), reason: reason.into(), hint: None, source: None }
    }
}
