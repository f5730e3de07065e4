//! Files of fixed-size records that only grow, shared by several processes.
//!
//! A record is written by one append, so records of several writers never mix. The last two bytes
//! of each are a check over the others: a damaged record is skipped alone, and a tail that a power
//! cut or a full disk left incomplete is padded into one damaged record before anything follows it.
//!
//! What is no longer wanted goes by [`Records::rewrite`], which puts a new file in place. Nothing
//! is lost by that, whoever else appends: what reached the old file meanwhile is carried over, and
//! a process that finds its file without a name opens the new one and appends there again. A
//! record may thus be there twice.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

/// Bytes of a record taken by its check.
pub const CHECK: usize = 2;

/// Records read or written at a time.
const BATCH: usize = 4096;

/// How often records are appended anew, because the file was replaced or torn meanwhile.
const TRIES: usize = 4;

/// An open file of records of `N` bytes each, their check included.
#[derive(Debug)]
pub struct Records<const N: usize> {
    path: PathBuf,
    file: RwLock<Arc<File>>,
    /// How far which file was read. Only ever tried, so that nobody waits for another's reading.
    cursor: Mutex<Cursor<N>>,
}

#[derive(Debug)]
struct Cursor<const N: usize> {
    file: Arc<File>,
    offset: u64,
    /// The record before that, by which a file is known that was cut and has grown again.
    last: Option<[u8; N]>,
}

/// What became of the file that was appended to.
enum Fate {
    /// With so many bytes.
    Well(u64),
    Replaced,
    Torn,
}

impl<const N: usize> Records<N> {
    /// Opens or creates the file, and halves it when it holds more than `limit` records. One that
    /// may only be read is read.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            // Where that fails the file cannot be opened either, which says why.
            drop(std::fs::create_dir_all(folder));
        }
        let file = Arc::new(attach(path)?);
        let cursor = Mutex::new(Cursor::at(&file, 0));
        let records = Self { path: path.to_owned(), file: RwLock::new(file), cursor };
        let excess = records.count().saturating_sub(limit / 2);
        if records.count() > limit {
            let mut number = 0;
            records.rewrite(|_| {
                number += 1;
                number > excess
            })?;
            *records.cursor.lock() = Cursor::at(&records.file(), 0);
        }
        Ok(records)
    }

    const WIDTH: u64 = N as u64;

    /// How many records the file holds, damaged ones included.
    pub fn count(&self) -> u64 {
        self.file().metadata().map_or(0, |now| now.len() / Self::WIDTH)
    }

    /// Appends one record; its last [`CHECK`] bytes are filled in.
    pub fn append(&self, record: [u8; N]) -> io::Result<()> {
        self.append_all(&mut [record])
    }

    /// Appends records; the last [`CHECK`] bytes of each are filled in.
    pub fn append_all(&self, records: &mut [[u8; N]]) -> io::Result<()> {
        records.iter_mut().for_each(seal);
        for _ in 0..TRIES {
            let file = self.file();
            for batch in records.chunks(BATCH) {
                let bytes = batch.as_flattened();
                if (&*file).write(bytes)? < bytes.len() {
                    mend::<N>(&file)?;
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            match fate::<N>(&file)? {
                Fate::Well(end) => {
                    self.pass_over(&file, end, records);
                    return Ok(());
                }
                Fate::Replaced => self.reopen()?,
                Fate::Torn => mend::<N>(&file)?,
            }
        }
        Ok(())
    }

    /// Counts records that were just appended as read, if nobody else's came between.
    fn pass_over(&self, file: &Arc<File>, end: u64, records: &[[u8; N]]) {
        let (Some(mut cursor), Some(last)) = (self.cursor.try_lock(), records.last()) else {
            return;
        };
        let start = end.checked_sub(records.len() as u64 * Self::WIDTH);
        if Arc::ptr_eq(file, &cursor.file) && start == Some(cursor.offset) {
            (cursor.offset, cursor.last) = (end, Some(*last));
        }
    }

    /// Gives every sound record that was not read yet to `each`, in the order of their writing;
    /// true if there was anything. What this process wrote may be passed over.
    ///
    /// After the file was replaced or cut, all that it holds counts as not read.
    pub fn read_new(&self, each: impl FnMut(&[u8; N])) -> io::Result<bool> {
        let Some(mut cursor) = self.cursor.try_lock() else { return Ok(false) };
        let mut now = cursor.file.metadata()?;
        if now.nlink() == 0 {
            self.reopen()?;
            *cursor = Cursor::at(&self.file(), 0);
            now = cursor.file.metadata()?;
        }
        let (is_cut, has_grown) =
            (now.len() < cursor.offset, now.len() >= cursor.offset + Self::WIDTH);
        let start = match cursor.offset {
            _ if is_cut => 0,
            _ if !has_grown => return Ok(false),
            offset if record_before(&cursor.file, offset)? != cursor.last => 0,
            offset => offset,
        };
        let end = read_from(&cursor.file, start, each)?;
        *cursor = Cursor::at(&cursor.file, end);
        Ok(true)
    }

    /// Puts a new file in place with those sound records that `keep` wants. Does nothing while
    /// another process does the same.
    ///
    /// What is in the new file counts as read.
    pub fn rewrite(&self, keep: impl FnMut(&[u8; N]) -> bool) -> io::Result<()> {
        let old = self.file();
        if old.try_lock().is_err() {
            return Ok(());
        }
        let rewritten = match old.metadata() {
            Ok(now) if now.nlink() > 0 => self.replace(&old, keep),
            Ok(_) => self.reopen(),
            Err(error) => Err(error),
        };
        old.unlock()?;
        rewritten
    }

    /// As [`Self::rewrite`], with the old file locked and in place.
    fn replace(&self, old: &File, mut keep: impl FnMut(&[u8; N]) -> bool) -> io::Result<()> {
        let mut read_to = 0;
        super::write_with(&self.path, 0o600, |file| {
            let mut writer = io::BufWriter::new(file);
            let mut result = Ok(());
            read_to = read_from(old, 0, |record| {
                if keep(record) && result.is_ok() {
                    result = writer.write_all(record);
                }
            })?;
            result.and_then(|()| writer.flush())
        })?;
        self.reopen()?;
        let new = self.file();
        let known = new.metadata()?.len() / Self::WIDTH * Self::WIDTH;
        let mut late = Vec::new();
        read_from(old, read_to, |record| late.push(*record))?;
        self.append_all(&mut late)?;
        *self.cursor.lock() = Cursor::at(&new, known);
        Ok(())
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file.read())
    }

    fn reopen(&self) -> io::Result<()> {
        let file = Arc::new(attach(&self.path)?);
        *self.file.write() = file;
        Ok(())
    }
}

impl<const N: usize> Cursor<N> {
    /// What cannot be read is read again.
    fn at(file: &Arc<File>, offset: u64) -> Self {
        let last = record_before(file, offset).unwrap_or_default();
        Self { file: Arc::clone(file), offset, last }
    }
}

fn record_before<const N: usize>(file: &File, offset: u64) -> io::Result<Option<[u8; N]>> {
    let Some(start) = offset.checked_sub(N as u64) else { return Ok(None) };
    let mut record = [0; N];
    file.read_exact_at(&mut record, start)?;
    Ok(Some(record))
}

fn attach(path: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    match opened {
        Err(error) if is_read_only(&error) => File::open(path),
        other => other,
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn fate<const N: usize>(file: &File) -> io::Result<Fate> {
    let now = file.metadata()?;
    Ok(match (now.nlink(), now.len() % N as u64) {
        (0, _) => Fate::Replaced,
        (_, 0) => Fate::Well(now.len()),
        _ => Fate::Torn,
    })
}

/// Pads an incomplete tail. Two processes that both did would shift every later record.
fn mend<const N: usize>(file: &File) -> io::Result<()> {
    let width = N as u64;
    file.lock()?;
    let excess = file.metadata().map(|now| now.len() % width);
    let padded = excess.and_then(|excess| {
        let mut writer = file;
        writer.write_all(&[0; N][..((width - excess) % width) as usize])
    });
    file.unlock()?;
    padded
}

/// Gives every sound record from byte `offset` on, and then the offset to go on from.
fn read_from<const N: usize>(
    file: &File,
    offset: u64,
    mut each: impl FnMut(&[u8; N]),
) -> io::Result<u64> {
    let end = file.metadata()?.len() / N as u64 * N as u64;
    let mut at = offset;
    let mut buffer = vec![0; BATCH.min(((end - at.min(end)) / N as u64) as usize) * N];
    while at < end {
        let want = (end - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..want], at)?;
        let (records, _) = buffer[..want].as_chunks::<N>();
        records.iter().filter(|record| is_sound(record)).for_each(&mut each);
        at += want as u64;
    }
    Ok(at)
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
    use std::fs;

    use super::*;

    fn record(n: u8) -> [u8; 8] {
        [n, 0, 0, 0, 0, n, 0, 0]
    }

    fn open(path: &Path) -> Records<8> {
        Records::open(path, 1000).unwrap()
    }

    fn new(records: &Records<8>) -> Vec<u8> {
        let mut found = Vec::new();
        records.read_new(|record| found.push(record[0])).unwrap();
        found
    }

    fn all(path: &Path) -> Vec<u8> {
        new(&open(path))
    }

    fn append(records: &Records<8>, numbers: impl IntoIterator<Item = u8>) {
        numbers.into_iter().for_each(|n| records.append(record(n)).unwrap());
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/log");
        (dir, path)
    }

    #[test]
    fn records_of_two_writers_are_all_read_in_order_and_once() {
        let (_dir, path) = folder();
        let (a, b) = (open(&path), open(&path));
        append(&a, [1]);
        append(&b, [2]);
        append(&a, [3]);
        assert_eq!(new(&b), [1, 2, 3]);
        assert!(new(&b).is_empty());
        a.append_all(&mut [record(4), record(5)]).unwrap();
        // Its own first record is nothing new to the other one.
        assert_eq!((new(&b), new(&a)), (vec![4, 5], vec![2, 3, 4, 5]));
    }

    #[test]
    fn a_damaged_record_is_skipped_alone() {
        let (_dir, path) = folder();
        append(&open(&path), 1..=4);
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] ^= 4;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(all(&path), [1, 3, 4]);
    }

    #[test]
    fn a_tail_cut_anywhere_costs_its_own_record() {
        let (_dir, path) = folder();
        append(&open(&path), 1..=4);
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let records = open(&path);
            append(&records, [9, 10]);
            let mut expected: Vec<u8> = (1..=(length / 8) as u8).collect();
            expected.extend([9, 10]);
            let found = all(&path);
            // What was appended behind the torn tail before that was noticed is there again.
            assert_eq!(found, expected, "cut at {length}");
        }
    }

    #[test]
    fn a_file_that_is_cut_under_a_reader_is_read_from_its_beginning() {
        let (_dir, path) = folder();
        let records = open(&path);
        append(&open(&path), 1..=4);
        assert_eq!(new(&records).len(), 4);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(11).unwrap();
        append(&open(&path), 5..=8);
        assert_eq!(new(&records), [1, 5, 6, 7, 8]);
    }

    #[test]
    fn zeros_and_noise_are_no_records() {
        let (_dir, path) = folder();
        drop(open(&path));
        for bytes in [[0; 80], [0xee; 80]] {
            fs::write(&path, bytes).unwrap();
            assert!(all(&path).is_empty());
        }
    }

    #[test]
    fn a_file_over_its_limit_keeps_its_newest_half() {
        let (_dir, path) = folder();
        append(&open(&path), 1..=11);
        let records = Records::<8>::open(&path, 10).unwrap();
        assert_eq!(new(&records), [7, 8, 9, 10, 11]);
        assert_eq!(all(&path), [7, 8, 9, 10, 11]);
    }

    #[test]
    fn a_rewrite_keeps_what_is_wanted_and_loses_nothing_of_others() {
        let (_dir, path) = folder();
        let (a, b) = (open(&path), open(&path));
        append(&open(&path), 1..=4);
        assert_eq!(new(&b).len(), 4);
        a.rewrite(|record| {
            // Somebody else's record, which comes while the new file is written.
            if record[0] == 4 {
                append(&b, [5]);
            }
            record[0].is_multiple_of(2)
        })
        .unwrap();
        append(&b, [6]);
        append(&a, [7]);
        assert_eq!(all(&path), [2, 4, 5, 6, 7]);
        assert_eq!(new(&a), [5, 6, 7], "what was rewritten counts as read");
        assert_eq!(new(&b), [2, 4, 5, 6, 7]);
    }

    #[test]
    fn only_one_process_rewrites_at_a_time() {
        let (_dir, path) = folder();
        let (a, b) = (open(&path), open(&path));
        append(&a, 1..=3);
        a.rewrite(|record| {
            b.rewrite(|_| false).unwrap();
            record[0] != 2
        })
        .unwrap();
        b.rewrite(|_| false).unwrap();
        assert_eq!(all(&path), [1, 3], "one that has the old file open lets it be");
    }

    #[test]
    fn many_writers_lose_nothing_while_the_file_is_replaced_again_and_again() {
        let (_dir, path) = folder();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || append(&open(path), thread * 50..thread * 50 + 50));
            }
            for _ in 0..50 {
                let mut seen = std::collections::HashSet::new();
                open(&path).rewrite(|record| seen.insert(record[0])).unwrap();
            }
        });
        let mut found = all(&path);
        found.sort_unstable();
        found.dedup();
        assert!(found.into_iter().eq(0..200));
    }

    #[test]
    fn a_full_disk_is_an_error_and_nothing_else() {
        let records = open(Path::new("/dev/full"));
        assert_eq!(records.append(record(1)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(new(&records).is_empty());
    }
}
