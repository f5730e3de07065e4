//! `dvcfs completions`: what makes a shell complete commands and options.

use std::process::ExitCode;

use super::{
    args::{Cli, CompletionsArgs},
    print_bytes,
};

pub(super) fn run(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::grammar(), "dvcfs", &mut script);
    print_bytes(&script);
    ExitCode::SUCCESS
}
