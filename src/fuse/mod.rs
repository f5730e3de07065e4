//! The kernel's side: FUSE requests to [`Vfs`] questions, answers to replies.
//!
//! The only module that names the FUSE library or an errno. Nothing is decided here: a request is
//! decoded, the `Vfs` is asked, its answer is encoded. Answers that take time are awaited on the
//! runtime with the reply in hand, so a session thread never waits for the network.

mod convert;
mod errno;
mod invalidate;
mod session;

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fuser::{
    Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyXattr,
    Request,
};
use parking_lot::RwLock;
use tokio::runtime::Handle;

pub use self::session::{MountError, MountOptions, Session, unmount};
use self::{
    convert::{file_attr, file_type, ttl},
    errno::errno,
};
use crate::vfs::{Answer, Ino, Listed, Lookup, Read, Vfs, VfsError};

/// Requests the kernel may have waiting at a time; at its default of 16, 64 programs that wait for
/// downloads take four times as long.
const MAX_BACKGROUND: u16 = 256;

/// What the kernel reads ahead at most, in bytes.
const MAX_READAHEAD: u32 = 1 << 20;

/// The file system as the FUSE library wants it.
struct FuseFs {
    vfs: Arc<Vfs>,
    listings: Arc<Listings>,
    runtime: Handle,
    uid: u32,
    gid: u32,
}

/// Folders that are open: each is listed as it was when it was opened, whatever moves meanwhile.
#[derive(Default)]
struct Listings {
    by_handle: RwLock<HashMap<u64, Arc<Listed>>>,
    opened: AtomicU64,
}

impl Listings {
    fn add(&self, listed: Listed) -> u64 {
        let handle = self.opened.fetch_add(1, Ordering::Relaxed);
        self.by_handle.write().insert(handle, Arc::new(listed));
        handle
    }

    fn remove(&self, handle: u64) {
        self.by_handle.write().remove(&handle);
    }
}

thread_local! {
    /// Each session thread reads into a buffer that it keeps.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
            Answer::Later(future) => {
                self.runtime.spawn(async move { reply(future.await) });
            }
        }
    }
}

impl FuseFs {
    /// The listing of an open folder; of one that was not opened here, its listing now.
    fn listing(&self, ino: INodeNo, handle: FileHandle) -> Answer<Arc<Listed>> {
        match self.listings.by_handle.read().get(&handle.0) {
            Some(listed) => Answer::Now(Ok(Arc::clone(listed))),
            None => self.vfs.list(Ino(ino.0)).map(Arc::new),
        }
    }
}

impl Filesystem for FuseFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_ABORT_ERROR;
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
        if name.len() > crate::path::NAME_MAX {
            return reply.error(Errno::ENAMETOOLONG);
        }
        let owner = (self.uid, self.gid);
        let answer = self.vfs.lookup(Ino(parent.0), name.as_bytes());
        self.answer(answer, move |result| match result {
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
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.answer(self.vfs.getattr(Ino(ino.0)), move |result| match result {
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

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(errno(&VfsError::ReadOnly));
        }
        self.answer(self.vfs.open(Ino(ino.0)), move |result| match result {
            Ok(opened) => {
                let flags = if opened.keeps_pages {
                    FopenFlags::FOPEN_KEEP_CACHE
                } else {
                    FopenFlags::empty()
                };
                reply.opened(FileHandle(opened.handle), flags);
            }
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
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(buffer.len().max(size as usize), 0);
            let buffer = &mut buffer[..size as usize];
            match self.vfs.read(Ino(ino.0), handle.0, offset, buffer) {
                Read::Done(Ok(count)) => reply.data(&buffer[..count]),
                Read::Done(Err(error)) => reply.error(errno(&error)),
                Read::Later(future) => {
                    self.runtime.spawn(async move {
                        match future.await {
                            Ok(bytes) => reply.data(&bytes),
                            Err(error) => reply.error(errno(&error)),
                        }
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
        // Nothing is ever written; the kernel stops asking.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.vfs.release(handle.0);
        reply.ok();
    }

    fn opendir(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let listings = Arc::clone(&self.listings);
        self.answer(self.vfs.list(Ino(ino.0)), move |result| match result {
            Ok(listed) => {
                let flags = if listed.is_fixed {
                    FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
                } else {
                    FopenFlags::empty()
                };
                reply.opened(FileHandle(listings.add(listed)), flags);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.answer(self.listing(ino, handle), move |result| match result {
            Ok(listed) => {
                vfs.walk(&listed, offset, |entry| {
                    let name = OsStr::from_bytes(entry.name);
                    let kind = file_type(entry.kind);
                    !reply.add(INodeNo(entry.ino.0), entry.next, kind, name)
                });
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let vfs = Arc::clone(&self.vfs);
        self.answer(self.listing(ino, handle), move |result| match result {
            Ok(listed) => {
                fill(&vfs, &listed, offset, &mut reply);
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.remove(handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
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
        let value = self.vfs.xattr(Ino(ino.0), name.as_bytes());
        reply_xattr(value, size, reply);
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.vfs.xattr_names(Ino(ino.0));
        let ended = |name: Vec<u8>| [name, vec![0]].concat();
        let list = names.map(|names| names.into_iter().flat_map(ended).collect());
        reply_xattr(list, size, reply);
    }
}

/// Fills a listing with attributes; each entry told is one look-up the kernel holds.
fn fill(vfs: &Vfs, listed: &Listed, offset: u64, reply: &mut ReplyDirectoryPlus) {
    vfs.walk(listed, offset, |entry| {
        let Some((attr, lifetime)) = vfs.enter_listed(listed, &entry) else { return true };
        let ino = INodeNo(attr.ino.0);
        let name = OsStr::from_bytes(entry.name);
        let lifetime = ttl(lifetime);
        let is_full = reply.add(ino, entry.next, name, &lifetime, &file_attr(&attr), Generation(0));
        if is_full {
            vfs.forget(attr.ino, 1);
        }
        !is_full
    });
}

fn reply_xattr(value: Result<Vec<u8>, VfsError>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}
