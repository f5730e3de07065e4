//! Changes to the upper folder.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW,
        UTIME_OMIT, Uid, chmod, chownat, fchmod, fstat, fsync, futimens, mkdirat, mknodat, openat,
        renameat_with, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use super::{
    Overlay, Shows, Spot, Stat, as_path, attribute, attribute_names, is_absent, magic_link,
    marks::{self, MODE, OPAQUE, ORIGIN, OWN},
    open_at, read_entry, set_attribute,
};
use crate::{path::RepoPath, steps};

/// Whom something belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A time to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// As it is.
    Kept,
    /// The present one.
    Now,
    /// Seconds and nanoseconds since the epoch.
    At(i64, u32),
}

/// Times to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Of the last reading.
    pub accessed: Time,
    /// Of the last writing.
    pub modified: Time,
}

impl Times {
    /// Both as they are.
    pub const KEPT: Self = Self { accessed: Time::Kept, modified: Time::Kept };
}

/// How an entry is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Renaming {
    /// The base has the old name, so a whiteout takes its place.
    pub leaves_whiteout: bool,
    /// A folder that shows no entries is in the way.
    pub replaces_folder: bool,
}

/// A file that has no place yet; dropped without one, it is gone.
#[derive(Debug)]
pub struct Draft {
    work: Arc<OwnedFd>,
    name: Option<String>,
    file: File,
}

impl Draft {
    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // What is left is removed when the overlay is opened again.
            _ = unlinkat(&*self.work, name, AtFlags::empty());
        }
    }
}

impl Overlay {
    /// Makes the folders that lead to `path` where they are missing, each with the attributes of
    /// the folder that it goes on from.
    pub fn make_parents(
        &self,
        path: &RepoPath,
        below: &dyn Fn(&RepoPath) -> io::Result<Stat>,
    ) -> io::Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.folder(&parent)?.is_some() || self.look_at(&parent)?.is_some() {
            return Ok(());
        }
        self.make_parents(&parent, below)?;
        let stat = below(&parent)?;
        let owner = Owner { uid: stat.uid, gid: stat.gid };
        let spot = self.place(&parent)?;
        unnoticed(&spot.folder, || self.create_folder(&parent, stat.mode, owner, &Shows::Same))?;
        let made = self.look_at(&parent)?.ok_or(Errno::NOENT)?;
        set_times(&made, Times { accessed: Time::Kept, modified: stat.modified.into() })
    }

    /// Creates a file that can be read and written, in the place of a whiteout or of nothing.
    pub fn create_file(&self, path: &RepoPath, mode: u16, owner: Owner) -> io::Result<File> {
        let spot = self.place(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let create = |folder: BorrowedFd<'_>, name: &OsStr| {
            openat(folder, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        };
        match create(spot.folder.as_fd(), spot.name) {
            Err(Errno::EXIST) => {}
            created => {
                let file = created?;
                self.give(&file, mode, owner)?;
                return Ok(file.into());
            }
        }
        let name = self.temporary();
        let file = create(self.work.as_fd(), OsStr::new(&name))?;
        self.give(&file, mode, owner)?;
        steps::reached("file made");
        self.put(&name, path)?;
        Ok(file.into())
    }

    /// Creates a folder in the place of a whiteout or of nothing.
    pub fn create_folder(
        &self,
        path: &RepoPath,
        mode: u16,
        owner: Owner,
        shows: &Shows,
    ) -> io::Result<()> {
        self.build_folder(path, (mode, owner), |folder| set_shows(folder, shows))
    }

    /// Creates a folder that stays when all that is in it is dropped.
    pub fn create_own_folder(
        &self,
        path: &RepoPath,
        mode: u16,
        owner: Owner,
        shows: &Shows,
    ) -> io::Result<()> {
        self.build_folder(path, (mode, owner), |folder| {
            set_shows(folder, shows)?;
            marks::set(folder, OWN, b"y")
        })
    }

    fn build_folder(
        &self,
        path: &RepoPath,
        (mode, owner): (u16, Owner),
        mark: impl FnOnce(&OwnedFd) -> io::Result<()>,
    ) -> io::Result<()> {
        let name = self.temporary();
        mkdirat(&self.work, &*name, Mode::RWXU)?;
        let folder = open_at(&self.work, OsStr::new(&name).as_ref(), OFlags::DIRECTORY)?;
        self.give(&folder, mode, owner)?;
        mark(&folder)?;
        self.put_folder(&name, path)
    }

    /// Creates a symbolic link in the place of a whiteout or of nothing.
    pub fn create_link(&self, path: &RepoPath, target: &[u8], owner: Owner) -> io::Result<()> {
        let name = self.temporary();
        symlinkat(OsStr::from_bytes(target), &self.work, &*name)?;
        if self.is_privileged {
            let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
            chownat(&self.work, &*name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        self.put(&name, path)
    }

    /// Creates a named pipe in the place of a whiteout or of nothing.
    pub fn create_pipe(&self, path: &RepoPath, mode: u16, owner: Owner) -> io::Result<()> {
        let name = self.temporary();
        mknodat(&self.work, &*name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let file = open_at(&self.work, OsStr::new(&name).as_ref(), OFlags::PATH)?;
        chmod(magic_link(&file), Mode::from_raw_mode(mode.into()))?;
        if self.is_privileged {
            let (uid, gid) = (Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)));
            chownat(&self.work, &*name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        self.put(&name, path)
    }

    /// Begins a file that gets its place when all of it is there.
    pub fn draft(&self) -> io::Result<Draft> {
        let name = self.temporary();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(openat(&self.work, &*name, flags, Mode::RUSR | Mode::WUSR)?);
        Ok(Draft { work: Arc::clone(&self.work), name: Some(name), file })
    }

    /// Puts a draft in place over whatever file the overlay has there, from which it takes over
    /// what programs have set on it. Nobody notices, so the folder keeps its time.
    pub fn put_draft(&self, mut draft: Draft, path: &RepoPath, stat: &Stat) -> io::Result<()> {
        if let Some(before) = self.look_at(path)? {
            copy_attributes(&before, &draft.file)?;
        }
        self.dress(&draft, stat)?;
        let Some(name) = draft.name.take() else { return Ok(()) };
        let spot = self.place(path)?;
        steps::reached("draft filled");
        unnoticed(&spot.folder, || self.put(&name, path))
    }

    /// Gives a draft attributes.
    pub fn dress(&self, draft: &Draft, stat: &Stat) -> io::Result<()> {
        self.give(&draft.file, stat.mode, Owner { uid: stat.uid, gid: stat.gid })?;
        let (accessed, modified) = (stat.accessed.into(), stat.modified.into());
        Ok(futimens(&draft.file, &Times { accessed, modified }.into())?)
    }

    /// Gives a draft the attributes of another file, also those that programs have set on it.
    pub fn dress_like(&self, draft: &Draft, other: impl AsFd) -> io::Result<()> {
        copy_attributes(&other, &draft.file)?;
        let entry = read_entry(other)?.ok_or(Errno::STALE)?;
        self.dress(draft, &entry.stat)
    }

    /// A file without a name that has the content of one in the base, and no bytes here.
    pub fn nameless(&self, origin: &RepoPath, stat: &Stat) -> io::Result<OwnedFd> {
        let draft = self.draft()?;
        marks::set(&draft.file, ORIGIN, origin.as_bytes())?;
        self.dress(&draft, stat)?;
        Ok(draft.file.try_clone()?.into())
    }

    /// Puts a file in place that has the content of a file in the base, and no bytes here.
    pub fn stand_in(&self, path: &RepoPath, origin: &RepoPath, stat: &Stat) -> io::Result<()> {
        let draft = self.draft()?;
        marks::set(&draft.file, ORIGIN, origin.as_bytes())?;
        self.put_draft(draft, path, stat)
    }

    /// Removes a file, link or pipe; a whiteout takes its place if the base has the name.
    pub fn remove(&self, path: &RepoPath, is_in_base: bool) -> io::Result<()> {
        if is_in_base {
            let name = self.temporary();
            self.make_whiteout(&name)?;
            return self.put(&name, path);
        }
        let spot = self.place(path)?;
        Ok(unlinkat(&spot.folder, spot.name, AtFlags::empty())?)
    }

    /// Removes a folder that shows no entries; a whiteout takes its place if the base has the name.
    pub fn remove_folder(&self, path: &RepoPath, is_in_base: bool) -> io::Result<()> {
        let Some(spot) = self.spot(path)? else { return Err(Errno::NOENT.into()) };
        let name = self.temporary();
        if is_in_base {
            self.make_whiteout(&name)?;
            match self.change_places(&name, &spot) {
                Err(error) if is_absent(&error) => return self.put(&name, path),
                other => other?,
            }
        } else {
            renameat_with(&spot.folder, spot.name, &self.work, &*name, RenameFlags::empty())?;
        }
        self.folders.forget(path);
        steps::reached("folder removed");
        // All that is in it are whiteouts.
        self.discard(&name)
    }

    /// Moves an entry of the overlay over whatever may be in its way.
    pub fn rename(&self, from: &RepoPath, to: &RepoPath, how: Renaming) -> io::Result<()> {
        if how.replaces_folder {
            self.empty_folder(to)?;
            steps::reached("folder emptied");
        }
        let (old, new) = (self.place(from)?, self.place(to)?);
        let flags = if how.leaves_whiteout { RenameFlags::WHITEOUT } else { RenameFlags::empty() };
        let moved = match renameat_with(&old.folder, old.name, &new.folder, new.name, flags) {
            // A folder and a whiteout change places first.
            Err(Errno::NOTDIR) => rename_over_whiteout(&old, &new, how),
            other => other.map_err(io::Error::from),
        };
        for path in [from, to] {
            self.folders.forget(path);
        }
        moved
    }

    /// Takes the whiteouts out of a folder that shows nothing, and has it go on showing nothing.
    fn empty_folder(&self, path: &RepoPath) -> io::Result<()> {
        if self.look_at(path)?.is_none() {
            return Ok(());
        }
        self.set_shows(path, &Shows::Nothing)?;
        for listed in self.list(path)? {
            if listed.is_whiteout() {
                self.remove(&path.join(&listed.name), false)?;
            }
        }
        Ok(())
    }

    /// Has a folder show something else of the base.
    pub fn set_shows(&self, path: &RepoPath, shows: &Shows) -> io::Result<()> {
        let folder = self.look_at(path)?.ok_or(Errno::NOENT)?;
        let set = set_shows(&folder, shows);
        self.folders.forget(path);
        set
    }

    /// Sets permission bits.
    pub fn set_mode(&self, file: impl AsFd, mode: u16) -> io::Result<()> {
        let set = self.put_mode(&file, mode);
        // Which folder it is, if it is one, is not known here.
        if FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory {
            self.folders.forget(&RepoPath::root());
        }
        set
    }

    fn put_mode(&self, file: impl AsFd, mode: u16) -> io::Result<()> {
        let raw = fstat(&file)?;
        let kind = FileType::from_raw_mode(raw.st_mode);
        let needed = match (self.is_privileged, kind) {
            (false, FileType::Directory) => 0o700,
            (false, FileType::RegularFile) => 0o600,
            _ => 0,
        };
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            // A pipe takes no marks, and we never open one.
        } else if mode & needed == needed {
            marks::clear(&file, MODE)?;
        } else {
            marks::set(&file, MODE, format!("{mode:o}").as_bytes())?;
        }
        // By its name among the open ones, since a file that is only looked at has no other.
        Ok(chmod(magic_link(&file), Mode::from_raw_mode((mode | needed).into()))?)
    }

    /// Has a folder's names on disk when this returns, and those of the folders that lead to it.
    pub fn sync_folder(&self, path: &RepoPath) -> io::Result<()> {
        let mut at = Some(path.clone());
        while let Some(folder) = at {
            match open_at(self.upper()?, as_path(&folder), OFlags::DIRECTORY) {
                Err(error) if is_absent(&error) => {}
                opened => fsync(opened?)?,
            }
            at = folder.parent();
        }
        Ok(())
    }

    /// Sets owner and permission bits of something new.
    fn give(&self, file: impl AsFd, mode: u16, owner: Owner) -> io::Result<()> {
        if self.is_privileged {
            let now = fstat(&file)?;
            if (now.st_uid, now.st_gid) != (owner.uid, owner.gid) {
                // Before the mode, since a change of owner takes set-id bits away.
                set_owner(&file, Some(owner.uid), Some(owner.gid))?;
            }
            return Ok(fchmod(&file, Mode::from_raw_mode(mode.into()))?);
        }
        self.put_mode(file, mode)
    }
}

/// Notes of a folder that it has attributes of its own.
pub fn mark_own(entry: impl AsFd) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(&entry)?.st_mode) == FileType::Directory {
        marks::set(entry, OWN, b"y")?;
    }
    Ok(())
}

/// Gives an entry to somebody; what is not named stays.
pub fn set_owner(entry: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    Ok(chownat(entry, "", uid, gid, AtFlags::EMPTY_PATH)?)
}

/// Sets times.
pub fn set_times(entry: impl AsFd, times: Times) -> io::Result<()> {
    Ok(utimensat(entry, "", &times.into(), AtFlags::EMPTY_PATH)?)
}

/// Does something in a folder that is no change of it to whoever looks, and so leaves its time.
pub(super) fn unnoticed<T>(
    folder: impl AsFd,
    change: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let before = Stat::from(&fstat(&folder)?);
    let done = change()?;
    set_times(folder, Times { accessed: Time::Kept, modified: before.modified.into() })?;
    Ok(done)
}

/// Has an entry have what programs have set on another.
fn copy_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    for name in attribute_names(&from)? {
        let name = String::from_utf8_lossy(&name);
        if let Some(value) = attribute(&from, &name)? {
            set_attribute(&to, &name, &value)?;
        }
    }
    Ok(())
}

fn rename_over_whiteout(old: &Spot<'_>, new: &Spot<'_>, how: Renaming) -> io::Result<()> {
    let exchange = RenameFlags::EXCHANGE;
    renameat_with(&old.folder, old.name, &new.folder, new.name, exchange)?;
    if how.leaves_whiteout {
        return Ok(());
    }
    steps::reached("places changed");
    Ok(unlinkat(&old.folder, old.name, AtFlags::empty())?)
}

fn set_shows(folder: impl AsFd, shows: &Shows) -> io::Result<()> {
    match shows {
        Shows::Same => {
            marks::clear(&folder, OPAQUE)?;
            marks::clear(&folder, ORIGIN)
        }
        Shows::Of(path) => marks::set(&folder, ORIGIN, path.as_bytes()),
        Shows::Nothing => {
            marks::set(&folder, OPAQUE, b"y")?;
            marks::clear(&folder, ORIGIN)
        }
    }
}

impl From<(i64, u32)> for Time {
    fn from((secs, nanos): (i64, u32)) -> Self {
        Self::At(secs, nanos)
    }
}

impl From<Times> for Timestamps {
    fn from(times: Times) -> Self {
        Self { last_access: timespec(times.accessed), last_modification: timespec(times.modified) }
    }
}

fn timespec(time: Time) -> Timespec {
    match time {
        Time::Kept => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Time::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Time::At(secs, nanos) => Timespec { tv_sec: secs, tv_nsec: nanos.into() },
    }
}
