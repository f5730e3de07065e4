//! Another base below the overlay: once its changes are in a commit, or are dropped.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use super::{
    super::{Event, ROOT_INO, Vfs, VfsError, epochs::Epoch, follow::root_names, run_blocking},
    Open, View,
    names::{Names, Seat},
};
use crate::{git::CommitId, overlay::Overlay, path::RepoPath};

/// What came of an attempt to change what is below or above.
#[derive(Debug)]
pub enum Rebased<T> {
    /// It is done.
    Done(T),
    /// Nothing was done, since these files are open for writing.
    Open(Vec<RepoPath>),
    /// Nothing was done, since something was written since the given moment.
    Written,
}

/// A moment at which nobody could write to any file.
#[derive(Debug)]
pub struct Stillness {
    writes: u64,
    /// The files that were open.
    pub open: BTreeSet<RepoPath>,
}

impl Vfs {
    /// The present moment, if no file is open for writing; else those that are.
    pub fn stillness(&self) -> Result<Result<Stillness, Vec<RepoPath>>, VfsError> {
        self.on_disk(|view| {
            let names = view.names()?;
            // In this order, so that whoever comes to write in between is noticed later.
            let writes = view.upper.writes.load(Ordering::SeqCst);
            let written = view.open_files(&names, |open| open.writers > 0);
            if !written.is_empty() {
                return Ok(Err(written));
            }
            let open = view.open_files(&names, |_| true).into_iter().collect();
            Ok(Ok(Stillness { writes, open }))
        })
    }

    /// Has `edit` change the overlay while no program can, and then shows the overlay above
    /// `commit`; nothing is done if a file is open for writing or was since the given moment, and
    /// nothing but what `edit` did if that fails. It is told which files are open.
    ///
    /// Every folder and file has a new number afterwards. What was opened before keeps its bytes; a
    /// program whose working folder is in the mount sees the tree as it was before, and cannot
    /// change it.
    pub async fn rebase<T: Send + 'static, E: Send + 'static>(
        &self,
        commit: CommitId,
        since: Option<&Stillness>,
        edit: impl FnOnce(&Overlay, &BTreeSet<RepoPath>) -> Result<T, E> + Send + 'static,
    ) -> Result<Rebased<Result<T, E>>, VfsError> {
        let upper = self.upper.get().ok_or(VfsError::ReadOnly)?;
        let tree = self.tree(commit).await?;
        let turn = upper.turns.fetch_add(1, Ordering::Relaxed) + 1;
        let slot =
            self.table.slot(commit, &format!("overlay/{turn}")).ok_or(VfsError::Numberless)?;
        let epoch = self.epochs.enter(slot, commit, (ROOT_INO, ""));
        epoch.set_tree(tree);
        let vfs = self.myself();
        let next = Arc::clone(&epoch);
        let writes = since.map(|moment| moment.writes);
        let rebased = run_blocking(move || vfs.rebase_now(&next, writes, edit)).await;
        if matches!(rebased, Ok(Rebased::Done(Ok(_)))) {
            let registry = Arc::clone(&self.registry);
            run_blocking(move || {
                registry.keep(commit);
                Ok(())
            })
            .await?;
            self.wait_until_told().await;
        } else {
            self.epochs.forget(slot, 1);
        }
        rebased
    }

    fn rebase_now<T, E>(
        &self,
        next: &Arc<Epoch>,
        writes: Option<u64>,
        edit: impl FnOnce(&Overlay, &BTreeSet<RepoPath>) -> Result<T, E>,
    ) -> Result<Rebased<Result<T, E>>, VfsError> {
        self.on_disk(|view| {
            let mut names = view.names()?;
            // Whoever is to write counts as open first and asks for the names then: it is seen here,
            // or finds that its file is one of an earlier base.
            let written = view.open_files(&names, |open| open.writers > 0);
            if !written.is_empty() {
                return Ok(Rebased::Open(written));
            }
            if writes.is_some_and(|writes| writes != view.upper.writes.load(Ordering::SeqCst)) {
                return Ok(Rebased::Written);
            }
            let open = view.open_files(&names, |_| true).into_iter().collect();
            let mut shown = root_names(view.tree);
            let above = view.upper.overlay.list(&RepoPath::root())?;
            shown.extend(above.into_iter().map(|listed| listed.name.as_bytes().to_vec()));
            let edited = edit(&view.upper.overlay, &open);
            if edited.is_err() {
                return Ok(Rebased::Done(edited));
            }
            view.note_loose(&names);
            names.start_over(next.slot);
            *view.upper.epoch.write() = Arc::clone(next);
            let before = self.current.write().replace(Arc::clone(next));
            drop(names);
            // An epoch holds one look-up for being the current one.
            if let Some(before) = before {
                self.epochs.forget(before.slot, 1);
            }
            shown.extend(next.tree().map(|tree| root_names(tree)).unwrap_or_default());
            self.tell(Event::Folder { ino: ROOT_INO, names: shown.into_iter().collect() });
            Ok(Rebased::Done(edited))
        })
    }
}

impl View<'_> {
    /// Notes which files that are open have no name above this base.
    fn note_loose(&self, names: &Names) {
        for (ino, open) in self.upper.open.lock().iter_mut() {
            let is_gone = matches!(names.seat(*ino), Some(Seat::Gone(_)));
            open.is_loose |= is_gone && names.is_present(*ino);
        }
    }

    /// The open files of some kind that have a name, in order.
    fn open_files(&self, names: &Names, is_wanted: impl Fn(&Open) -> bool) -> Vec<RepoPath> {
        let open = self.upper.open.lock();
        let wanted = open.iter().filter(|(_, open)| is_wanted(open)).map(|(ino, _)| *ino);
        let wanted: Vec<_> = wanted.collect();
        drop(open);
        let with_name =
            wanted.iter().filter(|ino| !matches!(names.seat(**ino), Some(Seat::Gone(_))));
        let mut paths: Vec<_> = with_name.filter_map(|ino| self.path(names, *ino).ok()).collect();
        paths.sort();
        paths
    }
}
