//! The arguments of `dvcfs cache`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{parse_duration, parse_size};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CacheCommand {
    /// Where it is, how large, and its limits
    Info {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hash every cached blob
    Check {
        /// Remove blobs that do not match, to be fetched again
        #[arg(long)]
        repair: bool,
    },
    /// Remove blobs, the least recently used first
    #[command(after_help = GC_HELP)]
    Gc(GcArgs),
}

const GC_HELP: &str = "\
With --keep all else goes, also what belongs to other repositories, unless --size or --older-than
says how much of it. Manifests that are not here are fetched; if one cannot be had, nothing goes.";

/// What is to go, and what is to stay.
#[derive(Debug, Args)]
pub(in crate::cli) struct GcArgs {
    /// The repository of the revisions to keep: a path or any git URL
    #[arg(value_name = "REPO", requires = "keep")]
    pub(in crate::cli) repo: Option<String>,
    /// Until the cache is no larger than this, such as 10G [default: its limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(in crate::cli) size: Option<u64>,
    /// Those not used for this long, such as 30d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) older_than: Option<Duration>,
    /// None that this revision of REPO names; may be given several times
    #[arg(long, value_name = "REV", requires = "repo")]
    pub(in crate::cli) keep: Vec<String>,
    /// Let the repository's own configuration choose the S3 endpoint and how it is checked
    #[arg(long, requires = "repo")]
    pub(in crate::cli) trust_remote: bool,
    /// All of them
    #[arg(long, conflicts_with_all = ["size", "older_than", "keep"])]
    pub(in crate::cli) all: bool,
}
