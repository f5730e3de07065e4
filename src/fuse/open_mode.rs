//! How opens are answered, which decides how fast reading is.
//!
//! | mode | who reads a cached file | messages an open |
//! |---|---|---|
//! | passthrough | the kernel, from the cache's file | open, release |
//! | no-open | the kernel, from pages that it was given | none |
//! | served | the kernel, from pages that it was given | open, release |
//!
//! Passthrough needs privileges and a kernel that has it. The kernel is asked on the mount itself,
//! before its first open, so that what it says holds for this mount.

use std::{fs::File, io, os::fd::AsFd, path::Path};

use fuser::{BackingId, InitFlags};
use rustix::{
    io::Errno,
    ioctl::{Setter, ioctl, opcode},
};

/// How opens are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Cached files are handed to the kernel; others are served.
    Passthrough,
    /// The kernel sends no opens.
    NoOpen,
    /// The daemon answers opens and reads; the kernel keeps pages.
    Served,
}

impl OpenMode {
    /// The name of the mode, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::NoOpen => "no-open",
            Self::Served => "served",
        }
    }
}

/// A mode, and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenMode {
    /// The mode.
    pub mode: OpenMode,
    /// The reason, in a few words.
    pub why: String,
}

/// What the choice depends on.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    /// What the user wants; nothing leaves it to us.
    pub(super) wanted: Option<OpenMode>,
    /// Why every open has to be answered, if it has to be.
    pub(super) needs_opens: Option<&'static str>,
    /// What the kernel offers.
    pub(super) offered: InitFlags,
    /// The cache's folder, in which files to hand over lie.
    pub(super) cache_dir: &'a Path,
}

impl Choice<'_> {
    /// Chooses; a mode that the user wants and that cannot be had is an error, which says why.
    pub(super) fn decide(&self, device: impl AsFd) -> Result<ChosenMode, String> {
        let chosen = |mode, why: &str| Ok(ChosenMode { mode, why: why.to_owned() });
        match self.wanted {
            Some(OpenMode::Passthrough) => {
                self.try_passthrough(device)?;
                chosen(OpenMode::Passthrough, "as asked for")
            }
            Some(OpenMode::NoOpen) => {
                self.try_no_open()?;
                chosen(OpenMode::NoOpen, "as asked for")
            }
            Some(OpenMode::Served) => chosen(OpenMode::Served, "as asked for"),
            None => match (self.try_passthrough(device), self.try_no_open()) {
                (Ok(()), _) => chosen(OpenMode::Passthrough, "the kernel takes cached files"),
                (Err(why), Ok(())) => chosen(OpenMode::NoOpen, &format!("no passthrough: {why}")),
                (Err(why), Err(too)) => {
                    chosen(OpenMode::Served, &format!("no passthrough: {why}; no no-open: {too}"))
                }
            },
        }
    }

    fn try_no_open(&self) -> Result<(), String> {
        if let Some(why) = self.needs_opens {
            return Err(why.into());
        }
        if !self.offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT) {
            return Err("the kernel sends an open each time".into());
        }
        Ok(())
    }

    /// Has the kernel take a file of the cache's disk, and give it back.
    fn try_passthrough(&self, device: impl AsFd) -> Result<(), String> {
        if !self.offered.contains(InitFlags::FUSE_PASSTHROUGH) {
            return Err("the kernel does not have it; Linux 6.9 does".into());
        }
        let shown = self.cache_dir.display();
        let file = tempfile::tempfile_in(self.cache_dir)
            .map_err(|error| format!("the cache in {shown} cannot be used: {error}"))?;
        hand_over(device, &file).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::PERM) => "it needs CAP_SYS_ADMIN".into(),
            Some(Errno::LOOP) => format!("{shown} lies on file systems stacked too high"),
            _ => format!("the kernel does not take files of {shown}: {error}"),
        })
    }
}

/// Whether the kernel will most likely read files by itself, as far as can be told without a mount.
pub(super) fn is_likely_passed(wanted: Option<OpenMode>) -> bool {
    /// `CAP_SYS_ADMIN` of `linux/capability.h`.
    const SYS_ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    matches!(wanted, None | Some(OpenMode::Passthrough))
        && capabilities.is_some_and(|capabilities| capabilities & SYS_ADMIN != 0)
}

/// Registers a file as a backing file and takes it back.
fn hand_over(device: impl AsFd, file: &File) -> io::Result<()> {
    /// `FUSE_DEV_IOC_BACKING_CLOSE` of `linux/fuse.h`.
    const CLOSE: rustix::ioctl::Opcode = opcode::write::<u32>(229, 2);
    let id = BackingId::create_raw(&device, file)?;
    // SAFETY: the request reads one u32, which is what the setter points it to.
    unsafe { ioctl(device, Setter::<CLOSE, u32>::new(id)) }?;
    Ok(())
}

/// How many file systems may be stacked below a mount whose cache is in `dir`: one more than usual
/// where the cache lies on one that is itself a stack, as in a container.
pub(super) fn stack_depth(dir: &Path) -> u32 {
    /// Of overlayfs, from `linux/magic.h`.
    const OVERLAYFS: i64 = 0x794c_7630;
    let is_stacked = rustix::fs::statfs(dir).is_ok_and(|found| found.f_type == OVERLAYFS);
    if is_stacked { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(wanted: Option<OpenMode>, offered: InitFlags) -> Choice<'static> {
        Choice { wanted, needs_opens: None, offered, cache_dir: Path::new("/") }
    }

    /// Something that is no FUSE device, so that the kernel takes nothing through it.
    fn no_device() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn without_passthrough_the_kernel_sends_no_opens() {
        let chosen = choice(None, InitFlags::FUSE_NO_OPEN_SUPPORT).decide(no_device()).unwrap();
        assert_eq!(chosen.mode, OpenMode::NoOpen);
        assert!(chosen.why.contains("Linux 6.9"), "{}", chosen.why);
        let refused = InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_PASSTHROUGH;
        assert_eq!(choice(None, refused).decide(no_device()).unwrap().mode, OpenMode::NoOpen);
    }

    #[test]
    fn what_must_see_opens_is_served() {
        let offered = InitFlags::FUSE_NO_OPEN_SUPPORT;
        let strict = Choice { needs_opens: Some("it is checked"), ..choice(None, offered) };
        assert_eq!(strict.decide(no_device()).unwrap().mode, OpenMode::Served);
        let wanted = Choice { wanted: Some(OpenMode::NoOpen), ..strict };
        assert!(wanted.decide(no_device()).unwrap_err().contains("check"));
        assert_eq!(
            choice(None, InitFlags::empty()).decide(no_device()).unwrap().mode,
            OpenMode::Served
        );
    }

    #[test]
    fn a_mode_that_is_asked_for_and_cannot_be_had_is_refused() {
        let passthrough = choice(Some(OpenMode::Passthrough), InitFlags::empty());
        assert!(passthrough.decide(no_device()).unwrap_err().contains("Linux 6.9"));
        let served = choice(Some(OpenMode::Served), InitFlags::empty());
        assert_eq!(served.decide(no_device()).unwrap().why, "as asked for");
    }
}
