//! What is in a folder of the merged view.

use std::ops::ControlFlow;

use super::{
    super::{Answer, Attr, DirEntry, FileKind, Ino, Ttl, Vfs, VfsError, listing::kind_of},
    Stop, View,
    names::Names,
    view::Standing,
};
use crate::{
    overlay::{Kind, Listed, ListedKind, Shows},
    path::Name,
    tree::{Index, ListingEntry},
};

/// A listing that was begun: the names of the upper folder as they were then, and after them those
/// of the base that they do not hide.
pub(in super::super) struct MergedList {
    folder: Ino,
    upper: Vec<Listed>,
    base: Option<Index>,
    /// How often something had changed by then.
    changes: u64,
}

impl Vfs {
    pub(in super::super) fn list_merged(&self, folder: Ino, position: u64) -> Answer<MergedList> {
        self.ask(move |view| {
            let names = view.upper.names.lock();
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
            Ok(MergedList { folder, upper, base, changes })
        })
    }

    /// Walks a listing from a position on until `take` says enough.
    pub(in super::super) fn walk_merged(
        &self,
        list: &MergedList,
        position: u64,
        mut take: impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<(), VfsError> {
        let Ok(view) = self.view() else { return Ok(()) };
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
        let Some(index) = list.base else { return Ok(()) };
        let listing = view.tree.listing(index)?;
        self.sizing.listed(view.ino_of(index));
        let walked = listing.walk(position.saturating_sub(above), |entry| {
            let ListingEntry { next, index, node, name } = entry;
            if list.hides(name) || !self.is_shown(view.tree, index, node) {
                return ControlFlow::Continue(());
            }
            let (next, ino, kind) = (above + next, view.ino_of(index), kind_of(node));
            let wants_more = take(DirEntry { next, name, ino, kind, node: Some(node) });
            if wants_more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        Ok(walked?)
    }

    /// The attributes of a listed entry as it is now; the kernel holds one look-up of it.
    pub(in super::super) fn enter_merged(
        &self,
        list: &MergedList,
        entry: &DirEntry<'_>,
    ) -> Option<(Attr, Ttl)> {
        let view = self.view().ok()?;
        let mut names = view.upper.names.lock();
        if entry.next > list.upper.len() as u64 && names.changes() == list.changes {
            // What cannot be told now is asked again, and fails then: it is there all the same.
            let unknown = || (self.unknown_attr(entry.ino, entry.kind), Ttl::None);
            let found = view.base_attr(view.index_of(entry.ino)?);
            view.count_lookup(&mut names, entry.ino);
            return Some(found.unwrap_or_else(|_| unknown()));
        }
        let name = Name::new(entry.name).ok()?;
        let child = view.present(&names, list.folder, &name).ok()?;
        view.enter(&mut names, (list.folder, &name), &child).ok()
    }
}

impl MergedList {
    fn hides(&self, name: &[u8]) -> bool {
        self.upper.binary_search_by(|listed| listed.name.as_bytes().cmp(name)).is_ok()
    }
}

impl View<'_> {
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
        for listed in unknown {
            let entry = self.upper.overlay.find(&path.join(&listed.name))?;
            let kind = entry.map(|entry| entry.kind);
            if let Some(Kind::Folder(Shows::Of(origin)) | Kind::File { origin: Some(origin) }) =
                kind
            {
                self.base_at(&origin)?;
            }
        }
        Ok(())
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
