//! Taking over files that were made elsewhere on the same disk.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use super::{
    BlobCache, CacheError,
    evict::Room,
    layout::stamp_secs,
    now_secs, set_times,
    view::{Entry, Item},
};
use crate::{atomic, id::Key};

impl BlobCache {
    /// Moves a file into the cache; it must be ours, checked to be what `key` names, and on the
    /// disk. Whoever has it open goes on reading it. Where it cannot be moved it stays.
    pub fn adopt(&self, key: &Key, path: &Path) -> Result<(), CacheError> {
        let shared = &self.shared;
        let file = File::open(path).map_err(CacheError::io("open", path))?;
        let bytes = file.metadata().map_err(CacheError::io("open", path))?.len();
        let to = shared.layout.blob(key);
        if fs::symlink_metadata(&to).is_ok() {
            return fs::remove_file(path).map_err(CacheError::io("remove", path));
        }
        shared.reserve(bytes, Room::Wanted)?;
        let moved = file
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| set_times(&file, None, Some(stamp_secs(&key.digest))))
            .and_then(|()| atomic::rename(path, &to));
        if let Err(error) = moved {
            shared.release(bytes);
            return Err(CacheError::io("create", to)(error));
        }
        shared.view.touch(Item::Blob(*key), Entry { bytes, used_secs: now_secs() });
        Ok(())
    }
}
