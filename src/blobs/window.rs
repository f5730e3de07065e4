//! How far ahead of its readers to fetch.

use std::{collections::VecDeque, ops::Range};

/// The first window of a reader that begins at the beginning, and the smallest afterwards.
const FIRST: u64 = 1 << 20;

/// The largest window: what 1 GB/s takes at 60 ms of latency.
const LARGEST: u64 = 64 << 20;

/// How far from the expected place a read still counts as the next: the kernel sends what it reads
/// ahead in pieces that overtake each other.
const SLACK: u64 = 256 << 10;

/// How much must be read in sequence before anything is fetched ahead: one read of a program may
/// come as two from the kernel, and that proves nothing.
const PROOF: u64 = 384 << 10;

/// A read that begins so close to the end wants a footer.
const TAIL: u64 = 64 << 10;

/// What is fetched for it, in one request: archives and tables keep their index there.
const FOOTER: u64 = 512 << 10;

/// Places that are followed at a time. One open file may stand for many readers.
const RUNS: usize = 64;

/// The places where a file is being read.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The last used first.
    runs: VecDeque<Run>,
}

/// One place that is read on from, and its window.
///
/// A first read at the beginning takes one window, for headers. From then on, whenever half of
/// what was granted is used up, as much again is granted; and the window doubles if a read had to
/// wait meanwhile. So it grows to what bandwidth and latency need and not further: who reads a
/// song as it plays takes one window ahead, who copies a file takes the largest. Anywhere else a
/// read takes what it asks, until it has been going on for a while.
#[derive(Debug, Default)]
struct Run {
    next: u64,
    came: u64,
    window: u64,
    granted: u64,
    has_waited: bool,
}

impl Cursor {
    /// What should be fetched for a read of `range`: at least that, and what lies ahead of it.
    /// `is_here` tells whether the read need not wait.
    pub(super) fn plan(
        &mut self,
        range: Range<u64>,
        size: Option<u64>,
        is_here: bool,
    ) -> Range<u64> {
        let found = self.runs.iter().position(|run| run.expects(range.start));
        let mut run = found.and_then(|at| self.runs.remove(at)).unwrap_or_default();
        let plan = match found {
            Some(_) => run.go_on(range, is_here),
            None => run.begin(range, size),
        };
        self.runs.truncate(RUNS - 1);
        self.runs.push_front(run);
        plan
    }
}

impl Run {
    fn expects(&self, start: u64) -> bool {
        let slack = if self.window > FIRST { FIRST } else { SLACK };
        (self.next.saturating_sub(slack)..=self.next.saturating_add(slack)).contains(&start)
    }

    fn begin(&mut self, range: Range<u64>, size: Option<u64>) -> Range<u64> {
        *self = Self { next: range.end, came: range.end - range.start, ..Self::default() };
        self.has_waited = true;
        if range.start < SLACK {
            self.window = FIRST;
            self.granted = FIRST;
            return range.start..range.end.max(FIRST);
        }
        match size {
            Some(size) if range.start >= size.saturating_sub(TAIL) => {
                range.start.min(size.saturating_sub(FOOTER))..range.end
            }
            _ => range,
        }
    }

    fn go_on(&mut self, range: Range<u64>, is_here: bool) -> Range<u64> {
        self.came = self.came.saturating_add(range.end.saturating_sub(self.next.max(range.start)));
        self.next = self.next.max(range.end);
        self.has_waited |= !is_here;
        let reserve = self.granted.saturating_sub(self.next);
        if self.came < PROOF || (self.window > 0 && reserve >= self.window / 2) {
            return range;
        }
        if self.has_waited {
            self.window = (self.window * 2).clamp(FIRST, LARGEST);
        }
        self.has_waited = false;
        self.granted = self.granted.max(self.next.saturating_add(self.window));
        range.start..self.granted.max(range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    /// The grants of a reader who goes on in steps of 128 KiB, each that was not empty.
    fn grants(cursor: &mut Cursor, from: u64, to: u64, is_here: bool) -> Vec<u64> {
        let mut end = from;
        let mut grants = Vec::new();
        for at in (from..to).step_by(128 << 10) {
            let plan = cursor.plan(at..at + 128 * KIB, None, is_here);
            if plan.end > end {
                grants.push((plan.end - end) / KIB);
                end = plan.end;
            }
        }
        grants
    }

    #[test]
    fn a_header_takes_one_mebibyte_and_the_window_doubles_while_the_reader_waits() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.plan(0..64 * KIB, None, false), 0..MIB);
        assert_eq!(cursor.plan(64 * KIB..192 * KIB, None, true), 64 * KIB..192 * KIB);
        let mut cursor = Cursor::default();
        let grants = grants(&mut cursor, 0, 512 * MIB, false);
        assert_eq!(grants[0], 1024);
        assert!(grants.iter().all(|grant| *grant <= LARGEST / KIB), "{grants:?}");
        assert!(*grants.last().unwrap() >= LARGEST / 2 / KIB, "{grants:?}");
        assert!(grants.len() < 30, "{grants:?}");
    }

    #[test]
    fn a_reader_who_never_waits_has_no_more_than_a_little_ahead() {
        let mut cursor = Cursor::default();
        let grants = grants(&mut cursor, 0, 64 * MIB, true);
        assert!(grants.iter().all(|grant| *grant <= 2 * 1024), "{grants:?}");
        assert!(grants.len() > 30, "{grants:?}");
    }

    #[test]
    fn random_reading_takes_what_was_asked_also_where_the_kernel_cuts_it_in_two() {
        let mut cursor = Cursor::default();
        cursor.plan(0..4 * KIB, Some(1 << 30), false);
        for at in (0..64_u64).map(|n| ((n * 397) % 1021 + 2) * MIB) {
            for range in [at..at + 128 * KIB, at + 128 * KIB..at + 132 * KIB] {
                assert_eq!(cursor.plan(range.clone(), Some(1 << 30), false), range);
            }
        }
    }

    #[test]
    fn sequential_reading_after_a_jump_opens_the_window_again() {
        let mut cursor = Cursor::default();
        let start = 512 * MIB;
        let plans: Vec<_> = (0..3)
            .map(|n| start + n * 128 * KIB)
            .map(|at| cursor.plan(at..at + 128 * KIB, None, false).end - at)
            .collect();
        assert_eq!(plans, [128 * KIB, 128 * KIB, 128 * KIB + FIRST]);
    }

    #[test]
    fn readers_at_many_places_of_one_file_have_a_window_each() {
        let mut cursor = Cursor::default();
        let mut furthest = vec![0; RUNS];
        for step in 0..16 {
            for (reader, furthest) in furthest.iter_mut().enumerate() {
                let at = reader as u64 * 16 * MIB + step * 128 * KIB;
                *furthest = cursor.plan(at..at + 128 * KIB, None, false).end.max(*furthest);
            }
        }
        for (reader, furthest) in furthest.iter().enumerate() {
            assert!(*furthest >= reader as u64 * 16 * MIB + 3 * MIB, "{reader}: {furthest}");
        }
    }

    #[test]
    fn a_footer_comes_whole() {
        let mut cursor = Cursor::default();
        let size = 100 * MIB;
        assert_eq!(cursor.plan(size - 22..size, Some(size), false), size - FOOTER..size);
        assert_eq!(cursor.plan(5..9, Some(10), false).end, FIRST);
    }

    #[test]
    fn the_end_of_numbers_is_survived() {
        let mut cursor = Cursor::default();
        cursor.plan(u64::MAX - 1..u64::MAX, Some(u64::MAX), false);
        cursor.plan(u64::MAX - 1..u64::MAX, None, true);
    }
}
