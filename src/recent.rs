//! Things that were used lately and are kept for their next use.
//!
//! Bounded in number and in weight, least recently used out first; and what is not used for a whole
//! *round* is let go too, so that nothing is held for ever once its user has gone. Whoever owns the
//! collection ends rounds, as long as there is something in it.

use std::{hash::Hash, num::NonZeroUsize};

use lru::LruCache;

/// Things by key, the latest used.
#[derive(Debug)]
pub struct Recent<K: Hash + Eq, V> {
    entries: LruCache<K, Entry<V>>,
    weight: u64,
    max_weight: u64,
    round: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    used_in: u64,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    /// Keeps at most `capacity` things of at most `max_weight` together; one alone may weigh more.
    pub fn new(capacity: NonZeroUsize, max_weight: u64) -> Self {
        Self { entries: LruCache::new(capacity), weight: 0, max_weight, round: 0 }
    }

    /// The thing of that key, which counts as used now.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        entry.used_in = self.round;
        Some(&entry.value)
    }

    /// Takes the thing of that key out.
    pub fn take(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.pop(key)?;
        self.weight -= entry.weight;
        Some(entry.value)
    }

    /// Keeps a thing; gives back what has to go for it, so that dropping that is up to the caller.
    pub fn put(&mut self, key: K, value: V, weight: u64) -> Vec<V> {
        let entry = Entry { value, weight, used_in: self.round };
        self.weight += weight;
        let pushed_out = self.entries.push(key, entry).map(|(_, entry)| entry);
        let mut gone = Vec::new();
        gone.extend(pushed_out.map(|entry| self.lighten(entry)));
        while self.weight > self.max_weight && self.entries.len() > 1 {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            gone.push(self.lighten(entry));
        }
        gone
    }

    /// Ends a round: gives back what was not used in it.
    pub fn end_round(&mut self) -> Vec<V> {
        let mut gone = Vec::new();
        while self.entries.peek_lru().is_some_and(|(_, entry)| entry.used_in < self.round) {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            gone.push(self.lighten(entry));
        }
        self.round += 1;
        gone
    }

    /// How many things are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn lighten(&mut self, entry: Entry<V>) -> V {
        self.weight -= entry.weight;
        entry.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(capacity: usize, max_weight: u64) -> Recent<u8, &'static str> {
        Recent::new(NonZeroUsize::new(capacity).unwrap(), max_weight)
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut recent = recent(2, 100);
        assert!(recent.put(1, "one", 1).is_empty());
        assert!(recent.put(2, "two", 1).is_empty());
        assert_eq!(recent.get(&1), Some(&"one"));
        assert_eq!(recent.put(3, "three", 1), ["two"]);
        assert_eq!(recent.put(1, "one again", 1), ["one"]);
        assert_eq!(recent.len(), 2);
    }

    #[test]
    fn weight_counts_but_the_newest_stays_whatever_it_weighs() {
        let mut recent = recent(10, 10);
        recent.put(1, "one", 4);
        recent.put(2, "two", 4);
        assert_eq!(recent.put(3, "heavy", 50), ["one", "two"]);
        assert_eq!(recent.put(4, "four", 4), ["heavy"]);
        assert_eq!(recent.take(&4), Some("four"));
        recent.put(5, "five", 10);
        assert_eq!(recent.get(&5), Some(&"five"));
    }

    #[test]
    fn what_is_not_used_for_a_round_is_let_go() {
        let mut recent = recent(10, 10);
        recent.put(1, "one", 1);
        recent.put(2, "two", 1);
        assert!(recent.end_round().is_empty(), "both were used in the round that ended");
        recent.get(&1);
        assert_eq!(recent.end_round(), ["two"]);
        assert_eq!(recent.end_round(), ["one"]);
        assert!(recent.is_empty());
    }
}
