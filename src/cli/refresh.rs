//! `dvcfs refresh`: makes a mount look for new commits now.

use std::{process::ExitCode, time::Duration};

use super::{
    args::RefreshArgs,
    control::{Request, ask},
    exit::{Code, Failure},
    mounts::Records,
    print,
    settings::{Settings, Verbosity},
    umount::resolve,
};

/// Longer than the time limit of a fetch.
const DEADLINE: Duration = Duration::from_mins(15);

pub(super) fn run(settings: &Settings, args: &RefreshArgs) -> Result<ExitCode, Failure> {
    let dir = resolve(&args.dir).ok();
    let record = dir.and_then(|dir| Records::new(&settings.runtime_dir).find(&dir));
    let record = record.ok_or_else(|| {
        let message = format!("refresh {}: no dvcfs is mounted there", args.dir.display());
        Failure::new(Code::Usage, message).hint("dvcfs status lists your mounts")
    })?;
    let failed =
        |code, why: String| Failure::new(code, format!("refresh {}: {why}", args.dir.display()));
    let answer = ask(&record.socket, &Request::Refresh, DEADLINE)
        .map_err(|error| failed(Code::Failed, error.to_string()))?
        .map_err(|why| failed(Code::Network, why))?;
    if settings.verbosity > Verbosity::Quiet {
        let changed = answer["changed"].as_bool().unwrap_or_default();
        print(if changed { "there are new commits\n" } else { "nothing new\n" });
    }
    Ok(ExitCode::SUCCESS)
}
