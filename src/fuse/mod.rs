//! The kernel's side: FUSE requests to [`Vfs`] questions, answers to replies.
//!
//! The only module that names the FUSE library or an errno. Nothing is decided here: a request is
//! decoded, the `Vfs` is asked, its answer is encoded. Answers that take time are awaited on the
//! runtime with the reply in hand, so a session thread never waits for the network.

mod backings;
mod change;
mod convert;
mod errno;
mod invalidate;
mod listings;
mod open_mode;
mod session;
mod spin;
mod unmount;
mod uppers;

use std::{
    borrow::Borrow,
    cell::RefCell,
    ffi::OsStr,
    io,
    num::NonZeroU64,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use self::{
    backings::{Again, Backings},
    convert::{file_attr, file_type, ttl},
    errno::errno,
    listings::{Listing, Listings},
    spin::Spin,
    uppers::Uppers,
};
pub use self::{
    open_mode::{ChosenMode, OpenMode},
    session::{MountError, MountOptions, Session, users_may_share},
    unmount::{OwnMount, helper, unmount},
};
use crate::{
    stats::{Histogram, Latencies, Stats},
    vfs::{Answer, Change, Ino, Lookup, New, OpenedFile, Read, Vfs, VfsError},
};

/// Requests the kernel may have waiting at a time; at its default of 16, 64 programs that wait for
/// downloads take four times as long.
const MAX_BACKGROUND: u16 = 256;

/// What the kernel reads ahead at most, in bytes.
const MAX_READAHEAD: u32 = 1 << 20;

/// The file system as the FUSE library wants it.
struct FuseFs {
    vfs: Arc<Vfs>,
    stats: Arc<Stats>,
    listings: Arc<Listings>,
    backings: Arc<Backings>,
    uppers: Arc<Uppers>,
    runtime: Handle,
    owner: (u32, u32),
    /// How many file systems the kernel lets lie below a file that is passed.
    stack_depth: u32,
    kernel: Arc<Kernel>,
}

/// What is settled with the kernel before its first request.
#[derive(Debug, Default)]
struct Kernel {
    offered: OnceLock<InitFlags>,
    mode: OnceLock<OpenMode>,
    spin: OnceLock<Arc<Spin>>,
}

impl Kernel {
    fn offers(&self, flag: InitFlags) -> bool {
        self.offered.get().is_some_and(|offered| offered.contains(flag))
    }

    /// A request has come.
    fn note(&self) {
        if let Some(spin) = self.spin.get() {
            spin.note();
        }
    }

    fn mode(&self) -> OpenMode {
        self.mode.get().copied().unwrap_or(OpenMode::Served)
    }
}

thread_local! {
    /// Each session thread reads into a buffer that it keeps.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// When a request came, and where the time it takes is counted.
struct Timing {
    came: Instant,
    kind: fn(&Latencies) -> &Histogram,
}

impl Timing {
    /// It has been answered.
    fn end(self, stats: &Stats) {
        (self.kind)(&stats.latencies).record(self.came.elapsed());
    }
}

impl FuseFs {
    /// Gives an answer to `reply`, now or when it is there.
    fn answer<T: Send + 'static>(
        &self,
        answer: Answer<T>,
        reply: impl FnOnce(Result<T, VfsError>) + Send + 'static,
    ) {
        match answer {
            Answer::Now(result) => reply(result),
            Answer::Later(future) => self.later(None, async move { reply(future.await) }),
        }
    }

    /// The same, and counts how long that took.
    fn timed<T: Send + 'static>(
        &self,
        timing: Timing,
        answer: Answer<T>,
        reply: impl FnOnce(Result<T, VfsError>) + Send + 'static,
    ) {
        match answer {
            Answer::Now(result) => {
                reply(result);
                timing.end(&self.stats);
            }
            Answer::Later(future) => self.later(Some(timing), async move { reply(future.await) }),
        }
    }

    /// Runs what has to wait before it can answer.
    fn later(&self, timing: Option<Timing>, answer: impl Future<Output = ()> + Send + 'static) {
        let stats = Arc::clone(&self.stats);
        stats.waiting.add(1);
        self.runtime.spawn(async move {
            answer.await;
            stats.waiting.sub(1);
            if let Some(timing) = timing {
                timing.end(&stats);
            }
        });
    }

    /// A request of this kind has come.
    fn came(&self, kind: fn(&Latencies) -> &Histogram) -> Timing {
        self.kernel.note();
        Timing { came: Instant::now(), kind }
    }
}

/// Answers an open in a mode in which the kernel sends them.
fn reply_opened(
    vfs: &Vfs,
    backings: &Backings,
    mode: OpenMode,
    opened: OpenedFile,
    reply: ReplyOpen,
) {
    let passed = match mode {
        OpenMode::Passthrough => backings.open(opened.ino(), opened.whole(), &reply),
        OpenMode::NoOpen | OpenMode::Served => None,
    };
    if let Some(id) = passed {
        return reply.opened_passthrough(UNHELD, FopenFlags::FOPEN_NOFLUSH, &id);
    }
    let keep =
        if opened.keeps_pages() { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
    let handle = vfs.hold(opened);
    reply.opened(FileHandle(handle.get()), FopenFlags::FOPEN_NOFLUSH | keep);
}

/// Answers a read.
fn reply_read<E: Borrow<VfsError>>(stats: &Stats, result: Result<&[u8], E>, reply: ReplyData) {
    match result {
        Ok(bytes) => {
            stats.read_bytes.add(bytes.len() as u64);
            reply.data(bytes);
        }
        Err(error) => reply.error(errno(error.borrow())),
    }
}

/// The number of every open that we hold nothing for.
const UNHELD: FileHandle = FileHandle(0);

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(spin) = self.spin.get() {
            spin.end();
        }
    }
}

impl Filesystem for FuseFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Where names move, the kernel is to look at a folder's time before it believes a listing
        // that it holds.
        let invalidation = if self.vfs.can_move() {
            InitFlags::FUSE_AUTO_INVAL_DATA
        } else {
            InitFlags::FUSE_EXPLICIT_INVAL_DATA
        };
        // An open that empties a file is to say so, since it needs none of what was there. And set-id
        // bits are taken away here, or the kernel would ask for an attribute before each write.
        let writing = if self.vfs.is_writable() {
            InitFlags::FUSE_ATOMIC_O_TRUNC | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        } else {
            InitFlags::empty()
        };
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_ABORT_ERROR
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_PASSTHROUGH
            | invalidation
            | writing;
        self.kernel.offered.get_or_init(|| config.capabilities());
        _ = config.set_max_stack_depth(self.stack_depth);
        if let Err(missing) = config.add_capabilities(wanted) {
            tracing::debug!("the kernel does not offer {missing:?}");
            // What is left is offered, so this cannot fail.
            _ = config.add_capabilities(wanted - missing);
        }
        if let Err(most) = config.set_max_readahead(MAX_READAHEAD) {
            _ = config.set_max_readahead(most);
        }
        _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let timing = self.came(|latencies| &latencies.lookup);
        if name.len() > crate::path::NAME_MAX {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let owner = self.owner;
        let answer = self.vfs.lookup(Ino(parent.0), name.as_bytes());
        self.timed(timing, answer, move |result| match result {
            Ok(Lookup::Found { attr, entry_ttl, attr_ttl }) => {
                let attr = file_attr(&attr);
                reply.entry_with_ttls(&ttl(attr_ttl), &ttl(entry_ttl), &attr, Generation(0));
            }
            Ok(Lookup::Absent(lifetime)) if ttl(lifetime).is_zero() => reply.error(Errno::ENOENT),
            Ok(Lookup::Absent(lifetime)) => {
                let attr = convert::absent(owner);
                reply.entry(&ttl(lifetime), &attr, Generation(0));
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.vfs.forget(Ino(ino.0), count);
    }

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let timing = self.came(|latencies| &latencies.getattr);
        // Only a read at the end of a file asks with a handle.
        let answer = match handle {
            Some(_) => self.vfs.getattr_at_end(Ino(ino.0)),
            None => self.vfs.getattr(Ino(ino.0)),
        };
        self.timed(timing, answer, move |result| match result {
            Ok((attr, lifetime)) => reply.attr(&ttl(lifetime), &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.vfs.readlink(Ino(ino.0)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let timing = self.came(|latencies| &latencies.open);
        if self.vfs.is_merged(Ino(ino.0)) {
            return self.open_merged(timing, request, (Ino(ino.0), flags), reply);
        }
        if change::may_write(flags) || change::truncates(flags) {
            return reply.error(errno(&VfsError::ReadOnly));
        }
        let mode = self.kernel.mode();
        match mode {
            OpenMode::NoOpen => return reply.error(Errno::ENOSYS),
            OpenMode::Served => {}
            OpenMode::Passthrough => match self.backings.open_again(Ino(ino.0)) {
                Again::Ask => {}
                Again::Damaged => {
                    tracing::warn!("inode {}: its cached file was changed while open", ino.0);
                    return reply.error(Errno::EIO);
                }
                Again::Passed(id) => {
                    reply.opened_passthrough(UNHELD, FopenFlags::FOPEN_NOFLUSH, &id);
                    return timing.end(&self.stats);
                }
            },
        }
        let (vfs, backings) = (Arc::clone(&self.vfs), Arc::clone(&self.backings));
        self.timed(timing, self.vfs.open(Ino(ino.0)), move |result| match result {
            Ok(opened) => reply_opened(&vfs, &backings, mode, opened, reply),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut timing = self.came(|latencies| &latencies.read_hit);
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(buffer.len().max(size as usize), 0);
            let buffer = &mut buffer[..size as usize];
            match self.vfs.read(Ino(ino.0), NonZeroU64::new(handle.0), offset, buffer) {
                Read::Done(result) => {
                    reply_read(&self.stats, result.map(|count| &buffer[..count]), reply);
                    timing.end(&self.stats);
                }
                Read::Later(future) => {
                    timing.kind = |latencies| &latencies.read_miss;
                    let stats = Arc::clone(&self.stats);
                    self.later(Some(timing), async move {
                        let result = future.await;
                        reply_read(&stats, result.as_deref(), reply);
                    });
                }
            }
        });
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // What is written is written at once, so closing has nothing to do; the kernel stops asking.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.kernel.note();
        if let Some(handle) = NonZeroU64::new(handle.0) {
            self.vfs.release(handle);
        }
        if self.vfs.is_writable() {
            self.uppers.release(Ino(ino.0));
            self.vfs.close(Ino(ino.0), change::may_write(flags));
            return reply.ok();
        }
        if self.kernel.mode() == OpenMode::Passthrough {
            self.backings.release(Ino(ino.0));
        }
        reply.ok();
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.kernel.offers(InitFlags::FUSE_NO_OPENDIR_SUPPORT) {
            // Folders need no handle; the kernel stops asking, and keeps every listing.
            return reply.error(Errno::ENOSYS);
        }
        reply.opened(UNHELD, FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let timing = self.came(|latencies| &latencies.readdir);
        let (vfs, listings) = (Arc::clone(&self.vfs), Arc::clone(&self.listings));
        self.timed(timing, self.listings.listing(&self.vfs, Ino(ino.0), offset), move |result| {
            match result {
                Ok(listing) => {
                    let mut is_empty = true;
                    let walked = vfs.walk(&listing.listed, listing.position, |entry| {
                        let (name, kind) = (OsStr::from_bytes(entry.name), file_type(entry.kind));
                        is_empty = false;
                        !reply.add(INodeNo(entry.ino.0), listing.offset(entry.next), kind, name)
                    });
                    match walked {
                        // What was told is right; the kernel asks for the rest.
                        Err(error) if is_empty => return reply.error(errno(&error)),
                        Ok(()) if is_empty => listings.end(&listing),
                        _ => {}
                    }
                    reply.ok();
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let timing = self.came(|latencies| &latencies.readdir);
        let (vfs, listings) = (Arc::clone(&self.vfs), Arc::clone(&self.listings));
        self.timed(timing, self.listings.listing(&self.vfs, Ino(ino.0), offset), move |result| {
            match result {
                Ok(listing) => match fill(&vfs, &listing, &mut reply) {
                    Ok(Filled::Something) => reply.ok(),
                    Ok(Filled::Nothing) => {
                        listings.end(&listing);
                        reply.ok();
                    }
                    Err(error) => reply.error(errno(&error)),
                },
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        match self.vfs.disk() {
            Some(Ok(disk)) => return change::reply_disk(&disk, reply),
            Some(Err(error)) => return reply.error(errno(&error)),
            None => {}
        }
        let (bytes, files) = self.vfs.totals();
        let blocks = bytes.div_ceil(u64::from(BLOCK));
        let name_max = crate::path::NAME_MAX as u32;
        reply.statfs(blocks, 0, 0, files, 0, BLOCK, name_max, BLOCK);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        // Programs ask any file whether it is a terminal.
        reply.error(Errno::ENOTTY);
    }

    fn getxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.kernel.note();
        let value = self.vfs.xattr(Ino(ino.0), name.as_bytes());
        reply_xattr(value, size, reply);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.kernel.note();
        let names = self.vfs.xattr_names(Ino(ino.0));
        let ended = |name: Vec<u8>| [name, vec![0]].concat();
        let list = names.map(|names| names.into_iter().flat_map(ended).collect());
        reply_xattr(list, size, reply);
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed_there: Option<SystemTime>,
        _saved: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = change::times(accessed, modified);
        let mode = mode.map(change::permissions);
        let takes_set_id = size.is_some() && change::loses_set_id(request);
        let change = Change { mode, uid, gid, size, times, takes_set_id };
        self.change_attributes(Ino(ino.0), change, reply);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _device: u32,
        reply: ReplyEntry,
    ) {
        match change::node_kind(mode) {
            Some(new) => self.create_entry(request, (parent, name), (new, mode), reply),
            None => reply.error(errno(&VfsError::NotPermitted)),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        self.create_entry(request, (parent, name), (New::Folder, mode), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes().to_vec();
        self.create_entry(request, (parent, name), (New::Link(target), 0o777), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.create_file(request, (parent, name), (mode, OpenFlags(flags)), reply);
    }

    fn link(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _parent: INodeNo,
        _name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(errno(&VfsError::NotPermitted));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.with_name(name, reply, |name| self.vfs.unlink(Ino(parent.0), name));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.with_name(name, reply, |name| self.vfs.rmdir(Ino(parent.0), name));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.move_entry((parent, name), (new_parent, new_name), flags, reply);
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let timing = self.came(|latencies| &latencies.write);
        let takes_set_id = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let written = self.vfs.write(Ino(ino.0), (offset, data), takes_set_id);
        self.timed(timing, written, move |written| match written {
            Ok(count) => reply.written(count as u32),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        only_data: bool,
        reply: ReplyEmpty,
    ) {
        self.answer(self.vfs.sync(Ino(ino.0), only_data), |synced| change::done(synced, reply));
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _only_data: bool,
        reply: ReplyEmpty,
    ) {
        self.answer(self.vfs.sync_folder(Ino(ino.0)), |synced| change::done(synced, reply));
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocated = self.vfs.allocate(Ino(ino.0), (offset, length), mode.cast_unsigned());
        self.answer(allocated, |allocated| change::done(allocated, reply));
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.seek(Ino(ino.0), offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        from: INodeNo,
        _from_handle: FileHandle,
        from_at: u64,
        to: INodeNo,
        _to_handle: FileHandle,
        to_at: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.copy((Ino(from.0), from_at), (Ino(to.0), to_at), length, reply);
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        self.set_xattr(Ino(ino.0), (name, value), flags, reply);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove_xattr(Ino(ino.0), name, reply);
    }
}

/// Fills a listing with attributes; each entry told is one look-up the kernel holds. Fails only if
/// there is nothing to tell.
fn fill(vfs: &Vfs, listing: &Listing, reply: &mut ReplyDirectoryPlus) -> Result<Filled, VfsError> {
    let mut is_empty = true;
    let walked = vfs.walk(&listing.listed, listing.position, |entry| {
        let Some((attr, lifetime)) = vfs.enter_listed(&listing.listed, &entry) else { return true };
        let ino = INodeNo(attr.ino.0);
        let (name, next) = (OsStr::from_bytes(entry.name), listing.offset(entry.next));
        let lifetime = ttl(lifetime);
        let is_full = reply.add(ino, next, name, &lifetime, &file_attr(&attr), Generation(0));
        if is_full {
            vfs.forget(attr.ino, 1);
        }
        is_empty &= is_full;
        !is_full
    });
    if is_empty { walked.map(|()| Filled::Nothing) } else { Ok(Filled::Something) }
}

/// What a piece of a listing was filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// Nothing, since that was all.
    Nothing,
    Something,
}

fn reply_xattr(value: Result<Vec<u8>, VfsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}
