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
//! After the build the only I/O is that of segments, which read blocks of their compiled files. A
//! question that needs a manifest which is not attached yet, or whose compiled file cannot be read
//! any more, says so ([`NeedsManifest`]) and is asked again.

mod base;
mod build;
mod draft;
mod known;

use std::{
    ops::{ControlFlow, Range},
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;

use self::base::{Base, BaseKind};
pub use self::{
    build::{BuildError, build},
    draft::MAX_DEPTH,
    known::Known,
};
use crate::{
    dvc::output::{Content, Output},
    git::{CommitId, GitId},
    id::{BlobId, TreeId},
    path::{Name, RepoPath},
    segments::{RowId, RowKind, Segment, SegmentError},
};

/// The number of a node within a commit's tree; fits in 40 bits.
pub type Index = u64;

/// Something in a folder, by its name.
pub type Child = (Name, (Index, Node));

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
    /// What its declaration says; shared by the trees of all commits that say the same.
    pub output: Arc<Output>,
    /// Its project's place in [`Tree::projects`].
    pub project: usize,
    /// The file that declares it: a `.dvc` file, or a `dvc.yaml` with its lock file.
    pub declared_in: RepoPath,
}

impl Tracked {
    /// Whether a stage of a pipeline makes it.
    pub fn is_of_pipeline(&self) -> bool {
        self.declared_in.file_name() == Some(b"dvc.yaml")
    }
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

/// The directory output whose manifest has to be attached, or mended, before the question can be
/// answered.
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

    /// About how many bytes of memory this takes, what it shares with others left out.
    pub fn weight(&self) -> u64 {
        /// A node with its name, and an output with its place for a segment.
        const NODE: u64 = 72;
        const OUTPUT: u64 = 64;
        self.base_len() * NODE + self.outputs.len() as u64 * OUTPUT
    }

    /// The innermost project that a path lies in, by its place in [`projects`](Self::projects).
    pub fn project_around(&self, path: &RepoPath) -> Option<usize> {
        let roots = self.projects.iter().map(|project| &project.root).enumerate();
        let around = roots.filter(|(_, root)| path.strip_prefix(root).is_some());
        around.max_by_key(|(_, root)| root.as_bytes().len()).map(|(project, _)| project)
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

    /// The manifest that tells all that is in a folder: the folder is a tracked one, and nothing in
    /// it is git's own or declared elsewhere.
    pub fn whole_manifest(&self, folder: Index) -> Option<TreeId> {
        let Some(Place::Base(node)) = self.place(folder) else { return None };
        match self.base_node(node) {
            Node::Folder { output } if self.base.children(node).is_empty() => {
                self.manifest(output?)
            }
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
    pub fn node(&self, index: Index) -> Result<Option<Node>, NeedsManifest> {
        Ok(match self.place(index) {
            None => None,
            Some(Place::Base(node)) => Some(self.base_node(node)),
            Some(Place::Row(output, attached, row)) => {
                let row = attached.segment.row(row).map_err(mend(output))?;
                Some(row_node(output, row.kind()))
            }
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
        let (output, attached, folder) = match self.place(folder) {
            None => return Ok(None),
            Some(Place::Base(node)) => {
                if let Some(child) = self.base.child(node, name) {
                    return Ok(Some(child.into()));
                }
                let Some(backing) = self.backing(node)? else { return Ok(None) };
                backing
            }
            Some(Place::Row(output, attached, folder)) => (output, attached, folder),
        };
        let row = attached.segment.child(folder, name).map_err(mend(output))?;
        Ok(row.map(|row| attached.first + Index::from(row)))
    }

    /// Whether a folder may have entries that are not shown, because git cannot read it.
    pub fn is_unreadable(&self, folder: Index) -> bool {
        folder < self.base_len() && self.base.is_unreadable(folder as u32)
    }

    /// The segment's folder that shows through a base folder.
    fn backing(&self, node: u32) -> Result<Option<(OutputId, &Attached, RowId)>, NeedsManifest> {
        let Some((output, path)) = self.base.backing(node) else { return Ok(None) };
        let attached = self.attached[output as usize].get().ok_or(NeedsManifest(output))?;
        let row = attached.segment.find(path).map_err(mend(output))?;
        Ok(row.map(|row| (output, attached, row)))
    }

    /// What a folder lists; empty if it is no folder.
    pub fn listing(&self, folder: Index) -> Result<Listing<'_>, NeedsManifest> {
        let (base, rows) = match self.place(folder) {
            None => (0..0, None),
            Some(Place::Base(node)) => (self.base.children(node), self.backing(node)?),
            Some(Place::Row(output, attached, folder)) => (0..0, Some((output, attached, folder))),
        };
        let rows = rows.map(|(output, attached, folder)| {
            let range = attached.segment.children(folder).map_err(mend(output))?;
            Ok::<_, NeedsManifest>(Rows { output, attached, range })
        });
        Ok(Listing { tree: self, folder, base, rows: rows.transpose()? })
    }

    /// What a folder holds, by names that can be shown; nothing if it is no folder.
    pub fn children(&self, folder: Index) -> Result<Vec<Child>, NeedsManifest> {
        let mut children = Vec::new();
        self.listing(folder)?.walk(0, |entry| {
            let name = Name::new(entry.name).ok();
            children.extend(name.map(|name| (name, (entry.index, entry.node))));
            ControlFlow::Continue(())
        })?;
        Ok(children)
    }

    /// The folder that holds the node; the root holds itself.
    pub fn parent(&self, index: Index) -> Result<Index, NeedsManifest> {
        match self.place(index) {
            None => Ok(ROOT),
            Some(Place::Base(node)) => Ok(self.base.parent(node).into()),
            Some(Place::Row(output, attached, row)) => {
                let parent = attached.segment.parent(row).map_err(mend(output))?;
                let path = self.row_path(output, attached, parent)?;
                // The base may have a folder of its own at the parent's place.
                Ok(self.base.find(&path).map_or(attached.first + Index::from(parent), Index::from))
            }
        }
    }

    /// The node's path from the root.
    pub fn path(&self, index: Index) -> Result<RepoPath, NeedsManifest> {
        match self.place(index) {
            None => Ok(RepoPath::root()),
            Some(Place::Base(node)) => Ok(self.base.path(node)),
            Some(Place::Row(output, attached, row)) => self.row_path(output, attached, row),
        }
    }

    /// The node's path for people: where that cannot be told now, of the tracked directory it is in.
    pub fn shown_path(&self, index: Index) -> RepoPath {
        let of_output = |NeedsManifest(output)| self.tracked(output).output.path.clone();
        self.path(index).unwrap_or_else(of_output)
    }

    fn row_path(
        &self,
        output: OutputId,
        attached: &Attached,
        row: RowId,
    ) -> Result<RepoPath, NeedsManifest> {
        let mut names = Vec::new();
        let mut at = row;
        while at != Segment::ROOT {
            names.push(attached.segment.row(at).map_err(mend(output))?);
            at = attached.segment.parent(at).map_err(mend(output))?;
        }
        let mut bytes = self.tracked(output).output.path.as_bytes().to_vec();
        for row in names.into_iter().rev() {
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(row.name());
        }
        Ok(RepoPath::new(&bytes).unwrap_or_default())
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

/// What is to be had when a segment cannot be read; it has said why itself.
fn mend(output: OutputId) -> impl FnOnce(SegmentError) -> NeedsManifest {
    move |_| NeedsManifest(output)
}

const fn row_node(output: OutputId, kind: RowKind) -> Node {
    match kind {
        RowKind::Folder => Node::Folder { output: None },
        RowKind::File(id) => Node::Blob { id, output, claim: None, is_exec: false },
    }
}

/// The entries of one folder, by position, so that a listing can be taken up where it stopped.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    tree: &'a Tree,
    folder: Index,
    base: Range<u32>,
    rows: Option<Rows<'a>>,
}

/// The rows of a segment that a folder lists behind what the base has.
#[derive(Debug, Clone)]
struct Rows<'a> {
    output: OutputId,
    attached: &'a Attached,
    range: Range<RowId>,
}

/// One name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListingEntry<'a> {
    /// Where the listing goes on after this entry.
    pub next: u64,
    /// The node's number.
    pub index: Index,
    /// What it is.
    pub node: Node,
    /// Its name.
    pub name: &'a [u8],
}

impl Listing<'_> {
    /// The folder listed.
    pub fn folder(&self) -> Index {
        self.folder
    }

    /// Gives the entries from a position on to `each`, until it has enough; 0 is the start. Names
    /// that the base has are not repeated.
    pub fn walk(
        &self,
        position: u64,
        mut each: impl FnMut(ListingEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), NeedsManifest> {
        let base_len = u64::from(self.base.end - self.base.start);
        for at in position.min(base_len)..base_len {
            let (node, base) = (self.base.start + at as u32, &self.tree.base);
            let (next, index, name) = (at + 1, node.into(), base.name(node));
            let node = self.tree.base_node(node);
            if each(ListingEntry { next, index, node, name }).is_break() {
                return Ok(());
            }
        }
        let Some(Rows { output, attached, range }) = &self.rows else { return Ok(()) };
        let walked = attached.segment.walk(self.rows_from(position), |row, name, kind| {
            if self.tree.base.child_in(&self.base, name).is_some() {
                return ControlFlow::Continue(());
            }
            let next = base_len + u64::from(row - range.start) + 1;
            let (index, node) = (attached.first + Index::from(row), row_node(*output, kind));
            each(ListingEntry { next, index, node, name })
        });
        walked.map_err(mend(*output))
    }

    /// Makes sure that the entry at a position can be had, should it be there.
    pub fn probe(&self, position: u64) -> Result<(), NeedsManifest> {
        let Some(Rows { output, attached, .. }) = &self.rows else { return Ok(()) };
        let first = self.rows_from(position).next();
        first.map_or(Ok(()), |row| attached.segment.row(row).map(drop)).map_err(mend(*output))
    }

    fn rows_from(&self, position: u64) -> Range<RowId> {
        let Some(Rows { range, .. }) = &self.rows else { return 0..0 };
        let base_len = u64::from(self.base.end - self.base.start);
        let skipped = position.saturating_sub(base_len).min(range.len() as u64) as u32;
        range.start + skipped..range.end
    }
}
