//! `dvcfs diff`: what changed between two revisions, printed as `dvc diff` prints it.
//!
//! | file | part |
//! |---|---|
//! | `sides` | which paths differ, and what each revision has there |
//! | `report` | what happened to them |
//! | `print` | text, Markdown, JSON |

mod print;
mod report;
mod sides;

use std::{io::IsTerminal, process::ExitCode, sync::Arc};

use self::print::Output;
pub(super) use self::report::Report;
use super::{
    args::DiffArgs,
    changes,
    context::{Context, resolve},
    exit::{Code, Failure},
    progress::Waiting,
};
use crate::{
    path::RepoPath,
    tree::{NeedsManifest, Tree},
    vfs::{Vfs, VfsError},
};

/// What is compared of two revisions.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Only what DVC tracks.
    pub(super) dvc_only: bool,
    /// Only these and what lies in them; everything if there are none.
    pub(super) paths: Vec<RepoPath>,
}

impl Scope {
    /// Whether a path is to be compared.
    fn wants(&self, path: &RepoPath) -> bool {
        let mut wanted = self.paths.iter();
        self.paths.is_empty() || wanted.any(|wanted| path.strip_prefix(wanted).is_some())
    }

    /// Whether a path, or something in it, is to be compared.
    fn touches(&self, path: &RepoPath) -> bool {
        self.wants(path) || self.paths.iter().any(|wanted| wanted.strip_prefix(path).is_some())
    }
}

pub(super) fn run(context: &Context, args: &DiffArgs) -> Result<ExitCode, Failure> {
    let Some(older) = &args.old else { return of_mount(context, args) };
    let registry = context.registry(&args.repo, &[Some(older), args.new.as_deref()])?;
    let (old, _) = resolve(&registry, Some(older))?;
    let (new, _) = resolve(&registry, args.new.as_deref())?;
    for commit in [old, new] {
        context.settle_trust(&registry, commit)?;
    }
    let vfs = context.vfs(&registry, new)?;
    let scope = Scope { dvc_only: args.dvc_only, paths: parse_paths(&args.paths)? };
    let waiting = Waiting::new("comparing", context.settings.verbosity);
    let compared = context.runtime.block_on(async {
        let (old, new) = (vfs.tree(old).await?, vfs.tree(new).await?);
        let (report, failure) = compare(&vfs, Some(&old), &new, &scope).await;
        check_paths(&vfs, [&old, &new], &scope, &report).await?;
        Ok::<_, Failure>((report, failure))
    });
    drop(waiting);
    let about = |failure: Failure| failure.context(format!("compare {older}"));
    let (report, failure) = compared.map_err(about)?;
    let is_terminal = std::io::stdout().is_terminal();
    let output = Output { with_hashes: args.show_hash, is_terminal };
    super::print_bytes(&match () {
        () if args.json => output.json(&report),
        () if args.markdown => output.markdown(&report),
        () => output.text(&report),
    });
    match failure {
        Some(failure) => Err(about(failure)),
        None if args.exit_code && !report.is_empty() => Ok(Code::Failed.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What a writable mount changes of the commit below it.
fn of_mount(context: &Context, args: &DiffArgs) -> Result<ExitCode, Failure> {
    let record = changes::mounted(&context.settings, args.repo.repo.as_ref(), "compare");
    let record = record.map_err(|failure| {
        failure.hint("name two revisions of a repository, or the folder of a writable mount")
    })?;
    let told = changes::of_mount(&record)?;
    if args.json {
        super::print(&(serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"));
    } else {
        super::print(&changes::as_diff(&told));
    }
    Ok(if args.exit_code && !told.is_empty() { Code::Failed.into() } else { ExitCode::SUCCESS })
}

/// What changed from one tree to another, or what is in one if there is no older. Also gives the
/// first failure to look into a folder; of such folders nothing but their own change is reported.
pub(super) async fn compare(
    vfs: &Vfs,
    old: Option<&Arc<Tree>>,
    new: &Arc<Tree>,
    scope: &Scope,
) -> (Report, Option<Failure>) {
    let (sides, failure) = sides::compare(vfs, old, new, scope).await;
    (Report::new(sides), failure)
}

fn parse_paths(paths: &[String]) -> Result<Vec<RepoPath>, Failure> {
    let parse = |path: &String| {
        let parsed = RepoPath::root().resolve(path.trim_start_matches('/').as_bytes());
        parsed.map_err(|error| Failure::new(Code::Usage, format!("compare {path:?}: {error}")))
    };
    paths.iter().map(parse).collect()
}

/// A path that neither tree has is a mistake, not an answer.
async fn check_paths(
    vfs: &Vfs,
    trees: [&Arc<Tree>; 2],
    scope: &Scope,
    report: &Report,
) -> Result<(), Failure> {
    for path in scope.paths.iter().filter(|path| !report.has(path)) {
        let found = [has(vfs, trees[0], path).await?, has(vfs, trees[1], path).await?];
        if found == [false, false] {
            let message = format!("no such file or folder in either revision: {path}");
            return Err(Failure::new(Code::Failed, message));
        }
    }
    Ok(())
}

async fn has(vfs: &Vfs, tree: &Arc<Tree>, path: &RepoPath) -> Result<bool, VfsError> {
    loop {
        match tree.find(path) {
            Ok(found) => return Ok(found.is_some()),
            Err(NeedsManifest(output)) => _ = vfs.manifest(tree, output).await?,
        }
    }
}
