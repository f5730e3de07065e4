//! LOOKUP: a name in a folder of ten thousand, with its attributes.

use criterion::Criterion;
use dvcfs::vfs::{Answer, ROOT_INO};

use crate::lab::{FILES, Lab};

pub(crate) fn bench(criterion: &mut Criterion) {
    let lab = Lab::new();
    let data = lab.find(ROOT_INO, "data");
    let names: Vec<_> = (0..FILES).map(|n| format!("{n:05}.wav")).collect();
    let mut group = criterion.benchmark_group("look_up");
    let mut next = (0..FILES).cycle().step_by(7919);
    group.bench_function("found", |bencher| {
        bencher.iter(|| {
            let name = &names[next.next().unwrap()];
            assert!(matches!(lab.vfs.lookup(data, name.as_bytes()), Answer::Now(Ok(_))));
            lab.vfs.forget(data, 1);
        });
    });
    group.bench_function("absent", |bencher| {
        bencher.iter(|| matches!(lab.vfs.lookup(data, b"05000.mp3"), Answer::Now(Ok(_))));
    });
    group.finish();
}
