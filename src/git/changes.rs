//! What differs between two trees, found without opening a file or a folder that is the same.

use itertools::{EitherOrBoth, Itertools};

use super::{
    id::GitTreeId,
    listing::{Entry, EntryKind},
    repository::Repository,
};
use crate::path::RepoPath;

/// Deeper folders are not opened.
const MAX_DEPTH: usize = 512;

/// A small repository can hold a tree that is endless for all purposes, equal folders inside equal
/// folders; beyond so many entries nothing is compared.
const MAX_ENTRIES: usize = 10_000_000;

/// A path that has not the same entry in two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: RepoPath,
    /// The file, link or submodule that was there.
    pub old: Option<EntryKind>,
    /// The file, link or submodule that is there now.
    pub new: Option<EntryKind>,
}

/// What [`Repository::changes`] found, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The paths that differ. Folders are told by what lies in them.
    pub found: Vec<Change>,
    /// Folders that could not be compared, each with the reason.
    pub unreadable: Vec<(RepoPath, String)>,
}

impl Repository {
    /// Compares two trees; none is one that holds nothing.
    pub fn changes(&self, old: Option<GitTreeId>, new: Option<GitTreeId>) -> Changes {
        let mut comparison = Comparison { repository: self, changes: Changes::default(), seen: 0 };
        let mut open = vec![Folders { path: RepoPath::root(), old, new, depth: 0 }];
        while let Some(folders) = open.pop() {
            if let Err(why) = comparison.folder(&folders, &mut open) {
                comparison.changes.unreadable.push((folders.path, why));
            }
        }
        comparison.changes
    }
}

/// A folder as it is in both trees.
struct Folders {
    path: RepoPath,
    old: Option<GitTreeId>,
    new: Option<GitTreeId>,
    depth: usize,
}

struct Comparison<'a> {
    repository: &'a Repository,
    changes: Changes,
    seen: usize,
}

impl Comparison<'_> {
    /// Compares what lies in a folder; the folders in it that differ go to `open`.
    fn folder(&mut self, folders: &Folders, open: &mut Vec<Folders>) -> Result<(), String> {
        if folders.old == folders.new {
            return Ok(());
        }
        if folders.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} folders deep"));
        }
        let (old, new) = (self.entries(folders.old)?, self.entries(folders.new)?);
        self.seen += old.len() + new.len();
        if self.seen > MAX_ENTRIES {
            return Err(format!("the trees have more than {MAX_ENTRIES} entries"));
        }
        for pair in old.into_iter().merge_join_by(new, |old, new| old.name.cmp(&new.name)) {
            let path = folders.path.join(match &pair {
                EitherOrBoth::Both(entry, _)
                | EitherOrBoth::Left(entry)
                | EitherOrBoth::Right(entry) => &entry.name,
            });
            let (old, new) = pair.map_any(|old| old.kind, |new| new.kind).left_and_right();
            if old == new {
                continue;
            }
            let ((old, old_folder), (new, new_folder)) = (split(old), split(new));
            if old_folder.is_some() || new_folder.is_some() {
                let (path, depth) = (path.clone(), folders.depth + 1);
                open.push(Folders { path, old: old_folder, new: new_folder, depth });
            }
            if old.is_some() || new.is_some() {
                self.changes.found.push(Change { path, old, new });
            }
        }
        Ok(())
    }

    fn entries(&self, tree: Option<GitTreeId>) -> Result<Vec<Entry>, String> {
        let Some(tree) = tree else { return Ok(Vec::new()) };
        let listing = self.repository.entries(tree).map_err(|error| error.to_string())?;
        Ok(listing.entries)
    }
}

/// An entry either as itself or as the folder that it is.
fn split(entry: Option<EntryKind>) -> (Option<EntryKind>, Option<GitTreeId>) {
    match entry {
        Some(EntryKind::Folder { id }) => (None, Some(id)),
        other => (other, None),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::git::fixture::Fixture;

    /// The changes between two revisions, as letters and paths.
    fn changes(fixture: &Fixture, old: &str, new: &str) -> Vec<String> {
        let repository = Repository::open(&fixture.path()).unwrap();
        let tree = |revision: &str| {
            let commit = repository.resolve(revision).unwrap().commit;
            Some(repository.commit(commit).unwrap().tree)
        };
        let changes = repository.changes(tree(old), tree(new));
        assert_eq!(changes.unreadable, []);
        let letter = |change: &Change| match (change.old, change.new) {
            (None, _) => 'A',
            (_, None) => 'D',
            _ => 'M',
        };
        let lines = changes.found.iter();
        lines.map(|change| format!("{} {}", letter(change), change.path)).sorted().collect()
    }

    #[test]
    fn what_git_names_as_changed_is_found() {
        let fixture = Fixture::new();
        for (path, text) in [("d/e/kept", "k"), ("d/e/changed", "1"), ("d/gone", "g"), ("f", "f")] {
            let path = fixture.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fixture.commit("b", "two");
        fs::remove_file(fixture.path().join("d/gone")).unwrap();
        fs::remove_file(fixture.path().join("f")).unwrap();
        fs::create_dir(fixture.path().join("f")).unwrap();
        fs::write(fixture.path().join("f/inside"), "i").unwrap();
        fs::write(fixture.path().join("d/e/changed"), "2").unwrap();
        fixture.commit("b", "three");

        let git = fixture.git(&["diff", "--no-renames", "--name-status", "HEAD~", "HEAD"]);
        let git: Vec<_> = git.lines().map(|line| line.replace('\t', " ")).sorted().collect();
        assert_eq!(changes(&fixture, "HEAD~", "HEAD"), git);
        assert_eq!(changes(&fixture, "HEAD", "HEAD"), [""; 0]);
    }

    #[test]
    fn a_change_of_kind_alone_is_a_change() {
        let fixture = Fixture::new();
        fixture.git(&["update-index", "--chmod=+x", "a.txt"]);
        fixture.git(&["commit", "--quiet", "-m", "x"]);
        assert_eq!(changes(&fixture, "HEAD~", "HEAD"), ["M a.txt"]);
    }

    #[test]
    fn everything_in_the_first_commit_is_new() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let tree = repository.commit(fixture.id("HEAD")).unwrap().tree;
        let changes = repository.changes(None, Some(tree));
        assert_eq!(changes.found.len(), 1);
        assert_eq!(changes.found[0].old, None);
    }

    #[test]
    fn a_folder_that_is_missing_is_named_and_costs_itself_alone() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path().join("d")).unwrap();
        fs::write(fixture.path().join("d/x"), "x").unwrap();
        fixture.commit("b", "two");
        let lost = fixture.git(&["rev-parse", "HEAD:d"]);
        let object = format!(".git/objects/{}/{}", &lost[..2], &lost[2..]);
        fs::remove_file(fixture.path().join(object)).unwrap();
        let repository = Repository::open(&fixture.path()).unwrap();
        let tree = |id: &str| repository.commit(fixture.id(id)).unwrap().tree;
        let changes = repository.changes(Some(tree("HEAD~")), Some(tree("HEAD")));
        let paths: Vec<_> = changes.found.iter().map(|change| change.path.to_string()).collect();
        assert_eq!(paths, ["b"]);
        let [(path, why)] = &changes.unreadable[..] else { panic!("{:?}", changes.unreadable) };
        assert_eq!(path.to_string(), "d");
        assert!(why.contains(&lost), "{why}");
    }
}
