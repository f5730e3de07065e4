//! Upstream's commits below the changes of a mount: merging them with its own commits, and having
//! its changes lie above another one.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    discard::still_open,
    exit::{Code, Failure, chain},
    mounts::short_name,
    refresh::{Refreshed, told},
    snapshot::Snapshots,
    unpushed,
};
use crate::{
    git::{CommitId, GitError, GitTreeId},
    id::BlobId,
    overlay::{Base, Overlay, OverlayError},
    path::RepoPath,
    publish::{self, Conflict, MergeError, MergeGround, Merged, Rebase, RebaseError, Tracked},
    steps,
    tree::Tree,
    vfs::{Rebased, VfsError},
};

/// Why changes cannot lie above another commit.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("both sides changed the same paths")]
    Conflicts(Vec<Conflict>),
    #[error(transparent)]
    Plan(#[from] RebaseError),
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Vfs(VfsError),
    #[error("the overlay notes no base")]
    NoBase,
    #[error("the mount shows no single revision")]
    NoRevision,
    #[error("the snapshot {0} was made meanwhile; run it again")]
    Newer(CommitId),
    #[error("{0}")]
    Other(String),
}

impl Snapshots {
    /// Merges a commit of ours with one of upstream's.
    pub(super) fn merge(&self, ours: CommitId, theirs: CommitId) -> Result<Merged, Failure> {
        let manifest = |tracked: &Tracked<'_>| {
            let read = self.vfs.manifest_of(tracked.project, tracked.output);
            self.runtime.block_on(read).map_err(std::io::Error::other)
        };
        let size = |tracked: &Tracked<'_>, blobs: &[BlobId]| {
            self.runtime.block_on(self.vfs.size_of(tracked.project, tracked.output, blobs))
        };
        let ground = MergeGround {
            repository: self.registry.repository(),
            outbox: self.outbox.as_ref().map_err(|why| Failure::new(Code::Failed, why))?,
            manifest: &manifest,
            size: &size,
        };
        Ok(publish::merge(&ground, ours, theirs)?)
    }

    /// Has the changes of this mount lie above `commit`, in which its commits that are not pushed
    /// are, if it has such.
    pub(super) fn move_to(&self, commit: CommitId) -> Result<Refreshed, Failure> {
        let old = self.vfs.root_tree().ok_or(Stop::NoRevision)?;
        let new = self.runtime.block_on(self.vfs.tree(commit))?;
        let moved = loop {
            let moved = self.try_to_move(&old, &new);
            let (tree, needs) = match moved {
                Err(Stop::Plan(RebaseError::NeedsOld(needs))) => (&old, needs),
                Err(Stop::Plan(RebaseError::NeedsNew(needs))) => (&new, needs),
                Err(Stop::Conflicts(conflicts)) => {
                    break Ok(Refreshed::Conflicts { paths: told(&conflicts), commit: None });
                }
                moved => break moved,
            };
            self.runtime.block_on(self.vfs.manifest(tree, needs.0))?;
        };
        if !matches!(moved, Ok(Refreshed::Done { .. })) {
            self.registry.keep(old.commit);
        }
        Ok(moved?)
    }

    fn try_to_move(&self, old: &Arc<Tree>, new: &Arc<Tree>) -> Result<Refreshed, Stop> {
        if let Some(overlay) = self.vfs.overlay() {
            check(overlay, old, new)?;
        }
        let (registry, commit) = (Arc::clone(&self.registry), new.commit);
        if self.unpushed().map_err(Stop::Other)?.is_some() {
            self.keep_taken().map_err(Stop::Other)?;
        }
        // Only the note of the base holds it for a moment.
        registry.keep(commit);
        registry.repository().sync()?;
        let trees = (Arc::clone(old), Arc::clone(new));
        let edit = move |overlay: &Overlay, _: &BTreeSet<RepoPath>| {
            let (repository, name) = (registry.repository(), short_name(overlay.dir()));
            let noted = overlay.base()?.ok_or(Stop::NoBase)?;
            let mut base = Base { commit: commit.to_string(), ..noted.clone() };
            match unpushed::newest(repository, &name, Some(&noted))? {
                Some(ours) if !repository.builds_on(commit, ours)? => {
                    return Err(Stop::Newer(ours));
                }
                Some(_) => base.since = base.since.or(Some(noted.commit)),
                None => base.seen.clear(),
            }
            unpushed::look(repository, &mut base)?;
            // A program may have changed something since.
            check(overlay, &trees.0, &trees.1)?.prepare(overlay).map_err(RebaseError::from)?;
            steps::reached("move prepared");
            overlay.set_base(&base)?;
            steps::reached("move noted");
            // It is done, and the refs are moved by whoever asks for them.
            if let Err(error) = unpushed::newest(repository, &name, Some(&base)) {
                tracing::warn!("{error}");
            }
            steps::reached("move kept");
            Ok::<_, Stop>(())
        };
        let _turn = self.below.lock();
        match self.runtime.block_on(self.vfs.rebase(commit, None, edit)) {
            Ok(Rebased::Done(done)) => {
                done?;
                self.forget_prepared();
                Ok(Refreshed::Done { changed: true })
            }
            Ok(Rebased::Open(open)) => Ok(Refreshed::Busy(still_open(&open))),
            Ok(Rebased::Written) => Ok(Refreshed::Busy("files were written meanwhile".to_owned())),
            Err(error) => Err(Stop::Vfs(error)),
        }
    }

    /// Remembers that a commit of this tree is to be made.
    pub(super) fn expect_merge(&self, tree: GitTreeId) {
        *self.merging.lock() = Some(tree);
    }

    /// Whether a commit of this tree was to be made.
    pub(super) fn is_expected_merge(&self, tree: GitTreeId) -> bool {
        self.merging.lock().take() == Some(tree)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        let code = match stop {
            Stop::Overlay(error) => return error.into(),
            Stop::Git(error) => return error.into(),
            Stop::Vfs(error) => return error.into(),
            Stop::Conflicts(_) => Code::Conflict,
            Stop::NoRevision => Code::Usage,
            Stop::Newer(_) => Code::Busy,
            Stop::Plan(_) | Stop::NoBase | Stop::Other(_) => Code::Failed,
        };
        Self::new(code, chain(&stop))
    }
}

impl From<MergeError> for Failure {
    fn from(error: MergeError) -> Self {
        let code = match error {
            MergeError::Git(error) => return error.into(),
            MergeError::Unrelated { .. } => Code::Conflict,
            MergeError::Disk { ref source, .. } => {
                let below = source.get_ref().and_then(|below| below.downcast_ref::<VfsError>());
                below.map_or(Code::Failed, |below| Self::from(below.clone()).code)
            }
            MergeError::Folder { .. } => Code::Repository,
            MergeError::Record { .. } | MergeError::Manifest { .. } => Code::Failed,
        };
        Self::new(code, chain(&error))
    }
}

fn check(overlay: &Overlay, old: &Tree, new: &Tree) -> Result<Rebase, Stop> {
    let rebase = Rebase::plan(overlay, old, new)?;
    if rebase.conflicts.is_empty() { Ok(rebase) } else { Err(Stop::Conflicts(rebase.conflicts)) }
}
