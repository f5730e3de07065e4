//! The one way to put a file in place: a temporary in the same folder, then a rename.
//!
//! A reader, in this process or another, sees the old file or the whole new one, never a part.
//! [`records`] is its companion for files that only grow.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use tempfile::NamedTempFile;

pub mod records;

/// Replaces the file at `path` by `contents`, synced before it gets its name.
///
/// Missing folders are created. `mode` is set exactly, whatever the umask.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    write_with(path, mode, |file| file.write_all(contents))
}

/// Like [`write()`], with the contents written by `fill`; nothing changes when `fill` fails.
pub fn write_with(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    Draft::new(path, mode, fill)?.place()
}

/// A file that waits for its name; without it, it goes again.
pub struct Draft<'a> {
    path: &'a Path,
    temporary: NamedTempFile,
}

impl<'a> Draft<'a> {
    /// What is to be at `path`, with the contents written by `fill`; synced when this returns.
    pub fn new(
        path: &'a Path,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let temporary = filled(folder_of(path)?, mode, fill)?;
        temporary.as_file().sync_all()?;
        Ok(Self { path, temporary })
    }

    /// Gives it its name.
    pub fn place(self) -> io::Result<()> {
        self.temporary.persist(self.path).map_err(|failed| failed.error)?;
        // The rename itself lasts only once the folder is on disk too.
        File::open(folder_of(self.path)?)?.sync_all()
    }
}

/// Like [`write_with`], but nothing waits for the disk: for files that can be made again, and whose
/// readers notice what a power cut took from them.
pub fn write_unsynced(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = filled(folder_of(path)?, mode, fill)?;
    temporary.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

/// A new file in `folder`, which is created where it is missing; without a name of its own yet.
fn filled(
    folder: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<NamedTempFile> {
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder)?;
    fill(temporary.as_file_mut())?;
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    Ok(temporary)
}

/// Removes a file, so that it does not come back after a loss of power.
pub fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    File::open(folder_of(path)?)?.sync_all()
}

/// Moves a finished file over `to` on the same disk, creating the folder of `to` where it is
/// missing. Nothing is synced.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder_of(to)?)?;
            fs::rename(from, to)
        }
        other => other,
    }
}

fn folder_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no folder", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_with_its_mode_into_a_new_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, b"old", 0o644).unwrap();
        let failed = write_with(&path, 0o644, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("stop"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn rename_creates_the_folder_but_not_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::write(&from, b"x").unwrap();
        rename(&from, &dir.path().join("new/to")).unwrap();
        assert_eq!(fs::read(dir.path().join("new/to")).unwrap(), b"x");
        assert!(rename(&from, &dir.path().join("new/other")).is_err());
    }
}
