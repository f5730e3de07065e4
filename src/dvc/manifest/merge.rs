//! Merging two changes of one manifest, file by file.
//!
//! Of the three manifests only the base is kept in memory, as one run of bytes and a row per file;
//! the others stream by and leave their differences. What ours changed is then applied to theirs
//! by [`edit`](super::edit::edit).

use std::io::{self, BufRead};

use super::edit::{Changes, EditError, read_sound};
use super::{Entry, Sink};
use crate::id::Digest;

/// A manifest in memory: 20 bytes and its path for each file.
#[derive(Debug, Default)]
pub struct Listing {
    paths: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    start: usize,
    length: u32,
    digest: Option<Digest>,
}

impl Listing {
    /// Reads the manifest that `open` gives from its beginning, each time it is called.
    pub fn read<R: BufRead>(open: impl Fn() -> io::Result<R>) -> Result<Self, EditError> {
        let mut listing = Self::default();
        read_sound(open, &mut listing)?;
        listing.sort();
        Ok(listing)
    }

    /// Sorts the rows by path; of two with one path only the later stays.
    fn sort(&mut self) {
        let paths = &self.paths;
        self.rows.sort_by(|a, b| a.path(paths).cmp(b.path(paths)));
        self.rows.dedup_by(|later, row| {
            let is_same = later.path(paths) == row.path(paths);
            if is_same {
                row.digest = later.digest;
            }
            is_same
        });
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        self.rows.binary_search_by(|row| row.path(&self.paths).cmp(path)).ok()
    }

    /// The hash of a file, if it is listed with one.
    pub fn digest_of(&self, path: &[u8]) -> Option<Digest> {
        self.rows[self.find(path)?].digest
    }

    /// What another manifest changed. A file that it lists without a hash counts as unchanged, or
    /// as not there.
    pub fn changes_to<R: BufRead>(
        &self,
        open: impl Fn() -> io::Result<R>,
    ) -> Result<Changes, EditError> {
        let is_kept = vec![false; self.rows.len()];
        let mut comparison = Comparison { old: self, changes: Changes::new(), is_kept };
        read_sound(open, &mut comparison)?;
        let Comparison { mut changes, is_kept, .. } = comparison;
        let removed = self.rows.iter().zip(is_kept).filter(|(_, is_kept)| !is_kept);
        changes.extend(removed.map(|(row, _)| (row.path(&self.paths).to_vec(), None)));
        Ok(changes)
    }
}

impl Sink for Listing {
    fn take(&mut self, entry: Entry<'_>) {
        let (start, length) = (self.paths.len(), entry.relpath.len() as u32);
        self.paths.extend_from_slice(entry.relpath);
        self.rows.push(Row { start, length, digest: entry.digest });
    }

    fn start_over(&mut self) {
        *self = Self::default();
    }
}

/// A manifest that streams by, beside the old one.
struct Comparison<'a> {
    old: &'a Listing,
    changes: Changes,
    /// The rows of the old one that came.
    is_kept: Vec<bool>,
}

impl Sink for Comparison<'_> {
    fn take(&mut self, entry: Entry<'_>) {
        let row = self.old.find(entry.relpath);
        if let Some(at) = row {
            self.is_kept[at] = true;
        }
        // The later of two entries counts, so that an earlier one may have to be forgotten.
        let is_same = row.is_some_and(|at| self.old.rows[at].digest == entry.digest);
        if is_same || entry.digest.is_none() {
            self.changes.remove(entry.relpath);
        } else {
            self.changes.insert(entry.relpath.to_vec(), entry.digest);
        }
    }

    fn start_over(&mut self) {
        self.changes.clear();
        self.is_kept.fill(false);
    }
}

impl Row {
    fn path<'a>(&self, paths: &'a [u8]) -> &'a [u8] {
        &paths[self.start..self.start + self.length as usize]
    }
}

/// A path that both sides changed, each in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The path below the folder.
    pub path: Vec<u8>,
    /// How the two changes differ.
    pub kind: ConflictKind,
}

/// How two changes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// Both gave the file content.
    BothChanged,
    /// We changed the file, they removed it.
    RemovedByThem,
    /// They changed the file, we removed it.
    RemovedByUs,
    /// One has a file where the other has a folder.
    FileAndFolder,
}

/// Merges the changes of both sides: what has to be done to theirs to have ours in it as well, or
/// else all conflicts, by path.
pub fn merge(ours: &Changes, theirs: &Changes) -> Result<Changes, Vec<Conflict>> {
    let mut merged = Changes::new();
    let mut conflicts = Vec::new();
    for (path, our) in ours {
        let kind = match (our, theirs.get(path)) {
            (our, Some(their)) if our == their => continue,
            (Some(_), Some(Some(_))) => Some(ConflictKind::BothChanged),
            (Some(_), Some(None)) => Some(ConflictKind::RemovedByThem),
            (None, Some(_)) => Some(ConflictKind::RemovedByUs),
            (Some(_), None) => stands_in_way(path, theirs).then_some(ConflictKind::FileAndFolder),
            (None, None) => None,
        };
        match kind {
            Some(kind) => conflicts.push(Conflict { path: path.clone(), kind }),
            None => _ = merged.insert(path.clone(), *our),
        }
    }
    if conflicts.is_empty() { Ok(merged) } else { Err(conflicts) }
}

/// Whether `changes` put a file where `path` needs a folder, or below `path`.
fn stands_in_way(path: &[u8], changes: &Changes) -> bool {
    let is_put = |path: &[u8]| changes.get(path).is_some_and(Option::is_some);
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let mut folders = slashes.map(|(at, _)| &path[..at]);
    let below = [path, b"/"].concat();
    let mut others =
        changes.range(below.clone()..).take_while(|(other, _)| other.starts_with(&below));
    folders.any(is_put) || others.any(|(_, digest)| digest.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dvc::manifest::edit::edit;
    use crate::dvc::manifest::write::compose;
    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    type Files = BTreeMap<String, u8>;

    fn manifest(files: &Files) -> Vec<u8> {
        let entries = files
            .iter()
            .map(|(path, byte)| Entry { relpath: path.as_bytes(), digest: Some([*byte; 16]) });
        let mut out = Vec::new();
        compose(entries, &mut out).unwrap();
        out
    }

    fn files(text: &[(&str, u8)]) -> Files {
        text.iter().map(|(path, byte)| ((*path).to_owned(), *byte)).collect()
    }

    fn merged(base: &Files, ours: &Files, theirs: &Files) -> Result<Vec<u8>, Vec<Conflict>> {
        merged_texts([base, ours, theirs].map(manifest))
    }

    fn merged_texts([base, ours, theirs]: [Vec<u8>; 3]) -> Result<Vec<u8>, Vec<Conflict>> {
        let base = Listing::read(|| Ok(&base[..])).unwrap();
        let changes = |side: &[u8]| base.changes_to(|| Ok(side)).unwrap();
        let merged = merge(&changes(&ours), &changes(&theirs))?;
        let mut out = Vec::new();
        edit(|| Ok(&theirs[..]), &merged, &mut out, &mut |_| ()).unwrap();
        Ok(out)
    }

    fn conflict(base: &[(&str, u8)], ours: &[(&str, u8)], theirs: &[(&str, u8)]) -> String {
        let conflicts = merged(&files(base), &files(ours), &files(theirs)).unwrap_err();
        let lines = conflicts
            .iter()
            .map(|conflict| format!("{:?} {}", conflict.kind, conflict.path.escape_ascii()));
        lines.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn changes_of_different_files_are_merged() {
        let base = files(&[("a", 1), ("b", 1), ("c", 1)]);
        let ours = files(&[("a", 2), ("b", 1), ("d", 1)]);
        let theirs = files(&[("a", 1), ("b", 3), ("c", 1), ("e", 1), ("d", 1)]);
        let expected = files(&[("a", 2), ("b", 3), ("d", 1), ("e", 1)]);
        assert_eq!(merged(&base, &ours, &theirs).unwrap(), manifest(&expected));
    }

    #[test]
    fn changes_of_one_file_are_conflicts() {
        assert_eq!(conflict(&[("a", 1)], &[("a", 2)], &[("a", 3)]), "BothChanged a");
        assert_eq!(conflict(&[], &[("a", 2)], &[("a", 3)]), "BothChanged a");
        assert_eq!(conflict(&[("a", 1)], &[("a", 2)], &[]), "RemovedByThem a");
        assert_eq!(conflict(&[("a", 1)], &[], &[("a", 2)]), "RemovedByUs a");
        assert_eq!(
            conflict(&[("a", 1), ("b", 1)], &[("a", 2)], &[("a", 3), ("b", 2)]),
            "BothChanged a, RemovedByUs b"
        );
    }

    #[test]
    fn a_file_and_a_folder_of_one_name_are_a_conflict() {
        assert_eq!(conflict(&[], &[("a", 1)], &[("a/b", 1)]), "FileAndFolder a");
        assert_eq!(conflict(&[], &[("a/b/c", 1)], &[("a", 1)]), "FileAndFolder a/b/c");
        let base = files(&[("a/b", 1), ("x", 1)]);
        let (ours, theirs) = (files(&[("a", 1), ("x", 1)]), files(&[("a/b", 1)]));
        assert_eq!(merged(&base, &ours, &theirs).unwrap(), manifest(&files(&[("a", 1)])));
    }

    #[test]
    fn manifests_of_another_form_are_merged_too() {
        let base = files(&[("a", 1), ("b", 1)]);
        let ours = files(&[("a", 2), ("b", 1)]);
        let theirs = files(&[("a", 1), ("c", 3)]);
        // DVC's own form ends with the bracket.
        let other_form = |files: &Files| [&manifest(files)[..], b"\n"].concat();
        let merged = merged_texts([&base, &ours, &theirs].map(other_form)).unwrap();
        assert_eq!(merged, manifest(&files(&[("a", 2), ("c", 3)])));
    }

    /// Files of which none has the name of a folder.
    fn some_files() -> impl Strategy<Value = Files> {
        btree_map("[a-c](/[a-b])?", 0u8..3, 0..5).prop_map(|mut files| {
            let names: Vec<_> = files.keys().cloned().collect();
            files.retain(|name, _| !names.iter().any(|other| is_below(name, other)));
            files
        })
    }

    fn is_below(name: &str, folder: &str) -> bool {
        name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }

    proptest! {
        #[test]
        fn a_merge_has_both_changes(
            base in some_files(),
            ours in some_files(),
            theirs in some_files(),
        ) {
            let sides = [&base, &ours, &theirs];
            let of = |path: &str| sides.map(|files| files.get(path).copied());
            let paths: BTreeSet<_> = sides.into_iter().flat_map(BTreeMap::keys).collect();
            let mut expected = Files::new();
            let mut wrong = BTreeSet::new();
            for path in paths {
                let [base, ours, theirs] = of(path);
                if ours != base && theirs != base && ours != theirs {
                    wrong.insert(path.clone());
                }
                let becomes = if ours == base { theirs } else { ours };
                expected.extend(becomes.map(|byte| (path.clone(), byte)));
            }
            let put = |side: &Files| -> BTreeSet<String> {
                let is_new = |(path, byte): &(&String, &u8)| base.get(*path) != Some(*byte);
                side.iter().filter(is_new).map(|(path, _)| path.clone()).collect()
            };
            let their = put(&theirs);
            wrong.extend(put(&ours).into_iter().filter(|path| {
                their.iter().any(|other| is_below(path, other) || is_below(other, path))
            }));
            match merged(&base, &ours, &theirs) {
                Ok(out) => {
                    prop_assert_eq!(wrong, BTreeSet::new());
                    prop_assert_eq!(out, manifest(&expected));
                }
                Err(conflicts) => {
                    let paths = conflicts.into_iter().map(|conflict| conflict.path);
                    let paths = paths.map(|path| String::from_utf8(path).unwrap());
                    prop_assert_eq!(paths.collect::<BTreeSet<_>>(), wrong);
                }
            }
        }
    }
}
