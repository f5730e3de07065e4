//! `dvcfs prefetch`: fills the cache with files and folders before they are read.
//!
//! The files of a mount are fetched by its daemon, which lets readers go first; the command starts
//! a job there and asks how far it is until it is over. Without a mount the command does the job
//! itself.

mod job;

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::ffi::OsStringExt,
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use indicatif::HumanBytes;

use self::job::{Job, Report};
pub(super) use self::job::{Jobs, Task, What};
use super::{
    args::{PrefetchArgs, RepoArgs},
    context::Context,
    control::{Request, ask},
    counted,
    exit::{Code, Failure},
    mounts::{Record, Records},
    print,
    progress::Progress,
    settings::{Settings, Verbosity},
    umount::resolve,
};

/// How often a job is asked how far it is.
const TICK: Duration = Duration::from_millis(25);

/// A daemon that does not answer by then is given up.
const DEADLINE: Duration = Duration::from_secs(30);

/// Failures that are told one by one.
const SHOWN: usize = 10;

pub(super) fn run(settings: Settings, args: &PrefetchArgs) -> Result<ExitCode, Failure> {
    let what = match (args.check, args.evict) {
        (true, _) => What::Check,
        (_, true) => What::Evict,
        _ => What::Fetch,
    };
    let mut paths = args.paths.clone();
    if let Some(list) = &args.files_from {
        paths.extend(read_list(list)?);
    }
    if paths.is_empty() {
        paths.push(OsString::from("."));
    }
    let verbosity = settings.verbosity;
    let task = Task::new(&paths, args.rev.clone(), what)?;
    let done = match mount_of(&settings, &args.repo) {
        Some(record) => ask_daemon(&record, task, verbosity),
        None => work(settings, args, task),
    };
    let report = done.map_err(|failure| failure.context(format!("prefetch {}", args.repo)))?;
    tell(&report, what, verbosity)
}

/// The paths in a file, one a line.
fn read_list(list: &Path) -> Result<Vec<OsString>, Failure> {
    let mut text = Vec::new();
    let read = if list == Path::new("-") {
        io::stdin().read_to_end(&mut text).map(drop)
    } else {
        fs::read(list).map(|bytes| text = bytes)
    };
    read.map_err(|error| {
        Failure::new(Code::Usage, format!("read the list {}: {error}", list.display()))
    })?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| OsString::from_vec(line.to_vec())).collect())
}

/// The running mount at this folder, if it is one.
fn mount_of(settings: &Settings, place: &str) -> Option<Record> {
    let dir = resolve(Path::new(place)).ok()?;
    Records::new(&settings.runtime_dir).find(&dir)
}

/// Has a mount's daemon do it.
fn ask_daemon(record: &Record, task: Task, verbosity: Verbosity) -> Result<Report, Failure> {
    let what = task.what;
    let failed = |why: String| Failure::new(Code::Failed, format!("the mount: {why}"));
    let ask = |request: &Request| {
        let answer = ask(&record.socket, request, DEADLINE);
        answer.map_err(|error| failed(error.to_string()))?.map_err(failed)
    };
    let number = ask(&Request::Prefetch(task))?;
    let number = number.as_u64().ok_or_else(|| failed("it gives no number".into()))?;
    follow(what, verbosity, || {
        let report = ask(&Request::Job(number))?;
        serde_json::from_value(report).map_err(|error| failed(error.to_string()))
    })
}

/// Does it without a mount.
fn work(settings: Settings, args: &PrefetchArgs, mut task: Task) -> Result<Report, Failure> {
    let context = Context::new(settings)?;
    let repo = RepoArgs {
        repo: args.repo.clone(),
        trust_remote: args.trust_remote,
        remote: args.remote.clone(),
    };
    let vfs = context.tree_at(&repo, args.rev.as_deref())?;
    let what = task.what;
    // The tree is the revision's already.
    task.rev = None;
    let job = Arc::new(Job::new(task));
    context.runtime.spawn(Arc::clone(&job).run(Arc::clone(&vfs)));
    let report = follow(what, context.settings.verbosity, || Ok(job.report()));
    vfs.flush_cache();
    report
}

/// Shows how far a job is until it is over.
fn follow(
    what: What,
    verbosity: Verbosity,
    look: impl Fn() -> Result<Report, Failure>,
) -> Result<Report, Failure> {
    let progress = Progress::new(what.name(), 0, verbosity);
    loop {
        let report = look()?;
        progress.set(report.bytes.max(report.bytes_done), report.bytes_done);
        progress.files(report.files_done as usize, report.files as usize);
        if report.is_over {
            progress.finish();
            return Ok(report);
        }
        thread::sleep(TICK);
    }
}

/// Says what came of it.
fn tell(report: &Report, what: What, verbosity: Verbosity) -> Result<ExitCode, Failure> {
    let size = HumanBytes(report.bytes_done);
    let text = match what {
        What::Fetch => {
            let fetched = counted(report.files_done - report.cached, "file");
            format!("{fetched} fetched, {size}; {} cached before\n", report.cached)
        }
        What::Check => format!("{} of {} cached\n", report.cached, counted(report.files, "file")),
        What::Evict => format!("{}, {size} freed\n", counted(report.files_done, "file")),
    };
    if verbosity > Verbosity::Quiet {
        print(&text);
    }
    let mut failures = report.failures.iter();
    let Some(first) = failures.next() else {
        let is_short = what == What::Check && report.cached < report.files;
        return Ok(if is_short { Code::Failed.into() } else { ExitCode::SUCCESS });
    };
    for failure in failures.take(SHOWN - 1) {
        super::complain(failure);
    }
    let more = report.failed.saturating_sub(report.failures.len().min(SHOWN) as u64);
    let failure = Failure::clone(first);
    Err(if more > 0 {
        let message = format!("{} (and {more} more)", failure.message);
        Failure { message, ..failure }
    } else {
        failure
    })
}
