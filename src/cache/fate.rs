//! What has become of a cached file since it was checked.

use std::{
    fs::{self, File, Metadata},
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use super::{
    Key, Pin,
    layout::{is_writable, mark_secs, stamp_secs},
};

/// What has become of a cached blob since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is as it was checked.
    Sound,
    /// It has no name any more. Its bytes are right, and take room on the disk.
    Removed,
    /// Somebody had to do with it who may have written to it and set its time back, or has made a
    /// link to it.
    Doubtful,
    /// Somebody has written to it.
    Changed,
}

impl Fate {
    /// Whether its bytes are those that were checked, beyond doubt.
    pub const fn is_right(self) -> bool {
        matches!(self, Self::Sound | Self::Removed)
    }
}

/// What a file looked like when it was checked.
#[derive(Debug, Clone)]
pub(super) struct Looks {
    /// Device and inode.
    file: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
    /// When it seems to have been written, in seconds, while it is marked and once it is stamped.
    ours: [i64; 2],
}

impl Looks {
    pub(super) fn of(key: &Key, file: &Metadata) -> Self {
        Self {
            file: identity(file),
            size: file.size(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            ours: [mark_secs(&key.digest), stamp_secs(&key.digest)],
        }
    }

    /// Judges by what the same file looks like now.
    pub(super) fn fate(&self, now: &Metadata) -> Fate {
        let written = (now.mtime(), now.mtime_nsec());
        let is_ours = self.ours.map(|secs| (secs, 0)).contains(&written);
        if now.size() != self.size || (written != self.written && !is_ours) {
            return Fate::Changed;
        }
        if now.nlink() == 0 {
            return Fate::Removed;
        }
        let is_untouched = (now.ctime(), now.ctime_nsec()) == self.changed;
        // A stamp counts as long as nobody makes the file writable, and so does a mark on the way
        // to it.
        let is_trusted = is_ours && !is_writable(now);
        if is_untouched || is_trusted { Fate::Sound } else { Fate::Doubtful }
    }
}

/// A cached blob that is not open here, kept from eviction and told again by its name.
#[derive(Debug)]
pub struct Seal {
    path: PathBuf,
    looks: Looks,
    _pin: Option<Pin>,
}

impl Seal {
    /// Nothing where the system does not tell the file's name.
    pub(super) fn new(file: &File, looks: Looks, pin: Option<Pin>) -> Option<Self> {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
        Some(Self { path, looks, _pin: pin })
    }

    /// Looks whether the file is still what was checked, as far as its name tells.
    pub fn fate(&self) -> Fate {
        match fs::symlink_metadata(&self.path) {
            Ok(now) if identity(&now) == self.looks.file => self.looks.fate(&now),
            _ => Fate::Removed,
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
