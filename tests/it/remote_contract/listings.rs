//! Listings: page by page, every object once and nothing else.

use std::{fs, os::unix::fs::symlink, sync::Arc};

use dvcfs::{
    id::{Key, Scheme},
    remote::{
        Cause, LocalRemote, MemoryRemote, PAGE, Prefix, Remote, RemoteError, S3Remote, S3Settings,
        Strictness,
    },
};

use super::{
    moto::Moto,
    objects::{CROWD, Objects, absent, write_strangers_below},
    s3::{BUCKET, settings},
};
use crate::s3server::{Fault, Options, S3Server};

/// Every object of a prefix, and how many pages that took.
async fn list(
    remote: &dyn Remote,
    prefix: Prefix,
) -> Result<(Vec<(Key, u64)>, usize), RemoteError> {
    let (mut objects, mut next) = (Vec::new(), None);
    for pages in 1.. {
        let page = remote.list(prefix, next.as_deref()).await?;
        assert!(page.objects.len() <= PAGE);
        objects.extend(page.objects);
        next = page.next;
        if next.is_none() {
            return Ok((objects, pages));
        }
    }
    unreachable!("numbers do not end")
}

/// The objects that a prefix has, in order.
fn expected(objects: &Objects, prefix: Prefix) -> Vec<(Key, u64)> {
    let all = objects.all().iter().map(|(key, content)| (*key, content.len() as u64));
    let mut expected: Vec<_> = all.filter(|(key, _)| prefix.contains(key)).collect();
    expected.sort_unstable();
    expected
}

/// Holds the part of the contract that is about listings; a remote without any says so.
pub(super) async fn every_object_is_listed(remote: &dyn Remote, objects: &Objects) {
    for scheme in [Scheme::Md5, Scheme::Dos2Unix] {
        let whole = Prefix::whole(scheme);
        match list(remote, whole).await {
            Ok((listed, _)) => assert_eq!(listed, expected(objects, whole), "{}", remote.url()),
            Err(error) => {
                assert_eq!(error.cause, Cause::Unsupported, "{error}");
                assert!(remote.url().starts_with("http") && !remote.lists_cheaply(), "{error}");
                return;
            }
        }
    }
    for (key, digits) in objects.all().iter().flat_map(|(key, _)| [1, 2, 3].map(|n| (key, n))) {
        let prefix = Prefix::of(key, digits);
        let (listed, _) = list(remote, prefix).await.unwrap();
        assert_eq!(listed, expected(objects, prefix), "{prefix:?} at {}", remote.url());
    }
    for key in absent() {
        let (listed, pages) = list(remote, Prefix::of(&key, 2)).await.unwrap();
        assert_eq!((listed.len(), pages), (0, 1), "{}", remote.url());
    }
}

/// Lists [`Objects::crowd`], from its beginning and from somewhere within.
async fn pages_have_no_gap(remote: &dyn Remote) {
    let objects = Objects::crowd();
    for (scheme, pages) in [(Scheme::Md5, CROWD.div_ceil(PAGE)), (Scheme::Dos2Unix, 1)] {
        for digits in 0..=2 {
            let key = Key { digest: [0xcc; 16], scheme, is_manifest: false };
            let prefix = Prefix::of(&key, digits);
            let (listed, took) = list(remote, prefix).await.unwrap();
            assert!(listed == expected(&objects, prefix), "{prefix:?} at {}", remote.url());
            assert!(took <= pages + 1, "{took} pages of {prefix:?} at {}", remote.url());
        }
    }
    let prefix = Prefix::whole(Scheme::Md5);
    let expected = expected(&objects, prefix);
    let (key, _) = expected[CROWD - 20];
    let name = key.path();
    // The first of these exists, the second does not.
    for (after, rest) in [(&name[..], &expected[CROWD - 19..]), (&name[..20], &[][..])] {
        let page = remote.list(prefix, Some(after)).await.unwrap();
        assert!(page.objects.ends_with(rest), "after {after} at {}", remote.url());
        assert!(page.objects.iter().all(|(key, _)| *key.path() > *after));
    }
}

#[tokio::test]
async fn memory_is_listed_page_by_page() {
    let remote = MemoryRemote::new();
    for (key, content) in Objects::crowd().all() {
        remote.insert(*key, content.clone());
    }
    pages_have_no_gap(&remote).await;
    assert!(remote.lists() > 0);
}

#[tokio::test]
async fn a_directory_is_listed_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    Objects::crowd().write_below(dir.path());
    write_strangers_below(dir.path());
    for strictness in [Strictness::Own, Strictness::Confined] {
        pages_have_no_gap(&LocalRemote::new(dir.path().into(), strictness)).await;
    }
}

#[tokio::test]
async fn s3_is_listed_page_by_page() {
    for prefix in ["dvc/store", ""] {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(BUCKET).join(prefix);
        Objects::crowd().write_below(&folder);
        write_strangers_below(&folder);
        let server = S3Server::start(root.path().into(), Options::default());
        let settings = S3Settings { prefix: prefix.into(), ..settings(&server.endpoint()) };
        pages_have_no_gap(&S3Remote::new(settings)).await;
    }
}

#[tokio::test]
async fn s3_by_another_maker_is_listed_page_by_page() {
    let moto = Moto::start();
    moto.fill(BUCKET, "dvc/store", &Objects::crowd()).await;
    pages_have_no_gap(&S3Remote::new(settings(moto.endpoint()))).await;
}

#[tokio::test]
async fn what_keeps_a_bucket_from_being_listed_is_told() {
    let root = tempfile::tempdir().unwrap();
    Objects::new().write_below(&root.path().join(BUCKET).join("dvc/store"));
    let server = S3Server::start(root.path().into(), Options::default());
    let remote = S3Remote::new(settings(&server.endpoint()));
    let prefix = Prefix::whole(Scheme::Md5);
    for (fault, cause) in [
        (Fault::Status(403, "AccessDenied"), Cause::Denied),
        (Fault::Status(501, "NotImplemented"), Cause::Unsupported),
        (Fault::Page, Cause::Unreachable),
        (Fault::Cut(100), Cause::Unreachable),
    ] {
        server.fail_always(fault.clone());
        let error = remote.list(prefix, None).await.unwrap_err();
        assert_eq!(error.cause, cause, "{fault:?}: {error}");
        assert!(error.to_string().starts_with("list files/md5/* at s3://registry/dvc/store: "));
    }
    server.heal();
    let elsewhere = S3Settings { bucket: "none".into(), ..settings(&server.endpoint()) };
    let error = S3Remote::new(elsewhere).list(prefix, None).await.unwrap_err();
    assert_eq!(error.cause, Cause::Misconfigured, "{error}");
}

#[tokio::test]
async fn links_in_a_directory_are_listed_only_where_they_are_followed() {
    let (dir, real) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let objects = Objects::new();
    objects.write_below(real.path());
    let (key, content) = objects.small();
    let path = dir.path().join(key.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(real.path().join(key.path()), &path).unwrap();
    symlink("nowhere", path.with_file_name("a".repeat(30))).unwrap();
    let remote = |strictness| LocalRemote::new(dir.path().into(), strictness);
    let prefix = Prefix::of(&key, 2);
    let (listed, _) = list(&remote(Strictness::Own), prefix).await.unwrap();
    assert_eq!(listed, [(key, content.len() as u64)]);
    assert!(list(&remote(Strictness::Confined), prefix).await.unwrap().0.is_empty());

    fs::remove_dir_all(dir.path().join("files")).unwrap();
    symlink(real.path().join("files"), dir.path().join("files")).unwrap();
    assert_eq!(list(&remote(Strictness::Own), prefix).await.unwrap().0, listed);
    let error = list(&remote(Strictness::Confined), prefix).await.unwrap_err();
    assert_eq!(error.cause, Cause::Untrusted, "{error}");
}

#[tokio::test]
async fn a_directory_that_is_away_is_no_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("gone")] {
        let remote: Arc<dyn Remote> = Arc::new(LocalRemote::new(path, Strictness::Own));
        let error = list(&*remote, Prefix::whole(Scheme::Md5)).await.unwrap_err();
        assert_eq!(error.cause, Cause::Misconfigured, "{error}");
    }
}
