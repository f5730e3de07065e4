//! The lines that keep outputs out of git.

use std::collections::BTreeMap;

use super::{SnapshotError, plan::Routed};
use crate::{
    path::RepoPath,
    publish::{
        changes::{Change, New},
        route::Route,
    },
    tree::{Node, Tree},
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
