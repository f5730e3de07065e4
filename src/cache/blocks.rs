//! Which blocks of a large blob are there.

use std::{collections::BTreeMap, ops::Range};

/// Bytes of a block; only the last one of a blob may be shorter.
pub const BLOCK: u64 = 64 * 1024;

/// The blocks that `bytes` touches.
pub fn blocks_of(bytes: Range<u64>) -> Range<u64> {
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

/// The bytes of `blocks` in a blob of `size` bytes.
pub fn bytes_of(blocks: &Range<u64>, size: u64) -> Range<u64> {
    blocks.start * BLOCK..blocks.end.saturating_mul(BLOCK).min(size)
}

/// A set of block numbers, kept as disjoint ranges.
///
/// Its memory grows with what was fetched, not with the size that a remote claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockSet(BTreeMap<u64, u64>);

impl BlockSet {
    /// Adds every block of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        while let Some((&from, &to)) = self.0.range(..=end).next_back()
            && to >= start
        {
            self.0.remove(&from);
            start = start.min(from);
            end = end.max(to);
        }
        self.0.insert(start, end);
    }

    /// Takes every block of `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&from, &to)) = self.0.range(..range.end).next_back()
            && to > range.start
        {
            self.0.remove(&from);
            if to > range.end {
                self.0.insert(range.end, to);
            }
            if from < range.start {
                self.0.insert(from, range.start);
            }
        }
    }

    /// Whether every block of `range` is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.run_end(range.start) >= range.end
    }

    /// The end of the unbroken run that holds `block`; `block` itself when it is not in the set.
    pub fn run_end(&self, block: u64) -> u64 {
        self.0.range(..=block).next_back().map_or(block, |(_, &to)| to.max(block))
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = self.run_end(range.start);
        while at < range.end {
            let end = self.0.range(at..range.end).next().map_or(range.end, |(&from, _)| from);
            gaps.push(at..end);
            at = self.run_end(end);
        }
        gaps
    }

    /// The ranges of the set in order.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(&from, &to)| from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_agrees_with_a_plain_list_of_blocks() {
        let mut set = BlockSet::default();
        let mut plain = [false; 40];
        let mut seed = 7_u64;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (start, len, adds) = (seed >> 20 & 31, seed >> 40 & 7, seed >> 60 & 1 == 1);
            let range = start..start + len;
            plain[start as usize..(start + len) as usize].fill(adds);
            if adds {
                set.insert(range);
            } else {
                set.remove(range);
            }
            for at in 0..40 {
                assert_eq!(set.contains(&(at..at + 1)), plain[at as usize]);
            }
            let missing: Vec<u64> = set.gaps(0..40).into_iter().flatten().collect();
            let expected: Vec<u64> = (0..40).filter(|at| !plain[*at as usize]).collect();
            assert_eq!(missing, expected);
            assert!(set.ranges().zip(set.ranges().skip(1)).all(|(a, b)| a.end < b.start));
        }
    }

    #[test]
    fn bytes_and_blocks_round_outward_and_end_at_the_size() {
        assert_eq!(blocks_of(1..BLOCK + 1), 0..2);
        assert_eq!(bytes_of(&(1..2), BLOCK + 5), BLOCK..BLOCK + 5);
    }
}
