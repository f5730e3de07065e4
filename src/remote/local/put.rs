//! Putting an object into a folder.
//!
//! A file is written under a temporary name beside its place and renamed when it is whole and on
//! the disk. There is no server to check what arrives, so it is hashed as it is copied.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    iter,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, PermissionsExt},
    },
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};

use super::{Directory, LocalRemote, Strictness};
use crate::{
    dvc::checksum::Checker,
    id::Key,
    remote::{Cause, Put, RemoteError, Source, put_action},
};

/// How much is copied between two looks at the time limit.
const PIECE: u64 = 4 << 20;

impl LocalRemote {
    pub(super) async fn put_source(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        let from = source.clone();
        let begun = self.run(put_action(key), move |dir| Draft::begin(dir, key, &from)).await?;
        let Some(mut draft) = begun else { return Ok(Put::Present) };
        while draft.at < source.size() {
            let (before, from) = (draft.at, source.clone());
            draft = self.run(put_action(key), move |dir| draft.copy(dir, &from)).await?;
            source.tell((draft.at - before) as i64);
        }
        self.run(put_action(key), move |dir| draft.finish(dir)).await
    }
}

/// A file that does not have its name yet. Dropped before it has, it goes away.
struct Draft {
    key: Key,
    folder: OwnedFd,
    name: Option<String>,
    file: File,
    /// Whether it shares its blocks with the source.
    is_clone: bool,
    checker: Checker,
    at: u64,
}

impl Draft {
    /// Makes one, unless the object is there.
    fn begin(dir: &Directory, key: Key, source: &Source) -> Result<Option<Self>, RemoteError> {
        let action = put_action(key);
        let failed = |errno: Errno| dir.failure(&action, errno.into());
        let (folder, name) = dir.make_folder(key, &action)?;
        let found = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW);
        match found.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile) => return Ok(None),
            Ok(FileType::Symlink) if dir.strictness == Strictness::Own => return Ok(None),
            Ok(_) => return Err(dir.error(Cause::Misconfigured, &action, "not a regular file")),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let process = std::process::id();
        for number in 0.. {
            let draft = format!(".{name}.{process}-{number}.tmp");
            match rustix::fs::openat(&folder, &draft, flags, Mode::from_raw_mode(0o600)) {
                Ok(file) => {
                    let file = File::from(file);
                    let is_clone = rustix::fs::ioctl_ficlone(&file, source.file()).is_ok();
                    let checker = Checker::new(key.scheme, key.is_manifest);
                    let name = Some(draft);
                    return Ok(Some(Self { key, folder, name, file, is_clone, checker, at: 0 }));
                }
                Err(Errno::EXIST) if number < 1000 => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err(failed(Errno::EXIST))
    }

    /// Copies the next piece.
    fn copy(mut self, dir: &Directory, source: &Source) -> Result<Self, RemoteError> {
        let action = put_action(self.key);
        let piece = self.at..source.size().min(self.at + PIECE);
        let unreadable = |error: io::Error| dir.error(Cause::Local, &action, &error.to_string());
        if self.is_clone {
            let mut bytes = vec![0; (piece.end - piece.start) as usize];
            self.file.read_exact_at(&mut bytes, piece.start).map_err(unreadable)?;
            self.checker.update(&bytes);
        } else {
            let bytes = source.bytes(piece.clone()).map_err(unreadable)?;
            self.checker.update(&bytes);
            self.file.write_all(&bytes).map_err(|error| dir.failure(&action, error))?;
        }
        self.at = piece.end;
        Ok(self)
    }

    fn finish(mut self, dir: &Directory) -> Result<Put, RemoteError> {
        let action = put_action(self.key);
        let checker = std::mem::replace(&mut self.checker, Checker::new(self.key.scheme, true));
        if !checker.finish().matches(&self.key.digest) {
            let reason = "the bytes here are not those that its name stands for";
            return Err(dir.error(Cause::Local, &action, reason));
        }
        let failed = |error: io::Error| dir.failure(&action, error);
        // DVC trusts what nobody may write.
        self.file.set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        let Some(draft) = &self.name else { return Ok(Put::Present) };
        let path = self.key.path();
        let name = path.rsplit('/').next().unwrap_or_default();
        let (folder, flags) = (&self.folder, RenameFlags::NOREPLACE);
        let renamed = match rustix::fs::renameat_with(folder, draft, folder, name, flags) {
            // Some network file systems know nothing but replacing.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::renameat(folder, draft, folder, name)
            }
            renamed => renamed,
        };
        match renamed {
            Ok(()) => self.name = None,
            Err(Errno::EXIST) => return Ok(Put::Present),
            Err(errno) => return Err(failed(errno.into())),
        }
        sync(&self.folder).map_err(|errno| failed(errno.into()))?;
        Ok(Put::Stored)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What stays behind is named so that nobody takes it for an object.
            _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
    }
}

/// Has the names of a folder on the disk, where the disk can tell.
fn sync(folder: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::fsync(folder) {
        Err(Errno::INVAL) => Ok(()),
        synced => synced,
    }
}

impl Directory {
    /// Opens the folder of an object, made where it is missing; and the object's name in it.
    fn make_folder(&self, key: Key, action: &str) -> Result<(OwnedFd, String), RemoteError> {
        let mut folder = self.open_root(action)?;
        let path = key.path();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let follow = match self.strictness {
            Strictness::Own => OFlags::empty(),
            Strictness::Confined => OFlags::NOFOLLOW,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
        // The root itself is open without the right to sync it.
        for component in iter::once(".").chain(folders.split('/')) {
            let open = || rustix::fs::openat(&folder, component, flags, Mode::empty());
            let opened = open().or_else(|errno| match errno {
                Errno::NOENT => {
                    match rustix::fs::mkdirat(&folder, component, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => sync(&folder).and_then(|()| open()),
                        Err(errno) => Err(errno),
                    }
                }
                errno => Err(errno),
            });
            folder = opened.map_err(|errno| self.not_opened(action, errno.into()))?;
        }
        Ok((folder, name.to_owned()))
    }
}
