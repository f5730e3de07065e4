//! `dvcfs snapshot`: makes a commit of what was changed in a writable mount.
//!
//! The mount prepares the tree and lets go of its changes afterwards; the commit between the two is
//! made here, where the user's name, signing key, editor and terminal are.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt::{self, Write as _},
    fs,
    io::{self, IsTerminal, Write as _},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    args::SnapshotArgs,
    changes,
    control::{Request, Response},
    counted,
    discard::{inside, still_open},
    exit::{Code, Failure, chain},
    mounts::{Record, short_name},
    print,
    progress::Waiting,
    push::Unpushed,
    settings::{Settings, Verbosity},
    unpushed,
};
use crate::{
    blobs::BlobError,
    dvc::output::Output,
    git::{CommitId, GitTreeId, Repository, TransportOptions},
    id::BlobId,
    overlay::Overlay,
    path::{RepoPath, escape},
    publish::{self, Ground, Holder, Keeping, Left, Mark, Outbox, Prepared, Rules, SnapshotError},
    registry::Registry,
    steps,
    tree::{OutputId, Project},
    usage::mapped_to_write,
    vfs::{Rebased, Stillness, Vfs, VfsError},
};

/// How often files that are opened meanwhile are copied before a snapshot is given up.
const COPIES: usize = 8;

/// How often a snapshot is tried while other programs change things.
const TRIES: usize = 3;

/// Hashing many large files takes its time.
const DEADLINE: Duration = Duration::from_hours(24);

/// What the user says about what is recorded, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Typed {
    pub(super) dvc: Vec<String>,
    pub(super) git: Vec<String>,
    pub(super) folders: Vec<Vec<u8>>,
    pub(super) forces: bool,
    /// What is recorded; everything if there is none.
    pub(super) chosen: Vec<Vec<u8>>,
}

impl Typed {
    pub(super) fn rules(&self) -> Result<Rules, String> {
        Ok(Rules::new(&self.dvc, &self.git, parsed(&self.folders)?, self.forces))
    }

    /// The paths at or below which changes are recorded.
    pub(super) fn chosen(&self) -> Result<Vec<RepoPath>, String> {
        parsed(&self.chosen)
    }
}

fn parsed(paths: &[Vec<u8>]) -> Result<Vec<RepoPath>, String> {
    let paths = paths.iter().map(|path| RepoPath::new(path));
    paths.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
}

/// A tree that waits for its commit.
#[derive(Debug, Serialize, Deserialize)]
struct Waits {
    tree: String,
    parent: String,
    git_dir: Vec<u8>,
    recorded: usize,
    bytes: u64,
    left: Vec<Leaving>,
    /// How many changes were not asked for.
    not_chosen: usize,
}

/// A change that stays one.
#[derive(Debug, Serialize, Deserialize)]
struct Leaving {
    /// The path, with marks in the place of what is not UTF-8.
    path: String,
    /// Its bytes, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_bytes: Option<Vec<u8>>,
    why: String,
    /// Whether that is as it was meant.
    #[serde(default)]
    ignored: bool,
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = changes::shown(&self.path, self.path_bytes.as_deref());
        write!(f, "{path}: {}", self.why)
    }
}

/// What one of both steps came to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step<T> {
    Done(T),
    Nothing(Vec<Leaving>),
    /// Something was changed meanwhile.
    Changed(String),
    Busy(String),
}

pub(super) fn run(settings: &Settings, args: &SnapshotArgs) -> Result<ExitCode, Failure> {
    let record = changes::mounted(settings, &args.dir, "snapshot")?;
    let typed = typed(args, &record)?;
    require_known(&record, &typed)?;
    if args.dry_run {
        let told = changes::of_mount_by(&record, typed)?;
        let recorded = told.iter().filter(|told| told.refused.is_none()).cloned();
        let recorded: Vec<_> = recorded.collect();
        if args.json {
            print(&(serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"));
        } else {
            let would = changes::summary(&recorded);
            print(&format!("{}would be recorded: {would}\n", changes::describe(&told)));
        }
        let is_all = told.iter().all(|told| told.refused.is_none() || told.ignored);
        return Ok(code(is_all && !recorded.is_empty()));
    }
    let message = match &args.message {
        Some(message) => message.clone(),
        None => edited(&record)?,
    };
    if message.trim().is_empty() {
        return Err(Failure::new(Code::Usage, "snapshot: the message is empty; nothing was done"));
    }
    let waiting = Waiting::new("recording", settings.verbosity);
    let (waits, commit) = recorded(&record, typed, &message)?;
    drop(waiting);
    if args.json {
        let done = json!({
            "commit": commit.to_string(),
            "recorded": waits.recorded,
            "bytes": waits.bytes,
            "left": waits.left,
            "not_chosen": waits.not_chosen,
        });
        print(&(serde_json::to_string_pretty(&done).unwrap_or_default() + "\n"));
    } else if settings.verbosity > Verbosity::Quiet {
        let bytes = indicatif::HumanBytes(waits.bytes);
        let recorded = counted(waits.recorded as u64, "path");
        let mut text = format!("{commit}\n{recorded} recorded ({bytes})\n");
        for left in &waits.left {
            // Writing to a String cannot fail.
            _ = writeln!(text, "left as it is: {left}");
        }
        if waits.not_chosen > 0 {
            // As above.
            let others = counted(waits.not_chosen as u64, "other change");
            _ = writeln!(text, "still in the overlay: {others}");
        }
        print(&text);
    }
    Ok(code(waits.left.iter().all(|left| left.ignored)))
}

/// Whether all is recorded that is meant to be, as an exit code.
fn code(is_all: bool) -> ExitCode {
    if is_all { ExitCode::SUCCESS } else { Code::Failed.into() }
}

fn typed(args: &SnapshotArgs, record: &Record) -> Result<Typed, Failure> {
    let folder = |folder: &String| {
        let refused = |why: &str| {
            let folder = escape(folder.as_bytes());
            Failure::new(Code::Usage, format!("snapshot --dir {folder}: {why}"))
        };
        let path = RepoPath::root().resolve(folder.trim_end_matches('/').as_bytes());
        let path = path.map_err(|error| refused(&error.to_string()))?;
        let place = record.mount_point.join(OsStr::from_bytes(path.as_bytes()));
        let why = match fs::symlink_metadata(place) {
            Ok(found) if found.is_dir() => return Ok(path.as_bytes().to_vec()),
            Ok(_) => "it is no folder",
            Err(_) => "it is not in the mount",
        };
        Err(refused(why).hint("name a folder by its path from the root of the mount"))
    };
    let folders = args.folders.iter().map(folder).collect::<Result<Vec<_>, _>>()?;
    let chosen = args.paths.iter().map(|path| inside("snapshot", &record.mount_point, path));
    let chosen = chosen.collect::<Result<Vec<_>, _>>()?;
    let (dvc, git) = (args.dvc.clone(), args.git.clone());
    Ok(Typed { dvc, git, folders, forces: args.force, chosen })
}

/// A path that is not there and of which no change tells is a mistake.
fn require_known(record: &Record, typed: &Typed) -> Result<(), Failure> {
    let chosen = typed.chosen().map_err(|why| failed(record, Code::Usage, &why))?;
    let is_there = |path: &RepoPath| {
        let place = record.mount_point.join(OsStr::from_bytes(path.as_bytes()));
        fs::symlink_metadata(place).is_ok()
    };
    let missing: Vec<_> = chosen.iter().filter(|path| !is_there(path)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let told = changes::of_mount(record)?;
    match missing.into_iter().find(|path| !told.iter().any(|told| told.is_at(path))) {
        Some(path) => Err(failed(
            record,
            Code::Usage,
            &format!("no such file or folder, now or before: {path}"),
        )),
        None => Ok(()),
    }
}

/// Makes the commit and has the mount let go of what is in it, from the beginning again where
/// something was changed meanwhile.
fn recorded(record: &Record, rules: Typed, message: &str) -> Result<(Waits, CommitId), Failure> {
    let prepare = Request::Prepare { rules };
    let mut left = TRIES;
    loop {
        left -= 1;
        let waits: Waits = match step(record, &prepare)? {
            Step::Changed(_) if left > 0 => continue,
            prepared => done(record, prepared)?,
        };
        let commit = commit(&waits, message)?;
        steps::reached("committed");
        match step(record, &Request::Settle { commit: commit.to_string() })? {
            Step::Changed(_) if left > 0 => {}
            settled => return done::<String>(record, settled).map(|_| (waits, commit)),
        }
    }
}

/// Asks the mount for one of both steps.
fn step<T: DeserializeOwned>(record: &Record, request: &Request) -> Result<Step<T>, Failure> {
    let shown = escape(record.mount_point.as_os_str().as_encoded_bytes());
    let answer = record.ask(request, DEADLINE);
    let answer = answer.map_err(|failure| failure.context(format!("snapshot {shown}")))?;
    serde_json::from_value(answer).map_err(|error| failed(record, Code::Failed, &error.to_string()))
}

fn done<T>(record: &Record, step: Step<T>) -> Result<T, Failure> {
    match step {
        Step::Done(done) => Ok(done),
        Step::Nothing(left) => Err(failed(record, Code::Failed, &nothing(&left))),
        Step::Changed(why) | Step::Busy(why) => Err(failed(record, Code::Busy, &why)
            .hint("nothing was recorded; close what writes there and run it again")),
    }
}

fn failed(record: &Record, code: Code, why: &str) -> Failure {
    let shown = escape(record.mount_point.as_os_str().as_encoded_bytes());
    Failure::new(code, format!("snapshot {shown}: {why}"))
}

/// Says that nothing is recorded, and why.
fn nothing(left: &[Leaving]) -> String {
    if left.is_empty() {
        return "nothing has changed".to_owned();
    }
    let is_meant = left.iter().all(|left| left.ignored);
    let head = if is_meant {
        "nothing has changed but what is kept out"
    } else {
        "nothing can be recorded"
    };
    let lines = left.iter().map(|left| format!("\n    {left}"));
    lines.fold(head.to_owned(), |text, line| text + &line)
}

/// Makes the commit, by the user's own git.
fn commit(waits: &Waits, message: &str) -> Result<CommitId, Failure> {
    let git_dir = std::path::Path::new(std::ffi::OsStr::from_bytes(&waits.git_dir));
    let repository = Repository::open(git_dir)?;
    let odd = || Failure::new(Code::Failed, "snapshot: the mount gave no tree");
    let tree = GitTreeId::parse(&waits.tree).ok_or_else(odd)?;
    let parent = CommitId::parse(&waits.parent).ok_or_else(odd)?;
    Ok(repository.create_commit(tree, &[parent], message, &transport())?)
}

fn transport() -> TransportOptions {
    TransportOptions { interactive: io::stdin().is_terminal(), ..TransportOptions::default() }
}

/// The message as the user's editor leaves it.
fn edited(record: &Record) -> Result<String, Failure> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let failure = Failure::new(Code::Usage, "snapshot: a commit needs a message");
        return Err(failure.hint("give one with -m"));
    }
    let failed =
        |error: io::Error| Failure::new(Code::Failed, format!("edit the message: {error}"));
    let told = changes::of_mount(record)?;
    let mut file = tempfile::Builder::new().suffix(".gitcommit").tempfile().map_err(failed)?;
    let mut text = String::from("\n# Lines that begin with # are no part of the message.\n#\n");
    for line in changes::describe(&told).lines() {
        // Writing to a String cannot fail.
        _ = writeln!(text, "#{line}");
    }
    file.write_all(text.as_bytes()).map_err(failed)?;
    let here = std::env::current_dir().map_err(failed)?;
    let editor = if let Ok(repository) = Repository::open(&here) {
        repository.editor(&transport())?
    } else {
        let variables = ["GIT_EDITOR", "VISUAL", "EDITOR"];
        let named = variables.iter().find_map(|name| std::env::var(name).ok());
        named.unwrap_or_else(|| "vi".to_owned())
    };
    let mut shell = Command::new("sh");
    let status =
        shell.arg("-c").arg(format!("{editor} \"$@\"")).arg("sh").arg(file.path()).status();
    if !status.map_err(failed)?.success() {
        return Err(Failure::new(Code::Failed, "snapshot: the editor failed; nothing was done"));
    }
    let text = std::fs::read_to_string(file.path()).map_err(failed)?;
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    Ok(lines.join("\n").trim().to_owned() + "\n")
}

/// The name of the ref that keeps an overlay's commits until they are pushed.
pub(super) fn ref_of(overlay: &std::path::Path) -> String {
    ref_of_name(&short_name(overlay))
}

/// The same by the overlay's name.
pub(super) fn ref_of_name(overlay: &str) -> String {
    format!("refs/dvcfs/snapshots/{overlay}")
}

/// The name of the ref that keeps the commit which the first of those was made above.
pub(super) fn base_ref_of(overlay: &str) -> String {
    format!("refs/dvcfs/bases/{overlay}")
}

/// The steps of snapshots, as the mount takes them.
pub(super) struct Snapshots {
    pub(super) vfs: Arc<Vfs>,
    pub(super) registry: Arc<Registry>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) outbox: Result<Arc<Outbox>, String>,
    mount_point: std::path::PathBuf,
    ready: Mutex<Option<Ready>>,
    /// The tree of a merge whose commit is being made.
    pub(super) merging: Mutex<Option<GitTreeId>>,
    /// Held by whoever changes what lies below.
    pub(super) below: Mutex<()>,
}

/// A tree that was prepared.
struct Ready {
    prepared: Arc<Prepared>,
    expected: Option<CommitId>,
    stillness: Stillness,
}

impl Snapshots {
    pub(super) fn new(
        vfs: &Arc<Vfs>,
        registry: &Arc<Registry>,
        runtime: &tokio::runtime::Handle,
        (state_dir, mount_point): (&std::path::Path, &std::path::Path),
    ) -> Self {
        let outbox = Outbox::open(state_dir);
        let outbox = outbox.map(|outbox| match vfs.overlay() {
            Some(overlay) => outbox.takes_for(&short_name(overlay.dir())),
            None => outbox,
        });
        Self {
            vfs: Arc::clone(vfs),
            registry: Arc::clone(registry),
            runtime: runtime.clone(),
            outbox: outbox.map(Arc::new).map_err(|error| format!("open the outbox: {error}")),
            mount_point: mount_point.to_owned(),
            ready: Mutex::default(),
            merging: Mutex::default(),
            below: Mutex::default(),
        }
    }

    /// The commit of this overlay that is not pushed yet.
    pub(super) fn unpushed(&self) -> Result<Option<CommitId>, String> {
        let Some(overlay) = self.vfs.overlay() else { return Ok(None) };
        let base = overlay.base().map_err(|error| chain(&error))?;
        let repository = self.registry.repository();
        let newest = unpushed::newest(repository, &short_name(overlay.dir()), base.as_ref());
        newest.map_err(|error| chain(&error))
    }

    /// Upstream has a commit. Where the remotes have what it needs, it is let go of; a newer one stays
    /// to be pushed.
    pub(super) fn pushed(&self, commit: &str, is_over: bool) -> Response {
        let commit = CommitId::parse(commit).ok_or("nothing was pushed")?;
        let _turn = self.below.lock();
        self.note_pushed(commit, is_over).map(|()| json!(null)).map_err(|failure| failure.message)
    }

    fn note_pushed(&self, commit: CommitId, is_over: bool) -> Result<(), Failure> {
        let failed = |why: &str| Failure::new(Code::Failed, why);
        let overlay = self.vfs.overlay().ok_or_else(|| failed("the mount is not writable"))?;
        let newest = self.unpushed().map_err(|why| failed(&why))?;
        let mut base = overlay.base()?.ok_or_else(|| failed("the overlay notes no base"))?;
        let repository = self.registry.repository();
        if let Some(branch) = &base.branch {
            let reference = repository.upstream_ref(&repository.upstream_of(branch)?, branch);
            base.seen.insert(reference, commit.to_string());
        }
        if is_over {
            base.since = (newest != Some(commit)).then(|| commit.to_string());
        }
        overlay.set_base(&base)?;
        let name = short_name(overlay.dir());
        if is_over
            && repository.remove_ref_at(&ref_of_name(&name), commit)?
            && let Some(since) = repository.own_ref(&base_ref_of(&name))?
        {
            repository.remove_ref_at(&base_ref_of(&name), since)?;
        }
        Ok(())
    }

    /// The commits of this overlay that are not pushed, newest first.
    pub(super) fn since_pushed(&self) -> Result<Vec<CommitId>, String> {
        let overlay = self.vfs.overlay().ok_or("the mount is not writable")?;
        let base = overlay.base().map_err(|error| chain(&error))?;
        let repository = self.registry.repository();
        let all = unpushed::all(repository, &short_name(overlay.dir()), base.as_ref());
        all.map_err(|error| chain(&error))
    }

    /// Says which files programs write to by mappings, of which the kernel tells nothing once they
    /// are closed, where it was handed the file.
    pub(super) fn mapped(&self) -> Option<String> {
        let device = std::fs::metadata(&self.mount_point).ok()?.dev();
        let mapped: Vec<_> = mapped_to_write(device).into_iter().collect();
        (!mapped.is_empty()).then(|| still_open(&mapped))
    }

    /// Notes that what was taken into the outbox is needed by a commit that is not pushed.
    pub(super) fn keep_taken(&self) -> Result<(), String> {
        let overlay = self.vfs.overlay().ok_or("the mount is not writable")?;
        let outbox = self.outbox.as_ref().map_err(Clone::clone)?;
        let base = overlay.base().map_err(|error| chain(&error))?;
        let holder = Holder {
            overlay: overlay.dir().into(),
            base: base.ok_or("the overlay notes no base")?,
            git_dir: self.registry.repository().git_dir().into(),
        };
        let noted = outbox.keep_for(&short_name(overlay.dir()), &holder);
        noted.map_err(|error| format!("note what waits in the outbox: {error}"))
    }

    /// What there is to push.
    pub(super) fn tell_unpushed(&self) -> Response {
        let overlay = self.vfs.overlay().ok_or("the mount is not writable")?;
        let commit = self.unpushed()?.map(|commit| commit.to_string());
        let base = overlay.base().map_err(|error| chain(&error))?;
        let unpushed = Unpushed {
            overlay: short_name(overlay.dir()),
            shown: self.vfs.commit().map(|commit| commit.to_string()).unwrap_or_default(),
            commit,
            base: base.ok_or("the overlay notes no base")?,
        };
        serde_json::to_value(unpushed).map_err(|error| error.to_string())
    }

    pub(super) fn prepare(&self, typed: &Typed) -> Response {
        let tree = self.vfs.root_tree().ok_or("the mount shows no single revision")?;
        let overlay = self.vfs.overlay().ok_or("the mount is not writable")?;
        let outbox = self.outbox.as_ref().map_err(Clone::clone)?;
        let repository = self.registry.repository();
        let expected = self.unpushed()?;
        if let Some(newer) = expected.filter(|newest| *newest != tree.commit) {
            return Err(format!(
                "the snapshot {newer} does not lie below yet: dvcfs refresh brings it there"
            ));
        }
        let rules = typed.rules()?;
        let manifest = |output: OutputId| {
            let read = self.runtime.block_on(self.vfs.read_manifest(&tree, output));
            read.map_err(io::Error::other)
        };
        let size = |output: OutputId, blobs: &[BlobId]| {
            self.runtime.block_on(self.vfs.size_in(&tree, output, blobs))
        };
        let blob = |output: OutputId, blob: BlobId| {
            let read = self.runtime.block_on(self.vfs.read_blob(&tree, output, blob));
            read.map_err(|error| io::Error::other(chain(&error)))
        };
        let has_manifest =
            |project: usize, output: &Output| self.has_manifest(&tree.projects[project], output);
        let ground = Ground {
            overlay,
            tree: &tree,
            repository,
            outbox,
            manifest: &manifest,
            has_manifest: &has_manifest,
            blob: &blob,
            size: &size,
        };
        let stillness = match self.vfs.stillness().map_err(|error| chain(&error))? {
            Ok(stillness) => stillness,
            Err(open) => return encode(&Step::<Waits>::Busy(still_open(&open))),
        };
        if let Some(why) = self.mapped() {
            return encode(&Step::<Waits>::Busy(why));
        }
        let mark = Mark::of(overlay).map_err(|error| format!("read the overlay: {error}"))?;
        let found = changes::find(&self.vfs, &tree, &self.runtime)?;
        let chosen = typed.chosen()?;
        let prepared =
            publish::prepare(&ground, (mark, &found), &rules, (&chosen, &stillness.open));
        let prepared = match prepared {
            Err(SnapshotError::Nothing(left)) => {
                return encode(&Step::<Waits>::Nothing(leaving(&left)));
            }
            Err(SnapshotError::Bare(paths)) => {
                for path in &paths {
                    let given = self.runtime.block_on(self.vfs.give_bytes(path));
                    given.map_err(|error| format!("{path}: {}", chain(&error)))?;
                }
                let why = "files that were to stay had no bytes of their own".to_owned();
                return encode(&Step::<Waits>::Changed(why));
            }
            Err(SnapshotError::Disk { path, source })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return encode(&Step::<Waits>::Changed(SnapshotError::Moved(path).to_string()));
            }
            prepared => prepared.map_err(|error| chain(&error))?,
        };
        let left = leaving(&prepared.left);
        let waits = Waits {
            tree: prepared.tree.to_string(),
            parent: tree.commit.to_string(),
            git_dir: repository.git_dir().as_os_str().as_bytes().to_vec(),
            recorded: prepared.recorded,
            bytes: prepared.bytes,
            not_chosen: prepared.left.len() - left.len(),
            left,
        };
        let prepared = Arc::new(prepared);
        *self.ready.lock() = Some(Ready { prepared, expected, stillness });
        // From now on no push of another mount takes it away.
        self.keep_taken()?;
        encode(&Step::Done(waits))
    }

    /// Whether the manifest of a folder of a project can be had.
    fn has_manifest(&self, project: &Project, output: &Output) -> io::Result<bool> {
        let project = (&project.root, project.config);
        match self.runtime.block_on(self.vfs.manifest_of(project, output)) {
            Ok(_) => Ok(true),
            Err(VfsError::Blob(BlobError::Missing(_))) => Ok(false),
            Err(error) => Err(io::Error::other(chain(&error))),
        }
    }

    /// A tree that was prepared above another base is of no use any more.
    pub(super) fn forget_prepared(&self) {
        *self.ready.lock() = None;
    }

    pub(super) fn settle(&self, commit: &str) -> Response {
        let commit = CommitId::parse(commit).ok_or("no commit was made")?;
        let made = self.registry.repository().commit(commit).map_err(|error| chain(&error))?;
        let ready = self.ready.lock().take_if(|ready| ready.prepared.tree == made.tree);
        let Some(Ready { mut prepared, expected, stillness }) = ready else {
            return encode(&Step::<String>::Busy("another snapshot is being made".to_owned()));
        };
        let outbox = self.outbox.as_ref().map_err(Clone::clone)?;
        let overlay = self.vfs.overlay().ok_or("the mount is not writable")?;
        for _ in 0..COPIES {
            let copied = match self.settle_now(&prepared, (commit, expected), &stillness)? {
                Rebased::Done(Ok(())) => {
                    // Has the refs be where they should.
                    if let Err(why) = self.unpushed() {
                        tracing::warn!("{why}");
                    }
                    return encode(&Step::Done(commit.to_string()));
                }
                Rebased::Open(open) => return encode(&Step::<String>::Busy(still_open(&open))),
                Rebased::Written => {
                    let why = "files were written meanwhile".to_owned();
                    return encode(&Step::<String>::Changed(why));
                }
                Rebased::Done(Err(SnapshotError::InUse(paths))) => {
                    let prepared =
                        Arc::get_mut(&mut prepared).ok_or("the snapshot is still at work")?;
                    prepared.copy((overlay, outbox), &paths)
                }
                Rebased::Done(settled) => settled,
            };
            match copied {
                Ok(()) => {}
                Err(error @ (SnapshotError::Moved(_) | SnapshotError::OtherBase)) => {
                    return encode(&Step::<String>::Changed(error.to_string()));
                }
                Err(error @ SnapshotError::Unfinished { .. }) => {
                    let why = chain(&error);
                    tracing::error!("{why}");
                    return Err(why);
                }
                Err(error) => return Err(chain(&error)),
            }
        }
        encode(&Step::<String>::Busy("files are opened all the time".to_owned()))
    }

    /// Settles a snapshot, if nothing is in the way.
    fn settle_now(
        &self,
        prepared: &Arc<Prepared>,
        (commit, expected): (CommitId, Option<CommitId>),
        stillness: &Stillness,
    ) -> Result<Rebased<Result<(), SnapshotError>>, String> {
        let (registry, outbox) = (Arc::clone(&self.registry), self.outbox.clone()?);
        let prepared = Arc::clone(prepared);
        let settle = move |overlay: &Overlay, open: &BTreeSet<RepoPath>| {
            let name = ref_of(overlay.dir());
            let keeping = Keeping { name: &name, expected };
            let commit = (registry.repository(), commit);
            publish::settle((overlay, &outbox), &prepared, commit, (&keeping, open))
        };
        let _turn = self.below.lock();
        let rebased = self.runtime.block_on(self.vfs.rebase(commit, Some(stillness), settle));
        rebased.map_err(|error| chain(&error))
    }
}

/// What is told of changes that stay, but for those that nobody asked for.
fn leaving(left: &[(RepoPath, Left)]) -> Vec<Leaving> {
    let told = left.iter().filter_map(|(path, left)| {
        let (why, ignored) = match left {
            Left::Refused(why) => (why.clone(), false),
            Left::Ignored(by) => (by.to_string(), true),
            Left::NotChosen => return None,
        };
        let (path, path_bytes) = changes::in_json(path);
        Some(Leaving { path, path_bytes, why, ignored })
    });
    told.collect()
}

fn encode<T: Serialize>(step: &Step<T>) -> Response {
    serde_json::to_value(step).map_err(|error| error.to_string())
}
