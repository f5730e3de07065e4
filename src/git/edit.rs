//! New trees from old ones: a list of changed paths, and all else as it was.
//!
//! Only the folders on the way to a changed path are read and written; neither a work tree nor an
//! index is involved. Objects are written before anything refers to them, so that whatever is left
//! behind by a crash is garbage for git to collect.

use std::collections::BTreeMap;

use git2::ObjectType;

use super::{
    error::GitError,
    id::{CommitId, GitId, GitTreeId},
    repository::Repository,
};
use crate::path::{Name, RepoPath};

/// What is to stand at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A regular file.
    File {
        /// Its content, as [`Repository::write_blob`] named it.
        id: GitId,
        /// Whether it may be executed.
        is_executable: bool,
    },
    /// A symbolic link.
    Link {
        /// The blob that holds its target.
        id: GitId,
    },
    /// A commit of another repository.
    Submodule {
        /// The commit, which is not in this repository.
        id: CommitId,
    },
    /// Nothing. It is no error if nothing stands there.
    Removed,
}

/// What is to stand at which paths. What was at such a path goes away with everything below it.
pub type Edits = BTreeMap<RepoPath, Edit>;

impl Repository {
    /// Writes the content of a file, or the target of a link, into the repository.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<GitId, GitError> {
        self.with(|repo| {
            repo.blob(bytes).map(GitId::from).map_err(|e| self.not_written("a file", &e))
        })
    }

    /// Writes the tree that `base` becomes with `edits`; without `base`, a tree of them alone.
    ///
    /// Folders are made where a path needs them, in place of a file if need be, and go away with
    /// the last thing in them.
    pub fn edit_tree(&self, base: Option<GitTreeId>, edits: &Edits) -> Result<GitTreeId, GitError> {
        let mut root = Folder::default();
        for (path, edit) in edits {
            root.add(path.components(), edit);
        }
        self.with(|repo| {
            let base = match base {
                Some(id) => Some(find_tree(repo, id)?),
                None => None,
            };
            let editor = Editor { repository: self, repo };
            match editor.write(base.as_ref(), &root)? {
                Some(tree) => Ok(tree),
                None => editor.empty(),
            }
        })
    }

    fn not_written(&self, what: &str, error: &git2::Error) -> GitError {
        let source = std::io::Error::other(format!("{what}: {}", error.message()));
        GitError::io("write into", self.git_dir())(source)
    }
}

fn find_tree(repo: &git2::Repository, id: GitTreeId) -> Result<git2::Tree<'_>, GitError> {
    repo.find_tree(id.0.oid()).map_err(|e| GitError::object(id.0, &e))
}

/// The edits below one folder, by name.
#[derive(Default)]
struct Folder<'a> {
    entries: BTreeMap<&'a [u8], Node<'a>>,
}

/// What happens at one name: something is put there or taken away, and something may be put below.
#[derive(Default)]
struct Node<'a> {
    edit: Option<&'a Edit>,
    below: Folder<'a>,
}

impl<'a> Folder<'a> {
    fn add(&mut self, mut components: impl Iterator<Item = &'a [u8]>, edit: &'a Edit) {
        let Some(first) = components.next() else { return };
        let mut node = self.entries.entry(first).or_default();
        for name in components {
            node = node.below.entries.entry(name).or_default();
        }
        node.edit = Some(edit);
    }
}

struct Editor<'a> {
    repository: &'a Repository,
    repo: &'a git2::Repository,
}

impl Editor<'_> {
    /// Writes one folder; nothing if nothing is left in it.
    fn write(
        &self,
        base: Option<&git2::Tree<'_>>,
        folder: &Folder<'_>,
    ) -> Result<Option<GitTreeId>, GitError> {
        let mut builder = self.repo.treebuilder(base).map_err(|e| self.failed(b"", &e))?;
        for (name, node) in &folder.entries {
            let old = base.and_then(|base| base.get_name_bytes(name));
            let new = self.entry(old, node)?;
            if let Some((oid, mode)) = new {
                builder.insert(*name, oid, mode).map_err(|e| self.failed(name, &e))?;
            } else if builder.get(*name).is_ok_and(|entry| entry.is_some()) {
                builder.remove(*name).map_err(|e| self.failed(name, &e))?;
            }
        }
        if builder.is_empty() {
            return Ok(None);
        }
        builder.write().map(|oid| Some(oid.into())).map_err(|e| self.failed(b"", &e))
    }

    /// What stands at a name in the end: its object and mode.
    fn entry(
        &self,
        old: Option<git2::TreeEntry<'_>>,
        node: &Node<'_>,
    ) -> Result<Option<(git2::Oid, i32)>, GitError> {
        match node.edit {
            Some(Edit::File { id, is_executable }) => {
                let mode = if *is_executable { 0o100_755 } else { 0o100_644 };
                return Ok(Some((id.oid(), mode)));
            }
            Some(Edit::Link { id }) => return Ok(Some((id.oid(), 0o120_000))),
            Some(Edit::Submodule { id }) => return Ok(Some((id.0.oid(), 0o160_000))),
            Some(Edit::Removed) | None => {}
        }
        let kept = old.filter(|_| node.edit.is_none());
        let is_folder = kept.as_ref().is_some_and(|old| old.kind() == Some(ObjectType::Tree));
        if let Some(old) = &kept
            && !is_folder
            && !node.below.has_content()
        {
            // A file, below which something was to be taken away.
            return Ok(Some((old.id(), old.filemode_raw())));
        }
        let base = match kept.filter(|_| is_folder) {
            Some(old) => Some(find_tree(self.repo, old.id().into())?),
            None => None,
        };
        let tree = self.write(base.as_ref(), &node.below)?;
        Ok(tree.map(|tree| (tree.0.oid(), 0o040_000)))
    }

    fn empty(&self) -> Result<GitTreeId, GitError> {
        let builder = self.repo.treebuilder(None).map_err(|e| self.failed(b"", &e))?;
        builder.write().map(GitTreeId::from).map_err(|e| self.failed(b"", &e))
    }

    fn failed(&self, name: &[u8], error: &git2::Error) -> GitError {
        let name = Name::new(name).map_or_else(|_root| "a folder".into(), |name| name.to_string());
        self.repository.not_written(&name, error)
    }
}

impl Folder<'_> {
    /// Whether anything is to be put below.
    fn has_content(&self) -> bool {
        self.entries.values().any(|node| match node.edit {
            Some(Edit::File { .. } | Edit::Link { .. } | Edit::Submodule { .. }) => true,
            Some(Edit::Removed) | None => node.below.has_content(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{EntryKind, fixture::Fixture};
    use proptest::{collection::btree_map, prelude::*};

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    fn tree_of(repository: &Repository, fixture: &Fixture, revision: &str) -> GitTreeId {
        repository.commit(fixture.id(revision)).unwrap().tree
    }

    /// Every file and its content, as git lists it.
    fn files(fixture: &Fixture, tree: GitTreeId) -> String {
        fixture.git(&["ls-tree", "-r", "--format=%(objectmode) %(path)", &tree.to_string()])
    }

    #[test]
    fn paths_are_put_replaced_and_removed_and_all_else_stays() {
        let fixture = Fixture::new();
        for (name, text) in [("x/one", "1"), ("x/deep/two", "2"), ("y/three", "3"), ("z", "4")] {
            std::fs::create_dir_all(fixture.path().join(name).parent().unwrap()).unwrap();
            fixture.commit(name, text);
        }
        let repository = Repository::open(&fixture.path()).unwrap();
        let base = tree_of(&repository, &fixture, "HEAD");
        let id = repository.write_blob(b"new").unwrap();
        let file = |is_executable| Edit::File { id, is_executable };
        let edits: Edits = [
            (path("x/deep/new.sh"), file(true)),
            (path("x/one"), Edit::Link { id }),
            (path("y/three"), Edit::Removed),
            (path("y/none"), Edit::Removed),
            (path("z"), Edit::Removed),
            (path("z/now a folder"), file(false)),
            (path("a/b/c"), file(false)),
            (path("none/none"), Edit::Removed),
        ]
        .into();
        let tree = repository.edit_tree(Some(base), &edits).unwrap();
        let expected = "100644 a.txt\n100644 a/b/c\n100755 x/deep/new.sh\n100644 x/deep/two\n\
                        120000 x/one\n100644 z/now a folder";
        assert_eq!(files(&fixture, tree), expected);
        assert_eq!(repository.blob(id, 100).unwrap(), b"new");
        let only = repository.edit_tree(None, &edits).unwrap();
        assert_eq!(files(&fixture, only).lines().count(), 4);
        let back: Edits = [(path("x"), file(false))].into();
        let flat = repository.edit_tree(Some(tree), &back).unwrap();
        assert!(files(&fixture, flat).contains("100644 x\n"));
        fixture.git(&["fsck", "--strict"]);
    }

    #[test]
    fn no_edits_give_the_same_tree_and_none_left_the_empty_one() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let base = tree_of(&repository, &fixture, "HEAD");
        assert_eq!(repository.edit_tree(Some(base), &Edits::new()).unwrap(), base);
        let gone: Edits = [(path("a.txt"), Edit::Removed)].into();
        let empty = repository.edit_tree(Some(base), &gone).unwrap();
        assert_eq!(empty.to_string(), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
        assert!(repository.entries(empty).unwrap().entries.is_empty());
    }

    #[test]
    fn what_git_cannot_hold_is_an_error() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let missing = Edit::File { id: GitId([7; 20]), is_executable: false };
        let id = repository.write_blob(b"x").unwrap();
        let sound = Edit::File { id, is_executable: false };
        for (name, edit) in [("x", missing), (".git/config", sound)] {
            let edits: Edits = [(path(name), edit)].into();
            let error = repository.edit_tree(None, &edits).unwrap_err();
            assert!(matches!(error, GitError::Io { .. }), "{error}");
        }
        let error = repository.edit_tree(Some(GitTreeId(GitId([7; 20]))), &Edits::new());
        assert!(matches!(error, Err(GitError::Missing { .. })));
    }

    type Model = BTreeMap<String, u8>;

    fn read(repository: &Repository, tree: GitTreeId, at: &str, found: &mut Model) {
        for entry in repository.entries(tree).unwrap().entries {
            let path = format!("{at}{}", entry.name);
            match entry.kind {
                EntryKind::Folder { id } => {
                    let before = found.len();
                    read(repository, id, &format!("{path}/"), found);
                    assert!(found.len() > before, "{path} is empty");
                }
                EntryKind::Blob { id, .. } => {
                    _ = found.insert(path, repository.blob(id, 1).unwrap()[0]);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn apply(model: &mut Model, path: &str, content: Option<u8>) {
        let below = format!("{path}/");
        model.retain(|other, _| other != path && !other.starts_with(&below));
        if let Some(content) = content {
            // A file in the way of a folder gives way.
            model.retain(|other, _| !below.starts_with(&format!("{other}/")));
            model.insert(path.to_owned(), content);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn edits_one_after_the_other_are_what_a_model_says(
            steps in proptest::collection::vec(
                btree_map("[ab](/[ab]){0,2}", any::<Option<u8>>(), 1..4), 1..5)
        ) {
            let fixture = Fixture::empty();
            let repository = Repository::open(&fixture.path()).unwrap();
            let (mut model, mut tree) = (Model::new(), None);
            for step in steps {
                let mut edits = Edits::new();
                for (name, content) in &step {
                    // Of a file and something below it only one can be.
                    let is_below = step.iter().any(|(other, content)| {
                        content.is_some() && name.starts_with(&format!("{other}/"))
                    });
                    if !is_below {
                        let edit = content.map_or(Edit::Removed, |byte| Edit::File {
                            id: repository.write_blob(&[byte]).unwrap(),
                            is_executable: false,
                        });
                        edits.insert(path(name), edit);
                        apply(&mut model, name, *content);
                    }
                }
                let new = repository.edit_tree(tree, &edits).unwrap();
                let mut found = Model::new();
                read(&repository, new, "", &mut found);
                prop_assert_eq!(&found, &model);
                tree = Some(new);
            }
        }
    }
}
