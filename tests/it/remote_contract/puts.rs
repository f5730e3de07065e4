//! Putting objects: every remote takes them whole, once, and checks what it takes.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use dvcfs::{
    id::{Key, Scheme},
    remote::{
        Cause, HttpRemote, HttpSettings, LocalRemote, MemoryRemote, Put, Remote, RemoteError,
        RequestLimits, S3Remote, S3Settings, Source, Strictness,
    },
};
use md5::{Digest as _, Md5};
use tempfile::TempDir;

use super::{
    moto::Moto,
    objects::Objects,
    rclone::Rclone,
    read,
    s3::{BUCKET, settings},
};
use crate::{
    s3server::{Fault, Gate, Options, Request, S3Server},
    support::noise,
};

/// More than is put by one request: five parts.
const LARGE: usize = (64 << 20) + 5;

/// Some bytes in a file, and their key.
struct Local {
    _dir: TempDir,
    path: PathBuf,
    key: Key,
    content: Vec<u8>,
}

impl Local {
    fn new(content: &[u8], is_manifest: bool, scheme: Scheme) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        fs::write(&path, content).unwrap();
        let key = Key { digest: Md5::digest(content).into(), scheme, is_manifest };
        Self { _dir: dir, path, key, content: content.to_vec() }
    }

    fn of(content: &[u8]) -> Self {
        Self::new(content, false, Scheme::Md5)
    }

    fn large() -> Self {
        Self::of(&noise(9, LARGE))
    }

    fn source(&self) -> Source {
        Source::new(File::open(&self.path).unwrap()).unwrap()
    }

    /// A source that remembers how far an upload has come, one part after the other.
    fn noted(&self) -> Source {
        self.source().noting_in(self.note())
    }

    fn note(&self) -> PathBuf {
        self.path.with_file_name("note")
    }

    async fn put(&self, remote: &dyn Remote) -> Result<Put, RemoteError> {
        remote.put(self.key, &self.source()).await
    }
}

/// Puts objects of every kind into a remote that takes some; it has none of them.
async fn takes_objects(remote: &dyn Remote) {
    for local in [
        Local::of(b"some bytes"),
        Local::of(b""),
        Local::of(&noise(3, 3_000_000)),
        Local::new(b"[]", true, Scheme::Md5),
        Local::new(b"of the older layout", false, Scheme::Dos2Unix),
    ] {
        let told = Arc::new(AtomicI64::new(0));
        let sum = Arc::clone(&told);
        let source = local.source().telling(Arc::new(move |bytes| {
            sum.fetch_add(bytes, Ordering::Relaxed);
        }));
        let put = remote.put(local.key, &source).await;
        assert_eq!(put.unwrap_or_else(|error| panic!("{error}")), Put::Stored);
        assert_eq!(told.load(Ordering::Relaxed), local.content.len() as i64, "{}", remote.url());
        assert!(read(remote, local.key, None).await.unwrap() == local.content);
        assert_eq!(remote.size(local.key).await.unwrap(), local.content.len() as u64);
    }
}

/// A second put of an object changes nothing.
async fn leaves_alone_what_is_there(remote: &dyn Remote) {
    let (first, second) = (Local::of(b"first"), Local::of(b"second"));
    assert_eq!(first.put(remote).await.unwrap(), Put::Stored);
    assert_eq!(remote.put(first.key, &second.source()).await.unwrap(), Put::Present);
    assert_eq!(read(remote, first.key, None).await.unwrap(), b"first");
}

/// What is not what its key says is refused, and nothing stays of it.
async fn refuses_wrong_bytes(remote: &dyn Remote, cause: Cause) {
    let (meant, other) = (Local::of(b"meant"), Local::of(b"others"));
    let error = remote.put(meant.key, &other.source()).await.unwrap_err();
    assert_eq!(error.cause, cause, "{error}");
    assert_eq!(remote.size(meant.key).await.unwrap_err().cause, Cause::Missing);
}

async fn takes_a_large_object(remote: &dyn Remote) {
    let large = Local::large();
    let source = large.noted().in_parts_at_once(NonZeroUsize::new(3).unwrap());
    let put = remote.put(large.key, &source).await;
    assert_eq!(put.unwrap_or_else(|error| panic!("{error}")), Put::Stored);
    assert!(read(remote, large.key, None).await.unwrap() == large.content);
    assert!(!large.note().exists());
}

fn server() -> (S3Server, TempDir, S3Remote) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join(BUCKET)).unwrap();
    let server = S3Server::start(root.path().into(), Options::default());
    let remote = S3Remote::new(settings(&server.endpoint()));
    (server, root, remote)
}

#[tokio::test]
async fn memory_takes_objects() {
    let remote = MemoryRemote::new();
    takes_objects(&remote).await;
    leaves_alone_what_is_there(&remote).await;
}

#[tokio::test]
async fn a_directory_takes_objects_as_dvc_keeps_them() {
    for strictness in [Strictness::Own, Strictness::Confined] {
        let dir = tempfile::tempdir().unwrap();
        // An empty folder would be taken for one that is not mounted.
        fs::create_dir(dir.path().join("files")).unwrap();
        let remote = LocalRemote::new(dir.path().into(), strictness);
        takes_objects(&remote).await;
        leaves_alone_what_is_there(&remote).await;
        refuses_wrong_bytes(&remote, Cause::Local).await;
        takes_a_large_object(&remote).await;
        let files = files_below(dir.path());
        assert_eq!(files.len(), 7, "no drafts stay: {files:?}");
        for file in files {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o444);
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn nothing_is_written_through_the_links_of_a_folder_that_the_repository_names() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("files")).unwrap();
    let local = Local::of(b"some bytes");
    let confined = LocalRemote::new(dir.path().into(), Strictness::Confined);
    assert_eq!(local.put(&confined).await.unwrap_err().cause, Cause::Untrusted);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let own = LocalRemote::new(dir.path().into(), Strictness::Own);
    assert_eq!(local.put(&own).await.unwrap(), Put::Stored);
    assert_eq!(files_below(elsewhere.path()).len(), 1);
}

#[tokio::test]
async fn a_directory_that_is_away_or_full_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::of(b"some bytes");
    let gone = LocalRemote::new(dir.path().join("gone"), Strictness::Own);
    assert_eq!(local.put(&gone).await.unwrap_err().cause, Cause::Misconfigured);
    fs::write(dir.path().join("files"), "a file").unwrap();
    let odd = LocalRemote::new(dir.path().into(), Strictness::Own);
    assert!(local.put(&odd).await.is_err());
}

#[tokio::test]
async fn http_takes_nothing_and_says_so() {
    let settings = HttpSettings { url: "http://127.0.0.1:1/dvc".into(), ..Default::default() };
    let error = Local::of(b"x").put(&HttpRemote::new(settings)).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unsupported);
    assert!(error.hint.unwrap().contains("S3 or a folder"));
}

#[tokio::test]
async fn s3_takes_objects_and_checks_them() {
    let (server, _root, remote) = server();
    takes_objects(&remote).await;
    leaves_alone_what_is_there(&remote).await;
    refuses_wrong_bytes(&remote, Cause::Unreachable).await;
    let puts: Vec<_> = server.log().into_iter().filter(|request| request.method == "PUT").collect();
    for name in ["content-md5", "x-amz-checksum-crc32", "if-none-match", "content-length"] {
        // The bytes of the older layout are not fixed by their name.
        let least = if name == "content-md5" { puts.len() - 1 } else { puts.len() };
        let with = puts.iter().filter(|request| request.headers.contains(&name.into())).count();
        assert!(with >= least, "{name}: {with} of {}", puts.len());
    }
    server.reset();
    takes_a_large_object(&remote).await;
    let is_part = |request: &&Request| request.query.contains("partNumber=");
    assert_eq!(server.log().iter().filter(is_part).count(), 5);
}

#[tokio::test]
async fn s3_refuses_bytes_that_were_damaged_on_the_way_by_each_checksum() {
    for (scheme, has_md5) in [(Scheme::Md5, true), (Scheme::Dos2Unix, false)] {
        let (server, _root, remote) = server();
        server.set_rule(|request| (request.method == "PUT").then_some(Fault::FlipUpload(3)));
        let local = Local::new(b"some bytes", false, scheme);
        let error = local.put(&remote).await.unwrap_err();
        assert!(error.to_string().contains("BadDigest"), "{error}");
        let log = server.log();
        let puts: Vec<_> = log.iter().filter(|request| request.method == "PUT").collect();
        for request in &puts {
            let has = |name: &str| request.headers.contains(&name.to_owned());
            assert_eq!((has("content-md5"), has("x-amz-checksum-crc32")), (has_md5, true));
        }
        assert!(!puts.is_empty());
        assert_eq!(remote.size(local.key).await.unwrap_err().cause, Cause::Missing);
        server.heal();
        assert_eq!(local.put(&remote).await.unwrap(), Put::Stored);
    }
}

#[tokio::test]
async fn s3_by_other_makers_takes_objects() {
    let moto = Moto::start();
    moto.fill(BUCKET, "dvc/store", &Objects::new()).await;
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join(BUCKET)).unwrap();
    let rclone = Rclone::start(root.path());
    for endpoint in [moto.endpoint(), rclone.endpoint()] {
        let remote = S3Remote::new(settings(endpoint));
        for local in [Local::of(b"some bytes"), Local::of(&noise(3, 3_000_000))] {
            let put = local.put(&remote).await.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(put, Put::Stored, "{endpoint}");
            assert!(read(&remote, local.key, None).await.unwrap() == local.content);
        }
        takes_a_large_object(&remote).await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_understand_is_asked_for_less() {
    for refused in ["if-none-match", "x-amz-checksum-crc32"] {
        let (server, _root, remote) = server();
        server.set_rule(move |request| {
            let is_refused = request.headers.contains(&refused.to_owned());
            is_refused.then_some(Fault::Status(501, "NotImplemented"))
        });
        takes_objects(&remote).await;
        let asked = server.log().into_iter().filter(|request| request.method == "PUT");
        let refusals = asked.filter(|request| request.headers.contains(&refused.to_owned()));
        assert!(refusals.count() <= 2, "what it does not understand is remembered");
        takes_a_large_object(&remote).await;
    }
}

#[tokio::test]
async fn an_upload_over_a_broken_line_is_sent_again() {
    let (server, _root, remote) = server();
    let local = Local::of(&noise(4, 3_000_000));
    server.fail_next([
        Fault::CutUpload(1_000_000),
        Fault::Status(503, "SlowDown"),
        Fault::CutUpload(10),
        Fault::Cut(0),
    ]);
    let told = Arc::new(AtomicI64::new(0));
    let sum = Arc::clone(&told);
    let source = local.source().telling(Arc::new(move |bytes| {
        sum.fetch_add(bytes, Ordering::Relaxed);
    }));
    let put = remote.put(local.key, &source).await;
    assert_eq!(put.unwrap_or_else(|error| panic!("{error}")), Put::Present);
    assert!(read(&remote, local.key, None).await.unwrap() == local.content);
    // The last answer was lost, so that it was there in the end: what was sent does not count.
    assert_eq!(told.load(Ordering::Relaxed), 0);
    server.fail_always(Fault::CutUpload(1000));
    let error = Local::of(b"others").put(&remote).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable, "{error}");
    assert!(server.requests("PUT") < 30, "tries end");
}

#[tokio::test]
async fn refusals_say_whose_move_is_next() {
    let (server, _root, remote) = server();
    for (fault, cause, hint) in [
        (Fault::Status(403, "AccessDenied"), Cause::Denied, "s3:PutObject"),
        (Fault::Status(400, "ExpiredToken"), Cause::Denied, "aws sso login"),
        (Fault::Status(507, "XMinioStorageFull"), Cause::Full, "room"),
        (Fault::Status(403, "QuotaExceeded"), Cause::Full, "room"),
        (Fault::Status(501, "NotImplemented"), Cause::Unsupported, "another server"),
    ] {
        server.fail_always(fault.clone());
        let error = Local::of(b"bytes").put(&remote).await.unwrap_err();
        assert_eq!(error.cause, cause, "{fault:?}: {error}");
        assert!(error.hint.as_ref().is_some_and(|it| it.contains(hint)), "{error:?}");
        assert!(error.to_string().starts_with("put files/md5/4b/"), "{error}");
        server.heal();
        assert!(Local::of(fault_name(&fault)).put(&remote).await.is_ok(), "after {fault:?}");
    }
}

fn fault_name(fault: &Fault) -> &'static [u8] {
    match fault {
        Fault::Status(_, name) => name.as_bytes(),
        _ => b"",
    }
}

#[tokio::test]
async fn silence_ends_an_upload_and_slowness_does_not() {
    let (server, _root, _) = server();
    let limits = RequestLimits {
        idle: Duration::from_millis(300),
        retries: 1,
        ..settings("http://h").limits
    };
    let remote = S3Remote::new(S3Settings { limits, ..settings(&server.endpoint()) });
    server.fail_always(Fault::Stall(Gate::new()));
    let error = Local::of(b"bytes").put(&remote).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable, "{error}");
    assert!(error.reason.contains("nothing moved"), "{error}");
}

/// How many parts of an upload the server was sent.
fn parts(server: &S3Server) -> usize {
    server.log().iter().filter(|request| request.query.contains("partNumber=")).count()
}

#[tokio::test]
async fn an_upload_in_parts_that_was_cut_off_goes_on_where_it_stopped() {
    let (server, _root, remote) = server();
    let large = Local::large();
    server.set_rule(|request| {
        let is_late = ["4", "5"].iter().any(|n| request.query.contains(&format!("partNumber={n}")));
        is_late.then_some(Fault::Status(400, "ExpiredToken"))
    });
    let error = remote.put(large.key, &large.noted()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Denied, "{error}");
    let noted = fs::read_to_string(large.note()).unwrap().lines().count() - 1;
    assert_eq!(noted, 3);
    server.heal();
    server.reset();
    // Another process, after a new login, and with a line of the note torn off.
    let half = fs::read_to_string(large.note()).unwrap() + "{\"number\":";
    fs::write(large.note(), half).unwrap();
    let again = S3Remote::new(settings(&server.endpoint()));
    assert_eq!(again.put(large.key, &large.noted()).await.unwrap(), Put::Stored);
    assert_eq!(parts(&server), 5 - noted);
    assert!(read(&again, large.key, None).await.unwrap() == large.content);
    assert!(!large.note().exists());
}

#[tokio::test]
async fn what_cannot_be_taken_up_again_begins_anew() {
    let (server, root, remote) = server();
    let large = Local::large();
    let cut_off = async || {
        server.set_rule(|request| {
            request.query.contains("partNumber=5").then_some(Fault::Status(403, "AccessDenied"))
        });
        assert!(remote.put(large.key, &large.noted()).await.is_err());
        server.heal();
        server.reset();
    };
    // The server has dropped the parts.
    cut_off().await;
    fs::remove_dir_all(root.path().join(".uploads")).unwrap();
    assert_eq!(remote.put(large.key, &large.noted()).await.unwrap(), Put::Stored);
    assert!(read(&remote, large.key, None).await.unwrap() == large.content);
    let object = root.path().join(BUCKET).join("dvc/store").join(large.key.path());
    fs::remove_file(&object).unwrap();

    // The note is of an upload with other parts, which is given up.
    cut_off().await;
    let note = fs::read_to_string(large.note()).unwrap().replace("16777216", "33554432");
    fs::write(large.note(), note).unwrap();
    assert_eq!(remote.put(large.key, &large.noted()).await.unwrap(), Put::Stored);
    assert_eq!((server.requests("DELETE"), parts(&server)), (1, 5));
    fs::remove_file(&object).unwrap();

    // Somebody else was faster.
    cut_off().await;
    fs::write(&object, &large.content).unwrap();
    assert_eq!(remote.put(large.key, &large.noted()).await.unwrap(), Put::Present);
    assert!(!large.note().exists());
    assert_eq!(server.requests("DELETE"), 1, "and ours is given up");
}

#[tokio::test]
async fn an_upload_without_a_note_leaves_nothing_behind_when_it_fails() {
    let (server, root, remote) = server();
    let large = Local::large();
    server.set_rule(|request| {
        request.query.contains("partNumber=3").then_some(Fault::Status(507, "XMinioStorageFull"))
    });
    assert_eq!(large.put(&remote).await.unwrap_err().cause, Cause::Full);
    assert_eq!(fs::read_dir(root.path().join(".uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_no_fault_of_the_remotes() {
    let (_server, _root, remote) = server();
    let local = Local::of(b"some bytes");
    let source = local.source();
    fs::write(&local.path, "short").unwrap();
    let error = remote.put(local.key, &source).await.unwrap_err();
    assert_eq!(error.cause, Cause::Local, "{error}");
}
