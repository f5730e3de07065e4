//! What is put into a remote: bytes on this disk.

use std::{
    fmt,
    fs::File,
    io,
    num::NonZeroUsize,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, pread},
};
use tokio::task::spawn_blocking;

use crate::{dvc::md5::Md5, id::Digest};

/// How much is read at once.
const CHUNK: u64 = 1 << 20;

/// Hears how many bytes more are on their way; or less, where a try has failed.
pub type Sent = Arc<dyn Fn(i64) + Send + Sync>;

/// The bytes of an object, in a file that nobody changes. Cheap to clone.
#[derive(Clone)]
pub struct Source {
    file: Arc<File>,
    size: u64,
    /// All of it, once it was read, if it is small.
    whole: Arc<OnceLock<Bytes>>,
    at_once: NonZeroUsize,
    note: Option<Arc<Path>>,
    sent: Option<Sent>,
    /// The bytes that `sent` was told of.
    told: Arc<AtomicI64>,
}

/// What came of putting an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Stored,
    /// Something was there under its name already, and stays as it is.
    Present,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Source {
    /// All bytes that a file has now.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let at_once = NonZeroUsize::MIN;
        let (file, whole, told) = (Arc::new(file), Arc::default(), Arc::default());
        Ok(Self { file, size, whole, at_once, note: None, sent: None, told })
    }

    /// How many parts of it may be on their way at a time.
    #[must_use]
    pub fn in_parts_at_once(self, at_once: NonZeroUsize) -> Self {
        Self { at_once, ..self }
    }

    /// A file, which need not exist, that remembers how far an upload in parts has come, so that a
    /// later one goes on from there. It goes away when the upload is over.
    #[must_use]
    pub fn noting_in(self, note: PathBuf) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// Who hears of the bytes that were sent.
    #[must_use]
    pub fn telling(self, sent: Sent) -> Self {
        Self { sent: Some(sent), ..self }
    }

    /// How many bytes there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes were told to be on their way, on the whole.
    pub fn told(&self) -> i64 {
        self.told.load(Ordering::Relaxed)
    }

    pub(super) const fn at_once(&self) -> NonZeroUsize {
        self.at_once
    }

    pub(super) fn note(&self) -> Option<&Path> {
        self.note.as_deref()
    }

    pub(super) fn tell(&self, bytes: i64) {
        self.told.fetch_add(bytes, Ordering::Relaxed);
        if let Some(sent) = &self.sent {
            sent(bytes);
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Some bytes, which must be there. Blocks on the disk.
    pub(super) fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        if self.size > CHUNK {
            return self.read(range);
        }
        let whole = if let Some(whole) = self.whole.get() {
            whole
        } else {
            let whole = self.read(0..self.size)?;
            self.whole.get_or_init(|| whole)
        };
        Ok(whole.slice(range.start as usize..range.end as usize))
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = range.start + bytes.len() as u64;
            match pread(&*self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes.into())
    }

    /// The first of some bytes, which are not none.
    pub(super) async fn first(&self, range: Range<u64>) -> io::Result<Bytes> {
        let first = range.start..range.end.min(range.start + CHUNK);
        if self.whole.get().is_some() {
            return self.bytes(first);
        }
        let source = self.clone();
        spawn_blocking(move || source.bytes(first)).await.map_err(io::Error::other)?
    }

    /// Gives all bytes, in pieces of any size. Blocks on the disk.
    pub fn each(&self, accept: impl FnMut(&[u8])) -> io::Result<()> {
        self.each_of(0..self.size, accept)
    }

    fn each_of(&self, range: Range<u64>, mut accept: impl FnMut(&[u8])) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let bytes = self.bytes(at..range.end.min(at + CHUNK))?;
            accept(&bytes);
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// The CRC-32 and, if it is wanted, the MD5 of some bytes.
    pub(super) async fn sums(
        &self,
        range: Range<u64>,
        with_md5: bool,
    ) -> io::Result<(u32, Option<Digest>)> {
        let source = self.clone();
        let sums = move || {
            let (mut crc, mut md5) = (crc32fast::Hasher::new(), with_md5.then(Md5::new));
            source.each_of(range, |bytes| {
                crc.update(bytes);
                if let Some(md5) = &mut md5 {
                    md5.update(bytes);
                }
            })?;
            Ok((crc.finalize(), md5.map(Md5::finish)))
        };
        spawn_blocking(sums).await.map_err(io::Error::other)?
    }
}
