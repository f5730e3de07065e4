//! The files in `.dvcfs/`: each look-up makes a fresh one, so that its size is true.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use super::{Attr, Ino, Lookup, Ttl, Vfs, VfsError, names::ReportKind};
use crate::{blobs::BlobError, id::Key, stats, usage::Usage};

/// Reports take the upper half of slot 0, away from the names.
const FIRST: u64 = 1 << 39;

/// At most so many missing objects are remembered.
const MAX_MISSING: usize = 10_000;

/// What `.dvcfs/stats` tells.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StatsReport {
    /// The counters.
    #[serde(flatten)]
    pub counters: stats::Snapshot,
    /// What the process takes.
    pub process: Usage,
}

/// Reports the kernel knows, and the missing objects one of them tells.
#[derive(Debug, Default)]
pub(super) struct Reports {
    texts: RwLock<HashMap<Ino, Arc<[u8]>>>,
    made: AtomicU64,
    missing: Mutex<BTreeSet<Key>>,
}

impl Reports {
    pub(super) fn contains(ino: Ino) -> bool {
        ino.slot() == 0 && ino.index() >= FIRST
    }

    pub(super) fn text(&self, ino: Ino) -> Option<Arc<[u8]>> {
        self.texts.read().get(&ino).cloned()
    }

    pub(super) fn attr(&self, ino: Ino, vfs: &Vfs) -> Option<(Attr, Ttl)> {
        Some((vfs.report_attr(ino, self.text(ino)?.len() as u64), Ttl::Forever))
    }

    /// A report is looked up once, so the first forgetting is the last.
    pub(super) fn forget(&self, ino: Ino) {
        self.texts.write().remove(&ino);
    }

    fn add(&self, text: Vec<u8>) -> Ino {
        let ino = Ino(FIRST + self.made.fetch_add(1, Ordering::Relaxed));
        self.texts.write().insert(ino, text.into());
        ino
    }
}

impl Vfs {
    /// What was done so far, and what it takes.
    pub fn stats(&self) -> StatsReport {
        StatsReport { counters: self.stats.snapshot(), process: Usage::now() }
    }

    pub(super) fn found_report(&self, kind: ReportKind) -> Lookup {
        let text = self.report(kind);
        let size = text.len() as u64;
        let attr = self.report_attr(self.reports.add(text.into_bytes()), size);
        Lookup::Found { attr, entry_ttl: Ttl::None, attr_ttl: Ttl::Forever }
    }

    fn report(&self, kind: ReportKind) -> String {
        match kind {
            ReportKind::Version => format!("dvcfs {}\n", env!("CARGO_PKG_VERSION")),
            ReportKind::Stats => {
                let report = serde_json::to_string_pretty(&self.stats());
                report.unwrap_or_default() + "\n"
            }
            ReportKind::Missing => {
                let missing = self.reports.missing.lock();
                missing.iter().flat_map(|key| [key.path(), "\n".to_owned()]).collect()
            }
        }
    }

    /// Remembers an object that no remote has.
    pub(super) fn note_missing(&self, error: &VfsError) {
        let VfsError::Blob(BlobError::Missing(failure)) = error else { return };
        let mut missing = self.reports.missing.lock();
        if missing.len() < MAX_MISSING {
            missing.insert(failure.key);
        }
    }
}
