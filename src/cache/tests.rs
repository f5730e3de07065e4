use std::{collections::HashSet, os::unix::fs::symlink};

use md5::{Digest as _, Md5};

use super::*;
use crate::id::Scheme;

struct Dir {
    temporary: tempfile::TempDir,
    stats: Arc<Stats>,
}

impl Dir {
    fn new() -> Self {
        Self { temporary: tempfile::tempdir().unwrap(), stats: Arc::default() }
    }

    fn root(&self) -> PathBuf {
        self.temporary.path().join("cache")
    }

    fn options(&self) -> Options {
        Options {
            dir: self.root(),
            neighbours: vec![self.temporary.path().join("neighbour")],
            seen: self.temporary.path().join("state/seen"),
            max_bytes: 1 << 30,
            min_free_bytes: 0,
        }
    }

    fn cache(&self) -> BlobCache {
        self.limited(1 << 30)
    }

    fn limited(&self, max_bytes: u64) -> BlobCache {
        let options = Options { max_bytes, ..self.options() };
        let cache = BlobCache::open(options, self.stats.clone());
        // Waits for the first scan, which would otherwise meet the test half-way.
        cache.shared.scan_if(|_| false);
        cache
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root().join(key.path())
    }

    /// A file under the key's name as DVC writes it.
    fn put_foreign(&self, root: &str, key: &Key, content: &[u8]) -> PathBuf {
        let path = self.temporary.path().join(root).join(key.path());
        atomic::write(&path, content, 0o444).unwrap();
        path
    }
}

fn key_of(content: &[u8]) -> Key {
    let digest = Md5::digest(content).into();
    Key { digest, scheme: Scheme::Md5, is_manifest: false }
}

fn read(blob: &CachedBlob) -> Vec<u8> {
    let mut bytes = vec![0; blob.size() as usize + 10];
    let count = blob.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(count);
    bytes
}

fn hit(cache: &BlobCache, key: &Key) -> Option<CachedBlob> {
    match cache.open_blob(key, None) {
        Lookup::Hit(blob) => Some(blob),
        _ => None,
    }
}

fn unchecked(cache: &BlobCache, key: &Key, size: Option<u64>) -> Unchecked {
    match cache.open_blob(key, size) {
        Lookup::NeedsCheck(unchecked) => unchecked,
        other => panic!("expected a check, not {other:?}"),
    }
}

fn is_missing(cache: &BlobCache, key: &Key) -> bool {
    matches!(cache.open_blob(key, None), Lookup::Miss)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mtime(path: &Path, secs: i64) {
    set_times(&File::open(path).unwrap(), None, Some(secs)).unwrap();
}

#[test]
fn an_admitted_blob_is_read_at_once_and_stamped_after_its_sync() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"hello");
    let blob = cache.admit(&key, b"hello", Room::Wanted).unwrap();
    assert_eq!(read(&blob), b"hello");
    assert_eq!(read(&hit(&cache, &key).unwrap()), b"hello");
    cache.flush();
    assert_eq!(mode(&dir.path(&key)), 0o444);
    assert_eq!(fs::metadata(dir.path(&key)).unwrap().mtime(), stamp_secs(&key.digest));
    assert!(hit(&dir.cache(), &key).is_some());
    assert!(is_missing(&cache, &key_of(b"other")));
}

#[test]
fn many_blobs_are_synced_together_and_one_that_is_gone_meanwhile_harms_nobody() {
    let dir = Dir::new();
    let cache = dir.cache();
    let keys: Vec<_> = (0..300_u32)
        .map(|n| {
            let content = n.to_string();
            let key = key_of(content.as_bytes());
            cache.admit(&key, content.as_bytes(), Room::Wanted).unwrap();
            key
        })
        .collect();
    fs::remove_file(dir.path(&keys[299])).unwrap();
    cache.flush();
    for key in &keys[..299] {
        assert_eq!(mode(&dir.path(key)), 0o444, "{key}");
    }
    assert!(is_missing(&cache, &keys[299]));
    assert_eq!(dir.stats.cache_failures.value(), 0);
}

#[test]
fn a_blob_that_a_crash_left_unsynced_is_checked_in_the_next_life_and_then_stamped() {
    let dir = Dir::new();
    let (good, bad) = (key_of(b"good"), key_of(b"bad!"));
    for key in [&good, &bad] {
        let path = dir.put_foreign("cache", key, b"good");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        set_mtime(&path, mark_secs(&key.digest));
    }
    let cache = dir.cache();
    assert_eq!(read(&unchecked(&cache, &good, None).check().unwrap()), b"good");
    assert!(unchecked(&cache, &bad, None).check().is_none());
    cache.flush();
    assert_eq!(mode(&dir.path(&good)), 0o444);
    assert!(hit(&dir.cache(), &good).is_some());
    assert!(!dir.path(&bad).exists());
    assert_eq!(dir.stats.verification_failures.value(), 1);
}

#[test]
fn a_stamped_file_that_was_truncated_overwritten_or_touched_is_checked_again() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"content");
    for damage in [&b"cont"[..], b"CONTENT", b"content"] {
        drop(cache.admit(&key, b"content", Room::Wanted).unwrap());
        cache.flush();
        fs::set_permissions(dir.path(&key), Permissions::from_mode(0o644)).unwrap();
        fs::write(dir.path(&key), damage).unwrap();
        let checked = unchecked(&cache, &key, None).check();
        assert_eq!(checked.is_some(), damage == b"content");
        assert!(damage == b"content" || is_missing(&cache, &key));
    }
}

#[test]
fn a_stamped_file_that_somebody_has_made_writable_is_checked_again() {
    let dir = Dir::new();
    let key = key_of(b"hello");
    let cache = dir.cache();
    drop(cache.admit(&key, b"hello", Room::Wanted).unwrap());
    cache.flush();
    let path = dir.path(&key);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(unchecked(&cache, &key, None).check().unwrap());
    cache.flush();
    assert!(hit(&cache, &key).is_some() && mode(&path) == 0o444);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"hullo").unwrap();
    set_mtime(&path, stamp_secs(&key.digest));
    assert!(unchecked(&cache, &key, None).check().is_none());
    assert!(is_missing(&cache, &key));
}

#[test]
fn a_stamp_on_a_file_of_the_wrong_size_does_not_count() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"content");
    drop(cache.admit(&key, b"content", Room::Wanted).unwrap());
    cache.flush();
    fs::set_permissions(dir.path(&key), Permissions::from_mode(0o644)).unwrap();
    fs::write(dir.path(&key), b"cont").unwrap();
    set_mtime(&dir.path(&key), stamp_secs(&key.digest));
    assert!(unchecked(&cache, &key, Some(7)).check().is_none());
    assert!(!dir.path(&key).exists());
}

#[test]
fn a_file_made_by_dvc_is_checked_once_remembered_and_never_changed() {
    let dir = Dir::new();
    let key = key_of(b"from dvc");
    for root in ["cache", "neighbour"] {
        let path = dir.put_foreign(root, &key, b"from dvc");
        let before = fs::metadata(&path).unwrap();
        let cache = dir.cache();
        assert!(unchecked(&cache, &key, None).check().is_some());
        assert!(hit(&cache, &key).is_some());
        assert!(hit(&dir.cache(), &key).is_some());
        let after = fs::metadata(&path).unwrap();
        assert_eq!((before.mtime_nsec(), before.mode()), (after.mtime_nsec(), after.mode()));
        assert_eq!(before.ctime_nsec(), after.ctime_nsec());
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_bad_file_of_others_is_hashed_once_left_alone_and_replaced_by_a_checked_one() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"right");
    let path = dir.put_foreign("cache", &key, b"wrong");
    assert!(unchecked(&cache, &key, None).check().is_none());
    assert!(is_missing(&cache, &key));
    assert_eq!(fs::read(&path).unwrap(), b"wrong");
    drop(cache.admit(&key, b"right", Room::Wanted).unwrap());
    assert_eq!(read(&hit(&cache, &key).unwrap()), b"right");
}

#[test]
fn a_bad_file_here_does_not_hide_a_good_neighbour() {
    let dir = Dir::new();
    let key = key_of(b"right");
    dir.put_foreign("cache", &key, b"wrong");
    dir.put_foreign("neighbour", &key, b"right");
    assert_eq!(read(&unchecked(&dir.cache(), &key, None).check().unwrap()), b"right");
}

#[test]
fn links_pipes_and_folders_are_no_blobs() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"x");
    let path = dir.put_foreign("cache", &key, b"x");
    fs::rename(&path, path.with_extension("y")).unwrap();
    symlink(path.with_extension("y"), &path).unwrap();
    assert!(is_missing(&cache, &key));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(is_missing(&cache, &key));
    fs::remove_dir(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    assert!(is_missing(&cache, &key));
}

#[test]
fn the_least_recently_used_goes_first_and_those_in_use_never() {
    let dir = Dir::new();
    let cache = dir.limited(300);
    let blobs: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 100]).collect();
    let keys: Vec<Key> = blobs.iter().map(|blob| key_of(blob)).collect();
    let pinned = cache.admit(&keys[0], &blobs[0], Room::Wanted).unwrap();
    drop(cache.admit(&keys[1], &blobs[1], Room::Wanted).unwrap());
    drop(cache.admit(&keys[2], &blobs[2], Room::Wanted).unwrap());
    drop(hit(&cache, &keys[1]).unwrap());
    drop(cache.admit(&keys[3], &blobs[3], Room::Wanted).unwrap());
    assert!(is_missing(&cache, &keys[2]));
    drop(cache.admit(&keys[4], &blobs[4], Room::Wanted).unwrap());
    assert!(is_missing(&cache, &keys[1]));
    assert!(hit(&cache, &keys[0]).is_some());
    assert_eq!(dir.stats.evictions.value(), 2);

    let held: Vec<CachedBlob> = [3, 4].map(|n| hit(&cache, &keys[n]).unwrap()).into();
    let refused = cache.admit(&keys[1], &blobs[1], Room::Wanted);
    assert!(matches!(refused, Err(CacheError::Full { .. })));
    assert_eq!(cache.info().blobs, 3);
    drop((pinned, held));
    drop(cache.admit(&keys[1], &blobs[1], Room::Wanted).unwrap());
    assert!(is_missing(&cache, &keys[0]));
}

#[test]
fn a_working_set_larger_than_the_cache_keeps_its_limit_at_the_cost_of_one_scan() {
    const SIZE: usize = 100;
    let dir = Dir::new();
    let limit = 50 * SIZE as u64;
    let cache = dir.limited(limit);
    let blob = |n: u32| n.to_le_bytes().repeat(SIZE / 4);
    let first = cache.admit(&key_of(&blob(0)), &blob(0), Room::Wanted).unwrap();
    for round in 0..3 {
        for n in 1..200 {
            let (key, content) = (key_of(&blob(n)), blob(n));
            let opened = hit(&cache, &key);
            let blob = opened.unwrap_or_else(|| cache.admit(&key, &content, Room::Wanted).unwrap());
            assert_eq!(read(&blob), content);
            assert!(cache.shared.usage.total() <= limit, "{round} {n}");
        }
        assert!(cache.info().bytes <= limit);
    }
    assert!(hit(&cache, &key_of(&blob(0))).is_some(), "what is read was evicted");
    drop(first);
    // Each that came made another go, but for those that found the cache empty.
    assert_eq!(dir.stats.evictions.value(), 3 * 199 - 49);
    assert_eq!(dir.stats.cache_scans.value(), 1);
    assert_eq!(dir.stats.cache_failures.value(), 0);
}

#[test]
fn room_is_made_of_what_a_scan_has_found_before_it_ends() {
    let dir = Dir::new();
    let blobs: Vec<Vec<u8>> = (0..4).map(|n| vec![n; 100]).collect();
    let keys: Vec<Key> = blobs.iter().map(|blob| key_of(blob)).collect();
    let earlier = dir.limited(300);
    for n in 0..3 {
        drop(earlier.admit(&keys[n], &blobs[n], Room::Wanted).unwrap());
    }
    drop(earlier);
    let cache = dir.limited(300);
    let shared = &cache.shared;
    // As a scan does it that goes on for a while.
    assert!(shared.scans.begin_if(|_| true));
    shared.view.begin_scan();
    std::thread::scope(|scope| {
        let admitted = scope.spawn(|| cache.admit(&keys[3], &blobs[3], Room::Wanted).is_ok());
        let used_secs = fs::metadata(dir.path(&keys[1])).unwrap().atime();
        shared.view.add_found([(Item::Blob(keys[1]), Entry { bytes: 100, used_secs })]);
        shared.scans.advance();
        assert!(admitted.join().unwrap());
    });
    assert!(is_missing(&cache, &keys[1]));
    assert!(hit(&cache, &keys[0]).is_some() && hit(&cache, &keys[3]).is_some());
    shared.scans.end();
    assert_eq!(shared.usage.total(), 300);
}

#[test]
fn who_may_want_a_blob_later_waits_for_no_scan_and_leaves_nothing_counted() {
    let dir = Dir::new();
    let earlier = dir.limited(100);
    drop(earlier.admit(&key_of(&[1; 100]), &[1; 100], Room::Wanted).unwrap());
    drop(earlier);
    let cache = dir.limited(100);
    let shared = &cache.shared;
    assert!(shared.scans.begin_if(|_| true));
    shared.view.begin_scan();
    let before = shared.usage.read();
    let refused = cache.admit(&key_of(&[2; 50]), &[2; 50], Room::Spare);
    assert!(matches!(refused, Err(CacheError::NoneToSpare { .. })));
    assert_eq!(shared.usage.read(), before);
    shared.scans.end();
}

#[test]
fn foreign_files_are_never_evicted_nor_counted() {
    let dir = Dir::new();
    let foreign = dir.put_foreign("cache", &key_of(b"unpushed"), b"unpushed");
    let cache = dir.limited(150);
    for n in 0..4 {
        drop(cache.admit(&key_of(&[n; 100]), &[n; 100], Room::Wanted).unwrap());
    }
    cache.gc(GcTarget::Everything, &[]);
    assert!(foreign.exists());
    let info = cache.info();
    assert_eq!((info.bytes, info.blobs, info.foreign_bytes, info.foreign_blobs), (0, 0, 8, 1));
}

#[test]
fn two_processes_keep_one_limit_together() {
    let dir = Dir::new();
    let caches = [dir.limited(1000), dir.limited(1000)];
    for n in 0..40_u8 {
        let blob = [n; 100];
        drop(caches[usize::from(n % 2)].admit(&key_of(&blob), &blob, Room::Wanted).unwrap());
        assert!(caches[0].info().bytes <= 1000);
    }
    assert!(caches[0].info().blobs >= 9);
}

#[test]
fn what_is_larger_than_the_cache_is_refused_without_evicting() {
    let dir = Dir::new();
    let cache = dir.limited(150);
    drop(cache.admit(&key_of(&[1; 100]), &[1; 100], Room::Wanted).unwrap());
    let refused = cache.admit(&key_of(&[2; 200]), &[2; 200], Room::Wanted);
    assert!(matches!(refused, Err(CacheError::Full { .. })));
    assert_eq!(cache.info().blobs, 1);
    assert_eq!(dir.stats.cache_failures.value(), 1);
}

#[test]
fn a_minimum_of_free_disk_that_cannot_be_had_refuses() {
    let dir = Dir::new();
    let options = Options { min_free_bytes: u64::MAX / 2, ..dir.options() };
    let cache = BlobCache::open(options, dir.stats.clone());
    assert!(matches!(cache.admit(&key_of(b"x"), b"x", Room::Wanted), Err(CacheError::Full { .. })));
    assert_eq!(cache.shared.usage.total(), 0);
}

#[test]
fn the_directory_may_be_removed_while_running() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"hello");
    let blob = cache.admit(&key, b"hello", Room::Wanted).unwrap();
    cache.flush();
    fs::remove_dir_all(dir.root()).unwrap();
    assert_eq!(read(&blob), b"hello");
    assert!(is_missing(&cache, &key));
    drop(cache.admit(&key, b"hello", Room::Wanted).unwrap());
    assert!(hit(&cache, &key).is_some());
    let (partial, _) = cache.partial(&key_of(b"big"), BLOCK * 2).unwrap();
    fs::remove_dir_all(dir.root()).unwrap();
    partial.write(0, &[vec![1; BLOCK as usize]], Room::Wanted).unwrap();
    assert_eq!(cache.admit_partial(&partial).size(), BLOCK * 2);
}

#[test]
fn a_directory_that_cannot_be_made_refuses_and_misses() {
    let dir = Dir::new();
    fs::write(dir.root(), b"a file").unwrap();
    let cache = dir.cache();
    assert!(cache.admit(&key_of(b"x"), b"x", Room::Wanted).is_err());
    assert!(is_missing(&cache, &key_of(b"x")));
    assert!(cache.partial(&key_of(b"x"), 100).is_err());
}

#[test]
fn a_linked_directory_is_followed() {
    let dir = Dir::new();
    let real = dir.temporary.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, dir.root()).unwrap();
    drop(dir.cache().admit(&key_of(b"x"), b"x", Room::Wanted).unwrap());
    assert!(real.join(key_of(b"x").path()).exists());
}

#[test]
fn a_directory_of_another_user_is_read_with_suspicion_and_not_written() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = Dir::new();
    drop(dir.cache().admit(&key_of(b"x"), b"x", Room::Wanted).unwrap());
    dir.cache().flush();
    std::os::unix::fs::chown(dir.root(), Some(12345), None).unwrap();
    let cache = dir.cache();
    assert!(unchecked(&cache, &key_of(b"x"), None).check().is_some());
    assert!(matches!(
        cache.admit(&key_of(b"y"), b"y", Room::Wanted),
        Err(CacheError::NotOurs { .. })
    ));
}

#[test]
fn a_use_is_noted_in_the_access_time_and_seldom() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"x");
    drop(cache.admit(&key, b"x", Room::Wanted).unwrap());
    cache.flush();
    let file = File::open(dir.path(&key)).unwrap();
    for (age, is_noted) in [(7200, true), (60, false)] {
        let before = now_secs() - age;
        set_times(&file, Some(before), None).unwrap();
        drop(hit(&cache, &key).unwrap());
        assert_eq!(file.metadata().unwrap().atime() > before, is_noted);
    }
}

#[test]
fn a_restart_evicts_by_the_access_times_that_the_last_life_left() {
    let dir = Dir::new();
    let keys: Vec<Key> = (0..3).map(|n| key_of(&[n; 100])).collect();
    let first = dir.cache();
    for (n, key) in keys.iter().enumerate() {
        drop(first.admit(key, &[n as u8; 100], Room::Wanted).unwrap());
    }
    first.flush();
    for (key, age) in keys.iter().zip([100, 300, 200]) {
        set_times(&File::open(dir.path(key)).unwrap(), Some(now_secs() - age), None).unwrap();
    }
    let second = dir.limited(300);
    second.shared.scan_if(|_| true);
    drop(second.admit(&key_of(&[9; 150]), &[9; 150], Room::Wanted).unwrap());
    let left: Vec<bool> = keys.iter().map(|key| dir.path(key).exists()).collect();
    assert_eq!(left, [true, false, false]);
}

#[test]
fn a_glance_tells_what_the_last_scan_and_the_counter_know() {
    let dir = Dir::new();
    dir.put_foreign("cache", &key_of(b"theirs"), b"theirs");
    let cache = dir.cache();
    drop(cache.admit(&key_of(&[1; 100]), &[1; 100], Room::Wanted).unwrap());
    let (told, foreign) = (cache.glance(), (6, 1));
    assert_eq!((told.bytes, told.foreign_bytes, told.foreign_blobs), (100, foreign.0, foreign.1));
    assert_eq!((told.blobs, dir.stats.cache_scans.value()), (0, 1));
    cache.shared.scan_if(|_| true);
    // Others write to the disk, too.
    let of_ours = |info: Info| Info { free_bytes: None, ..info };
    assert_eq!(of_ours(cache.glance()), of_ours(cache.info()));
}

#[test]
fn a_drifted_counter_is_corrected_by_a_scan() {
    let dir = Dir::new();
    let cache = dir.cache();
    drop(cache.admit(&key_of(&[1; 100]), &[1; 100], Room::Wanted).unwrap());
    cache.shared.usage.change(|_| 77_777).unwrap();
    cache.shared.scan_if(|_| true);
    assert_eq!(cache.shared.usage.total(), 100);
}

#[test]
fn a_partial_is_resumed_and_one_that_is_owned_is_not_shared() {
    let dir = Dir::new();
    let (cache, other) = (dir.cache(), dir.cache());
    let content = vec![7; 3 * BLOCK as usize + 5];
    let (key, size) = (key_of(&content), content.len() as u64);
    let (first, present) = cache.partial(&key, size).unwrap();
    assert_eq!(present, BlockSet::default());
    first.write(1, &[&content[..2 * BLOCK as usize]], Room::Wanted).unwrap();
    let (private, nothing) = other.partial(&key, size).unwrap();
    assert_eq!(nothing, BlockSet::default());
    drop(first);
    private.write(0, &[&content], Room::Wanted).unwrap();
    assert_eq!(read(&cache.admit_partial(&private)), content);

    let (resumed, present) = cache.partial(&key, size).unwrap();
    assert!(present.ranges().eq(std::iter::once(1..3)));
    let mut bytes = vec![0; BLOCK as usize];
    assert_eq!(resumed.read_at(&mut bytes, BLOCK).unwrap(), BLOCK as usize);
    assert_eq!(bytes, content[..BLOCK as usize]);
    resumed.discard();
    drop(resumed);
    drop(private);
    assert_eq!(fs::read_dir(cache.shared.layout.partials()).unwrap().count(), 0);
    assert_eq!(cache.shared.usage.total(), size);
}

#[test]
fn a_partial_of_another_size_boot_or_with_a_damaged_map_starts_over() {
    let dir = Dir::new();
    let cache = dir.cache();
    let key = key_of(b"large");
    let map = cache.shared.layout.partial_map(&key);
    let begin = |size: u64| {
        let (partial, present) = cache.partial(&key, size).unwrap();
        partial.write(0, &[vec![1; BLOCK as usize]], Room::Wanted).unwrap();
        present.contains(&(0..1))
    };
    assert!(!begin(4 * BLOCK));
    assert!(begin(4 * BLOCK));
    assert!(!begin(5 * BLOCK));
    let mut bytes = fs::read(&map).unwrap();
    bytes[20] ^= 1;
    fs::write(&map, &bytes).unwrap();
    assert!(!begin(5 * BLOCK));
    fs::write(&map, b"short").unwrap();
    assert!(!begin(5 * BLOCK));
    fs::remove_file(&map).unwrap();
    assert!(!begin(5 * BLOCK));
}

#[test]
fn abandoned_partials_count_and_are_evicted() {
    let dir = Dir::new();
    let cache = dir.limited(3 * BLOCK);
    let key = key_of(b"large");
    let (partial, _) = cache.partial(&key, 2 * BLOCK).unwrap();
    partial.write(0, &[vec![1; BLOCK as usize]], Room::Wanted).unwrap();
    drop(partial);
    assert_eq!(cache.shared.usage.total(), BLOCK);
    let blob = vec![5; 3 * BLOCK as usize];
    drop(cache.admit(&key_of(&blob), &blob, Room::Wanted).unwrap());
    assert!(!cache.shared.layout.partial_data(&key).exists());
    assert_eq!(cache.shared.usage.total(), 3 * BLOCK);
}

#[test]
fn a_partial_that_can_never_be_whole_is_refused_without_evicting() {
    let dir = Dir::new();
    let cache = dir.limited(3 * BLOCK);
    let key = key_of(b"small");
    drop(cache.admit(&key, b"small", Room::Wanted).unwrap());
    cache.partial(&key_of(b"large"), 3 * BLOCK + 1).unwrap_err();
    assert!(hit(&cache, &key).is_some());
    assert!(cache.partial(&key_of(b"large"), 3 * BLOCK).is_ok());
}

#[test]
fn check_reports_bad_blobs_and_repairs_ours_only() {
    let dir = Dir::new();
    let cache = dir.cache();
    let (ours, theirs, good) = (key_of(b"ours"), key_of(b"theirs"), key_of(b"good"));
    for key in [&ours, &theirs, &good] {
        dir.put_foreign("cache", key, b"good");
    }
    set_mtime(&dir.path(&ours), stamp_secs(&ours.digest));
    let bytes = std::sync::atomic::AtomicU64::new(0);
    let progress = |n| {
        bytes.fetch_add(n, Ordering::Relaxed);
    };
    let report = cache.check(true, &progress);
    assert_eq!((report.checked, report.bytes, report.removed), (3, 12, 1));
    assert_eq!(HashSet::from_iter(report.bad), HashSet::from([ours, theirs]));
    assert_eq!(bytes.into_inner(), 12);
    assert!(!dir.path(&ours).exists() && dir.path(&theirs).exists());
}

#[test]
fn gc_reaches_its_size_or_age() {
    let dir = Dir::new();
    let cache = dir.cache();
    for n in 0..4_u8 {
        drop(cache.admit(&key_of(&[n; 100]), &[n; 100], Room::Wanted).unwrap());
    }
    cache.flush();
    assert_eq!(cache.gc(GcTarget::Bytes(250), &[]), 200);
    assert_eq!(cache.info().blobs, 2);
    assert_eq!(cache.gc(GcTarget::UnusedSince(UNIX_EPOCH), &[]), 0);
    let later = SystemTime::now() + Duration::from_secs(10);
    assert_eq!(cache.gc(GcTarget::UnusedSince(later), &[]), 200);
    assert_eq!(cache.shared.usage.total(), 0);
}

#[test]
fn gc_spares_what_is_kept_whatever_its_age() {
    let dir = Dir::new();
    let cache = dir.cache();
    let blobs: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 100]).collect();
    let keys: Vec<Key> = blobs.iter().map(|blob| key_of(blob)).collect();
    for (key, blob) in keys.iter().zip(&blobs) {
        drop(cache.admit(key, blob, Room::Wanted).unwrap());
    }
    cache.flush();
    let kept = &keys[..2];
    assert_eq!(cache.gc(GcTarget::Bytes(400), kept), 100);
    assert!(is_missing(&cache, &keys[2]), "not the one used longest ago");
    assert_eq!(cache.gc(GcTarget::Bytes(0), kept), 200);
    let later = SystemTime::now() + Duration::from_secs(10);
    assert_eq!(cache.gc(GcTarget::UnusedSince(later), kept), 0);
    assert_eq!(cache.gc(GcTarget::Everything, kept), 0);
    assert!(kept.iter().all(|key| hit(&cache, key).is_some()));
    assert_eq!(cache.gc(GcTarget::Everything, &kept[..1]), 100);
    assert_eq!(cache.info().blobs, 1);
}

#[test]
fn a_blob_is_readable_at_every_moment_of_being_synced_and_stamped() {
    let dir = Dir::new();
    let cache = dir.cache();
    for number in 0..100_u32 {
        let content = number.to_le_bytes();
        let key = key_of(&content);
        let blob = cache.admit(&key, &content, Room::Wanted).unwrap();
        let seal = blob.seal().unwrap();
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| cache.flush());
            while !syncing.is_finished() {
                assert_eq!(seal.fate(), Fate::Sound);
                blob.read_at(&mut [0; 4], 0).unwrap();
            }
        });
    }
}

#[test]
fn what_others_do_to_a_cached_file_is_told_by_its_looks() {
    let dir = Dir::new();
    let cache = dir.cache();
    let admit = |content: &[u8]| {
        let key = key_of(content);
        (cache.admit(&key, content, Room::Wanted).unwrap(), dir.path(&key))
    };
    let fates = |blob: &CachedBlob, seal: &Seal| (blob.fate(), seal.fate());
    let is_readable = |blob: &CachedBlob| blob.read_at(&mut [0; 3], 0).is_ok();
    let (blob, path) = admit(b"one");
    let seal = blob.seal().unwrap();
    cache.flush();
    fs::hard_link(&path, dir.root().join("link")).unwrap();
    assert_eq!(fates(&blob, &seal), (Fate::Sound, Fate::Sound), "stamped and linked");
    set_mtime(&path, mark_secs(&key_of(b"one").digest));
    assert_eq!(fates(&blob, &seal), (Fate::Sound, Fate::Sound), "about to be stamped");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(fates(&blob, &seal), (Fate::Doubtful, Fate::Doubtful));
    assert!(!is_readable(&blob));
    fs::write(&path, "two").unwrap();
    assert_eq!(fates(&blob, &seal), (Fate::Changed, Fate::Changed));
    assert!(!is_readable(&blob));
    let (blob, path) = admit(b"three");
    let seal = blob.seal().unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another").unwrap();
    assert_eq!(fates(&blob, &seal), (Fate::Removed, Fate::Removed));
    assert!(is_readable(&blob));
}
