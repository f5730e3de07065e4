//! READDIRPLUS: every name of a folder of ten thousand, without and with attributes.

use criterion::{Criterion, Throughput};
use dvcfs::vfs::ROOT_INO;

use crate::lab::{FILES, Lab};

pub(crate) fn bench(criterion: &mut Criterion) {
    let lab = Lab::new();
    let data = lab.find(ROOT_INO, "data");
    let listed = lab.list(data);
    let mut group = criterion.benchmark_group("readdirplus");
    group.throughput(Throughput::Elements(FILES as u64));
    group.bench_function("names", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            let walked = lab.vfs.walk(&listed, 0, |entry| {
                bytes += entry.name.len();
                true
            });
            walked.map(|()| bytes).unwrap()
        });
    });
    group.bench_function("attributes", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            let walked = lab.vfs.walk(&listed, 0, |entry| {
                let (attr, _) = lab.vfs.enter_listed(&listed, &entry).unwrap();
                lab.vfs.forget(attr.ino, 1);
                bytes += attr.size;
                true
            });
            walked.map(|()| bytes).unwrap()
        });
    });
    group.finish();
}
