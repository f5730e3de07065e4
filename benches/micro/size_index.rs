//! The index of sizes with a million of them.

use criterion::{BatchSize, Criterion, Throughput};
use dvcfs::{
    id::{Key, Scheme},
    sizes::{Scope, SizeIndex},
};

const SIZES: u64 = 1_000_000;

/// As many sizes as a page of a listing brings.
const PAGE: u64 = 1000;

fn key(n: u64) -> Key {
    let mut digest = [0; 16];
    digest[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    digest[8..].copy_from_slice(&n.to_be_bytes());
    Key { digest, scheme: Scheme::Md5, is_manifest: false }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sizes");
    let scope = Scope::of("s3://bucket/store");
    let index = SizeIndex::open(&path);
    index.record_claims((0..SIZES).map(|n| (key(n), n + 1)), scope);

    let mut group = criterion.benchmark_group("size_index");
    let mut next = (0..SIZES).cycle().step_by(7919);
    group.bench_function("known", |bencher| {
        bencher.iter(|| index.get(&key(next.next().unwrap()), scope).unwrap());
    });
    let mut next = (SIZES..2 * SIZES).cycle().step_by(7919);
    group.bench_function("unknown", |bencher| {
        bencher.iter(|| index.get(&key(next.next().unwrap()), scope));
    });
    let mut fresh = (2 * SIZES..).step_by(PAGE as usize);
    group.throughput(Throughput::Elements(PAGE));
    group.bench_function("learn a page", |bencher| {
        let other = SizeIndex::open(&folder.path().join("other"));
        bencher.iter_batched(
            || fresh.next().unwrap(),
            |first| other.record_claims((first..first + PAGE).map(|n| (key(n), n)), scope),
            BatchSize::SmallInput,
        );
    });
    group.sample_size(10).throughput(Throughput::Elements(SIZES));
    group.bench_function("load", |bencher| {
        bencher.iter(|| assert_eq!(SizeIndex::open(&path).len(), SIZES as usize));
    });
    group.finish();
}
