//! What this process takes of the machine: memory, descriptors, processor time.

use std::{fs, time::Duration};

use serde::Serialize;

/// What the process takes now. What the system does not tell is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes of memory that it occupies.
    pub resident_bytes: u64,
    /// Descriptors that are open.
    pub descriptors: u64,
    /// How many may be.
    pub descriptor_limit: u64,
    /// Milliseconds of processor time so far.
    pub processor_ms: u64,
}

impl Usage {
    /// Asks the system. Takes longer the more descriptors are open, up to some milliseconds.
    pub fn now() -> Self {
        use rustix::process::{Resource, getrlimit};
        let limit = getrlimit(Resource::Nofile).current;
        Self {
            resident_bytes: resident_pages().unwrap_or(0) * rustix::param::page_size() as u64,
            descriptors: descriptors().unwrap_or(0),
            descriptor_limit: limit.unwrap_or(u64::MAX),
            processor_ms: processor_time().as_millis() as u64,
        }
    }
}

/// The second number of `statm`.
fn resident_pages() -> Option<u64> {
    fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()
}

fn descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is that of the listing.
    Some(open.saturating_sub(1))
}

fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_takes_is_told() {
        let files: Vec<_> = (0..10).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let usage = Usage::now();
        assert!(usage.descriptors > files.len() as u64);
        assert!(usage.descriptors < usage.descriptor_limit);
        assert!(usage.resident_bytes > 1 << 20);
    }
}
