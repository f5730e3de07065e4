//! Servers that fall silent, refuse, or go and come back while somebody reads.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, Gate, S3Server},
    support::{
        DATE, EIO, Mount, PATIENCE, PREFIX, Relay, Sandbox, eventually, in_each_open_mode, noise,
        registry_on_s3,
    },
};

in_each_open_mode! {
    silence_for_ever_is_an_error_in_time_and_over_when_the_server_is_well,
    a_reader_that_waits_for_its_pages_dies_at_once_when_it_is_killed,
}

const SMALL: usize = 200_000;
const LARGE: usize = 9 << 20;

/// A file up to and one above the size from which files are streamed.
const FILES: [(&str, usize); 2] = [("small", SMALL), ("large", LARGE)];

/// A mounted registry with two files in a bucket.
struct Served {
    mount: Mount,
    server: S3Server,
}

impl Served {
    /// With more lines in the user's own settings of the remote.
    fn new(sandbox: &Sandbox, settings: &str) -> Self {
        let (registry, server) = registry_on_s3(sandbox);
        let mount = mounted(sandbox, &registry, &server.endpoint(), settings);
        Self { mount, server }
    }

    fn assert_is_read(&self, what: &str) {
        assert_is_read(&self.mount, what);
    }
}

fn mounted(sandbox: &Sandbox, registry: &RegistryBuilder, endpoint: &str, settings: &str) -> Mount {
    sandbox.user_config(&format!(
        "['remote \"s3\"']\n    url = s3://{PREFIX}\n    endpointurl = {endpoint}\n{settings}"
    ));
    for (name, size) in FILES {
        registry.track_file(name, &registry.put(&noise(1, size)).unwrap()).unwrap();
    }
    registry.commit("Add files", DATE).unwrap();
    sandbox.mount_with(registry.repository(), &["--rev", "main"])
}

fn assert_is_read(mount: &Mount, what: &str) {
    for (name, size) in FILES {
        assert!(fs::read(mount.path(name)).unwrap() == noise(1, size), "{name}: {what}");
    }
    for counter in ["in_flight", "waiting"] {
        eventually("nothing is under way", || mount.counter(counter) == 0);
    }
}

fn read_in_vain(path: &Path) -> Option<i32> {
    fs::read(path).err().and_then(|error| error.raw_os_error())
}

/// Each request is given a second.
const IMPATIENT: &str = "    read_timeout = 4\n    connect_timeout = 1\n";

#[test]
fn silence_for_a_while_is_bridged() {
    let sandbox = Sandbox::new();
    let served = Served::new(&sandbox, IMPATIENT);
    let gate = Gate::new();
    for (fault, (name, size)) in
        [Fault::Hang(100_000, gate.clone()), Fault::Stall(gate.clone())].into_iter().zip(FILES)
    {
        served.server.fail_next([fault]);
        assert!(fs::read(served.mount.path(name)).unwrap() == noise(1, size), "{name}");
    }
    gate.open();
}

fn silence_for_ever_is_an_error_in_time_and_over_when_the_server_is_well() {
    let sandbox = Sandbox::new();
    let served = Served::new(&sandbox, IMPATIENT);
    let gate = Gate::new();
    for fault in [Fault::Hang(1000, gate.clone()), Fault::Stall(gate.clone())] {
        served.server.fail_always(fault.clone());
        for (name, _) in FILES {
            let begun = Instant::now();
            assert_eq!(read_in_vain(&served.mount.path(name)), Some(EIO), "{name}: {fault:?}");
            assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {fault:?}");
        }
    }
    gate.open();
    served.server.heal();
    served.assert_is_read("silence for ever");
}

#[test]
fn a_throttled_mount_reads_everything_all_the_same() {
    let sandbox = Sandbox::new();
    let served = Served::new(&sandbox, "");
    let asked = Mutex::new(HashMap::new());
    served.server.set_rule(move |request| {
        let mut asked = asked.lock().unwrap();
        let times = asked.entry((request.path.clone(), request.range.clone())).or_insert(0);
        *times += 1;
        (*times <= 3).then_some(Fault::Status(503, "SlowDown"))
    });
    served.assert_is_read("each request is throttled three times");
    assert_eq!(served.mount.counter("remote_errors"), 0);
}

#[test]
fn a_server_that_goes_is_an_error_until_it_is_back() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let mut relay = Relay::to(server.address());
    let mount = mounted(&sandbox, &registry, &relay.endpoint(), IMPATIENT);
    let file = File::open(mount.path("large")).unwrap();
    let mut bytes = vec![0; LARGE];
    file.read_exact_at(&mut bytes[..4096], 0).unwrap();
    relay.refuse();
    for (name, _) in FILES {
        assert_eq!(read_in_vain(&mount.path(name)), Some(EIO), "{name}");
    }
    relay.accept();
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(1, LARGE));
    assert_is_read(&mount, "refused");
}

#[test]
fn connections_that_break_are_made_again() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let relay = Relay::to(server.address());
    let mount = mounted(&sandbox, &registry, &relay.endpoint(), "");
    relay.break_next(3);
    assert_is_read(&mount, "broken connections");
    assert_eq!(relay.broken(), 3);
}

fn a_reader_that_waits_for_its_pages_dies_at_once_when_it_is_killed() {
    let sandbox = Sandbox::new();
    // Longer than this test is patient.
    let served = Served::new(&sandbox, "    read_timeout = 600\n");
    let gate = Gate::new();
    served.server.fail_always(Fault::Stall(gate.clone()));
    let mut reader = cat(&sandbox, &served.mount.path("large")).unwrap();
    eventually("it waits", || !served.server.log().is_empty());
    reader.kill().unwrap();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(reader.wait()).unwrap());
    let status = end.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
    gate.open();
    served.server.heal();
    served.assert_is_read("a killed reader");
}

/// A program that reads a file.
fn cat(sandbox: &Sandbox, path: &Path) -> io::Result<Child> {
    sandbox.tool("cat").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
