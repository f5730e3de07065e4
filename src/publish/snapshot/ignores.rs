//! The lines that keep outputs out of git.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    SnapshotError,
    plan::{Plan, Routed},
    writer::Writer,
};
use crate::{
    dvc::{gitignore, ignore::Ignore},
    git::Edit,
    path::RepoPath,
    publish::{
        changes::{Change, New},
        route::{Route, outputs_in},
    },
    tree::{Node, Tracked, Tree},
};

/// The name of the files that keep outputs out of git.
pub(super) const IGNORE: &[u8] = b".gitignore";

/// Refuses what is tracked from now on where a line for it can be written to no `.gitignore`.
pub(super) fn refuse_without_ignore(list: &mut [Routed], tree: &Tree) -> Result<(), SnapshotError> {
    // Whether there is something else by now, for those that were changed.
    let mut is_other = BTreeMap::<RepoPath, bool>::new();
    for Routed { change: Change { path, new, .. }, .. } in &*list {
        let is_plain =
            matches!(new, None | Some(New::File(_) | New::Same { node: Node::GitFile { .. }, .. }));
        if path.file_name() == Some(IGNORE) {
            *is_other.entry(path.clone()).or_default() |= !is_plain;
        }
        let folders = path.folders().filter(|folder| folder.file_name() == Some(IGNORE));
        is_other.extend(folders.filter(|_| new.is_some()).map(|folder| (folder, true)));
    }
    for routed in list {
        let output = match &routed.route {
            Route::NewFile(_) => &routed.change.path,
            Route::NewFolder { folder, .. } => folder,
            _ => continue,
        };
        let ignore = output.parent().and_then(|folder| folder.resolve(IGNORE).ok());
        let ignore = ignore.unwrap_or_default();
        let is_other = match is_other.get(&ignore) {
            Some(is_other) => *is_other,
            None => match tree.find(&ignore)? {
                Some(index) => !matches!(tree.node(index)?, None | Some(Node::GitFile { .. })),
                None => false,
            },
        };
        if is_other {
            routed.refuse(format!("{ignore}, which has to keep it out of git, is no file"));
        }
    }
    Ok(())
}

impl Writer<'_> {
    /// Notes that git is not to see something of which DVC keeps the content.
    pub(super) fn keep_from_git(&mut self, path: &RepoPath, is_dir: bool) {
        let folder = path.parent().unwrap_or_default();
        self.ignored.entry(folder).or_default().push((path.clone(), is_dir));
    }

    /// Takes the lines of what nothing declares any more, as `dvc remove` does.
    pub(super) fn stop_ignoring(&mut self, plan: &Plan) -> Result<(), SnapshotError> {
        let is_in_doubt = |tracked: &&Tracked| {
            let Tracked { output, declared_in, .. } = tracked;
            let is_changed = match self.edits.get(declared_in) {
                Some(Edit::Removed) => true,
                Some(_) => !tracked.is_of_pipeline(),
                None => false,
            };
            let is_there =
                self.declared.contains_key(&output.path) || plan.records.contains_key(&output.path);
            is_changed && output.is_cached && !is_there
        };
        let in_doubt: Vec<_> = self.ground.tree.outputs().filter(is_in_doubt).collect();
        if in_doubt.is_empty() {
            return Ok(());
        }
        let files = in_doubt.iter().map(|tracked| &tracked.declared_in);
        let by_hand = plan.git.iter().map(|change| &change.path);
        let files: BTreeSet<_> = files.chain(by_hand).collect();
        let mut declared = BTreeSet::new();
        for file in files {
            let outputs = outputs_in(file, self.ground.tree, &|path| self.text(path))?;
            let outputs = outputs.and_then(Result::ok).unwrap_or_default();
            declared.extend(outputs.into_iter().map(|output| output.path));
        }
        let gone = in_doubt.iter().map(|tracked| &tracked.output.path);
        gone.filter(|path| !declared.contains(*path)).try_for_each(|path| self.remove_line(path))
    }

    fn remove_line(&mut self, path: &RepoPath) -> Result<(), SnapshotError> {
        let folder = path.parent().unwrap_or_default();
        let ignore = folder.resolve(IGNORE).unwrap_or_default();
        let Some(text) = self.text(&ignore)? else { return Ok(()) };
        match gitignore::remove(&text, path.file_name().unwrap_or_default()) {
            gitignore::Removed::Unchanged => Ok(()),
            gitignore::Removed::Text(text) => self.put(&ignore, &text),
            gitignore::Removed::Empty => {
                self.edits.insert(ignore, Edit::Removed);
                Ok(())
            }
        }
    }

    /// Adds lines for outputs that git would see, as `dvc add` does.
    pub(super) fn start_ignoring(&mut self) -> Result<(), SnapshotError> {
        for (folder, outputs) in std::mem::take(&mut self.ignored) {
            let ignore = folder.resolve(IGNORE).unwrap_or_default();
            if !self.is_free_for_text(&ignore)? {
                continue;
            }
            let rules = self.rules_in(&folder)?;
            let (mut text, mut is_changed) = (self.text(&ignore)?.unwrap_or_default(), false);
            let seen = outputs.iter().filter(|(path, is_dir)| !rules.is_ignored(path, *is_dir));
            for (path, _) in seen {
                if let Some(longer) = gitignore::add(&text, path.file_name().unwrap_or_default()) {
                    (text, is_changed) = (longer, true);
                }
            }
            if is_changed {
                self.put(&ignore, &text)?;
            }
        }
        Ok(())
    }

    /// What git leaves out by itself in a folder.
    fn rules_in(&self, folder: &RepoPath) -> Result<Ignore, SnapshotError> {
        let mut rules = Ignore::of_git();
        let mut folders: Vec<_> = [folder.clone()].into_iter().chain(folder.folders()).collect();
        folders.reverse();
        for folder in folders {
            if let Some(text) = self.text(&folder.resolve(IGNORE).unwrap_or_default())? {
                rules.add(&folder, &text);
            }
        }
        Ok(rules)
    }

    /// Whether there is a text at a path of git's, or nothing that one would replace.
    fn is_free_for_text(&self, path: &RepoPath) -> Result<bool, SnapshotError> {
        let mut below = self.edits.range::<[u8], _>(path.below());
        if below.any(|(_, edit)| *edit != Edit::Removed) {
            return Ok(false);
        }
        let tree = self.ground.tree;
        Ok(match (self.edits.get(path), tree.find(path)?) {
            (Some(edit), _) => matches!(edit, Edit::File { .. } | Edit::Removed),
            (None, Some(index)) => matches!(tree.node(index)?, None | Some(Node::GitFile { .. })),
            (None, None) => true,
        })
    }
}
