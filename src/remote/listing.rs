//! What a listing is asked for and what it gives.

use crate::id::{Key, Scheme, hex};

/// How many objects a page has at most.
pub const PAGE: usize = 1000;

/// The objects of one layout whose hash begins with certain hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    scheme: Scheme,
    digits: u8,
    value: u16,
}

impl Prefix {
    /// Every object of a layout.
    pub const fn whole(scheme: Scheme) -> Self {
        Self { scheme, digits: 0, value: 0 }
    }

    /// The objects whose hash begins as that of `key`, in so many digits: at most four.
    pub fn of(key: &Key, digits: u8) -> Self {
        let digits = digits.min(4);
        let first = u32::from(u16::from_be_bytes([key.digest[0], key.digest[1]]));
        let value = (first >> (16 - 4 * u32::from(digits))) as u16;
        Self { scheme: key.scheme, digits, value }
    }

    /// As few objects as have both of these between them.
    pub fn around(first: &Key, last: &Key) -> Self {
        let longest = (1..=4).rev().find(|digits| Self::of(first, *digits).contains(last));
        Self::of(first, longest.unwrap_or(0))
    }

    /// Whether an object is one of them.
    pub fn contains(self, key: &Key) -> bool {
        Self::of(key, self.digits) == self
    }

    /// What the names of these objects begin with, below a remote's URL; a folder if it ends in
    /// a slash or is empty.
    pub fn path(self) -> String {
        let (root, digits) = (root_of(self.scheme), usize::from(self.digits));
        let shifted = u32::from(self.value) << (16 - 4 * self.digits);
        let mut digest = [0; 16];
        digest[..2].copy_from_slice(&(shifted as u16).to_be_bytes());
        let text = hex(&digest);
        match digits {
            0 | 1 => format!("{root}{}", &text[..digits]),
            _ => format!("{root}{}/{}", &text[..2], &text[2..digits]),
        }
    }

    /// The folder, with its slash, of the objects whose hash begins with this byte.
    pub(super) fn folder(self, first: u8) -> String {
        format!("{}{first:02x}/", root_of(self.scheme))
    }

    /// The first byte of the hashes of these objects.
    pub(super) fn first_bytes(self) -> std::ops::RangeInclusive<u8> {
        let first = ((u32::from(self.value) << (16 - 4 * self.digits)) >> 8) as u8;
        match self.digits {
            0 => 0..=0xff,
            1 => first..=first | 0x0f,
            _ => first..=first,
        }
    }

    /// Whether everything in the order of names from `name` on lies behind the layout: only the
    /// older one shares its folder with other things.
    pub(super) fn is_past(self, name: &str) -> bool {
        name.strip_prefix(root_of(self.scheme)).is_some_and(|name| name > LAST)
    }
}

/// No object of a layout is behind this name.
const LAST: &str = "fg";

/// Where a layout begins, below a remote's URL.
const fn root_of(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Md5 => "files/md5/",
        Scheme::Dos2Unix => "",
    }
}

/// Some objects of a remote, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects and their sizes in bytes. What is no object of the layout is left out.
    pub objects: Vec<(Key, u64)>,
    /// The name that the next page comes after; none if this is the last one. A page may be empty
    /// and still have a next one.
    pub next: Option<String>,
}

impl Page {
    /// The first page of objects that are in the order of their names.
    pub(super) fn cut(objects: impl IntoIterator<Item = (Key, u64)>) -> Self {
        let mut objects: Vec<_> = objects.into_iter().take(PAGE + 1).collect();
        let next = (objects.len() > PAGE).then(|| objects[PAGE - 1].0.path());
        objects.truncate(PAGE);
        Self { objects, next }
    }
}

/// What an error says of a listing.
pub(crate) fn list_action(prefix: Prefix) -> String {
    format!("list {}* at", prefix.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u16, scheme: Scheme) -> Key {
        let mut digest = [7; 16];
        digest[..2].copy_from_slice(&first.to_be_bytes());
        Key { digest, scheme, is_manifest: false }
    }

    #[test]
    fn a_prefix_is_what_the_names_of_its_objects_begin_with() {
        let (new, old) = (key(0xab0c, Scheme::Md5), key(0xab0c, Scheme::Dos2Unix));
        let paths = |key| (0..=4).map(move |digits| Prefix::of(&key, digits).path());
        let expected = ["", "a", "ab/", "ab/0", "ab/0c"];
        assert!(paths(old).eq(expected));
        assert!(paths(new).eq(expected.map(|path| format!("files/md5/{path}"))));
        for digits in 0..=4 {
            let prefix = Prefix::of(&new, digits);
            assert!(new.path().starts_with(&prefix.path()) && prefix.contains(&new));
            assert!(!prefix.contains(&old));
            let other = key(0xbb0c, Scheme::Md5);
            assert_eq!(prefix.contains(&other), other.path().starts_with(&prefix.path()));
        }
        assert_eq!(Prefix::of(&new, 0), Prefix::whole(Scheme::Md5));
        let around = |other| Prefix::around(&new, &key(other, Scheme::Md5)).path();
        assert_eq!(
            ["", "a", "ab/", "ab/0", "ab/0c"].map(|digits| format!("files/md5/{digits}")),
            [0x0b0c, 0xaa0c, 0xab1c, 0xab0d, 0xab0c].map(around)
        );
    }

    #[test]
    fn a_prefix_knows_its_first_bytes() {
        let bytes = |digits| Prefix::of(&key(0xab0c, Scheme::Md5), digits).first_bytes();
        assert_eq!([0, 1, 2, 3].map(bytes), [0..=0xff, 0xa0..=0xaf, 0xab..=0xab, 0xab..=0xab]);
    }

    #[test]
    fn the_older_layout_ends_before_its_neighbours() {
        let old = Prefix::whole(Scheme::Dos2Unix);
        assert!(old.is_past("files/md5/00/") && old.is_past("runs/x"));
        assert!(!old.is_past("ff/ffffffffffffffffffffffffffffff.dir") && !old.is_past("cache.txt"));
    }
}
