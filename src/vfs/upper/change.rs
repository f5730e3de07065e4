//! Attributes that change.

use std::{fs::File, os::fd::OwnedFd, sync::Arc};

use super::{
    super::{Answer, Attr, Ino, Ttl, Vfs, VfsError},
    Stop, View,
    copy_up::Bytes,
    names::Names,
    view::{Seen, Standing},
};
use crate::{
    overlay::{self, Kind, Times},
    path::RepoPath,
    tree::Index,
};

/// What is to become of an entry's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// In bytes.
    pub size: Option<u64>,
    /// Times.
    pub times: Times,
    /// Whether a change of size takes set-id bits away.
    pub takes_set_id: bool,
}

/// What has to be there, or must not, for an extended attribute to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Either.
    Any,
    /// No value.
    Absent,
    /// A value.
    Present,
}

impl Vfs {
    /// Changes attributes and gives those that are there then.
    pub fn setattr(&self, ino: Ino, change: Change) -> Answer<(Attr, Ttl)> {
        let sized = match change.size {
            Some(size) => self.resize(ino, size, change.takes_set_id),
            None => Answer::Now(Ok(())),
        };
        let vfs = self.myself();
        let changed = sized.and_then(move |()| vfs.ask(move |view| view.change(ino, change)));
        self.with_size(changed)
    }

    fn resize(&self, ino: Ino, size: u64, takes_set_id: bool) -> Answer<()> {
        let bytes = if size == 0 { Bytes::None } else { Bytes::First(size) };
        let (vfs, writing) = (self.myself(), self.writing(ino));
        self.with_own_bytes(ino, bytes).and_then(move |file| {
            let _writing = writing;
            Answer::Now(vfs.on_disk(|view| {
                view.check_present(ino)?;
                file.set_len(size)?;
                view.take_set_id(&file, takes_set_id)
            }))
        })
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, ino: Ino, name: String, value: Vec<u8>, before: Before) -> Answer<()> {
        if let Err(error) = check_settable(&name) {
            return Answer::Now(Err(error));
        }
        self.ask(move |view| {
            let mut names = view.names()?;
            if tells_of_content(&name) {
                return view.require_changeable(&names, ino);
            }
            let entry = view.own_entry(&mut names, ino)?;
            match (before, overlay::attribute(&*entry, &name)?) {
                (Before::Absent, Some(_)) => return Err(VfsError::Exists.into()),
                (Before::Present, None) => return Err(VfsError::NoAttribute.into()),
                _ => {}
            }
            Ok(overlay::set_attribute(&*entry, &name, &value)?)
        })
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, ino: Ino, name: String) -> Answer<()> {
        if let Err(error) = check_settable(&name) {
            return Answer::Now(Err(error));
        }
        self.ask(move |view| {
            let mut names = view.names()?;
            if tells_of_content(&name) {
                return view.require_changeable(&names, ino);
            }
            if view.xattr(&names, ino, &name)?.is_none() {
                return Err(VfsError::NoAttribute.into());
            }
            let entry = view.own_entry(&mut names, ino)?;
            Ok(overlay::remove_attribute(&*entry, &name)?)
        })
    }

    /// The value of an extended attribute that a program set.
    pub(in super::super) fn own_xattr(&self, ino: Ino, name: &[u8]) -> Option<Vec<u8>> {
        let name = std::str::from_utf8(name).ok()?;
        if overlay::is_mark(name.as_bytes()) {
            return None;
        }
        self.with_view(|view| view.xattr(&*view.names()?, ino, name)).ok()?
    }

    /// The names of the extended attributes that programs set.
    pub(in super::super) fn own_xattr_names(&self, ino: Ino) -> Vec<Vec<u8>> {
        let names = self.with_view(|view| match view.existing_entry(&*view.names()?, ino)? {
            Some(entry) => Ok(overlay::attribute_names(&*entry)?),
            None => Ok(Vec::new()),
        });
        names.unwrap_or_default()
    }
}

/// Whether an attribute is one of those that tell what a name shows. Programs that carry attributes
/// along set and remove them as they find them on other files; that changes nothing.
fn tells_of_content(name: &str) -> bool {
    name.starts_with("user.dvc.")
}

/// Programs set attributes of the user's, except those that the overlay keeps.
fn check_settable(name: &str) -> Result<(), VfsError> {
    if !name.starts_with("user.") {
        return Err(VfsError::NoSuchAttributes);
    }
    if overlay::is_mark(name.as_bytes()) {
        return Err(VfsError::NotPermitted);
    }
    Ok(())
}

impl View<'_> {
    fn change(&self, ino: Ino, change: Change) -> Result<Seen, Stop> {
        let mut names = self.names()?;
        let Change { mode, uid, gid, times, .. } = change;
        if mode.is_some() || uid.is_some() || gid.is_some() || times != Times::KEPT {
            let entry = self.own_entry(&mut names, ino)?;
            if uid.is_some() || gid.is_some() {
                // Before the mode, since a change of owner takes set-id bits away.
                overlay::set_owner(&*entry, uid, gid)?;
            }
            if let Some(mode) = mode {
                self.upper.overlay.set_mode(&*entry, mode)?;
            }
            if times != Times::KEPT {
                overlay::set_times(&*entry, times)?;
            }
        }
        drop(names);
        self.getattr(ino)
    }

    /// Takes set-id bits away from a file whose content was changed.
    pub(super) fn take_set_id(&self, file: &File, is_to_be: bool) -> Result<(), Stop> {
        const SET_USER: u16 = 0o4000;
        /// The set-group bit means something else where the group may not execute.
        const SET_GROUP: u16 = 0o2010;
        if !is_to_be {
            return Ok(());
        }
        let Some(entry) = overlay::read_entry(file)? else { return Ok(()) };
        let mode = entry.stat.mode;
        let mut left = mode & !SET_USER;
        if mode & SET_GROUP == SET_GROUP {
            left &= !0o2000;
        }
        if left != mode {
            self.upper.overlay.set_mode(file, left)?;
        }
        Ok(())
    }

    fn require_changeable(&self, names: &Names, ino: Ino) -> Result<(), Stop> {
        if self.is_present(names, ino) { Ok(()) } else { Err(VfsError::ReadOnly.into()) }
    }

    /// The entry of the upper folder that an inode has; one of the base gets one.
    fn own_entry(&self, names: &mut Names, ino: Ino) -> Result<Arc<OwnedFd>, Stop> {
        self.require_changeable(names, ino)?;
        let mut entry = self.existing_entry(names, ino)?;
        if entry.is_none() {
            match self.standing(names, ino)? {
                Standing::Base(path, index) => self.raise_in_place(names, ino, (&path, index))?,
                Standing::Gone(_) => self.raise_nameless(ino)?,
                Standing::Upper(..) => {}
            }
            entry = self.existing_entry(names, ino)?;
        }
        let entry = entry.ok_or(VfsError::NotFound)?;
        overlay::mark_own(&*entry)?;
        Ok(entry)
    }

    /// Puts an entry above one of the base, which keeps its inode.
    pub(super) fn raise_in_place(
        &self,
        names: &mut Names,
        ino: Ino,
        (path, index): (&RepoPath, Index),
    ) -> Result<(), Stop> {
        let (folder, name) = self.seat(names, ino)?;
        self.make_parents(names, (folder, path))?;
        self.raise(path, index, false)?;
        if !self.is_base_folder(index)? {
            names.put(ino, folder, &name);
        }
        names.note_change();
        Ok(())
    }

    /// Has a file of the base that lost its name have attributes of its own until it is closed.
    fn raise_nameless(&self, ino: Ino) -> Result<(), Stop> {
        let index = self.index_of(ino).ok_or(VfsError::NotFound)?;
        let (origin, stat) = (self.base_path(index)?, self.base_stat(index)?);
        self.upper.keep_nameless(ino, self.upper.overlay.nameless(&origin, &stat)?);
        Ok(())
    }

    fn existing_entry(&self, names: &Names, ino: Ino) -> Result<Option<Arc<OwnedFd>>, Stop> {
        if let Some(file) = self.upper.open_file(ino) {
            return Ok(Some(Arc::new(file.try_clone()?.into())));
        }
        match self.standing(names, ino)? {
            Standing::Upper(path, _) => Ok(self.upper.overlay.look_at(&path)?.map(Arc::new)),
            Standing::Gone(_) => Ok(self.upper.nameless(ino)),
            Standing::Base(..) => Ok(None),
        }
    }

    fn xattr(&self, names: &Names, ino: Ino, name: &str) -> Result<Option<Vec<u8>>, Stop> {
        match self.existing_entry(names, ino)? {
            Some(entry) => Ok(overlay::attribute(&*entry, name)?),
            None => Ok(None),
        }
    }

    /// Whether an entry is a file whose bytes are in the upper folder.
    pub(super) fn has_own_bytes(kind: &Kind) -> bool {
        matches!(kind, Kind::File { origin: None })
    }
}
