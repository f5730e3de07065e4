//! `dvcfs man`: manual pages, made from the grammar of the command line.

use std::{fs, io, process::ExitCode};

use clap::builder::Resettable;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    args::{Cli, ManArgs},
    exit::{Code, Failure},
    helper, print_bytes,
};
use crate::atomic;

pub(super) fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    // Its pages would say nothing that `--help` does not.
    let mut grammar = Cli::grammar().disable_help_subcommand(true);
    grammar.build();
    match &args.out {
        None if args.command == [helper::NAME] => {
            print_bytes(&helper_page(&grammar).map_err(|e| failed(&e))?);
        }
        None => print_bytes(&page(find(&grammar, &args.command)?).map_err(|e| failed(&e))?),
        Some(dir) => {
            let mut pages = pages(&grammar).map_err(|e| failed(&e))?;
            let of_helper = helper_page(&grammar).map_err(|e| failed(&e))?;
            pages.push((format!("{}.8", helper::NAME), of_helper));
            let write =
                |(name, text): (String, Vec<u8>)| atomic::write(&dir.join(name), &text, 0o644);
            let written =
                fs::create_dir_all(dir).and_then(|()| pages.into_iter().try_for_each(write));
            written.map_err(|error| {
                let message = format!("write manual pages into {}: {error}", dir.display());
                Failure::new(Code::Failed, message)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &io::Error) -> Failure {
    Failure::new(Code::Failed, format!("make a manual page: {error}"))
}

/// The command of that name, such as `cache gc`.
fn find<'a>(grammar: &'a clap::Command, names: &[String]) -> Result<&'a clap::Command, Failure> {
    let found = names.iter().try_fold(grammar, |command, name| command.find_subcommand(name));
    found.ok_or_else(|| {
        let message = format!("print a manual page: there is no command {:?}", names.join(" "));
        Failure::new(Code::Usage, message).hint("dvcfs help lists the commands")
    })
}

/// The pages of a command and of all below it, by their file names.
fn pages(command: &clap::Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = vec![(Man::new(command.clone()).get_filename(), page(command)?)];
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages.extend(self::pages(below)?);
    }
    Ok(pages)
}

fn page(command: &clap::Command) -> io::Result<Vec<u8>> {
    let notes = command.get_after_help().map(ToString::to_string);
    // What follows the help is laid out below; the library would run its lines together.
    let mut text = head(Man::new(command.clone().after_help(Resettable::Reset)))?;
    let mut rest = Roff::new();
    if let Some(notes) = notes {
        rest.control("SH", ["NOTES"]).control("nf", []);
        rest.text([roman(notes)]).control("fi", []);
    }
    exit_status(&mut rest, &Code::MEANINGS);
    text.extend(rest.to_roff().into_bytes());
    Ok(text)
}

/// The page of `mount.dvcfs`, with the options that can follow `-o`.
fn helper_page(grammar: &clap::Command) -> io::Result<Vec<u8>> {
    let mut text = head(Man::new(helper::grammar()).section("8"))?;
    let mut rest = Roff::new();
    rest.control("SH", ["MOUNT OPTIONS"]);
    for (name, value, help) in helper::described(grammar) {
        rest.control("TP", []).text([bold(name), roman(value)]).text([roman(help)]);
    }
    let taken = helper::taken();
    let said = format!("Taken and of no effect: {taken}, and all that begin with x- or X-.");
    rest.control("PP", []).text([roman(said)]);
    rest.control("SH", ["EXAMPLES"]).control("nf", []).text([roman(helper::EXAMPLES)]);
    rest.control("fi", []);
    exit_status(&mut rest, &Code::MEANINGS_OF_MOUNT);
    text.extend(rest.to_roff().into_bytes());
    Ok(text)
}

/// What every page begins with.
fn head(man: Man) -> io::Result<Vec<u8>> {
    let man = man.manual("dvcfs manual").source(concat!("dvcfs ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    man.render(&mut text)?;
    Ok(text)
}

fn exit_status(page: &mut Roff, meanings: &[(u8, &str)]) {
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in meanings {
        page.control("TP", []).text([bold(code.to_string())]).text([roman(*meaning)]);
    }
}
