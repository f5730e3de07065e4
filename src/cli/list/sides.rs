//! The two sides of each path: what git has there and what DVC says of it.
//!
//! `list` prints them side by side, as DVC does: git's size with DVC's hash where both have a file
//! of one name. So it goes through git and the declarations themselves, not through the tree of a
//! mount, where one side hides the other. What `.dvcignore` names and other DVC projects further
//! down have no side in git here.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use super::index::{Declared, Index};
use crate::{
    dvc::{
        ignore::Ignore,
        manifest,
        output::{Content, ListedFile, Origin},
    },
    git::{Entry, EntryKind},
    id::{BlobId, Scheme, TreeId},
    path::{Name, RepoPath},
    segments::{RowId, RowKind, Segment, SegmentError},
    tree::{OutputId, Tree},
    vfs::{Vfs, VfsError},
};

/// Larger ignore files are not read.
const MAX_IGNORE: u64 = 1 << 20;

/// The DVC project that a listing is about: the innermost around its top. A repository without
/// DVC counts as one that declares nothing.
pub(super) struct Project<'a> {
    vfs: &'a Vfs,
    pub(super) tree: Arc<Tree>,
    root: RepoPath,
    index: Index,
    ignore: Ignore,
}

/// One path and what both sides have there.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) path: RepoPath,
    pub(super) git: Option<EntryKind>,
    declared: Option<Declared>,
    /// Its place in the manifest of the tracked directory around it, and what it is there.
    row: Option<RowAt>,
}

/// What there is under one name of a folder, but for what is declared.
#[derive(Default)]
struct Found {
    git: Option<EntryKind>,
    row: Option<RowAt>,
}

/// A place in the manifest of an output, and what is there.
type RowAt = (OutputId, RowId, RowKind);

/// The manifest that tells what is in a folder, and where in it the folder is.
type Place<'a> = (&'a Segment, OutputId, RowId);

/// What DVC says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) is_folder: bool,
    /// Whether it is an output or in one, not just on the way to one.
    pub(super) is_out: bool,
    pub(super) size: Option<u64>,
    pub(super) content: Named,
}

/// What names a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Nothing,
    Blob(OutputId, BlobId),
    Manifest(TreeId),
}

impl<'a> Project<'a> {
    /// The project that `path` lies in.
    pub(super) fn around(vfs: &'a Vfs, tree: Arc<Tree>, path: &RepoPath) -> Self {
        let (root, index) = match tree.project_around(path) {
            Some(at) => (tree.projects[at].root.clone(), Index::new(&tree, at)),
            None => (RepoPath::root(), Index::default()),
        };
        let ignore = Ignore::new(root.clone());
        Self { vfs, tree, root, index, ignore }
    }

    /// The item at a path, unless neither side has one there.
    pub(super) async fn find(&mut self, path: &RepoPath) -> Result<Option<Item>, VfsError> {
        let git = EntryKind::Folder { id: self.vfs.repository().commit(self.tree.commit)?.tree };
        let mut at = Item { path: RepoPath::root(), git: Some(git), declared: None, row: None };
        for name in path.components() {
            let Ok(name) = Name::new(name) else { return Ok(None) };
            if at.git.is_some_and(|git| !matches!(git, EntryKind::Folder { .. })) {
                return Ok(None);
            }
            let mut entries = self.entries(&at)?.into_iter();
            let git = entries.find(|entry| entry.name == name).map(|entry| entry.kind);
            let row = self.mended(&at, |place| place.map(|at| row_of(at, &name)).transpose());
            at = self.child(&at, &name, Found { git, row: row.await?.flatten() });
        }
        Ok(Some(at).filter(|item| item.git.is_some() || self.tracked(item).is_some()))
    }

    /// What lies in a folder, sorted by name; on DVC's side only, or on both.
    pub(super) async fn children(
        &mut self,
        folder: &Item,
        dvc_only: bool,
    ) -> Result<Vec<Item>, VfsError> {
        let mut names = BTreeMap::<Name, Found>::new();
        if !dvc_only {
            for entry in self.entries(folder)? {
                names.entry(entry.name).or_default().git = Some(entry.kind);
            }
        }
        // Where DVC has a file and git a folder, the folder is what is listed.
        if self.tracked(folder).is_none_or(|tracked| tracked.is_folder) {
            let rows = self.mended(folder, |place| place.map_or(Ok(Vec::new()), rows_of));
            for (name, row) in rows.await? {
                names.entry(name).or_default().row = Some(row);
            }
            for (name, _) in self.index.children(&folder.path) {
                if let Ok(name) = Name::new(name) {
                    names.entry(name).or_default();
                }
            }
        }
        let children = names.into_iter().map(|(name, found)| self.child(folder, &name, found));
        Ok(children.filter(|item| item.git.is_some() || self.tracked(item).is_some()).collect())
    }

    fn child(&self, folder: &Item, name: &Name, Found { git, row }: Found) -> Item {
        let path = folder.path.join(name);
        let git = git.filter(|kind| !self.is_hidden(&path, *kind));
        let declared = self.index.get(&folder.path, name.as_bytes());
        Item { path, git, declared, row }
    }

    fn is_hidden(&self, path: &RepoPath, kind: EntryKind) -> bool {
        let is_folder = matches!(kind, EntryKind::Folder { .. });
        let is_other_project = |path: &RepoPath| {
            *path != self.root
                && path.strip_prefix(&self.root).is_some()
                && self.tree.projects.iter().any(|project| project.root == *path)
        };
        self.ignore.is_ignored(path, is_folder) || (is_folder && is_other_project(path))
    }

    /// What git has in a folder, having read the ignore rules that hold there.
    fn entries(&mut self, folder: &Item) -> Result<Vec<Entry>, VfsError> {
        let Some(EntryKind::Folder { id }) = folder.git else { return Ok(Vec::new()) };
        let entries = self.vfs.repository().entries(id)?.entries;
        let rules = entries.iter().find(|entry| entry.name.as_bytes() == b".dvcignore");
        if let (Some(Entry { name, kind: EntryKind::Blob { id, .. } }), Some(_)) =
            (rules, folder.path.strip_prefix(&self.root))
            && !self.ignore.is_ignored(&folder.path.join(name), false)
        {
            let text = self.vfs.repository().blob(*id, MAX_IGNORE)?;
            // The build of the tree has told what is wrong with them.
            self.ignore.add(&folder.path, &text);
        }
        Ok(entries)
    }

    /// Asks the manifest that tells what is in a folder; once more if it had to be mended.
    async fn mended<T>(
        &self,
        folder: &Item,
        ask: impl Fn(Option<Place<'_>>) -> Result<T, VfsError>,
    ) -> Result<T, VfsError> {
        match ask(self.manifest(folder).await?) {
            Err(VfsError::Compiled(_)) => ask(self.manifest(folder).await?),
            answer => answer,
        }
    }

    async fn manifest(&self, folder: &Item) -> Result<Option<Place<'_>>, VfsError> {
        if let Some(Declared::Output(output)) = folder.declared
            && let Some(segment) = self.vfs.manifest(&self.tree, output).await?
        {
            return Ok(Some((segment, output, Segment::ROOT)));
        }
        let Some((output, row, _)) = folder.row else { return Ok(None) };
        Ok(self.vfs.manifest(&self.tree, output).await?.map(|segment| (segment, output, row)))
    }

    /// What DVC says of an item.
    pub(super) fn tracked(&self, item: &Item) -> Option<Tracked> {
        let from_row = || item.row.map(tracked_row);
        match item.declared {
            Some(Declared::Folder { is_inside }) => {
                let is_out = is_inside || item.row.is_some();
                Some(Tracked { is_folder: true, is_out, size: None, content: Named::Nothing })
            }
            Some(Declared::Output(output)) => Some(self.output(output)),
            Some(Declared::Part(output, part)) => self.part(output, part),
            None => from_row(),
        }
    }

    fn output(&self, id: OutputId) -> Tracked {
        let output = &self.tree.tracked(id).output;
        let (is_folder, size, content) = match &output.content {
            Content::Blob(blob) => (false, output.size, Named::Blob(id, *blob)),
            Content::Tree(manifest) => (true, output.size, Named::Manifest(*manifest)),
            Content::Files(files) => {
                (true, Some(total(files)), Named::Manifest(manifest_of(files)))
            }
            // For what nothing names DVC tells a size of 0, unless its source may know better.
            Content::Unavailable(_) if output.origin == Origin::Own => {
                (false, output.size.or(Some(0)), Named::Nothing)
            }
            Content::Unavailable(_) => (false, output.size, Named::Nothing),
        };
        Tracked { is_folder, is_out: true, size, content }
    }

    fn part(&self, id: OutputId, part: usize) -> Option<Tracked> {
        let Content::Files(files) = &self.tree.tracked(id).output.content else { return None };
        let file = files.get(part)?;
        let content = file.blob.map_or(Named::Nothing, |blob| Named::Blob(id, blob));
        Some(Tracked { is_folder: false, is_out: true, size: file.size, content })
    }

    /// What git calls the size of an entry; 0 for a commit of another repository.
    pub(super) fn git_size(&self, kind: EntryKind) -> Result<u64, VfsError> {
        let repository = self.vfs.repository();
        Ok(match kind {
            EntryKind::Blob { id, .. } | EntryKind::Link { id } => repository.blob_size(id)?,
            EntryKind::Folder { id } => repository.tree_size(id)?,
            EntryKind::Submodule { .. } => 0,
        })
    }
}

fn tracked_row((output, _, kind): RowAt) -> Tracked {
    let (is_folder, content) = match kind {
        RowKind::Folder => (true, Named::Nothing),
        RowKind::File(Some(blob)) => (false, Named::Blob(output, blob)),
        RowKind::File(None) => (false, Named::Nothing),
    };
    Tracked { is_folder, is_out: true, size: None, content }
}

/// The row of that name in a folder of a manifest.
fn row_of((segment, output, folder): Place<'_>, name: &Name) -> Result<Option<RowAt>, VfsError> {
    let find = || {
        let Some(row) = segment.child(folder, name.as_bytes())? else { return Ok(None) };
        Ok(Some((output, row, segment.row(row)?.kind())))
    };
    find().map_err(|_why: SegmentError| VfsError::Compiled(output))
}

/// Everything in a folder of a manifest.
fn rows_of((segment, output, folder): Place<'_>) -> Result<Vec<(Name, RowAt)>, VfsError> {
    let mut rows = Vec::new();
    let mut take = |row, name: &[u8], kind| {
        rows.extend(Name::new(name).ok().map(|name| (name, (output, row, kind))));
        ControlFlow::Continue(())
    };
    let walked = segment.children(folder).and_then(|range| segment.walk(range, &mut take));
    walked.map_err(|_why: SegmentError| VfsError::Compiled(output))?;
    Ok(rows)
}

fn total(files: &[ListedFile]) -> u64 {
    files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add)
}

/// The id of the manifest that the files would have.
pub(in crate::cli) fn manifest_of(files: &[ListedFile]) -> TreeId {
    let entries = files.iter().map(|file| manifest::Entry {
        relpath: file.relpath.as_bytes(),
        digest: file.blob.map(|blob| blob.digest),
    });
    TreeId { digest: manifest::write::digest(entries), scheme: Scheme::Md5 }
}
