//! The immutable directory tree of one commit.
//!
//! A [`Tree`] joins two kinds of arenas. Its *base* holds the git entries and the declared outputs
//! of the commit, laid out once by [`build()`]. A tracked directory's manifest is a [`Segment`]
//! that is attached when somebody first looks inside. Every node has an [`Index`]: base nodes are
//! numbered from 0 (the root), an attached segment's rows from the number it was attached at.
//!
//! Where both say something about a name, the base wins: git's own files hide tracked ones, and an
//! output declared inside a tracked directory hides that directory's entry.
//!
//! Nothing here does I/O after the build; a question that needs a manifest which is not attached
//! yet says so ([`NeedsManifest`]) and is asked again.

mod base;
mod build;
mod draft;
mod segment;

use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use self::base::{Base, BaseKind};
pub use self::{
    build::{BuildError, build},
    segment::{RowId, RowKind, Segment, SegmentBuilder},
};
use crate::{
    dvc::output::{Content, Output},
    git::{CommitId, GitId},
    id::{BlobId, TreeId},
    path::RepoPath,
};

/// The number of a node within a commit's tree; fits in 40 bits.
pub type Index = u64;

/// The number of an output within a commit's tree.
pub type OutputId = u32;

/// The root of every tree.
pub const ROOT: Index = 0;

/// All of one commit: frozen after the build, read without a lock.
#[derive(Debug)]
pub struct Tree {
    /// The commit this is the tree of.
    pub commit: CommitId,
    /// The committer's time in seconds since the epoch.
    pub time: i64,
    /// The DVC projects in it: the repository's own and subrepos; none in a plain repository.
    pub projects: Vec<Project>,
    /// What could not be understood; each cost itself alone.
    pub problems: Vec<Problem>,
    base: Base,
    outputs: Vec<Tracked>,
    attached: Box<[OnceLock<Attached>]>,
    /// The outputs with an attached segment and their first rows' numbers.
    ranges: RwLock<Vec<(Index, OutputId)>>,
}

/// A DVC project: a folder that has a `.dvc` folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The folder, relative to the repository.
    pub root: RepoPath,
    /// The committed `.dvc/config`, if there is one.
    pub config: Option<GitId>,
}

/// An entry of the repository that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file that says so, or the output concerned.
    pub path: RepoPath,
    /// What is wrong with it.
    pub why: String,
}

/// An output and the project it belongs to.
#[derive(Debug)]
pub struct Tracked {
    /// What its declaration says.
    pub output: Output,
    /// Its project's place in [`Tree::projects`].
    pub project: usize,
}

#[derive(Debug)]
struct Attached {
    segment: Arc<Segment>,
    first: Index,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A folder; submodules are empty ones.
    Folder {
        /// The output this is the top of, if it is a tracked directory.
        output: Option<OutputId>,
    },
    /// A file whose bytes are in git.
    GitFile {
        /// Where git has the bytes.
        id: GitId,
        /// Whether git calls it executable.
        is_exec: bool,
        /// An output declared at the same path, whose content this file hides.
        hides: Option<OutputId>,
    },
    /// A symbolic link, whose target is a git blob.
    Link(GitId),
    /// A file whose bytes are in a remote.
    Blob {
        /// The content, unless the entry names none that can be had.
        id: Option<BlobId>,
        /// The output it belongs to.
        output: OutputId,
        /// The size in bytes that its declaration claims.
        claim: Option<u64>,
        /// Whether its declaration calls it executable.
        is_exec: bool,
    },
}

/// The directory output whose manifest has to be attached before the question can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsManifest(pub OutputId);

enum Place<'a> {
    Base(u32),
    Row(OutputId, &'a Attached, RowId),
}

impl Tree {
    fn new(parts: build::Parts) -> Self {
        let attached = parts.outputs.iter().map(|_| OnceLock::new()).collect();
        Self {
            commit: parts.commit,
            time: parts.time,
            projects: parts.projects,
            problems: parts.problems,
            base: parts.base,
            outputs: parts.outputs,
            attached,
            ranges: RwLock::default(),
        }
    }

    /// How many nodes the base has; the first number that a segment may be attached at.
    pub fn base_len(&self) -> Index {
        self.base.len().into()
    }

    /// What was declared. The output must be one of this tree's.
    pub fn tracked(&self, output: OutputId) -> &Tracked {
        &self.outputs[output as usize]
    }

    /// Every output, in the order of their declarations.
    pub fn outputs(&self) -> impl Iterator<Item = &Tracked> {
        self.outputs.iter()
    }

    /// The manifest that a directory output is made of.
    pub fn manifest(&self, output: OutputId) -> Option<TreeId> {
        match self.tracked(output).output.content {
            Content::Tree(id) => Some(id),
            _ => None,
        }
    }

    /// Puts a directory output's compiled manifest in place, its rows numbered from `first`.
    /// A second call for one output changes nothing.
    pub fn attach(&self, output: OutputId, segment: Arc<Segment>, first: Index) {
        let mut ranges = self.ranges.write();
        if self.attached[output as usize].set(Attached { segment, first }).is_ok() {
            let at = ranges.partition_point(|(start, _)| *start < first);
            ranges.insert(at, (first, output));
        }
    }

    /// The segment of a directory output, if it is attached.
    pub fn segment(&self, output: OutputId) -> Option<&Arc<Segment>> {
        self.attached[output as usize].get().map(|attached| &attached.segment)
    }

    fn place(&self, index: Index) -> Option<Place<'_>> {
        if index < self.base_len() {
            return Some(Place::Base(index as u32));
        }
        let ranges = self.ranges.read();
        let after = ranges.partition_point(|(start, _)| *start <= index);
        let output = ranges.get(after.checked_sub(1)?)?.1;
        let attached = self.attached[output as usize].get()?;
        let row = index - attached.first;
        (row < attached.segment.len().into()).then_some(Place::Row(output, attached, row as RowId))
    }

    /// What the node is; nothing if there is no such node (yet).
    pub fn node(&self, index: Index) -> Option<Node> {
        Some(match self.place(index)? {
            Place::Base(node) => self.base_node(node),
            Place::Row(output, attached, row) => match attached.segment.kind(row) {
                RowKind::Folder => Node::Folder { output: None },
                RowKind::File(id) => Node::Blob { id, output, claim: None, is_exec: false },
            },
        })
    }

    fn base_node(&self, node: u32) -> Node {
        match self.base.kind(node) {
            BaseKind::Folder { output, .. } => Node::Folder { output },
            BaseKind::GitFile { id, is_exec, hides } => Node::GitFile { id, is_exec, hides },
            BaseKind::Link(id) => Node::Link(id),
            BaseKind::Output { output, part } => self.output_node(output, part),
        }
    }

    fn output_node(&self, output: OutputId, part: u32) -> Node {
        let declared = &self.tracked(output).output;
        let (mut id, mut claim, mut is_exec) = (None, declared.size, declared.is_exec);
        match &declared.content {
            Content::Blob(blob) => id = Some(*blob),
            Content::Files(files) => {
                if let Some(file) = files.get(part as usize) {
                    (id, claim, is_exec) = (file.blob, file.size, file.is_exec);
                }
            }
            Content::Tree(_) | Content::Unavailable(_) => {}
        }
        Node::Blob { id, output, claim, is_exec }
    }

    /// The node of that name in a folder; `Ok(None)` if there is none or it is no folder.
    pub fn child(&self, folder: Index, name: &[u8]) -> Result<Option<Index>, NeedsManifest> {
        match self.place(folder) {
            None => Ok(None),
            Some(Place::Base(node)) => {
                if let Some(child) = self.base.child(node, name) {
                    return Ok(Some(child.into()));
                }
                let Some((attached, row)) = self.backing(node)? else { return Ok(None) };
                Ok(attached.segment.child(row, name).map(|row| attached.first + Index::from(row)))
            }
            Some(Place::Row(_, attached, folder)) => {
                let row = attached.segment.child(folder, name);
                Ok(row.map(|row| attached.first + Index::from(row)))
            }
        }
    }

    /// Whether a folder may have entries that are not shown, because git cannot read it.
    pub fn is_unreadable(&self, folder: Index) -> bool {
        folder < self.base_len() && self.base.is_unreadable(folder as u32)
    }

    /// The segment's folder that shows through a base folder.
    fn backing(&self, node: u32) -> Result<Option<(&Attached, RowId)>, NeedsManifest> {
        let Some((output, path)) = self.base.backing(node) else { return Ok(None) };
        let attached = self.attached[output as usize].get().ok_or(NeedsManifest(output))?;
        Ok(attached.segment.find(path).map(|row| (attached, row)))
    }

    /// What a folder lists; empty if it is no folder.
    pub fn listing(&self, folder: Index) -> Result<Listing<'_>, NeedsManifest> {
        let (base, rows) = match self.place(folder) {
            None => (0..0, None),
            Some(Place::Base(node)) => (self.base.children(node), self.backing(node)?),
            Some(Place::Row(_, attached, folder)) => (0..0, Some((attached, folder))),
        };
        Ok(Listing { tree: self, folder, base, rows })
    }

    /// The folder that holds the node; the root holds itself.
    pub fn parent(&self, index: Index) -> Index {
        match self.place(index) {
            None => ROOT,
            Some(Place::Base(node)) => self.base.parent(node).into(),
            Some(Place::Row(output, attached, row)) => {
                let parent = attached.segment.parent(row);
                let path = self.row_path(output, attached, parent);
                // The base may have a folder of its own at the parent's place.
                self.base.find(&path).map_or(attached.first + Index::from(parent), Index::from)
            }
        }
    }

    /// The node's path from the root.
    pub fn path(&self, index: Index) -> RepoPath {
        match self.place(index) {
            None => RepoPath::root(),
            Some(Place::Base(node)) => self.base.path(node),
            Some(Place::Row(output, attached, row)) => self.row_path(output, attached, row),
        }
    }

    fn row_path(&self, output: OutputId, attached: &Attached, row: RowId) -> RepoPath {
        let mut names = Vec::new();
        let mut at = row;
        while at != Segment::ROOT {
            names.push(attached.segment.name(at));
            at = attached.segment.parent(at);
        }
        let mut bytes = self.tracked(output).output.path.as_bytes().to_vec();
        for name in names.into_iter().rev() {
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name);
        }
        RepoPath::new(&bytes).unwrap_or_default()
    }

    /// The node at a path; `Ok(None)` if there is none.
    pub fn find(&self, path: &RepoPath) -> Result<Option<Index>, NeedsManifest> {
        let mut at = ROOT;
        for name in path.components() {
            match self.child(at, name)? {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The output that a node belongs to: its own, or the tracked directory it lies in.
    pub fn output_of(&self, index: Index) -> Option<OutputId> {
        match self.place(index)? {
            Place::Row(output, ..) => Some(output),
            Place::Base(node) => match self.base_node(node) {
                Node::Folder { output } => {
                    output.or_else(|| self.base.backing(node).map(|(output, _)| output))
                }
                Node::GitFile { hides, .. } => hides,
                Node::Link(_) => None,
                Node::Blob { output, .. } => Some(output),
            },
        }
    }
}

/// The entries of one folder, by position, so that a listing can be taken up where it stopped.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    tree: &'a Tree,
    folder: Index,
    base: std::ops::Range<u32>,
    rows: Option<(&'a Attached, RowId)>,
}

/// One name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListingEntry<'a> {
    /// Where the listing goes on after this entry.
    pub next: u64,
    /// The node.
    pub index: Index,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Listing<'a> {
    /// The folder listed.
    pub fn folder(&self) -> Index {
        self.folder
    }

    /// The entries from a position on; 0 is the start. Names that the base has are not repeated.
    pub fn from(&self, position: u64) -> impl Iterator<Item = ListingEntry<'a>> + use<'a> {
        let Self { tree, base, rows, .. } = self.clone();
        let base_len = u64::from(base.end - base.start);
        let from_base = (position.min(base_len)..base_len).map({
            let base = base.clone();
            move |at| {
                let node = base.start + at as u32;
                ListingEntry { next: at + 1, index: node.into(), name: tree.base.name(node) }
            }
        });
        let from_rows = rows.into_iter().flat_map(move |(attached, folder)| {
            let base = base.clone();
            let children = attached.segment.children(folder);
            let skipped = position.saturating_sub(base_len).min(children.len() as u64) as u32;
            (children.start + skipped..children.end).filter_map(move |row| {
                let name = attached.segment.name(row);
                let next = base_len + u64::from(row - children.start) + 1;
                let index = attached.first + Index::from(row);
                let is_hidden = tree.base.child_in(&base, name).is_some();
                (!is_hidden).then_some(ListingEntry { next, index, name })
            })
        });
        from_base.chain(from_rows)
    }
}
