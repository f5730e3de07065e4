//! From an overlay to the git tree of a commit.
//!
//! Nothing that anybody sees changes here: blobs enter the outbox, objects enter git, and what comes
//! out is a tree that nothing refers to yet ([`prepare`]). Once a commit of it was made, the overlay
//! lets go of what is in it ([`settle`]): one write of a small file decides between nothing and
//! everything, and what a crash leaves undone behind it is done when the overlay is opened again
//! ([`resume`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead},
    sync::Mutex,
    thread,
};

use serde::{Deserialize, Serialize};

use super::{
    changes::{Change, Changes, New},
    outbox::Outbox,
    route::{Route, Rules, is_small_text},
};
use crate::{
    atomic,
    dvc::{
        gitignore,
        ignore::Ignore,
        manifest::{
            Entry,
            edit::{self, EditError},
            write::{Written, compose},
        },
        output::Content,
        record::{self, Change as OutputChange, RecordError, Recorded},
    },
    git::{CommitId, Edit, Edits, GitError, GitId, GitTreeId, Repository},
    id::{BlobId, Digest, Scheme},
    overlay::{Base, Kind, Overlay, OverlayError, Stat},
    path::{Name, RepoPath},
    tree::{NeedsManifest, Node, OutputId, Tree},
};

/// Larger files do not go to git.
const MOST_IN_GIT: u64 = 1 << 30;

/// What a snapshot is made from.
pub struct Ground<'a> {
    /// The changes.
    pub overlay: &'a Overlay,
    /// What lies below them.
    pub tree: &'a Tree,
    /// Where it is from.
    pub repository: &'a Repository,
    /// Where blobs wait to be pushed.
    pub outbox: &'a Outbox,
    /// Gives the manifest of a tracked folder.
    pub manifest: &'a dyn Fn(OutputId) -> io::Result<Box<dyn BufRead>>,
    /// The bytes of some blobs of an output together, unless they cannot be learnt.
    pub size: &'a dyn Fn(OutputId, &[BlobId]) -> Option<u64>,
}

/// A tree that is ready to be committed.
#[derive(Debug)]
pub struct Prepared {
    /// The tree.
    pub tree: GitTreeId,
    /// How many paths are recorded in it.
    pub recorded: usize,
    /// The bytes of files that were hashed.
    pub bytes: u64,
    /// The paths that could not be recorded, and why.
    pub left: Vec<(RepoPath, String)>,
    mark: Mark,
}

/// Every entry of an upper folder as it is at one time.
#[derive(Debug, PartialEq, Eq)]
pub struct Mark(Entries);

type Entries = BTreeMap<RepoPath, (Kind, Stat)>;

impl Mark {
    /// Takes one.
    pub fn of(overlay: &Overlay) -> io::Result<Self> {
        let mut entries = Entries::new();
        note(overlay, &RepoPath::root(), &mut entries)?;
        Ok(Self(entries))
    }

    /// A path that is not as it was.
    fn differs(&self, now: &Self) -> Option<RepoPath> {
        let is_other = |(path, entry): &(&RepoPath, &(Kind, Stat)), other: &Self| {
            other.0.get(*path) != Some(*entry)
        };
        let changed = now.0.iter().find(|entry| is_other(entry, self));
        let found = changed.or_else(|| self.0.iter().find(|entry| is_other(entry, now)));
        found.map(|(path, _)| path.clone())
    }
}

fn note(overlay: &Overlay, folder: &RepoPath, entries: &mut Entries) -> io::Result<()> {
    for listed in overlay.list(folder)? {
        let path = folder.join(&listed.name);
        let Some(entry) = overlay.find(&path)? else { continue };
        let is_folder = matches!(entry.kind, Kind::Folder(_));
        // Reading changes the one, and the disk the other when it gets to writing.
        let stat = Stat { accessed: (0, 0), blocks: 0, ..entry.stat };
        entries.insert(path.clone(), (entry.kind, stat));
        if is_folder {
            note(overlay, &path, entries)?;
        }
    }
    Ok(())
}

/// Why no snapshot is made. Nothing has changed for anybody.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is nothing to record.
    #[error("nothing has changed")]
    Nothing,
    /// Programs went on changing things.
    #[error("{0} was changed meanwhile")]
    Moved(RepoPath),
    /// Two changes hang together of which one cannot be recorded.
    #[error("{path} cannot be recorded ({why}), and {needs} is needed for what it shows")]
    Tied {
        /// The one that cannot.
        path: RepoPath,
        /// Why.
        why: String,
        /// The other.
        needs: RepoPath,
    },
    /// A file of the overlay or of the outbox.
    #[error("{path}")]
    Disk {
        /// Which.
        path: RepoPath,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A `.dvc` file.
    #[error("{path}")]
    Record {
        /// Which.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// A manifest.
    #[error("the manifest of {path}")]
    Manifest {
        /// Of this folder.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        source: EditError,
    },
    /// The manifest is needed to tell what is where.
    #[error("a manifest cannot be read")]
    Needs(NeedsManifest),
    /// Git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The overlay as a whole.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
}

impl From<NeedsManifest> for SnapshotError {
    fn from(needs: NeedsManifest) -> Self {
        Self::Needs(needs)
    }
}

fn disk(path: &RepoPath) -> impl Fn(io::Error) -> SnapshotError {
    move |source| SnapshotError::Disk { path: path.clone(), source }
}

/// Writes what the overlay changes into the outbox and into git. The mark is from before the changes
/// were looked for.
pub fn prepare(
    ground: &Ground<'_>,
    (mark, changes): (Mark, Changes),
    rules: &Rules,
) -> Result<Prepared, SnapshotError> {
    let changes = with_sources(changes);
    let mut plan = Plan::default();
    for change in &changes.list {
        let is_text = || is_small_text(ground.overlay, &change.path);
        let route = rules.route(ground.tree, &changes, change, is_text);
        plan.add(ground, change, route);
    }
    plan.check_ties(ground)?;
    let base = ground.repository.commit(ground.tree.commit)?.tree;
    let mut writer = Writer { ground, hashed: hash(ground, &plan)?, edits: Edits::new() };
    writer.git(&plan)?;
    writer.folders(&plan, &changes)?;
    writer.files(&plan)?;
    let bytes = writer.hashed.values().map(|hashed| hashed.1).sum();
    let tree = ground.repository.edit_tree(Some(base), &without_replaced(writer.edits))?;
    if tree == base {
        return Err(SnapshotError::Nothing);
    }
    ground.outbox.sync().map_err(disk(&RepoPath::root()))?;
    let recorded = plan.git.len() + plan.hashed_paths().count();
    Ok(Prepared { tree, recorded, bytes, left: plan.left, mark })
}

/// Leaves out what goes away by itself: a file in whose place a folder comes, and what is in a
/// folder in whose place a file comes.
fn without_replaced(edits: Edits) -> Edits {
    let stays: BTreeSet<_> = edits
        .iter()
        .filter(|(_, edit)| **edit != Edit::Removed)
        .map(|(path, _)| path.clone())
        .collect();
    let is_replaced = |path: &RepoPath| {
        let mut folder = path.parent();
        while let Some(at) = folder {
            if stays.contains(&at) {
                return true;
            }
            folder = at.parent();
        }
        let mut after = stays
            .range(path.clone()..)
            .take_while(|other| other.as_bytes().starts_with(path.as_bytes()));
        after.any(|other| other != path && other.strip_prefix(path).is_some())
    };
    let edits = edits.into_iter();
    edits.filter(|(path, edit)| *edit != Edit::Removed || !is_replaced(path)).collect()
}

/// What was renamed is gone from where it was.
fn with_sources(mut changes: Changes) -> Changes {
    let sources = changes.list.iter().filter_map(|change| {
        let Some(New::Same { node, .. }) = change.new else { return None };
        let path = change.renamed_from.clone()?;
        Some(Change { path, old: Some(node), new: None, renamed_from: None })
    });
    let sources: Vec<_> = sources.collect();
    changes.list.extend(sources);
    changes.list.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

/// Every change by the place where it is recorded.
#[derive(Default)]
struct Plan {
    git: Vec<Change>,
    /// By output that is a file.
    files: BTreeMap<OutputId, Change>,
    /// By output that is a folder.
    folders: BTreeMap<OutputId, Vec<Change>>,
    new_files: Vec<Change>,
    new_folders: BTreeMap<RepoPath, Vec<Change>>,
    left: Vec<(RepoPath, String)>,
}

impl Plan {
    fn add(&mut self, ground: &Ground<'_>, change: &Change, route: Route) {
        let change = change.clone();
        let is_dvc = matches!(change.new, Some(New::Same { node: Node::Blob { .. }, .. }));
        match route {
            Route::Refused(why) => self.left.push((change.path, why)),
            Route::Git if is_dvc => {
                self.left.push((change.path, "its bytes are with DVC, not here".to_owned()));
            }
            Route::Git => self.git.push(change),
            Route::Dotfile(output) => {
                let is_tracked = ground.tree.tracked(output).output.path == change.path;
                if is_tracked {
                    self.files.insert(output, change);
                }
            }
            Route::Manifest(output) => self.folders.entry(output).or_default().push(change),
            Route::NewFile => self.new_files.push(change),
            Route::NewFolder(folder) => self.new_folders.entry(folder).or_default().push(change),
        }
    }

    /// Everything that goes to DVC.
    fn hashed_paths(&self) -> impl Iterator<Item = &Change> {
        let folders = self.folders.values().chain(self.new_folders.values()).flatten();
        self.files.values().chain(&self.new_files).chain(folders)
    }

    /// What cannot be recorded must not lose what it shows to what can.
    fn check_ties(&self, ground: &Ground<'_>) -> Result<(), SnapshotError> {
        let recorded: BTreeSet<_> =
            self.git.iter().chain(self.hashed_paths()).map(|change| &change.path).collect();
        for (path, why) in &self.left {
            let entry = ground.overlay.find(path).map_err(disk(path))?;
            if let Some(Kind::File { origin: Some(needs) }) = entry.map(|entry| entry.kind)
                && recorded.contains(&needs)
            {
                return Err(SnapshotError::Tied { path: path.clone(), why: why.clone(), needs });
            }
        }
        Ok(())
    }
}

/// Takes every file that goes to DVC into the outbox, on as many threads as there are cores.
fn hash(
    ground: &Ground<'_>,
    plan: &Plan,
) -> Result<BTreeMap<RepoPath, (Digest, u64)>, SnapshotError> {
    let own = plan.hashed_paths().filter(|change| matches!(change.new, Some(New::File(_))));
    let queue = Mutex::new(own.map(|change| &change.path));
    let (overlay, outbox) = (ground.overlay, ground.outbox);
    let work = || {
        let mut done = Vec::new();
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some(path) = next else { return Ok(done) };
            let added = overlay.open_file(path, false).and_then(|file| outbox.add(&file));
            done.push((path.clone(), added.map_err(disk(path))?));
        }
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut hashed = BTreeMap::new();
        for worker in workers {
            let done: Result<Vec<_>, SnapshotError> = worker.join().unwrap_or_else(|_| {
                Err(disk(&RepoPath::root())(io::Error::other("a thread ended early")))
            });
            hashed.extend(done?);
        }
        Ok(hashed)
    })
}

struct Writer<'a> {
    ground: &'a Ground<'a>,
    hashed: BTreeMap<RepoPath, (Digest, u64)>,
    edits: Edits,
}

impl Writer<'_> {
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
                    io::Read::read_to_end(&mut file, &mut bytes).map_err(disk(path))?;
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
        match change.new? {
            New::File(_) => {
                self.hashed.get(&change.path).map(|(digest, size)| (*digest, Some(*size)))
            }
            New::Same { node: Node::Blob { id: Some(id), output, claim, .. }, .. }
                if id.scheme == Scheme::Md5 =>
            {
                Some((id.digest, claim.or_else(|| (self.ground.size)(output, &[id]))))
            }
            _ => None,
        }
    }

    /// Files of tracked folders, and folders that are tracked from now on.
    fn folders(&mut self, plan: &Plan, changes: &Changes) -> Result<(), SnapshotError> {
        for (output, list) in &plan.folders {
            let path = &self.ground.tree.tracked(*output).output.path;
            let becomes = if changes.removed_outputs.contains(output) {
                Some(OutputChange::Removed)
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
            self.create(folder, &content)?;
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
        let old = (self.ground.manifest)(output).map_err(disk(path))?;
        let mut gone = Vec::new();
        let written = self.ground.outbox.add_manifest(|out| {
            edit::edit(old, &changes, out, &mut |entry| gone.extend(entry.digest))
        });
        let failed = |source| SnapshotError::Manifest { path: path.clone(), source };
        let written = written.map_err(disk(path))?.map_err(failed)?;
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

    /// Tracked files, and files that are tracked from now on.
    fn files(&mut self, plan: &Plan) -> Result<(), SnapshotError> {
        for (output, change) in &plan.files {
            let becomes = match self.file(change) {
                Some(content) => OutputChange::Content(content),
                None if change.new.is_none() => OutputChange::Removed,
                None => continue,
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
                self.create(&change.path, &content)?;
            }
        }
        Ok(())
    }

    fn file(&self, change: &Change) -> Option<Recorded> {
        let (digest, size) = self.content(change)?;
        let is_exec = match change.new? {
            New::File(stat) => stat.mode & 0o100 != 0,
            New::Same { is_exec, .. } => is_exec,
            _ => false,
        };
        Some(Recorded::File { digest, size: size?, is_exec })
    }

    /// Writes into the file that declares an output what has become of it.
    fn declare(&mut self, output: OutputId, becomes: OutputChange) -> Result<(), SnapshotError> {
        let tree = self.ground.tree;
        let tracked = tree.tracked(output);
        let file = &tracked.declared_in;
        if matches!(self.edits.get(file), Some(Edit::Removed)) {
            return Ok(());
        }
        let Some(text) = self.text(file)? else { return Ok(()) };
        let folder = file.parent().unwrap_or_default();
        let project = &tree.projects[tracked.project].root;
        let path = tracked.output.path.clone();
        let changes = [(path.clone(), becomes)].into();
        let failed = |source| SnapshotError::Record { path: file.clone(), source };
        let text = record::update(&text, &folder, project, &changes).map_err(failed)?;
        match text {
            Some(text) => self.put(file, text.as_bytes())?,
            None => _ = self.edits.insert(file.clone(), Edit::Removed),
        }
        if becomes == OutputChange::Removed {
            self.stop_ignoring(&path)?;
        }
        Ok(())
    }

    /// Writes the `.dvc` file of something that is tracked from now on, and keeps git from it.
    fn create(&mut self, path: &RepoPath, content: &Recorded) -> Result<(), SnapshotError> {
        let name = path.file_name().unwrap_or_default();
        let failed = |source| SnapshotError::Record { path: path.clone(), source };
        let text = record::create(name, content).map_err(failed)?;
        let folder = path.parent().unwrap_or_default();
        let file = Name::new(&[name, b".dvc"].concat()).map(|name| folder.join(&name));
        if let Ok(file) = file {
            self.put(&file, text.as_bytes())?;
        }
        if self.is_ignored(path)? {
            return Ok(());
        }
        let ignore = folder.resolve(b".gitignore").unwrap_or_default();
        let text = self.text(&ignore)?.unwrap_or_default();
        match gitignore::add(&text, name) {
            Some(text) => self.put(&ignore, &text),
            None => Ok(()),
        }
    }

    fn stop_ignoring(&mut self, path: &RepoPath) -> Result<(), SnapshotError> {
        let folder = path.parent().unwrap_or_default();
        let ignore = folder.resolve(b".gitignore").unwrap_or_default();
        let Some(text) = self.text(&ignore)? else { return Ok(()) };
        match gitignore::remove(&text, path.file_name().unwrap_or_default()) {
            gitignore::Removed::Unchanged => Ok(()),
            gitignore::Removed::Text(text) => self.put(&ignore, &text),
            gitignore::Removed::Empty => {
                self.edits.insert(ignore, Edit::Removed);
                Ok(())
            }
        }
    }

    /// Whether git leaves a path out by itself.
    fn is_ignored(&self, path: &RepoPath) -> Result<bool, SnapshotError> {
        let mut rules = Ignore::new(RepoPath::root());
        let mut folders = Vec::new();
        let mut folder = path.parent();
        while let Some(at) = folder {
            folder = at.parent();
            folders.push(at);
        }
        for folder in folders.into_iter().rev() {
            let ignore = folder.resolve(b".gitignore").unwrap_or_default();
            if let Some(text) = self.text(&ignore)? {
                rules.add(&folder, &text);
            }
        }
        Ok(rules.is_ignored(path, false))
    }

    /// A file of git's as it is by now.
    fn text(&self, path: &RepoPath) -> Result<Option<Vec<u8>>, SnapshotError> {
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

    fn put(&mut self, path: &RepoPath, text: &[u8]) -> Result<(), SnapshotError> {
        let id = self.ground.repository.write_blob(text)?;
        self.edits.insert(path.clone(), Edit::File { id, is_executable: false });
        Ok(())
    }
}

/// What remains to be done once a commit was made.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    commit: String,
    /// Paths that stay changed.
    kept: Vec<Vec<u8>>,
}

/// The ref that keeps the commit of an overlay until it is pushed.
#[derive(Debug, Clone)]
pub struct Keeping<'a> {
    /// Its name.
    pub name: &'a str,
    /// The commit it had when the tree was prepared.
    pub expected: Option<CommitId>,
}

/// Has an overlay lie above a commit of the tree that was prepared from it, and lets go of what is
/// in that. To be called while nobody changes the overlay.
pub fn settle(
    overlay: &Overlay,
    prepared: &Prepared,
    (repository, commit): (&Repository, CommitId),
    keeping: &Keeping<'_>,
) -> Result<(), SnapshotError> {
    let now = Mark::of(overlay).map_err(disk(&RepoPath::root()))?;
    if let Some(path) = prepared.mark.differs(&now) {
        return Err(SnapshotError::Moved(path));
    }
    let base = overlay.base()?.unwrap_or_else(|| Base {
        repository: String::new(),
        commit: String::new(),
        branch: None,
    });
    let kept = prepared.left.iter().map(|(path, _)| path.as_bytes().to_vec()).collect();
    let journal = Journal { commit: commit.to_string(), kept };
    let text = serde_json::to_vec(&journal).unwrap_or_default();
    let place = overlay.dir().join(JOURNAL);
    atomic::write(&place, &text, 0o600).map_err(disk(&RepoPath::root()))?;
    repository.move_ref(keeping.name, commit, keeping.expected)?;
    // From here on it is done.
    overlay.set_base(&Base { commit: commit.to_string(), ..base })?;
    resume(overlay)
}

/// The journal's name in the overlay's folder.
const JOURNAL: &str = "snapshot.json";

/// Does what is left to do of a snapshot that was decided on; forgets one that was not.
pub fn resume(overlay: &Overlay) -> Result<(), SnapshotError> {
    let place = overlay.dir().join(JOURNAL);
    let text = match fs::read(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(disk(&RepoPath::root()))?,
    };
    let journal = serde_json::from_slice::<Journal>(&text);
    let base = overlay.base()?;
    if let (Ok(journal), Some(base)) = (journal, base)
        && base.commit == journal.commit
    {
        let kept: BTreeSet<_> = journal.kept.into_iter().collect();
        let is_kept = |path: &RepoPath| kept.contains(path.as_bytes());
        overlay.keep_only(&is_kept).map_err(disk(&RepoPath::root()))?;
    }
    fs::remove_file(&place).map_err(disk(&RepoPath::root()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::Owner;

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    /// An overlay above commit `a` with two files in it, and the journal of a snapshot `b` that
    /// recorded one of them.
    fn interrupted() -> (tempfile::TempDir, Overlay) {
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(dir.path()).unwrap();
        let owner = Owner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        overlay.create_folder(&path("d"), 0o755, owner, &crate::overlay::Shows::Nothing).unwrap();
        for name in ["d/recorded", "d/left"] {
            overlay.create_file(&path(name), 0o644, owner).unwrap();
        }
        let base = Base { repository: "r".into(), commit: "a".into(), branch: None };
        overlay.set_base(&base).unwrap();
        let journal = Journal { commit: "b".into(), kept: vec![b"d/left".to_vec()] };
        fs::write(dir.path().join(JOURNAL), serde_json::to_vec(&journal).unwrap()).unwrap();
        (dir, overlay)
    }

    #[test]
    fn a_snapshot_that_was_not_decided_on_never_was() {
        let (dir, overlay) = interrupted();
        let before = Mark::of(&overlay).unwrap();
        resume(&overlay).unwrap();
        assert_eq!(Mark::of(&overlay).unwrap(), before);
        assert!(!dir.path().join(JOURNAL).exists());
    }

    #[test]
    fn one_that_was_decided_on_is_brought_to_its_end_wherever_it_was_cut_off() {
        for is_half_done in [false, true] {
            let (dir, overlay) = interrupted();
            overlay
                .set_base(&Base { commit: "b".into(), ..overlay.base().unwrap().unwrap() })
                .unwrap();
            if is_half_done {
                overlay.take_out(&path("d/recorded")).unwrap();
            }
            resume(&overlay).unwrap();
            let names: Vec<_> = Mark::of(&overlay).unwrap().0.into_iter().collect();
            assert_eq!(names[0].0, path("d"));
            assert_eq!(names[0].1.0, Kind::Folder(crate::overlay::Shows::Same));
            assert_eq!(names[1].0, path("d/left"));
            assert_eq!(names.len(), 2);
            assert!(!dir.path().join(JOURNAL).exists());
            resume(&overlay).unwrap();
        }
    }

    #[test]
    fn a_change_is_seen_by_whatever_it_changes() {
        let (_dir, overlay) = interrupted();
        let before = Mark::of(&overlay).unwrap();
        assert_eq!(before.differs(&Mark::of(&overlay).unwrap()), None);
        let file = overlay.open_file(&path("d/left"), true).unwrap();
        file.set_len(7).unwrap();
        assert_eq!(before.differs(&Mark::of(&overlay).unwrap()), Some(path("d/left")));
        overlay.take_out(&path("d/left")).unwrap();
        assert!(before.differs(&Mark::of(&overlay).unwrap()).is_some());
    }

    #[test]
    fn what_is_replaced_goes_by_itself() {
        let id = GitId::parse(&"1".repeat(40)).unwrap();
        let file = Edit::File { id, is_executable: false };
        let edits: Edits = [
            (path("a"), Edit::Removed),
            (path("a/b"), file.clone()),
            (path("ab"), Edit::Removed),
            (path("c"), file),
            (path("c/d"), Edit::Removed),
        ]
        .into();
        let left: Vec<_> = without_replaced(edits).into_keys().collect();
        assert_eq!(left, [path("a/b"), path("ab"), path("c")]);
    }
}
