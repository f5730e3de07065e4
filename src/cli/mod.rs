//! The command line: arguments, settings, messages, exit codes; one file per command.

mod args;
mod background;
mod cache;
mod cat;
mod context;
mod control;
mod exit;
mod get;
mod list;
mod mount;
mod mounts;
mod progress;
mod refresh;
mod settings;
mod status;
mod trust;
mod umount;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::FromArgMatches;

use self::{
    args::{Cli, Command},
    context::Context,
    exit::Failure,
    settings::{Environment, Settings},
};

/// Runs the command that the arguments ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = Cli::grammar().try_get_matches_from(arguments);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Without a terminal or pipe to print to, the exit code has to do.
            _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            failure.code.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let settings = Settings::resolve(&cli.common, &Environment::current())?;
    match cli.command {
        Command::Mount(args) => mount::run(settings, &args),
        Command::Umount(args) => umount::run(&settings, &args),
        Command::Status(args) => status::run(&settings, &args),
        Command::Refresh(args) => refresh::run(&settings, &args),
        Command::List(args) => list::run(&Context::new(settings)?, &args),
        Command::Get(args) => get::run(&Context::new(settings)?, &args),
        Command::Cat(args) => cat::run(&Context::new(settings)?, &args),
        Command::Cache(command) => cache::run(&Context::new(settings)?, &command),
    }
}

/// Says why a command failed.
fn complain(failure: &Failure) {
    // A closed stderr is no reason to fail differently.
    _ = writeln!(std::io::stderr(), "{failure}");
}

/// Prints a result. A reader that has seen enough is no error.
fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// Prints a result that has names in it as they are.
fn print_bytes(text: &[u8]) {
    _ = std::io::stdout().write_all(text);
}
