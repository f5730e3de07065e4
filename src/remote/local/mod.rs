//! A directory in DVC's layout, often on a network file system.
//!
//! Reading and writing may block for long there, so both happen on blocking threads, a bounded number at a time,
//! and under the same time limits as a request.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{
    Body, Cause, PAGE, Page, Prefix, Put, Remote, RemoteError, RequestLimits, Source, get_action,
    list_action, range::cut, size_action,
};
use crate::id::Key;

mod put;

/// How much is read at once.
const CHUNK: u64 = 1 << 20;

/// How many threads read at the same time.
const THREADS: usize = 32;

/// How far a directory is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// The user named it: links below it are followed.
    Own,
    /// The repository named it: below it no link is followed, so nothing but files that lie at a
    /// hash's place is ever opened.
    Confined,
}

/// A remote that is a directory.
#[derive(Debug, Clone)]
pub struct LocalRemote(Arc<Directory>);

#[derive(Debug)]
struct Directory {
    root: PathBuf,
    url: String,
    strictness: Strictness,
    limits: RequestLimits,
    threads: Arc<Semaphore>,
}

impl LocalRemote {
    /// Takes the directory's path; nothing is opened yet.
    pub fn new(root: PathBuf, strictness: Strictness) -> Self {
        let url = root.display().to_string();
        let threads = Arc::new(Semaphore::new(THREADS));
        let limits = RequestLimits::default();
        Self(Arc::new(Directory { root, url, strictness, limits, threads }))
    }

    /// Runs `work` on a blocking thread.
    ///
    /// A thread that a dead file system holds keeps its place until it is let go.
    async fn run<T: Send + 'static>(
        &self,
        action: String,
        work: impl FnOnce(&Directory) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let directory = self.0.clone();
        let threads = directory.threads.clone();
        let outcome = timeout(self.0.limits.idle, async move {
            // Neither the semaphore is closed nor the thread cancelled before its work is done.
            let permit = threads.acquire_owned().await.map_err(io::Error::other)?;
            spawn_blocking(move || {
                let outcome = work(&directory);
                drop(permit);
                outcome
            })
            .await
            .map_err(io::Error::other)
        });
        let fail = |reason: String| {
            RemoteError::new(Cause::Unreachable, action.as_str(), &self.0.url, reason)
                .with_hint("check that the file system answers")
        };
        match outcome.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(fail(error.to_string())),
            Err(_elapsed) => Err(fail(format!("no answer for {} s", self.0.limits.idle.as_secs()))),
        }
    }
}

#[async_trait]
impl Remote for LocalRemote {
    async fn get(&self, key: Key, range: Option<Range<u64>>) -> Result<Body, RemoteError> {
        let (file, size) =
            self.run(get_action(key), move |dir| dir.open(key, &get_action(key))).await?;
        let range = cut(range, size);
        let reading = Reading { remote: self.clone(), key, file: Arc::new(file) };
        let chunks = stream::try_unfold((reading, range.clone()), |(reading, rest)| async move {
            if rest.is_empty() {
                return Ok(None);
            }
            let chunk = reading.chunk(rest.clone()).await?;
            let rest = rest.start + chunk.len() as u64..rest.end;
            Ok(Some((chunk, (reading, rest))))
        });
        Ok(Body { size, range, chunks: chunks.boxed() })
    }

    async fn size(&self, key: Key) -> Result<u64, RemoteError> {
        let action = size_action(key);
        let (_, size) = self.run(action.clone(), move |dir| dir.open(key, &action)).await?;
        Ok(size)
    }

    async fn list(&self, prefix: Prefix, after: Option<&str>) -> Result<Page, RemoteError> {
        let (action, after) = (list_action(prefix), after.unwrap_or_default().to_owned());
        self.run(action.clone(), move |dir| dir.page(prefix, &after, &action)).await
    }

    async fn put(&self, key: Key, source: &Source) -> Result<Put, RemoteError> {
        self.put_source(key, source).await
    }

    /// Every size takes a look at its file either way.
    fn lists_cheaply(&self) -> bool {
        false
    }

    fn url(&self) -> &str {
        &self.0.url
    }
}

/// An open object.
struct Reading {
    remote: LocalRemote,
    key: Key,
    file: Arc<File>,
}

impl Reading {
    /// Reads the beginning of `range`, which is not empty.
    async fn chunk(&self, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let (key, file) = (self.key, self.file.clone());
        let read = move |dir: &Directory| {
            let mut buffer = vec![0; CHUNK.min(range.end - range.start) as usize];
            match read_at(&file, &mut buffer, range.start) {
                Ok(0) => {
                    let reason = format!("the file ends at byte {}", range.start);
                    Err(RemoteError::new(Cause::Unreachable, get_action(key), &dir.url, reason)
                        .with_hint("it was cut short while it was read"))
                }
                Ok(length) => {
                    buffer.truncate(length);
                    Ok(Bytes::from(buffer))
                }
                Err(error) => Err(dir.failure(&get_action(key), error)),
            }
        };
        self.remote.run(get_action(key), read).await
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

impl Directory {
    /// Opens an object and tells its size.
    fn open(&self, key: Key, action: &str) -> Result<(File, u64), RemoteError> {
        let root = self.open_root(action)?;
        let last = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.open_below(&root, &key.path(), last) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.missing(action));
            }
            Err(error) => return Err(self.not_opened(action, error)),
        };
        let metadata = file.metadata().map_err(|error| self.failure(action, error))?;
        if !metadata.is_file() {
            return Err(self.error(Cause::Misconfigured, action, "not a regular file"));
        }
        Ok((file, metadata.len()))
    }

    /// The objects of `prefix` behind `after`, up to a page of them.
    fn page(&self, prefix: Prefix, after: &str, action: &str) -> Result<Page, RemoteError> {
        let root = self.open_root(action)?;
        if let Ok(true) = self.is_empty() {
            return Err(self.missing(action));
        }
        let mut objects = Vec::new();
        for first in prefix.first_bytes() {
            if objects.len() > PAGE {
                break;
            }
            let folder = prefix.folder(first);
            if folder.as_str() >= after || after.starts_with(&folder) {
                let start = objects.len();
                self.list_folder(&root, &folder, action, |key, size| {
                    if prefix.contains(&key) && *key.path() > *after {
                        objects.push((key, size));
                    }
                })?;
                objects[start..].sort_unstable();
            }
        }
        Ok(Page::cut(objects))
    }

    /// Gives every regular file of one folder that is named as an object; a folder that does not
    /// exist has none.
    fn list_folder(
        &self,
        root: &OwnedFd,
        path: &str,
        action: &str,
        mut each: impl FnMut(Key, u64),
    ) -> Result<(), RemoteError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match self.open_below(root, path.trim_end_matches('/'), flags) {
            Ok(folder) => folder,
            Err(error) if is_none(&error, self.strictness) => return Ok(()),
            Err(error) => return Err(self.not_opened(action, error)),
        };
        let failed = |errno: rustix::io::Errno| self.failure(action, errno.into());
        let follow = match self.strictness {
            Strictness::Own => AtFlags::empty(),
            Strictness::Confined => AtFlags::SYMLINK_NOFOLLOW,
        };
        for entry in Dir::read_from(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(key) =
                name.to_str().ok().and_then(|it| Key::from_path(&format!("{path}{it}")))
            else {
                continue;
            };
            // One that goes meanwhile is no object any more, and a link may lead nowhere.
            let Ok(stat) = rustix::fs::statat(&folder, name, follow) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                each(key, stat.st_size as u64);
            }
        }
        Ok(())
    }

    /// What lies below is not there as it should be.
    fn not_opened(&self, action: &str, error: io::Error) -> RemoteError {
        if is_link(&error) && self.strictness == Strictness::Confined {
            return self
                .error(Cause::Untrusted, action, "a symbolic link lies in the way")
                .with_hint("name this folder as remote in your own DVC configuration");
        }
        self.failure(action, error)
    }

    /// A folder that is away is the folder's fault, not the object's.
    fn open_root(&self, action: &str) -> Result<OwnedFd, RemoteError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.root, flags, Mode::empty()).map_err(|errno| {
            let error = io::Error::from(errno);
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self
                    .error(Cause::Misconfigured, action, "there is no such folder")
                    .with_hint("check the path, and that its file system is mounted"),
                _ => self.failure(action, error),
            }
        })
    }

    /// Opens step by step, so that no component is a link unless links may be followed.
    ///
    /// Without `NONBLOCK` opening a named pipe would wait for a writer.
    fn open_below(&self, root: &OwnedFd, path: &str, last: OFlags) -> io::Result<OwnedFd> {
        if self.strictness == Strictness::Own {
            return Ok(rustix::fs::openat(root, path, last, Mode::empty())?);
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder: Option<OwnedFd> = None;
        for component in folders.split('/').filter(|component| !component.is_empty()) {
            let within = folder.as_ref().unwrap_or(root);
            folder = Some(rustix::fs::openat(within, component, step, Mode::empty())?);
        }
        let within = folder.as_ref().unwrap_or(root);
        Ok(rustix::fs::openat(within, name, last | OFlags::NOFOLLOW, Mode::empty())?)
    }

    fn is_empty(&self) -> io::Result<bool> {
        std::fs::read_dir(&self.root).map(|mut entries| entries.next().is_none())
    }

    /// The object is not there; but an empty folder is more likely one that is not mounted.
    fn missing(&self, action: &str) -> RemoteError {
        match self.is_empty() {
            Ok(false) => self.error(Cause::Missing, action, "there is no such object"),
            Ok(true) => self.error(Cause::Misconfigured, action, "the folder is empty").with_hint(
                "check that its file system is mounted; to begin a store, make a folder files \
                     in it",
            ),
            Err(error) => self.failure(action, error),
        }
    }

    fn failure(&self, action: &str, error: io::Error) -> RemoteError {
        let (cause, hint) = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                (Cause::Denied, "check the folder's permissions")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (Cause::Full, "make room on its disk")
            }
            _ => (Cause::Unreachable, "check that the file system answers"),
        };
        self.error(cause, action, &error.to_string()).with_hint(hint).with_source(error)
    }

    fn error(&self, cause: Cause, action: &str, reason: &str) -> RemoteError {
        RemoteError::new(cause, action, &self.url, reason)
    }
}

/// Whether there is no such folder; a file in its place cannot be told from a link where those are
/// refused.
fn is_none(error: &io::Error, strictness: Strictness) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound => true,
        io::ErrorKind::NotADirectory => strictness == Strictness::Own,
        _ => false,
    }
}

/// Opening a link with `NOFOLLOW` says "too many links", with `DIRECTORY` also "not a directory".
fn is_link(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    code == Some(Errno::LOOP.raw_os_error()) || code == Some(Errno::NOTDIR.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use futures_util::TryStreamExt;
    use tempfile::TempDir;

    use super::*;
    use crate::id::Scheme;

    const KEY: Key = Key { digest: [0xab; 16], scheme: Scheme::Md5, is_manifest: false };

    fn folder_with(content: &[u8]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        dir
    }

    fn remote(dir: &TempDir, strictness: Strictness) -> LocalRemote {
        LocalRemote::new(dir.path().into(), strictness)
    }

    async fn read(remote: &LocalRemote) -> Result<Vec<u8>, RemoteError> {
        let chunks: Vec<Bytes> = remote.get(KEY, None).await?.chunks.try_collect().await?;
        Ok(chunks.concat())
    }

    async fn cause(remote: &LocalRemote) -> Cause {
        read(remote).await.unwrap_err().cause
    }

    #[tokio::test]
    async fn a_confined_folder_gives_its_regular_files() {
        let dir = folder_with(b"abc");
        assert_eq!(read(&remote(&dir, Strictness::Confined)).await.unwrap(), b"abc");
    }

    #[tokio::test]
    async fn links_are_followed_only_in_the_users_own_folder() {
        let (real, dir) = (folder_with(b"secret"), tempfile::tempdir().unwrap());
        symlink(real.path().join("files"), dir.path().join("files")).unwrap();
        assert_eq!(read(&remote(&dir, Strictness::Own)).await.unwrap(), b"secret");
        assert_eq!(cause(&remote(&dir, Strictness::Confined)).await, Cause::Untrusted);

        let dir = folder_with(b"");
        fs::remove_file(dir.path().join(KEY.path())).unwrap();
        symlink(real.path().join(KEY.path()), dir.path().join(KEY.path())).unwrap();
        assert_eq!(read(&remote(&dir, Strictness::Own)).await.unwrap(), b"secret");
        assert_eq!(cause(&remote(&dir, Strictness::Confined)).await, Cause::Untrusted);
    }

    #[tokio::test]
    async fn a_folder_that_is_away_or_empty_is_not_a_missing_object() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cause(&remote(&dir, Strictness::Own)).await, Cause::Misconfigured);
        let gone = LocalRemote::new(dir.path().join("gone"), Strictness::Own);
        assert_eq!(cause(&gone).await, Cause::Misconfigured);
        fs::write(dir.path().join("other"), b"").unwrap();
        assert_eq!(cause(&remote(&dir, Strictness::Own)).await, Cause::Missing);
    }

    #[tokio::test]
    async fn folders_and_pipes_are_refused_without_waiting() {
        let dir = folder_with(b"");
        let path = dir.path().join(KEY.path());
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(cause(&remote(&dir, Strictness::Confined)).await, Cause::Misconfigured);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(cause(&remote(&dir, Strictness::Own)).await, Cause::Misconfigured);
    }

    #[tokio::test]
    async fn a_file_that_shrinks_while_it_is_read_is_an_error() {
        let dir = folder_with(&vec![1; 3 << 20]);
        let mut body = remote(&dir, Strictness::Own).get(KEY, None).await.unwrap();
        assert_eq!(body.chunks.try_next().await.unwrap().unwrap().len(), 1 << 20);
        fs::write(dir.path().join(KEY.path()), b"short").unwrap();
        let error = body.chunks.try_next().await.unwrap_err();
        assert_eq!(error.cause, Cause::Unreachable);
    }
}
