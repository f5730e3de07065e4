//! The command line as typed.

mod cache;
mod helper;
mod inspect;
mod write;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint,
    builder::BoolishValueParser,
};
use serde::Deserialize;

pub(super) use self::cache::{CacheCommand, GcArgs};
pub(super) use self::helper::HelperArgs;
pub(super) use self::inspect::{
    CompletionsArgs, ConfigCommand, ConfigListArgs, DiffArgs, DoctorArgs, ManArgs, RevsArgs,
};
pub(super) use self::write::{DiscardArgs, PushArgs, SnapshotArgs};

/// Mount a DVC data registry as folders, at any git revision.
#[derive(Debug, Parser)]
#[command(
    name = "dvcfs",
    version,
    max_term_width = 100,
    after_help = "Every option can be set in the environment too: --cache-dir is DVCFS_CACHE_DIR."
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Cli {
    /// The command line's grammar, with an environment variable for each option: `--cache-dir` is
    /// also `DVCFS_CACHE_DIR`.
    pub(super) fn grammar() -> clap::Command {
        with_hints(with_environment(Self::command()))
    }
}

/// The variable that stands for an option.
pub(super) fn variable(option: &str) -> String {
    format!("DVCFS_{}", option.to_uppercase().replace('-', "_"))
}

fn with_environment(command: clap::Command) -> clap::Command {
    let named = |arg: clap::Arg| match arg.get_long() {
        Some(long) => {
            let variable = variable(long);
            let arg = arg.env(variable).hide_env(true);
            match arg.get_action() {
                // Besides `true` and `false` as on the command line, people write `1` and `yes`.
                ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
                _ => arg,
            }
        }
        None => arg,
    };
    command.mut_args(named).mut_subcommands(with_environment)
}

/// Says by the names of values what a shell can complete them with.
fn with_hints(command: clap::Command) -> clap::Command {
    let hinted = |arg: clap::Arg| {
        let name = arg.get_value_names().and_then(|names| names.first());
        let hint = match name.map(clap::builder::Str::as_str) {
            Some("DIR" | "REPO") => ValueHint::DirPath,
            Some("FILE") => ValueHint::FilePath,
            _ => return arg,
        };
        arg.value_hint(hint)
    };
    command.mut_args(hinted).mut_subcommands(with_hints)
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Common {
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(super) verbose: u8,
    /// Settings file [default: ~/.config/dvcfs/config.toml, or /etc/dvcfs/config.toml as root]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where blobs are cached [default: ~/.cache/dvcfs, or /var/cache/dvcfs as root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    /// How large the cache may grow, such as 50G
    #[arg(long, global = true, value_name = "SIZE",
          value_parser = parse_size)]
    pub(super) cache_size: Option<u64>,
    /// How much of the cache's disk stays free, such as 10G
    #[arg(long, global = true, value_name = "SIZE",
          value_parser = parse_size)]
    pub(super) min_free: Option<u64>,
    /// How much memory downloads may take, such as 256M
    /// [default: 128M, or a quarter of what the control group has]
    #[arg(long, global = true, value_name = "SIZE",
          value_parser = parse_size)]
    pub(super) memory_limit: Option<u64>,
    /// Where git mirrors and indexes are kept [default: ~/.local/state/dvcfs, or /var/lib/dvcfs as root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Where sockets of mounts lie [default: `$XDG_RUNTIME_DIR/dvcfs`, or /run/dvcfs as root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) runtime_dir: Option<PathBuf>,
    /// How the log is written on stderr [default: text; where systemd reads it, to its journal]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

/// A line for people, or a JSON object on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a registry on a folder
    Mount(MountArgs),
    /// End a mount
    Umount(UmountArgs),
    /// Show what is mounted, and what waits to be pushed
    Status(StatusArgs),
    /// List the files of a registry, as `dvc list` does
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Copy a file or folder out of a registry
    Get(GetArgs),
    /// Print a file of a registry
    Cat(CatArgs),
    /// Fill the cache with files and folders before they are read
    #[command(after_help = PREFETCH_HELP)]
    Prefetch(PrefetchArgs),
    /// List the branches and tags of a registry, and the commits that changed data
    Revs(RevsArgs),
    /// Show what changed between two revisions, as `dvc diff` does
    Diff(DiffArgs),
    /// Make a commit of what was changed in a writable mount
    Snapshot(SnapshotArgs),
    /// Bring snapshots to the remotes and to their branch
    Push(PushArgs),
    /// Drop what was changed in a writable mount
    Discard(DiscardArgs),
    /// Make a mount look for new commits now
    Refresh(RefreshArgs),
    /// Look after the cache
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Find out what is wrong with this machine, or with a registry
    Doctor(DoctorArgs),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print what makes a shell complete commands and options
    #[command(after_help = COMPLETIONS_HELP)]
    Completions(CompletionsArgs),
    /// Print or write manual pages
    #[command(after_help = "Read one with: dvcfs man mount | man -l -")]
    Man(ManArgs),
}

const PREFETCH_HELP: &str = "\
Of a mount, paths are those below DIR, and the daemon fetches: readers of the mount go first.
What is cached already is not fetched again, so an interrupted prefetch goes on where it was.";

const COMPLETIONS_HELP: &str = "\
Where they go:
  bash  dvcfs completions bash > ~/.local/share/bash-completion/completions/dvcfs
  fish  dvcfs completions fish > ~/.config/fish/completions/dvcfs.fish
  zsh   dvcfs completions zsh > ~/.zfunc/_dvcfs, with ~/.zfunc in $fpath before compinit";

/// Which registry, and what is believed about it.
#[derive(Debug, Clone, Args)]
pub(super) struct RepoArgs {
    /// A git repository: a path or any git URL
    #[arg(value_name = "REPO")]
    pub(super) repo: String,
    /// Let the repository's own configuration choose the S3 endpoint and how it is checked
    #[arg(long)]
    pub(super) trust_remote: bool,
    /// Read from this remote instead of the configured default
    #[arg(short = 'r', long, value_name = "NAME")]
    pub(super) remote: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct MountArgs {
    #[command(flatten)]
    pub(super) repo: RepoArgs,
    /// The folder to mount on
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Show one revision instead of all
    #[arg(long, value_name = "REV")]
    pub(super) rev: Option<String>,
    /// Take changes, and keep them in a folder of this machine [default: one in the state folder]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true,
          default_missing_value = "", requires = "rev")]
    pub(super) overlay: Option<OsString>,
    /// The branch that the changes are meant for [default: the one that is mounted]
    #[arg(long, value_name = "NAME", requires = "overlay")]
    pub(super) branch: Option<String>,
    /// How often branches are asked for new commits
    #[arg(long, value_name = "TIME", default_value = "60s",
          num_args = 0..=1, require_equals = true, default_missing_value = "60s",
          value_parser = parse_duration, overrides_with = "no_follow")]
    pub(super) follow: Duration,
    /// Keep every branch at the commit it has now
    #[arg(long)]
    pub(super) no_follow: bool,
    /// Stay in the foreground
    #[arg(short, long)]
    pub(super) foreground: bool,
    /// Mount over a folder that is not empty
    #[arg(long)]
    pub(super) nonempty: bool,
    /// Let nobody run programs that lie in the mount
    #[arg(long)]
    pub(super) noexec: bool,
    /// Have the kernel follow no symbolic links in the mount; for root
    #[arg(long)]
    pub(super) nosymfollow: bool,
    #[command(flatten)]
    pub(super) labels: Labels,
    /// Let other users see the mount
    #[arg(long)]
    pub(super) allow_other: bool,
    /// Owner of everything shown [default: you]
    #[arg(long, value_name = "UID")]
    pub(super) uid: Option<u32>,
    /// Group of everything shown [default: yours]
    #[arg(long, value_name = "GID")]
    pub(super) gid: Option<u32>,
    /// Which symbolic links are shown
    #[arg(long, value_enum, default_value_t = Symlinks::AsCommitted)]
    pub(super) symlinks: Symlinks,
    /// When large files are checked against their hash
    #[arg(long, value_enum, default_value_t = Verify::Stream)]
    pub(super) verify: Verify,
    /// How opens of files are answered
    #[arg(long, value_enum, default_value_t = OpenModeArg::Auto)]
    pub(super) open_mode: OpenModeArg,
    /// Begin to fill the cache with this file or folder of the mount; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) prefetch: Vec<OsString>,
    /// Whether to wait for quick requests without going to sleep
    #[arg(long, value_enum, default_value_t = SpinArg::Auto)]
    pub(super) spin: SpinArg,
}

/// Labels of `SELinux`, as mount(8) calls them; their meaning is the kernel's.
#[derive(Debug, Clone, Args)]
pub(super) struct Labels {
    /// The label of everything in the mount
    #[arg(long, value_name = "LABEL", hide = true)]
    context: Option<String>,
    /// The label of the file system itself
    #[arg(long, value_name = "LABEL", hide = true)]
    fscontext: Option<String>,
    /// The label of files that have none
    #[arg(long, value_name = "LABEL", hide = true)]
    defcontext: Option<String>,
    /// The label of the mount's root
    #[arg(long, value_name = "LABEL", hide = true)]
    rootcontext: Option<String>,
}

impl Labels {
    /// As the kernel takes them; quotes hold the commas of a label together.
    pub(super) fn options(&self) -> Vec<String> {
        let named = [
            ("context", &self.context),
            ("fscontext", &self.fscontext),
            ("defcontext", &self.defcontext),
            ("rootcontext", &self.rootcontext),
        ];
        let given = named.into_iter().filter_map(|(name, label)| Some((name, label.as_ref()?)));
        given.map(|(name, label)| format!("{name}=\"{label}\"")).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SpinArg {
    /// While requests come in quick succession and a processor is idle
    Auto,
    /// Never
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OpenModeArg {
    /// The fastest that this kernel and user can have
    Auto,
    /// Hand cached files to the kernel, which reads them by itself; needs root
    Passthrough,
    /// Have the kernel not even ask; best for small files that are read again and again
    NoOpen,
    /// Answer every open and read
    Served,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Symlinks {
    /// Exactly those that were committed
    AsCommitted,
    /// Only those that stay inside the tree
    Inside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Verify {
    /// While they stream; the read that completes one waits for the check
    Stream,
    /// Before the first byte is served
    Strict,
}

#[derive(Debug, Args)]
pub(super) struct UmountArgs {
    /// The folder that is mounted on
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// Detach now, even while files are open
    #[arg(short, long)]
    pub(super) lazy: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// One mount [default: all of yours]
    #[arg(value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) repo: RepoArgs,
    /// A file or folder in it [default: the root]
    #[arg(value_name = "PATH")]
    pub(super) path: Option<String>,
    /// Branch, tag, commit or expression [default: the default branch]
    #[arg(long, value_name = "REV")]
    pub(super) rev: Option<String>,
    /// List the files in folders too, by their paths
    #[arg(short = 'R', long)]
    pub(super) recursive: bool,
    /// Draw a tree
    #[arg(short = 'T', long, conflicts_with = "json")]
    pub(super) tree: bool,
    /// How many folders deep, with --recursive or --tree
    #[arg(short = 'L', long, value_name = "DEPTH")]
    pub(super) level: Option<usize>,
    /// Only what DVC tracks
    #[arg(long)]
    pub(super) dvc_only: bool,
    /// Show the sizes that are known without asking a remote
    #[arg(long)]
    pub(super) size: bool,
    /// Show every file's size, asking the remote for those of files in tracked folders
    #[arg(long)]
    pub(super) all_sizes: bool,
    /// Show hashes
    #[arg(long)]
    pub(super) show_hash: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) repo: RepoArgs,
    /// The file or folder to copy
    #[arg(value_name = "PATH")]
    pub(super) path: OsString,
    /// Where to [default: its own name in this folder]
    #[arg(short, long, value_name = "OUT")]
    pub(super) out: Option<PathBuf>,
    /// Branch, tag, commit or expression [default: the default branch]
    #[arg(long, value_name = "REV")]
    pub(super) rev: Option<String>,
    /// Replace what is there
    #[arg(short, long)]
    pub(super) force: bool,
    /// How many files at once
    #[arg(short, long, value_name = "N", default_value_t = 16)]
    pub(super) jobs: usize,
}

#[derive(Debug, Args)]
pub(super) struct CatArgs {
    #[command(flatten)]
    pub(super) repo: RepoArgs,
    /// The file to print
    #[arg(value_name = "PATH")]
    pub(super) path: OsString,
    /// Branch, tag, commit or expression [default: the default branch]
    #[arg(long, value_name = "REV")]
    pub(super) rev: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct PrefetchArgs {
    /// The folder that is mounted on, or a git repository: a path or any git URL
    #[arg(value_name = "DIR-or-REPO")]
    pub(super) repo: String,
    /// Files and folders [default: everything]
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<OsString>,
    /// Branch, tag, commit or expression [default: what is mounted, or the default branch]
    #[arg(long, value_name = "REV")]
    pub(super) rev: Option<String>,
    /// Fetch nothing; say how much is cached, and fail unless all is
    #[arg(long, conflicts_with = "evict")]
    pub(super) check: bool,
    /// Take them out of the cache instead
    #[arg(long)]
    pub(super) evict: bool,
    /// Read more paths from a file, one a line; - is the standard input
    #[arg(short, long, value_name = "LIST", value_hint = ValueHint::FilePath)]
    pub(super) files_from: Option<PathBuf>,
    /// Let the repository's own configuration choose the S3 endpoint and how it is checked
    #[arg(long)]
    pub(super) trust_remote: bool,
    /// Read from this remote instead of the configured default
    #[arg(short = 'r', long, value_name = "NAME")]
    pub(super) remote: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    /// The folder that is mounted on
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
}

/// Reads `512`, `64K`, `1.5M`, `50G`, `2T` (steps of 1024; `KiB`, `GB` and the like are the same).
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("{text:?} is not a size; write a number with K, M, G or T, like 50G");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok().ok_or_else(invalid)?;
    let unit = unit.trim().to_ascii_uppercase();
    let power = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err(invalid()),
    };
    Ok((number * 1024_f64.powi(power)) as u64)
}

/// Reads `30`, `60s`, `5m`, `12h`, `30d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("{text:?} is not a time; write a number with s, m, h or d, like 60s");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok().ok_or_else(invalid)?;
    let factor: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(invalid()),
    };
    let secs = number.checked_mul(factor).filter(|secs| *secs < 1 << 40).ok_or_else(invalid)?;
    Ok(Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_steps_of_1024() {
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("1.5K"), Ok(1536));
        assert_eq!(parse_size("50GiB"), Ok(50 << 30));
        assert_eq!(parse_size("2tb"), Ok(2 << 40));
        for bad in ["", "G", "-1", "5X", "1..2"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(parse_duration("60"), Ok(Duration::from_mins(1)));
        for bad in ["", "m", "-1s", "1w", "99999999999999999999d", "9999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::grammar().debug_assert();
    }

    #[test]
    fn options_can_be_set_in_the_environment() {
        let grammar = Cli::grammar();
        let mount = grammar.find_subcommand("mount").unwrap();
        let follow = mount.get_arguments().find(|arg| arg.get_id() == "no_follow").unwrap();
        assert_eq!(follow.get_env().unwrap(), "DVCFS_NO_FOLLOW");
        let gc = grammar.find_subcommand("cache").unwrap().find_subcommand("gc").unwrap();
        let older = gc.get_arguments().find(|arg| arg.get_id() == "older_than").unwrap();
        assert_eq!(older.get_env().unwrap(), "DVCFS_OLDER_THAN");
    }
}
