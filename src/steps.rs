//! Steps at which a program may be killed, so that tests can have it happen at each of them.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use rustix::process::{Signal, getpid, kill_process};

struct Last {
    step: String,
    /// How often the step is reached before.
    left: AtomicU64,
}

static LAST: OnceLock<Last> = OnceLock::new();

/// Has the process kill itself when it reaches a step, or with `step#N` when it does so for the
/// N-th time. It does so in builds with debug assertions only.
pub fn end_at(step: &str) {
    let (step, times) = step.split_once('#').unwrap_or((step, "1"));
    let left = AtomicU64::new(times.parse().unwrap_or(1));
    // The first one counts.
    _ = LAST.set(Last { step: step.to_owned(), left });
}

/// A step was reached: what comes before it is done, and nothing of what comes after.
pub fn reached(step: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Some(last) = LAST.get().filter(|last| last.step == step) else { return };
    if last.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        // Whoever cannot kill itself goes on, and the test finds that out.
        _ = kill_process(getpid(), Signal::KILL);
    }
}
