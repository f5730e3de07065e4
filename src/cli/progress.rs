//! Progress bars: bytes, files, rate and time left, for a terminal that has waited for more than
//! half a second.

use std::{
    io::IsTerminal,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::settings::Verbosity;

/// Nothing is shown before.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often the bar is drawn anew, also when nothing comes.
const TICK: Duration = Duration::from_millis(200);

/// A bar of bytes, hidden where nobody watches.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Dropped at the end, so that a bar that was not shown yet never is.
    _end: mpsc::Sender<()>,
}

impl Progress {
    /// A bar for `bytes` in all.
    pub(super) fn new(what: &str, bytes: u64, verbosity: Verbosity) -> Self {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {msg} {bytes_per_sec} {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        let (end, ended) = mpsc::channel();
        if std::io::stderr().is_terminal() && verbosity > Verbosity::Quiet {
            let shown = bar.clone();
            thread::spawn(move || {
                if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    shown.set_draw_target(ProgressDrawTarget::stderr());
                    shown.enable_steady_tick(TICK);
                }
            });
        }
        Self { bar, _end: end }
    }

    /// So many more bytes.
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// How many files of how many are done.
    pub(super) fn files(&self, done: usize, all: usize) {
        self.bar.set_message(format!("{done}/{all} files"));
    }

    /// Takes the bar away and gives the bytes it counted, for people.
    pub(super) fn finish(self) -> String {
        self.bar.finish_and_clear();
        HumanBytes(self.bar.position()).to_string()
    }
}
