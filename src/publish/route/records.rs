//! The `.dvc` files of what is tracked from now on: where they are, and why DVC would refuse one.

use std::{collections::BTreeMap, ops::ControlFlow};

use super::{Old, Router, imported, old_output, output_for};
use crate::{
    dvc::{
        dotfile,
        output::{Content, Origin, Output},
        pipeline,
        record::{self, Recorded},
    },
    git::GitError,
    path::{Name, RepoPath},
    publish::changes::Change,
    tree::{Index, Node, OutputId, Tree},
};

/// Outputs, or why they cannot be read; nothing where no file declares any.
pub(in crate::publish) type Declared = Option<Result<Vec<Output>, String>>;

/// The text that a file has, if it has one.
type TextOf<'a, E> = dyn Fn(&RepoPath) -> Result<Option<Vec<u8>>, E> + 'a;

/// What a `.dvc` file declares, or a `dvc.yaml` with the `dvc.lock` beside it, either of which may
/// be named, by the texts that files have.
pub(in crate::publish) fn outputs_in<E>(
    file: &RepoPath,
    tree: &Tree,
    text: &TextOf<'_, E>,
) -> Result<Declared, E> {
    let Some(project) = tree.project_around(file) else { return Ok(None) };
    let (root, folder) = (&tree.projects[project].root, file.parent().unwrap_or_default());
    let name = file.file_name().unwrap_or_default();
    let parsed = if dotfile::is_name(name) {
        text(file)?.map(|text| dotfile::parse(&text, &folder, root))
    } else if name == b"dvc.yaml" || name == b"dvc.lock" {
        let beside = |name: &[u8]| match folder.resolve(name) {
            Ok(path) => text(&path),
            Err(_) => Ok(None),
        };
        let (yaml, lock) = (beside(b"dvc.yaml")?, beside(b"dvc.lock")?);
        let other = |path: &RepoPath| text(path).ok().flatten();
        yaml.map(|yaml| pipeline::parse(&yaml, lock.as_deref(), &folder, root, &other))
    } else {
        None
    };
    Ok(parsed.map(|parsed| parsed.map(|it| it.outputs).map_err(|flaw| flaw.to_string())))
}

impl Router<'_> {
    /// Notes what `.dvc` files say that were written or changed by hand.
    pub(super) fn note_records(&mut self) -> Result<(), GitError> {
        let mut found = BTreeMap::new();
        for Change { path, new, .. } in &self.changes.list {
            let is_record = dotfile::is_name(path.file_name().unwrap_or_default());
            if !is_record || new.is_none() {
                continue;
            }
            let outputs = self.outputs_in(path)?.and_then(Result::ok).unwrap_or_default();
            let beside = path.as_bytes().strip_suffix(b".dvc").map(RepoPath::new);
            if let ([output], Some(Ok(beside))) = (&outputs[..], beside)
                && output.is_cached
                && !self.is_there(&output.path)
                && self.is_there(&beside)
            {
                // It was moved with what it tracks, and nobody has set its path.
                found.insert(beside, path);
            }
            let own = outputs.into_iter().filter(|output| output.is_cached);
            found.extend(own.map(|output| (output.path, path)));
        }
        self.by_hand = found;
        Ok(())
    }

    /// [`outputs_in`] a file as it is with all changes.
    pub(in crate::publish) fn outputs_in(&self, file: &RepoPath) -> Result<Declared, GitError> {
        outputs_in(file, self.tree, &|path| self.text(path))
    }

    /// The output of the base that had a path to itself which is something new now, or that was a
    /// file where a folder is now.
    pub(super) fn replaced(&self, path: &RepoPath) -> Option<OutputId> {
        let mut places = [path.clone()].into_iter().chain(path.folders());
        places.find_map(|place| {
            let output = self.tree.output_of(self.tree.find(&place).ok()??)?;
            (self.tree.tracked(output).output.path == place).then_some(output)
        })
    }

    /// The `.dvc` file of something that is tracked from now on, or why there can be none.
    pub(super) fn record_of(
        &mut self,
        path: &RepoPath,
    ) -> Result<Result<RepoPath, String>, GitError> {
        let name = path.file_name().unwrap_or_default();
        let sample = Recorded::File { digest: [0; 16], size: 0, is_exec: false };
        if let Err(error) = record::create(name, &sample) {
            return Ok(Err(error.to_string()));
        }
        let replaced = self.replaced(path).map(|output| self.tree.tracked(output));
        let replaced = replaced.filter(|tracked| tracked.output.path == *path);
        let made = self.made.get(path).filter(|made| made.is_cached);
        if let Some(tracked) = replaced.filter(|tracked| tracked.is_of_pipeline()) {
            let is_unknown = matches!(tracked.output.content, Content::Unavailable(_));
            if !is_unknown || made.is_none() {
                let file = &tracked.declared_in;
                return Ok(Err(format!("a stage of {file} makes what was there")));
            }
        }
        if let Some(made) = made {
            return Ok(self.lock_of(made));
        }
        let moved = self.moved_to(path);
        let known = self.by_hand.get(path).copied();
        let known = known.or(replaced.map(|tracked| &tracked.declared_in));
        let known = known.or_else(|| self.record_of_moved(moved?));
        let known = known.filter(|file| self.is_there(file)).cloned();
        let file = known.or_else(|| {
            let name = Name::new(&[name, b".dvc"].concat()).ok()?;
            Some(path.parent()?.join(&name))
        });
        let Some(file) = file else { return Ok(Err("it has no name".to_owned())) };
        if let Some(moved) = moved.filter(|_| !self.changed.contains_key(&file))
            && let Some(why) = imported(&moved.output.origin)
        {
            return Ok(Err(format!("{why}; rename {} with it", moved.declared_in)));
        }
        let why = match self.outputs_in(&file)? {
            None if self.is_there(&file) => Some(format!("{file} is something else already")),
            None if self.is_git_ignored(&file)? => {
                Some(format!("a .gitignore keeps {file} out, which would track it"))
            }
            None => None,
            Some(Err(flaw)) => Some(format!("DVC could not read {file}: {flaw}")),
            Some(Ok(outputs)) => self.flaw_among(&outputs, path, &file)?,
        };
        Ok(why.map_or(Ok(file), Err))
    }

    /// Why a `.dvc` file with these outputs cannot track a path, if so.
    fn flaw_among(
        &mut self,
        outputs: &[Output],
        path: &RepoPath,
        file: &RepoPath,
    ) -> Result<Option<String>, GitError> {
        let moved = self.moved_to(path);
        let own = output_for(outputs, path, moved, self.changed.contains_key(file));
        if let Some(own) = own.filter(|own| own.path == *path || !self.is_there(&own.path)) {
            let is_plain = own.origin == Origin::Own && own.is_cached && !own.is_versioned;
            let is_moved = match moved.filter(|_| !is_plain) {
                Some(moved) => self.is_moved_with(file, own, (path, moved))?,
                None => false,
            };
            self.imports.extend(is_moved.then(|| path.clone()));
            let is_sound = is_plain || is_moved;
            return Ok((!is_sound).then(|| format!("{file} says that it comes from elsewhere")));
        }
        let other = outputs.iter().find(|output| self.is_there(&output.path));
        Ok(other.map(|it| format!("{file}, which would track it, tracks {} already", it.path)))
    }

    /// The outermost folder that is tracked as one from now on and has a path in it.
    pub(super) fn new_folder(&self, path: &RepoPath) -> Option<RepoPath> {
        let is_chosen = |folder: &RepoPath| {
            self.rules.folders.contains(folder)
                || self.changes.moved_outputs.contains(folder)
                || self.by_hand.contains_key(folder)
                || self.made.get(folder).is_some_and(|made| made.is_cached)
        };
        path.folders().filter(is_chosen).last()
    }

    /// The `.dvc` file of a folder that is tracked as one from now on, or why DVC refuses that.
    pub(super) fn record_of_folder(
        &mut self,
        folder: &RepoPath,
    ) -> Result<Result<RepoPath, String>, GitError> {
        if let Some(known) = self.new_folders.get(folder) {
            return Ok(known.clone());
        }
        let record = match self.overlap(folder) {
            Some(why) => Err(why),
            None => self.record_of(folder)?,
        };
        self.new_folders.insert(folder.clone(), record.clone());
        Ok(record)
    }

    /// What else there is in a folder that keeps DVC from tracking it as one.
    fn overlap(&self, folder: &RepoPath) -> Option<String> {
        let is_inside = |path: &RepoPath| path != folder && path.strip_prefix(folder).is_some();
        let mut outputs = self.tree.outputs();
        let output = outputs
            .find(|tracked| is_inside(&tracked.output.path) && self.is_there(&tracked.output.path));
        if let Some(tracked) = output {
            let (path, file) = (&tracked.output.path, &tracked.declared_in);
            return Some(format!("{folder} cannot be tracked as one: {file} tracks {path} in it"));
        }
        let mut made = self.made.range::<[u8], _>(folder.below());
        if let Some((path, made)) = made.next() {
            let file = &made.file;
            return Some(format!(
                "{folder} cannot be tracked as one: a stage of {file} makes {path} in it"
            ));
        }
        let file = self.in_git(folder)?;
        Some(format!("{folder} cannot be tracked as one: git tracks {file} in it"))
    }

    /// A file of git in a folder, if one stays there.
    pub(super) fn in_git(&self, folder: &RepoPath) -> Option<RepoPath> {
        let mut changed = self.changed.range::<[u8], _>(folder.below());
        let changed = changed.find(|(path, change)| {
            change.path == **path
                && change.new.is_some()
                && matches!(old_output(self.tree, change), Old::Git)
        });
        if let Some((path, _)) = changed {
            return Some(path.clone());
        }
        let index = self.tree.find(folder).ok()??;
        self.untouched_in_git(index, folder)
    }

    fn untouched_in_git(&self, index: Index, folder: &RepoPath) -> Option<RepoPath> {
        let (mut found, mut folders) = (None, Vec::new());
        let listing = self.tree.listing(index).ok()?;
        let walked = listing.walk(0, |entry| {
            let Ok(name) = Name::new(entry.name) else { return ControlFlow::Continue(()) };
            let path = folder.join(&name);
            match entry.node {
                Node::GitFile { .. } | Node::Link(_) if !self.changed.contains_key(&path) => {
                    found = Some(path);
                    return ControlFlow::Break(());
                }
                Node::Folder { .. } => folders.push((entry.index, path)),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        // What cannot be listed is tracked by DVC.
        _ = walked;
        found.or_else(|| {
            folders.into_iter().find_map(|(index, path)| self.untouched_in_git(index, &path))
        })
    }

    /// Whether there is anything at a path.
    pub(super) fn is_there(&self, path: &RepoPath) -> bool {
        if let Some(change) = self.changed.get(path) {
            return change.path == *path && change.new.is_some();
        }
        let mut below = self.changed.range::<[u8], _>(path.below());
        if below.any(|(path, change)| change.path == *path && change.new.is_some()) {
            return true;
        }
        let Some(index) = self.tree.find(path).ok().flatten() else { return false };
        match self.tree.node(index) {
            Ok(Some(Node::Folder { output: Some(output) })) => {
                !self.changes.removed_outputs.contains(&output)
            }
            _ => true,
        }
    }
}
