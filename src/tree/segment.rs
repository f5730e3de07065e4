//! The compiled form of one directory manifest.
//!
//! A manifest is a flat list of relative paths. Compiled, it is one vector of rows in breadth-first
//! order: the children of a folder lie side by side, sorted by name, so that looking a name up is a
//! binary search and listing is a slice. Row 0 is the tracked directory itself. A row's number
//! depends on nothing but the manifest, which makes it usable as part of an inode number.

use std::{cmp::Ordering, ops::Range};

use crate::{
    id::{BlobId, Digest, Scheme},
    path::RepoPath,
};

/// A manifest, ready to be asked.
#[derive(Debug)]
pub struct Segment {
    rows: Vec<Row>,
    names: Vec<u8>,
    digests: Vec<Digest>,
    scheme: Scheme,
}

/// The number of a row within its segment.
pub type RowId = u32;

#[derive(Debug, Clone, Copy)]
struct Row {
    name_start: u32,
    name_len: u8,
    is_folder: bool,
    parent: RowId,
    /// A folder's first child, or a file's place in `digests` ([`NO_DIGEST`] if it has no content).
    first: u32,
    /// How many children a folder has.
    count: u32,
}

const NO_DIGEST: u32 = u32::MAX;

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// A folder; it exists by its files.
    Folder,
    /// A file, with its content unless the manifest's entry names none that can be had.
    File(Option<BlobId>),
}

/// Entries of a manifest on their way into a [`Segment`].
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    paths: Vec<u8>,
    entries: Vec<PathEntry>,
}

#[derive(Debug, Clone)]
struct PathEntry {
    path: Range<usize>,
    digest: Option<Digest>,
}

impl SegmentBuilder {
    /// Takes one entry. Of two entries with one path the later counts, as in DVC.
    pub fn push(&mut self, path: &[u8], digest: Option<Digest>) {
        let start = self.paths.len();
        self.paths.extend_from_slice(path);
        self.entries.push(PathEntry { path: start..self.paths.len(), digest });
    }

    /// Compiles the entries; gives the segment and the files that are hidden because other entries
    /// lie below a folder of their name.
    pub fn build(mut self, scheme: Scheme) -> (Segment, Vec<RepoPath>) {
        let paths = std::mem::take(&mut self.paths);
        let path_of = |entry: &PathEntry| &paths[entry.path.clone()];
        self.entries.sort_by(|a, b| compare_paths(path_of(a), path_of(b)));
        keep_last_of_equal(&mut self.entries, path_of);
        let mut compiler = Compiler::new(&paths, &self.entries, scheme);
        compiler.run();
        (compiler.segment, compiler.hidden)
    }
}

/// Orders paths component by component, so that a folder's entries are neighbours.
fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

fn keep_last_of_equal<'a>(entries: &mut Vec<PathEntry>, path: impl Fn(&PathEntry) -> &'a [u8]) {
    entries.dedup_by(|later, kept| {
        let is_same = path(later) == path(kept);
        if is_same {
            kept.digest = later.digest;
        }
        is_same
    });
}

struct Compiler<'a> {
    paths: &'a [u8],
    entries: &'a [PathEntry],
    segment: Segment,
    hidden: Vec<RepoPath>,
    /// Folders whose children are still to be laid out: row, their entries, length of the path.
    open: std::collections::VecDeque<(RowId, Range<usize>, usize)>,
}

impl<'a> Compiler<'a> {
    fn new(paths: &'a [u8], entries: &'a [PathEntry], scheme: Scheme) -> Self {
        let root =
            Row { name_start: 0, name_len: 0, is_folder: true, parent: 0, first: 0, count: 0 };
        let segment = Segment { rows: vec![root], names: Vec::new(), digests: Vec::new(), scheme };
        let open = [(0, 0..entries.len(), 0)].into();
        Self { paths, entries, segment, hidden: Vec::new(), open }
    }

    fn run(&mut self) {
        while let Some((folder, entries, depth)) = self.open.pop_front() {
            let first = self.segment.rows.len();
            let mut rest = entries;
            while !rest.is_empty() {
                let group = self.group(rest.clone(), depth);
                rest.start = group.end;
                self.lay_out(folder, group, depth);
            }
            let count = self.segment.rows.len() - first;
            let row = &mut self.segment.rows[folder as usize];
            (row.first, row.count) = (first as u32, count as u32);
        }
    }

    fn tail(&self, index: usize, depth: usize) -> &'a [u8] {
        &self.paths[self.entries[index].path.clone()][depth..]
    }

    /// The leading entries that share their component at `depth`.
    fn group(&self, entries: Range<usize>, depth: usize) -> Range<usize> {
        let name = component(self.tail(entries.start, depth));
        let is_same = |index: &usize| component(self.tail(*index, depth)) == name;
        let len = entries.clone().take_while(is_same).count();
        entries.start..entries.start + len
    }

    fn lay_out(&mut self, parent: RowId, group: Range<usize>, depth: usize) {
        let tail = self.tail(group.start, depth);
        let name = component(tail);
        let name_start = self.segment.names.len() as u32;
        self.segment.names.extend_from_slice(name);
        // The group's longest path shows whether any entry needs a folder here; like DVC we let
        // the folder win over a file of its name, which sorts first.
        let is_folder = name.len() < self.tail(group.end - 1, depth).len();
        let mut row = Row {
            name_start,
            name_len: name.len() as u8,
            is_folder,
            parent,
            first: NO_DIGEST,
            count: 0,
        };
        if is_folder {
            let mut inside = group;
            if name.len() == tail.len() {
                self.hide(inside.start);
                inside.start += 1;
            }
            let row_id = self.segment.rows.len() as RowId;
            self.open.push_back((row_id, inside, depth + name.len() + 1));
        } else if let Some(digest) = self.entries[group.start].digest {
            row.first = self.segment.digests.len() as u32;
            self.segment.digests.push(digest);
        }
        self.segment.rows.push(row);
    }

    fn hide(&mut self, entry: usize) {
        let path = RepoPath::new(&self.paths[self.entries[entry].path.clone()]);
        self.hidden.extend(path.ok());
    }
}

fn component(path: &[u8]) -> &[u8] {
    path.split(|b| *b == b'/').next().unwrap_or_default()
}

impl Segment {
    /// The row of the tracked directory itself.
    pub const ROOT: RowId = 0;

    /// How many rows there are, the root included.
    pub fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Whether the directory holds nothing.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// What the row is. The row must be one of this segment's.
    pub fn kind(&self, row: RowId) -> RowKind {
        let row = self.rows[row as usize];
        if row.is_folder {
            return RowKind::Folder;
        }
        let digest = self.digests.get(row.first as usize);
        RowKind::File(digest.map(|digest| BlobId { digest: *digest, scheme: self.scheme }))
    }

    /// The row's own name; empty for the root.
    pub fn name(&self, row: RowId) -> &[u8] {
        let row = self.rows[row as usize];
        &self.names[row.name_start as usize..][..usize::from(row.name_len)]
    }

    /// The folder that holds the row; the root holds itself.
    pub fn parent(&self, row: RowId) -> RowId {
        self.rows[row as usize].parent
    }

    /// The rows in a folder, in order of name; none for a file.
    pub fn children(&self, folder: RowId) -> Range<RowId> {
        let row = self.rows[folder as usize];
        if row.is_folder { row.first..row.first + row.count } else { 0..0 }
    }

    /// The row of that name in a folder.
    pub fn child(&self, folder: RowId, name: &[u8]) -> Option<RowId> {
        let range = self.children(folder);
        let rows = &self.rows[range.start as usize..range.end as usize];
        let name_of =
            |row: &Row| &self.names[row.name_start as usize..][..usize::from(row.name_len)];
        let at = rows.binary_search_by(|row| name_of(row).cmp(name)).ok()?;
        Some(range.start + at as u32)
    }

    /// The row at a relative path; the empty path is the root.
    pub fn find(&self, path: &[u8]) -> Option<RowId> {
        let mut components = path.split(|b| *b == b'/').filter(|c| !c.is_empty());
        components.try_fold(Self::ROOT, |row, name| self.child(row, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(entries: &[(&str, u8)]) -> (Segment, Vec<RepoPath>) {
        let mut builder = SegmentBuilder::default();
        for (path, byte) in entries {
            builder.push(path.as_bytes(), Some([*byte; 16]));
        }
        builder.build(Scheme::Md5)
    }

    fn file(byte: u8) -> RowKind {
        RowKind::File(Some(BlobId { digest: [byte; 16], scheme: Scheme::Md5 }))
    }

    fn names(segment: &Segment, folder: RowId) -> Vec<&str> {
        let rows = segment.children(folder);
        rows.map(|row| std::str::from_utf8(segment.name(row)).unwrap()).collect()
    }

    #[test]
    fn an_empty_manifest_is_an_empty_folder() {
        let (segment, _) = compile(&[]);
        assert!(segment.is_empty());
        assert_eq!(segment.children(Segment::ROOT), 1..1);
        assert_eq!(segment.find(b"x"), None);
    }

    #[test]
    fn children_are_sorted_by_name_whatever_the_order_of_the_manifest() {
        let (segment, _) =
            compile(&[("a/b", 1), ("a-b", 2), ("z", 3), ("a.b", 4), ("a/a/c", 5), ("A", 6)]);
        assert_eq!(names(&segment, Segment::ROOT), ["A", "a", "a-b", "a.b", "z"]);
        let a = segment.find(b"a").unwrap();
        assert_eq!(names(&segment, a), ["a", "b"]);
        assert_eq!(segment.kind(segment.find(b"a/a/c").unwrap()), file(5));
        assert_eq!(segment.parent(segment.find(b"a/b").unwrap()), a);
        assert_eq!(segment.find(b"a/b/c"), None);
    }

    #[test]
    fn the_later_of_two_equal_paths_counts() {
        let (segment, _) = compile(&[("x", 1), ("y", 2), ("x", 3)]);
        assert_eq!(segment.len(), 3);
        assert_eq!(segment.kind(segment.find(b"x").unwrap()), file(3));
    }

    #[test]
    fn a_folder_hides_the_file_of_its_name() {
        let (segment, hidden) = compile(&[("a/b", 1), ("a", 2), ("a!", 3)]);
        assert_eq!(segment.kind(segment.find(b"a").unwrap()), RowKind::Folder);
        assert_eq!(segment.kind(segment.find(b"a/b").unwrap()), file(1));
        assert_eq!(hidden, [RepoPath::new(b"a").unwrap()]);
        assert_eq!(names(&segment, Segment::ROOT), ["a", "a!"]);
    }

    #[test]
    fn a_file_without_content_is_listed() {
        let mut builder = SegmentBuilder::default();
        builder.push(b"x", None);
        let (segment, _) = builder.build(Scheme::Dos2Unix);
        assert_eq!(segment.kind(1), RowKind::File(None));
    }
}
