//! `dvcfs cache`: what is cached, whether it is right, and making room.

use std::{collections::HashSet, process::ExitCode, time::SystemTime};

use indicatif::HumanBytes;

use super::{
    args::{CacheCommand, GcArgs, RepoArgs},
    context::{Context, resolve},
    counted,
    exit::{Code, Failure},
    print,
    progress::Progress,
};
use crate::{cache::GcTarget, id::Key};

pub(super) fn run(context: &Context, command: &CacheCommand) -> Result<ExitCode, Failure> {
    match command {
        CacheCommand::Info { json } => info(context, *json),
        CacheCommand::Check { repair } => Ok(check(context, *repair)),
        CacheCommand::Gc(args) => gc(context, args),
    }
}

fn gc(context: &Context, args: &GcArgs) -> Result<ExitCode, Failure> {
    let kept = match &args.repo {
        Some(repo) => {
            let named = named(context, repo, args);
            named.map_err(|failure| failure.context("nothing is removed"))?
        }
        None => HashSet::new(),
    };
    let since = |age| SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut targets = Vec::new();
    targets.extend(args.older_than.map(|age| GcTarget::UnusedSince(since(age))));
    targets.extend(args.size.map(GcTarget::Bytes));
    if targets.is_empty() {
        let is_everything = args.all || args.repo.is_some();
        let limit = GcTarget::Bytes(context.settings.cache_size);
        targets.push(if is_everything { GcTarget::Everything } else { limit });
    }
    let cache = context.cache(Vec::new());
    let freed = targets.into_iter().map(|target| cache.gc(target, &kept)).sum();
    print(&format!("{} freed\n", HumanBytes(freed)));
    Ok(ExitCode::SUCCESS)
}

/// Everything that the revisions to keep are made of.
fn named(context: &Context, repo: &str, args: &GcArgs) -> Result<HashSet<Key>, Failure> {
    let repo = RepoArgs { repo: repo.into(), trust_remote: args.trust_remote, remote: None };
    let revisions: Vec<_> = args.keep.iter().map(|revision| Some(revision.as_str())).collect();
    let registry = context.registry(&repo, &revisions)?;
    let mut named = HashSet::new();
    for revision in &args.keep {
        let (commit, _) = resolve(&registry, Some(revision))?;
        context.settle_trust(&registry, commit)?;
        let vfs = context.vfs(&registry, commit)?;
        let keys = context.runtime.block_on(vfs.named());
        let about = |failure: Failure| failure.context(format!("keep {revision}"));
        named.extend(keys.map_err(|error| about(error.into()))?);
    }
    Ok(named)
}

fn info(context: &Context, json: bool) -> Result<ExitCode, Failure> {
    let info = context.cache(Vec::new()).info();
    if json {
        let text = serde_json::to_string_pretty(&info);
        let text = text.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
        print(&(text + "\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let size = |bytes| HumanBytes(bytes).to_string();
    print(&format!("folder     {}\n", context.settings.cache_dir.display()));
    print(&format!("blobs      {} ({})\n", info.blobs, size(info.bytes)));
    if info.foreign_blobs > 0 {
        let of_others = size(info.foreign_bytes);
        print(&format!("of others  {} ({of_others}), never evicted\n", info.foreign_blobs));
    }
    print(&format!("limit      {}\n", size(info.max_bytes)));
    if let Some(free) = info.free_bytes {
        print(&format!("disk free  {} (kept free: {})\n", size(free), size(info.min_free_bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

fn check(context: &Context, repair: bool) -> ExitCode {
    let cache = context.cache(Vec::new());
    let info = cache.info();
    let bytes = info.bytes + info.foreign_bytes;
    let progress = Progress::new("check", bytes, context.settings.verbosity);
    let report = cache.check(repair, &|bytes| progress.add(bytes));
    progress.finish();
    for key in &report.bad {
        print(&format!("damaged  {key}\n"));
    }
    print(&format!(
        "{} checked ({}), {} damaged, {} removed\n",
        counted(report.checked, "blob"),
        HumanBytes(report.bytes),
        report.bad.len(),
        report.removed
    ));
    if report.bad.len() as u64 > report.removed {
        Code::Integrity.into()
    } else {
        ExitCode::SUCCESS
    }
}
