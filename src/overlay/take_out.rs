//! Taking changes out of an overlay.

use std::io;

use rustix::{
    fs::{AtFlags, OFlags, RenameFlags, renameat_with, unlinkat},
    io::Errno,
};

use super::{
    Entry, Kind, Overlay, Shows, as_path,
    marks::{self, OPAQUE, ORIGIN},
    open_at,
};
use crate::path::RepoPath;

impl Overlay {
    /// Forgets what was changed at a path and in it, so that what the base has there shows again;
    /// not an error if nothing was.
    pub fn take_out(&self, path: &RepoPath) -> io::Result<()> {
        let Some(spot) = self.spot(path)? else { return Ok(()) };
        let name = self.temporary();
        match renameat_with(&spot.folder, spot.name, &self.work, &*name, RenameFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            moved => {
                moved?;
                self.discard(&name)
            }
        }
    }

    /// Forgets all changes.
    pub fn take_out_all(&self) -> io::Result<()> {
        for listed in self.list(&RepoPath::root())? {
            self.take_out(&RepoPath::root().join(&listed.name))?;
        }
        Ok(())
    }

    /// Forgets all changes but those at these paths, which the base no longer has otherwise: the
    /// folders that lead to them show the base's of the same place.
    pub fn keep_only(&self, is_kept: &dyn Fn(&RepoPath) -> bool) -> io::Result<()> {
        self.keep_in(&RepoPath::root(), is_kept).map(drop)
    }

    /// Whether anything was kept.
    fn keep_in(&self, folder: &RepoPath, is_kept: &dyn Fn(&RepoPath) -> bool) -> io::Result<bool> {
        let mut is_any = false;
        for listed in self.list(folder)? {
            let path = folder.join(&listed.name);
            if is_kept(&path) {
                is_any = true;
                continue;
            }
            let is_folder = matches!(self.find(&path)?, Some(Entry { kind: Kind::Folder(_), .. }));
            if is_folder && self.keep_in(&path, is_kept)? {
                is_any = true;
                self.show_same(&path)?;
            } else {
                self.take_out(&path)?;
            }
        }
        Ok(is_any)
    }

    /// Takes out the folders that lead to a path for as long as they hold nothing and say nothing.
    pub fn prune(&self, path: &RepoPath) -> io::Result<()> {
        let mut folder = path.parent();
        while let Some(path) = folder.filter(|path| !path.is_root()) {
            let is_silent = match self.find(&path)? {
                Some(entry) => entry.kind == Kind::Folder(Shows::Same),
                None => return Ok(()),
            };
            if !is_silent || !self.list(&path)?.is_empty() {
                return Ok(());
            }
            let spot = self.place(&path)?;
            unlinkat(&spot.folder, spot.name, AtFlags::REMOVEDIR)?;
            folder = path.parent();
        }
        Ok(())
    }

    fn show_same(&self, path: &RepoPath) -> io::Result<()> {
        let folder = open_at(&self.upper, as_path(path), OFlags::PATH | OFlags::DIRECTORY)?;
        marks::clear(&folder, OPAQUE)?;
        marks::clear(&folder, ORIGIN)
    }
}
