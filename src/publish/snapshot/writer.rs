//! What a snapshot writes: manifests, `.dvc` files, lock files, and all that goes to git.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    ops::ControlFlow,
};

use super::{
    Files, Ground, MOST_IN_GIT, SnapshotError, disk, hash::Contents, hash::is_of_dvc_2, plan::Plan,
};
use crate::{
    dvc::{
        lockfile,
        manifest::{
            Entry,
            edit::{self, EditError},
            write::{Written, compose},
        },
        md5::Md5,
        output::Content,
        record::{self, Change as OutputChange, Recorded},
    },
    git::{Edit, Edits, GitId},
    id::{BlobId, Digest, Scheme},
    path::{Name, RepoPath},
    publish::{
        changes::{Change, New},
        route::{output_for, outputs_in},
    },
    tree::{Index, Node, OutputId, Tracked},
};

pub(super) struct Writer<'a> {
    pub(super) ground: &'a Ground<'a>,
    contents: &'a Contents,
    pub(super) edits: Edits,
    /// The new content of outputs.
    pub(super) declared: BTreeMap<RepoPath, Recorded>,
    /// Outputs that are to be kept out of git, and whether they are folders, by their own folder.
    pub(super) ignored: BTreeMap<RepoPath, Vec<(RepoPath, bool)>>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(ground: &'a Ground<'a>, contents: &'a Contents) -> Self {
        let (edits, declared, ignored) = Default::default();
        Self { ground, contents, edits, declared, ignored }
    }

    /// Writes all that a plan says; gives what is to stand where in git's tree.
    pub(super) fn write(mut self, plan: &Plan) -> Result<Edits, SnapshotError> {
        self.git(plan)?;
        self.folders(plan)?;
        self.files(plan)?;
        self.imports(plan)?;
        self.stop_ignoring(plan)?;
        self.start_ignoring()?;
        self.uncached(plan)?;
        let is_of_pipeline = |output: &OutputId| self.ground.tree.tracked(*output).is_of_pipeline();
        let outputs = plan.files.keys().chain(plan.folders.keys()).chain(&plan.uncached);
        if outputs.copied().any(|output| is_of_pipeline(&output)) {
            self.locks()?;
        }
        Ok(self.edits)
    }

    fn git(&mut self, plan: &Plan) -> Result<(), SnapshotError> {
        let Ground { overlay, repository, .. } = self.ground;
        for Change { path, new, .. } in &plan.git {
            let edit = match *new {
                None => Edit::Removed,
                Some(New::File(stat)) => {
                    if stat.size > MOST_IN_GIT {
                        let error = io::Error::other("it is too large for git");
                        return Err(disk(path)(error));
                    }
                    let mut bytes = Vec::new();
                    let mut file = overlay.open_file(path, false).map_err(disk(path))?;
                    file.read_to_end(&mut bytes).map_err(disk(path))?;
                    let id = repository.write_blob(&bytes)?;
                    Edit::File { id, is_executable: stat.mode & 0o100 != 0 }
                }
                Some(New::Same { node: Node::GitFile { id, .. }, is_exec, .. }) => {
                    Edit::File { id, is_executable: is_exec }
                }
                Some(New::Same { node: Node::Link(id), .. }) => Edit::Link { id },
                Some(New::Link) => {
                    let target = overlay.read_link(path).map_err(disk(path))?;
                    Edit::Link { id: repository.write_blob(&target)? }
                }
                Some(New::Same { .. } | New::Pipe | New::Lost) => continue,
            };
            self.edits.insert(path.clone(), edit);
        }
        Ok(())
    }

    /// The hash and, where it is known, the size of what is at a path now.
    fn content(&self, change: &Change) -> Option<(Digest, Option<u64>)> {
        if let Some((digest, size)) = self.contents.at(&change.path) {
            return Some((digest, Some(size)));
        }
        match change.new? {
            New::Same { node: Node::Blob { id: Some(id), output, claim, .. }, .. } => {
                Some((id.digest, claim.or_else(|| (self.ground.size)(output, &[id]))))
            }
            _ => None,
        }
    }

    /// Files of tracked folders, and folders that are tracked from now on.
    fn folders(&mut self, plan: &Plan) -> Result<(), SnapshotError> {
        for (output, list) in &plan.folders {
            let path = &self.ground.tree.tracked(*output).output.path;
            let becomes = if plan.removed.contains(output) {
                // What comes to the same place goes into its file.
                let stays = plan.records.contains_key(path) || plan.renamed_within.contains(output);
                (!stays).then_some(OutputChange::Removed)
            } else if is_of_dvc_2(self.ground, *output) {
                self.upgrade_manifest(*output, path, list)?.map(OutputChange::Content)
            } else {
                self.edit_manifest(*output, path, list)?.map(OutputChange::Content)
            };
            if let Some(becomes) = becomes {
                self.declare(*output, becomes)?;
            }
        }
        for (folder, list) in &plan.new_folders {
            let contents: Vec<_> =
                list.iter().map(|change| (change, self.content(change))).collect();
            let entries = contents.iter().filter_map(|(change, content)| {
                let relpath = change.path.strip_prefix(folder)?;
                Some(Entry { relpath, digest: Some((*content)?.0) })
            });
            let written = self.ground.outbox.add_manifest(|out| compose(entries, out));
            let written = written.and_then(|written| written).map_err(disk(folder))?;
            let sizes = contents.iter().map(|(_, content)| (*content)?.1);
            let content = Recorded::Folder {
                digest: written.digest,
                size: sizes.sum(),
                file_count: written.file_count,
            };
            self.create(plan, folder, &content)?;
        }
        Ok(())
    }

    /// The manifest of an output with the changes in it; nothing if it stays the same.
    fn edit_manifest(
        &mut self,
        output: OutputId,
        path: &RepoPath,
        list: &[Change],
    ) -> Result<Option<Recorded>, SnapshotError> {
        let mut changes = edit::Changes::new();
        let mut added = Some(0);
        for change in list {
            let Some(relpath) = change.path.strip_prefix(path) else { continue };
            let old = match change.old {
                Some(Node::Blob { id: Some(id), .. }) => Some(id.digest),
                _ => None,
            };
            let new = self.content(change);
            let digest = new.map(|(digest, _)| digest);
            if digest == old || (digest.is_none() && change.new.is_some()) {
                continue;
            }
            if let Some((_, size)) = new {
                added = added.zip(size).map(|(sum, size)| sum + size);
            }
            changes.insert(relpath.to_vec(), digest);
        }
        if changes.is_empty() {
            return Ok(None);
        }
        let mut gone = Vec::new();
        let failed = |source| SnapshotError::Manifest { path: path.clone(), source };
        let open = || (self.ground.manifest)(output);
        let edited = self.ground.outbox.add_manifest(|out| {
            edit::edit(open, &changes, out, &mut |entry| gone.extend(entry.digest))
        });
        let written = match edited.map_err(disk(path))? {
            Err(EditError::Unsorted) => {
                let mut files = self.ground.files_of(output)?;
                gone = apply(&mut files, &changes);
                self.compose(path, &files)?
            }
            edited => edited.map_err(failed)?,
        };
        let before = self.ground.tree.tracked(output).output.size;
        let gone: Vec<_> =
            gone.into_iter().map(|digest| BlobId { digest, scheme: Scheme::Md5 }).collect();
        // Without a size before there is none to be worked out, and nobody has to be asked.
        let replaced = before.and_then(|_| (self.ground.size)(output, &gone));
        let sizes = before.zip(added).zip(replaced);
        let size = sizes.and_then(|((before, added), gone)| (before + added).checked_sub(gone));
        let Written { digest, file_count, .. } = written;
        Ok(Some(Recorded::Folder { digest, size, file_count }))
    }

    /// The manifest of a folder that DVC 2 recorded, with the changes in it and all its files hashed
    /// as they are.
    fn upgrade_manifest(
        &mut self,
        output: OutputId,
        path: &RepoPath,
        list: &[Change],
    ) -> Result<Option<Recorded>, SnapshotError> {
        let mut files = BTreeMap::new();
        let mut size = Some(0);
        let mut add = |relpath: &[u8], digest, bytes: Option<u64>| {
            size = size.zip(bytes).map(|(sum, bytes)| sum + bytes);
            files.insert(relpath.to_vec(), Some(digest));
        };
        let changed: BTreeSet<_> =
            list.iter().filter_map(|change| change.path.strip_prefix(path)).collect();
        for (relpath, old) in self.ground.files_of(output)? {
            if changed.contains(&relpath[..]) {
                continue;
            }
            let upgraded = old.and_then(|old| self.contents.upgraded(old));
            let unknown = || disk(path)(io::Error::other("its manifest changed meanwhile"));
            let (digest, bytes) = upgraded.ok_or_else(unknown)?;
            add(&relpath, digest, Some(bytes));
        }
        for change in list {
            let Some(relpath) = change.path.strip_prefix(path) else { continue };
            if let Some((digest, bytes)) = self.content(change) {
                add(relpath, digest, bytes);
            }
        }
        let Written { digest, file_count, .. } = self.compose(path, &files)?;
        Ok(Some(Recorded::Folder { digest, size, file_count }))
    }

    fn compose(&self, path: &RepoPath, files: &Files) -> Result<Written, SnapshotError> {
        let entries = files.iter().map(|(relpath, digest)| Entry { relpath, digest: *digest });
        let written = self.ground.outbox.add_manifest(|out| compose(entries, out));
        written.and_then(|written| written).map_err(disk(path))
    }

    /// Tracked files, and files that are tracked from now on.
    fn files(&mut self, plan: &Plan) -> Result<(), SnapshotError> {
        for (output, change) in &plan.files {
            let becomes = match self.file(change) {
                Some(content) => OutputChange::Content(content),
                None if change.new.is_some() || plan.records.contains_key(&change.path) => continue,
                None if plan.renamed_within.contains(output) => continue,
                None => OutputChange::Removed,
            };
            let tracked = &self.ground.tree.tracked(*output).output;
            let is_same = match (&becomes, &tracked.content) {
                (
                    OutputChange::Content(Recorded::File { digest, is_exec, .. }),
                    Content::Blob(BlobId { digest: old, scheme: Scheme::Md5 }),
                ) => digest == old && *is_exec == tracked.is_exec,
                _ => false,
            };
            if !is_same {
                self.declare(*output, becomes)?;
            }
        }
        for change in &plan.new_files {
            if let Some(content) = self.file(change) {
                self.create(plan, &change.path, &content)?;
            }
        }
        Ok(())
    }

    fn file(&self, change: &Change) -> Option<Recorded> {
        let (digest, size) = self.content(change)?;
        let is_exec = match change.new? {
            // Any of the bits, as DVC has it.
            New::File(stat) => stat.mode & 0o111 != 0,
            New::Same { is_exec, .. } => is_exec,
            _ => false,
        };
        Some(Recorded::File { digest, size: size?, is_exec })
    }

    /// Outputs whose content is in git alone.
    fn uncached(&mut self, plan: &Plan) -> Result<(), SnapshotError> {
        for output in &plan.uncached {
            let path = &self.ground.tree.tracked(*output).output.path;
            let becomes = match self.edits.get(path) {
                Some(Edit::Removed) => OutputChange::Removed,
                Some(Edit::File { id, is_executable }) => {
                    let (id, is_exec) = (*id, *is_executable);
                    let (digest, size) = self.md5(id)?;
                    OutputChange::Content(Recorded::File { digest, size, is_exec })
                }
                _ => OutputChange::Content(self.folder_in_git(path)?),
            };
            self.declare(*output, becomes)?;
        }
        Ok(())
    }

    /// A folder as it is in git by now, recorded as DVC records folders.
    fn folder_in_git(&self, folder: &RepoPath) -> Result<Recorded, SnapshotError> {
        let mut files = BTreeMap::new();
        if let Some(index) = self.ground.tree.find(folder)? {
            self.files_in_git(index, folder, &mut files)?;
        }
        for (path, edit) in self.edits.range::<[u8], _>(folder.below()) {
            match edit {
                Edit::File { id, .. } => _ = files.insert(path.clone(), *id),
                Edit::Link { .. } | Edit::Submodule { .. } | Edit::Removed => {
                    _ = files.remove(path);
                }
            }
        }
        let (mut entries, mut size) = (Files::new(), 0);
        for (path, id) in files {
            let (digest, bytes) = self.md5(id)?;
            size += bytes;
            entries.insert(path.strip_prefix(folder).unwrap_or_default().to_vec(), Some(digest));
        }
        let entries = entries.iter().map(|(relpath, digest)| Entry { relpath, digest: *digest });
        let written = compose(entries, io::sink()).map_err(disk(folder))?;
        let Written { digest, file_count, .. } = written;
        Ok(Recorded::Folder { digest, size: Some(size), file_count })
    }

    fn files_in_git(
        &self,
        folder: Index,
        path: &RepoPath,
        files: &mut BTreeMap<RepoPath, GitId>,
    ) -> Result<(), SnapshotError> {
        let mut folders = Vec::new();
        self.ground.tree.listing(folder)?.walk(0, |entry| {
            if let Ok(name) = Name::new(entry.name) {
                match entry.node {
                    Node::GitFile { id, .. } => _ = files.insert(path.join(&name), id),
                    Node::Folder { .. } => folders.push((entry.index, path.join(&name))),
                    Node::Link(_) | Node::Blob { .. } => {}
                }
            }
            ControlFlow::Continue(())
        })?;
        folders.into_iter().try_for_each(|(index, path)| self.files_in_git(index, &path, files))
    }

    fn md5(&self, id: GitId) -> Result<(Digest, u64), SnapshotError> {
        let bytes = self.ground.repository.blob(id, MOST_IN_GIT)?;
        Ok((Md5::of(&bytes), bytes.len() as u64))
    }

    /// Has the lock files tell of all that is recorded, be it made or read by a stage.
    fn locks(&mut self) -> Result<(), SnapshotError> {
        let mut stages = BTreeMap::<_, BTreeMap<_, _>>::new();
        for tracked in self.ground.tree.outputs() {
            if let Some(stage) = &tracked.output.stage {
                let folder = tracked.declared_in.parent().unwrap_or_default();
                let lock = folder.resolve(b"dvc.lock").unwrap_or_default();
                stages.entry(lock).or_default().insert(&stage.name[..], &stage.folder);
            }
        }
        for (lock, folders) in stages {
            let Some(text) = self.text(&lock)? else { continue };
            let failure = Cell::new(None);
            let content = |stage: &str, path: &str| {
                let path = folders.get(stage)?.resolve(path.as_bytes()).ok()?;
                self.recorded(&path).unwrap_or_else(|error| {
                    failure.set(Some(error));
                    None
                })
            };
            let updated = lockfile::update(&text, &content);
            if let Some(error) = failure.take() {
                return Err(error);
            }
            let failed = |source| SnapshotError::Record { path: lock.clone(), source };
            if let Some(text) = updated.map_err(failed)? {
                self.put(&lock, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// What is recorded at a path, if that is something else than before: an output, a file in git,
    /// or a folder in git with no outputs in it.
    fn recorded(&self, path: &RepoPath) -> Result<Option<Recorded>, SnapshotError> {
        if let Some(content) = self.declared.get(path) {
            return Ok(Some(*content));
        }
        if let Some(Edit::File { id, is_executable }) = self.edits.get(path) {
            let (digest, size) = self.md5(*id)?;
            return Ok(Some(Recorded::File { digest, size, is_exec: *is_executable }));
        }
        let is_below = |other: &RepoPath| other.strip_prefix(path).is_some();
        let mut outputs = self.ground.tree.outputs();
        let has_outputs = outputs.any(|tracked| is_below(&tracked.output.path));
        if has_outputs || self.edits.range::<[u8], _>(path.below()).next().is_none() {
            return Ok(None);
        }
        self.folder_in_git(path).map(Some)
    }

    /// Writes into the file that declares an output what has become of it.
    fn declare(&mut self, output: OutputId, becomes: OutputChange) -> Result<(), SnapshotError> {
        let tree = self.ground.tree;
        let tracked = tree.tracked(output);
        let file = &tracked.declared_in;
        if let OutputChange::Content(content) = becomes {
            self.declared.insert(tracked.output.path.clone(), content);
            if tracked.output.is_cached {
                let is_dir = matches!(content, Recorded::Folder { .. });
                self.keep_from_git(&tracked.output.path, is_dir);
            }
        }
        if tracked.is_of_pipeline() {
            // The lock files come last, when all is known that they tell.
            return Ok(());
        }
        let Some(text) = self.text(file)? else { return Ok(()) };
        let folder = file.parent().unwrap_or_default();
        let project = &tree.projects[tracked.project].root;
        let changes = [(tracked.output.path.clone(), becomes)].into();
        let failed = |source| SnapshotError::Record { path: file.clone(), source };
        let text = record::update(&text, &folder, project, &changes).map_err(failed)?;
        match text {
            Some(text) => self.put(file, text.as_bytes())?,
            None => _ = self.edits.insert(file.clone(), Edit::Removed),
        }
        Ok(())
    }

    /// Has a `.dvc` file track something from now on, and keeps git from that.
    fn create(
        &mut self,
        plan: &Plan,
        path: &RepoPath,
        content: &Recorded,
    ) -> Result<(), SnapshotError> {
        let Some(file) = plan.records.get(path) else { return Ok(()) };
        let failed = |source| SnapshotError::Record { path: file.clone(), source };
        let name = path.file_name().unwrap_or_default();
        let mut text = self.updated(plan, (path, file), Some(*content))?;
        if text.is_none() {
            text = self.renamed(plan, path, content)?;
        }
        let text = match text {
            Some(text) => text,
            None => record::create(name, content).map_err(failed)?,
        };
        self.put(file, text.as_bytes())?;
        self.keep_from_git(path, matches!(content, Recorded::Folder { .. }));
        Ok(())
    }

    /// An existing `.dvc` file with the new content of a path, if it tracks that or what was moved
    /// there.
    fn updated(
        &self,
        plan: &Plan,
        (path, file): (&RepoPath, &RepoPath),
        content: Option<Recorded>,
    ) -> Result<Option<String>, SnapshotError> {
        let tree = self.ground.tree;
        let (Some(text), Some(project)) = (self.text(file)?, tree.project_around(file)) else {
            return Ok(None);
        };
        let outputs = outputs_in(file, tree, &|path| self.text(path))?;
        let outputs = outputs.and_then(Result::ok).unwrap_or_default();
        let moved = plan.moved.get(path).map(|output| tree.tracked(*output));
        let output = output_for(&outputs, path, moved, self.edits.contains_key(file));
        let Some(output) = output else { return Ok(None) };
        let change = match content {
            Some(content) if output.path == *path => OutputChange::Content(content),
            None if output.path == *path => return Ok(None),
            content => OutputChange::Renamed(path.clone(), content),
        };
        let root = &tree.projects[project].root;
        let folder = file.parent().unwrap_or_default();
        let changes = [(output.path.clone(), change)].into();
        let updated = record::update(&text, &folder, root, &changes);
        updated.map_err(|source| SnapshotError::Record { path: file.clone(), source })
    }

    /// The `.dvc` file of what was moved to a path, anew beside that.
    fn renamed(
        &self,
        plan: &Plan,
        path: &RepoPath,
        content: &Recorded,
    ) -> Result<Option<String>, SnapshotError> {
        let Some(output) = plan.moved.get(path) else { return Ok(None) };
        let Tracked { output, project, declared_in: file } = self.ground.tree.tracked(*output);
        let Some(id) = self.in_base(file)? else { return Ok(None) };
        let text = self.ground.repository.blob(id, MOST_IN_GIT)?;
        let folder = file.parent().unwrap_or_default();
        let base = (&folder, &self.ground.tree.projects[*project].root);
        // Names of which this is not true were refused.
        let name = str::from_utf8(path.file_name().unwrap_or_default()).unwrap_or_default();
        let renamed = record::moved::rename(&text, base, (&output.path, name), content);
        renamed.map_err(|source| SnapshotError::Record { path: file.clone(), source })
    }

    /// Imports whose `.dvc` files were moved with them: the files as they are, but for the path.
    fn imports(&mut self, plan: &Plan) -> Result<(), SnapshotError> {
        for path in &plan.imports {
            let Some(file) = plan.records.get(path) else { continue };
            if let Some(text) = self.updated(plan, (path, file), None)? {
                self.put(file, text.as_bytes())?;
            }
            let content =
                plan.moved.get(path).map(|it| &self.ground.tree.tracked(*it).output.content);
            self.keep_from_git(path, matches!(content, Some(Content::Tree(_))));
        }
        Ok(())
    }

    /// A file of git's as it is by now.
    pub(super) fn text(&self, path: &RepoPath) -> Result<Option<Vec<u8>>, SnapshotError> {
        let id = match self.edits.get(path) {
            Some(Edit::File { id, .. }) => Some(*id),
            Some(_) => None,
            None => self.in_base(path)?,
        };
        Ok(id.map(|id| self.ground.repository.blob(id, MOST_IN_GIT)).transpose()?)
    }

    fn in_base(&self, path: &RepoPath) -> Result<Option<GitId>, SnapshotError> {
        let tree = self.ground.tree;
        let Some(index) = tree.find(path)? else { return Ok(None) };
        match tree.node(index)? {
            Some(Node::GitFile { id, .. }) => Ok(Some(id)),
            _ => Ok(None),
        }
    }

    pub(super) fn put(&mut self, path: &RepoPath, text: &[u8]) -> Result<(), SnapshotError> {
        let id = self.ground.repository.write_blob(text)?;
        self.edits.insert(path.clone(), Edit::File { id, is_executable: false });
        Ok(())
    }
}

/// Changes entries; gives the contents that went away.
fn apply(files: &mut Files, changes: &edit::Changes) -> Vec<Digest> {
    let mut gone = Vec::new();
    for (relpath, digest) in changes {
        let old = match digest {
            Some(digest) => files.insert(relpath.clone(), Some(*digest)),
            None => files.remove(relpath),
        };
        gone.extend(old.flatten().filter(|old| Some(*old) != *digest));
    }
    gone
}
