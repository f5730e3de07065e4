//! What the declarations of one DVC project say of each path.

use std::collections::{BTreeMap, HashMap};

use crate::{
    dvc::output::Content,
    path::RepoPath,
    tree::{OutputId, Tree},
};

/// The outputs of a project by path, with the folders that lead to them.
///
/// Unlike a [`Tree`] this has the outputs that git's files hide, for `list` shows both sides.
#[derive(Debug, Default)]
pub(super) struct Index {
    folders: HashMap<RepoPath, BTreeMap<Vec<u8>, Declared>>,
}

/// What is declared of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    /// A folder on the way to an output, or in an output that lists its files itself.
    Folder {
        /// Whether it is in an output.
        is_inside: bool,
    },
    /// An output.
    Output(OutputId),
    /// A file of an output that lists its files itself, by its place in the list.
    Part(OutputId, usize),
}

impl Index {
    /// Collects what DVC stores for a project. Of two outputs with one path the later counts.
    pub(super) fn new(tree: &Tree, project: usize) -> Self {
        let mut index = Self::default();
        let root = &tree.projects[project].root;
        for (id, tracked) in (0..).zip(tree.outputs()) {
            let output = &tracked.output;
            if tracked.project != project || !output.is_cached {
                continue;
            }
            index.insert(&output.path, Declared::Output(id));
            index.insert_parents(&output.path, root, false);
            let Content::Files(files) = &output.content else { continue };
            for (part, file) in files.iter().enumerate() {
                let Ok(path) = output.path.resolve(file.relpath.as_bytes()) else { continue };
                index.insert_parents(&path, &output.path, true);
                index.insert(&path, Declared::Part(id, part));
            }
        }
        index
    }

    fn insert(&mut self, path: &RepoPath, declared: Declared) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
        self.folders.entry(folder).or_default().insert(name.to_vec(), declared);
    }

    /// Enters the folders between `top` and `path`, unless something else is declared there.
    fn insert_parents(&mut self, path: &RepoPath, top: &RepoPath, is_inside: bool) {
        let between = |folder: &RepoPath| folder.strip_prefix(top).is_some_and(|p| !p.is_empty());
        let mut at = path.parent().filter(between);
        while let Some(folder) = at {
            let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return };
            let siblings = self.folders.entry(parent.clone()).or_default();
            siblings.entry(name.to_vec()).or_insert(Declared::Folder { is_inside });
            at = Some(parent).filter(between);
        }
    }

    /// What is declared of a name in a folder.
    pub(super) fn get(&self, folder: &RepoPath, name: &[u8]) -> Option<Declared> {
        self.folders.get(folder)?.get(name).copied()
    }

    /// Everything that is declared in a folder.
    pub(super) fn children(&self, folder: &RepoPath) -> impl Iterator<Item = (&[u8], Declared)> {
        let children = self.folders.get(folder).into_iter().flatten();
        children.map(|(name, declared)| (&name[..], *declared))
    }
}
