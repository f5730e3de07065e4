//! Help texts.

use std::{collections::BTreeSet, fs, path::Path};

use insta::assert_snapshot;

use super::{commands, help};
use crate::{
    mount_helper::helper,
    support::{Sandbox, text},
};

/// What is not a command but has a help text, too.
const HELPER: &str = "mount.dvcfs";

/// The name of a command's help text.
fn name(command: &[String]) -> String {
    [&["help".to_owned()], command].concat().join("_")
}

/// Wherever a help text changes on purpose, `INSTA_UPDATE=always` writes it anew.
#[test]
fn every_help_text_is_as_it_was_read_over() {
    let sandbox = Sandbox::new();
    for command in commands(&sandbox) {
        assert_snapshot!(name(&command), help(&sandbox, &command));
    }
    assert_snapshot!(name(&[HELPER.into()]), text(&mut helper(&sandbox, &["--help"])));
}

#[test]
fn no_help_text_is_kept_of_a_command_that_is_gone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/snapshots");
    let kept: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        // Beside it may lie what a failed test would have it be.
        .filter(|name| name.ends_with(".snap"))
        .collect();
    let file = |command: Vec<String>| format!("it__cli__help__{}.snap", name(&command));
    let commands = commands(&Sandbox::new()).into_iter();
    let expected: BTreeSet<_> = commands.chain([vec![HELPER.into()]]).map(file).collect();
    assert_eq!(kept, expected);
}
