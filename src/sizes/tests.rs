use std::fs;

use super::*;
use crate::id::Scheme;

fn key(n: u8, scheme: Scheme) -> Key {
    Key { digest: [n; 16], scheme, is_manifest: false }
}

fn here() -> Scope {
    Scope::of("s3://here")
}

fn there() -> Scope {
    Scope::of("s3://there")
}

#[test]
fn verified_sizes_are_global_and_claims_are_not() {
    let index = SizeIndex::in_memory();
    let key = key(1, Scheme::Md5);
    index.record_claim(&key, here(), 10);
    assert_eq!(index.get(&key, here()), Some(Size { bytes: 10, is_verified: false }));
    assert_eq!(index.get(&key, there()), None);
    index.record_verified(&key, here(), 12);
    assert_eq!(index.get(&key, there()), Some(Size { bytes: 12, is_verified: true }));
    index.record_claim(&key, there(), 99);
    assert_eq!(index.get(&key, there()).unwrap().bytes, 12);
}

#[test]
fn a_legacy_size_belongs_to_its_remote_even_when_verified() {
    let index = SizeIndex::in_memory();
    let key = key(1, Scheme::Dos2Unix);
    index.record_verified(&key, here(), 12);
    index.record_verified(&key, there(), 14);
    assert_eq!(index.get(&key, here()).unwrap().bytes, 12);
    assert_eq!(index.get(&key, there()).unwrap().bytes, 14);
    let manifest = Key { is_manifest: true, ..key };
    index.record_verified(&manifest, here(), 5);
    assert_eq!(index.get(&manifest, there()).unwrap().bytes, 5);
}

#[test]
fn everything_survives_a_restart_and_forgotten_claims_stay_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sizes");
    let first = SizeIndex::open(&path);
    first.record_verified(&key(1, Scheme::Md5), here(), 1 << 40);
    first.record_claim(&key(2, Scheme::Md5), here(), 7);
    first.record_claim(&key(3, Scheme::Md5), here(), 8);
    first.forget_claim(&key(3, Scheme::Md5), here());
    let second = SizeIndex::open(&path);
    assert_eq!(second.get(&key(1, Scheme::Md5), there()).unwrap().bytes, 1 << 40);
    assert_eq!(second.get(&key(2, Scheme::Md5), here()).unwrap().bytes, 7);
    assert_eq!(second.get(&key(3, Scheme::Md5), here()), None);
}

#[test]
fn two_writers_see_what_the_other_learned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sizes");
    let (a, b) = (SizeIndex::open(&path), SizeIndex::open(&path));
    for n in 0..50 {
        a.record_verified(&key(2 * n, Scheme::Md5), here(), 1);
        b.record_verified(&key(2 * n + 1, Scheme::Md5), here(), 1);
    }
    for n in 0..100 {
        assert!(a.get(&key(n, Scheme::Md5), here()).is_some());
        assert!(b.get(&key(n, Scheme::Md5), here()).is_some());
    }
}

/// A key unlike all others.
fn numbered(n: u64) -> Key {
    Key { digest: Md5::digest(n.to_be_bytes()).into(), scheme: Scheme::Md5, is_manifest: false }
}

fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sizes");
    (dir, path)
}

/// Which of these numbers are known, each with the right size.
fn known(index: &SizeIndex, numbers: std::ops::Range<u64>) -> Vec<u64> {
    let is_known = |n: &u64| {
        let size = index.get(&numbered(*n), here());
        size.inspect(|size| assert_eq!(size.bytes, *n + 1, "a wrong size")).is_some()
    };
    numbers.filter(is_known).collect()
}

#[test]
fn a_file_that_is_cut_anywhere_loses_its_end_and_goes_on() {
    let (_dir, path) = folder();
    let index = SizeIndex::open(&path);
    (0..5).for_each(|n| index.record_verified(&numbered(n), here(), n + 1));
    let whole = fs::read(&path).unwrap();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let cut = SizeIndex::open(&path);
        let left = (length / WIDTH) as u64;
        assert!(known(&cut, 0..5).into_iter().eq(0..left), "{length}");
        (0..6).for_each(|n| cut.record_verified(&numbered(n), here(), n + 1));
        assert_eq!(known(&SizeIndex::open(&path), 0..6).len(), 6, "{length}");
    }
}

#[test]
fn a_file_that_is_cut_or_removed_under_its_users_is_filled_again() {
    let (_dir, path) = folder();
    let (a, b) = (SizeIndex::open(&path), SizeIndex::open(&path));
    (0..5).for_each(|n| a.record_verified(&numbered(n), here(), n + 1));
    assert_eq!(known(&b, 0..5).len(), 5);
    fs::write(&path, b"torn").unwrap();
    a.record_verified(&numbered(5), here(), 6);
    assert_eq!((known(&a, 0..6).len(), known(&b, 0..6).len()), (6, 6));
    assert_eq!(known(&SizeIndex::open(&path), 0..6), [5]);
    fs::remove_file(&path).unwrap();
    b.record_verified(&numbered(6), here(), 7);
    assert_eq!((known(&a, 0..7).len(), known(&b, 0..7).len()), (7, 7));
    assert_eq!(known(&SizeIndex::open(&path), 0..7), [6]);
}

#[test]
fn noise_tells_no_size_and_is_cleared_away() {
    let (_dir, path) = folder();
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let index = SizeIndex::open(&path);
    index.record_verified(&numbered(1), here(), 2);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend(noise.take(6000 * WIDTH + 7));
    fs::write(&path, &bytes).unwrap();
    let spoilt = SizeIndex::open(&path);
    spoilt.record_verified(&numbered(2), here(), 3);
    assert_eq!(known(&spoilt, 0..100), [1, 2]);
    assert!(fs::metadata(&path).unwrap().len() < 20 * WIDTH as u64, "the noise is still there");
    assert_eq!(known(&SizeIndex::open(&path), 0..100), [1, 2]);
    assert_eq!(known(&index, 0..100), [1, 2], "who had the old file open goes on in the new one");
}

#[test]
fn a_flipped_bit_costs_one_size_and_makes_none_wrong() {
    let (_dir, path) = folder();
    let index = SizeIndex::open(&path);
    (0..3).for_each(|n| index.record_verified(&numbered(n), here(), n + 1));
    let whole = fs::read(&path).unwrap();
    for bit in 0..8 * WIDTH {
        let mut bytes = whole.clone();
        bytes[WIDTH + bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        assert_eq!(known(&SizeIndex::open(&path), 0..3), [0, 2], "bit {bit}");
    }
}

#[test]
fn a_size_takes_less_than_32_bytes_on_disk_however_often_it_was_said() {
    const COUNT: u64 = 6000;
    let (_dir, path) = folder();
    let index = SizeIndex::open(&path);
    index.record_claims((0..COUNT).map(|n| (numbered(n), n + 2)), here());
    assert_eq!(fs::metadata(&path).unwrap().len(), COUNT * WIDTH as u64);
    (0..COUNT).for_each(|n| index.record_verified(&numbered(n), here(), n + 1));
    let again = SizeIndex::open(&path);
    assert_eq!(known(&again, 0..COUNT).len(), COUNT as usize);
    assert_eq!(again.len(), COUNT as usize);
    assert!(fs::metadata(&path).unwrap().len() < COUNT * 32);
}

#[test]
fn several_writers_at_once_lose_nothing() {
    let (_dir, path) = folder();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let index = SizeIndex::open(path);
                for n in writer * 500..writer * 500 + 500 {
                    index.record_verified(&numbered(n), here(), n + 1);
                }
            });
        }
    });
    assert_eq!(known(&SizeIndex::open(&path), 0..2000).len(), 2000);
}

#[test]
fn without_room_or_a_file_sizes_are_known_until_the_end() {
    for path in ["/dev/full", "/", "/dev/null/sizes"] {
        let index = SizeIndex::open(Path::new(path));
        index.record_claims((0..9000).map(|n| (numbered(n), n + 1)), here());
        assert_eq!(known(&index, 0..9000).len(), 9000, "{path}");
    }
}

#[test]
fn a_claim_that_was_put_right_stays_right_and_is_known_to_have_been_revised() {
    let (_dir, path) = folder();
    let (index, other) = (SizeIndex::open(&path), SizeIndex::open(&path));
    let key = numbered(3);
    index.record_claim(&key, here(), 2);
    assert_eq!(other.get(&key, here()).unwrap().bytes, 2);
    assert!(!index.is_revised(&key));
    index.record_verified(&key, here(), 3);
    index.record_claim(&key, there(), 70);
    assert_eq!((index.get(&key, there()).unwrap().bytes, index.is_revised(&key)), (3, true));
    // The other process had told the claim, and learns better when it reads on.
    assert_eq!(
        (other.get(&numbered(4), here()), other.get(&key, here()).unwrap().bytes),
        (None, 3)
    );
    assert!(other.is_revised(&key));
    other.record_claim(&key, here(), 9);
    let new = SizeIndex::open(&path);
    assert_eq!((new.get(&key, there()).unwrap().bytes, new.is_revised(&key)), (3, false));
}

#[test]
fn a_size_that_is_confirmed_is_not_revised_and_a_forgotten_one_is() {
    let index = SizeIndex::in_memory();
    for n in [1, 2] {
        index.record_claim(&numbered(n), here(), 10);
    }
    index.record_verified(&numbered(1), here(), 10);
    index.forget_claim(&numbered(2), here());
    assert_eq!([1, 2].map(|n| index.is_revised(&numbered(n))), [false, true]);
}

#[test]
fn nothing_but_empty_content_has_no_bytes() {
    let (_dir, path) = folder();
    let index = SizeIndex::open(&path);
    let empty = Key { digest: Md5::digest("").into(), ..numbered(1) };
    for key in [empty, numbered(1)] {
        index.record_claim(&key, here(), 0);
        index.record_verified(&key, here(), 0);
    }
    let known =
        |index: &SizeIndex| [empty, numbered(1)].map(|key| index.get(&key, here()).is_some());
    assert_eq!((known(&index), known(&SizeIndex::open(&path))), ([true, false], [true, false]));
}

#[test]
fn a_size_that_no_record_holds_is_not_kept() {
    let index = SizeIndex::in_memory();
    index.record_claim(&key(1, Scheme::Md5), here(), u64::MAX);
    assert_eq!(index.get(&key(1, Scheme::Md5), here()), None);
}
