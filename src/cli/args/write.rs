//! Commands that have to do with what was changed in a writable mount.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in crate::cli) struct DiscardArgs {
    /// The folder that is mounted on
    #[arg(value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// Files and folders in it [default: everything]
    #[arg(value_name = "PATH")]
    pub(in crate::cli) paths: Vec<PathBuf>,
    /// Do not ask before everything is dropped
    #[arg(short, long)]
    pub(in crate::cli) yes: bool,
}
