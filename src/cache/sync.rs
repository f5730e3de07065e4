//! Puts admitted blobs on disk behind the reader, then stamps them.
//!
//! One thread with a bounded queue. A blob that finds the queue full, or that a crash overtakes,
//! keeps its mark: it is checked again before it is served in another life, and then comes here.
//!
//! A few blobs are synced one by one. Each takes a flush of the disk, some milliseconds, so many
//! are synced together with all else that their file system has to write ([`Disk`]).

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

use super::{
    Key, Shared,
    layout::{Standing, is_writable, stamp_secs, standing},
    open_regular,
    seen::Fingerprint,
    set_times,
};

/// Blobs that may wait.
const QUEUE: usize = 4096;

/// Blobs that are synced before the first of them is stamped: the disk then commits them together.
const BATCH: usize = 64;

/// So many are worth to have the whole file system synced, with what others have written to it.
const MANY: usize = 8;

/// From this version of Linux on, syncing a file system tells of writes that failed.
const TELLS_FAILURES: (u32, u32) = (5, 8);

enum Job {
    Sync(Key),
    Flush(SyncSender<()>),
}

/// The thread and its queue. Dropping it finishes the queue.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Job>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Syncer {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (queue, jobs) = sync_channel(QUEUE);
        let worker = shared.clone();
        let thread = thread::Builder::new()
            .name("dvcfs-sync".into())
            .spawn(move || run(&worker, &jobs))
            .inspect_err(|error| tracing::warn!(%error, "cached blobs are not synced"))
            .ok();
        Self { shared, queue: Some(queue), thread: Mutex::new(thread) }
    }

    /// Has `key`, which is marked, synced and stamped some time.
    pub(super) fn enqueue(&self, key: &Key) {
        let is_queued =
            self.queue.as_ref().is_some_and(|queue| queue.try_send(Job::Sync(*key)).is_ok());
        if !is_queued {
            self.shared.view.set_unsynced(*key, false);
        }
    }

    /// Waits until everything queued so far is done.
    pub(super) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.queue.as_ref().is_some_and(|queue| queue.send(Job::Flush(done)).is_ok()) {
            // An error means that the thread has ended, so nothing is left to wait for.
            is_done.recv().unwrap_or(());
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the syncer panicked");
        }
    }
}

fn run(shared: &Shared, jobs: &Receiver<Job>) {
    let mut disk = Disk::default();
    while let Ok(first) = jobs.recv() {
        let mut keys = Vec::new();
        let mut waiting = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1)) {
            match job {
                Job::Sync(key) => keys.push(key),
                Job::Flush(done) => waiting.push(done),
            }
        }
        sync_all(shared, &mut disk, &keys);
        for done in waiting {
            let _ = done.try_send(());
        }
    }
}

/// Syncs the files of a batch and stamps them.
fn sync_all(shared: &Shared, disk: &mut Disk, keys: &[Key]) {
    let opened: Vec<_> = keys.iter().map(|key| (key, open_marked(shared, key))).collect();
    let files = || opened.iter().filter_map(|(_, file)| file.as_ref().ok()?.as_ref());
    let are_synced = files().count() >= MANY && disk.sync(&shared.layout.root, files());
    let sync = |file: Option<File>| match file {
        Some(file) if !are_synced => file.sync_data().map(|()| Some(file)),
        synced => Ok(synced),
    };
    let synced: Vec<_> = opened.into_iter().map(|(key, file)| (key, file.and_then(sync))).collect();
    for (key, synced) in synced {
        let stamped = synced.and_then(|file| file.map_or(Ok(()), |file| stamp(shared, key, &file)));
        if let Err(error) = stamped {
            // Once a sync has failed, nobody can tell what is on disk.
            tracing::warn!(%key, %error, "blob not kept: its bytes could not be synced");
            shared.stats.cache_failures.add(1);
            if let Ok(found) = fs::symlink_metadata(shared.layout.blob(key))
                && standing(key, &found, shared.user) == Standing::Marked
            {
                shared.discard(key, &found);
            }
        }
        shared.view.set_unsynced(*key, false);
    }
}

/// The cache's file system as a whole.
#[derive(Default)]
struct Disk {
    /// The device of the cache's folder, which is held open, since a failed write is told to those who
    /// were there before it.
    folder: Option<(u64, File)>,
}

impl Disk {
    /// Syncs everything; false where that does not say whether these files are on disk.
    fn sync<'a>(&mut self, root: &Path, mut files: impl Iterator<Item = &'a File>) -> bool {
        if self.folder.is_none() && tells_failures() {
            let with_device = |file: File| Some((file.metadata().ok()?.dev(), file));
            self.folder = File::open(root).ok().and_then(with_device);
        }
        let Some((device, folder)) = &self.folder else { return false };
        let is_of_it = |file: &File| file.metadata().is_ok_and(|found| found.dev() == *device);
        files.all(is_of_it) && rustix::fs::syncfs(folder).is_ok()
    }
}

fn tells_failures() -> bool {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor)))
        if (major, minor) >= TELLS_FAILURES)
}

fn open_marked(shared: &Shared, key: &Key) -> io::Result<Option<File>> {
    let opened = open_regular(&shared.layout.blob(key), true)?;
    let is_marked = |found: &_| standing(key, found, shared.user) == Standing::Marked;
    Ok(opened.filter(|(_, found)| is_marked(found)).map(|(file, _)| file))
}

/// Stamps a synced file that is still as we made it, then lets DVC trust it.
fn stamp(shared: &Shared, key: &Key, file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if standing(key, &found, shared.user) != Standing::Marked || found.uid() != shared.user {
        return Ok(());
    }
    // In this order: whoever has it open takes a mark for a stamp as soon as nobody may write.
    file.set_permissions(Permissions::from_mode(0o444))?;
    set_times(file, None, Some(stamp_secs(&key.digest)))?;
    let stamped = file.metadata()?;
    if is_writable(&stamped) {
        // The disk knows no modes.
        shared.seen.remember(Fingerprint::of(key, &stamped), true);
    }
    Ok(())
}
