//! From a folder and a name to a node.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use super::{
    Answer, Attr, Epoch, Event, Ino, Layout, ROOT_INO, Ttl, Vfs, VfsError,
    names::{Spot, Target, lookup_beside_tree},
    reports::Reports,
};
use crate::{
    git::{CommitId, GitId},
    path::RepoPath,
    tree::{Index, NeedsManifest, Node, OutputId, ROOT, Tree},
};

/// What a name turned out to be, and how long the kernel may keep that.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// A node.
    Found {
        /// Its attributes.
        attr: Attr,
        /// How long the name stands for it.
        entry_ttl: Ttl,
        /// How long the attributes hold.
        attr_ttl: Ttl,
    },
    /// No such name, for this long.
    Absent(Ttl),
}

/// Names above commits that the kernel knows: what their inodes stand for, and how many look-ups of
/// each it holds.
#[derive(Debug, Default)]
pub(super) struct Spots(RwLock<HashMap<Ino, (Named, u64)>>);

impl Spots {
    /// The kernel is about to be answered with a name.
    pub(super) fn enter(&self, ino: Ino, named: &Named) {
        let mut spots = self.0.write();
        let (known, lookups) = spots.entry(ino).or_insert_with(|| (named.clone(), 0));
        known.clone_from(named);
        *lookups += 1;
    }

    /// The kernel has forgotten look-ups; a name that has none left is dropped.
    fn forget(&self, ino: Ino, count: u64) {
        let mut spots = self.0.write();
        if let Some((_, lookups)) = spots.get_mut(&ino) {
            *lookups = lookups.saturating_sub(count);
            if *lookups == 0 {
                spots.remove(&ino);
            }
        }
    }

    fn find(&self, ino: Ino) -> Option<Named> {
        self.0.read().get(&ino).map(|(named, _)| named.clone())
    }

    /// How many names the kernel knows.
    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// The folders above commits that the kernel may hold a listing of.
    pub(super) fn folders(&self) -> Vec<Spot> {
        let folder = |named: &Named| match named {
            Named::Folder(spot) => Some(spot.clone()),
            Named::Link(_) => None,
        };
        let spots = self.0.read();
        let known = spots.values().filter_map(|(named, _)| folder(named));
        std::iter::once(Spot::Root).chain(known).collect()
    }
}

/// What an inode above commits is.
#[derive(Debug, Clone)]
pub(super) enum Named {
    Folder(Spot),
    Link(String),
}

/// What has to be had before a question can be answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanting {
    Tree,
    /// Attached, or made again where what it was compiled to cannot be read.
    Manifest(OutputId),
}

impl From<NeedsManifest> for Wanting {
    fn from(NeedsManifest(output): NeedsManifest) -> Self {
        Self::Manifest(output)
    }
}

/// What an inode is.
pub(super) enum Place {
    Named(Named),
    Report,
    Node(Arc<Epoch>, Index),
}

impl Vfs {
    /// Looks a name up. The kernel holds one look-up of what is found, until [`Vfs::forget`].
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Answer<Lookup> {
        if let (ROOT_INO, Layout::One { .. }, Some(spot)) =
            (parent, &self.layout, lookup_beside_tree(name))
        {
            return Answer::Now(Ok(self.found_named(&Named::Folder(spot.clone()), &spot.path())));
        }
        if self.is_merged(parent) {
            return self.lookup_merged(parent, name);
        }
        match self.place(parent) {
            Err(error) => Answer::Now(Err(error)),
            Ok(Place::Named(Named::Folder(spot))) => self.lookup_above(&spot, name),
            Ok(Place::Named(Named::Link(_)) | Place::Report) => {
                Answer::Now(Err(VfsError::NotAFolder))
            }
            Ok(Place::Node(epoch, folder)) => self.lookup_below(parent, epoch, folder, name),
        }
    }

    /// What an inode stands for.
    pub(super) fn place(&self, ino: Ino) -> Result<Place, VfsError> {
        if ino == ROOT_INO {
            return Ok(match self.current.read().as_ref() {
                Some(epoch) => Place::Node(Arc::clone(epoch), ROOT),
                None => Place::Named(Named::Folder(Spot::Root)),
            });
        }
        if ino.slot() != 0 {
            let epoch = self.epochs.find(ino.slot()).ok_or(VfsError::Stale)?;
            return Ok(Place::Node(epoch, ino.index()));
        }
        if Reports::contains(ino) {
            return Ok(Place::Report);
        }
        self.spots.find(ino).map(Place::Named).ok_or(VfsError::Stale)
    }

    fn lookup_below(
        &self,
        parent: Ino,
        epoch: Arc<Epoch>,
        folder: Index,
        name: &[u8],
    ) -> Answer<Lookup> {
        match self.try_lookup(parent, &epoch, folder, name) {
            Ok(found) => Answer::Now(found),
            Err(mut wanting) => {
                let (vfs, name) = (self.myself(), name.to_vec());
                Answer::later(async move {
                    loop {
                        vfs.provide(&epoch, wanting).await?;
                        match vfs.try_lookup(parent, &epoch, folder, &name) {
                            Ok(found) => return found,
                            Err(still) => wanting = still,
                        }
                    }
                })
            }
        }
    }

    /// Looks a name up below a commit, or tells what has to be had for that.
    fn try_lookup(
        &self,
        parent: Ino,
        epoch: &Arc<Epoch>,
        folder: Index,
        name: &[u8],
    ) -> Result<Result<Lookup, VfsError>, Wanting> {
        let tree = epoch.tree().ok_or(Wanting::Tree)?;
        let child = tree.child(folder, name).map_err(Wanting::from)?;
        match self.answer_child(parent, epoch, folder, child) {
            Err(VfsError::Compiled(output)) => Err(Wanting::Manifest(output)),
            answer => Ok(answer),
        }
    }

    fn answer_child(
        &self,
        parent: Ino,
        epoch: &Arc<Epoch>,
        folder: Index,
        child: Option<Index>,
    ) -> Result<Lookup, VfsError> {
        let tree = epoch.tree().ok_or(VfsError::Stale)?;
        if child.is_none() && tree.is_unreadable(folder) {
            return Err(VfsError::unreadable_folder(tree, folder));
        }
        let node = child.map(|child| tree.node(child)).transpose()?.flatten();
        let shown = child.zip(node).filter(|(child, node)| self.is_shown(tree, *child, *node));
        let Some((child, node)) = shown else {
            // The root of a followed branch keeps its number when the tree below it changes, and
            // a name that was never there cannot be invalidated.
            return Ok(Lookup::Absent(if parent == ROOT_INO { Ttl::None } else { Ttl::Forever }));
        };
        let (attr, attr_ttl) = self.attr_of(epoch, tree, child, node)?;
        self.epochs.count_lookup(epoch);
        Ok(Lookup::Found { attr, entry_ttl: Ttl::Forever, attr_ttl })
    }

    /// Gets what a question was wanting. Asked again it may want the next thing, of which there
    /// are two.
    pub(super) async fn provide(&self, epoch: &Epoch, wanting: Wanting) -> Result<(), VfsError> {
        match wanting {
            Wanting::Tree => {
                epoch.set_tree(self.tree(epoch.commit).await?);
                self.relieve();
                Ok(())
            }
            Wanting::Manifest(output) => {
                let tree = epoch.tree().ok_or(VfsError::Stale)?;
                self.attach_manifest(tree, output).await
            }
        }
    }

    /// Has the kernel forget the revisions that were asked for longest ago, while trees take too
    /// much. What is in use of them it keeps; the rest comes back when it is asked for.
    fn relieve(&self) {
        for epoch in self.epochs.note_built(self.options.tree_memory) {
            let (ino, name) = &epoch.place;
            self.tell(Event::Forget { ino: *ino, name: name.as_bytes().to_vec() });
        }
    }

    /// Asks once more after a compiled manifest was made again, which happens once: where it
    /// cannot be read then either, that is the answer.
    pub(super) fn after_mending<T: Send + 'static>(
        &self,
        epoch: Arc<Epoch>,
        output: OutputId,
        again: impl FnOnce(&Self) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let vfs = self.myself();
        Answer::later(async move {
            vfs.provide(&epoch, Wanting::Manifest(output)).await?;
            again(&vfs).wait().await
        })
    }

    /// [`Self::is_shown`] for a node that is not at hand. Only links of git's may be hidden, and to
    /// know one takes no manifest.
    pub(super) fn is_index_shown(&self, tree: &Tree, index: Index) -> bool {
        match tree.node(index) {
            Ok(Some(node)) => self.is_shown(tree, index, node),
            Ok(None) | Err(_) => true,
        }
    }

    /// Whether a node is shown at all: links that leave the tree may be hidden.
    pub(super) fn is_shown(&self, tree: &Tree, index: Index, node: Node) -> bool {
        let Node::Link(id) = node else { return true };
        if !self.options.only_inner_links {
            return true;
        }
        // Links are git's, so no manifest is needed for this.
        let Ok(folder) = tree.parent(index).and_then(|folder| tree.path(folder)) else {
            return false;
        };
        self.link_target(id).is_ok_and(|target| stays_inside(&folder, &target))
    }

    fn lookup_above(&self, spot: &Spot, name: &[u8]) -> Answer<Lookup> {
        let refs = Arc::clone(&self.refs.read());
        let Some(target) = spot.lookup(&refs, name) else {
            return Answer::Now(Ok(Lookup::Absent(Ttl::None)));
        };
        let name = String::from_utf8_lossy(name);
        let place =
            if *spot == Spot::Root { name.into() } else { format!("{}/{name}", spot.path()) };
        match target {
            Target::Folder(folder) => {
                Answer::Now(Ok(self.found_named(&Named::Folder(folder), &place)))
            }
            Target::Link(target) => Answer::Now(Ok(self.found_named(&Named::Link(target), &place))),
            Target::Report(kind) => Answer::Now(Ok(self.found_report(kind))),
            Target::Commit(commit) => Answer::Now(self.found_commit(commit, &place)),
            Target::Revision(revision) => {
                self.resolve_then(revision, move |vfs, commit| vfs.found_commit(commit, &place))
            }
            Target::ShortHash(hash) => self.resolve_then(hash, move |vfs, commit| {
                Ok(vfs.found_named(&Named::Link(commit.to_string()), &place))
            }),
        }
    }

    fn resolve_then(
        &self,
        revision: String,
        then: impl FnOnce(&Self, CommitId) -> Result<Lookup, VfsError> + Send + 'static,
    ) -> Answer<Lookup> {
        let vfs = self.myself();
        Answer::later(async move {
            match vfs.resolve(revision).await {
                Ok(commit) => then(&vfs, commit),
                Err(VfsError::NotFound) => Ok(Lookup::Absent(Ttl::None)),
                Err(error) => Err(error),
            }
        })
    }

    fn found_named(&self, named: &Named, path: &str) -> Lookup {
        let ino = self.table.name(path);
        self.spots.enter(ino, named);
        let attr = self.named_attr(ino, named);
        Lookup::Found { attr, entry_ttl: Ttl::Second, attr_ttl: Ttl::Second }
    }

    fn found_commit(&self, commit: CommitId, place: &str) -> Result<Lookup, VfsError> {
        let slot = self.table.slot(commit, place).ok_or(VfsError::Numberless)?;
        let (folder, name) = place.rsplit_once('/').unwrap_or(("", place));
        let folder = if folder.is_empty() { ROOT_INO } else { self.table.name(folder) };
        let epoch = self.epochs.enter(slot, commit, (folder, name));
        let (attr, attr_ttl) = self.node_attr(&epoch, ROOT).inspect_err(|_| {
            self.epochs.forget(epoch.slot, 1);
        })?;
        Ok(Lookup::Found { attr, entry_ttl: Ttl::Second, attr_ttl })
    }

    /// The kernel has forgotten `count` look-ups of an inode.
    pub fn forget(&self, ino: Ino, count: u64) {
        if self.forget_own(ino, count) {
            return;
        }
        match ino.slot() {
            0 if Reports::contains(ino) => self.reports.forget(ino),
            0 => self.spots.forget(ino, count),
            slot => self.epochs.forget(slot, count),
        }
    }

    /// Where a link leads.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        if let Some(target) = self.own_link(ino)? {
            return Ok(target);
        }
        match self.place(ino)? {
            Place::Named(Named::Link(target)) => Ok(target.into_bytes()),
            Place::Node(epoch, index) => {
                match epoch.tree().map(|tree| tree.node(index)).transpose()?.flatten() {
                    Some(Node::Link(id)) => self.link_target(id),
                    _ => Err(VfsError::NotALink),
                }
            }
            Place::Named(Named::Folder(_)) | Place::Report => Err(VfsError::NotALink),
        }
    }

    pub(super) fn link_target(&self, id: GitId) -> Result<Vec<u8>, VfsError> {
        /// The longest target Linux follows.
        const PATH_MAX: u64 = 4096;
        Ok(self.registry.repository().blob(id, PATH_MAX)?)
    }
}

/// Whether a link in `folder` stays within its tree, whatever its names turn out to be: a `..` may
/// lead anywhere once the link has passed through another one.
fn stays_inside(folder: &RepoPath, target: &[u8]) -> bool {
    let mut components = target.split(|byte| *byte == b'/');
    let is_name = |component: &&[u8]| !matches!(*component, b"" | b"." | b"..");
    let goes_back = components.by_ref().any(|component| is_name(&component))
        && components.any(|component| component == b"..");
    !goes_back && folder.resolve(target).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_could_leave_the_tree_are_no_inner_links() {
        let folder = RepoPath::new(b"a/b").unwrap();
        for inside in ["x", "../x/y", "../../x", "./x", "."] {
            assert!(stays_inside(&folder, inside.as_bytes()), "{inside}");
        }
        for outside in ["/etc", "../../../x", "e/f/..", "x/../../../../y", "../x/.."] {
            assert!(!stays_inside(&folder, outside.as_bytes()), "{outside}");
        }
    }
}
