//! What the upper folder has.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
};

use rustix::fs::{Dir, FileType, OFlags, Stat as RawStat, fstat, fstatvfs, readlinkat};

use super::{
    Overlay, as_path, is_absent,
    marks::{self, Marks},
    open_at,
};
use crate::path::{Name, RepoPath};

/// An entry of the upper folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub stat: Stat,
}

/// What an entry of the upper folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The name is gone.
    Whiteout,
    /// A file: with the content of one in the base, or with its own.
    File {
        /// The path in the base that has the content.
        origin: Option<RepoPath>,
    },
    /// A folder.
    Folder(Shows),
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
}

/// What of the base shows through a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shows {
    /// The folder at the same place.
    Same,
    /// The folder of that path.
    Of(RepoPath),
    /// Nothing.
    Nothing,
}

/// Attributes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stat {
    /// Its inode on the overlay's disk.
    pub inode: u64,
    /// In bytes.
    pub size: u64,
    /// Permission bits, with those for set-id and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last read, in seconds and nanoseconds since the epoch.
    pub accessed: (i64, u32),
    /// Last written.
    pub modified: (i64, u32),
    /// Last changed in any way.
    pub changed: (i64, u32),
    /// In units of 512 bytes, as far as they are on disk.
    pub blocks: u64,
    /// Names, and of a folder also its subfolders.
    pub links: u32,
}

/// A name in a folder of the upper layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Name,
    /// What it is, as far as that can be told without a look.
    pub kind: ListedKind,
}

impl Listed {
    /// Whether the name is gone.
    pub fn is_whiteout(&self) -> bool {
        self.kind == ListedKind::Whiteout
    }
}

/// What a listed name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedKind {
    /// The name is gone.
    Whiteout,
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
}

impl Overlay {
    /// What the overlay has at a path; nothing if it has nothing.
    pub fn find(&self, path: &RepoPath) -> io::Result<Option<Entry>> {
        self.check()?;
        if let Some(folder) = self.folders.find(path) {
            return entry(&fstat(&*folder)?, || folder.marks().cloned());
        }
        let Some(file) = self.look_at(path)? else { return Ok(None) };
        read_entry(&file)
    }

    /// Where the content of these entries of a folder comes from, as far as the base has it.
    pub fn origins<'a>(
        &self,
        folder: &RepoPath,
        names: impl Iterator<Item = &'a Name>,
    ) -> io::Result<Vec<RepoPath>> {
        let Some(folder) = self.open_folder(folder)? else { return Ok(Vec::new()) };
        let marked =
            names.filter_map(|name| marks::get_at(&folder, name, marks::ORIGIN).transpose());
        let path =
            |mark: io::Result<Vec<u8>>| mark.map(|mark| RepoPath::new(&mark).ok()).transpose();
        marked.filter_map(path).collect()
    }

    /// Everything that has content from the base by a path there, which comes second.
    pub fn moved(&self) -> io::Result<Vec<(RepoPath, RepoPath)>> {
        let (mut moved, mut folders) = (Vec::new(), vec![RepoPath::root()]);
        while let Some(path) = folders.pop() {
            let Some(folder) = self.open_folder(&path)? else { continue };
            for Listed { name, kind } in self.list(&path)? {
                if !matches!(kind, ListedKind::File | ListedKind::Folder) {
                    continue;
                }
                let at = path.join(&name);
                let origin = marks::get_at(&folder, &name, marks::ORIGIN)?;
                if let Some(origin) = origin.and_then(|origin| RepoPath::new(&origin).ok()) {
                    moved.push((at.clone(), origin));
                }
                if kind == ListedKind::Folder {
                    folders.push(at);
                }
            }
        }
        Ok(moved)
    }

    /// Opens a folder of the upper layer to read it; nothing if it does not have the folder.
    fn open_folder(&self, path: &RepoPath) -> io::Result<Option<OwnedFd>> {
        match open_at(self.upper()?, as_path(path), OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if is_absent(&error) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// The names in a folder of the upper layer, sorted; none if it does not have the folder.
    pub fn list(&self, path: &RepoPath) -> io::Result<Vec<Listed>> {
        let Some(folder) = self.open_folder(path)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in Dir::new(folder)? {
            let entry = entry?;
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            let kind = match entry.file_type() {
                FileType::CharacterDevice => ListedKind::Whiteout,
                FileType::Directory => ListedKind::Folder,
                FileType::Symlink => ListedKind::Link,
                FileType::Fifo => ListedKind::Pipe,
                _ => ListedKind::File,
            };
            names.push(Listed { name, kind });
        }
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.list(&RepoPath::root())?.is_empty())
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, path: &RepoPath) -> io::Result<Vec<u8>> {
        let spot = self.place(path)?;
        let target = readlinkat(&spot.folder, spot.name, Vec::new())?;
        Ok(std::ffi::OsString::from_vec(target.into_bytes()).into_vec())
    }

    /// Opens a file with bytes of its own, for reading and writing if both are wanted.
    pub fn open_file(&self, path: &RepoPath, is_writable: bool) -> io::Result<File> {
        let access = if is_writable { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NONBLOCK;
        Ok(open_at(self.upper()?, as_path(path), flags)?.into())
    }

    /// Bytes and files of the disk that the overlay lies on.
    pub fn totals(&self) -> io::Result<Totals> {
        let found = fstatvfs(&self.upper)?;
        Ok(Totals {
            block_size: found.f_frsize,
            blocks: found.f_blocks,
            free_blocks: found.f_bfree,
            available_blocks: found.f_bavail,
            files: found.f_files,
            free_files: found.f_ffree,
        })
    }
}

/// How large a disk is and what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// In bytes.
    pub block_size: u64,
    /// All of them.
    pub blocks: u64,
    /// Not in use.
    pub free_blocks: u64,
    /// Not in use, and for everybody.
    pub available_blocks: u64,
    /// Files that there may be.
    pub files: u64,
    /// Files that may still be made.
    pub free_files: u64,
}

/// What an entry that is open is; nothing if it was not put there through a mount.
pub fn read_entry(file: impl AsFd) -> io::Result<Option<Entry>> {
    entry(&fstat(&file)?, || Marks::of(&file))
}

fn entry(raw: &RawStat, marks: impl FnOnce() -> io::Result<Marks>) -> io::Result<Option<Entry>> {
    let plain = |kind| Entry { kind, stat: stat_of(raw) };
    let marked = |kind, mode: Option<u16>| {
        let mut entry = plain(kind);
        entry.stat.mode = mode.unwrap_or(entry.stat.mode);
        entry
    };
    let entry = match FileType::from_raw_mode(raw.st_mode) {
        FileType::RegularFile => {
            let Marks { origin, mode, .. } = marks()?;
            marked(Kind::File { origin }, mode)
        }
        FileType::Directory => {
            let Marks { is_opaque, origin, mode } = marks()?;
            let shows = match origin {
                Some(path) => Shows::Of(path),
                None if is_opaque => Shows::Nothing,
                None => Shows::Same,
            };
            marked(Kind::Folder(shows), mode)
        }
        FileType::Symlink => plain(Kind::Link),
        FileType::Fifo => plain(Kind::Pipe),
        FileType::CharacterDevice if raw.st_rdev == 0 => plain(Kind::Whiteout),
        _ => return Ok(None),
    };
    Ok(Some(entry))
}

/// The attributes that programs set on an entry, without marks.
pub fn attribute_names(entry: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = marks::names(entry)?;
    names.retain(|name| name.starts_with(b"user.") && !name.starts_with(marks::PREFIX));
    Ok(names)
}

/// The value of an attribute that a program set.
pub fn attribute(entry: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    marks::get(entry, name)
}

/// Sets an extended attribute that a program wants.
pub fn set_attribute(entry: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    marks::set(entry, name, value)
}

/// Removes an extended attribute, if it is there.
pub fn remove_attribute(entry: impl AsFd, name: &str) -> io::Result<()> {
    marks::clear(entry, name)
}

/// Whether a name of an extended attribute is one of the overlay's own marks.
pub fn is_mark(name: &[u8]) -> bool {
    name.starts_with(marks::PREFIX)
}

/// Plain attributes from the system's.
pub(super) fn stat_of(raw: &RawStat) -> Stat {
    Stat {
        inode: raw.st_ino,
        size: raw.st_size.cast_unsigned(),
        mode: (raw.st_mode & 0o7777) as u16,
        uid: raw.st_uid,
        gid: raw.st_gid,
        accessed: (raw.st_atime, raw.st_atime_nsec as u32),
        modified: (raw.st_mtime, raw.st_mtime_nsec as u32),
        changed: (raw.st_ctime, raw.st_ctime_nsec as u32),
        blocks: raw.st_blocks.cast_unsigned(),
        links: u32::try_from(raw.st_nlink).unwrap_or(u32::MAX),
    }
}

/// The attributes of a file of the overlay that is open, as far as the disk tells them.
impl From<&RawStat> for Stat {
    fn from(raw: &RawStat) -> Self {
        stat_of(raw)
    }
}
