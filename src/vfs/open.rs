//! From an inode to a file that can be read.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    Answer, Epoch, Event, Handle, Ino, Vfs, VfsError,
    attributes::Size,
    files::{Content, OpenFile},
    lookup::Place,
    run_blocking,
};
use crate::{
    blobs::{BlobError, Opened, Reader, SMALL, Sources},
    cache::CachedBlob,
    dvc::output::Content as Declared,
    id::{BlobId, Scheme},
    tree::{Index, NeedsManifest, Node, OutputId},
};

/// Git files are held in memory while they are open; larger ones cannot be read.
const MAX_GIT_FILE: u64 = 1 << 30;

/// How long the open of a small blob waits for all of it. Then the reads wait instead, which a
/// program that is killed need not sit out.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an answer waits for the kernel to be told of a size. It takes no time, unless a folder
/// that has changed is being looked into.
const TELLING: Duration = Duration::from_secs(20);

/// A file that was opened and that nobody holds yet.
#[derive(Debug)]
pub struct OpenedFile {
    ino: Ino,
    file: Arc<OpenFile>,
}

impl OpenedFile {
    /// Its inode.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Whether pages that the kernel holds of it are right, or at least not known to be wrong.
    pub fn keeps_pages(&self) -> bool {
        self.file.keeps_pages
    }

    /// The whole checked content on this disk, if reading needs nothing else.
    pub fn whole(&self) -> Option<&Arc<CachedBlob>> {
        match &self.file.content {
            Content::Cached(blob) => Some(blob),
            Content::Bytes(_) | Content::Streamed(_) | Content::Failed(_) => None,
        }
    }
}

/// A file of an epoch, for messages and events.
pub(super) struct Located {
    pub(super) epoch: Arc<Epoch>,
    pub(super) index: Index,
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

impl Vfs {
    /// Opens a file for reading. A blob of up to 8 MiB is fetched and checked first, unless that
    /// takes over a second.
    pub fn open(&self, ino: Ino) -> Answer<OpenedFile> {
        self.open_file(ino).map(move |file| OpenedFile { ino, file: Arc::new(file) })
    }

    /// Holds a file open until [`Vfs::release`].
    pub fn hold(&self, opened: OpenedFile) -> Handle {
        let handle = self.open_files.new_handle();
        self.keep_file(opened.ino, Some(handle), opened.file);
        handle
    }

    pub(super) fn open_file(&self, ino: Ino) -> Answer<OpenFile> {
        match self.place(ino) {
            Err(error) => Answer::Now(Err(error)),
            Ok(Place::Named(_)) => Answer::Now(Err(VfsError::IsAFolder)),
            Ok(Place::Report) => {
                let text = self.reports.text(ino).ok_or(VfsError::Stale);
                Answer::Now(text.map(|text| OpenFile::in_memory(bytes::Bytes::from_owner(text))))
            }
            Ok(Place::Node(epoch, index)) => self.open_node(epoch, index),
        }
    }

    pub(super) fn open_node(&self, epoch: Arc<Epoch>, index: Index) -> Answer<OpenFile> {
        self.sizing.opened();
        let node = match epoch.tree().map(|tree| tree.node(index)).transpose() {
            Ok(node) => node.flatten(),
            Err(NeedsManifest(output)) => {
                let again = Arc::clone(&epoch);
                return self.after_mending(epoch, output, move |vfs| vfs.open_node(again, index));
            }
        };
        match node {
            None | Some(Node::Link(_)) => Answer::Now(Err(VfsError::Stale)),
            Some(Node::Folder { .. }) => Answer::Now(Err(VfsError::IsAFolder)),
            Some(Node::GitFile { id, .. }) => {
                let registry = Arc::clone(&self.registry);
                Answer::later(run_blocking(move || {
                    let bytes = registry.repository().blob(id, MAX_GIT_FILE)?;
                    Ok(OpenFile::in_memory(bytes.into()))
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
        let opened = self.blobs.open(blob.id, &blob.sources);
        let size = match (&opened, &blob.shown) {
            (Opened::Ready(cached), _) => Some(cached.size()),
            (_, Size::Known(size)) => Some(*size),
            (_, Size::Unknown) => None,
        };
        let is_here = !matches!(opened, Opened::Fetch(_));
        self.look_ahead((&blob.file.epoch, blob.file.index), size, is_here);
        match opened {
            Opened::Empty => Answer::Now(Ok(OpenFile::in_memory(bytes::Bytes::new()))),
            Opened::Ready(cached) => {
                let (size, content) = (cached.size(), Content::Cached(Arc::new(cached)));
                let mut file = OpenFile::new(content, size);
                let exposures = &self.open_files.exposures;
                file.keeps_pages = exposures.settle_pages(blob.id.into(), blob.file.ino(), None);
                self.once_told(&blob, self.settle(file, &blob))
            }
            Opened::Fetch(fetch) => {
                let vfs = self.myself();
                Answer::later(async move {
                    let opened = vfs.open_fetched(fetch.reader(), &blob).await;
                    let opened = opened.inspect_err(|error| vfs.note_unopened(&blob, error));
                    let settled = opened.and_then(|file| vfs.settle(file, &blob));
                    vfs.once_told(&blob, settled).wait().await
                })
            }
        }
    }

    async fn open_fetched(&self, reader: Reader, blob: &BlobFile) -> Result<OpenFile, VfsError> {
        let size = reader.fetch().size().await?;
        if self.options.verify_before_open {
            reader.verified().await?;
        } else if size <= SMALL {
            match tokio::time::timeout(PATIENCE, reader.verified()).await {
                Ok(verified) => verified?,
                Err(_too_slow) => return Ok(OpenFile::new(Content::Streamed(reader), size)),
            }
        } else {
            let (key, ino) = (blob.id.into(), blob.file.ino());
            let exposures = &self.open_files.exposures;
            let keeps_pages = exposures.settle_pages(key, ino, Some(reader.fetch()));
            exposures.expose(key, reader.fetch(), ino);
            return Ok(OpenFile { keeps_pages, ..OpenFile::new(Content::Streamed(reader), size) });
        }
        let size = reader.fetch().size().await?;
        let cached = reader.fetch().cached();
        let content = cached.map_or(Content::Streamed(reader), Content::Cached);
        Ok(OpenFile::new(content, size))
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
            (_, Some(claim)) if claim != file.size && !self.open_files.is_corrected(ino) => claim,
            _ => return Ok(file),
        };
        self.open_files.correct(ino);
        let is_verified = matches!(file.content, Content::Cached(_));
        self.blobs.correct_size(blob.id, &blob.sources, file.size, is_verified);
        self.tell(Event::File { ino, with_data: true });
        let error = VfsError::WrongSize { shown, actual: file.size };
        self.log_failure("open", &blob.file, &error);
        Err(error)
    }

    /// Gives an answer, once the kernel knows that a size which it was told may be wrong.
    ///
    /// It would end every read at the size that it believes in, without asking anybody.
    fn once_told(&self, blob: &BlobFile, answer: Result<OpenFile, VfsError>) -> Answer<OpenFile> {
        if !self.blobs.is_size_revised(blob.id) {
            return Answer::Now(answer);
        }
        let (vfs, ino) = (self.myself(), blob.file.ino());
        Answer::later(async move { vfs.tell_size(ino).await.and(answer) })
    }

    /// Has the kernel ask for a file's size anew, and waits until it knows that.
    pub(super) async fn tell_size(&self, ino: Ino) -> Result<(), VfsError> {
        self.open_files.warn(ino);
        self.tell(Event::File { ino, with_data: false });
        let told = tokio::time::timeout(TELLING, self.wait_until_told()).await;
        let untold = |_| VfsError::Interrupted("the kernel cannot be told its size".to_owned());
        told.map_err(untold)
    }

    pub(super) fn log_failure(&self, what: &str, file: &dyn fmt::Display, error: &VfsError) {
        tracing::warn!("{what} {file}: {error}");
        self.note_missing(error);
    }
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
        let path = self.epoch.tree().map(|tree| tree.shown_path(self.index)).unwrap_or_default();
        write!(f, "{}:{path}", self.epoch.commit)
    }
}
