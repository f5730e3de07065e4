//! Upstream's commits below the changes of a mount: merging them with its own commits, and having
//! its changes lie above another one.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    discard::still_open,
    exit::chain,
    refresh::{Refreshed, told},
    snapshot::{Snapshots, ref_of},
};
use crate::{
    git::{CommitId, GitError, GitTreeId},
    id::BlobId,
    overlay::{Base, Overlay, OverlayError},
    path::RepoPath,
    publish::{self, Conflict, MergeGround, Merged, Rebase, RebaseError, Tracked},
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
    #[error("{0}")]
    Outbox(String),
}

impl Snapshots {
    /// Merges a commit of ours with one of upstream's.
    pub(super) fn merge(&self, ours: CommitId, theirs: CommitId) -> Result<Merged, String> {
        let manifest = |tracked: &Tracked<'_>| {
            let read = self.vfs.manifest_of(tracked.project, tracked.output);
            self.runtime.block_on(read).map_err(std::io::Error::other)
        };
        let size = |tracked: &Tracked<'_>, blobs: &[BlobId]| {
            self.runtime.block_on(self.vfs.size_of(tracked.project, tracked.output, blobs))
        };
        let ground = MergeGround {
            repository: self.registry.repository(),
            outbox: self.outbox.as_ref().map_err(Clone::clone)?,
            manifest: &manifest,
            size: &size,
        };
        publish::merge(&ground, ours, theirs).map_err(|error| chain(&error))
    }

    /// Has the changes of this mount lie above `commit`, which is to be pushed in the place of `ours`
    /// if there is such.
    pub(super) fn move_to(
        &self,
        commit: CommitId,
        ours: Option<CommitId>,
    ) -> Result<Refreshed, String> {
        let old = self.vfs.root_tree().ok_or("the mount shows no single revision")?;
        let new = self.runtime.block_on(self.vfs.tree(commit)).map_err(|error| chain(&error))?;
        loop {
            let moved = self.try_to_move(&old, &new, ours);
            let (tree, needs) = match moved {
                Err(Stop::Plan(RebaseError::NeedsOld(needs))) => (&old, needs),
                Err(Stop::Plan(RebaseError::NeedsNew(needs))) => (&new, needs),
                Err(Stop::Conflicts(conflicts)) => {
                    let paths = told(&conflicts);
                    return Ok(Refreshed::Conflicts { paths, commit: None });
                }
                moved => return moved.map_err(|error| chain(&error)),
            };
            let manifest = self.runtime.block_on(self.vfs.manifest(tree, needs.0));
            manifest.map_err(|error| chain(&error))?;
        }
    }

    fn try_to_move(
        &self,
        old: &Arc<Tree>,
        new: &Arc<Tree>,
        ours: Option<CommitId>,
    ) -> Result<Refreshed, Stop> {
        if let Some(overlay) = self.vfs.overlay() {
            check(overlay, old, new)?;
        }
        let (registry, commit) = (Arc::clone(&self.registry), new.commit);
        if ours.is_some() {
            self.keep_taken().map_err(Stop::Outbox)?;
        }
        let trees = (Arc::clone(old), Arc::clone(new));
        let edit = move |overlay: &Overlay, _: &BTreeSet<RepoPath>| {
            // A program may have changed something since.
            check(overlay, &trees.0, &trees.1)?.prepare(overlay).map_err(RebaseError::from)?;
            let base = overlay.base()?.ok_or(Stop::NoBase)?;
            let (repository, name) = (registry.repository(), ref_of(overlay.dir()));
            if ours.is_some() {
                repository.move_ref(&name, commit, ours)?;
                steps::reached("merge kept");
            }
            overlay.set_base(&Base { commit: commit.to_string(), ..base })?;
            Ok::<_, Stop>(())
        };
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

fn check(overlay: &Overlay, old: &Tree, new: &Tree) -> Result<Rebase, Stop> {
    let rebase = Rebase::plan(overlay, old, new)?;
    if rebase.conflicts.is_empty() { Ok(rebase) } else { Err(Stop::Conflicts(rebase.conflicts)) }
}
