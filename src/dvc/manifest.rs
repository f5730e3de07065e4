//! `.dir` manifests: what a tracked directory holds.
//!
//! A manifest is a JSON list of `{"md5": ..., "relpath": ...}`, a million long at times, so it is
//! read as a stream: one entry is in memory at a time and each is accepted or refused by itself.
//! [`read()`] tries the exact form that DVC writes first, and any JSON only where that fails.
//! Names are bytes. DVC 1 wrote those that are not UTF-8 as lone surrogates (Python's
//! `surrogateescape`), which a strict JSON string cannot hold.

pub mod edit;
pub mod merge;
pub mod write;
mod written;

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::dvc::place::check_relpath;
use crate::dvc::{BadEntry, Flaw};
use crate::id::{Digest, parse_digest};

/// What one entry may take in the manifest, in bytes; a path of 4096 bytes, escaped, takes 24,576.
const ENTRY_MAX: u64 = 64 << 10;
/// How many refused entries are reported one by one.
const REPORTED_MAX: usize = 100;

/// One file of a tracked directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place below the directory: one or more names that each passed
    /// [`check_name`](crate::path::check_name), joined by `/`.
    pub relpath: &'a [u8],
    /// Its content, hashed by the scheme of the manifest's own id; nothing if the manifest gives
    /// no usable hash, so that the file is there but cannot be read.
    pub digest: Option<Digest>,
}

/// What was left out of a manifest that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// How many entries were refused.
    pub count: u64,
    /// The first hundred of them.
    pub entries: Vec<BadEntry>,
}

impl Refused {
    fn add(&mut self, entry: BadEntry) {
        self.count += 1;
        if self.entries.len() < REPORTED_MAX {
            self.entries.push(entry);
        }
    }
}

/// Why a manifest cannot be read. Entries given out before are not to be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The source failed.
    #[error("cannot read the manifest")]
    Read(#[source] io::Error),
    /// The text is no JSON list, is cut short, or has an entry beyond all measure.
    #[error("damaged manifest")]
    Damaged(#[source] serde_json::Error),
}

impl From<serde_json::Error> for ManifestError {
    fn from(error: serde_json::Error) -> Self {
        match error.io_error_kind() {
            // Ours, for an entry that is too long; a source that fails gives other kinds.
            None | Some(io::ErrorKind::InvalidData) => Self::Damaged(error),
            Some(_) => Self::Read(error.into()),
        }
    }
}

/// Takes the entries of a manifest.
pub trait Sink {
    /// Takes a sound entry; they come in the order of the text.
    fn take(&mut self, entry: Entry<'_>);

    /// Forgets every entry taken so far: the text is read again from its beginning.
    fn start_over(&mut self);
}

/// Reads a manifest as [`parse`] does, but quicker where it has the form that DVC writes. `open`
/// gives the text from its beginning, each time it is called.
pub fn read<R: BufRead>(
    open: impl Fn() -> io::Result<R>,
    sink: &mut dyn Sink,
) -> Result<Refused, ManifestError> {
    let open = || open().map_err(ManifestError::Read);
    let scanned = written::scan(open()?, &mut |entry| sink.take(entry));
    if let Some(refused) = scanned.map_err(ManifestError::Read)? {
        return Ok(refused);
    }
    sink.start_over();
    parse(open()?, &mut |entry| sink.take(entry))
}

/// Reads a manifest, giving each sound entry to `accept` in the order of the text.
///
/// Entries are checked one by one only: the same `relpath` twice (the last one counts) and a file
/// `a` beside `a/b` (the folder counts) are for the builder of the tree to settle.
pub fn parse(
    reader: impl BufRead,
    accept: &mut dyn FnMut(Entry<'_>),
) -> Result<Refused, ManifestError> {
    let left = Cell::new(ENTRY_MAX);
    let mut refused = Refused::default();
    let mut json = serde_json::Deserializer::from_reader(Rationed { reader, left: &left });
    Entries { left: &left, accept, refused: &mut refused }.deserialize(&mut json)?;
    left.set(ENTRY_MAX);
    json.end()?;
    Ok(refused)
}

/// Passes on no more bytes than are left, so that no single entry can fill the memory.
struct Rationed<'a, R> {
    reader: R,
    left: &'a Cell<u64>,
}

impl<R: BufRead> Read for Rationed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.reader.fill_buf()?;
        let length = available.len().min(buffer.len());
        let left = self.left.get().checked_sub(length as u64);
        let left =
            left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an entry over 64 KiB"))?;
        self.left.set(left);
        buffer[..length].copy_from_slice(&available[..length]);
        self.reader.consume(length);
        Ok(length)
    }
}

struct Entries<'a> {
    left: &'a Cell<u64>,
    accept: &'a mut dyn FnMut(Entry<'_>),
    refused: &'a mut Refused,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        // Raw first: a wrong type inside an entry then costs that entry, not the list.
        while let Some(raw) = list.next_element::<Box<RawValue>>()? {
            self.left.set(ENTRY_MAX);
            match read_entry(raw.get()) {
                Ok((relpath, digest)) => (self.accept)(Entry { relpath: &relpath, digest }),
                Err(entry) => self.refused.add(entry),
            }
        }
        Ok(())
    }
}

/// An entry as written; other keys are ignored.
#[derive(serde::Deserialize)]
struct RawEntry {
    relpath: Option<Text>,
    md5: Option<Text>,
}

/// As [`RawEntry`], for an entry whose hash is not even text.
#[derive(serde::Deserialize)]
struct Nameless {
    relpath: Option<Text>,
}

fn read_entry(raw: &str) -> Result<(Vec<u8>, Option<Digest>), BadEntry> {
    let refuse = |why: Flaw| BadEntry::new(raw.as_bytes(), why);
    let entry = serde_json::from_str(raw).or_else(|_| {
        serde_json::from_str(raw).map(|Nameless { relpath }| RawEntry { relpath, md5: None })
    });
    let RawEntry { relpath, md5 } =
        entry.ok().ok_or_else(|| refuse(Flaw::Shape("not an entry with a path")))?;
    let relpath = relpath.ok_or_else(|| refuse(Flaw::Shape("no path")))?;
    let relpath = unescape_surrogates(relpath.0)
        .ok_or_else(|| refuse(Flaw::Shape("a lone surrogate that stands for no byte")))?;
    check_relpath(&relpath).map_err(|flaw| BadEntry::new(&relpath, flaw))?;
    let digest = md5.and_then(|Text(md5)| parse_digest(std::str::from_utf8(&md5).ok()?).ok());
    Ok((relpath, digest))
}

/// A JSON string in which lone surrogates are kept, in the three-byte form of WTF-8.
struct Text(Vec<u8>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(bytes.to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Text, A::Error> {
                Err(A::Error::custom("a list where a string is wanted"))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// Turns the surrogates U+DC80 to U+DCFF back into the bytes they stand for; nothing if there is
/// another one.
fn unescape_surrogates(text: Vec<u8>) -> Option<Vec<u8>> {
    /// Begins every surrogate in WTF-8, and some sound characters of three bytes.
    const LEAD: u8 = 0xed;
    if !text.contains(&LEAD) {
        return Some(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_slice();
    while let [first, after @ ..] = rest {
        let (byte, after) = match (*first, after) {
            // Each is 0xdc00 and the byte: 110111 in the first bits, the byte in the others.
            (LEAD, [middle @ 0xb2..=0xb3, last, after @ ..]) => {
                ((middle & 0b11) << 6 | (last & 0x3f), after)
            }
            (LEAD, [0xa0..=0xbf, ..]) => return None,
            (byte, after) => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    use proptest::collection::vec;
    use proptest::prelude::*;

    const MD5: &str = "b026324c6904b2a9cb4b88d6d61c81d1";

    type Files = Vec<(Vec<u8>, bool)>;

    fn read(text: &str) -> Result<(Files, Refused), ManifestError> {
        let mut files = Vec::new();
        let refused = parse(text.as_bytes(), &mut |e| {
            files.push((e.relpath.to_vec(), e.digest.is_some()));
        })?;
        Ok((files, refused))
    }

    /// The names of a manifest that has these strings, as JSON, for `relpath`.
    fn names(relpaths: &[&str]) -> Vec<Vec<u8>> {
        let entry = |path: &&str| format!(r#"{{"md5": "{MD5}", "relpath": {path}}}"#);
        let list: Vec<_> = relpaths.iter().map(entry).collect();
        let (files, _) = read(&format!("[{}]", list.join(", "))).unwrap();
        files.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_dvc_writes() {
        let text = format!(
            r#"[{{"md5": "{MD5}", "relpath": "b.txt"}}, {{"md5": "{MD5}", "relpath": "sub/deep/\u00fc \ud83d\ude00\u007f"}}]"#
        );
        let (files, refused) = read(&text).unwrap();
        let expected: Files =
            vec![(b"b.txt".to_vec(), true), ("sub/deep/ü 😀\u{7f}".as_bytes().to_vec(), true)];
        assert_eq!(files, expected);
        assert_eq!(refused, Refused::default());
        assert_eq!(read("[]").unwrap().0, []);
    }

    #[test]
    fn lone_surrogates_are_the_bytes_they_stand_for() {
        assert_eq!(names(&[r#""b\udcff\udc80.x""#]), [b"b\xff\x80.x"]);
        assert_eq!(names(&[r#""\ud83d\ude00\udce9""#]), [b"\xf0\x9f\x98\x80\xe9"]);
        assert_eq!(names(&[r#""\ud7ff\uac00""#]), ["\u{d7ff}가".as_bytes()]);
        assert_eq!(names(&["\"ü raw\""]), ["ü raw".as_bytes()]);
    }

    #[test]
    fn other_lone_surrogates_are_refused() {
        let none: [&[u8]; 0] = [];
        assert_eq!(names(&[r#""\ud83d""#, r#""\udd00""#, r#""\ude00\ud83d""#]), none);
        assert_eq!(names(&[r#""\udc7f""#, r#""\udc2f""#]), none);
    }

    #[test]
    fn hostile_entries_are_refused_one_by_one() {
        let bad = [
            r#""""#,
            r#""/abs""#,
            r#""../evil""#,
            r#""./a""#,
            r#""b//c""#,
            r#""a\u0000b""#,
            r#"".git/hooks/x""#,
            r#""s/.dvc/config""#,
            "7",
            "null",
            "[1]",
        ];
        assert_eq!(names(&[&bad[..], &[r#""ok.bin""#]].concat()), [b"ok.bin"]);
        let long = format!("\"{}\"", "n".repeat(256));
        assert_eq!(names(&[&long, r#""ok""#]), [b"ok"]);
        let (files, refused) =
            read(&format!(r#"[1, "x", null, {{}}, [], {{"md5": "{MD5}"}}]"#)).unwrap();
        assert_eq!(files, []);
        assert_eq!((refused.count, refused.entries.len()), (6, 6));
    }

    #[test]
    fn files_without_a_usable_hash_are_listed() {
        let hashes = ["null", "7", r#""ab""#, r#""../../evil""#, &format!("\"{MD5}.dir\""), "[1]"];
        for md5 in hashes {
            let text = format!(r#"[{{"relpath": "a", "md5": {md5}}}]"#);
            assert_eq!(read(&text).unwrap().0, [(b"a".to_vec(), false)], "{md5}");
        }
        assert_eq!(read(r#"[{"relpath": "a"}]"#).unwrap().0, [(b"a".to_vec(), false)]);
    }

    #[test]
    fn unknown_keys_are_ignored() {
        let text = format!(
            r#"[{{"isexec": true, "md5": "{MD5}", "relpath": "a", "weird": {{"x": [1]}}}}]"#
        );
        assert_eq!(read(&text).unwrap().0, [(b"a".to_vec(), true)]);
    }

    #[test]
    fn other_documents_are_damaged() {
        let cut = format!(r#"[{{"md5": "{MD5}", "relp"#);
        let twice = "[] []";
        for text in ["", "{}", "7", "[", "[1,]", &cut, twice, &"[".repeat(100_000)] {
            assert!(matches!(read(text), Err(ManifestError::Damaged(_))), "{text:.20}");
        }
    }

    #[test]
    fn an_entry_beyond_all_measure_is_not_taken_into_memory() {
        let text = format!(r#"[{{"relpath": "{}"}}]"#, "x".repeat(1 << 20));
        assert!(read(&text).is_err());
        let many =
            format!(r#"[{}{{"relpath": "z"}}]"#, r#"{"relpath": "abcdefgh"},"#.repeat(10_000));
        assert_eq!(read(&many).unwrap().0.len(), 10_001);
    }

    #[test]
    fn reports_are_bounded() {
        let (_, refused) = read(&format!("[{}1]", "1,".repeat(9_999))).unwrap();
        assert_eq!((refused.count, refused.entries.len()), (10_000, REPORTED_MAX));
    }

    /// Writes a name as Python's `json.dumps` does after `os.fsdecode`.
    fn python_json(name: &[u8]) -> String {
        let mut text = String::from("\"");
        for chunk in name.utf8_chunks() {
            for unit in chunk.valid().encode_utf16() {
                match unit {
                    0x22 => text += "\\\"",
                    0x5c => text += "\\\\",
                    0x0a => text += "\\n",
                    0x20..=0x7e => text.push(char::from(unit as u8)),
                    _ => write!(text, "\\u{unit:04x}").unwrap(),
                }
            }
            for byte in chunk.invalid() {
                write!(text, "\\udc{byte:02x}").unwrap();
            }
        }
        text + "\""
    }

    #[derive(Debug, Default, PartialEq)]
    struct Taken(Vec<(Vec<u8>, Option<Digest>)>);

    impl Sink for Taken {
        fn take(&mut self, entry: Entry<'_>) {
            self.0.push((entry.relpath.to_vec(), entry.digest));
        }

        fn start_over(&mut self) {
            self.0.clear();
        }
    }

    /// What the scanner for DVC's own form says, nothing if the text has another, and what the
    /// JSON parser says.
    fn both_ways(text: &[u8]) -> [Option<(Taken, Refused)>; 2] {
        let (mut scanned, mut parsed) = (Taken::default(), Taken::default());
        let by_scan = written::scan(text, &mut |entry| scanned.take(entry)).unwrap();
        let by_parse = parse(text, &mut |entry| parsed.take(entry)).ok();
        [by_scan.map(|refused| (scanned, refused)), by_parse.map(|refused| (parsed, refused))]
    }

    #[test]
    fn the_form_that_dvc_writes_is_read_without_the_json_parser() {
        let entry = |path: &str| format!(r#"{{"md5": "{MD5}", "relpath": "{path}"}}"#);
        let paths = ["a", "../up", "", r"\u00fc\ud83d\ude00\udcff", r#"q\"\\\n\r\t\b\f"#, "z\x7f"];
        let many: Vec<_> = (0..20_000).map(|n| entry(&format!("{n:06}{}", paths[n % 6]))).collect();
        let each: Vec<_> = paths.iter().map(|path| entry(path)).collect();
        for text in
            ["[]".to_owned(), format!("[{}]", each.join(", ")), format!("[{}]", many.join(", "))]
        {
            let [scanned, parsed] = both_ways(text.as_bytes());
            assert!(scanned.is_some(), "{text:.200}");
            assert_eq!(scanned, parsed);
        }
    }

    #[test]
    fn another_form_is_read_from_the_beginning_by_the_json_parser() {
        let text = format!(
            r#"[{{"md5": "{MD5}", "relpath": "a"}}, {{"relpath": "b", "md5": "{MD5}"}}, {{"relpath": "c"}}]"#
        );
        let mut taken = Taken::default();
        let refused = super::read(|| Ok(text.as_bytes()), &mut taken).unwrap();
        assert_eq!(refused, Refused::default());
        let names: Vec<_> = taken.0.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(names, [b"a", b"b", b"c"]);
        assert!(both_ways(text.as_bytes())[0].is_none());
    }

    proptest! {
        #[test]
        fn a_text_that_is_scanned_says_what_the_json_parser_says(
            paths in vec("([a-c/.]|\\\\[\"\\\\nrtbf]|\\\\u(00|d8|dc|dd|20)[0-9a-f]{2}){0,6}", 0..5),
            damage in proptest::option::of((0..200_usize, prop_oneof![any::<u8>(), Just(b' '), Just(b'"')])),
        ) {
            let entries = paths.iter().map(|path| format!(r#"{{"md5": "{MD5}", "relpath": "{path}"}}"#));
            let mut text = format!("[{}]", entries.collect::<Vec<_>>().join(", ")).into_bytes();
            if let Some((at, byte)) = damage {
                let at = at % text.len();
                text[at] = byte;
            }
            if let [Some(scanned), parsed] = both_ways(&text) {
                prop_assert_eq!(Some(scanned), parsed);
            }
        }

        #[test]
        fn every_name_that_python_writes_is_read_back(
            name in vec(prop_oneof![any::<u8>(), Just(0xed), 0xa0..=0xbf_u8], 1..40)
        ) {
            prop_assume!(check_relpath(&name).is_ok());
            prop_assert_eq!(names(&[&python_json(&name)]), [name]);
        }

        #[test]
        fn every_text_that_python_writes_is_read_back(name in "\\PC{1,40}") {
            prop_assume!(check_relpath(name.as_bytes()).is_ok());
            prop_assert_eq!(names(&[&python_json(name.as_bytes())]), [name.as_bytes()]);
        }
    }
}
