//! Which errno each failure becomes. The only place that decides this.
//!
//! | case | errno |
//! |---|---|
//! | no such entry | `ENOENT` |
//! | not a folder, is a folder | `ENOTDIR`, `EISDIR` |
//! | not a symbolic link | `EINVAL` |
//! | name over 255 bytes | `ENAMETOOLONG`, before anybody is asked |
//! | inode of a tree that is gone | `ESTALE` |
//! | no such extended attribute | `ENODATA` |
//! | extended attributes but the user's (`user.`) | `EOPNOTSUPP` |
//! | another revision after sixteen million of them in one mount | `ENOSPC` |
//! | anything that would change something | `EROFS` |
//! | name exists, folder not empty | `EEXIST`, `ENOTEMPTY` |
//! | what an overlay does not offer: hard links, devices, sockets, its own marks | `EPERM` |
//! | the overlay's disk | what the system says |
//! | an overlay in which a snapshot or a discard could not be ended | `EIO` |
//! | blob listed but on no remote | `EIO`, never `ENOENT` |
//! | content does not match its id, or its size what was shown | `EIO` |
//! | remote refuses credentials, or nobody agreed to its settings | `EACCES` |
//! | remote away after retries, or misconfigured | `EIO` |
//! | entry without usable content, damaged manifest, unreadable git object | `EIO` |
//! | compiled manifest that cannot be read, and not be made again | `EIO` |
//! | interrupted by the end of the daemon | `EIO` |

use fuser::Errno;

use crate::{blobs::BlobError, vfs::VfsError};

/// The errno of a failure.
pub(super) fn errno(error: &VfsError) -> Errno {
    match error {
        VfsError::NotFound => Errno::ENOENT,
        VfsError::NotAFolder => Errno::ENOTDIR,
        VfsError::IsAFolder => Errno::EISDIR,
        VfsError::NotALink => Errno::EINVAL,
        VfsError::Stale => Errno::ESTALE,
        VfsError::NoAttribute => Errno::ENODATA,
        VfsError::NoSuchAttributes => Errno::EOPNOTSUPP,
        VfsError::ReadOnly => Errno::EROFS,
        VfsError::Exists => Errno::EEXIST,
        VfsError::NotEmpty => Errno::ENOTEMPTY,
        VfsError::NotPermitted => Errno::EPERM,
        VfsError::Disk(error) => error.raw_os_error().map_or(Errno::EIO, Errno::from_i32),
        VfsError::Numberless => Errno::ENOSPC,
        VfsError::Blob(error) => blob_errno(error),
        VfsError::NoContent(_)
        | VfsError::WrongSize { .. }
        | VfsError::Git(_)
        | VfsError::Upstream(_)
        | VfsError::Manifest { .. }
        | VfsError::Compiled(_)
        | VfsError::Interrupted(_) => Errno::EIO,
    }
}

const fn blob_errno(error: &BlobError) -> Errno {
    match error {
        BlobError::Denied(_) | BlobError::Untrusted(_) => Errno::EACCES,
        BlobError::Missing(_)
        | BlobError::Unreachable(_)
        | BlobError::Misconfigured(_)
        | BlobError::Integrity(_) => Errno::EIO,
    }
}
