//! Single flight: whoever asks for the same thing at the same time shares one effort.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// Efforts under way, by what they are for.
///
/// An effort lives as long as somebody holds it; the map itself holds none.
#[derive(Debug)]
pub(super) struct Flights<K, V>(Mutex<Flying<K, V>>);

#[derive(Debug)]
struct Flying<K, V> {
    efforts: HashMap<K, Weak<V>>,
    /// Ended efforts are swept out when the map has grown to this.
    sweep_at: usize,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Flying { efforts: HashMap::new(), sweep_at: 64 }))
    }
}

impl<K: Eq + Hash, V> Flights<K, V> {
    /// Joins the effort for `key` if there is a usable one, else begins one; the flag tells which.
    ///
    /// `begin` runs under a lock: it makes the value, and the caller starts the work.
    pub(super) fn join(
        &self,
        key: K,
        is_usable: impl FnOnce(&V) -> bool,
        begin: impl FnOnce() -> V,
    ) -> (Arc<V>, bool) {
        let mut flying = self.0.lock();
        if let Some(effort) = flying.efforts.get(&key).and_then(Weak::upgrade) {
            if is_usable(&effort) {
                return (effort, false);
            }
            // Its last holder may be us, and dropping it must not happen under the lock.
            let fresh = Arc::new(begin());
            flying.efforts.insert(key, Arc::downgrade(&fresh));
            drop(flying);
            drop(effort);
            return (fresh, true);
        }
        let fresh = Arc::new(begin());
        flying.efforts.insert(key, Arc::downgrade(&fresh));
        if flying.efforts.len() >= flying.sweep_at {
            flying.efforts.retain(|_, effort| effort.strong_count() > 0);
            flying.sweep_at = 64.max(2 * flying.efforts.len());
        }
        (fresh, true)
    }

    /// The effort for `key`, if there is one.
    pub(super) fn find(&self, key: &K) -> Option<Arc<V>> {
        self.0.lock().efforts.get(key).and_then(Weak::upgrade)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    #[test]
    fn many_threads_share_one_effort() {
        let (flights, begun) = (Flights::<u8, usize>::default(), AtomicUsize::new(0));
        let barrier = Barrier::new(16);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let count = || begun.fetch_add(1, Ordering::SeqCst);
                        let effort = flights.join(7, |_| true, count);
                        barrier.wait();
                        effort.1
                    })
                })
                .collect();
            let beginners = threads.into_iter().filter(|_| true).map(|t| t.join().unwrap());
            assert_eq!(beginners.filter(|is_new| *is_new).count(), 1);
        });
        assert_eq!(begun.into_inner(), 1);
    }

    #[test]
    fn an_ended_or_unusable_effort_is_begun_anew_and_dead_ones_are_swept() {
        let flights = Flights::<usize, usize>::default();
        let (first, is_new) = flights.join(1, |_| true, || 10);
        assert!(is_new);
        assert_eq!(*flights.join(1, |value| *value == 11, || 11).0, 11);
        drop(first);
        assert!(flights.find(&1).is_none());
        for key in 0..10_000 {
            drop(flights.join(key, |_| true, || key));
        }
        assert!(flights.0.lock().efforts.len() <= 64);
    }
}
