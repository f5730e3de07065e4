//! Where unchecked bytes of large blobs were shown.
//!
//! A large blob is read while it is on its way, so the kernel may hold pages of it that nobody has
//! checked. They stay when they come from the download that is read now, or from one that was
//! checked since.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::Ino;
use crate::{blobs::Fetch, id::Key};

/// A download, and a file that its unchecked bytes were shown as.
type Exposure = (Weak<Fetch>, Ino);

/// Downloads whose bytes were shown before all of them were checked.
#[derive(Debug, Default)]
pub(super) struct Exposures(Mutex<HashMap<Key, Vec<Exposure>>>);

impl Exposures {
    /// Notes that unchecked bytes are about to be shown.
    pub(super) fn expose(&self, key: Key, fetch: &Arc<Fetch>, ino: Ino) {
        let mut exposed = self.0.lock();
        let shown = exposed.entry(key).or_default();
        let fetch = Arc::downgrade(fetch);
        if !shown.iter().any(|(known, at)| *at == ino && known.ptr_eq(&fetch)) {
            shown.push((fetch, ino));
        }
    }

    /// The files that show the blob.
    pub(super) fn of(&self, key: Key) -> Vec<Ino> {
        let exposed = self.0.lock();
        exposed.get(&key).into_iter().flatten().map(|(_, ino)| *ino).collect()
    }

    /// All of a download was checked, so whatever was shown of it is right.
    pub(super) fn retire(&self, fetch: &Arc<Fetch>) {
        self.take(|shown| std::ptr::eq(shown.as_ptr(), Arc::as_ptr(fetch)));
    }

    /// The files that show bytes of downloads that ended unchecked. They are forgotten: the caller
    /// has their pages dropped.
    pub(super) fn take_abandoned(&self) -> Vec<Ino> {
        self.take(|shown| shown.strong_count() == 0)
    }

    fn take(&self, is_over: impl Fn(&Weak<Fetch>) -> bool) -> Vec<Ino> {
        let (mut exposed, mut taken) = (self.0.lock(), Vec::new());
        exposed.retain(|_, shown| {
            taken.extend(shown.extract_if(.., |(fetch, _)| is_over(fetch)).map(|(_, ino)| ino));
            !shown.is_empty()
        });
        taken
    }

    /// Whether all pages that the kernel may hold of a file came from this download, or from one
    /// that was checked since. What it may hold besides is forgotten: the caller has it dropped.
    pub(super) fn settle_pages(&self, key: Key, ino: Ino, current: Option<&Arc<Fetch>>) -> bool {
        let mut exposed = self.0.lock();
        let Some(shown) = exposed.get_mut(&key) else { return true };
        let before = shown.len();
        let is_sound = |fetch: &Weak<Fetch>| {
            let fetch = fetch.upgrade();
            fetch.is_some_and(|fetch| {
                current.is_some_and(|current| Arc::ptr_eq(&fetch, current))
                    || fetch.cached().is_some()
            })
        };
        shown.retain(|(fetch, at)| *at != ino || is_sound(fetch));
        let are_sound = shown.len() == before;
        if shown.is_empty() {
            exposed.remove(&key);
        }
        are_sound
    }
}
