//! Compiled manifests: what tracked directories hold, by name and by number.
//!
//! A manifest is a flat list of paths, a million long at times. It is parsed once, as a stream, and
//! compiled into an immutable image ([`image`]) in which looking a name up and listing a folder
//! take a few blocks. An image over [`SMALL`] is a file in the state directory, named by the
//! manifest's hash and read by position through a bounded cache of blocks ([`blocks`]), never
//! mapped: a file that somebody cuts would take the daemon with it. So what is resident follows
//! what is looked at, and the next mount reads no manifest. A smaller image stays in memory, since
//! a registry may have a hundred thousand of them.
//!
//! The files can be deleted at any moment. One that is damaged, foreign or gone is made again;
//! where none can be written the image stays in memory.

mod blocks;
mod build;
mod image;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, BufRead, BufWriter},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use self::{
    blocks::Blocks,
    build::{BuildError, Builder, MAX_ROWS},
    image::Malformed,
};
pub use self::{
    build::Hidden,
    segment::{Row, RowId, RowKind, Segment},
};
use crate::{
    atomic,
    dvc::manifest::{self, Entry, ManifestError, Refused, Sink as _},
    id::TreeId,
};

/// Images up to this size, some two thousand files, stay in memory.
const SMALL: usize = 64 << 10;

/// What the files may take together, in bytes; the oldest go first.
const MAX_FOLDER: u64 = 2 << 30;

/// How much younger a file has to become before that is worth a write.
const AGE: Duration = Duration::from_hours(24);

/// The compiled manifests of one state directory.
#[derive(Debug)]
pub struct Segments {
    blocks: Arc<Blocks>,
    small: usize,
    max_folder: u64,
}

/// A manifest that was read to its end.
#[derive(Debug)]
pub struct Compiled {
    /// What it says.
    pub segment: Segment,
    /// The entries that were left out.
    pub refused: Refused,
    /// The files that are hidden by folders of their names.
    pub hidden: Hidden,
}

/// Why a manifest cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It names more files and folders than anybody shows.
    #[error("more than {MAX_ROWS} files and folders")]
    TooLarge,
    /// What was compiled cannot be read back.
    #[error("what it was compiled to cannot be read")]
    Compiled(#[from] SegmentError),
}

/// Why a compiled manifest cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is not what was written.
    #[error("{0}")]
    Damaged(&'static str),
}

impl From<Malformed> for SegmentError {
    fn from(malformed: Malformed) -> Self {
        Self::Damaged(malformed.0)
    }
}

impl Segments {
    /// Keeps compiled files in `folder`, which is made when it is needed; without one everything
    /// stays in memory.
    pub fn new(folder: Option<&Path>) -> Self {
        let blocks = Arc::new(Blocks::new(folder.map(Path::to_owned)));
        Self { blocks, small: SMALL, max_folder: MAX_FOLDER }
    }

    /// The manifest as it was compiled before, unless that cannot be used. Blocks on the disk.
    pub fn open(&self, id: TreeId) -> Option<Segment> {
        match self.blocks.open(id) {
            Ok((header, index)) => {
                self.note_use(id);
                Some(Segment::new(&header, index, Arc::clone(&self.blocks)))
            }
            Err(SegmentError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!("the compiled manifest {id} is made again: {error}");
                None
            }
        }
    }

    /// Compiles a manifest. `open` gives its text from the beginning, as often as it is asked.
    /// Blocks on the disk.
    pub fn compile<R: BufRead>(
        &self,
        id: TreeId,
        open: impl Fn() -> io::Result<R>,
    ) -> Result<Compiled, CompileError> {
        let mut builder = Builder::default();
        let refused = manifest::read(open, &mut builder)?;
        if let Some(path) = self.blocks.path(id).filter(|_| builder.estimate() > self.small) {
            match self.compile_to(&path, id, &mut builder) {
                Ok((segment, hidden)) => return Ok(Compiled { segment, refused, hidden }),
                Err(CompileError::TooLarge) => return Err(CompileError::TooLarge),
                Err(error) => {
                    let why = error_chain(&error);
                    tracing::warn!("the manifest {id} is kept in memory: {why}");
                }
            }
        }
        let (segment, hidden) = self.compile_in_memory(id, &mut builder)?;
        Ok(Compiled { segment, refused, hidden })
    }

    /// Compiles entries that no manifest lists; they stay in memory.
    pub fn compile_entries<'a>(
        &self,
        id: TreeId,
        entries: impl IntoIterator<Item = Entry<'a>>,
    ) -> Result<Segment, CompileError> {
        let mut builder = Builder::default();
        entries.into_iter().for_each(|entry| builder.take(entry));
        Ok(self.compile_in_memory(id, &mut builder)?.0)
    }

    fn compile_in_memory(
        &self,
        id: TreeId,
        builder: &mut Builder,
    ) -> Result<(Segment, Hidden), CompileError> {
        let (mut image, header, hidden) = builder.build(id, Vec::new())?;
        image[..header.len()].copy_from_slice(&header);
        Ok((self.adopt(image)?, hidden))
    }

    /// Takes an image that was compiled elsewhere; it stays in memory.
    pub fn adopt(&self, image: Vec<u8>) -> Result<Segment, SegmentError> {
        Segment::in_memory(image.into(), Arc::clone(&self.blocks))
    }

    fn compile_to(
        &self,
        path: &Path,
        id: TreeId,
        builder: &mut Builder,
    ) -> Result<(Segment, Hidden), CompileError> {
        let mut built = Ok(Hidden::default());
        let written = atomic::write_unsynced(path, 0o600, |file| {
            built = builder.build(id, BufWriter::with_capacity(1 << 20, &*file)).and_then(
                |(_, header, hidden)| {
                    file.write_all_at(&header, 0)?;
                    Ok(hidden)
                },
            );
            // Nothing is to be put in place then; why is told below.
            built.as_ref().map(drop).map_err(|_why| io::Error::other("not built"))
        });
        let hidden = built?;
        written.map_err(SegmentError::from)?;
        self.blocks.close(id);
        let (header, index) = self.blocks.open(id)?;
        self.trim(path);
        Ok((Segment::new(&header, index, Arc::clone(&self.blocks)), hidden))
    }

    /// Makes a broken segment whole by compiling its manifest again; once in its life. Blocks on
    /// the disk.
    pub fn mend<R: BufRead>(
        &self,
        segment: &Segment,
        open: impl Fn() -> io::Result<R>,
    ) -> Result<(), CompileError> {
        if segment.was_mended.load(Ordering::Acquire) {
            return Err(SegmentError::Damaged("it was made again once, and is broken again").into());
        }
        let compiled = self.compile(segment.id, open)?.segment;
        if compiled.len() != segment.len() {
            return Err(SegmentError::Damaged("it came out different").into());
        }
        if let Some(image) = compiled.memory.into_inner() {
            // It is whole for good then, so a second one changes nothing.
            _ = segment.memory.set(image);
        }
        segment.was_mended.store(true, Ordering::Release);
        segment.is_broken.store(false, Ordering::Release);
        Ok(())
    }

    /// How many blocks were read from files since this was made.
    pub fn blocks_read(&self) -> u64 {
        self.blocks.reads()
    }

    /// Makes a compiled file young again, so that it goes late.
    fn note_use(&self, id: TreeId) {
        let Some(path) = self.blocks.path(id) else { return };
        let touch = || {
            let file = fs::File::open(path)?;
            let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > AGE { file.set_modified(SystemTime::now()) } else { Ok(()) }
        };
        if let Err(error) = touch() {
            tracing::debug!("the compiled manifest {id} seems unused: {error}");
        }
    }

    /// Deletes the oldest files while all take too much together, never the one at `kept`.
    fn trim(&self, kept: &Path) {
        let Some(folder) = self.blocks.folder() else { return };
        let files = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        });
        let mut files: Vec<_> = files.collect();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort();
        for (_, length, path) in files.iter().filter(|(_, _, path)| path != kept) {
            if total <= self.max_folder {
                return;
            }
            if let Err(error) = fs::remove_file(path) {
                tracing::debug!("delete {}: {error}", path.display());
            }
            total -= length;
        }
    }
}

impl From<BuildError> for CompileError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::TooLarge => Self::TooLarge,
            BuildError::Io(error) => Self::Compiled(error.into()),
        }
    }
}

/// An error with what caused it.
fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
