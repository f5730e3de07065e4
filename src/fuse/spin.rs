//! Waiting for requests without going to sleep, as long as they keep coming.
//!
//! A request that finds its reader asleep has to wake it, which on an idle machine takes longer
//! than answering. So while requests come in quick succession and a processor is idle, the reader
//! asks for the next one again and again: its descriptor is made non-blocking, and the FUSE library
//! tries again at once when there is nothing. Half a millisecond without a request, or a processor
//! that somebody else wants, and it sleeps again.

use std::{
    fs,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Requests closer together than this are worth waiting for.
const CLOSE: Duration = Duration::from_micros(200);

/// How often a spinning reader is looked at; it sleeps at the second look without a request.
const LOOK: Duration = Duration::from_micros(400);

/// How long nobody spins after a processor was wanted by others.
const BUSY: Duration = Duration::from_millis(20);

/// Decides when the reader of a FUSE descriptor spins.
#[derive(Debug)]
pub(super) struct Spin {
    device: OwnedFd,
    requests: AtomicU64,
    /// Whether the descriptor is non-blocking. Both change together, under the lock of `last`.
    is_on: AtomicBool,
    is_over: AtomicBool,
    /// When the last request came that found the reader asleep, and until when it stays so.
    last: Mutex<(Instant, Instant)>,
    watcher: OnceLock<Thread>,
    processors: usize,
}

impl Spin {
    /// Begins to watch the reader of a descriptor; nothing where spinning could do no good.
    pub(super) fn start(device: OwnedFd) -> Option<Arc<Self>> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        if processors < 2 || has_processor_quota() {
            return None;
        }
        let now = Instant::now();
        let spin = Arc::new(Self {
            device,
            requests: AtomicU64::new(0),
            is_on: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            last: Mutex::new((now, now)),
            watcher: OnceLock::new(),
            processors,
        });
        let its_own = Arc::clone(&spin);
        let started = thread::Builder::new().name("spin".into()).spawn(move || its_own.watch());
        let started = started.inspect_err(|error| tracing::debug!("nobody spins: {error}")).ok()?;
        spin.watcher.get_or_init(|| started.thread().clone());
        Some(spin)
    }

    /// A request has come.
    pub(super) fn note(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !self.is_on.load(Ordering::Relaxed) {
            self.consider(Instant::now());
        }
    }

    /// Nobody reads the descriptor any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.wake();
    }

    fn consider(&self, now: Instant) {
        let mut last = self.last.lock();
        let (before, not_until) = *last;
        last.0 = now;
        if now.duration_since(before) > CLOSE || now < not_until {
            return;
        }
        // Whoever asked waits for the answer, and will run beside this thread.
        if !self.has_room_beside(1) {
            last.1 = now + BUSY;
            return;
        }
        if !self.is_on.load(Ordering::Relaxed) {
            self.set_on(true);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    fn watch(&self) {
        while !self.is_over.load(Ordering::Acquire) {
            if self.is_on.load(Ordering::Acquire) {
                self.watch_burst();
            } else {
                thread::park();
            }
        }
        let _last = self.last.lock();
        self.set_on(false);
    }

    /// Ends the spinning as soon as no requests come or somebody else has use for the processor.
    fn watch_burst(&self) {
        let mut seen = self.requests.load(Ordering::Relaxed);
        loop {
            thread::sleep(LOOK);
            let requests = self.requests.load(Ordering::Relaxed);
            // Whoever asks runs by now, beside the reader and this thread, which is gone at once.
            let is_idle = self.has_room_beside(3);
            if requests == seen || !is_idle || self.is_over.load(Ordering::Acquire) {
                let mut last = self.last.lock();
                if !is_idle {
                    last.1 = Instant::now() + BUSY;
                }
                self.set_on(false);
                return;
            }
            seen = requests;
        }
    }

    /// Whether a processor is left for the reader and one for whoever asks, besides those that
    /// others want; `ours` are the threads not to be counted as others'.
    fn has_room_beside(&self, ours: usize) -> bool {
        let wanting = fs::read_to_string("/proc/loadavg").ok().and_then(|text| running(&text));
        wanting.is_some_and(|wanting| wanting.saturating_sub(ours) + 2 <= self.processors)
    }

    /// Has the reader spin or not. Whoever calls has `last` locked.
    fn set_on(&self, is_on: bool) {
        let set = fcntl_getfl(&self.device).and_then(|mut flags| {
            flags.set(OFlags::NONBLOCK, is_on);
            fcntl_setfl(&self.device, flags)
        });
        if let Err(error) = set {
            tracing::debug!("the FUSE descriptor stays as it is: {error}");
        }
        self.is_on.store(is_on, Ordering::Release);
    }
}

/// How many threads run or want to, as `/proc/loadavg` tells it (`0.20 0.18 0.12 1/80 11206`).
fn running(loadavg: &str) -> Option<usize> {
    loadavg.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

/// Whether this process may use so much processor time only, which spinning would waste.
fn has_processor_quota() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let folders = std::path::Path::new(own).ancestors();
    folders.into_iter().any(|folder| {
        let folder = folder.strip_prefix("/").unwrap_or(folder);
        let limit = std::path::Path::new("/sys/fs/cgroup").join(folder).join("cpu.max");
        fs::read_to_string(limit).is_ok_and(|limit| !limit.starts_with("max"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocking(device: &OwnedFd) -> bool {
        !fcntl_getfl(device).unwrap().contains(OFlags::NONBLOCK)
    }

    fn spin(processors: usize) -> Spin {
        let now = Instant::now();
        Spin {
            device: fs::File::open("/dev/null").unwrap().into(),
            requests: AtomicU64::new(0),
            is_on: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            last: Mutex::new((now, now)),
            watcher: OnceLock::new(),
            processors,
        }
    }

    #[test]
    fn requests_in_quick_succession_begin_it_and_their_end_ends_it() {
        // More processors than any machine has threads that want one.
        let spin = spin(1 << 20);
        let now = Instant::now();
        spin.consider(now + CLOSE * 2);
        assert!(is_blocking(&spin.device), "one request alone");
        spin.consider(now + CLOSE * 3);
        assert!(!is_blocking(&spin.device) && spin.is_on.load(Ordering::Relaxed));
        spin.watch_burst();
        assert!(is_blocking(&spin.device) && !spin.is_on.load(Ordering::Relaxed));
    }

    #[test]
    fn a_descriptor_never_spins_unwatched_however_begin_and_end_meet() {
        let spin = spin(1 << 20);
        let begin = || {
            let now = Instant::now();
            spin.last.lock().0 = now;
            spin.consider(now);
        };
        for _ in 0..200 {
            begin();
            thread::scope(|scope| {
                let ends = scope.spawn(|| spin.watch_burst());
                // Until the end is over, requests come as if the reader had been asleep.
                while !ends.is_finished() {
                    begin();
                }
            });
            let _last = spin.last.lock();
            assert_eq!(!is_blocking(&spin.device), spin.is_on.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn nobody_spins_while_every_processor_is_wanted() {
        // This thread is one that runs, so of one processor none is idle.
        let spin = spin(1);
        let now = Instant::now();
        spin.consider(now);
        spin.consider(now);
        assert!(is_blocking(&spin.device));
        assert!(spin.last.lock().1 > now, "and not for a while");
    }

    #[test]
    fn the_number_of_running_threads_is_read() {
        assert_eq!(running("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(running("garbage"), None);
    }
}
