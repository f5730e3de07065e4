//! Puts admitted blobs on disk behind the reader, then stamps them.
//!
//! One thread with a bounded queue. A blob that finds the queue full, or that a crash overtakes,
//! keeps its mark: it is checked again before it is served in another life, and then comes here.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

use super::{
    Key, Shared,
    layout::{Standing, stamp_secs, standing},
    open_regular, set_times,
};

/// Blobs that may wait.
const QUEUE: usize = 4096;

/// Blobs whose write-back is begun together.
const BATCH: usize = 64;

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
    while let Ok(first) = jobs.recv() {
        let mut keys = Vec::new();
        let mut waiting = Vec::new();
        for job in std::iter::once(first).chain(jobs.try_iter().take(BATCH - 1)) {
            match job {
                Job::Sync(key) => keys.push(key),
                Job::Flush(done) => waiting.push(done),
            }
        }
        sync_all(shared, &keys);
        for done in waiting {
            let _ = done.try_send(());
        }
    }
}

/// Syncs every file of the batch before the first is stamped: the disk then commits them together.
fn sync_all(shared: &Shared, keys: &[Key]) {
    let synced: Vec<_> = keys.iter().map(|key| (key, sync_one(shared, key))).collect();
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

fn sync_one(shared: &Shared, key: &Key) -> io::Result<Option<File>> {
    let Some((file, found)) = open_regular(&shared.layout.blob(key), true)? else {
        return Ok(None);
    };
    if standing(key, &found, shared.user) != Standing::Marked {
        return Ok(None);
    }
    file.sync_data()?;
    Ok(Some(file))
}

/// Stamps a synced file that is still as we made it, then lets DVC trust it.
fn stamp(shared: &Shared, key: &Key, file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if standing(key, &found, shared.user) != Standing::Marked || found.uid() != shared.user {
        return Ok(());
    }
    set_times(file, None, Some(stamp_secs(&key.digest)))?;
    file.set_permissions(Permissions::from_mode(0o444))
}
