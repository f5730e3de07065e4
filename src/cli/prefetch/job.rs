//! The work of a prefetch, and the jobs of a daemon.

use std::{
    collections::HashMap,
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use indicatif::HumanBytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    blobs::Prefetched,
    cli::{
        counted,
        exit::{Code, Failure},
    },
    path::RepoPath,
    vfs::{Part, PartFile, Vfs},
};

/// Files that are fetched at once.
const AT_ONCE: usize = 96;

/// Failures that are kept to be told.
const KEPT: usize = 100;

/// A job that nobody asks for is given up after this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is to be done, and with which files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Task {
    /// Relative to the root of the mount, or of the revision.
    paths: Vec<String>,
    /// Another revision than the one that is shown.
    pub(in crate::cli) rev: Option<String>,
    pub(in crate::cli) what: What,
}

/// What is to be done with files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum What {
    /// Bring them into the cache.
    Fetch,
    /// Look whether they are in it.
    Check,
    /// Take them out.
    Evict,
}

impl What {
    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "prefetch",
            Self::Check => "check",
            Self::Evict => "evict",
        }
    }
}

impl Task {
    /// Takes paths as they were typed.
    pub(in crate::cli) fn new(
        paths: &[OsString],
        rev: Option<String>,
        what: What,
    ) -> Result<Self, Failure> {
        let text = |path: &OsString| {
            let refused = |why: String| {
                Failure::new(Code::Usage, format!("{} {}: {why}", what.name(), path.display()))
            };
            let relative = RepoPath::root().resolve(path.as_bytes());
            relative.map_err(|error| refused(error.to_string()))?;
            path.to_str().map(str::to_owned).ok_or_else(|| refused("it is not UTF-8".into()))
        };
        Ok(Self { paths: paths.iter().map(text).collect::<Result<_, _>>()?, rev, what })
    }
}

/// How far a job has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(in crate::cli) struct Report {
    /// All files, as far as they are known.
    pub(super) files: u64,
    pub(super) files_done: u64,
    /// Those of them that were in the cache before.
    pub(super) cached: u64,
    /// All bytes; unknown sizes are taken to be like the others.
    pub(super) bytes: u64,
    /// Bytes fetched, or freed.
    pub(super) bytes_done: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<Failure>,
    pub(super) is_over: bool,
}

/// A task under way.
#[derive(Debug)]
pub(super) struct Job {
    task: Task,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    report: Report,
    /// The sizes that are known, and of how many files.
    known: (u64, u64),
    asked_for: Option<Instant>,
}

impl Job {
    pub(super) fn new(task: Task) -> Self {
        Self { task, state: Mutex::default() }
    }

    /// How far it is, which somebody asks for.
    pub(super) fn report(&self) -> Report {
        let mut state = self.state.lock();
        state.asked_for = Some(Instant::now());
        let (bytes, files) = state.known;
        let mean = bytes.checked_div(files).unwrap_or_default();
        let unknown = state.report.files.saturating_sub(files);
        Report { bytes: bytes + mean * unknown, ..state.report.clone() }
    }

    /// Works until all is done.
    pub(super) async fn run(self: Arc<Self>, vfs: Arc<Vfs>) {
        for path in &self.task.paths {
            let done = match self.part(&vfs, path).await {
                Ok(part) => self.work_on(&vfs, part).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = done {
                self.fail(failure.context(path));
            }
        }
        self.state.lock().report.is_over = true;
    }

    async fn part(&self, vfs: &Vfs, path: &str) -> Result<Part, Failure> {
        let relative = RepoPath::root().resolve(path.as_bytes());
        let relative = relative.map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
        let part = vfs.part(&relative, self.task.rev.as_deref()).await.map_err(|error| {
            let is_absent = matches!(error, crate::vfs::VfsError::NotFound);
            let failure = Failure::from(error);
            if is_absent { Failure { code: Code::Usage, ..failure } } else { failure }
        })?;
        let mut state = self.state.lock();
        state.report.files += part.files.len() as u64;
        for size in part.files.iter().filter_map(|file| vfs.part_size(&part, file)) {
            state.known.0 += size;
            state.known.1 += 1;
        }
        Ok(part)
    }

    async fn work_on(self: &Arc<Self>, vfs: &Arc<Vfs>, part: Part) -> Result<(), Failure> {
        if self.task.what != What::Fetch {
            let (job, vfs) = (Arc::clone(self), Arc::clone(vfs));
            let looked = tokio::task::spawn_blocking(move || job.look_at(&vfs, &part)).await;
            return looked.map_err(|error| Failure::new(Code::Failed, error.to_string()));
        }
        check_room(vfs, &part)?;
        let looking = Arc::clone(vfs);
        let looked = tokio::task::spawn_blocking(move || looking.look_around_cache()).await;
        looked.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
        let part = &part;
        let each = stream::iter(0..part.files.len()).map(|at| async move {
            let file = &part.files[at];
            if let Err(failure) = self.fetch(vfs, part, file).await {
                self.fail(failure.context(part.path(file)));
            }
        });
        each.buffer_unordered(AT_ONCE).collect::<()>().await;
        Ok(())
    }

    /// Looks whether files are cached, or takes them out of the cache. Blocks on its disk.
    fn look_at(&self, vfs: &Vfs, part: &Part) {
        for file in &part.files {
            if self.task.what == What::Evict {
                let freed = vfs.evict_part(file);
                self.done(false, |report| report.bytes_done += freed);
            } else {
                self.done(vfs.is_part_cached(file), |_| {});
            }
        }
    }

    async fn fetch(&self, vfs: &Vfs, part: &Part, file: &PartFile) -> Result<(), Failure> {
        let was_known = vfs.part_size(part, file).is_some();
        let progress = |bytes| self.state.lock().report.bytes_done += bytes;
        let fetched = vfs.prefetch_part(part, file, &progress).await?;
        match fetched {
            Prefetched::NotKept => {
                let failure = Failure::new(Code::Failed, "the cache has no room for it");
                return Err(failure.hint("raise --cache-size, or see `dvcfs cache info`"));
            }
            Prefetched::Fetched(bytes) | Prefetched::Here(bytes) if !was_known => {
                let mut state = self.state.lock();
                state.known.0 += bytes;
                state.known.1 += 1;
            }
            Prefetched::Fetched(_) | Prefetched::Here(_) => {}
        }
        self.done(matches!(fetched, Prefetched::Here(_)), |_| {});
        Ok(())
    }

    fn done(&self, was_cached: bool, change: impl FnOnce(&mut Report)) {
        let mut state = self.state.lock();
        state.report.files_done += 1;
        state.report.cached += u64::from(was_cached);
        change(&mut state.report);
    }

    fn fail(&self, failure: Failure) {
        let report = &mut self.state.lock().report;
        report.failed += 1;
        if report.failures.len() < KEPT {
            report.failures.push(failure);
        }
    }

    /// Ends when nobody has asked for it for too long.
    async fn forsaken(&self) {
        let mut ticks = tokio::time::interval(PATIENCE / 3);
        let is_forsaken =
            || self.state.lock().asked_for.is_some_and(|last| last.elapsed() > PATIENCE);
        while !is_forsaken() {
            ticks.tick().await;
        }
    }
}

/// Refuses what cannot fit: it would push itself out.
fn check_room(vfs: &Vfs, part: &Part) -> Result<(), Failure> {
    let sizes = part.files.iter().filter_map(|file| vfs.part_size(part, file));
    let (needed, most) = (sizes.fold(0, u64::saturating_add), vfs.cache_limit());
    if needed <= most {
        return Ok(());
    }
    let (needed, most) = (HumanBytes(needed), HumanBytes(most));
    let message = format!("it takes {needed}, and the cache may hold {most}");
    Err(Failure::new(Code::Usage, message).hint("name fewer files, or raise --cache-size"))
}

/// The jobs of a daemon.
pub(in crate::cli) struct Jobs {
    vfs: Arc<Vfs>,
    runtime: Handle,
    started: AtomicU64,
    running: Mutex<HashMap<u64, Arc<Job>>>,
}

impl Jobs {
    pub(in crate::cli) fn new(vfs: Arc<Vfs>, runtime: Handle) -> Self {
        Self { vfs, runtime, started: AtomicU64::new(0), running: Mutex::default() }
    }

    /// Starts a job that goes on as long as somebody asks how far it is; gives its number.
    pub(in crate::cli) fn start(&self, task: Task) -> u64 {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let job = Arc::new(Job::new(task));
        job.state.lock().asked_for = Some(Instant::now());
        self.running.lock().insert(number, Arc::clone(&job));
        let work = Arc::clone(&job).run(Arc::clone(&self.vfs));
        self.runtime.spawn(async move {
            tokio::select! {
                () = work => {}
                () = job.forsaken() => tracing::info!("a prefetch that nobody waits for ends"),
            }
        });
        number
    }

    /// Starts a job that nobody asks for; what goes wrong is logged.
    pub(in crate::cli) fn start_unattended(&self, task: Task) {
        let job = Arc::new(Job::new(task));
        let vfs = Arc::clone(&self.vfs);
        self.runtime.spawn(async move {
            Arc::clone(&job).run(vfs).await;
            let report = job.report();
            for failure in &report.failures {
                tracing::warn!("prefetch: {}", failure.message);
            }
            let (files, failed) = (counted(report.files_done, "file"), report.failed);
            tracing::info!("prefetch is over: {files}, {failed} failed");
        });
    }

    /// How far a job is; one that is over is forgotten with that.
    pub(in crate::cli) fn report(&self, number: u64) -> Option<Report> {
        let mut running = self.running.lock();
        running.retain(|_, job| {
            let state = job.state.lock();
            state.asked_for.is_none_or(|last| last.elapsed() <= 2 * PATIENCE)
        });
        let report = running.get(&number)?.report();
        if report.is_over {
            running.remove(&number);
        }
        Some(report)
    }
}
