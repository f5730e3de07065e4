//! A mount that lives as long as its value.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::PATIENCE;

/// A mount that is older is taken to hang: its daemon is killed, so that whoever waits for it gets
/// an error.
const LIFE: Duration = Duration::from_mins(4);

/// A running mount in the foreground. Dropping it ends it, and asserts that it ends well.
pub(crate) struct Mount {
    dir: PathBuf,
    log: PathBuf,
    daemon: Arc<OwnedFd>,
    ended: Mutex<Receiver<ExitStatus>>,
    is_over: bool,
    _watchdog: Sender<()>,
}

impl Mount {
    /// Starts `dvcfs mount --foreground` and returns once it says that it is ready.
    pub(crate) fn start(mut command: Command, dir: &Path, run: &Path) -> Self {
        let name = dir.file_name().unwrap().to_string_lossy();
        let log = run.join(format!("{name}.log"));
        let socket_path = run.join(format!("{name}.notify"));
        // A mount point may be used again.
        drop(fs::remove_file(&socket_path));
        let socket = UnixDatagram::bind(&socket_path).unwrap();
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        command.env("NOTIFY_SOCKET", &socket_path).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(stderr).spawn().unwrap();
        let daemon = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let daemon = Arc::new(daemon);
        let ended = Mutex::new(reap(child, socket_path));
        if let Err(why) = wait_until_ready(&socket) {
            if why != ENDED {
                // It may end this very moment.
                _ = pidfd_send_signal(&daemon, Signal::KILL);
            }
            let args: Vec<_> = command.get_args().collect();
            panic!("{args:?}: {why}: {}", fs::read_to_string(&log).unwrap());
        }
        let watchdog = watch(Arc::clone(&daemon), dir.to_owned());
        let dir = dir.to_owned();
        Self { dir, log, daemon, ended, is_over: false, _watchdog: watchdog }
    }

    /// The mount point.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the mount.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// What the daemon has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A counter of the daemon.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let stats = fs::read_to_string(self.path(".dvcfs/stats")).unwrap();
        let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
        stats[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {stats}"))
    }

    /// The folder in which the kernel tells of the daemon.
    pub(crate) fn process(&self) -> PathBuf {
        format!("/proc/{}", self.pid()).into()
    }

    /// The daemon's process id.
    pub(crate) fn pid(&self) -> u64 {
        let told = format!("/proc/self/fdinfo/{}", self.daemon.as_raw_fd());
        number_after("Pid:", &fs::read_to_string(told).unwrap())
    }

    /// Whether each thread of the daemon is stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(self.process().join("task")).unwrap();
        let mut states =
            threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).unwrap());
        states.all(|state| state.rsplit(") ").next().unwrap().starts_with('T'))
    }

    /// Bytes of memory that the daemon has occupied at most.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(self.process().join("status")).unwrap();
        number_after("VmHWM:", &status) * 1024
    }

    /// What the daemon has open below a folder; what was removed there, too.
    pub(crate) fn open_below(&self, folder: &Path) -> Vec<PathBuf> {
        let open = fs::read_dir(self.process().join("fd")).unwrap();
        // One may be closed this very moment.
        let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.starts_with(folder)).collect()
    }

    /// Kills the daemon as a crash would. The dead mount stays until what this gives is dropped.
    pub(crate) fn kill(mut self) -> DeadMount {
        pidfd_send_signal(&self.daemon, Signal::KILL).unwrap();
        self.ended.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        self.is_over = true;
        DeadMount(self.dir.clone())
    }

    /// Waits until the daemon has killed itself. The dead mount stays as after [`Self::kill`].
    pub(crate) fn wait_for_death(mut self) -> DeadMount {
        let status = self.ended.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        self.is_over = true;
        assert_eq!(status.code(), None, "{}", self.log());
        DeadMount(self.dir.clone())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.daemon, signal).unwrap();
    }

    /// Waits for the end that something else brings about; it must be a good one.
    pub(crate) fn wait(self) {
        self.wait_for_code(0);
    }

    /// Waits for the good end of a mount that was detached, whatever is mounted there now.
    pub(crate) fn wait_detached(mut self) {
        self.wait_for_status(0);
    }

    fn wait_for_status(&mut self, code: i32) {
        let status = self.ended.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        self.is_over = true;
        assert_eq!(status.code(), Some(code), "{}", self.log());
    }

    /// Waits for an end with an exit code; nothing must be mounted then.
    pub(crate) fn wait_for_code(mut self, code: i32) {
        let _dead = DeadMount(self.dir.clone());
        self.wait_for_status(code);
        assert!(!is_mounted(&self.dir), "{} is still mounted", self.dir.display());
    }

    /// Ends the daemon, by force after a while; says why that was not as it should be.
    fn end(&self) -> Result<(), String> {
        // It may have ended by itself.
        _ = pidfd_send_signal(&self.daemon, Signal::TERM);
        let Ok(status) = self.ended.lock().unwrap().recv_timeout(PATIENCE) else {
            // As above.
            _ = pidfd_send_signal(&self.daemon, Signal::KILL);
            return Err("does not end on SIGTERM".into());
        };
        match status.success() {
            true if is_mounted(&self.dir) => Err("is still mounted after its daemon's end".into()),
            true => Ok(()),
            false => Err(format!("ended with {status}")),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let ended = self.end();
        if is_mounted(&self.dir) {
            // What the test says about it matters more than what is left.
            _ = unmount(&self.dir, UnmountFlags::DETACH);
        }
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            println!("log of {}:\n{log}", self.dir.display());
        } else if let Err(why) = ended {
            panic!("{} {why}: {}", self.dir.display(), self.log());
        }
    }
}

/// The number of a line of a file of the kernel's.
fn number_after(name: &str, text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A mount whose daemon was killed.
pub(crate) struct DeadMount(PathBuf);

impl Drop for DeadMount {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            // What the test says about it matters more than what is left.
            _ = unmount(&self.0, UnmountFlags::DETACH);
        }
    }
}

const ENDED: &str = "ended";

/// Waits for the child on a thread of its own, which also tells whoever waits for readiness.
fn reap(mut child: Child, socket_path: PathBuf) -> Receiver<ExitStatus> {
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let status = child.wait().unwrap();
        let told = UnixDatagram::unbound().and_then(|s| s.send_to(ENDED.as_bytes(), socket_path));
        // Nobody reads it once the mount was ready, and the receiver may be gone with its test.
        drop((told, sender.send(status)));
    });
    ended
}

fn wait_until_ready(socket: &UnixDatagram) -> Result<(), String> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = [0; 4096];
    loop {
        let received = socket.recv(&mut message).map_err(|error: io::Error| error.to_string())?;
        let received = String::from_utf8_lossy(&message[..received]);
        if received.lines().any(|line| line == "READY=1") {
            return Ok(());
        }
        if received == ENDED {
            return Err(ENDED.into());
        }
    }
}

/// Kills the daemon of a mount that lives too long; dropping what this gives calls it off.
fn watch(daemon: Arc<OwnedFd>, dir: PathBuf) -> Sender<()> {
    let (sender, called_off) = mpsc::channel();
    thread::spawn(move || {
        if called_off.recv_timeout(LIFE) == Err(RecvTimeoutError::Timeout) {
            println!("{} hangs", dir.display());
            // It may end this very moment; and the mount may be gone with it.
            _ = pidfd_send_signal(&daemon, Signal::KILL);
            _ = unmount(&dir, UnmountFlags::DETACH);
        }
    });
    sender
}

/// Whether something is mounted on a folder.
pub(crate) fn is_mounted(dir: &Path) -> bool {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    let mut lines = table.split(|byte| *byte == b'\n');
    lines.any(|line| line.split(|byte| *byte == b' ').nth(4) == Some(dir.as_os_str().as_bytes()))
}
