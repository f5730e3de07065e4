//! Commands that look at a registry's history, at the settings and at the program itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::RepoArgs;

#[derive(Debug, Args)]
pub(in crate::cli) struct RevsArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    /// List the commits that changed what DVC tracks, too: the latest 20, or N
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true,
          default_missing_value = "20")]
    pub(in crate::cli) commits: Option<usize>,
    /// Whose commits [default: those of the default branch]
    #[arg(long, value_name = "REV", requires = "commits")]
    pub(in crate::cli) rev: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(in crate::cli) struct DiffArgs {
    #[command(flatten)]
    pub(in crate::cli) repo: RepoArgs,
    /// The older revision: a branch, tag, commit or expression [default: of a writable mount, what lies below it]
    #[arg(value_name = "A")]
    pub(in crate::cli) old: Option<String>,
    /// The newer one [default: the default branch]
    #[arg(value_name = "B")]
    pub(in crate::cli) new: Option<String>,
    /// Compare only these files and folders
    #[arg(value_name = "PATH")]
    pub(in crate::cli) paths: Vec<String>,
    /// Only what DVC tracks, as `dvc diff` does
    #[arg(long)]
    pub(in crate::cli) dvc_only: bool,
    /// Show hashes
    #[arg(long)]
    pub(in crate::cli) show_hash: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    pub(in crate::cli) json: bool,
    /// Print a table in Markdown
    #[arg(long = "md")]
    pub(in crate::cli) markdown: bool,
    /// End with exit code 1 if anything differs
    #[arg(long)]
    pub(in crate::cli) exit_code: bool,
    /// Taken from scripts that use `dvc diff`: what is not cached is never listed here
    #[arg(long, hide = true)]
    pub(in crate::cli) hide_missing: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Check this registry, its remote and your access to them, too
    #[arg(value_name = "REPO")]
    pub(in crate::cli) repo: Option<String>,
    /// Let the repository's own configuration choose the S3 endpoint and how it is checked
    #[arg(long, requires = "repo")]
    pub(in crate::cli) trust_remote: bool,
    /// Check this remote instead of the configured default
    #[arg(short = 'r', long, value_name = "NAME", requires = "repo")]
    pub(in crate::cli) remote: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Print the settings in force: dvcfs's own, then DVC's
    List(ConfigListArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigListArgs {
    /// A registry whose DVC configuration counts, too
    #[arg(value_name = "REPO")]
    pub(in crate::cli) repo: Option<String>,
    /// The configuration of this revision [default: the default branch]
    #[arg(long, value_name = "REV", requires = "repo")]
    pub(in crate::cli) rev: Option<String>,
    /// Say where each value came from
    #[arg(long)]
    pub(in crate::cli) origin: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CompletionsArgs {
    /// The shell that is to read them
    #[arg(value_enum)]
    pub(in crate::cli) shell: Shell,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ManArgs {
    /// The command whose page is printed [default: dvcfs itself]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    pub(in crate::cli) command: Vec<String>,
    /// Write the pages of all commands into this folder instead
    #[arg(short, long, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
}
