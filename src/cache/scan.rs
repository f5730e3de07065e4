//! Finds out what is in the cache directory.

use std::{
    fs::{self, DirEntry, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{Condvar, Mutex};

use super::{
    Entry, Item, Key, Shared,
    layout::{SCHEMES, parse_blob_name, parse_partial_name},
    now_secs,
};
use crate::id::Scheme;

/// A temporary that is older than this belongs to nobody.
const ABANDONED_SECS: i64 = 3600;

/// How long after a scan another is made, at the soonest and, however long a scan takes, at the
/// latest.
const RESCAN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// A file is created this long after its bytes were counted, at the latest.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What is found is told in batches of so many, since hashes lie anywhere and so the oldest of many
/// are old; or when one of the two layouts is done.
const BATCH: usize = 1024;

/// What a scan found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// Bytes and number of our blobs and of partials.
    pub(super) ours: (u64, u64),
    /// Bytes and number of the blobs of others.
    pub(super) foreign: (u64, u64),
}

impl Found {
    /// Counts a blob; gives what is to be known of one of ours.
    fn count(&mut self, shared: &Shared, key: &Key, file: &Metadata) -> Option<Entry> {
        let is_ours = shared.is_ours(key, file);
        let count = if is_ours { &mut self.ours } else { &mut self.foreign };
        count.0 += file.size();
        count.1 += 1;
        is_ours.then(|| Entry { bytes: file.size(), used_secs: file.atime() })
    }
}

/// Scans of the directory, of which one is made at a time.
#[derive(Debug, Default)]
pub(super) struct Scans {
    progress: Mutex<Progress>,
    advanced: Condvar,
    /// The number of the last scan, and the bytes that it had counted and that were evicted since.
    gone: Mutex<(u64, u64)>,
    /// What the last one that has ended found.
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Progress {
    is_running: bool,
    began: Option<Instant>,
    /// Counts batches of what was found, and ends.
    steps: u64,
    last: Option<Last>,
}

/// The last scan that has ended.
#[derive(Debug)]
pub(super) struct Last {
    ended: Instant,
    took: Duration,
}

impl Last {
    /// Whether another would not be too much: together they take a twentieth of the time at most.
    pub(super) fn is_old(&self) -> bool {
        self.ended.elapsed() >= (self.took * 20).clamp(RESCAN.0, RESCAN.1)
    }
}

impl Scans {
    /// Begins a scan if there was none or another `is_due`. One that is under way is waited for, so
    /// that whoever needs its result starts no other; only threads that may block come here.
    pub(super) fn begin_if(&self, is_due: impl FnOnce(&Last) -> bool) -> bool {
        let mut progress = self.progress.lock();
        while progress.is_running {
            self.advanced.wait(&mut progress);
        }
        if progress.last.as_ref().is_some_and(|last| !is_due(last)) {
            return false;
        }
        progress.is_running = true;
        progress.began = Some(Instant::now());
        true
    }

    pub(super) fn end(&self) {
        let mut progress = self.progress.lock();
        let took = progress.began.map_or(Duration::ZERO, |began| began.elapsed());
        progress.last = Some(Last { ended: Instant::now(), took });
        progress.is_running = false;
        progress.steps += 1;
        self.advanced.notify_all();
    }

    pub(super) fn advance(&self) {
        self.progress.lock().steps += 1;
        self.advanced.notify_all();
    }

    /// What the last scan found, as soon as one has ended.
    pub(super) fn found(&self) -> Found {
        *self.found.lock()
    }

    /// How much all scans have done so far.
    pub(super) fn steps(&self) -> u64 {
        self.progress.lock().steps
    }

    /// Waits until more is done than `steps`, as long as a scan is under way; whether it was.
    fn has_done_more_than(&self, steps: u64) -> bool {
        let mut progress = self.progress.lock();
        while progress.is_running && progress.steps == steps {
            self.advanced.wait(&mut progress);
        }
        progress.steps > steps
    }

    /// Notes that so many bytes were evicted that a scan has counted.
    pub(super) fn note_gone(&self, scan: u64, bytes: u64) {
        let mut gone = self.gone.lock();
        if gone.0 == scan {
            gone.1 += bytes;
        }
    }
}

/// Ends a scan, however it ends.
struct Ending<'a>(&'a Scans);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Shared {
    /// Scans if that was never done or `is_due` again; true when it scanned.
    pub(super) fn scan_if(&self, is_due: impl FnOnce(&Last) -> bool) -> bool {
        let is_wanted = self.scans.begin_if(is_due);
        if is_wanted {
            self.scan();
        }
        is_wanted
    }

    /// Finds more than there was after so many steps: waits for a scan that is under way to come
    /// across something, else scans unless that was done lately.
    pub(super) fn find_more_than(&self, steps: u64) -> bool {
        self.scans.has_done_more_than(steps) || self.scan_if(Last::is_old)
    }

    /// Makes the scan that was begun: corrects the shared counter and fills the view.
    pub(super) fn scan(&self) {
        let _ending = Ending(&self.scans);
        let (began, before) = (SystemTime::now(), self.usage.read());
        self.stats.cache_scans.add(1);
        *self.scans.gone.lock() = (self.view.begin_scan(), 0);
        let (mut found, mut young) = (Found::default(), 0);
        let mut batch = Vec::with_capacity(BATCH);
        let tell = |batch: &mut Vec<_>| {
            self.view.add_found(batch.drain(..));
            self.scans.advance();
        };
        for scheme in SCHEMES {
            self.walk_blobs(scheme, |key, metadata| {
                let Some(entry) = found.count(self, &key, metadata) else { return };
                if metadata.created().is_ok_and(|created| created > began + UNDER_WAY) {
                    young += entry.bytes;
                }
                batch.push((Item::Blob(key), entry));
                if batch.len() == BATCH {
                    tell(&mut batch);
                }
            });
            tell(&mut batch);
        }
        self.walk_partials(&mut found, |item, entry| batch.push((item, entry)));
        tell(&mut batch);
        *self.scans.found.lock() = found;
        self.remove_abandoned();
        if self.require_ours().is_ok() && self.layout.root.is_dir() {
            let (_, gone) = *self.scans.gone.lock();
            let left = found.ours.0.saturating_sub(young).saturating_sub(gone);
            // What others evicted meanwhile may still be counted, and what came in the beginning may
            // be counted twice; the next scan corrects that.
            let counted =
                self.usage.change(|now| left + now.admitted.wrapping_sub(before.admitted));
            if let Err(error) = counted {
                tracing::debug!(%error, "cache use not counted");
            }
        }
    }

    /// Gives every evictable item to `each` and counts everything.
    pub(super) fn walk(&self, mut each: impl FnMut(Item, Entry)) -> Found {
        let mut found = Found::default();
        for scheme in SCHEMES {
            self.walk_blobs(scheme, |key, metadata| {
                if let Some(entry) = found.count(self, &key, metadata) {
                    each(Item::Blob(key), entry);
                }
            });
        }
        self.walk_partials(&mut found, each);
        found
    }

    /// Gives every file under a name of a blob of one scheme to `each`.
    pub(super) fn walk_blobs(&self, scheme: Scheme, mut each: impl FnMut(Key, &Metadata)) {
        for (first, shard) in self.layout.shards(scheme) {
            for (file, metadata) in files_of(&shard) {
                let key = parse_blob_name(scheme, first, Path::new(&file.file_name()));
                if let Some(key) = key {
                    each(key, &metadata);
                }
            }
        }
    }

    fn walk_partials(&self, found: &mut Found, mut each: impl FnMut(Item, Entry)) {
        for (file, metadata) in files_of(&self.layout.partials()) {
            let bytes = metadata.blocks() * 512;
            found.ours.0 += bytes;
            if let Some(key) = parse_partial_name(Path::new(&file.file_name())) {
                each(Item::Partial(key), Entry { bytes, used_secs: metadata.mtime() });
            }
        }
    }

    /// Removes temporaries that a crash left, and maps whose data is gone.
    fn remove_abandoned(&self) {
        let now = now_secs();
        for (file, metadata) in files_of(&self.layout.partials()) {
            let path = file.path();
            let is_temporary = file.file_name().as_encoded_bytes().starts_with(b"tmp-");
            let is_orphan = path.extension().is_some_and(|extension| extension == "map")
                && !path.with_extension("data").exists();
            let is_old = now - metadata.ctime() > ABANDONED_SECS;
            let is_free = || fs::File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if (is_temporary || is_orphan) && is_old && is_free() {
                drop(fs::remove_file(&path));
            }
        }
    }
}

/// The regular files of a folder; one that cannot be read has none.
fn files_of(folder: &Path) -> impl Iterator<Item = (DirEntry, Metadata)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        metadata.is_file().then_some((entry, metadata))
    })
}
