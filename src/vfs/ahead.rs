//! Files that are likely to be opened next.
//!
//! A program that opens the files of a folder in the order of the listing is going to open the
//! next ones too, and each would cost it a round trip. They are fetched ahead: after three in a row
//! a few, then more as long as opens still have to wait, up to a number and a sum of bytes. A jump
//! ends it at once; reading in any other order fetches nothing ahead.
//!
//! Whoever comes to the end of a folder need not go on in the next one, so nothing of that is
//! fetched ahead before its first file is opened; from then on the ends of folders do not count.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use parking_lot::Mutex;

use super::{Epoch, Vfs};
use crate::{
    blobs::FIRST,
    tree::{Index, Node, OutputId},
};

/// So many files in a row make an order.
const PROOF: u32 = 3;

/// How far from the expected file an open still counts as the next: programs with several threads
/// open files in about the order of the listing.
const SLACK: Index = 4;

/// Files fetched ahead at first, and at most.
const FEWEST: u64 = 2;
const MOST: u64 = 256;

/// Their bytes at most.
const BYTES: u64 = 32 << 20;

/// Folders that are followed at a time, or places in one.
const RUNS: usize = 16;

/// The places where files are being opened one after another.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<VecDeque<Run>>);

/// One such place.
#[derive(Debug)]
struct Run {
    slot: u32,
    /// The file that would come next.
    next: Index,
    in_a_row: u32,
    window: u64,
    /// Files before this one were looked at.
    granted: Index,
    has_waited: bool,
    /// Where the folder ends, once that was come upon.
    end: Option<Index>,
    /// Whether it went on in another folder.
    is_beyond: bool,
}

/// Files that are to be fetched ahead.
#[derive(Debug, Default, PartialEq, Eq)]
struct Grant {
    files: Range<Index>,
    /// Whether those in other folders are meant, too.
    is_beyond: bool,
}

impl Ahead {
    /// A file of `size` bytes was opened; gives those that are to be fetched ahead of the next.
    fn opened(&self, slot: u32, index: Index, size: u64, is_here: bool) -> Grant {
        let mut runs = self.0.lock();
        let found = runs.iter().position(|run| run.expects(slot, index));
        let run = found.and_then(|at| runs.remove(at));
        let mut run = run.unwrap_or_else(|| Run::begin(slot, index));
        let grant = run.go_on(index, size, is_here);
        runs.truncate(RUNS - 1);
        runs.push_front(run);
        grant
    }

    /// A folder has turned out to end before `end`, which was granted.
    fn stop_before(&self, slot: u32, end: Index) {
        let is_of_it = |run: &&mut Run| run.slot == slot && (run.next..run.granted).contains(&end);
        if let Some(run) = self.0.lock().iter_mut().find(is_of_it) {
            run.granted = end;
            run.end = Some(end);
        }
    }
}

impl Run {
    fn begin(slot: u32, index: Index) -> Self {
        Self {
            slot,
            next: index,
            in_a_row: 0,
            window: 0,
            granted: index + 1,
            has_waited: false,
            end: None,
            is_beyond: false,
        }
    }

    /// Before there is an order, only the very next file counts.
    fn expects(&self, slot: u32, index: Index) -> bool {
        let slack = if self.in_a_row < PROOF { 0 } else { SLACK };
        let near = self.next.saturating_sub(slack)..=self.next + slack;
        self.slot == slot && near.contains(&index)
    }

    fn go_on(&mut self, index: Index, size: u64, is_here: bool) -> Grant {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.next = self.next.max(index + 1);
        self.has_waited |= !is_here;
        self.is_beyond |= self.end.is_some_and(|end| index >= end);
        let reserve = self.granted.saturating_sub(self.next);
        let is_at_end = !self.is_beyond && self.end.is_some_and(|end| self.granted >= end);
        if self.in_a_row < PROOF || reserve > self.window / 2 || is_at_end {
            return Grant::default();
        }
        if self.has_waited {
            let most = (BYTES / size.max(1)).clamp(1, MOST);
            self.window = (self.window * 2).max(FEWEST).min(most);
        }
        self.has_waited = false;
        let from = self.granted.max(self.next);
        self.granted = self.granted.max(self.next + self.window);
        Grant { files: from..self.granted, is_beyond: self.is_beyond }
    }
}

impl Vfs {
    /// Notes the open of a file, and begins to fetch what is likely to be opened after it.
    pub(super) fn look_ahead(
        &self,
        (epoch, index): (&Arc<Epoch>, Index),
        size: Option<u64>,
        is_here: bool,
    ) {
        let grant = self.ahead.opened(epoch.slot, index, size.unwrap_or(FIRST), is_here);
        if grant.files.is_empty() {
            return;
        }
        let (vfs, epoch) = (self.myself(), Arc::clone(epoch));
        self.runtime.spawn_blocking(move || vfs.fetch_ahead(&epoch, index, grant));
    }

    /// Begins to fetch files that come after another, in its folder or also beyond.
    fn fetch_ahead(&self, epoch: &Epoch, beside: Index, grant: Grant) {
        let Some(tree) = epoch.tree() else { return };
        let Ok(folder) = tree.parent(beside) else { return };
        let mut sources: Option<(OutputId, _)> = None;
        for index in grant.files {
            let Ok(Some(Node::Blob { id, output, claim, .. })) = tree.node(index) else { continue };
            if !grant.is_beyond && tree.parent(index) != Ok(folder) {
                return self.ahead.stop_before(epoch.slot, index);
            }
            let Some(id) = id else { continue };
            let known = sources.take().filter(|(of, _)| *of == output);
            let (_, sources) =
                sources.insert(known.unwrap_or_else(|| (output, self.sources(tree, output))));
            if let super::attributes::Size::Known(size) = self.size(tree, output, Some(id), claim) {
                self.blobs.claim_size(id, sources, size);
            }
            self.blobs.look_ahead(id, sources);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: u64 = 400 << 10;

    /// Opens these files; gives those that were fetched ahead meanwhile.
    fn open(ahead: &Ahead, files: impl IntoIterator<Item = Index>, is_here: bool) -> Vec<Index> {
        files.into_iter().flat_map(|index| ahead.opened(1, index, CLIP, is_here).files).collect()
    }

    #[test]
    fn files_in_order_are_fetched_ahead_in_a_window_that_doubles_to_a_sum_of_bytes() {
        let ahead = Ahead::default();
        assert!(open(&ahead, [10, 11], false).is_empty());
        assert_eq!(open(&ahead, [12], false), [13, 14]);
        let fetched = open(&ahead, 13..1000, false);
        assert!(fetched.windows(2).all(|pair| pair[0] + 1 == pair[1]), "none twice");
        let furthest = fetched.last().unwrap() - 999;
        assert!((32..=BYTES / CLIP).contains(&furthest), "{furthest}");
    }

    #[test]
    fn a_reader_who_never_waits_has_no_more_than_a_few_ahead() {
        let ahead = Ahead::default();
        open(&ahead, 0..3, false);
        let fetched = open(&ahead, 3..100, true);
        assert!(fetched.last().unwrap() - 99 <= FEWEST);
    }

    #[test]
    fn a_jump_ends_it() {
        let ahead = Ahead::default();
        open(&ahead, 0..100, false);
        assert!(open(&ahead, [500, 700, 300], false).is_empty());
        assert!(open(&ahead, [900, 901], false).is_empty());
    }

    #[test]
    fn the_end_of_a_folder_stops_it_until_the_next_one_is_gone_through() {
        let ahead = Ahead::default();
        let end = *open(&ahead, 0..60, false).last().unwrap();
        ahead.stop_before(1, end);
        assert!(open(&ahead, 60..end, true).is_empty());
        let grant = ahead.opened(1, end, CLIP, false);
        assert_eq!((grant.files.start, grant.is_beyond), (end + 1, true));
        assert!(grant.files.end > end + 30, "the window is as large as it was: {grant:?}");
    }

    #[test]
    fn shuffled_files_fetch_next_to_nothing_ahead() {
        let ahead = Ahead::default();
        let shuffled = (0..500_u64).map(|n| n * 383 % 499);
        assert!(open(&ahead, shuffled, false).len() < 10);
    }

    #[test]
    fn several_threads_that_take_turns_are_in_order_too() {
        let ahead = Ahead::default();
        open(&ahead, 0..4, false);
        let turns = (4..100).step_by(4).flat_map(|n| [n + 1, n, n + 3, n + 2]);
        assert!(open(&ahead, turns, false).len() > 90);
    }

    #[test]
    fn two_folders_are_followed_at_once() {
        let ahead = Ahead::default();
        let both = (0..50).flat_map(|n| [n, 1000 + n]);
        let fetched = open(&ahead, both, false);
        assert!(fetched.contains(&40) && fetched.contains(&1040));
    }
}
