//! Learning sizes nobody knows yet.
//!
//! A manifest gives no sizes, and `stat` must tell the truth, so the remote is asked. How depends
//! on what the program seems to be doing: the first question for one file starts the file's
//! download, whose headers tell the size, so that a program which opens and reads it next costs
//! one request in all; after a listing, or at a second question in the same folder without a read
//! between, the whole folder is sized at once.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;

use super::{Epoch, Ino, Vfs, VfsError, attributes::Size};
use crate::{
    blobs::{BlobError, Sources},
    id::{BlobId, Key},
    tree::{Index, Node, OutputId, Tree},
};

/// Folders that were listed lately, as far back as anybody may still ask for their files' sizes.
const LISTED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// What programs seem to be doing.
#[derive(Debug)]
pub(super) struct Sizing {
    listed: Mutex<LruCache<Ino, ()>>,
    /// The folder of the last file whose size was asked for, until something is read in it.
    asked: Mutex<Option<Ino>>,
    /// Folders that are being sized.
    running: Mutex<HashSet<Ino>>,
    /// When a remote was last found unreachable, and how: for a moment nobody waits for it again,
    /// or listing a folder would wait once for each of its files.
    trouble: Mutex<Option<(Instant, BlobError)>>,
}

/// How long a remote's trouble is remembered.
const TROUBLE: Duration = Duration::from_secs(10);

impl Default for Sizing {
    fn default() -> Self {
        Self {
            listed: Mutex::new(LruCache::new(LISTED)),
            asked: Mutex::default(),
            running: Mutex::default(),
            trouble: Mutex::default(),
        }
    }
}

impl Sizing {
    /// A folder was listed.
    pub(super) fn listed(&self, folder: Ino) {
        self.listed.lock().put(folder, ());
    }

    /// A file was opened to be read.
    pub(super) fn opened(&self) {
        *self.asked.lock() = None;
    }

    fn note_trouble(&self, error: &BlobError) {
        if let BlobError::Unreachable(_) = error {
            *self.trouble.lock() = Some((Instant::now(), error.clone()));
        }
    }

    /// The trouble that a remote is known to be in.
    fn trouble(&self, sources: &Sources) -> Option<BlobError> {
        let trouble = self.trouble.lock();
        let (_, error) = trouble.as_ref().filter(|(since, _)| since.elapsed() < TROUBLE)?;
        let is_of = |url: &str| url == error.failure().url;
        sources.iter().any(|remote| is_of(remote.url())).then(|| error.clone())
    }

    /// Whether a question for a size in this folder is one of many.
    fn is_one_of_many(&self, folder: Ino) -> bool {
        let before = self.asked.lock().replace(folder);
        before == Some(folder) || self.listed.lock().get(&folder).is_some()
    }
}

impl Vfs {
    /// Learns the size of a blob in bytes, and perhaps those beside it.
    pub(super) async fn learn_size(
        &self,
        epoch: &Arc<Epoch>,
        index: Index,
    ) -> Result<u64, VfsError> {
        let tree = epoch.tree().ok_or(VfsError::Stale)?;
        let Some(Node::Blob { id: Some(id), output, .. }) = tree.node(index)? else { return Ok(0) };
        let folder = Ino::new(epoch.slot, tree.parent(index)?);
        let sources = self.sources(tree, output);
        let result = if let Some(error) = self.sizing.trouble(&sources) {
            Err(error)
        } else if self.sizing.is_one_of_many(folder) {
            self.size_folder(folder, epoch);
            self.blobs.resolve_size(id, &sources).await
        } else {
            self.blobs.size_by_fetch(id, &sources).await
        };
        let error = match result {
            Ok(size) => return Ok(size),
            Err(error) => {
                self.sizing.note_trouble(&error);
                VfsError::from(error)
            }
        };
        tracing::warn!("{}: size of {}: {error}", tree.commit, tree.shown_path(index));
        self.note_missing(&error);
        Err(error)
    }

    /// Starts asking for every unknown size in a folder, unless that is going on.
    fn size_folder(&self, folder: Ino, epoch: &Arc<Epoch>) {
        if !self.sizing.running.lock().insert(folder) {
            return;
        }
        let (vfs, epoch) = (self.myself(), Arc::clone(epoch));
        self.runtime.spawn(async move {
            if let Some(tree) = epoch.tree() {
                for (sources, keys) in vfs.unknown_sizes(tree, folder.index()) {
                    if let Err(error) = vfs.blobs.resolve_sizes(&keys, &sources).await {
                        vfs.sizing.note_trouble(&error);
                    }
                }
            }
            vfs.sizing.running.lock().remove(&folder);
        });
    }

    /// The blobs of unknown size directly in a folder, by the remote that has them.
    fn unknown_sizes(&self, tree: &Tree, folder: Index) -> Vec<(Sources, Vec<Key>)> {
        let Ok(listing) = tree.listing(folder) else { return Vec::new() };
        let mut by_output: HashMap<OutputId, Vec<Key>> = HashMap::new();
        let walked = listing.walk(0, |entry| {
            if let Node::Blob { id: Some(id), output, claim, .. } = entry.node
                && self.size(tree, output, Some::<BlobId>(id), claim) == Size::Unknown
            {
                by_output.entry(output).or_default().push(id.into());
            }
            ControlFlow::Continue(())
        });
        if walked.is_err() {
            tracing::debug!("{}: some sizes are asked for one by one", tree.shown_path(folder));
        }
        let by_sources = by_output.into_iter();
        by_sources.map(|(output, keys)| (self.sources(tree, output), keys)).collect()
    }
}
