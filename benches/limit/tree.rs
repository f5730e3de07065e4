//! A tree in memory: one vector of nodes, the children of a folder side by side and sorted.

use std::{
    collections::VecDeque,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A node's number; the root is 0.
pub(crate) type Id = u32;

/// One file or folder.
pub(crate) struct Node {
    pub(crate) size: u64,
    pub(crate) parent: Id,
    pub(crate) first: Id,
    pub(crate) count: u32,
    pub(crate) is_dir: bool,
    name: (u32, u16),
}

/// All of a folder.
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    names: Vec<u8>,
}

impl Tree {
    /// Reads a folder with all that is in it.
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self { nodes: Vec::new(), names: Vec::new() };
        tree.push(0, b"", 0, true);
        let mut folders = VecDeque::from([(0, root.to_owned())]);
        while let Some((folder, path)) = folders.pop_front() {
            let mut entries: Vec<_> = fs::read_dir(&path).unwrap().map(Result::unwrap).collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            tree.nodes[folder as usize].first = tree.nodes.len() as Id;
            tree.nodes[folder as usize].count = entries.len() as u32;
            for entry in entries {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push_back((tree.nodes.len() as Id, entry.path()));
                }
                let name = entry.file_name();
                tree.push(folder, name.as_bytes(), metadata.len(), metadata.is_dir());
            }
        }
        tree
    }

    fn push(&mut self, parent: Id, name: &[u8], size: u64, is_dir: bool) {
        let at = (self.names.len() as u32, name.len() as u16);
        self.names.extend_from_slice(name);
        self.nodes.push(Node { size, parent, first: 0, count: 0, is_dir, name: at });
    }

    pub(crate) fn name(&self, id: Id) -> &[u8] {
        let (start, length) = self.nodes[id as usize].name;
        &self.names[start as usize..][..usize::from(length)]
    }

    pub(crate) fn children(&self, folder: Id) -> std::ops::Range<Id> {
        let folder = &self.nodes[folder as usize];
        folder.first..folder.first + folder.count
    }

    pub(crate) fn child(&self, folder: Id, name: &[u8]) -> Option<Id> {
        let (mut low, mut high) = (self.children(folder).start, self.children(folder).end);
        while low < high {
            let middle = u32::midpoint(low, high);
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    pub(crate) fn path(&self, root: &Path, id: Id) -> PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != 0 {
            names.push(self.name(at));
            at = self.nodes[at as usize].parent;
        }
        let mut path = root.to_owned();
        path.extend(names.into_iter().rev().map(std::ffi::OsStr::from_bytes));
        path
    }
}
