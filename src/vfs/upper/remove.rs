//! Names that go.

use super::{
    super::{Answer, Ino, Vfs, VfsError},
    Stop, View,
    names::Names,
    view::{Child, gone},
};
use crate::{
    overlay::Kind,
    path::{Name, RepoPath},
};

impl Vfs {
    /// Removes a name that is no folder's. Whoever has the file open keeps it.
    pub fn unlink(&self, folder: Ino, name: Name) -> Answer<()> {
        self.ask(move |view| {
            let mut names = view.names()?;
            let child = view.present(&names, folder, &name)?;
            if view.is_folder(&child)? {
                return Err(VfsError::IsAFolder.into());
            }
            if child.base.is_some() {
                view.make_parents(&names, (folder, &child.path))?;
            }
            let end = view.end_of(&mut names, (folder, &name), &child)?;
            view.upper.overlay.remove(&child.path, child.base.is_some())?;
            end.note(&mut names);
            Ok(())
        })
    }

    /// Removes a folder that shows nothing.
    pub fn rmdir(&self, folder: Ino, name: Name) -> Answer<()> {
        self.ask(move |view| {
            let mut names = view.names()?;
            let child = view.present(&names, folder, &name)?;
            if !view.is_folder(&child)? {
                return Err(VfsError::NotAFolder.into());
            }
            let end = view.end_of(&mut names, (folder, &name), &child)?;
            view.require_empty(end.ino, &child.path)?;
            if child.base.is_some() {
                view.make_parents(&names, (folder, &child.path))?;
            }
            view.upper.overlay.remove_folder(&child.path, child.base.is_some())?;
            end.note(&mut names);
            Ok(())
        })
    }
}

/// What is to be known of an entry once its name is gone.
pub(super) struct End {
    pub(super) ino: Ino,
    /// What it was on the disk, if it was there.
    on_disk: Option<u64>,
    last: Option<super::super::Attr>,
}

impl End {
    pub(super) fn note(self, names: &mut Names) {
        names.remove(self.ino, self.on_disk, self.last);
        names.note_change();
    }
}

impl View<'_> {
    /// What will be known of an entry that is about to lose its name.
    pub(super) fn end_of(
        &self,
        names: &mut Names,
        (folder, name): (Ino, &Name),
        child: &Child,
    ) -> Result<End, Stop> {
        let ino = self.identify(names, (folder, name), child)?;
        let last = match &child.upper {
            Some(entry) => {
                if matches!(entry.kind, Kind::File { origin: Some(_) })
                    && let Some(held) = self.upper.overlay.look_at(&child.path)?
                {
                    self.upper.keep_nameless(ino, held);
                }
                Some(gone(self.attr_of(ino, Some(entry))?.attr))
            }
            // What the base says of it can be asked again.
            None => None,
        };
        let on_disk = child.upper.as_ref().map(|entry| entry.stat.inode);
        Ok(End { ino, on_disk, last })
    }

    /// Checks that a folder shows nothing.
    pub(super) fn require_empty(&self, folder: Ino, path: &RepoPath) -> Result<(), Stop> {
        let upper = self.upper.overlay.list(path)?;
        let is_any_above = upper.iter().any(|listed| !listed.is_whiteout());
        if is_any_above || self.shows_any_of_base(folder, &upper)? {
            return Err(VfsError::NotEmpty.into());
        }
        Ok(())
    }
}
