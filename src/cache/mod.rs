//! Blobs on this disk: open, admit, evict, check.
//!
//! The cache directory has DVC's own layout, so DVC may use it as its `cache.dir`, and an existing
//! `.dvc/cache` can be read as a neighbour. The file system is the truth: processes that share the
//! directory meet only in renames, unlinks and one counter ([`usage`]), and anybody may delete
//! anything at any moment.
//!
//! How far a file is trusted is told by its modification time (see [`layout`]):
//!
//! 1. A blob is written under a temporary name, checked by the caller, *marked*, and renamed. Its
//!    mode is 0644, so that DVC would hash it. A crash may still take its bytes, hence the next
//!    process checks it again.
//! 2. The syncer ([`sync`]) puts its data on disk, then gives it its *stamp* and mode 0444, which
//!    DVC takes as "trust without hashing". Stamped files are served as they are, until somebody
//!    makes them writable.
//! 3. Everything else is somebody else's: hashed once, remembered ([`seen`]), never changed, never
//!    evicted, and replaced only by the rename of a checked blob over it.
//!
//! Stamped and marked files count towards the limits and are evicted, least recently used first,
//! and never while this process uses them: where all that is left is in use there is no room. One
//! scan at the start finds out what there is ([`scan`]); whoever needs room before it has ended
//! takes the oldest of what was found so far. After that a blob costs no look at others.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_OMIT, futimens};

use crate::{atomic, id::Key, stats::Stats};

mod adopt;
mod blocks;
mod care;
mod error;
mod evict;
mod fate;
mod layout;
mod lookup;
mod partial;
mod scan;
mod seen;
mod sync;
mod usage;
mod view;

pub use blocks::{BLOCK, BlockSet, blocks_of, bytes_of};
pub use care::{CheckReport, GcTarget, Info};
pub use error::CacheError;
pub use evict::Room;
pub use fate::{Fate, Seal};
pub use layout::stamp_secs;
pub use lookup::{Lookup, Unchecked};
pub use partial::Partial;

use fate::Looks;
use layout::{Layout, mark_secs, standing};
use scan::Scans;
use seen::Seen;
use sync::Syncer;
use usage::Usage;
pub use view::Pin;
use view::{Entry, Item, Victim, View};

/// How often the access time of a file of ours is brought up to date.
const RECENCY: Duration = Duration::from_hours(1);

/// Where a cache lies and what it may hold.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cache directory; a symbolic link is followed.
    pub dir: PathBuf,
    /// Directories of the same layout that are read and never written.
    pub neighbours: Vec<PathBuf>,
    /// The file that remembers checks of files of others.
    pub seen: PathBuf,
    /// The most bytes that our blobs may take.
    pub max_bytes: u64,
    /// The least bytes that the disk must keep free.
    pub min_free_bytes: u64,
}

/// The blobs on this disk. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobCache {
    shared: Arc<Shared>,
    syncer: Arc<Syncer>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    neighbours: Vec<Layout>,
    max_bytes: u64,
    min_free_bytes: u64,
    user: u32,
    usage: Usage,
    view: Arc<View>,
    seen: Seen,
    stats: Arc<Stats>,
    /// Whether the last use of the disk failed, so that trouble is logged once.
    is_failing: AtomicBool,
    scans: Scans,
}

/// An open, whole, checked file. This process does not evict it while it lives, and it is readable
/// even where another one did.
#[derive(Debug)]
pub struct CachedBlob {
    file: Arc<File>,
    size: u64,
    /// As its check has found it, if the disk told.
    looks: Option<Looks>,
    pin: Option<Pin>,
}

impl CachedBlob {
    /// Of a file that was just written here and checked.
    fn new(key: &Key, file: Arc<File>, size: u64, pin: Option<Pin>) -> Self {
        let looks = file.metadata().ok().map(|now| Looks::of(key, &now));
        Self { file: reopened(file), size, looks, pin }
    }

    /// The size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The open file, for passing on to the kernel.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Looks whether the file is still what was opened, in one question to the disk.
    pub fn fate(&self) -> Fate {
        match (&self.looks, self.file.metadata()) {
            (Some(looks), Ok(now)) => looks.fate(&now),
            _ => Fate::Changed,
        }
    }

    /// Lets go of the open file, and keeps the blob from being evicted all the same.
    pub fn seal(&self) -> Option<Seal> {
        Seal::new(&self.file, self.looks.clone()?, self.pin.as_ref().map(Pin::again))
    }

    /// Fills `buffer` from `offset` on, and returns how much there was before the end. Fails if
    /// the bytes may be other ones than those that were checked.
    ///
    /// That is asked after they were read: whoever writes to a file changes its time first.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = read_full_at(&self.file, buffer, offset)?;
        if self.fate().is_right() {
            Ok(count)
        } else {
            Err(io::Error::other("somebody has changed the cached file"))
        }
    }
}

impl BlobCache {
    /// Opens the cache and starts its syncer and the scan of what is there.
    ///
    /// Never fails: a directory that cannot be used makes reads slower, not impossible.
    pub fn open(options: Options, stats: Arc<Stats>) -> Self {
        let layout = Layout { root: options.dir };
        if let Err(error) = fs::create_dir_all(&layout.root) {
            tracing::debug!(dir = %layout.root.display(), %error, "no cache directory");
        }
        let shared = Arc::new(Shared {
            usage: Usage { path: layout.own().join("usage") },
            neighbours: options.neighbours.into_iter().map(|root| Layout { root }).collect(),
            layout,
            max_bytes: options.max_bytes,
            min_free_bytes: options.min_free_bytes,
            user: rustix::process::geteuid().as_raw(),
            view: Arc::default(),
            seen: Seen::open(&options.seen),
            stats,
            is_failing: AtomicBool::new(false),
            scans: Scans::default(),
        });
        let syncer = Arc::new(Syncer::start(shared.clone()));
        shared.scans.begin_if(|_| false);
        let scanned = shared.clone();
        let thread = std::thread::Builder::new().name("dvcfs-scan".into());
        if let Err(error) = thread.spawn(move || scanned.scan()) {
            tracing::warn!(%error, "cache is not scanned before room is needed");
            shared.scans.end();
        }
        Self { shared, syncer }
    }

    /// Puts a small blob in place. The caller has checked that `content` is what `key` names.
    pub fn admit(&self, key: &Key, content: &[u8], room: Room) -> Result<CachedBlob, CacheError> {
        let shared = &self.shared;
        let bytes = content.len() as u64;
        shared.noted(|| {
            shared.reserve(bytes, room)?;
            let written = shared.write_checked(key, content, room);
            if written.is_err() {
                shared.release(bytes);
            }
            Ok(self.admitted(key, Arc::new(written?), bytes))
        })
    }

    /// Begins or goes on with the download of a blob of `size` bytes.
    ///
    /// One process at a time owns the partial of a key; others get one of their own, which is
    /// thrown away with them. The blocks that are there already come with it.
    pub fn partial(&self, key: &Key, size: u64) -> Result<(Partial, BlockSet), CacheError> {
        self.shared.noted(|| Partial::open(&self.shared, key, size))
    }

    /// Puts a download in place that the caller has checked.
    ///
    /// Where that fails the blob is still served, from the file that has no name in the cache.
    pub fn admit_partial(&self, partial: &Partial) -> CachedBlob {
        let placed = self.shared.noted(|| partial.place());
        match placed {
            Ok(()) => self.admitted(partial.key(), partial.file().clone(), partial.size()),
            Err(_noted) => {
                CachedBlob::new(partial.key(), partial.file().clone(), partial.size(), None)
            }
        }
    }

    /// Waits until every admitted blob is synced and stamped.
    pub fn flush(&self) {
        self.syncer.flush();
    }

    fn admitted(&self, key: &Key, file: Arc<File>, size: u64) -> CachedBlob {
        let pin = self.shared.view.pin(*key, size);
        self.syncer.enqueue(key);
        CachedBlob::new(key, file, size, Some(pin))
    }
}

impl Shared {
    /// Counts a failure and logs the first of a row. That there is nothing to spare is none.
    fn noted<T>(&self, work: impl FnOnce() -> Result<T, CacheError>) -> Result<T, CacheError> {
        let result = work();
        if let Err(CacheError::NoneToSpare { .. }) = &result {
            tracing::debug!("the cache has no room to spare");
        } else if let Err(error) = &result {
            self.stats.cache_failures.add(1);
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "reading past the cache");
            }
        } else {
            self.is_failing.store(false, Ordering::Relaxed);
        }
        result
    }

    /// Refuses a directory of another user; one that is missing will be ours.
    fn require_ours(&self) -> Result<(), CacheError> {
        let dir = &self.layout.root;
        match fs::metadata(dir) {
            Ok(found) if found.uid() != self.user => {
                Err(CacheError::NotOurs { dir: dir.clone(), owner: found.uid() })
            }
            _ => Ok(()),
        }
    }

    fn write_checked(&self, key: &Key, content: &[u8], room: Room) -> Result<File, CacheError> {
        let (file, mut path) = self.write_temporary(content, room)?.into_parts();
        self.place(key, &file, &path)?;
        path.disable_cleanup(true);
        Ok(file)
    }

    /// Writes `content` to a temporary; on a full disk evicts as much and tries once more.
    fn write_temporary(
        &self,
        content: &[u8],
        room: Room,
    ) -> Result<tempfile::NamedTempFile, CacheError> {
        let write = || -> Result<_, CacheError> {
            let mut temporary = self.temporary()?;
            let path = temporary.path().to_path_buf();
            temporary.write_all(content).map_err(CacheError::io("write", path))?;
            Ok(temporary)
        };
        match write() {
            Err(error) if error.is_disk_full() => {
                self.evict(content.len() as u64, room);
                write()
            }
            other => other,
        }
    }

    /// An empty file that is removed when dropped, and by a scan after a crash.
    fn temporary(&self) -> Result<tempfile::NamedTempFile, CacheError> {
        self.require_ours()?;
        let folder = self.layout.partials();
        let create = || tempfile::Builder::new().prefix("tmp-").tempfile_in(&folder);
        match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&folder).and_then(|()| create())
            }
            other => other,
        }
        .map_err(CacheError::io("create a file in", folder))
    }

    /// Marks the finished file at `path` and renames it over whatever has the blob's name.
    fn place(&self, key: &Key, file: &File, path: &Path) -> Result<(), CacheError> {
        let to = self.layout.blob(key);
        let replaced = fs::symlink_metadata(&to).ok();
        self.view.set_unsynced(*key, true);
        let placed = file
            .set_permissions(Permissions::from_mode(0o644))
            .and_then(|()| set_times(file, None, Some(mark_secs(&key.digest))))
            .and_then(|()| atomic::rename(path, &to));
        if let Err(error) = placed {
            self.view.set_unsynced(*key, false);
            return Err(CacheError::io("create", to)(error));
        }
        if let Some(old) = replaced.filter(|old| self.is_ours(key, old)) {
            self.release(old.size());
        }
        Ok(())
    }

    fn is_ours(&self, key: &Key, file: &Metadata) -> bool {
        standing(key, file, self.user) != layout::Standing::Foreign
    }
}

/// A read-only descriptor of the same file where one can be had: one that was written through
/// keeps others from running a hard link of it.
fn reopened(file: Arc<File>) -> Arc<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_or(file, Arc::new)
}

/// Opens a regular file for reading without following a link, waiting on a pipe, or (where
/// `is_quiet`) leaving a trace in its access time. Anything else is as good as missing.
fn open_regular(path: &Path, is_quiet: bool) -> io::Result<Option<(File, Metadata)>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = |flags: OFlags| {
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
    };
    let opened = match open(if is_quiet { flags | OFlags::NOATIME } else { flags }) {
        // Only the owner may read without a trace.
        Err(error) if is_quiet && error.kind() == io::ErrorKind::PermissionDenied => open(flags),
        other => other,
    };
    match opened {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some((file, metadata)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads until `buffer` is full or the file ends.
pub(crate) fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Sets whole-second times; what is not given stays.
fn set_times(file: &File, access: Option<i64>, modification: Option<i64>) -> io::Result<()> {
    let time = |secs: Option<i64>| match secs {
        Some(tv_sec) => Timespec { tv_sec, tv_nsec: 0 },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    let times = Timestamps { last_access: time(access), last_modification: time(modification) };
    Ok(futimens(file, &times)?)
}

fn now_secs() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

#[cfg(test)]
mod tests;
