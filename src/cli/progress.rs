//! Progress bars: files, bytes, rate and time left, for a terminal that waits for more than half a
//! second.

use std::{io::IsTerminal, time::Duration};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::settings::Verbosity;

/// Nothing is shown before.
const PATIENCE: Duration = Duration::from_millis(500);

/// A bar of bytes, hidden where nobody watches.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for `bytes` in all, where that is known.
    pub(super) fn bytes(what: &str, bytes: Option<u64>, verbosity: Verbosity) -> Self {
        let is_shown = std::io::stderr().is_terminal() && verbosity > Verbosity::Quiet;
        let target =
            if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(bytes, target);
        let template = match bytes {
            Some(_) => {
                "{late}{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"
            }
            None => "{late}{prefix} {bytes} {bytes_per_sec} {msg}",
        };
        let late = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            if state.elapsed() < PATIENCE {
                // The rest of the line is drawn all the same; it is cleared at once.
                _ = out.write_str("\r");
            }
        };
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("late", late));
        bar.set_prefix(what.to_owned());
        Self { bar }
    }

    /// So many more bytes.
    pub(super) fn add(&self, bytes: u64) {
        if self.bar.elapsed() >= PATIENCE {
            self.bar.inc(bytes);
        } else {
            let position = self.bar.position() + bytes;
            self.bar.update(|state| state.set_pos(position));
        }
    }

    /// How many files of how many are done.
    pub(super) fn files(&self, done: usize, all: usize) {
        if self.bar.elapsed() >= PATIENCE {
            self.bar.set_message(format!("{done}/{all} files"));
        }
    }

    /// Takes the bar away and gives the bytes it counted, for people.
    pub(super) fn finish(self) -> String {
        self.bar.finish_and_clear();
        HumanBytes(self.bar.position()).to_string()
    }
}
