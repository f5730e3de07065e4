//! How long things took: a histogram that many threads fill without waiting for each other.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

use super::Counter;

/// Every doubling is divided into so many steps, so a quantile is off by an eighth at most.
const STEPS: usize = 8;

/// Shorter times are counted as 2^7 nanoseconds.
const SHORTEST: u32 = 7;

/// Longer times are counted as 2^42 nanoseconds, more than an hour.
const LONGEST: u32 = 42;

const BUCKETS: usize = (LONGEST - SHORTEST) as usize * STEPS;

/// Times, counted by their length.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    max: AtomicU64,
}

/// What a histogram said at one moment; times are in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// How many times were counted.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: u64,
    /// Nine of ten took no longer.
    pub p90: u64,
    /// Ninety-nine of a hundred took no longer.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { Counter::new() }; BUCKETS], max: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one time.
    pub fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].add(1);
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    pub fn quantiles(&self) -> Quantiles {
        let counts = self.buckets.each_ref().map(Counter::value);
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let at = |percent: u64| {
            let wanted = (count * percent).div_ceil(100);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            found.map_or(max, upper_end).min(max)
        };
        if count == 0 {
            return Quantiles::default();
        }
        Quantiles { count, p50: at(50), p90: at(90), p99: at(99), max }
    }
}

/// Which bucket a time belongs to.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << SHORTEST, (1 << LONGEST) - 1);
    let doubling = nanos.ilog2();
    let step = (nanos >> (doubling - STEPS.ilog2())) as usize % STEPS;
    (doubling - SHORTEST) as usize * STEPS + step
}

/// The first time that is too long for a bucket.
fn upper_end(bucket: usize) -> u64 {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    ((STEPS + step + 1) as u64) << (SHORTEST as usize + doubling) >> STEPS.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_below_the_upper_end_of_its_bucket_by_an_eighth_at_most() {
        for nanos in (7..42).flat_map(|n| [1 << n, (1 << n) + 1, (3 << n) / 2, (2 << n) - 1]) {
            let end = upper_end(bucket(nanos));
            assert!(nanos < end && end - nanos <= nanos / 8 + 1, "{nanos} in a bucket to {end}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_tell_how_many_took_no_longer() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantiles(), Quantiles::default());
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let Quantiles { count, p50, p90, p99, max } = histogram.quantiles();
        assert_eq!((count, max), (1000, 1_000_000));
        for (found, true_value) in [(p50, 500_000), (p90, 900_000), (p99, 990_000)] {
            assert!((true_value..=true_value * 9 / 8).contains(&found), "{found}");
        }
    }

    #[test]
    fn no_time_is_lost_where_many_threads_count() {
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let histogram = &histogram;
                scope.spawn(move || {
                    for n in 0..1000 {
                        histogram.record(Duration::from_micros(thread * 1000 + n));
                    }
                });
            }
        });
        let quantiles = histogram.quantiles();
        assert_eq!((quantiles.count, quantiles.max), (4000, 3_999_000));
    }
}
