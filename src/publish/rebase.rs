//! Another commit below an overlay: what it may not have changed, so that the overlay still says
//! what was meant.
//!
//! The overlay says it against the tree that it was made above. So whatever it replaces, removes
//! or shows from elsewhere has to be the same in the other tree, unless both have removed it; where
//! it does nothing, the other tree shows. This costs what the overlay changes, and no more of what
//! both trees have.

use std::{collections::BTreeSet, io};

use super::merge::{Conflict, Why};
use crate::{
    overlay::{Entry, Kind, Overlay, Shows},
    path::RepoPath,
    tree::{Child, Index, NeedsManifest, Node, Tree},
};

/// What it takes to have an overlay above another tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rebase {
    /// Paths to which the overlay and the other tree do different things.
    pub conflicts: Vec<Conflict>,
    /// Folders that were made on both sides, and that show both from then on.
    shared: Vec<RepoPath>,
    /// Entries that change nothing, and would where the other tree differs.
    idle: Vec<RepoPath>,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum RebaseError {
    /// A manifest has to be attached to the tree of the overlay first.
    #[error("a manifest is needed")]
    NeedsOld(NeedsManifest),
    /// A manifest has to be attached to the other tree first.
    #[error("a manifest is needed")]
    NeedsNew(NeedsManifest),
    /// The upper folder cannot be read or changed.
    #[error("the overlay")]
    Disk(#[from] io::Error),
}

impl Rebase {
    /// Looks what it takes to have an overlay that lies above `old` above `new`.
    pub fn plan(overlay: &Overlay, old: &Tree, new: &Tree) -> Result<Self, RebaseError> {
        let mut walk = Walk { overlay, old, new, rebase: Self::default() };
        walk.folder(&RepoPath::root(), Some(&RepoPath::root()))?;
        let mut seen = BTreeSet::new();
        walk.rebase.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        walk.rebase.conflicts.retain(|conflict| seen.insert(conflict.path.clone()));
        Ok(walk.rebase)
    }

    /// Changes the overlay so that it can lie above either tree.
    pub fn prepare(&self, overlay: &Overlay) -> io::Result<()> {
        self.shared.iter().try_for_each(|folder| overlay.set_shows(folder, &Shows::Same))?;
        self.idle.iter().try_for_each(|path| overlay.remove(path, false))
    }
}

struct Walk<'a> {
    overlay: &'a Overlay,
    old: &'a Tree,
    new: &'a Tree,
    rebase: Rebase,
}

/// What the overlay has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Here {
    Nothing,
    File,
    Folder,
}

/// A node of both trees, each with its number.
type Both = [Option<(Index, Node)>; 2];

impl Walk<'_> {
    /// Looks at a folder of the overlay through which the folder at `below` shows, if any does.
    fn folder(&mut self, folder: &RepoPath, below: Option<&RepoPath>) -> Result<(), RebaseError> {
        for listed in self.overlay.list(folder)? {
            let path = folder.join(&listed.name);
            let Some(entry) = self.overlay.find(&path)? else { continue };
            let below = below.map(|below| below.join(&listed.name));
            self.entry(&path, &entry, below.as_ref())?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &RepoPath,
        Entry { kind, stat }: &Entry,
        below: Option<&RepoPath>,
    ) -> Result<(), RebaseError> {
        let both = below.map_or(Ok([None, None]), |below| self.both(below))?;
        match kind {
            Kind::Folder(Shows::Of(origin)) if below == Some(origin) => {
                return self.own_folder(path, &Shows::Same, (below, both));
            }
            Kind::Folder(shows) => return self.own_folder(path, shows, (below, both)),
            Kind::Whiteout if both[0].is_none() => {
                self.rebase.idle.push(path.clone());
                return Ok(());
            }
            Kind::Whiteout if both[1].is_none() => return Ok(()),
            Kind::Whiteout => return self.expect_same(path, both, Here::Nothing),
            Kind::File { origin: Some(origin) } if below == Some(origin) => {
                let [old, new] = both.map(is_exec);
                if old.is_some() && old == new {
                    return Ok(());
                }
                if old == Some(stat.mode & 0o100 != 0) {
                    self.rebase.idle.push(path.clone());
                    return Ok(());
                }
            }
            Kind::File { origin: Some(origin) } => self.expect_same_at(path, origin)?,
            Kind::File { origin: None } | Kind::Link | Kind::Pipe => {}
        }
        self.expect_same(path, both, Here::File)
    }

    fn own_folder(
        &mut self,
        path: &RepoPath,
        shows: &Shows,
        (below, both): (Option<&RepoPath>, Both),
    ) -> Result<(), RebaseError> {
        let [is_old, is_new] = both.map(|node| matches!(node, Some((_, Node::Folder { .. }))));
        match shows {
            Shows::Same if is_old && (is_new || both[1].is_none()) => self.folder(path, below),
            Shows::Same | Shows::Nothing if both[0].is_none() && is_new => {
                if *shows == Shows::Nothing {
                    self.rebase.shared.push(path.clone());
                }
                self.folder(path, below)
            }
            Shows::Same | Shows::Nothing => {
                self.expect_same(path, both, Here::Folder)?;
                self.folder(path, None)
            }
            Shows::Of(origin) => {
                self.expect_same(path, both, Here::Folder)?;
                self.expect_same_at(path, origin)?;
                self.folder(path, Some(origin))
            }
        }
    }

    /// What the overlay shows at `path` is at `origin` in the trees.
    fn expect_same_at(&mut self, path: &RepoPath, origin: &RepoPath) -> Result<(), RebaseError> {
        let both = self.both(origin)?;
        self.expect_same(path, both, Here::File)
    }

    fn expect_same(&mut self, path: &RepoPath, both: Both, here: Here) -> Result<(), RebaseError> {
        if self.is_same(both)? {
            return Ok(());
        }
        let is_folder =
            |node: Option<(Index, Node)>| node.map(|(_, node)| matches!(node, Node::Folder { .. }));
        let why = match both.map(is_folder) {
            [_, None] => Why::RemovedUpstream,
            _ if here == Here::Nothing => Why::RemovedHere,
            [None, Some(is_folder)] if is_folder == (here == Here::Folder) => Why::BothAdded,
            [None, Some(_)] => Why::FileAndFolder,
            [Some(_), Some(_)] => Why::BothChanged,
        };
        self.rebase.conflicts.push(Conflict { path: path.clone(), why });
        Ok(())
    }

    /// Whether both trees have the same at two places, with all that is in it.
    fn is_same(&self, both: Both) -> Result<bool, RebaseError> {
        let [Some((old, old_node)), Some((new, new_node))] = both else {
            return Ok(both == [None, None]);
        };
        Ok(match (old_node, new_node) {
            (Node::Folder { .. }, Node::Folder { .. }) => return self.is_same_folder(old, new),
            (
                Node::GitFile { id: old, is_exec: was, .. },
                Node::GitFile { id: new, is_exec: is, .. },
            ) => old == new && was == is,
            (Node::Link(old), Node::Link(new)) => old == new,
            (Node::Blob { id: old, is_exec: was, .. }, Node::Blob { id: new, is_exec: is, .. }) => {
                old == new && was == is
            }
            _ => false,
        })
    }

    fn is_same_folder(&self, old: Index, new: Index) -> Result<bool, RebaseError> {
        let manifest = self.old.whole_manifest(old);
        if manifest.is_some() && manifest == self.new.whole_manifest(new) {
            return Ok(true);
        }
        let [old, new] = [
            children(self.old, old).map_err(RebaseError::NeedsOld)?,
            children(self.new, new).map_err(RebaseError::NeedsNew)?,
        ];
        if old.len() != new.len() {
            return Ok(false);
        }
        for ((old_name, old), (new_name, new)) in old.into_iter().zip(new) {
            if old_name != new_name || !self.is_same([Some(old), Some(new)])? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn both(&self, path: &RepoPath) -> Result<Both, RebaseError> {
        let find = |tree: &Tree| {
            let Some(index) = tree.find(path)? else { return Ok(None) };
            Ok(tree.node(index)?.map(|node| (index, node)))
        };
        Ok([
            find(self.old).map_err(RebaseError::NeedsOld)?,
            find(self.new).map_err(RebaseError::NeedsNew)?,
        ])
    }
}

/// Whether a file may be executed; nothing of what is no file.
fn is_exec(node: Option<(Index, Node)>) -> Option<bool> {
    match node?.1 {
        Node::GitFile { is_exec, .. } | Node::Blob { is_exec, .. } => Some(is_exec),
        Node::Folder { .. } | Node::Link(_) => None,
    }
}

/// What a folder has, by name.
fn children(tree: &Tree, folder: Index) -> Result<Vec<Child>, NeedsManifest> {
    let mut children = tree.children(folder)?;
    children.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(children)
}

#[cfg(test)]
mod tests {
    mod model;

    use super::*;
    use crate::{
        git::{Repository, fixture::Fixture},
        overlay::{Owner, Stat},
        tree::{self, Known},
    };

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    /// A tree of files, each with a text.
    fn tree_of(fixture: &Fixture, files: &[(&str, &str)]) -> Tree {
        fixture.git(&["rm", "-r", "--quiet", "--ignore-unmatch", "."]);
        for (name, text) in files {
            let file = fixture.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        fixture.commit(".keep", "kept");
        let repository = Repository::open(&fixture.path()).unwrap();
        tree::build(&repository, fixture.id("HEAD"), &Known::default()).unwrap()
    }

    const OLD: [(&str, &str); 4] = [("a", "1"), ("d/x", "1"), ("d/e/y", "1"), ("f/z", "1")];

    fn owner() -> Owner {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Owner { uid: uid.as_raw(), gid: gid.as_raw() }
    }

    /// The conflicts of an overlay above [`OLD`] with another tree, one line each.
    fn conflicts(change: impl Fn(&Overlay), new: &[(&str, &str)]) -> Vec<String> {
        let fixture = Fixture::empty();
        let (old, new) = (tree_of(&fixture, &OLD), tree_of(&fixture, new));
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(dir.path()).unwrap();
        change(&overlay);
        assert_eq!(Rebase::plan(&overlay, &old, &old).unwrap(), Rebase::default());
        let rebase = Rebase::plan(&overlay, &old, &new).unwrap();
        let line = |conflict: &Conflict| format!("{}: {}", conflict.path, conflict.why);
        rebase.conflicts.iter().map(line).collect()
    }

    fn file(overlay: &Overlay, name: &str) {
        if let Some(folder) = path(name).parent().filter(|folder| !folder.is_root()) {
            folder_that_shows(overlay, &folder.to_string(), &Shows::Same);
        }
        overlay.create_file(&path(name), 0o644, owner()).unwrap();
    }

    fn folder_that_shows(overlay: &Overlay, name: &str, shows: &Shows) {
        overlay.create_folder(&path(name), 0o755, owner(), shows).unwrap();
    }

    fn remove(overlay: &Overlay, name: &str) {
        file(overlay, name);
        overlay.remove(&path(name), true).unwrap();
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn what_upstream_did_elsewhere_is_in_nobodys_way() {
        let new = [("a", "1"), ("b", "new"), ("d/x", "1"), ("d/e/y", "2"), ("d/new", "1")];
        let change = |overlay: &Overlay| {
            file(overlay, "d/x");
            remove(overlay, "a");
            folder_that_shows(overlay, "g", &Shows::Nothing);
            file(overlay, "g/h");
        };
        assert_eq!(conflicts(change, &new), NONE);
    }

    #[test]
    fn what_upstream_did_to_the_same_path_is_a_conflict() {
        let change = |overlay: &Overlay| {
            for name in ["a", "d/x", "new", "both"] {
                file(overlay, name);
            }
            remove(overlay, "f/z");
        };
        let new = [("a", "2"), ("d/e/y", "1"), ("f/z", "2"), ("new/in", "1"), ("both", "x")];
        let expected = [
            "a: modified on both sides",
            "both: added on both sides, with different content",
            "d/x: modified here, removed upstream",
            "f/z: removed here, modified upstream",
            "new: a file on one side, a folder on the other",
        ];
        assert_eq!(conflicts(change, &new), expected);
    }

    #[test]
    fn folders_that_were_moved_or_replaced_have_to_be_the_same() {
        let same = [("a", "2"), ("d/x", "1"), ("d/e/y", "1"), ("f/z", "1")];
        let moved = |overlay: &Overlay| {
            folder_that_shows(overlay, "moved", &Shows::Of(path("d")));
            remove(overlay, "d");
        };
        assert_eq!(conflicts(moved, &same), NONE);
        let other = [("a", "1"), ("d/x", "1"), ("d/e/y", "1"), ("d/e/new", "1"), ("f/z", "1")];
        let expected = ["d: removed here, modified upstream", "moved: modified on both sides"];
        assert_eq!(conflicts(moved, &other), expected);
        let replaced = |overlay: &Overlay| folder_that_shows(overlay, "d", &Shows::Nothing);
        assert_eq!(conflicts(replaced, &same), NONE);
        assert_eq!(conflicts(replaced, &other), ["d: modified on both sides"]);
    }

    #[test]
    fn a_file_that_was_moved_needs_what_it_shows() {
        let change = |overlay: &Overlay| {
            overlay.stand_in(&path("b"), &path("a"), &Stat::default()).unwrap();
        };
        assert_eq!(conflicts(change, &OLD), NONE);
        assert_eq!(conflicts(change, &OLD[1..]), ["b: modified here, removed upstream"]);
    }

    #[test]
    fn what_both_removed_is_no_conflict_and_can_come_back() {
        let change = |overlay: &Overlay| remove(overlay, "a");
        assert_eq!(conflicts(change, &OLD[1..]), NONE);
        let fixture = Fixture::empty();
        let (without, with) = (tree_of(&fixture, &OLD[1..]), tree_of(&fixture, &OLD));
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(dir.path()).unwrap();
        remove(&overlay, "a");
        let rebase = Rebase::plan(&overlay, &without, &with).unwrap();
        assert_eq!(rebase.conflicts, []);
        rebase.prepare(&overlay).unwrap();
        assert!(overlay.is_empty().unwrap());
    }

    #[test]
    fn a_file_that_is_what_the_base_has_is_in_nobodys_way() {
        let stand_in = |mode| {
            move |overlay: &Overlay| {
                let stat = Stat { mode, ..Stat::default() };
                overlay.stand_in(&path("a"), &path("a"), &stat).unwrap();
            }
        };
        let changed = [&[("a", "2")], &OLD[1..]].concat();
        assert_eq!(conflicts(stand_in(0o644), &changed), NONE);
        assert_eq!(conflicts(stand_in(0o755), &changed), NONE);
        assert_eq!(conflicts(stand_in(0o644), &OLD[1..]), NONE);
        let expected = ["a: modified here, removed upstream"];
        assert_eq!(conflicts(stand_in(0o755), &OLD[1..]), expected);
    }

    #[test]
    fn a_folder_that_was_moved_back_is_where_it_was() {
        let change = |overlay: &Overlay| folder_that_shows(overlay, "d", &Shows::Of(path("d")));
        assert_eq!(conflicts(change, &[&OLD[..2], &[("d/e/y", "2")], &OLD[3..]].concat()), NONE);
    }

    #[test]
    fn a_folder_that_both_made_shows_what_is_in_both() {
        let fixture = Fixture::empty();
        let old = tree_of(&fixture, &OLD);
        let new =
            tree_of(&fixture, &[&OLD[..], &[("new/theirs", "1"), ("new/both", "1")]].concat());
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(dir.path()).unwrap();
        folder_that_shows(&overlay, "new", &Shows::Nothing);
        overlay.create_file(&path("new/ours"), 0o644, owner()).unwrap();
        let rebase = Rebase::plan(&overlay, &old, &new).unwrap();
        assert_eq!((rebase.conflicts.len(), &rebase.shared), (0, &vec![path("new")]));
        rebase.prepare(&overlay).unwrap();
        assert_eq!(Rebase::plan(&overlay, &old, &new).unwrap(), Rebase::default());
        overlay.create_file(&path("new/both"), 0o644, owner()).unwrap();
        let rebase = Rebase::plan(&overlay, &old, &new).unwrap();
        assert_eq!(rebase.conflicts[0].path, path("new/both"));
    }
}
