//! What stands where: every entry that is not at the place where the base has it, or that the base
//! does not have.
//!
//! What the base has and what was never touched is not in here. An entry of the base stays once it
//! is, so there are as many as were changed; one of the overlay's own goes when the kernel has
//! forgotten it, and is the same inode when it is found again: as long as it has a name, its number
//! is kept by that of its file on the overlay's disk.

use std::collections::HashMap;

use super::super::{Attr, Ino, ROOT_INO, inodes::Slot};
use crate::{path::Name, tree::Index};

/// Where an entry is.
#[derive(Debug, Clone)]
pub(super) enum Seat {
    /// In a folder, under a name.
    At(Ino, Name),
    /// Nowhere any more, as it last was if anybody may still ask.
    Gone(Option<Box<Attr>>),
}

#[derive(Debug)]
struct Known {
    seat: Seat,
    /// How often the kernel was told of it; counted for the overlay's own.
    lookups: u64,
}

/// The number of a file on the disk that the overlay lies on.
type DiskInode = u64;

/// The table of names.
#[derive(Debug)]
pub(super) struct Names {
    own: Slot,
    /// The base that these names are above.
    base: Slot,
    /// The overlay's own number that was the next one when these names began.
    first: Index,
    next: Index,
    /// The numbers of the overlay's own entries, by the inodes that the disk has for them.
    numbers: HashMap<DiskInode, Index>,
    known: HashMap<Ino, Known>,
    at: HashMap<(Ino, Name), Ino>,
    /// Whether a folder of the base is elsewhere, so that what is in it is, too.
    has_moved_folders: bool,
    changes: u64,
}

impl Names {
    pub(super) fn new(own: Slot, base: Slot) -> Self {
        Self {
            own,
            base,
            first: 1,
            next: 1,
            numbers: HashMap::new(),
            known: HashMap::new(),
            at: HashMap::new(),
            has_moved_folders: false,
            changes: 0,
        }
    }

    /// The base that these names are above.
    pub(super) fn base(&self) -> Slot {
        self.base
    }

    /// Begins anew above another base. What the kernel knows of the overlay's own is nowhere now.
    pub(super) fn start_over(&mut self, base: Slot) {
        self.base = base;
        self.first = self.next;
        self.numbers.clear();
        self.at.clear();
        let own = self.own;
        self.known.retain(|ino, known| ino.slot() == own && known.lookups > 0);
        self.known.values_mut().for_each(|known| known.seat = Seat::Gone(None));
        self.has_moved_folders = false;
        self.changes += 1;
    }

    /// Whether an inode is one of the overlay's own.
    pub(super) fn is_own(&self, ino: Ino) -> bool {
        ino.slot() == self.own
    }

    /// Whether an inode is one of these names' and not from above an earlier base.
    pub(super) fn is_present(&self, ino: Ino) -> bool {
        let is_new = self.is_own(ino) && ino.index() >= self.first;
        is_new || ino == ROOT_INO || ino.slot() == self.base
    }

    /// Where an entry is; nothing of those that are where the base has them.
    pub(super) fn seat(&self, ino: Ino) -> Option<&Seat> {
        self.known.get(&ino).map(|known| &known.seat)
    }

    /// The inode that a name is known by.
    pub(super) fn find(&self, folder: Ino, name: &Name) -> Option<Ino> {
        self.at.get(&(folder, name.clone())).copied()
    }

    pub(super) fn has_moved_folders(&self) -> bool {
        self.has_moved_folders
    }

    pub(super) fn note_moved_folder(&mut self) {
        self.has_moved_folders = true;
    }

    /// The inode of an entry of the overlay's own. One that was not known gets a number that no
    /// entry has or had.
    pub(super) fn own_ino(&mut self, on_disk: DiskInode) -> Ino {
        let number = *self.numbers.entry(on_disk).or_insert(self.next);
        self.next = self.next.max(number + 1);
        Ino::new(self.own, number)
    }

    /// Has an entry be in a folder under a name, wherever it was before.
    pub(super) fn put(&mut self, ino: Ino, folder: Ino, name: &Name) {
        self.leave(ino);
        self.at.insert((folder, name.clone()), ino);
        self.set(ino, Seat::At(folder, name.clone()));
    }

    /// Has an entry be nowhere. The disk may give its inode there to another file from now on.
    pub(super) fn remove(&mut self, ino: Ino, on_disk: Option<DiskInode>, last: Option<Attr>) {
        self.leave(ino);
        if let Some(on_disk) = on_disk {
            self.numbers.remove(&on_disk);
        }
        if self.is_own(ino) && !self.known.contains_key(&ino) {
            return;
        }
        self.set(ino, Seat::Gone(last.map(Box::new)));
    }

    fn set(&mut self, ino: Ino, seat: Seat) {
        let lookups = self.known.get(&ino).map_or(0, |known| known.lookups);
        self.known.insert(ino, Known { seat, lookups });
    }

    fn leave(&mut self, ino: Ino) {
        if let Some(Known { seat: Seat::At(folder, name), .. }) = self.known.get(&ino) {
            let place = (*folder, name.clone());
            if self.at.get(&place) == Some(&ino) {
                self.at.remove(&place);
            }
        }
    }

    /// The kernel is told of an entry.
    pub(super) fn count(&mut self, ino: Ino) {
        if let Some(known) = self.known.get_mut(&ino) {
            known.lookups += 1;
        }
    }

    /// The kernel has forgotten so many tellings of one of the overlay's own.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) {
        let Some(known) = self.known.get_mut(&ino) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups == 0 {
            self.leave(ino);
            self.known.remove(&ino);
        }
    }

    /// Something was changed in some folder.
    pub(super) fn note_change(&mut self) {
        self.changes += 1;
    }

    /// How often something was changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: Ino = Ino(1);

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_entry_is_found_where_it_was_put_last() {
        let mut names = Names::new(9, 3);
        let (ino, other) = (names.own_ino(1), names.own_ino(2));
        names.put(ino, FOLDER, &name("a"));
        names.put(other, FOLDER, &name("b"));
        names.put(ino, FOLDER, &name("b"));
        assert_eq!(names.find(FOLDER, &name("a")), None);
        assert_eq!(names.find(FOLDER, &name("b")), Some(ino));
        names.remove(other, Some(2), None);
        assert_eq!(names.find(FOLDER, &name("b")), Some(ino), "its place was taken");
        assert!(matches!(names.seat(ino), Some(Seat::At(..))));
    }

    #[test]
    fn the_overlays_own_go_when_the_kernel_forgets_them_and_others_stay() {
        let mut names = Names::new(9, 3);
        let (own, of_base) = (names.own_ino(1), Ino::new(3, 7));
        for ino in [own, of_base] {
            names.put(ino, FOLDER, &name("a"));
        }
        names.count(own);
        names.count(own);
        names.forget(own, 1);
        assert!(names.seat(own).is_some());
        names.remove(own, Some(1), None);
        assert!(matches!(names.seat(own), Some(Seat::Gone(None))));
        names.forget(own, 1);
        assert!(names.seat(own).is_none());
        names.remove(of_base, None, None);
        assert!(matches!(names.seat(of_base), Some(Seat::Gone(None))));
        assert!(names.find(FOLDER, &name("a")).is_none());
        names.remove(own, Some(1), None);
        assert!(names.seat(own).is_none(), "nobody knows it any more");
    }

    #[test]
    fn an_entry_is_the_same_inode_until_it_has_no_name_any_more() {
        let mut names = Names::new(9, 3);
        let ino = names.own_ino(7);
        names.put(ino, FOLDER, &name("a"));
        names.count(ino);
        names.forget(ino, 1);
        assert!(names.seat(ino).is_none());
        assert_eq!(names.own_ino(7), ino);
        assert_ne!(names.own_ino(8), ino);
        names.remove(ino, Some(7), None);
        assert_ne!(names.own_ino(7), ino, "the disk gave its inode to another file");
    }

    #[test]
    fn above_another_base_nothing_is_where_it_was() {
        let mut names = Names::new(9, 3);
        let (own, unknown, of_base) = (names.own_ino(1), names.own_ino(2), Ino::new(3, 7));
        for (ino, text) in [(own, "a"), (unknown, "b"), (of_base, "c")] {
            names.put(ino, FOLDER, &name(text));
        }
        names.count(own);
        assert!(names.is_present(own) && names.is_present(of_base));
        names.start_over(4);
        assert_eq!(names.base(), 4);
        assert!(!names.is_present(own) && !names.is_present(of_base));
        assert!(names.is_present(ROOT_INO) && names.is_present(Ino::new(4, 7)));
        assert!(matches!(names.seat(own), Some(Seat::Gone(None))));
        assert!(names.seat(unknown).is_none() && names.seat(of_base).is_none());
        assert_eq!(names.find(FOLDER, &name("a")), None);
        let new = names.own_ino(1);
        assert_ne!(new, own, "the kernel may still know it");
        assert!(names.is_present(new));
    }
}
