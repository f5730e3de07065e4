//! Going to the background: the command returns when the mount answers, and says why when it
//! cannot.
//!
//! The process forks before it has threads. The child does all the work with the terminal still
//! attached, so it can ask and show progress; once the mount answers it tells the parent through a
//! pipe, leaves the terminal and goes on alone.

use std::{
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
};

/// Which of the two processes this is.
pub(super) enum Side {
    /// The one that was started; it waits.
    Parent(Waiting),
    /// The one that does the work.
    Child(Readiness),
}

/// The parent's end.
pub(super) struct Waiting {
    pipe: PipeReader,
    child: rustix::process::Pid,
}

/// The child's end.
pub(super) struct Readiness {
    pipe: Option<PipeWriter>,
}

const READY: &[u8] = b"ready";

/// Forks. Must be called while the process has a single thread, and no file open that it needs.
pub(super) fn split() -> io::Result<Side> {
    close_inherited();
    let (reader, writer) = io::pipe()?;
    // SAFETY: the process has a single thread here, so the child may go on as an ordinary process.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child(Readiness { pipe: Some(writer) })),
        child => {
            let child = rustix::process::Pid::from_raw(child);
            let child = child.ok_or_else(|| io::Error::other("fork gave no process id"))?;
            Ok(Side::Parent(Waiting { pipe: reader, child }))
        }
    }
}

/// Closes what the caller has left open, such as a lock that would be held as long as the mount
/// lives. Kernels before Linux 5.9 cannot.
fn close_inherited() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: nothing in this process owns a descriptor yet but the three standard ones.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
}

impl Waiting {
    /// Waits until the child is ready or has ended; gives the exit code to end with.
    pub(super) fn finish(mut self) -> io::Result<ExitCode> {
        let mut word = Vec::new();
        self.pipe.read_to_end(&mut word)?;
        if word == READY {
            return Ok(ExitCode::SUCCESS);
        }
        // The child has said why on the terminal both share.
        let status =
            rustix::process::waitpid(Some(self.child), rustix::process::WaitOptions::empty())?;
        match status.and_then(|(_, status)| status.exit_status()) {
            Some(code) => Ok(ExitCode::from(code as u8)),
            None => Err(io::Error::other("its process was killed")),
        }
    }
}

impl Readiness {
    /// For a process that stays in the foreground.
    pub(super) const fn foreground() -> Self {
        Self { pipe: None }
    }

    /// Leaves the terminal, with `log` in its place, and lets the parent go. Without a log there
    /// is no terminal, and what is there is kept.
    pub(super) fn announce(&mut self, log: Option<&Path>) -> io::Result<()> {
        let Some(mut pipe) = self.pipe.take() else { return Ok(()) };
        let log = log.map(|log| {
            open_log(log).or_else(|error| {
                tracing::warn!("there will be no log in {}: {error}", log.display());
                File::options().write(true).open("/dev/null")
            })
        });
        let log = log.transpose()?;
        let nothing = File::open("/dev/null")?;
        rustix::process::setsid()?;
        rustix::stdio::dup2_stdin(nothing.as_fd())?;
        if let Some(log) = log {
            rustix::stdio::dup2_stdout(log.as_fd())?;
            rustix::stdio::dup2_stderr(log.as_fd())?;
        }
        std::env::set_current_dir("/")?;
        pipe.write_all(READY)
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::options().create(true).append(true).open(path)
}
