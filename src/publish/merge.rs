//! Merging what two sides did to a registry since their commits parted, path by path.
//!
//! Only what changed is looked at: folders of git whose ids differ, `.dvc` files that changed on
//! both sides, and the manifests of those of them that track a folder. Objects enter git and
//! manifests enter the outbox; nothing refers to them yet.
//!
//! | changed on both sides | merged |
//! |---|---|
//! | `.dvc` files | output by output, tracked folders file by file |
//! | `.gitignore` | line by line |
//! | other text in git | as git merges text |
//! | all else | not |
//!
//! What one side removed and the other changed is a conflict, and so is what one side has DVC track
//! where the other puts something else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, BufRead},
};

use super::outbox::Outbox;
use crate::{
    dvc::{
        dotfile, gitignore,
        manifest::{
            edit::{self, EditError, edit},
            merge::{self as manifests, ConflictKind, Listing},
        },
        output::Output,
        record::{
            self, Change as OutputChange, RecordError, Recorded,
            merge::{Becomes, Merged as MergedRecord, Side, Trouble},
        },
        yaml,
    },
    git::{Change, CommitId, Edit, Edits, EntryKind, GitError, GitId, GitTreeId, Repository},
    id::{BlobId, Digest, Scheme, TreeId},
    path::RepoPath,
};

/// Larger files of git are not merged.
const MOST_TEXT: u64 = 64 << 20;

/// What a merge needs beside the commits.
pub struct MergeGround<'a> {
    /// Where both are.
    pub repository: &'a Repository,
    /// Where new manifests wait to be pushed.
    pub outbox: &'a Outbox,
    /// Opens the manifest of a tracked folder; those of our side may be in the outbox alone.
    pub manifest: &'a dyn Fn(&Tracked<'_>) -> io::Result<Box<dyn BufRead>>,
    /// The bytes of some files of a tracked folder together, unless they cannot be learnt.
    pub size: &'a dyn Fn(&Tracked<'_>, &[BlobId]) -> Option<u64>,
}

/// An output as one side has it.
#[derive(Debug, Clone, Copy)]
pub struct Tracked<'a> {
    /// The DVC project: its folder, and its committed `.dvc/config` if there is one.
    pub project: (&'a RepoPath, Option<GitId>),
    /// The output.
    pub output: &'a Output,
}

/// What came of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// Ours builds on theirs already.
    Ours,
    /// Theirs builds on ours already.
    Theirs,
    /// A tree with what both did, to be committed with both as parents.
    Tree(MergedTree),
    /// Both did different things to these paths, in their order; nothing is merged.
    Conflicts(Vec<Conflict>),
}

/// What both sides did, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedTree {
    /// The tree.
    pub tree: GitTreeId,
    /// Manifests that no remote has yet. They are in the outbox; all that they list is on a remote
    /// or in the outbox since before.
    pub manifests: Vec<TreeId>,
}

/// A path to which both sides did different things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The path.
    pub path: RepoPath,
    /// What they did.
    pub why: Why,
}

/// How two changes of one path differ. Ours are said to be here, theirs upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Both put something there.
    BothAdded,
    /// Both changed it.
    BothChanged,
    /// It was changed here and removed upstream.
    RemovedUpstream,
    /// It was removed here and changed upstream.
    RemovedHere,
    /// One has a file where the other has a folder.
    FileAndFolder,
    /// Both changed more of a `.dvc` file than the content of what it tracks.
    Record,
    /// Both changed a folder that DVC 2 recorded.
    Legacy,
    /// DVC tracks it on one side, where the other side put this.
    Tracked(RepoPath),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BothAdded => "added on both sides, with different content",
            Self::BothChanged => "modified on both sides",
            Self::RemovedUpstream => "modified here, removed upstream",
            Self::RemovedHere => "removed here, modified upstream",
            Self::FileAndFolder => "a file on one side, a folder on the other",
            Self::Record => "both sides changed more of its record than the content",
            Self::Legacy => "modified on both sides, and of DVC 2 (dvc cache migrate --dvc-files)",
            Self::Tracked(other) => {
                return write!(f, "tracked by DVC on one side, and {other} added on the other");
            }
        })
    }
}

impl From<ConflictKind> for Why {
    fn from(kind: ConflictKind) -> Self {
        match kind {
            ConflictKind::BothChanged => Self::BothChanged,
            ConflictKind::RemovedByThem => Self::RemovedUpstream,
            ConflictKind::RemovedByUs => Self::RemovedHere,
            ConflictKind::FileAndFolder => Self::FileAndFolder,
        }
    }
}

impl From<Trouble> for Why {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::BothAdded => Self::BothAdded,
            Trouble::RemovedByThem => Self::RemovedUpstream,
            Trouble::RemovedByUs => Self::RemovedHere,
            Trouble::Record => Self::Record,
            Trouble::Content => Self::BothChanged,
            Trouble::Legacy => Self::Legacy,
        }
    }
}

/// Why two commits cannot be merged, whatever they changed.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// They have no history in common, as when upstream began anew.
    #[error("{ours} and {theirs} have no commit in common; the branch was written anew upstream")]
    Unrelated {
        /// Our commit.
        ours: CommitId,
        /// Theirs.
        theirs: CommitId,
    },
    /// A folder of git cannot be compared.
    #[error("compare {path}: {reason}")]
    Folder {
        /// The folder.
        path: RepoPath,
        /// What is wrong with it.
        reason: String,
    },
    /// A `.dvc` file cannot be written.
    #[error("{path}")]
    Record {
        /// Which.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// A manifest cannot be read, or not be merged.
    #[error("the manifest of {path}")]
    Manifest {
        /// Of this folder.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        source: EditError,
    },
    /// A manifest cannot be written into the outbox.
    #[error("the manifest of {path}")]
    Disk {
        /// Of this folder.
        path: RepoPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Git.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// The message that git gives the commit of such a merge: `upstream` is a URL without password.
pub fn merge_message(branch: &str, upstream: &str) -> String {
    format!("Merge branch '{branch}' of {upstream}\n")
}

/// Merges two commits from where they parted.
pub fn merge(
    ground: &MergeGround<'_>,
    ours: CommitId,
    theirs: CommitId,
) -> Result<Merged, MergeError> {
    let repository = ground.repository;
    let base = repository.merge_base(ours, theirs)?;
    let base = base.ok_or(MergeError::Unrelated { ours, theirs })?;
    if base == theirs {
        return Ok(Merged::Ours);
    }
    if base == ours {
        return Ok(Merged::Theirs);
    }
    let [base, ours, theirs] = [
        repository.commit(base)?.tree,
        repository.commit(ours)?.tree,
        repository.commit(theirs)?.tree,
    ];
    merge_trees(ground, [base, ours, theirs])
}

fn merge_trees(
    ground: &MergeGround<'_>,
    [base, ours, theirs]: [GitTreeId; 3],
) -> Result<Merged, MergeError> {
    let our = changes(ground.repository, base, ours)?;
    let their = changes(ground.repository, base, theirs)?;
    let mut merge = Merge {
        ground,
        theirs,
        projects: BTreeMap::new(),
        edits: Edits::new(),
        manifests: Vec::new(),
        conflicts: Vec::new(),
    };
    for (path, change) in &our {
        merge.path(path, change, &their)?;
    }
    let claims = [Claims::of(ground.repository, &our)?, Claims::of(ground.repository, &their)?];
    let [our, their] = &claims;
    merge.conflicts.extend(our.against(their).chain(their.against(our)));
    merge.finish()
}

type Changes = BTreeMap<RepoPath, Change>;

fn changes(repository: &Repository, old: GitTreeId, new: GitTreeId) -> Result<Changes, MergeError> {
    let changes = repository.changes(Some(old), Some(new));
    if let Some((path, reason)) = changes.unreadable.into_iter().next() {
        return Err(MergeError::Folder { path, reason });
    }
    Ok(changes.found.into_iter().map(|change| (change.path.clone(), change)).collect())
}

/// A DVC project.
type Project = (RepoPath, Option<GitId>);

/// One path, as it was and as both sides have it.
type Versions = [Option<EntryKind>; 3];

struct Merge<'a> {
    ground: &'a MergeGround<'a>,
    theirs: GitTreeId,
    /// The project that each folder belongs to.
    projects: BTreeMap<RepoPath, Project>,
    /// What makes of theirs what is merged.
    edits: Edits,
    manifests: Vec<TreeId>,
    conflicts: Vec<Conflict>,
}

impl Merge<'_> {
    /// Merges one path that we changed.
    fn path(&mut self, path: &RepoPath, our: &Change, their: &Changes) -> Result<(), MergeError> {
        let Some(other) = their.get(path) else {
            let is_put = |at: &RepoPath| their.get(at).is_some_and(|change| change.new.is_some());
            if our.new.is_some() && find_met(path, is_put, their).is_some() {
                self.conflict(path, Why::FileAndFolder);
            } else {
                self.put(path, our.new);
            }
            return Ok(());
        };
        if our.new == other.new {
            return Ok(());
        }
        let versions = [our.old, our.new, other.new];
        if is_of(path, b".gitignore") && are_files(versions) {
            return self.ignored(path, versions);
        }
        if path.file_name().is_some_and(dotfile::is_name) && are_files(versions) {
            return self.record(path, versions);
        }
        self.other(path, versions)
    }

    fn conflict(&mut self, path: &RepoPath, why: impl Into<Why>) {
        self.conflicts.push(Conflict { path: path.clone(), why: why.into() });
    }

    /// Has a path hold what one side has there.
    fn put(&mut self, path: &RepoPath, entry: Option<EntryKind>) {
        let edit = match entry {
            None => Edit::Removed,
            Some(EntryKind::Blob { id, is_executable }) => Edit::File { id, is_executable },
            Some(EntryKind::Link { id }) => Edit::Link { id },
            Some(EntryKind::Submodule { id }) => Edit::Submodule { id },
            // Folders are told by what lies in them.
            Some(EntryKind::Folder { .. }) => return,
        };
        self.edits.insert(path.clone(), edit);
    }

    fn put_text(&mut self, path: &RepoPath, text: &[u8]) -> Result<(), MergeError> {
        let id = self.ground.repository.write_blob(text)?;
        self.edits.insert(path.clone(), Edit::File { id, is_executable: false });
        Ok(())
    }

    fn ignored(&mut self, path: &RepoPath, versions: Versions) -> Result<(), MergeError> {
        let [base, ours, theirs] = self.texts(versions)?.map(Option::unwrap_or_default);
        let text = gitignore::merge(&base, &ours, &theirs);
        if text.is_empty() {
            self.put(path, None);
            return Ok(());
        }
        self.put_text(path, &text)
    }

    fn other(&mut self, path: &RepoPath, versions: Versions) -> Result<(), MergeError> {
        let file = |entry| match entry {
            Some(EntryKind::Blob { id, is_executable }) => Some((id, is_executable)),
            _ => None,
        };
        let why = match versions {
            [None, ..] => Why::BothAdded,
            [_, _, None] => Why::RemovedUpstream,
            [_, None, _] => Why::RemovedHere,
            _ => Why::BothChanged,
        };
        let [Some(base), Some(ours), Some(theirs)] = versions.map(file) else {
            self.conflict(path, why);
            return Ok(());
        };
        let is_executable = if ours.1 == base.1 { theirs.1 } else { ours.1 };
        let id = if ours.0 == base.0 || ours.0 == theirs.0 {
            Some(theirs.0)
        } else if theirs.0 == base.0 {
            Some(ours.0)
        } else {
            let repository = self.ground.repository;
            let text = match repository.merge_text([base.0, ours.0, theirs.0], MOST_TEXT) {
                Err(GitError::TooLarge { .. }) => None,
                text => text?.filter(|text| is_sound(path, text)),
            };
            text.map(|text| repository.write_blob(&text)).transpose()?
        };
        match id {
            Some(id) => _ = self.edits.insert(path.clone(), Edit::File { id, is_executable }),
            None => self.conflict(path, why),
        }
        Ok(())
    }

    fn record(&mut self, path: &RepoPath, versions: Versions) -> Result<(), MergeError> {
        let texts = self.texts(versions)?;
        let folder = path.parent().unwrap_or_default();
        let project = self.project(&folder)?;
        let merged =
            record::merge::merge(texts.each_ref().map(Option::as_deref), &folder, &project.0);
        let (side, becomes) = match merged {
            MergedRecord::Conflict(trouble) => {
                self.conflict(path, trouble);
                return Ok(());
            }
            MergedRecord::As(Side::Theirs) => return Ok(()),
            MergedRecord::As(Side::Ours) => {
                self.put(path, versions[1]);
                return Ok(());
            }
            MergedRecord::With(side, becomes) => (side, becomes),
        };
        let texts = texts.map(Option::unwrap_or_default);
        let mut changes = BTreeMap::new();
        for (place, becomes) in becomes {
            let content = match becomes {
                Becomes::Recorded(recorded) => Some(recorded),
                Becomes::Folder { .. } => {
                    let outputs = texts.each_ref().map(|text| {
                        let parsed = dotfile::parse(text, &folder, &project.0).ok()?;
                        parsed.outputs.into_iter().find(|output| output.path == place)
                    });
                    let [Some(base), Some(ours), Some(theirs)] = &outputs else { continue };
                    let tracked = [base, ours, theirs]
                        .map(|output| Tracked { project: (&project.0, project.1), output });
                    self.folder(&place, tracked)?
                }
            };
            changes.extend(content.map(|content| (place, OutputChange::Content(content))));
        }
        let [_, ours, theirs] = &texts;
        let text = if side == Side::Ours { ours } else { theirs };
        let failed = |source| MergeError::Record { path: path.clone(), source };
        match record::update(text, &folder, &project.0, &changes).map_err(failed)? {
            Some(text) => self.put_text(path, text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Merges the manifests of a tracked folder; nothing if there are conflicts.
    fn folder(
        &mut self,
        path: &RepoPath,
        [base, ours, theirs]: [Tracked<'_>; 3],
    ) -> Result<Option<Recorded>, MergeError> {
        let disk = |source| MergeError::Disk { path: path.clone(), source };
        let failed = |source| MergeError::Manifest { path: path.clone(), source };
        let old = Listing::read(|| (self.ground.manifest)(&base)).map_err(failed)?;
        let our = old.changes_to(|| (self.ground.manifest)(&ours)).map_err(failed)?;
        let their = old.changes_to(|| (self.ground.manifest)(&theirs)).map_err(failed)?;
        let changes = match manifests::merge(&our, &their) {
            Ok(changes) => changes,
            Err(conflicts) => {
                for conflict in conflicts {
                    let is_known = old.digest_of(&conflict.path).is_some();
                    let path = path.resolve(&conflict.path).unwrap_or_else(|_odd| path.clone());
                    match conflict.kind {
                        ConflictKind::BothChanged if !is_known => {
                            self.conflict(&path, Why::BothAdded);
                        }
                        kind => self.conflict(&path, kind),
                    }
                }
                return Ok(None);
            }
        };
        let from = || (self.ground.manifest)(&theirs);
        let written = self
            .ground
            .outbox
            .add_manifest(|out| edit(from, &changes, out, &mut |_gone| ()))
            .map_err(disk)?
            .map_err(failed)?;
        self.manifests.push(TreeId { digest: written.digest, scheme: Scheme::Md5 });
        let size = self.size([base, ours, theirs], &old, shared(&our, &their));
        let (digest, file_count) = (written.digest, written.file_count);
        Ok(Some(Recorded::Folder { digest, size, file_count }))
    }

    /// The bytes of a merged folder: theirs and what ours has more, without what both have done
    /// alike.
    fn size<'a>(
        &self,
        [base, ours, theirs]: [Tracked<'_>; 3],
        old: &Listing,
        shared: impl Iterator<Item = (&'a Vec<u8>, Option<Digest>)>,
    ) -> Option<u64> {
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (path, digest) in shared {
            came.extend(digest);
            went.extend(old.digest_of(path));
        }
        let sum = |side: Tracked<'_>, digests: Vec<Digest>| {
            if digests.is_empty() {
                return Some(0);
            }
            let blobs = digests.into_iter().map(|digest| BlobId { digest, scheme: Scheme::Md5 });
            (self.ground.size)(&side, &blobs.collect::<Vec<_>>())
        };
        let more = theirs.output.size? + ours.output.size? + sum(base, went)?;
        more.checked_sub(base.output.size? + sum(theirs, came)?)
    }

    fn texts(&self, versions: Versions) -> Result<[Option<Vec<u8>>; 3], MergeError> {
        let read = |entry| match entry {
            Some(EntryKind::Blob { id, .. }) => {
                self.ground.repository.blob(id, MOST_TEXT).map(Some)
            }
            _ => Ok(None),
        };
        let [base, ours, theirs] = versions;
        Ok([read(base)?, read(ours)?, read(theirs)?])
    }

    /// The project that a folder belongs to, by their tree.
    fn project(&mut self, folder: &RepoPath) -> Result<Project, MergeError> {
        if let Some(known) = self.projects.get(folder) {
            return Ok(known.clone());
        }
        let dot_dvc = folder.resolve(b".dvc").unwrap_or_default();
        let entry = self.ground.repository.entry_at(self.theirs, &dot_dvc)?;
        let project = match (entry, folder.parent()) {
            (Some(EntryKind::Folder { id }), _) => {
                let name = RepoPath::root().resolve(b"config").unwrap_or_default();
                let config = match self.ground.repository.entry_at(id, &name)? {
                    Some(EntryKind::Blob { id, .. }) => Some(id),
                    _ => None,
                };
                (folder.clone(), config)
            }
            (_, Some(parent)) => self.project(&parent)?,
            (_, None) => (RepoPath::root(), None),
        };
        self.projects.insert(folder.clone(), project.clone());
        Ok(project)
    }

    fn finish(mut self) -> Result<Merged, MergeError> {
        if !self.conflicts.is_empty() {
            self.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
            return Ok(Merged::Conflicts(self.conflicts));
        }
        let disk = |source| MergeError::Disk { path: RepoPath::root(), source };
        if !self.manifests.is_empty() {
            self.ground.outbox.sync().map_err(disk)?;
        }
        let tree = self.ground.repository.edit_tree(Some(self.theirs), &self.edits)?;
        Ok(Merged::Tree(MergedTree { tree, manifests: self.manifests }))
    }
}

/// The changes that both sides made alike.
fn shared<'a>(
    our: &'a edit::Changes,
    their: &edit::Changes,
) -> impl Iterator<Item = (&'a Vec<u8>, Option<Digest>)> {
    let is_shared =
        |(path, change): &(&'a Vec<u8>, &'a Option<Digest>)| their.get(*path) == Some(*change);
    our.iter().filter(is_shared).map(|(path, change)| (path, *change))
}

/// Whether DVC can read what was merged by lines: a stage that both sides added would be there twice.
fn is_sound(path: &RepoPath, text: &[u8]) -> bool {
    !(is_of(path, b"dvc.yaml") || is_of(path, b"dvc.lock")) || yaml::parse(text).is_ok()
}

fn is_of(path: &RepoPath, name: &[u8]) -> bool {
    path.file_name() == Some(name)
}

fn are_files(versions: Versions) -> bool {
    versions.into_iter().flatten().all(|entry| matches!(entry, EntryKind::Blob { .. }))
}

/// What is put at a folder that leads to `path`, or below it.
fn find_met<'a, V>(
    path: &RepoPath,
    is_put: impl Fn(&RepoPath) -> bool,
    others: &'a BTreeMap<RepoPath, V>,
) -> Option<&'a RepoPath> {
    let mut folder = path.parent();
    while let Some(at) = folder.filter(|at| !at.is_root()) {
        if is_put(&at) {
            return others.get_key_value(&at).map(|(path, _)| path);
        }
        folder = at.parent();
    }
    let after = others.range(path.clone()..).map(|(other, _)| other);
    after
        .take_while(|other| other.as_bytes().starts_with(path.as_bytes()))
        .find(|other| *other != path && other.strip_prefix(path).is_some() && is_put(other))
}

/// The places that one side newly put something at.
#[derive(Default)]
struct Claims {
    /// Outputs, with the `.dvc` file of each.
    outputs: BTreeMap<RepoPath, RepoPath>,
    /// Entries of git.
    files: BTreeMap<RepoPath, EntryKind>,
}

impl Claims {
    fn of(repository: &Repository, changes: &Changes) -> Result<Self, MergeError> {
        let mut claims = Self::default();
        for (path, change) in changes {
            if path.file_name().is_some_and(dotfile::is_name) {
                let before = outputs(repository, path, change.old)?;
                let now = outputs(repository, path, change.new)?;
                let new = now.into_iter().filter(|output| !before.contains(output));
                claims.outputs.extend(new.map(|output| (output, path.clone())));
            } else if change.old.is_none() && !is_of(path, b".gitignore") {
                claims.files.extend(change.new.map(|new| (path.clone(), new)));
            }
        }
        Ok(claims)
    }

    /// Our outputs where the other side put something.
    fn against<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Conflict> + 'a {
        self.outputs.iter().filter_map(|(path, dotfile)| {
            let of_other_file =
                |at: &RepoPath| other.outputs.get(at).is_some_and(|by| by != dotfile);
            let is_file = |at: &RepoPath| other.files.contains_key(at);
            let met = if of_other_file(path) || is_file(path) {
                path
            } else {
                find_met(path, of_other_file, &other.outputs)
                    .or_else(|| find_met(path, is_file, &other.files))?
            };
            Some(Conflict { path: path.clone(), why: Why::Tracked(met.clone()) })
        })
    }
}

/// The paths that a `.dvc` file tracks.
fn outputs(
    repository: &Repository,
    path: &RepoPath,
    entry: Option<EntryKind>,
) -> Result<BTreeSet<RepoPath>, MergeError> {
    let Some(EntryKind::Blob { id, .. }) = entry else { return Ok(BTreeSet::new()) };
    let text = repository.blob(id, MOST_TEXT)?;
    let folder = path.parent().unwrap_or_default();
    let parsed = dotfile::parse(&text, &folder, &RepoPath::root());
    let outputs = parsed.map(|parsed| parsed.outputs).unwrap_or_default();
    Ok(outputs.into_iter().map(|output| output.path).collect())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::BufReader};

    use proptest::{collection::btree_map, prelude::*};

    use super::*;
    use crate::{
        dvc::{
            manifest::{Entry, write::compose},
            output::Content,
        },
        git::fixture::Fixture,
        id::Key,
    };

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    /// A repository and an outbox.
    struct Lab {
        fixture: Fixture,
        repository: Repository,
        outbox: Outbox,
    }

    /// A byte per file: its content, hash and size are made of it.
    type Files = BTreeMap<String, u8>;

    impl Lab {
        fn new() -> Self {
            let fixture = Fixture::empty();
            let repository = Repository::open(&fixture.path()).unwrap();
            let outbox = Outbox::open(&fixture.state()).unwrap();
            Self { fixture, repository, outbox }
        }

        fn tree(&self, files: &[(&str, &str)]) -> GitTreeId {
            let edit = |(name, text): &(&str, &str)| {
                let id = self.repository.write_blob(text.as_bytes()).unwrap();
                (path(name), Edit::File { id, is_executable: false })
            };
            self.repository.edit_tree(None, &files.iter().map(edit).collect()).unwrap()
        }

        /// The `.dvc` file of a folder `data`.
        fn folder(&self, files: &Files) -> String {
            let entries = files.iter().map(|(relpath, byte)| Entry {
                relpath: relpath.as_bytes(),
                digest: Some([*byte; 16]),
            });
            let written = self.outbox.add_manifest(|out| compose(entries, out)).unwrap().unwrap();
            let content = Recorded::Folder {
                digest: written.digest,
                size: Some(files.values().map(|byte| u64::from(*byte)).sum()),
                file_count: written.file_count,
            };
            record::create(b"data", &content).unwrap()
        }

        fn merge(&self, trees: [GitTreeId; 3]) -> Merged {
            let manifest = |tracked: &Tracked<'_>| {
                let Content::Tree(id) = tracked.output.content else { panic!("no folder") };
                let place = Outbox::place(&self.fixture.state()).join(Key::from(id).path());
                let read: Box<dyn BufRead> = Box::new(BufReader::new(File::open(place)?));
                Ok(read)
            };
            let size = |_: &Tracked<'_>, blobs: &[BlobId]| {
                Some(blobs.iter().map(|blob| u64::from(blob.digest[0])).sum())
            };
            let (repository, outbox) = (&self.repository, &self.outbox);
            let ground = MergeGround { repository, outbox, manifest: &manifest, size: &size };
            merge_trees(&ground, trees).unwrap()
        }

        /// Merges trees of files with text; gives those of the result, or the conflicts.
        fn merged(&self, versions: [&[(&str, &str)]; 3]) -> Result<String, String> {
            match self.merge(versions.map(|files| self.tree(files))) {
                Merged::Tree(merged) => Ok(self.describe(merged.tree)),
                Merged::Conflicts(conflicts) => Err(lines(&conflicts)),
                other => panic!("{other:?}"),
            }
        }

        fn describe(&self, tree: GitTreeId) -> String {
            let listed = self.fixture.git(&["ls-tree", "-r", "--name-only", &tree.to_string()]);
            let line = |name: &str| format!("{name}: {}", self.text(tree, name));
            listed.lines().map(line).collect::<Vec<_>>().join("\n")
        }

        fn text(&self, tree: GitTreeId, name: &str) -> String {
            match self.repository.entry_at(tree, &path(name)).unwrap() {
                Some(EntryKind::Blob { id, .. }) => {
                    String::from_utf8(self.repository.blob(id, 10_000).unwrap()).unwrap()
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    fn lines(conflicts: &[Conflict]) -> String {
        let line = |conflict: &Conflict| format!("{}: {}", conflict.path, conflict.why);
        conflicts.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The `.dvc` file of a file.
    fn tracked(name: &str, byte: u8) -> String {
        let content = Recorded::File { digest: [byte; 16], size: byte.into(), is_exec: false };
        record::create(name.as_bytes(), &content).unwrap()
    }

    fn files(list: &[(&str, u8)]) -> Files {
        list.iter().map(|(name, byte)| ((*name).to_owned(), *byte)).collect()
    }

    #[test]
    fn changes_of_different_paths_are_merged() {
        let lab = Lab::new();
        let merged = lab.merged([
            &[("a", "1"), ("b", "1"), ("c/d", "1"), ("e", "1")],
            &[("a", "2"), ("b", "1"), ("c/d", "1"), ("new/ours", "1")],
            &[("a", "1"), ("b", "2"), ("e", "1"), ("new/theirs", "1")],
        ]);
        assert_eq!(merged.unwrap(), "a: 2\nb: 2\nnew/ours: 1\nnew/theirs: 1");
    }

    #[test]
    fn lines_of_text_are_merged_as_git_does() {
        let lab = Lab::new();
        let text = |first: &str, last: &str| format!("{first}\n1\n2\n3\n{last}\n");
        let versions = [text("a", "b"), text("A", "b"), text("a", "B")];
        let [base, ours, theirs] = versions.each_ref().map(|text| [("x", text.as_str())]);
        let merged = lab.merged([&base, &ours, &theirs]);
        assert_eq!(merged.unwrap(), format!("x: {}", text("A", "B")));
    }

    #[test]
    fn pipelines_are_not_merged_to_what_dvc_cannot_read() {
        let lab = Lab::new();
        let text = |first: &str, last: &str| format!("{first}m: 1\nn: 2\no: 3\np: 4\n{last}");
        let versions = [text("", ""), text("a: 5\n", ""), text("", "a: 6\n")];
        let of = |name| versions.each_ref().map(|text| [(name, text.as_str())]);
        let [base, ours, theirs] = of("params.yaml");
        let merged = lab.merged([&base, &ours, &theirs]);
        assert_eq!(merged.unwrap(), format!("params.yaml: {}", text("a: 5\n", "a: 6\n")));
        let [base, ours, theirs] = of("dvc.lock");
        let merged = lab.merged([&base, &ours, &theirs]);
        assert_eq!(merged.unwrap_err(), "dvc.lock: modified on both sides");
    }

    #[test]
    fn different_changes_of_one_path_are_conflicts() {
        let lab = Lab::new();
        let conflicts = lab.merged([
            &[("a", "1"), ("b", "1"), ("c", "1"), ("d/x", "1")],
            &[("a", "2"), ("b", "2"), ("d", "1"), ("e", "1"), ("f", "1")],
            &[("a", "3"), ("c", "2"), ("d/x", "1"), ("d/y", "1"), ("e", "2"), ("f/g", "1")],
        ]);
        let expected = "a: modified on both sides\n\
                        b: modified here, removed upstream\n\
                        c: removed here, modified upstream\n\
                        d: a file on one side, a folder on the other\n\
                        e: added on both sides, with different content\n\
                        f: a file on one side, a folder on the other";
        assert_eq!(conflicts.unwrap_err(), expected);
    }

    #[test]
    fn lines_of_gitignore_are_merged_one_by_one() {
        let lab = Lab::new();
        let name = ".gitignore";
        let merged = lab.merged([&[(name, "/a\n")], &[(name, "/a\n/o\n")], &[(name, "/t\n/a\n")]]);
        assert_eq!(merged.unwrap(), ".gitignore: /t\n/a\n/o\n");
        let merged = lab.merged([&[(name, "/a\n/b\n")], &[(name, "/a\n")], &[(name, "/b\n")]]);
        assert_eq!(merged.unwrap(), "");
        let merged = lab.merged([&[], &[(name, "/a\n")], &[(name, "/b\n")]]);
        assert_eq!(merged.unwrap(), ".gitignore: /b\n/a\n");
        let merged = lab.merged([&[(name, "/a\n")], &[], &[(name, "/a\n/b\n")]]);
        assert_eq!(merged.unwrap(), ".gitignore: /b\n");
    }

    #[test]
    fn tracked_folders_are_merged_file_by_file_and_the_manifest_waits_in_the_outbox() {
        let lab = Lab::new();
        let base = files(&[("a", 1), ("b", 2), ("c", 3), ("both", 4)]);
        let ours = files(&[("a", 9), ("b", 2), ("both", 5), ("new", 7)]);
        let theirs = files(&[("a", 1), ("b", 8), ("c", 3), ("both", 5), ("sub/new", 7)]);
        let expected = files(&[("a", 9), ("b", 8), ("both", 5), ("new", 7), ("sub/new", 7)]);
        let texts = [&base, &ours, &theirs].map(|files| lab.folder(files));
        let trees = texts.each_ref().map(|text| lab.tree(&[("data.dvc", text)]));
        let Merged::Tree(merged) = lab.merge(trees) else { panic!("conflicts") };
        assert_eq!(lab.text(merged.tree, "data.dvc"), lab.folder(&expected));
        let [manifest] = merged.manifests[..] else { panic!("{merged:?}") };
        let place = Outbox::place(&lab.fixture.state()).join(Key::from(manifest).path());
        assert!(place.exists());
    }

    #[test]
    fn files_of_a_folder_that_both_changed_are_named() {
        let lab = Lab::new();
        let versions = [("a", 1), ("a", 2), ("a", 3)].map(|file| lab.folder(&files(&[file])));
        let trees = versions.each_ref().map(|text| lab.tree(&[("data.dvc", text)]));
        let Merged::Conflicts(conflicts) = lab.merge(trees) else { panic!("no conflict") };
        assert_eq!(lines(&conflicts), "data/a: modified on both sides");
    }

    #[test]
    fn what_dvc_tracks_on_one_side_is_free_on_the_other() {
        let lab = Lab::new();
        let data = lab.folder(&files(&[("a", 1)]));
        let (x, other) = (tracked("x", 1), tracked("y", 1));
        let conflicts = lab.merged([
            &[],
            &[("data.dvc", &data), ("x.dvc", &x), ("y.dvc", &other)],
            &[("data/b", "text"), ("x", "text"), ("z", "text")],
        ]);
        let expected = "data: tracked by DVC on one side, and data/b added on the other\n\
                        x: tracked by DVC on one side, and x added on the other";
        assert_eq!(conflicts.unwrap_err(), expected);
        let below = tracked("b", 1);
        let conflicts = lab.merged([&[], &[("data/b.dvc", &below)], &[("data.dvc", &data)]]);
        let expected = "data: tracked by DVC on one side, and data/b added on the other\n\
                        data/b: tracked by DVC on one side, and data added on the other";
        assert_eq!(conflicts.unwrap_err(), expected);
    }

    #[test]
    fn modes_and_links_are_merged_too() {
        let lab = Lab::new();
        let id = |text: &str| lab.repository.write_blob(text.as_bytes()).unwrap();
        let file = |text: &str, is_executable| Edit::File { id: id(text), is_executable };
        let tree =
            |edit: Edit| lab.repository.edit_tree(None, &[(path("x"), edit)].into()).unwrap();
        let text = |first: &str| format!("{first}\n1\n2\n3\n");
        let base = tree(file(&text("a"), false));
        let merged = lab.merge([base, tree(file(&text("a"), true)), tree(file(&text("b"), false))]);
        let Merged::Tree(merged) = merged else { panic!("{merged:?}") };
        assert_eq!(merged.tree, tree(file(&text("b"), true)));
        let link = tree(Edit::Link { id: id("target") });
        let Merged::Tree(merged) = lab.merge([base, link, base]) else { panic!("conflicts") };
        assert_eq!(merged.tree, link);
        let merged = lab.merge([base, link, tree(file(&text("b"), false))]);
        assert!(matches!(merged, Merged::Conflicts(_)));
    }

    #[test]
    fn commits_are_merged_from_where_they_parted() {
        let lab = Lab::new();
        let fixture = &lab.fixture;
        let base = fixture.commit("a", "1");
        let ours = fixture.commit("b", "1");
        fixture.git(&["reset", "--quiet", "--hard", &base.to_string()]);
        let theirs = fixture.commit("c", "1");
        fixture.git(&["checkout", "--quiet", "--orphan", "other"]);
        let other = fixture.commit("d", "1");
        let manifest = |_: &Tracked<'_>| panic!("no folder is tracked");
        let size = |_: &Tracked<'_>, _: &[BlobId]| None;
        let (repository, outbox) = (&lab.repository, &lab.outbox);
        let ground = MergeGround { repository, outbox, manifest: &manifest, size: &size };
        let Ok(Merged::Tree(merged)) = merge(&ground, ours, theirs) else { panic!("no tree") };
        assert_eq!(lab.describe(merged.tree), "a: 1\nb: 1\nc: 1");
        assert_eq!(merge(&ground, ours, base).unwrap(), Merged::Ours);
        assert_eq!(merge(&ground, base, theirs).unwrap(), Merged::Theirs);
        let error = merge(&ground, ours, other).unwrap_err();
        assert!(matches!(error, MergeError::Unrelated { .. }), "{error}");
    }

    /// A registry of files in git, tracked files and one tracked folder, by paths.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Model {
        git: Files,
        tracked: Files,
        folder: Files,
    }

    impl Model {
        fn tree(&self, lab: &Lab) -> GitTreeId {
            let ignored: String = self.tracked.keys().flat_map(|name| ["/", name, "\n"]).collect();
            let git = self.git.iter().map(|(name, byte)| (name.clone(), format!("{byte}\n")));
            let dotfiles = self.tracked.iter();
            let dotfiles =
                dotfiles.map(|(name, byte)| (format!("{name}.dvc"), tracked(name, *byte)));
            let data = [("data.dvc".to_owned(), lab.folder(&self.folder))];
            let mut all: Vec<_> = git.chain(dotfiles).chain(data).collect();
            all.extend((!ignored.is_empty()).then(|| (".gitignore".to_owned(), ignored)));
            let all: Vec<_> = all.iter().map(|(name, text)| (&name[..], &text[..])).collect();
            lab.tree(&all)
        }
    }

    /// Merges maps: what both did to a key has to be the same.
    fn merge_maps([base, ours, theirs]: [&Files; 3], name: &str, wrong: &mut Vec<String>) -> Files {
        let keys: BTreeSet<_> = base.keys().chain(ours.keys()).chain(theirs.keys()).collect();
        let mut merged = Files::new();
        for key in keys {
            let [base, ours, theirs] = [base.get(key), ours.get(key), theirs.get(key)];
            if ours != base && theirs != base && ours != theirs {
                wrong.push(name.replace('*', key));
            }
            let byte = if ours == base { theirs } else { ours };
            merged.extend(byte.map(|byte| (key.clone(), *byte)));
        }
        merged
    }

    fn model() -> impl Strategy<Value = Model> {
        let files = |pattern| btree_map(pattern, 1u8..4, 0..5);
        (files("g/[a-c]"), files("t[a-c]"), files("[a-c](/[d-e])?")).prop_map(
            |(git, tracked, mut folder)| {
                // A name is a file or a folder.
                folder.retain(|name, _| name.contains('/') == name.starts_with('a'));
                Model { git, tracked, folder }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn a_merge_is_that_of_maps(base in model(), ours in model(), theirs in model()) {
            let lab = Lab::new();
            let mut wrong = Vec::new();
            let versions = [&base, &ours, &theirs];
            let merged = Model {
                git: merge_maps(versions.map(|model| &model.git), "*", &mut wrong),
                tracked: merge_maps(versions.map(|model| &model.tracked), "*.dvc", &mut wrong),
                folder: merge_maps(versions.map(|model| &model.folder), "data/*", &mut wrong),
            };
            wrong.sort();
            match lab.merge(versions.map(|model| model.tree(&lab))) {
                Merged::Conflicts(conflicts) => {
                    let paths = conflicts.iter().map(|conflict| conflict.path.to_string());
                    prop_assert_eq!(paths.collect::<Vec<_>>(), wrong);
                }
                Merged::Tree(found) => {
                    prop_assert_eq!(wrong, [""; 0]);
                    let sorted = |tree: GitTreeId| {
                        let id = lab.repository.entry_at(tree, &path(".gitignore")).unwrap();
                        let mut lines: Vec<_> = id
                            .map(|_| lab.text(tree, ".gitignore"))
                            .unwrap_or_default()
                            .lines()
                            .map(str::to_owned)
                            .collect();
                        lines.sort();
                        lines
                    };
                    let expected = merged.tree(&lab);
                    prop_assert_eq!(sorted(found.tree), sorted(expected));
                    let without = |tree| {
                        let edits = [(path(".gitignore"), Edit::Removed)].into();
                        lab.repository.edit_tree(Some(tree), &edits).unwrap()
                    };
                    prop_assert_eq!(without(found.tree), without(expected));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
