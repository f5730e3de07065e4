use std::{io, path::PathBuf};

/// Why the cache's disk could not be used. Never a reason for a read to fail.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was attempted, such as `create`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The limits leave no room, also after evicting what may be evicted.
    #[error("no room for {bytes} bytes in cache {}", dir.display())]
    Full {
        /// How much was asked for.
        bytes: u64,
        /// The cache's directory.
        dir: PathBuf,
    },
    /// Something that was used lately would have to go for what nobody has asked for yet.
    #[error("no room to spare for {bytes} bytes in the cache")]
    NoneToSpare {
        /// How much was asked for.
        bytes: u64,
    },
    /// The cache directory belongs to another user: it is read, never written.
    #[error("cache {} belongs to user {owner}", dir.display())]
    NotOurs {
        /// The cache's directory.
        dir: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
}

impl CacheError {
    /// Whether the disk or a quota has no room, so that eviction may help.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ))
    }

    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
