//! The command line: arguments, settings, messages, exit codes; one file per command.

mod args;
mod background;
mod cache;
mod cat;
mod changes;
mod completions;
mod config;
mod context;
mod control;
mod diff;
mod discard;
mod doctor;
mod exit;
mod get;
mod helper;
mod list;
mod log;
mod man;
mod memory;
mod mount;
mod mounts;
mod overlay;
mod prefetch;
mod progress;
mod push;
mod rebase;
mod refresh;
mod revs;
mod settings;
mod snapshot;
mod status;
mod trust;
mod umount;
mod unmounted;
mod unpushed;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::{ArgMatches, FromArgMatches};

use self::{
    args::{Cli, Command},
    config::Given,
    context::Context,
    exit::Failure,
    settings::{Environment, Settings},
};
use crate::steps;

/// Runs the command that the arguments ask for; the first is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    if arguments.first().is_some_and(|program| helper::is_called_for(program)) {
        return helper::run(arguments);
    }
    let matches = Cli::grammar().try_get_matches_from(arguments);
    let parsed =
        matches.and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (cli, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Without a terminal or pipe to print to, the exit code has to do.
            _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match dispatch(cli, &matches) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            failure.code.into()
        }
    }
}

fn dispatch(cli: Cli, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let Cli { common, command } = cli;
    let environment = Environment::current();
    if let Some(step) = environment.get("DVCFS_TEST_END_AT") {
        steps::end_at(&step.to_string_lossy());
    }
    // Some commands must work whatever the settings are.
    let settings = || Settings::resolve(&common, &environment);
    let context = || Context::new(settings()?);
    match command {
        Command::Mount(args) => mount::run(settings()?, &args),
        Command::Umount(args) => umount::run(&settings()?, &args),
        Command::Status(args) => status::run(&settings()?, &args),
        Command::Snapshot(args) => snapshot::run(&settings()?, &args),
        Command::Push(args) => push::run(settings()?, &args),
        Command::Discard(args) => discard::run(&settings()?, &args),
        Command::Refresh(args) => refresh::run(&settings()?, &args),
        Command::List(args) => list::run(&context()?, &args),
        Command::Revs(args) => revs::run(&Context::for_history(settings()?)?, &args),
        Command::Diff(args) => diff::run(&context()?, &args),
        Command::Get(args) => get::run(&context()?, &args),
        Command::Cat(args) => cat::run(&context()?, &args),
        Command::Prefetch(args) => prefetch::run(settings()?, &args),
        Command::Cache(command) => cache::run(&context()?, &command),
        Command::Config(command) => {
            let given = Given { common: &common, matches, environment: &environment };
            config::run(settings()?, &given, &command)
        }
        Command::Doctor(args) => doctor::run(&common, &environment, &args),
        Command::Completions(args) => Ok(completions::run(&args)),
        Command::Man(args) => man::run(&args),
    }
}

/// Says why a command failed.
fn complain(failure: &Failure) {
    // A closed stderr is no reason to fail differently.
    _ = writeln!(std::io::stderr(), "{failure}");
}

/// So many things: `1 file`, but `0 files` and `2 files`.
fn counted(count: u64, thing: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{ending}")
}

/// Prints a result. A reader that has seen enough is no error.
fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// Prints a result that has names in it as they are.
fn print_bytes(text: &[u8]) {
    _ = std::io::stdout().write_all(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        let said = [0, 1, 2].map(|count| counted(count, "file"));
        assert_eq!(said, ["0 files", "1 file", "2 files"]);
    }
}
