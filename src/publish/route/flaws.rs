//! Files that tell DVC or git what to do, and would leave a repository that nobody can use.

use super::{Old, Router, old_output};
use crate::{
    dvc::{dotfile, lockfile::Lock, output::Output},
    git::GitError,
    path::RepoPath,
    publish::changes::{Change, New},
    tree::Tracked,
};

impl Router<'_> {
    /// Why a file by which DVC or git are told what to do cannot become what it is now, if so.
    pub(super) fn flaw(&self, change: &Change) -> Result<Option<String>, GitError> {
        let path = &change.path;
        if !matches!(old_output(self.tree, change), Old::Git | Old::Nothing) {
            return Ok(None);
        }
        let Some(New::File(_)) = change.new else { return Ok(None) };
        let text = || self.text(path).map(Option::unwrap_or_default);
        Ok(match path.file_name().unwrap_or_default() {
            b"dvc.yaml" => self.flaw_of_outputs(path, self.made_by(path)?),
            b"dvc.lock" if self.tree.project_around(path).is_some() => {
                let flaw = Lock::parse(&text()?).err().map(|flaw| unreadable(&flaw.to_string()));
                flaw.or_else(|| {
                    let made = self.unrecorded_in(path)?;
                    Some(format!("it tells of {made}, which is not recorded"))
                })
            }
            name if dotfile::is_name(name) => self.flaw_of_outputs(path, self.outputs_in(path)?),
            _ => None,
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
}

fn unreadable(flaw: &str) -> String {
    format!("DVC could not read it: {flaw}")
}
