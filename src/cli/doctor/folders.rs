//! The folders that mounts work in, and the mounts that are there.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::HumanBytes;
use rustix::fs::{Access, AtFlags, CWD, accessat, statvfs};

use super::{Check, Status};
use crate::cli::{
    control::{Request, ask},
    mount::is_dead,
    mounts::{self, Records},
    settings::Settings,
};

/// The longest path of a socket that the kernel takes, in bytes.
const MAX_SOCKET_PATH: usize = 107;

/// How long a mount may take to say how it is.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where a cache is no faster than the remote.
const NETWORK_FILE_SYSTEMS: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"];

pub(super) fn checks(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![cache(settings), state(settings), sockets(settings)];
    checks.extend(running(settings));
    checks
}

/// A folder as it is, or as it would be made.
struct Folder {
    /// Itself, or the nearest folder above that is there.
    there: PathBuf,
    metadata: Metadata,
    is_missing: bool,
}

impl Folder {
    fn find(dir: &Path) -> io::Result<Self> {
        for there in dir.ancestors() {
            match fs::metadata(there) {
                Ok(metadata) if metadata.is_dir() => {
                    let is_missing = there != dir;
                    return Ok(Self { there: there.to_owned(), metadata, is_missing });
                }
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Finds a folder that can be written to.
    fn writable(dir: &Path) -> Result<Self, String> {
        let folder = Self::find(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        accessat(CWD, &folder.there, access, AtFlags::EACCESS)
            .map_err(|error| format!("{} cannot be written to: {error}", folder.there.display()))?;
        Ok(folder)
    }

    /// What is worth knowing about where it lies.
    fn describe(&self) -> String {
        let owner = if self.is_missing {
            "not there yet".to_owned()
        } else {
            format!("of user {}", self.metadata.uid())
        };
        let file_system = self.file_system().map_or(String::new(), |kind| format!(" on {kind}"));
        let free = self.free().map_or(String::new(), |free| format!(", {} free", HumanBytes(free)));
        format!("{owner}{file_system}{free}")
    }

    fn file_system(&self) -> Option<String> {
        mounts::around(&self.there).ok()?.map(|mounted| mounted.fs_type)
    }

    fn free(&self) -> Option<u64> {
        let disk = statvfs(&self.there).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

fn cache(settings: &Settings) -> Check {
    const WHAT: &str = "cache";
    let dir = settings.cache_dir.display();
    let folder = match Folder::writable(&settings.cache_dir) {
        Ok(folder) => folder,
        Err(why) => {
            return Check::warn(WHAT, format!("{why}; files are read past it"))
                .hint("give it to you with chown, or choose another with --cache-dir");
        }
    };
    let limits = format!(
        "{dir}: {}, limit {}, {} kept free",
        folder.describe(),
        HumanBytes(settings.cache_size),
        HumanBytes(settings.min_free)
    );
    if folder.free().is_some_and(|free| free < settings.min_free) {
        return Check::warn(WHAT, format!("{limits}: the disk is too full to keep anything"))
            .hint("make room, or lower --min-free");
    }
    let is_far = |kind: &String| NETWORK_FILE_SYSTEMS.contains(&kind.as_str());
    if folder.file_system().as_ref().is_some_and(is_far) {
        return Check::warn(WHAT, format!("{limits}: a network file system makes a slow cache"))
            .hint("choose a local disk with --cache-dir");
    }
    Check::ok(WHAT, limits)
}

fn state(settings: &Settings) -> Check {
    match Folder::writable(&settings.state_dir) {
        Ok(folder) => {
            let dir = settings.state_dir.display();
            Check::ok("state", format!("{dir}: {}", folder.describe()))
        }
        Err(why) => Check::fail("state", why)
            .hint("mirrors and indexes are kept there; choose another folder with --state-dir"),
    }
}

fn sockets(settings: &Settings) -> Check {
    const WHAT: &str = "sockets";
    let dir = &settings.runtime_dir;
    // Any mount's name is as long as any other's.
    let socket = Records::new(dir).socket(Path::new("/"));
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Check::fail(WHAT, format!("{}: the path is too long for a socket", dir.display()))
            .hint("choose a shorter one with --runtime-dir");
    }
    match Folder::writable(dir) {
        Ok(_) => Check::ok(WHAT, dir.display().to_string()),
        Err(why) => Check::fail(WHAT, why)
            .hint("mounts are recorded there; choose another folder with --runtime-dir"),
    }
}

/// The mounts of this user.
fn running(settings: &Settings) -> Vec<Check> {
    let records = Records::new(&settings.runtime_dir).list();
    let mounted = records.into_iter().filter(|record| {
        mounts::find(&record.mount_point).is_ok_and(|found| found.is_some_and(|m| m.is_ours()))
    });
    let check = |record: mounts::Record| {
        let dir = record.mount_point.display();
        if is_dead(&record.mount_point) {
            return Check::warn("mount", format!("{dir}: its daemon has died"))
                .hint(format!("dvcfs umount --lazy {dir}"));
        }
        match ask(&record.socket, &Request::Status, DEADLINE) {
            Ok(Ok(status)) => {
                let mode = status["open_mode"]["mode"].as_str().unwrap_or("unknown");
                Check::ok("mount", format!("{dir}: {}, open mode {mode}", record.repository))
            }
            Ok(Err(why)) => Check::warn("mount", format!("{dir}: {why}")),
            Err(error) => Check::warn("mount", format!("{dir}: it does not answer: {error}")),
        }
    };
    mounted.map(check).collect()
}

/// Which of DVC's own settings files there are.
pub(super) fn dvc_config(settings: &Settings) -> Check {
    let levels = [("system", &settings.dvc_system_config), ("global", &settings.dvc_global_config)];
    let found = levels.map(|(level, path)| found(level, Some(path)));
    Check::new(Status::Ok, "DVC settings", found.join(", "))
}

/// A settings file and whether it is there.
pub(super) fn found(level: &str, path: Option<&PathBuf>) -> String {
    match path.filter(|path| path.exists()) {
        Some(path) => format!("{level} {}", path.display()),
        None => format!("{level} none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_told_by_the_one_above() {
        let top = tempfile::tempdir().unwrap();
        let folder = Folder::writable(&top.path().join("a/b")).ok().unwrap();
        assert_eq!((folder.there.as_path(), folder.is_missing), (top.path(), true));
        assert!(folder.describe().starts_with("not there yet on "), "{}", folder.describe());
        assert!(folder.free().is_some());
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("file");
        fs::write(&file, "").unwrap();
        let why = Folder::writable(&file.join("cache")).err().unwrap();
        assert!(why.contains("file/cache"), "{why}");
    }
}
