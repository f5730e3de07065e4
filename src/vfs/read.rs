//! Reading, and the end of it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{
    Answer, Event, Handle, Ino, Keeper, Rounds, Vfs, VfsError,
    files::{Content, OpenFile},
    lookup::Place,
    open::Located,
};
use crate::{id::Key, tree::Node};

/// What a read gives.
pub enum Read {
    /// So many bytes are in the buffer now.
    Done(Result<usize, VfsError>),
    /// The bytes are on their way.
    Later(BoxFuture<'static, Result<Bytes, VfsError>>),
}

impl Vfs {
    /// Reads into the buffer, or promises the bytes. They are fewer than asked only at the end.
    ///
    /// Without a handle, where the kernel sends no opens, the file is found by its inode.
    pub fn read(&self, ino: Ino, handle: Option<Handle>, offset: u64, buffer: &mut [u8]) -> Read {
        if let Some(read) = self.read_own(ino, offset, buffer) {
            return Read::Done(read);
        }
        let files = &self.open_files;
        let file = if let Some(file) = files.find(ino, handle) {
            Answer::Now(Ok(file))
        } else {
            let why = handle.map_or_else(|| files.why_barred(ino), |it| files.why_failed(it));
            if let Some(error) = why {
                return Read::Done(Err(error));
            }
            self.reopen(ino, handle)
        };
        if let Answer::Now(Ok(file)) = &file
            && let Some(count) = file.read_now(offset, buffer)
        {
            return Read::Done(Ok(count));
        }
        let (vfs, length) = (self.myself(), buffer.len());
        Read::Later(Box::pin(async move {
            let read = match file.wait().await {
                Ok(file) => {
                    let read = vfs.read_later((ino, handle), &file, offset, length).await;
                    read.inspect_err(|error| vfs.log_unread(ino, error))
                }
                Err(error) => Err(error),
            };
            if let Err(error) = &read {
                vfs.let_go(vfs.open_files.read_failed(ino, handle, error));
                if error.is_of_content() {
                    // This read fails in any case.
                    _ = vfs.tell_size(ino).await;
                }
            }
            read
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
        match self.read(ino, Some(handle), offset, &mut buffer) {
            Read::Done(count) => {
                buffer.truncate(count?);
                Ok(buffer.into())
            }
            Read::Later(future) => future.await,
        }
    }

    /// Opens a file that is read and not held.
    fn reopen(&self, ino: Ino, handle: Option<Handle>) -> Answer<Arc<OpenFile>> {
        let vfs = self.myself();
        if handle.is_none() && self.is_misled(ino) {
            return Answer::later(async move {
                vfs.tell_size(ino).await?;
                let error = VfsError::Interrupted("another size was told of it before".into());
                vfs.log_unread(ino, &error);
                Err(error)
            });
        }
        self.open_file(ino).map(move |file| {
            let file = Arc::new(file);
            vfs.keep_file(ino, handle, Arc::clone(&file));
            file
        })
    }

    /// Whether whoever reads without an open may go by a size that was told wrong, and has not
    /// learnt of that. The kernel would end this very read there.
    fn is_misled(&self, ino: Ino) -> bool {
        let is_revised = |key| self.blobs.is_size_revised(key);
        self.key_of(ino).is_some_and(is_revised) && self.open_files.warn(ino)
    }

    /// The blob that a file shows, if it does.
    fn key_of(&self, ino: Ino) -> Option<Key> {
        let Ok(Place::Node(epoch, index)) = self.place(ino) else { return None };
        match epoch.tree()?.node(index).ok()?? {
            Node::Blob { id, .. } => Some(id?.into()),
            Node::Folder { .. } | Node::GitFile { .. } | Node::Link(_) => None,
        }
    }

    async fn read_later(
        &self,
        (ino, handle): (Ino, Option<Handle>),
        file: &OpenFile,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, VfsError> {
        if let Some(bytes) = read_file(file, offset, length).await? {
            return Ok(bytes);
        }
        // Somebody had to do with its cached file: look again, and drop what was shown of it.
        self.tell(Event::File { ino, with_data: true });
        let file = Arc::new(self.open_file(ino).wait().await?);
        self.keep_file(ino, handle, Arc::clone(&file));
        match read_file(&file, offset, length).await? {
            Some(bytes) => Ok(bytes),
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
        let Some(Node::Blob { id: Some(id), output, .. }) = tree.node(index)? else {
            return Err(VfsError::Stale);
        };
        let fetch = self.blobs.open_past_cache(id, &self.sources(tree, output));
        Ok(fetch.reader().read_at(offset, length).await?)
    }

    fn log_unread(&self, ino: Ino, error: &VfsError) {
        if let Ok(Place::Node(epoch, index)) = self.place(ino) {
            self.log_failure("read", &Located { epoch, index }, error);
        }
    }

    /// The kernel has closed a file.
    pub fn release(&self, handle: Handle) {
        self.let_go(self.open_files.release(handle));
    }

    /// A blob turned out wrong after some of it was read: its pages have to go, everywhere.
    pub fn invalidate(&self, key: Key) {
        for ino in self.open_files.exposures.of(key) {
            self.tell(Event::File { ino, with_data: true });
        }
    }

    /// Has a file at hand for reads, under its number if it has one.
    pub(super) fn keep_file(&self, ino: Ino, handle: Option<Handle>, file: Arc<OpenFile>) {
        self.let_go(self.open_files.hold(ino, handle, file));
        if self.open_files.keeps_any() {
            Rounds::begin(&self.myself(), &self.runtime);
        }
    }

    /// Drops files that are no longer kept.
    ///
    /// Of a download that ends unchecked the kernel may hold pages. The next open drops them, and
    /// where there are no opens they have to go now.
    fn let_go(&self, gone: Vec<Arc<OpenFile>>) {
        let exposures = &self.open_files.exposures;
        let mut is_any_streamed = false;
        for file in &gone {
            if let Content::Streamed(reader) = &file.content {
                is_any_streamed = true;
                if reader.fetch().cached().is_some() {
                    exposures.retire(reader.fetch());
                }
            }
        }
        drop(gone);
        if is_any_streamed && self.open_files.is_without_opens() {
            for ino in exposures.take_abandoned() {
                self.tell(Event::File { ino, with_data: true });
            }
        }
    }
}

impl Keeper for Vfs {
    fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    fn end_round(&self) -> bool {
        self.let_go(self.open_files.end_round());
        self.open_files.keeps_any()
    }
}

/// The bytes of a file; nothing where its cached file does not give them.
async fn read_file(file: &OpenFile, offset: u64, length: usize) -> Result<Option<Bytes>, VfsError> {
    match &file.content {
        Content::Failed(error) => Err(error.clone()),
        Content::Streamed(reader) if reader.fetch().is_spoilt() => Ok(None),
        Content::Streamed(reader) => {
            let bytes = reader.read_at(offset, length).await?;
            let actual = reader.fetch().size().await?;
            if actual != file.size {
                return Err(VfsError::WrongSize { shown: file.size, actual });
            }
            Ok(Some(bytes))
        }
        Content::Bytes(_) | Content::Cached(_) => {
            let mut buffer = vec![0; length];
            let count = file.read_now(offset, &mut buffer);
            Ok(count.map(|count| {
                buffer.truncate(count);
                buffer.into()
            }))
        }
    }
}
