//! A tree while it is put together: nested maps, with the rules of who hides whom.

use std::collections::BTreeMap;

use super::OutputId;
use crate::{git::GitId, path::RepoPath};

/// Deeper trees are cut, so that walking one never exhausts a stack.
pub const MAX_DEPTH: usize = 512;

#[derive(Debug)]
pub(super) enum Draft {
    Folder(Folder),
    GitFile {
        id: GitId,
        is_exec: bool,
        hides: Option<OutputId>,
    },
    Link(GitId),
    /// A tracked file; `part` counts the files of outputs that list their files themselves.
    Output {
        output: OutputId,
        part: u32,
    },
}

#[derive(Debug, Default)]
pub(super) struct Folder {
    pub(super) children: BTreeMap<Box<[u8]>, Draft>,
    /// The output this is the top of.
    pub(super) output: Option<OutputId>,
    /// Whether that output's entries come from a manifest.
    pub(super) has_manifest: bool,
    /// Whether git could not say what is in it.
    pub(super) is_unreadable: bool,
}

/// Why an output does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Hidden {
    #[error("a file of git has this path")]
    ByFile,
    #[error("a folder of git has this path")]
    ByFolder,
    #[error("one of its folders is a file")]
    ByParent,
    #[error("more than {MAX_DEPTH} folders deep")]
    TooDeep,
    #[error("it is the root of the repository")]
    IsRoot,
}

impl Folder {
    /// Puts a tracked file in place. Git's own files and folders win; of two outputs the later.
    pub(super) fn insert_file(
        &mut self,
        path: &RepoPath,
        output: OutputId,
        part: u32,
    ) -> Result<(), Hidden> {
        let (folder, name) = self.folder_of(path)?;
        match folder.children.get_mut(name) {
            Some(Draft::GitFile { hides, .. }) => {
                *hides = Some(output);
                Err(Hidden::ByFile)
            }
            Some(Draft::Link(_)) => Err(Hidden::ByFile),
            Some(Draft::Folder(Self { output: None, .. })) => Err(Hidden::ByFolder),
            Some(Draft::Folder(_) | Draft::Output { .. }) | None => {
                folder.children.insert(name.into(), Draft::Output { output, part });
                Ok(())
            }
        }
    }

    /// Puts a tracked directory in place; with a folder of git it forms a union.
    pub(super) fn insert_folder(
        &mut self,
        path: &RepoPath,
        output: OutputId,
        has_manifest: bool,
    ) -> Result<(), Hidden> {
        let (folder, name) = self.folder_of(path)?;
        let entry = folder.children.entry(name.into());
        match entry.or_insert_with(|| Draft::Folder(Self::default())) {
            Draft::GitFile { hides, .. } => {
                *hides = Some(output);
                Err(Hidden::ByFile)
            }
            Draft::Link(_) => Err(Hidden::ByFile),
            Draft::Folder(folder) => {
                (folder.output, folder.has_manifest) = (Some(output), has_manifest);
                Ok(())
            }
            taken @ Draft::Output { .. } => {
                let output = Some(output);
                *taken = Draft::Folder(Self { output, has_manifest, ..Self::default() });
                Ok(())
            }
        }
    }

    /// The folder that is to hold `path`, made where it is missing, and the name in it.
    fn folder_of<'a>(&mut self, path: &'a RepoPath) -> Result<(&mut Self, &'a [u8]), Hidden> {
        if path.components().count() > MAX_DEPTH {
            return Err(Hidden::TooDeep);
        }
        let name = path.file_name().ok_or(Hidden::IsRoot)?;
        let parents = path.components().count() - 1;
        let mut at = self;
        for component in path.components().take(parents) {
            let entry = at.children.entry(component.into());
            match entry.or_insert_with(|| Draft::Folder(Self::default())) {
                Draft::Folder(folder) => at = folder,
                _ => return Err(Hidden::ByParent),
            }
        }
        Ok((at, name))
    }
}
