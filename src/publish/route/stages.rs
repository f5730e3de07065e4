//! What the stages of pipelines make, as `dvc.yaml` and `dvc.lock` have it with all changes in them.

use std::collections::{BTreeMap, BTreeSet};

use super::Router;
use crate::{
    dvc::output::{Content, Output},
    git::GitError,
    path::RepoPath,
    publish::changes::Change,
};

/// An output of a stage.
pub(super) struct Made {
    /// The `dvc.yaml` that says so.
    pub(super) file: RepoPath,
    /// Whether DVC keeps a copy.
    pub(super) is_cached: bool,
    /// What keeps its hash from being written into the lock file, if so.
    obstacle: Option<&'static str>,
    /// Whether the lock file tells a content that the base does not have there.
    is_news: bool,
}

impl Made {
    fn lock(&self) -> Option<RepoPath> {
        self.file.parent()?.resolve(b"dvc.lock").ok()
    }
}

impl Router<'_> {
    /// Notes what stages make, if something changed that may tell of it.
    pub(super) fn note_stages(&mut self) -> Result<(), GitError> {
        /// Pipelines take their values from such files.
        const KINDS: [&[u8]; 6] = [b".yaml", b".yml", b".json", b".toml", b".py", b".lock"];
        let tells = |change: &Change| {
            KINDS.iter().any(|kind| change.path.file_name().unwrap_or_default().ends_with(kind))
        };
        if !self.changes.list.iter().any(tells) {
            return Ok(());
        }
        let tree = self.tree;
        let known = || tree.outputs().filter(|tracked| tracked.is_of_pipeline());
        let before: BTreeMap<_, _> =
            known().map(|tracked| (&tracked.output.path, &tracked.output.content)).collect();
        let known = known().map(|tracked| tracked.declared_in.clone());
        let changed = self.changes.list.iter().filter_map(|change| {
            let is_own =
                [b"dvc.yaml", b"dvc.lock"].map(|name| change.path.file_name() == Some(name));
            change.path.parent().filter(|_| is_own.contains(&true))?.resolve(b"dvc.yaml").ok()
        });
        let files: BTreeSet<_> = known.chain(changed).collect();
        for file in files {
            let Some(Ok(outputs)) = self.outputs_in(&file)? else { continue };
            if self.is_dvc_ignored(&file, false)? {
                continue;
            }
            let folder = file.parent();
            let stays = |output: &Output| {
                output.stage.as_ref().map(|stage| &stage.folder) == folder.as_ref()
            };
            let is_plain = outputs.iter().all(stays);
            for Output { path, content, is_cached, .. } in outputs {
                let before = before.get(&path).filter(|before| is_known(before));
                let is_news = is_known(&content) && before != Some(&&content);
                let obstacle = match content {
                    Content::Unavailable(_) => Some("dvc.lock does not tell of it yet"),
                    _ if before.is_none() && !is_plain => Some("stages of it have a wdir"),
                    _ => None,
                };
                self.made.insert(path, Made { file: file.clone(), is_cached, obstacle, is_news });
            }
        }
        Ok(())
    }

    /// What a stage makes at a path or around it.
    pub(super) fn made_at(&self, path: &RepoPath) -> Option<&Made> {
        let mut places = [path.clone()].into_iter().chain(path.folders());
        places.find_map(|place| self.made.get(&place))
    }

    /// The lock file that tells of what a stage makes, or why that is not recorded.
    pub(super) fn lock_of(&self, made: &Made) -> Result<RepoPath, String> {
        let file = &made.file;
        match (made.obstacle, made.lock()) {
            (None, Some(lock)) if self.rules.forces => Ok(lock),
            (None, _) => Err(by_force(file)),
            (Some(why), _) => Err(format!(
                "a stage of {file} makes it, and {why}: record {file}, and dvc repro and dvc push \
                 in a clone"
            )),
        }
    }

    /// Something that a lock file tells of and that is not recorded, so that nobody would have it.
    pub(super) fn unrecorded_in(&self, lock: &RepoPath) -> Option<&RepoPath> {
        let mut made = self.made.iter().filter(|(_, made)| {
            let is_told = made.is_cached && made.is_news && made.lock().as_ref() == Some(lock);
            is_told && self.lock_of(made).is_err()
        });
        made.find(|(path, _)| self.is_changed(path)).map(|(path, _)| path)
    }

    /// Whether there is something else at a path, or in it, than before.
    pub(super) fn is_changed(&self, path: &RepoPath) -> bool {
        let is_new =
            |change: &Change, path: &RepoPath| change.path == *path && change.new.is_some();
        let mut below = self.changed.range::<[u8], _>(path.below());
        self.changed.get(path).is_some_and(|change| is_new(change, path))
            || below.any(|(path, change)| is_new(change, path))
    }
}

fn is_known(content: &Content) -> bool {
    !matches!(content, Content::Unavailable(_))
}

/// Why what a stage makes is not recorded unless the user insists.
pub(super) fn by_force(file: &RepoPath) -> String {
    format!("a stage of {file} makes it; change what goes in, and dvc repro, or say --force")
}
