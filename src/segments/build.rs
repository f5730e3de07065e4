//! From a manifest's flat list of paths to rows in breadth-first order.

use std::{
    cmp::Ordering,
    collections::VecDeque,
    io::{self, Write},
    ops::Range,
};

use super::{
    RowId,
    image::{HEADER, Kind, Writer},
};
use crate::{
    dvc::manifest::{Entry, Sink},
    id::{Digest, TreeId},
    path::RepoPath,
};

/// Files and folders of one manifest; larger ones are not compiled. A gigabyte of hostile text could
/// ask for five hundred times as many folders.
pub(super) const MAX_ROWS: u32 = 1 << 24;

/// How many hidden files of one manifest are told by name.
const TOLD: usize = 20;

/// The entries of a manifest on their way to being compiled.
#[derive(Debug, Default)]
pub(super) struct Builder {
    paths: Vec<u8>,
    entries: Vec<PathEntry>,
    is_too_large: bool,
}

/// One entry, in 24 bytes: a million of them are kept at a time.
#[derive(Debug, Clone, Copy)]
struct PathEntry {
    start: u32,
    length: u16,
    has_digest: bool,
    digest: Digest,
}

/// Files that do not show because other entries lie below a folder of their name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hidden {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub paths: Vec<RepoPath>,
}

/// Why the entries could not be compiled.
#[derive(Debug)]
pub(super) enum BuildError {
    /// There are too many.
    TooLarge,
    /// They could not be written down.
    Io(io::Error),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Sink for Builder {
    /// Of two entries with one path the later counts, as in DVC.
    fn take(&mut self, entry: Entry<'_>) {
        let (start, length) = (u32::try_from(self.paths.len()), u16::try_from(entry.relpath.len()));
        let (Ok(start), Ok(length), true) = (start, length, self.entries.len() < MAX_ROWS as usize)
        else {
            self.is_too_large = true;
            return;
        };
        self.paths.extend_from_slice(entry.relpath);
        let (has_digest, digest) = (entry.digest.is_some(), entry.digest.unwrap_or_default());
        self.entries.push(PathEntry { start, length, has_digest, digest });
    }

    fn start_over(&mut self) {
        *self = Self::default();
    }
}

impl Builder {
    /// About how many bytes the image takes, where folders are few.
    pub(super) fn estimate(&self) -> usize {
        HEADER + self.paths.len() + self.entries.len() * 24
    }

    /// Writes the image but for its header, and gives that.
    pub(super) fn build<W: Write>(
        &mut self,
        id: TreeId,
        out: W,
    ) -> Result<(W, [u8; HEADER], Hidden), BuildError> {
        self.sort();
        if self.is_too_large {
            return Err(BuildError::TooLarge);
        }
        let writer = Writer::new(out, id)?;
        let (builder, open, hidden) = (&*self, VecDeque::new(), Hidden::default());
        let mut layout = Layout { builder, writer, open, folders: 0, hidden };
        layout.run()?;
        let hidden = layout.hidden;
        let (out, header) = layout.writer.finish()?;
        Ok((out, header, hidden))
    }

    /// Brings the entries of each folder together, in order of name, each path once.
    fn sort(&mut self) {
        let paths = &self.paths;
        let path = |entry: &PathEntry| path_of(paths, entry);
        let is_before = |a: &PathEntry, b: &PathEntry| compare(path(a), path(b)).is_lt();
        if self.entries.is_sorted_by(is_before) {
            return;
        }
        // Stable, so that of equal paths the later stays behind.
        self.entries.sort_by(|a, b| compare(path(a), path(b)));
        self.entries.dedup_by(|later, kept| {
            let is_same = path(later) == path(kept);
            if is_same {
                (kept.has_digest, kept.digest) = (later.has_digest, later.digest);
            }
            is_same
        });
    }

    fn path(&self, entry: usize) -> &[u8] {
        path_of(&self.paths, &self.entries[entry])
    }
}

fn path_of<'a>(paths: &'a [u8], entry: &PathEntry) -> &'a [u8] {
    &paths[entry.start as usize..][..usize::from(entry.length)]
}

/// Orders paths component by component, so that a folder's entries are neighbours.
fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let Some(at) = a.iter().zip(b).position(|(a, b)| a != b) else { return a.len().cmp(&b.len()) };
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    rank(a[at]).cmp(&rank(b[at]))
}

/// A folder whose children are still to be laid out.
struct Open {
    row: RowId,
    entries: Range<usize>,
    /// How much of its entries' paths leads to it.
    depth: usize,
}

struct Layout<'a, W> {
    builder: &'a Builder,
    writer: Writer<W>,
    open: VecDeque<Open>,
    folders: u32,
    hidden: Hidden,
}

impl<W: Write> Layout<'_, W> {
    fn run(&mut self) -> Result<(), BuildError> {
        self.add_folder(b"", 0..self.builder.entries.len(), 0)?;
        while let Some(Open { row, entries, depth }) = self.open.pop_front() {
            self.writer.folder(row);
            let mut rest = entries;
            while !rest.is_empty() {
                let group = self.group(rest.clone(), depth);
                rest.start = group.end;
                self.lay_out(group, depth)?;
            }
        }
        Ok(())
    }

    fn tail(&self, entry: usize, depth: usize) -> &[u8] {
        &self.builder.path(entry)[depth..]
    }

    /// The leading entries that share their component at `depth`.
    fn group(&self, entries: Range<usize>, depth: usize) -> Range<usize> {
        let name = component(self.tail(entries.start, depth));
        let is_same = |entry: &PathEntry| {
            let tail = &path_of(&self.builder.paths, entry)[depth..];
            tail.starts_with(name) && matches!(tail.get(name.len()), None | Some(b'/'))
        };
        let candidates = &self.builder.entries[entries.clone()];
        // Most groups are small, and a large one must not be gone through at every depth.
        let mut step = 1;
        while candidates.get(step).is_some_and(is_same) {
            step *= 2;
        }
        let (from, to) = (step / 2, step.min(candidates.len()));
        let length = from + candidates[from..to].partition_point(is_same);
        entries.start..entries.start + length
    }

    fn lay_out(&mut self, mut group: Range<usize>, depth: usize) -> Result<(), BuildError> {
        if self.writer.rows() >= MAX_ROWS {
            return Err(BuildError::TooLarge);
        }
        let builder = self.builder;
        let tail = &builder.path(group.start)[depth..];
        let name = component(tail);
        // The group's longest path shows whether any entry needs a folder here; like DVC we let
        // the folder win over a file of its name, which sorts first.
        if name.len() < self.tail(group.end - 1, depth).len() {
            if name.len() == tail.len() {
                self.hide(group.start);
                group.start += 1;
            }
            return self.add_folder(name, group, depth + name.len() + 1);
        }
        let entry = &builder.entries[group.start];
        let kind = if entry.has_digest { Kind::File(entry.digest) } else { Kind::Empty };
        Ok(self.writer.row(name, kind)?)
    }

    fn add_folder(
        &mut self,
        name: &[u8],
        entries: Range<usize>,
        depth: usize,
    ) -> Result<(), BuildError> {
        self.open.push_back(Open { row: self.writer.rows(), entries, depth });
        self.writer.row(name, Kind::Folder(self.folders))?;
        self.folders += 1;
        Ok(())
    }

    fn hide(&mut self, entry: usize) {
        self.hidden.count += 1;
        if self.hidden.paths.len() < TOLD {
            self.hidden.paths.extend(RepoPath::new(self.builder.path(entry)).ok());
        }
    }
}

fn component(path: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'/', path).unwrap_or(path.len());
    &path[..end]
}
