//! How a command ends: its exit code, and the lines that say why.

use std::{fmt, process::ExitCode};

use serde::{Deserialize, Serialize};

use crate::{blobs::BlobError, git::GitError, registry::RegistryError, vfs::VfsError};

/// Exit codes, the same for every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Code {
    /// Something differs, is missing or failed.
    Failed,
    /// The machine lacks what it takes: FUSE, a program, memory, processes.
    System,
    /// What is known of running mounts cannot be written.
    Record,
    /// The command line or the settings make no sense.
    Usage,
    /// The repository or the revision.
    Repository,
    /// An object that no remote has.
    Missing,
    /// Credentials, or settings that nobody agreed to.
    Credentials,
    /// The network.
    Network,
    /// Content that does not match its id.
    Integrity,
    /// Two changes that exclude each other.
    Conflict,
    /// Something is in use.
    Busy,
}

impl Code {
    /// What each exit code says, for people.
    pub(super) const MEANINGS: [(u8, &'static str); 10] = [
        (0, "done"),
        (Self::Failed.number(), "something differs, is missing or failed"),
        (Self::Usage.number(), "the command line or the settings make no sense"),
        (Self::Repository.number(), "the repository or the revision"),
        (Self::Missing.number(), "an object that no remote has"),
        (Self::Credentials.number(), "credentials, or settings that nobody agreed to"),
        (Self::Network.number(), "the network"),
        (Self::Integrity.number(), "content that does not match its hash"),
        (Self::Conflict.number(), "two changes that exclude each other"),
        (Self::Busy.number(), "something is in use"),
    ];

    /// What each exit code of mount(8) says, as far as `mount.dvcfs` uses them.
    pub(super) const MEANINGS_OF_MOUNT: [(u8, &'static str); 6] = [
        (0, "the mount answers"),
        (Self::Usage.of_mount(), "the options, the settings or the mount point make no sense"),
        (Self::System.of_mount(), "the machine lacks FUSE, git, memory or processes"),
        (Self::INTERRUPTED, "interrupted by the user"),
        (Self::Record.of_mount(), "the record of the mount cannot be written"),
        (
            Self::Failed.of_mount(),
            "repository, revision, credentials or network: it cannot be mounted",
        ),
    ];

    /// What mount(8) is told when the user gives up.
    pub(super) const INTERRUPTED: u8 = 8;

    /// The exit code of a command.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Failed | Self::System | Self::Record => 1,
            Self::Usage => 2,
            Self::Repository => 3,
            Self::Missing => 4,
            Self::Credentials => 5,
            Self::Network => 6,
            Self::Integrity => 7,
            Self::Conflict => 8,
            Self::Busy => 9,
        }
    }

    /// The exit code that mount(8) understands.
    pub(super) const fn of_mount(self) -> u8 {
        match self {
            Self::Usage => 1,
            Self::System => 2,
            Self::Record => 16,
            Self::Failed
            | Self::Repository
            | Self::Missing
            | Self::Credentials
            | Self::Network
            | Self::Integrity
            | Self::Conflict
            | Self::Busy => 32,
        }
    }
}

/// Why a command failed: one line of what, on what, why; and what to do about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The exit code.
    pub code: Code,
    /// One line.
    pub message: String,
    /// The next step, where there is one.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was attempted before the reason.
    #[must_use]
    pub(super) fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", one_line(&self.message))?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {}", one_line(hint))?;
        }
        Ok(())
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        (&error).into()
    }
}

impl From<&GitError> for Failure {
    fn from(error: &GitError) -> Self {
        use GitError as E;
        let code = match error {
            E::InvalidLocation { .. } => Code::Usage,
            E::Denied { .. } => Code::Credentials,
            E::Unreachable { .. } | E::TimedOut { .. } => Code::Network,
            E::Busy { .. } => Code::Busy,
            E::GitMissing { .. } => Code::System,
            E::Io { .. } | E::NoIdentity { .. } | E::NotCommitted { .. } => Code::Failed,
            E::NotARepository { .. }
            | E::Unsupported { .. }
            | E::EmptyRepository { .. }
            | E::UnknownRevision { .. }
            | E::AmbiguousRevision { .. }
            | E::Missing { .. }
            | E::Unreadable { .. }
            | E::TooLarge { .. }
            | E::NotOwned { .. }
            | E::Reference { .. } => Code::Repository,
        };
        let failure = Self::new(code, chain(error));
        match error {
            E::GitMissing { .. } => failure.hint("install it: apt install git"),
            E::NoIdentity { .. } => {
                failure.hint("git config --global user.email YOU@EXAMPLE.ORG, then user.name")
            }
            E::EmptyRepository { .. } => failure.hint("commit something first"),
            E::Denied { .. } => {
                failure.hint("does `git ls-remote` with the same URL work in this shell?")
            }
            E::UnknownRevision { .. } => {
                failure.hint("git log, git branch -a and git tag show what there is")
            }
            E::NotARepository { .. } => {
                failure.hint("name a git repository: a path, or a URL that `git clone` takes")
            }
            E::Missing { .. } | E::Unreadable { .. } => {
                failure.hint("`git fsck` in the repository shows what else is damaged")
            }
            _ => failure,
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Git(error) => error.into(),
        }
    }
}

impl From<&BlobError> for Failure {
    fn from(error: &BlobError) -> Self {
        let code = match error {
            BlobError::Missing(_) => Code::Missing,
            BlobError::Denied(_) | BlobError::Untrusted(_) => Code::Credentials,
            BlobError::Unreachable(_) => Code::Network,
            BlobError::Misconfigured(_) => Code::Failed,
            BlobError::Integrity(_) => Code::Integrity,
        };
        let hint = match error {
            BlobError::Missing(_) => Some("push it again from where it was added"),
            BlobError::Integrity(_) => Some(
                "remove this object from the remote, and push it again from where it was added",
            ),
            _ => None,
        };
        let hint = error.failure().hint.clone().or_else(|| hint.map(Into::into));
        Self { code, message: error.to_string(), hint }
    }
}

impl From<VfsError> for Failure {
    fn from(error: VfsError) -> Self {
        use VfsError as E;
        let code = match &error {
            E::Blob(error) => return error.into(),
            E::Upstream(error) => return (&**error).into(),
            E::Git(_) => Code::Repository,
            E::WrongSize { .. } | E::Manifest { .. } => Code::Integrity,
            E::NoContent(_) => Code::Missing,
            E::NotFound
            | E::NotAFolder
            | E::IsAFolder
            | E::NotALink
            | E::Stale
            | E::NoAttribute
            | E::NoSuchAttributes
            | E::ReadOnly
            | E::Exists
            | E::NotEmpty
            | E::NotPermitted
            | E::Disk(_)
            | E::Compiled(_)
            | E::Numberless
            | E::Interrupted(_) => Code::Failed,
        };
        let failure = Self::new(code, chain(&error));
        match &error {
            E::Manifest { .. } => failure.hint("add the folder again with `dvc add`, and push it"),
            E::Git(_) => failure.hint("`git fsck` in the repository shows what is damaged"),
            _ => failure,
        }
    }
}

/// An error and everything below it, on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        below = error.source();
    }
    one_line(&text)
}

fn one_line(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    crate::path::escape(lines.join("; ").as_bytes())
}
