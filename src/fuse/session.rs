//! Mounting, serving and unmounting.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use fuser::{Config, MountOption, SessionACL};
use tokio::{runtime::Handle, sync::mpsc};

use super::{FuseFs, invalidate};
use crate::vfs::{Event, Vfs};

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Shown as the source in the mount table.
    pub source: String,
    /// Let every user in, with permissions checked by the kernel.
    pub allow_other: bool,
    /// Owner and group of what is shown.
    pub owner: (u32, u32),
    /// How many threads answer the kernel.
    pub threads: usize,
}

/// Why a folder cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE, or this place is not given the device.
    #[error("/dev/fuse cannot be used")]
    NoDevice(#[source] io::Error),
    /// The helper that mounts for ordinary users is not installed.
    #[error("fusermount3 is not installed")]
    NoHelper,
    /// `allow_other` is not permitted to ordinary users here.
    #[error("allow_other needs the line `user_allow_other` in /etc/fuse.conf")]
    AllowOther,
    /// Anything else.
    #[error("mount {dir}")]
    Refused {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A running mount.
pub struct Session {
    serving: thread::JoinHandle<io::Result<()>>,
    dir: PathBuf,
}

impl Session {
    /// Mounts on `dir` and serves until the mount ends.
    pub fn start(
        vfs: Arc<Vfs>,
        events: mpsc::UnboundedReceiver<Event>,
        dir: &Path,
        options: &MountOptions,
        runtime: Handle,
    ) -> Result<Self, MountError> {
        let (uid, gid) = options.owner;
        let file_system = FuseFs { vfs, listings: Arc::default(), runtime, uid, gid };
        let refused = |source| MountError::Refused { dir: dir.to_owned(), source };
        let session = fuser::Session::new(file_system, dir, &config(options))
            .map_err(|error| diagnose(error, dir, options))?;
        invalidate::spawn(session.notifier(), events).map_err(refused)?;
        let serving = thread::Builder::new().name("fuse".into()).spawn(move || session.run());
        Ok(Self { serving: serving.map_err(refused)?, dir: dir.to_owned() })
    }

    /// Waits for the end of the mount, whoever ends it.
    pub fn wait(self) -> io::Result<()> {
        let ended = self.serving.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("a thread that serves the kernel panicked")))
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        // The helper takes a list of options apart at commas.
        MountOption::FSName(options.source.replace([',', '\\'], "_")),
        MountOption::Subtype("dvcfs".into()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.allow_other {
        config.mount_options.push(MountOption::DefaultPermissions);
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(options.threads);
    config
}

/// Finds out why mounting failed; the library's error alone seldom says.
fn diagnose(error: io::Error, dir: &Path, options: &MountOptions) -> MountError {
    let is_root = rustix::process::geteuid().is_root();
    if let Err(source) = Path::new("/dev/fuse").metadata() {
        return MountError::NoDevice(source);
    }
    if is_root
        && let Err(source) = std::fs::File::options().read(true).write(true).open("/dev/fuse")
    {
        return MountError::NoDevice(source);
    }
    if !is_root && helper().is_none() {
        return MountError::NoHelper;
    }
    if !is_root && options.allow_other {
        let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
        if !conf.lines().any(|line| line.trim() == "user_allow_other") {
            return MountError::AllowOther;
        }
    }
    MountError::Refused { dir: dir.to_owned(), source: error }
}

/// The helper that mounts and unmounts for ordinary users.
fn helper() -> Option<PathBuf> {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin"];
    let mut helpers = folders.iter().map(|folder| Path::new(folder).join("fusermount3"));
    helpers.find(|helper| helper.is_file())
}

/// Ends a mount from outside. `lazy` detaches it at once, even while files in it are open.
pub fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        use rustix::mount::UnmountFlags;
        let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
        return Ok(rustix::mount::unmount(dir, flags | UnmountFlags::NOFOLLOW)?);
    }
    let helper = helper().ok_or_else(|| io::Error::other("fusermount3 is not installed"))?;
    let mut command = Command::new(helper);
    command.arg("-u").args(lazy.then_some(OsStr::new("-z"))).arg("--").arg(dir);
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind =
        if reason.contains("busy") { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, reason))
}
