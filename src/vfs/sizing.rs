//! Learning sizes nobody knows yet.
//!
//! A manifest gives no sizes, and `stat` must tell the truth, so the remote is asked. How depends
//! on what the program seems to be doing: the first question for one file starts the file's
//! download, whose headers tell the size, so that a program which opens and reads it next costs
//! one request in all; after a listing, or at a second question in the same folder without a read
//! between, the whole folder is sized at once.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use lru::LruCache;
use parking_lot::Mutex;

use super::{Epoch, Ino, Vfs, VfsError, attributes::Size};
use crate::{
    blobs::Sources,
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
    running: Mutex<HashMap<Ino, Shared<BoxFuture<'static, ()>>>>,
}

impl Default for Sizing {
    fn default() -> Self {
        Self {
            listed: Mutex::new(LruCache::new(LISTED)),
            asked: Mutex::default(),
            running: Mutex::default(),
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

    /// Whether a question for a size in this folder is one of many.
    fn is_one_of_many(&self, folder: Ino) -> bool {
        let before = self.asked.lock().replace(folder);
        before == Some(folder) || self.listed.lock().get(&folder).is_some()
    }
}

impl Vfs {
    /// Learns the size of a blob, and perhaps those beside it.
    pub(super) async fn learn_size(
        &self,
        epoch: &Arc<Epoch>,
        index: Index,
    ) -> Result<(), VfsError> {
        let tree = epoch.tree().ok_or(VfsError::Stale)?;
        let Some(Node::Blob { id: Some(id), output, .. }) = tree.node(index) else { return Ok(()) };
        let folder = Ino::new(epoch.slot, tree.parent(index));
        let sources = self.sources(tree, output);
        let result = if self.sizing.is_one_of_many(folder) {
            self.size_folder(folder, epoch).await;
            self.blobs.resolve_size(id, &sources).await
        } else {
            self.blobs.size_by_fetch(id, &sources).await
        };
        let error = match result {
            Ok(_) => return Ok(()),
            Err(error) => VfsError::from(error),
        };
        tracing::warn!("{}: size of {}: {error}", tree.commit, tree.path(index));
        self.note_missing(&error);
        Err(error)
    }

    /// Asks for every unknown size in a folder; a second caller waits for the first.
    async fn size_folder(&self, folder: Ino, epoch: &Arc<Epoch>) {
        let (vfs, epoch) = (self.myself(), Arc::clone(epoch));
        let job = {
            let mut running = self.sizing.running.lock();
            let start = || {
                async move {
                    vfs.size_all(folder, &epoch).await;
                    vfs.sizing.running.lock().remove(&folder);
                }
                .boxed()
                .shared()
            };
            running.entry(folder).or_insert_with(start).clone()
        };
        // On its own task, so that it goes on when the one that asked is gone.
        if let Err(error) = self.runtime.spawn(job).await {
            tracing::debug!("sizing a folder: {error}");
        }
    }

    async fn size_all(&self, folder: Ino, epoch: &Epoch) {
        let Some(tree) = epoch.tree() else { return };
        for (sources, keys) in self.unknown_sizes(tree, folder.index()) {
            // Each failure is told to whoever asks for that size.
            drop(self.blobs.resolve_sizes(&keys, &sources).await);
        }
    }

    /// The blobs of unknown size directly in a folder, by the remote that has them.
    fn unknown_sizes(&self, tree: &Tree, folder: Index) -> Vec<(Sources, Vec<Key>)> {
        let Ok(listing) = tree.listing(folder) else { return Vec::new() };
        let mut by_output: HashMap<OutputId, Vec<Key>> = HashMap::new();
        for entry in listing.from(0) {
            let Some(Node::Blob { id: Some(id), output, claim, .. }) = tree.node(entry.index)
            else {
                continue;
            };
            if self.size(tree, output, Some::<BlobId>(id), claim) == Size::Unknown {
                by_output.entry(output).or_default().push(id.into());
            }
        }
        let by_sources = by_output.into_iter();
        by_sources.map(|(output, keys)| (self.sources(tree, output), keys)).collect()
    }
}
