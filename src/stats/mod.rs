//! Counters that every floor may bump and only the command line and `.dvcfs/stats` print.

mod latency;

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

pub use self::latency::{Histogram, Quantiles};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one process.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Counter,)*
            /// How long things took.
            pub latencies: Latencies,
        }

        /// What the counters said at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// How long things took.
            #[serde(rename = "latencies_ns")]
            pub latencies: LatencySnapshot,
        }

        impl Stats {
            /// Reads every counter.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot {
                    $($name: self.$name.value(),)*
                    latencies: self.latencies.snapshot(),
                }
            }
        }
    };
}

macro_rules! latencies {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How long each kind of request took.
        #[derive(Debug, Default)]
        pub struct Latencies { $($(#[$doc])* pub $name: Histogram,)* }

        /// The same at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct LatencySnapshot { $($(#[$doc])* pub $name: Quantiles,)* }

        impl Latencies {
            fn snapshot(&self) -> LatencySnapshot {
                LatencySnapshot { $($name: self.$name.quantiles(),)* }
            }
        }
    };
}

counters! {
    /// Opens answered from the cache.
    hits,
    /// Opens that had to ask a remote.
    misses,
    /// Requests made to remotes; one that is tried again counts once.
    remote_requests,
    /// Requests for the size of one object.
    size_questions,
    /// Pages of listings, each with the sizes of up to a thousand objects.
    size_listings,
    /// Requests that ended in an error.
    remote_errors,
    /// Bytes received from remotes.
    remote_bytes,
    /// Downloads under way.
    in_flight,
    /// Requests of the kernel whose answers are not there yet.
    waiting,
    /// Bytes read through the mount, but for those that the kernel reads by itself.
    read_bytes,
    /// Blobs removed to stay within the limits.
    evictions,
    /// Times that the cache's folder was read from end to end, or began to be.
    cache_scans,
    /// Contents that did not match their id.
    verification_failures,
    /// Times the cache's disk could not be used.
    cache_failures,
    /// Entries of a repository that could not be understood.
    bad_entries,
    /// Cached files that the kernel did not take, and that were served instead.
    passthrough_refusals,
}

latencies! {
    /// Looking up a name.
    lookup,
    /// Asking for attributes.
    getattr,
    /// Opening a file.
    open,
    /// Reading what was there.
    read_hit,
    /// Reading what had to be waited for.
    read_miss,
    /// Writing to a file.
    write,
    /// Listing a folder, one answer at a time.
    readdir,
    /// Asking a remote, until its answer begins.
    remote,
}

/// A number that only grows, or a gauge that goes up and down.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` away again, for gauges.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The present value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
