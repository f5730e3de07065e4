//! `dvcfs umount`: ends a mount of ours, and nothing else.

use std::{
    fs,
    io::{self, Write},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    args::UmountArgs,
    exit::{Code, Failure},
    mounts::{self, Records},
    settings::Settings,
};
use crate::{fuse, path::escape};

/// How long the daemon may take to end.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

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
    if let Some(record) = records.of_running(&dir).filter(|_| !args.lazy)
        && !ends_within(record.pid, PATIENCE)
    {
        let warning = lives_on(&dir, record.pid);
        // Whoever does not read this is told by the next mount.
        _ = writeln!(io::stderr(), "{}", escape(warning.as_bytes()));
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

fn lives_on(dir: &Path, pid: u32) -> String {
    let shown = dir.display();
    format!(
        "warning: {shown} is unmounted, but its daemon (process {pid}) lives on and keeps its overlay \
         in use: most likely another mount namespace, as of a container, has a copy of the mount \
         (grep -l {shown} /proc/*/mountinfo); kill {pid} ends it all the same"
    )
}

/// Waits until a process has ended, so that what follows finds its files closed. A pidfd says when
/// a process is gone; where it cannot be had, it is.
fn ends_within(pid: u32, patience: Timespec) -> bool {
    let Some(pid) = Pid::from_raw(pid.cast_signed()) else { return true };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut ended, Some(&patience)) {
        Ok(count) => count > 0,
        Err(error) => {
            tracing::debug!("wait for the daemon: {error}");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_daemon_that_lives_on_is_told_from_one_that_ends() {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = process.id();
        assert!(!ends_within(pid, now));
        drop(process.stdin.take());
        assert!(ends_within(pid, PATIENCE));
        process.wait().unwrap();
        assert!(ends_within(pid, now));
        let warning = lives_on(Path::new("/mnt"), pid);
        assert!(warning.contains(&format!("(process {pid}) lives on")), "{warning}");
    }
}
