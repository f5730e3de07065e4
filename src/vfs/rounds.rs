//! Ends rounds of [`crate::recent::Recent`] while there is something to let go of, and not longer:
//! an idle daemon does nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::runtime::Handle;

/// How long a round takes.
const ROUND: Duration = Duration::from_secs(10);

/// Whether rounds are being ended at the moment.
#[derive(Debug, Default)]
pub struct Rounds(AtomicBool);

/// Something that keeps things for their next use.
pub trait Keeper: Send + Sync + 'static {
    /// Its rounds.
    fn rounds(&self) -> &Rounds;

    /// Ends one; gives whether anything is left.
    fn end_round(&self) -> bool;
}

impl Rounds {
    /// Something was put into the keeper, so rounds have to end from now on until all is gone.
    pub fn begin<K: Keeper>(keeper: &Arc<K>, runtime: &Handle) {
        if keeper.rounds().0.swap(true, Ordering::AcqRel) {
            return;
        }
        let keeper = Arc::downgrade(keeper);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(ROUND).await;
                let Some(keeper) = keeper.upgrade() else { return };
                if keeper.end_round() {
                    continue;
                }
                keeper.rounds().0.store(false, Ordering::Release);
                // What came in between begins no rounds of its own.
                if !keeper.end_round() || keeper.rounds().0.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }
}
