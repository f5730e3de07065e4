//! Files that are being read, and what is kept of them between reads.
//!
//! An open file is known by the number the kernel was given for it, but nothing depends on that
//! number: a read without one, or of a file that is not held here, finds its file by the inode, and
//! opens it anew if need be. That is how reading works where the kernel sends no opens at all, and
//! how more files can be open than there are descriptors.

use std::{
    collections::{HashMap, HashSet},
    num::{NonZeroU64, NonZeroUsize},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{Ino, VfsError, exposures::Exposures};
use crate::{blobs::Reader, cache::CachedBlob, recent::Recent};

/// The number of an open file.
pub type Handle = NonZeroU64;

/// Bytes of git files that are kept for the next read of them.
const KEPT_BYTES: u64 = 64 << 20;

/// What part of the cache may be kept from eviction by files that nobody is known to have open.
const KEPT_PART: u64 = 4;

/// How long a file whose bytes turned out wrong fails where the kernel sends no opens.
const BARRED: Duration = Duration::from_secs(5);

/// What the kernel has read ahead in vain it asks for once more, at once, and whoever waits for that
/// cannot be killed: so it is given the same answer.
const REPEATED: Duration = Duration::from_secs(1);

/// Files that are no longer kept here. Dropping them may end downloads, so that is up to the caller.
type Gone = Vec<Arc<OpenFile>>;

/// Files that are open or were read lately.
#[derive(Debug)]
pub(super) struct OpenFiles {
    by_handle: RwLock<HashMap<Handle, Arc<OpenFile>>>,
    opened: AtomicU64,
    most_held: usize,
    is_without_opens: AtomicBool,
    recent: Mutex<Lately>,
    barred: Mutex<Barred>,
    /// What the last read of an open file failed with, until another asks.
    failed: Mutex<HashMap<Handle, (Instant, VfsError)>>,
    pub(super) exposures: Exposures,
    /// Files whose declaration claims a wrong size, and whose readers have learnt of that.
    corrected: Mutex<HashSet<Ino>>,
    /// Files without opens whose readers have learnt that another size was told before.
    warned: Mutex<HashSet<Ino>>,
}

/// A file that can be read.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) content: Content,
    /// In bytes, as every reader was told.
    pub(super) size: u64,
    /// Whether pages that the kernel holds of it are right, or at least not known to be wrong.
    pub(super) keeps_pages: bool,
}

#[derive(Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    Cached(Arc<CachedBlob>),
    Streamed(Reader),
    /// It gave bytes that turned out wrong. Whoever holds it open has to learn of that: the kernel
    /// tries a failed read-ahead again, and would find sound bytes behind wrong ones.
    Failed(VfsError),
}

impl OpenFile {
    pub(super) const fn new(content: Content, size: u64) -> Self {
        Self { content, size, keeps_pages: true }
    }

    pub(super) fn in_memory(bytes: Bytes) -> Self {
        let size = bytes.len() as u64;
        Self::new(Content::Bytes(bytes), size)
    }

    /// Fills the buffer where that takes no waiting: `Some` of how many bytes, which is less than
    /// asked only at the end.
    pub(super) fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let wanted = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..wanted];
        if wanted == 0 && !matches!(self.content, Content::Failed(_)) {
            return Some(0);
        }
        match &self.content {
            Content::Bytes(bytes) => {
                buffer.copy_from_slice(bytes.get(offset as usize..offset as usize + wanted)?);
                Some(wanted)
            }
            Content::Cached(blob) => read_whole(blob, buffer, offset),
            Content::Streamed(reader) if reader.fetch().known_size() == Some(self.size) => {
                reader.read_now(offset, buffer).filter(|count| *count == wanted)
            }
            Content::Streamed(_) | Content::Failed(_) => None,
        }
    }
}

/// Files that were read lately and that nobody is known to have open. Those in memory are bounded
/// by the bytes that they take there, the others by those of the cache that they keep.
#[derive(Debug)]
struct Lately {
    in_memory: Recent<Ino, Arc<OpenFile>>,
    others: Recent<Ino, Arc<OpenFile>>,
}

impl Lately {
    fn new(most: NonZeroUsize, cache_bytes: u64) -> Self {
        Self {
            in_memory: Recent::new(most, KEPT_BYTES),
            others: Recent::new(most, cache_bytes / KEPT_PART),
        }
    }

    fn get(&mut self, ino: Ino) -> Option<Arc<OpenFile>> {
        let Self { in_memory, others } = self;
        others.get(&ino).or_else(|| in_memory.get(&ino)).cloned()
    }

    fn take(&mut self, ino: Ino) -> Gone {
        self.others.take(&ino).into_iter().chain(self.in_memory.take(&ino)).collect()
    }

    fn put(&mut self, ino: Ino, file: Arc<OpenFile>) -> Gone {
        match &file.content {
            Content::Bytes(bytes) => {
                let weight = bytes.len() as u64;
                self.in_memory.put(ino, file, weight)
            }
            Content::Cached(blob) => {
                let weight = blob.size();
                self.others.put(ino, file, weight)
            }
            Content::Streamed(_) | Content::Failed(_) => self.others.put(ino, file, 0),
        }
    }

    fn end_round(&mut self) -> Gone {
        let mut gone = self.others.end_round();
        gone.extend(self.in_memory.end_round());
        gone
    }

    fn is_empty(&self) -> bool {
        self.others.is_empty() && self.in_memory.is_empty()
    }
}

/// All of the buffer, or nothing where somebody has cut the cached file or written to it.
fn read_whole(blob: &CachedBlob, buffer: &mut [u8], offset: u64) -> Option<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match blob.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) | Err(_) => return None,
            Ok(count) => filled += count,
        }
    }
    Some(filled)
}

impl OpenFiles {
    /// Keeps as many files at hand as `descriptors` allow, since each may take one, and as a cache
    /// of `cache_bytes` bytes can do without.
    pub(super) fn new(descriptors: usize, cache_bytes: u64) -> Self {
        let kept = NonZeroUsize::new(descriptors / 4).unwrap_or(NonZeroUsize::MIN);
        Self {
            by_handle: RwLock::default(),
            opened: AtomicU64::new(1),
            most_held: descriptors,
            is_without_opens: AtomicBool::new(false),
            recent: Mutex::new(Lately::new(kept, cache_bytes)),
            barred: Mutex::default(),
            failed: Mutex::default(),
            exposures: Exposures::default(),
            corrected: Mutex::default(),
            warned: Mutex::default(),
        }
    }

    /// The file that is read under this number, else the one that was read lately.
    pub(super) fn find(&self, ino: Ino, handle: Option<Handle>) -> Option<Arc<OpenFile>> {
        let held = handle.and_then(|handle| self.by_handle.read().get(&handle).cloned());
        held.or_else(|| self.recent.lock().get(ino))
    }

    /// A number for a file that is going to be open.
    pub(super) fn new_handle(&self) -> Handle {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        NonZeroU64::new(number).expect("so many files are never opened")
    }

    /// Has the number stand for a file. Without a number, or beyond the descriptors that there
    /// are, it is kept as long as others are not read instead.
    pub(super) fn hold(&self, ino: Ino, handle: Option<Handle>, file: Arc<OpenFile>) -> Gone {
        let Some(handle) = handle else {
            self.is_without_opens.store(true, Ordering::Relaxed);
            return self.keep(ino, file);
        };
        let mut held = self.by_handle.write();
        if held.contains_key(&handle) || held.len() < self.most_held {
            return held.insert(handle, file).into_iter().collect();
        }
        drop(held);
        self.keep(ino, file)
    }

    fn keep(&self, ino: Ino, file: Arc<OpenFile>) -> Gone {
        self.recent.lock().put(ino, file)
    }

    pub(super) fn release(&self, handle: Handle) -> Gone {
        self.failed.lock().remove(&handle);
        self.by_handle.write().remove(&handle).into_iter().collect()
    }

    /// Gives up what was not read for a whole round.
    pub(super) fn end_round(&self) -> Gone {
        self.recent.lock().end_round()
    }

    /// Whether files are kept that nobody holds open.
    pub(super) fn keeps_any(&self) -> bool {
        !self.recent.lock().is_empty()
    }

    /// Whether the kernel tells neither of opens nor of ends.
    pub(super) fn is_without_opens(&self) -> bool {
        self.is_without_opens.load(Ordering::Relaxed)
    }

    /// After a failed read: wrong content fails as long as it is open, or, where nobody says for
    /// how long that is, for some time; anything else is tried anew by the next read.
    pub(super) fn read_failed(&self, ino: Ino, handle: Option<Handle>, error: &VfsError) -> Gone {
        let mut gone = self.recent.lock().take(ino);
        let is_wrong = error.is_of_content();
        match handle {
            Some(handle) if is_wrong => {
                let failed = OpenFile::new(Content::Failed(error.clone()), 0);
                gone.extend(self.hold(ino, Some(handle), Arc::new(failed)));
            }
            Some(handle) => {
                gone.extend(self.release(handle));
                self.failed.lock().insert(handle, (Instant::now(), error.clone()));
            }
            None if is_wrong => self.barred.lock().bar(ino, error, Instant::now()),
            None => {}
        }
        gone
    }

    /// What a read of an open file that is not held failed with just now; told once.
    pub(super) fn why_failed(&self, handle: Handle) -> Option<VfsError> {
        let (since, error) = self.failed.lock().remove(&handle)?;
        (since.elapsed() < REPEATED).then_some(error)
    }

    /// Why a file cannot be read without a number at the moment.
    pub(super) fn why_barred(&self, ino: Ino) -> Option<VfsError> {
        self.barred.lock().why(ino, Instant::now())
    }

    /// Notes that readers of a file are being told of its right size; whether that is for the
    /// first time.
    pub(super) fn correct(&self, ino: Ino) -> bool {
        self.corrected.lock().insert(ino)
    }

    /// Notes that readers of a file learn that another size was told before; whether that is for
    /// the first time.
    pub(super) fn warn(&self, ino: Ino) -> bool {
        self.warned.lock().insert(ino)
    }

    pub(super) fn is_corrected(&self, ino: Ino) -> bool {
        self.corrected.lock().contains(&ino)
    }
}

/// Files that gave wrong bytes where the kernel sends no opens, and so no word of their end.
#[derive(Debug, Default)]
struct Barred(HashMap<Ino, (Instant, VfsError)>);

impl Barred {
    fn bar(&mut self, ino: Ino, error: &VfsError, now: Instant) {
        self.0.retain(|_, (since, _)| now.duration_since(*since) < BARRED);
        self.0.insert(ino, (now, error.clone()));
    }

    fn why(&self, ino: Ino, now: Instant) -> Option<VfsError> {
        let (since, error) = self.0.get(&ino)?;
        (now.duration_since(*since) < BARRED).then(|| error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::{BlobCache, Room},
        id::{BlobId, Scheme},
    };

    fn file(size: usize) -> Arc<OpenFile> {
        Arc::new(OpenFile::in_memory(vec![7; size].into()))
    }

    fn held(files: &OpenFiles, ino: u64) -> Option<Handle> {
        let handle = Some(files.new_handle());
        drop(files.hold(Ino(ino), handle, file(1)));
        handle
    }

    #[test]
    fn a_file_beyond_the_descriptors_is_found_by_its_inode() {
        let files = OpenFiles::new(2, 1 << 30);
        let handles: Vec<_> = (1..=3).map(|ino| held(&files, ino)).collect();
        assert_eq!(files.by_handle.read().len(), 2);
        for (ino, handle) in (1..=3).zip(&handles) {
            assert!(files.find(Ino(ino), *handle).is_some());
        }
        assert_eq!(
            handles.into_iter().flatten().map(|handle| files.release(handle).len()).sum::<usize>(),
            2
        );
        assert!(files.find(Ino(1), None).is_none());
        assert!(files.find(Ino(3), None).is_some());
    }

    #[test]
    fn what_is_read_without_a_number_is_let_go_after_a_while() {
        let files = OpenFiles::new(4, 1 << 30);
        assert!(!files.is_without_opens());
        drop(files.hold(Ino(1), None, file(1)));
        assert!(files.is_without_opens());
        assert!(files.end_round().is_empty() && files.find(Ino(1), None).is_some());
        assert!(files.end_round().is_empty());
        assert_eq!(files.end_round().len(), 1);
        assert!(files.find(Ino(1), None).is_none() && !files.keeps_any());
    }

    #[test]
    fn files_that_were_read_lately_keep_no_more_than_a_quarter_of_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let options = crate::cache::Options {
            dir: folder.path().join("cache"),
            neighbours: Vec::new(),
            seen: folder.path().join("seen"),
            max_bytes: 4000,
            min_free_bytes: 0,
        };
        let cache = BlobCache::open(options, Arc::default());
        // What comes during a scan may be counted twice.
        cache.look_around();
        let files = OpenFiles::new(256, cache.max_bytes());
        for n in 0..20 {
            let id = BlobId { digest: [n; 16], scheme: Scheme::Md5 };
            let blob = cache.admit(&id.into(), &[n; 100], Room::Wanted).unwrap();
            let file = OpenFile::new(Content::Cached(Arc::new(blob)), 100);
            drop(files.hold(Ino(u64::from(n)), None, Arc::new(file)));
        }
        let kept = (0..20).filter(|ino| files.find(Ino(*ino), None).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), (10..20).collect::<Vec<_>>());
        drop(files.hold(Ino(30), None, file(5000)));
        assert!(files.find(Ino(30), None).is_some() && files.find(Ino(19), None).is_some());
    }

    #[test]
    fn wrong_content_fails_as_long_as_it_is_open() {
        let (files, wrong) =
            (OpenFiles::new(4, 1 << 30), VfsError::WrongSize { shown: 1, actual: 2 });
        let handle = held(&files, 1);
        drop(files.read_failed(Ino(1), handle, &wrong));
        let failed = files.find(Ino(1), handle).unwrap();
        assert!(matches!(failed.content, Content::Failed(_)));
        assert_eq!(failed.read_now(0, &mut [0; 9]), None);
        assert!(files.why_barred(Ino(1)).is_none(), "another open may read it");
    }

    #[test]
    fn a_read_that_is_repeated_at_once_fails_as_before_and_the_next_does_not() {
        let files = OpenFiles::new(4, 1 << 30);
        let handle = held(&files, 1);
        drop(files.read_failed(Ino(1), handle, &VfsError::Stale));
        assert!(files.find(Ino(1), handle).is_none());
        assert!(matches!(files.why_failed(handle.unwrap()), Some(VfsError::Stale)));
        assert!(files.why_failed(handle.unwrap()).is_none());
        drop(files.read_failed(Ino(1), handle, &VfsError::Stale));
        drop(files.release(handle.unwrap()));
        assert!(files.failed.lock().is_empty());
    }

    #[test]
    fn without_opens_wrong_content_fails_for_some_time() {
        let (mut barred, now) = (Barred::default(), Instant::now());
        barred.bar(Ino(1), &VfsError::WrongSize { shown: 1, actual: 2 }, now);
        assert!(barred.why(Ino(1), now + BARRED / 2).is_some());
        assert!(barred.why(Ino(2), now).is_none());
        assert!(barred.why(Ino(1), now + BARRED).is_none());
        barred.bar(Ino(2), &VfsError::Stale, now + BARRED);
        assert_eq!(barred.0.len(), 1, "what is over is forgotten");
    }
}
