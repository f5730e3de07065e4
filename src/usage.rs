//! What processes take of the machine: memory, descriptors and processor time of this one, and the
//! files that others have mapped.

use std::{collections::BTreeSet, fs, time::Duration};

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

/// The files of a device that some process has mapped to write to, by the names that the process
/// knows them by. Processes that this one may not look at are left out.
pub fn mapped_to_write(device: u64) -> BTreeSet<String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = format!("{major:02x}:{minor:02x}");
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    // Those that are no process have none.
    let maps = processes.filter_map(|process| fs::read(process.ok()?.path().join("maps")).ok());
    let mut mapped = BTreeSet::new();
    for maps in maps {
        let maps = String::from_utf8_lossy(&maps);
        let written = maps.lines().filter_map(|line| written(line, &device));
        mapped.extend(written.map(str::to_owned));
    }
    mapped
}

/// The file of a line of `maps`, if it is a shared mapping that is writable and of that device.
fn written<'a>(line: &'a str, device: &str) -> Option<&'a str> {
    let mut words = line.splitn(6, ' ');
    let (_, access, _) = (words.next()?, words.next()?, words.next()?);
    let is_wanted = words.next()? == device && access.contains('w') && access.contains('s');
    let (_, file) = (words.next()?, words.next()?);
    is_wanted.then(|| file.trim_start())
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

    #[test]
    fn shared_writable_mappings_of_the_device_are_told() {
        let line = |access: &str, device: &str| {
            format!("7f22-7f23 {access} 00000000 {device} 219902     /mnt/a  b")
        };
        assert_eq!(written(&line("rw-s", "00:27"), "00:27"), Some("/mnt/a  b"));
        for (access, device) in [("r--s", "00:27"), ("rw-p", "00:27"), ("rw-s", "00:28")] {
            assert_eq!(written(&line(access, device), "00:27"), None, "{access} {device}");
        }
        assert_eq!(written("7f22-7f23 rw-s 00000000 00:27 0", "00:27"), None);
        assert_eq!(mapped_to_write(u64::MAX), BTreeSet::new());
    }
}
