//! What is in a folder of the merged view.

use std::ops::ControlFlow;

use super::{
    super::{
        Answer, Attr, DirEntry, FileKind, Ino, Ttl, Vfs, VfsError, inodes::Slot, listing::kind_of,
    },
    Stop, View,
    names::Names,
    view::Standing,
};
use crate::{
    overlay::{Listed, ListedKind},
    path::Name,
    tree::{Index, ListingEntry, NeedsManifest},
};

/// A listing that was begun: the names of the upper folder as they were then, and after them those
/// of the base that they do not hide.
pub(in super::super) struct MergedList {
    folder: Ino,
    upper: Vec<Listed>,
    base: Option<Index>,
    /// How often something had changed by then.
    changes: u64,
    /// The base that it was begun above.
    slot: Slot,
}

impl Vfs {
    pub(in super::super) fn list_merged(&self, folder: Ino, position: u64) -> Answer<MergedList> {
        self.ask(move |view| {
            let names = view.names()?;
            let changes = names.changes();
            let base = view.index_of(folder);
            if let Some(index) = base {
                view.tree.listing(index)?;
                if view.tree.is_unreadable(index) {
                    return Err(VfsError::unreadable_folder(view.tree, index).into());
                }
            }
            let upper = match view.standing(&names, folder)? {
                Standing::Upper(path, _) => view.upper.overlay.list(&path)?,
                Standing::Base(..) | Standing::Gone(_) => Vec::new(),
            };
            view.require_origins(&names, folder, &upper)?;
            if let Some(index) = base {
                view.tree.listing(index)?.probe(position.saturating_sub(upper.len() as u64))?;
            }
            Ok(MergedList { folder, upper, base, changes, slot: view.epoch.slot })
        })
    }

    /// Walks a listing from a position on until `take` says enough.
    pub(in super::super) fn walk_merged(
        &self,
        list: &MergedList,
        position: u64,
        mut take: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        // A listing that was begun above another base goes on with what it has.
        self.on_disk(|view| Ok(view.walk(list, position, &mut take)?))
    }

    /// The attributes of a listed entry as it is now; the kernel holds one look-up of it.
    pub(in super::super) fn enter_merged(
        &self,
        list: &MergedList,
        entry: &DirEntry<'_>,
    ) -> Option<(Attr, Ttl)> {
        self.with_view(|view| view.enter_listed(list, entry)).ok()
    }
}

impl MergedList {
    fn hides(&self, name: &[u8]) -> bool {
        self.upper.binary_search_by(|listed| listed.name.as_bytes().cmp(name)).is_ok()
    }
}

impl View<'_> {
    fn walk(
        &self,
        list: &MergedList,
        position: u64,
        take: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), NeedsManifest> {
        let above = list.upper.len() as u64;
        for (at, listed) in list.upper.iter().enumerate().skip(position as usize) {
            let Some(kind) = kind_above(listed.kind) else { continue };
            let (next, name) = (at as u64 + 1, listed.name.as_bytes());
            // Whoever wants to know it looks it up.
            let ino = Ino(u64::MAX - next);
            if !take(DirEntry { next, name, ino, kind, node: None }) {
                return Ok(());
            }
        }
        let Some(index) = list.base.filter(|_| list.slot == self.epoch.slot) else {
            return Ok(());
        };
        let listing = self.tree.listing(index)?;
        self.vfs.sizing.listed(self.ino_of(index));
        listing.walk(position.saturating_sub(above), |entry| {
            let ListingEntry { next, index, node, name } = entry;
            if list.hides(name) || !self.vfs.is_shown(self.tree, index, node) {
                return ControlFlow::Continue(());
            }
            let (next, ino, kind) = (above + next, self.ino_of(index), kind_of(node));
            let wants_more = take(DirEntry { next, name, ino, kind, node: Some(node) });
            if wants_more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    }

    fn enter_listed(&self, list: &MergedList, entry: &DirEntry<'_>) -> Result<(Attr, Ttl), Stop> {
        let mut names = self.names()?;
        if entry.next > list.upper.len() as u64 && names.changes() == list.changes {
            let index = self.index_of(entry.ino).ok_or(VfsError::NotFound)?;
            // What cannot be told now is asked again, and fails then: it is there all the same.
            let unknown = || (self.vfs.unknown_attr(entry.ino, entry.kind), Ttl::None);
            let found = self.base_attr(index);
            self.count_lookup(&mut names, entry.ino);
            return Ok(found.unwrap_or_else(|_| unknown()));
        }
        let name = Name::new(entry.name).ok().ok_or(VfsError::NotFound)?;
        let child = self.present(&names, list.folder, &name)?;
        self.enter(&mut names, (list.folder, &name), &child)
    }

    /// Checks that the base can tell of all that comes from elsewhere in it, so that walking the
    /// listing needs nothing more.
    fn require_origins(&self, names: &Names, folder: Ino, upper: &[Listed]) -> Result<(), Stop> {
        let may_come = |listed: &&Listed| {
            let has_content = matches!(listed.kind, ListedKind::File | ListedKind::Folder);
            has_content && names.find(folder, &listed.name).is_none()
        };
        let mut unknown = upper.iter().filter(may_come).peekable();
        if unknown.peek().is_none() {
            return Ok(());
        }
        let path = self.path(names, folder)?;
        let origins = self.upper.overlay.origins(&path, unknown.map(|listed| &listed.name))?;
        origins.iter().try_for_each(|origin| self.base_at(origin).map(drop))
    }

    /// Whether a folder shows anything of the base beside the names that the upper folder has.
    pub(super) fn shows_any_of_base(&self, folder: Ino, upper: &[Listed]) -> Result<bool, Stop> {
        let Some(index) = self.index_of(folder) else { return Ok(false) };
        let is_above =
            |name: &[u8]| upper.binary_search_by(|listed| listed.name.as_bytes().cmp(name)).is_ok();
        let mut shows_any = self.tree.is_unreadable(index);
        self.tree.listing(index)?.walk(0, |entry| {
            let is_shown = self.vfs.is_shown(self.tree, entry.index, entry.node);
            if is_above(entry.name) || !is_shown {
                return ControlFlow::Continue(());
            }
            shows_any = true;
            ControlFlow::Break(())
        })?;
        Ok(shows_any)
    }
}

fn kind_above(kind: ListedKind) -> Option<FileKind> {
    match kind {
        ListedKind::Whiteout => None,
        ListedKind::File => Some(FileKind::File),
        ListedKind::Folder => Some(FileKind::Folder),
        ListedKind::Link => Some(FileKind::Link),
        ListedKind::Pipe => Some(FileKind::Pipe),
    }
}
