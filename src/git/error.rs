//! What can go wrong with a repository, sorted by what a caller can do about it.

use std::{io, path::PathBuf, time::Duration};

use super::id::GitId;
use crate::path::escape;

/// An error with the repository, revision, object or URL it is about.
///
/// Texts that came from a server or from git are without passwords and safe to print.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The text is neither a path nor a URL that is safe to hand to git.
    #[error("cannot use `{location}` as a repository: {reason}")]
    InvalidLocation {
        /// What was typed, without a password.
        location: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no git repository at this path or URL.
    #[error("not a git repository: {location}")]
    NotARepository {
        /// The path or URL.
        location: String,
    },
    /// The repository is of a kind that cannot be read, such as one with SHA-256 ids.
    #[error("cannot read the repository {location}: {reason}")]
    Unsupported {
        /// The path or URL.
        location: String,
        /// Which of its features is in the way.
        reason: String,
    },
    /// The repository has no commit yet.
    #[error("the repository {location} is empty: it has no commit yet")]
    EmptyRepository {
        /// The path or URL.
        location: String,
    },
    /// No commit goes by this name.
    #[error("unknown revision `{}`{}", escape(revision.as_bytes()), suggestion(nearest))]
    UnknownRevision {
        /// What was asked for.
        revision: String,
        /// Up to three names that look like it, best first.
        nearest: Vec<String>,
    },
    /// A shortened id that several commits share.
    #[error("ambiguous revision `{revision}`: {} commits begin so", candidates.len())]
    AmbiguousRevision {
        /// What was asked for.
        revision: String,
        /// The commits it could mean.
        candidates: Vec<GitId>,
    },
    /// The repository lacks an object that another one names (as in partial clones).
    #[error("git object {id} is missing from the repository")]
    Missing {
        /// The object.
        id: GitId,
    },
    /// The object is there but cannot be understood.
    #[error("git object {id} cannot be read: {reason}")]
    Unreadable {
        /// The object.
        id: GitId,
        /// What is wrong with it.
        reason: String,
    },
    /// The object is larger than the caller wanted to read.
    #[error("git object {id} has {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The object.
        id: GitId,
        /// Its size in bytes.
        size: u64,
        /// The most the caller wanted.
        limit: u64,
    },
    /// The server could not be reached, or talking to it failed.
    #[error("cannot fetch from {url}: {output}")]
    Unreachable {
        /// The URL, without a password.
        url: String,
        /// The last lines that git printed.
        output: String,
    },
    /// The server refused the credentials, or there were none and nobody to ask.
    #[error("{url} refused access: {output}")]
    Denied {
        /// The URL, without a password.
        url: String,
        /// The last lines that git printed.
        output: String,
    },
    /// The time limit passed; git was stopped.
    #[error("no end of fetching from {url} after {} s", limit.as_secs_f32())]
    TimedOut {
        /// The URL, without a password.
        url: String,
        /// The time limit.
        limit: Duration,
    },
    /// Another process holds the mirror and did not finish in time.
    #[error("the mirror {folder} is in use by another process")]
    Busy {
        /// The mirror's folder.
        folder: PathBuf,
    },
    /// There is no `git` program to run.
    #[error("cannot run the git program `{program}`: {source}")]
    GitMissing {
        /// The program that was to be run.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The repository belongs to another user, so that the user's git is not run in it.
    #[error("{location} belongs to another user")]
    NotOwned {
        /// The repository's folder.
        location: String,
    },
    /// Git does not know who the user is.
    #[error("git does not know who you are (set user.name and user.email): {output}")]
    NoIdentity {
        /// The last lines that git printed.
        output: String,
    },
    /// Git did not make the commit.
    #[error("cannot commit in {location}: {output}")]
    NotCommitted {
        /// The repository's folder.
        location: String,
        /// The last lines that git printed.
        output: String,
    },
    /// A ref could not be read or written.
    #[error("cannot {action} {reference}: {reason}")]
    Reference {
        /// What was attempted.
        action: &'static str,
        /// The ref's full name or pattern.
        reference: String,
        /// Why it failed.
        reason: String,
    },
    /// The disk or the system failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn suggestion(nearest: &[String]) -> String {
    if nearest.is_empty() {
        String::new()
    } else {
        format!("; nearest: {}", escape(nearest.join(", ").as_bytes()))
    }
}

impl GitError {
    /// Sorts libgit2's answer to reading one object.
    pub(super) fn object(id: impl Into<GitId>, error: &git2::Error) -> Self {
        let id = id.into();
        match error.code() {
            git2::ErrorCode::NotFound => Self::Missing { id },
            _ => Self::Unreadable { id, reason: error.message().to_owned() },
        }
    }

    /// Takes libgit2's answer to an operation on refs.
    pub(super) fn reference(action: &'static str, name: &str, error: &git2::Error) -> Self {
        Self::Reference { action, reference: name.to_owned(), reason: error.message().to_owned() }
    }

    /// Wraps the system's answer to an operation on a file.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
