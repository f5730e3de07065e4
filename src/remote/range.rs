//! Byte ranges, half open here and closed on the wire.

use std::ops::Range;

/// The part of `range` that an object of `size` bytes has; all of it where none is asked for.
pub(super) fn cut(range: Option<Range<u64>>, size: u64) -> Range<u64> {
    let Some(range) = range else { return 0..size };
    let start = range.start.min(size);
    start..range.end.clamp(start, size)
}

/// A range, not empty, as the header wants it; ends beyond what servers can count are left open.
pub(super) fn range_header(range: &Range<u64>) -> String {
    match range.end.checked_sub(1).filter(|last| i64::try_from(*last).is_ok()) {
        Some(last) => format!("bytes={}-{last}", range.start),
        None => format!("bytes={}-", range.start),
    }
}

/// Reads `bytes 2-5/10` or, without a range, `bytes */10`.
pub(super) fn content_range(text: &str) -> Option<(Option<Range<u64>>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let size: u64 = size.parse().ok()?;
    if range == "*" {
        return Some((None, size));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < size).then_some((Some(first..last + 1), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_of_the_object() {
        assert_eq!(cut(None, 7), 0..7);
        assert_eq!(cut(Some(2..u64::MAX), 7), 2..7);
        assert_eq!(cut(Some(7..9), 7), 7..7);
        assert_eq!(cut(Some(9..12), 7), 7..7);
        assert_eq!(cut(Some(Range { start: 5, end: 3 }), 7), 5..5);
        assert_eq!(cut(Some(0..1), 0), 0..0);
    }

    #[test]
    fn ranges_name_their_last_byte_or_stay_open() {
        assert_eq!(range_header(&(3..8)), "bytes=3-7");
        assert_eq!(range_header(&(3..u64::MAX)), "bytes=3-");
    }

    #[test]
    fn content_ranges_are_read_and_nonsense_is_refused() {
        assert_eq!(content_range("bytes 2-5/10"), Some((Some(2..6), 10)));
        assert_eq!(content_range("bytes */10"), Some((None, 10)));
        for bad in ["", "bytes", "bytes 5-2/10", "bytes 2-10/10", "bytes 2-5/*", "items 2-5/10"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
