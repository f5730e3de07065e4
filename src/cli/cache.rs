//! `dvcfs cache`: what is cached, whether it is right, and making room.

use std::{process::ExitCode, time::SystemTime};

use indicatif::HumanBytes;

use super::{
    args::CacheCommand,
    context::Context,
    exit::{Code, Failure},
    print,
    progress::Progress,
};
use crate::cache::GcTarget;

pub(super) fn run(context: &Context, command: &CacheCommand) -> Result<ExitCode, Failure> {
    match command {
        CacheCommand::Info { json } => info(context, *json),
        CacheCommand::Check { repair } => Ok(check(context, *repair)),
        CacheCommand::Gc { size, older_than, all } => {
            let target = match (all, older_than, size) {
                (true, ..) => GcTarget::Everything,
                (false, Some(age), _) => GcTarget::UnusedSince(
                    SystemTime::now().checked_sub(*age).unwrap_or(SystemTime::UNIX_EPOCH),
                ),
                (false, None, Some(size)) => GcTarget::Bytes(*size),
                (false, None, None) => GcTarget::Bytes(context.settings.cache_size),
            };
            let freed = context.cache(Vec::new()).gc(target);
            print(&format!("{} freed\n", HumanBytes(freed)));
            Ok(ExitCode::SUCCESS)
        }
    }
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
        "{} blobs checked ({}), {} damaged, {} removed\n",
        report.checked,
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
