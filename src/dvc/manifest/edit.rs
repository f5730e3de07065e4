//! Changing a manifest of any size: the old one streams by, the changes are merged into it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::iter::Peekable;

use super::write::{Writer, Written, compare};
use super::{Entry, ManifestError, Sink, read};
use crate::dvc::BadEntry;
use crate::id::Digest;

/// What is to become of files: their content, or nothing if they are gone. By path below the
/// folder, each path checked by [`check_new`](super::write::check_new).
pub type Changes = BTreeMap<Vec<u8>, Option<Digest>>;

/// Why a manifest cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The old manifest cannot be read.
    #[error(transparent)]
    Old(#[from] ManifestError),
    /// The old manifest has an entry that DVC's own would not have, so that the rest is no sound
    /// base for another.
    #[error("the manifest has an entry that cannot be kept: {0:?}")]
    Bad(BadEntry),
    /// The old manifest is not in DVC's order, so that changes cannot be merged into it as it
    /// streams; it has to be composed anew.
    #[error("the manifest is not sorted")]
    Unsorted,
    /// The new manifest cannot be written.
    #[error("cannot write the manifest")]
    Write(#[source] io::Error),
}

/// Writes the manifest that `open` gives to `out` with `changes` in it.
///
/// Each entry of the old one that is replaced or goes away is given to `gone`. Besides the changes,
/// two entries are in memory at a time. The text is asked for again from its beginning where it does
/// not have the form that DVC writes ([`read()`]).
pub fn edit<R: BufRead>(
    open: impl Fn() -> io::Result<R>,
    changes: &Changes,
    out: impl Write,
    gone: &mut dyn FnMut(Entry<'_>),
) -> Result<Written, EditError> {
    let mut merge = Merge {
        writer: Writer::new(out),
        changes: sorted(changes).into_iter().peekable(),
        last: None,
        gone,
        error: None,
        taken: 0,
        known: 0,
    };
    read_sound(open, &mut merge)?;
    merge.finish()
}

/// Reads a manifest as [`read()`] does; an entry that is refused is an error.
pub fn read_sound<R: BufRead>(
    open: impl Fn() -> io::Result<R>,
    sink: &mut dyn Sink,
) -> Result<(), EditError> {
    let refused = read(open, sink)?;
    refused.entries.into_iter().next().map_or(Ok(()), |entry| Err(EditError::Bad(entry)))
}

/// Takes all that a manifest lists; of two entries with one path the later counts.
impl Sink for Changes {
    fn take(&mut self, entry: Entry<'_>) {
        self.insert(entry.relpath.to_vec(), entry.digest);
    }

    fn start_over(&mut self) {
        self.clear();
    }
}

/// The changes in the order of manifests, which differs from that of bytes for few names.
fn sorted(changes: &Changes) -> Vec<(&[u8], Option<Digest>)> {
    let mut sorted: Vec<_> = changes.iter().map(|(path, digest)| (&path[..], *digest)).collect();
    sorted.sort_by(|a, b| compare(a.0, b.0));
    sorted
}

struct Merge<'a, W: Write, I: Iterator<Item = (&'a [u8], Option<Digest>)>> {
    writer: Writer<W>,
    changes: Peekable<I>,
    /// The entry read last. It is not written yet: if its path comes again, the later one counts.
    last: Option<(Vec<u8>, Option<Digest>)>,
    gone: &'a mut dyn FnMut(Entry<'_>),
    error: Option<EditError>,
    /// How many entries were taken.
    taken: u64,
    /// How many of them come again.
    known: u64,
}

impl<'a, W: Write, I: Iterator<Item = (&'a [u8], Option<Digest>)>> Sink for Merge<'a, W, I> {
    fn take(&mut self, entry: Entry<'_>) {
        if self.known > 0 {
            self.known -= 1;
        } else {
            self.taken += 1;
            self.accept(entry);
        }
    }

    fn start_over(&mut self) {
        // They are the same again, and what they came to is written.
        self.known = self.taken;
    }
}

impl<'a, W: Write, I: Iterator<Item = (&'a [u8], Option<Digest>)>> Merge<'a, W, I> {
    fn accept(&mut self, entry: Entry<'_>) {
        if self.error.is_some() {
            return;
        }
        let order = self.last.as_ref().map(|(last, _)| compare(last, entry.relpath));
        match order {
            Some(Ordering::Greater) => self.error = Some(EditError::Unsorted),
            Some(Ordering::Less) => self.write_last(),
            Some(Ordering::Equal) | None => {}
        }
        self.last = Some((entry.relpath.to_vec(), entry.digest));
    }

    fn write_last(&mut self) {
        let Some((path, digest)) = self.last.take() else { return };
        while let Some(change) = self.changes.next_if(|(new, _)| compare(new, &path).is_lt()) {
            self.write(change.0, change.1);
        }
        let entry = Entry { relpath: &path, digest };
        match self.changes.next_if(|(new, _)| *new == path) {
            Some((_, new)) if new.is_some() && new == digest => self.push(entry),
            Some((_, new)) => {
                (self.gone)(entry);
                self.write(&path, new);
            }
            None => self.push(entry),
        }
    }

    /// Writes what a change puts there, if anything.
    fn write(&mut self, relpath: &[u8], digest: Option<Digest>) {
        if digest.is_some() {
            self.push(Entry { relpath, digest });
        }
    }

    fn push(&mut self, entry: Entry<'_>) {
        if self.error.is_none()
            && let Err(error) = self.writer.push(entry)
        {
            self.error = Some(EditError::Write(error));
        }
    }

    fn finish(mut self) -> Result<Written, EditError> {
        self.write_last();
        while let Some((path, digest)) = self.changes.next() {
            self.write(path, digest);
        }
        match self.error {
            Some(error) => Err(error),
            None => self.writer.finish().map_err(EditError::Write),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dvc::manifest::write::compose;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    type Files = BTreeMap<Vec<u8>, Digest>;

    fn manifest(files: &Files) -> Vec<u8> {
        let entries =
            files.iter().map(|(path, digest)| Entry { relpath: path, digest: Some(*digest) });
        let mut out = Vec::new();
        compose(entries, &mut out).unwrap();
        out
    }

    /// The new manifest, what was written, and the paths that went away.
    type Edited = (Vec<u8>, Written, Vec<Vec<u8>>);

    fn edited(old: &[u8], changes: &Changes) -> Result<Edited, EditError> {
        let (mut out, mut gone) = (Vec::new(), Vec::new());
        let mut gone_is = |entry: Entry<'_>| gone.push(entry.relpath.to_vec());
        let written = edit(|| Ok(old), changes, &mut out, &mut gone_is)?;
        Ok((out, written, gone))
    }

    fn one(path: &str, digest: Option<u8>) -> Changes {
        [(path.as_bytes().to_vec(), digest.map(|byte| [byte; 16]))].into()
    }

    #[test]
    fn an_entry_is_added_replaced_and_taken_away() {
        let files: Files = [(b"a".to_vec(), [1; 16]), (b"c".to_vec(), [3; 16])].into();
        let old = manifest(&files);
        let (out, written, gone) = edited(&old, &one("b", Some(2))).unwrap();
        let mut more = files.clone();
        more.insert(b"b".to_vec(), [2; 16]);
        assert_eq!((out, gone), (manifest(&more), vec![]));
        assert_eq!(written.file_count, 3);
        let (_, written, gone) = edited(&old, &one("c", Some(9))).unwrap();
        assert_eq!((written.file_count, gone), (2, vec![b"c".to_vec()]));
        let (out, _, gone) = edited(&old, &one("a", None)).unwrap();
        let fewer: Files = [(b"c".to_vec(), [3; 16])].into();
        assert_eq!((out, gone), (manifest(&fewer), vec![b"a".to_vec()]));
        assert_eq!(edited(&old, &one("a", Some(1))).unwrap().2, Vec::<Vec<u8>>::new());
        assert_eq!(edited(&old, &one("zz", None)).unwrap().0, old);
    }

    #[test]
    fn of_two_entries_with_one_path_the_later_counts() {
        let entry = |digit: u8| format!(r#"{{"md5": "{}", "relpath": "a"}}"#, hex_of(digit));
        let old = format!("[{}, {}]", entry(1), entry(2));
        let (out, ..) = edited(old.as_bytes(), &one("b", None)).unwrap();
        assert_eq!(out, format!("[{}]", entry(2)).into_bytes());
    }

    fn hex_of(byte: u8) -> String {
        crate::id::hex(&[byte; 16])
    }

    #[test]
    fn what_is_no_sound_base_is_refused() {
        let entry = |path: &str| format!(r#"{{"md5": "{}", "relpath": "{path}"}}"#, hex_of(1));
        let unsorted = format!("[{}, {}]", entry("b"), entry("a"));
        let changes = one("x", Some(1));
        assert!(matches!(edited(unsorted.as_bytes(), &changes), Err(EditError::Unsorted)));
        let bad = format!("[{}]", entry("../x"));
        assert!(matches!(edited(bad.as_bytes(), &changes), Err(EditError::Bad(_))));
        assert!(matches!(edited(b"[{", &changes), Err(EditError::Old(_))));
    }

    #[test]
    fn a_disk_that_is_full_is_an_error() {
        let mut full = [0; 10];
        let result = edit(|| Ok(&b"[]"[..]), &one("x", Some(1)), &mut full[..], &mut |_| ());
        assert!(matches!(result, Err(EditError::Write(_))));
    }

    #[test]
    fn a_form_that_dvc_does_not_write_is_edited_where_it_begins() {
        let entry = |path: &str| format!(r#"{{"md5": "{}", "relpath": "{path}"}}"#, hex_of(1));
        let other = format!(r#"{{"relpath": "c", "md5": "{}"}}"#, hex_of(1));
        let changes: Changes = [(b"a".to_vec(), None), (b"bb".to_vec(), Some([1; 16]))].into();
        for old in [
            format!("[{}, {}, {other}]", entry("a"), entry("b")),
            format!("[{},{}, {other}]\n", entry("a"), entry("b")),
        ] {
            let (out, written, gone) = edited(old.as_bytes(), &changes).unwrap();
            let expected = format!("[{}, {}, {}]", entry("b"), entry("bb"), entry("c"));
            assert_eq!((out, gone), (expected.into_bytes(), vec![b"a".to_vec()]));
            assert_eq!(written.file_count, 3);
        }
    }

    proptest! {
        #[test]
        fn an_edit_is_the_composition_of_the_changed_list(
            files in btree_map("[a-dé\u{e000}\u{1f600}]{1,3}", any::<Digest>(), 0..12),
            changes in btree_map("[a-dé\u{e000}\u{1f600}]{1,3}", any::<Option<Digest>>(), 0..12),
        ) {
            let bytes = |path: String| path.into_bytes();
            let mut files: Files = files.into_iter().map(|(path, d)| (bytes(path), d)).collect();
            let changes: Changes = changes.into_iter().map(|(path, d)| (bytes(path), d)).collect();
            let old = manifest(&files);
            let (out, written, gone) = edited(&old, &changes).unwrap();
            let mut expected_gone = 0;
            for (path, change) in &changes {
                let before = match change {
                    Some(digest) => files.insert(path.clone(), *digest),
                    None => files.remove(path),
                };
                expected_gone += usize::from(before.is_some_and(|before| Some(before) != *change));
            }
            prop_assert_eq!(out, manifest(&files));
            prop_assert_eq!(written.file_count, files.len() as u64);
            prop_assert_eq!(gone.len(), expected_gone);
        }
    }
}
