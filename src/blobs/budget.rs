//! Memory for what is on its way, one budget for all downloads, and who goes first.
//!
//! A request holds as much of it as it may bring. What is fetched ahead of readers may hold three
//! quarters, and what nobody has asked for yet five eighths, so that whoever waits always finds room:
//! a request that becomes more urgent while it queues leaves its queue for the next one. Each
//! counts for at least a share, which also bounds their number.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

/// Why something is fetched; the later, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Urgency {
    /// Nobody has asked for it yet.
    Background,
    /// It lies ahead of a reader.
    Ahead,
    /// Somebody waits for it.
    Demand,
}

/// The urgency of one request, which only ever rises.
#[derive(Debug)]
pub(super) struct Rank {
    urgency: AtomicU8,
    raised: Notify,
}

impl Rank {
    pub(super) fn new(urgency: Urgency) -> Self {
        Self { urgency: AtomicU8::new(urgency as u8), raised: Notify::new() }
    }

    pub(super) fn is(&self, urgency: Urgency) -> bool {
        self.urgency.load(Ordering::Acquire) == urgency as u8
    }

    pub(super) fn raise(&self, urgency: Urgency) {
        if self.urgency.fetch_max(urgency as u8, Ordering::AcqRel) < urgency as u8 {
            self.raised.notify_waiters();
        }
    }

    /// Waits for `waited`, unless the urgency is or becomes higher than `most` before.
    pub(super) async fn unless_above<T>(
        &self,
        most: Urgency,
        waited: impl Future<Output = T>,
    ) -> Option<T> {
        let mut waited = pin!(waited);
        loop {
            let mut raised = pin!(self.raised.notified());
            raised.as_mut().enable();
            if self.urgency.load(Ordering::Acquire) > most as u8 {
                return None;
            }
            tokio::select! {
                outcome = &mut waited => return Some(outcome),
                () = raised => {}
            }
        }
    }
}

/// The memory that downloads share.
#[derive(Debug)]
pub(super) struct Budget {
    all: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
    background: Arc<Semaphore>,
    /// In KiB: what a request counts for at least and at most.
    share: (u32, u32),
    /// How many wait for bytes.
    waiting: watch::Sender<usize>,
}

/// What a request holds; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Permit {
    held: [Option<OwnedSemaphorePermit>; 3],
}

/// Somebody waits for bytes as long as this lives.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Budget);

impl Budget {
    /// A budget of `bytes` for at most `requests` at a time.
    pub(super) fn new(bytes: u64, requests: usize) -> Self {
        let kib = (bytes / 1024).clamp(4, 1 << 24) as u32;
        let pool = |kib: u32| Arc::new(Semaphore::new(kib as usize));
        Self {
            all: pool(kib),
            ahead: pool(kib / 4 * 3),
            background: pool(kib / 8 * 5),
            share: (kib.div_ceil(requests.max(4) as u32), kib / 2),
            waiting: watch::Sender::new(0),
        }
    }

    /// Waits for room for a request of `bytes`, as its rank allows.
    pub(super) async fn admit(&self, bytes: u64, rank: &Rank) -> Permit {
        let kib = self.kib(bytes);
        let take = |pool: &Arc<Semaphore>| pool.clone().acquire_many_owned(kib);
        let background = rank.unless_above(Urgency::Background, take(&self.background)).await;
        let ahead = rank.unless_above(Urgency::Ahead, take(&self.ahead)).await;
        // The pools are never closed.
        let all = take(&self.all).await.ok();
        Permit { held: [background.and_then(Result::ok), ahead.and_then(Result::ok), all] }
    }

    /// Room for `bytes` if there is some at once.
    pub(super) fn try_admit(&self, bytes: u64) -> Option<Permit> {
        let all = self.all.clone().try_acquire_many_owned(self.kib(bytes)).ok()?;
        Some(Permit { held: [None, None, Some(all)] })
    }

    /// Gives back what a request does not need that brings no more than `bytes`.
    pub(super) fn shrink(&self, permit: &mut Permit, bytes: u64) {
        let needed = self.kib(bytes) as usize;
        for held in permit.held.iter_mut().flatten() {
            drop(held.split(held.num_permits().saturating_sub(needed)));
        }
    }

    /// Counts somebody who waits.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.send_modify(|count| *count += 1);
        Waiting(self)
    }

    /// Lets those who wait for bytes have the network: a request that nobody asked for stops
    /// receiving while there are any.
    pub(super) async fn give_way(&self, rank: &Rank) {
        if rank.is(Urgency::Background) {
            let mut waiting = self.waiting.subscribe();
            let nobody_waits = async { waiting.wait_for(|count| *count == 0).await.is_ok() };
            rank.unless_above(Urgency::Background, nobody_waits).await;
        }
    }

    fn kib(&self, bytes: u64) -> u32 {
        let (least, most) = self.share;
        (bytes.div_ceil(1024).min(u64::from(most)) as u32).max(least)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn admit(budget: &Budget, urgency: Urgency) -> Option<Permit> {
        budget.admit(MIB, &Rank::new(urgency)).now_or_never()
    }

    #[test]
    fn demand_finds_room_beside_everything_else() {
        let budget = Budget::new(8 * MIB, 64);
        let take = |urgency| std::iter::from_fn(|| admit(&budget, urgency)).collect::<Vec<_>>();
        let background = take(Urgency::Background);
        assert_eq!(background.len(), 5);
        let ahead = take(Urgency::Ahead);
        assert_eq!(ahead.len(), 1);
        assert_eq!(take(Urgency::Demand).len(), 2);
    }

    #[test]
    fn requests_are_bounded_in_number_and_one_that_is_too_large_has_its_turn() {
        let budget = Budget::new(8 * MIB, 16);
        let rank = Rank::new(Urgency::Demand);
        let small: Vec<_> =
            std::iter::from_fn(|| budget.admit(1, &rank).now_or_never()).take(100).collect();
        assert_eq!(small.len(), 16);
        drop(small);
        assert!(budget.admit(100 * MIB, &rank).now_or_never().is_some());
        assert!(budget.try_admit(8 * MIB).is_some());
    }

    #[test]
    fn what_a_request_turns_out_not_to_need_is_given_back() {
        let budget = Budget::new(8 * MIB, 64);
        let mut first = budget.admit(4 * MIB, &Rank::new(Urgency::Background)).now_or_never();
        assert!(budget.admit(2 * MIB, &Rank::new(Urgency::Background)).now_or_never().is_none());
        budget.shrink(first.as_mut().unwrap(), MIB);
        let held: Vec<_> = std::iter::from_fn(|| admit(&budget, Urgency::Background)).collect();
        assert_eq!(held.len(), 4);
    }

    #[tokio::test]
    async fn a_request_that_somebody_comes_to_wait_for_leaves_its_queue() {
        let budget = Budget::new(8 * MIB, 64);
        let rank = Rank::new(Urgency::Background);
        let held: Vec<_> = std::iter::from_fn(|| admit(&budget, Urgency::Background)).collect();
        let mut queued = Box::pin(budget.admit(MIB, &rank));
        assert!(queued.as_mut().now_or_never().is_none());
        rank.raise(Urgency::Demand);
        queued.await;
        drop(held);
    }

    #[tokio::test]
    async fn what_nobody_asked_for_gives_way_to_those_who_wait() {
        let budget = Budget::new(8 * MIB, 64);
        let rank = Rank::new(Urgency::Background);
        assert!(budget.give_way(&rank).now_or_never().is_some());
        let waiting = budget.wait();
        assert!(budget.give_way(&rank).now_or_never().is_none());
        assert!(budget.give_way(&Rank::new(Urgency::Ahead)).now_or_never().is_some());
        let mut giving_way = Box::pin(budget.give_way(&rank));
        assert!(giving_way.as_mut().now_or_never().is_none());
        drop(waiting);
        giving_way.await;
        let _waiting = budget.wait();
        rank.raise(Urgency::Ahead);
        assert_eq!(budget.give_way(&rank).now_or_never(), Some(()));
    }
}
