//! A large blob: blocks as they are demanded, hashed in order behind the readers.

use std::{hash::Hasher as _, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    BlobError, FIRST,
    memory::{Owner, Part},
    target::Target,
};
use crate::{
    cache::{BLOCK, BlockSet, Partial, blocks_of},
    dvc::checksum::Checker,
    id::Key,
    sizes::Size,
};

mod keep;
mod pull;

pub(super) use keep::{hash_on, store};
pub(super) use pull::Pull;

/// Blocks of one request: 4 MiB.
const PIECE: u64 = 64;

/// Blocks that are hashed together, when there are as many: 1 MiB.
const HASH_FROM: u64 = 16;

/// Blocks hashed before somebody else gets the thread: 8 MiB.
const HASH_STEP: u64 = 128;

/// The state of a large blob.
#[derive(Debug)]
pub(super) struct Stream {
    /// Whose its blocks in memory are.
    owner: Owner,
    size: u64,
    /// Whether the size is the remote's word and no mere claim.
    is_confirmed: bool,
    /// Missing where the disk failed and blocks are kept in memory.
    partial: Option<Arc<Partial>>,
    /// Blocks that are on disk.
    present: BlockSet,
    /// Blocks that came, also in memory or before a new beginning: once these are all, whoever
    /// read them has all of the content, so it must be checked whatever is still at hand.
    came: BlockSet,
    /// Blocks that a request is under way for.
    claimed: BlockSet,
    /// Missing while a thread hashes with it, and when it has done its work.
    checker: Option<Checker>,
    /// How many blocks from the beginning went into the checker.
    hashed: u64,
    /// Of each block that was hashed in memory: what it must look like when it is fetched again.
    prints: Vec<u64>,
    is_verified: bool,
    failures: u64,
    error: Option<BlobError>,
}

/// What a read is told.
pub(super) enum Answer {
    Wait,
    /// Memory let it go; it must be fetched anew.
    Gone,
    Partial(Arc<Partial>, Range<u64>),
    Bytes(Bytes),
    Failed(BlobError),
}

impl Stream {
    /// `coming` are the blocks that the first request brings, `came` those of earlier beginnings.
    pub(super) fn new(
        target: &Target,
        size: Size,
        opened: Option<(Partial, BlockSet)>,
        coming: Range<u64>,
        mut came: BlockSet,
    ) -> Self {
        let (partial, present) = opened.unzip();
        let present = present.unwrap_or_default();
        present.ranges().for_each(|run| came.insert(run));
        let mut claimed = BlockSet::default();
        claimed.insert(coming);
        Self {
            owner: target.context.memory.new_owner(),
            size: size.bytes,
            // Blocks are only ever kept after the remote has confirmed the size.
            is_confirmed: size.is_verified || present != BlockSet::default(),
            partial: partial.map(Arc::new),
            present,
            came,
            claimed,
            checker: Some(Checker::new(target.key.scheme, target.key.is_manifest)),
            hashed: 0,
            prints: Vec::new(),
            is_verified: false,
            failures: 0,
            error: None,
        }
    }

    /// Answers a read of `range`, and claims what must be requested for it and ahead of it.
    ///
    /// `failures` is the reader's note of how many requests had failed when it came: only later
    /// ones are its own.
    pub(super) fn answer(
        &mut self,
        target: &Target,
        range: &Range<u64>,
        ahead_to: u64,
        failures: &mut Option<u64>,
        pulls: &mut Vec<Range<u64>>,
    ) -> Answer {
        let known = *failures.get_or_insert(self.failures);
        let clipped = range.start.min(self.size)..range.end.min(self.size);
        let mut wanted = blocks_of(clipped.clone());
        if clipped.is_empty() {
            if self.is_confirmed {
                return Answer::Bytes(Bytes::new());
            }
            // Only an answer of the remote makes an end of file of a claim.
            wanted = 0..1;
        }
        let is_here = self.gaps(target, &wanted).is_empty();
        if self.is_complete() && !self.is_verified {
            let from = self.partial.as_ref().map_or(self.hashed, |_| self.present.run_end(0));
            self.claim(target, from..from + HASH_FROM, known, pulls);
            return self.failure_since(known).unwrap_or(Answer::Wait);
        }
        let ahead = match self.partial {
            Some(_) => ahead_to,
            None => ahead_to.min(range.start.saturating_add(FIRST)),
        };
        if is_here && self.is_confirmed {
            self.claim(target, wanted.end..blocks_of(0..ahead).end, known, pulls);
            if let Some(answer) = self.deliver(target, clipped) {
                return answer;
            }
        }
        if let Some(failed) = self.failure_since(known) {
            return failed;
        }
        self.claim(target, wanted.start..wanted.end.max(blocks_of(0..ahead).end), known, pulls);
        Answer::Wait
    }

    fn failure_since(&self, known: u64) -> Option<Answer> {
        let error = self.error.as_ref().filter(|_| self.failures > known)?;
        Some(Answer::Failed(error.clone()))
    }

    /// The bytes of `range`; nothing when memory has let go of some meanwhile.
    fn deliver(&self, target: &Target, range: Range<u64>) -> Option<Answer> {
        if let Some(partial) = &self.partial {
            return Some(Answer::Partial(partial.clone(), range));
        }
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        for block in blocks_of(range.clone()) {
            let content = target.context.memory.get(self.owner, Part::Block(block))?;
            let start = range.start.saturating_sub(block * BLOCK) as usize;
            let end = (range.end - block * BLOCK).min(content.len() as u64) as usize;
            bytes.extend_from_slice(&content[start..end]);
        }
        Some(Answer::Bytes(bytes.freeze()))
    }

    /// The blocks of `wanted` that cannot be read now.
    fn gaps(&self, target: &Target, wanted: &Range<u64>) -> Vec<Range<u64>> {
        if self.partial.is_some() {
            return self.present.gaps(wanted.clone());
        }
        let memory = &target.context.memory;
        let is_gone = |block: &u64| !memory.contains(self.owner, Part::Block(*block));
        let mut gone = BlockSet::default();
        wanted.clone().filter(is_gone).for_each(|block| gone.insert(block..block + 1));
        gone.ranges().collect()
    }

    /// Claims those blocks of `wanted` that are neither here nor coming, in pieces.
    fn claim(
        &mut self,
        target: &Target,
        wanted: Range<u64>,
        known: u64,
        pulls: &mut Vec<Range<u64>>,
    ) {
        if self.failures > known {
            return;
        }
        let wanted = wanted.start..wanted.end.min(self.blocks());
        for gap in self.gaps(target, &wanted) {
            for free in self.claimed.gaps(gap) {
                self.claimed.insert(free.clone());
                let pieces = free.clone().step_by(PIECE as usize);
                pulls.extend(pieces.map(|start| start..(start + PIECE).min(free.end)));
            }
        }
    }

    fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK)
    }

    fn is_complete(&self) -> bool {
        self.came.contains(&(0..self.blocks()))
    }

    /// All that came, for a new beginning.
    pub(super) fn into_came(self) -> BlockSet {
        self.came
    }

    /// Goes on in memory. What was hashed is hashed again: its bytes may be out of reach now.
    fn leave_disk(&mut self, key: &Key) {
        if self.partial.take().is_some() {
            self.checker = Some(Checker::new(key.scheme, key.is_manifest));
            self.hashed = 0;
        }
    }

    /// Takes blocks into memory and hashes what continues the prefix; false when a block that was
    /// hashed before has come back different, or the whole is not what it should be.
    fn take_into_memory(&mut self, target: &Target, first: u64, content: &Bytes) -> bool {
        for (block, at) in (first..).zip((0..content.len()).step_by(BLOCK as usize)) {
            let end = content.len().min(at + BLOCK as usize);
            let bytes = content.slice(at..end);
            let print = self.prints.get(block as usize);
            if print.is_some_and(|print| *print != print_of(&bytes)) {
                return false;
            }
            // A copy, or it would keep the whole received buffer alive beyond the budget.
            let copy = Bytes::copy_from_slice(&bytes);
            target.context.memory.put(self.owner, Part::Block(block), copy);
        }
        self.hash_in_memory(target)
    }

    fn hash_in_memory(&mut self, target: &Target) -> bool {
        let memory = &target.context.memory;
        while self.hashed < self.blocks()
            && let Some(checker) = &mut self.checker
            && let Some(bytes) = memory.get(self.owner, Part::Block(self.hashed))
        {
            checker.update(&bytes);
            self.prints.push(print_of(&bytes));
            self.hashed += 1;
        }
        if self.hashed < self.blocks() || self.is_verified {
            return true;
        }
        self.is_verified =
            self.checker.take().is_some_and(|c| c.finish().matches(&target.key.digest));
        self.is_verified
    }
}

fn print_of(bytes: &Bytes) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
