//! What the kernel does by itself, so that nobody asks the daemon, and how it is asked to.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{RawDir, SeekFrom, seek},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};
use serde_json::Value;

use crate::{
    bad_input::in_namespace,
    support::{DATE, Mount, Sandbox, in_each_open_mode, noise, registry_on_disk, succeed, text},
};

in_each_open_mode! {
    a_second_walk_asks_the_daemon_for_nothing,
    the_kernel_reads_ahead_and_asks_much_at_once,
}

/// Folders and files in them.
const FOLDERS: usize = 5;
const FILES: usize = 40;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A mount of one tag, of which the kernel may keep everything for good.
fn mounted(sandbox: &Sandbox) -> Mount {
    let registry = registry_on_disk(sandbox);
    for folder in 0..FOLDERS {
        let name = |n: usize| format!("sub/{n:03}");
        let files: Vec<_> =
            (0..FILES).map(|n| (name(n), registry.put(&noise(n as u64, 3000)).unwrap())).collect();
        let files: Vec<_> = files.iter().map(|(name, blob)| (&name[..], *blob)).collect();
        registry.track_folder(&format!("data-{folder}"), &files).unwrap();
    }
    registry.text("notes/one/two.txt", "text").unwrap();
    registry.commit("Add files", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    sandbox.mount_with(registry.repository(), &["--rev", "v1"])
}

/// How often the kernel has asked, by the kind of the question. Asking for this asks for none.
fn asked(sandbox: &Sandbox, mount: &Mount) -> impl Fn(&str) -> u64 + use<> {
    let told = succeed(sandbox.dvcfs(["status", "--json"]).arg(mount.dir()));
    let told: Value = serde_json::from_slice(&told).unwrap();
    move |kind| told[0]["stats"]["latencies_ns"][kind]["count"].as_u64().unwrap()
}

/// Lists a folder and all below with attributes, and reads every file; gives how many there are.
fn walk(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            files += walk(&path);
        } else {
            assert!(!fs::read(&path).unwrap().is_empty(), "{}", path.display());
            files += 1;
        }
    }
    files
}

fn a_second_walk_asks_the_daemon_for_nothing() {
    let sandbox = Sandbox::new();
    // Now all sizes are known.
    walk(mounted(&sandbox).dir());
    let mount = sandbox.mount_with(sandbox.path("registry"), &["--rev", "v1"]);
    let mode = text(sandbox.dvcfs(["status", "--json"]).arg(mount.dir()));
    let mode: Value = serde_json::from_str(&mode).unwrap();
    let sends_opens = mode[0]["open_mode"]["mode"] != "no-open";
    let before = asked(&sandbox, &mount);
    let files = walk(mount.dir());
    assert!(files > FOLDERS * FILES);
    let first = asked(&sandbox, &mount);
    assert!(first("readdir") > before("readdir"));
    assert_eq!(
        first("lookup"),
        before("lookup"),
        "listings bring the attributes of what they name"
    );
    assert_eq!(walk(mount.dir()), files);
    let second = asked(&sandbox, &mount);
    for kind in ["lookup", "getattr", "readdir", "read_hit", "read_miss"] {
        assert_eq!(second(kind), first(kind), "{kind}");
    }
    let opens = second("open") - first("open");
    assert_eq!(opens, if sends_opens { files as u64 } else { 0 });

    let absent = mount.path("notes/none");
    for lookups in [1, 0] {
        let before = asked(&sandbox, &mount);
        assert!(!absent.exists());
        let after = asked(&sandbox, &mount);
        assert_eq!(after("lookup") - before("lookup"), lookups, "an absent name");
    }
}

/// A file system at a folder of the sandbox. It ends with its value.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, dir: PathBuf) -> rustix::io::Result<Self> {
        mount(kind, &dir, kind, MountFlags::empty(), None)?;
        Ok(Self(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

fn the_kernel_reads_ahead_and_asks_much_at_once() {
    if !is_root() {
        return println!("only root may widen the read-ahead of a mount");
    }
    let sandbox = Sandbox::new();
    let mount = mounted(&sandbox);
    let device = fs::metadata(mount.dir()).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = |path: &Path| fs::read_to_string(path).unwrap().trim().to_owned();
    let ahead = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    assert_eq!(setting(ahead.as_ref()), "1024");
    let Ok(connections) = Mounted::new("fusectl", sandbox.folder("connections")) else {
        return println!("the kernel has no fusectl");
    };
    let connection = connections.0.join(minor.to_string());
    assert_eq!(setting(&connection.join("max_background")), "256");
}

/// The names that a folder lists from an offset on, each with the offset behind it, as far as a few
/// bytes reach.
fn listed_from(folder: &File, offset: u64) -> Vec<(String, u64)> {
    seek(folder, SeekFrom::Start(offset)).unwrap();
    let mut buffer = Vec::with_capacity(200);
    let mut listing = RawDir::new(folder, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    loop {
        let entry = listing.next().unwrap().unwrap();
        names.push((entry.file_name().to_str().unwrap().to_owned(), entry.next_entry_cookie()));
        if listing.is_buffer_empty() {
            return names;
        }
    }
}

#[test]
fn an_offset_of_one_folder_gives_no_names_of_it_in_another() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("a", "a").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    for n in 0..9 {
        registry.git(&["tag", &format!("tag-{n}")]).unwrap();
        registry.git(&["branch", &format!("branch-{n}")]).unwrap();
    }
    let mount = sandbox.mount(registry.repository());
    let [tags, branches] = ["tags", "branches"].map(|it| File::open(mount.path(it)).unwrap());
    let names = listed_from(&tags, 0);
    let (name, offset) = &names[2];
    assert!(name.starts_with("tag-"), "{names:?}");
    let elsewhere = listed_from(&branches, *offset);
    assert!(elsewhere.iter().all(|(name, _)| !name.starts_with("tag-")), "{elsewhere:?}");
    assert!(!mount.path("branches").join(name).exists());
    let (next, _) = &listed_from(&tags, *offset)[0];
    assert_eq!(*next, names[3].0, "where they belong they go on");
}

/// Asks a mount again and again and looks meanwhile at the flags of the descriptors that the daemon
/// has of the FUSE device; prints whether any was ever non-blocking, and, once nobody asks any
/// more, waits until none is. Its arguments: a folder, and how many questions are enough.
const ASK_AND_LOOK: &str = r"
import os, sys, threading, time
folder, most = sys.argv[1], int(sys.argv[2])
daemon = int(os.environ['DAEMON'])
def is_spinning():
    for fd in os.listdir(f'/proc/{daemon}/fd'):
        try:
            if os.readlink(f'/proc/{daemon}/fd/{fd}') != '/dev/fuse':
                continue
            with open(f'/proc/{daemon}/fdinfo/{fd}') as info:
                flags = next(line for line in info if line.startswith('flags:'))
        except OSError:
            continue
        if int(flags.split()[1], 8) & os.O_NONBLOCK:
            return True
    return False
asked, is_over = 0, False
def ask():
    global asked
    while not is_over:
        os.getxattr(folder, 'user.dvc.rev')
        asked += 1
thread = threading.Thread(target=ask)
thread.start()
deadline = time.monotonic() + 60
spun = False
while not spun and asked < most and time.monotonic() < deadline:
    spun = is_spinning()
is_over = True
thread.join()
while is_spinning():
    assert time.monotonic() < deadline, 'it never sleeps again'
print('spun' if spun else 'slept')
";

/// Whether the reader spins while requests come, on a machine that seems to have so many threads
/// that want a processor.
fn spins(spin: &str, wanting: u32, questions: u32) -> bool {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("a", "a").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    fs::write(sandbox.path("load"), format!("0.00 0.00 0.00 {wanting}/100 1\n")).unwrap();
    fs::write(sandbox.path("ask.py"), ASK_AND_LOOK).unwrap();
    let script = format!(
        r#"mkdir "$TOP/mnt"
        mount --bind "$TOP/load" /proc/loadavg
        "$PROGRAM" mount --rev main --spin {spin} "$TOP/registry" "$TOP/mnt" >&2
        trap '"$PROGRAM" umount "$TOP/mnt"' EXIT
        export DAEMON=$("$PROGRAM" status --json "$TOP/mnt" | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*')
        python3 "$TOP/ask.py" "$TOP/mnt" {questions}"#
    );
    match &text(&mut in_namespace(&sandbox, &script))[..] {
        "spun" => true,
        "slept" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn the_reader_spins_while_requests_come_and_no_longer() {
    if !is_root() || std::thread::available_parallelism().unwrap().get() < 2 {
        return println!("it takes root to show another load, and two processors to spin");
    }
    assert!(spins("auto", 1, u32::MAX));
    assert!(!spins("auto", 90, 20_000), "others want the processors");
    assert!(!spins("off", 1, 20_000));
}
