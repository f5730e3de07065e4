//! READ of a cached file, and the OPEN and RELEASE around it.

use criterion::{Criterion, Throughput};
use dvcfs::vfs::{Answer, ROOT_INO, Read};

use crate::lab::{LARGE, Lab};

pub(crate) fn bench(criterion: &mut Criterion) {
    let lab = Lab::new();
    let large = lab.find(ROOT_INO, "large");
    let opened = lab.runtime.block_on(lab.vfs.open(large).wait()).unwrap();
    let handle = lab.vfs.hold(opened);
    let mut group = criterion.benchmark_group("hit_read");
    for size in [4 << 10, 128 << 10] {
        let (mut buffer, mut offset) = (vec![0; size], 0);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{} KiB", size >> 10), |bencher| {
            bencher.iter(|| {
                offset = (offset + size as u64) % LARGE as u64;
                match lab.vfs.read(large, Some(handle), offset, &mut buffer) {
                    Read::Done(count) => count.unwrap(),
                    Read::Later(_) => panic!("it is cached"),
                }
            });
        });
    }
    group.finish();
    criterion.bench_function("hit_open", |bencher| {
        bencher.iter(|| match lab.vfs.open(large) {
            Answer::Now(opened) => lab.vfs.release(lab.vfs.hold(opened.unwrap())),
            Answer::Later(_) => panic!("it is cached"),
        });
    });
    lab.vfs.release(handle);
}
