//! Files of a writable mount that were handed to the kernel, which then reads and writes them by
//! itself.
//!
//! All opens of an inode at a time are of one kind, as [`super::backings`] says. A file of the
//! overlay is passed if nobody has it open yet; one that was opened before it was copied up is
//! served until its last release.

use std::{collections::HashMap, sync::Arc};

use fuser::BackingId;
use parking_lot::Mutex;

use crate::vfs::Ino;

/// The inodes that are open.
#[derive(Debug, Default)]
pub(super) struct Uppers(Mutex<HashMap<Ino, Open>>);

#[derive(Debug)]
struct Open {
    passed: Option<Arc<BackingId>>,
    count: u64,
}

impl Uppers {
    /// Decides how an open is answered and counts it: with the id of a backing file, which
    /// `register` gets if this is the first open of the inode, or served.
    pub(super) fn open(
        &self,
        ino: Ino,
        register: impl FnOnce() -> Option<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let is_first = !self.0.lock().contains_key(&ino);
        let passed = if is_first { register().map(Arc::new) } else { None };
        let mut opens = self.0.lock();
        let open = opens.entry(ino).or_insert(Open { passed, count: 0 });
        open.count += 1;
        open.passed.clone()
    }

    /// One open of an inode has ended.
    pub(super) fn release(&self, ino: Ino) {
        let mut opens = self.0.lock();
        let Some(open) = opens.get_mut(&ino) else { return };
        open.count -= 1;
        let ended = if open.count == 0 { opens.remove(&ino) } else { None };
        drop(opens);
        drop(ended);
    }
}
