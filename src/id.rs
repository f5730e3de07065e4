//! Content hashes: how they are parsed, printed and turned into object keys.
//!
//! DVC names content by MD5. Version 3 hashes the bytes as they are; versions up to 2 normalised
//! line endings first, and the two kinds live under different keys, so a hash is only a name
//! together with its [`Scheme`].

use std::fmt;

/// How the bytes were hashed, which also decides where the object lies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Scheme {
    /// MD5 of the bytes (DVC 3); objects under `files/md5/`.
    Md5,
    /// MD5 after `\r\n` became `\n` in text (DVC 0.x to 2); objects at the top.
    Dos2Unix,
}

/// The sixteen bytes of an MD5.
pub type Digest = [u8; 16];

/// Why a text is not a content hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a content hash: {0:?} (want 32 lower-case hex digits)")]
pub struct InvalidId(pub String);

/// Parses exactly 32 lower-case hex digits.
///
/// DVC fetches an upper-case hash under its upper-case name, where no writer of DVC puts anything,
/// so upper case is refused here rather than silently folded.
pub fn parse_digest(text: &str) -> Result<Digest, InvalidId> {
    let mut digest = [0; 16];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut is_hex = pairs.len() == digest.len() && rest.is_empty();
    for (out, [high, low]) in digest.iter_mut().zip(pairs) {
        let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
        is_hex &= high | low < 16;
        *out = high << 4 | low & 15;
    }
    if is_hex { Ok(digest) } else { Err(InvalidId(text.chars().take(64).collect())) }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// What each digit stands for; 255 for what is none.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    nibbles
};

/// Prints a digest as 32 lower-case hex digits.
pub fn hex(digest: &Digest) -> String {
    let mut text = String::with_capacity(32);
    push_hex(&mut text, digest);
    text
}

/// The same, behind a text.
pub fn push_hex(text: &mut String, digest: &Digest) {
    for byte in digest {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

/// Times of contents begin here (2001-09-09) and stay below 2020, in the past of every clock.
pub const TIME_BASE: i64 = 1_000_000_000;

/// The time shown for a content, in seconds since the epoch: a function of its id alone, so that
/// rsync, make and DVC see a change exactly when the bytes changed.
pub fn time_of(id: &[u8]) -> i64 {
    const SPAN: u32 = 600_000_000;
    let mut first = [0; 4];
    first.iter_mut().zip(id).for_each(|(to, from)| *to = *from);
    TIME_BASE + i64::from(u32::from_be_bytes(first) % SPAN)
}

/// Names the content of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlobId {
    /// The MD5.
    pub digest: Digest,
    /// What was hashed.
    pub scheme: Scheme,
}

impl BlobId {
    /// The content of every empty file, which needs no fetch.
    pub const fn is_empty_content(&self) -> bool {
        const EMPTY: Digest = [
            0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8,
            0x42, 0x7e,
        ];
        let mut i = 0;
        while i < 16 {
            if self.digest[i] != EMPTY[i] {
                return false;
            }
            i += 1;
        }
        true
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.digest))
    }
}

/// Names the manifest of a tracked directory; the scheme is also that of every entry inside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TreeId {
    /// The MD5 of the manifest's bytes.
    pub digest: Digest,
    /// Which layout it lies in, and how the entries inside were hashed.
    pub scheme: Scheme,
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.dir", hex(&self.digest))
    }
}

/// One object of a remote or a cache: a blob or a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The MD5 in the object's name.
    pub digest: Digest,
    /// The layout it lies in.
    pub scheme: Scheme,
    /// Whether the name ends in `.dir`.
    pub is_manifest: bool,
}

impl Key {
    /// Whether it names no bytes at all; every other name is of some.
    pub const fn is_of_nothing(&self) -> bool {
        BlobId { digest: self.digest, scheme: self.scheme }.is_empty_content()
    }

    /// Whether it fixes every byte: the twins of a legacy id differ in their line ends, but manifests
    /// are never normalised.
    pub fn fixes_bytes(&self) -> bool {
        self.scheme == Scheme::Md5 || self.is_manifest
    }

    /// The object's place below a remote's URL or a cache directory, such as
    /// `files/md5/ab/cdef...` or, in the older layout, `ab/cdef...`.
    pub fn path(&self) -> String {
        let prefix = match self.scheme {
            Scheme::Md5 => "files/md5/",
            Scheme::Dos2Unix => "",
        };
        let hex = hex(&self.digest);
        let suffix = if self.is_manifest { ".dir" } else { "" };
        format!("{prefix}{}/{}{suffix}", &hex[..2], &hex[2..])
    }

    /// The key with that [`path`](Self::path), if any has it.
    pub fn from_path(path: &str) -> Option<Self> {
        let (scheme, rest) = match path.strip_prefix("files/md5/") {
            Some(rest) => (Scheme::Md5, rest),
            None => (Scheme::Dos2Unix, path),
        };
        let (rest, is_manifest) = match rest.strip_suffix(".dir") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (first, rest) = rest.split_once('/').filter(|(first, _)| first.len() == 2)?;
        let digest = parse_digest(&format!("{first}{rest}")).ok()?;
        Some(Self { digest, scheme, is_manifest })
    }
}

impl From<BlobId> for Key {
    fn from(id: BlobId) -> Self {
        Self { digest: id.digest, scheme: id.scheme, is_manifest: false }
    }
}

impl From<TreeId> for Key {
    fn from(id: TreeId) -> Self {
        Self { digest: id.digest, scheme: id.scheme, is_manifest: true }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips() {
        let text = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(hex(&parse_digest(text).unwrap()), text);
    }

    #[test]
    fn anything_but_32_lower_case_hex_digits_is_refused() {
        for text in
            ["", "ab", "D41D8CD98F00B204E9800998ECF8427E", "../../../../../evil/../../x12345"]
        {
            assert!(parse_digest(text).is_err(), "{text}");
        }
        assert!(parse_digest("g41d8cd98f00b204e9800998ecf8427e").is_err());
        assert!(parse_digest("é1d8cd98f00b204e9800998ecf8427ee").is_err());
    }

    #[test]
    fn keys_follow_the_layout_of_their_scheme() {
        let digest = parse_digest("d751713988987e9331980363e24189ce").unwrap();
        let new = TreeId { digest, scheme: Scheme::Md5 };
        let old = BlobId { digest, scheme: Scheme::Dos2Unix };
        assert_eq!(Key::from(new).path(), "files/md5/d7/51713988987e9331980363e24189ce.dir");
        assert_eq!(Key::from(old).path(), "d7/51713988987e9331980363e24189ce");
        for key in [Key::from(new), Key::from(old)] {
            assert_eq!(Key::from_path(&key.path()), Some(key));
        }
    }

    #[test]
    fn what_is_no_path_of_a_key_gives_none() {
        for path in [
            "",
            "files/md5/d7",
            "d75/1713988987e9331980363e24189ce",
            "d7/51713988987e9331980363e24189c",
            "D7/51713988987e9331980363e24189ce",
            "d7/51713988987e9331980363e24189ce.tmp",
            "files/md5/d7/51713988987e9331980363e24189ce.dir.dir",
            "md5/d7/51713988987e9331980363e24189ce",
        ] {
            assert_eq!(Key::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn times_depend_on_the_content_alone_and_lie_in_the_past() {
        assert_eq!(time_of(&[0; 16]), TIME_BASE);
        assert_ne!(time_of(&[1; 16]), time_of(&[2; 16]));
        assert!(time_of(&[0xff; 16]) < 1_600_000_000);
        assert_eq!(time_of(&[1, 2]), time_of(&[1, 2, 0, 0]));
    }

    #[test]
    fn empty_content_is_recognised() {
        let digest = parse_digest("d41d8cd98f00b204e9800998ecf8427e").unwrap();
        assert!(BlobId { digest, scheme: Scheme::Dos2Unix }.is_empty_content());
    }
}
