//! What is kept out of commits by a `.dvcignore`, by a `.gitignore`, or because it is for one
//! machine alone.

use std::{collections::BTreeSet, fmt};

use super::Router;
use crate::{
    dvc::{gitignore, ignore::Ignore},
    git::GitError,
    path::RepoPath,
};

/// What keeps something new out of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptOut {
    /// A `.dvcignore`, from what DVC tracks.
    DvcIgnore,
    /// A `.gitignore`.
    GitIgnore,
    /// DVC, which keeps it in a `.dvc` folder for this machine alone.
    Private,
}

impl fmt::Display for KeptOut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::DvcIgnore => "a .dvcignore keeps it out",
            Self::GitIgnore => "a .gitignore keeps it out",
            Self::Private => "it is DVC's own, for this machine alone",
        })
    }
}

/// The rules of all files of one name below a folder, as far as they were read.
pub(super) struct Book {
    root: RepoPath,
    file: &'static [u8],
    rules: Ignore,
    read: BTreeSet<RepoPath>,
}

impl Book {
    pub(super) fn of_git() -> Self {
        let (root, read) = Default::default();
        Self { root, file: b".gitignore", rules: Ignore::of_git(), read }
    }

    /// For the project at `root`.
    pub(super) fn of_dvc(root: &RepoPath) -> Self {
        let (rules, read) = (Ignore::new(root.clone()), BTreeSet::new());
        Self { root: root.clone(), file: b".dvcignore", rules, read }
    }

    /// The folders above a path whose rules are not read yet, and their files, the highest first.
    fn unread(&self, path: &RepoPath) -> Vec<(RepoPath, RepoPath)> {
        let folders = path.folders().take_while(|it| it.strip_prefix(&self.root).is_some());
        let unread = folders.filter(|folder| !self.read.contains(folder));
        let mut unread: Vec<_> =
            unread.filter_map(|it| Some((it.clone(), it.resolve(self.file).ok()?))).collect();
        unread.reverse();
        unread
    }

    /// Whether a file is left out, by the texts that the files of rules have.
    pub(super) fn ignores(
        &mut self,
        path: &RepoPath,
        text: impl Fn(&RepoPath) -> Result<Option<Vec<u8>>, GitError>,
    ) -> Result<bool, GitError> {
        for (folder, file) in self.unread(path) {
            let text = text(&file)?;
            self.add(folder, &file, text.as_deref());
        }
        Ok(self.rules.is_ignored(path, false))
    }

    fn add(&mut self, folder: RepoPath, file: &RepoPath, text: Option<&[u8]>) {
        // Git reads a file of rules that is ignored itself, DVC does not.
        let is_read = self.file == b".gitignore" || !self.rules.is_ignored(file, false);
        if let Some(text) = text.filter(|_| is_read) {
            self.rules.add(&folder, text);
        }
        self.read.insert(folder);
    }
}

impl Router<'_> {
    /// Whether a `.dvcignore` keeps a file or a folder from DVC.
    pub(super) fn is_dvc_ignored(
        &mut self,
        path: &RepoPath,
        is_dir: bool,
    ) -> Result<bool, GitError> {
        let Some(project) = self.tree.project_around(path) else { return Ok(false) };
        for (folder, file) in self.dvc_books[project].unread(path) {
            let text = self.text(&file)?;
            self.dvc_books[project].add(folder, &file, text.as_deref());
        }
        Ok(self.dvc_books[project].rules.is_ignored(path, is_dir))
    }

    /// Whether git leaves a new file out by itself.
    ///
    /// The line that hides an output says nothing of what takes its place.
    pub(super) fn is_git_ignored(&mut self, path: &RepoPath) -> Result<bool, GitError> {
        if let Some(replaced) = self.replaced(path) {
            let output = &self.tree.tracked(replaced).output.path;
            let (folder, name) = (output.parent(), output.file_name().unwrap_or_default());
            return Book::of_git().ignores(path, |file| {
                let is_beside = file.parent() == folder;
                Ok(self.text(file)?.map(|text| match gitignore::remove(&text, name) {
                    gitignore::Removed::Text(rest) if is_beside => rest,
                    gitignore::Removed::Empty if is_beside => Vec::new(),
                    _ => text,
                }))
            });
        }
        for (folder, file) in self.git_book.unread(path) {
            let text = self.text(&file)?;
            self.git_book.add(folder, &file, text.as_deref());
        }
        Ok(self.git_book.rules.is_ignored(path, false))
    }

    /// Whether git leaves a path out by what all `.gitignore` files say with their changes.
    pub(super) fn is_hidden_from_git(&self, path: &RepoPath) -> Result<bool, GitError> {
        Book::of_git().ignores(path, |file| self.text(file))
    }

    /// Whether the base has git leave a file out.
    pub(super) fn was_git_ignored(&self, path: &RepoPath) -> Result<bool, GitError> {
        Book::of_git().ignores(path, |file| self.text_before(file))
    }
}

/// Whether a path is what DVC keeps in a `.dvc` folder for one machine: settings with passwords,
/// its cache, and what it works with.
pub(super) fn is_private(path: &RepoPath) -> bool {
    const PRIVATE: [&[u8]; 3] = [b"config.local", b"tmp", b"cache"];
    let names: Vec<_> = path.components().collect();
    names.windows(2).any(|pair| pair[0] == b".dvc" && PRIVATE.contains(&pair[1]))
}
