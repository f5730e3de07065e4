use std::sync::atomic::AtomicBool;

use md5::{Digest as _, Md5};
use tokio::{runtime::Handle, sync::mpsc};

use super::*;
use crate::{
    blobs::Options,
    cache::{self, BlobCache, Room},
    remote::{FailingRemote, Fault, MemoryRemote},
    sizes::SizeIndex,
    stats::Stats,
};

fn key(n: u32) -> Key {
    Key { digest: Md5::digest(n.to_be_bytes()).into(), scheme: Scheme::Md5, is_manifest: false }
}

fn legacy(n: u32) -> Key {
    Key { scheme: Scheme::Dos2Unix, ..key(n) }
}

struct Lab {
    _dir: tempfile::TempDir,
    sizes: Arc<SizeIndex>,
    stats: Arc<Stats>,
    blobs: Blobs,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (stats, sizes) = (Arc::<Stats>::default(), Arc::new(SizeIndex::in_memory()));
        let options = cache::Options {
            dir: dir.path().join("cache"),
            neighbours: Vec::new(),
            seen: dir.path().join("seen"),
            max_bytes: 1 << 40,
            min_free_bytes: 0,
        };
        let cache = BlobCache::open(options, stats.clone());
        let options = Options::new(mpsc::channel(1).0);
        let blobs = Blobs::new(cache, sizes.clone(), stats.clone(), Handle::current(), options);
        Self { _dir: dir, sizes, stats, blobs }
    }

    async fn learn(
        &self,
        keys: impl IntoIterator<Item = Key>,
        sources: &Sources,
    ) -> Result<Vec<Unsized>, BlobError> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.blobs.resolve_sizes(&keys, sources, &|| ()).await
    }

    fn size(&self, key: Key, sources: &Sources) -> Option<u64> {
        self.blobs.known_size(key, sources)
    }
}

fn bytes(n: u32) -> u64 {
    u64::from(n % 50) + 1
}

/// A remote with the objects of these numbers, each of another size.
fn store(keys: impl IntoIterator<Item = (u32, Key)>) -> Arc<MemoryRemote> {
    let remote = MemoryRemote::new();
    keys.into_iter().for_each(|(n, key)| remote.insert(key, vec![0; bytes(n) as usize]));
    Arc::new(remote)
}

fn numbered(numbers: impl IntoIterator<Item = u32>) -> impl Iterator<Item = (u32, Key)> {
    numbers.into_iter().map(|n| (n, key(n)))
}

fn sources(remote: Arc<dyn Remote>) -> Sources {
    Sources::from([remote])
}

#[tokio::test]
async fn a_few_objects_are_asked_for() {
    let (lab, remote) = (Lab::new(), store(numbered(0..1000)));
    let sources = sources(remote.clone());
    assert!(lab.learn((0..64).map(key), &sources).await.unwrap().is_empty());
    assert_eq!((remote.sizes(), remote.lists()), (64, 0));
    assert!((0..64).all(|n| lab.size(key(n), &sources) == Some(bytes(n))));
}

#[tokio::test]
async fn a_small_store_is_listed_by_one_request_and_all_of_it_is_known_then() {
    let (lab, remote) = (Lab::new(), store(numbered(0..900)));
    let sources = sources(remote.clone());
    assert!(lab.learn((0..100).map(key), &sources).await.unwrap().is_empty());
    assert_eq!((remote.sizes(), remote.lists()), (0, 1));
    assert_eq!(lab.stats.remote_requests.value(), 1);
    assert!((0..100).all(|n| lab.size(key(n), &sources) == Some(bytes(n))));
    let known = (0..900).filter(|n| lab.size(key(*n), &sources).is_some()).count();
    assert!(known > 800, "{known}");
}

#[tokio::test]
async fn a_folder_that_is_most_of_its_store_is_listed() {
    let (lab, remote) = (Lab::new(), store(numbered(0..20_000)));
    let sources = sources(remote.clone());
    assert!(lab.learn((0..15_000).map(key), &sources).await.unwrap().is_empty());
    assert_eq!(remote.sizes(), 0);
    assert!((20..35).contains(&remote.lists()), "{} pages", remote.lists());
    assert!((0..15_000).all(|n| lab.size(key(n), &sources).is_some()));
    assert!(lab.sizes.len() > 18_000, "what else was seen is kept");
}

#[tokio::test]
async fn a_few_objects_of_a_huge_store_are_asked_for_and_its_size_is_remembered() {
    let (lab, remote) = (Lab::new(), store(numbered(0..150_000)));
    let sources = sources(remote.clone());
    let surveyed = || lab.blobs.surveys.find(remote.url(), Scheme::Md5);
    assert_eq!(surveyed(), None);
    assert!(lab.learn((0..200).map(key), &sources).await.unwrap().is_empty());
    let Some(Survey::Objects(objects)) = surveyed() else { panic!("{:?}", surveyed()) };
    assert!((objects / 150_000.0 - 1.0).abs() < 0.2, "{objects}");
    let requests = || remote.lists() + remote.sizes();
    assert!(requests() <= 200 && remote.lists() < 10, "{} listings", remote.lists());
    let before = requests();
    assert!(lab.learn((200..400).map(key), &sources).await.unwrap().is_empty());
    assert!(requests() - before <= 200, "{} requests", requests() - before);
    assert!((0..400).all(|n| lab.size(key(n), &sources).is_some()));
}

#[tokio::test]
async fn folder_after_folder_of_a_large_store_costs_no_more_than_twice_a_list_of_it() {
    const OBJECTS: u32 = 40_000;
    for each in [20, 100] {
        let (lab, remote) = (Lab::new(), store(numbered(0..OBJECTS)));
        let sources = sources(remote.clone());
        for folder in 0..40 {
            let wanted = folder * each..(folder + 1) * each;
            assert!(lab.learn(wanted.map(key), &sources).await.unwrap().is_empty());
        }
        assert!((0..40 * each).all(|n| lab.size(key(n), &sources) == Some(bytes(n))));
        let (questions, lists) = (remote.sizes(), remote.lists());
        assert!(questions <= 400 && lists <= 100, "{each}: {questions} questions, {lists} pages");
    }
}

#[tokio::test]
async fn what_is_missing_is_told_whichever_way_it_was_found_out() {
    for others in [0..500, 0..150_000] {
        let lab = Lab::new();
        let sources = sources(store(numbered(others)));
        let wanted = (0..150).chain(1_000_000..1_000_150).map(key);
        let mut failed = lab.learn(wanted, &sources).await.unwrap();
        failed.sort_unstable_by_key(|it| it.key);
        let mut expected: Vec<_> = (1_000_000..1_000_150).map(key).map(Unsized::missing).collect();
        expected.sort_unstable_by_key(|it| it.key);
        assert_eq!(failed, expected);
        assert!(matches!(failed[0].error(&sources), BlobError::Missing(_)));
    }
}

#[tokio::test]
async fn what_one_remote_lacks_the_next_is_asked_for() {
    let lab = Lab::new();
    let (first, second) = (store(numbered(0..200)), store(numbered(100..300)));
    let sources = Sources::from([first as Arc<dyn Remote>, second]);
    let failed = lab.learn((0..400).map(key), &sources).await.unwrap();
    assert_eq!(failed.len(), 100);
    assert!((0..300).all(|n| lab.size(key(n), &sources).is_some()));
}

#[tokio::test]
async fn the_older_layout_is_surveyed_by_itself() {
    let keys = numbered(0..100).chain((0..100).map(|n| (n, legacy(n))));
    let (lab, remote) = (Lab::new(), store(keys));
    let sources = sources(remote.clone());
    let wanted = (0..100).flat_map(|n| [key(n), legacy(n)]);
    assert!(lab.learn(wanted, &sources).await.unwrap().is_empty());
    assert_eq!((remote.lists(), remote.sizes()), (2, 0));
    assert!((0..100).all(|n| lab.size(legacy(n), &sources) == Some(bytes(n))));
}

#[tokio::test]
async fn a_remote_that_refuses_to_list_is_asked_one_by_one_and_never_to_list_again() {
    for cause in [Cause::Denied, Cause::Unsupported, Cause::Misconfigured] {
        let (lab, remote) = (Lab::new(), store(numbered(0..300)));
        let failing = Arc::new(FailingRemote::new(remote.clone()));
        failing.script([Fault::Refuse(cause)]);
        let sources = sources(failing);
        assert!(lab.learn((0..150).map(key), &sources).await.unwrap().is_empty());
        assert!(lab.learn((150..300).map(key), &sources).await.unwrap().is_empty());
        assert_eq!((remote.sizes(), remote.lists()), (300, 0), "{cause:?}");
    }
}

#[tokio::test]
async fn pages_that_do_not_come_are_made_up_for_by_questions() {
    let (lab, remote) = (Lab::new(), store(numbered(0..5000)));
    let failing = Arc::new(FailingRemote::new(remote.clone()));
    failing.script([Fault::Pass, Fault::Refuse(Cause::Unreachable)]);
    let sources = sources(failing);
    assert!(lab.learn((0..2000).map(key), &sources).await.unwrap().is_empty());
    assert!((0..2000).all(|n| lab.size(key(n), &sources).is_some()));
    assert!((100..700).contains(&remote.sizes()), "{} questions", remote.sizes());
    // The network's trouble says nothing of what the remote can do.
    assert!(lab.learn((2000..4000).map(key), &sources).await.unwrap().is_empty());
    assert!(remote.lists() > 3);
}

#[tokio::test]
async fn refusals_of_single_objects_are_told_and_refusing_all_ends_it() {
    let (lab, remote) = (Lab::new(), store(numbered(0..300)));
    let failing = Arc::new(FailingRemote::new(remote.clone()));
    let sources = sources(failing.clone());
    failing.script([Fault::Refuse(Cause::Denied), Fault::Pass, Fault::Refuse(Cause::Denied)]);
    let failed = lab.learn((0..100).map(key), &sources).await.unwrap();
    assert_eq!(failed.len(), 1, "the first refusal was of the listing");
    assert!(matches!(failed[0].error(&sources), BlobError::Denied(_)));
    let asked = remote.sizes();
    failing.always(Fault::Refuse(Cause::Denied));
    let error = lab.learn((100..300).map(key), &sources).await.unwrap_err();
    assert!(matches!(error, BlobError::Denied(_)), "{error}");
    failing.always(Fault::Refuse(Cause::Unreachable));
    let error = lab.learn((100..300).map(key), &sources).await.unwrap_err();
    assert!(matches!(error, BlobError::Unreachable(_)), "{error}");
    assert_eq!(remote.sizes(), asked);
}

#[tokio::test]
async fn what_is_known_or_cached_is_not_asked_for_and_progress_is_told() {
    let (lab, remote) = (Lab::new(), store(numbered(0..10)));
    let content = b"cached";
    let digest = Md5::digest(content).into();
    let cached = Key { digest, scheme: Scheme::Md5, is_manifest: false };
    drop(lab.blobs.cache().admit(&cached, content, Room::Wanted).unwrap());
    let sources = sources(remote.clone());
    lab.sizes.record_claim(&key(0), sources.scope().unwrap(), 5);
    let keys = [key(0), cached, key(3), key(3)];
    let told = AtomicBool::new(false);
    let tell = || told.store(true, Ordering::Relaxed);
    assert!(lab.blobs.resolve_sizes(&keys, &sources, &tell).await.unwrap().is_empty());
    assert!(told.into_inner());
    assert_eq!(lab.size(cached, &sources), Some(6));
    assert!(remote.sizes() <= 2);
}

#[test]
fn a_name_before_an_object_is_behind_all_objects_before_it() {
    let [low, high] = [0x10, 0x20].map(|first| Key { digest: [first; 16], ..key(0) });
    let manifest = Key { is_manifest: true, ..high };
    for key in [high, manifest] {
        assert!(low.path() < just_before(&key) && just_before(&key) < key.path());
    }
}
