//! Bad input of every kind: one clear line, the right exit code or errno, and no harm to the rest.

mod cache_dir;
mod configuration;
mod credentials;
mod manifests;
mod mount_point;
mod names;
mod objects;
mod repository;
mod trust;

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::{
    registry_builder::{Blob, RegistryBuilder},
    support::{DATE, Sandbox, md5_of, noise, output, succeed},
};

/// What the system says of credentials that are refused.
pub(crate) const EACCES: i32 = 13;

/// A size that is checked as a whole before the first byte is served.
const SMALL: usize = 100 << 10;
/// A size that streams.
const LARGE: usize = 9 << 20;

/// Runs a program that must fail. Gives its exit code and what it said, which is one line that
/// begins with `error: ` and at most one more with `hint: `, after warnings from the log; what
/// differs from run to run is replaced.
pub(crate) fn refused(sandbox: &Sandbox, command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(String::from_utf8_lossy(&stdout), "", "printed before {said}");
    let (warnings, lines): (Vec<_>, Vec<_>) =
        said.lines().partition(|line| line.contains("Z  WARN "));
    let has_shape = match lines[..] {
        [error] => error.starts_with("error: "),
        [error, hint] => error.starts_with("error: ") && hint.starts_with("hint: "),
        _ => false,
    };
    assert!(has_shape, "{status}: {said}");
    let warnings = warnings.iter().filter_map(|line| Some(line.split_once("WARN ")?.1));
    let said: Vec<_> = warnings.chain(lines).collect();
    format!("exit {}\n{}", status.code().unwrap(), without_places(sandbox, &said.join("\n")))
}

/// A text with the sandbox and the servers' ports replaced.
pub(crate) fn without_places(sandbox: &Sandbox, text: &str) -> String {
    const HOST: &str = "127.0.0.1:";
    let top = sandbox.path("");
    let text = text.replace(top.to_str().unwrap().trim_end_matches('/'), "[SANDBOX]");
    let mut parts = text.split(HOST);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "[SERVER]" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

/// `dvcfs cat` of a path in a repository.
fn cat(sandbox: &Sandbox, repository: &Path, path: &str) -> Command {
    let mut command = sandbox.dvcfs(["cat"]);
    command.arg(repository).arg(path);
    command
}

/// `dvcfs mount` in the foreground on the folder `mnt` of the sandbox, which is made.
fn mount(sandbox: &Sandbox, repository: &Path) -> Command {
    let mut command = sandbox.dvcfs(["mount", "--foreground"]);
    command.arg(repository).arg(sandbox.folder("mnt"));
    command
}

/// Asserts that `cat` prints this.
fn assert_prints(sandbox: &Sandbox, repository: &Path, path: &str, expected: &[u8]) {
    let printed = succeed(&mut cat(sandbox, repository, path));
    assert!(printed == expected, "{path} has other bytes");
}

/// The errno of a read to the end, if there is one.
fn errno_of_reading(path: &Path) -> Option<i32> {
    md5_of(path).err().and_then(|error| error.raw_os_error())
}

/// The errno of listing a folder, if there is one.
fn errno_of_listing(path: &Path) -> Option<i32> {
    let names = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    names.err().and_then(|error| error.raw_os_error())
}

/// The errno of opening, if there is one.
fn errno_of_opening(path: &Path) -> Option<i32> {
    File::open(path).err().and_then(|error| error.raw_os_error())
}

/// Commits a small file `small`, a large one `large`, a small one in git `text`, and gives their
/// blobs.
fn three_files(registry: &RegistryBuilder) -> [Blob; 2] {
    let small = registry.put(&noise(1, SMALL)).unwrap();
    let large = registry.put(&noise(2, LARGE)).unwrap();
    registry.track_file("small", &small).unwrap();
    registry.track_file("large", &large).unwrap();
    registry.text("text", "text\n").unwrap();
    registry.commit("Add files", DATE).unwrap();
    [small, large]
}

/// Replaces an object of the remote, which is protected.
fn replace(registry: &RegistryBuilder, blob: &Blob, bytes: &[u8]) {
    let path = registry.objects().join(blob.path());
    fs::remove_file(&path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Runs `script` with the program's path in `$PROGRAM`, a copy that everybody can reach, as root
/// in a mount namespace of its own. What it mounts there, nobody else sees.
pub(crate) fn in_namespace(sandbox: &Sandbox, script: &str) -> Command {
    let program = sandbox.path("dvcfs");
    fs::copy(env!("CARGO_BIN_EXE_dvcfs"), &program).unwrap();
    let open = || fs::Permissions::from_mode(0o755);
    fs::set_permissions(&program, open()).unwrap();
    fs::set_permissions(sandbox.path(""), open()).unwrap();
    let mut command = sandbox.tool("unshare");
    command.args(["--mount", "sh", "-euc", script]).env("TOP", sandbox.path(""));
    command.env("PROGRAM", program);
    command
}
