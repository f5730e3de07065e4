//! Counters that every floor may bump and only the command line and `.dvcfs/stats` print.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one process.
        #[derive(Debug, Default)]
        pub struct Stats { $($(#[$doc])* pub $name: Counter,)* }

        /// What the counters said at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Snapshot { $($(#[$doc])* pub $name: u64,)* }

        impl Stats {
            /// Reads every counter.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.value(),)* }
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
    /// Requests that ended in an error.
    remote_errors,
    /// Bytes received from remotes.
    remote_bytes,
    /// Downloads under way.
    in_flight,
    /// Blobs removed to stay within the limits.
    evictions,
    /// Contents that did not match their id.
    verification_failures,
    /// Times the cache's disk could not be used.
    cache_failures,
    /// Entries of a repository that could not be understood.
    bad_entries,
    /// Cached files that the kernel did not take, and that were served instead.
    passthrough_refusals,
}

/// A number that only grows, or a gauge that goes up and down.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
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
