//! Files that are open in a writable mount.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use rustix::{
    fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, fdatasync, fsync, seek},
    io::Errno,
};

use super::{
    super::{Answer, Ino, OpenedFile, Vfs, VfsError, run_blocking},
    Open, Stop, View,
    copy_up::Bytes,
    names::{Names, Seat},
    view::Standing,
};
use crate::{cache::read_full_at, overlay, path::RepoPath, steps};

/// What a program opens a file for.
#[expect(clippy::struct_excessive_bools, reason = "independent flags of an open")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// To read.
    pub reads: bool,
    /// To write.
    pub writes: bool,
    /// To have it empty.
    pub truncates: bool,
    /// Whether emptying it takes set-id bits away.
    pub takes_set_id: bool,
}

/// A file that was opened in a writable mount.
#[derive(Debug)]
pub enum Opened {
    /// A file of the base, to be read.
    Base(OpenedFile),
    /// A file of the base that is only written, and does not have to be there before that.
    Unread,
    /// A file of the upper folder.
    Upper(Arc<File>),
}

/// What is looked for in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// The next bytes.
    Data,
    /// The next hole.
    Hole,
}

impl Vfs {
    /// Opens a file until [`Vfs::close`].
    pub fn open_merged(&self, ino: Ino, how: Opening) -> Answer<Opened> {
        let vfs = self.myself();
        let opened = if how.truncates {
            let (vfs, writing) = (self.myself(), self.writing(ino));
            self.with_own_bytes(ino, Bytes::None).and_then(move |file| {
                let _writing = writing;
                Answer::Now(vfs.on_disk(|view| {
                    view.check_present(ino)?;
                    file.set_len(0)?;
                    view.take_set_id(&file, how.takes_set_id)?;
                    Ok(Some(file))
                }))
            })
        } else {
            Answer::Now(self.on_disk(|view| view.own_file(ino)))
        };
        let opened = opened.and_then({
            let vfs = Arc::clone(&vfs);
            move |file| match file {
                Some(file) => Answer::Now(Ok(vfs.opened_upper(ino, how, file))),
                None => vfs.opened_base(ino, how),
            }
        });
        if !how.writes {
            return opened;
        }
        opened.and_then(move |opened| {
            let is_present = vfs.on_disk(|view| view.check_present(ino));
            Answer::Now(is_present.map(|()| opened).inspect_err(|_| vfs.close(ino, how.writes)))
        })
    }

    /// Counts as somebody who writes to a file, until what this gives is dropped.
    pub(super) fn writing(&self, ino: Ino) -> Writing {
        if let Some(upper) = self.upper.get() {
            upper.begin(ino, true);
        }
        Writing { vfs: self.myself(), ino }
    }

    fn opened_upper(&self, ino: Ino, how: Opening, file: Arc<File>) -> Opened {
        let Some(upper) = self.upper.get() else { return Opened::Upper(file) };
        upper.begin(ino, how.writes);
        let mut open = upper.open.lock();
        let entry = open.entry(ino).or_default();
        Opened::Upper(Arc::clone(entry.file.get_or_insert(file)))
    }

    fn opened_base(&self, ino: Ino, how: Opening) -> Answer<Opened> {
        let Some(upper) = self.upper.get() else { return Answer::Now(Err(VfsError::ReadOnly)) };
        upper.begin(ino, how.writes);
        // Whoever copies it up from now on finds that it is open; somebody may have done so before.
        if let Ok(Some(file)) = self.on_disk(|view| view.own_file(ino)) {
            self.close(ino, how.writes);
            return Answer::Now(Ok(self.opened_upper(ino, how, file)));
        }
        if !how.reads {
            return Answer::Now(Ok(Opened::Unread));
        }
        match self.open(ino) {
            Answer::Now(opened) => Answer::Now(self.opened_to_read((ino, how), opened)),
            Answer::Later(opening) => {
                let vfs = self.myself();
                Answer::later(async move { vfs.opened_to_read((ino, how), opening.await) })
            }
        }
    }

    fn opened_to_read(
        &self,
        (ino, how): (Ino, Opening),
        opened: Result<OpenedFile, VfsError>,
    ) -> Result<Opened, VfsError> {
        opened.map(Opened::Base).inspect_err(|_| self.close(ino, how.writes))
    }

    /// One open of an inode has ended, which might have written or not.
    pub fn close(&self, ino: Ino, writes: bool) {
        let Some(upper) = self.upper.get() else { return };
        let mut open = upper.open.lock();
        let Some(entry) = open.get_mut(&ino) else { return };
        entry.count -= 1;
        entry.writers -= u64::from(writes).min(entry.writers);
        let is_complete = writes && entry.writers == 0;
        let written = entry.file.as_ref().filter(|_| is_complete).cloned();
        let closed = if entry.count == 0 { open.remove(&ino) } else { None };
        drop(open);
        drop(closed);
        // The kernel would wait half a minute, and whoever takes a snapshot for all of it at once.
        if let Some(file) = written.filter(|file| overlay::is_worth_writing_back(file))
            && let Ok(turn) = Arc::clone(&upper.writing_back).try_acquire_owned()
        {
            self.runtime.spawn_blocking(move || {
                let goes_on = || !turn.semaphore().is_closed();
                if let Err(error) = overlay::write_back(&*file, goes_on) {
                    tracing::debug!("begin to write a file to the disk: {error}");
                }
                drop(turn);
            });
        }
    }

    /// Reads from the upper folder if that is where an open file's bytes are.
    pub(in super::super) fn read_own(
        &self,
        ino: Ino,
        offset: u64,
        buffer: &mut [u8],
    ) -> Option<Result<usize, VfsError>> {
        let file = self.upper.get()?.open_file(ino)?;
        Some(read_full_at(&file, buffer, offset).map_err(VfsError::from))
    }

    /// Writes; gives how many bytes there are room for. A write may take set-id bits away.
    pub fn write(
        &self,
        ino: Ino,
        (offset, data): (u64, &[u8]),
        takes_set_id: bool,
    ) -> Answer<usize> {
        let write = move |view: View<'_>, file: &File, data: &[u8]| {
            view.take_set_id(file, takes_set_id)?;
            let written = write_full(file, offset, data)?;
            steps::reached("written");
            Ok(written)
        };
        let open = self.upper.get().and_then(|upper| upper.open_file(ino));
        if let Some(file) = open {
            return Answer::Now(self.on_disk(|view| write(view, &file, data)));
        }
        let (vfs, data) = (self.myself(), data.to_vec());
        self.with_own_bytes(ino, Bytes::All)
            .and_then(move |file| Answer::Now(vfs.on_disk(|view| write(view, &file, &data))))
    }

    /// Gives room to a part of a file or takes it away, as the flags of `fallocate(2)` say.
    pub fn allocate(&self, ino: Ino, (offset, length): (u64, u64), flags: u32) -> Answer<()> {
        self.with_own_bytes(ino, Bytes::All).and_then(move |file| {
            Answer::later(run_blocking(move || {
                let flags = FallocateFlags::from_bits_retain(flags);
                fallocate(&*file, flags, offset, length).map_err(disk_error)
            }))
        })
    }

    /// Where the next bytes or the next hole are.
    pub fn seek(&self, ino: Ino, offset: u64, sought: Sought) -> Answer<u64> {
        if let Ok(Some(file)) = self.on_disk(|view| view.own_file(ino)) {
            let to = match sought {
                Sought::Data => SeekFrom::Data(offset),
                Sought::Hole => SeekFrom::Hole(offset),
            };
            return Answer::Now(seek(&*file, to).map_err(disk_error));
        }
        // Files of the base have no holes.
        self.getattr(ino).and_then(move |(attr, _)| {
            Answer::Now(match sought {
                _ if offset >= attr.size => Err(disk_error(Errno::NXIO)),
                Sought::Data => Ok(offset),
                Sought::Hole => Ok(attr.size),
            })
        })
    }

    /// Copies within the upper disk; nothing where that cannot be done, so that whoever asked reads
    /// and writes instead.
    pub fn copy_range(
        &self,
        (from, from_at): (Ino, u64),
        (to, to_at): (Ino, u64),
        length: usize,
    ) -> Answer<Option<usize>> {
        let open = |ino| self.upper.get().and_then(|upper| upper.open_file(ino));
        let (Some(from), Some(to)) = (open(from), open(to)) else { return Answer::Now(Ok(None)) };
        Answer::later(run_blocking(move || {
            let (mut from_at, mut to_at) = (from_at, to_at);
            match copy_file_range(&*from, Some(&mut from_at), &*to, Some(&mut to_at), length) {
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
                copied => copied.map(Some).map_err(disk_error),
            }
        }))
    }

    /// Has the bytes of a file on disk, and the names that lead to it.
    pub fn sync(&self, ino: Ino, only_data: bool) -> Answer<()> {
        let vfs = self.myself();
        Answer::later(run_blocking(move || {
            let (file, folder) = vfs.on_disk(|view| view.unsynced(ino))?;
            steps::reached("sync asked for");
            if let Some(file) = file {
                if only_data { fdatasync(&*file) } else { fsync(&*file) }.map_err(disk_error)?;
            }
            steps::reached("file synced");
            vfs.on_disk(|view| Ok(view.upper.overlay.sync_folder(&folder)?))
        }))
    }

    /// Has the names of a folder on disk.
    pub fn sync_folder(&self, ino: Ino) -> Answer<()> {
        let vfs = self.myself();
        Answer::later(run_blocking(move || {
            vfs.on_disk(|view| {
                let names = view.names()?;
                if matches!(names.seat(ino), Some(Seat::Gone(_))) {
                    return Ok(());
                }
                let path = view.path(&names, ino)?;
                drop(names);
                Ok(view.upper.overlay.sync_folder(&path)?)
            })
        }))
    }
}

/// Somebody who writes to a file without having it open.
pub(super) struct Writing {
    vfs: Arc<Vfs>,
    ino: Ino,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.vfs.close(self.ino, true);
    }
}

impl Open {
    /// One more open.
    pub(super) fn begin(&mut self, writes: bool) {
        self.count += 1;
        self.writers += u64::from(writes);
    }
}

impl View<'_> {
    /// Fails for a file from above an earlier base, whose bytes are no longer the overlay's. For
    /// whoever counts as open to write already, so that no other base comes in between.
    pub(super) fn check_present(&self, ino: Ino) -> Result<(), Stop> {
        if self.is_present(&*self.names()?, ino) { Ok(()) } else { Err(VfsError::Stale.into()) }
    }

    /// Whether an inode has its bytes in the overlay as it is now, or nowhere else.
    pub(super) fn is_present(&self, names: &Names, ino: Ino) -> bool {
        let is_loose = || self.upper.open.lock().get(&ino).is_some_and(|open| open.is_loose);
        names.is_present(ino) || is_loose()
    }

    /// What the upper folder has of a file, with bytes or without, and the folder that it is in.
    fn unsynced(&self, ino: Ino) -> Result<(Option<Arc<File>>, RepoPath), Stop> {
        let mut file = self.own_file(ino)?;
        let names = self.names()?;
        let is_gone = matches!(names.seat(ino), Some(Seat::Gone(_)));
        if is_gone || !self.is_present(&names, ino) {
            return Ok((file, RepoPath::root()));
        }
        if file.is_none()
            && let Standing::Upper(path, _) = self.standing(&names, ino)?
        {
            file = Some(Arc::new(self.upper.overlay.open_file(&path, false)?));
        }
        let path = self.path(&names, ino)?;
        Ok((file, path.parent().unwrap_or_default()))
    }
}

fn disk_error(errno: Errno) -> VfsError {
    io::Error::from(errno).into()
}

/// Writes as much as there is room for; an error only if that is nothing.
fn write_full(file: &File, offset: u64, data: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < data.len() {
        match file.write_at(&data[written..], offset + written as u64) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if written == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(written)
}
