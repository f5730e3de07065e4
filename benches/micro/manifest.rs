//! A manifest of a hundred thousand files: from its text to what a folder is listed from.

use std::fmt::Write as _;

use criterion::{Criterion, Throughput};
use dvcfs::{
    id::{Scheme, TreeId},
    segments::Segments,
};

const FILES: usize = 100_000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut text = String::from("[");
    for n in 0..FILES {
        let comma = if n == 0 { "" } else { ", " };
        let hash = (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let (folder, name) = (n / 1000, n % 1000);
        let path = format!("speaker-{folder:03}/clip-{name:03}.wav");
        write!(text, r#"{comma}{{"md5": "{hash:032x}", "relpath": "{path}"}}"#).unwrap();
    }
    text.push(']');
    let id = TreeId { digest: [7; 16], scheme: Scheme::Md5 };
    let segments = Segments::new(None);
    let mut group = criterion.benchmark_group("manifest");
    group.sample_size(10).throughput(Throughput::Elements(FILES as u64));
    group.bench_function("compile", |bencher| {
        bencher.iter(|| {
            let compiled = segments.compile(id, || Ok(text.as_bytes())).unwrap();
            compiled.segment.len()
        });
    });
    group.finish();
}
