//! What the program says of itself and of registries: every help text, manual pages, completions,
//! settings, revisions, diagnoses.

mod cache;
mod completions;
mod config;
mod doctor;
mod get;
mod help;
mod man;
mod prefetch;
mod progress;
mod revs;

use std::process::{Command, Output};

use crate::{
    bad_input::without_places,
    support::{Sandbox, output, text},
};

/// Every command by its words, the program itself first; taken from the help texts.
fn commands(sandbox: &Sandbox) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut at = 0;
    while let Some(command) = commands.get(at).cloned() {
        let help = help(sandbox, &command);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
            line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()
        });
        let names = names.filter(|name| *name != "help");
        commands.extend(names.map(|name| [&command[..], &[name.to_owned()]].concat()));
        at += 1;
    }
    commands
}

/// The help text of a command, as wide as where there is no terminal.
fn help(sandbox: &Sandbox, command: &[String]) -> String {
    text(sandbox.dvcfs(command).arg("--help"))
}

/// The exit code of a program and what it said, stderr last; what differs from run to run is
/// replaced.
fn said(sandbox: &Sandbox, command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    let texts = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
    let said = format!("exit {}\n{}", status.code().unwrap(), texts.concat());
    without_places(sandbox, &said)
}
