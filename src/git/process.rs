//! Runs a program until it ends or a deadline passes.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

/// Of each stream the last so many bytes are kept.
const KEPT: usize = 16 << 10;
/// What a pipe holds at most, unless somebody enlarged it.
const PIPE: usize = 64 << 10;
/// How long a program that was told to stop may tidy up, so that git can remove its lock files.
const GRACE: Duration = Duration::from_secs(2);

/// How a program ended, and the last of what it printed.
pub(super) struct Output {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// How to run a program.
pub(super) struct Limits<'a> {
    /// When it is stopped.
    pub(super) deadline: Instant,
    /// How long it may print nothing, if that is limited.
    pub(super) silence: Option<Duration>,
    /// Whether it may talk to the user's terminal. If not, it gets a process group of its own,
    /// which cannot, and which is stopped as a whole.
    pub(super) is_interactive: bool,
    /// Sees what arrives on stderr.
    pub(super) watch: &'a dyn Fn(&[u8]),
}

/// Runs `command`; nothing if a limit was reached and it was stopped.
///
/// Programs that it left behind and that still hold its streams, such as a shared ssh connection,
/// are not waited for.
pub(super) fn run(command: &mut Command, limits: &Limits<'_>) -> io::Result<Option<Output>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !limits.is_interactive {
        command.process_group(0);
    }
    let mut running = Running::new(command.spawn()?, !limits.is_interactive)?;
    if running.wait_within(limits)? {
        return running.finish(limits.watch).map(Some);
    }
    running.signal(Signal::TERM);
    let grace = Limits { deadline: Instant::now() + GRACE, silence: None, ..*limits };
    running.wait_within(&grace)?;
    Ok(None)
}

/// A child that is killed when this is dropped before it was reaped.
struct Running {
    child: Child,
    owns_group: bool,
    is_reaped: bool,
    exit: OwnedFd,
    stdout: Stream<std::process::ChildStdout>,
    stderr: Stream<std::process::ChildStderr>,
}

impl Running {
    fn new(mut child: Child, owns_group: bool) -> io::Result<Self> {
        let streams = (child.stdout.take(), child.stderr.take());
        let exit = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let exit = exit.inspect_err(|_| end(&mut child, owns_group))?;
        let (stdout, stderr) = (Stream::new(streams.0), Stream::new(streams.1));
        Ok(Self { child, owns_group, is_reaped: false, exit, stdout, stderr })
    }

    /// Reads what comes until the child ends (`true`) or a limit is reached (`false`).
    fn wait_within(&mut self, limits: &Limits<'_>) -> io::Result<bool> {
        let patience = || limits.silence.map(|silence| Instant::now() + silence);
        let mut heard_until = patience();
        loop {
            let until = heard_until.map_or(limits.deadline, |until| until.min(limits.deadline));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let (has_ended, has_output) = self.poll(left)?;
            if has_ended {
                return Ok(true);
            }
            if has_output {
                self.stdout.read(&|_| ())?;
                self.stderr.read(limits.watch)?;
                heard_until = patience();
            }
        }
    }

    /// Sleeps until something happens: whether the child ended, whether a stream has more.
    fn poll(&self, timeout: Duration) -> io::Result<(bool, bool)> {
        let timeout = Timespec::try_from(timeout).ok();
        let streams = [self.stdout.fd(), self.stderr.fd()];
        let mut waited: Vec<PollFd<'_>> = std::iter::once(self.exit.as_fd())
            .chain(streams.into_iter().flatten())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok((is_ready(&waited[0]), waited[1..].iter().any(is_ready)))
    }

    /// Reaps a child that has ended and takes what is left in its streams.
    fn finish(mut self, watch: &dyn Fn(&[u8])) -> io::Result<Output> {
        let status = self.child.wait()?;
        self.is_reaped = true;
        self.stdout.read(&|_| ())?;
        self.stderr.read(watch)?;
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        Ok(Output { status, stdout, stderr })
    }

    fn signal(&self, signal: Signal) {
        send(&self.child, self.owns_group, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            end(&mut self.child, self.owns_group);
        }
    }
}

/// Kills and reaps a child; until it is reaped its number and its group's belong to it.
fn end(child: &mut Child, owns_group: bool) {
    send(child, owns_group, Signal::KILL);
    drop(child.wait());
}

fn send(child: &Child, owns_group: bool, signal: Signal) {
    let pid = Pid::from_child(child);
    // It may have ended by itself, which is what is wanted.
    _ = if owns_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
}

/// One output of a child, read without waiting; the last of it is kept.
struct Stream<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
}

impl<R: Read + AsFd> Stream<R> {
    fn new(pipe: Option<R>) -> Self {
        Self { pipe, kept: Vec::new() }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there, at most one full pipe, so that a chatty child cannot outlast a deadline.
    fn read(&mut self, watch: &dyn Fn(&[u8])) -> io::Result<()> {
        let mut buffer = vec![0; PIPE];
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        rustix::io::ioctl_fionbio(&*pipe, true)?;
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                watch(&buffer[..count]);
                self.keep(&buffer[..count]);
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    fn sh(script: &str, limit: Duration) -> Option<Output> {
        let deadline = Instant::now() + limit;
        let limits = Limits { deadline, silence: None, is_interactive: false, watch: &|_| () };
        run(Command::new("sh").args(["-c", script]), &limits).unwrap()
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn status_and_output_come_back() {
        let output = sh("echo out; echo err >&2; exit 3", LONG).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    }

    #[test]
    fn of_endless_output_the_last_is_kept() {
        let output = sh("head -c 3000000 /dev/zero >&2; echo end >&2", LONG).unwrap();
        assert_eq!(output.stderr.len(), KEPT);
        assert!(output.stderr.ends_with(b"end\n"));
    }

    #[test]
    fn a_closed_stream_is_no_end() {
        assert_eq!(sh("exec >&- 2>&-; exit 4", LONG).unwrap().status.code(), Some(4));
    }

    #[test]
    fn a_child_that_is_left_behind_is_not_waited_for() {
        let started = Instant::now();
        let output = sh("sleep 30 & echo $!", LONG).unwrap();
        assert!(started.elapsed() < Duration::from_secs(30));
        let pid = str::from_utf8(&output.stdout).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_child_that_falls_silent_is_stopped_long_before_the_deadline() {
        let silence = Some(Duration::from_millis(300));
        let deadline = Instant::now() + LONG;
        let limits = Limits { deadline, silence, is_interactive: false, watch: &|_| () };
        let run = |script| run(Command::new("sh").args(["-c", script]), &limits).unwrap();
        assert!(run("echo begun >&2; sleep 1000").is_none());
        assert!(Instant::now() < deadline);
        assert!(run("echo all").is_some());
    }

    #[test]
    fn the_whole_group_is_gone_after_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("alive");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut reader = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(&fifo)
            .unwrap();
        let script = format!("exec 9>{}; (trap '' TERM; sleep 1000) & sleep 1000", fifo.display());
        assert!(sh(&script, Duration::from_millis(500)).is_none());
        // Reading ends when no process holds the other end any more.
        rustix::io::ioctl_fionbio(&reader, false).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
