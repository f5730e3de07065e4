//! Taking changes out of an overlay.

use std::{collections::BTreeMap, fs, io, path::Path};

use rustix::{
    fs::{AtFlags, CWD, RenameFlags, fstat, linkat, renameat_with, stat, unlinkat},
    io::Errno,
};

use super::{
    Entry, Kind, Overlay, Shows, Stat, Time, Times, attribute_names,
    change::unnoticed,
    marks::{self, OWN},
    read_entry, set_owner, set_times,
};
use crate::{atomic, path::RepoPath, steps};

/// The name of the note of what is taken out together, in the overlay's folder.
const DROPPED: &str = "dropped.json";

/// The name of the note that everything is taken out. It is empty, and so takes no room.
const ALL_DROPPED: &str = "dropped-all";

/// What stays of a change when the others are taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The entry at its path, with all that is in it.
    Entry,
    /// A folder that shows nothing of the base; what is in it is kept or not.
    Opaque,
    /// That the name is gone, which a folder above says as well.
    Gone,
    /// A file that shows through a folder from elsewhere in the base.
    Content {
        /// Its path in the base.
        origin: RepoPath,
        /// Permission bits.
        mode: u16,
        /// In seconds since the epoch.
        modified: i64,
    },
}

impl Overlay {
    /// Forgets what was changed at a path and in it, so that what the base has there shows again;
    /// not an error if nothing was.
    pub fn take_out(&self, path: &RepoPath) -> io::Result<()> {
        self.set_aside(path)?.map_or(Ok(()), |name| self.discard(&name))
    }

    /// Moves what was changed at a path to the work folder; gives its name there, if it was
    /// anything.
    fn set_aside(&self, path: &RepoPath) -> io::Result<Option<String>> {
        let Some(spot) = self.spot(path)? else { return Ok(None) };
        let (name, flags) = (self.temporary(), RenameFlags::empty());
        let moved = unnoticed(&spot.folder, || {
            Ok(renameat_with(&spot.folder, spot.name, &self.work, &*name, flags)?)
        });
        match moved {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            moved => {
                moved?;
                self.folders.forget(path);
                steps::reached("taken out");
                Ok(Some(name))
            }
        }
    }

    /// Gives a file a second name outside of the overlay, on the same disk.
    pub fn name_also(&self, path: &RepoPath, place: &Path) -> io::Result<()> {
        let spot = self.place(path)?;
        Ok(linkat(&spot.folder, spot.name, CWD, place, AtFlags::empty())?)
    }

    /// Whether a place outside of the overlay is a second name of a file; not if either is missing.
    pub fn is_file(&self, path: &RepoPath, place: &Path) -> io::Result<bool> {
        let other = match stat(place) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        let Some(file) = self.look_at(path)? else { return Ok(false) };
        let file = fstat(file)?;
        Ok((file.st_dev, file.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Forgets what was changed at these paths and in them, or everywhere if there are none: all of
    /// it or nothing, also where this is cut off. Folders that led to them and hold nothing go, too.
    ///
    /// One path, or everything, takes no room on the disk: a single rename needs no note.
    pub fn take_out_together(&self, paths: &[RepoPath]) -> io::Result<()> {
        let ended = if let [path] = paths {
            let name = self.set_aside(path)?;
            let gone = name.map_or(Ok(()), |name| self.discard(&name));
            gone.and_then(|()| self.prune(path)).and_then(|()| self.sync())
        } else {
            let listed: Vec<_> = paths.iter().map(RepoPath::as_bytes).collect();
            let (note, text) = match listed.len() {
                0 => (ALL_DROPPED, Vec::new()),
                _ => (DROPPED, serde_json::to_vec(&listed)?),
            };
            atomic::write(&self.dir.join(note), &text, 0o600)?;
            steps::reached("dropped");
            self.end_taking_out()
        };
        ended.inspect_err(|_| self.leave_unfinished())
    }

    /// Takes out what was to be taken out together.
    pub(super) fn end_taking_out(&self) -> io::Result<()> {
        let everything = self.dir.join(ALL_DROPPED);
        if everything.try_exists()? {
            self.take_out_everything()?;
            return self.forget_note(&everything);
        }
        let note = self.dir.join(DROPPED);
        let text = match fs::read(&note) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let paths: Vec<Vec<u8>> = serde_json::from_slice(&text)?;
        for path in paths.iter().filter_map(|path| RepoPath::new(path).ok()) {
            self.take_out(&path)?;
            self.prune(&path)?;
        }
        self.forget_note(&note)
    }

    fn take_out_everything(&self) -> io::Result<()> {
        let root = RepoPath::root();
        for listed in self.list(&root)? {
            self.take_out(&root.join(&listed.name))?;
        }
        for name in attribute_names(&self.upper)? {
            marks::clear(&self.upper, &String::from_utf8_lossy(&name))?;
        }
        marks::clear(&self.upper, OWN)?;
        // Both folders were made in the same way, and nobody changes the other one.
        let Stat { mode, uid, gid, .. } = Stat::from(&fstat(&*self.work)?);
        if self.is_privileged {
            set_owner(&self.upper, Some(uid), Some(gid))?;
        }
        self.set_mode(&self.upper, mode)?;
        set_times(&self.upper, Times { accessed: Time::Now, modified: Time::Now })
    }

    /// Removes the note of something that has come to its end, which it must not outlive: whoever
    /// finds it does that again.
    pub fn forget_note(&self, note: &Path) -> io::Result<()> {
        self.sync()?;
        atomic::remove(note)
    }

    /// Forgets all changes but these, for a base that has the rest: the folders that lead to them
    /// show the base's of the same place, unless it is said that they show nothing. To be done again
    /// with the same words if it is cut off.
    pub fn keep_only(&self, kept: &BTreeMap<RepoPath, Kept>) -> io::Result<()> {
        let mut folders = vec![RepoPath::root()];
        while let Some(folder) = folders.pop() {
            self.keep_in(&folder, kept, &mut folders)?;
        }
        let root = self.find(&RepoPath::root())?.map(|entry| entry.stat).unwrap_or_default();
        let folder = Stat { mode: 0o755, modified: root.modified, ..root };
        for (path, kept) in kept {
            if *kept == Kept::Entry || self.find(path)?.is_some() || self.is_in_no_folder(path)? {
                continue;
            }
            self.make_parents(path, &|_| Ok(folder))?;
            match kept {
                Kept::Entry | Kept::Opaque => {}
                Kept::Gone => self.remove(path, true)?,
                Kept::Content { origin, mode, modified } => {
                    let (accessed, modified) = ((*modified, 0), (*modified, 0));
                    let stat = Stat { mode: *mode, accessed, modified, ..root };
                    self.stand_in(path, origin, &stat)?;
                }
            }
        }
        Ok(())
    }

    /// Whether what the overlay has on the way to a path is no folder, which says that all below is
    /// gone.
    fn is_in_no_folder(&self, path: &RepoPath) -> io::Result<bool> {
        for folder in path.folders() {
            if let Some(entry) = self.find(&folder)? {
                return Ok(!matches!(entry.kind, Kind::Folder(_)));
            }
        }
        Ok(false)
    }

    /// Forgets what is in a folder but for what is kept, and notes the folders to be gone on with.
    fn keep_in(
        &self,
        folder: &RepoPath,
        kept: &BTreeMap<RepoPath, Kept>,
        folders: &mut Vec<RepoPath>,
    ) -> io::Result<()> {
        for listed in self.list(folder)? {
            let path = folder.join(&listed.name);
            match kept.get(&path) {
                Some(Kept::Opaque) => {
                    self.set_shows(&path, &Shows::Nothing)?;
                    folders.push(path);
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
            let is_folder = matches!(self.find(&path)?, Some(Entry { kind: Kind::Folder(_), .. }));
            if is_folder && kept.range::<[u8], _>(path.below()).next().is_some() {
                self.set_shows(&path, &Shows::Same)?;
                marks::clear(self.look_at(&path)?.ok_or(Errno::NOENT)?, OWN)?;
                folders.push(path);
            } else {
                self.take_out(&path)?;
            }
        }
        Ok(())
    }

    /// Takes out the folders that lead to a path for as long as they hold nothing and say nothing.
    pub fn prune(&self, path: &RepoPath) -> io::Result<()> {
        let mut folder = path.parent();
        while let Some(path) = folder.filter(|path| !path.is_root()) {
            let Some(entry) = self.look_at(&path)? else { return Ok(()) };
            let is_plain =
                read_entry(&entry)?.is_some_and(|it| it.kind == Kind::Folder(Shows::Same));
            let is_silent = is_plain && marks::get(&entry, OWN)?.is_none();
            if !is_silent || !self.list(&path)?.is_empty() {
                return Ok(());
            }
            let spot = self.place(&path)?;
            unnoticed(&spot.folder, || Ok(unlinkat(&spot.folder, spot.name, AtFlags::REMOVEDIR)?))?;
            self.folders.forget(&path);
            folder = path.parent();
        }
        Ok(())
    }
}
