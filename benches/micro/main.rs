//! How long those parts take that every message of the kernel goes through, and what has become of
//! them since the baseline was taken.
//!
//! ```text
//! cargo bench --bench micro [FILTER]                       measures and compares
//! DVCFS_BASELINE=write cargo bench --bench micro [FILTER]  and takes it as the new baseline
//! ```
//!
//! One file for each group; a new one gets its line in `main`. Each prints its time, and its ratio
//! to `baseline.json`, which was taken on another machine perhaps: the ratio is set off against the
//! yardstick's, a piece of work that is nobody's but the processor's.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no figure to give")]
#![allow(clippy::print_stdout, reason = "figures go to standard output")]

mod baseline;
mod hit_read;
mod lab;
mod look_up;
mod manifest;
mod readdirplus;
#[allow(dead_code, reason = "shared with tests that use other parts of it")]
#[path = "../../tests/support/registry_builder.rs"]
mod registry_builder;
mod size_index;
mod yardstick;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    let mut criterion = criterion.configure_from_args();
    yardstick::bench(&mut criterion);
    look_up::bench(&mut criterion);
    readdirplus::bench(&mut criterion);
    hit_read::bench(&mut criterion);
    manifest::bench(&mut criterion);
    size_index::bench(&mut criterion);
    criterion.final_summary();
    baseline::compare();
}
