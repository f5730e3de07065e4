//! Manifests of tracked directories: fetched and compiled when something first looks inside.

use std::{
    error::Error as _,
    io::{self, BufRead, BufReader, Read},
    sync::Arc,
};

use super::{Vfs, VfsError, run_blocking};
use crate::{
    blobs::{Sources, Verified},
    cache::CachedBlob,
    dvc::manifest,
    id::TreeId,
    stats::Stats,
    tree::{OutputId, Segment, SegmentBuilder, Tree},
};

impl Vfs {
    /// Attaches the manifest of a directory output, unless it is.
    pub(super) async fn attach_manifest(
        &self,
        tree: &Arc<Tree>,
        output: OutputId,
    ) -> Result<(), VfsError> {
        let Some(id) = tree.manifest(output) else { return Ok(()) };
        if tree.segment(output).is_some() {
            return Ok(());
        }
        let sources = self.sources(tree, output);
        let segment = self.segments.get_or_make(id, self.segment(id, sources)).await;
        let segment = segment.inspect_err(|error| {
            let path = &tree.tracked(output).output.path;
            self.log_failure("list", &format_args!("{}:{path}", tree.commit), error);
        })?;
        let first = self.table.rows(tree, output, segment.len());
        tree.attach(output, segment, first);
        Ok(())
    }

    async fn segment(&self, id: TreeId, sources: Sources) -> Result<Arc<Segment>, VfsError> {
        let text: Box<dyn BufRead + Send> = match self.blobs.open_verified(id, &sources).await? {
            Verified::Empty => Box::new(io::empty()),
            Verified::Cached(blob) if blob.size() > MAX_MANIFEST => {
                let reason = format!("it is larger than {MAX_MANIFEST} bytes");
                return Err(VfsError::Manifest { id, reason });
            }
            Verified::Cached(blob) => Box::new(BufReader::new(FromStart { blob, at: 0 })),
            Verified::Uncached(reader) => {
                Box::new(io::Cursor::new(reader.read_all(MAX_MANIFEST).await?))
            }
        };
        let stats = Arc::clone(&self.stats);
        run_blocking(move || compile(id, text, &stats)).await
    }
}

fn compile(id: TreeId, text: impl BufRead, stats: &Stats) -> Result<Arc<Segment>, VfsError> {
    let mut builder = SegmentBuilder::default();
    let parsed = manifest::parse(text, &mut |entry| builder.push(entry.relpath, entry.digest));
    let refused = parsed.map_err(|error| VfsError::Manifest { id, reason: why(&error) })?;
    let (segment, hidden) = builder.build(id.scheme);
    stats.bad_entries.add(refused.count + hidden.len() as u64);
    for entry in &refused.entries {
        tracing::warn!("manifest {id}: {}: {}", entry.what, entry.why);
    }
    for path in hidden.iter().take(SHOWN) {
        tracing::warn!("manifest {id}: {path}: hidden by the folder of its name");
    }
    Ok(Arc::new(segment))
}

/// What kept a manifest from being read, without saying again that it is a manifest.
fn why(error: &manifest::ManifestError) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// A cached file read from its beginning, without the cursor that all its holders share.
struct FromStart {
    blob: Arc<CachedBlob>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Larger manifests (some ten million entries) are not read.
const MAX_MANIFEST: u64 = 1 << 30;

/// How many hidden entries of one manifest are logged.
const SHOWN: usize = 20;
