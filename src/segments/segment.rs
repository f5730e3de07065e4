//! One compiled manifest, ready to be asked.

use std::{
    cmp::Ordering as Order,
    ops::{ControlFlow, Range},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    SegmentError,
    blocks::Blocks,
    image::{Bytes, FOLDERS, Folders, HEADER, Header, Index, Kind, Malformed, Place, ROWS, Rows},
};
use crate::id::{BlobId, TreeId};

/// The number of a row within its segment; it depends on nothing but the manifest, which makes it
/// usable as part of an inode number.
pub type RowId = u32;

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// A folder; it exists by its files.
    Folder,
    /// A file, with its content unless the manifest's entry names none that can be had.
    File(Option<BlobId>),
}

/// A compiled manifest.
///
/// A question may read a block of the compiled file, which blocks on the disk. Where that fails
/// the segment [is broken](Self::is_broken) until it is [mended](super::Segments::mend).
#[derive(Debug)]
pub struct Segment {
    pub(super) id: TreeId,
    rows: u32,
    folders: u32,
    index: Index,
    blocks: Arc<Blocks>,
    /// The whole image, where it is small or cannot be kept on disk.
    pub(super) memory: OnceLock<Arc<[u8]>>,
    pub(super) is_broken: AtomicBool,
    /// Whether it was mended before.
    pub(super) was_mended: AtomicBool,
}

/// A row that was looked at.
#[derive(Debug, Clone)]
pub struct Row {
    block: Rows,
    at: usize,
    id: TreeId,
}

impl Row {
    /// Its own name; empty for the tracked directory itself.
    pub fn name(&self) -> &[u8] {
        self.block.name(self.at)
    }

    /// What it is.
    pub fn kind(&self) -> RowKind {
        kind_of(self.block.kind(self.at), self.id)
    }
}

fn kind_of(kind: Kind, id: TreeId) -> RowKind {
    match kind {
        Kind::Folder(_) => RowKind::Folder,
        Kind::Empty => RowKind::File(None),
        Kind::File(digest) => RowKind::File(Some(BlobId { digest, scheme: id.scheme })),
    }
}

impl Segment {
    /// The row of the tracked directory itself.
    pub const ROOT: RowId = 0;

    pub(super) fn new(header: &Header, index: Index, blocks: Arc<Blocks>) -> Self {
        Self {
            id: header.id,
            rows: header.rows,
            folders: header.folders,
            index,
            blocks,
            memory: OnceLock::new(),
            is_broken: AtomicBool::new(false),
            was_mended: AtomicBool::new(false),
        }
    }

    /// Takes an image that stays in memory.
    pub(super) fn in_memory(image: Arc<[u8]>, blocks: Arc<Blocks>) -> Result<Self, SegmentError> {
        let header = image.first_chunk::<HEADER>().ok_or(Malformed("no header"))?;
        let header = Header::parse(header)?;
        let index = image.get(header.index_at as usize..).unwrap_or_default();
        let segment = Self::new(&header, Index::parse(&header, index)?, blocks);
        _ = segment.memory.set(image);
        Ok(segment)
    }

    /// Which manifest it is.
    pub const fn id(&self) -> TreeId {
        self.id
    }

    /// How many rows there are, that of the directory itself included.
    pub const fn len(&self) -> u32 {
        self.rows
    }

    /// Whether the directory holds nothing.
    pub const fn is_empty(&self) -> bool {
        self.rows == 1
    }

    /// The whole image, where it is held in memory.
    pub fn image(&self) -> Option<&[u8]> {
        self.memory.get().map(|image| &**image)
    }

    /// About how many bytes of memory this takes by itself.
    pub fn weight(&self) -> u64 {
        let image = self.memory.get().map_or(0, |image| image.len());
        (image + self.index.places.len() * size_of::<Place>()) as u64
    }

    /// Whether a question failed since the compiled file was made.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    /// The row of a number, which must be one of this segment's.
    pub fn row(&self, row: RowId) -> Result<Row, SegmentError> {
        let block = self.block_of(row)?;
        Ok(Row { block, at: (row % ROWS) as usize, id: self.id })
    }

    /// The folder that holds the row; the directory itself holds itself.
    pub fn parent(&self, row: RowId) -> Result<RowId, SegmentError> {
        if row == Self::ROOT {
            return Ok(row);
        }
        let block = self.index.firsts.partition_point(|first| *first <= row).saturating_sub(1);
        let folders = self.folders(block as u32)?;
        let parent = folders.row(folders.around(row));
        // Whoever goes up has to come to an end.
        if parent >= row {
            return Err(self.failed(SegmentError::Damaged("a folder behind its children")));
        }
        Ok(parent)
    }

    /// The rows in a folder, in order of name; none for a file.
    pub fn children(&self, folder: RowId) -> Result<Range<RowId>, SegmentError> {
        let Kind::Folder(number) = self.row(folder)?.kind_in_block() else { return Ok(0..0) };
        let (block, at) = (number / FOLDERS, (number % FOLDERS) as usize);
        let folders = self.folders(block)?;
        let next_block = || self.index.firsts.get(block as usize + 1).copied();
        let first = folders.first(at).unwrap_or_default();
        if first <= folder {
            return Err(self.failed(SegmentError::Damaged("a folder behind its children")));
        }
        let end = folders.first(at + 1).or_else(next_block).unwrap_or(self.rows);
        Ok(first.min(self.rows)..end.min(self.rows))
    }

    /// The row of that name in a folder.
    pub fn child(&self, folder: RowId, name: &[u8]) -> Result<Option<RowId>, SegmentError> {
        let mut range = self.children(folder)?;
        while !range.is_empty() {
            let middle = u32::midpoint(range.start, range.end);
            let block = self.block_of(middle)?;
            let start = middle - middle % ROWS;
            // The part of the block that may have it is searched without asking for it again.
            let here = range.start.max(start)..range.end.min(start + ROWS);
            let name_at = |row: RowId| block.name((row % ROWS) as usize);
            match (name.cmp(name_at(here.start)), name.cmp(name_at(here.end - 1))) {
                (Order::Less, _) => range.end = here.start,
                (_, Order::Greater) => range.start = here.end,
                _ => return Ok(search(here, |row| name_at(row).cmp(name))),
            }
        }
        Ok(None)
    }

    /// The row at a relative path; the empty path is the directory itself.
    pub fn find(&self, path: &[u8]) -> Result<Option<RowId>, SegmentError> {
        let mut at = Self::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            match self.child(at, name)? {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Gives rows one after another to `each`, until it has enough.
    pub fn walk(
        &self,
        mut rows: Range<RowId>,
        mut each: impl FnMut(RowId, &[u8], RowKind) -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        while !rows.is_empty() {
            let block = self.block_of(rows.start)?;
            let end = rows.end.min(rows.start - rows.start % ROWS + ROWS);
            for row in rows.start..end {
                let at = (row % ROWS) as usize;
                if each(row, block.name(at), kind_of(block.kind(at), self.id)).is_break() {
                    return Ok(());
                }
            }
            rows.start = end;
        }
        Ok(())
    }

    fn block_of(&self, row: RowId) -> Result<Rows, SegmentError> {
        if row >= self.rows {
            return Err(SegmentError::Damaged("no such row"));
        }
        let number = row / ROWS;
        let count = self.rows.saturating_sub(number * ROWS).min(ROWS);
        let rows = self.bytes(number).and_then(|bytes| Ok(Rows::new(bytes, count)?));
        rows.map_err(|error| self.failed(error))
    }

    fn folders(&self, block: u32) -> Result<Folders, SegmentError> {
        let count = self.folders.saturating_sub(block.saturating_mul(FOLDERS)).min(FOLDERS);
        let bytes = self.bytes(self.rows.div_ceil(ROWS).saturating_add(block));
        let folders = bytes.and_then(|bytes| Ok(Folders::new(bytes, count)?));
        folders.map_err(|error| self.failed(error))
    }

    fn bytes(&self, number: u32) -> Result<Bytes, SegmentError> {
        let place = self.index.places.get(number as usize);
        let place = *place.ok_or(SegmentError::Damaged("no such block"))?;
        if let Some(image) = self.memory.get() {
            let start = place.at as usize;
            return Ok(Bytes {
                buffer: Arc::clone(image),
                range: start..start + place.length as usize,
            });
        }
        let buffer = self.blocks.read((self.id, number), place)?;
        let range = 0..buffer.len();
        Ok(Bytes { buffer, range })
    }

    /// Notes that a question failed.
    fn failed(&self, error: SegmentError) -> SegmentError {
        if !self.is_broken.swap(true, Ordering::AcqRel) {
            tracing::warn!("the compiled manifest {} cannot be read: {error}", self.id);
        }
        self.blocks.close(self.id);
        error
    }
}

impl Row {
    fn kind_in_block(&self) -> Kind {
        self.block.kind(self.at)
    }
}

/// The row among ascending ones that `compare` calls equal.
fn search(mut rows: Range<RowId>, compare: impl Fn(RowId) -> Order) -> Option<RowId> {
    while !rows.is_empty() {
        let middle = u32::midpoint(rows.start, rows.end);
        match compare(middle) {
            Order::Equal => return Some(middle),
            Order::Less => rows.start = middle + 1,
            Order::Greater => rows.end = middle,
        }
    }
    None
}
