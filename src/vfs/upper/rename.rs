//! Names that move.

use super::{
    super::{Answer, Ino, Vfs, VfsError},
    Stop, View,
    names::Names,
    view::Child,
};
use crate::{
    overlay::{self, Kind, Owner, Renaming, Shows, Stat, Time, Times},
    path::{Name, RepoPath},
    tree::{Index, Node},
};

/// How an entry is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Over what may be in the way.
    Over,
    /// To a name that has to be free.
    ToFree,
}

impl Vfs {
    /// Moves an entry.
    pub fn rename(
        &self,
        (old_folder, old_name): (Ino, Name),
        (new_folder, new_name): (Ino, Name),
        how: Moved,
    ) -> Answer<()> {
        self.ask(move |view| {
            let mut names = view.names()?;
            let old = (old_folder, &old_name);
            view.rename(&mut names, old, (new_folder, &new_name), how)
        })
    }
}

impl View<'_> {
    fn rename(
        &self,
        names: &mut Names,
        old: (Ino, &Name),
        new: (Ino, &Name),
        how: Moved,
    ) -> Result<(), Stop> {
        let from = self.present(names, old.0, old.1)?;
        let to = self.child(names, new.0, new.1)?;
        if old == new {
            return Ok(());
        }
        let is_folder = self.is_folder(&from)?;
        let in_the_way = if self.is_shown(&to) {
            if how == Moved::ToFree {
                return Err(VfsError::Exists.into());
            }
            self.require_replaceable(&to, is_folder)?;
            let end = self.end_of(names, new, &to)?;
            if is_folder {
                self.require_empty(end.ino, &to.path)?;
            }
            Some(end)
        } else {
            None
        };
        let ino = self.identify(names, old, &from)?;
        self.make_parents(names, (old.0, &from.path))?;
        self.make_parents(names, (new.0, &to.path))?;
        self.make_movable(ino, &from)?;
        let how = Renaming {
            leaves_whiteout: from.base.is_some(),
            replaces_folder: is_folder && in_the_way.is_some(),
        };
        self.upper.overlay.rename(&from.path, &to.path, how)?;
        if is_folder && to.base.is_some() && to.base == self.index_of(ino) {
            // It is back where the base has it.
            self.upper.overlay.set_shows(&to.path, &Shows::Same)?;
        }
        if let Some(end) = in_the_way {
            end.note(names);
        }
        if is_folder && self.index_of(ino).is_some() {
            names.note_moved_folder();
        }
        names.put(ino, new.0, new.1);
        names.note_change();
        Ok(())
    }

    fn require_replaceable(&self, to: &Child, is_folder: bool) -> Result<(), Stop> {
        match (is_folder, self.is_folder(to)?) {
            (true, false) => Err(VfsError::NotAFolder.into()),
            (false, true) => Err(VfsError::IsAFolder.into()),
            _ => Ok(()),
        }
    }

    /// Has an entry be in the upper folder in such a way that it means the same elsewhere.
    fn make_movable(&self, ino: Ino, from: &Child) -> Result<(), Stop> {
        let base = self.index_of(ino);
        match (&from.upper, base) {
            (None, Some(index)) => self.raise(&from.path, index, true),
            (Some(entry), _) if entry.kind == Kind::Folder(Shows::Same) => {
                let shows = match base {
                    Some(index) => Shows::Of(self.base_path(index)?),
                    None => Shows::Nothing,
                };
                Ok(self.upper.overlay.set_shows(&from.path, &shows)?)
            }
            _ => Ok(()),
        }
    }

    /// Puts an entry above a node of the base that has none, in a folder that is there, and that
    /// stands for it; if it `moves`, also elsewhere.
    pub(super) fn raise(&self, path: &RepoPath, index: Index, moves: bool) -> Result<(), Stop> {
        let (overlay, stat) = (&self.upper.overlay, self.base_stat(index)?);
        let Stat { mode, uid, gid, .. } = stat;
        let owner = Owner { uid, gid };
        match self.node(index)? {
            Node::GitFile { .. } | Node::Blob { .. } => {
                return Ok(overlay.stand_in(path, &self.base_path(index)?, &stat)?);
            }
            Node::Link(id) => overlay.create_link(path, &self.vfs.link_target(id)?, owner)?,
            Node::Folder { .. } => {
                let shows = if moves { Shows::Of(self.base_path(index)?) } else { Shows::Same };
                overlay.create_folder(path, mode, owner, &shows)?;
            }
        }
        let made = overlay.look_at(path)?.ok_or(VfsError::NotFound)?;
        let times = Times { accessed: Time::Kept, modified: stat.modified.into() };
        Ok(overlay::set_times(&made, times)?)
    }
}
