//! Where the blobs of a snapshot wait until a remote has them.
//!
//! The outbox lies in the state directory, outside of every cache, and has DVC's own layout, so that
//! mounts and DVC read it like any cache. A blob gets its name once it was written and hashed as a
//! whole: what is hashed is the copy, so that whoever writes the original meanwhile changes nothing.
//! Files of an overlay on the same disk can also come here as they are, while nobody has them open.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use rustix::{
    fs::{FlockOperation, fchown, flock, ioctl_ficlone, syncfs},
    process::{getegid, geteuid},
};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::{
    atomic,
    cache::BlobCache,
    dvc::{manifest::write::Written, md5::Md5},
    id::{BlobId, Digest, Key, Scheme, TreeId, hex},
    overlay::{Base, Overlay},
    path::RepoPath,
    steps,
};

/// The blobs that no remote has yet.
///
/// Several snapshots may wait in it for being pushed, from different mounts and repositories, and
/// share blobs; each has a list of those that it needs.
#[derive(Debug)]
pub struct Outbox {
    dir: PathBuf,
    /// The snapshot that things are taken for, if they are listed as they come.
    takes_for: Option<String>,
    /// What was taken since the last note.
    taken: Mutex<BTreeSet<Key>>,
}

/// The folder of those who need what waits.
const HOLDERS: &str = "holders";

/// An overlay with snapshots that need what waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The folder of the overlay.
    pub overlay: OsString,
    /// What lay below it.
    pub base: Base,
    /// The folder of git that has the commits.
    pub git_dir: OsString,
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
        fs::create_dir_all(dir.join("needed"))?;
        Ok(Self { dir, takes_for: None, taken: Mutex::default() })
    }

    /// Lists what is taken for a snapshot of this name before it comes, so that nobody hands it over
    /// until that is over.
    #[must_use]
    pub fn takes_for(self, snapshot: &str) -> Self {
        Self { takes_for: Some(snapshot.to_owned()), ..self }
    }

    /// The file of a blob or manifest, if it is here.
    pub fn find(&self, key: &Key) -> Option<PathBuf> {
        Some(self.dir.join(key.path())).filter(|path| path.is_file())
    }

    /// The overlays with snapshots that need something in the outbox of a state directory, by the
    /// notes of them, which have the names of the snapshots. Nothing is made if there is none.
    pub fn holders(state_dir: &Path) -> io::Result<BTreeMap<PathBuf, io::Result<Holder>>> {
        let entries = match fs::read_dir(Self::place(state_dir).join(HOLDERS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries?,
        };
        let mut holders = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            // What begins with a dot is about to get its name.
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let holder = match fs::read(entry.path()) {
                // It is over by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read.and_then(|text| Ok(serde_json::from_slice(&text)?)),
            };
            holders.insert(entry.path(), holder);
        }
        Ok(holders)
    }

    /// Notes that a snapshot of this name needs all that was taken since the last note, until
    /// [`Outbox::hand_over`].
    pub fn keep_for(&self, snapshot: &str, holder: &Holder) -> io::Result<()> {
        atomic::write(&self.holder_of(snapshot), &serde_json::to_vec(holder)?, 0o600)?;
        let taken = std::mem::take(&mut *self.taken.lock());
        self.list(snapshot, &taken)
    }

    fn list<'a>(&self, snapshot: &str, keys: impl IntoIterator<Item = &'a Key>) -> io::Result<()> {
        let mut lines = String::new();
        for key in keys {
            lines.push_str(&key.path());
            lines.push('\n');
        }
        // The outbox may have been emptied since it was opened.
        fs::create_dir_all(self.dir.join("needed"))?;
        let mut list = OpenOptions::new().create(true).append(true).open(self.list_of(snapshot))?;
        list.write_all(lines.as_bytes())
    }

    /// Counts something as taken; nobody hands anything over until what is given is dropped.
    fn take(&self, keys: &[Key]) -> io::Result<File> {
        let turn = self.lock(FlockOperation::LockShared)?;
        if let Some(snapshot) = self.takes_for.as_ref().filter(|_| !keys.is_empty()) {
            self.list(snapshot, keys)?;
        }
        self.taken.lock().extend(keys);
        Ok(turn)
    }

    fn lock(&self, how: FlockOperation) -> io::Result<File> {
        let dir = File::open(&self.dir)?;
        flock(&dir, how)?;
        Ok(dir)
    }

    /// Gives what a snapshot needed, and a remote has by now, to the cache, or lets go of it; what
    /// other snapshots need stays. The list goes away where the snapshot is over.
    pub fn hand_over(
        &self,
        snapshot: &str,
        pushed: impl IntoIterator<Item = Key>,
        is_over: bool,
        cache: &BlobCache,
    ) -> io::Result<()> {
        let _turn = self.lock(FlockOperation::LockExclusive)?;
        let list = self.list_of(snapshot);
        let mut needed = BTreeSet::new();
        for other in fs::read_dir(self.dir.join("needed"))? {
            let other = other?.path();
            if other != list {
                needed.extend(listed(&other)?);
            }
        }
        for key in pushed.into_iter().filter(|key| !needed.contains(key)) {
            let Some(path) = self.find(&key) else { continue };
            if let Err(error) = cache.adopt(&key, &path) {
                tracing::debug!("{error}");
                remove(&path)?;
            }
            steps::reached("handed over");
        }
        if is_over {
            remove(&list)?;
            remove(&self.holder_of(snapshot))?;
        }
        Ok(())
    }

    /// What was taken for the snapshots of this name and is not handed over as a whole.
    pub fn needed_by(&self, snapshot: &str) -> io::Result<BTreeSet<Key>> {
        match listed(&self.list_of(snapshot)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            listed => listed,
        }
    }

    fn list_of(&self, snapshot: &str) -> PathBuf {
        self.dir.join("needed").join(snapshot)
    }

    fn holder_of(&self, snapshot: &str) -> PathBuf {
        self.dir.join(HOLDERS).join(snapshot)
    }

    /// The note of how far the upload of a blob to a remote has come.
    pub fn note_of_upload(&self, key: &Key, url: &str) -> PathBuf {
        let name = Md5::of(format!("{url}/{}", key.path()).as_bytes());
        self.dir.join("uploads").join(hex(&name))
    }

    /// Takes a copy of what is read to its end; gives its hash and its size in bytes.
    pub fn add(&self, mut source: impl Read) -> io::Result<(Digest, u64)> {
        let draft = self.draft()?;
        let mut out = draft.as_file();
        let (digest, size) = hashed(&mut source, |piece| out.write_all(piece))?;
        self.name(draft, blob(digest))?;
        Ok((digest, size))
    }

    /// Takes a clone of a file, which shares its blocks; nothing where the disk has no clones.
    pub fn add_clone(&self, source: &File) -> io::Result<Option<(Digest, u64)>> {
        let draft = self.draft()?;
        if ioctl_ficlone(draft.as_file(), source).is_err() {
            return Ok(None);
        }
        let (digest, size) = hashed(&mut draft.as_file(), |_| Ok(()))?;
        self.name(draft, blob(digest))?;
        Ok(Some((digest, size)))
    }

    /// Whether a file of that disk can get a second name here.
    pub fn is_on(&self, device: u64) -> io::Result<bool> {
        Ok(fs::metadata(&self.dir)?.dev() == device)
    }

    /// Counts blobs as taken that are to come here as they are.
    pub fn expect(&self, digests: impl IntoIterator<Item = Digest>) -> io::Result<()> {
        let keys: Vec<_> = digests.into_iter().map(|digest| blob(digest).into()).collect();
        self.take(&keys).map(drop)
    }

    /// Gives a file of an overlay a second name here, that of its hash; to be
    /// [protected](Self::protect) once the overlay is about to let go of it, or
    /// [taken back](Self::unname).
    pub fn name_also(&self, overlay: &Overlay, path: &RepoPath, digest: Digest) -> io::Result<()> {
        let place = self.place_of(blob(digest))?;
        match overlay.name_also(path, &place) {
            // What has a second name is about to come from another overlay, or to go again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::metadata(&place)?.nlink() > 1 && !overlay.is_file(path, &place)? {
                    self.add(overlay.open_file(path, false)?)?;
                }
                Ok(())
            }
            named => named,
        }
    }

    /// Takes the name of a file of an overlay back, unless another file has it.
    pub fn unname(&self, overlay: &Overlay, path: &RepoPath, digest: Digest) -> io::Result<()> {
        let place = self.dir.join(Key::from(blob(digest)).path());
        if overlay.is_file(path, &place)? {
            fs::remove_file(place)?;
        }
        Ok(())
    }

    /// Has a blob be as DVC leaves its own.
    pub fn protect(&self, digest: Digest) -> io::Result<()> {
        let file = File::open(self.place_of(blob(digest))?)?;
        let (uid, gid) = (geteuid(), getegid());
        let metadata = file.metadata()?;
        if (metadata.uid(), metadata.gid()) != (uid.as_raw(), gid.as_raw()) {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(0o444))
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

    /// Where a blob lies, in a folder that is there.
    fn place_of(&self, id: impl Into<Key>) -> io::Result<PathBuf> {
        let path = self.dir.join(id.into().path());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(path)
    }

    fn name(&self, draft: NamedTempFile, id: impl Into<Key>) -> io::Result<()> {
        let key = id.into();
        let path = self.place_of(key)?;
        // DVC trusts what nobody may write.
        draft.as_file().set_permissions(Permissions::from_mode(0o444))?;
        let _turn = self.take(&[key])?;
        draft.persist(path)?;
        Ok(())
    }
}

fn listed(list: &Path) -> io::Result<BTreeSet<Key>> {
    Ok(fs::read_to_string(list)?.lines().filter_map(Key::from_path).collect())
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn blob(digest: Digest) -> BlobId {
    BlobId { digest, scheme: Scheme::Md5 }
}

/// The hash and the size in bytes of what is read to its end, each piece of which goes to `each`.
pub(super) fn hashed(
    source: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(Digest, u64)> {
    let (mut md5, mut size, mut piece) = (Md5::new(), 0, vec![0; PIECE]);
    loop {
        let count = match source.read(&mut piece) {
            Ok(0) => return Ok((md5.finish(), size)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        md5.update(&piece[..count]);
        each(&piece[..count])?;
        size += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    /// A holder whose places are no text.
    fn holder(name: &str) -> Holder {
        let place = OsString::from_vec([name.as_bytes(), b"\xff"].concat());
        let repository = "repository".to_owned();
        let base = Base { repository, commit: "c".repeat(40), ..Base::default() };
        Holder { overlay: place.clone(), base, git_dir: place }
    }

    /// A cache beside the outbox, of so many bytes.
    fn cache(dir: &Path, max_bytes: u64) -> BlobCache {
        let options = crate::cache::Options {
            dir: dir.join("cache"),
            neighbours: Vec::new(),
            seen: dir.join("seen"),
            max_bytes,
            min_free_bytes: 0,
        };
        BlobCache::open(options, std::sync::Arc::default())
    }

    #[test]
    fn what_nobody_has_used_has_no_holders_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Outbox::holders(dir.path()).unwrap().is_empty());
        assert!(!Outbox::place(dir.path()).exists());
    }

    #[test]
    fn what_is_taken_lies_where_dvc_looks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "hello\n").unwrap();
        let (digest, size) = outbox.add(File::open(dir.path().join("a")).unwrap()).unwrap();
        assert_eq!(
            (crate::id::hex(&digest).as_str(), size),
            ("b1946ac92492d2347c6235b4d2611184", 6)
        );
        let place = dir.path().join("outbox/files/md5/b1/946ac92492d2347c6235b4d2611184");
        assert_eq!(fs::read(&place).unwrap(), b"hello\n");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o444);
        outbox.add(File::open(dir.path().join("a")).unwrap()).unwrap();
        let written = outbox.add_manifest(|out| crate::dvc::manifest::write::compose([], out));
        assert_eq!(written.unwrap().unwrap().size, 2);
        let manifest = "outbox/files/md5/d7/51713988987e9331980363e24189ce.dir";
        assert_eq!(fs::read(dir.path().join(manifest)).unwrap(), b"[]");
        outbox.sync().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("outbox/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_was_pushed_goes_to_the_cache_unless_another_snapshot_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        let put = |name: &str| {
            fs::write(dir.path().join(name), name).unwrap();
            let (digest, _) = outbox.add(File::open(dir.path().join(name)).unwrap()).unwrap();
            Key { digest, scheme: Scheme::Md5, is_manifest: false }
        };
        let (own, shared) = (put("own"), put("shared"));
        outbox.keep_for("one", &holder("one")).unwrap();
        put("shared");
        outbox.keep_for("two", &holder("two")).unwrap();
        let cache = cache(dir.path(), 1 << 20);
        outbox.hand_over("one", [own, shared], true, &cache).unwrap();
        assert!(outbox.find(&own).is_none() && outbox.find(&shared).is_some());
        let holders = Outbox::holders(dir.path()).unwrap();
        let [(note, two)] = holders.iter().collect::<Vec<_>>()[..] else { panic!("{holders:?}") };
        assert!(note.ends_with("two"), "{note:?}");
        assert_eq!(two.as_ref().unwrap(), &holder("two"));
        let blob = |key| match cache.open_blob(key, None) {
            crate::cache::Lookup::Hit(blob) => blob.size(),
            other => panic!("{other:?}"),
        };
        assert_eq!(blob(&own), 3, "it needs no check");
        outbox.hand_over("one", [own, shared], true, &cache).unwrap();
        outbox.hand_over("two", [shared], true, &cache).unwrap();
        assert!(outbox.find(&shared).is_none());
        assert_eq!(blob(&shared), 6);
        assert_eq!(fs::read_dir(dir.path().join("outbox/needed")).unwrap().count(), 0);
        assert!(Outbox::holders(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn what_is_taken_for_a_snapshot_stays_before_that_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Outbox::open(dir.path()).unwrap(), Outbox::open(dir.path()).unwrap());
        let two = two.takes_for("two");
        let (digest, _) = one.add(&b"shared"[..]).unwrap();
        let key = Key { digest, scheme: Scheme::Md5, is_manifest: false };
        one.keep_for("one", &holder("one")).unwrap();
        two.add(&b"shared"[..]).unwrap();
        let cache = cache(dir.path(), 1 << 20);
        one.hand_over("one", [key], true, &cache).unwrap();
        assert!(one.find(&key).is_some());
        two.expect([digest]).unwrap();
        one.hand_over("two", [key], true, &cache).unwrap();
        assert!(one.find(&key).is_none());
    }

    #[test]
    fn a_cache_that_cannot_have_it_keeps_nothing_in_the_outbox() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "hello").unwrap();
        let (digest, _) = outbox.add(&File::open(dir.path().join("a")).unwrap()).unwrap();
        let key = Key { digest, scheme: Scheme::Md5, is_manifest: false };
        let cache = cache(dir.path(), 2);
        outbox.hand_over("one", [key], true, &cache).unwrap();
        assert!(outbox.find(&key).is_none());
    }
}
