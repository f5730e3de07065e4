//! The commits that changed what DVC tracks.

use std::sync::Arc;

use serde::Serialize;

use super::Commit;
use crate::{
    cli::{
        diff::{Scope, compare},
        exit::Failure,
    },
    git::{Change, CommitId},
    vfs::Vfs,
};

/// A commit that changed data, and how many files.
#[derive(Debug, Serialize)]
pub(super) struct DataCommit {
    #[serde(flatten)]
    pub(super) commit: Commit,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// How many files of each kind; nothing where a manifest cannot be had.
#[derive(Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) added: Option<usize>,
    pub(super) deleted: Option<usize>,
    pub(super) renamed: Option<usize>,
    pub(super) modified: Option<usize>,
}

/// The latest commits, from `start` along first parents, that changed what DVC tracks; and the
/// first failure to count what one changed.
pub(super) async fn data_commits(
    vfs: &Arc<Vfs>,
    start: CommitId,
    limit: usize,
) -> Result<(Vec<DataCommit>, Option<Failure>), Failure> {
    let repository = vfs.repository();
    let mut found = Vec::new();
    let mut first_failure = None;
    let mut at = Some(start);
    while let Some(id) = at.filter(|_| found.len() < limit) {
        let commit = repository.commit(id)?;
        at = commit.parents.first().copied();
        let parent_tree = at.map(|parent| repository.commit(parent)).transpose()?;
        let changes = repository.changes(parent_tree.map(|parent| parent.tree), Some(commit.tree));
        if changes.unreadable.is_empty() && !changes.found.iter().any(may_declare) {
            continue;
        }
        let old = match at {
            Some(parent) => Some(vfs.tree(parent).await?),
            None => None,
        };
        let new = vfs.tree(id).await?;
        let scope = Scope { dvc_only: true, ..Scope::default() };
        let (report, failure) = compare(vfs, old.as_ref(), &new, &scope).await;
        if report.is_empty() && failure.is_none() {
            continue;
        }
        let counts = match failure {
            None => Counts::from(report.counts().map(|(_, count)| Some(count))),
            Some(failure) => {
                first_failure.get_or_insert_with(|| failure.context(id));
                Counts::default()
            }
        };
        found.push(DataCommit { commit: Commit::read(repository, id)?, counts });
    }
    Ok((found, first_failure))
}

/// Whether a changed file may have a say in what DVC tracks: it declares outputs, or is of a kind
/// that pipelines take their variables from.
fn may_declare(change: &Change) -> bool {
    let name = change.path.file_name().unwrap_or_default();
    let endings: [&[u8]; 8] =
        [b".dvc", b".dvcignore", b".lock", b".yaml", b".yml", b".json", b".toml", b".py"];
    let is_setting = change.path.components().any(|component| component == b".dvc");
    is_setting || endings.into_iter().any(|ending| name.ends_with(ending))
}

impl From<[Option<usize>; 4]> for Counts {
    fn from([added, deleted, renamed, modified]: [Option<usize>; 4]) -> Self {
        Self { added, deleted, renamed, modified }
    }
}

impl Counts {
    /// What there is to say, such as `2 added, 1 modified`.
    pub(super) fn text(&self) -> String {
        let counts = [
            (self.added, "added"),
            (self.deleted, "deleted"),
            (self.renamed, "renamed"),
            (self.modified, "modified"),
        ];
        let known = counts.into_iter().filter_map(|(count, name)| Some((count?, name)));
        let parts: Vec<_> = known
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        match (parts.is_empty(), self.added) {
            (false, _) => parts.join(", "),
            (true, None) => "unknown".to_owned(),
            (true, Some(_)) => "folders only".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::RepoPath;

    #[test]
    fn files_that_declare_outputs_are_told_from_others() {
        let may = |path: &str| {
            let path = RepoPath::new(path.as_bytes()).unwrap();
            may_declare(&Change { path, old: None, new: None })
        };
        for path in
            ["a/b.dvc", "dvc.yaml", "x/dvc.lock", ".dvcignore", ".dvc/config", "params.toml"]
        {
            assert!(may(path), "{path}");
        }
        for path in ["README.md", "audio/a.wav", ".gitignore"] {
            assert!(!may(path), "{path}");
        }
    }

    #[test]
    fn counts_are_told_as_far_as_they_are_known() {
        let text = |counts: [Option<usize>; 4]| Counts::from(counts).text();
        assert_eq!(text([Some(2), Some(0), Some(0), Some(1)]), "2 added, 1 modified");
        assert_eq!(text([Some(0); 4]), "folders only");
        assert_eq!(text([None; 4]), "unknown");
    }
}
