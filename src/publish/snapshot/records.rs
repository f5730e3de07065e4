//! `.dvc` and lock files that were written by hand: what they let go of.

use super::SnapshotError;
use crate::{
    dvc::{dotfile, output::Output, pipeline},
    git::GitError,
    path::RepoPath,
    publish::route::Router,
    tree::{OutputId, Tree},
};

/// The text that a file has by now, if it has one.
type TextOf<'a> = dyn Fn(&RepoPath) -> Result<Option<Vec<u8>>, SnapshotError> + 'a;

/// Whether the `.dvc` file of an output was changed to declare it no longer.
pub(super) fn is_let_go(
    router: &Router<'_>,
    tree: &Tree,
    output: OutputId,
) -> Result<bool, GitError> {
    let tracked = tree.tracked(output);
    if tracked.is_of_pipeline() {
        return Ok(false);
    }
    let Some(Ok(outputs)) = router.outputs_in(&tracked.declared_in)? else { return Ok(false) };
    Ok(outputs.iter().all(|declared| declared.path != tracked.output.path))
}

/// What a `.dvc` file, or a `dvc.yaml` with its lock file, declares by now; nothing if a file is
/// neither.
pub(super) fn outputs_of(
    file: &RepoPath,
    tree: &Tree,
    text: &TextOf<'_>,
) -> Result<Vec<Output>, SnapshotError> {
    let Some(project) = tree.project_around(file) else { return Ok(Vec::new()) };
    let (root, folder) = (&tree.projects[project].root, file.parent().unwrap_or_default());
    let name = file.file_name().unwrap_or_default();
    let parsed = if dotfile::is_name(name) {
        text(file)?.map(|text| dotfile::parse(&text, &folder, root))
    } else if name == b"dvc.yaml" || name == b"dvc.lock" {
        let beside = |name: &[u8]| text(&folder.resolve(name).unwrap_or_default());
        let (yaml, lock) = (beside(b"dvc.yaml")?, beside(b"dvc.lock")?);
        let other = |path: &RepoPath| text(path).ok().flatten();
        yaml.map(|yaml| pipeline::parse(&yaml, lock.as_deref(), &folder, root, &other))
    } else {
        None
    };
    Ok(parsed.and_then(Result::ok).map(|parsed| parsed.outputs).unwrap_or_default())
}
