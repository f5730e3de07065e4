//! Remembers which files of others were checked, so that each is hashed once.
//!
//! A file is told again by its key, device, inode, size and both times; whatever is done to its
//! bytes changes one of these. Their MD5 and the verdict make a record of a bounded file in the
//! state directory.

use std::{fs::Metadata, num::NonZeroUsize, os::unix::fs::MetadataExt as _, path::Path};

use lru::LruCache;
use md5::{Digest as _, Md5};
use parking_lot::Mutex;

use crate::{atomic::records::Records, id::Key};

const WIDTH: usize = 19;

/// Verdicts kept; older ones are found out again.
const LIMIT: NonZeroUsize = NonZeroUsize::new(1 << 18).unwrap();

/// What a file looked like when it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(super) fn of(key: &Key, file: &Metadata) -> Self {
        let mut hash = Md5::new();
        hash.update(key.path().as_bytes());
        for word in [file.dev(), file.ino(), file.size()] {
            hash.update(word.to_le_bytes());
        }
        for word in [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()] {
            hash.update(word.to_le_bytes());
        }
        Self(hash.finalize().into())
    }
}

/// Verdicts about files of others.
#[derive(Debug)]
pub(super) struct Seen {
    verdicts: Mutex<LruCache<Fingerprint, bool>>,
    records: Option<Records<WIDTH>>,
}

impl Seen {
    /// Reads the file at `path`; one that cannot be used is logged and done without.
    pub(super) fn open(path: &Path) -> Self {
        let mut verdicts = LruCache::new(LIMIT);
        let records = Records::open(path, 2 * LIMIT.get() as u64).and_then(|records| {
            records.read_new(|record: &[u8; WIDTH]| {
                let mut digest = [0; 16];
                digest.copy_from_slice(&record[..16]);
                verdicts.put(Fingerprint(digest), record[16] == 1);
            })?;
            Ok(records)
        });
        let records = records
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "checked files are not remembered");
            })
            .ok();
        Self { verdicts: Mutex::new(verdicts), records }
    }

    /// Whether the file was found good or bad, if it was checked.
    pub(super) fn verdict(&self, file: Fingerprint) -> Option<bool> {
        self.verdicts.lock().get(&file).copied()
    }

    pub(super) fn remember(&self, file: Fingerprint, is_good: bool) {
        self.verdicts.lock().put(file, is_good);
        let mut record = [0; WIDTH];
        record[..16].copy_from_slice(&file.0);
        record[16] = u8::from(is_good);
        if let Some(records) = &self.records
            && let Err(error) = records.append(record)
        {
            tracing::debug!(%error, "verdict not kept");
        }
    }
}
