//! What an overlay changes of the tree below it, path by path.
//!
//! Only what the upper folder has is looked at, so this costs what changed. Where a folder was
//! moved or made anew, all that is in it counts as new there, and what the base has at its place as
//! gone; what came from the base without a change of its bytes is known by its node.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use crate::{
    dvc::output::Content,
    overlay::{Entry, Kind, Overlay, Shows, Stat},
    path::RepoPath,
    tree::{Index, NeedsManifest, Node, OutputId, Tracked, Tree},
};

/// One path that is not what the base has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: RepoPath,
    /// What the base has there, unless it is a folder.
    pub old: Option<Node>,
    /// What is there now; nothing if it is gone.
    pub new: Option<New>,
    /// Where the base has the content that came here and is gone from there.
    pub renamed_from: Option<RepoPath>,
}

/// What is at a path that the base does not have so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum New {
    /// A file with bytes of its own.
    File(Stat),
    /// A file or link with the content of a node of the base.
    Same {
        /// Its number.
        index: Index,
        /// The node.
        node: Node,
        /// Whether its owner may execute it.
        is_exec: bool,
    },
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A file whose content the base does not have.
    Lost,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happened {
    /// It is new.
    Added,
    /// It has other content.
    Modified,
    /// It is gone.
    Deleted,
    /// It came from another path.
    Renamed,
}

/// All that an overlay changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// By path. What was renamed is listed once, at its new path.
    pub list: Vec<Change>,
    /// Places that tracked folders of the base were moved to.
    pub moved_outputs: BTreeSet<RepoPath>,
    /// Outputs of the base whose own path has nothing any more, or no folder where one was.
    pub removed_outputs: BTreeSet<OutputId>,
}

impl Changes {
    /// Tracked folders whose files have to be known to tell where changes go, since a `.dvcignore`
    /// may hide some of them now.
    pub fn to_be_listed(&self, tree: &Tree) -> Vec<OutputId> {
        let rules = self.list.iter().filter(|change| {
            change.new.is_some() && change.path.file_name() == Some(b".dvcignore")
        });
        let folders: Vec<_> = rules.filter_map(|change| change.path.parent()).collect();
        let is_below = |path: &RepoPath| folders.iter().any(|it| path.strip_prefix(it).is_some());
        let outputs = (0..).zip(tree.outputs()).filter(|(_, Tracked { output, .. })| {
            matches!(output.content, Content::Tree(_)) && is_below(&output.path)
        });
        outputs.map(|(id, _)| id).collect()
    }
}

/// Why it cannot be told what changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// A manifest has to be attached to the tree first.
    #[error("a manifest is needed")]
    Needs(NeedsManifest),
    /// The upper folder cannot be read.
    #[error("read the overlay")]
    Disk(#[from] io::Error),
}

impl From<NeedsManifest> for ChangesError {
    fn from(needs: NeedsManifest) -> Self {
        Self::Needs(needs)
    }
}

impl Change {
    /// What happened.
    pub fn happened(&self) -> Happened {
        match (self.old, self.new, &self.renamed_from) {
            (_, _, Some(_)) => Happened::Renamed,
            (_, None, _) => Happened::Deleted,
            (None, ..) => Happened::Added,
            (Some(_), ..) => Happened::Modified,
        }
    }

    /// The size in bytes of what the overlay has of its own there.
    pub fn size(&self) -> Option<u64> {
        match self.new {
            Some(New::File(stat)) => Some(stat.size),
            _ => None,
        }
    }
}

/// What an overlay changes of a tree. A change that is made meanwhile is seen or not.
pub fn changes(overlay: &Overlay, tree: &Tree) -> Result<Changes, ChangesError> {
    let mut walk = Walk::new(overlay, tree);
    walk.run()?;
    walk.finish()
}

/// A folder that is still to be looked into.
struct Pending {
    path: RepoPath,
    look: Look,
}

/// What a folder is looked into for.
enum Look {
    /// What the upper layer has there, above a folder of the base if one shows through it. If the
    /// folder is not where the base has it, all that shows is new at its place.
    Upper { base: Option<Index>, is_elsewhere: bool },
    /// What has come there with a folder of the base.
    Brought(Index),
    /// What the base had there and is gone.
    Lost(Index),
}

struct Walk<'a> {
    overlay: &'a Overlay,
    tree: &'a Tree,
    /// Not on the stack of the program: folders lie in each other as deep as anybody likes.
    pending: Vec<Pending>,
    present: BTreeMap<RepoPath, New>,
    gone: BTreeMap<RepoPath, Index>,
    moved_outputs: BTreeSet<RepoPath>,
    removed_outputs: BTreeSet<OutputId>,
}

impl<'a> Walk<'a> {
    fn new(overlay: &'a Overlay, tree: &'a Tree) -> Self {
        let (present, gone, moved_outputs, removed_outputs) = Default::default();
        Self { overlay, tree, pending: Vec::new(), present, gone, moved_outputs, removed_outputs }
    }

    fn run(&mut self) -> Result<(), ChangesError> {
        let base = Some(crate::tree::ROOT);
        self.later(&RepoPath::root(), Look::Upper { base, is_elsewhere: false });
        while let Some(Pending { path, look }) = self.pending.pop() {
            match look {
                Look::Upper { base, is_elsewhere } => self.folder(&path, base, is_elsewhere)?,
                Look::Brought(index) => {
                    for (name, (child, _)) in self.tree.children(index)? {
                        self.bring(&path.join(&name), child)?;
                    }
                }
                Look::Lost(index) => {
                    for (name, (child, _)) in self.tree.children(index)? {
                        self.lose(&path.join(&name), child, true)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn later(&mut self, path: &RepoPath, look: Look) {
        self.pending.push(Pending { path: path.clone(), look });
    }

    fn folder(
        &mut self,
        folder: &RepoPath,
        base: Option<Index>,
        is_elsewhere: bool,
    ) -> Result<(), ChangesError> {
        let upper = self.overlay.list(folder)?;
        for listed in &upper {
            let path = folder.join(&listed.name);
            // What goes away meanwhile was not there.
            let Some(entry) = self.overlay.find(&path)? else { continue };
            let below = match base {
                Some(index) => self.tree.child(index, listed.name.as_bytes())?,
                None => None,
            };
            self.entry(&path, &entry, below, is_elsewhere)?;
        }
        if let Some(index) = base.filter(|_| is_elsewhere) {
            let is_above = |name: &[u8]| {
                upper.binary_search_by(|listed| listed.name.as_bytes().cmp(name)).is_ok()
            };
            for (name, (child, _)) in self.tree.children(index)? {
                if !is_above(name.as_bytes()) {
                    self.bring(&folder.join(&name), child)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &RepoPath,
        entry: &Entry,
        below: Option<Index>,
        is_elsewhere: bool,
    ) -> Result<(), ChangesError> {
        let node_below = self.node(below)?;
        let folder_below = below.filter(|_| matches!(node_below, Some(Node::Folder { .. })));
        if let (Kind::Folder(Shows::Same), Some(index)) = (&entry.kind, folder_below) {
            self.later(path, Look::Upper { base: Some(index), is_elsewhere });
            return Ok(());
        }
        if let Some(index) = below.filter(|_| !is_elsewhere) {
            let stays = matches!(entry.kind, Kind::Folder(_));
            self.lose(path, index, !stays)?;
        }
        let new = match &entry.kind {
            Kind::Whiteout => return Ok(()),
            Kind::Folder(Shows::Same | Shows::Nothing) => {
                self.later(path, Look::Upper { base: None, is_elsewhere: true });
                return Ok(());
            }
            Kind::Folder(Shows::Of(origin)) => {
                let base = self.tree.find(origin)?;
                let node = self.node(base)?;
                if let Some(Node::Folder { output: Some(_) }) = node {
                    self.moved_outputs.insert(path.clone());
                }
                self.later(path, Look::Upper { base, is_elsewhere: true });
                return Ok(());
            }
            Kind::File { origin: None } => New::File(entry.stat),
            Kind::File { origin: Some(origin) } => {
                let index = self.tree.find(origin)?;
                match index.zip(self.node(index)?) {
                    Some((index, node)) => {
                        New::Same { index, node, is_exec: entry.stat.mode & 0o100 != 0 }
                    }
                    None => New::Lost,
                }
            }
            Kind::Link => New::Link,
            Kind::Pipe => New::Pipe,
        };
        self.present.insert(path.clone(), new);
        Ok(())
    }

    /// Something of the base has come to a path with all that is in it.
    fn bring(&mut self, path: &RepoPath, index: Index) -> Result<(), ChangesError> {
        let Some(node) = self.tree.node(index)? else { return Ok(()) };
        if let Node::Folder { output } = node {
            if output.is_some() {
                self.moved_outputs.insert(path.clone());
            }
            self.later(path, Look::Brought(index));
        } else {
            self.present.insert(path.clone(), New::Same { index, node, is_exec: is_exec(node) });
        }
        Ok(())
    }

    /// What the base has at a path is gone with all that is in it. If a folder takes its place, an
    /// output that is a folder stays.
    fn lose(&mut self, path: &RepoPath, index: Index, is_all: bool) -> Result<(), ChangesError> {
        if let Some(Node::Folder { output }) = self.tree.node(index)? {
            self.removed_outputs.extend(output.filter(|_| is_all));
            self.later(path, Look::Lost(index));
        } else {
            self.gone.insert(path.clone(), index);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Changes, ChangesError> {
        let (tree, present) = (self.tree, &self.present);
        self.removed_outputs.retain(|output| {
            let folder = &tree.tracked(*output).output.path;
            present.range::<[u8], _>(folder.below()).next().is_none()
        });
        let mut list = Vec::new();
        for (path, new) in std::mem::take(&mut self.present) {
            let index = self.gone.remove(&path).or(self.tree.find(&path)?);
            let old = self.node(index)?.filter(|node| !matches!(node, Node::Folder { .. }));
            let is_same = match (new, old) {
                (New::Same { index: new, is_exec: is, .. }, Some(old)) => {
                    index == Some(new) && (is == is_exec(old) || self.has_no_mode(old))
                }
                _ => false,
            };
            if !is_same {
                list.push(Change { path, old, new: Some(new), renamed_from: None });
            }
        }
        for change in list.iter_mut().filter(|change| change.old.is_none()) {
            if let Some(New::Same { index, .. }) = change.new {
                let origin = self.tree.path(index)?;
                change.renamed_from = self.gone.remove(&origin).map(|_| origin);
            }
        }
        for (path, index) in std::mem::take(&mut self.gone) {
            let old = self.node(Some(index))?;
            list.push(Change { path, old, new: None, renamed_from: None });
        }
        list.sort_by(|a, b| a.path.cmp(&b.path));
        let (moved_outputs, removed_outputs) = (self.moved_outputs, self.removed_outputs);
        Ok(Changes { list, moved_outputs, removed_outputs })
    }

    /// Whether nobody can record that a file may be executed: manifests do not tell.
    fn has_no_mode(&self, node: Node) -> bool {
        let Node::Blob { output, .. } = node else { return false };
        matches!(self.tree.tracked(output).output.content, Content::Tree(_))
    }

    fn node(&self, index: Option<Index>) -> Result<Option<Node>, NeedsManifest> {
        index.map_or(Ok(None), |index| self.tree.node(index))
    }
}

/// Whether the owner of a file of the base may execute it.
fn is_exec(node: Node) -> bool {
    match node {
        Node::GitFile { is_exec, .. } | Node::Blob { is_exec, .. } => is_exec,
        Node::Folder { .. } | Node::Link(_) => false,
    }
}
