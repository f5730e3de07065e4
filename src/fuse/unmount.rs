//! The ends of mounts: any one by its folder, and our own, which may no longer be what lies there.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{AtFlags, CWD, StatxFlags, statx},
    mount::UnmountFlags,
};

/// Has Linux 6.8 and newer give a mount a number that no other one ever has (`STATX_MNT_ID_UNIQUE`).
/// Older ones ignore it and give a number that is free again once the mount is gone.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A mount that this process serves. It may be gone from its folder, with another one in its place.
#[derive(Debug, Clone)]
pub struct OwnMount {
    dir: PathBuf,
    identity: Identity,
}

/// The number of a mount, and the device that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    mount: u64,
    device: (u32, u32),
}

impl OwnMount {
    /// What has just been mounted on a folder.
    pub(super) fn at(dir: &Path) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), identity: identity(dir)? })
    }

    /// Unmounts it, if it is there; where files are still open, it is taken out of sight.
    pub fn end(&self) -> io::Result<()> {
        if !identity(&self.dir).is_ok_and(|found| found == self.identity) {
            return Ok(());
        }
        unmount(&self.dir, false).or_else(|_| unmount(&self.dir, true))
    }
}

/// Which mount lies on a folder; its daemon, which may be dead, is not asked.
fn identity(dir: &Path) -> io::Result<Identity> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = statx(CWD, dir, flags, StatxFlags::MNT_ID | UNIQUE)?;
    Ok(Identity { mount: found.stx_mnt_id, device: (found.stx_dev_major, found.stx_dev_minor) })
}

/// The helper that mounts and unmounts for ordinary users, if it is installed.
pub fn helper() -> Option<PathBuf> {
    let folders = ["/usr/bin", "/bin", "/usr/local/bin"];
    let mut helpers = folders.iter().map(|folder| Path::new(folder).join("fusermount3"));
    helpers.find(|helper| helper.is_file())
}

/// Ends a mount from outside. `lazy` detaches it at once, even while files in it are open.
pub fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
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
