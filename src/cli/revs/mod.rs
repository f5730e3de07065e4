//! `dvcfs revs`: the branches and tags of a registry, and the commits that changed data.

mod history;
mod print;

use std::{process::ExitCode, sync::Arc};

use serde::Serialize;

use self::history::DataCommit;
use super::{
    args::RevsArgs,
    context::{Context, resolve},
    exit::{Code, Failure},
    progress::Waiting,
};
use crate::{
    git::{CommitId, Refs, Repository},
    path::escape,
    registry::Registry,
};

/// Everything that is told of a registry's history.
#[derive(Debug, Serialize)]
struct Revisions {
    branches: Vec<Named>,
    tags: Vec<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commits: Option<Vec<DataCommit>>,
}

/// A branch or tag and its commit.
#[derive(Debug, Serialize)]
struct Named {
    name: String,
    /// Whether it is the default branch.
    #[serde(rename = "default")]
    is_default: bool,
    #[serde(flatten)]
    commit: Commit,
}

/// A commit as it is printed.
#[derive(Debug, Serialize)]
struct Commit {
    #[serde(rename = "commit")]
    hash: String,
    short: String,
    date: String,
    subject: String,
    #[serde(skip)]
    time: i64,
}

pub(super) fn run(context: &Context, args: &RevsArgs) -> Result<ExitCode, Failure> {
    let registry = context.registry(&args.repo, &[None])?;
    let about = |failure: Failure| failure.context(format!("list {}", registry.name()));
    let repository = registry.repository();
    let refs = repository.refs().map_err(|error| about(error.into()))?;
    for refused in &refs.refused {
        tracing::warn!("{} is not listed: {}", escape(&refused.name), refused.reason);
    }
    let (commits, failure) = match args.commits {
        None => (None, None),
        Some(limit) => {
            let (commits, failure) = history(context, &registry, args, limit).map_err(about)?;
            (Some(commits), failure)
        }
    };
    let revisions = Revisions {
        branches: named(repository, &refs, true).map_err(about)?,
        tags: named(repository, &refs, false).map_err(about)?,
        commits,
    };
    let text = if args.json {
        let text = serde_json::to_string_pretty(&revisions);
        text.map_err(|error| Failure::new(Code::Failed, error.to_string()))? + "\n"
    } else {
        print::text(&revisions, args.rev.as_deref().or(refs.default_branch.as_deref()))
    };
    super::print(&text);
    failure.map_or(Ok(ExitCode::SUCCESS), |failure| Err(about(failure)))
}

fn history(
    context: &Context,
    registry: &Arc<Registry>,
    args: &RevsArgs,
    limit: usize,
) -> Result<(Vec<DataCommit>, Option<Failure>), Failure> {
    let (commit, _) = resolve(registry, args.rev.as_deref())?;
    context.settle_trust(registry, commit)?;
    let vfs = context.vfs(registry, commit)?;
    let waiting = Waiting::new("going through commits", context.settings.verbosity);
    let found = context.runtime.block_on(history::data_commits(&vfs, commit, limit));
    drop(waiting);
    found
}

/// The branches or the tags, newest first.
fn named(repository: &Repository, refs: &Refs, branches: bool) -> Result<Vec<Named>, Failure> {
    let default = refs.default_branch.as_ref().filter(|_| branches);
    let names = if branches { &refs.branches } else { &refs.tags };
    let mut list = Vec::with_capacity(names.len());
    for (name, commit) in names {
        let commit = Commit::read(repository, *commit)?;
        list.push(Named { name: name.clone(), is_default: default == Some(name), commit });
    }
    // The sort is stable: those of one time stay in the order of their names.
    list.sort_by_key(|named| std::cmp::Reverse(named.commit.time));
    Ok(list)
}

impl Commit {
    fn read(repository: &Repository, id: CommitId) -> Result<Self, Failure> {
        let summary = repository.summary(id)?;
        Ok(Self {
            hash: id.to_string(),
            short: summary.short_id,
            date: print::date_time(summary.time),
            subject: summary.subject,
            time: summary.time,
        })
    }
}
