//! The units for systemd: what its own tools say of them, and their commands run as it runs them.

use std::{
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

use crate::support::{DATE, PATIENCE, Sandbox, is_mounted, output, registry_on_disk, succeed};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dvcfs");
const UNITS: [&str; 4] = [
    "dvcfs@.service",
    "user/dvcfs@.service",
    "examples/srv-voices.mount",
    "examples/srv-voices.automount",
];

fn unit(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap()
}

/// The values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    let settings = lines.filter_map(|line| line.split_once('='));
    settings.filter(|(name, _)| *name == key).map(|(_, value)| value).collect()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let sandbox = Sandbox::new();
    for name in UNITS {
        let path = sandbox.folder("units").join(Path::new(name).file_name().unwrap());
        let text = unit(name);
        let text = text.replace("=dvcfs ", &format!("={PROGRAM} "));
        fs::write(&path, text.replace("=-dvcfs ", &format!("=-{PROGRAM} "))).unwrap();
        let mut analyze = sandbox.tool("systemd-analyze");
        if name.starts_with("user/") {
            analyze.arg("--user");
        }
        let output = output(analyze.args(["verify", "--man=no"]).arg(path));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

/// Settings that give a service a mount namespace of its own, which would hide its mount.
const HIDING: [&str; 29] = [
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "IPCNamespacePath",
    "InaccessiblePaths",
    "LogNamespace",
    "MountFlags",
    "MountImages",
    "NetworkNamespacePath",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "RootImage",
    "TemporaryFileSystem",
];

#[test]
fn no_setting_of_the_units_hides_the_mount() {
    for name in UNITS {
        let unit = unit(name);
        for setting in HIDING.iter().chain(&["ReadOnlyPaths", "ReadWritePaths", "RootDirectory"]) {
            assert_eq!(values(&unit, setting), [""; 0], "{name}: {setting}");
        }
    }
    // fusermount3, which is setuid, does an ordinary user's work.
    let user = unit("user/dvcfs@.service");
    for setting in ["NoNewPrivileges", "SystemCallFilter", "RestrictNamespaces"] {
        assert_eq!(values(&user, setting), [""; 0], "{setting}");
    }
}

/// Runs a unit's commands as systemd would.
struct Manager<'a> {
    sandbox: &'a Sandbox,
    unit: String,
    dir: PathBuf,
}

/// A service that is up.
struct Running {
    main: Child,
    notices: UnixDatagram,
}

impl Manager<'_> {
    fn commands(&self, key: &str) -> Vec<Command> {
        let repository = self.sandbox.path("registry");
        let command = |line: &str| {
            let words = line.trim_start_matches('-').split(' ').map(|word| match word {
                "${REPO}" => repository.clone(),
                "${DIR}" => self.dir.clone(),
                "dvcfs" => PROGRAM.into(),
                word => word.into(),
            });
            let words: Vec<_> = words.collect();
            let mut command = self.sandbox.tool(&words[0]);
            command.args(&words[1..]).env("DVCFS_REV", "v1");
            command
        };
        values(&self.unit, key).into_iter().map(command).collect()
    }

    /// Starts the service and waits until it is ready.
    fn start(&self) -> Running {
        for mut command in self.commands("ExecStartPre") {
            // As its minus sign says, it may fail.
            output(&mut command);
        }
        let address = self.sandbox.path("run/notify");
        drop(fs::remove_file(&address));
        let notices = UnixDatagram::bind(&address).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = File::create(self.sandbox.path("run/log")).unwrap();
        let mut start = self.commands("ExecStart").remove(0);
        let main = start.env("NOTIFY_SOCKET", address).stderr(log).spawn().unwrap();
        let running = Running { main, notices };
        running.wait_for("READY=1", self);
        running
    }

    /// What follows the end of the service, however it ended.
    fn clear(&self) {
        for mut command in self.commands("ExecStopPost") {
            output(&mut command);
        }
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        if is_mounted(&self.dir) {
            // What the test says matters more than what is left.
            _ = unmount(&self.dir, UnmountFlags::DETACH);
        }
    }
}

impl Running {
    fn wait_for(&self, state: &str, manager: &Manager<'_>) {
        let mut notice = [0; 4096];
        loop {
            let length = self.notices.recv(&mut notice).unwrap_or_else(|error| {
                let log = fs::read_to_string(manager.sandbox.path("run/log")).unwrap();
                panic!("no {state}: {error}: {log}")
            });
            if String::from_utf8_lossy(&notice[..length]).lines().any(|line| line == state) {
                return;
            }
        }
    }

    fn end(mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.main), signal).unwrap();
        self.main.wait().unwrap()
    }
}

fn with_registry(sandbox: &Sandbox) {
    let registry = registry_on_disk(sandbox);
    registry.text("text", "text\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
}

fn a_service_comes_and_goes(name: &str) {
    let sandbox = Sandbox::new();
    with_registry(&sandbox);
    let manager = Manager { sandbox: &sandbox, unit: unit(name), dir: sandbox.path("mnt") };
    let text = || fs::read_to_string(manager.dir.join("text"));

    let running = manager.start();
    assert_eq!(text().unwrap(), "text\n");
    for mut reload in manager.commands("ExecReload") {
        succeed(&mut reload);
    }
    let open = File::open(manager.dir.join("text")).unwrap();
    kill_process(Pid::from_child(&running.main), Signal::TERM).unwrap();
    running.wait_for("STOPPING=1", &manager);
    let Running { mut main, .. } = running;
    assert!(main.wait().unwrap().success());
    assert!(!is_mounted(&manager.dir), "a mount is left");
    drop(open);
    manager.clear();

    assert!(!manager.start().end(Signal::KILL).success());
    assert!(text().is_err() && is_mounted(&manager.dir));
    manager.clear();
    assert!(!is_mounted(&manager.dir), "a dead mount is left");

    // Also where the manager itself went down and could not clear anything.
    manager.start().end(Signal::KILL);
    assert!(is_mounted(&manager.dir));
    let running = manager.start();
    assert_eq!(text().unwrap(), "text\n");
    assert!(running.end(Signal::TERM).success());
    assert!(!is_mounted(&manager.dir), "a mount is left");
    manager.clear();
    assert_eq!(fs::read_dir(sandbox.path("run/dvcfs")).unwrap().count(), 0, "a record is left");
}

#[test]
fn a_service_of_the_machine_comes_and_goes_and_leaves_no_stale_mount() {
    a_service_comes_and_goes("dvcfs@.service");
}

#[test]
fn a_service_of_a_user_comes_and_goes_and_leaves_no_stale_mount() {
    a_service_comes_and_goes("user/dvcfs@.service");
}

#[test]
fn what_does_not_get_better_is_not_tried_again() {
    let sandbox = Sandbox::new();
    with_registry(&sandbox);
    let unit = unit("dvcfs@.service");
    let manager = Manager { sandbox: &sandbox, unit: unit.clone(), dir: sandbox.folder("mnt") };
    let mut wrong = manager.commands("ExecStart").remove(0);
    let code = output(wrong.env("DVCFS_CACHE_SIZE", "big")).status.code().unwrap();
    let listed = values(&unit, "RestartPreventExitStatus");
    let codes: Vec<_> = listed[0].split(' ').collect();
    assert!(codes.contains(&&*code.to_string()), "{code}");
    let mut unknown = manager.commands("ExecStart").remove(0);
    let code = output(unknown.env("DVCFS_REV", "none")).status.code().unwrap();
    assert!(!codes.contains(&&*code.to_string()), "the revision may come: {code}");
}
