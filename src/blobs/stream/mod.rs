//! A large blob: blocks as they are demanded, hashed in order behind the readers.

use std::{collections::BTreeMap, hash::Hasher as _, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    BlobError, FIRST,
    budget::{Rank, Urgency},
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
    /// Those requests. Two may begin alike, where blocks that came were lost and asked for again.
    pulls: BTreeMap<PullId, (Range<u64>, Arc<Rank>)>,
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

/// What is wanted.
#[derive(Debug)]
pub(super) struct Ask {
    /// The bytes that are read.
    pub(super) range: Range<u64>,
    /// These and what is to be fetched around them.
    pub(super) plan: Range<u64>,
    /// Why.
    pub(super) urgency: Urgency,
}

/// A request's first block and where its rank is: no two under way have both in common.
type PullId = (u64, usize);

/// A request to be made.
pub(super) type Pulls = Vec<(Range<u64>, Arc<Rank>)>;

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
            pulls: BTreeMap::new(),
            checker: Some(Checker::new(target.key.scheme, target.key.is_manifest)),
            hashed: 0,
            prints: Vec::new(),
            is_verified: false,
            failures: 0,
            error: None,
        }
    }

    /// Answers a read, and claims what must be requested for it and around it.
    ///
    /// `failures` is the reader's note of how many requests had failed when it came: only later
    /// ones are its own.
    pub(super) fn answer(
        &mut self,
        target: &Target,
        ask: &Ask,
        failures: &mut Option<u64>,
        pulls: &mut Pulls,
    ) -> Answer {
        let range = &ask.range;
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
            let next = from..from + HASH_FROM;
            self.claim(target, (next.clone(), known), ask.urgency, pulls);
            self.hurry(&next, ask.urgency);
            return self.failure_since(known).unwrap_or(Answer::Wait);
        }
        let mut around = if clipped.is_empty() { wanted.clone() } else { self.around(target, ask) };
        if is_here && self.is_confirmed {
            around.start = wanted.end;
            self.claim(target, (around.clone(), known), ask.urgency.min(Urgency::Ahead), pulls);
            if let Some(answer) = self.deliver(target, clipped) {
                return answer;
            }
        }
        if let Some(failed) = self.failure_since(known) {
            return failed;
        }
        let around = around.start.min(wanted.start)..around.end.max(wanted.end);
        let urgency = ask.urgency.min(Urgency::Ahead);
        self.claim(target, (around, known), urgency, pulls);
        self.hurry(&wanted, ask.urgency);
        // Whoever waits is served first.
        pulls.sort_by_key(|(_, rank)| !rank.is(Urgency::Demand));
        Answer::Wait
    }

    /// Makes every request that brings some of `wanted` as urgent as whoever waits for it: it would
    /// give way to him for ever otherwise.
    fn hurry(&self, wanted: &Range<u64>, urgency: Urgency) {
        let near = (wanted.start.saturating_sub(PIECE), 0)..(wanted.end, 0);
        for (blocks, rank) in self.pulls.range(near).map(|(_, pull)| pull) {
            if blocks.end > wanted.start {
                rank.raise(urgency);
            }
        }
    }

    /// The blocks that are planned for; fewer in memory, which would let go of them too soon.
    fn around(&self, target: &Target, ask: &Ask) -> Range<u64> {
        let end = if self.is_on_disk() {
            ask.plan.end
        } else {
            let most = FIRST.max(target.context.memory.limit() as u64 / 16);
            ask.plan.end.min(ask.range.start.saturating_add(most))
        };
        ask.plan.start / BLOCK..end.div_ceil(BLOCK)
    }

    /// Whether a read of `range` can be answered from the disk.
    pub(super) fn has(&self, range: &Range<u64>) -> bool {
        let wanted = range.start.min(self.size)..range.end.min(self.size);
        let is_settled = self.is_confirmed && (self.is_verified || !self.is_complete());
        self.partial.is_some() && is_settled && self.present.contains(&blocks_of(wanted))
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

    /// Claims those blocks that are neither here nor coming, in pieces, unless a request has failed
    /// since the reader came.
    fn claim(
        &mut self,
        target: &Target,
        (blocks, known): (Range<u64>, u64),
        urgency: Urgency,
        pulls: &mut Pulls,
    ) {
        if self.failures > known {
            return;
        }
        let wanted = blocks.start..blocks.end.min(self.blocks());
        for gap in self.gaps(target, &wanted) {
            for free in self.claimed.gaps(gap) {
                self.claimed.insert(free.clone());
                for start in free.clone().step_by(PIECE as usize) {
                    let piece = start..(start + PIECE).min(free.end);
                    let rank = Arc::new(Rank::new(urgency));
                    self.pulls.insert(pull_id(&piece, &rank), (piece.clone(), rank.clone()));
                    pulls.push((piece, rank));
                }
            }
        }
    }

    /// A request has ended, however it did.
    fn let_go(&mut self, blocks: &Range<u64>, rank: &Arc<Rank>) {
        self.claimed.remove(blocks.clone());
        self.pulls.remove(&pull_id(blocks, rank));
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.partial.is_some()
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

fn pull_id(blocks: &Range<u64>, rank: &Arc<Rank>) -> PullId {
    (blocks.start, Arc::as_ptr(rank).addr())
}

fn print_of(bytes: &Bytes) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{blobs::tests::Lab, cache::bytes_of};

    const BLOCKS: u64 = 16;

    /// A stream in memory, of which `came` came before.
    fn stream(target: &Target, came: Range<u64>) -> Stream {
        let mut earlier = BlockSet::default();
        earlier.insert(came);
        let size = Size { bytes: BLOCKS * BLOCK, is_verified: true };
        Stream::new(target, size, None, 0..0, earlier)
    }

    fn ask(stream: &mut Stream, target: &Target, blocks: Range<u64>, urgency: Urgency) -> Pulls {
        let range = bytes_of(&blocks, BLOCKS * BLOCK);
        let ask = Ask { plan: range.clone(), range, urgency };
        let mut pulls = Vec::new();
        let answer = stream.answer(target, &ask, &mut None, &mut pulls);
        assert!(matches!(answer, Answer::Wait));
        pulls
    }

    #[tokio::test]
    async fn a_request_is_hurried_also_when_its_beginning_was_lost_and_asked_for_again() {
        let target = Lab::without_disk().target();
        let mut stream = stream(&target, 0..0);
        let pulls = ask(&mut stream, &target, 0..BLOCKS, Urgency::Background);
        let [(_, rank)] = &pulls[..] else { panic!("{pulls:?}") };
        stream.claimed.remove(0..1);
        let again = ask(&mut stream, &target, 0..1, Urgency::Background);
        assert_eq!(again.len(), 1);
        assert!(ask(&mut stream, &target, 5..6, Urgency::Demand).is_empty());
        assert!(rank.is(Urgency::Demand));
        for (blocks, rank) in pulls.iter().chain(&again) {
            stream.let_go(blocks, rank);
        }
        assert!(stream.pulls.is_empty());
    }

    #[tokio::test]
    async fn a_request_is_hurried_by_whoever_waits_for_the_check_alone() {
        let target = Lab::without_disk().target();
        let mut stream = stream(&target, 0..BLOCKS);
        let pulls = ask(&mut stream, &target, 3..4, Urgency::Background);
        let [(_, rank)] = &pulls[..] else { panic!("{pulls:?}") };
        assert!(ask(&mut stream, &target, 3..4, Urgency::Demand).is_empty());
        assert!(rank.is(Urgency::Demand));
    }
}
