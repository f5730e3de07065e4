//! Progress bars: bytes, files, rate and time left, for a terminal that has waited for more than
//! half a second.

use std::{
    io::IsTerminal,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use super::{counted, settings::Verbosity};

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
        let end = show_later(&bar, verbosity);
        Self { bar, _end: end }
    }

    /// How many bytes there are in all, which may become clear only later; and how many are done.
    pub(super) fn set(&self, bytes: u64, done: u64) {
        self.bar.set_length(bytes);
        self.bar.set_position(done);
    }

    /// So many more bytes, which may be more than were known of.
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        let all = self.bar.length().unwrap_or_default();
        self.bar.inc_length(self.bar.position().saturating_sub(all));
    }

    /// How many files of how many are done.
    pub(super) fn files(&self, done: usize, all: usize) {
        self.bar.set_message(format!("{done}/{}", counted(all as u64, "file")));
    }

    /// Takes the bar away and gives the bytes it counted, for people.
    pub(super) fn finish(self) -> String {
        self.bar.finish_and_clear();
        HumanBytes(self.bar.position()).to_string()
    }
}

/// Says what takes so long, where it cannot be told how much of it there is. Dropping it takes away
/// what was drawn.
pub(super) struct Waiting {
    /// Dropped first, so that the bar is not shown after its end.
    _end: mpsc::Sender<()>,
    _bar: ProgressBar,
}

impl Waiting {
    /// Begins a wait.
    pub(super) fn new(what: &'static str, verbosity: Verbosity) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
            .with_style(ProgressStyle::default_spinner())
            .with_finish(ProgressFinish::AndClear)
            .with_message(what);
        Self { _end: show_later(&bar, verbosity), _bar: bar }
    }
}

/// Shows a bar to whoever watches once patience has ended, unless the sender is dropped before.
fn show_later(bar: &ProgressBar, verbosity: Verbosity) -> mpsc::Sender<()> {
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
    end
}
