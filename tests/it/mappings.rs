//! Files that are mapped into memory, whole ones and such as are on their way.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Output, Stdio},
    ptr,
};

use crate::{
    s3server::{Fault, S3Server},
    support::{DATE, Mount, Sandbox, in_each_open_mode, noise, registry_on_s3},
};

in_each_open_mode! {
    mapped_bytes_are_those_that_are_read,
    a_cold_file_is_mapped_while_it_comes,
    a_mapping_of_what_cannot_be_had_ends_its_program,
    a_mapping_of_wrong_bytes_ends_its_program,
}

const LARGE: usize = 20 << 20;

const SMALL: usize = 200_000;

/// All of a file as a part of memory.
struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    fn new(file: &File) -> Self {
        let length = file.metadata().unwrap().len() as usize;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self { start, length }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: it is as long, lives as long as `self`, and the file below cannot change.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is as long, and nobody holds its bytes any more.
        assert_eq!(unsafe { libc::munmap(self.start, self.length) }, 0);
    }
}

fn mounted(sandbox: &Sandbox) -> (S3Server, Mount) {
    let (registry, server) = registry_on_s3(sandbox);
    for (name, size) in [("small", SMALL), ("large", LARGE)] {
        registry.track_file(name, &registry.put(&noise(1, size)).unwrap()).unwrap();
    }
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    (server, mount)
}

fn mapped_bytes_are_those_that_are_read() {
    let sandbox = Sandbox::new();
    let (_server, mount) = mounted(&sandbox);
    let path = mount.path("small");
    let mapping = Mapping::new(&File::open(&path).unwrap());
    assert!(mapping.bytes() == noise(1, SMALL));
    assert!(std::fs::read(&path).unwrap() == noise(1, SMALL));
}

fn a_cold_file_is_mapped_while_it_comes() {
    let sandbox = Sandbox::new();
    let (server, mount) = mounted(&sandbox);
    let path = mount.path("large");
    let (expected, mapping) = (noise(1, LARGE), Mapping::new(&File::open(&path).unwrap()));
    // From its end, from its middle, and then all of it.
    for at in [LARGE - 1, LARGE / 2 + 5000] {
        assert_eq!(mapping.bytes()[at], expected[at], "{at}");
    }
    assert!(mapping.bytes() == expected);
    let again = Mapping::new(&File::open(&path).unwrap());
    assert!(again.bytes() == expected);
    assert_eq!(server.bytes_sent(), LARGE as u64);
}

/// Maps the file that is its argument, looks at its beginning, waits to be told to go on, and looks
/// at all of it.
const LOOK_AT_ALL: &str = r"
import mmap, sys
with open(sys.argv[1], 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
    if sys.argv[2] == 'begin':
        mapping[0]
    print('mapped', flush=True)
    sys.stdin.readline()
    mapping[:]
";

/// Runs a program that looks at all of a mapping once `happens` is over.
fn look_at_all(sandbox: &Sandbox, path: &Path, begin: &str, happens: impl FnOnce()) -> Output {
    let mut python = sandbox.tool("python3");
    python.args(["-c", LOOK_AT_ALL]).arg(path).arg(begin);
    python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut python = python.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(python.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "mapped\n");
    happens();
    python.stdin.take().unwrap().write_all(b"\n").unwrap();
    python.wait_with_output().unwrap()
}

fn a_mapping_of_what_cannot_be_had_ends_its_program() {
    let sandbox = Sandbox::new();
    let (server, mount) = mounted(&sandbox);
    let looked = look_at_all(&sandbox, &mount.path("large"), "begin", || {
        server.fail_always(Fault::Status(403, "AccessDenied"));
    });
    assert_eq!(looked.status.signal(), Some(libc::SIGBUS), "{looked:?}");
    server.heal();
    let looked = look_at_all(&sandbox, &mount.path("large"), "begin", || {});
    assert!(looked.status.success(), "{looked:?}");
}

fn a_mapping_of_wrong_bytes_ends_its_program() {
    let sandbox = Sandbox::new();
    let (server, mount) = mounted(&sandbox);
    server.fail_always(Fault::Flip(1000));
    let looked = look_at_all(&sandbox, &mount.path("large"), "later", || {});
    assert_eq!(looked.status.signal(), Some(libc::SIGBUS), "{looked:?}");
}
