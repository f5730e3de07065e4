//! What can go wrong with a file-system question.

use std::{io, sync::Arc};

use crate::{
    blobs::BlobError,
    git::GitError,
    tree::{BuildError, Index, NeedsManifest, OutputId, Tree},
};

/// Why a question has no answer. `fuse` turns each into one errno.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VfsError {
    /// No entry of that name.
    #[error("no such entry")]
    NotFound,
    /// A folder is wanted.
    #[error("not a folder")]
    NotAFolder,
    /// A file is wanted.
    #[error("is a folder")]
    IsAFolder,
    /// A link is wanted.
    #[error("not a symbolic link")]
    NotALink,
    /// The inode is not known.
    #[error("stale inode")]
    Stale,
    /// No attribute of that name.
    #[error("no such attribute")]
    NoAttribute,
    /// Attributes of that kind are not had by anything here.
    #[error("no attributes of this kind")]
    NoSuchAttributes,
    /// Nothing can be changed in this mount.
    #[error("the mount is read-only")]
    ReadOnly,
    /// There is an entry of that name.
    #[error("the name exists")]
    Exists,
    /// A folder that shows something cannot be removed.
    #[error("the folder is not empty")]
    NotEmpty,
    /// Nobody may do that here.
    #[error("not permitted")]
    NotPermitted,
    /// The disk that changes go to.
    #[error("the overlay's disk: {0}")]
    Disk(Arc<io::Error>),
    /// The entry names no content that could be fetched.
    #[error("the entry has no usable content: {0}")]
    NoContent(String),
    /// The size that was shown before turned out to be wrong.
    #[error("the size was said to be {shown} bytes and is {actual}")]
    WrongSize {
        /// What readers were told.
        shown: u64,
        /// What it is.
        actual: u64,
    },
    /// The bytes cannot be had.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Git cannot give the object.
    #[error("{0}")]
    Git(String),
    /// Upstream cannot be asked.
    #[error(transparent)]
    Upstream(Arc<GitError>),
    /// The manifest of a tracked directory cannot be read.
    #[error("the manifest {id} is damaged: {reason}")]
    Manifest {
        /// Which.
        id: crate::id::TreeId,
        /// What is wrong with it.
        reason: String,
    },
    /// What a tracked directory was compiled to cannot be read; it is made again where that can be
    /// waited for.
    #[error("the compiled manifest cannot be read")]
    Compiled(OutputId),
    /// So many revisions were looked at that no inode numbers are left for another one.
    #[error("no inode numbers are left")]
    Numberless,
    /// The daemon could not finish the work, as when it is shutting down.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl VfsError {
    /// Whether content turned out to be other than was said.
    pub(super) const fn is_of_content(&self) -> bool {
        matches!(self, Self::Blob(BlobError::Integrity(_)) | Self::WrongSize { .. })
    }

    /// Git cannot say what is in a folder.
    pub(super) fn unreadable_folder(tree: &Tree, folder: Index) -> Self {
        let path = tree.shown_path(folder);
        let problem = tree.problems.iter().find(|problem| problem.path == path);
        let why = problem.map_or("it cannot be read", |problem| problem.why.as_str());
        Self::Git(format!("{path}: {why}"))
    }
}

impl From<io::Error> for VfsError {
    fn from(error: io::Error) -> Self {
        Self::Disk(Arc::new(error))
    }
}

impl From<GitError> for VfsError {
    fn from(error: GitError) -> Self {
        Self::Git(error.to_string())
    }
}

impl From<NeedsManifest> for VfsError {
    fn from(NeedsManifest(output): NeedsManifest) -> Self {
        Self::Compiled(output)
    }
}

impl From<BuildError> for VfsError {
    fn from(error: BuildError) -> Self {
        Self::Git(format!("{error}: {}", error.source))
    }
}
