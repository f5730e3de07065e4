//! Finds out what is in the cache directory.

use std::{
    collections::BinaryHeap,
    fs::{self, DirEntry, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    Entry, Item, Key, Shared,
    layout::{parse_blob_name, parse_partial_name},
    now_secs,
    view::CAPACITY,
};

/// A temporary that is older than this belongs to nobody.
const ABANDONED_SECS: i64 = 3600;

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Bytes and number of our blobs and of partials.
    pub(super) ours: (u64, u64),
    /// Bytes and number of the blobs of others.
    pub(super) foreign: (u64, u64),
}

/// The items used longest ago, as many as the view holds.
#[derive(Default)]
struct Oldest(BinaryHeap<(i64, Item, u64)>);

impl Oldest {
    fn offer(&mut self, item: Item, entry: Entry) {
        self.0.push((entry.used_secs, item, entry.bytes));
        if self.0.len() > CAPACITY {
            self.0.pop();
        }
    }

    fn newest_first(self) -> impl Iterator<Item = (Item, Entry)> {
        let sorted = self.0.into_sorted_vec().into_iter().rev();
        sorted.map(|(used_secs, item, bytes)| (item, Entry { bytes, used_secs }))
    }
}

impl Shared {
    /// Scans unless the last scan is younger than `age`; true when it scanned.
    ///
    /// The lock is held while it reads the disk on purpose: whoever needs the result waits for the
    /// scan that is under way instead of starting another. Only threads that may block come here.
    pub(super) fn scan_if_older_than(&self, age: Duration) -> bool {
        let mut last = self.last_scan.lock();
        if last.is_some_and(|last| last.elapsed() < age) {
            return false;
        }
        self.rescan();
        *last = Some(Instant::now());
        true
    }

    /// Corrects the shared counter and fills the view.
    fn rescan(&self) {
        let before = self.usage.total();
        let mut oldest = Oldest::default();
        let found = self.walk(|item, entry| oldest.offer(item, entry));
        self.remove_abandoned();
        self.view.extend(oldest.newest_first());
        if self.require_ours().is_ok() && self.layout.root.is_dir() {
            // What was admitted meanwhile may be counted twice, which the next scan corrects.
            let counted = self
                .usage
                .change(|total| found.ours.0.saturating_add(total.saturating_sub(before)));
            if let Err(error) = counted {
                tracing::debug!(%error, "cache use not counted");
            }
        }
    }

    /// Gives every evictable item to `each` and counts everything.
    pub(super) fn walk(&self, mut each: impl FnMut(Item, Entry)) -> Found {
        let mut found = Found::default();
        self.walk_blobs(|key, metadata| {
            let is_ours = self.is_ours(&key, metadata);
            let count = if is_ours { &mut found.ours } else { &mut found.foreign };
            count.0 += metadata.size();
            count.1 += 1;
            if is_ours {
                let entry = Entry { bytes: metadata.size(), used_secs: metadata.atime() };
                each(Item::Blob(key), entry);
            }
        });
        for (file, metadata) in files_of(&self.layout.partials()) {
            let bytes = metadata.blocks() * 512;
            found.ours.0 += bytes;
            if let Some(key) = parse_partial_name(Path::new(&file.file_name())) {
                each(Item::Partial(key), Entry { bytes, used_secs: metadata.mtime() });
            }
        }
        found
    }

    /// Gives every file under a blob's name to `each`.
    pub(super) fn walk_blobs(&self, mut each: impl FnMut(Key, &Metadata)) {
        for (scheme, first, shard) in self.layout.shards() {
            for (file, metadata) in files_of(&shard) {
                let key = parse_blob_name(scheme, first, Path::new(&file.file_name()));
                if let Some(key) = key {
                    each(key, &metadata);
                }
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
