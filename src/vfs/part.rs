//! A file or folder as the blobs it is made of, to fill the cache with them ahead of their use.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use super::{
    Layout, Vfs, VfsError,
    attributes::Size,
    names::{Spot, Target},
};
use crate::{
    blobs::Prefetched,
    dvc::output::Content,
    git::CommitId,
    id::{BlobId, Key, Scheme},
    path::RepoPath,
    tree::{Index, Node, OutputId, Tree},
};

/// The tracked files at and below a path, in the order of listings.
#[derive(Debug)]
pub struct Part {
    tree: Arc<Tree>,
    /// The files.
    pub files: Vec<PartFile>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct PartFile {
    index: Index,
    output: OutputId,
    id: BlobId,
    claim: Option<u64>,
}

impl Part {
    /// Where a file lies in its revision.
    pub fn path(&self, file: &PartFile) -> RepoPath {
        self.tree.shown_path(file.index)
    }
}

impl Vfs {
    /// The tracked files at and below a path of the mount, or of a revision if one is named.
    ///
    /// Fetches the manifests of the folders and nothing else. Files of git are left out, and so are
    /// those whose declaration names no content that can be had.
    pub async fn part(&self, path: &RepoPath, revision: Option<&str>) -> Result<Part, VfsError> {
        let (commit, path) = match (revision, &self.layout) {
            (Some(revision), _) => (self.resolve(revision.to_owned()).await?, path.clone()),
            (None, Layout::One { .. }) => (self.commit().ok_or(VfsError::Stale)?, path.clone()),
            (None, Layout::AllRevisions) => self.revision_of(path).await?,
        };
        let tree = self.tree(commit).await?;
        let top = loop {
            match tree.find(&path) {
                Ok(found) => break found.ok_or(VfsError::NotFound)?,
                Err(needs) => self.attach_manifest(&tree, needs.0).await?,
            }
        };
        let mut files = Vec::new();
        let mut open = vec![(top, self.top_node(&tree, top).await?)];
        while let Some((index, node)) = open.pop() {
            match node {
                Node::Blob { id: Some(id), output, claim, .. } => {
                    let claim = claim.filter(|_| id.scheme == Scheme::Md5);
                    files.push(PartFile { index, output, id, claim });
                }
                Node::Folder { .. } => open.extend(self.inside(&tree, index).await?),
                _ => {}
            }
        }
        Ok(Part { tree, files })
    }

    /// All that the tracked files of the revision that is shown are made of: their contents, and
    /// the manifests that list them.
    pub async fn named(&self) -> Result<HashSet<Key>, VfsError> {
        let part = self.part(&RepoPath::root(), None).await?;
        let manifests = part.tree.outputs().filter_map(|tracked| match tracked.output.content {
            Content::Tree(id) => Some(Key::from(id)),
            _ => None,
        });
        Ok(part.files.iter().map(|file| Key::from(file.id)).chain(manifests).collect())
    }

    async fn top_node(&self, tree: &Arc<Tree>, index: Index) -> Result<Node, VfsError> {
        loop {
            match tree.node(index) {
                Ok(node) => return node.ok_or(VfsError::NotFound),
                Err(needs) => self.attach_manifest(tree, needs.0).await?,
            }
        }
    }

    /// What is in a folder, the last first.
    async fn inside(
        &self,
        tree: &Arc<Tree>,
        folder: Index,
    ) -> Result<Vec<(Index, Node)>, VfsError> {
        loop {
            let mut entries = Vec::new();
            let listed = tree.listing(folder).and_then(|listing| {
                listing.walk(0, |entry| {
                    entries.push((entry.index, entry.node));
                    ControlFlow::Continue(())
                })
            });
            match listed {
                Ok(()) => {
                    entries.reverse();
                    return Ok(entries);
                }
                Err(needs) => self.attach_manifest(tree, needs.0).await?,
            }
        }
    }

    /// The commit that the beginning of a path names, and the rest of the path.
    async fn revision_of(&self, path: &RepoPath) -> Result<(CommitId, RepoPath), VfsError> {
        let refs = Arc::clone(&self.refs.read());
        let mut names = path.components();
        let mut spot = Spot::Root;
        let target = loop {
            let name = names.next().ok_or(VfsError::NotFound)?;
            match spot.lookup(&refs, name).ok_or(VfsError::NotFound)? {
                Target::Folder(inside) => spot = inside,
                target => break target,
            }
        };
        let commit = match target {
            Target::Commit(commit) => commit,
            Target::Revision(revision) | Target::ShortHash(revision) => {
                self.resolve(revision).await?
            }
            // The links beside the folders lead to branches.
            Target::Link(to) => {
                let branch = to.strip_prefix("branches/").and_then(|name| refs.branches.get(name));
                *branch.ok_or(VfsError::NotFound)?
            }
            Target::Folder(_) | Target::Report(_) => return Err(VfsError::NotFound),
        };
        let rest: Vec<_> = names.collect();
        Ok((commit, RepoPath::new(&rest.join(&b'/')).unwrap_or_default()))
    }

    /// What is known of a file's size in bytes.
    pub fn part_size(&self, part: &Part, file: &PartFile) -> Option<u64> {
        match self.size(&part.tree, file.output, Some(file.id), file.claim) {
            Size::Known(size) => Some(size),
            Size::Unknown => None,
        }
    }

    /// How many bytes the cache may hold.
    pub fn cache_limit(&self) -> u64 {
        self.blobs.cache().max_bytes()
    }

    /// Finds out what could make room in the cache. Blocks on its disk.
    pub fn look_around_cache(&self) {
        self.blobs.cache().look_around();
    }

    /// Waits until everything cached is safe on the disk.
    pub fn flush_cache(&self) {
        self.blobs.cache().flush();
    }

    /// Whether a file's content is in the cache.
    pub fn is_part_cached(&self, file: &PartFile) -> bool {
        self.blobs.is_cached(file.id)
    }

    /// Takes a file's content out of the cache; gives the bytes that this freed.
    pub fn evict_part(&self, file: &PartFile) -> u64 {
        self.blobs.evict(file.id)
    }

    /// Brings a file's content into the cache when nothing more urgent has to be done. `progress`
    /// is told of bytes as they come.
    pub async fn prefetch_part(
        &self,
        part: &Part,
        file: &PartFile,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Prefetched, VfsError> {
        let sources = self.sources(&part.tree, file.output);
        if let Some(size) = file.claim {
            self.blobs.claim_size(file.id, &sources, size);
        }
        Ok(self.blobs.prefetch(file.id, &sources, progress).await?)
    }
}
