//! Opening and reading.
//!
//! An open file is known by the number the kernel was given for it, but nothing depends on that
//! number: a read of a file that is not open here opens it again from its inode.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};

use super::{Answer, Epoch, Event, Ino, Vfs, VfsError, attributes::Size, lookup::Place};
use crate::{
    blobs::{Opened, Reader, SMALL, Sources},
    cache::CachedBlob,
    dvc::output::Content as Declared,
    id::{BlobId, Key},
    tree::{Index, Node, OutputId},
};

/// Git files are held in memory while they are open; larger ones cannot be read.
const MAX_GIT_FILE: u64 = 1 << 30;

/// The number of an open file.
pub type Handle = u64;

/// What a read gives.
pub enum Read {
    /// So many bytes are in the buffer now.
    Done(Result<usize, VfsError>),
    /// The bytes are on their way.
    Later(BoxFuture<'static, Result<Bytes, VfsError>>),
}

/// Files that are open, and where unchecked bytes of large ones were shown.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    by_handle: RwLock<HashMap<Handle, Arc<OpenFile>>>,
    opened: AtomicU64,
    /// The inodes under which a blob was read before all of it was checked.
    exposed: Mutex<HashMap<Key, HashSet<Ino>>>,
}

/// A file that can be read.
#[derive(Debug)]
struct OpenFile {
    content: Content,
    /// In bytes, as every reader was told.
    size: u64,
}

#[derive(Debug)]
enum Content {
    Bytes(Bytes),
    Cached(Arc<CachedBlob>),
    Streamed(Reader),
}

impl OpenFile {
    /// Fills the buffer where that takes no waiting: `Some` of how many bytes, which is less than
    /// asked only at the end.
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let wanted = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..wanted];
        match &self.content {
            Content::Bytes(bytes) => {
                buffer.copy_from_slice(bytes.get(offset as usize..offset as usize + wanted)?);
                Some(wanted)
            }
            Content::Cached(blob) => read_whole(blob, buffer, offset),
            Content::Streamed(reader) => read_whole(&*reader.fetch().cached()?, buffer, offset),
        }
    }
}

/// All of the buffer, or nothing: a cache file that somebody cut is no short file.
fn read_whole(blob: &CachedBlob, buffer: &mut [u8], offset: u64) -> Option<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match blob.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) | Err(_) => return None,
            Ok(count) => filled += count,
        }
    }
    Some(filled)
}

impl OpenFiles {
    fn find(&self, handle: Handle) -> Option<Arc<OpenFile>> {
        self.by_handle.read().get(&handle).cloned()
    }

    fn insert(&self, handle: Handle, file: OpenFile) -> Arc<OpenFile> {
        let file = Arc::new(file);
        self.by_handle.write().insert(handle, Arc::clone(&file));
        file
    }

    fn add(&self, file: OpenFile) -> Handle {
        let handle = self.opened.fetch_add(1, Ordering::Relaxed);
        self.insert(handle, file);
        handle
    }

    /// Lets go of a file whose content failed, so that the next read opens it anew.
    fn drop_failed(&self, handle: Handle) {
        self.by_handle.write().remove(&handle);
    }
}

impl Vfs {
    /// Opens a file for reading. A blob of up to 8 MiB is fetched and checked first.
    pub fn open(&self, ino: Ino) -> Answer<Handle> {
        match self.open_file(ino) {
            Answer::Now(file) => Answer::Now(file.map(|file| self.open_files.add(file))),
            Answer::Later(future) => {
                let vfs = self.myself();
                Answer::later(async move { Ok(vfs.open_files.add(future.await?)) })
            }
        }
    }

    fn open_file(&self, ino: Ino) -> Answer<OpenFile> {
        match self.place(ino) {
            Err(error) => Answer::Now(Err(error)),
            Ok(Place::Named(_)) => Answer::Now(Err(VfsError::IsAFolder)),
            Ok(Place::Report) => {
                let text = self.reports.text(ino).ok_or(VfsError::Stale);
                Answer::Now(text.map(|text| in_memory(Bytes::from_owner(text))))
            }
            Ok(Place::Node(epoch, index)) => self.open_node(epoch, index),
        }
    }

    fn open_node(&self, epoch: Arc<Epoch>, index: Index) -> Answer<OpenFile> {
        self.sizing.opened();
        match epoch.tree().and_then(|tree| tree.node(index)) {
            None | Some(Node::Link(_)) => Answer::Now(Err(VfsError::Stale)),
            Some(Node::Folder { .. }) => Answer::Now(Err(VfsError::IsAFolder)),
            Some(Node::GitFile { id, .. }) => {
                let bytes = self.registry.repository().blob(id, MAX_GIT_FILE);
                Answer::Now(bytes.map(|bytes| in_memory(bytes.into())).map_err(VfsError::from))
            }
            Some(Node::Blob { id: None, output, .. }) => {
                let file = Located { epoch, index };
                let why = file.why_unavailable(output);
                tracing::warn!("open {file}: {why}");
                Answer::Now(Err(VfsError::NoContent(why)))
            }
            Some(Node::Blob { id: Some(id), output, claim, .. }) => {
                let Some(tree) = epoch.tree() else { return Answer::Now(Err(VfsError::Stale)) };
                let sources = self.sources(tree, output);
                let shown = self.size(tree, output, Some(id), claim);
                let file = Located { epoch, index };
                self.open_blob(BlobFile { file, id, sources, shown })
            }
        }
    }

    fn open_blob(&self, blob: BlobFile) -> Answer<OpenFile> {
        match self.blobs.open(blob.id, &blob.sources) {
            Opened::Empty => Answer::Now(Ok(in_memory(Bytes::new()))),
            Opened::Ready(cached) => {
                self.open_files.exposed.lock().remove(&blob.id.into());
                let (size, content) = (cached.size(), Content::Cached(Arc::new(cached)));
                Answer::Now(self.settle(OpenFile { content, size }, &blob))
            }
            Opened::Fetch(fetch) => {
                let vfs = self.myself();
                Answer::later(async move {
                    let opened = vfs.open_fetched(fetch.reader(), &blob).await;
                    let file =
                        opened.inspect_err(|error| vfs.log_failure("open", &blob.file, error))?;
                    vfs.settle(file, &blob)
                })
            }
        }
    }

    async fn open_fetched(&self, reader: Reader, blob: &BlobFile) -> Result<OpenFile, VfsError> {
        let size = reader.fetch().size().await?;
        if size <= SMALL || self.options.verify_before_open {
            reader.verified().await?;
            let size = reader.fetch().size().await?;
            let cached = reader.fetch().cached();
            let content = cached.map_or(Content::Streamed(reader), Content::Cached);
            return Ok(OpenFile { content, size });
        }
        let mut exposed = self.open_files.exposed.lock();
        exposed.entry(blob.id.into()).or_default().insert(blob.file.ino());
        Ok(OpenFile { content: Content::Streamed(reader), size })
    }

    /// Compares the size with what readers were told. Where that was wrong, this open fails, the
    /// index learns better and the kernel is told.
    fn settle(&self, file: OpenFile, blob: &BlobFile) -> Result<OpenFile, VfsError> {
        match blob.shown {
            Size::Known(shown) if shown != file.size => {
                self.blobs.correct_size(blob.id, &blob.sources, file.size);
                self.tell(Event::File { ino: blob.file.ino(), with_data: true });
                let error = VfsError::WrongSize { shown, actual: file.size };
                self.log_failure("open", &blob.file, &error);
                Err(error)
            }
            Size::Known(_) | Size::Unknown => Ok(file),
        }
    }

    /// Reads into the buffer, or promises the bytes. They are fewer than asked only at the end.
    pub fn read(&self, ino: Ino, handle: Handle, offset: u64, buffer: &mut [u8]) -> Read {
        let length = buffer.len();
        let file = self.open_files.find(handle);
        if let Some(count) = file.as_ref().and_then(|file| file.read_now(offset, buffer)) {
            return Read::Done(Ok(count));
        }
        let vfs = self.myself();
        Read::Later(Box::pin(async move {
            let read = vfs.read_later(ino, handle, file, offset, length).await;
            read.inspect_err(|error| {
                vfs.open_files.drop_failed(handle);
                if let Ok(Place::Node(epoch, index)) = vfs.place(ino) {
                    vfs.log_failure("read", &Located { epoch, index }, error);
                }
            })
        }))
    }

    /// [`Self::read`], waited for.
    pub async fn read_bytes(
        &self,
        ino: Ino,
        handle: Handle,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, VfsError> {
        let mut buffer = vec![0; length];
        match self.read(ino, handle, offset, &mut buffer) {
            Read::Done(count) => {
                buffer.truncate(count?);
                Ok(buffer.into())
            }
            Read::Later(future) => future.await,
        }
    }

    async fn read_later(
        &self,
        ino: Ino,
        handle: Handle,
        file: Option<Arc<OpenFile>>,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, VfsError> {
        let file = match file {
            Some(file) if matches!(file.content, Content::Streamed(_)) => file,
            // Not open here, or its cache file was damaged while open: look again.
            _ => self.open_files.insert(handle, self.open_file(ino).wait().await?),
        };
        if let Content::Streamed(reader) = &file.content {
            let bytes = reader.read_at(offset, length).await?;
            let actual = reader.fetch().size().await?;
            if actual != file.size {
                return Err(VfsError::WrongSize { shown: file.size, actual });
            }
            return Ok(bytes);
        }
        let mut buffer = vec![0; length];
        match file.read_now(offset, &mut buffer) {
            Some(count) => {
                buffer.truncate(count);
                Ok(buffer.into())
            }
            None => self.read_past_cache(ino, offset, length).await,
        }
    }

    /// Reads from the remote what the cache's disk has and does not give.
    async fn read_past_cache(
        &self,
        ino: Ino,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, VfsError> {
        let Place::Node(epoch, index) = self.place(ino)? else { return Err(VfsError::Stale) };
        let tree = epoch.tree().ok_or(VfsError::Stale)?;
        let Some(Node::Blob { id: Some(id), output, .. }) = tree.node(index) else {
            return Err(VfsError::Stale);
        };
        let fetch = self.blobs.open_past_cache(id, &self.sources(tree, output));
        Ok(fetch.reader().read_at(offset, length).await?)
    }

    /// The kernel has closed a file.
    pub fn release(&self, handle: Handle) {
        self.open_files.by_handle.write().remove(&handle);
    }

    /// A blob turned out wrong after some of it was read: its pages have to go, everywhere.
    pub fn invalidate(&self, key: Key) {
        let inodes = self.open_files.exposed.lock().remove(&key).unwrap_or_default();
        for ino in inodes {
            self.tell(Event::File { ino, with_data: true });
        }
    }

    fn log_failure(&self, what: &str, file: &Located, error: &VfsError) {
        tracing::warn!("{what} {file}: {error}");
        self.note_missing(error);
    }
}

/// A file of an epoch, for messages and events.
struct Located {
    epoch: Arc<Epoch>,
    index: Index,
}

/// A file whose bytes are a blob, and what its readers were told of its size.
struct BlobFile {
    file: Located,
    id: BlobId,
    sources: Sources,
    shown: Size,
}

impl Located {
    fn ino(&self) -> Ino {
        Ino::new(self.epoch.slot, self.index)
    }

    fn why_unavailable(&self, output: OutputId) -> String {
        let declared = self.epoch.tree().map(|tree| &tree.tracked(output).output.content);
        match declared {
            Some(Declared::Unavailable(why)) => why.clone(),
            _ => "its manifest entry has no usable hash".to_owned(),
        }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.epoch.tree().map(|tree| tree.path(self.index)).unwrap_or_default();
        write!(f, "{}:{path}", self.epoch.commit)
    }
}

fn in_memory(bytes: Bytes) -> OpenFile {
    OpenFile { size: bytes.len() as u64, content: Content::Bytes(bytes) }
}
