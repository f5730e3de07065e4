//! The entries of one git tree object, from its raw bytes.
//!
//! libgit2's own parser fails the whole tree over one bad entry; here bad entries are refused one
//! by one and the rest stays readable. A tree is a sequence of `<octal mode> <name> NUL <20 bytes>`.

use super::id::{CommitId, GitId, GitTreeId};
use crate::path::{Name, PathError};

/// What one folder of a commit holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The usable entries, sorted by the bytes of their names, each name once.
    pub entries: Vec<Entry>,
    /// The entries that no file system should show.
    pub refused: Vec<RefusedEntry>,
}

/// One usable entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is, with the object that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    Blob {
        /// Its content.
        id: GitId,
        /// Whether it may be executed.
        is_executable: bool,
    },
    /// A symbolic link.
    Link {
        /// The blob that holds its target.
        id: GitId,
    },
    /// A folder.
    Folder {
        /// Its own listing.
        id: GitTreeId,
    },
    /// A commit of another repository; `git clone` leaves an empty folder here.
    Submodule {
        /// The commit, which is not in this repository.
        id: CommitId,
    },
}

/// An entry that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedEntry {
    /// Its name as it stands in the tree.
    pub name: Vec<u8>,
    /// Why it was left out.
    pub reason: Refusal,
}

/// Why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be the name of a file.
    #[error(transparent)]
    Name(PathError),
    /// It means `.git` to git on some system, and `git checkout` refuses it too.
    #[error("the name stands for `.git`")]
    DotGit,
    /// Its mode is not that of a file, link, folder or submodule.
    #[error("unknown mode {0:o}")]
    Mode(u32),
    /// Another entry has the same name.
    #[error("the name occurs twice")]
    Duplicate,
}

/// Reads the bytes of a tree object; nothing if they are cut off or without the needed separators.
pub(super) fn parse(mut bytes: &[u8]) -> Option<Listing> {
    let mut listing = Listing::default();
    while !bytes.is_empty() {
        let (mode, rest) = split_at_byte(bytes, b' ')?;
        let (name, rest) = split_at_byte(rest, 0)?;
        let (id, rest) = rest.split_first_chunk()?;
        bytes = rest;
        match check(parse_mode(mode)?, name, GitId(*id)) {
            Ok(entry) => listing.entries.push(entry),
            Err(reason) => listing.refused.push(RefusedEntry { name: name.to_vec(), reason }),
        }
    }
    // Git sorts a folder as if its name ended in a slash. The sort is stable: of two entries of
    // one name the first counts.
    listing.entries.sort_by(|a, b| a.name.cmp(&b.name));
    refuse_duplicates(&mut listing);
    Some(listing)
}

fn refuse_duplicates(listing: &mut Listing) {
    let refused = &mut listing.refused;
    listing.entries.dedup_by(|later, first| {
        let is_same = later.name == first.name;
        if is_same {
            let name = later.name.as_bytes().to_vec();
            refused.push(RefusedEntry { name, reason: Refusal::Duplicate });
        }
        is_same
    });
}

fn split_at_byte(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == separator)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

fn parse_mode(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()
}

fn check(mode: u32, name: &[u8], id: GitId) -> Result<Entry, Refusal> {
    let name = Name::new(name).map_err(Refusal::Name)?;
    if stands_for_dot_git(name.as_bytes()) {
        return Err(Refusal::DotGit);
    }
    // Old versions of git wrote other permission bits, so only the type decides, as in git.
    let kind = match mode & 0o170_000 {
        0o100_000 => EntryKind::Blob { id, is_executable: mode & 0o100 != 0 },
        0o120_000 => EntryKind::Link { id },
        0o040_000 => EntryKind::Folder { id: GitTreeId(id) },
        0o160_000 => EntryKind::Submodule { id: CommitId(id) },
        _ => return Err(Refusal::Mode(mode)),
    };
    Ok(Entry { name, kind })
}

/// Whether git, with its default `core.protectNTFS`, refuses to check the name out.
fn stands_for_dot_git(name: &[u8]) -> bool {
    let lower = name.to_ascii_lowercase();
    let rest = lower.strip_prefix(b".git").or_else(|| lower.strip_prefix(b"git~1"));
    let is_filler = |b: &u8| matches!(b, b'.' | b' ');
    match rest.map(|rest| rest.iter().find(|b| !is_filler(b))) {
        None => false,
        Some(None) => true,
        Some(Some(b)) => matches!(b, b':' | b'\\'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (mode, name) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(&[7; 20]);
        }
        bytes
    }

    fn names(listing: &Listing) -> Vec<&[u8]> {
        listing.entries.iter().map(|e| e.name.as_bytes()).collect()
    }

    #[test]
    fn entries_come_with_their_kind_sorted_by_name() {
        let bytes = tree(&[
            ("100644", b"a.b"),
            ("40000", b"a"),
            ("100755", b"run"),
            ("100664", b"old"),
            ("120000", b"link"),
            ("160000", b"sub"),
        ]);
        let listing = parse(&bytes).unwrap();
        assert_eq!(names(&listing), [&b"a"[..], b"a.b", b"link", b"old", b"run", b"sub"]);
        let id = GitId([7; 20]);
        let kinds: Vec<_> = listing.entries.iter().map(|e| e.kind).collect();
        assert_eq!(kinds[0], EntryKind::Folder { id: GitTreeId(id) });
        assert_eq!(kinds[2], EntryKind::Link { id });
        assert_eq!(kinds[3], EntryKind::Blob { id, is_executable: false });
        assert_eq!(kinds[4], EntryKind::Blob { id, is_executable: true });
        assert_eq!(kinds[5], EntryKind::Submodule { id: CommitId(id) });
    }

    #[test]
    fn hostile_entries_are_refused_one_by_one() {
        let long = [b'x'; 256];
        let refused: &[(&[u8], Refusal)] = &[
            (b"..", Refusal::Name(PathError::Dots)),
            (b"", Refusal::Name(PathError::Empty)),
            (b"a/b", Refusal::Name(PathError::Slash)),
            (&long, Refusal::Name(PathError::TooLong)),
            (b".GIT", Refusal::DotGit),
            (b".git. .", Refusal::DotGit),
            (b".git::$INDEX_ALLOCATION", Refusal::DotGit),
            (b"GIT~1", Refusal::DotGit),
        ];
        let mut entries: Vec<(&str, &[u8])> = refused.iter().map(|(n, _)| ("100644", *n)).collect();
        entries.push(("100644", b".gitignore"));
        let listing = parse(&tree(&entries)).unwrap();
        assert_eq!(names(&listing), [b".gitignore"]);
        let found: Vec<_> = listing.refused.iter().map(|r| (&r.name[..], r.reason)).collect();
        assert_eq!(found, refused);
    }

    #[test]
    fn of_two_entries_of_one_name_the_first_counts() {
        let listing = parse(&tree(&[("100644", b"a"), ("100644", b"a.b"), ("40000", b"a")]));
        let listing = listing.unwrap();
        assert_eq!(names(&listing), [&b"a"[..], b"a.b"]);
        assert!(matches!(listing.entries[0].kind, EntryKind::Blob { .. }));
        let expected = RefusedEntry { name: b"a".to_vec(), reason: Refusal::Duplicate };
        assert_eq!(listing.refused, [expected]);
    }

    #[test]
    fn unknown_modes_are_refused() {
        let listing = parse(&tree(&[("60000", b"device")])).unwrap();
        assert_eq!(listing.refused[0].reason, Refusal::Mode(0o60000));
    }

    #[test]
    fn cut_off_trees_are_not_understood() {
        let bytes = tree(&[("100644", b"a")]);
        assert_eq!(parse(b""), Some(Listing::default()));
        for end in 1..bytes.len() {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
        assert_eq!(parse(&tree(&[("99", b"a")])), None);
    }
}
