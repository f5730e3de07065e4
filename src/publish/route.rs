//! Where a change is recorded: what DVC tracks stays with DVC, what git has stays with git, and
//! something new goes to one of them by its kind or by the user's word.

use std::io::Read;

use super::changes::{Change, Changes, New};
use crate::{
    dvc::{
        ignore::Ignore,
        manifest::write::check_new,
        output::{Content, Origin},
        record::{self, Recorded},
    },
    id::Scheme,
    overlay::Overlay,
    path::RepoPath,
    tree::{Node, OutputId, Tree},
};

/// Where a change is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// In git itself.
    Git,
    /// In the `.dvc` file of an output of the base that is a file.
    Dotfile(OutputId),
    /// In the manifest of an output of the base that is a folder.
    Manifest(OutputId),
    /// In a `.dvc` file of its own, which is made.
    NewFile,
    /// In the manifest of this folder, which is tracked from now on.
    NewFolder(RepoPath),
    /// Nowhere, for this reason.
    Refused(String),
}

/// What the user says about things that are new.
#[derive(Debug)]
pub struct Rules {
    dvc: Ignore,
    git: Ignore,
    folders: Vec<RepoPath>,
}

impl Rules {
    /// Takes patterns, in the words of `.gitignore`, of what goes to DVC and what to git, and the
    /// folders that are to be tracked as one.
    pub fn new(dvc: &[String], git: &[String], folders: Vec<RepoPath>) -> Self {
        let matcher = |patterns: &[String]| {
            let mut rules = Ignore::new(RepoPath::root());
            rules.add(&RepoPath::root(), patterns.join("\n").as_bytes());
            rules
        };
        Self { dvc: matcher(dvc), git: matcher(git), folders }
    }

    /// Where a change is recorded. `is_text` says whether the overlay's file at the path is small
    /// text; it is asked only if that matters.
    pub fn route(
        &self,
        tree: &Tree,
        changes: &Changes,
        change: &Change,
        is_text: impl FnOnce() -> bool,
    ) -> Route {
        let refused = |why: &str| Route::Refused(why.to_owned());
        match change.new {
            Some(New::Pipe) => return refused("it is a named pipe"),
            Some(New::Lost) => return refused("the content that it stands for is not there"),
            _ => {}
        }
        if change.path.components().any(|name| name == b".git") {
            return refused("git does not take what lies in a folder .git");
        }
        match old_output(tree, change) {
            Old::Git => Route::Git,
            Old::Output(output) => of_output(tree, changes, change, output),
            Old::Nothing if is_control(&change.path) => Route::Git,
            Old::Nothing => self.of_new(tree, changes, change, is_text),
        }
    }

    fn of_new(
        &self,
        tree: &Tree,
        changes: &Changes,
        change: &Change,
        is_text: impl FnOnce() -> bool,
    ) -> Route {
        let path = &change.path;
        let has_project =
            tree.projects.iter().any(|project| path.strip_prefix(&project.root).is_some());
        if !has_project {
            return Route::Git;
        }
        let folders = self.folders.iter().chain(&changes.moved_outputs);
        let mut folders = folders.filter(|folder| is_below(path, folder));
        // Of a folder in a folder the outer one is tracked.
        if let Some(folder) = folders.next() {
            let folder = folders.fold(
                folder,
                |outer, other| {
                    if is_below(outer, other) { other } else { outer }
                },
            );
            return check(change, path.strip_prefix(folder).unwrap_or_default())
                .unwrap_or_else(|| Route::NewFolder(folder.clone()));
        }
        let to_dvc = match change.new {
            Some(New::Link) => false,
            _ if self.git.is_ignored(path, false) => false,
            _ if self.dvc.is_ignored(path, false) => true,
            Some(New::Same { node, .. }) => matches!(node, Node::Blob { .. }),
            _ => !is_text(),
        };
        if !to_dvc {
            return Route::Git;
        }
        let name = path.file_name().unwrap_or_default();
        let sample = Recorded::File { digest: [0; 16], size: 0, is_exec: false };
        match record::create(name, &sample) {
            Ok(_) => Route::NewFile,
            Err(error) => Route::Refused(error.to_string()),
        }
    }
}

/// Whether a file of the overlay is small text, such as people keep in git.
pub fn is_small_text(overlay: &Overlay, path: &RepoPath) -> bool {
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

fn of_output(tree: &Tree, changes: &Changes, change: &Change, output: OutputId) -> Route {
    let refused = |why: String| Route::Refused(why);
    let tracked = tree.tracked(output);
    let file = &tracked.declared_in;
    let is_by_hand =
        |other: &&Change| other.path == *file || other.renamed_from.as_ref() == Some(file);
    if let Some(by_hand) = changes.list.iter().find(is_by_hand) {
        let is_gone = by_hand.new.is_none() && change.new.is_none();
        // Both are gone, so that nothing is left to be recorded but in git.
        return if is_gone {
            Route::Dotfile(output)
        } else {
            refused(format!("{file}, which tracks it, was changed as well"))
        };
    }
    if tracked.is_of_pipeline() {
        return refused(format!("a stage of {file} makes it; change what goes in, and dvc repro"));
    }
    match &tracked.output.origin {
        Origin::Own => {}
        Origin::Import(source) => return refused(format!("it is imported from {}", source.url)),
        Origin::ImportUrl => return refused("it is imported from a URL".to_owned()),
    }
    match &tracked.output.content {
        _ if tracked.output.is_versioned => {
            refused("a bucket keeps it by version, where only DVC can change it".to_owned())
        }
        Content::Tree(_) if changes.removed_outputs.contains(&output) => Route::Manifest(output),
        Content::Tree(id) if id.scheme == Scheme::Dos2Unix => refused(format!(
            "{file} is of DVC 2; bring it to DVC 3 first: dvc cache migrate --dvc-files"
        )),
        Content::Tree(_) => {
            let relative = change.path.strip_prefix(&tracked.output.path).unwrap_or_default();
            check(change, relative).unwrap_or(Route::Manifest(output))
        }
        Content::Blob(_) => check(change, b"file").unwrap_or(Route::Dotfile(output)),
        Content::Files(_) | Content::Unavailable(_) => {
            refused(format!("{file} does not say what its content is"))
        }
    }
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
    let is_dotfile = name.ends_with(b".dvc") && name.len() > 4;
    NAMES.contains(&name) || is_dotfile || path.components().any(|name| name == b".dvc")
}

fn is_below(path: &RepoPath, folder: &RepoPath) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| !rest.is_empty())
}
