//! Mounting and serving.

use std::{
    io, mem,
    num::NonZeroUsize,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use fuser::{Config, InitFlags, MountOption, SessionACL};
use rustix::mount::{MountFlags, mount_remount};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    FuseFs, Kernel,
    backings::Backings,
    invalidate,
    open_mode::{self, Choice, ChosenMode, OpenMode},
    spin::Spin,
    unmount::{OwnMount, helper},
};
use crate::{
    stats::Stats,
    vfs::{Event, Vfs},
};

/// What the kernel reads ahead of a program on a mount of root's, in KiB. At its usual 128 a
/// gigabyte takes eight thousand requests.
const READ_AHEAD_KIB: &str = "1024";

/// How to mount.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct MountOptions {
    /// Shown as the source in the mount table.
    pub source: String,
    /// Let programs in it be run.
    pub may_execute: bool,
    /// Have the kernel follow symbolic links in it, which only root can forbid.
    pub follows_links: bool,
    /// Options that give it labels of `SELinux`, as the kernel reads them.
    pub labels: Vec<String>,
    /// Let every user in, with permissions checked by the kernel.
    pub allow_other: bool,
    /// Owner and group of what is shown.
    pub owner: (u32, u32),
    /// Whether the reader of requests may wait for the next one without going to sleep.
    pub may_spin: bool,
    /// How opens are answered, if that is not left to be found out.
    pub open_mode: Option<OpenMode>,
    /// Whether programs may change what is shown.
    pub is_writable: bool,
    /// Why every open has to be answered, if it has to be.
    pub needs_opens: Option<&'static str>,
    /// The cache's folder, whose files are handed to the kernel.
    pub cache_dir: PathBuf,
    /// How many descriptors cached files may take: while they are open, and while they are not.
    pub descriptors: (usize, NonZeroUsize),
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
    /// The way to answer opens that was asked for cannot be had.
    #[error("open mode {}: {why}", mode.name())]
    OpenMode {
        /// Which.
        mode: OpenMode,
        /// Why not.
        why: String,
    },
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
    mount: OwnMount,
    mode: ChosenMode,
}

impl Session {
    /// Mounts on `dir` and serves until the mount ends.
    pub fn start(
        vfs: Arc<Vfs>,
        events: mpsc::UnboundedReceiver<Event>,
        dir: &Path,
        options: &MountOptions,
        (runtime, stats): (Handle, Arc<Stats>),
    ) -> Result<Self, MountError> {
        let kernel = Arc::<Kernel>::default();
        let (runs, counts) = (runtime.clone(), Arc::clone(&stats));
        let backings = Backings::new(options.descriptors, vfs.cache_limit(), runs, counts);
        let file_system = FuseFs {
            vfs,
            stats,
            listings: Arc::default(),
            uppers: Arc::default(),
            backings: Arc::new(backings),
            runtime,
            owner: options.owner,
            stack_depth: open_mode::stack_depth(&options.cache_dir),
            kernel: Arc::clone(&kernel),
        };
        let refused = |source| MountError::Refused { dir: dir.to_owned(), source };
        let session = fuser::Session::new(file_system, dir, &config(options))
            .map_err(|error| diagnose(error, dir, options))?;
        if !options.follows_links {
            forbid_links(dir, options).map_err(refused)?;
        }
        let mount = OwnMount::at(dir).map_err(refused)?;
        let mode = choose_mode(&session, &kernel, options)?;
        if options.may_spin {
            let device = session.as_fd().try_clone_to_owned().map_err(refused)?;
            if let Some(spin) = Spin::start(device) {
                kernel.spin.get_or_init(|| spin);
            }
        }
        invalidate::spawn(session.notifier(), events).map_err(refused)?;
        let serving = serve(session).map_err(refused)?;
        widen_read_ahead(dir);
        Ok(Self { serving, mount, mode })
    }

    /// How opens are answered, and why so.
    pub fn open_mode(&self) -> &ChosenMode {
        &self.mode
    }

    /// What is mounted.
    pub const fn mount(&self) -> &OwnMount {
        &self.mount
    }

    /// Waits for the end of the mount, whoever ends it. Nothing of it is left where it was.
    pub fn wait(self) -> io::Result<()> {
        let ended = self.serving.join();
        if let Err(error) = self.mount.end() {
            tracing::warn!("unmount what ended: {error}");
        }
        ended.unwrap_or_else(|_| Err(io::Error::other("a thread that serves the kernel panicked")))
    }
}

/// Serves the kernel on a thread.
fn serve(session: fuser::Session<FuseFs>) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    let mut serving = session.spawn()?;
    let nothing = thread::Builder::new().spawn(|| Ok(()))?;
    let guard = mem::replace(&mut serving.guard, nothing);
    // Dropping the rest would unmount whatever is mounted in that place by then.
    mem::forget(serving);
    Ok(guard)
}

/// Settles how opens are answered, with a kernel that has not sent any yet.
fn choose_mode(
    session: &fuser::Session<FuseFs>,
    kernel: &Kernel,
    options: &MountOptions,
) -> Result<ChosenMode, MountError> {
    let choice = Choice {
        wanted: options.open_mode,
        needs_opens: options.needs_opens,
        offered: kernel.offered.get().copied().unwrap_or(InitFlags::empty()),
        cache_dir: &options.cache_dir,
    };
    let chosen = choice.decide(session).map_err(|why| {
        let mode = options.open_mode.unwrap_or(OpenMode::Served);
        MountError::OpenMode { mode, why }
    })?;
    tracing::info!("open mode {}: {}", chosen.mode.name(), chosen.why);
    // Nothing was served yet, so nobody has asked for the mode before.
    _ = kernel.mode.set(chosen.mode);
    Ok(chosen)
}

/// Has the kernel follow no links in what was mounted, an option that the library does not know.
fn forbid_links(dir: &Path, options: &MountOptions) -> io::Result<()> {
    let mut flags =
        MountFlags::BIND | MountFlags::NOSYMFOLLOW | MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, !options.is_writable);
    flags.set(MountFlags::NOEXEC, !options.may_execute);
    Ok(mount_remount(dir, flags, c"")?)
}

/// Lets the kernel ask for larger pieces, which only root may do.
fn widen_read_ahead(dir: &Path) {
    let widen = || {
        let device = rustix::fs::stat(dir)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        std::fs::write(setting, READ_AHEAD_KIB)
    };
    if let Err(error) = widen() {
        tracing::debug!("the kernel's read-ahead stays as it is: {error}");
    }
}

fn config(options: &MountOptions) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        // The helper takes a list of options apart at commas.
        MountOption::FSName(options.source.replace([',', '\\'], "_")),
        // The library would keep the option of its own for this from the kernel.
        MountOption::CUSTOM("subtype=dvcfs".into()),
        if options.is_writable { MountOption::RW } else { MountOption::RO },
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if !options.may_execute {
        config.mount_options.push(MountOption::NoExec);
    }
    config.mount_options.extend(options.labels.iter().cloned().map(MountOption::CUSTOM));
    if options.allow_other || options.is_writable {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    if options.allow_other {
        config.acl = SessionACL::All;
    }
    // Only one reader ever spins, so each has a descriptor of its own.
    config.n_threads = Some(threads(options));
    config.clone_fd = true;
    config
}

/// How many threads answer the kernel. Where it reads files by itself one is enough, and quicker:
/// the kernel wakes nobody in vain.
fn threads(options: &MountOptions) -> usize {
    let is_passed = open_mode::is_likely_passed(options.open_mode);
    let processors = thread::available_parallelism().map_or(2, usize::from);
    if is_passed { 1 } else { processors.clamp(2, 8) }
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
    if !is_root && options.allow_other && !users_may_share() {
        return MountError::AllowOther;
    }
    MountError::Refused { dir: dir.to_owned(), source: error }
}

/// Whether ordinary users may let others into their mounts.
pub fn users_may_share() -> bool {
    let conf = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    conf.lines().any(|line| line.trim() == "user_allow_other")
}
