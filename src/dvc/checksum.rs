//! Checking content against its hash, in one pass.
//!
//! DVC 3 hashes the bytes as they are. Up to version 2 it turned `\r\n` into `\n` in text, and what
//! counts as text was decided differently over the years, so one legacy hash may be any of three:
//!
//! - of the raw bytes (text without `\r\n`, or an object that took the place of a twin),
//! - normalised if the first 512 bytes of the file look like text (DVC 1 and 2),
//! - normalised piece by piece, where the first 512 bytes of each 2^20 bytes look like text (DVC 3).
//!
//! A `\r\n` across the border of two pieces is never touched. The last two agree until a piece
//! looks unlike the first, so the third hasher starts only there, as a copy of the second.

use super::md5::Md5;
use crate::id::{Digest, Scheme};

/// DVC reads files in pieces of this many bytes.
const PIECE: usize = 1 << 20;
/// What decides whether a piece is text, in bytes from its start.
const HEAD: usize = 512;

/// Hashes content as it comes, in chunks of any size, from its first byte to its last.
pub struct Checker {
    raw: Md5,
    legacy: Option<Legacy>,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

/// The hashes that a content may be named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// Of the bytes as they are.
    pub raw: Digest,
    /// As DVC 1 and 2 hash; nothing for content that is not named so.
    pub by_file: Option<Digest>,
    /// As DVC 3 hashes what it takes for legacy data; nothing for content that is not named so.
    pub by_piece: Option<Digest>,
}

impl Digests {
    /// Whether the content is the one named `digest`.
    pub fn matches(&self, digest: &Digest) -> bool {
        self.raw == *digest || [self.by_file, self.by_piece].contains(&Some(*digest))
    }
}

impl Checker {
    /// Begins a content named by `scheme`. Manifests are hashed as they are in either scheme.
    pub fn new(scheme: Scheme, is_manifest: bool) -> Self {
        let is_legacy = scheme == Scheme::Dos2Unix && !is_manifest;
        Self { raw: Md5::new(), legacy: is_legacy.then(Legacy::new) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.raw.update(bytes);
        if let Some(legacy) = &mut self.legacy {
            legacy.update(bytes);
        }
    }

    /// Ends the content.
    pub fn finish(self) -> Digests {
        let legacy = self.legacy.map(Legacy::finish);
        Digests {
            raw: self.raw.finish(),
            by_file: legacy.map(|(by_file, _)| by_file),
            by_piece: legacy.map(|(_, by_piece)| by_piece),
        }
    }
}

/// The two legacy hashes of one content.
struct Legacy {
    by_file: Option<Normaliser>,
    /// Nothing while it is the same as `by_file`.
    by_piece: Option<Normaliser>,
    /// The start of a piece that is not decided on yet.
    head: Vec<u8>,
    /// How much of the current piece has come.
    piece_len: usize,
}

impl Legacy {
    fn new() -> Self {
        Self { by_file: None, by_piece: None, head: Vec::with_capacity(HEAD), piece_len: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let target = if self.piece_len < HEAD { HEAD } else { PIECE };
            let (now, later) = bytes.split_at(bytes.len().min(target - self.piece_len));
            self.piece_len += now.len();
            if target == HEAD {
                self.head.extend_from_slice(now);
            } else {
                self.feed(now);
            }
            if self.piece_len == HEAD {
                self.decide();
            }
            if self.piece_len == PIECE {
                self.end_piece();
            }
            bytes = later;
        }
    }

    /// Decides whether the piece is text, and hashes its start.
    fn decide(&mut self) {
        let is_text = is_text(&self.head);
        let by_file = self.by_file.get_or_insert_with(|| Normaliser::new(is_text));
        if self.by_piece.is_none() && by_file.is_text != is_text {
            self.by_piece = Some(by_file.clone());
        }
        if let Some(by_piece) = &mut self.by_piece {
            by_piece.is_text = is_text;
        }
        let head = std::mem::take(&mut self.head);
        self.feed(&head);
    }

    fn feed(&mut self, bytes: &[u8]) {
        for normaliser in [&mut self.by_file, &mut self.by_piece].into_iter().flatten() {
            normaliser.feed(bytes);
        }
    }

    fn end_piece(&mut self) {
        for normaliser in [&mut self.by_file, &mut self.by_piece].into_iter().flatten() {
            normaliser.end_piece();
        }
        self.piece_len = 0;
    }

    fn finish(mut self) -> (Digest, Digest) {
        if self.piece_len < HEAD && (self.piece_len > 0 || self.by_file.is_none()) {
            self.decide();
        }
        self.end_piece();
        let by_file = self.by_file.map_or_else(Md5::new, |normaliser| normaliser.hasher);
        let by_file = by_file.finish();
        (by_file, self.by_piece.map_or(by_file, |normaliser| normaliser.hasher.finish()))
    }
}

/// Hashes bytes, without the `\r` of each `\r\n` while they are text.
#[derive(Clone)]
struct Normaliser {
    hasher: Md5,
    is_text: bool,
    /// A `\r` that came last and is not hashed yet, since a `\n` may follow.
    has_return: bool,
}

impl Normaliser {
    fn new(is_text: bool) -> Self {
        Self { hasher: Md5::new(), is_text, has_return: false }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if !self.is_text {
            return self.hasher.update(bytes);
        }
        let Some(first) = bytes.first() else { return };
        if self.has_return && *first != b'\n' {
            self.hasher.update(b"\r");
        }
        self.has_return = bytes.last() == Some(&b'\r');
        let bytes = if self.has_return { &bytes[..bytes.len() - 1] } else { bytes };
        let mut start = 0;
        for at in memchr::memmem::find_iter(bytes, b"\r\n") {
            self.hasher.update(&bytes[start..at]);
            start = at + 1;
        }
        self.hasher.update(&bytes[start..]);
    }

    fn end_piece(&mut self) {
        if std::mem::take(&mut self.has_return) {
            self.hasher.update(b"\r");
        }
    }
}

/// DVC's guess: no NUL, and at most three bytes in ten that are not printable ASCII.
fn is_text(head: &[u8]) -> bool {
    let is_odd = |byte: &&u8| !matches!(byte, 0x20..=0x7e | b'\n' | b'\r' | b'\t' | 0x0c | 0x08);
    !head.contains(&0) && head.iter().filter(is_odd).count() * 10 <= head.len() * 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::hex;
    use md5::Digest as _;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn digests(chunks: &[&[u8]]) -> Digests {
        let mut checker = Checker::new(Scheme::Dos2Unix, false);
        for chunk in chunks {
            checker.update(chunk);
        }
        checker.finish()
    }

    fn md5(bytes: &[u8]) -> Digest {
        md5::Md5::digest(bytes).into()
    }

    /// The definition, on content that is all in memory: `decide` sees the file and the piece.
    fn reference(bytes: &[u8], decide: impl Fn(&[u8]) -> bool) -> Digest {
        let mut normal = Vec::new();
        for piece in bytes.chunks(PIECE) {
            let is_text = decide(piece);
            let next = piece.iter().skip(1).map(Some).chain([None]);
            let pairs = piece.iter().zip(next);
            let kept = pairs.filter(|pair| !(is_text && *pair == (&b'\r', Some(&b'\n'))));
            normal.extend(kept.map(|(byte, _)| *byte));
        }
        md5(&normal)
    }

    fn head(bytes: &[u8]) -> &[u8] {
        &bytes[..bytes.len().min(HEAD)]
    }

    fn expected(bytes: &[u8]) -> Digests {
        let is_text_file = is_text(head(bytes));
        Digests {
            raw: md5(bytes),
            by_file: Some(reference(bytes, |_| is_text_file)),
            by_piece: Some(reference(bytes, |piece| is_text(head(piece)))),
        }
    }

    /// Text with `\r\n` for one piece, then pieces that are not text: hashes as seen in DVC.
    fn two_chunks() -> Vec<u8> {
        let mut bytes = b"text line\r\n".repeat(100_000);
        bytes.truncate(PIECE);
        bytes.extend(b"\x00\x01\r\n".repeat(1000));
        bytes
    }

    #[test]
    fn versions_of_dvc_disagree_on_text_followed_by_binary() {
        let digests = digests(&[&two_chunks()]);
        assert_eq!(hex(&digests.by_file.unwrap()), "df30b2c96d376e269880c0cfc0a61c80");
        assert_eq!(hex(&digests.by_piece.unwrap()), "ed4a61ccc583fa0703f58f7560558bf9");
        assert_eq!(hex(&digests.raw), "299f9fcee762cce4c492d1fc1e7b4d64");
        for digest in [digests.raw, digests.by_file.unwrap(), digests.by_piece.unwrap()] {
            assert!(digests.matches(&digest));
        }
        assert!(!digests.matches(&md5(b"other")));
    }

    #[test]
    fn hashes_that_dvc_2_gave_are_matched() {
        let straddle = [&b"a".repeat(PIECE - 1)[..], b"\r\nb\r\n"].concat();
        for (bytes, digest) in [
            (&b"line1\r\nline2\r\n"[..], "4fcc82a88ee38e0aa16c17f512c685c9"),
            (b"line1\nline2\n", "4fcc82a88ee38e0aa16c17f512c685c9"),
            (b"a\r\n\0b\r\n", "e9edb956dbaaaedb0aa43117f5961b20"),
            (&b"\xe4\r\n".repeat(40), "1f1de94c7579fa05596f71098f619311"),
            (b"", "d41d8cd98f00b204e9800998ecf8427e"),
            (
                &[&b"x".repeat(600)[..], b"\r\n\0\0\r\n"].concat(),
                "969749571a1fdb7e4b81c7f9d89d3b6b",
            ),
            (&straddle, "deb8178cc400550795d42d701b97846d"),
        ] {
            assert_eq!(hex(&digests(&[bytes]).by_file.unwrap()), digest);
        }
    }

    #[test]
    fn new_content_and_manifests_are_hashed_as_they_are() {
        for (scheme, is_manifest) in
            [(Scheme::Md5, false), (Scheme::Md5, true), (Scheme::Dos2Unix, true)]
        {
            let mut checker = Checker::new(scheme, is_manifest);
            checker.update(b"x\r\n");
            let digests = checker.finish();
            assert_eq!(digests, Digests { raw: md5(b"x\r\n"), by_file: None, by_piece: None });
            assert!(!digests.matches(&md5(b"x\n")));
        }
    }

    #[test]
    fn three_odd_bytes_in_ten_are_still_text() {
        assert!(is_text(b""));
        assert!(is_text(b"aaaaaaa\x80\x80\x80"));
        assert!(!is_text(b"aaaaaa\x80\x80\x80\x7f"));
        assert!(!is_text(b"aaaaaaaaaa\0"));
    }

    #[test]
    fn returns_at_the_borders_of_pieces_stay() {
        for tail in [&b"\r\nx\r\n"[..], b"\r", b"\r\r\n", b"\n"] {
            for len in [PIECE - 2, PIECE - 1, PIECE, 2 * PIECE - 1] {
                let bytes = [&b"a".repeat(len)[..], tail].concat();
                assert_eq!(digests(&[&bytes]), expected(&bytes), "{len} and {tail:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn chunks_of_any_size_give_the_same(
            line in vec(prop_oneof![select(&b"\r\na"[..]), any::<u8>()], 0..1500),
            cuts in vec(0..1500_usize, 0..12),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(line.len())).collect();
            cuts.extend([0, line.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|pair| &line[pair[0]..pair[1]]).collect();
            prop_assert_eq!(digests(&chunks), expected(&line));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4))]

        #[test]
        fn pieces_are_counted_from_the_start_of_the_content(
            parts in vec((select(&["x\r\n", "\0\r\n", "\r"][..]), 1..400_000_usize), 1..4),
            chunk in 1..3_000_000_usize,
        ) {
            let bytes: Vec<u8> = parts.iter().flat_map(|(unit, n)| unit.as_bytes().repeat(*n)).collect();
            let chunks: Vec<_> = bytes.chunks(chunk).collect();
            prop_assert_eq!(digests(&chunks), expected(&bytes));
        }
    }
}
