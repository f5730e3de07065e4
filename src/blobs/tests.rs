use std::{
    collections::HashMap,
    fmt, fs,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use md5::{Digest as _, Md5};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::{
    cache::{self, BLOCK},
    remote::{Body, Page, Prefix, Put, Remote, RemoteError, Source},
};

const MIB: usize = 1 << 20;

/// Bytes of one chunk of a body: no divisor of a block.
const CHUNK: usize = 40_000;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// This byte of the object arrives changed.
    Flip(u64),
    /// Bodies end with an error after so many bytes.
    Cut(usize),
    /// Bodies end silently after so many bytes.
    Short(usize),
    Denied,
    /// The object is said to be one byte shorter from the second request on.
    Shrinks,
}

/// A remote in memory that keeps a log, and whose bodies wait at a gate.
struct Scripted {
    objects: Mutex<HashMap<Key, Bytes>>,
    log: Mutex<Vec<Option<Range<u64>>>>,
    heads: AtomicUsize,
    arrived: Notify,
    gate: Arc<Semaphore>,
    fault: Mutex<Fault>,
    url: &'static str,
}

impl Scripted {
    fn new(url: &'static str) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            log: Mutex::default(),
            heads: AtomicUsize::new(0),
            arrived: Notify::new(),
            gate: Arc::new(Semaphore::new(1 << 20)),
            fault: Mutex::new(Fault::None),
            url,
        })
    }

    fn put(&self, content: Vec<u8>) -> Key {
        let digest = Md5::digest(&content).into();
        let key = Key { digest, scheme: crate::id::Scheme::Md5, is_manifest: false };
        self.objects.lock().insert(key, content.into());
        key
    }

    fn close(&self) {
        self.gate.forget_permits(usize::MAX >> 4);
    }

    fn open(&self) {
        self.gate.add_permits(1 << 20);
    }

    fn requests(&self) -> Vec<Option<Range<u64>>> {
        self.log.lock().clone()
    }

    fn requested_bytes(&self) -> u64 {
        self.requests().into_iter().flatten().map(|range| range.end - range.start).sum()
    }

    async fn has_requests(&self, count: usize) {
        loop {
            let arrived = self.arrived.notified();
            if self.log.lock().len() >= count {
                return;
            }
            arrived.await;
        }
    }

    fn error(&self, cause: Cause) -> RemoteError {
        RemoteError {
            cause,
            action: "get from".into(),
            url: self.url.into(),
            reason: "scripted".into(),
            hint: None,
            source: None,
        }
    }

    fn object(&self, key: Key) -> Result<Bytes, RemoteError> {
        if *self.fault.lock() == Fault::Denied {
            return Err(self.error(Cause::Denied));
        }
        self.objects.lock().get(&key).cloned().ok_or_else(|| self.error(Cause::Missing))
    }

    /// The bytes of a body as the fault makes them, in chunks.
    fn chunks(&self, object: &Bytes, range: &Range<u64>) -> Vec<Result<Bytes, RemoteError>> {
        let mut bytes = object[range.start as usize..range.end as usize].to_vec();
        let fault = *self.fault.lock();
        if let Fault::Flip(at) = fault
            && range.contains(&at)
        {
            bytes[(at - range.start) as usize] ^= 1;
        }
        if let Fault::Cut(length) | Fault::Short(length) = fault {
            bytes.truncate(length);
        }
        let chunks = bytes.chunks(CHUNK).map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
        let mut chunks: Vec<_> = chunks.collect();
        if let Fault::Cut(_) = fault {
            chunks.push(Err(self.error(Cause::Unreachable)));
        }
        chunks
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url)
    }
}

#[async_trait]
impl Remote for Scripted {
    async fn get(&self, key: Key, range: Option<Range<u64>>) -> Result<Body, RemoteError> {
        let count = {
            let mut log = self.log.lock();
            log.push(range.clone());
            log.len()
        };
        self.arrived.notify_waiters();
        let object = self.object(key)?;
        let mut size = object.len() as u64;
        if *self.fault.lock() == Fault::Shrinks && count > 1 {
            size -= 1;
        }
        let range = range.map_or(0..size, |range| range.start.min(size)..range.end.min(size));
        let chunks = self.chunks(&object, &range);
        let gate = self.gate.clone();
        let waiting = stream::once(async move {
            gate.acquire_owned().await.unwrap().forget();
            stream::iter(chunks)
        });
        Ok(Body { size, range, chunks: Box::pin(waiting.flatten()) })
    }

    async fn size(&self, key: Key) -> Result<u64, RemoteError> {
        self.heads.fetch_add(1, Ordering::Relaxed);
        Ok(self.object(key)?.len() as u64)
    }

    async fn list(&self, _prefix: Prefix, _after: Option<&str>) -> Result<Page, RemoteError> {
        Err(self.error(Cause::Unsupported))
    }

    async fn put(&self, _key: Key, _source: &Source) -> Result<Put, RemoteError> {
        Err(self.error(Cause::Unsupported))
    }

    fn lists_cheaply(&self) -> bool {
        false
    }

    fn url(&self) -> &str {
        self.url
    }
}

pub(super) struct Lab {
    dir: tempfile::TempDir,
    remote: Arc<Scripted>,
    stats: Arc<Stats>,
    sizes: Arc<SizeIndex>,
    invalid: mpsc::Receiver<Key>,
    blobs: Blobs,
}

impl Lab {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap(), Scripted::new("mem://one"), 1 << 40)
    }

    /// Its cache directory is a file, so that nothing can be kept on disk.
    pub(super) fn without_disk() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cache"), b"").unwrap();
        Self::at(dir, Scripted::new("mem://one"), 1 << 40)
    }

    fn at(dir: tempfile::TempDir, remote: Arc<Scripted>, max_bytes: u64) -> Self {
        let (stats, sizes) = (Arc::<Stats>::default(), Arc::new(SizeIndex::in_memory()));
        let options = cache::Options {
            dir: dir.path().join("cache"),
            neighbours: Vec::new(),
            seen: dir.path().join("seen"),
            max_bytes,
            min_free_bytes: 0,
        };
        let cache = BlobCache::open(options, stats.clone());
        let (sender, invalid) = mpsc::channel(8);
        let options = Options { memory_limit: 16 * MIB as u64, ..Options::new(sender) };
        let blobs = Blobs::new(cache, sizes.clone(), stats.clone(), Handle::current(), options);
        Self { dir, remote, stats, sizes, invalid, blobs }
    }

    /// The same directory in another life.
    async fn restarted(self, key: Key) -> Self {
        let Self { dir, remote, blobs, .. } = self;
        drop(blobs);
        let name = format!("md5-{}.data", crate::id::hex(&key.digest));
        let data = dir.path().join("cache/dvcfs/partial").join(name);
        // The tasks of the last reader end behind it.
        while fs::File::open(&data).is_ok_and(|data| data.try_lock().is_err()) {
            tokio::task::yield_now().await;
        }
        Self::at(dir, remote, 1 << 40)
    }

    fn sources(&self) -> Sources {
        let remote: Arc<dyn Remote> = self.remote.clone();
        Sources::from([remote])
    }

    /// Some object.
    pub(super) fn target(&self) -> Target {
        let key = self.remote.put(content(1));
        Target::new(self.blobs.context.clone(), key, self.sources())
    }

    fn fetch(&self, key: Key) -> Arc<Fetch> {
        match self.blobs.open(key, &self.sources()) {
            Opened::Fetch(fetch) => fetch,
            other => panic!("expected a fetch, not {other:?}"),
        }
    }

    fn is_ready(&self, key: Key) -> bool {
        // Not by opening it, which would begin to fetch what is not there.
        matches!(self.blobs.cache().open_blob(&key, None), Lookup::Hit(_))
    }

    async fn read(&self, key: Key) -> Result<Bytes, BlobError> {
        self.fetch(key).reader().read_all(u64::MAX).await
    }

    fn claim(&self, key: Key, bytes: u64) {
        self.sizes.record_claim(&key, Scope::of(self.remote.url), bytes);
    }
}

/// Bytes of which no block is like another.
fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (n, piece) in bytes.chunks_mut(512).enumerate() {
        let word = (n as u64 + length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let end = piece.len().min(8);
        piece[..end].copy_from_slice(&word[..end]);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_file_of_unknown_size_is_one_request_also_when_its_size_is_asked_first() {
    let lab = Lab::new();
    let key = lab.remote.put(content(MIB));
    assert_eq!(lab.fetch(key).size().await.unwrap(), MIB as u64);
    // It may be here by now.
    lab.blobs.open_verified(key, &lab.sources()).await.unwrap();
    assert_eq!(lab.remote.requests(), [Some(0..FIRST)]);
    assert!(lab.is_ready(key));
    while lab.stats.in_flight.value() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_of_known_size_up_to_the_limit_is_one_request() {
    let lab = Lab::new();
    let key = lab.remote.put(content(3 * MIB));
    lab.claim(key, 3 * MIB as u64);
    assert_eq!(lab.read(key).await.unwrap(), content(3 * MIB));
    assert_eq!(lab.remote.requests(), [None]);
    let other = lab.remote.put(content(2 * MIB));
    assert_eq!(lab.read(other).await.unwrap(), content(2 * MIB));
    assert_eq!(lab.remote.requests()[1..], [Some(0..FIRST), Some(FIRST..2 * FIRST)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_share_one_download() {
    for length in [300_000, 9 * MIB] {
        let lab = Arc::new(Lab::new());
        let key = lab.remote.put(content(length));
        lab.claim(key, length as u64);
        lab.remote.close();
        let readers = (0..50).map(|_| {
            let lab = lab.clone();
            tokio::spawn(async move {
                match lab.blobs.open(key, &lab.sources()) {
                    Opened::Fetch(fetch) => fetch.reader().read_all(u64::MAX).await.unwrap().len(),
                    Opened::Ready(blob) => blob.size() as usize,
                    Opened::Empty => 0,
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        lab.remote.has_requests(1).await;
        lab.remote.open();
        for reader in join_all(readers).await {
            assert_eq!(reader.unwrap(), length);
        }
        let expected = if length > MIB { 9 * MIB as u64 } else { 0 };
        assert_eq!(lab.remote.requested_bytes(), expected);
    }
}

#[tokio::test]
async fn empty_content_needs_no_fetch() {
    let lab = Lab::new();
    let key = lab.remote.put(Vec::new());
    assert!(matches!(lab.blobs.open(key, &lab.sources()), Opened::Empty));
    assert_eq!(lab.blobs.resolve_size(key, &lab.sources()).await.unwrap(), 0);
    assert!(lab.remote.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_a_small_blob_is_never_served_and_a_later_open_fetches_anew() {
    for lab in [Lab::new(), Lab::without_disk()] {
        let key = lab.remote.put(content(300_000));
        *lab.remote.fault.lock() = Fault::Flip(299_999);
        let reader = lab.fetch(key).reader();
        for _ in 0..2 {
            assert!(matches!(reader.read_at(0, 10).await, Err(BlobError::Integrity(_))));
        }
        assert_eq!(lab.stats.verification_failures.value(), 1);
        assert_eq!(lab.remote.requests().len(), 1);
        *lab.remote.fault.lock() = Fault::None;
        assert_eq!(lab.read(key).await.unwrap(), content(300_000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_a_large_blob_fails_the_read_that_completes_it_and_is_told() {
    for mut lab in [Lab::new(), Lab::without_disk()] {
        let key = lab.remote.put(content(9 * MIB));
        *lab.remote.fault.lock() = Fault::Flip(5_000_000);
        let reader = lab.fetch(key).reader();
        let mut failed = None;
        for offset in (0..9 * MIB).step_by(MIB) {
            if let Err(error) = reader.read_at(offset as u64, MIB).await {
                failed = Some(error);
                break;
            }
        }
        assert!(matches!(failed, Some(BlobError::Integrity(_))), "{failed:?}");
        assert!(matches!(reader.read_at(0, 1).await, Err(BlobError::Integrity(_))));
        assert_eq!(lab.invalid.recv().await, Some(key));
        *lab.remote.fault.lock() = Fault::None;
        assert_eq!(lab.read(key).await.unwrap(), content(9 * MIB));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_short_and_refused_downloads_fail_and_may_be_tried_again() {
    for length in [300_000, 9 * MIB] {
        for fault in [Fault::Cut(70_000), Fault::Short(70_000), Fault::Denied] {
            let lab = Lab::new();
            let key = lab.remote.put(content(length));
            lab.claim(key, length as u64);
            *lab.remote.fault.lock() = fault;
            let error = lab.read(key).await.unwrap_err();
            match fault {
                Fault::Denied => assert!(matches!(error, BlobError::Denied(_))),
                _ => assert!(matches!(error, BlobError::Unreachable(_)), "{error}"),
            }
            *lab.remote.fault.lock() = Fault::None;
            assert_eq!(lab.read(key).await.unwrap(), content(length));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_blob_is_looked_for_on_every_remote() {
    let lab = Lab::new();
    let second = Scripted::new("mem://two");
    let key = second.put(content(9 * MIB));
    let missing = lab.read(key).await.unwrap_err();
    assert!(matches!(&missing, BlobError::Missing(failure) if failure.url == "mem://one"));
    let sources = Sources::from([lab.remote.clone() as Arc<dyn Remote>, second]);
    assert_eq!(lab.blobs.resolve_size(key, &sources).await.unwrap(), 9 * MIB as u64);
    let Opened::Fetch(fetch) = lab.blobs.open(key, &sources) else { panic!("cached") };
    assert_eq!(fetch.reader().read_all(u64::MAX).await.unwrap(), content(9 * MIB));
    let nowhere = Sources::from([]);
    let other = lab.remote.put(content(5));
    assert!(lab.blobs.resolve_size(other, &nowhere).await.is_err());
    let Opened::Fetch(fetch) = lab.blobs.open(other, &nowhere) else { panic!("cached") };
    assert!(fetch.size().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_claim_is_corrected_in_the_index_and_the_true_size_is_told() {
    for (length, claim) in [
        (300_000, 10),
        (300_000, 5 * MIB),
        (300_000, 20 * MIB),
        (9 * MIB, 100),
        (9 * MIB, 30 * MIB),
        (11 * MIB, 9 * MIB),
    ] {
        let lab = Lab::new();
        let key = lab.remote.put(content(length));
        lab.claim(key, claim as u64);
        let fetch = lab.fetch(key);
        let reader = fetch.reader();
        let last = reader.read_at(length as u64 - 1, 100).await.unwrap();
        assert_eq!(last, content(length)[length - 1..]);
        assert_eq!(fetch.size().await.unwrap(), length as u64);
        assert_eq!(reader.read_all(u64::MAX).await.unwrap(), content(length));
        let size = lab.sizes.get(&key, Scope::of("mem://else")).unwrap();
        assert_eq!((size.bytes, size.is_verified), (length as u64, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_that_keeps_changing_ends_in_an_error() {
    let lab = Lab::new();
    let key = lab.remote.put(content(9 * MIB));
    *lab.remote.fault.lock() = Fault::Shrinks;
    let fetch = lab.fetch(key);
    assert!(fetch.reader().read_all(u64::MAX).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_of_a_large_file_takes_one_mebibyte_and_nothing_after() {
    for claim in [None, Some(64 * MIB as u64)] {
        let lab = Lab::new();
        let key = lab.remote.put(content(64 * MIB));
        if let Some(bytes) = claim {
            lab.claim(key, bytes);
        }
        let reader = lab.fetch(key).reader();
        assert_eq!(reader.read_at(0, 65_536).await.unwrap(), content(64 * MIB)[..65_536]);
        assert_eq!(reader.read_at(65_536, 65_536).await.unwrap().len(), 65_536);
        assert_eq!(lab.remote.requests(), [Some(0..FIRST)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequential_reading_takes_few_requests_and_random_reading_only_what_it_asks() {
    let lab = Lab::new();
    let bytes = content(32 * MIB);
    let key = lab.remote.put(bytes.clone());
    lab.claim(key, bytes.len() as u64);
    let fetch = lab.fetch(key);
    let random = fetch.reader();
    for at in [20 * MIB, 3 * MIB, 27 * MIB] {
        assert_eq!(random.read_at(at as u64, 4096).await.unwrap(), bytes[at..at + 4096]);
    }
    assert_eq!(lab.remote.requested_bytes(), 3 * BLOCK);
    let sequential = fetch.reader();
    for at in (0..bytes.len()).step_by(128 << 10) {
        let read = sequential.read_at(at as u64, 128 << 10).await.unwrap();
        assert!(read == bytes[at..at + (128 << 10)]);
    }
    assert_eq!(lab.remote.requested_bytes(), bytes.len() as u64);
    // A window that never grows, since no read has to wait, is granted anew every 640 KiB.
    assert!(lab.remote.requests().len() <= 60, "{:?}", lab.remote.requests());
    assert!(lab.is_ready(key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_is_resumed_in_the_next_life_and_checked_from_its_beginning() {
    let lab = Lab::new();
    let bytes = content(10 * MIB);
    let key = lab.remote.put(bytes.clone());
    let reader = lab.fetch(key).reader();
    reader.read_at(0, 4096).await.unwrap();
    reader.read_at(9 * MIB as u64, MIB).await.unwrap();
    assert_eq!(lab.remote.requested_bytes(), 2 * MIB as u64);
    drop(reader);
    let lab = lab.restarted(key).await;
    lab.claim(key, bytes.len() as u64);
    assert!(lab.read(key).await.unwrap() == bytes);
    assert_eq!(lab.remote.requested_bytes(), 10 * MIB as u64);

    // What is not stamped by then is rightly hashed again.
    lab.blobs.cache().flush();
    let lab = lab.restarted(key).await;
    assert!(lab.is_ready(key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_partial_with_wrong_bytes_is_found_out() {
    let lab = Lab::new();
    let bytes = content(9 * MIB);
    let key = lab.remote.put(bytes.clone());
    *lab.remote.fault.lock() = Fault::Flip(5);
    let reader = lab.fetch(key).reader();
    reader.read_at(0, 4096).await.unwrap();
    drop(reader);
    *lab.remote.fault.lock() = Fault::None;
    let lab = lab.restarted(key).await;
    lab.claim(key, bytes.len() as u64);
    assert!(matches!(lab.read(key).await, Err(BlobError::Integrity(_))));
    assert!(lab.read(key).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_reader_takes_requests_with_it_and_leaves_the_partial() {
    let lab = Lab::new();
    let key = lab.remote.put(content(64 * MIB));
    lab.claim(key, 64 * MIB as u64);
    lab.remote.close();
    let reader = lab.fetch(key).reader();
    let gate = lab.remote.gate.clone();
    let read = tokio::spawn(async move { reader.read_at(0, 4096).await });
    lab.remote.has_requests(1).await;
    read.abort();
    assert!(read.await.unwrap_err().is_cancelled());
    lab.remote.open();
    let again = lab.fetch(key).reader();
    assert_eq!(again.read_at(0, 10).await.unwrap(), content(64 * MIB)[..10]);
    assert!(gate.available_permits() > 0);
    assert!(lab.remote.requested_bytes() <= 2 * MIB as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_fetch_the_same_blob_for_themselves() {
    let lab = Lab::new();
    let bytes = content(9 * MIB);
    let key = lab.remote.put(bytes.clone());
    let other_dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(lab.dir.path().join("cache"), other_dir.path().join("cache"))
        .unwrap();
    let first = lab.fetch(key).reader();
    first.read_at(0, 10).await.unwrap();
    let other = Lab::at(other_dir, lab.remote.clone(), 1 << 40);
    assert!(other.read(key).await.unwrap() == bytes);
    assert!(first.read_all(u64::MAX).await.unwrap() == bytes);
    assert!(lab.is_ready(key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_disk_everything_is_read_in_bounded_memory() {
    let lab = Lab::without_disk();
    let (small, large) = (content(2 * MIB), content(20 * MIB));
    let keys = [lab.remote.put(small.clone()), lab.remote.put(large.clone())];
    let readers = keys.map(|key| lab.fetch(key).reader());
    for _ in 0..2 {
        assert!(readers[0].read_all(u64::MAX).await.unwrap() == small);
        assert!(readers[1].read_all(u64::MAX).await.unwrap() == large);
    }
    let at = 7 * MIB + 1000;
    assert_eq!(readers[1].read_at(at as u64, 100_000).await.unwrap(), large[at..at + 100_000]);
    assert!(lab.stats.cache_failures.value() > 0);
    let verified = lab.blobs.open_verified(keys[1], &lab.sources()).await.unwrap();
    assert!(matches!(verified, Verified::Uncached(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_disk_bytes_that_come_back_different_are_refused() {
    let lab = Lab::without_disk();
    let key = lab.remote.put(content(20 * MIB));
    let reader = lab.fetch(key).reader();
    reader.verified().await.unwrap();
    *lab.remote.fault.lock() = Fault::Flip(3);
    assert!(matches!(reader.read_at(0, 10).await, Err(BlobError::Integrity(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_disk_random_reading_of_everything_is_checked_before_its_last_read() {
    let lab = Lab::without_disk();
    let bytes = content(9 * MIB);
    let key = lab.remote.put(bytes);
    lab.claim(key, 9 * MIB as u64);
    *lab.remote.fault.lock() = Fault::Flip(8 * MIB as u64);
    let reader = lab.fetch(key).reader();
    let mut last = Ok(Bytes::new());
    for at in (0..9).rev() {
        last = reader.read_at(at * MIB as u64, MIB).await;
    }
    assert!(matches!(last, Err(BlobError::Integrity(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_larger_than_the_cache_is_read_past_it_in_mid_stream() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::at(dir, Scripted::new("mem://one"), 6 * MIB as u64);
    let bytes = content(16 * MIB);
    let key = lab.remote.put(bytes.clone());
    assert!(lab.read(key).await.unwrap() == bytes);
    assert!(!lab.is_ready(key));
    assert!(lab.stats.cache_failures.value() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_slows_reads_and_fails_none() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    fs::create_dir(&path).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
        .arg(&path)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    let lab = Lab::at(dir, Scripted::new("mem://one"), 1 << 40);
    for length in [3 * MIB, 2 * MIB, 7 * MIB, 12 * MIB] {
        let key = lab.remote.put(content(length));
        assert!(lab.read(key).await.unwrap() == content(length), "{length}");
    }
    let Lab { blobs, dir, .. } = lab;
    drop(blobs);
    std::process::Command::new("umount").arg("-l").arg(dir.path().join("cache")).status().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_dvc_in_the_cache_is_checked_instead_of_fetched() {
    let lab = Lab::new();
    let (good, bad) = (lab.remote.put(content(1000)), lab.remote.put(content(2000)));
    for key in [good, bad] {
        let path = lab.dir.path().join("cache").join(key.path());
        crate::atomic::write(&path, &content(1000), 0o444).unwrap();
    }
    assert_eq!(lab.read(good).await.unwrap(), content(1000));
    assert!(lab.remote.requests().is_empty());
    assert_eq!(lab.read(bad).await.unwrap(), content(2000));
    assert!(lab.is_ready(good) && lab.is_ready(bad));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_may_be_removed_in_mid_download() {
    let lab = Lab::new();
    let bytes = content(12 * MIB);
    let key = lab.remote.put(bytes.clone());
    let reader = lab.fetch(key).reader();
    reader.read_at(0, 10).await.unwrap();
    fs::remove_dir_all(lab.dir.path().join("cache")).unwrap();
    assert!(reader.read_all(u64::MAX).await.unwrap() == bytes);
    drop(reader);
    let next = lab.remote.put(content(1000));
    assert_eq!(lab.read(next).await.unwrap(), content(1000));
    assert!(lab.is_ready(next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_opened_past_the_cache_is_read_from_the_remote() {
    let lab = Lab::new();
    let key = lab.remote.put(content(1000));
    lab.read(key).await.unwrap();
    let fetch = lab.blobs.open_past_cache(key, &lab.sources());
    assert_eq!(fetch.reader().read_all(u64::MAX).await.unwrap(), content(1000));
    assert_eq!(lab.remote.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verified_opens_wait_for_the_whole_check() {
    let lab = Lab::new();
    let key = lab.remote.put(content(9 * MIB));
    *lab.remote.fault.lock() = Fault::Flip(1);
    let refused = lab.blobs.open_verified(key, &lab.sources()).await;
    assert!(matches!(refused, Err(BlobError::Integrity(_))));
    *lab.remote.fault.lock() = Fault::None;
    let opened = lab.blobs.open_verified(key, &lab.sources()).await.unwrap();
    assert!(matches!(opened, Verified::Cached(blob) if blob.size() == 9 * MIB as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_come_from_the_index_the_cache_a_download_or_the_remote() {
    let lab = Lab::new();
    let keys: Vec<Key> = (1..=200).map(|n| lab.remote.put(content(n))).collect();
    let absent = Key { digest: [1; 16], ..keys[0] };
    lab.read(keys[0]).await.unwrap();
    lab.claim(keys[1], 2);
    assert!(lab.blobs.resolve_sizes(&keys, &lab.sources(), &|| ()).await.unwrap().is_empty());
    let sizes = keys.iter().map(|key| lab.blobs.known_size(*key, &lab.sources()));
    assert!(sizes.eq((1..=200).map(Some)));
    assert_eq!(lab.remote.heads.load(Ordering::Relaxed), 198);
    assert!(lab.blobs.resolve_sizes(&keys, &lab.sources(), &|| ()).await.unwrap().is_empty());
    assert_eq!(lab.remote.heads.load(Ordering::Relaxed), 198);
    let missing = lab.blobs.resolve_size(absent, &lab.sources()).await;
    assert!(matches!(missing, Err(BlobError::Missing(_))));

    let key = lab.remote.put(content(MIB));
    lab.remote.close();
    let fetch = lab.fetch(key);
    assert_eq!(lab.blobs.resolve_size(key, &lab.sources()).await.unwrap(), MIB as u64);
    assert_eq!(lab.remote.heads.load(Ordering::Relaxed), 199);
    lab.remote.open();
    assert_eq!(fetch.size().await.unwrap(), MIB as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scattered_reads_cost_a_request_each_and_little_more_than_they_ask() {
    const READ: usize = 128 << 10;
    let lab = Lab::new();
    let bytes = content(64 * MIB);
    let key = lab.remote.put(bytes.clone());
    lab.claim(key, bytes.len() as u64);
    let reader = lab.fetch(key).reader();
    let places = (0..61).map(|n| (n * 37 % 61 + 2) * MIB + 5000);
    for at in places {
        // As the kernel asks for what does not begin at the border of a page.
        let (first, rest) = (at..at + READ, at + READ..at + READ + 4096);
        for part in [first, rest] {
            let read = reader.read_at(part.start as u64, part.len()).await.unwrap();
            assert!(read == bytes[part]);
        }
    }
    assert_eq!(lab.remote.requests().len(), 61);
    assert!(lab.remote.requested_bytes() <= 61 * 3 * BLOCK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_footer_is_one_request() {
    let lab = Lab::new();
    let bytes = content(32 * MIB + 777);
    let size = bytes.len() as u64;
    let key = lab.remote.put(bytes.clone());
    lab.claim(key, size);
    let reader = lab.fetch(key).reader();
    for length in [22, 65_557, 300_000] {
        let at = bytes.len() - length;
        assert!(reader.read_at(at as u64, length).await.unwrap() == bytes[at..]);
    }
    assert_eq!(lab.remote.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_goes_before_what_nobody_asked_for() {
    let lab = Lab::new();
    let bytes = content(32 * MIB);
    let size = bytes.len() as u64;
    let key = lab.remote.put(bytes.clone());
    lab.claim(key, size);
    lab.remote.close();
    let (blobs, sources) = (lab.blobs.clone(), lab.sources());
    let filled = tokio::spawn(async move { blobs.prefetch(key, &sources, &|_| ()).await });
    // By then all eight pieces are claimed, and only one finds room as long as nobody waits.
    lab.remote.has_requests(1).await;
    let begun = lab.remote.requests()[0].clone().unwrap();
    let at = (begun.start + 5 * MIB as u64) % size;
    let reader = lab.fetch(key).reader();
    let read = tokio::spawn(async move { reader.read_at(at, 100).await });
    lab.remote.has_requests(2).await;
    let requested = lab.remote.requests()[1].clone().unwrap();
    assert!(requested.contains(&at), "{requested:?} for {at}");
    lab.remote.open();
    assert_eq!(read.await.unwrap().unwrap(), bytes[at as usize..at as usize + 100]);
    assert_eq!(filled.await.unwrap().unwrap(), Prefetched::Fetched(size));
    assert_eq!(lab.remote.requested_bytes(), size);
    assert!(lab.is_ready(key));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_share_one_budget() {
    const LENGTH: usize = 700_000;
    let lab = Arc::new(Lab::new());
    let keys: Vec<Key> = (0..64).map(|n| lab.remote.put(content(LENGTH + n))).collect();
    for (n, key) in keys.iter().enumerate() {
        lab.claim(*key, (LENGTH + n) as u64);
    }
    lab.remote.close();
    let readers: Vec<_> = keys
        .iter()
        .map(|key| {
            let (lab, key) = (lab.clone(), *key);
            tokio::spawn(async move { lab.read(key).await })
        })
        .collect();
    // 12 of the 16 MiB are for what is on its way.
    let most = 12 * MIB / LENGTH;
    lab.remote.has_requests(most).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.remote.requests().len(), most);
    lab.remote.open();
    for (n, reader) in readers.into_iter().enumerate() {
        assert!(reader.await.unwrap().unwrap() == content(LENGTH + n));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefetch_fills_the_cache_once_and_tells_of_bytes() {
    let lab = Lab::new();
    let lengths = [1000, 3 * MIB, 10 * MIB];
    let told = AtomicUsize::new(0);
    let progress = |bytes: u64| {
        told.fetch_add(bytes as usize, Ordering::Relaxed);
    };
    for length in lengths {
        let key = lab.remote.put(content(length));
        let fetched = lab.blobs.prefetch(key, &lab.sources(), &progress).await.unwrap();
        assert_eq!(fetched, Prefetched::Fetched(length as u64));
        let again = lab.blobs.prefetch(key, &lab.sources(), &progress).await.unwrap();
        assert_eq!(again, Prefetched::Here(length as u64));
        assert!(lab.is_ready(key));
    }
    assert_eq!(told.load(Ordering::Relaxed), lengths.iter().sum::<usize>());
    let bad = lab.remote.put(content(9 * MIB));
    *lab.remote.fault.lock() = Fault::Flip(1);
    let refused = lab.blobs.prefetch(bad, &lab.sources(), &progress).await;
    assert!(matches!(refused, Err(BlobError::Integrity(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefetch_pushes_nothing_out_that_was_read_lately() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::at(dir, Scripted::new("mem://one"), 12 * MIB as u64);
    let read = lab.remote.put(content(5 * MIB));
    lab.read(read).await.unwrap();
    for length in [8 * MIB, 10 * MIB] {
        let key = lab.remote.put(content(length));
        let fetched = lab.blobs.prefetch(key, &lab.sources(), &|_| ()).await.unwrap();
        assert_eq!(fetched, Prefetched::NotKept, "{length}");
        assert!(lab.is_ready(read) && !lab.is_ready(key));
    }
    assert_eq!(lab.stats.cache_failures.value(), 0);
    let wanted = lab.remote.put(content(10 * MIB + 1));
    lab.read(wanted).await.unwrap();
    assert!(lab.is_ready(wanted) && !lab.is_ready(read));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_looked_ahead_at_is_not_requested_again() {
    let lab = Lab::new();
    let large = content(20 * MIB);
    let keys = [lab.remote.put(content(300_000)), lab.remote.put(large.clone())];
    for key in keys {
        lab.blobs.look_ahead(key, &lab.sources());
    }
    lab.remote.has_requests(2).await;
    lab.blobs.open_verified(keys[0], &lab.sources()).await.unwrap();
    let beginning = lab.fetch(keys[1]).reader().read_at(0, MIB).await.unwrap();
    assert!(beginning == large[..MIB]);
    assert_eq!(lab.remote.requests().len(), 2);
    let known = lab.remote.put(content(30 * MIB));
    lab.claim(known, 30 * MIB as u64);
    lab.blobs.look_ahead(known, &lab.sources());
    lab.blobs.look_ahead(keys[0], &lab.sources());
    assert_eq!(lab.remote.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_come_is_read_at_once() {
    let lab = Lab::new();
    let bytes = content(10 * MIB);
    let key = lab.remote.put(bytes.clone());
    lab.remote.close();
    let reader = lab.fetch(key).reader();
    let mut buffer = vec![0; 4096];
    assert_eq!(reader.read_now(0, &mut buffer), None);
    lab.remote.open();
    reader.read_at(0, 300_000).await.unwrap();
    assert_eq!(reader.read_now(1000, &mut buffer), Some(4096));
    assert!(buffer == bytes[1000..5096]);
    reader.verified().await.unwrap();
    assert_eq!(reader.read_now(10 * MIB as u64 - 10, &mut buffer), Some(10));
}
