//! Requests that change something, and opens of what may be changed.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    sync::Arc,
};

use fuser::{
    BackingId, Errno, FileHandle, FopenFlags, Generation, INodeNo, OpenAccMode, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow,
};

use super::{
    FuseFs, Timing, UNHELD,
    backings::note_refusal,
    convert::{file_attr, since_epoch, ttl},
    errno::errno,
    open_mode::OpenMode,
};
use crate::{
    overlay::{Owner, Time, Times, Totals},
    path::{NAME_MAX, Name},
    stats::Stats,
    vfs::{Answer, Before, Change, Ino, Moved, New, Opened, Opening, Sought, Ttl, VfsError},
};

/// Whether a file is opened to be written, too.
pub(super) fn may_write(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}

/// Whether a file is opened to be empty, which does not take that it is opened to be written.
pub(super) fn truncates(flags: OpenFlags) -> bool {
    flags.0 & libc::O_TRUNC != 0
}

impl FuseFs {
    pub(super) fn open_merged(
        &self,
        timing: Timing,
        request: &Request,
        (ino, flags): (Ino, OpenFlags),
        reply: ReplyOpen,
    ) {
        let how = Opening {
            reads: flags.acc_mode() != OpenAccMode::O_WRONLY,
            writes: may_write(flags),
            truncates: truncates(flags),
            takes_set_id: loses_set_id(request),
        };
        let (vfs, uppers) = (Arc::clone(&self.vfs), Arc::clone(&self.uppers));
        let (stats, mode) = (Arc::clone(&self.stats), self.kernel.mode());
        self.timed(timing, self.vfs.open_merged(ino, how), move |opened| match opened {
            Err(error) => reply.error(errno(&error)),
            Ok(Opened::Upper(file)) => {
                let may_pass = passes(mode) && !has_set_id(&file);
                let register = || taken(&stats, may_pass.then(|| reply.open_backing(&*file))?);
                match uppers.open(ino, register) {
                    Some(id) => reply.opened_passthrough(UNHELD, FopenFlags::FOPEN_NOFLUSH, &id),
                    None => reply.opened(UNHELD, served(mode)),
                }
            }
            Ok(Opened::Unread) => {
                uppers.open(ino, || None);
                reply.opened(UNHELD, served(mode));
            }
            Ok(Opened::Base(opened)) => {
                uppers.open(ino, || None);
                let flags = if opened.keeps_pages() {
                    FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_KEEP_CACHE
                } else {
                    FopenFlags::FOPEN_NOFLUSH
                };
                reply.opened(FileHandle(vfs.hold(opened).get()), flags);
            }
        });
    }

    pub(super) fn create_file(
        &self,
        request: &Request,
        (folder, name): (INodeNo, &OsStr),
        (mode, flags): (u32, OpenFlags),
        reply: ReplyCreate,
    ) {
        let name = match checked(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        let (uppers, how) = (Arc::clone(&self.uppers), self.kernel.mode());
        let stats = Arc::clone(&self.stats);
        let with = (permissions(mode), owner(request));
        let created = self.vfs.create_open(Ino(folder.0), name, with, may_write(flags));
        self.answer(created, move |created| {
            let (attr, file) = match created {
                Ok(created) => created,
                Err(error) => return reply.error(errno(&error)),
            };
            let register = || taken(&stats, passes(how).then(|| reply.open_backing(&*file))?);
            // Nothing but what the kernel sees can change an empty file.
            let (ttl, shown) = (ttl(Ttl::Forever), file_attr(&attr));
            match uppers.open(attr.ino, register) {
                Some(id) => {
                    let flags = FopenFlags::FOPEN_NOFLUSH;
                    reply.created_passthrough(&ttl, &shown, Generation(0), UNHELD, flags, &id);
                }
                None => reply.created(&ttl, &shown, Generation(0), UNHELD, served(how)),
            }
        });
    }

    pub(super) fn create_entry(
        &self,
        request: &Request,
        (folder, name): (INodeNo, &OsStr),
        (new, mode): (New, u32),
        reply: ReplyEntry,
    ) {
        let name = match checked(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        let with = (permissions(mode), owner(request));
        let created = self.vfs.create(Ino(folder.0), name, new, with);
        self.answer(created, move |created| match created {
            Ok((attr, attr_ttl)) => {
                let (attr_ttl, entry_ttl) = (ttl(attr_ttl), ttl(Ttl::Forever));
                reply.entry_with_ttls(&attr_ttl, &entry_ttl, &file_attr(&attr), Generation(0));
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    pub(super) fn with_name(
        &self,
        name: &OsStr,
        reply: ReplyEmpty,
        ask: impl FnOnce(Name) -> Answer<()>,
    ) {
        match checked(name) {
            Ok(name) => self.answer(ask(name), |result| done(result, reply)),
            Err(error) => reply.error(error),
        }
    }

    pub(super) fn move_entry(
        &self,
        (old_folder, old_name): (INodeNo, &OsStr),
        (new_folder, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let how = if flags.is_empty() {
            Moved::Over
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            Moved::ToFree
        } else {
            return reply.error(Errno::EINVAL);
        };
        let old_name = match checked(old_name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        self.with_name(new_name, reply, |new_name| {
            self.vfs.rename((Ino(old_folder.0), old_name), (Ino(new_folder.0), new_name), how)
        });
    }

    pub(super) fn change_attributes(&self, ino: Ino, change: Change, reply: ReplyAttr) {
        self.kernel.note();
        self.answer(self.vfs.setattr(ino, change), move |changed| match changed {
            Ok((attr, lifetime)) => reply.attr(&ttl(lifetime), &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    pub(super) fn seek(&self, ino: Ino, offset: i64, whence: i32, reply: ReplyLseek) {
        let sought = match whence {
            libc::SEEK_DATA => Sought::Data,
            libc::SEEK_HOLE => Sought::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.answer(self.vfs.seek(ino, offset, sought), move |found| match found {
            Ok(offset) => reply.offset(offset.cast_signed()),
            Err(error) => reply.error(errno(&error)),
        });
    }

    pub(super) fn copy(&self, from: (Ino, u64), to: (Ino, u64), length: u64, reply: ReplyWrite) {
        /// More than a reply can tell is not copied at a time.
        const MOST: u64 = 1 << 30;
        let copied = self.vfs.copy_range(from, to, length.min(MOST) as usize);
        self.answer(copied, move |copied| match copied {
            Ok(Some(count)) => reply.written(count as u32),
            Ok(None) => reply.error(Errno::EOPNOTSUPP),
            Err(error) => reply.error(errno(&error)),
        });
    }

    pub(super) fn set_xattr(
        &self,
        ino: Ino,
        (name, value): (&OsStr, &[u8]),
        flags: i32,
        reply: ReplyEmpty,
    ) {
        let before = match flags {
            libc::XATTR_CREATE => Before::Absent,
            libc::XATTR_REPLACE => Before::Present,
            _ => Before::Any,
        };
        let Some(name) = name.to_str() else { return reply.error(Errno::EINVAL) };
        let set = self.vfs.set_xattr(ino, name.to_owned(), value.to_vec(), before);
        self.answer(set, |set| done(set, reply));
    }

    pub(super) fn remove_xattr(&self, ino: Ino, name: &OsStr, reply: ReplyEmpty) {
        let Some(name) = name.to_str() else { return reply.error(Errno::ENODATA) };
        self.answer(self.vfs.remove_xattr(ino, name.to_owned()), |gone| done(gone, reply));
    }
}

/// Whether files of the overlay are handed to the kernel.
fn passes(mode: OpenMode) -> bool {
    mode == OpenMode::Passthrough
}

/// How an open is answered whose reads and writes come here. Where other opens of the file may
/// be passed, pages that the kernel holds of it may be older than what was written through those.
fn served(mode: OpenMode) -> FopenFlags {
    if passes(mode) {
        FopenFlags::FOPEN_NOFLUSH
    } else {
        FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_KEEP_CACHE
    }
}

/// Whether whoever changes a file's content takes its set-id bits away, as everybody but root does.
pub(super) fn loses_set_id(request: &Request) -> bool {
    request.uid() != 0
}

/// Whether a write has to come here, since it may take set-id bits away.
fn has_set_id(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.mode() & 0o6000 != 0)
}

fn checked(name: &OsStr) -> Result<Name, Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Name::new(name.as_bytes()).map_err(|_invalid| Errno::EINVAL)
}

fn owner(request: &Request) -> Owner {
    Owner { uid: request.uid(), gid: request.gid() }
}

/// The id of a backing file, if the kernel took the file.
fn taken(stats: &Stats, id: io::Result<BackingId>) -> Option<BackingId> {
    id.inspect_err(|error| note_refusal(stats, error)).ok()
}

/// The permission bits of a mode, with those for set-id and sticky.
pub(super) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// What is made of a node of this mode; devices and sockets are not made.
pub(super) fn node_kind(mode: u32) -> Option<New> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(New::File),
        libc::S_IFIFO => Some(New::Pipe),
        _ => None,
    }
}

pub(super) fn times(accessed: Option<TimeOrNow>, modified: Option<TimeOrNow>) -> Times {
    let time = |time| match time {
        None => Time::Kept,
        Some(TimeOrNow::Now) => Time::Now,
        Some(TimeOrNow::SpecificTime(time)) => since_epoch(time).into(),
    };
    Times { accessed: time(accessed), modified: time(modified) }
}

pub(super) fn done(result: Result<(), VfsError>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_disk(disk: &Totals, reply: ReplyStatfs) {
    let block = disk.block_size as u32;
    reply.statfs(
        disk.blocks,
        disk.free_blocks,
        disk.available_blocks,
        disk.files,
        disk.free_files,
        block,
        NAME_MAX as u32,
        block,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_kernel_does_not_take_is_counted() {
        let stats = Stats::default();
        assert!(taken(&stats, Err(io::Error::other("no"))).is_none());
        assert_eq!(stats.passthrough_refusals.value(), 1);
    }
}
