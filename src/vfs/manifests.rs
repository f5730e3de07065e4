//! Manifests of tracked directories: fetched and compiled when something first looks inside.

use std::{error::Error as _, iter, sync::Arc};

use super::{Vfs, VfsError, run_blocking};
use crate::{
    blobs::{Sources, Text},
    dvc::manifest::ManifestError,
    id::TreeId,
    segments::{CompileError, Compiled, Segment},
    stats::Stats,
    tree::{OutputId, Tree},
};

impl Vfs {
    /// Attaches the manifest of a directory output, unless it is; or makes it whole again, if what
    /// it was compiled to cannot be read.
    pub(super) async fn attach_manifest(
        &self,
        tree: &Arc<Tree>,
        output: OutputId,
    ) -> Result<(), VfsError> {
        let Some(id) = tree.manifest(output) else { return Ok(()) };
        let sources = self.sources(tree, output);
        let result = match tree.segment(output) {
            Some(segment) if segment.is_broken() => self.mend(segment, (output, &sources)).await,
            Some(_) => Ok(()),
            None => {
                let segment =
                    self.kept_segments.get_or_make(id, self.segment(id, (output, &sources))).await;
                segment.map(|segment| {
                    let first = self.table.rows(tree, output, segment.len());
                    tree.attach(output, segment, first);
                })
            }
        };
        result.inspect_err(|error| {
            let path = &tree.tracked(output).output.path;
            self.log_failure("list", &format_args!("{}:{path}", tree.commit), error);
        })
    }

    /// What a manifest was compiled to, by an earlier mount or now.
    async fn segment(
        &self,
        id: TreeId,
        (output, sources): (OutputId, &Sources),
    ) -> Result<Arc<Segment>, VfsError> {
        let segments = Arc::clone(&self.segments);
        if let Some(segment) = run_blocking(move || Ok(segments.open(id))).await? {
            return Ok(Arc::new(segment));
        }
        let text = self.manifest_text(id, sources).await?;
        let (segments, stats) = (Arc::clone(&self.segments), Arc::clone(&self.stats));
        let compile = move || {
            let compiled = segments.compile(id, || Ok(text.open()));
            let compiled = compiled.map_err(|error| failure(id, output, &error))?;
            report(id, &compiled, &stats);
            Ok(Arc::new(compiled.segment))
        };
        run_blocking(compile).await
    }

    /// Compiles a manifest again whose compiled file cannot be read.
    async fn mend(
        &self,
        segment: &Arc<Segment>,
        (output, sources): (OutputId, &Sources),
    ) -> Result<(), VfsError> {
        let _turn = self.mending.lock().await;
        if !segment.is_broken() {
            return Ok(());
        }
        let id = segment.id();
        let text = self.manifest_text(id, sources).await?;
        let (segments, segment) = (Arc::clone(&self.segments), Arc::clone(segment));
        let mend = move || {
            let mended = segments.mend(&segment, || Ok(text.open()));
            mended.map_err(|error| failure(id, output, &error))
        };
        run_blocking(mend).await
    }

    pub(super) async fn manifest_text(
        &self,
        id: TreeId,
        sources: &Sources,
    ) -> Result<Text, VfsError> {
        let too_large = || {
            let reason = format!("it is larger than {MAX_MANIFEST} bytes");
            VfsError::Manifest { id, reason }
        };
        self.blobs.text(id, sources, MAX_MANIFEST).await?.ok_or_else(too_large)
    }
}

/// Tells a manifest that is at fault from a disk that is.
fn failure(id: TreeId, output: OutputId, error: &CompileError) -> VfsError {
    match error {
        CompileError::Manifest(ManifestError::Read(_)) | CompileError::Compiled(_) => {
            let causes = iter::successors(error.source(), |cause| (*cause).source());
            let causes: Vec<_> = causes.map(ToString::to_string).collect();
            tracing::warn!("manifest {id}: {error}: {}", causes.join(": "));
            VfsError::Compiled(output)
        }
        CompileError::Manifest(ManifestError::Damaged(_)) | CompileError::TooLarge => {
            // The cause alone says what is wrong, without saying again that it is a manifest.
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            VfsError::Manifest { id, reason }
        }
    }
}

/// Counts and logs what was left out.
fn report(id: TreeId, compiled: &Compiled, stats: &Stats) {
    stats.bad_entries.add(compiled.refused.count + compiled.hidden.count);
    for entry in &compiled.refused.entries {
        tracing::warn!("manifest {id}: {}: {}", entry.what, entry.why);
    }
    for path in &compiled.hidden.paths {
        tracing::warn!("manifest {id}: {path}: hidden by the folder of its name");
    }
}

/// Larger manifests (some ten million entries) are not read.
const MAX_MANIFEST: u64 = 1 << 30;
