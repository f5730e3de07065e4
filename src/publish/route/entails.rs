//! What comes of a change by hand to the files of DVC and git, beyond the file itself.

use super::Router;
use crate::{git::GitError, path::RepoPath, publish::changes::Change, tree::Tracked};

impl Router<'_> {
    /// What a change to a file of git brings about that is easily overlooked.
    pub(in crate::publish) fn entails(&self, change: &Change) -> Result<Option<String>, GitError> {
        let path = &change.path;
        if path.file_name() == Some(b".gitignore") {
            return self.shown_to_git(&path.parent().unwrap_or_default());
        }
        Ok(self.let_go_by(path))
    }

    /// What DVC tracks and git would see, since no `.gitignore` hides it any more.
    fn shown_to_git(&self, folder: &RepoPath) -> Result<Option<String>, GitError> {
        for Tracked { output, declared_in, .. } in self.tree.outputs() {
            let path = &output.path;
            let is_tracked = output.is_cached && self.is_there(declared_in) && self.is_there(path);
            if path.strip_prefix(folder).is_some()
                && is_tracked
                && self.was_git_ignored(path)?
                && !self.is_hidden_from_git(path)?
            {
                return Ok(Some(format!("git would see {path}, which DVC tracks")));
            }
        }
        Ok(None)
    }

    /// What is there, and tracked by nothing any more since this file does not declare it.
    fn let_go_by(&self, file: &RepoPath) -> Option<String> {
        let mut declared = self.tree.outputs().filter(|tracked| tracked.declared_in == *file);
        let output = declared.find_map(|Tracked { output, .. }| {
            let is_declared =
                self.by_hand.contains_key(&output.path) || self.made_at(&output.path).is_some();
            (!is_declared && self.is_there(&output.path)).then_some(output)
        })?;
        Some(format!("{} is tracked no more and goes with it", output.path))
    }
}
