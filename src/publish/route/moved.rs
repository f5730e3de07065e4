//! Outputs of the base that came to another path, alone or with their `.dvc` files.

use std::collections::BTreeMap;

use super::Router;
use crate::{
    dvc::{
        output::{Content, Origin, Output},
        record::moved::is_bound_to_folder,
    },
    git::GitError,
    overlay::{Kind, Overlay, Shows},
    path::RepoPath,
    publish::changes::{Change, Changes, New},
    tree::{Node, OutputId, Tracked, Tree},
};

/// The outputs of the base that came as they are, or as folders that were changed since, to other
/// paths of their project, by these.
pub(super) fn moved_outputs(
    overlay: &Overlay,
    tree: &Tree,
    changes: &Changes,
) -> BTreeMap<RepoPath, OutputId> {
    let files = changes.list.iter().filter_map(|change| match change.new? {
        New::Same { node: Node::Blob { output, .. }, .. } => Some((&change.path, output)),
        _ => None,
    });
    let is_file = |output: OutputId| {
        let content = &tree.tracked(output).output.content;
        matches!(content, Content::Blob(_) | Content::Unavailable(_))
    };
    let files = files.filter(|(_, output)| is_file(*output));
    let folders = changes.moved_outputs.iter().filter_map(|folder| {
        let origin = origin(overlay, folder)?;
        let output = tree.output_of(tree.find(&origin).ok()??)?;
        (tree.tracked(output).output.path == origin).then_some((folder, output))
    });
    let is_moved = |(path, output): &(&RepoPath, OutputId)| {
        let tracked = tree.tracked(*output);
        let is_elsewhere = tracked.output.path != **path && !tracked.is_of_pipeline();
        // What takes the place of another output is recorded where that was.
        let there = tree.find(path).ok().flatten().and_then(|index| tree.output_of(index));
        is_elsewhere
            && there.is_none_or(|there| tree.tracked(there).output.path != **path)
            && Some(tracked.project) == tree.project_around(path)
    };
    let moved = files.chain(folders).filter(is_moved);
    moved.map(|(path, output)| (path.clone(), output)).collect()
}

/// The folder of the base that a folder shows.
fn origin(overlay: &Overlay, folder: &RepoPath) -> Option<RepoPath> {
    let mut places = [folder.clone()].into_iter().chain(folder.folders());
    places.find_map(|place| match overlay.find(&place).ok()??.kind {
        Kind::Folder(Shows::Of(origin)) => origin.resolve(folder.strip_prefix(&place)?).ok(),
        _ => None,
    })
}

/// The output of a `.dvc` file that is at a path, or was until it was moved there, be it alone or with
/// the file, which then is among the changes.
pub(in crate::publish) fn output_for<'a>(
    outputs: &'a [Output],
    path: &RepoPath,
    moved: Option<&Tracked>,
    is_by_hand: bool,
) -> Option<&'a Output> {
    let at = |path: &RepoPath| outputs.iter().find(|output| output.path == *path);
    let only = || match outputs {
        [output] if is_by_hand => Some(output),
        _ => None,
    };
    at(path).or_else(|| at(&moved?.output.path)).or_else(only)
}

/// Why something is not changed here, if that is because it comes from elsewhere.
pub(super) fn imported(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Own => None,
        Origin::Import(source) => Some(format!("it is imported from {}", source.url)),
        Origin::ImportUrl => Some("it is imported from a URL".to_owned()),
    }
}

impl<'a> Router<'a> {
    /// The output of the base that was moved to a path.
    pub(super) fn moved_to(&self, path: &RepoPath) -> Option<&'a Tracked> {
        self.moved.get(path).map(|output| self.tree.tracked(*output))
    }

    /// The `.dvc` file that goes on declaring an output which was moved: one that was moved, too, or
    /// that is not called like the output.
    pub(super) fn record_of_moved(&self, tracked: &'a Tracked) -> Option<&'a RepoPath> {
        let Tracked { output, declared_in, .. } = tracked;
        if self.is_there(&output.path) {
            return None;
        }
        let name = [output.path.file_name()?, b".dvc"].concat();
        let is_other = declared_in.file_name() != Some(&name) && self.is_untouched(declared_in);
        let by_hand = self.by_hand.get(&output.path).copied();
        by_hand.or(is_other.then_some(declared_in))
    }

    fn is_untouched(&self, path: &RepoPath) -> bool {
        !self.changed.contains_key(path)
    }

    /// Whether a `.dvc` file declares at a path what was moved there with nothing changed in it.
    pub(super) fn is_moved_with(
        &self,
        file: &RepoPath,
        declared: &Output,
        (path, tracked): (&RepoPath, &Tracked),
    ) -> Result<bool, GitError> {
        let Tracked { output, declared_in, .. } = tracked;
        let is_bound = file.parent() != declared_in.parent()
            && self.text(file)?.is_some_and(|text| is_bound_to_folder(&text));
        let is_same = declared.content == output.content && declared.origin == output.origin;
        Ok(is_same && !is_bound && self.is_whole(path, &output.path))
    }

    /// Whether all that the base has at a path is at another, and nothing else.
    fn is_whole(&self, path: &RepoPath, from: &RepoPath) -> bool {
        let at = |place: &RepoPath| {
            let below = self.changed.range::<[u8], _>(place.below());
            self.changed.get_key_value(place).into_iter().chain(below).collect::<Vec<_>>()
        };
        let is_shown = |change: &Change| match change.new {
            Some(New::Same { index, .. }) => self
                .tree
                .path(index)
                .is_ok_and(|origin| origin.strip_prefix(from) == change.path.strip_prefix(path)),
            _ => false,
        };
        at(path).into_iter().all(|(_, change)| is_shown(change))
            && at(from).into_iter().all(|(place, change)| change.path != *place)
    }

    /// Why something does not go to git alone that was an output of which DVC keeps no copy, if so.
    pub(super) fn flaw_of_uncached(&self, change: &Change) -> Option<String> {
        let Some(New::Same { index, node: Node::GitFile { .. }, .. }) = change.new else {
            return None;
        };
        let origin = self.tree.path(index).ok().filter(|origin| *origin != change.path)?;
        let Tracked { output, declared_in, .. } = self.tree.tracked(self.uncached_output(&origin)?);
        let is_file = origin == output.path;
        let is_gone =
            is_file && !self.is_there(&origin) || !is_file && self.in_git(&output.path).is_none();
        (is_gone && self.is_untouched(declared_in)).then(|| {
            let path = &output.path;
            format!("{declared_in} tracks it as {path}, without a copy; dvc move it in a clone")
        })
    }
}
