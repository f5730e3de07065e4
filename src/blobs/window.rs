//! How far ahead of one reader to fetch.

use std::ops::Range;

/// The first window of a reader that begins at the beginning, and the smallest afterwards.
const FIRST: u64 = 1 << 20;

/// The largest window.
const LARGEST: u64 = 32 << 20;

/// How far behind or ahead of the expected place a read still counts as sequential: the kernel
/// sends what it reads ahead in pieces that overtake each other.
const SLACK: u64 = 256 << 10;

/// One reader's place in a blob, and its window.
///
/// A first read at the beginning takes one window, for headers. From then on, whenever sequential
/// reading has used up half of what was granted, the window doubles; a jump grants what was asked
/// and nothing else.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    next: u64,
    window: u64,
    granted: u64,
}

impl Cursor {
    /// What should be fetched for a read of `range`: at least that, and what lies ahead of it.
    pub(super) fn plan(&mut self, range: Range<u64>) -> Range<u64> {
        let expected = self.next.saturating_sub(SLACK)..=self.next.saturating_add(SLACK);
        if !expected.contains(&range.start) {
            *self = Self { next: range.end, window: 0, granted: range.end };
            return range;
        }
        self.next = self.next.max(range.end);
        let reserve = self.granted.saturating_sub(self.next);
        if self.window == 0 || reserve < self.window / 2 {
            self.window = (self.window * 2).clamp(FIRST, LARGEST);
            self.granted = self.granted.max(range.start.saturating_add(self.window));
            return range.start..self.granted.max(range.end);
        }
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn a_header_takes_one_mebibyte_and_the_window_doubles_only_as_it_is_used() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.plan(0..128 * KIB), 0..1024 * KIB);
        assert_eq!(cursor.plan(128 * KIB..256 * KIB), 128 * KIB..256 * KIB);
        let mut end = 1024 * KIB;
        let mut grants = Vec::new();
        for at in 2..4096 {
            let plan = cursor.plan(at * 128 * KIB..(at + 1) * 128 * KIB);
            if plan.end > end {
                grants.push((plan.end - end) / KIB);
                end = plan.end;
            }
        }
        assert!(grants[0] <= 2 * 1024 && grants.iter().all(|grant| *grant <= 32 * 1024));
        assert!((8 * 1024..=32 * 1024).contains(grants.last().unwrap()));
    }

    #[test]
    fn random_reading_takes_what_was_asked() {
        let mut cursor = Cursor::default();
        cursor.plan(0..4 * KIB);
        for at in [500_u64, 20, 900, 300] {
            let range = at * 1024 * KIB..at * 1024 * KIB + 4 * KIB;
            assert_eq!(cursor.plan(range.clone()), range);
        }
    }

    #[test]
    fn sequential_reading_after_a_jump_opens_the_window_again() {
        let mut cursor = Cursor::default();
        let start = 512 << 20;
        assert_eq!(cursor.plan(start..start + 1), start..start + 1);
        assert_eq!(cursor.plan(start + 1..start + 2), start + 1..start + 1 + FIRST);
    }

    #[test]
    fn the_end_of_numbers_is_survived() {
        let mut cursor = Cursor::default();
        cursor.plan(u64::MAX - 1..u64::MAX);
        cursor.plan(u64::MAX - 1..u64::MAX);
    }
}
