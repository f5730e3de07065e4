//! What is at a name, and what an inode stands for now.

use super::{
    super::{Attr, FileKind, Ino, Local, Lookup, ROOT_INO, Ttl, VfsError},
    Stop, View,
    names::{Names, Seat},
};
use crate::{
    overlay::{self, Entry, Kind, Shows, Stat},
    path::{Name, RepoPath},
    tree::Index,
};

/// What both layers have at a name.
pub(super) struct Child {
    pub(super) path: RepoPath,
    pub(super) upper: Option<Entry>,
    pub(super) base: Option<Index>,
}

/// What an inode stands for.
pub(super) enum Standing {
    /// An entry of the upper folder.
    Upper(RepoPath, Entry),
    /// A node of the base, with nothing above it.
    Base(RepoPath, Index),
    /// Something that has no name any more.
    Gone(Option<Box<Attr>>),
}

/// The attributes of something, and the node whose size nobody knows yet.
pub(super) struct Seen {
    pub(super) attr: Attr,
    pub(super) ttl: Ttl,
    pub(super) unsized_node: Option<Index>,
}

impl View<'_> {
    /// The path of an inode in the merged view.
    pub(super) fn path(&self, names: &Names, ino: Ino) -> Result<RepoPath, Stop> {
        let mut below = Vec::new();
        let mut at = ino;
        while at != ROOT_INO {
            let (folder, name) = match names.seat(at) {
                Some(Seat::At(folder, name)) => (*folder, name.clone()),
                Some(Seat::Gone(_)) => return Err(VfsError::NotFound.into()),
                None => {
                    // Beside the merged view are folders in which nothing changes.
                    let is_lost = || {
                        if names.is_own(at) { VfsError::NotFound } else { VfsError::ReadOnly }
                    };
                    let index = self.index_of(at).ok_or_else(is_lost)?;
                    if !names.has_moved_folders() {
                        return Ok(append(self.base_path(index)?, &below));
                    }
                    self.base_seat(index)?
                }
            };
            below.push(name);
            at = folder;
        }
        Ok(append(RepoPath::root(), &below))
    }

    /// The folder and the name of an inode.
    pub(super) fn seat(&self, names: &Names, ino: Ino) -> Result<(Ino, Name), Stop> {
        match names.seat(ino) {
            Some(Seat::At(folder, name)) => Ok((*folder, name.clone())),
            Some(Seat::Gone(_)) => Err(VfsError::NotFound.into()),
            None => self.base_seat(self.index_of(ino).ok_or(VfsError::NotFound)?),
        }
    }

    /// What both layers have at a name.
    pub(super) fn child(&self, names: &Names, folder: Ino, name: &Name) -> Result<Child, Stop> {
        let base = self.base_child(folder, name)?;
        let path = self.path(names, folder)?.join(name);
        let upper = self.upper.overlay.find(&path)?;
        Ok(Child { path, upper, base })
    }

    /// [`Self::child`] where something has to be there.
    pub(super) fn present(&self, names: &Names, folder: Ino, name: &Name) -> Result<Child, Stop> {
        let child = self.child(names, folder, name)?;
        if self.is_shown(&child) { Ok(child) } else { Err(VfsError::NotFound.into()) }
    }

    /// Whether there is anything at a name.
    pub(super) fn is_shown(&self, child: &Child) -> bool {
        match &child.upper {
            Some(entry) => entry.kind != Kind::Whiteout,
            None => child.base.is_some_and(|index| self.vfs.is_index_shown(self.tree, index)),
        }
    }

    pub(super) fn is_folder(&self, child: &Child) -> Result<bool, Stop> {
        match (&child.upper, child.base) {
            (Some(entry), _) => Ok(matches!(entry.kind, Kind::Folder(_))),
            (None, Some(index)) => self.is_base_folder(index),
            (None, None) => Ok(false),
        }
    }

    /// The inode of what is at a name. One of the overlay's own gets its number now.
    pub(super) fn identify(
        &self,
        names: &mut Names,
        (folder, name): (Ino, &Name),
        child: &Child,
    ) -> Result<Ino, Stop> {
        if let Some(ino) = names.find(folder, name) {
            return Ok(ino);
        }
        let Some(entry) = &child.upper else {
            return Ok(self.ino_of(child.base.ok_or(VfsError::NotFound)?));
        };
        let origin = match &entry.kind {
            Kind::Folder(Shows::Same) => {
                if let Some(index) = child.base
                    && self.is_base_folder(index)?
                {
                    return Ok(self.ino_of(index));
                }
                None
            }
            Kind::Folder(Shows::Of(path)) => {
                names.note_moved_folder();
                self.base_at(path)?
            }
            Kind::File { origin: Some(path) } => self.base_at(path)?,
            _ => None,
        };
        let ino = match origin {
            Some(index) => self.ino_of(index),
            None => names.own_ino(entry.stat.inode),
        };
        names.put(ino, folder, name);
        Ok(ino)
    }

    /// The kernel is about to be told of an inode.
    pub(super) fn count_lookup(&self, names: &mut Names, ino: Ino) {
        if names.is_own(ino) {
            names.count(ino);
        } else {
            self.vfs.epochs.count_lookup(self.epoch);
        }
    }

    pub(super) fn lookup(&self, folder: Ino, name: &Name) -> Result<Lookup, Stop> {
        let mut names = self.names()?;
        let child = self.child(&names, folder, name)?;
        if !self.is_shown(&child) {
            return Ok(Lookup::Absent(Ttl::Forever));
        }
        let (attr, attr_ttl) = self.enter(&mut names, (folder, name), &child)?;
        Ok(Lookup::Found { attr, entry_ttl: Ttl::Forever, attr_ttl })
    }

    /// The attributes of what is at a name, of which the kernel is told.
    pub(super) fn enter(
        &self,
        names: &mut Names,
        (folder, name): (Ino, &Name),
        child: &Child,
    ) -> Result<(Attr, Ttl), Stop> {
        let ino = self.identify(names, (folder, name), child)?;
        let seen = self.attr_of(ino, child.upper.as_ref())?;
        self.count_lookup(names, ino);
        Ok((seen.attr, seen.ttl))
    }

    /// What an inode stands for now.
    pub(super) fn standing(&self, names: &Names, ino: Ino) -> Result<Standing, Stop> {
        if let Some(Seat::Gone(last)) = names.seat(ino) {
            return Ok(Standing::Gone(last.clone()));
        }
        let path = self.path(names, ino)?;
        match (self.upper.overlay.find(&path)?, self.index_of(ino)) {
            (Some(entry), _) if entry.kind != Kind::Whiteout => Ok(Standing::Upper(path, entry)),
            (None, Some(index)) => Ok(Standing::Base(path, index)),
            _ => Err(VfsError::NotFound.into()),
        }
    }

    pub(super) fn getattr(&self, ino: Ino) -> Result<Seen, Stop> {
        let names = self.names()?;
        let is_gone = matches!(names.seat(ino), Some(Seat::Gone(_)));
        if let Some(file) = self.upper.open_file(ino) {
            let entry = overlay::read_entry(&*file)?.ok_or(VfsError::Stale)?;
            let mut seen = self.upper_attr(ino, &entry)?;
            if let (true, Some(local)) = (is_gone, &mut seen.attr.local) {
                local.links = 0;
            }
            return Ok(seen);
        }
        match self.standing(&names, ino)? {
            Standing::Upper(_, entry) => self.attr_of(ino, Some(&entry)),
            Standing::Base(..) => self.attr_of(ino, None),
            Standing::Gone(last) => {
                let mut seen = match (self.upper.nameless(ino), last) {
                    (Some(entry), _) => {
                        self.attr_of(ino, overlay::read_entry(&*entry)?.as_ref())?
                    }
                    (None, Some(last)) => Seen { attr: *last, ttl: Ttl::None, unsized_node: None },
                    (None, None) => self.attr_of(ino, None)?,
                };
                seen.attr = gone(seen.attr);
                Ok(seen)
            }
        }
    }

    /// The attributes of an inode that has this entry in the upper folder, or none.
    pub(super) fn attr_of(&self, ino: Ino, upper: Option<&Entry>) -> Result<Seen, Stop> {
        if let Some(entry) = upper {
            return self.upper_attr(ino, entry);
        }
        let index = self.index_of(ino).ok_or(VfsError::NotFound)?;
        let (attr, ttl) = self.base_attr(index)?;
        let is_unsized = ttl == Ttl::None && attr.kind == FileKind::File;
        Ok(Seen { attr, ttl, unsized_node: is_unsized.then_some(index) })
    }

    fn upper_attr(&self, ino: Ino, entry: &Entry) -> Result<Seen, Stop> {
        let Entry { kind, stat } = entry;
        // Of folders that show the base, only names above it would be counted.
        let links = if self.index_of(ino).is_some() { 1 } else { stat.links };
        let Stat { accessed, changed, blocks, .. } = *stat;
        let local = Local { accessed, changed, blocks, links };
        let mut attr = Attr {
            ino,
            kind: match kind {
                Kind::Folder(_) => FileKind::Folder,
                Kind::Link => FileKind::Link,
                Kind::Pipe => FileKind::Pipe,
                Kind::File { .. } | Kind::Whiteout => FileKind::File,
            },
            size: stat.size,
            mode: stat.mode,
            mtime: stat.modified.0,
            mtime_nanos: stat.modified.1,
            uid: stat.uid,
            gid: stat.gid,
            local: Some(local),
        };
        if let Kind::File { origin: Some(_) } = kind {
            let index = self.index_of(ino).ok_or_else(no_origin)?;
            let (base, ttl) = self.base_attr(index)?;
            attr.size = base.size;
            attr.local = Some(Local { blocks: base.size.div_ceil(512), ..local });
            if ttl == Ttl::None {
                return Ok(Seen { attr, ttl, unsized_node: Some(index) });
            }
        }
        Ok(Seen { attr, ttl: self.lifetime(&attr), unsized_node: None })
    }

    /// How long the kernel may keep attributes. Whatever changes a folder goes through the kernel;
    /// but a file that is open may be written through a mapping, of which the kernel tells nothing.
    fn lifetime(&self, attr: &Attr) -> Ttl {
        match attr.kind {
            FileKind::Folder | FileKind::Link => Ttl::Forever,
            FileKind::Pipe => Ttl::None,
            FileKind::File if self.upper.open.lock().contains_key(&attr.ino) => Ttl::None,
            FileKind::File => Ttl::Second,
        }
    }
}

/// The attributes of something that has lost its name.
pub(super) fn gone(attr: Attr) -> Attr {
    let time = (attr.mtime, attr.mtime_nanos);
    let local = attr.local.unwrap_or(Local {
        accessed: time,
        changed: time,
        blocks: attr.size.div_ceil(512),
        links: 0,
    });
    Attr { local: Some(Local { links: 0, ..local }), ..attr }
}

pub(super) fn no_origin() -> VfsError {
    VfsError::NoContent("the base does not have the file that its content comes from".into())
}

/// A path with names below it, the last one first.
fn append(path: RepoPath, below: &[Name]) -> RepoPath {
    below.iter().rev().fold(path, |path, name| path.join(name))
}
