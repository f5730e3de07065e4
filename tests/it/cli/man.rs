//! Manual pages.

use std::{fs, path::Path};

use insta::assert_snapshot;

use super::{commands, said};
use crate::support::{Sandbox, succeed};

#[test]
fn every_command_has_a_page_that_is_set_without_a_complaint() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("man");
    succeed(sandbox.dvcfs(["man", "--out"]).arg(&folder));
    let commands = commands(&sandbox);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), commands.len() + 1);
    for command in commands {
        let name = [&["dvcfs".to_owned()], &command[..]].concat().join("-");
        let page = folder.join(format!("{name}.1"));
        let set = set(&sandbox, &page);
        for part in ["NAME", "SYNOPSIS", "--cache-dir", "EXIT STATUS", &format!("{name}(1)")] {
            assert!(set.contains(part), "{name} lacks {part}:\n{set}");
        }
        let printed = succeed(sandbox.dvcfs(["man"]).args(&command));
        assert!(printed == fs::read(&page).unwrap(), "{name} is printed otherwise");
    }
}

/// A page as a terminal shows it.
fn set(sandbox: &Sandbox, page: &Path) -> String {
    let mut groff = sandbox.tool("groff");
    groff.args(["-man", "-ww", "-Tutf8", "-P-cbou"]).arg(page);
    let output = crate::support::output(&mut groff);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{}", page.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_page_of_mount_dvcfs_names_every_option_and_the_codes_of_mount_8() {
    let sandbox = Sandbox::new();
    let page = sandbox.path("mount.dvcfs.8");
    fs::write(&page, succeed(&mut sandbox.dvcfs(["man", "mount.dvcfs"]))).unwrap();
    let set = set(&sandbox, &page);
    let parts = ["mount.dvcfs(8)", "rev=REV", "allow-other", "cache-size=SIZE", "_netdev", "32"];
    for part in parts {
        assert!(set.contains(part), "no {part} in:\n{set}");
    }
    assert!(!set.contains("foreground"), "{set}");
}

#[test]
fn a_page_that_there_is_not_and_a_folder_that_cannot_be_made() {
    let sandbox = Sandbox::new();
    assert_snapshot!(said(&sandbox, &mut sandbox.dvcfs(["man", "cache", "no"])), @r#"
    exit 2
    error: print a manual page: there is no command "cache no"
    hint: dvcfs help lists the commands
    "#);
    fs::write(sandbox.path("file"), "").unwrap();
    let mut command = sandbox.dvcfs(["man", "--out"]);
    assert_snapshot!(said(&sandbox, command.arg(sandbox.path("file/man"))), @r"
    exit 1
    error: write manual pages into [SANDBOX]/file/man: Not a directory (os error 20)
    ");
}
