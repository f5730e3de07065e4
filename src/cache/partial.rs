//! A large blob while it is downloaded: a sparse file and a map of the blocks that are there.
//!
//! The map is written after the data it describes, so after kill -9 every block that it names is
//! there. A power cut keeps no such order, so the map names the boot it was written in and counts
//! in no other. Either way the file is hashed from its beginning before it becomes a blob.
//!
//! Map: 8 bytes magic, 8 bytes size of the blob (little endian), 36 bytes boot id, then one byte
//! per block, 1 where it is there: blocks that arrive together need no common lock.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Read as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    BLOCK, BlockSet, CacheError, Entry, Item, Key, Room, Shared, blocks_of, now_secs, read_full_at,
};

const MAGIC: &[u8; 8] = b"dvcfspm1";
const HEADER: usize = 52;

/// Room is asked for in steps of this many bytes.
const RESERVE_STEP: u64 = 4 << 20;

/// Pieces that the system writes at once.
const IOV_MAX: usize = 1024;

/// Larger claims are lies; the map of one would take 128 MiB.
const LARGEST: u64 = BLOCK << 27;

/// An owner that is just ending, such as the last reader of this process, is waited for a moment.
const OWN_TRIES: u32 = 10;
const OWN_PAUSE: Duration = Duration::from_millis(5);

/// A download in progress, owned by this process.
///
/// Dropped before it is admitted or discarded, it stays for whoever goes on with it.
#[derive(Debug)]
pub struct Partial {
    shared: Arc<Shared>,
    key: Key,
    size: u64,
    data: Arc<File>,
    path: PathBuf,
    /// Missing where another process owns the partial of this key and this one is private.
    map: Option<File>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    stored: u64,
    reserved: u64,
    is_settled: bool,
}

impl Partial {
    pub(super) fn open(
        shared: &Arc<Shared>,
        key: &Key,
        size: u64,
    ) -> Result<(Self, BlockSet), CacheError> {
        // One that can never be whole would push out everything else and be fetched twice.
        if size > LARGEST.min(shared.max_bytes) {
            return Err(CacheError::Full { bytes: size, dir: shared.layout.root.clone() });
        }
        shared.require_ours()?;
        let path = shared.layout.partial_data(key);
        fs::create_dir_all(shared.layout.partials())
            .map_err(CacheError::io("create", shared.layout.partials()))?;
        match own(&path).map_err(CacheError::io("open", &path))? {
            Some(data) => Self::resume(shared, key, size, data, path),
            None => Self::private(shared, key, size),
        }
    }

    fn resume(
        shared: &Arc<Shared>,
        key: &Key,
        size: u64,
        data: File,
        path: PathBuf,
    ) -> Result<(Self, BlockSet), CacheError> {
        let io = |source| CacheError::io("open", &path)(source);
        let kept = data.metadata().map_err(io)?.blocks() * 512;
        let map_path = shared.layout.partial_map(key);
        let header = header(size);
        let is_sized = data.metadata().map_err(io)?.len() == size;
        let found = if is_sized { read_map(&map_path, &header, size) } else { None };
        let map = match found {
            Some(_) => OpenOptions::new().write(true).open(&map_path),
            None => data
                .set_len(0)
                .and_then(|()| data.set_len(size))
                .and_then(|()| new_map(&map_path, &header)),
        };
        let present = found.unwrap_or_default();
        let stored = present.ranges().map(|run| run.end - run.start).sum::<u64>() * BLOCK;
        let stored = stored.min(size);
        // What was kept is counted already, whether or not it is still of use.
        shared.release(kept.saturating_sub(stored));
        shared.view.forget(&Item::Partial(*key));
        let partial = Self {
            shared: shared.clone(),
            key: *key,
            size,
            data: Arc::new(data),
            map: Some(map.map_err(CacheError::io("create", map_path))?),
            path,
            taken: Mutex::new(Taken { stored, reserved: stored, is_settled: false }),
        };
        Ok((partial, present))
    }

    fn private(shared: &Arc<Shared>, key: &Key, size: u64) -> Result<(Self, BlockSet), CacheError> {
        let (data, mut path) = shared.temporary()?.into_parts();
        let io = |source| CacheError::io("create", path.to_path_buf())(source);
        data.set_len(size).map_err(io)?;
        // Tells the scans of other processes that it is in use, however old it grows.
        data.lock().map_err(io)?;
        path.disable_cleanup(true);
        let partial = Self {
            shared: shared.clone(),
            key: *key,
            size,
            data: Arc::new(data),
            path: path.to_path_buf(),
            map: None,
            taken: Mutex::default(),
        };
        Ok((partial, BlockSet::default()))
    }

    /// Which blob it will be.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The size of the whole blob in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    pub(super) const fn file(&self) -> &Arc<File> {
        &self.data
    }

    /// Stores the content that `pieces` make together from block `first` on; only the blob's last
    /// block may be shorter.
    pub fn write(
        &self,
        first: u64,
        pieces: &[impl AsRef<[u8]>],
        room: Room,
    ) -> Result<(), CacheError> {
        let bytes: u64 = pieces.iter().map(|piece| piece.as_ref().len() as u64).sum();
        self.shared.noted(|| {
            self.reserve(bytes, room)?;
            let io = |source| CacheError::io("write", &self.path)(source);
            let write = || write_all_at(&self.data, pieces, first * BLOCK).map_err(io);
            match write() {
                Err(error) if error.is_disk_full() => {
                    self.shared.evict(bytes, room);
                    write()
                }
                other => other,
            }?;
            let Some(map) = &self.map else { return Ok(()) };
            let blocks = blocks_of(0..bytes).end;
            map.write_all_at(&vec![1; blocks as usize], HEADER as u64 + first).map_err(io)
        })
    }

    /// Fills `buffer` from `offset` on, and returns how much there was before the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, CacheError> {
        self.shared.noted(|| {
            read_full_at(&self.data, buffer, offset).map_err(CacheError::io("read", &self.path))
        })
    }

    /// Throws away what was downloaded.
    pub fn discard(&self) {
        let Some(taken) = self.settle() else { return };
        self.remove_files();
        self.shared.release(taken.reserved);
    }

    /// Gives the checked content its name.
    pub(super) fn place(&self) -> Result<(), CacheError> {
        self.shared.place(&self.key, &self.data, &self.path)?;
        if let Some(taken) = self.settle() {
            self.shared.release(taken.reserved.saturating_sub(self.size));
        }
        self.remove_map();
        Ok(())
    }

    fn reserve(&self, bytes: u64, room: Room) -> Result<(), CacheError> {
        let step = {
            let mut taken = self.taken.lock();
            let stored = (taken.stored + bytes).min(self.size);
            let step = if stored <= taken.reserved {
                0
            } else {
                (stored - taken.reserved).max(RESERVE_STEP).min(self.size - taken.reserved)
            };
            taken.stored = stored;
            taken.reserved += step;
            step
        };
        if step == 0 {
            return Ok(());
        }
        self.shared.reserve(step, room).inspect_err(|_| {
            let mut taken = self.taken.lock();
            taken.reserved -= step;
            taken.stored = taken.stored.min(taken.reserved);
        })
    }

    /// What was counted for it, the first time that its end is decided.
    fn settle(&self) -> Option<Taken> {
        let mut taken = self.taken.lock();
        if taken.is_settled {
            return None;
        }
        taken.is_settled = true;
        Some(Taken { ..*taken })
    }

    fn remove_files(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "partial not removed");
        }
        self.remove_map();
    }

    fn remove_map(&self) {
        if self.map.is_some() {
            // Without its data it would be ignored anyway.
            drop(fs::remove_file(self.shared.layout.partial_map(&self.key)));
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let Some(taken) = self.settle() else { return };
        if self.map.is_some() && taken.stored > 0 {
            self.shared.release(taken.reserved - taken.stored);
            let entry = Entry { bytes: taken.stored, used_secs: now_secs() };
            self.shared.view.touch(Item::Partial(self.key), entry);
        } else {
            self.remove_files();
            self.shared.release(taken.reserved);
        }
    }
}

/// Writes pieces one after the other, as many as the system takes at a time.
fn write_all_at(file: &File, pieces: &[impl AsRef<[u8]>], offset: u64) -> io::Result<()> {
    let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece.as_ref())).collect();
    let (mut slices, mut at) = (&mut slices[..], offset);
    while slices.iter().any(|slice| !slice.is_empty()) {
        let batch = &slices[..slices.len().min(IOV_MAX)];
        match rustix::io::pwritev(file, batch, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                IoSlice::advance_slices(&mut slices, count);
                at += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Opens and locks the data file; nothing when another has it and keeps it.
fn own(path: &std::path::Path) -> io::Result<Option<File>> {
    // Its owner may rename or remove it between our opening and our locking; then it is not the
    // file of that name any more.
    for _ in 0..OWN_TRIES {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if file.try_lock().is_err() {
            thread::sleep(OWN_PAUSE);
            continue;
        }
        let ours = file.metadata()?;
        if fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn header(size: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&size.to_le_bytes());
    let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known = boot.len().min(HEADER - 16);
    header[16..16 + known].copy_from_slice(&boot[..known]);
    header
}

fn new_map(path: &std::path::Path, header: &[u8; HEADER]) -> io::Result<File> {
    let map = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    map.write_all_at(header, 0)?;
    Ok(map)
}

/// The blocks that a map of this blob and this boot names.
fn read_map(path: &std::path::Path, header: &[u8; HEADER], size: u64) -> Option<BlockSet> {
    let mut map = io::BufReader::new(File::open(path).ok()?);
    let mut found = [0; HEADER];
    map.read_exact(&mut found).ok()?;
    let knows_boot = header[16] != 0;
    if found != *header || !knows_boot {
        return None;
    }
    let mut present = BlockSet::default();
    let mut bytes = map.bytes();
    for block in 0..size.div_ceil(BLOCK) {
        match bytes.next() {
            Some(Ok(1)) => present.insert(block..block + 1),
            Some(Ok(_)) => {}
            Some(Err(_)) => return None,
            None => break,
        }
    }
    Some(present)
}
