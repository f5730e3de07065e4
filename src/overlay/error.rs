//! What can go wrong with an overlay as a whole. A single file's trouble is the system's own error.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why an overlay cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Another process has it open.
    #[error("the overlay in {dir} is in use by another mount")]
    Busy {
        /// Its folder.
        dir: PathBuf,
    },
    /// It would be among what another overlay keeps.
    #[error("the overlay in {dir} would lie within the one in {other}")]
    Inside {
        /// Its folder.
        dir: PathBuf,
        /// The other one's.
        other: PathBuf,
    },
    /// Its note of the base cannot be understood.
    #[error("the overlay in {dir} does not say what lies below it: {reason}")]
    Damaged {
        /// Its folder.
        dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk.
    #[error("{action} the overlay in {dir}")]
    Unusable {
        /// What was attempted.
        action: &'static str,
        /// Its folder.
        dir: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl OverlayError {
    /// Whether its disk is full.
    pub fn lacks_room(&self) -> bool {
        matches!(self, Self::Unusable { source, .. } if is_lack_of_room(source))
    }

    pub(super) fn unusable(dir: &Path, action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Unusable { action, dir: dir.to_owned(), source }
    }
}

/// Whether an error says that a disk is full.
pub fn is_lack_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
