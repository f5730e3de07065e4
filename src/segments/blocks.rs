//! Reading blocks of compiled files: by position, checked, through a bounded cache.

use std::{
    fs::File,
    io,
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;

use super::{
    SegmentError,
    image::{self, HEADER, Header, Index, Place},
};
use crate::{
    id::{Scheme, TreeId, hex},
    recent::Recent,
};

/// What the blocks kept in memory take together, in bytes.
const KEPT_BYTES: u64 = 16 << 20;

/// Blocks kept at most, whatever they take.
const KEPT_BLOCKS: NonZeroUsize = NonZeroUsize::new(16 << 10).unwrap();

/// Compiled files held open.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// The compiled files of one state directory, and what is kept of them in memory.
#[derive(Debug)]
pub(super) struct Blocks {
    folder: Option<PathBuf>,
    kept: Mutex<Recent<BlockKey, Arc<[u8]>>>,
    files: Mutex<LruCache<TreeId, Arc<File>>>,
    reads: AtomicU64,
}

/// A block's number and whose block it is.
pub(super) type BlockKey = (TreeId, u32);

impl Blocks {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            kept: Mutex::new(Recent::new(KEPT_BLOCKS, KEPT_BYTES)),
            files: Mutex::new(LruCache::new(OPEN_FILES)),
            reads: AtomicU64::new(0),
        }
    }

    /// Where the compiled files are, if they are kept at all.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Where the compiled file of a manifest is.
    pub(super) fn path(&self, id: TreeId) -> Option<PathBuf> {
        let ending = match id.scheme {
            Scheme::Md5 => "md5",
            Scheme::Dos2Unix => "dos2unix",
        };
        Some(self.folder.as_ref()?.join(format!("{}.{ending}", hex(&id.digest))))
    }

    /// How many blocks were read from files.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Opens the compiled file of a manifest, afresh.
    pub(super) fn open(&self, id: TreeId) -> Result<(Header, Index), SegmentError> {
        let path = self.path(id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let file = File::open(path)?;
        let (header, index) = read_index(&file, id)?;
        self.files.lock().put(id, Arc::new(file));
        Ok((header, index))
    }

    /// The bytes of a block, from memory or from its file. Blocks the thread on the disk.
    pub(super) fn read(
        &self,
        (id, number): BlockKey,
        place: Place,
    ) -> Result<Arc<[u8]>, SegmentError> {
        if let Some(bytes) = self.kept.lock().get(&(id, number)) {
            return Ok(Arc::clone(bytes));
        }
        let bytes = off_the_runtime(|| self.read_file(id, number, place))?;
        let weight = bytes.len() as u64;
        // Dropped without the lock: what goes may be the last of a long listing.
        let gone = self.kept.lock().put((id, number), Arc::clone(&bytes), weight);
        drop(gone);
        Ok(bytes)
    }

    fn read_file(&self, id: TreeId, number: u32, place: Place) -> Result<Arc<[u8]>, SegmentError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut bytes = vec![0; place.length as usize];
        self.file(id)?.read_exact_at(&mut bytes, place.at)?;
        if image::check(id, number, &bytes) != place.check {
            return Err(SegmentError::Damaged("damaged block"));
        }
        Ok(bytes.into())
    }

    fn file(&self, id: TreeId) -> Result<Arc<File>, SegmentError> {
        if let Some(file) = self.files.lock().get(&id) {
            return Ok(Arc::clone(file));
        }
        let path = self.path(id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let file = Arc::new(File::open(path)?);
        self.files.lock().put(id, Arc::clone(&file));
        Ok(file)
    }

    /// Lets go of an open file whose name may stand for another one by now.
    pub(super) fn close(&self, id: TreeId) {
        let closed = self.files.lock().pop(&id);
        drop(closed);
    }
}

/// Reads header and index, which the length of the file has to fit.
fn read_index(file: &File, id: TreeId) -> Result<(Header, Index), SegmentError> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let header = Header::parse(&header)?;
    let length = header.index_at.checked_add(header.index_len() as u64);
    if header.id != id || length != Some(file.metadata()?.len()) {
        return Err(SegmentError::Damaged("another file, or one that was cut off"));
    }
    let mut index = vec![0; header.index_len()];
    file.read_exact_at(&mut index, header.index_at)?;
    let index = Index::parse(&header, &index)?;
    Ok((header, index))
}

/// Reads on a thread of the runtime are told to it, so that it goes on with another one.
fn off_the_runtime<T>(read: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(read),
        _ => read(),
    }
}
