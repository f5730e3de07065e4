//! What differs between two revisions: git's side and DVC's side of every path.
//!
//! The two are compared apart, each by its own ids: git's folders where their ids differ, DVC's
//! outputs by their declarations, and what lies in a tracked folder by its manifest where that is
//! not the same one. Then they are laid over each other; where both have a path, git's file counts,
//! as in a mount.

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, stream};
use itertools::{EitherOrBoth, Itertools};

use super::Scope;
use crate::{
    cli::{
        exit::{Code, Failure},
        list::manifest_of,
    },
    dvc::{
        checksum::Checker,
        manifest::Entry,
        output::{Content, ListedFile},
    },
    git::{EntryKind, GitId, Repository},
    id::{BlobId, Scheme, TreeId},
    path::{Name, RepoPath},
    segments::{Row, RowId, RowKind, Segment, SegmentError, Segments},
    tree::{OutputId, Tree},
    vfs::{Vfs, VfsError},
};

/// How many manifests are fetched at a time.
const MANIFESTS_AT_ONCE: usize = 16;

/// Files of git that are larger are not hashed to be compared with tracked ones.
const MAX_HASHED: u64 = 1 << 30;

/// What one revision has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// A file, link or submodule of git's.
    Git(EntryKind),
    /// A tracked file.
    Blob(BlobId),
    /// A tracked folder.
    Folder(TreeId),
    /// Something tracked whose content nothing names.
    Unknown,
}

/// The paths that differ, with what the older and the newer revision have there.
pub(super) type Sides = BTreeMap<RepoPath, (Option<Side>, Option<Side>)>;

/// Compares two trees; without an older one everything is new. Also gives the first failure to
/// look into a folder; of such folders nothing but their own change is told.
pub(super) async fn compare(
    vfs: &Vfs,
    old: Option<&Arc<Tree>>,
    new: &Arc<Tree>,
    scope: &Scope,
) -> (Sides, Option<Failure>) {
    let (sides, failed) = (Sides::new(), Vec::new());
    let mut comparison = Comparison { vfs, old, new, scope, sides, failed };
    let folders = comparison.outputs();
    comparison.folders(folders).await;
    if !scope.dvc_only {
        comparison.git();
    }
    comparison.finish()
}

struct Comparison<'a> {
    vfs: &'a Vfs,
    old: Option<&'a Arc<Tree>>,
    new: &'a Arc<Tree>,
    scope: &'a Scope,
    sides: Sides,
    /// The folders that could not be looked into.
    failed: Vec<(RepoPath, Failure)>,
}

/// A tracked folder that is not the same in both revisions.
struct Folder<'a> {
    path: &'a RepoPath,
    old: Option<(&'a Arc<Tree>, OutputId)>,
    new: Option<(&'a Arc<Tree>, OutputId)>,
}

impl<'a> Comparison<'a> {
    /// Notes what one or both revisions have at a path. What lies in one folder before may lie in
    /// another at the same path after, and is then noted twice.
    fn note(&mut self, path: RepoPath, old: Option<Side>, new: Option<Side>) {
        if self.scope.wants(&path) {
            let sides = self.sides.entry(path).or_default();
            *sides = (old.or(sides.0), new.or(sides.1));
        }
    }

    /// Compares the outputs that are declared; gives the folders to be looked into.
    fn outputs(&mut self) -> Vec<Folder<'a>> {
        let (old, new) = (declared(self.old), declared(Some(self.new)));
        let mut folders = Vec::new();
        for pair in old.into_iter().merge_join_by(new, |(old, _), (new, _)| old.cmp(new)) {
            let path = match pair {
                EitherOrBoth::Both((path, _), _)
                | EitherOrBoth::Left((path, _))
                | EitherOrBoth::Right((path, _)) => path,
            };
            let (old, new) = pair.map_any(|(_, at)| at, |(_, at)| at).left_and_right();
            let side = |(tree, output): (&Arc<Tree>, OutputId)| side_of(tree, output);
            let sides = (old.map(side), new.map(side));
            if sides.0 == sides.1 {
                continue;
            }
            self.note(path.clone(), sides.0, sides.1);
            let folder = |at, side| Some(at?).filter(|_| matches!(side, Some(Side::Folder(_))));
            let folder = Folder { path, old: folder(old, sides.0), new: folder(new, sides.1) };
            if (folder.old.is_some() || folder.new.is_some()) && self.scope.touches(path) {
                folders.push(folder);
            }
        }
        folders
    }

    /// Looks into tracked folders. One whose manifest cannot be had does not take the others with
    /// it.
    async fn folders(&mut self, folders: Vec<Folder<'a>>) {
        let vfs = self.vfs;
        let loading = |folder: Folder<'a>| async move {
            let rows = load(vfs, &folder).await;
            (folder, rows)
        };
        let mut loaded = stream::iter(folders).map(loading).buffered(MANIFESTS_AT_ONCE);
        while let Some((folder, rows)) = loaded.next().await {
            if let Err(error) = self.folder(&folder, rows).await {
                self.failed.push((folder.path.clone(), error.into()));
            }
        }
    }

    /// Compares what lies in a tracked folder; once more if a manifest had to be mended.
    async fn folder(
        &mut self,
        folder: &Folder<'a>,
        rows: Result<(Rows<'a>, Rows<'a>), VfsError>,
    ) -> Result<(), VfsError> {
        let (old, new) = rows?;
        if self.rows(folder.path, old.segment(), new.segment()).is_ok() {
            return Ok(());
        }
        let (old, new) = load(self.vfs, folder).await?;
        let unreadable = |_: SegmentError| {
            VfsError::Git("what its manifest was compiled to cannot be read".to_owned())
        };
        self.rows(folder.path, old.segment(), new.segment()).map_err(unreadable)
    }

    fn rows(
        &mut self,
        top: &RepoPath,
        old: Option<&Segment>,
        new: Option<&Segment>,
    ) -> Result<(), SegmentError> {
        let root = |_| Segment::ROOT;
        let mut open = vec![(top.clone(), old.map(root), new.map(root))];
        let failed = Cell::new(None);
        while let Some((folder, old_row, new_row)) = open.pop() {
            let old = children(old.zip(old_row), &failed)?;
            let new = children(new.zip(new_row), &failed)?;
            for pair in old.merge_join_by(new, |a, b| a.row.name().cmp(b.row.name())) {
                let name = pair.as_ref().reduce(|old, _| old).row.name();
                let Ok(name) = Name::new(name) else { continue };
                let (old, new) = pair.as_ref().left_and_right();
                let side = |child: Option<&Child>| child.and_then(|child| child.side);
                let folder_of = |child: Option<&Child>| {
                    child.filter(|child| child.side.is_none()).map(|child| child.id)
                };
                if side(old) != side(new) {
                    self.note(folder.join(&name), side(old), side(new));
                }
                if folder_of(old).is_some() || folder_of(new).is_some() {
                    open.push((folder.join(&name), folder_of(old), folder_of(new)));
                }
            }
            if let Some(error) = failed.take() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lays git's side over DVC's.
    fn git(&mut self) {
        let repository = self.vfs.repository();
        let root = |tree: &Arc<Tree>| repository.commit(tree.commit).map(|commit| commit.tree);
        let (old, new) = match (self.old.map(root).transpose(), root(self.new)) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(error), _) | (_, Err(error)) => {
                return self.failed.push((RepoPath::root(), error.into()));
            }
        };
        let changes = repository.changes(old, Some(new));
        let unreadable = changes.unreadable.into_iter();
        self.failed.extend(unreadable.map(|(path, why)| {
            let failure = Failure::new(Code::Repository, why);
            (path, failure)
        }));
        for change in changes.found.into_iter().filter(|change| self.scope.wants(&change.path)) {
            let sides = self.sides.remove(&change.path).unwrap_or_default();
            let old = change.old.map(Side::Git).or(sides.0);
            let new = change.new.map(Side::Git).or(sides.1);
            if !is_same_content(repository, old, new) {
                self.sides.insert(change.path, (old, new));
            }
        }
    }

    /// Keeps what is known to differ.
    fn finish(mut self) -> (Sides, Option<Failure>) {
        let failed = &self.failed;
        let is_in = |path: &RepoPath, folder: &RepoPath| {
            path.strip_prefix(folder).is_some_and(|rest| !rest.is_empty())
        };
        let is_known = |path: &RepoPath| !failed.iter().any(|(folder, _)| is_in(path, folder));
        self.sides.retain(|path, (old, new)| old != new && is_known(path));
        let first = self.failed.into_iter().next();
        (self.sides, first.map(|(path, failure)| failure.context(path)))
    }
}

/// The outputs that DVC stores, by their paths. Of two with one path the later counts.
fn declared(tree: Option<&Arc<Tree>>) -> BTreeMap<&RepoPath, (&Arc<Tree>, OutputId)> {
    let outputs =
        tree.into_iter().flat_map(|tree| (0..).zip(tree.outputs()).map(move |o| (tree, o)));
    let stored = outputs.filter(|(_, (_, tracked))| tracked.output.is_cached);
    stored.map(|(tree, (id, tracked))| (&tracked.output.path, (tree, id))).collect()
}

fn side_of(tree: &Tree, output: OutputId) -> Side {
    match &tree.tracked(output).output.content {
        Content::Blob(blob) => Side::Blob(*blob),
        Content::Tree(manifest) => Side::Folder(*manifest),
        Content::Files(files) => Side::Folder(manifest_of(files)),
        Content::Unavailable(_) => Side::Unknown,
    }
}

/// What lies in a tracked folder.
enum Rows<'a> {
    Nothing,
    Manifest(&'a Segment),
    /// Of a folder whose declaration lists its files itself.
    Listed(Segment),
}

impl Rows<'_> {
    fn segment(&self) -> Option<&Segment> {
        match self {
            Self::Nothing => None,
            Self::Manifest(segment) => Some(segment),
            Self::Listed(segment) => Some(segment),
        }
    }
}

/// What lies in a tracked folder before and after.
async fn load<'a>(vfs: &Vfs, folder: &Folder<'a>) -> Result<(Rows<'a>, Rows<'a>), VfsError> {
    Ok((rows(vfs, folder.old).await?, rows(vfs, folder.new).await?))
}

async fn rows<'a>(
    vfs: &Vfs,
    folder: Option<(&'a Arc<Tree>, OutputId)>,
) -> Result<Rows<'a>, VfsError> {
    let Some((tree, output)) = folder else { return Ok(Rows::Nothing) };
    if let Content::Files(files) = &tree.tracked(output).output.content {
        return Ok(Rows::Listed(segment_of(files)?));
    }
    Ok(vfs.manifest(tree, output).await?.map_or(Rows::Nothing, Rows::Manifest))
}

fn segment_of(files: &[ListedFile]) -> Result<Segment, VfsError> {
    let entries = files.iter().map(|file| Entry {
        relpath: file.relpath.as_bytes(),
        digest: file.blob.map(|blob| blob.digest),
    });
    let scheme = files.iter().find_map(|file| Some(file.blob?.scheme)).unwrap_or(Scheme::Md5);
    let id = TreeId { scheme, ..manifest_of(files) };
    let segment = Segments::new(None).compile_entries(id, entries);
    segment.map_err(|error| VfsError::Manifest { id, reason: error.to_string() })
}

/// A row of a manifest.
struct Child {
    id: RowId,
    row: Row,
    /// Nothing if it is a folder.
    side: Option<Side>,
}

/// The rows of a folder, up to the first that cannot be read.
fn children<'a>(
    folder: Option<(&'a Segment, RowId)>,
    failed: &'a Cell<Option<SegmentError>>,
) -> Result<impl Iterator<Item = Child> + use<'a>, SegmentError> {
    let rows = match folder {
        Some((segment, folder)) => Some((segment, segment.children(folder)?)),
        None => None,
    };
    Ok(rows.into_iter().flat_map(move |(segment, rows)| {
        rows.map_while(move |id| {
            let row = segment.row(id).map_err(|error| failed.set(Some(error))).ok()?;
            let side = match row.kind() {
                RowKind::Folder => None,
                RowKind::File(blob) => Some(blob.map_or(Side::Unknown, Side::Blob)),
            };
            Some(Child { id, row, side })
        })
    }))
}

/// Whether a file went from git to DVC, or back, with the same bytes.
fn is_same_content(repository: &Repository, old: Option<Side>, new: Option<Side>) -> bool {
    match (old, new) {
        (Some(Side::Git(EntryKind::Blob { id, .. })), Some(Side::Blob(blob)))
        | (Some(Side::Blob(blob)), Some(Side::Git(EntryKind::Blob { id, .. }))) => {
            has_hash(repository, id, blob)
        }
        _ => false,
    }
}

fn has_hash(repository: &Repository, id: GitId, blob: BlobId) -> bool {
    // What cannot be read cannot be told to be the same.
    let Ok(bytes) = repository.blob(id, MAX_HASHED) else { return false };
    let mut checker = Checker::new(blob.scheme, false);
    checker.update(&bytes);
    checker.finish().matches(&blob.digest)
}
