//! `dvcfs list`: the files of a registry at a revision, printed as `dvc list` prints them.
//!
//! | file | part |
//! |---|---|
//! | `index` | what the declarations say of each path |
//! | `sides` | git's side and DVC's side of a path, and what is in a folder |
//! | `print` | lines, tables, trees, JSON |
//! | `colors` | `LS_COLORS` |

mod colors;
mod index;
mod print;
mod sides;

use std::{io::IsTerminal, process::ExitCode};

pub(super) use self::sides::manifest_of;
use self::{
    colors::Colors,
    sides::{Item, Named, Project},
};
use super::{
    args::ListArgs,
    context::Context,
    exit::{Code, Failure},
    progress::Waiting,
};
use crate::{
    git::EntryKind,
    id::BlobId,
    path::RepoPath,
    tree::OutputId,
    vfs::{Vfs, VfsError},
};

/// Deeper folders are not opened, as in the tree of a mount.
const MAX_DEPTH: usize = 512;

pub(super) fn run(context: &Context, args: &ListArgs) -> Result<ExitCode, Failure> {
    let vfs = context.tree_at(&args.repo, args.rev.as_deref())?;
    let path = args.path.as_deref().unwrap_or_default();
    let about = |failure: Failure| failure.context(format!("list {path:?}"));
    let waiting = Waiting::new("listing", context.settings.verbosity);
    let found = context.runtime.block_on(collect(&vfs, path, args)).map_err(about)?;
    drop(waiting);
    let is_terminal = std::io::stdout().is_terminal();
    let entries = &found.entries;
    let text = if args.json {
        print::json(entries, is_terminal)
    } else {
        let colors = std::env::var_os("LS_COLORS").unwrap_or_default();
        let colors = Colors::new(&colors.to_string_lossy());
        let columns = print::Columns { size: args.size || args.all_sizes, hash: args.show_hash };
        let output = print::Output { colors, columns, is_terminal };
        if args.tree { output.tree(entries) } else { output.list(entries) }
    };
    super::print_bytes(&text);
    found.failure.map_or(Ok(ExitCode::SUCCESS), |failure| Err(about(failure)))
}

/// One line of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The path below what is listed, or a name in a tree.
    name: Vec<u8>,
    /// How many folders below what is listed.
    depth: usize,
    is_out: bool,
    is_folder: bool,
    is_exec: bool,
    size: Option<u64>,
    hash: Option<String>,
    blob: Option<(OutputId, BlobId)>,
}

/// What is to be printed, and what could not be listed.
struct Found {
    entries: Vec<Entry>,
    /// The first folder's; the others are in the log.
    failure: Option<Failure>,
}

async fn collect(vfs: &Vfs, path: &str, args: &ListArgs) -> Result<Found, Failure> {
    let missing = || Failure::new(Code::Failed, "no such file or folder");
    let tree = vfs.root_tree().ok_or_else(missing)?;
    let place = RepoPath::root().resolve(path.trim_start_matches('/').as_bytes());
    let place = place.map_err(|error| missing().context(error))?;
    let mut project = Project::around(vfs, tree, &place);
    let top = project.find(&place).await?.ok_or_else(missing)?;
    let mut walk = Walk { project, args, entries: Vec::new(), failure: None };
    walk.run(path, top).await?;
    if args.all_sizes {
        walk.fill_sizes(vfs).await;
    }
    Ok(Found { entries: walk.entries, failure: walk.failure })
}

/// Goes through a folder, in the order of names.
struct Walk<'a> {
    project: Project<'a>,
    args: &'a ListArgs,
    entries: Vec<Entry>,
    failure: Option<Failure>,
}

impl Walk<'_> {
    async fn run(&mut self, path: &str, top: Item) -> Result<(), Failure> {
        let args = self.args;
        let max_depth = match args.level {
            Some(level) if args.recursive || args.tree => level.min(MAX_DEPTH),
            _ if args.recursive || args.tree => MAX_DEPTH,
            _ => 1,
        };
        let entry = self.entry(&top, 0, false)?;
        let is_single = !args.tree && (max_depth == 0 || !entry.is_folder);
        if args.tree || is_single {
            let name = if args.tree { path } else { path.rsplit('/').next().unwrap_or_default() };
            let name = if name.is_empty() { "." } else { name };
            self.entries.push(Entry { name: name.into(), ..entry.clone() });
        }
        if entry.is_folder && max_depth > 0 {
            self.descend(top, max_depth).await?;
        }
        if !args.tree {
            self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(())
    }

    async fn descend(&mut self, top: Item, max_depth: usize) -> Result<(), Failure> {
        let top_path = top.path.clone();
        let mut open = vec![(top, 0)];
        while let Some((item, depth)) = open.pop() {
            let mut is_folder = true;
            if depth > 0 {
                let entry = self.entry(&item, depth, self.args.dvc_only)?;
                is_folder = entry.is_folder;
                if self.args.tree || !is_folder || depth == max_depth {
                    self.entries.push(Entry { name: self.name(&item.path, &top_path), ..entry });
                }
            }
            if !is_folder || depth == max_depth {
                continue;
            }
            match self.project.children(&item, self.args.dvc_only).await {
                Ok(children) => open.extend(children.into_iter().rev().map(|c| (c, depth + 1))),
                Err(error) if depth == 0 => return Err(error.into()),
                // One folder that cannot be listed does not take the others with it.
                Err(error) => self.note(&item.path, error),
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &RepoPath, error: VfsError) {
        self.failure.get_or_insert_with(|| Failure::from(error).context(path));
    }

    fn name(&self, path: &RepoPath, top: &RepoPath) -> Vec<u8> {
        let below = if self.args.tree { path.file_name() } else { path.strip_prefix(top) };
        below.unwrap_or_default().to_vec()
    }

    /// Puts the two sides of an item together: what git has decides what it is.
    fn entry(&self, item: &Item, depth: usize, dvc_only: bool) -> Result<Entry, Failure> {
        let git = item.git.filter(|_| !dvc_only);
        let tracked = self.project.tracked(item);
        let needs_size = self.args.size || self.args.all_sizes || self.args.json;
        let git_size = git.filter(|_| needs_size).map(|kind| self.project.git_size(kind));
        let content = tracked.map_or(Named::Nothing, |tracked| tracked.content);
        let (hash, blob) = match content {
            Named::Nothing => (None, None),
            Named::Blob(output, blob) => (Some(blob.to_string()), Some((output, blob))),
            Named::Manifest(manifest) => (Some(manifest.to_string()), None),
        };
        Ok(Entry {
            name: Vec::new(),
            depth,
            is_out: tracked.is_some_and(|tracked| tracked.is_out),
            is_folder: match git {
                Some(kind) => matches!(kind, EntryKind::Folder { .. }),
                None => tracked.is_some_and(|tracked| tracked.is_folder),
            },
            is_exec: matches!(git, Some(EntryKind::Blob { is_executable: true, .. })),
            size: match git_size.transpose()? {
                Some(size) => Some(size),
                None => tracked.filter(|_| git.is_none()).and_then(|tracked| tracked.size),
            },
            hash,
            blob,
        })
    }

    /// Asks for the sizes that nothing tells.
    async fn fill_sizes(&mut self, vfs: &Vfs) {
        let tree = &self.project.tree;
        let unknown = || self.entries.iter().filter(|entry| entry.size.is_none());
        if let Err(error) = vfs.learn_sizes(tree, unknown().filter_map(|entry| entry.blob)).await {
            self.failure.get_or_insert_with(|| Failure::from(error).context("ask for sizes"));
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.size.is_none()) {
            entry.size = entry.blob.and_then(|(output, blob)| vfs.known_size(tree, output, blob));
        }
    }
}
