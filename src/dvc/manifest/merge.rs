//! Merging two changes of one manifest, file by file.
//!
//! Of the three manifests only the base is kept in memory, as one run of bytes and a row per file;
//! the others stream by and leave their differences. What ours changed is then applied to theirs
//! by [`edit`](super::edit::edit).

use std::io::BufRead;

use super::edit::{Changes, EditError};
use super::{Entry, parse};
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
    /// Reads a manifest.
    pub fn read(manifest: impl BufRead) -> Result<Self, EditError> {
        let mut listing = Self::default();
        let refused = parse(manifest, &mut |entry| listing.push(entry))?;
        if let Some(entry) = refused.entries.into_iter().next() {
            return Err(EditError::Bad(entry));
        }
        listing.sort();
        Ok(listing)
    }

    fn push(&mut self, entry: Entry<'_>) {
        let (start, length) = (self.paths.len(), entry.relpath.len() as u32);
        self.paths.extend_from_slice(entry.relpath);
        self.rows.push(Row { start, length, digest: entry.digest });
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
    pub fn changes_to(&self, manifest: impl BufRead) -> Result<Changes, EditError> {
        let mut changes = Changes::new();
        let mut is_kept = vec![false; self.rows.len()];
        let refused = parse(manifest, &mut |entry| {
            let row = self.find(entry.relpath);
            if let Some(at) = row {
                is_kept[at] = true;
            }
            // The later of two entries counts, so that an earlier one may have to be forgotten.
            let is_same = row.is_some_and(|at| self.rows[at].digest == entry.digest);
            if is_same || entry.digest.is_none() {
                changes.remove(entry.relpath);
            } else {
                changes.insert(entry.relpath.to_vec(), entry.digest);
            }
        })?;
        if let Some(entry) = refused.entries.into_iter().next() {
            return Err(EditError::Bad(entry));
        }
        let removed = self.rows.iter().zip(is_kept).filter(|(_, is_kept)| !is_kept);
        changes.extend(removed.map(|(row, _)| (row.path(&self.paths).to_vec(), None)));
        Ok(changes)
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
    use std::collections::BTreeMap;

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
        let base = Listing::read(&manifest(base)[..]).unwrap();
        let changes = |side: &Files| base.changes_to(&manifest(side)[..]).unwrap();
        let merged = merge(&changes(ours), &changes(theirs))?;
        let (mut out, manifest) = (Vec::new(), manifest(theirs));
        edit(|| Ok(&manifest[..]), &merged, &mut out, &mut |_| ()).unwrap();
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

    proptest! {
        #[test]
        fn a_merge_has_both_changes(
            base in btree_map("[a-e]", 0u8..3, 0..5),
            ours in btree_map("[a-e]", 0u8..3, 0..5),
            theirs in btree_map("[a-e]", 0u8..3, 0..5),
        ) {
            let paths = || ["a", "b", "c", "d", "e"].into_iter();
            let is_conflict = |path: &str| {
                let (base, ours, theirs) = (base.get(path), ours.get(path), theirs.get(path));
                ours != base && theirs != base && ours != theirs
            };
            match merged(&base, &ours, &theirs) {
                Ok(out) => {
                    let side = |path: &str| {
                        let side = if ours.get(path) == base.get(path) { &theirs } else { &ours };
                        side.get(path).map(|byte| (path.to_owned(), *byte))
                    };
                    prop_assert!(!paths().any(is_conflict));
                    prop_assert_eq!(out, manifest(&paths().filter_map(side).collect()));
                }
                Err(conflicts) => {
                    let expected: Vec<_> =
                        paths().filter(|path| is_conflict(path)).map(|path| path.as_bytes().to_vec()).collect();
                    prop_assert_eq!(
                        conflicts.into_iter().map(|conflict| conflict.path).collect::<Vec<_>>(),
                        expected
                    );
                }
            }
        }
    }
}
