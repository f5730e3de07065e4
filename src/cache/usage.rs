//! How many bytes all processes together keep in a cache directory.
//!
//! Two numbers in one small file, changed under a lock, so that no process needs to scan before it
//! admits a blob. Whatever makes the first drift (kill -9, a removed directory) the next scan
//! corrects. The second tells the scan what came while it was looking.
//!
//! File: 8 bytes of total, 8 bytes of all that was ever added (little endian).

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// The shared counter.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) path: PathBuf,
}

impl Usage {
    /// Adds `delta` bytes and returns the new total.
    pub(super) fn add(&self, delta: i64) -> io::Result<u64> {
        let added = u64::try_from(delta).unwrap_or_default();
        self.replace(|now| Counted {
            total: now.total.saturating_add_signed(delta),
            admitted: now.admitted.wrapping_add(added),
        })
    }

    /// Takes back that `bytes` were added.
    pub(super) fn cancel(&self, bytes: u64) -> io::Result<u64> {
        self.replace(|now| Counted {
            total: now.total.saturating_sub(bytes),
            admitted: now.admitted.wrapping_sub(bytes),
        })
    }

    /// Replaces the total by what `change` makes of what was counted; returns it.
    pub(super) fn change(&self, change: impl FnOnce(Counted) -> u64) -> io::Result<u64> {
        self.replace(|now| Counted { total: change(now), ..now })
    }

    fn replace(&self, change: impl FnOnce(Counted) -> Counted) -> io::Result<u64> {
        let file = self.open()?;
        lock_patiently(&file);
        let counted = change(Counted::read(&file));
        file.write_all_at(&counted.bytes(), 0)?;
        Ok(counted.total)
    }

    /// What is counted at present; nothing when that was never done.
    pub(super) fn read(&self) -> Counted {
        File::open(&self.path).map_or(Counted::default(), |file| Counted::read(&file))
    }

    /// The present total; zero when nothing was ever counted.
    pub(super) fn total(&self) -> u64 {
        self.read().total
    }

    fn open(&self) -> io::Result<File> {
        let open = || {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)
        };
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                open()
            }
            other => other,
        }
    }
}

/// What is counted, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) total: u64,
    /// All that was ever added; it may wrap around.
    pub(super) admitted: u64,
}

impl Counted {
    /// What is missing is zero.
    fn read(file: &File) -> Self {
        let number = |at| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).map_or(0, |()| u64::from_le_bytes(bytes))
        };
        Self { total: number(0), admitted: number(8) }
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.total.to_le_bytes());
        bytes[8..].copy_from_slice(&self.admitted.to_le_bytes());
        bytes
    }
}

/// How long a lock is waited for, much longer than anybody who is running holds it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Locks `file` until it is closed, but not for ever: a process that was stopped while it held the
/// lock must not stop the others. Going on without costs a miscount that a scan corrects.
pub(super) fn lock_patiently(file: &File) {
    let begun = Instant::now();
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        if begun.elapsed() > PATIENCE {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
