//! Where things lie in a cache directory, and how a file tells that we made and checked it.
//!
//! Blobs lie as DVC puts them, `files/md5/ab/cdef...` and `ab/cdef...`; our own files lie under
//! `dvcfs/`, which DVC's lister of the older layout skips, since it wants two hex digits.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::id::{Digest, Key, Scheme, hex, parse_digest};

/// 2001-09-09: the earliest stamp.
const BASE_SECS: i64 = 1_000_000_000;

/// The modification time that belongs to a content: always the same, whole and even seconds
/// between 2001 and 2017.
pub fn stamp_secs(digest: &Digest) -> i64 {
    let hash = u32::from_le_bytes([digest[0], digest[5], digest[10], digest[15]]);
    BASE_SECS + i64::from(hash % 250_000_000) * 2
}

/// The time of a blob that we checked but have not synced yet. Two seconds, because some disks
/// count in twos.
pub(super) fn mark_secs(digest: &Digest) -> i64 {
    stamp_secs(digest) + 2
}

/// Whose file lies under a blob's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Ours, checked and synced.
    Stamped,
    /// Ours, checked once, but a power cut may have taken its bytes, or somebody meant to change
    /// them.
    Marked,
    /// Put there or changed by somebody else: never trusted unchecked, never removed.
    Foreign,
}

/// Decides by times, owner and mode; a stamp counts only on files of ours or of root's, and no
/// longer once somebody has made the file writable.
pub(super) fn standing(key: &Key, file: &Metadata, user: u32) -> Standing {
    if !file.is_file() || (file.uid() != user && file.uid() != 0) || file.mtime_nsec() != 0 {
        return Standing::Foreign;
    }
    match file.mtime() {
        secs if secs == stamp_secs(&key.digest) => {
            if is_writable(file) {
                Standing::Marked
            } else {
                Standing::Stamped
            }
        }
        secs if secs == mark_secs(&key.digest) => Standing::Marked,
        _ => Standing::Foreign,
    }
}

/// Whether its mode lets anybody write to the file.
pub(super) fn is_writable(file: &Metadata) -> bool {
    file.mode() & 0o222 != 0
}

/// Each scheme has a layout of its own.
pub(super) const SCHEMES: [Scheme; 2] = [Scheme::Md5, Scheme::Dos2Unix];

/// The places in one cache directory.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
}

impl Layout {
    pub(super) fn blob(&self, key: &Key) -> PathBuf {
        self.root.join(key.path())
    }

    /// Our own files.
    pub(super) fn own(&self) -> PathBuf {
        self.root.join("dvcfs")
    }

    /// Unfinished blobs and temporaries.
    pub(super) fn partials(&self) -> PathBuf {
        self.own().join("partial")
    }

    pub(super) fn partial_data(&self, key: &Key) -> PathBuf {
        self.partials().join(partial_name(key) + ".data")
    }

    pub(super) fn partial_map(&self, key: &Key) -> PathBuf {
        self.partials().join(partial_name(key) + ".map")
    }

    /// The folders that hold the blobs of a scheme, by the first byte of their hashes.
    pub(super) fn shards(&self, scheme: Scheme) -> impl Iterator<Item = (u8, PathBuf)> + '_ {
        (0..=255).map(move |first| {
            let below = match scheme {
                Scheme::Md5 => format!("files/md5/{first:02x}"),
                Scheme::Dos2Unix => format!("{first:02x}"),
            };
            (first, self.root.join(below))
        })
    }
}

/// Reads a file name of a shard back into the key of the blob that lies there.
pub(super) fn parse_blob_name(scheme: Scheme, first: u8, name: &Path) -> Option<Key> {
    let name = name.to_str()?;
    let rest = name.strip_suffix(".dir").unwrap_or(name);
    let digest = parse_digest(&format!("{first:02x}{rest}")).ok()?;
    Some(Key { digest, scheme, is_manifest: rest.len() < name.len() })
}

fn partial_name(key: &Key) -> String {
    let scheme = match key.scheme {
        Scheme::Md5 => "md5",
        Scheme::Dos2Unix => "d2u",
    };
    format!("{scheme}-{}{}", hex(&key.digest), if key.is_manifest { ".dir" } else { "" })
}

/// Reads the name of a partial's data file back into its key.
pub(super) fn parse_partial_name(name: &Path) -> Option<Key> {
    let name = name.to_str()?.strip_suffix(".data")?;
    let (scheme, rest) = name.split_once('-')?;
    let scheme = match scheme {
        "md5" => Scheme::Md5,
        "d2u" => Scheme::Dos2Unix,
        _ => return None,
    };
    let text = rest.strip_suffix(".dir").unwrap_or(rest);
    let digest = parse_digest(text).ok()?;
    Some(Key { digest, scheme, is_manifest: text.len() < rest.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_in_both_layouts() {
        let layout = Layout { root: PathBuf::from("/c") };
        for scheme in [Scheme::Md5, Scheme::Dos2Unix] {
            for is_manifest in [false, true] {
                let key = Key { digest: [0xa7; 16], scheme, is_manifest };
                let blob = layout.blob(&key);
                let name = Path::new(blob.file_name().unwrap());
                assert_eq!(parse_blob_name(scheme, 0xa7, name), Some(key));
                let data = layout.partial_data(&key);
                assert_eq!(parse_partial_name(Path::new(data.file_name().unwrap())), Some(key));
                assert!(layout.shards(scheme).any(|(_, dir)| dir == blob.parent().unwrap()));
            }
        }
        assert_eq!(parse_blob_name(Scheme::Md5, 0, Path::new("x.tmp")), None);
    }

    #[test]
    fn stamps_differ_from_marks_and_lie_in_the_past() {
        for byte in 0..=255 {
            let stamp = stamp_secs(&[byte; 16]);
            assert!((BASE_SECS..1_500_000_000).contains(&stamp));
            assert_ne!(stamp, mark_secs(&[byte; 16]));
        }
    }
}
