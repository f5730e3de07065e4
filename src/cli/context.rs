//! What commands that look into a registry work with: the registry itself, the blobs, the runtime.

use std::{
    io::{IsTerminal, Write},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    thread,
    time::SystemTime,
};

use tokio::{runtime::Runtime, sync::mpsc};

use super::{
    args::RepoArgs,
    exit::{Code, Failure},
    log,
    settings::{Settings, Verbosity},
    trust::Trust,
};
use crate::{
    blobs::Blobs,
    cache::BlobCache,
    git::{CommitId, Location, Progress, RevisionKind},
    id::Key,
    publish::Outbox,
    registry::{Registry, RegistryOptions, Trusted},
    segments::Segments,
    sizes::SizeIndex,
    stats::Stats,
    vfs::{InodeTable, Layout, Vfs, VfsOptions},
};

/// Settings and runtime of one command.
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) runtime: Runtime,
    pub(super) stats: Arc<Stats>,
}

impl Context {
    /// For a command that reports itself what it could not read, so that the log need not.
    pub(super) fn new(settings: Settings) -> Result<Self, Failure> {
        Self::with_log(settings, REPORTED)
    }

    /// For a command that goes through many trees, where it is no news what is wrong in each.
    pub(super) fn for_history(settings: Settings) -> Result<Self, Failure> {
        Self::with_log(settings, &format!("{REPORTED},dvcfs::vfs=error"))
    }

    /// For a command that says itself what it found wrong with settings and mirrors.
    pub(super) fn for_diagnosis(settings: Settings) -> Result<Self, Failure> {
        Self::with_log(settings, &format!("{REPORTED},dvcfs::registry=error"))
    }

    /// For a mount, where only the log tells why a program got an error.
    pub(super) fn for_mount(settings: Settings) -> Result<Self, Failure> {
        Self::with_log(settings, "")
    }

    fn with_log(settings: Settings, silenced: &str) -> Result<Self, Failure> {
        log::start(&settings, silenced);
        let cores = thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.clamp(2, 8))
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Code::System, format!("start the runtime: {error}")))?;
        Ok(Self { settings, runtime, stats: Arc::default() })
    }

    /// Opens a repository; one given by URL is mirrored and brought up to date, unless everything
    /// that is asked for is already there. No revision stands for the default branch.
    pub(super) fn registry(
        &self,
        args: &RepoArgs,
        revisions: &[Option<&str>],
    ) -> Result<Arc<Registry>, Failure> {
        let here = std::env::current_dir()
            .map_err(|error| Failure::new(Code::Failed, format!("the working folder: {error}")))?;
        let location = Location::parse(&args.repo, &here)?;
        // What was typed may have a password in it.
        let name = location.to_string();
        let trust = Trust::load(&self.settings.state_dir);
        let mut agreed = self.settings.trusted_endpoints.clone();
        agreed.extend(trust.endpoints(&name));
        let trusted =
            if args.trust_remote { Trusted::Everything } else { Trusted::Settings(agreed) };
        let options = RegistryOptions {
            state_dir: self.settings.state_dir.clone(),
            dvc_system_config: self.settings.dvc_system_config.clone(),
            dvc_global_config: self.settings.dvc_global_config.clone(),
            ssh_command: self.settings.ssh_command.clone(),
            is_interactive: std::io::stdin().is_terminal(),
            progress: self.git_progress(),
            home: self.settings.home.clone(),
            aws: self.settings.aws.clone(),
            trusted,
            remote: args.remote.clone(),
            wanted: revisions.iter().map(|r| r.unwrap_or("HEAD").to_owned()).collect(),
        };
        let registry = Registry::open(&location, options);
        let opening = |error| Failure::from(error).context(format!("open {name}"));
        Ok(Arc::new(registry.map_err(opening)?))
    }

    /// Asks for whatever a commit's default remote needs the user's consent for.
    pub(super) fn settle_trust(
        &self,
        registry: &Registry,
        commit: CommitId,
    ) -> Result<(), Failure> {
        let open = registry.untrusted(commit)?;
        if open.is_empty() {
            return Ok(());
        }
        let mut trust = Trust::load(&self.settings.state_dir);
        trust.ask(&registry.name(), &open)?;
        registry.trust(open.into_iter().map(|untrusted| untrusted.setting));
        tracing::debug!("{} may choose its endpoint", registry.name());
        Ok(())
    }

    /// Git's own progress, on a terminal.
    fn git_progress(&self) -> Option<Progress> {
        let is_shown =
            std::io::stderr().is_terminal() && self.settings.verbosity > Verbosity::Quiet;
        let show = |text: &[u8]| {
            // A terminal that is gone needs no progress.
            _ = std::io::stderr().write_all(text);
        };
        is_shown.then(|| Arc::new(show) as Progress)
    }

    /// The blobs of a registry, with this user's cache in front of its remotes.
    ///
    /// `invalid` learns of blobs that turned out wrong after some of them was served.
    pub(super) fn blobs(&self, registry: &Registry, invalid: mpsc::Sender<Key>) -> Arc<Blobs> {
        let mut neighbours = registry.neighbour_caches();
        // What is not pushed yet is nowhere else.
        neighbours.push(Outbox::place(&self.settings.state_dir));
        let cache = self.cache(neighbours);
        let sizes = SizeIndex::open(&self.settings.state_dir.join("sizes"));
        let memory_limit = self.settings.memory_limit;
        let options = crate::blobs::Options { memory_limit, ..crate::blobs::Options::new(invalid) };
        let handle = self.runtime.handle().clone();
        Arc::new(Blobs::new(cache, Arc::new(sizes), Arc::clone(&self.stats), handle, options))
    }

    /// The cache, with others beside it to read from.
    pub(super) fn cache(&self, neighbours: Vec<std::path::PathBuf>) -> BlobCache {
        let options = crate::cache::Options {
            dir: self.settings.cache_dir.clone(),
            neighbours,
            seen: self.settings.state_dir.join("checked"),
            max_bytes: self.settings.cache_size,
            min_free_bytes: self.settings.min_free,
        };
        BlobCache::open(options, Arc::clone(&self.stats))
    }

    /// Manifests as they were compiled, for this mount and those after it.
    pub(super) fn segments(&self) -> Arc<Segments> {
        Arc::new(Segments::new(Some(&self.settings.state_dir.join("manifests"))))
    }

    /// The tree of one revision, to be asked without a mount. Everything read is checked first.
    pub(super) fn tree_at(
        &self,
        args: &RepoArgs,
        revision: Option<&str>,
    ) -> Result<Arc<Vfs>, Failure> {
        let registry = self.registry(args, &[revision])?;
        let (commit, _) = resolve(&registry, revision)?;
        self.settle_trust(&registry, commit)?;
        self.vfs(&registry, commit)
    }

    /// The tree of a commit of a registry that is open. What its remote needs consent for must be
    /// settled before.
    pub(super) fn vfs(
        &self,
        registry: &Arc<Registry>,
        commit: CommitId,
    ) -> Result<Arc<Vfs>, Failure> {
        // Nothing is served before it is checked, so nothing can turn out wrong afterwards.
        let (invalid, _) = mpsc::channel(1);
        let blobs = self.blobs(registry, invalid);
        let revision = commit.to_string();
        let layout = Layout::One { revision, commit, follows: None };
        let (uid, gid) = owner();
        let mounted_at = now();
        let options = VfsOptions {
            uid,
            gid,
            only_inner_links: false,
            verify_before_open: true,
            mounted_at,
            // No kernel knows any of them.
            tree_memory: u64::MAX,
            descriptors: OPEN_AT_ONCE,
        };
        // Nobody keeps anything that events could invalidate.
        let (events, _) = mpsc::unbounded_channel();
        let handle = self.runtime.handle().clone();
        let table = InodeTable::in_memory();
        let (registry, segments) = (Arc::clone(registry), self.segments());
        Ok(Vfs::new(registry, blobs, (layout, options), (table, segments), events, handle)?)
    }
}

/// The commit of a revision, or of the default branch; and the branch that it is, if it is one.
pub(super) fn resolve(
    registry: &Registry,
    revision: Option<&str>,
) -> Result<(CommitId, Option<String>), Failure> {
    let resolved = registry.repository().resolve(revision.unwrap_or("HEAD"))?;
    let branch = match resolved.kind {
        RevisionKind::Branch(name) => Some(name),
        RevisionKind::Tag(_) | RevisionKind::Commit | RevisionKind::Expression => None,
    };
    Ok((resolved.commit, branch))
}

/// The user and group that this process acts for.
pub(super) fn owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Seconds since the epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// Files that a command has open at a time.
const OPEN_AT_ONCE: usize = 256;

/// What logs failures to read that somebody else is told as well.
const REPORTED: &str =
    ",dvcfs::vfs::open=off,dvcfs::vfs::read=off,dvcfs::vfs::sizing=off,dvcfs::blobs=off";

/// Makes a folder that only its owner can enter.
pub(super) fn private_folder(dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Failure::new(Code::Record, format!("make {}: {error}", dir.display())))
}
