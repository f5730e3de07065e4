//! What is mounted: the kernel's table, and the records that running mounts leave for commands.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::atomic;

/// How long one waits for others to mount, with a pause after each look. It is longer than mounting
/// takes once a registry is open.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// A line of the kernel's mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) mount_point: PathBuf,
    pub(super) fs_type: String,
    source: String,
}

impl Mounted {
    /// Whether it is a mount of this program.
    pub(super) fn is_ours(&self) -> bool {
        match self.fs_type.as_str() {
            "fuse.dvcfs" => true,
            // Where the kernel knows no such type, fusermount3 writes it here.
            "fuse" => self.source.starts_with("dvcfs#"),
            _ => false,
        }
    }
}

/// The topmost mount at exactly this path, if anything is mounted there.
pub(super) fn find(mount_point: &Path) -> io::Result<Option<Mounted>> {
    let table = fs::read("/proc/self/mountinfo")?;
    let lines = table.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(parse_line).rfind(|line| line.mount_point == mount_point))
}

/// The mount that a path lies on.
pub(super) fn around(path: &Path) -> io::Result<Option<Mounted>> {
    let path = path.canonicalize()?;
    let table = fs::read("/proc/self/mountinfo")?;
    let lines = table.split(|byte| *byte == b'\n').filter_map(parse_line);
    let holding = lines.filter(|line| path.starts_with(&line.mount_point));
    // Of two on one place the later hides the earlier.
    Ok(holding.max_by_key(|line| line.mount_point.as_os_str().len()))
}

/// Reads `36 35 98:0 /root /mnt/point options... - type source superoptions`.
fn parse_line(line: &[u8]) -> Option<Mounted> {
    let mut words = line.split(|byte| *byte == b' ');
    let mount_point = PathBuf::from(OsString::from_vec(unescape(words.nth(4)?)));
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let mut text = || Some(String::from_utf8_lossy(&unescape(words.next()?)).into_owned());
    Some(Mounted { mount_point, fs_type: text()?, source: text()? })
}

/// The kernel writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let (b'\\', Some(byte)) = (first, byte) {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// What a running mount tells the commands about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) mount_point: PathBuf,
    pub(super) repository: String,
    pub(super) revision: Option<String>,
    pub(super) pid: u32,
    pub(super) socket: PathBuf,
}

/// The folder of records and sockets.
#[derive(Debug, Clone)]
pub(super) struct Records(PathBuf);

impl Records {
    pub(super) fn new(runtime_dir: &Path) -> Self {
        Self(runtime_dir.to_owned())
    }

    /// Keeps other processes from mounting and from removing records, as long as the value lives.
    /// Where the disk knows no locks, nobody waits; nobody waits for ever.
    pub(super) fn lock(&self) -> io::Result<File> {
        self.lock_within(PATIENCE)
    }

    fn lock_within(&self, patience: Duration) -> io::Result<File> {
        let folder = File::open(&self.0)?;
        let begin = Instant::now();
        loop {
            match folder.try_lock() {
                Err(TryLockError::WouldBlock) if begin.elapsed() < patience => {
                    thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "another mount is being made",
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("{} cannot be locked: {error}", self.0.display());
                    return Ok(folder);
                }
                Ok(()) => return Ok(folder),
            }
        }
    }

    /// Where the mount's socket and record lie, by a name that its mount point decides.
    fn place(&self, mount_point: &Path, extension: &str) -> PathBuf {
        self.0.join(format!("{}.{extension}", short_name(mount_point)))
    }

    /// The mount's control socket.
    pub(super) fn socket(&self, mount_point: &Path) -> PathBuf {
        self.place(mount_point, "sock")
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        atomic::write(&self.place(&record.mount_point, "json"), &text, 0o600)
    }

    /// Removes what this process left; a mount that came after it at the same place keeps its own.
    pub(super) fn remove_own(&self, mount_point: &Path) {
        let _lock = self.lock();
        if self.find(mount_point).is_none_or(|record| record.pid == std::process::id()) {
            self.remove(mount_point);
        }
    }

    /// The record of a mount whose daemon runs; that of a dead one is removed.
    pub(super) fn of_running(&self, mount_point: &Path) -> Option<Record> {
        let _lock = self.lock();
        let record = self.find(mount_point)?;
        match UnixStream::connect(&record.socket).map_err(|error| error.kind()) {
            Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                self.remove(mount_point);
                None
            }
            _ => Some(record),
        }
    }

    /// Keeps others from pushing what was recorded in a mount, as long as the value lives; nothing
    /// if somebody does so now. Where the disk knows no locks, nobody is kept from it.
    pub(super) fn begin_push(&self, mount_point: &Path) -> io::Result<Option<File>> {
        let record = File::open(self.place(mount_point, "json"))?;
        match record.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                tracing::debug!("{} cannot be locked: {error}", self.0.display());
            }
            Ok(()) => {}
        }
        Ok(Some(record))
    }

    fn remove(&self, mount_point: &Path) {
        for extension in ["json", "sock"] {
            // Gone already is as good as removed.
            _ = fs::remove_file(self.place(mount_point, extension));
        }
    }

    pub(super) fn find(&self, mount_point: &Path) -> Option<Record> {
        read_record(&self.place(mount_point, "json"))
    }

    /// Every record, in order of mount points.
    pub(super) fn list(&self) -> Vec<Record> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let records = paths.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut list: Vec<_> = records.filter_map(|path| read_record(&path)).collect();
        list.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
        list
    }
}

fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A file name for a mount point, the same each time.
pub(super) fn short_name(mount_point: &Path) -> String {
    name_of(mount_point.as_os_str().as_bytes())
}

/// A file name for a repository on a mount point, the same each time.
pub(super) fn name_of_both(mount_point: &Path, repository: &str) -> String {
    // Neither has a NUL in it.
    name_of(&[mount_point.as_os_str().as_bytes(), b"\0", repository.as_bytes()].concat())
}

fn name_of(bytes: &[u8]) -> String {
    use md5::{Digest, Md5};
    let hash = Md5::digest(bytes);
    crate::id::hex(&hash.into())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_escapes_and_optional_fields() {
        let line =
            br"41 29 0:36 / /mnt/a\040b\134c ro,nosuid shared:9 master:1 - fuse dvcfs#repo ro";
        let mounted = parse_line(line).unwrap();
        assert_eq!(mounted.mount_point, Path::new(r"/mnt/a b\c"));
        assert!(mounted.is_ours());
        assert_eq!(parse_line(b""), None);
        assert_eq!(parse_line(b"1 2 3 4 /mnt"), None);
    }

    #[test]
    fn every_mount_point_of_a_repository_has_a_name_of_its_own() {
        let name = |mount_point: &str| name_of_both(Path::new(mount_point), "/registry");
        assert_eq!(name("/mnt/a"), name("/mnt/a"));
        assert_ne!(name("/mnt/a"), name("/mnt/b"));
        assert_ne!(name("/mnt/a"), short_name(Path::new("/mnt/a")));
    }

    #[test]
    fn whoever_waits_for_others_to_mount_gives_up_some_time() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let lock = records.lock().unwrap();
        let refused = records.lock_within(Duration::ZERO).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        drop(lock);
        records.lock_within(Duration::ZERO).unwrap();
    }

    #[test]
    fn records_are_found_by_mount_point_until_removed() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let mount_point = PathBuf::from("/mnt/x");
        let record = Record {
            mount_point: mount_point.clone(),
            repository: "r".into(),
            revision: None,
            pid: 1,
            socket: records.socket(&mount_point),
        };
        records.write(&record).unwrap();
        assert_eq!(records.find(&mount_point).unwrap().repository, "r");
        assert_eq!(records.list().len(), 1);
        records.remove(&mount_point);
        assert!(records.find(&mount_point).is_none());
    }
}
