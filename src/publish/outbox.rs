//! Where the blobs of a snapshot wait until a remote has them.
//!
//! The outbox lies in the state directory, outside of every cache, and has DVC's own layout, so that
//! mounts and DVC read it like any cache. A blob gets its name once it was written and hashed as a
//! whole: what is hashed is the copy, so that whoever writes the original meanwhile changes nothing.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use md5::{Digest as _, Md5};
use rustix::fs::{ioctl_ficlone, syncfs};
use tempfile::NamedTempFile;

use crate::{
    dvc::manifest::write::Written,
    id::{BlobId, Digest, Key, Scheme, TreeId},
};

/// The blobs that no remote has yet.
#[derive(Debug)]
pub struct Outbox {
    dir: PathBuf,
}

/// How much is copied at a time.
const PIECE: usize = 1 << 20;

impl Outbox {
    /// Where the outbox lies in a state directory.
    pub fn place(state_dir: &Path) -> PathBuf {
        state_dir.join("outbox")
    }

    /// Opens the outbox of a state directory; it is made if it is missing.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = Self::place(state_dir);
        fs::create_dir_all(dir.join("files/md5"))?;
        fs::create_dir_all(dir.join("tmp"))?;
        Ok(Self { dir })
    }

    /// Takes a copy of a file, which shares its blocks where the disk can; gives its hash and its
    /// size in bytes.
    pub fn add(&self, source: &File) -> io::Result<(Digest, u64)> {
        let draft = self.draft()?;
        let is_clone = ioctl_ficlone(draft.as_file(), source).is_ok();
        let (mut md5, mut size, mut piece) = (Md5::new(), 0, vec![0; PIECE]);
        let mut from: &File = if is_clone { draft.as_file() } else { source };
        loop {
            let count = match from.read(&mut piece) {
                Ok(0) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            md5.update(&piece[..count]);
            if !is_clone {
                draft.as_file().write_all(&piece[..count])?;
            }
            size += count as u64;
        }
        let digest = md5.finalize().into();
        self.name(draft, BlobId { digest, scheme: Scheme::Md5 })?;
        Ok((digest, size))
    }

    /// Takes a manifest that `write` writes; gives what that says.
    pub fn add_manifest<E>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<Written, E>,
    ) -> io::Result<Result<Written, E>> {
        let draft = self.draft()?;
        let mut out = BufWriter::new(draft.as_file());
        let written = match write(&mut out) {
            Ok(written) => written,
            Err(error) => return Ok(Err(error)),
        };
        out.flush()?;
        drop(out);
        self.name(draft, TreeId { digest: written.digest, scheme: Scheme::Md5 })?;
        Ok(Ok(written))
    }

    /// Waits until everything in it is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(File::open(&self.dir)?)?)
    }

    fn draft(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.dir.join("tmp"))
    }

    fn name(&self, draft: NamedTempFile, id: impl Into<Key>) -> io::Result<()> {
        let path = self.dir.join(id.into().path());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // DVC trusts what nobody may write.
        draft.as_file().set_permissions(Permissions::from_mode(0o444))?;
        draft.persist(path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_lies_where_dvc_looks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "hello\n").unwrap();
        let (digest, size) = outbox.add(&File::open(dir.path().join("a")).unwrap()).unwrap();
        assert_eq!(
            (crate::id::hex(&digest).as_str(), size),
            ("b1946ac92492d2347c6235b4d2611184", 6)
        );
        let place = dir.path().join("outbox/files/md5/b1/946ac92492d2347c6235b4d2611184");
        assert_eq!(fs::read(&place).unwrap(), b"hello\n");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o444);
        outbox.add(&File::open(dir.path().join("a")).unwrap()).unwrap();
        let written = outbox.add_manifest(|out| crate::dvc::manifest::write::compose([], out));
        assert_eq!(written.unwrap().unwrap().size, 2);
        let manifest = "outbox/files/md5/d7/51713988987e9331980363e24189ce.dir";
        assert_eq!(fs::read(dir.path().join(manifest)).unwrap(), b"[]");
        outbox.sync().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("outbox/tmp")).unwrap().count(), 0);
    }
}
