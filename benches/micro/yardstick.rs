//! A piece of work that never changes, to tell a slower program from a slower machine.

use std::hint::black_box;

use criterion::Criterion;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut words = vec![0_u64; 4096];
    criterion.bench_function("yardstick", |bencher| {
        bencher.iter(|| {
            let mut state = black_box(1_u64);
            for word in &mut words {
                state = state.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ *word;
                *word = state;
            }
            state
        });
    });
}
