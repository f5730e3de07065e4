//! The arena of what git and the declarations say: one vector of nodes in breadth-first order,
//! the children of a folder side by side and sorted by name.

use std::{collections::VecDeque, ops::Range};

use super::{
    OutputId,
    draft::{Draft, Folder},
};
use crate::{git::GitId, path::RepoPath};

#[derive(Debug, Default)]
pub(super) struct Base {
    nodes: Vec<BaseNode>,
    names: Vec<u8>,
    /// Folders inside tracked directories: the output, and the path within it.
    backings: Vec<(OutputId, Box<[u8]>)>,
    /// Folders that git could not say all of, in ascending order.
    unreadable: Vec<u32>,
}

#[derive(Debug)]
struct BaseNode {
    name_start: u32,
    name_len: u8,
    parent: u32,
    kind: BaseKind,
}

/// What a base node is.
#[derive(Debug, Clone, Copy)]
pub(super) enum BaseKind {
    Folder { first: u32, count: u32, output: Option<OutputId>, backing: Option<u32> },
    GitFile { id: GitId, is_exec: bool, hides: Option<OutputId> },
    Link(GitId),
    Output { output: OutputId, part: u32 },
}

impl Base {
    /// Lays a draft out for good.
    pub(super) fn freeze(root: Folder) -> Self {
        let mut base = Self::default();
        let mut open = VecDeque::new();
        base.push(b"", 0, Draft::Folder(root), None, &mut open);
        while let Some((node, children, backing)) = open.pop_front() {
            let start = base.nodes.len() as u32;
            for (name, draft) in children {
                let inside = backing.as_ref().map(|(output, path)| (*output, join(path, &name)));
                base.push(&name, node, draft, inside, &mut open);
            }
            let end = base.nodes.len() as u32;
            if let BaseKind::Folder { first, count, .. } = &mut base.nodes[node as usize].kind {
                (*first, *count) = (start, end - start);
            }
        }
        base
    }

    fn push(
        &mut self,
        name: &[u8],
        parent: u32,
        draft: Draft,
        backing: Option<Backing>,
        open: &mut VecDeque<OpenFolder>,
    ) {
        let node = self.nodes.len() as u32;
        let kind = match draft {
            Draft::GitFile { id, is_exec, hides } => BaseKind::GitFile { id, is_exec, hides },
            Draft::Link(id) => BaseKind::Link(id),
            Draft::Output { output, part } => BaseKind::Output { output, part },
            Draft::Folder(Folder { children, output, has_manifest, is_unreadable }) => {
                self.unreadable.extend(is_unreadable.then_some(node));
                let own = output.filter(|_| has_manifest).map(|output| (output, Box::default()));
                let backing = own.or(backing);
                open.push_back((node, children, backing.clone()));
                let backing = backing.map(|backing| {
                    self.backings.push(backing);
                    self.backings.len() as u32 - 1
                });
                BaseKind::Folder { first: 0, count: 0, output, backing }
            }
        };
        let name_start = self.names.len() as u32;
        self.names.extend_from_slice(name);
        self.nodes.push(BaseNode { name_start, name_len: name.len() as u8, parent, kind });
    }

    pub(super) fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    pub(super) fn is_unreadable(&self, node: u32) -> bool {
        self.unreadable.binary_search(&node).is_ok()
    }

    pub(super) fn kind(&self, node: u32) -> BaseKind {
        self.nodes[node as usize].kind
    }

    pub(super) fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].parent
    }

    pub(super) fn name(&self, node: u32) -> &[u8] {
        self.name_of(&self.nodes[node as usize])
    }

    fn name_of(&self, node: &BaseNode) -> &[u8] {
        &self.names[node.name_start as usize..][..usize::from(node.name_len)]
    }

    pub(super) fn children(&self, node: u32) -> Range<u32> {
        match self.kind(node) {
            BaseKind::Folder { first, count, .. } => first..first + count,
            _ => 0..0,
        }
    }

    pub(super) fn child(&self, node: u32, name: &[u8]) -> Option<u32> {
        self.child_in(&self.children(node), name)
    }

    pub(super) fn child_in(&self, children: &Range<u32>, name: &[u8]) -> Option<u32> {
        let nodes = &self.nodes[children.start as usize..children.end as usize];
        let at = nodes.binary_search_by(|node| self.name_of(node).cmp(name)).ok()?;
        Some(children.start + at as u32)
    }

    pub(super) fn find(&self, path: &RepoPath) -> Option<u32> {
        path.components().try_fold(0, |node, name| self.child(node, name))
    }

    /// The tracked directory that shows through a folder, and where in it the folder lies.
    pub(super) fn backing(&self, node: u32) -> Option<(OutputId, &[u8])> {
        let BaseKind::Folder { backing, .. } = self.kind(node) else { return None };
        let (output, path) = &self.backings[backing? as usize];
        Some((*output, path))
    }

    pub(super) fn path(&self, node: u32) -> RepoPath {
        let mut names = Vec::new();
        let mut at = node;
        while at != 0 {
            names.push(self.name(at));
            at = self.parent(at);
        }
        names.reverse();
        RepoPath::new(&names.join(&b'/')).unwrap_or_default()
    }
}

type Backing = (OutputId, Box<[u8]>);
type OpenFolder = (u32, std::collections::BTreeMap<Box<[u8]>, Draft>, Option<Backing>);

fn join(path: &[u8], name: &[u8]) -> Box<[u8]> {
    if path.is_empty() { name.into() } else { [path, name].join(&b'/').into() }
}
