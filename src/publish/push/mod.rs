//! From the outbox to the remotes: what the commits that are to be pushed need there.
//!
//! First it is worked out what these commits have that their parents have not ([`plan`]), then what
//! of it the remotes lack ([`Plan::lacking`]). That goes there from the outbox or the cache, blobs
//! before the manifests that list them ([`send`]), and at last every remote is asked again. Only
//! then may the commit be pushed by git, so that no commit refers to what is not there.

mod plan;
mod send;

use std::io;

use crate::{
    blobs::{BlobError, Blobs},
    dvc::manifest::ManifestError,
    git::{CommitId, GitError},
    id::Key,
    path::RepoPath,
    registry::Registry,
    remote::RemoteError,
    tree::BuildError,
};

pub use self::{
    plan::{Object, Plan, plan},
    send::{Hears, Lacking, send},
};
use super::outbox::Outbox;

/// What is pushed from.
#[derive(Clone, Copy)]
pub struct PushGround<'a> {
    /// The commits, and where their content goes.
    pub registry: &'a Registry,
    /// The cache.
    pub blobs: &'a Blobs,
    /// What no remote has yet.
    pub outbox: &'a Outbox,
}

/// Paths that are named one by one in a message.
const NAMED: usize = 10;

/// Why not everything is where it should be. The commit is not to be pushed; what was put stays.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// What these paths have is nowhere.
    #[error("{} of the commit {} neither here nor on {url}: {}", files(.paths), are(.paths),
            named(.paths))]
    Nowhere {
        /// The paths.
        paths: Vec<RepoPath>,
        /// The remote.
        url: String,
    },
    /// A remote has something else under a name.
    #[error(
        "{url} has {theirs} bytes as {key}, and {path} has {ours}: something else has its name"
    )]
    Other {
        /// The path.
        path: RepoPath,
        /// The name.
        key: Key,
        /// The remote.
        url: String,
        /// The bytes there.
        theirs: u64,
        /// The bytes here.
        ours: u64,
    },
    /// The bytes here are not what their name says.
    #[error("what is here of {path} does not match its hash ({key})")]
    Damaged {
        /// The path.
        path: RepoPath,
        /// The name.
        key: Key,
    },
    /// A remote has taken something and does not have it.
    #[error("{url} has taken what it does not have now: {}", named(.paths))]
    Lost {
        /// The paths.
        paths: Vec<RepoPath>,
        /// The remote.
        url: String,
    },
    /// A remote did not take something.
    #[error("{path}")]
    Put {
        /// The path.
        path: RepoPath,
        /// What it says.
        #[source]
        source: Box<RemoteError>,
    },
    /// A remote does not tell what it has, or does not give a manifest.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A manifest cannot be read.
    #[error("the manifest of {path}")]
    Manifest {
        /// Of this folder.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        source: ManifestError,
    },
    /// A commit cannot be read.
    #[error(transparent)]
    Tree(#[from] BuildError),
    /// Git.
    #[error("commit {commit}")]
    Git {
        /// The commit in question.
        commit: CommitId,
        /// What git says.
        #[source]
        source: GitError,
    },
    /// A file of the outbox or the cache.
    #[error("{path}")]
    Disk {
        /// The path it is of.
        path: RepoPath,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

fn files(paths: &[RepoPath]) -> String {
    match paths.len() {
        1 => "a file".to_owned(),
        count => format!("{count} files"),
    }
}

fn are(paths: &[RepoPath]) -> &'static str {
    if paths.len() == 1 { "is" } else { "are" }
}

fn named(paths: &[RepoPath]) -> String {
    let names: Vec<_> = paths.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if paths.len() > NAMED { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}
