//! Commands that have to do with what was changed in a writable mount.

use std::{num::NonZeroUsize, path::PathBuf};

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

#[derive(Debug, Args)]
pub(in crate::cli) struct SnapshotArgs {
    /// The folder that is mounted on
    #[arg(value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// Files and folders in it [default: everything]
    #[arg(value_name = "PATH")]
    pub(in crate::cli) paths: Vec<PathBuf>,
    /// The message of the commit [default: your editor asks]
    #[arg(short, long, value_name = "TEXT")]
    pub(in crate::cli) message: Option<String>,
    /// New files that DVC tracks, each by itself, whatever they look like
    #[arg(long, value_name = "GLOB")]
    pub(in crate::cli) dvc: Vec<String>,
    /// New files that git keeps, whatever they look like; by name, ignored ones too
    #[arg(long, value_name = "GLOB")]
    pub(in crate::cli) git: Vec<String>,
    /// New folders that DVC tracks as one
    #[arg(long = "dir", value_name = "PATH")]
    pub(in crate::cli) folders: Vec<String>,
    /// Record what a stage of a pipeline makes as well, as `dvc commit -f` does
    #[arg(short, long)]
    pub(in crate::cli) force: bool,
    /// Say what would be recorded, and where
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PushArgs {
    /// The folder that is mounted on
    #[arg(value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// The remote to push to [default: the default remote; outputs may name another]
    #[arg(short, long, value_name = "NAME")]
    pub(in crate::cli) remote: Option<String>,
    /// Files that are sent at the same time
    #[arg(short, long, value_name = "N", default_value = "32")]
    pub(in crate::cli) jobs: NonZeroUsize,
    /// Let the repository choose its endpoint and how it is checked
    #[arg(long)]
    pub(in crate::cli) trust_remote: bool,
    /// Say what would be sent, and where
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
