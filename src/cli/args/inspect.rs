//! Commands that look at the settings and at the program itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

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
