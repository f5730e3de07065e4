//! The file system as questions and answers, in plain values; it knows no kernel.
//!
//! A [`Vfs`] shows the trees of one repository, either every revision as folders or a single one
//! ([`Layout`]). A question that can be answered from memory or this disk is answered at once; one
//! that needs the network or a long computation gives a future ([`Answer::Later`]), so that the
//! thread that asked never waits.
//!
//! | file | answers |
//! |---|---|
//! | `lookup` | names, above commits and below |
//! | `attributes` | sizes, times, modes, extended attributes |
//! | `listing` | what is in a folder |
//! | `open`, `read` | opening and reading |
//! | `part` | the blobs below a path, to prefetch them |
//! | `ahead` | what is likely to be opened next |
//! | `files`, `exposures` | what is open, and what was shown of it unchecked |
//! | `upper` | the merged view of a writable mount |
//! | `contents` | the tree as a whole, for commands |
//! | `follow` | branches that move |
//! | `inodes`, `epochs`, `names` | what the numbers and names stand for |

mod ahead;
mod attributes;
mod contents;
mod epochs;
mod error;
mod exposures;
mod files;
mod follow;
mod inodes;
mod listing;
mod lookup;
mod manifests;
mod names;
mod open;
mod part;
mod read;
mod reports;
mod rounds;
mod sizing;
#[cfg(test)]
mod tests;
mod upper;

use std::{
    num::NonZeroUsize,
    sync::{Arc, OnceLock, Weak, atomic::AtomicU32},
};

use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};

use self::epochs::{Epoch, Epochs, Memo, Trees};
pub use self::{
    attributes::{Attr, FileKind, Local, Ttl},
    error::VfsError,
    files::Handle,
    follow::Refreshed,
    inodes::{Ino, InodeTable, ROOT_INO},
    listing::{DirEntry, Listed},
    lookup::Lookup,
    open::OpenedFile,
    part::{Part, PartFile},
    read::Read,
    reports::StatsReport,
    rounds::{Keeper, Rounds},
    upper::{Before, Change, Moved, New, Opened, Opening, Rebased, Sought, Stillness},
};
use crate::{
    blobs::{Blobs, Sources},
    git::{CommitId, GitError, Refs, Resolved},
    registry::Registry,
    segments::{Segment, Segments},
    stats::Stats,
    tree::{self, Known, OutputId, Tree},
};

/// An answer, now or later.
pub enum Answer<T> {
    /// Known at once.
    Now(Result<T, VfsError>),
    /// To be awaited on the runtime.
    Later(BoxFuture<'static, Result<T, VfsError>>),
}

impl<T: Send + 'static> Answer<T> {
    fn later(future: impl Future<Output = Result<T, VfsError>> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// The same answer in another shape.
    pub fn map<U>(self, change: impl FnOnce(T) -> U + Send + 'static) -> Answer<U> {
        match self {
            Self::Now(result) => Answer::Now(result.map(change)),
            Self::Later(future) => Answer::Later(Box::pin(async move { future.await.map(change) })),
        }
    }

    /// What the next question answers, which is asked once this one has been.
    fn and_then<U: Send + 'static>(
        self,
        next: impl FnOnce(T) -> Answer<U> + Send + 'static,
    ) -> Answer<U> {
        match self {
            Self::Now(Ok(value)) => next(value),
            Self::Now(Err(error)) => Answer::Now(Err(error)),
            Self::Later(future) => Answer::later(async move { next(future.await?).wait().await }),
        }
    }

    /// The answer itself, however long it takes.
    pub async fn wait(self) -> Result<T, VfsError> {
        match self {
            Self::Now(result) => result,
            Self::Later(future) => future.await,
        }
    }
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Every branch, tag and commit, as folders.
    AllRevisions,
    /// The tree of one revision.
    One {
        /// The revision as typed.
        revision: String,
        /// Its commit now.
        commit: CommitId,
        /// The branch whose moves are followed.
        follows: Option<String>,
    },
}

/// How things are shown; the same for the life of a mount.
#[derive(Debug, Clone)]
pub struct VfsOptions {
    /// Owner of everything.
    pub uid: u32,
    /// Group of everything.
    pub gid: u32,
    /// Hide symbolic links that lead out of their tree.
    pub only_inner_links: bool,
    /// Check large files before their first byte is served, too.
    pub verify_before_open: bool,
    /// The present time, in seconds since the epoch, for names above commits.
    pub mounted_at: i64,
    /// What the trees of revisions that the kernel knows may take together, about, in bytes, until
    /// it is asked to forget the oldest.
    pub tree_memory: u64,
    /// How many files may have a descriptor of their own while they are open.
    pub descriptors: usize,
}

/// Something the kernel should be told, off the threads that answer it.
#[derive(Debug)]
pub enum Event {
    /// A folder's names and listing changed.
    Folder {
        /// The folder.
        ino: Ino,
        /// Names that may mean something else now.
        names: Vec<Vec<u8>>,
    },
    /// A file's attributes changed, and its bytes too if `with_data`.
    File {
        /// The file.
        ino: Ino,
        /// Whether pages must go as well.
        with_data: bool,
    },
    /// A folder's attributes changed, of which the kernel could not know.
    Attributes(Ino),
    /// A name is to be forgotten with all below it that is not in use; it stands for what it stood
    /// for.
    Forget {
        /// The folder.
        ino: Ino,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Somebody waits until the kernel has been told everything up to here, but for pages that must
    /// go.
    Told(oneshot::Sender<()>),
}

/// The file system of one mount.
pub struct Vfs {
    registry: Arc<Registry>,
    blobs: Arc<Blobs>,
    stats: Arc<Stats>,
    runtime: runtime::Handle,
    options: VfsOptions,
    layout: Layout,
    table: InodeTable,
    epochs: Epochs,
    trees: Trees,
    /// What was read of the repository for earlier trees.
    known: Arc<Known>,
    segments: Arc<Segments>,
    kept_segments: Memo<crate::id::TreeId, Arc<Segment>>,
    /// Held while a compiled manifest is made again, so that it is done once.
    mending: tokio::sync::Mutex<()>,
    /// What was asked last: a listing asks for one output a million times.
    last_sources: Mutex<Option<(CommitId, OutputId, Sources)>>,
    refs: RwLock<Arc<Refs>>,
    /// How often refs have changed.
    moves: AtomicU32,
    /// The epoch at the root of a mount that shows one revision.
    current: RwLock<Option<Arc<Epoch>>>,
    /// The layer above the tree, in a writable mount.
    upper: OnceLock<upper::Upper>,
    spots: lookup::Spots,
    reports: reports::Reports,
    sizing: sizing::Sizing,
    ahead: ahead::Ahead,
    open_files: files::OpenFiles,
    rounds: Rounds,
    events: mpsc::UnboundedSender<Event>,
    /// Held while refs are read and taken over, so that an older answer never comes last.
    refreshing: tokio::sync::Mutex<()>,
    /// For futures that outlive the call.
    me: Weak<Self>,
}

/// How many things a mount holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Commits, each as seen under one name, of which the kernel knows a node.
    pub epochs: usize,
    /// Names above commits that the kernel knows.
    pub names: usize,
    /// Trees kept for the next look.
    pub trees: usize,
    /// Compiled manifests kept for the next look.
    pub manifests: usize,
}

/// Trees and manifests kept for the next look, beyond those the kernel knows nodes of.
const KEPT_TREES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

impl Vfs {
    /// Puts a file system together. Events go to `events`; nothing is read yet but refs.
    ///
    /// Blocks on git, and on building the tree when the layout shows one revision.
    pub fn new(
        registry: Arc<Registry>,
        blobs: Arc<Blobs>,
        (layout, options): (Layout, VfsOptions),
        (table, segments): (InodeTable, Arc<Segments>),
        events: mpsc::UnboundedSender<Event>,
        runtime: runtime::Handle,
    ) -> Result<Arc<Self>, VfsError> {
        let refs = follow::read_refs(&registry)?;
        follow::tell_refused(&Refs::default(), &refs);
        let stats = Arc::clone(blobs.stats());
        let open_files = files::OpenFiles::new(options.descriptors, blobs.cache().max_bytes());
        let vfs = Arc::new_cyclic(|me| Self {
            registry,
            blobs,
            stats,
            runtime,
            options,
            layout,
            table,
            epochs: Epochs::default(),
            trees: Trees::new(KEPT_TREES, |tree| tree.weight()),
            known: Arc::default(),
            segments,
            kept_segments: Memo::new(KEPT_TREES, |segment| segment.weight()),
            mending: tokio::sync::Mutex::default(),
            last_sources: Mutex::default(),
            refs: RwLock::new(Arc::new(refs)),
            moves: AtomicU32::new(0),
            current: RwLock::new(None),
            upper: OnceLock::new(),
            spots: lookup::Spots::default(),
            reports: reports::Reports::default(),
            sizing: sizing::Sizing::default(),
            ahead: ahead::Ahead::default(),
            open_files,
            rounds: Rounds::default(),
            events,
            refreshing: tokio::sync::Mutex::default(),
            me: Weak::clone(me),
        });
        if let Layout::One { commit, .. } = vfs.layout {
            let tree = vfs.runtime.block_on(vfs.tree(commit))?;
            vfs.make_current(tree);
        }
        Ok(vfs)
    }

    /// This, for a future that outlives the call.
    fn myself(&self) -> Arc<Self> {
        self.me.upgrade().expect("the file system is alive while one of its methods runs")
    }

    /// Puts a tree at the root of a mount that shows one revision.
    fn make_current(&self, tree: Arc<Tree>) {
        let Layout::One { revision, .. } = &self.layout else { return };
        let Some(slot) = self.table.slot(tree.commit, &format!("rev/{revision}")) else {
            tracing::warn!("no inode numbers are left: the root stays where it is");
            return;
        };
        let epoch = self.epochs.enter(slot, tree.commit, (ROOT_INO, ""));
        epoch.set_tree(tree);
        let before = self.current.write().replace(epoch);
        // An epoch holds one look-up for being the current one.
        if let Some(before) = before {
            self.epochs.forget(before.slot, 1);
        }
    }

    /// The tree of a commit, built once however many ask.
    pub async fn tree(&self, commit: CommitId) -> Result<Arc<Tree>, VfsError> {
        let epochs = self.epochs.all();
        let mut of_commit = epochs.iter().filter(|epoch| epoch.commit == commit);
        if let Some(tree) = of_commit.find_map(|epoch| epoch.tree()) {
            return Ok(Arc::clone(tree));
        }
        let registry = Arc::clone(&self.registry);
        let (stats, known) = (Arc::clone(&self.stats), Arc::clone(&self.known));
        let build = run_blocking(move || {
            let tree = tree::build(registry.repository(), commit, &known)?;
            report_problems(&tree, &stats);
            Ok(Arc::new(tree))
        });
        self.trees.get_or_make(commit, build).await
    }

    /// The commit a revision stands for now.
    async fn resolve(&self, revision: String) -> Result<CommitId, VfsError> {
        let registry = Arc::clone(&self.registry);
        let resolve = move || match registry.repository().resolve(&revision) {
            Ok(Resolved { commit, .. }) => Ok(commit),
            Err(
                GitError::UnknownRevision { .. }
                | GitError::AmbiguousRevision { .. }
                | GitError::EmptyRepository { .. },
            ) => Err(VfsError::NotFound),
            Err(error) => Err(error.into()),
        };
        run_blocking(resolve).await
    }

    /// The remotes that an output's content is fetched from.
    fn sources(&self, tree: &Tree, output: OutputId) -> Sources {
        if let Some((commit, known, sources)) = &*self.last_sources.lock()
            && (*commit, *known) == (tree.commit, output)
        {
            return sources.clone();
        }
        let tracked = tree.tracked(output);
        let project = &tree.projects[tracked.project];
        let sources = self.registry.sources((&project.root, project.config), &tracked.output);
        *self.last_sources.lock() = Some((tree.commit, output, sources.clone()));
        sources
    }

    /// Tells the kernel something, once somebody listens.
    fn tell(&self, event: Event) {
        // Nobody listens any more when the mount is being taken down.
        _ = self.events.send(event);
    }

    /// Whether anything shown may come to stand for another commit.
    pub fn can_move(&self) -> bool {
        !matches!(self.layout, Layout::One { follows: None, .. })
    }

    /// What is held in memory on behalf of the kernel, or for the next look.
    pub fn held(&self) -> Held {
        Held {
            epochs: self.epochs.len(),
            names: self.spots.len(),
            trees: self.trees.len(),
            manifests: self.kept_segments.len(),
        }
    }

    /// The commit at the root, in a mount that shows one revision.
    pub fn commit(&self) -> Option<CommitId> {
        self.current.read().as_ref().map(|epoch| epoch.commit)
    }
}

/// Runs blocking work off the asynchronous threads.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VfsError> + Send + 'static,
) -> Result<T, VfsError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|error| Err(VfsError::Interrupted(error.to_string())))
}

/// Logs what a build could not understand, without flooding the log.
fn report_problems(tree: &Tree, stats: &Stats) {
    const SHOWN: usize = 20;
    stats.bad_entries.add(tree.problems.len() as u64);
    for problem in tree.problems.iter().take(SHOWN) {
        tracing::warn!("{}: {}: {}", tree.commit, problem.path, problem.why);
    }
    if tree.problems.len() > SHOWN {
        tracing::warn!("{}: {} more such entries", tree.commit, tree.problems.len() - SHOWN);
    }
}
