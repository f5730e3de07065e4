//! Inode numbers, and the small table that gives them again after a restart.
//!
//! An [`Ino`] is a slot (24 bits) and an index (40 bits). Slot 0 holds the names above commits;
//! every other slot is one *epoch*: a commit as seen under one name, so that two names of one
//! commit never share a directory inode. Below, the index is that of the commit's tree, which is
//! the same in every epoch of it.
//!
//! What cannot be worked out again (which slot an epoch got, which number a name above commits
//! got, where a manifest's rows begin) is appended to the table before the first reply that uses
//! it, one line each:
//!
//! ```text
//! slot <slot> <commit> <place>
//! name <index> <path>
//! rows <commit> <output> <first> <count>
//! ```
//!
//! A line that is damaged, cut or in conflict with an earlier one is passed over. One process holds
//! the file at a time; for a second one, and without a file, the numbers live in memory.
//!
//! A number is kept as long as the mount lives, whether the kernel remembers it or not: what is
//! looked at again is to be the same inode. So names are held by their hash, a revision or a name
//! taking some thirty bytes however long it is.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use md5::{Digest as _, Md5};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::{
    git::CommitId,
    id::Digest,
    tree::{Index, OutputId, Tree},
};

const INDEX_BITS: u32 = 40;

/// Slots and indexes lie below these.
const MAX_SLOT: Slot = 1 << 24;
const MAX_INDEX: Index = 1 << (INDEX_BITS - 1);

/// The root of a mount.
pub const ROOT_INO: Ino = Ino(1);

/// An inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// The number of an epoch within its mount; 0 stands for the names above commits.
pub(super) type Slot = u32;

impl Ino {
    /// Puts slot and index together.
    pub(super) fn new(slot: Slot, index: Index) -> Self {
        Self(u64::from(slot) << INDEX_BITS | index)
    }

    /// Which epoch the inode lies in.
    pub(super) fn slot(self) -> Slot {
        (self.0 >> INDEX_BITS) as Slot
    }

    /// Its number within the epoch.
    pub fn index(self) -> Index {
        self.0 & ((1 << INDEX_BITS) - 1)
    }
}

/// Hands out slots, numbers of names and row ranges, each the same for the same question.
///
/// A line is written under the lock, so that nobody is given a number that is not in the file yet;
/// it is short, new numbers are rare, and the file is a local one that nobody waits to be synced.
#[derive(Debug)]
pub struct InodeTable {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Option<File>,
    /// By the hash of commit and place.
    slots: HashMap<Digest, Slot>,
    /// By the hash of the path.
    names: HashMap<Digest, Index>,
    /// Where a manifest's rows begin, and how many there are.
    rows: HashMap<(CommitId, OutputId), (Index, u32)>,
    /// Where the next manifest's rows may begin.
    ends: HashMap<CommitId, Index>,
    next_slot: Slot,
    next_name: Index,
}

/// Numbers that lines of the file have given away.
#[derive(Debug, Default)]
struct Taken {
    slots: HashSet<Slot>,
    names: HashSet<Index>,
}

impl InodeTable {
    /// A table that is forgotten with the process.
    pub fn in_memory() -> Self {
        Self::with_file(None)
    }

    fn with_file(file: Option<File>) -> Self {
        let state = State {
            file,
            slots: HashMap::new(),
            names: HashMap::new(),
            rows: HashMap::new(),
            ends: HashMap::new(),
            next_slot: 1,
            next_name: ROOT_INO.0 + 1,
        };
        Self { state: Mutex::new(state) }
    }

    /// Opens a table file, made if it is missing, and takes up what it says. Fails if another
    /// process holds it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // What follows the last newline was cut off while it was written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let table = Self::with_file(Some(file));
        let mut state = table.state.lock();
        let mut taken = Taken::default();
        for line in String::from_utf8_lossy(&text[..whole]).lines() {
            state.take_up(line, &mut taken);
        }
        drop(state);
        Ok(table)
    }

    /// The slot of a commit as seen at `place`, such as `branches/main`; nothing once all are given
    /// away.
    pub(super) fn slot(&self, commit: CommitId, place: &str) -> Option<Slot> {
        let key = slot_key(commit, place);
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.get(&key) {
            return Some(*slot);
        }
        let slot = Some(state.next_slot).filter(|slot| *slot < MAX_SLOT)?;
        state.next_slot += 1;
        state.slots.insert(key, slot);
        state.append(&format!("slot {slot} {commit} {place}"));
        Some(slot)
    }

    /// The number of a name above commits, by its path from the mount's root.
    pub fn name(&self, path: &str) -> Ino {
        let key: Digest = Md5::digest(path).into();
        let mut state = self.state.lock();
        if let Some(index) = state.names.get(&key) {
            return Ino::new(0, *index);
        }
        let index = state.next_name;
        state.next_name += 1;
        state.names.insert(key, index);
        state.append(&format!("name {index} {path}"));
        Ino::new(0, index)
    }

    /// Where the rows of an output's manifest begin, `count` of them.
    pub fn rows(&self, tree: &Tree, output: OutputId, count: u32) -> Index {
        let mut state = self.state.lock();
        let commit = tree.commit;
        if let Some((first, known)) = state.rows.get(&(commit, output))
            && *known == count
            && *first >= tree.base_len()
        {
            return *first;
        }
        let first = state.ends.get(&commit).copied().unwrap_or_default().max(tree.base_len());
        state.add_rows((commit, output), first, count);
        state.append(&format!("rows {commit} {output} {first} {count}"));
        first
    }
}

fn slot_key(commit: CommitId, place: &str) -> Digest {
    Md5::new().chain_update(commit.0.0).chain_update(place).finalize().into()
}

impl State {
    /// Writes a line; a disk that refuses costs the numbers' life beyond this process only.
    fn append(&mut self, line: &str) {
        if line.contains('\n') {
            return;
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(format!("{line}\n").as_bytes())
        {
            tracing::warn!("inode numbers will not survive a restart: {error}");
            self.file = None;
        }
    }

    fn add_rows(&mut self, key: (CommitId, OutputId), first: Index, count: u32) {
        self.rows.insert(key, (first, count));
        self.ends.insert(key.0, first + Index::from(count));
    }

    /// Takes a line up, unless it is damaged or contradicts what is known.
    fn take_up(&mut self, line: &str, taken: &mut Taken) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "slot" => {
                let mut words = rest.splitn(3, ' ');
                let slot: Slot = words.next()?.parse().ok()?;
                let commit = parse_commit(words.next()?)?;
                let key = slot_key(commit, words.next()?);
                if (1..MAX_SLOT).contains(&slot) && taken.slots.insert(slot) {
                    self.slots.insert(key, slot);
                    self.next_slot = self.next_slot.max(slot + 1);
                }
            }
            "name" => {
                let (index, path) = rest.split_once(' ')?;
                let index: Index = index.parse().ok()?;
                if (ROOT_INO.0 + 1..MAX_INDEX).contains(&index) && taken.names.insert(index) {
                    self.names.insert(Md5::digest(path).into(), index);
                    self.next_name = self.next_name.max(index + 1);
                }
            }
            "rows" => {
                let mut words = rest.split(' ');
                let commit = parse_commit(words.next()?)?;
                let output = words.next()?.parse().ok()?;
                let first: Index = words.next()?.parse().ok()?;
                let count: u32 = words.next()?.parse().ok()?;
                let end = first.checked_add(count.into())?;
                // Ranges are given away in ascending order.
                let is_free = self.ends.get(&commit).is_none_or(|end| *end <= first);
                if is_free && end < MAX_INDEX {
                    self.add_rows((commit, output), first, count);
                }
            }
            _ => {}
        }
        Some(())
    }
}

fn parse_commit(text: &str) -> Option<CommitId> {
    CommitId::parse(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::git::GitId;

    fn commit(byte: u8) -> CommitId {
        CommitId(GitId([byte; 20]))
    }

    #[test]
    fn an_inode_number_is_slot_and_index() {
        let ino = Ino::new(7, 123_456_789_012);
        assert_eq!((ino.slot(), ino.index()), (7, 123_456_789_012));
        assert_eq!((ROOT_INO.slot(), ROOT_INO.index()), (0, 1));
    }

    #[test]
    fn a_table_gives_the_same_numbers_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inodes");
        let table = InodeTable::open(&path).unwrap();
        let main = table.slot(commit(1), "branches/main");
        let tag = table.slot(commit(1), "tags/v 1");
        let name = table.name("branches/feature");
        assert_ne!(main, tag);
        assert!(InodeTable::open(&path).is_err(), "one process holds it at a time");
        drop(table);

        let again = InodeTable::open(&path).unwrap();
        assert_eq!(again.slot(commit(1), "tags/v 1"), tag);
        assert_eq!(again.slot(commit(1), "branches/main"), main);
        assert_eq!(again.name("branches/feature"), name);
        assert!(again.slot(commit(2), "branches/main") > tag);
    }

    #[test]
    fn a_damaged_table_costs_the_damaged_lines_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inodes");
        let table = InodeTable::open(&path).unwrap();
        let slot = table.slot(commit(1), "branches/main").unwrap();
        drop(table);
        let mut text = fs::read(&path).unwrap();
        text.splice(0..0, b"slot x y z\n\xff\xfe\n".iter().copied());
        let other = commit(9);
        let conflicts = format!("slot {slot} {other} tags/x\nslot 4294967295 {other} tags/y\n");
        text.extend_from_slice(conflicts.as_bytes());
        text.extend_from_slice(b"slot 99999 0101");
        fs::write(&path, text).unwrap();

        let table = InodeTable::open(&path).unwrap();
        assert_eq!(table.slot(commit(1), "branches/main"), Some(slot));
        table.slot(commit(3), "branches/main");
        drop(table);
        let again = InodeTable::open(&path).unwrap();
        assert_eq!(again.slot(commit(3), "branches/main"), Some(slot + 1));
    }

    #[test]
    fn no_slot_is_given_twice_once_all_are_given_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inodes");
        fs::write(&path, format!("slot {} {} tags/x\n", MAX_SLOT - 1, commit(1))).unwrap();
        let table = InodeTable::open(&path).unwrap();
        assert_eq!(table.slot(commit(1), "tags/x"), Some(MAX_SLOT - 1));
        assert_eq!(table.slot(commit(1), "tags/y"), None);
    }
}
