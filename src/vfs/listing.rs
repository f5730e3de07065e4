//! What is in a folder.

use std::{ops::ControlFlow, sync::Arc};

use super::{
    Answer, Attr, Epoch, FileKind, Ino, ROOT_INO, Ttl, Vfs, VfsError,
    lookup::{Named, Place, Wanting},
    names::{Spot, Target},
    upper::MergedList,
};
use crate::{
    git::CommitId,
    tree::{Index, ListingEntry, Node, ROOT},
};

/// A folder that can be listed from any position on, without waiting.
pub struct Listed {
    inner: Inner,
    /// Whether this folder will never list anything else.
    pub is_fixed: bool,
}

enum Inner {
    /// What a folder above commits lists, and its inode.
    Above(Ino, Vec<Above>),
    Below(Arc<Epoch>, Index),
    Merged(MergedList),
}

/// A listed name above commits.
struct Above {
    name: String,
    ino: Ino,
    what: What,
}

enum What {
    Named(Named),
    Commit(CommitId),
}

/// One name in a listing.
#[derive(Debug, Clone)]
pub struct DirEntry<'a> {
    /// Where the listing goes on after this name.
    pub next: u64,
    /// The name.
    pub name: &'a [u8],
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    pub(super) node: Option<Node>,
}

impl Vfs {
    /// Prepares a folder's listing from a position on; its manifest is fetched if need be.
    pub fn list(&self, ino: Ino, position: u64) -> Answer<Listed> {
        if self.is_merged(ino) {
            let merged = |list| Listed { inner: Inner::Merged(list), is_fixed: false };
            return self.list_merged(ino, position).map(merged);
        }
        match self.place(ino) {
            Err(error) => Answer::Now(Err(error)),
            Ok(Place::Named(Named::Folder(spot))) => Answer::Now(Ok(self.list_above(&spot))),
            Ok(Place::Named(Named::Link(_)) | Place::Report) => {
                Answer::Now(Err(VfsError::NotAFolder))
            }
            Ok(Place::Node(epoch, index)) => self.list_below(ino, epoch, index, position),
        }
    }

    fn list_below(
        &self,
        ino: Ino,
        epoch: Arc<Epoch>,
        index: Index,
        position: u64,
    ) -> Answer<Listed> {
        let is_fixed = ino != ROOT_INO || !self.can_move();
        match is_at_hand(&epoch, index, position) {
            Ok(()) => Answer::Now(listed(epoch, index, is_fixed)),
            Err(mut wanting) => {
                let vfs = self.myself();
                Answer::later(async move {
                    loop {
                        vfs.provide(&epoch, wanting).await?;
                        match is_at_hand(&epoch, index, position) {
                            Ok(()) => return listed(epoch, index, is_fixed),
                            Err(still) => wanting = still,
                        }
                    }
                })
            }
        }
    }

    fn list_above(&self, spot: &Spot) -> Listed {
        let refs = Arc::clone(&self.refs.read());
        let folder = spot.path();
        let entries = spot.list(&refs).into_iter().filter_map(|(name, target)| {
            let place = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let (ino, what) = match target {
                Target::Commit(commit) => {
                    (Ino::new(self.table.slot(commit, &place)?, ROOT), What::Commit(commit))
                }
                Target::Link(to) => (self.table.name(&place), What::Named(Named::Link(to))),
                Target::Folder(spot) => (self.table.name(&place), What::Named(Named::Folder(spot))),
                Target::Revision(_) | Target::ShortHash(_) | Target::Report(_) => return None,
            };
            Some(Above { name, ino, what })
        });
        Listed { inner: Inner::Above(self.spot_ino(spot), entries.collect()), is_fixed: false }
    }

    /// Walks a listing from a position on until `take` says enough.
    ///
    /// What fails on the way is had again for the next [`Vfs::list`] from where this came to.
    pub fn walk(
        &self,
        listed: &Listed,
        position: u64,
        mut take: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        match &listed.inner {
            Inner::Above(_, entries) => {
                for (at, above) in entries.iter().enumerate().skip(position as usize) {
                    let (name, ino, kind) = (above.name.as_bytes(), above.ino, above.what.kind());
                    if !take(DirEntry { next: at as u64 + 1, name, ino, kind, node: None }) {
                        break;
                    }
                }
                Ok(())
            }
            Inner::Merged(list) => self.walk_merged(list, position, take),
            Inner::Below(epoch, index) => {
                let tree = epoch.tree().ok_or(VfsError::Stale)?;
                self.sizing.listed(Ino::new(epoch.slot, *index));
                let walked = tree.listing(*index)?.walk(position, |entry| {
                    let ListingEntry { next, index, node, name } = entry;
                    if !self.is_shown(tree, index, node) {
                        return ControlFlow::Continue(());
                    }
                    let (ino, kind) = (Ino::new(epoch.slot, index), kind_of(node));
                    let wants_more = take(DirEntry { next, name, ino, kind, node: Some(node) });
                    if wants_more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                Ok(walked?)
            }
        }
    }

    /// The attributes of a listed entry, and how long entry and attributes hold.
    ///
    /// The kernel holds one look-up of it, until [`Vfs::forget`]: an entry that is not told after
    /// all is to be forgotten by the caller.
    pub fn enter_listed(&self, listed: &Listed, entry: &DirEntry<'_>) -> Option<(Attr, Ttl)> {
        match &listed.inner {
            Inner::Merged(list) => self.enter_merged(list, entry),
            Inner::Below(epoch, _) => {
                // What cannot be told now is asked again, and fails then: it is there all the same.
                let unknown = || (self.unknown_attr(entry.ino, entry.kind), Ttl::None);
                let (tree, node) = epoch.tree().zip(entry.node)?;
                let found = self.attr_of(epoch, tree, entry.ino.index(), node);
                self.epochs.count_lookup(epoch);
                Some(found.unwrap_or_else(|_| unknown()))
            }
            Inner::Above(folder, entries) => match entries.get(entry.next as usize - 1)? {
                Above { what: What::Named(named), .. } => {
                    self.spots.enter(entry.ino, named);
                    Some((self.named_attr(entry.ino, named), Ttl::Second))
                }
                Above { what: What::Commit(commit), name, .. } => {
                    let epoch = self.epochs.enter(entry.ino.slot(), *commit, (*folder, name));
                    let found = self.node_attr(&epoch, ROOT);
                    if found.is_err() {
                        self.epochs.forget(epoch.slot, 1);
                    }
                    Some((found.ok()?.0, Ttl::Second))
                }
            },
        }
    }
}

impl What {
    fn kind(&self) -> FileKind {
        match self {
            Self::Named(Named::Link(_)) => FileKind::Link,
            Self::Named(Named::Folder(_)) | Self::Commit(_) => FileKind::Folder,
        }
    }
}

/// Whether all is here that listing a node from a position on takes.
fn is_at_hand(epoch: &Epoch, index: Index, position: u64) -> Result<(), Wanting> {
    let tree = epoch.tree().ok_or(Wanting::Tree)?;
    tree.listing(index).and_then(|listing| listing.probe(position)).map_err(Wanting::from)
}

fn listed(epoch: Arc<Epoch>, index: Index, is_fixed: bool) -> Result<Listed, VfsError> {
    let tree = epoch.tree().ok_or(VfsError::Stale)?;
    match tree.node(index)? {
        Some(Node::Folder { .. }) if tree.is_unreadable(index) => {
            Err(VfsError::unreadable_folder(tree, index))
        }
        Some(Node::Folder { .. }) => Ok(Listed { inner: Inner::Below(epoch, index), is_fixed }),
        _ => Err(VfsError::NotAFolder),
    }
}

pub(super) fn kind_of(node: Node) -> FileKind {
    match node {
        Node::GitFile { .. } | Node::Blob { .. } => FileKind::File,
        Node::Link(_) => FileKind::Link,
        Node::Folder { .. } => FileKind::Folder,
    }
}
