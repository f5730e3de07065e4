//! What the remotes lack, and sending it there.

use std::{
    collections::HashMap, fs::File, io, num::NonZeroUsize, panic::resume_unwind, path::PathBuf,
    sync::Arc,
};

use tokio::task::{JoinSet, spawn_blocking};

use super::{Object, Plan, PushError, PushGround};
use crate::{
    cache::{BlobCache, Lookup},
    dvc::checksum::Checker,
    id::Key,
    path::RepoPath,
    remote::{Cause, Put, Remote, Sent, Source},
};

/// Parts of one object on their way at a time, at most.
const PARTS: usize = 8;

/// An object that its remote lacks, and that is here.
#[derive(Debug, Clone)]
pub struct Lacking {
    /// The object.
    pub object: Object,
    /// Its bytes.
    pub size: u64,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// A file of the outbox.
    Outbox(PathBuf),
    /// The cache, or one that is read beside it.
    Cache,
    /// No bytes are needed for it.
    Nothing,
}

/// Who hears how far it is.
#[derive(Clone)]
pub struct Hears {
    /// Of bytes.
    pub bytes: Sent,
    /// Of an object that has arrived.
    pub object: Arc<dyn Fn() + Send + Sync>,
}

impl Plan {
    /// The objects that their remotes lack, manifests last; an error if any of them is not here
    /// either, or has another size there than here.
    pub async fn lacking(&self, ground: PushGround<'_>) -> Result<Vec<Lacking>, PushError> {
        let mut lacking = Vec::new();
        for (at, remote) in self.remotes.iter().enumerate() {
            let objects: Vec<_> = self.objects.iter().filter(|it| it.remote == at).collect();
            if objects.is_empty() {
                continue;
            }
            let keys: Vec<_> = objects.iter().map(|object| object.key).collect();
            let present = ground.blobs.present(&keys, &**remote).await?;
            lacking.extend(look_here(ground, objects, &present, remote.url())?);
        }
        lacking.sort_by_key(|lacking| lacking.object.key.is_manifest);
        Ok(lacking)
    }

    /// Asks the remotes whether they have what was sent.
    pub async fn confirm(&self, ground: PushGround<'_>, sent: &[Lacking]) -> Result<(), PushError> {
        for (at, remote) in self.remotes.iter().enumerate() {
            let sent: Vec<_> = sent.iter().filter(|it| it.object.remote == at).collect();
            if sent.is_empty() {
                continue;
            }
            let keys: Vec<_> = sent.iter().map(|lacking| lacking.object.key).collect();
            let present = ground.blobs.present(&keys, &**remote).await?;
            let url = remote.url().to_owned();
            let mut paths = Vec::new();
            for Lacking { object, size, .. } in sent {
                match present.get(&object.key) {
                    Some(there) if there == size => {}
                    Some(there) => return Err(other(object, (*there, *size), &url)),
                    None => paths.push(object.path.clone()),
                }
            }
            if !paths.is_empty() {
                return Err(PushError::Lost { paths, url });
            }
        }
        Ok(())
    }
}

/// Finds on this disk what is not on the remote, and compares what is on both.
fn look_here(
    ground: PushGround<'_>,
    objects: Vec<&Object>,
    present: &HashMap<Key, u64>,
    url: &str,
) -> Result<Vec<Lacking>, PushError> {
    let (mut lacking, mut nowhere) = (Vec::new(), Vec::new());
    for object in objects {
        let found = find(ground, object)?;
        match (present.get(&object.key), found) {
            (Some(there), Some((size, _))) if *there != size => {
                return Err(other(object, (*there, size), url));
            }
            (Some(_), _) => {}
            (None, Some((size, place))) => {
                lacking.push(Lacking { object: object.clone(), size, place });
            }
            (None, None) => nowhere.push(object.path.clone()),
        }
    }
    if nowhere.is_empty() {
        return Ok(lacking);
    }
    Err(PushError::Nowhere { paths: nowhere, url: url.to_owned() })
}

fn other(object: &Object, (theirs, ours): (u64, u64), url: &str) -> PushError {
    let Object { key, path, .. } = object.clone();
    PushError::Other { path, key, url: url.to_owned(), theirs, ours }
}

fn find(ground: PushGround<'_>, object: &Object) -> Result<Option<(u64, Place)>, PushError> {
    let key = &object.key;
    if key.is_of_nothing() {
        return Ok(Some((0, Place::Nothing)));
    }
    if let Some(path) = ground.outbox.find(key) {
        let size = path.metadata().map_err(disk(&object.path))?.len();
        return Ok(Some((size, Place::Outbox(path))));
    }
    Ok(match ground.blobs.cache().open_blob(key, None) {
        Lookup::Hit(blob) => Some((blob.size(), Place::Cache)),
        Lookup::NeedsCheck(unchecked) => Some((unchecked.size(), Place::Cache)),
        Lookup::Miss => None,
    })
}

/// Puts everything into its remote, so many objects at a time, and manifests once all blobs are
/// there. Stops at the first failure.
pub async fn send(
    ground: PushGround<'_>,
    plan: &Plan,
    lacking: &[Lacking],
    (at_once, hears): (NonZeroUsize, &Hears),
) -> Result<(), PushError> {
    let blobs = lacking.partition_point(|lacking| !lacking.object.key.is_manifest);
    let (blobs, manifests) = lacking.split_at(blobs);
    for objects in [blobs, manifests] {
        let parts = at_once.get() / objects.len().clamp(1, at_once.get());
        let parts = NonZeroUsize::new(parts.clamp(1, PARTS)).unwrap_or(NonZeroUsize::MIN);
        let upload = |lacking: &Lacking| {
            let Object { key, remote, .. } = &lacking.object;
            let remote = Arc::clone(&plan.remotes[*remote]);
            let note = ground.outbox.note_of_upload(key, remote.url());
            let (lacking, cache) = (lacking.clone(), ground.blobs.cache().clone());
            Upload { lacking, cache, remote, note, parts, hears: hears.clone() }
        };
        // Each a task of its own: most of what a small object takes is the making of its request.
        let (mut waiting, mut under_way) = (objects.iter().map(upload), JoinSet::new());
        loop {
            let free = at_once.get() - under_way.len();
            waiting.by_ref().take(free).for_each(|upload| {
                under_way.spawn(upload.run());
            });
            let Some(ended) = under_way.join_next().await else { break };
            let done = ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
            if done.is_err() {
                under_way.shutdown().await;
                return done;
            }
        }
    }
    Ok(())
}

/// An object on its way.
struct Upload {
    lacking: Lacking,
    cache: BlobCache,
    remote: Arc<dyn Remote>,
    /// Where it is noted how far it has come.
    note: PathBuf,
    parts: NonZeroUsize,
    hears: Hears,
}

impl Upload {
    async fn run(self) -> Result<(), PushError> {
        let Self { lacking, cache, remote, note, parts, hears } = self;
        let Lacking { object, place, .. } = lacking;
        let (key, path) = (object.key, &object.path);
        let opened = spawn_blocking(move || open(&cache, &key, &place)).await;
        let file = opened.map_err(io::Error::other).flatten().map_err(disk(path))?;
        let source = Source::new(file).map_err(disk(path))?;
        let source = source.in_parts_at_once(parts).noting_in(note).telling(hears.bytes.clone());
        match remote.put(key, &source).await {
            Ok(Put::Stored) => {}
            // Somebody else was faster, and the bytes need not be sent.
            Ok(Put::Present) => {
                let there = remote.size(key).await.map_err(not_put(path))?;
                if there != source.size() {
                    return Err(other(&object, (there, source.size()), remote.url()));
                }
            }
            Err(error) => {
                let may_be_ours = matches!(error.cause, Cause::Local | Cause::Unreachable);
                if may_be_ours && !is_sound(source.clone(), key).await.map_err(disk(path))? {
                    return Err(PushError::Damaged { path: path.clone(), key });
                }
                return Err(not_put(path)(error));
            }
        }
        // Of what was there already not all was sent.
        (hears.bytes)(source.size() as i64 - source.told());
        (hears.object)();
        Ok(())
    }
}

fn open(cache: &BlobCache, key: &Key, place: &Place) -> io::Result<File> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "it has left the cache meanwhile");
    match place {
        Place::Outbox(path) => File::open(path),
        Place::Nothing => File::open("/dev/null"),
        Place::Cache => match cache.open_blob(key, None) {
            Lookup::Hit(blob) => blob.file().try_clone(),
            Lookup::NeedsCheck(unchecked) => unchecked.check().ok_or_else(gone)?.file().try_clone(),
            Lookup::Miss => Err(gone()),
        },
    }
}

/// Whether the bytes here are what their name says.
async fn is_sound(source: Source, key: Key) -> io::Result<bool> {
    let check = move || {
        let mut checker = Checker::new(key.scheme, key.is_manifest);
        source.each(|bytes| checker.update(bytes))?;
        Ok(checker.finish().matches(&key.digest))
    };
    spawn_blocking(check).await.map_err(io::Error::other)?
}

fn not_put(path: &RepoPath) -> impl Fn(crate::remote::RemoteError) -> PushError {
    move |source| PushError::Put { path: path.clone(), source: Box::new(source) }
}

fn disk(path: &RepoPath) -> impl Fn(io::Error) -> PushError {
    move |source| PushError::Disk { path: path.clone(), source }
}
