//! Runs the user's own `git` to talk to a server, in a mirror and nowhere else.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    error::GitError,
    location::redact,
    process::{self, Limits, Output},
};
use crate::path::escape;

/// What the user's git must not do in a mirror, whatever its configuration says: run helpers named
/// by a URL, hooks or monitors, collect garbage, or ask through a credential window.
const SETTINGS: [&str; 7] = [
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
];

/// Variables that would lead git away from the mirror.
const MISLEADING: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
];

/// Git's words for refused or missing credentials, in lower case.
const DENIALS: [&str; 9] = [
    "authentication failed",
    "permission denied (",
    "terminal prompts disabled",
    "could not read username",
    "could not read password",
    "host key verification failed",
    "access denied",
    "returned error: 401",
    "returned error: 403",
];

/// Git's words for a server that answers but has no such repository, in lower case.
const ABSENCES: [&str; 4] = [
    "does not appear to be a git repository",
    "repository not found",
    "' not found",
    "no such path",
];

/// How many lines of git's complaint an error repeats, and how many characters.
const LINES: usize = 5;
const CHARACTERS: usize = 1000;

/// Receives git's progress output as it comes, raw.
pub type Progress = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// How to talk to git servers.
#[derive(Clone)]
pub struct TransportOptions {
    /// The git program, a name to be searched or a path.
    pub program: PathBuf,
    /// Whether git and ssh may ask the user on the terminal. If not, they fail instead.
    pub interactive: bool,
    /// The longest that one step may take: waiting for another process, or one run of git.
    pub timeout: Duration,
    /// How long a run of git may print nothing; it is made to tell its progress then. Without it,
    /// only `timeout` counts.
    pub silence: Option<Duration>,
    /// The user's `GIT_SSH_COMMAND`; without it git's `core.sshCommand` counts, then `ssh`.
    pub ssh_command: Option<String>,
    /// Gets git's progress if somebody wants to see it.
    pub progress: Option<Progress>,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            program: "git".into(),
            interactive: false,
            timeout: Duration::from_mins(10),
            silence: None,
            ssh_command: None,
            progress: None,
        }
    }
}

impl fmt::Debug for TransportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportOptions")
            .field("program", &self.program)
            .field("interactive", &self.interactive)
            .field("timeout", &self.timeout)
            .field("silence", &self.silence)
            .finish_non_exhaustive()
    }
}

/// The user's git in one repository, most often a mirror's line to its server.
pub(super) struct Transport<'a> {
    pub(super) folder: &'a Path,
    /// What is talked to, for messages, without a password.
    pub(super) name: String,
    pub(super) options: &'a TransportOptions,
    /// `core.sshCommand` of the user's git configuration.
    pub(super) configured_ssh: Option<String>,
}

impl Transport<'_> {
    /// Runs git with `arguments` and gives the last of what it printed on stdout.
    pub(super) fn git(&self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        let output = self.run(arguments)?;
        if output.status.success() { Ok(output.stdout) } else { Err(self.failed(&output)) }
    }

    /// Runs git with `arguments` to its end, whatever that is.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Output, GitError> {
        let watch = |bytes: &[u8]| {
            if let Some(progress) = &self.options.progress {
                progress(bytes);
            }
        };
        let limits = Limits {
            deadline: Instant::now() + self.options.timeout,
            silence: self.options.silence,
            is_interactive: self.options.interactive,
            watch: &watch,
        };
        let mut command = self.command(arguments);
        let output = process::run(&mut command, &limits).map_err(|e| self.not_run(e))?;
        output.ok_or_else(|| {
            let limit = self.options.silence.unwrap_or(self.options.timeout);
            GitError::TimedOut { url: self.name.clone(), limit }
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.options.program);
        command.current_dir(self.folder).arg("--git-dir=.");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        for variable in MISLEADING {
            command.env_remove(variable);
        }
        // Failures are told apart by git's English words.
        command.env("LC_ALL", "C").args(arguments);
        if self.options.interactive {
            command.envs(self.options.ssh_command.iter().map(|ssh| ("GIT_SSH_COMMAND", ssh)));
        } else {
            self.silence(&mut command);
        }
        command
    }

    /// Makes git and its helpers fail where they would ask.
    fn silence(&self, command: &mut Command) {
        let ssh = self.options.ssh_command.as_ref().or(self.configured_ssh.as_ref());
        let ssh = ssh.map_or("ssh", String::as_str);
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            // Set but empty, it keeps git from the askpass programs of its configuration too.
            .env("GIT_ASKPASS", "")
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env("GCM_INTERACTIVE", "never")
            .env("GIT_SSH_COMMAND", format!("{ssh} -oBatchMode=yes"));
    }

    fn not_run(&self, source: io::Error) -> GitError {
        let program = self.options.program.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                GitError::GitMissing { program, source }
            }
            _ => GitError::Io { action: "run", path: program, source },
        }
    }

    /// Tells why git failed, by what it printed.
    pub(super) fn failed(&self, output: &Output) -> GitError {
        let url = self.name.clone();
        let text = String::from_utf8_lossy(&output.stderr);
        let lower = text.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let output = match last_lines(&text) {
            lines if lines.is_empty() => format!("git ended with {}", output.status),
            lines => lines,
        };
        if says(&["mismatched algorithms"]) {
            GitError::Unsupported { location: url, reason: "it has SHA-256 ids".into() }
        } else if says(&DENIALS) {
            GitError::Denied { url, output }
        } else if says(&ABSENCES) {
            GitError::NotARepository { location: url }
        } else {
            GitError::Unreachable { url, output }
        }
    }
}

/// The last lines with something on them, in one, without passwords and safe to print. Of a
/// progress line that was written over, what stood there last.
fn last_lines(text: &str) -> String {
    join(lines(text))
}

/// The same of what the server itself said, which git tells of on lines of its own.
pub(super) fn words_of_server(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    join(lines(&text).filter_map(|line| line.strip_prefix("remote:")))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.rsplit('\r').find(|s| !s.is_empty()).unwrap_or(""))
}

fn join<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = redact(&lines[lines.len().saturating_sub(LINES)..].join("; "));
    let end = last.char_indices().nth(CHARACTERS);
    let (cut, more) = end.map_or((&*last, ""), |(end, _)| (&last[..end], "..."));
    escape(cut.as_bytes()) + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_cut_to_their_last_lines_without_secrets() {
        let text = "1\n2\n\n3\n4\nprogress 1%\rprogress 2%\r\nfatal: https://u:secret@h/r\x1b[2J\n";
        let expected = "2; 3; 4; progress 2%; fatal: https://***@h/r\\u{1b}[2J";
        assert_eq!(last_lines(text), expected);
    }

    #[test]
    fn a_server_is_heard_without_what_git_says_itself() {
        let text = b"remote: \nremote: GH006: Protected\x1b[K   \nTo x\n ! [remote rejected]\n";
        assert_eq!(words_of_server(text), "GH006: Protected\\u{1b}[K");
        assert_eq!(words_of_server(b"fatal: no line\n"), "");
        let long = format!("remote: {}\n", "\u{e4}".repeat(5000));
        assert_eq!(words_of_server(long.as_bytes()), "\u{e4}".repeat(1000) + "...");
    }
}
