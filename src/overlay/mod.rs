//! The upper layer of a writable mount: local files, marks of what is gone, and a note of the base.
//!
//! An overlay is a folder that its user may look into, copy from and delete:
//!
//! | place | what it is |
//! |---|---|
//! | `base.json` | which commit of which repository lies below |
//! | `dropped.json` | what is about to be taken out, as long as that lasts |
//! | `dropped-all` | everything is about to be taken out |
//! | `upper/` | what was added or changed, as plain files in plain folders |
//! | `work/` | files on their way there; emptied when the overlay is opened |
//! | `lock` | held by the process that has the overlay open |
//!
//! What is not a plain file or folder of `upper/` is told by the words of the kernel's own
//! overlayfs: a *whiteout*, a character device with the number 0:0, hides the name below it. Marks
//! are extended attributes ([`marks`]), which move with what they mark: an *opaque* folder shows
//! nothing of the base; an *origin* says that a folder shows the base's folder of another path, or
//! that a file has the content of one in the base and no bytes here; an *own* folder is more than
//! the way to what is in it.
//!
//! Nothing here knows what the base holds. Whoever changes something says whether the base has the
//! name, and gets a whiteout in its place if so. Every change is one rename or one system call, so
//! that a crash leaves the old state or the new one.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, flock, fstat,
    mkdirat, openat2, renameat_with, syncfs, unlinkat,
};

use self::folders::{Folder, Folders};
use crate::{path::RepoPath, steps};

mod base;
mod change;
mod entry;
mod error;
mod folders;
mod marks;
mod take_out;
mod write_back;

pub use base::Base;
pub use change::{Draft, Owner, Renaming, Time, Times, mark_own, set_owner, set_times};
pub use entry::{
    Entry, Kind, Listed, ListedKind, Shows, Stat, Totals, attribute, attribute_names, is_mark,
    read_entry, remove_attribute, set_attribute,
};
pub use error::{OverlayError, is_lack_of_room};
pub use take_out::Kept;
pub use write_back::{is_worth_writing_back, write_back};

/// An overlay that this process has open.
#[derive(Debug)]
pub struct Overlay {
    dir: PathBuf,
    upper: Arc<Folder>,
    folders: Folders,
    work: Arc<OwnedFd>,
    temporaries: AtomicU64,
    /// Whether files can be given to other users.
    is_privileged: bool,
    is_unfinished: AtomicBool,
    _lock: File,
}

/// The parent of an entry, open, and the entry's name in it.
struct Spot<'a> {
    folder: Arc<Folder>,
    name: &'a OsStr,
}

impl Overlay {
    /// Opens the overlay in `dir`, which is made if it is missing, for this process alone.
    pub fn open(dir: &Path) -> Result<Self, OverlayError> {
        let failed = |action| OverlayError::unusable(dir, action);
        if let Some(other) = overlay_around(dir) {
            return Err(OverlayError::Inside { dir: dir.to_owned(), other });
        }
        for place in ["upper", "work"] {
            fs::create_dir_all(dir.join(place)).map_err(failed("make its folders"))?;
        }
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))
            .map_err(failed("open its lock"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(OverlayError::Busy { dir: dir.to_owned() });
        }
        let open = |place: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(dir.join(place), flags, Mode::empty())
        };
        let upper = open("upper").map_err(io::Error::from).map_err(failed("open it"))?;
        let overlay = Self {
            dir: dir.to_owned(),
            upper: Arc::new(Folder::new(upper)),
            folders: Folders::new(),
            work: Arc::new(open("work").map_err(io::Error::from).map_err(failed("open it"))?),
            temporaries: AtomicU64::new(0),
            is_privileged: rustix::process::geteuid().is_root(),
            is_unfinished: AtomicBool::new(false),
            _lock: lock,
        };
        overlay.require_one_disk().map_err(failed("move files into place in"))?;
        overlay.clear_work().map_err(failed("empty its work folder"))?;
        match overlay.require_marks() {
            // It took marks when it was new.
            Err(error) if error.lacks_room() && base::is_noted(dir) => {}
            other => other?,
        }
        overlay.end_taking_out().map_err(failed("take out what was dropped from"))?;
        Ok(overlay)
    }

    /// The folder that all of it lies in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of what was added or changed.
    pub fn upper_dir(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// Something was begun that can be neither undone nor brought to its end. Nothing is seen or
    /// changed here any more, so that no change is lost when the end comes: when the overlay is
    /// opened again.
    pub fn leave_unfinished(&self) {
        self.is_unfinished.store(true, Ordering::SeqCst);
    }

    /// Fails once something was [left unfinished](Self::leave_unfinished).
    pub fn check(&self) -> io::Result<()> {
        if self.is_unfinished.load(Ordering::SeqCst) {
            return Err(io::Error::other(
                "what was begun in it could not be ended: mount it again",
            ));
        }
        Ok(())
    }

    fn upper(&self) -> io::Result<&Arc<Folder>> {
        self.check()?;
        Ok(&self.upper)
    }

    /// Waits until everything in it is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(File::open(self.upper_dir())?)?)
    }

    /// Removes what a process that ended early was about to put in place.
    fn clear_work(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.join("work"))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Checks that what is made in one of the folders can be moved to the other.
    fn require_one_disk(&self) -> io::Result<()> {
        if fstat(&self.upper)?.st_dev == fstat(&*self.work)?.st_dev {
            return Ok(());
        }
        Err(rustix::io::Errno::XDEV.into())
    }

    /// Tries whether the disk takes marks and whiteouts, which not every file system does.
    fn require_marks(&self) -> Result<(), OverlayError> {
        let name = self.temporary();
        let made = self.make_whiteout(&name).and_then(|()| self.discard(&name)).and_then(|()| {
            mkdirat(&self.work, &*name, Mode::RWXU)?;
            let folder = open_at(&self.work, Path::new(&*name), OFlags::PATH)?;
            marks::set(&folder, marks::OPAQUE, b"y")?;
            self.discard(&name)
        });
        made.map_err(OverlayError::unusable(&self.dir, "keep whiteouts and extended attributes in"))
    }

    /// A name in the work folder that nobody else uses.
    fn temporary(&self) -> String {
        format!("{}", self.temporaries.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes something from the work folder.
    fn discard(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.work, name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => fs::remove_dir_all(self.dir.join("work").join(name)),
            other => Ok(other?),
        }
    }

    /// Opens an entry without reading it, whatever it is.
    pub fn look_at(&self, path: &RepoPath) -> io::Result<Option<OwnedFd>> {
        // A link itself can be looked at only from its folder.
        let Some(spot) = self.spot(path)? else { return Ok(None) };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&spot.folder, spot.name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// The open parent and the name of an entry; nothing if the overlay does not have the parent.
    fn spot<'a>(&self, path: &'a RepoPath) -> io::Result<Option<Spot<'a>>> {
        let name = OsStr::from_bytes(path.file_name().unwrap_or(b"."));
        let folder = self.folder(&path.parent().unwrap_or_default())?;
        Ok(folder.map(|folder| Spot { folder, name }))
    }

    /// A folder, open for what is done at names in it; nothing if the overlay does not have it.
    fn folder(&self, path: &RepoPath) -> io::Result<Option<Arc<Folder>>> {
        let upper = self.upper()?;
        if path.is_root() {
            return Ok(Some(Arc::clone(upper)));
        }
        let open = || open_at(upper, as_path(path), OFlags::PATH | OFlags::DIRECTORY);
        match self.folders.get(path, open) {
            Err(error) if is_absent(&error) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Like [`Self::spot`], where the parent has to be there.
    fn place<'a>(&self, path: &'a RepoPath) -> io::Result<Spot<'a>> {
        self.spot(path)?.ok_or_else(|| rustix::io::Errno::NOENT.into())
    }

    fn make_whiteout(&self, name: &str) -> io::Result<()> {
        let device = rustix::fs::makedev(0, 0);
        let mode = Mode::empty();
        Ok(rustix::fs::mknodat(&self.work, name, FileType::CharacterDevice, mode, device)?)
    }

    /// Moves a finished file or folder of the work folder over whatever is at `path`, unless that
    /// is a folder and it is none, or the reverse.
    fn put(&self, name: &str, path: &RepoPath) -> io::Result<()> {
        let spot = self.place(path)?;
        let moved = renameat_with(&self.work, name, &spot.folder, spot.name, RenameFlags::empty());
        if moved.is_err() {
            // What could not be placed is of no use; the error says why.
            _ = self.discard(name);
        }
        Ok(moved?)
    }

    /// Puts a folder of the work folder in the place of a whiteout, or of nothing.
    fn put_folder(&self, name: &str, path: &RepoPath) -> io::Result<()> {
        let spot = self.place(path)?;
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(&self.work, name, &spot.folder, spot.name, flags) {
            Err(rustix::io::Errno::EXIST) => {}
            other => return Ok(other?),
        }
        // A folder cannot be moved over a file, so the two change places.
        self.change_places(name, &spot)?;
        steps::reached("folder placed");
        self.discard(name)
    }

    fn change_places(&self, name: &str, spot: &Spot<'_>) -> io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        Ok(renameat_with(&self.work, name, &spot.folder, spot.name, flags)?)
    }
}

/// The overlay in one of whose folders a place lies, if there is one.
fn overlay_around(place: &Path) -> Option<PathBuf> {
    let (above, real) = place.ancestors().find_map(|it| Some((it, fs::canonicalize(it).ok()?)))?;
    let place = real.join(place.strip_prefix(above).ok()?);
    let mut folders = place.ancestors().filter(|it| it.ends_with("upper") || it.ends_with("work"));
    let other = folders.find_map(|it| it.parent().filter(|other| base::is_noted(other)));
    other.map(Path::to_owned)
}

/// What the kernel takes of a path at a time; names are shorter.
const PIECE: usize = 4095;

/// Opens something below a folder of ours; never by way of a symbolic link or a mount.
fn open_at(folder: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    let split = bytes.get(..=PIECE).and_then(|most| most.iter().rposition(|byte| *byte == b'/'));
    if let Some(end) = split {
        let reached = open_piece(folder, &bytes[..end], OFlags::PATH | OFlags::DIRECTORY)?;
        return open_at(reached, Path::new(OsStr::from_bytes(&bytes[end + 1..])), flags);
    }
    open_piece(folder, if bytes.is_empty() { b"." } else { bytes }, flags)
}

fn open_piece(folder: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat2(folder, path, flags, Mode::empty(), resolve)?)
}

fn as_path(path: &RepoPath) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

/// Whether an error says that something on the way is not there, or is no folder.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The name by which the kernel finds a file that is open here.
fn magic_link(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests;
