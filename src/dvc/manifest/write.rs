//! Writing of manifests, byte for byte as DVC does.
//!
//! The bytes are what Python's `json.dumps` makes of the sorted list: one line of ASCII without a
//! newline. They name the manifest, so that one byte more would make another folder of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, Write};

use super::Entry;
use crate::dvc::json::push_quoted;
use crate::dvc::md5::Md5;
use crate::dvc::place::check_relpath;
use crate::dvc::record::NameFlaw;
use crate::id::{Digest, push_hex};

/// A manifest that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The MD5 of its bytes, which names it.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// How many files it lists.
    pub file_count: u64,
}

/// Writes a manifest entry by entry.
pub struct Writer<W> {
    out: W,
    md5: Md5,
    written: u64,
    file_count: u64,
    /// The entry that is being written.
    text: String,
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("file_count", &self.file_count).finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a manifest; `out` is best buffered.
    pub fn new(out: W) -> Self {
        let text = String::new();
        Self { out, md5: Md5::new(), written: 0, file_count: 0, text }
    }

    /// Writes the next entry. They must come in the [order](compare) of their paths, each path
    /// once.
    pub fn push(&mut self, entry: Entry<'_>) -> io::Result<()> {
        self.text.clear();
        self.text.push_str(if self.file_count == 0 { "[{" } else { ", {" });
        if let Some(digest) = &entry.digest {
            self.text.push_str("\"md5\": \"");
            push_hex(&mut self.text, digest);
            self.text.push_str("\", ");
        }
        self.text.push_str("\"relpath\": ");
        push_quoted(&mut self.text, entry.relpath);
        self.text.push('}');
        self.file_count += 1;
        self.flush()
    }

    /// Ends the manifest.
    pub fn finish(mut self) -> io::Result<Written> {
        self.text.clear();
        self.text.push_str(if self.file_count == 0 { "[]" } else { "]" });
        self.flush()?;
        self.out.flush()?;
        Ok(Written { digest: self.md5.finish(), size: self.written, file_count: self.file_count })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.md5.update(&self.text);
        self.written += self.text.len() as u64;
        self.out.write_all(self.text.as_bytes())
    }
}

/// Writes the manifest of these entries, whatever their order. Of two with one path the later
/// counts.
pub fn compose<'a>(
    entries: impl IntoIterator<Item = Entry<'a>>,
    out: impl Write,
) -> io::Result<Written> {
    let entries = entries.into_iter().map(|entry| (Ordered(entry.relpath), entry.digest));
    let by_path: BTreeMap<_, _> = entries.collect();
    let mut writer = Writer::new(out);
    for (Ordered(relpath), digest) in by_path {
        writer.push(Entry { relpath, digest })?;
    }
    writer.finish()
}

/// The MD5 of the manifest of these entries.
pub fn digest<'a>(entries: impl IntoIterator<Item = Entry<'a>>) -> Digest {
    compose(entries, io::sink()).expect("a sink takes everything").digest
}

/// A path in the order of manifests.
#[derive(PartialEq, Eq)]
struct Ordered<'a>(&'a [u8]);

impl PartialOrd for Ordered<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.0, other.0)
    }
}

/// The order of the paths in a manifest: that of their characters in Python, where a byte that is
/// not UTF-8 counts as a surrogate.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let is_text = |path| str::from_utf8(path).is_ok();
    // For UTF-8, and so nearly always, it is the order of the bytes.
    if is_text(a) && is_text(b) { a.cmp(b) } else { code_points(a).cmp(code_points(b)) }
}

fn code_points(path: &[u8]) -> impl Iterator<Item = u32> {
    path.utf8_chunks().flat_map(|chunk| {
        let invalid = chunk.invalid().iter().map(|byte| 0xdc00 + u32::from(*byte));
        chunk.valid().chars().map(u32::from).chain(invalid)
    })
}

/// Checks the path of a new entry: DVC tracks no names that are not UTF-8, and no files of its own.
pub fn check_new(relpath: &[u8]) -> Result<(), NameFlaw> {
    if str::from_utf8(relpath).is_err() {
        return Err(NameFlaw::NotUtf8);
    }
    let names = || relpath.split(|byte| *byte == b'/');
    names().try_for_each(crate::path::check_name)?;
    let is_own =
        |name: &[u8]| name.ends_with(b".dvc") || name == b"dvc.yaml" || name == b".dvcignore";
    let file = names().next_back().unwrap_or_default();
    if is_own(file) || check_relpath(relpath).is_err() { Err(NameFlaw::DvcFile) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{hex, parse_digest};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MD5: &str = "b026324c6904b2a9cb4b88d6d61c81d1";

    fn text<'a>(
        entries: impl IntoIterator<Item = (&'a [u8], Option<Digest>)>,
    ) -> (String, Written) {
        let mut out = Vec::new();
        let entries = entries.into_iter().map(|(relpath, digest)| Entry { relpath, digest });
        let written = compose(entries, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), written)
    }

    #[test]
    fn an_empty_folder_has_the_manifest_that_dvc_gives_it() {
        let (text, written) = text([]);
        assert_eq!(text, "[]");
        assert_eq!(hex(&written.digest), "d751713988987e9331980363e24189ce");
        assert_eq!((written.size, written.file_count), (2, 0));
    }

    #[test]
    fn what_is_composed_is_what_dvc_writes() {
        let digest = Some(parse_digest(MD5).unwrap());
        let entries: [(&[u8], _); 4] =
            [("s/ü".as_bytes(), digest), (b"b", None), (b"1", None), (b"1", digest)];
        let expected = format!(
            r#"[{{"md5": "{MD5}", "relpath": "1"}}, {{"relpath": "b"}}, {{"md5": "{MD5}", "relpath": "s/\u00fc"}}]"#
        );
        let (text, written) = text(entries);
        assert_eq!(text, expected);
        assert_eq!(written.digest, <[u8; 16]>::from(<md5::Md5 as md5::Digest>::digest(&expected)));
        assert_eq!((written.size, written.file_count), (expected.len() as u64, 3));
    }

    #[test]
    fn paths_are_ordered_as_python_orders_them() {
        let paths: [&[u8]; 9] = [
            b"a-b",
            b"a.b",
            b"a/b",
            "\u{e9}".as_bytes(),
            "\u{d7ff}".as_bytes(),
            b"\x80",
            b"\xff",
            "\u{e000}".as_bytes(),
            "\u{1f600}".as_bytes(),
        ];
        for pair in paths.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
    }

    #[test]
    fn new_paths_are_those_that_dvc_tracks() {
        for path in ["a", "s/ü\n", "dvc.yaml/x", "a.dvc/x"] {
            assert_eq!(check_new(path.as_bytes()), Ok(()), "{path}");
        }
        for path in ["a.dvc", "s/dvc.yaml", ".git/x", "s/.dvc/y", ".dvcignore"] {
            assert_eq!(check_new(path.as_bytes()), Err(NameFlaw::DvcFile), "{path}");
        }
        assert_eq!(check_new(b"s/\xff"), Err(NameFlaw::NotUtf8));
        assert!(matches!(check_new(b"a//b"), Err(NameFlaw::Invalid(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            files in btree_map(vec(any::<u8>(), 1..20), any::<Option<Digest>>(), 0..20)
        ) {
            let files: BTreeMap<_, _> =
                files.into_iter().filter(|(path, _)| check_relpath(path).is_ok()).collect();
            let (text, written) = text(files.iter().map(|(path, digest)| (&path[..], *digest)));
            let mut read = Vec::new();
            let refused = crate::dvc::manifest::parse(text.as_bytes(), &mut |entry| {
                read.push((entry.relpath.to_vec(), entry.digest));
            });
            prop_assert_eq!(refused.unwrap().count, 0);
            prop_assert!(read.windows(2).all(|pair| compare(&pair[0].0, &pair[1].0).is_lt()));
            prop_assert_eq!(read.len() as u64, written.file_count);
            prop_assert_eq!(read.into_iter().collect::<BTreeMap<_, _>>(), files);
        }
    }
}
