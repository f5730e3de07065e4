//! Where a change is recorded: what DVC tracks stays with DVC, what git has stays with git, and
//! something new goes to one of them by its kind or by the user's word.
//!
//! | file | is about |
//! |---|---|
//! | `entails` | what a change by hand of such files brings about |
//! | `flaws` | files of DVC and git that would leave a repository broken |
//! | `ignored` | what is kept out of commits |
//! | `moved` | outputs that came to another path, and their `.dvc` files |
//! | `records` | the `.dvc` files of what is tracked from now on |
//! | `stages` | what pipelines make |

mod entails;
mod flaws;
mod ignored;
mod moved;
mod records;
mod stages;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

pub use self::ignored::KeptOut;
use self::{
    ignored::{Book, is_private},
    moved::{imported, moved_outputs},
    stages::{Made, by_force},
};
pub(super) use self::{moved::output_for, records::outputs_in};
use super::changes::{Change, Changes, New};
use crate::{
    dvc::{dotfile, ignore::Ignore, manifest::write::check_new, output::Content, record},
    git::{GitError, Repository},
    overlay::Overlay,
    path::RepoPath,
    tree::{MAX_DEPTH, Node, OutputId, Tree},
};

/// Where a change is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// In git itself.
    Git,
    /// In git itself, and its hash with the output of the base that it is or lies in, of which DVC
    /// keeps no copy.
    Uncached(OutputId),
    /// In the `.dvc` or lock file of an output of the base that is a file.
    Dotfile(OutputId),
    /// In the manifest of an output of the base that is a folder.
    Manifest(OutputId),
    /// In this `.dvc` file, by which it is tracked from now on, or in this `dvc.lock`.
    NewFile(RepoPath),
    /// In the manifest of a folder that is tracked from now on.
    NewFolder {
        /// The folder.
        folder: RepoPath,
        /// Its `.dvc` file, or the `dvc.lock`.
        record: RepoPath,
    },
    /// Nowhere, as it is meant.
    Ignored(KeptOut),
    /// Nowhere, for this reason.
    Refused(String),
}

/// What the user says about things that are new, and about those that a pipeline makes.
#[derive(Debug)]
pub struct Rules {
    dvc: Ignore,
    git: Ignore,
    /// Those of `git` that are names, which counts more than a `.gitignore`.
    named: Ignore,
    folders: Vec<RepoPath>,
    forces: bool,
}

impl Rules {
    /// Takes patterns, in the words of `.gitignore`, of what goes to DVC and what to git, the
    /// folders that are to be tracked as one, and whether outputs of stages may be recorded.
    pub fn new(dvc: &[String], git: &[String], folders: Vec<RepoPath>, forces: bool) -> Self {
        let is_name = |pattern: &String| !pattern.contains(['*', '?', '[', '!']);
        let names: Vec<_> = git.iter().filter(|pattern| is_name(pattern)).cloned().collect();
        let matcher = |patterns: &[String]| {
            let mut rules = Ignore::of_git();
            rules.add(&RepoPath::root(), patterns.join("\n").as_bytes());
            rules
        };
        Self { dvc: matcher(dvc), git: matcher(git), named: matcher(&names), folders, forces }
    }
}

/// Finds out where changes of an overlay are recorded.
pub(super) struct Router<'a> {
    rules: &'a Rules,
    tree: &'a Tree,
    overlay: &'a Overlay,
    repository: &'a Repository,
    changes: &'a Changes,
    /// Every path that is changed, and those that something was moved from.
    changed: BTreeMap<RepoPath, &'a Change>,
    uncached: BTreeMap<&'a RepoPath, OutputId>,
    /// Outputs that `.dvc` files name which were written or changed by hand, and these files.
    by_hand: BTreeMap<RepoPath, &'a RepoPath>,
    /// Outputs of the base by the paths that they were moved to.
    pub(super) moved: BTreeMap<RepoPath, OutputId>,
    /// Those of them that are imports and came with their `.dvc` files, so that nothing else is written.
    pub(super) imports: BTreeSet<RepoPath>,
    /// What stages of pipelines make by now.
    made: BTreeMap<RepoPath, Made>,
    /// The `.dvc` files of folders that are tracked from now on, or why there can be none.
    new_folders: BTreeMap<RepoPath, Result<RepoPath, String>>,
    git_book: Book,
    /// Of each project.
    dvc_books: Vec<Book>,
}

impl<'a> Router<'a> {
    /// For the changes that an overlay makes to a tree of a repository.
    pub(super) fn new(
        rules: &'a Rules,
        (overlay, tree, repository): (&'a Overlay, &'a Tree, &'a Repository),
        changes: &'a Changes,
    ) -> Result<Self, GitError> {
        let paths = changes.list.iter().map(|change| (change.path.clone(), change));
        let sources = changes.list.iter().filter_map(|it| Some((it.renamed_from.clone()?, it)));
        let outputs = (0..).zip(tree.outputs()).filter(|(_, tracked)| !tracked.output.is_cached);
        let mut router = Self {
            rules,
            tree,
            overlay,
            repository,
            changes,
            changed: sources.chain(paths).collect(),
            uncached: outputs.map(|(id, tracked)| (&tracked.output.path, id)).collect(),
            by_hand: BTreeMap::new(),
            moved: moved_outputs(overlay, tree, changes),
            imports: BTreeSet::new(),
            made: BTreeMap::new(),
            new_folders: BTreeMap::new(),
            git_book: Book::of_git(),
            dvc_books: tree.projects.iter().map(|it| Book::of_dvc(&it.root)).collect(),
        };
        router.note_records()?;
        router.note_stages()?;
        Ok(router)
    }

    /// Where a change is recorded.
    pub(super) fn route(&mut self, change: &Change) -> Result<Route, GitError> {
        let refused = |why: &str| Ok(Route::Refused(why.to_owned()));
        match change.new {
            Some(New::Pipe) => return refused("it is a named pipe"),
            Some(New::Lost) => return refused("the content that it stands for is not there"),
            _ => {}
        }
        if change.new.is_some() && change.path.components().count() > MAX_DEPTH {
            let why = format!("it lies more than {MAX_DEPTH} folders deep, where nothing is shown");
            return Ok(Route::Refused(why));
        }
        if change.path.components().any(|name| name == b".git") {
            return refused("git does not take what lies in a folder .git");
        }
        if let Some(submodule) = self.submodule_around(change)? {
            return Ok(Route::Refused(format!("{submodule} is a submodule")));
        }
        if let Some(why) = self.flaw(change)? {
            return Ok(Route::Refused(why));
        }
        if let Some(output) = self.uncached_output(&change.path) {
            let is_left = self.is_left_by_git(change)?;
            let route = self.of_uncached(output).unwrap_or(Route::Uncached(output));
            return Ok(if is_left { Route::Ignored(KeptOut::GitIgnore) } else { route });
        }
        if let Some(why) = self.flaw_of_uncached(change) {
            return Ok(Route::Refused(why));
        }
        match old_output(self.tree, change) {
            Old::Git => Ok(Route::Git),
            Old::Output(output) => self.of_output(change, output),
            Old::Nothing => self.of_new(change),
        }
    }

    /// The output without a copy in DVC's storage that a path is or lies in.
    fn uncached_output(&self, path: &RepoPath) -> Option<OutputId> {
        if self.uncached.is_empty() {
            return None;
        }
        let mut places = [path.clone()].into_iter().chain(path.folders());
        places.find_map(|place| self.uncached.get(&place).copied())
    }

    /// Why the hash of an output without a copy cannot be recorded, if so.
    fn of_uncached(&self, output: OutputId) -> Option<Route> {
        let tracked = self.tree.tracked(output);
        if self.changed.contains_key(&tracked.declared_in) {
            // Whoever changes both says so in both.
            return Some(Route::Git);
        }
        self.of_stage(output)
    }

    /// Why the output of a stage is not recorded, if so.
    fn of_stage(&self, output: OutputId) -> Option<Route> {
        let tracked = self.tree.tracked(output);
        let file = &tracked.declared_in;
        let is_refused = tracked.is_of_pipeline() && !self.rules.forces;
        is_refused.then(|| Route::Refused(by_force(file)))
    }

    fn of_output(&mut self, change: &Change, output: OutputId) -> Result<Route, GitError> {
        let refused = |why: String| Ok(Route::Refused(why));
        let tracked = self.tree.tracked(output);
        let file = &tracked.declared_in;
        if let Some(by_hand) = self.changed.get(file) {
            let is_file_gone = by_hand.new.is_none() || by_hand.path != *file;
            // Both are gone, so that nothing is left to be recorded but in git.
            return if is_file_gone && change.new.is_none() {
                Ok(Route::Dotfile(output))
            } else {
                refused(format!("{file}, which tracks it, was changed as well"))
            };
        }
        let is_unknown = matches!(tracked.output.content, Content::Unavailable(_));
        if is_unknown && self.made.contains_key(&change.path) && self.is_changed(&change.path) {
            let record = self.record_of(&change.path)?;
            return Ok(record.map_or_else(Route::Refused, Route::NewFile));
        }
        if let Some(route) = self.of_stage(output) {
            return Ok(route);
        }
        let is_removed = self.changes.removed_outputs.contains(&output);
        let is_file = matches!(tracked.output.content, Content::Blob(_));
        if tracked.is_of_pipeline() && (is_removed || is_file && change.new.is_none()) {
            return refused(format!(
                "a stage of {file} makes it, which would have to make nothing"
            ));
        }
        if let Some(why) = imported(&tracked.output.origin) {
            return refused(why);
        }
        match &tracked.output.content {
            _ if tracked.output.is_versioned => {
                refused("a bucket keeps it by version, where only DVC can change it".to_owned())
            }
            Content::Tree(_) if is_removed => Ok(Route::Manifest(output)),
            Content::Tree(_) => {
                let relative = change.path.strip_prefix(&tracked.output.path).unwrap_or_default();
                if let Some(route) = check(change, relative) {
                    return Ok(route);
                }
                let is_new = change.old.is_none() && change.new.is_some();
                let is_ignored = is_new && self.is_dvc_ignored(&change.path, false)?;
                let into = Route::Manifest(output);
                Ok(if is_ignored { Route::Ignored(KeptOut::DvcIgnore) } else { into })
            }
            Content::Blob(_) => Ok(check(change, b"file").unwrap_or(Route::Dotfile(output))),
            Content::Files(_) | Content::Unavailable(_) => {
                refused(format!("{file} does not say what its content is"))
            }
        }
    }

    fn of_new(&mut self, change: &Change) -> Result<Route, GitError> {
        let path = &change.path;
        let project = self.tree.project_around(path);
        let is_in_project = project.is_some_and(|project| self.is_project(project));
        if let Some(folder) = self.new_folder(path).filter(|_| is_in_project) {
            return self.of_new_folder(change, folder);
        }
        if is_private(path) {
            return Ok(Route::Ignored(KeptOut::Private));
        }
        let asked = match change.new {
            _ if !is_in_project || is_control(path) => Some(false),
            _ if let Some(made) = self.made_at(path) => Some(made.is_cached),
            _ if self.by_hand.contains_key(path) => Some(true),
            Some(New::Link) => Some(false),
            _ if self.rules.git.is_ignored(path, false) => Some(false),
            _ if self.rules.dvc.is_ignored(path, false) => Some(true),
            Some(New::Same { node, .. }) => Some(matches!(node, Node::Blob { .. })),
            _ => None,
        };
        if asked != Some(true) && self.is_left_by_git(change)? {
            return Ok(Route::Ignored(KeptOut::GitIgnore));
        }
        if !asked.unwrap_or_else(|| !is_small_text(self.overlay, path)) {
            return Ok(Route::Git);
        }
        if let Some(route) = check(change, b"file") {
            return Ok(route);
        }
        if self.is_dvc_ignored(path, false)? {
            return Ok(Route::Ignored(KeptOut::DvcIgnore));
        }
        Ok(self.record_of(path)?.map_or_else(Route::Refused, Route::NewFile))
    }

    fn of_new_folder(&mut self, change: &Change, folder: RepoPath) -> Result<Route, GitError> {
        let relative = change.path.strip_prefix(&folder).unwrap_or_default();
        if let Some(route) = check(change, relative) {
            return Ok(route);
        }
        if change.new.is_some() && self.is_dvc_ignored(&change.path, false)? {
            return Ok(Route::Ignored(KeptOut::DvcIgnore));
        }
        let record = self.record_of_folder(&folder)?;
        Ok(record.map_or_else(Route::Refused, |record| Route::NewFolder { folder, record }))
    }

    /// Whether something new is none of git's, unless the user names it.
    fn is_left_by_git(&mut self, change: &Change) -> Result<bool, GitError> {
        let Change { path, old, new, .. } = change;
        let is_new = old.is_none() && new.is_some() && !self.rules.named.is_ignored(path, false);
        Ok(is_new && self.is_git_ignored(path)?)
    }

    /// Why a `.dvc` or lock file that a change goes into cannot be written anew, if so, with the file.
    pub(super) fn unwritable(
        &self,
        Change { path, .. }: &Change,
        route: &Route,
    ) -> Result<Option<(RepoPath, String)>, GitError> {
        let declared_in = |output: OutputId| {
            let file = &self.tree.tracked(output).declared_in;
            Some(file).filter(|file| !self.changed.contains_key(*file))
        };
        let moved = |path: &RepoPath| self.moved.get(path).copied().and_then(declared_in);
        let files = match route {
            Route::Dotfile(output) | Route::Manifest(output) | Route::Uncached(output) => {
                [declared_in(*output), None]
            }
            Route::NewFile(record) => [Some(record), moved(path)],
            Route::NewFolder { folder, record } => [Some(record), moved(folder)],
            Route::Git | Route::Ignored(_) | Route::Refused(_) => [None, None],
        };
        for file in files.into_iter().flatten() {
            if let Some(text) = self.text(file)?
                && let Err(why) = record::check(&text)
            {
                return Ok(Some((file.clone(), why.to_string())));
            }
        }
        Ok(None)
    }

    /// The text of a file that is in git or comes there.
    fn text(&self, path: &RepoPath) -> Result<Option<Vec<u8>>, GitError> {
        match self.changed.get(path) {
            Some(Change { path: at, new: Some(new), .. }) if at == path => match new {
                New::File(_) => Ok(read_small(self.overlay, path)),
                New::Same { node, .. } => self.text_of(Some(*node)),
                New::Link | New::Pipe | New::Lost => Ok(None),
            },
            Some(_) => Ok(None),
            None => self.text_before(path),
        }
    }

    /// The text of a file that the base has in git.
    fn text_before(&self, path: &RepoPath) -> Result<Option<Vec<u8>>, GitError> {
        let index = self.tree.find(path).ok().flatten();
        self.text_of(index.and_then(|index| self.tree.node(index).ok().flatten()))
    }

    fn text_of(&self, node: Option<Node>) -> Result<Option<Vec<u8>>, GitError> {
        match node {
            Some(Node::GitFile { id, .. }) => Ok(Some(self.repository.blob(id, LARGEST_TEXT)?)),
            _ => Ok(None),
        }
    }
}

/// Of longer files no more is read.
const LARGEST_TEXT: u64 = 32 << 20;

/// The bytes of a file of the overlay, as far as they are not too many, unless it cannot be read.
fn read_small(overlay: &Overlay, path: &RepoPath) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = overlay.open_file(path, false).ok()?;
    file.take(LARGEST_TEXT).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether a file of the overlay is small text, such as people keep in git.
fn is_small_text(overlay: &Overlay, path: &RepoPath) -> bool {
    const SMALL: u64 = 64 << 10;
    let Ok(file) = overlay.open_file(path, false) else { return false };
    let mut bytes = Vec::new();
    let is_read = file.take(SMALL + 1).read_to_end(&mut bytes).is_ok();
    is_read && bytes.len() as u64 <= SMALL && !bytes.contains(&0) && str::from_utf8(&bytes).is_ok()
}

/// What the base says of a changed path.
enum Old {
    Git,
    Output(OutputId),
    Nothing,
}

fn old_output(tree: &Tree, change: &Change) -> Old {
    match change.old {
        Some(Node::GitFile { .. } | Node::Link(_)) => return Old::Git,
        Some(Node::Blob { output, .. }) => return Old::Output(output),
        Some(Node::Folder { .. }) | None => {}
    }
    // The closest folder that the base has decides.
    let mut folder = change.path.parent();
    while let Some(path) = folder {
        if let Ok(Some(index)) = tree.find(&path)
            && matches!(tree.node(index), Ok(Some(Node::Folder { .. })))
        {
            return tree.output_of(index).map_or(Old::Nothing, Old::Output);
        }
        folder = path.parent();
    }
    Old::Nothing
}

/// Why DVC cannot have something under a name, if so.
fn check(change: &Change, name: &[u8]) -> Option<Route> {
    match change.new {
        None => return None,
        Some(New::Link) => {
            let why = "DVC follows links; it has no word for this one where it tracks";
            return Some(Route::Refused(why.to_owned()));
        }
        Some(_) => {}
    }
    let flaw = check_new(name).err()?;
    Some(Route::Refused(format!("DVC cannot hold its name: {flaw}")))
}

/// Whether a path is one of those by which DVC and git themselves are told what to do.
fn is_control(path: &RepoPath) -> bool {
    const NAMES: [&[u8]; 5] =
        [b"dvc.yaml", b"dvc.lock", b".dvcignore", b".gitignore", b".gitattributes"];
    let name = path.file_name().unwrap_or_default();
    NAMES.contains(&name) || dotfile::is_name(name) || path.components().any(|name| name == b".dvc")
}
