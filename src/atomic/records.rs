//! Files of fixed-size records that only grow, shared by several processes.
//!
//! A record is written by one append, so records of several writers never mix. The last two bytes
//! of each are a check over the others: a damaged record is skipped alone, and a tail that a power
//! cut left incomplete is padded into one damaged record at the next opening. A file over its
//! limit is replaced by its newest half then; a process that still appends to the old file loses
//! those records, so only what can be learned again belongs here.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Bytes of a record taken by its check.
pub const CHECK: usize = 2;

/// Records read at a time.
const BATCH: usize = 4096;

/// An open file of records of `N` bytes each, their check included.
#[derive(Debug)]
pub struct Records<const N: usize> {
    file: File,
}

impl<const N: usize> Records<N> {
    /// Opens or creates the file, repairs its tail, and halves it when it holds more than `limit`.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let records = Self::attach(path)?;
        if records.file.metadata()?.len() / Self::WIDTH > limit {
            records.keep_newest(path, limit / 2)?;
            return Self::attach(path);
        }
        Ok(records)
    }

    const WIDTH: u64 = N as u64;

    fn attach(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        if file.metadata()?.len() % Self::WIDTH > 0 {
            // Two processes that both padded the same tail would shift every later record.
            file.lock()?;
            let excess = file.metadata()?.len() % Self::WIDTH;
            (&file).write_all(&[0; N][..((Self::WIDTH - excess) % Self::WIDTH) as usize])?;
            file.unlock()?;
        }
        Ok(Self { file })
    }

    /// Appends one record; its last [`CHECK`] bytes are filled in.
    pub fn append(&self, mut record: [u8; N]) -> io::Result<()> {
        seal(&mut record);
        let written = (&self.file).write(&record)?;
        if written < N {
            // A full disk took a part: complete it to a record that is merely damaged.
            return (&self.file).write_all(&record[written..]);
        }
        Ok(())
    }

    /// Gives every sound record from byte `offset` on to `each`, in the order of their writing.
    ///
    /// Returns the offset to go on from. A record that is still incomplete is left for then.
    pub fn read_from(&self, offset: u64, mut each: impl FnMut(&[u8; N])) -> io::Result<u64> {
        let end = self.file.metadata()?.len() / Self::WIDTH * Self::WIDTH;
        let mut at = offset;
        let mut buffer = vec![0; BATCH * N];
        while at < end {
            let want = (end - at).min(buffer.len() as u64) as usize;
            self.file.read_exact_at(&mut buffer[..want], at)?;
            let (records, _) = buffer[..want].as_chunks::<N>();
            records.iter().filter(|record| is_sound(record)).for_each(&mut each);
            at += want as u64;
        }
        Ok(at)
    }

    /// Whether there is something behind byte `offset`.
    pub fn has_grown(&self, offset: u64) -> bool {
        self.file.metadata().is_ok_and(|now| now.len() >= offset + Self::WIDTH)
    }

    fn keep_newest(&self, path: &Path, count: u64) -> io::Result<()> {
        let length = self.file.metadata()?.len() / Self::WIDTH * Self::WIDTH;
        let start = length.saturating_sub(count * Self::WIDTH);
        super::write_with(path, 0o600, |file| {
            let mut result = Ok(());
            let mut writer = io::BufWriter::new(file);
            self.read_from(start, |record| {
                if result.is_ok() {
                    result = writer.write_all(record);
                }
            })?;
            result.and(writer.flush())
        })
    }
}

fn seal<const N: usize>(record: &mut [u8; N]) {
    let (body, check) = record.split_at_mut(N - CHECK);
    check.copy_from_slice(&check_of(body));
}

fn is_sound<const N: usize>(record: &[u8; N]) -> bool {
    let (body, check) = record.split_at(N - CHECK);
    check == check_of(body)
}

/// FNV-1a folded to two bytes: enough to tell damage, and not zero for zeros.
fn check_of(body: &[u8]) -> [u8; CHECK] {
    let hash = body
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    ((hash >> 16) as u16 ^ hash as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8) -> [u8; 8] {
        [n, 0, 0, 0, 0, n, 0, 0]
    }

    fn all(records: &Records<8>) -> Vec<u8> {
        let mut found = Vec::new();
        records.read_from(0, |record| found.push(record[0])).unwrap();
        found
    }

    #[test]
    fn records_of_two_writers_are_all_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/log");
        let (a, b) = (Records::open(&path, 100).unwrap(), Records::open(&path, 100).unwrap());
        a.append(record(1)).unwrap();
        b.append(record(2)).unwrap();
        a.append(record(3)).unwrap();
        assert_eq!(all(&b), [1, 2, 3]);
        let end = b.read_from(0, |_| ()).unwrap();
        assert!(!b.has_grown(end));
        a.append(record(4)).unwrap();
        assert!(b.has_grown(end));
    }

    #[test]
    fn a_damaged_record_is_skipped_alone_and_a_cut_tail_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let records = Records::open(&path, 100).unwrap();
        (1..=4).for_each(|n| records.append(record(n)).unwrap());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 4;
        bytes.truncate(29);
        std::fs::write(&path, &bytes).unwrap();
        let again = Records::open(&path, 100).unwrap();
        again.append(record(5)).unwrap();
        assert_eq!(all(&again), [1, 3, 5]);
    }

    #[test]
    fn zeros_and_noise_are_no_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, [0; 80]).unwrap();
        assert!(all(&Records::open(&path, 100).unwrap()).is_empty());
    }

    #[test]
    fn a_file_over_its_limit_keeps_its_newest_half() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let records = Records::open(&path, 10).unwrap();
        (1..=11).for_each(|n| records.append(record(n)).unwrap());
        assert_eq!(all(&Records::open(&path, 10).unwrap()), [7, 8, 9, 10, 11]);
    }
}
