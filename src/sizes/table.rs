//! Sizes in memory: open addressing over pairs of words.
//!
//! Slots are hashes already, so a slot's home is its share of the table, and a table that grows
//! keeps its order. It grows by a fifth, not by two, so an entry never takes more than 28 bytes.

use super::Size;

/// A slot and its size; a free place has [`FREE`] for one.
type Entry = (u64, u64);

const FREE: u64 = 0;

/// Of every hundred places so many are taken at most.
const FULL: usize = 70;

/// Sizes by slot.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
    len: usize,
    most: usize,
}

impl Table {
    /// A table of at most so many sizes; beyond those each new one takes the place of another.
    pub(super) const fn new(most: usize) -> Self {
        Self { entries: Vec::new(), len: 0, most }
    }

    /// What a slot holds.
    pub(super) fn get(&self, slot: u64) -> Option<Size> {
        if self.entries.is_empty() {
            return None;
        }
        decode(self.entries[self.place(slot)].1)
    }

    /// Puts a size into a slot, or empties it; gives what it held.
    pub(super) fn set(&mut self, slot: u64, size: Option<Size>) -> Option<Size> {
        if self.entries.is_empty() {
            size?;
            self.grow();
        }
        let place = self.place(slot);
        let before = decode(self.entries[place].1);
        match size {
            _ if size == before => {}
            None => self.vacate(place),
            Some(size) => {
                let place = if before.is_some() { place } else { self.claim(slot, place) };
                self.entries[place] = (slot, encode(size));
            }
        }
        before
    }

    /// Makes room for a slot that is to go to this place, and tells where it may go.
    fn claim(&mut self, slot: u64, place: usize) -> usize {
        let is_full = (self.len + 1) * 100 > self.entries.len() * FULL;
        let is_moved = is_full || self.len == self.most;
        if self.len == self.most {
            self.vacate(self.taken_from(home(slot, self.entries.len())));
        } else if is_full {
            self.grow();
        }
        self.len += 1;
        if is_moved { self.place(slot) } else { place }
    }

    /// How many sizes there are.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) const fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Where a slot is, or would be.
    fn place(&self, slot: u64) -> usize {
        let mut place = home(slot, self.entries.len());
        loop {
            let (there, value) = self.entries[place];
            if value == FREE || there == slot {
                return place;
            }
            place = next(place, self.entries.len());
        }
    }

    /// The first place from there on that is taken, when one is.
    fn taken_from(&self, mut place: usize) -> usize {
        while self.entries[place].1 == FREE {
            place = next(place, self.entries.len());
        }
        place
    }

    /// Frees a place that is taken, and closes the gap: whatever follows without a break moves up,
    /// unless that would be before its home.
    fn vacate(&mut self, mut gap: usize) {
        let places = self.entries.len();
        let distance = |from: usize, to: usize| (to + places - from) % places;
        let mut place = next(gap, places);
        while self.entries[place].1 != FREE {
            let entry = self.entries[place];
            if distance(home(entry.0, places), place) >= distance(gap, place) {
                self.entries[gap] = entry;
                gap = place;
            }
            place = next(place, places);
        }
        self.entries[gap].1 = FREE;
        self.len -= 1;
    }

    fn grow(&mut self) {
        let wanted = (self.entries.len() + self.entries.len() / 5).max(16);
        let before = std::mem::replace(&mut self.entries, vec![(0, FREE); wanted]);
        for entry in before.into_iter().filter(|entry| entry.1 != FREE) {
            let place = self.place(entry.0);
            self.entries[place] = entry;
        }
    }
}

fn home(slot: u64, places: usize) -> usize {
    ((u128::from(slot) * places as u128) >> 64) as usize
}

const fn next(place: usize, places: usize) -> usize {
    if place + 1 == places { 0 } else { place + 1 }
}

/// Sizes leave the upper bits of a word free.
const KNOWN: u64 = 1 << 63;
const VERIFIED: u64 = 1 << 62;

const fn encode(size: Size) -> u64 {
    size.bytes | KNOWN | if size.is_verified { VERIFIED } else { 0 }
}

fn decode(value: u64) -> Option<Size> {
    let size = Size { bytes: value & !(KNOWN | VERIFIED), is_verified: value & VERIFIED != 0 };
    (value & KNOWN != 0).then_some(size)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn size(bytes: u64) -> Size {
        Size { bytes, is_verified: bytes.is_multiple_of(3) }
    }

    proptest! {
        #[test]
        fn it_is_a_map(operations in prop::collection::vec(
            (0..40_u64, prop::option::of(0..=super::super::LARGEST)), 0..400))
        {
            let (mut table, mut map) = (Table::new(1000), HashMap::new());
            for (key, bytes) in operations {
                // Some neighbours, some far away, and both ends.
                let slot = if key % 2 == 0 { u64::MAX - key } else { key.wrapping_mul(1 << 58) };
                let size = bytes.map(size);
                let before = match size {
                    Some(size) => map.insert(slot, size),
                    None => map.remove(&slot),
                };
                prop_assert_eq!(table.set(slot, size), before);
                for key in 0..40 {
                    for slot in [u64::MAX - key, u64::wrapping_mul(key, 1 << 58)] {
                        prop_assert_eq!(table.get(slot), map.get(&slot).copied());
                    }
                }
            }
        }
    }

    /// Numbers that look like hashes.
    fn slots() -> impl Iterator<Item = u64> {
        (1..).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n << 17)
    }

    #[test]
    fn a_size_takes_less_than_29_bytes_however_many_there_are() {
        let mut table = Table::new(usize::MAX);
        for (count, slot) in slots().take(200_000).enumerate() {
            table.set(slot, Some(size(7)));
            assert!(count < 100 || table.bytes() / (count + 1) < 29, "{count} sizes");
        }
    }

    #[test]
    fn beyond_its_limit_a_new_slot_takes_the_place_of_another() {
        let mut table = Table::new(1000);
        for slot in slots().take(5000) {
            table.set(slot, Some(size(9)));
            assert_eq!(table.get(slot), Some(size(9)));
        }
        let kept = slots().take(5000).filter(|slot| table.get(*slot).is_some()).count();
        assert_eq!((kept, table.len()), (1000, 1000));
    }
}
