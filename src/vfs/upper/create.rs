//! Names that come.

use std::{
    cell::Cell,
    fs::File,
    sync::{Arc, atomic::Ordering},
};

use super::{
    super::{Answer, Attr, Event, Ino, ROOT_INO, Ttl, Vfs, VfsError},
    Open, Stop, View,
    names::Names,
    view::Child,
};
use crate::{
    overlay::{self, Entry, Kind, Owner, Shows},
    path::{Name, RepoPath},
};

/// What is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum New {
    /// An empty file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(Vec<u8>),
    /// A named pipe.
    Pipe,
}

const SET_GROUP: u16 = 0o2000;

impl Vfs {
    /// Creates an entry; the kernel holds one look-up of it.
    pub fn create(
        &self,
        folder: Ino,
        name: Name,
        new: New,
        (mode, owner): (u16, Owner),
    ) -> Answer<(Attr, Ttl)> {
        self.ask(move |view| {
            let mut names = view.names()?;
            let (path, _) = view.make(&mut names, (folder, &name), &new, (mode, owner))?;
            let entry = view.upper.overlay.find(&path)?.ok_or(VfsError::NotFound)?;
            view.enter_new(&mut names, (folder, &name), &entry)
        })
    }

    /// Creates a file and opens it, once and to write if so wanted; the kernel holds one look-up of
    /// it.
    pub fn create_open(
        &self,
        folder: Ino,
        name: Name,
        (mode, owner): (u16, Owner),
        writes: bool,
    ) -> Answer<(Attr, Arc<File>)> {
        self.ask(move |view| {
            let mut names = view.names()?;
            let (_, file) = view.make(&mut names, (folder, &name), &New::File, (mode, owner))?;
            let file = Arc::new(file.ok_or(VfsError::Stale)?);
            let entry = overlay::read_entry(&*file)?.ok_or(VfsError::Stale)?;
            let (attr, _) = view.enter_new(&mut names, (folder, &name), &entry)?;
            let count = u64::from(writes);
            let file_here = Some(Arc::clone(&file));
            let open = Open { count: 1, writers: count, file: file_here, ..Open::default() };
            view.upper.open.lock().insert(attr.ino, open);
            view.upper.writes.fetch_add(count, Ordering::SeqCst);
            Ok((attr, file))
        })
    }
}

impl View<'_> {
    /// Checks that a name is free, and has its folder be there.
    pub(super) fn free_place(
        &self,
        names: &Names,
        folder: Ino,
        name: &Name,
    ) -> Result<Child, Stop> {
        let child = self.child(names, folder, name)?;
        if self.is_shown(&child) {
            return Err(VfsError::Exists.into());
        }
        self.make_parents(names, (folder, &child.path))?;
        Ok(child)
    }

    /// Has the folders that lead to a path be in the upper folder; the last of them is `folder`.
    pub(super) fn make_parents(
        &self,
        names: &Names,
        (folder, path): (Ino, &RepoPath),
    ) -> Result<(), Stop> {
        let (stat, made) = (self.folder_stat()?, Cell::new(0));
        let count = |_: &RepoPath| {
            made.set(made.get() + 1);
            Ok(stat)
        };
        self.upper.overlay.make_parents(path, &count)?;
        // Each has other attributes now, and so has the folder that holds the first of them.
        let mut at = Some(folder).filter(|_| made.get() > 0);
        for _ in 0..=made.get() {
            let Some(ino) = at else { break };
            self.vfs.tell(Event::Attributes(ino));
            at = if ino == ROOT_INO { None } else { Some(self.seat(names, ino)?.0) };
        }
        Ok(())
    }

    fn make(
        &self,
        names: &mut Names,
        (folder, name): (Ino, &Name),
        new: &New,
        (mode, owner): (u16, Owner),
    ) -> Result<(RepoPath, Option<File>), Stop> {
        let Child { path, base, .. } = self.free_place(names, folder, name)?;
        let (mode, owner) = self.inherit(&path, new, (mode, owner))?;
        let overlay = &self.upper.overlay;
        names.note_change();
        let mut file = None;
        match new {
            New::File => file = Some(overlay.create_file(&path, mode, owner)?),
            New::Folder => {
                // What the base has under this name was removed before.
                let shows = if base.is_some() { Shows::Nothing } else { Shows::Same };
                overlay.create_own_folder(&path, mode, owner, &shows)?;
            }
            New::Link(target) => overlay.create_link(&path, target, owner)?,
            New::Pipe => overlay.create_pipe(&path, mode, owner)?,
        }
        Ok((path, file))
    }

    /// What is made in a folder with the set-group bit belongs to the folder's group.
    fn inherit(
        &self,
        path: &RepoPath,
        new: &New,
        (mode, owner): (u16, Owner),
    ) -> Result<(u16, Owner), Stop> {
        let folder = self.upper.overlay.find(&path.parent().unwrap_or_default())?;
        let folder = folder.ok_or(VfsError::NotFound)?.stat;
        if folder.mode & SET_GROUP == 0 {
            return Ok((mode, owner));
        }
        let mode = if *new == New::Folder { mode | SET_GROUP } else { mode };
        Ok((mode, Owner { gid: folder.gid, ..owner }))
    }

    /// Gives something new its number, and tells what the kernel is told of it.
    fn enter_new(
        &self,
        names: &mut Names,
        (folder, name): (Ino, &Name),
        entry: &Entry,
    ) -> Result<(Attr, Ttl), Stop> {
        debug_assert!(entry.kind != Kind::Whiteout, "it was just made");
        let ino = names.own_ino(entry.stat.inode);
        names.put(ino, folder, name);
        self.count_lookup(names, ino);
        let seen = self.attr_of(ino, Some(entry))?;
        Ok((seen.attr, seen.ttl))
    }
}
