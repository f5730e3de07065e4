//! A repository with its configuration and remotes.
//!
//! The registry's content and its committed configuration were written by somebody else, so every
//! setting keeps the level it came from, and [`connect`] decides by that what a remote may do.

mod connect;
mod describe;
mod unusable;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use parking_lot::{Mutex, RwLock};

pub use self::describe::{CredentialsSource, DvcSetting, RemoteDescription, user_settings};
use self::{connect::Connector, unusable::UnusableRemote};
use crate::{
    blobs::Sources,
    dvc::{
        config::{Config, Folders, Level, RawConfig},
        output::{Origin, Output},
    },
    git::{
        CommitId, Entry, EntryKind, GitError, GitId, Keeper, Location, Mirror, Progress,
        Repository, RevisionKind, TransportOptions,
    },
    path::RepoPath,
    remote::{Cause, Remote},
};

/// Larger configuration files are not read.
const MAX_CONFIG: u64 = 1 << 20;

/// Configurations of so many revisions are kept.
const KEPT_CONFIGS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// What opening a registry may take.
const FETCH_TIMEOUT: Duration = Duration::from_mins(10);

/// How long a server may say nothing before a mirror that is there is used as it is.
const FETCH_SILENCE: Duration = Duration::from_secs(20);

/// Where the user's own settings are, and what the user has agreed to.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Where mirrors are kept.
    pub state_dir: PathBuf,
    /// DVC's configuration of this machine.
    pub dvc_system_config: PathBuf,
    /// DVC's configuration of this user.
    pub dvc_global_config: PathBuf,
    /// The user's home, for `~` in configuration files.
    pub home: Option<PathBuf>,
    /// The user's own ssh command, if it is not git's.
    pub ssh_command: Option<String>,
    /// Whether git and ssh may ask on the terminal.
    pub is_interactive: bool,
    /// Gets git's own progress while a URL is mirrored.
    pub progress: Option<Progress>,
    /// What the user has agreed to.
    pub trusted: Trusted,
    /// A remote to be used in place of the configured default.
    pub remote: Option<String>,
    /// The revisions that will be asked for: full hashes that are present need no network.
    pub wanted: Vec<String>,
    /// Certificates to be trusted in place of the system's, and the files that the environment
    /// puts in place of AWS's own.
    pub aws: AwsFiles,
}

/// AWS files that the environment names.
#[derive(Debug, Clone, Default)]
pub struct AwsFiles {
    /// `AWS_CA_BUNDLE`.
    pub ca_bundle: Option<PathBuf>,
    /// Whether `AWS_SHARED_CREDENTIALS_FILE` is set, which DVC prefers to `credentialpath`.
    pub has_credentials_file: bool,
    /// Whether `AWS_CONFIG_FILE` is set, which DVC prefers to `configpath`.
    pub has_config_file: bool,
}

/// What the user has agreed to.
#[derive(Debug, Clone)]
pub enum Trusted {
    /// Whatever the repository's configuration says.
    Everything,
    /// These settings, as [`Untrusted::setting`] prints them, and these endpoints.
    Settings(Vec<String>),
}

/// A setting of the repository's that counts only after a yes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Untrusted {
    /// The remote's name.
    pub remote: String,
    /// The setting, such as `endpointurl = https://s3.example`.
    pub setting: String,
}

/// Why a registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The repository itself.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// A repository, its configuration at every revision, and the remotes they name.
pub struct Registry {
    source: Source,
    /// Why the mirror could not be brought up to date.
    stale: Option<String>,
    name: String,
    options: RegistryOptions,
    agreed: RwLock<BTreeSet<String>>,
    configs: Mutex<LruCache<ConfigKey, Arc<Config>>>,
    remotes: Mutex<HashMap<RemoteKey, Arc<dyn Remote>>>,
    kept: Mutex<Option<Kept>>,
}

/// A commit that is kept from git's collection.
struct Kept {
    keeper: Keeper,
    commit: CommitId,
}

/// A DVC project: its folder, and its committed `.dvc/config` if there is one.
pub type Project<'a> = (&'a RepoPath, Option<GitId>);

/// The same, to be kept.
type ConfigKey = (RepoPath, Option<GitId>);

/// A remote's name in one revision's configuration.
type RemoteKey = (RepoPath, Option<GitId>, Option<String>);

enum Source {
    Path(Repository, PathBuf),
    Mirror(Mirror),
}

impl Registry {
    /// Opens a repository. One given by URL is mirrored first, or brought up to date; if that fails
    /// and a mirror is there, it is used as it is, with a word in the log.
    pub fn open(location: &Location, options: RegistryOptions) -> Result<Self, RegistryError> {
        let mut stale = None;
        let source = match location {
            Location::Path(path) => Source::Path(Repository::open(path)?, path.clone()),
            Location::Url(url) => {
                let transport = transport(&options, true);
                let known = Mirror::open(&options.state_dir, url)?;
                let has_wanted = |mirror: &Mirror| {
                    let mut wanted = options.wanted.iter();
                    !options.wanted.is_empty()
                        && wanted.all(|revision| is_pinned(mirror.repository(), revision))
                };
                match known {
                    Some(mirror) if has_wanted(&mirror) => Source::Mirror(mirror),
                    Some(mirror) => {
                        // People may take their time with a password.
                        let silence = (!transport.interactive).then_some(FETCH_SILENCE);
                        let transport = TransportOptions { silence, ..transport };
                        if let Err(error) = mirror.fetch(&transport) {
                            tracing::warn!("using what was mirrored before: {error}");
                            stale = Some(error.to_string());
                        }
                        Source::Mirror(mirror)
                    }
                    None => {
                        Source::Mirror(Mirror::open_or_clone(&options.state_dir, url, &transport)?)
                    }
                }
            }
        };
        let agreed = match &options.trusted {
            Trusted::Everything => BTreeSet::new(),
            Trusted::Settings(settings) => settings.iter().cloned().collect(),
        };
        Ok(Self {
            source,
            stale,
            name: location.to_string(),
            options,
            agreed: RwLock::new(agreed),
            configs: Mutex::new(LruCache::new(KEPT_CONFIGS)),
            remotes: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// Refs and objects.
    pub fn repository(&self) -> &Repository {
        match &self.source {
            Source::Path(repository, _) => repository,
            Source::Mirror(mirror) => mirror.repository(),
        }
    }

    /// The path or URL, without passwords.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Why opening could not bring the mirror up to date, if it could not.
    pub fn stale(&self) -> Option<&str> {
        self.stale.as_deref()
    }

    /// Asks upstream for new commits. A repository opened where it lies is always up to date.
    pub fn fetch(&self) -> Result<(), GitError> {
        match &self.source {
            Source::Path(..) => Ok(()),
            Source::Mirror(mirror) => mirror.fetch(&transport(&self.options, false)).map(drop),
        }
    }

    /// Keeps a commit from git's collection while this is open, in place of the one before. A
    /// repository that cannot be written to keeps its commits by its branches alone.
    ///
    /// Before the first, ends what mounts that were killed kept.
    pub fn keep(&self, commit: CommitId) {
        let mut kept = self.kept.lock();
        if let Err(error) = self.keep_as(&mut kept, commit) {
            tracing::debug!("{error}");
        }
    }

    fn keep_as(&self, kept: &mut Option<Kept>, commit: CommitId) -> Result<(), GitError> {
        let repository = self.repository();
        let keeper = match kept.take() {
            Some(before) if before.commit == commit => {
                *kept = Some(before);
                return Ok(());
            }
            Some(before) => {
                before.keeper.keep(repository, commit)?;
                before.keeper.release(repository, before.commit)?;
                before.keeper
            }
            None => {
                Keeper::sweep(repository, &self.options.state_dir)?;
                let keeper = Keeper::new(&self.options.state_dir)?;
                keeper.keep(repository, commit)?;
                keeper
            }
        };
        *kept = Some(Kept { keeper, commit });
        Ok(())
    }

    /// Ends what [`Registry::keep`] began.
    pub fn release(&self) {
        let kept = self.kept.lock().take();
        if let Some(Kept { keeper, commit }) = kept
            && let Err(error) = keeper.release(self.repository(), commit)
        {
            tracing::debug!("{error}");
        }
    }

    /// Where an output's content is fetched from, in order.
    pub fn sources(&self, project: Project<'_>, output: &Output) -> Sources {
        [self.remote_of(project, output)].into()
    }

    /// The remote of an output. One that cannot be used says why when it is asked.
    pub fn remote_of(&self, project: Project<'_>, output: &Output) -> Arc<dyn Remote> {
        if let Origin::Import(source) = &output.origin {
            let reason = format!(
                "it was imported from {}, whose remote has it; imports are not read through their \
                 source yet",
                source.url
            );
            return UnusableRemote::shared(&source.url, Cause::Misconfigured, reason);
        }
        if output.is_versioned {
            let reason = "it lies under its own name in a versioned bucket, which is not read yet";
            return UnusableRemote::shared("cloud", Cause::Misconfigured, reason.to_owned());
        }
        let key = (project.0.clone(), project.1, output.remote.clone());
        if let Some(remote) = self.remotes.lock().get(&key) {
            return Arc::clone(remote);
        }
        let config = self.config(project);
        let remote = self.connector(&config).remote(output.remote.as_deref());
        Arc::clone(self.remotes.lock().entry(key).or_insert(remote))
    }

    /// The remote that the content of an output is put into. One that cannot be used, or where only
    /// DVC can put anything, says why when it is asked.
    pub fn target_of(&self, project: Project<'_>, output: &Output) -> Arc<dyn Remote> {
        let config = self.config(project);
        let refused = self.connector(&config).untakable(output.remote.as_deref());
        refused.unwrap_or_else(|| self.remote_of(project, output))
    }

    /// The URL where clones look for an output, if the remote that was named for this is another one.
    pub fn elsewhere(&self, project: Project<'_>, output: &Output) -> Option<String> {
        let named = self.options.remote.as_deref().filter(|_| output.remote.is_none())?;
        self.connector(&self.config(project)).default_if_other_than(named)
    }

    /// What the user would have to agree to before the default remote of a commit can be used.
    pub fn untrusted(&self, commit: CommitId) -> Result<Vec<Untrusted>, RegistryError> {
        if self.dot_dvc(commit)?.is_none() {
            return Ok(Vec::new());
        }
        let config = self.config_of(commit)?;
        Ok(self.connector(&config).untrusted_default())
    }

    /// The user has agreed to these settings.
    pub fn trust(&self, settings: impl IntoIterator<Item = String>) {
        self.agreed.write().extend(settings);
        self.remotes.lock().clear();
    }

    /// Whether the commit's root is a DVC project.
    pub fn has_project(&self, commit: CommitId) -> bool {
        self.dot_dvc(commit).is_ok_and(|entries| entries.is_some())
    }

    /// DVC's own caches of this repository and user, to read from.
    pub fn neighbour_caches(&self) -> Vec<PathBuf> {
        let mut caches = Vec::new();
        if let Some(folder) = self.folder_of(&RepoPath::root()) {
            caches.push(folder.join("cache"));
        }
        // What is odd about these settings is said where they meet those of a commit.
        let configured = self.read_config((&RepoPath::root(), None)).cache_dir().cloned();
        let own = configured.filter(|setting| setting.level != Level::Repo);
        caches.extend(own.map(|setting| PathBuf::from(setting.value)));
        caches.retain(|cache| cache.is_dir());
        caches.dedup();
        caches
    }

    /// What the `.dvc` folder at the root holds, if the root is a DVC project.
    fn dot_dvc(&self, commit: CommitId) -> Result<Option<Vec<Entry>>, GitError> {
        let repository = self.repository();
        let root = repository.entries(repository.commit(commit)?.tree)?.entries;
        match root.into_iter().find(|entry| entry.name.as_bytes() == b".dvc") {
            Some(Entry { kind: EntryKind::Folder { id }, .. }) => {
                Ok(Some(repository.entries(id)?.entries))
            }
            _ => Ok(None),
        }
    }

    /// The configuration at the root of a commit.
    fn config_of(&self, commit: CommitId) -> Result<Arc<Config>, GitError> {
        let entries = self.dot_dvc(commit)?.unwrap_or_default();
        let config = entries.into_iter().find_map(|entry| match entry.kind {
            EntryKind::Blob { id, .. } if entry.name.as_bytes() == b"config" => Some(id),
            _ => None,
        });
        Ok(self.config((&RepoPath::root(), config)))
    }

    fn connector<'a>(&'a self, config: &'a Config) -> Connector<'a> {
        Connector { config, options: &self.options, agreed: &self.agreed }
    }

    /// A project's configuration, all levels merged: the repository's as committed, the others
    /// from this disk.
    fn config(&self, project: Project<'_>) -> Arc<Config> {
        let key = (project.0.clone(), project.1);
        if let Some(config) = self.configs.lock().get(&key) {
            return Arc::clone(config);
        }
        let config = Arc::new(self.read_config(project));
        for warning in config.warnings() {
            tracing::warn!("{}: .dvc/config of {}: {warning}", self.name, project.0);
        }
        self.configs.lock().put(key, Arc::clone(&config));
        config
    }

    fn read_config(&self, (root, config): Project<'_>) -> Config {
        let own = self.place_of(root);
        let home = self.options.home.as_deref();
        let in_repo = Folders { file: &own, home };
        let committed = config.and_then(|id| match self.repository().blob(id, MAX_CONFIG) {
            Ok(text) => Some((Level::Repo, RawConfig::parse(&text, in_repo))),
            Err(error) => {
                tracing::warn!("{}: .dvc/config of {}: {error}", self.name, root);
                None
            }
        });
        let system = read_level(Level::System, &self.options.dvc_system_config, home);
        let global = read_level(Level::Global, &self.options.dvc_global_config, home);
        let local = self.folder_of(root).and_then(|folder| {
            // A committed `config.local` was written by whoever wrote the repository.
            let path = folder.join("config.local");
            let level = if self.is_committed(root) { Level::Repo } else { Level::Local };
            read_level(level, &path, home)
        });
        Config::merge([system, global, committed, local].into_iter().flatten())
    }

    /// Whether git tracks the project's `config.local` at `HEAD`, or cannot tell.
    fn is_committed(&self, root: &RepoPath) -> bool {
        let Ok(path) = root.resolve(b".dvc/config.local") else { return true };
        let repository = self.repository();
        let find = || {
            let mut folder = repository.commit(repository.resolve("HEAD")?.commit)?.tree;
            for name in path.components() {
                let entries = repository.entries(folder)?.entries;
                let entry = entries.into_iter().find(|entry| entry.name.as_bytes() == name);
                match entry.map(|entry| entry.kind) {
                    Some(EntryKind::Folder { id }) => folder = id,
                    found => return Ok(found.is_some()),
                }
            }
            Ok::<_, GitError>(false)
        };
        find().unwrap_or(true)
    }

    /// A project's `.dvc` folder on this disk, if the repository was opened where it lies.
    fn folder_of(&self, root: &RepoPath) -> Option<PathBuf> {
        let folder = self.place_of(root);
        matches!(self.source, Source::Path(..)).then_some(folder).filter(|folder| folder.is_dir())
    }

    /// Where a project's `.dvc` folder is or would be; relative paths in its configuration start
    /// there.
    fn place_of(&self, root: &RepoPath) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let top = match &self.source {
            Source::Path(repository, path) => repository.work_dir().unwrap_or_else(|| path.clone()),
            Source::Mirror(mirror) => {
                mirror.url().local_path().unwrap_or_else(|| PathBuf::from("/"))
            }
        };
        top.join(std::ffi::OsStr::from_bytes(root.as_bytes())).join(".dvc")
    }
}

/// A configuration file on this disk; nothing if there is none.
fn read_level(level: Level, path: &Path, home: Option<&Path>) -> Option<(Level, RawConfig)> {
    let text = fs::read(path).ok()?;
    let file = path.parent().unwrap_or(Path::new("/"));
    Some((level, RawConfig::parse(&text, Folders { file, home })))
}

/// Whether a revision is there and will never stand for another commit: a whole hash or a tag.
fn is_pinned(repository: &Repository, revision: &str) -> bool {
    let kind = repository.resolve(revision).map(|resolved| resolved.kind);
    match kind {
        Ok(RevisionKind::Tag(_)) => true,
        Ok(RevisionKind::Commit) => GitId::parse(revision).is_some(),
        Ok(RevisionKind::Branch(_) | RevisionKind::Expression) | Err(_) => false,
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.release();
    }
}

fn transport(options: &RegistryOptions, is_first: bool) -> TransportOptions {
    TransportOptions {
        interactive: options.is_interactive && is_first,
        timeout: FETCH_TIMEOUT,
        ssh_command: options.ssh_command.clone(),
        progress: options.progress.clone().filter(|_| is_first),
        ..TransportOptions::default()
    }
}
