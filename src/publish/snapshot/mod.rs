//! From an overlay to the git tree of a commit.
//!
//! Nothing that anybody sees changes here: blobs enter the outbox, objects enter git, and what comes
//! out is a tree that nothing refers to yet ([`prepare`]). Once a commit of it was made, the overlay
//! lets go of what is in it ([`settle`]): one write of a small file decides between nothing and
//! everything, and what a crash leaves undone behind it is done when the overlay is opened again
//! ([`resume`]).
//!
//! | file | is about |
//! |---|---|
//! | `plan` | which changes are recorded, and where |
//! | `hash` | the contents of files that go to DVC |
//! | `writer` | manifests, `.dvc` files, lock files and what goes to git |
//! | `ignores` | the lines that keep outputs out of git |
//! | `records` | `.dvc` and lock files that were written by hand |
//! | `kept` | what stays in the overlay |
//! | `settle` | the moment from which on it is done |

mod hash;
mod ignores;
mod kept;
mod plan;
mod records;
mod settle;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead},
    thread,
};

use self::{hash::Contents, plan::Plan, writer::Writer};
pub use self::{
    plan::{Left, Routed, routed},
    settle::{Keeping, resume, settle},
};
use super::{changes::Changes, outbox::Outbox, route::Rules};
use crate::{
    dvc::{
        manifest::edit::{EditError, read_sound},
        output::Output,
        record::RecordError,
    },
    git::{CommitId, Edit, Edits, GitError, GitTreeId, Repository},
    id::{BlobId, Digest},
    overlay::{Kept, Kind, Overlay, OverlayError, Stat},
    path::RepoPath,
    steps,
    tree::{NeedsManifest, OutputId, Tree},
};

/// Larger files do not go to git.
const MOST_IN_GIT: u64 = 1 << 30;

/// A stream of bytes.
type Bytes = Box<dyn BufRead>;

/// Whether the manifest of a folder, as an output of a project of the tree declares it, can be had:
/// the project by its place there.
type HasManifest<'a> = dyn Fn(usize, &Output) -> io::Result<bool> + Sync + 'a;

/// What a snapshot is made from.
pub struct Ground<'a> {
    /// The changes.
    pub overlay: &'a Overlay,
    /// What lies below them.
    pub tree: &'a Tree,
    /// Where it is from.
    pub repository: &'a Repository,
    /// Where blobs wait to be pushed.
    pub outbox: &'a Outbox,
    /// Gives the manifest of a tracked folder.
    pub manifest: &'a (dyn Fn(OutputId) -> io::Result<Box<dyn BufRead>> + Sync),
    /// Whether a manifest that the tree does not know can be had.
    pub has_manifest: &'a HasManifest<'a>,
    /// Gives the content of a blob of an output, checked as a whole.
    pub blob: &'a (dyn Fn(OutputId, BlobId) -> io::Result<Bytes> + Sync),
    /// The bytes of some blobs of an output together, unless they cannot be learnt.
    pub size: &'a (dyn Fn(OutputId, &[BlobId]) -> Option<u64> + Sync),
}

/// The files of a manifest by their paths in the folder, those that have no usable hash too.
type Files = BTreeMap<Vec<u8>, Option<Digest>>;

impl Ground<'_> {
    /// What the manifest of a tracked folder lists.
    fn files_of(&self, output: OutputId) -> Result<Files, SnapshotError> {
        let mut files = Files::new();
        read_sound(|| (self.manifest)(output), &mut files).map_err(|source| {
            let path = self.tree.tracked(output).output.path.clone();
            SnapshotError::Manifest { path, source }
        })?;
        Ok(files)
    }
}

/// A tree that is ready to be committed.
#[derive(Debug)]
pub struct Prepared {
    /// The tree.
    pub tree: GitTreeId,
    /// How many paths are recorded in it.
    pub recorded: usize,
    /// The bytes of files that were hashed.
    pub bytes: u64,
    /// The paths that stay changed, and why.
    pub left: Vec<(RepoPath, Left)>,
    /// The commit that the changes lie above.
    above: CommitId,
    mark: Mark,
    kept: BTreeMap<RepoPath, Kept>,
    /// Files of the overlay that go to the outbox as they are.
    moving: BTreeMap<RepoPath, Digest>,
}

/// Every entry of an upper folder as it is at one time.
#[derive(Debug, PartialEq, Eq)]
pub struct Mark(Entries);

type Entries = BTreeMap<RepoPath, (Kind, Stat)>;

impl Mark {
    /// Takes one.
    pub fn of(overlay: &Overlay) -> io::Result<Self> {
        let (mut entries, mut folders) = (Entries::new(), vec![RepoPath::root()]);
        while let Some(folder) = folders.pop() {
            for listed in overlay.list(&folder)? {
                let path = folder.join(&listed.name);
                let failed =
                    |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
                let Some(entry) = overlay.find(&path).map_err(failed)? else { continue };
                if matches!(entry.kind, Kind::Folder(_)) {
                    folders.push(path.clone());
                }
                // Reading changes the one, and the disk the other when it gets to writing.
                let stat = Stat { accessed: (0, 0), blocks: 0, ..entry.stat };
                entries.insert(path, (entry.kind, stat));
            }
        }
        Ok(Self(entries))
    }

    /// What is at a path.
    fn kind(&self, path: &RepoPath) -> Option<&Kind> {
        self.0.get(path).map(|(kind, _)| kind)
    }

    /// A path that is not as it was.
    fn differs(&self, now: &Self) -> Option<RepoPath> {
        let is_other = |(path, entry): &(&RepoPath, &(Kind, Stat)), other: &Self| {
            other.0.get(*path) != Some(*entry)
        };
        let changed = now.0.iter().find(|entry| is_other(entry, self));
        let found = changed.or_else(|| self.0.iter().find(|entry| is_other(entry, now)));
        found.map(|(path, _)| path.clone())
    }
}

/// Why no snapshot is made. Nothing has changed for anybody.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is nothing to record; what has changed stays so, for these reasons.
    #[error("nothing has changed that can be recorded")]
    Nothing(Vec<(RepoPath, Left)>),
    /// Programs went on changing things.
    #[error("{0} was changed meanwhile")]
    Moved(RepoPath),
    /// These files, which were to go to the outbox as they are, were opened meanwhile. They have to
    /// be [copied](Prepared::copy) first.
    #[error("files were opened meanwhile")]
    InUse(Vec<RepoPath>),
    /// These files are not recorded and show content of the base that is to go from it. They have
    /// to get bytes of their own first.
    #[error("files show what is to go")]
    Bare(Vec<RepoPath>),
    /// The changes lie above another commit than when they were prepared.
    #[error("another snapshot was made meanwhile, or a refresh")]
    OtherBase,
    /// The overlay was [left unfinished](Overlay::leave_unfinished).
    #[error("{commit} can be neither taken back nor brought to its end; mount it again for that")]
    Unfinished {
        /// The commit.
        commit: CommitId,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// A file of the overlay or of the outbox.
    #[error("{path}")]
    Disk {
        /// Which.
        path: RepoPath,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A `.dvc` file.
    #[error("{path}")]
    Record {
        /// Which.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// A manifest.
    #[error("the manifest of {path}")]
    Manifest {
        /// Of this folder.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        source: EditError,
    },
    /// The manifest is needed to tell what is where.
    #[error("a manifest cannot be read")]
    Needs(NeedsManifest),
    /// Git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The overlay as a whole.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
}

impl From<NeedsManifest> for SnapshotError {
    fn from(needs: NeedsManifest) -> Self {
        Self::Needs(needs)
    }
}

fn ended_early() -> io::Error {
    io::Error::other("a thread ended early")
}

fn disk(path: &RepoPath) -> impl Fn(io::Error) -> SnapshotError {
    move |source| SnapshotError::Disk { path: path.clone(), source }
}

/// Writes what the overlay changes at or below the chosen paths, or everywhere if there are none,
/// into the outbox and into git. The mark is from before the changes were looked for.
///
/// Files that somebody has open are in `open`; they are copied.
pub fn prepare(
    ground: &Ground<'_>,
    (mark, changes): (Mark, &Changes),
    rules: &Rules,
    (chosen, open): (&[RepoPath], &BTreeSet<RepoPath>),
) -> Result<Prepared, SnapshotError> {
    let plan = Plan::new((ground, changes), rules, chosen)?;
    let base = ground.repository.commit(ground.tree.commit)?.tree;
    // What is hashed is written to the disk meanwhile.
    let contents = thread::scope(|scope| {
        let syncing = scope.spawn(|| ground.outbox.sync());
        let contents = Contents::of(ground, &plan, open);
        let synced = syncing.join().unwrap_or_else(|_| Err(ended_early()));
        synced.map_err(disk(&RepoPath::root())).and(contents)
    })?;
    steps::reached("hashed");
    let edits = Writer::new(ground, &contents).write(&plan)?;
    let tree = ground.repository.edit_tree(Some(base), &without_replaced(edits))?;
    let left = plan.left.iter().map(|(change, left)| (change.path.clone(), left.clone())).collect();
    if tree == base {
        return Err(SnapshotError::Nothing(left));
    }
    ground.outbox.sync().map_err(disk(&RepoPath::root()))?;
    let recorded: BTreeSet<_> = plan.recorded().cloned().collect();
    let kept = kept::of(ground.tree, &mark, (&plan.left, &recorded), chosen)?;
    let (bytes, moving) = (contents.bytes, contents.moving);
    let above = ground.tree.commit;
    Ok(Prepared { tree, recorded: recorded.len(), bytes, left, above, mark, kept, moving })
}

impl Prepared {
    /// Takes files into the outbox by copies, for which they may be open.
    pub fn copy(
        &mut self,
        (overlay, outbox): (&Overlay, &Outbox),
        paths: &[RepoPath],
    ) -> Result<(), SnapshotError> {
        for path in paths {
            let copied = overlay.open_file(path, false).and_then(|file| outbox.add(file));
            if Some(copied.map_err(disk(path))?.0) != self.moving.remove(path) {
                return Err(SnapshotError::Moved(path.clone()));
            }
        }
        outbox.sync().map_err(disk(&RepoPath::root()))
    }
}

/// Leaves out what goes away by itself: a file in whose place a folder comes, and what is in a
/// folder in whose place a file comes.
fn without_replaced(edits: Edits) -> Edits {
    let stays: BTreeSet<_> = edits
        .iter()
        .filter(|(_, edit)| **edit != Edit::Removed)
        .map(|(path, _)| path.clone())
        .collect();
    let is_replaced = |path: &RepoPath| {
        path.folders().any(|folder| stays.contains(&folder))
            || stays.range::<[u8], _>(path.below()).next().is_some()
    };
    let edits = edits.into_iter();
    edits.filter(|(path, edit)| *edit != Edit::Removed || !is_replaced(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::GitId;

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_change_is_seen_by_whatever_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(dir.path()).unwrap();
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let owner = crate::overlay::Owner { uid: uid.as_raw(), gid: gid.as_raw() };
        overlay.create_file(&path("left"), 0o644, owner).unwrap();
        let before = Mark::of(&overlay).unwrap();
        assert_eq!(before.differs(&Mark::of(&overlay).unwrap()), None);
        overlay.open_file(&path("left"), true).unwrap().set_len(7).unwrap();
        assert_eq!(before.differs(&Mark::of(&overlay).unwrap()), Some(path("left")));
        overlay.take_out(&path("left")).unwrap();
        assert!(before.differs(&Mark::of(&overlay).unwrap()).is_some());
    }

    #[test]
    fn what_is_replaced_goes_by_itself() {
        let id = GitId::parse(&"1".repeat(40)).unwrap();
        let file = Edit::File { id, is_executable: false };
        let edits: Edits = [
            (path("a"), Edit::Removed),
            (path("a/b"), file.clone()),
            (path("ab"), Edit::Removed),
            (path("c"), file),
            (path("c/d"), Edit::Removed),
        ]
        .into();
        let left: Vec<_> = without_replaced(edits).into_keys().collect();
        assert_eq!(left, [path("a/b"), path("ab"), path("c")]);
    }
}
