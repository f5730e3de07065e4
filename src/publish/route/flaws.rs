//! Files that tell DVC or git what to do, and would leave a repository that nobody can use.

use std::ops::ControlFlow;

use super::{Old, Router, ignored::Book, old_output};
use crate::{
    dvc::{
        config,
        lockfile::Lock,
        output::{Content, Output},
    },
    git::{EntryKind, GitError},
    path::RepoPath,
    publish::changes::{Change, New},
    tree::{Node, Tracked},
};

impl Router<'_> {
    /// Why a file by which DVC or git are told what to do cannot become what it is now, if so.
    pub(super) fn flaw(&mut self, change: &Change) -> Result<Option<String>, GitError> {
        let path = &change.path;
        if !matches!(old_output(self.tree, change), Old::Git | Old::Nothing) {
            return Ok(None);
        }
        if change.new.is_none() {
            return Ok(self.flaw_of_removal(path));
        }
        let Some(New::File(_)) = change.new else { return Ok(None) };
        let folder = path.parent().unwrap_or_default();
        let text = || self.text(path).map(Option::unwrap_or_default);
        Ok(match path.file_name().unwrap_or_default() {
            b"config" if folder.file_name() == Some(b".dvc") => {
                config::flaw(&text()?).map(|flaw| unreadable(&flaw))
            }
            b"dvc.lock" if self.tree.project_around(path).is_some() => {
                let flaw = Lock::parse(&text()?).err().map(|flaw| unreadable(&flaw.to_string()));
                flaw.or_else(|| {
                    let made = self.unrecorded_in(path)?;
                    Some(format!("it tells of {made}, which is not recorded"))
                })
            }
            b".dvcignore" => self.hidden_from_dvc(&folder)?,
            b".gitignore" => self.hidden_from_git(&folder)?,
            _ => self.flaw_of_outputs(path, self.outputs_in(path)?),
        })
    }

    /// Why DVC would take none of the outputs that a file declares, if so.
    fn flaw_of_outputs(
        &self,
        file: &RepoPath,
        outputs: Option<Result<Vec<Output>, String>>,
    ) -> Option<String> {
        let outputs = match outputs? {
            Ok(outputs) => outputs,
            Err(flaw) => return Some(unreadable(&flaw)),
        };
        outputs.iter().find_map(|Output { path, .. }| {
            let base = self.replaced(path).map(|output| self.tree.tracked(output));
            let base = base.filter(|tracked| self.still_tracks(tracked));
            let made = self.made_at(path).map(|made| &made.file);
            let mut others = base.map(|tracked| &tracked.declared_in).into_iter().chain(made);
            let other = others.find(|other| *other != file)?;
            Some(format!("{other} tracks {path} already"))
        })
    }

    fn still_tracks(&self, Tracked { output, declared_in, .. }: &Tracked) -> bool {
        !self.changed.contains_key(declared_in)
            || self.by_hand.get(&output.path).is_some_and(|file| *file == declared_in)
    }

    /// What DVC tracks and would refuse, since a `.dvcignore` in this folder hides it.
    fn hidden_from_dvc(&mut self, folder: &RepoPath) -> Result<Option<String>, GitError> {
        let mut folders = Vec::new();
        for Tracked { output, declared_in, project, .. } in self.tree.outputs() {
            let path = &output.path;
            if path.strip_prefix(folder).is_none() || !self.is_there(declared_in) {
                continue;
            }
            let is_dir = matches!(output.content, Content::Tree(_) | Content::Files(_));
            if self.is_dvc_ignored(path, is_dir)? {
                return Ok(Some(format!("it would hide {path}, which {declared_in} tracks")));
            }
            if let Content::Tree(_) = output.content {
                folders.push((path, *project, declared_in));
            }
        }
        for (path, project, declared_in) in folders {
            if let Some(flaw) = self.hidden_in(path, project)? {
                return Ok(Some(format!("{flaw}, which {declared_in} tracks")));
            }
        }
        Ok(None)
    }

    /// What DVC would no longer see of a tracked folder by what the `.dvcignore` files say now.
    fn hidden_in(&mut self, folder: &RepoPath, project: usize) -> Result<Option<String>, GitError> {
        let mut before = Book::of_dvc(&self.tree.projects[project].root);
        let top = self.tree.find(folder).ok().flatten();
        let mut folders: Vec<_> = top.map(|index| (folder.clone(), index)).into_iter().collect();
        while let Some((folder, index)) = folders.pop() {
            let Ok(children) = self.tree.children(index) else {
                return Ok(Some(format!("nobody knows what it would hide in {folder}")));
            };
            for (name, (index, node)) in children {
                let path = folder.join(&name);
                if let Node::Folder { .. } = node {
                    folders.push((path, index));
                } else if self.is_dvc_ignored(&path, false)?
                    && self.is_there(&path)
                    && !before.ignores(&path, |file| self.text_before(file))?
                {
                    return Ok(Some(format!("it would hide {path}")));
                }
            }
        }
        Ok(None)
    }

    /// A file of DVC that it would refuse, since a `.gitignore` in this folder hides it.
    fn hidden_from_git(&mut self, folder: &RepoPath) -> Result<Option<String>, GitError> {
        for Tracked { declared_in: file, .. } in self.tree.outputs() {
            let is_below = file.strip_prefix(folder).is_some();
            if is_below
                && self.is_there(file)
                && self.is_git_ignored(file)?
                && !self.was_git_ignored(file)?
            {
                return Ok(Some(format!("it would hide {file}, which DVC then refuses to read")));
            }
        }
        Ok(None)
    }

    /// What DVC still tracks where this is the settings of its project, of which nothing stays.
    fn flaw_of_removal(&self, path: &RepoPath) -> Option<String> {
        let mut projects = self.tree.projects.iter();
        let project = projects.position(|project| {
            project.root.resolve(b".dvc").is_ok_and(|folder| path.strip_prefix(&folder).is_some())
        })?;
        let tracked = self.tracked_in(project).filter(|_| !self.has_settings(project))?;
        Some(format!("DVC needs it for what it tracks, such as {}", tracked.output.path))
    }

    /// Whether a project of the base is still one.
    pub(super) fn is_project(&self, project: usize) -> bool {
        self.has_settings(project) || self.tracked_in(project).is_some()
    }

    fn has_settings(&self, project: usize) -> bool {
        let root = &self.tree.projects[project].root;
        root.resolve(b".dvc/config").is_ok_and(|config| self.is_there(&config))
            || root.resolve(b".dvc").is_ok_and(|folder| self.in_git(&folder).is_some())
    }

    /// Something that a project goes on tracking.
    fn tracked_in(&self, project: usize) -> Option<&Tracked> {
        let mut outputs = self.tree.outputs().filter(|tracked| tracked.project == project);
        outputs.find(|tracked| self.is_there(&tracked.declared_in))
    }

    /// The submodule that something new would come into, or in the place of.
    pub(super) fn submodule_around(&self, change: &Change) -> Result<Option<RepoPath>, GitError> {
        let places = [change.path.clone()].into_iter().chain(change.path.folders());
        for place in places.filter(|_| change.old.is_none()) {
            let Ok(Some(index)) = self.tree.find(&place) else { continue };
            let Ok(Some(Node::Folder { output: None })) = self.tree.node(index) else { break };
            // Git has no empty folders, so that few are looked for there.
            let mut is_empty = true;
            let listed = self.tree.listing(index).map(|listing| {
                listing.walk(0, |_| {
                    is_empty = false;
                    ControlFlow::Break(())
                })
            });
            let is_submodule = listed.is_ok() && is_empty && self.is_submodule(&place)?;
            return Ok(is_submodule.then_some(place));
        }
        Ok(None)
    }

    fn is_submodule(&self, path: &RepoPath) -> Result<bool, GitError> {
        let mut kind = EntryKind::Folder { id: self.repository.commit(self.tree.commit)?.tree };
        for name in path.components() {
            let EntryKind::Folder { id } = kind else { return Ok(false) };
            let mut entries = self.repository.entries(id)?.entries.into_iter();
            let Some(entry) = entries.find(|entry| entry.name.as_bytes() == name) else {
                return Ok(false);
            };
            kind = entry.kind;
        }
        Ok(matches!(kind, EntryKind::Submodule { .. }))
    }
}

fn unreadable(flaw: &str) -> String {
    format!("DVC could not read it: {flaw}")
}
