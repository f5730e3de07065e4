//! `.dvc` and lock files that were written by hand: what they let go of, and whether what they name
//! can be had.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{HasManifest, SnapshotError, plan::Routed};
use crate::{
    dvc::output::{Content, Origin, Output},
    git::GitError,
    id::TreeId,
    publish::{
        changes::Change,
        route::{Route, Router},
    },
    tree::{OutputId, Tree},
};

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

/// Refuses what would go into files that cannot be written anew as DVC would.
pub(super) fn refuse_unwritable(list: &mut [Routed], router: &Router<'_>) -> Result<(), GitError> {
    // Of what lies in one folder the one file is looked at once.
    let mut known = BTreeMap::new();
    for routed in list {
        let place = match &routed.route {
            Route::Manifest(output) => Ok(*output),
            Route::NewFolder { folder, .. } => Err(folder.clone()),
            _ => Err(routed.change.path.clone()),
        };
        let flaw = match known.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(router.unwritable(&routed.change, &routed.route)?),
        };
        if let Some((file, why)) = flaw {
            routed.refuse(format!("{file}, which tracks it: {why}"));
        }
    }
    Ok(())
}

/// Refuses files that declare folders anew whose manifests are nowhere or cannot be asked for, so that
/// nobody could list them.
pub(super) fn refuse_without_manifest(
    list: &mut [Routed],
    (router, tree): (&Router<'_>, &Tree),
    has_manifest: &HasManifest<'_>,
) -> Result<(), SnapshotError> {
    let known: BTreeSet<_> =
        tree.outputs().filter_map(|tracked| manifest(&tracked.output)).collect();
    let mut asked = BTreeMap::new();
    let written = list.iter().filter_map(|routed| match (&routed.left, &routed.route) {
        (None, Route::NewFolder { folder, .. }) => Some(folder.clone()),
        _ => None,
    });
    let written: BTreeSet<_> = written.collect();
    for routed in list {
        let Change { path, new: Some(_), .. } = &routed.change else { continue };
        if routed.left.is_some() || routed.route != Route::Git {
            continue;
        }
        let Some(project) = tree.project_around(path) else { continue };
        let outputs = router.outputs_in(path)?.and_then(Result::ok).unwrap_or_default();
        let stored = outputs.iter().filter(|output| {
            output.is_cached
                && !matches!(output.origin, Origin::Import(_))
                // Such a manifest is written by the snapshot itself.
                && !written.contains(&output.path)
        });
        for output in stored {
            let id = manifest(output).filter(|id| !known.contains(id));
            let Some(id) = id else { continue };
            let folder = &output.path;
            let is_had = asked.entry((project, output.remote.clone(), id)).or_insert_with(|| {
                has_manifest(project, output).map_err(|error| error.to_string())
            });
            let why = match is_had {
                Ok(true) => continue,
                Ok(false) => format!(
                    "the manifest of {folder} is neither here nor on its remote; dvc push it from \
                     where it was made"
                ),
                Err(why) => format!("the manifest of {folder} is not here: {why}"),
            };
            routed.refuse(why);
            break;
        }
    }
    Ok(())
}

fn manifest(output: &Output) -> Option<TreeId> {
    match output.content {
        Content::Tree(id) => Some(id),
        _ => None,
    }
}
