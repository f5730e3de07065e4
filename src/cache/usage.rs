//! How many bytes all processes together keep in a cache directory.
//!
//! One number in one small file, changed under a lock, so that no process needs to scan before it
//! admits a blob. Whatever makes it drift (kill -9, a removed directory) the next scan corrects.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    thread,
    time::Duration,
};

/// The shared counter.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) path: PathBuf,
}

impl Usage {
    /// Adds `delta` bytes and returns the new total.
    pub(super) fn add(&self, delta: i64) -> io::Result<u64> {
        self.change(|total| total.saturating_add_signed(delta))
    }

    /// Replaces the total by what `change` makes of it.
    pub(super) fn change(&self, change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
        let file = self.open()?;
        lock_patiently(&file);
        let total = change(total_in(&file));
        file.write_all_at(&total.to_le_bytes(), 0)?;
        Ok(total)
    }

    /// The present total; zero when nothing was ever counted.
    pub(super) fn total(&self) -> u64 {
        File::open(&self.path).map_or(0, |file| total_in(&file))
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

fn total_in(file: &File) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes))
}

/// Locks `file` until it is closed, but not for ever: a process that was stopped while it held the
/// lock must not stop the others. Going on without costs a miscount that a scan corrects.
pub(super) fn lock_patiently(file: &File) {
    for _ in 0..200 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            _ => return,
        }
    }
}
