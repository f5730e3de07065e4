//! The base, as far as the merged view asks for it.

use super::{
    super::{Attr, FileKind, Ino, ROOT_INO, Ttl, VfsError},
    Stop, View,
};
use crate::{
    overlay::Stat,
    path::{Name, RepoPath},
    tree::{Index, Node, ROOT},
};

/// What writing needs beyond the permission bits that are shown without an overlay.
const MAY_WRITE: u16 = 0o200;

impl View<'_> {
    /// The node of the base that an inode stands for.
    pub(super) fn index_of(&self, ino: Ino) -> Option<Index> {
        match ino {
            ROOT_INO => Some(ROOT),
            _ if ino.slot() == self.epoch.slot => Some(ino.index()),
            _ => None,
        }
    }

    /// The inode of a node of the base.
    pub(super) fn ino_of(&self, index: Index) -> Ino {
        if index == ROOT { ROOT_INO } else { Ino::new(self.epoch.slot, index) }
    }

    /// What the base has under a name in a folder that shows it.
    pub(super) fn base_child(&self, folder: Ino, name: &Name) -> Result<Option<Index>, Stop> {
        let Some(folder) = self.index_of(folder) else { return Ok(None) };
        let child = self.tree.child(folder, name.as_bytes())?;
        if child.is_none() && self.tree.is_unreadable(folder) {
            return Err(VfsError::unreadable_folder(self.tree, folder).into());
        }
        Ok(child)
    }

    pub(super) fn base_at(&self, path: &RepoPath) -> Result<Option<Index>, Stop> {
        Ok(self.tree.find(path)?)
    }

    pub(super) fn base_path(&self, index: Index) -> Result<RepoPath, Stop> {
        Ok(self.tree.path(index)?)
    }

    /// The folder and the name under which the base has a node.
    pub(super) fn base_seat(&self, index: Index) -> Result<(Ino, Name), Stop> {
        let path = self.base_path(index)?;
        let name = path.file_name().and_then(|name| Name::new(name).ok());
        Ok((self.ino_of(self.tree.parent(index)?), name.ok_or(VfsError::Stale)?))
    }

    pub(super) fn node(&self, index: Index) -> Result<Node, Stop> {
        Ok(self.tree.node(index)?.ok_or(VfsError::Stale)?)
    }

    pub(super) fn is_base_folder(&self, index: Index) -> Result<bool, Stop> {
        Ok(matches!(self.node(index)?, Node::Folder { .. }))
    }

    /// The attributes of a node of the base as they are shown in a writable mount.
    pub(super) fn base_attr(&self, index: Index) -> Result<(Attr, Ttl), Stop> {
        let (attr, ttl) = self.vfs.node_attr(self.epoch, index)?;
        let more = if attr.kind == FileKind::Link { 0 } else { MAY_WRITE };
        Ok((Attr { ino: self.ino_of(index), mode: attr.mode | more, ..attr }, ttl))
    }

    /// The attributes that an entry of the upper folder begins with which stands for a node.
    pub(super) fn base_stat(&self, index: Index) -> Result<Stat, Stop> {
        let (attr, _) = self.base_attr(index)?;
        let time = (attr.mtime, 0);
        let Attr { size, mode, uid, gid, .. } = attr;
        Ok(Stat { size, mode, uid, gid, accessed: time, modified: time, ..Stat::default() })
    }

    /// The attributes of every folder of the base.
    pub(super) fn folder_stat(&self) -> Result<Stat, Stop> {
        self.base_stat(ROOT)
    }
}
