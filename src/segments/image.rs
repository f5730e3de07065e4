//! The bytes of a compiled manifest.
//!
//! ```text
//! header   64 bytes: magic, manifest id, counts, where the index is, check
//! rows     blocks of 256 rows: name ends (u16), kinds (u8), slots (16 bytes), names
//! folders  blocks of 1024 folders: first children (u32), rows (u32)
//! index    per block of rows: length, check; per block of folders: length, check, first child
//! ```
//!
//! Rows are in breadth-first order, the children of a folder side by side and sorted by name; row 0
//! is the tracked directory itself. A file's slot is its digest, a folder's the number of its entry
//! among the folders. Those are in breadth-first order too, so both of their columns ascend, and a
//! folder's children end where the next folder's begin. All numbers are little-endian. Each check is
//! a CRC-32 that begins with the manifest's id and the block's number: a block of another file, or
//! from another place, does not pass for this one.

use std::{
    io::{self, Write},
    ops::Range,
    sync::Arc,
};

use super::RowId;
use crate::id::{Digest, Scheme, TreeId};

/// Rows in a block: few enough that the ends of their names fit in 16 bits.
pub(super) const ROWS: u32 = 256;

/// Folders in a block.
pub(super) const FOLDERS: u32 = 1024;

/// Bytes of the header.
pub(super) const HEADER: usize = 64;

/// Changes with every change of the form.
const MAGIC: &[u8; 8] = b"dvcfsSG1";

/// Bytes of an entry of the index for a block of rows, and for one of folders.
const ROWS_ENTRY: usize = 8;
const FOLDERS_ENTRY: usize = 12;

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File(Digest),
    /// A file whose entry names no content that can be had.
    Empty,
    /// A folder, by its number.
    Folder(u32),
}

/// Why bytes are no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: TreeId,
    pub(super) rows: u32,
    pub(super) folders: u32,
    pub(super) index_at: u64,
    pub(super) index_check: u32,
}

impl Header {
    /// Reads a header; nothing is believed but what its check vouches for.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Result<Self, Malformed> {
        if !bytes.starts_with(MAGIC) {
            return Err(Malformed("another kind of file"));
        }
        let (body, check) = bytes.split_at(HEADER - 4);
        if number(check, 0) != crc32fast::hash(body) {
            return Err(Malformed("damaged header"));
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(&body[8..24]);
        let scheme = match body[24] {
            0 => Scheme::Md5,
            1 => Scheme::Dos2Unix,
            _ => return Err(Malformed("unknown scheme")),
        };
        let header = Self {
            id: TreeId { digest, scheme },
            rows: number(body, 28),
            folders: number(body, 32),
            index_at: u64::from(number(body, 40)) | u64::from(number(body, 44)) << 32,
            index_check: number(body, 48),
        };
        let is_possible = 0 < header.folders && header.folders <= header.rows;
        is_possible.then_some(header).ok_or(Malformed("impossible counts"))
    }

    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.id.digest);
        bytes[24] = scheme_byte(self.id.scheme);
        bytes[28..32].copy_from_slice(&self.rows.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.folders.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.index_at.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.index_check.to_le_bytes());
        let check = crc32fast::hash(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// How long the index is.
    pub(super) const fn index_len(&self) -> usize {
        self.rows.div_ceil(ROWS) as usize * ROWS_ENTRY
            + self.folders.div_ceil(FOLDERS) as usize * FOLDERS_ENTRY
    }
}

const fn scheme_byte(scheme: Scheme) -> u8 {
    match scheme {
        Scheme::Md5 => 0,
        Scheme::Dos2Unix => 1,
    }
}

/// Where a block is, and what its bytes must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) length: u32,
    pub(super) check: u32,
}

/// Where every block is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) places: Box<[Place]>,
    /// The first child of the first folder of each block of folders.
    pub(super) firsts: Box<[RowId]>,
}

impl Index {
    /// Reads the index that belongs to a header.
    pub(super) fn parse(header: &Header, bytes: &[u8]) -> Result<Self, Malformed> {
        let (rows, folders) = (header.rows.div_ceil(ROWS), header.folders.div_ceil(FOLDERS));
        if bytes.len() != header.index_len() || check(header.id, INDEX, bytes) != header.index_check
        {
            return Err(Malformed("damaged index"));
        }
        let (of_rows, of_folders) = bytes.split_at(rows as usize * ROWS_ENTRY);
        let entries = of_rows.chunks_exact(ROWS_ENTRY);
        let mut places = Vec::with_capacity((rows + folders) as usize);
        let mut at = HEADER as u64;
        for entry in entries.chain(of_folders.chunks_exact(FOLDERS_ENTRY)) {
            let (length, check) = (number(entry, 0), number(entry, 4));
            places.push(Place { at, length, check });
            at += u64::from(length);
        }
        if at != header.index_at {
            return Err(Malformed("blocks that do not lie side by side"));
        }
        let firsts = of_folders.chunks_exact(FOLDERS_ENTRY).map(|entry| number(entry, 8));
        Ok(Self { places: places.into(), firsts: firsts.collect() })
    }
}

/// The number that the check of the index begins with in a block's place.
const INDEX: u32 = u32::MAX;

/// The check of a block.
pub(super) fn check(id: TreeId, block: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.digest);
    hasher.update(&[scheme_byte(id.scheme)]);
    hasher.update(&block.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Some bytes of a shared buffer.
#[derive(Debug, Clone)]
pub(super) struct Bytes {
    pub(super) buffer: Arc<[u8]>,
    pub(super) range: Range<usize>,
}

impl Bytes {
    fn all(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or_default()
    }
}

/// A block of rows.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    bytes: Bytes,
    count: usize,
}

impl Rows {
    /// Takes a block of `count` rows.
    pub(super) fn new(bytes: Bytes, count: u32) -> Result<Self, Malformed> {
        let rows = Self { bytes, count: count as usize };
        let end = rows.count.checked_sub(1).map_or(0, |last| rows.name_end(last));
        if rows.bytes.all().len() != rows.names_at() + end {
            return Err(Malformed("a block of the wrong length"));
        }
        Ok(rows)
    }

    const fn names_at(&self) -> usize {
        self.count * (2 + 1 + 16)
    }

    fn name_end(&self, at: usize) -> usize {
        let bytes = self.bytes.all();
        let end = bytes.get(2 * at..2 * at + 2).and_then(|bytes| bytes.first_chunk::<2>());
        end.map_or(0, |end| usize::from(u16::from_le_bytes(*end)))
    }

    /// The name of the row at a place of the block.
    pub(super) fn name(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.name_end(before));
        let names = self.bytes.all().get(self.names_at()..).unwrap_or_default();
        names.get(start..self.name_end(at)).unwrap_or_default()
    }

    /// What the row at a place of the block is.
    pub(super) fn kind(&self, at: usize) -> Kind {
        let bytes = self.bytes.all();
        let slot_at = 3 * self.count + 16 * at;
        let slot = bytes.get(slot_at..slot_at + 16).and_then(|bytes| bytes.first_chunk::<16>());
        match (bytes.get(2 * self.count + at), slot) {
            (Some(0), Some(digest)) => Kind::File(*digest),
            (Some(2), Some(slot)) => Kind::Folder(number(slot, 0)),
            _ => Kind::Empty,
        }
    }
}

/// A block of folders.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    bytes: Bytes,
    count: usize,
}

impl Folders {
    /// Takes a block of `count` folders.
    pub(super) fn new(bytes: Bytes, count: u32) -> Result<Self, Malformed> {
        let folders = Self { bytes, count: count as usize };
        let is_whole = folders.bytes.all().len() == folders.count * 8;
        is_whole.then_some(folders).ok_or(Malformed("a block of the wrong length"))
    }

    /// The first child of the folder at a place of the block; nothing behind the last.
    pub(super) fn first(&self, at: usize) -> Option<RowId> {
        (at < self.count).then(|| number(self.bytes.all(), 4 * at))
    }

    /// The row of the folder at a place of the block.
    pub(super) fn row(&self, at: usize) -> RowId {
        number(self.bytes.all(), 4 * (self.count + at))
    }

    /// The place of the folder that a row lies in: the last whose children begin at it or before.
    pub(super) fn around(&self, row: RowId) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if number(self.bytes.all(), 4 * middle) <= row {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1)
    }
}

/// The number at a place; 0 where the bytes end.
fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Writes an image, row by row in breadth-first order, holding one block and the index.
///
/// The header is written by whoever has what the image was written to, in front of the rest.
#[derive(Debug)]
pub(super) struct Writer<W> {
    out: W,
    id: TreeId,
    at: u64,
    rows: u32,
    places: Vec<Place>,
    ends: Vec<u8>,
    kinds: Vec<u8>,
    slots: Vec<u8>,
    names: Vec<u8>,
    /// First child and row of every folder.
    folders: Vec<(RowId, RowId)>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W, id: TreeId) -> io::Result<Self> {
        out.write_all(&[0; HEADER])?;
        let at = HEADER as u64;
        let (places, ends, kinds, slots, names, folders) = Default::default();
        Ok(Self { out, id, at, rows: 0, places, ends, kinds, slots, names, folders })
    }

    /// How many rows were written; the number of the next one.
    pub(super) const fn rows(&self) -> u32 {
        self.rows
    }

    /// Writes the next row. Folders take their numbers in the order of their rows.
    pub(super) fn row(&mut self, name: &[u8], kind: Kind) -> io::Result<()> {
        self.names.extend_from_slice(name);
        self.ends.extend_from_slice(&(self.names.len() as u16).to_le_bytes());
        let (kind, slot) = match kind {
            Kind::File(digest) => (0, digest),
            Kind::Empty => (1, [0; 16]),
            Kind::Folder(number) => {
                let mut slot = [0; 16];
                slot[..4].copy_from_slice(&number.to_le_bytes());
                (2, slot)
            }
        };
        self.kinds.push(kind);
        self.slots.extend_from_slice(&slot);
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS) { self.end_block() } else { Ok(()) }
    }

    /// The children of the next folder begin with the next row.
    pub(super) fn folder(&mut self, row: RowId) {
        self.folders.push((self.rows, row));
    }

    fn end_block(&mut self) -> io::Result<()> {
        let mut block = std::mem::take(&mut self.ends);
        block.append(&mut self.kinds);
        block.append(&mut self.slots);
        block.append(&mut self.names);
        self.put(&block)?;
        block.clear();
        self.ends = block;
        Ok(())
    }

    fn put(&mut self, block: &[u8]) -> io::Result<()> {
        let check = check(self.id, self.places.len() as u32, block);
        self.places.push(Place { at: self.at, length: block.len() as u32, check });
        self.at += block.len() as u64;
        self.out.write_all(block)
    }

    /// Writes what is left but the header, and gives that.
    pub(super) fn finish(mut self) -> io::Result<(W, [u8; HEADER])> {
        if !self.kinds.is_empty() {
            self.end_block()?;
        }
        let row_blocks = self.places.len();
        let folders = std::mem::take(&mut self.folders);
        for chunk in folders.chunks(FOLDERS as usize) {
            let firsts = chunk.iter().map(|(first, _)| first);
            let columns = firsts.chain(chunk.iter().map(|(_, row)| row));
            let block: Vec<u8> = columns.flat_map(|number| number.to_le_bytes()).collect();
            self.put(&block)?;
        }
        let mut index = Vec::new();
        for (number, place) in self.places.iter().enumerate() {
            index.extend_from_slice(&place.length.to_le_bytes());
            index.extend_from_slice(&place.check.to_le_bytes());
            if let Some(block) = number.checked_sub(row_blocks) {
                let (first, _) = folders[block * FOLDERS as usize];
                index.extend_from_slice(&first.to_le_bytes());
            }
        }
        self.out.write_all(&index)?;
        self.out.flush()?;
        let header = Header {
            id: self.id,
            rows: self.rows,
            folders: folders.len() as u32,
            index_at: self.at,
            index_check: check(self.id, INDEX, &index),
        };
        Ok((self.out, header.to_bytes()))
    }
}
