//! A remote in memory, for tests of every floor above.

use std::{collections::BTreeMap, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use super::{
    Body, Cause, Page, Prefix, Put, Remote, RemoteError, Source, get_action, put_action,
    range::cut, size_action,
};
use crate::{id::Key, stats::Counter};

/// How much comes at once, small enough that readers see several chunks.
const CHUNK: usize = 64 << 10;

/// A map from key to bytes that counts what is asked of it.
#[derive(Debug, Default)]
pub struct MemoryRemote {
    objects: Mutex<BTreeMap<Key, Bytes>>,
    gets: Counter,
    sizes: Counter,
    lists: Counter,
}

impl MemoryRemote {
    /// An empty remote.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an object, in place of the one that was there.
    pub fn insert(&self, key: Key, bytes: impl Into<Bytes>) {
        drop(self.objects.lock().insert(key, bytes.into()));
    }

    /// Takes an object away.
    pub fn remove(&self, key: Key) {
        drop(self.objects.lock().remove(&key));
    }

    /// How often [`Remote::get`] was called.
    pub fn gets(&self) -> u64 {
        self.gets.value()
    }

    /// How often [`Remote::size`] was called.
    pub fn sizes(&self) -> u64 {
        self.sizes.value()
    }

    /// How often [`Remote::list`] was called.
    pub fn lists(&self) -> u64 {
        self.lists.value()
    }

    fn find(&self, key: Key, action: String) -> Result<Bytes, RemoteError> {
        self.objects.lock().get(&key).cloned().ok_or_else(|| {
            RemoteError::new(Cause::Missing, action, self.url(), "there is no such object")
        })
    }
}

#[async_trait]
impl Remote for MemoryRemote {
    async fn get(&self, key: Key, range: Option<Range<u64>>) -> Result<Body, RemoteError> {
        self.gets.add(1);
        let object = self.find(key, get_action(key))?;
        let size = object.len() as u64;
        let range = cut(range, size);
        let mut rest = object.slice(range.start as usize..range.end as usize);
        let chunks = std::iter::from_fn(move || {
            let chunk = rest.split_to(CHUNK.min(rest.len()));
            (!chunk.is_empty()).then_some(Ok(chunk))
        });
        Ok(Body { size, range, chunks: stream::iter(chunks).boxed() })
    }

    async fn size(&self, key: Key) -> Result<u64, RemoteError> {
        self.sizes.add(1);
        Ok(self.find(key, size_action(key))?.len() as u64)
    }

    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Page, RemoteError> {
        self.lists.add(1);
        let objects = self.objects.lock();
        // Keys of one scheme are in the order of their names.
        let wanted = objects.iter().filter(|(key, _)| prefix.contains(key));
        let wanted = wanted.filter(|(key, _)| after.is_none_or(|after| *key.path() > *after));
        Ok(Page::cut(wanted.map(|(key, bytes)| (*key, bytes.len() as u64))))
    }

    async fn put(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        if self.objects.lock().contains_key(&key) {
            return Ok(Put::Present);
        }
        let bytes = source.bytes(0..source.size()).map_err(|error| {
            RemoteError::new(Cause::Local, put_action(key), self.url(), error.to_string())
        })?;
        source.tell(bytes.len() as i64);
        self.insert(key, bytes);
        Ok(Put::Stored)
    }

    fn lists_cheaply(&self) -> bool {
        true
    }

    fn url(&self) -> &'static str {
        "memory://"
    }
}
