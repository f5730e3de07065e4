//! Branches that move: reading refs anew, and telling the kernel what became of names.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::oneshot;

use super::{Event, Ino, Layout, ROOT_INO, Vfs, VfsError, names::Spot, run_blocking};
use crate::{
    git::{CommitId, Refs},
    path::escape,
    registry::Registry,
    tree::{ROOT, Tree},
};

/// What a refresh brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Whether any name stands for something else now.
    pub is_changed: bool,
    /// The commit at the root, in a mount that shows one revision.
    pub commit: Option<CommitId>,
}

/// Reads every ref of a repository. Blocks on git.
pub(super) fn read_refs(registry: &Registry) -> Result<Refs, VfsError> {
    Ok(registry.repository().refs()?)
}

impl Vfs {
    /// Asks upstream for new commits and takes over what it says.
    ///
    /// Names above commits move at once. In a mount of one followed branch the new tree is built
    /// first, whole, and then put at the root; the kernel is told afterwards. Tags and commits
    /// never move.
    pub async fn refresh(&self) -> Result<Refreshed, VfsError> {
        let _turn = self.refreshing.lock().await;
        let registry = Arc::clone(&self.registry);
        let refs = run_blocking(move || {
            registry.fetch().map_err(|error| VfsError::Upstream(Arc::new(error)))?;
            read_refs(&registry)
        });
        let mut refs = refs.await?;
        let before = {
            let mut known = self.refs.write();
            // A tag that was shown stands for its commit as long as this is mounted.
            refs.tags.extend(known.tags.iter().map(|(name, commit)| (name.clone(), *commit)));
            std::mem::replace(&mut *known, Arc::new(refs.clone()))
        };
        tell_refused(&before, &refs);
        let mut is_changed = *before != refs;
        self.moves.fetch_add(u32::from(is_changed), Ordering::Relaxed);
        match &self.layout {
            Layout::AllRevisions if is_changed => self.tell_moved_names(&before, &refs),
            Layout::One { follows: Some(branch), .. } => {
                is_changed = self.follow(refs.branches.get(branch)).await?;
            }
            Layout::AllRevisions | Layout::One { .. } => {}
        }
        if is_changed {
            self.wait_until_told().await;
        }
        Ok(Refreshed { is_changed, commit: self.commit() })
    }

    /// Waits until the kernel knows of all that has changed.
    pub(super) async fn wait_until_told(&self) {
        let (sender, told) = oneshot::channel();
        self.tell(Event::Told(sender));
        // Nobody tells the kernel any more when the mount is being taken down.
        _ = told.await;
    }

    /// Moves the root to the commit a followed branch has now. A branch that is gone stays where
    /// it was.
    async fn follow(&self, commit: Option<&CommitId>) -> Result<bool, VfsError> {
        let Some(commit) = commit.filter(|commit| Some(**commit) != self.commit()) else {
            return Ok(false);
        };
        let tree = self.tree(*commit).await?;
        let before = self.current.read().clone();
        let mut names = root_names(&tree);
        if let Some(tree) = before.as_ref().and_then(|epoch| epoch.tree()) {
            names.extend(root_names(tree));
        }
        tracing::info!("the branch moved to {commit}");
        let registry = Arc::clone(&self.registry);
        let kept = *commit;
        run_blocking(move || {
            registry.keep(kept);
            Ok(())
        })
        .await?;
        self.make_current(tree);
        self.tell(Event::Folder { ino: ROOT_INO, names: names.into_iter().collect() });
        Ok(true)
    }

    fn tell_moved_names(&self, before: &Refs, after: &Refs) {
        for spot in self.spots.folders() {
            let old = spot.list(before);
            let new = spot.list(after);
            if old == new {
                continue;
            }
            let new: BTreeMap<_, _> = new.into_iter().collect();
            let changed = old.into_iter().filter(|(name, target)| new.get(name) != Some(target));
            let names = changed.map(|(name, _)| name.into_bytes()).collect();
            self.tell(Event::Folder { ino: self.spot_ino(&spot), names });
        }
    }

    pub(super) fn spot_ino(&self, spot: &Spot) -> Ino {
        match spot {
            Spot::Root => ROOT_INO,
            _ => self.table.name(&spot.path()),
        }
    }
}

/// Logs the refs that cannot be shown and were not known before.
pub(super) fn tell_refused(before: &Refs, refs: &Refs) {
    for refused in refs.refused.iter().filter(|refused| !before.refused.contains(refused)) {
        tracing::warn!("{} is not shown: {}", escape(&refused.name), refused.reason);
    }
}

/// The names at the root of a tree, as far as they are known without its manifests.
pub(super) fn root_names(tree: &Tree) -> BTreeSet<Vec<u8>> {
    let Ok(listing) = tree.listing(ROOT) else { return BTreeSet::new() };
    let mut names = BTreeSet::new();
    // Where names cannot be read, the listing is invalidated all the same.
    _ = listing.walk(0, |entry| {
        names.insert(entry.name.to_vec());
        ControlFlow::Continue(())
    });
    names
}
