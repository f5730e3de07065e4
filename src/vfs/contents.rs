//! The tree at the root, for commands that go through it without a mount.

use std::{collections::BTreeMap, sync::Arc};

use super::{Vfs, VfsError};
use crate::{
    git::Repository,
    id::{BlobId, Key},
    tree::{OutputId, Segment, Tree},
};

impl Vfs {
    /// The repository that is shown.
    pub fn repository(&self) -> &Repository {
        self.registry.repository()
    }

    /// The tree at the root, in a layout that shows one revision.
    pub fn root_tree(&self) -> Option<Arc<Tree>> {
        self.current.read().as_ref()?.tree().cloned()
    }

    /// The manifest of a directory output, fetched unless it is at hand; nothing if the output is
    /// not made of one.
    pub async fn manifest<'a>(
        &self,
        tree: &'a Arc<Tree>,
        output: OutputId,
    ) -> Result<Option<&'a Segment>, VfsError> {
        self.attach_manifest(tree, output).await?;
        Ok(tree.segment(output).map(Arc::as_ref))
    }

    /// The sizes of blobs in bytes, in their order. The remotes are asked, in bulk, for those that
    /// are not known.
    pub async fn blob_sizes(
        &self,
        tree: &Tree,
        blobs: &[(OutputId, BlobId)],
    ) -> Result<Vec<u64>, VfsError> {
        let mut by_output = BTreeMap::<OutputId, Vec<(usize, Key)>>::new();
        for (at, (output, blob)) in blobs.iter().enumerate() {
            by_output.entry(*output).or_default().push((at, (*blob).into()));
        }
        let mut sizes = vec![0; blobs.len()];
        for (output, wanted) in by_output {
            let (places, keys): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
            let found = self.blobs.resolve_sizes(&keys, &self.sources(tree, output)).await;
            for (at, size) in places.into_iter().zip(found) {
                sizes[at] = size?;
            }
        }
        Ok(sizes)
    }
}
