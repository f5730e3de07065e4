//! Opening and reading.
//!
//! An open file is known by the number the kernel was given for it, but nothing depends on that
//! number: a read of a file that is not open here opens it again from its inode.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};

use super::{
    Answer, Epoch, Event, Ino, Vfs, VfsError, attributes::Size, lookup::Place, run_blocking,
};
use crate::{
    blobs::{BlobError, Fetch, Opened, Reader, SMALL, Sources},
    cache::CachedBlob,
    dvc::output::Content as Declared,
    id::{BlobId, Key, Scheme},
    tree::{Index, Node, OutputId},
};

/// Git files are held in memory while they are open; larger ones cannot be read.
const MAX_GIT_FILE: u64 = 1 << 30;

/// The number of an open file.
pub(super) type Handle = u64;

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
    /// Where bytes of a large blob were shown before all of it was checked, and by which download.
    exposed: Mutex<HashMap<Key, Vec<Exposure>>>,
    /// Files whose declaration claims a wrong size, and whose readers have learnt of that.
    corrected: Mutex<HashSet<Ino>>,
}

/// A download, and a file that its unchecked bytes were shown as.
type Exposure = (Weak<Fetch>, Ino);

/// A file that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedFile {
    /// Its number.
    pub handle: Handle,
    /// Whether pages that the kernel holds of it are right, or at least not known to be wrong.
    pub keeps_pages: bool,
}

/// A file that can be read.
#[derive(Debug)]
struct OpenFile {
    content: Content,
    /// In bytes, as every reader was told.
    size: u64,
    keeps_pages: bool,
}

#[derive(Debug)]
enum Content {
    Bytes(Bytes),
    Cached(Arc<CachedBlob>),
    Streamed(Reader),
    /// It gave bytes that turned out wrong. Whoever holds it open has to learn of that: the kernel
    /// tries a failed read-ahead again, and would find sound bytes behind wrong ones.
    Failed(VfsError),
}

impl OpenFile {
    const fn new(content: Content, size: u64) -> Self {
        Self { content, size, keeps_pages: true }
    }

    /// Fills the buffer where that takes no waiting: `Some` of how many bytes, which is less than
    /// asked only at the end.
    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let wanted = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..wanted];
        if wanted == 0 && !matches!(self.content, Content::Failed(_)) {
            return Some(0);
        }
        match &self.content {
            Content::Bytes(bytes) => {
                buffer.copy_from_slice(bytes.get(offset as usize..offset as usize + wanted)?);
                Some(wanted)
            }
            Content::Cached(blob) => read_whole(blob, buffer, offset),
            Content::Streamed(reader) => read_whole(&*reader.fetch().cached()?, buffer, offset),
            Content::Failed(_) => None,
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

    fn add(&self, file: OpenFile) -> OpenedFile {
        let handle = self.opened.fetch_add(1, Ordering::Relaxed);
        let keeps_pages = file.keeps_pages;
        self.insert(handle, file);
        OpenedFile { handle, keeps_pages }
    }

    /// After a failed read: wrong content fails as long as it is open, anything else is tried anew
    /// by the next read.
    fn read_failed(&self, handle: Handle, error: &VfsError) {
        match error {
            VfsError::Blob(BlobError::Integrity(_)) | VfsError::WrongSize { .. } => {
                self.insert(handle, OpenFile::new(Content::Failed(error.clone()), 0));
            }
            _ => drop(self.by_handle.write().remove(&handle)),
        }
    }

    fn is_first_correction(&self, ino: Ino) -> bool {
        !self.corrected.lock().contains(&ino)
    }

    /// Notes that unchecked bytes are about to be shown.
    fn expose(&self, key: Key, fetch: &Arc<Fetch>, ino: Ino) {
        let mut exposed = self.exposed.lock();
        let shown = exposed.entry(key).or_default();
        let fetch = Arc::downgrade(fetch);
        if !shown.iter().any(|(known, at)| *at == ino && known.ptr_eq(&fetch)) {
            shown.push((fetch, ino));
        }
    }

    /// Whether all pages that the kernel may hold of a file came from this download, or from one
    /// that was checked since. What it may hold besides is forgotten: the caller has it dropped.
    fn settle_pages(&self, key: Key, ino: Ino, current: Option<&Arc<Fetch>>) -> bool {
        let mut exposed = self.exposed.lock();
        let Some(shown) = exposed.get_mut(&key) else { return true };
        let before = shown.len();
        let is_sound = |fetch: &Weak<Fetch>| {
            let fetch = fetch.upgrade();
            fetch.is_some_and(|fetch| {
                current.is_some_and(|current| Arc::ptr_eq(&fetch, current))
                    || fetch.cached().is_some()
            })
        };
        shown.retain(|(fetch, at)| *at != ino || is_sound(fetch));
        let are_sound = shown.len() == before;
        if shown.is_empty() {
            exposed.remove(&key);
        }
        are_sound
    }
}

impl Vfs {
    /// Opens a file for reading. A blob of up to 8 MiB is fetched and checked first.
    pub fn open(&self, ino: Ino) -> Answer<OpenedFile> {
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
                let registry = Arc::clone(&self.registry);
                Answer::later(run_blocking(move || {
                    let bytes = registry.repository().blob(id, MAX_GIT_FILE)?;
                    Ok(in_memory(bytes.into()))
                }))
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
                let claim = claim.filter(|_| id.scheme == Scheme::Md5);
                self.open_blob(BlobFile { file, id, sources, shown, claim })
            }
        }
    }

    fn open_blob(&self, blob: BlobFile) -> Answer<OpenFile> {
        if let Size::Known(size) = blob.shown {
            self.blobs.claim_size(blob.id, &blob.sources, size);
        }
        match self.blobs.open(blob.id, &blob.sources) {
            Opened::Empty => Answer::Now(Ok(in_memory(Bytes::new()))),
            Opened::Ready(cached) => {
                let (size, content) = (cached.size(), Content::Cached(Arc::new(cached)));
                let mut file = OpenFile::new(content, size);
                file.keeps_pages =
                    self.open_files.settle_pages(blob.id.into(), blob.file.ino(), None);
                Answer::Now(self.settle(file, &blob))
            }
            Opened::Fetch(fetch) => {
                let vfs = self.myself();
                Answer::later(async move {
                    let opened = vfs.open_fetched(fetch.reader(), &blob).await;
                    let file = opened.inspect_err(|error| vfs.note_unopened(&blob, error))?;
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
            return Ok(OpenFile::new(content, size));
        }
        let (key, ino) = (blob.id.into(), blob.file.ino());
        let keeps_pages = self.open_files.settle_pages(key, ino, Some(reader.fetch()));
        self.open_files.expose(key, reader.fetch(), ino);
        Ok(OpenFile { keeps_pages, ..OpenFile::new(Content::Streamed(reader), size) })
    }

    /// Logs why a file cannot be opened. If its bytes are wrong, so may be the size that was shown.
    fn note_unopened(&self, blob: &BlobFile, error: &VfsError) {
        self.log_failure("open", &blob.file, error);
        if matches!(error, VfsError::Blob(BlobError::Integrity(_))) {
            self.tell(Event::File { ino: blob.file.ino(), with_data: true });
        }
    }

    /// Compares the size with what readers were told. Where that was wrong, this open fails, the
    /// index learns better and the kernel is told.
    ///
    /// What the index knows by now may be right although this file's readers were told the claim
    /// of its declaration before, so a wrong claim fails the first open of each file that has it.
    fn settle(&self, file: OpenFile, blob: &BlobFile) -> Result<OpenFile, VfsError> {
        let ino = blob.file.ino();
        let shown = match (blob.shown, blob.claim) {
            (Size::Known(shown), _) if shown != file.size => shown,
            (_, Some(claim)) if claim != file.size && self.open_files.is_first_correction(ino) => {
                claim
            }
            _ => return Ok(file),
        };
        self.open_files.corrected.lock().insert(ino);
        self.blobs.correct_size(blob.id, &blob.sources, file.size);
        self.tell(Event::File { ino, with_data: true });
        let error = VfsError::WrongSize { shown, actual: file.size };
        self.log_failure("open", &blob.file, &error);
        Err(error)
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
                vfs.open_files.read_failed(handle, error);
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
            Some(file) if matches!(file.content, Content::Streamed(_) | Content::Failed(_)) => file,
            // Not open here, or its cache file was damaged while open: look again.
            _ => self.open_files.insert(handle, self.open_file(ino).wait().await?),
        };
        if let Content::Failed(error) = &file.content {
            return Err(error.clone());
        }
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
        let shown = self.open_files.exposed.lock().get(&key).cloned().unwrap_or_default();
        for (_, ino) in shown {
            self.tell(Event::File { ino, with_data: true });
        }
    }

    pub(super) fn log_failure(&self, what: &str, file: &dyn fmt::Display, error: &VfsError) {
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
    /// What its declaration says, where that counts.
    claim: Option<u64>,
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
    let size = bytes.len() as u64;
    OpenFile::new(Content::Bytes(bytes), size)
}
