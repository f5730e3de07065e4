//! The kernel, FUSE, privileges, limits, programs.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    process::Command,
};

use rustix::process::{Resource, geteuid, getrlimit};

use super::Check;
use crate::fuse::{self, OpenMode};

/// The first kernel that can read cached files itself.
const PASSTHROUGH_KERNEL: (u32, u32) = (6, 9);

/// With fewer descriptors a mount has to close and open cached files all the time.
const FEW_DESCRIPTORS: u64 = 4096;

/// The bit of `CAP_SYS_ADMIN` in the kernel's masks.
const SYS_ADMIN: u64 = 1 << 21;

pub(super) fn checks() -> Vec<Check> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    vec![
        Check::ok("kernel", format!("Linux {release}")),
        device(),
        helper(),
        sharing(),
        open_mode(version(&release), has_sys_admin()),
        descriptors(getrlimit(Resource::Nofile).maximum),
        git(),
    ]
}

fn device() -> Check {
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    match opened.map_err(|error| (error.kind(), error)) {
        Ok(_) => Check::ok("fuse", "/dev/fuse can be used"),
        Err((io::ErrorKind::NotFound, _)) => Check::fail("fuse", "there is no /dev/fuse").hint(
            "load the module (sudo modprobe fuse); a container needs --device /dev/fuse \
             --cap-add SYS_ADMIN",
        ),
        Err((io::ErrorKind::PermissionDenied, error)) => {
            Check::fail("fuse", format!("/dev/fuse cannot be opened: {error}")).hint(
                "it should be open to all (sudo chmod 666 /dev/fuse); a container needs --device \
                 /dev/fuse",
            )
        }
        Err((_, error)) => Check::fail("fuse", format!("/dev/fuse cannot be opened: {error}")),
    }
}

/// The program that mounts for ordinary users.
fn helper() -> Check {
    const WHAT: &str = "fusermount3";
    let found = fuse::helper().map(|path| (fs::metadata(&path).map(|m| m.mode()), path));
    let is_root = geteuid().is_root();
    match found {
        _ if is_root => Check::ok(WHAT, "not needed by root"),
        None => Check::fail(WHAT, "not installed, and ordinary users mount through it")
            .hint("sudo apt install fuse3"),
        Some((Ok(mode), path)) if mode & 0o4000 == 0 => {
            let detail = format!("{} does not run as root, so it cannot mount", path.display());
            Check::fail(WHAT, detail).hint(format!("sudo chmod u+s {}", path.display()))
        }
        Some((_, path)) => Check::ok(WHAT, path.display().to_string()),
    }
}

/// Whether others can be let into a mount.
fn sharing() -> Check {
    const WHAT: &str = "--allow-other";
    if geteuid().is_root() || fuse::users_may_share() {
        return Check::ok(WHAT, "permitted");
    }
    Check::ok(WHAT, "only root may share mounts with other users")
        .hint("to let users do so, add the line user_allow_other to /etc/fuse.conf")
}

/// How a mount would answer opens, as far as that can be told without one: the kernel itself is
/// asked when it is mounted.
fn open_mode(kernel: Option<(u32, u32)>, has_privilege: bool) -> Check {
    const WHAT: &str = "open mode";
    let [best, lesser] = [OpenMode::Passthrough, OpenMode::NoOpen].map(OpenMode::name);
    let is_new = kernel.is_some_and(|kernel| kernel >= PASSTHROUGH_KERNEL);
    match (is_new, has_privilege) {
        (true, true) => Check::ok(WHAT, format!("{best}: the kernel reads cached files itself")),
        (true, false) => Check::ok(WHAT, format!("{lesser}: {best} needs CAP_SYS_ADMIN"))
            .hint("a mount of root, as from systemd or /etc/fstab, has it"),
        (false, _) => {
            let (major, minor) = PASSTHROUGH_KERNEL;
            Check::ok(WHAT, format!("{lesser}: {best} needs Linux {major}.{minor}"))
        }
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether this process may do what the kernel asks `CAP_SYS_ADMIN` for.
fn has_sys_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & SYS_ADMIN != 0)
}

/// A mount raises its own limit as far as it may.
fn descriptors(limit: Option<u64>) -> Check {
    const WHAT: &str = "descriptors";
    match limit {
        Some(limit) if limit < FEW_DESCRIPTORS => {
            Check::warn(WHAT, format!("at most {limit} files can be open at a time"))
                .hint("raise the hard limit: ulimit -Hn, or LimitNOFILE= of the service")
        }
        Some(limit) => Check::ok(WHAT, format!("{limit}")),
        None => Check::ok(WHAT, "no limit"),
    }
}

fn git() -> Check {
    match Command::new("git").arg("--version").output() {
        Ok(output) if output.status.success() => {
            Check::ok("git", String::from_utf8_lossy(&output.stdout).trim())
        }
        Ok(output) => Check::fail("git", format!("`git --version` ended with {}", output.status)),
        Err(error) => Check::fail("git", format!("it cannot be run: {error}"))
            .hint("repositories given by URL are fetched with it: sudo apt install git"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn kernels_are_told_by_their_release() {
        assert_eq!(version("6.18.0-rc1+"), Some((6, 18)));
        assert_eq!(version("5.4-custom"), Some((5, 4)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn passthrough_takes_a_new_kernel_and_the_privilege() {
        let mode = |kernel, has_privilege| open_mode(kernel, has_privilege).detail;
        assert!(mode(Some((6, 9)), true).starts_with("passthrough"));
        assert_eq!(mode(Some((7, 0)), false), "no-open: passthrough needs CAP_SYS_ADMIN");
        assert_eq!(mode(Some((6, 8)), true), "no-open: passthrough needs Linux 6.9");
        assert_eq!(mode(None, true), "no-open: passthrough needs Linux 6.9");
    }

    #[test]
    fn a_low_limit_of_descriptors_is_worth_a_warning() {
        assert_eq!(descriptors(Some(64)).status, Status::Warn);
        assert_eq!(descriptors(Some(1 << 20)).status, Status::Ok);
        assert_eq!(descriptors(None).status, Status::Ok);
    }
}
