//! The command line of `mount.dvcfs`, which mount(8) decides.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, CommandFactory, Parser};

/// Mount a DVC data registry: what mount(8) runs for the type dvcfs.
#[derive(Debug, Parser)]
#[command(name = "mount.dvcfs", version, max_term_width = 100)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(in crate::cli) struct HelperArgs {
    /// A git repository: a path or any git URL
    #[arg(value_name = "REPO")]
    pub(in crate::cli) repo: String,
    /// The folder to mount on
    #[arg(value_name = "DIR")]
    pub(in crate::cli) dir: PathBuf,
    /// Options with commas between them; the last of one name counts
    #[arg(short, value_name = "OPTIONS", action = ArgAction::Append)]
    pub(in crate::cli) options: Vec<OsString>,
    /// Take options that nobody knows, with a warning
    #[arg(short = 's')]
    pub(in crate::cli) is_sloppy: bool,
    /// Check the options and mount nothing
    #[arg(short = 'f')]
    pub(in crate::cli) is_fake: bool,
    /// Say more; twice for everything
    #[arg(short, action = ArgAction::Count)]
    pub(in crate::cli) verbose: u8,
    /// Taken from mount(8): there is no /etc/mtab to leave alone
    #[arg(short)]
    pub(in crate::cli) no_mtab: bool,
    /// As the option ro, which every mount without an overlay is
    #[arg(short)]
    pub(in crate::cli) read_only: bool,
    /// Taken from mount(8)
    #[arg(short, value_name = "TYPE")]
    pub(in crate::cli) type_name: Option<String>,
}

impl HelperArgs {
    /// The command line's grammar.
    pub(in crate::cli) fn grammar() -> clap::Command {
        Self::command()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        HelperArgs::grammar().debug_assert();
    }
}
