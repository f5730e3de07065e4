//! `dvcfs umount`: ends a mount of ours, and nothing else.

use std::{
    fs, io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::fs::{Mode, OFlags};

use super::{
    args::UmountArgs,
    exit::{Code, Failure},
    mounts::{self, Record, Records},
    settings::Settings,
};
use crate::fuse;

pub(super) fn run(settings: &Settings, args: &UmountArgs) -> Result<ExitCode, Failure> {
    let shown = args.dir.display();
    let dir = resolve(&args.dir)
        .map_err(|error| Failure::new(Code::Usage, format!("unmount {shown}: {error}")))?;
    let records = Records::new(&settings.runtime_dir);
    let mounted = mounts::find(&dir)
        .map_err(|error| Failure::new(Code::Failed, format!("read the mount table: {error}")))?;
    match mounted {
        Some(mounted) if mounted.is_ours() => {}
        Some(_) => {
            let message = format!("unmount {shown}: it is a mount, but not one of dvcfs");
            return Err(Failure::new(Code::Usage, message));
        }
        None => {
            records.of_running(&dir);
            let message = format!("unmount {shown}: nothing is mounted there");
            return Err(Failure::new(Code::Usage, message).hint("dvcfs status lists your mounts"));
        }
    }
    fuse::unmount(&dir, args.lazy).map_err(|error| refused(&dir, &error))?;
    if let Some(record) = records.of_running(&dir).filter(|_| !args.lazy) {
        wait_for_daemon(&record);
    }
    Ok(ExitCode::SUCCESS)
}

/// The path as the kernel writes it in its table, links followed. What is mounted there is not
/// asked, since it may be dead; and it may be gone.
pub(super) fn resolve(dir: &Path) -> io::Result<PathBuf> {
    if let Ok(place) = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        return fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()));
    }
    let absolute = std::path::absolute(dir)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(absolute),
    }
}

fn refused(dir: &Path, error: &io::Error) -> Failure {
    let message = format!("unmount {}: {error}", dir.display());
    match error.kind() {
        io::ErrorKind::ResourceBusy => Failure::new(Code::Busy, message)
            .hint("files in it are open (see lsof); --lazy detaches it all the same"),
        io::ErrorKind::PermissionDenied => {
            Failure::new(Code::Usage, message).hint("only its owner and root can end a mount")
        }
        _ => Failure::new(Code::Failed, message),
    }
}

/// Waits until the daemon has ended, so that what follows finds its files closed. A pidfd says
/// when a process is gone.
fn wait_for_daemon(record: &Record) {
    let Some(pid) = rustix::process::Pid::from_raw(record.pid as i32) else { return };
    let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return;
    };
    let mut ended = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    let deadline = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    if let Err(error) = rustix::event::poll(&mut ended, Some(&deadline)) {
        tracing::debug!("wait for the daemon: {error}");
    }
}
