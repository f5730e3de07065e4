//! Learning sizes nobody knows yet.
//!
//! A manifest gives no sizes, and `stat` must tell the truth, so the remote is asked. How depends
//! on what the program seems to be doing: the first question for one file starts the file's
//! download, whose headers tell the size, so that a program which opens and reads it next costs
//! one request in all; after a listing, or when a size was told and the next question is for another
//! file of the same folder instead of a read, the whole folder is sized at once. Programs that open
//! several files at a time ask for some before they are told of the first, which proves nothing.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::timeout,
};

use super::{Epoch, Ino, Vfs, VfsError, attributes::Size};
use crate::{
    blobs::{BlobError, Sources, Unsized},
    id::{BlobId, Key, Scheme},
    tree::{Index, Node, OutputId, Tree},
};

/// Folders that were listed lately, as far back as anybody may still ask for their files' sizes.
const LISTED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// What programs seem to be doing.
#[derive(Debug)]
pub(super) struct Sizing {
    listed: Mutex<LruCache<Ino, ()>>,
    /// The folder of the last file whose size was asked for and told, until something is read.
    told: Mutex<Option<Ino>>,
    /// Questions for single files that are under way.
    asking: Semaphore,
    /// Folders that are being sized, and who tells of progress there.
    running: Mutex<HashMap<Ino, watch::Receiver<()>>>,
    /// Folders that were sized lately.
    swept: Mutex<LruCache<Ino, Swept>>,
    /// When a remote was last found unreachable, and how: for a moment nobody waits for it again,
    /// or listing a folder would wait once for each of its files.
    trouble: Mutex<Option<(Instant, BlobError)>>,
}

/// A folder that was sized.
#[derive(Debug)]
struct Swept {
    since: Instant,
    /// Objects whose sizes nobody tells.
    failed: HashMap<Key, Unsized>,
}

/// Questions for single files at a time: more programs at once are none that read.
const ASKING: usize = 16;

/// How long a remote's trouble is remembered, and what it lacks.
const TROUBLE: Duration = Duration::from_secs(10);

/// How long the sizing of one folder may take.
const SIZING: Duration = Duration::from_mins(2);

/// How long the question for one size waits for its folder, before it asks by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Folders that were sized lately, and how many failures are remembered of each.
const SWEPT: NonZeroUsize = NonZeroUsize::new(16).unwrap();
const FAILURES: usize = 100_000;

impl Default for Sizing {
    fn default() -> Self {
        Self {
            listed: Mutex::new(LruCache::new(LISTED)),
            told: Mutex::default(),
            asking: Semaphore::new(ASKING),
            running: Mutex::default(),
            swept: Mutex::new(LruCache::new(SWEPT)),
            trouble: Mutex::default(),
        }
    }
}

impl Sizing {
    /// A folder was listed.
    pub(super) fn listed(&self, folder: Ino) {
        self.listed.lock().put(folder, ());
    }

    /// A file was opened to be read.
    pub(super) fn opened(&self) {
        *self.told.lock() = None;
    }

    fn note_trouble(&self, error: &BlobError) {
        if let BlobError::Unreachable(_) = error {
            self.note_general_trouble(error);
        }
    }

    /// Trouble that is not about one object alone.
    fn note_general_trouble(&self, error: &BlobError) {
        *self.trouble.lock() = Some((Instant::now(), error.clone()));
    }

    fn note_swept(&self, folder: Ino, failed: impl IntoIterator<Item = Unsized>) {
        let failed = failed.into_iter().take(FAILURES).map(|it| (it.key, it)).collect();
        self.swept.lock().put(folder, Swept { since: Instant::now(), failed });
    }

    /// Whether the folder was sized just now, and what that said of one of its objects.
    fn swept(&self, folder: Ino, key: Key) -> (bool, Option<Unsized>) {
        let mut swept = self.swept.lock();
        let fresh = swept.get(&folder).filter(|swept| swept.since.elapsed() < TROUBLE);
        (fresh.is_some(), fresh.and_then(|swept| swept.failed.get(&key).copied()))
    }

    /// The trouble that a remote is known to be in.
    fn trouble(&self, sources: &Sources) -> Option<BlobError> {
        let trouble = self.trouble.lock();
        let (_, error) = trouble.as_ref().filter(|(since, _)| since.elapsed() < TROUBLE)?;
        let is_of = |url: &str| url == error.failure().url;
        sources.iter().any(|remote| is_of(remote.url())).then(|| error.clone())
    }

    /// A permit for a question that is for one file alone, and not one of many in its folder.
    fn single(&self, folder: Ino) -> Option<SemaphorePermit<'_>> {
        let is_one_of_many =
            *self.told.lock() == Some(folder) || self.listed.lock().get(&folder).is_some();
        if is_one_of_many { None } else { self.asking.try_acquire().ok() }
    }

    /// A size was told of a file in this folder.
    fn told(&self, folder: Ino) {
        *self.told.lock() = Some(folder);
    }
}

impl Vfs {
    /// Learns the size of a blob in bytes, and perhaps those beside it.
    pub(super) async fn learn_size(
        &self,
        epoch: &Arc<Epoch>,
        index: Index,
    ) -> Result<u64, VfsError> {
        let tree = epoch.tree().ok_or(VfsError::Stale)?;
        let Some(Node::Blob { id: Some(id), output, .. }) = tree.node(index)? else { return Ok(0) };
        let folder = Ino::new(epoch.slot, tree.parent(index)?);
        let sources = self.sources(tree, output);
        let result = match self.blobs.size_at_hand(id, &sources).await {
            Some(size) => Ok(size),
            None => self.ask_size((epoch, folder), id.into(), &sources).await,
        };
        let error = match result {
            Ok(size) => return Ok(size),
            Err(error) => {
                // What waits in the outbox is here, whatever the remote says or fails to say.
                if let Some(size) = self.blobs.size_by_check(id, &sources).await {
                    return Ok(size);
                }
                self.sizing.note_trouble(&error);
                VfsError::from(error)
            }
        };
        tracing::warn!("{}: size of {}: {error}", tree.commit, tree.shown_path(index));
        self.note_missing(&error);
        Err(error)
    }

    /// Asks the remotes for a size, as the rest of its folder suggests.
    async fn ask_size(
        &self,
        (epoch, folder): (&Arc<Epoch>, Ino),
        key: Key,
        sources: &Sources,
    ) -> Result<u64, BlobError> {
        if let Some(error) = self.sizing.trouble(sources) {
            return Err(error);
        }
        if let Some(_single) = self.sizing.single(folder) {
            let size = self.blobs.size_by_fetch(key, sources).await;
            self.sizing.told(folder);
            return size;
        }
        if let Some(mut progress) = self.size_folder(folder, key, epoch) {
            let told = async {
                while self.blobs.known_size(key, sources).is_none() {
                    if progress.changed().await.is_err() {
                        return;
                    }
                }
            };
            // However it ended, what is known now decides.
            drop(timeout(PATIENCE, told).await);
        }
        if let Some(size) = self.blobs.known_size(key, sources) {
            return Ok(size);
        }
        if let Some(error) = self.sizing.trouble(sources) {
            return Err(error);
        }
        let asked = match self.sizing.swept(folder, key) {
            (_, Some(failed)) => Err(failed.error(sources)),
            _ => self.blobs.resolve_size(key, sources).await,
        };
        match asked {
            Err(error @ BlobError::Missing(_)) => {
                self.blobs.size_by_check(key, sources).await.ok_or(error)
            }
            asked => asked,
        }
    }

    /// Has every unknown size in a folder asked for, once however many want one of them; gives who
    /// tells of progress. Nothing if that was done just now.
    fn size_folder(
        &self,
        folder: Ino,
        key: Key,
        epoch: &Arc<Epoch>,
    ) -> Option<watch::Receiver<()>> {
        let mut running = self.sizing.running.lock();
        if let Some(progress) = running.get(&folder) {
            return Some(progress.clone());
        }
        if let (true, _) = self.sizing.swept(folder, key) {
            return None;
        }
        let (teller, progress) = watch::channel(());
        running.insert(folder, progress.clone());
        let (vfs, epoch) = (self.myself(), Arc::clone(epoch));
        self.runtime.spawn(async move {
            let sizing = vfs.learn_folder(&epoch, folder, &teller);
            // What it has not learnt by then is asked anew.
            drop(timeout(SIZING, sizing).await);
            vfs.sizing.running.lock().remove(&folder);
        });
        Some(progress)
    }

    async fn learn_folder(&self, epoch: &Epoch, folder: Ino, teller: &watch::Sender<()>) {
        let Some(tree) = epoch.tree() else { return };
        let mut failed = Vec::new();
        let mut unknown = self.unknown_sizes(tree, folder.index());
        let spared = spare_one(tree, folder.index(), &mut unknown);
        let learnt = || _ = teller.send(());
        for (sources, keys) in &unknown {
            match self.blobs.resolve_sizes(keys, sources, &learnt).await {
                Ok(rest) => failed.extend(rest),
                Err(error) => self.sizing.note_general_trouble(&error),
            }
        }
        if let (Some((key, sum)), Some((sources, _))) = (spared, unknown.first())
            && self.blobs.known_size(key, sources).is_none()
        {
            match self.rest_of(sum, tree, folder.index(), key) {
                Some(bytes) => self.blobs.claim_size(key, sources, bytes),
                None => match self.blobs.resolve_sizes(&[key], sources, &learnt).await {
                    Ok(rest) => failed.extend(rest),
                    Err(error) => self.sizing.note_general_trouble(&error),
                },
            }
        }
        self.sizing.note_swept(folder, failed);
    }

    /// What is left of the sum of a folder's sizes for one file of it; nothing where the sum is not
    /// that of what the folder shows.
    fn rest_of(&self, sum: u64, tree: &Tree, folder: Index, key: Key) -> Option<u64> {
        let Ok(Some(Node::Folder { output: Some(all) })) = tree.node(folder) else { return None };
        let mut rest = Some(sum);
        let walked = tree.listing(folder).ok()?.walk(0, |entry| {
            let size = match entry.node {
                Node::Blob { id: Some(id), .. } if Key::from(id) == key => Size::Known(0),
                Node::Blob { id, output, claim, .. } if output == all => {
                    self.size(tree, output, id, claim)
                }
                _ => Size::Unknown,
            };
            rest = match size {
                Size::Known(bytes) => rest.and_then(|rest| rest.checked_sub(bytes)),
                Size::Unknown => None,
            };
            if rest.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        walked.ok()?;
        rest.filter(|rest| *rest > 0)
    }

    /// The blobs of unknown size directly in a folder, by the remote that has them.
    fn unknown_sizes(&self, tree: &Tree, folder: Index) -> Vec<(Sources, Vec<Key>)> {
        let Ok(listing) = tree.listing(folder) else { return Vec::new() };
        let mut by_output: HashMap<OutputId, Vec<Key>> = HashMap::new();
        let walked = listing.walk(0, |entry| {
            if let Node::Blob { id: Some(id), output, claim, .. } = entry.node
                && self.size(tree, output, Some::<BlobId>(id), claim) == Size::Unknown
            {
                by_output.entry(output).or_default().push(id.into());
            }
            ControlFlow::Continue(())
        });
        if walked.is_err() {
            tracing::debug!("{}: some sizes are asked for one by one", tree.shown_path(folder));
        }
        // Outputs of one remote are asked for together: each may be a single file.
        let mut by_sources: Vec<(Sources, Vec<Key>)> = Vec::new();
        for (output, keys) in by_output {
            let sources = self.sources(tree, output);
            match by_sources.iter_mut().find(|(known, _)| are_same(known, &sources)) {
                Some((_, known)) => known.extend(keys),
                None => by_sources.push((sources, keys)),
            }
        }
        by_sources
    }
}

/// Takes out one of the unknown sizes of a folder that need not be asked for, since a declaration
/// tells the sum of all; gives it and the sum. What asking to list has cost in vain is saved there.
fn spare_one(
    tree: &Tree,
    folder: Index,
    unknown: &mut [(Sources, Vec<Key>)],
) -> Option<(Key, u64)> {
    let Ok(Some(Node::Folder { output: Some(output) })) = tree.node(folder) else { return None };
    let sum = tree.tracked(output).output.size?;
    let [(_, keys)] = unknown else { return None };
    let (last, others) = keys.split_last()?;
    if others.is_empty() || others.contains(last) || last.scheme != Scheme::Md5 {
        return None;
    }
    let last = keys.pop()?;
    Some((last, sum))
}

fn are_same(one: &Sources, other: &Sources) -> bool {
    one.len() == other.len() && one.iter().zip(other.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
}
