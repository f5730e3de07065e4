//! From a commit to its tree: walk git, parse what declares outputs, put the two together.

use std::sync::Arc;

use super::{
    OutputId, Problem, Project, Tracked, Tree,
    base::Base,
    draft::{Draft, Folder, Hidden, MAX_DEPTH},
    known::{Declared, Known},
};
use crate::{
    dvc::{dotfile, ignore::Ignore, output::Content, pipeline},
    git::{CommitId, Entry, EntryKind, GitError, GitId, GitTreeId, Repository},
    path::{RepoPath, escape},
};

/// Larger `.dvc` files, pipelines, lock files and ignore files are not read.
const MAX_DECLARATION: u64 = 64 << 20;

/// A small repository can hold a tree that is endless for all purposes, equal folders inside equal
/// folders; what lies beyond so many entries is not shown.
const MAX_ENTRIES: usize = 10_000_000;

/// A commit whose tree cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("read the tree of commit {commit}")]
pub struct BuildError {
    /// The commit.
    pub commit: CommitId,
    /// What git says.
    #[source]
    pub source: GitError,
}

/// Builds the tree of a commit. Touches git only, and blocks on it; what is known of other commits
/// is not read again.
///
/// What cannot be understood costs itself alone and is told in [`Tree::problems`]; only a commit
/// or a root tree that cannot be read is an error.
pub fn build(repository: &Repository, commit: CommitId, known: &Known) -> Result<Tree, BuildError> {
    let read = || {
        let info = repository.commit(commit)?;
        let mut walk = Walk::new(repository, info.tree, known);
        let root = walk.folder(info.tree, &RepoPath::root(), None, 0)?;
        Ok((info.time, walk, root))
    };
    let (time, walk, root) = read().map_err(|source| BuildError { commit, source })?;
    let Walk { mut declarations, projects, mut problems, .. } = walk;
    declarations.sort_by(|a, b| a.path.cmp(&b.path));
    let mut root = root;
    let mut outputs = Vec::new();
    for declaration in declarations {
        let project = &projects[declaration.project];
        match declaration.read(repository, &project.project.root, known) {
            Ok(declared) => {
                problems.extend(declared.bad.iter().map(|bad| Problem {
                    path: declaration.path.clone(),
                    why: format!("{}: {}", bad.what, bad.why),
                }));
                for output in &declared.outputs {
                    let tracked = Tracked {
                        output: Arc::clone(output),
                        project: declaration.project,
                        declared_in: declaration.path.clone(),
                    };
                    place(&mut root, &mut outputs, tracked, project)
                        .unwrap_or_else(|problem| problems.push(problem));
                }
            }
            Err(why) => problems.push(Problem { path: declaration.path, why }),
        }
    }
    let projects = projects.into_iter().map(|walked| walked.project).collect();
    let base = Base::freeze(root);
    Ok(Tree::new(Parts { commit, time, projects, problems, base, outputs }))
}

/// What a tree is made of.
pub(super) struct Parts {
    pub(super) commit: CommitId,
    pub(super) time: i64,
    pub(super) projects: Vec<Project>,
    pub(super) problems: Vec<Problem>,
    pub(super) base: Base,
    pub(super) outputs: Vec<Tracked>,
}

/// Puts one output into the draft; a hidden one is kept for `list` and the attributes.
fn place(
    root: &mut Folder,
    outputs: &mut Vec<Tracked>,
    tracked: Tracked,
    walked: &WalkedProject,
) -> Result<(), Problem> {
    let output = &tracked.output;
    let path = output.path.clone();
    let is_folder = matches!(output.content, Content::Tree(_) | Content::Files(_));
    if walked.ignore.is_ignored(&path, is_folder) {
        return Err(Problem { path, why: "the output is ignored by .dvcignore".into() });
    }
    let id = outputs.len() as OutputId;
    let placed = match &output.content {
        // Nobody stores it but git, whose own entry shows it if there is one.
        _ if !output.is_cached => Ok(()),
        Content::Tree(_) => root.insert_folder(&path, id, true),
        Content::Files(files) => place_files(root, &path, id, files.iter().map(|f| &f.relpath)),
        Content::Blob(_) | Content::Unavailable(_) => root.insert_file(&path, id, 0),
    };
    outputs.push(tracked);
    placed.map_err(|hidden| Problem { path, why: format!("the output is hidden: {hidden}") })
}

/// Places the files of an output that lists them itself. The last one that is hidden says why.
fn place_files<'a>(
    root: &mut Folder,
    path: &RepoPath,
    id: OutputId,
    files: impl Iterator<Item = &'a RepoPath>,
) -> Result<(), Hidden> {
    root.insert_folder(path, id, false)?;
    let mut placed = Ok(());
    for (part, relative) in files.enumerate() {
        if let Ok(file) = path.resolve(relative.as_bytes()) {
            placed = root.insert_file(&file, id, part as u32).and(placed);
        }
    }
    placed
}

/// A file that declares outputs.
struct Declaration {
    path: RepoPath,
    id: GitId,
    project: usize,
    form: Form,
    /// The root of the commit's git tree.
    tree: GitTreeId,
}

/// What kind of file declares.
enum Form {
    Dotfile,
    /// With the lock file beside it, if there is one.
    Pipeline(Option<GitId>),
}

impl Declaration {
    fn read(
        &self,
        repository: &Repository,
        project: &RepoPath,
        known: &Known,
    ) -> Result<Arc<Declared>, String> {
        let folder = self.path.parent().unwrap_or_default();
        let text = || read(repository, self.id);
        match self.form {
            Form::Dotfile => known.dotfile((self.id, &self.path, project), || {
                dotfile::parse(&text()?, &folder, project).map_err(|error| error.to_string())
            }),
            Form::Pipeline(lock) => {
                let lock = lock.map(|lock| read(repository, lock)).transpose()?;
                let other = |path: &RepoPath| find_blob(repository, self.tree, path);
                let parsed = pipeline::parse(&text()?, lock.as_deref(), &folder, project, &other);
                parsed.map(|parsed| Arc::new(parsed.into())).map_err(|error| error.to_string())
            }
        }
    }
}

fn read(repository: &Repository, id: GitId) -> Result<Vec<u8>, String> {
    repository.blob(id, MAX_DECLARATION).map_err(|error| error.to_string())
}

/// The bytes of another file of the same commit.
fn find_blob(repository: &Repository, tree: GitTreeId, path: &RepoPath) -> Option<Vec<u8>> {
    let mut at = EntryKind::Folder { id: tree };
    for name in path.components() {
        let EntryKind::Folder { id } = at else { return None };
        let entries = repository.entries(id).ok()?.entries;
        at = entries.into_iter().find(|entry| entry.name.as_bytes() == name)?.kind;
    }
    let EntryKind::Blob { id, .. } = at else { return None };
    repository.blob(id, MAX_DECLARATION).ok()
}

struct WalkedProject {
    project: Project,
    ignore: Ignore,
}

struct Walk<'a> {
    repository: &'a Repository,
    known: &'a Known,
    root: GitTreeId,
    declarations: Vec<Declaration>,
    projects: Vec<WalkedProject>,
    problems: Vec<Problem>,
    entries: usize,
}

impl<'a> Walk<'a> {
    fn new(repository: &'a Repository, root: GitTreeId, known: &'a Known) -> Self {
        let (declarations, projects, problems) = Default::default();
        Self { repository, known, root, declarations, projects, problems, entries: 0 }
    }

    /// Walks one folder; `project` is the innermost that it lies in.
    fn folder(
        &mut self,
        tree: GitTreeId,
        path: &RepoPath,
        project: Option<usize>,
        depth: usize,
    ) -> Result<Folder, GitError> {
        let listing = self.known.listing(self.repository, tree)?;
        self.problems.extend(listing.refused.iter().map(|refused| Problem {
            path: path.clone(),
            why: format!("the entry {} is not shown: {}", escape(&refused.name), refused.reason),
        }));
        let entries = &listing.entries;
        self.entries += entries.len() + 1;
        let project = match kind_of(entries, b".dvc") {
            Some(EntryKind::Folder { id }) => Some(self.open_project(path, id)),
            _ => project,
        };
        if let (Some(project), Some(id)) = (project, blob_of(entries, b".dvcignore")) {
            self.add_ignore_rules(project, path, id);
        }
        let lock = blob_of(entries, b"dvc.lock");
        let mut folder = Folder::default();
        for Entry { name, kind } in entries {
            let child = path.join(name);
            let draft = match *kind {
                EntryKind::Blob { id, is_executable: is_exec } => {
                    self.declare(&child, id, project, lock);
                    Draft::GitFile { id, is_exec, hides: None }
                }
                EntryKind::Link { id } => Draft::Link(id),
                EntryKind::Submodule { .. } => Draft::Folder(Folder::default()),
                EntryKind::Folder { id } => {
                    Draft::Folder(self.subfolder(id, &child, project, depth + 1))
                }
            };
            folder.children.insert(name.as_bytes().into(), draft);
        }
        Ok(folder)
    }

    /// A folder that cannot be read is marked so.
    fn subfolder(
        &mut self,
        tree: GitTreeId,
        path: &RepoPath,
        project: Option<usize>,
        depth: usize,
    ) -> Folder {
        let walked = if depth > MAX_DEPTH {
            Err(Hidden::TooDeep.to_string())
        } else if self.entries > MAX_ENTRIES {
            Err(format!("the tree has more than {MAX_ENTRIES} entries"))
        } else {
            self.folder(tree, path, project, depth).map_err(|error| error.to_string())
        };
        walked.unwrap_or_else(|why| {
            self.problems.push(Problem { path: path.clone(), why });
            Folder { is_unreadable: true, ..Folder::default() }
        })
    }

    fn open_project(&mut self, root: &RepoPath, dot_dvc: GitTreeId) -> usize {
        let entries = self.repository.entries(dot_dvc).unwrap_or_default().entries;
        let project = Project { root: root.clone(), config: blob_of(&entries, b"config") };
        let ignore = Ignore::new(root.clone());
        self.projects.push(WalkedProject { project, ignore });
        self.projects.len() - 1
    }

    fn add_ignore_rules(&mut self, project: usize, folder: &RepoPath, id: GitId) {
        let rules = &mut self.projects[project].ignore;
        let file = folder.resolve(b".dvcignore").unwrap_or_default();
        if rules.is_ignored(&file, false) {
            return;
        }
        match read(self.repository, id) {
            Ok(text) => {
                let warnings = rules.add(folder, &text).into_iter();
                self.problems.extend(warnings.map(|why| Problem { path: file.clone(), why }));
            }
            Err(why) => self.problems.push(Problem { path: file, why }),
        }
    }

    /// Notes a file that declares outputs, unless its project ignores it.
    fn declare(&mut self, path: &RepoPath, id: GitId, project: Option<usize>, lock: Option<GitId>) {
        let name = path.file_name().unwrap_or_default();
        let is_pipeline = name == b"dvc.yaml";
        let is_dotfile = dotfile::is_name(name);
        let Some(project) = project.filter(|_| is_pipeline || is_dotfile) else { return };
        let walked = &self.projects[project];
        let settings = walked.project.root.resolve(b".dvc");
        let is_settings = settings.is_ok_and(|folder| path.strip_prefix(&folder).is_some());
        if is_settings || walked.ignore.is_ignored(path, false) {
            return;
        }
        let form = if is_pipeline { Form::Pipeline(lock) } else { Form::Dotfile };
        let tree = self.root;
        self.declarations.push(Declaration { path: path.clone(), id, project, form, tree });
    }
}

fn kind_of(entries: &[Entry], name: &[u8]) -> Option<EntryKind> {
    let at = entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name)).ok()?;
    Some(entries[at].kind)
}

fn blob_of(entries: &[Entry], name: &[u8]) -> Option<GitId> {
    match kind_of(entries, name) {
        Some(EntryKind::Blob { id, .. }) => Some(id),
        _ => None,
    }
}
