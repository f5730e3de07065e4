//! Objects that are read from their beginning to their end, such as manifests.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::Arc,
};

use bytes::Bytes;

use super::{BlobError, Blobs, Sources, Verified};
use crate::{cache::CachedBlob, id::Key};

/// The checked bytes of an object.
#[derive(Debug)]
pub struct Text(Held);

#[derive(Debug)]
enum Held {
    Cached(Arc<CachedBlob>),
    InMemory(Bytes),
}

impl Text {
    /// The bytes from their beginning.
    pub fn open(&self) -> Box<dyn BufRead> {
        match &self.0 {
            Held::InMemory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
            Held::Cached(blob) => {
                let text = FromStart { blob: Arc::clone(blob), at: 0 };
                Box::new(BufReader::with_capacity(64 << 10, text))
            }
        }
    }
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

impl Blobs {
    /// Fetches an object, unless it is here, to be read through; nothing if the cache has one of
    /// more than `most` bytes. What is kept past the cache is cut there.
    pub async fn text(
        &self,
        id: impl Into<Key>,
        sources: &Sources,
        most: u64,
    ) -> Result<Option<Text>, BlobError> {
        Ok(match self.open_verified(id, sources).await? {
            Verified::Empty => Some(Text(Held::InMemory(Bytes::new()))),
            Verified::Cached(blob) if blob.size() > most => None,
            Verified::Cached(blob) => Some(Text(Held::Cached(blob))),
            Verified::Uncached(reader) => Some(Text(Held::InMemory(reader.read_all(most).await?))),
        })
    }
}
