//! What every kind of remote promises, held against each of them.

mod http;
mod listings;
mod moto;
mod objects;
mod puts;
mod rclone;
mod s3;
mod s3_trouble;

use std::sync::Arc;

use bytes::Bytes;
use dvcfs::{
    id::Key,
    remote::{Cause, LocalRemote, MemoryRemote, Remote, RemoteError, Strictness},
};
use futures_util::{TryStreamExt, future};

use self::objects::{Objects, absent};

/// The whole of what a get gives, with its announced size and range.
async fn read(
    remote: &dyn Remote,
    key: Key,
    range: Option<std::ops::Range<u64>>,
) -> Result<Vec<u8>, RemoteError> {
    let body = remote.get(key, range).await?;
    let announced = body.range.clone();
    let chunks: Vec<Bytes> = body.chunks.try_collect().await?;
    let bytes = chunks.concat();
    assert_eq!(bytes.len() as u64, announced.end - announced.start, "the range is announced");
    Ok(bytes)
}

async fn cause(remote: &dyn Remote, key: Key) -> Cause {
    read(remote, key, None).await.expect_err("a failure").cause
}

/// Holds the contract against a remote that has the objects of [`Objects`].
async fn holds(remote: Arc<dyn Remote>) {
    let objects = Objects::new();
    objects_of_every_kind_come_whole(&*remote, &objects).await;
    ranges_are_cut_at_the_end(&*remote, &objects).await;
    an_empty_object_is_not_a_missing_one(&*remote, &objects).await;
    a_missing_object_is_missing(&*remote).await;
    a_big_object_comes_in_order_and_in_pieces(&*remote, &objects).await;
    a_dropped_body_leaves_the_remote_usable(&*remote, &objects).await;
    listings::every_object_is_listed(&*remote, &objects).await;
    many_gets_at_once_do_not_mix(remote, &objects).await;
}

async fn objects_of_every_kind_come_whole(remote: &dyn Remote, objects: &Objects) {
    for (key, content) in objects.all() {
        let bytes = read(remote, *key, None).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(bytes == *content, "{key} over {}", remote.url());
        assert_eq!(remote.size(*key).await.unwrap(), content.len() as u64, "size of {key}");
    }
}

async fn ranges_are_cut_at_the_end(remote: &dyn Remote, objects: &Objects) {
    let (key, content) = objects.small();
    let size = content.len() as u64;
    for (asked, expected) in [
        (0..1, 0..1),
        (0..size, 0..size),
        (3..7, 3..7),
        (size - 1..size, size - 1..size),
        (size - 1..size + 9, size - 1..size),
        (2..u64::MAX, 2..size),
        (size..size + 1, size..size),
        (size + 5..size + 9, size..size),
        (4..4, 4..4),
    ] {
        let body = remote.get(key, Some(asked.clone())).await.unwrap();
        assert_eq!((body.size, &body.range), (size, &expected), "asked for {asked:?}");
        let bytes = read(remote, key, Some(asked)).await.unwrap();
        assert_eq!(bytes, &content[expected.start as usize..expected.end as usize]);
    }
}

async fn an_empty_object_is_not_a_missing_one(remote: &dyn Remote, objects: &Objects) {
    let key = objects.empty();
    for range in [None, Some(0..1), Some(5..9)] {
        let body = remote.get(key, range).await.unwrap();
        assert_eq!((body.size, body.range), (0, 0..0));
    }
    assert_eq!(remote.size(key).await.unwrap(), 0);
}

async fn a_missing_object_is_missing(remote: &dyn Remote) {
    for key in absent() {
        assert_eq!(cause(remote, key).await, Cause::Missing, "{}", remote.url());
        assert_eq!(remote.get(key, Some(0..9)).await.unwrap_err().cause, Cause::Missing);
        let error = remote.size(key).await.unwrap_err();
        assert_eq!(error.cause, Cause::Missing);
        let message = error.to_string();
        assert!(message.contains(&key.path()) && message.contains(remote.url()), "{message}");
    }
}

async fn a_big_object_comes_in_order_and_in_pieces(remote: &dyn Remote, objects: &Objects) {
    let (key, content) = objects.big();
    let middle = 1_000_000..4_000_001;
    let body = remote.get(key, Some(middle.clone())).await.unwrap();
    let chunks: Vec<Bytes> = body.chunks.try_collect().await.unwrap();
    assert!(chunks.len() > 1, "several chunks");
    assert!(chunks.concat() == content[middle.start as usize..middle.end as usize]);
}

async fn a_dropped_body_leaves_the_remote_usable(remote: &dyn Remote, objects: &Objects) {
    let (key, content) = objects.big();
    for _ in 0..20 {
        let mut body = remote.get(key, None).await.unwrap();
        let first = body.chunks.try_next().await.unwrap().unwrap();
        assert!(content.starts_with(&first));
    }
    assert!(read(remote, key, None).await.unwrap() == content);
}

async fn many_gets_at_once_do_not_mix(remote: Arc<dyn Remote>, objects: &Objects) {
    let (key, content) = objects.big();
    let tasks = (0..64_u64).map(|i| {
        let remote = remote.clone();
        let range = i * 1000..i * 1000 + 70_000;
        tokio::spawn(async move { read(&*remote, key, Some(range)).await })
    });
    for (i, bytes) in future::join_all(tasks).await.into_iter().enumerate() {
        assert!(bytes.unwrap().unwrap() == content[i * 1000..i * 1000 + 70_000], "get {i}");
    }
}

#[tokio::test]
async fn memory_holds_the_contract() {
    let remote = MemoryRemote::new();
    for (key, content) in Objects::new().all() {
        remote.insert(*key, content.clone());
    }
    holds(Arc::new(remote)).await;
}

#[tokio::test]
async fn a_directory_holds_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    Objects::new().write_below(dir.path());
    holds(Arc::new(LocalRemote::new(dir.path().into(), Strictness::Own))).await;
    holds(Arc::new(LocalRemote::new(dir.path().into(), Strictness::Confined))).await;
}
