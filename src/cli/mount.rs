//! `dvcfs mount`: from a repository and a folder to a mount that answers, and on to its end.

use std::{
    fs::{self, File},
    io,
    num::NonZeroUsize,
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{
    args::{MountArgs, OpenModeArg, SpinArg, Symlinks, Verify},
    background::{self, Readiness, Side},
    changes,
    context::{Context, now, owner, private_folder, resolve as resolve_revision},
    control::{self, Request, Response},
    discard,
    exit::{Code, Failure, chain},
    log,
    mounts::{self, Record, Records, name_of_both, short_name},
    overlay,
    prefetch::{Jobs, Task, What},
    progress::Waiting,
    refresh,
    settings::{Settings, Verbosity},
    snapshot::Snapshots,
    umount::resolve,
};
use crate::{
    blobs::Blobs,
    fuse::{self, ChosenMode, MountError, MountOptions, OpenMode, OwnMount, Session},
    git::CommitId,
    id::Key,
    registry::Registry,
    vfs::{InodeTable, Layout, Vfs, VfsError, VfsOptions},
};

/// A mount that does not answer by then is given up.
const ANSWER_DEADLINE: Duration = Duration::from_mins(1);

/// Cached files that are kept open for the next open of them, at most.
const MOST_IDLE: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// Descriptors that room is made for in advance; the kernel takes 8 bytes for each.
const DESCRIPTOR_ROOM: usize = 1 << 15;

/// What the trees of revisions may take before the kernel is asked to forget the oldest: a dozen
/// registries of a hundred thousand `.dvc` files.
const TREE_MEMORY: u64 = 256 << 20;

/// How long an ended mount waits for files that are still open.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn run(settings: Settings, args: &MountArgs) -> Result<ExitCode, Failure> {
    let lock = lock(&settings)?;
    let dir = check_dir(args)?;
    drop(lock);
    if args.foreground {
        return serve(settings, args, &dir, Readiness::foreground());
    }
    let split = background::split();
    match split
        .map_err(|error| Failure::new(Code::System, format!("go to the background: {error}")))?
    {
        Side::Parent(waiting) => waiting
            .finish()
            .map_err(|error| Failure::new(Code::Failed, format!("wait for the mount: {error}"))),
        Side::Child(readiness) => serve(settings, args, &dir, readiness),
    }
}

/// Keeps others from mounting; between this and the record of a mount nobody else takes its place.
fn lock(settings: &Settings) -> Result<File, Failure> {
    let folder = &settings.runtime_dir;
    private_folder(folder)?;
    Records::new(folder)
        .lock()
        .map_err(|error| Failure::new(Code::Record, format!("lock {}: {error}", folder.display())))
}

/// Checks that the folder can be mounted on. A dead mount of ours is cleared away first.
fn check_dir(args: &MountArgs) -> Result<PathBuf, Failure> {
    let shown = args.dir.display();
    let refuse = |why: &str| Failure::new(Code::Usage, format!("mount on {shown}: {why}"));
    let missing = || refuse("no such folder").hint(format!("make it first: mkdir -p {shown}"));
    let dir = resolve(&args.dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(),
        _ => refuse(&error.to_string()),
    })?;
    let mounted = mounts::find(&dir)
        .map_err(|error| Failure::new(Code::Failed, format!("read the mount table: {error}")))?;
    if let Some(mounted) = mounted {
        if !(mounted.is_ours() && is_dead(&dir)) {
            let failure =
                Failure::new(Code::Busy, format!("mount on {shown}: it is a mount already"));
            return Err(failure.hint(if mounted.is_ours() {
                format!("end it first: dvcfs umount {shown}")
            } else {
                "mount on another folder".to_owned()
            }));
        }
        fuse::unmount(&dir, true).map_err(|error| {
            Failure::new(Code::Failed, format!("clear the dead mount on {shown}: {error}"))
        })?;
    }
    match fs::metadata(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing()),
        Err(error) => Err(refuse(&error.to_string())),
        Ok(metadata) if !metadata.is_dir() => Err(refuse("not a folder")),
        Ok(_) if args.nonempty => Ok(dir),
        Ok(_) => match fs::read_dir(&dir).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(dir),
            Ok(false) => {
                Err(refuse("the folder is not empty").hint("--nonempty hides what is in it"))
            }
            Err(error) => Err(refuse(&error.to_string())),
        },
    }
}

/// Raises the limit of descriptors, which is meant for smaller programs, and gives what it is now.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("the limit of open files stays as it is: {error}");
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}

/// Has the kernel make room for as many descriptors as a busy mount has, while nobody shares them.
/// Later each doubling of the room would stop every thread that opens a file for some milliseconds.
fn make_room_for_descriptors(limit: usize) {
    let last = limit.min(DESCRIPTOR_ROOM).saturating_sub(1) as i32;
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(io::stderr(), last) {
        tracing::debug!("no room for descriptors is made in advance: {error}");
    }
}

/// Whether nobody answers for a mount any more. The kernel may still know its root's attributes,
/// but asks for these totals each time.
pub(super) fn is_dead(dir: &Path) -> bool {
    let dir = dir.to_owned();
    let (sender, answered) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // The receiver is gone once the deadline has passed.
        _ = sender.send(rustix::fs::statfs(&dir));
    });
    matches!(
        answered.recv_timeout(Duration::from_secs(5)),
        Ok(Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED))
    )
}

fn serve(
    settings: Settings,
    args: &MountArgs,
    dir: &Path,
    mut readiness: Readiness,
) -> Result<ExitCode, Failure> {
    let prefetch = Task::new(&args.prefetch, None, What::Fetch)?;
    let descriptors = raise_file_limit();
    make_room_for_descriptors(descriptors);
    let context = Context::for_mount(settings)?;
    let registry = context.registry(&args.repo, &[args.rev.as_deref()])?;
    let (layout, above) = layout(&context, args, &registry, dir)?;
    note_plain_git(&context, &layout, &registry);
    let waiting = Waiting::new("mounting", context.settings.verbosity);
    let (events, received) = mpsc::unbounded_channel();
    let (invalid, turned_out_wrong) = mpsc::channel(64);
    let blobs = context.blobs(&registry, invalid);
    let table = inode_table(&context, &registry, dir);
    let vfs = Vfs::new(
        Arc::clone(&registry),
        Arc::clone(&blobs),
        (layout, vfs_options(args, descriptors)),
        (table, context.segments()),
        events,
        context.runtime.handle().clone(),
    );
    let vfs =
        vfs.map_err(|error| Failure::from(error).context(format!("open {}", registry.name())))?;
    let overlay = above.as_ref().map(overlay::Chosen::describe);
    if let Some(above) = above {
        vfs.put_over(above.overlay);
    }
    let signals = Signals::watch(&context)?;
    context.runtime.spawn(invalidate(Arc::clone(&vfs), turned_out_wrong));
    let records = Records::new(&context.settings.runtime_dir);
    let options = mount_options(args, &context.settings, &registry, descriptors);
    let serving = (context.runtime.handle().clone(), Arc::clone(blobs.stats()));
    let lock = lock(&context.settings)?;
    check_dir(args)?;
    let session = Session::start(Arc::clone(&vfs), received, dir, &options, serving)?;
    drop(waiting);
    let record = Record {
        mount_point: dir.to_owned(),
        repository: registry.name(),
        revision: args.rev.clone(),
        pid: std::process::id(),
        socket: records.socket(dir),
    };
    let places = (&*context.settings.state_dir, dir);
    let snapshots = Snapshots::new(&vfs, &registry, context.runtime.handle(), places);
    let told =
        Told { snapshots: Arc::new(snapshots), open_mode: session.open_mode().clone(), overlay };
    let jobs = Arc::new(Jobs::new(Arc::clone(&vfs), context.runtime.handle().clone()));
    let published = publish(&context, &records, &record, (&vfs, &blobs, &jobs), told);
    drop(lock);
    let published = published.and_then(|()| wait_until_it_answers(dir)).and_then(|()| {
        let log = context.settings.state_dir.join(format!("log/{}.log", short_name(dir)));
        let log = (!log::is_journal(&context.settings)).then_some(&*log);
        readiness
            .announce(log)
            .map_err(|error| Failure::new(Code::Failed, format!("go to the background: {error}")))
    });
    if let Err(failure) = published {
        end(session.mount());
        records.remove_own(dir);
        return Err(failure);
    }
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    if !args.prefetch.is_empty() {
        jobs.start_unattended(prefetch);
    }
    if vfs.can_move() && !args.no_follow {
        context.runtime.spawn(follow(Arc::clone(&vfs), args.follow));
    }
    let ended = wait_for_the_end(&context, session, signals);
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    vfs.end();
    blobs.cache().flush();
    records.remove_own(dir);
    registry.release();
    context.runtime.shutdown_timeout(Duration::from_secs(2));
    ended
        .map_err(|error| Failure::new(Code::Failed, format!("serve {}: {error}", dir.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn layout(
    context: &Context,
    args: &MountArgs,
    registry: &Registry,
    dir: &Path,
) -> Result<(Layout, Option<overlay::Chosen>), Failure> {
    let revision = args.rev.as_deref();
    let resolved = resolve_revision(registry, revision);
    let (commit, branch) =
        resolved.map_err(|failure| failure.context(format!("mount {}", registry.name())))?;
    let above = overlay::open(context, args, registry, (dir, commit, branch.as_deref()))?;
    let commit = above.as_ref().map_or(commit, |above| above.commit);
    registry.keep(commit);
    context.settle_trust(registry, commit)?;
    let layout = match revision {
        None => Layout::AllRevisions,
        Some(revision) => Layout::One {
            revision: revision.to_owned(),
            commit,
            follows: branch.filter(|_| !args.no_follow && above.is_none()),
        },
    };
    Ok((layout, above))
}

/// A repository without DVC is mounted as it is; whoever expects data should know.
fn note_plain_git(context: &Context, layout: &Layout, registry: &Registry) {
    let commit = match layout {
        Layout::One { commit, .. } => Ok(*commit),
        Layout::AllRevisions => registry.repository().resolve("HEAD").map(|found| found.commit),
    };
    let has_project = commit.is_ok_and(|commit| registry.has_project(commit));
    if !has_project && context.settings.verbosity > Verbosity::Quiet {
        use std::io::Write;
        let note = format!(
            "note: {} has no .dvc folder; its files are shown as git has them",
            registry.name()
        );
        // A closed stderr is no reason to fail.
        _ = writeln!(io::stderr(), "{note}");
    }
}

fn vfs_options(args: &MountArgs, descriptors: usize) -> VfsOptions {
    let (uid, gid) = owner();
    VfsOptions {
        uid: args.uid.unwrap_or(uid),
        gid: args.gid.unwrap_or(gid),
        only_inner_links: args.symlinks == Symlinks::Inside,
        verify_before_open: args.verify == Verify::Strict,
        mounted_at: now(),
        tree_memory: TREE_MEMORY,
        // Downloads, indexes and the program itself need some, too.
        descriptors: descriptors / 4,
    }
}

fn mount_options(
    args: &MountArgs,
    settings: &Settings,
    registry: &Registry,
    descriptors: usize,
) -> MountOptions {
    let idle = NonZeroUsize::new(descriptors / 8).unwrap_or(NonZeroUsize::MIN);
    let (uid, gid) = owner();
    MountOptions {
        source: registry.name(),
        may_execute: !args.noexec,
        follows_links: !args.nosymfollow,
        labels: args.labels.options(),
        allow_other: args.allow_other || uid == 0,
        owner: (args.uid.unwrap_or(uid), args.gid.unwrap_or(gid)),
        may_spin: args.spin == SpinArg::Auto,
        open_mode: match args.open_mode {
            OpenModeArg::Auto => None,
            OpenModeArg::Passthrough => Some(OpenMode::Passthrough),
            OpenModeArg::NoOpen => Some(OpenMode::NoOpen),
            OpenModeArg::Served => Some(OpenMode::Served),
        },
        is_writable: args.overlay.is_some(),
        needs_opens: match (&args.overlay, args.verify) {
            (Some(_), _) => Some("a file that is written has to be opened first"),
            (None, Verify::Strict) => Some("every open has to wait for the check of its file"),
            (None, Verify::Stream) => None,
        },
        cache_dir: settings.cache_dir.clone(),
        descriptors: (descriptors / 4, idle.min(MOST_IDLE)),
    }
}

/// The table of this mount point and repository, so that a mount that comes back after a crash
/// gives every inode its number again.
fn inode_table(context: &Context, registry: &Registry, dir: &Path) -> InodeTable {
    let folder = context.settings.state_dir.join("mounts");
    let name = name_of_both(dir, &registry.name());
    let opened = fs::create_dir_all(&folder).and_then(|()| InodeTable::open(&folder.join(name)));
    opened.unwrap_or_else(|error| {
        tracing::warn!("inode numbers will not survive a restart: {error}");
        InodeTable::in_memory()
    })
}

/// What a mount tells of itself that does not change.
#[derive(Clone)]
struct Told {
    snapshots: Arc<Snapshots>,
    open_mode: ChosenMode,
    overlay: Option<serde_json::Value>,
}

/// Leaves a record and answers on the control socket.
fn publish(
    context: &Context,
    records: &Records,
    record: &Record,
    (vfs, blobs, jobs): (&Arc<Vfs>, &Arc<Blobs>, &Arc<Jobs>),
    told: Told,
) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        let folder = context.settings.runtime_dir.display();
        Failure::new(Code::Record, format!("leave a record of the mount in {folder}: {error}"))
    };
    let socket = &record.socket;
    if fs::symlink_metadata(socket).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        fs::remove_file(socket).map_err(failed)?;
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    records.write(record).map_err(failed)?;
    let (vfs, blobs, jobs) = (Arc::clone(vfs), Arc::clone(blobs), Arc::clone(jobs));
    let runtime = context.runtime.handle().clone();
    let answer = move |request| answer(request, &vfs, (&blobs, &jobs), (&told, &runtime));
    let serving = thread::Builder::new().name("control".into());
    serving.spawn(move || control::serve(&listener, answer)).map_err(failed)?;
    Ok(())
}

fn answer(
    request: Request,
    vfs: &Vfs,
    (blobs, jobs): (&Blobs, &Jobs),
    (told, runtime): (&Told, &tokio::runtime::Handle),
) -> Response {
    match request {
        Request::Status => Ok(json!({
            "commit": vfs.commit().map(|commit| commit.to_string()),
            "open_mode": { "mode": told.open_mode.mode.name(), "why": told.open_mode.why },
            "overlay": overlay_now(told, vfs),
            "stats": vfs.stats(),
            "cache": blobs.cache().glance(),
            "held": vfs.held(),
            "version": env!("CARGO_PKG_VERSION"),
        })),
        Request::Refresh => refresh::answer(&told.snapshots),
        Request::Merge { commit, reference } => match CommitId::parse(&commit) {
            Some(commit) => refresh::merge_with(&told.snapshots, (&reference, commit)),
            None => Err(format!("{commit} is no commit")),
        },
        Request::Move { commit } => refresh::take_over(&told.snapshots, &commit),
        Request::Prefetch(task) => Ok(json!(jobs.start(task))),
        Request::Job(number) => match jobs.report(number) {
            Some(report) => serde_json::to_value(report).map_err(|error| error.to_string()),
            None => Err(format!("there is no job {number}")),
        },
        Request::Changes { rules } => changes::answer(vfs, runtime, &rules),
        Request::Prepare { rules } => told.snapshots.prepare(&rules),
        Request::Settle { commit } => told.snapshots.settle(&commit),
        Request::Unpushed => told.snapshots.tell_unpushed(),
        Request::Pushed { commit, is_over } => told.snapshots.pushed(&commit, is_over),
        Request::Discard { paths } => discard::answer(&told.snapshots, &paths),
    }
}

/// What there is to tell of the overlay, if there is one.
fn overlay_now(told: &Told, vfs: &Vfs) -> Option<serde_json::Value> {
    let mut overlay = told.overlay.clone()?;
    overlay["base"] = json!(vfs.commit().map(|commit| commit.to_string()));
    let commits = told.snapshots.since_pushed().unwrap_or_default();
    let commits: Vec<_> = commits.iter().map(ToString::to_string).collect();
    overlay["snapshot"] = json!(commits.first());
    overlay["snapshots"] = json!(commits);
    Some(overlay)
}

/// Lists the mount's root, as the first program will.
fn wait_until_it_answers(dir: &Path) -> Result<(), Failure> {
    let (sender, answered) = std::sync::mpsc::channel();
    let listed = dir.to_owned();
    thread::spawn(move || {
        // The receiver is gone once the deadline has passed.
        _ = sender.send(fs::read_dir(&listed).map(Iterator::count));
    });
    let failed = |why: String| {
        Failure::new(Code::Failed, format!("the mount on {} does not answer: {why}", dir.display()))
    };
    match answered.recv_timeout(ANSWER_DEADLINE) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Looks for new commits again and again; a failure is logged when it is a new one.
async fn follow(vfs: Arc<Vfs>, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once, and the refs have just been read.
    ticks.tick().await;
    let mut last_failure = None;
    loop {
        ticks.tick().await;
        let failure = vfs.refresh().await.err().map(|error: VfsError| chain(&error));
        if let Some(why) = &failure
            && failure != last_failure
        {
            tracing::warn!("look for new commits: {why}");
        }
        last_failure = failure;
    }
}

/// Passes on which blobs turned out wrong.
async fn invalidate(vfs: Arc<Vfs>, mut wrong: mpsc::Receiver<Key>) {
    while let Some(key) = wrong.recv().await {
        vfs.invalidate(key);
    }
}

/// The signals that end a mount; watched from before anybody can see it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn watch(context: &Context) -> Result<Self, Failure> {
        let _runtime = context.runtime.enter();
        let watch = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Code::System, format!("watch for signals: {error}")))
        };
        let terminate = watch(SignalKind::terminate())?;
        let interrupt = watch(SignalKind::interrupt())?;
        Ok(Self { terminate, interrupt, hangup: watch(SignalKind::hangup())? })
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Waits until the mount has ended, whoever ends it. The first of these signals unmounts; files
/// that are open then are waited for a little, and cut off.
fn wait_for_the_end(context: &Context, session: Session, mut signals: Signals) -> io::Result<()> {
    let mount = session.mount().clone();
    let (end_of_session, ended) = std::sync::mpsc::channel();
    let is_asked = Arc::new(AtomicBool::new(false));
    let was_asked = Arc::clone(&is_asked);
    let end_of_patience = end_of_session.clone();
    thread::Builder::new().name("mount".into()).spawn(move || {
        // Nobody waits any more once patience has ended.
        _ = end_of_session.send(
            session.wait().or_else(|error| forgive_end(was_asked.load(Ordering::Acquire), error)),
        );
    })?;
    context.runtime.spawn(async move {
        signals.first().await;
        is_asked.store(true, Ordering::Release);
        // Unmounting waits for the kernel, which may be waiting for this runtime.
        if let Err(error) = tokio::task::spawn_blocking(move || end(&mount)).await {
            tracing::debug!("unmount: {error}");
        }
        tokio::time::sleep(PATIENCE).await;
        _ = end_of_patience.send(Ok(()));
    });
    ended.recv().map_err(io::Error::other)?
}

/// The kernel may call a connection aborted that ended with its mount, where requests were waiting;
/// that is no error of an end that was asked for.
fn forgive_end(is_asked: bool, error: io::Error) -> io::Result<()> {
    if is_asked && error.kind() == io::ErrorKind::ConnectionAborted { Ok(()) } else { Err(error) }
}

/// Ends the mount; it may have ended by itself.
fn end(mount: &OwnMount) {
    if let Err(error) = mount.end() {
        tracing::warn!("unmount: {error}");
    }
}

fn tell_systemd(state: &[sd_notify::NotifyState<'_>]) {
    // Not started by systemd: nobody to tell.
    _ = sd_notify::notify(state);
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let code = match error {
            MountError::NoDevice(_) | MountError::NoHelper => Code::System,
            MountError::AllowOther | MountError::OpenMode { .. } | MountError::Refused { .. } => {
                Code::Failed
            }
        };
        let failure = Self::new(code, chain(&error));
        match error {
            MountError::NoDevice(_) => failure.hint(
                "load the fuse module (modprobe fuse); in a container pass --device /dev/fuse",
            ),
            MountError::NoHelper => failure.hint("install it: apt install fuse3"),
            MountError::AllowOther => {
                failure.hint("let root add that line, or mount without --allow-other")
            }
            MountError::OpenMode { .. } => failure.hint("--open-mode auto takes the best there is"),
            MountError::Refused { .. } => failure.hint("do you own the folder?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_was_aborted_is_an_error_unless_its_end_was_asked_for() {
        let aborted = || io::Error::from(io::ErrorKind::ConnectionAborted);
        assert!(forgive_end(true, aborted()).is_ok());
        assert!(forgive_end(false, aborted()).is_err());
        assert!(forgive_end(true, io::ErrorKind::PermissionDenied.into()).is_err());
    }
}
