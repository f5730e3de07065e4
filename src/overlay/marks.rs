//! Marks: extended attributes that say what an entry of the upper folder stands for.

use std::{
    ffi::OsStr,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{XattrFlags, flistxattr, getxattr, lgetxattr, listxattr, removexattr, setxattr},
    io::Errno,
};

use super::magic_link;
use crate::path::{Name, RepoPath};

/// What all marks begin with; programs neither see nor set them.
pub(super) const PREFIX: &[u8] = b"user.dvcfs.";

/// On a folder: nothing of the base shows through.
pub(super) const OPAQUE: &str = "user.dvcfs.opaque";

/// On a folder or file: the path in the base that its content comes from.
pub(super) const ORIGIN: &str = "user.dvcfs.origin";

/// On a folder: programs made it or gave it attributes, so it stays also where it holds nothing.
pub(super) const OWN: &str = "user.dvcfs.own";

/// The permission bits that are shown, where the file itself must have more for us to use it.
pub(super) const MODE: &str = "user.dvcfs.mode";

/// A value of this size is never exceeded by the kernel.
const LARGEST: usize = 64 << 10;

/// The marks of an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    pub(super) is_opaque: bool,
    /// The path in the base that the content comes from.
    pub(super) origin: Option<RepoPath>,
    /// The permission bits that are shown.
    pub(super) mode: Option<u16>,
}

impl Marks {
    /// Those of an entry that is open. Most have none, which its list of attributes tells at once.
    pub(super) fn of(file: impl AsFd) -> io::Result<Self> {
        let listed = match names(&file) {
            // Programs have set so many that no list holds them.
            Err(error) if error.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) => {
                [OPAQUE, ORIGIN, MODE].map(|name| name.as_bytes().to_vec()).into()
            }
            listed => listed?,
        };
        let mut marks = Self::default();
        for name in listed {
            match str::from_utf8(&name) {
                Ok(OPAQUE) => marks.is_opaque = get(&file, OPAQUE)?.is_some(),
                Ok(ORIGIN) => {
                    let path = get(&file, ORIGIN)?;
                    marks.origin = path.and_then(|path| RepoPath::new(&path).ok());
                }
                Ok(MODE) => marks.mode = get(&file, MODE)?.as_deref().and_then(parse_mode),
                _ => {}
            }
        }
        Ok(marks)
    }
}

fn parse_mode(text: &[u8]) -> Option<u16> {
    u16::from_str_radix(str::from_utf8(text).ok()?, 8).ok()
}

/// The value of an attribute of an entry that is open, if it has one.
pub(super) fn get(file: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let link = magic_link(&file);
    value(|value| getxattr(&link, name, value))
}

/// The value of an attribute of what has a name in a folder that is open. That is one call, where
/// opening it first is three.
pub(super) fn get_at(folder: impl AsFd, at: &Name, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = Path::new(&magic_link(&folder)).join(OsStr::from_bytes(at.as_bytes()));
    value(|value| lgetxattr(&path, name, value))
}

fn value(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 1024];
    loop {
        match get(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if value.len() < LARGEST => value.resize(LARGEST, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The names of all attributes of an entry that is open.
pub(super) fn names(file: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 1024];
    loop {
        // One that was opened to be looked at can be asked by its link alone, which takes longer.
        let listed = match flistxattr(&file, &mut list) {
            Err(Errno::BADF) => listxattr(magic_link(&file), &mut list),
            listed => listed,
        };
        match listed {
            Ok(length) => {
                let names = list[..length].split(|byte| *byte == 0);
                return Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect());
            }
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if list.len() < LARGEST => list.resize(LARGEST, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn set(file: impl AsFd, name: &str, value: &[u8]) -> io::Result<()> {
    Ok(setxattr(magic_link(&file), name, value, XattrFlags::empty())?)
}

/// Removes an attribute, if it is there.
pub(super) fn clear(file: impl AsFd, name: &str) -> io::Result<()> {
    match removexattr(magic_link(&file), name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => Ok(other?),
    }
}
