//! Sizes, times, modes and extended attributes.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Answer, Epoch, Ino, ROOT_INO, Vfs, VfsError, VfsOptions,
    lookup::{Named, Place},
};
use crate::{
    id::{BlobId, Scheme, TIME_BASE, time_of},
    tree::{Index, Node, OutputId, Tree},
};

/// Attributes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// In bytes; 0 while nobody knows.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Time of last change, in seconds since the epoch.
    pub mtime: i64,
    /// And in nanoseconds beyond that: of folders that change, a number that changes with them.
    pub mtime_nanos: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What only an entry of an overlay has.
    pub local: Option<Local>,
}

/// Attributes that are worked out from others where nothing can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// Time of last reading, in seconds and nanoseconds since the epoch.
    pub accessed: (i64, u32),
    /// Time of last change of any kind.
    pub changed: (i64, u32),
    /// In units of 512 bytes.
    pub blocks: u64,
    /// Names.
    pub links: u32,
}

/// What a node is, as far as the kernel cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
}

/// How long the kernel may keep what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Until it is told otherwise.
    Forever,
    /// For one second, as for names above commits.
    Second,
    /// Not at all.
    None,
    /// Not at all, so that whoever comes to the end of the file asks ([`Vfs::getattr_at_end`]).
    UntilRead,
}

/// What is known of a file's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Good enough to be shown.
    Known(u64),
    /// The remote has to be asked.
    Unknown,
}

/// Nanoseconds in a second.
const NANOS: u32 = 1_000_000_000;

impl Vfs {
    /// The attributes of an inode and how long they hold.
    pub fn getattr(&self, ino: Ino) -> Answer<(Attr, Ttl)> {
        if self.is_merged(ino) {
            return self.getattr_merged(ino);
        }
        let place = match self.place(ino) {
            Ok(place) => place,
            Err(error) => return Answer::Now(Err(error)),
        };
        match place {
            Place::Named(named) => Answer::Now(Ok((self.named_attr(ino, &named), Ttl::Second))),
            Place::Report => Answer::Now(self.reports.attr(ino, self).ok_or(VfsError::Stale)),
            Place::Node(epoch, index) => match self.node_attr(&epoch, index) {
                Ok((attr, Ttl::None)) if attr.kind == FileKind::File => {
                    self.size_then_attr(epoch, index)
                }
                Ok((attr, ttl)) => Answer::Now(Ok((self.as_shown_at(ino, &epoch, attr), ttl))),
                Err(VfsError::Compiled(output)) => {
                    self.after_mending(epoch, output, move |vfs| vfs.getattr(ino))
                }
                Err(error) => Answer::Now(Err(error)),
            },
        }
    }

    /// The same for somebody who reads on at the end of a file. Where nobody knows its bytes nor
    /// how many they are, that is an error: it seems to be empty, and is not.
    pub fn getattr_at_end(&self, ino: Ino) -> Answer<(Attr, Ttl)> {
        if let Ok(Place::Node(epoch, index)) = self.place(ino)
            && let Ok((_, Ttl::UntilRead)) = self.node_attr(&epoch, index)
        {
            return self.open_node(epoch, index).and_then(|_| Answer::Now(Err(VfsError::Stale)));
        }
        self.getattr(ino)
    }

    /// The root of a mount that shows one revision has a number of its own, and where that revision
    /// moves a time that tells its commits apart even within a second.
    fn as_shown_at(&self, ino: Ino, epoch: &Epoch, attr: Attr) -> Attr {
        let mtime_nanos = if ino == ROOT_INO && self.can_move() {
            let [a, b, c, d, ..] = epoch.commit.0.0;
            u32::from_be_bytes([a, b, c, d]) % NANOS
        } else {
            attr.mtime_nanos
        };
        Attr { ino, mtime_nanos, ..attr }
    }

    fn size_then_attr(&self, epoch: Arc<Epoch>, index: Index) -> Answer<(Attr, Ttl)> {
        let vfs = self.myself();
        Answer::later(async move {
            let size = vfs.learn_size(&epoch, index).await?;
            // What was learnt may have turned out wrong meanwhile. It is no empty file for that.
            let (attr, ttl) = vfs.node_attr(&epoch, index)?;
            let size = if ttl == Ttl::None { size } else { attr.size };
            Ok((Attr { size, ..attr }, ttl))
        })
    }

    /// The attributes of a node below a commit; with no lifetime while its size is unknown.
    pub(super) fn node_attr(&self, epoch: &Epoch, index: Index) -> Result<(Attr, Ttl), VfsError> {
        let Some(tree) = epoch.tree() else {
            let attr = self.blank_attr(Ino::new(epoch.slot, index));
            let mtime = self.registry.repository().commit(epoch.commit)?.time;
            return Ok((Attr { mtime, ..attr }, Ttl::Forever));
        };
        let node = tree.node(index)?.ok_or(VfsError::Stale)?;
        self.attr_of(epoch, tree, index, node)
    }

    /// The same for a node that is at hand.
    pub(super) fn attr_of(
        &self,
        epoch: &Epoch,
        tree: &Tree,
        index: Index,
        node: Node,
    ) -> Result<(Attr, Ttl), VfsError> {
        let attr = self.blank_attr(Ino::new(epoch.slot, index));
        Ok(match node {
            Node::Folder { .. } => (Attr { mtime: tree.time, ..attr }, Ttl::Forever),
            Node::GitFile { id, is_exec, .. } => {
                let size = self.registry.repository().blob_size(id)?;
                let mtime = time_of(&id.0);
                (
                    Attr { kind: FileKind::File, size, mode: mode(is_exec), mtime, ..attr },
                    Ttl::Forever,
                )
            }
            Node::Link(id) => {
                let size = self.registry.repository().blob_size(id)?;
                let mtime = time_of(&id.0);
                (Attr { kind: FileKind::Link, size, mode: 0o777, mtime, ..attr }, Ttl::Forever)
            }
            Node::Blob { id, output, claim, is_exec } => {
                let mtime = id.map_or(TIME_BASE, |id| time_of(&id.digest));
                let (size, ttl) = match self.size(tree, output, id, claim) {
                    Size::Known(0) if id.is_none() => (0, Ttl::UntilRead),
                    Size::Known(size) => (size, Ttl::Forever),
                    Size::Unknown => (0, Ttl::None),
                };
                (Attr { kind: FileKind::File, size, mode: mode(is_exec), mtime, ..attr }, ttl)
            }
        })
    }

    /// What is known of a blob's size without asking a remote.
    ///
    /// The declaration's claim counts for content hashed as it is, unless it says that there is
    /// none. A hash of normalised text may stand for bytes of another length, so there only the
    /// store is believed.
    pub(super) fn size(
        &self,
        tree: &Tree,
        output: OutputId,
        id: Option<BlobId>,
        claim: Option<u64>,
    ) -> Size {
        let Some(id) = id else { return Size::Known(claim.unwrap_or(0)) };
        if id.is_empty_content() {
            return Size::Known(0);
        }
        let claim = claim.filter(|claim| *claim > 0 && id.scheme == Scheme::Md5);
        match self.blobs.known_size(id, &self.sources(tree, output)).or(claim) {
            Some(size) => Size::Known(size),
            None => Size::Unknown,
        }
    }

    fn blank_attr(&self, ino: Ino) -> Attr {
        let VfsOptions { uid, gid, mounted_at, .. } = self.options;
        Attr {
            ino,
            kind: FileKind::Folder,
            size: 0,
            mode: 0o555,
            mtime: mounted_at,
            mtime_nanos: 0,
            uid,
            gid,
            local: None,
        }
    }

    /// Attributes of a node that cannot be asked now.
    pub(super) fn unknown_attr(&self, ino: Ino, kind: FileKind) -> Attr {
        Attr { kind, mode: 0o444, ..self.blank_attr(ino) }
    }

    pub(super) fn report_attr(&self, ino: Ino, size: u64) -> Attr {
        Attr { kind: FileKind::File, size, mode: 0o444, ..self.blank_attr(ino) }
    }

    pub(super) fn named_attr(&self, ino: Ino, named: &Named) -> Attr {
        let attr = self.blank_attr(ino);
        match named {
            Named::Folder(_) => {
                Attr { mtime_nanos: self.moves.load(Ordering::Relaxed) % NANOS, ..attr }
            }
            Named::Link(target) => {
                Attr { kind: FileKind::Link, size: target.len() as u64, mode: 0o777, ..attr }
            }
        }
    }

    /// The value of an extended attribute.
    ///
    /// Of other kinds than the user's there are none, and that is said in so many words: a program
    /// that learns it does not ask for each file again.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, VfsError> {
        if !name.starts_with(b"user.") {
            return Err(VfsError::NoSuchAttributes);
        }
        if let Some(value) = self.own_xattr(ino, name) {
            return Ok(value);
        }
        let Some((epoch, index)) = self.node_of(ino)? else { return Err(VfsError::NoAttribute) };
        let name = name.strip_prefix(XATTR_PREFIX).ok_or(VfsError::NoAttribute)?;
        self.xattr_value(&epoch, index, name)?.ok_or(VfsError::NoAttribute)
    }

    /// The names of the extended attributes that have a value.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>, VfsError> {
        let mut names = self.own_xattr_names(ino);
        let Some((epoch, index)) = self.node_of(ino)? else { return Ok(names) };
        let node = epoch.tree().map(|tree| tree.node(index)).transpose()?.flatten();
        if matches!(node, Some(Node::Link(_))) {
            // The kernel lets nobody read attributes of the user's on a link.
            return Ok(names);
        }
        for name in XATTRS.map(str::as_bytes) {
            if self.xattr_value(&epoch, index, name)?.is_some() {
                names.push([XATTR_PREFIX, name].concat());
            }
        }
        Ok(names)
    }

    /// The node of a tree that an inode shows, if it shows one.
    fn node_of(&self, ino: Ino) -> Result<Option<(Arc<Epoch>, Index)>, VfsError> {
        if self.has_own_content(ino) {
            return Ok(None);
        }
        match self.place(ino)? {
            Place::Node(epoch, index) => Ok(Some((epoch, index))),
            Place::Named(_) | Place::Report => Ok(None),
        }
    }

    fn xattr_value(
        &self,
        epoch: &Epoch,
        index: Index,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, VfsError> {
        let Some(tree) = epoch.tree() else { return Ok(None) };
        Ok(match name {
            b"rev" => Some(tree.commit.to_string().into_bytes()),
            b"path" => Some(tree.path(index)?.as_bytes().to_vec()),
            _ => tree.node(index)?.and_then(|node| self.content_xattr(tree, index, node, name)),
        })
    }

    /// What an attribute says of a node's content.
    fn content_xattr(&self, tree: &Tree, index: Index, node: Node, name: &[u8]) -> Option<Vec<u8>> {
        let output = tree.output_of(index)?;
        let blob = match node {
            Node::Blob { id, claim, .. } => Some((id?, claim)),
            _ => None,
        };
        match name {
            b"out" => Some(tree.tracked(output).output.path.as_bytes().to_vec()),
            b"remote" => Some(self.sources(tree, output).first()?.url().as_bytes().to_vec()),
            b"md5" => match (blob, node) {
                (Some((id, _)), _) => Some(id.to_string().into_bytes()),
                (None, Node::Folder { output: Some(output) }) => {
                    Some(tree.manifest(output)?.to_string().into_bytes())
                }
                _ => None,
            },
            b"size" => match (blob, node) {
                (Some((id, claim)), _) => match self.size(tree, output, Some(id), claim) {
                    Size::Known(size) => Some(size.to_string().into_bytes()),
                    Size::Unknown => None,
                },
                (None, Node::Folder { output: Some(output) }) => {
                    Some(tree.tracked(output).output.size?.to_string().into_bytes())
                }
                _ => None,
            },
            b"cached" => {
                let is_cached = self.blobs.is_cached(blob?.0);
                Some(if is_cached { b"1".to_vec() } else { b"0".to_vec() })
            }
            _ => None,
        }
    }

    /// Bytes and files of the tree at the root, for `statfs`: bytes as far as declarations claim.
    pub fn totals(&self) -> (u64, u64) {
        let current = self.current.read().clone();
        let Some(epoch) = current else { return (0, 0) };
        let Some(tree) = epoch.tree() else { return (0, 0) };
        let outputs = || tree.outputs().map(|tracked| &tracked.output);
        let bytes = outputs().filter_map(|output| output.size).fold(0, u64::saturating_add);
        let files = outputs().filter_map(|output| output.file_count).fold(0, u64::saturating_add);
        (bytes, files.saturating_add(tree.base_len()))
    }
}

const XATTR_PREFIX: &[u8] = b"user.dvc.";
const XATTRS: [&str; 7] = ["md5", "rev", "path", "out", "size", "cached", "remote"];

fn mode(is_exec: bool) -> u16 {
    if is_exec { 0o555 } else { 0o444 }
}
