//! The least that serving a folder takes.

use std::{
    cell::RefCell,
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackingId, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyXattr, Request,
};

use crate::tree::{Id, Tree};

const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

struct Least {
    tree: Tree,
    native: PathBuf,
    is_passed: bool,
    passed: Mutex<HashMap<u64, Arc<BackingId>>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
}

/// Serves `native` on `dir` until it is unmounted.
pub(crate) fn mount(dir: &Path, native: &Path, is_passed: bool) {
    let least = Least {
        tree: Tree::read(native),
        native: native.to_owned(),
        is_passed,
        passed: Mutex::default(),
        files: Mutex::default(),
    };
    let session = fuser::Session::new(least, dir, &fuser::Config::default()).unwrap();
    println!("ready");
    session.run().unwrap();
}

thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });

impl Least {
    fn attr(&self, id: Id) -> FileAttr {
        let node = &self.tree.nodes[id as usize];
        FileAttr {
            ino: INodeNo(u64::from(id) + 1),
            size: node.size,
            blocks: node.size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if node.is_dir { FileType::Directory } else { FileType::RegularFile },
            perm: if node.is_dir { 0o555 } else { 0o444 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn open_native(&self, ino: INodeNo) -> File {
        File::open(self.tree.path(&self.native, ino.0 as Id - 1)).unwrap()
    }

    /// The entries of a folder from an offset on, until `add` is full.
    fn list(&self, ino: INodeNo, offset: u64, mut add: impl FnMut(Id, u64) -> bool) {
        for (id, at) in self.tree.children(ino.0 as Id - 1).zip(1..).skip(offset as usize) {
            if add(id, at) {
                return;
            }
        }
    }
}

impl Filesystem for Least {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        let passed = if self.is_passed { InitFlags::FUSE_PASSTHROUGH } else { InitFlags::empty() };
        config.add_capabilities(wanted | passed).unwrap();
        if self.is_passed {
            config.set_max_stack_depth(1).unwrap();
        }
        config.set_max_readahead(1 << 20).unwrap_or_default();
        config.set_max_background(256).unwrap();
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.tree.child(parent.0 as Id - 1, name.as_bytes());
        let absent = || FileAttr { ino: INodeNo(0), ..self.attr(0) };
        let attr = found.map_or_else(absent, |id| self.attr(id));
        reply.entry(&FOREVER, &attr, Generation(0));
    }

    fn forget(&self, _request: &Request, _ino: INodeNo, _count: u64) {}

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        reply.attr(&FOREVER, &self.attr(ino.0 as Id - 1));
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if !self.is_passed {
            return reply.error(Errno::ENOSYS);
        }
        let known = self.passed.lock().unwrap().get(&ino.0).cloned();
        let id = known.unwrap_or_else(|| {
            let id = Arc::new(reply.open_backing(self.open_native(ino).as_fd()).unwrap());
            self.passed.lock().unwrap().insert(ino.0, Arc::clone(&id));
            id
        });
        reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, &id);
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = {
            let mut files = self.files.lock().unwrap();
            // Descriptors are few; whoever reads more files opens them again.
            if files.len() > 5000 {
                files.clear();
            }
            let open = || Arc::new(self.open_native(ino));
            Arc::clone(files.entry(ino.0).or_insert_with(open))
        };
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(buffer.len().max(size as usize), 0);
            let count = file.read_at(&mut buffer[..size as usize], offset).unwrap();
            reply.data(&buffer[..count]);
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
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.list(ino, offset, |id, at| {
            let attr = self.attr(id);
            reply.add(attr.ino, at, attr.kind, OsStr::from_bytes(self.tree.name(id)))
        });
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.list(ino, offset, |id, at| {
            let (attr, name) = (self.attr(id), OsStr::from_bytes(self.tree.name(id)));
            reply.add(attr.ino, at, name, &FOREVER, &attr, Generation(0))
        });
        reply.ok();
    }

    fn getxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}
