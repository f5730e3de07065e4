//! Running programs.

use std::process::{Command, Output, Stdio};

/// Runs a program to its end, with nothing to read.
pub(crate) fn output(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a program that must succeed; gives what it printed.
pub(crate) fn succeed(command: &mut Command) -> Vec<u8> {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output.stdout
}

/// Runs a program that must succeed; gives the text it printed, without the last newline.
pub(crate) fn text(command: &mut Command) -> String {
    String::from_utf8(succeed(command)).unwrap().trim_end().to_owned()
}
