//! What stays in the overlay after a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::{Mark, SnapshotError, plan::Left};
use crate::{
    id::time_of,
    overlay::{Kept, Kind, Shows},
    path::RepoPath,
    publish::changes::{Change, New},
    tree::{Node, Tree},
};

/// What shows, above the new commit, each change that is left as it is: the entry that showed it
/// before, where nothing below that was recorded, or else one of its own.
pub(super) fn of(
    tree: &Tree,
    mark: &Mark,
    (left, recorded): (&[(Change, Left)], &BTreeSet<RepoPath>),
    chosen: &[RepoPath],
) -> Result<BTreeMap<RepoPath, Kept>, SnapshotError> {
    let has = |folder: &RepoPath| {
        recorded.contains(folder) || recorded.range::<[u8], _>(folder.below()).next().is_some()
    };
    // Folders that show something of the base which is not what it was.
    let is_touched = |kind: &Kind| matches!(kind, Kind::Folder(Shows::Of(origin)) if has(origin));
    let entries = mark.0.iter().filter(|(_, (kind, _))| is_touched(kind));
    let touched: BTreeSet<_> = entries.map(|(path, _)| path.clone()).collect();
    let is_whole = |folder: &RepoPath| {
        let mut touched_below = touched.range::<[u8], _>(folder.below());
        !has(folder) && !touched.contains(folder) && touched_below.next().is_none()
    };
    let is_untouched_cover = |folder: &RepoPath| match mark.kind(folder) {
        // It says that all below is gone; whatever was recorded there is gone by now.
        Some(Kind::Whiteout | Kind::File { .. } | Kind::Link | Kind::Pipe) => true,
        Some(Kind::Folder(Shows::Nothing | Shows::Of(_))) => is_whole(folder),
        _ => false,
    };
    let mut kept = BTreeMap::new();
    for (Change { path, new, .. }, _) in left {
        let mut folders: Vec<_> = path.folders().collect();
        folders.reverse();
        if let Some(folder) = folders.into_iter().find(is_untouched_cover) {
            kept.insert(folder, Kept::Entry);
            continue;
        }
        let how = match (mark.kind(path), new) {
            // The file that the base has there is hidden by a folder.
            (Some(Kind::Folder(_)), None) => Kept::Opaque,
            (Some(_), _) => Kept::Entry,
            (None, None) => Kept::Gone,
            (None, Some(New::Same { index, node, is_exec })) => Kept::Content {
                origin: tree.path(*index)?,
                mode: if *is_exec { 0o755 } else { 0o644 },
                modified: time(*node),
            },
            // Whatever has bytes of its own has an entry.
            (None, Some(New::File(_) | New::Link | New::Pipe | New::Lost)) => continue,
        };
        kept.insert(path.clone(), how);
    }
    kept.extend(empty_folders(mark, chosen));
    // Where the new base has no folder of that name it may have a file.
    let folders = kept.keys().flat_map(RepoPath::folders).filter(|folder| {
        let shows_other =
            matches!(mark.kind(folder), Some(Kind::Folder(Shows::Nothing | Shows::Of(_))));
        shows_other && !has(folder)
    });
    let opaque: BTreeSet<_> = folders.collect();
    for folder in opaque {
        kept.entry(folder).or_insert(Kept::Opaque);
    }
    Ok(kept)
}

/// The folders that hold nothing and were not chosen; neither git nor DVC could record them.
fn empty_folders<'a>(
    mark: &'a Mark,
    chosen: &'a [RepoPath],
) -> impl Iterator<Item = (RepoPath, Kept)> + 'a {
    let is_own = |kind: &Kind| matches!(kind, Kind::Folder(Shows::Same | Shows::Nothing));
    let folders = mark.0.iter().filter(move |(_, (kind, _))| is_own(kind));
    let empty = folders.map(|(path, _)| path).filter(|path| {
        let is_chosen = || chosen.iter().any(|chosen| path.strip_prefix(chosen).is_some());
        let is_empty = || mark.0.range::<[u8], _>(path.below()).next().is_none();
        !chosen.is_empty() && !is_chosen() && is_empty()
    });
    empty.map(|path| (path.clone(), Kept::Entry))
}

/// The time that a content of the base is shown with.
fn time(node: Node) -> i64 {
    match node {
        Node::GitFile { id, .. } | Node::Link(id) => time_of(&id.0),
        Node::Blob { id: Some(id), .. } => time_of(&id.digest),
        Node::Blob { id: None, .. } | Node::Folder { .. } => time_of(&[]),
    }
}
