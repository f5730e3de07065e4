//! The tree at the root, for commands that go through it without a mount.

use std::{collections::BTreeMap, io::BufRead, sync::Arc};

use super::{Vfs, VfsError, attributes::Size};
use crate::{
    blobs::{BlobError, Sources, Unsized},
    dvc::output::{Content, Output},
    git::Repository,
    id::{BlobId, Key},
    registry::Project,
    remote::Cause,
    segments::Segment,
    tree::{OutputId, Tree},
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

    /// The manifest of a directory output, fetched unless it is at hand and whole; nothing if the
    /// output is not made of one.
    ///
    /// Where a question to it fails, asking for it again mends it, once.
    pub async fn manifest<'a>(
        &self,
        tree: &'a Arc<Tree>,
        output: OutputId,
    ) -> Result<Option<&'a Segment>, VfsError> {
        self.attach_manifest(tree, output).await?;
        Ok(tree.segment(output).map(Arc::as_ref))
    }

    /// The text of the manifest of a directory output, fetched unless it is at hand.
    pub async fn read_manifest(
        &self,
        tree: &Tree,
        output: OutputId,
    ) -> Result<Box<dyn std::io::BufRead>, VfsError> {
        let none = || VfsError::NoContent("it is no folder with a manifest".to_owned());
        let id = tree.manifest(output).ok_or_else(none)?;
        Ok(self.manifest_text(id, &self.sources(tree, output)).await?.open())
    }

    /// The text of the manifest of a directory output as any commit declares it, fetched unless it
    /// is at hand.
    pub async fn manifest_of(
        &self,
        project: Project<'_>,
        output: &Output,
    ) -> Result<Box<dyn std::io::BufRead>, VfsError> {
        let Content::Tree(id) = output.content else {
            return Err(VfsError::NoContent("it is no folder with a manifest".to_owned()));
        };
        Ok(self.manifest_text(id, &self.registry.sources(project, output)).await?.open())
    }

    /// The bytes of blobs of an output together, as any commit declares it; nothing if that is not
    /// known here and its remote does not tell.
    pub async fn size_of(
        &self,
        project: Project<'_>,
        output: &Output,
        blobs: &[BlobId],
    ) -> Option<u64> {
        self.sum_of_sizes(&self.registry.sources(project, output), blobs).await
    }

    /// The same of an output of a tree.
    pub async fn size_in(&self, tree: &Tree, output: OutputId, blobs: &[BlobId]) -> Option<u64> {
        self.sum_of_sizes(&self.sources(tree, output), blobs).await
    }

    async fn sum_of_sizes(&self, sources: &Sources, blobs: &[BlobId]) -> Option<u64> {
        let has_bytes = blobs.iter().filter(|blob| !blob.is_empty_content());
        let keys: Vec<Key> = has_bytes.map(|blob| (*blob).into()).collect();
        let known = || keys.iter().map(|key| self.blobs.known_size(*key, sources)).sum();
        match known() {
            None => {
                self.resolve_sizes(&keys, sources).await.ok()?;
                known()
            }
            known => known,
        }
    }

    /// The content of a blob of an output, checked as a whole; fetched unless it is at hand.
    pub async fn read_blob(
        &self,
        tree: &Tree,
        output: OutputId,
        blob: BlobId,
    ) -> Result<Box<dyn BufRead>, VfsError> {
        let text = self.blobs.text(blob, &self.sources(tree, output), u64::MAX).await?;
        let text = text.ok_or_else(|| VfsError::NoContent("it is too large".to_owned()))?;
        Ok(text.open())
    }

    /// Asks the remotes, in bulk, for sizes that are not known. Gives the first failure after
    /// everything else was asked for; objects that no remote has stay unknown.
    pub async fn learn_sizes(
        &self,
        tree: &Tree,
        blobs: impl IntoIterator<Item = (OutputId, BlobId)>,
    ) -> Result<(), VfsError> {
        let mut by_output = BTreeMap::<OutputId, Vec<Key>>::new();
        for (output, blob) in blobs {
            by_output.entry(output).or_default().push(blob.into());
        }
        let mut result = Ok(());
        for (output, keys) in by_output {
            let sources = self.sources(tree, output);
            let learnt = match self.resolve_sizes(&keys, &sources).await {
                Ok(failed) => failed
                    .iter()
                    .find(|it| it.cause == Cause::Denied)
                    .map_or(Ok(()), |it| Err(it.error(&sources))),
                Err(error) => Err(error),
            };
            result = result.and(learnt.map_err(VfsError::from));
        }
        result
    }

    /// Asks the remotes for sizes, and where they have nothing the copies on this disk. Gives what is
    /// left.
    async fn resolve_sizes(
        &self,
        keys: &[Key],
        sources: &Sources,
    ) -> Result<Vec<Unsized>, BlobError> {
        let mut left = Vec::new();
        for failed in self.blobs.resolve_sizes(keys, sources, &|| ()).await? {
            let is_missing = failed.cause == Cause::Missing;
            if !is_missing || self.blobs.size_by_check(failed.key, sources).await.is_none() {
                left.push(failed);
            }
        }
        Ok(left)
    }

    /// What is known of a blob's size in bytes.
    pub fn known_size(&self, tree: &Tree, output: OutputId, blob: BlobId) -> Option<u64> {
        match self.size(tree, output, Some(blob), None) {
            Size::Known(bytes) => Some(bytes),
            Size::Unknown => None,
        }
    }
}
