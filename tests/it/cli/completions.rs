//! Completions, in the shell that every system has.

use insta::assert_snapshot;

use super::said;
use crate::support::{Sandbox, succeed, text};

/// What bash completes the last of some words with; a blank at the end begins a new one.
fn completed(sandbox: &Sandbox, words: &str) -> Vec<String> {
    const SCRIPT: &str = r#"
        source <("$PROGRAM" completions bash) || exit
        complete -p dvcfs > /dev/null || exit
        read -ra COMP_WORDS <<< "$WORDS"
        if [[ $WORDS == *' ' ]]; then COMP_WORDS+=(''); fi
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _dvcfs dvcfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = sandbox.tool("bash");
    bash.args(["--norc", "-c", SCRIPT]).env("WORDS", words);
    let replies = text(bash.env("PROGRAM", env!("CARGO_BIN_EXE_dvcfs")));
    replies.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let sandbox = Sandbox::new();
    assert_eq!(completed(&sandbox, "dvcfs sta"), ["status"]);
    assert_eq!(completed(&sandbox, "dvcfs cache g"), ["gc"]);
    assert_eq!(completed(&sandbox, "dvcfs list --show"), ["--show-hash"]);
    assert_eq!(completed(&sandbox, "dvcfs mount --verify "), ["stream", "strict"]);
    assert!(completed(&sandbox, "dvcfs cache ").contains(&"check".to_owned()));
}

#[test]
fn every_shell_has_completions_and_no_other_program() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = succeed(&mut sandbox.dvcfs(["completions", shell]));
        assert!(String::from_utf8(script).unwrap().contains("umount"), "{shell}");
    }
    assert_snapshot!(said(&sandbox, &mut sandbox.dvcfs(["completions", "tcsh"])), @r"
    exit 2
    error: invalid value 'tcsh' for '<SHELL>'
      [possible values: bash, elvish, fish, powershell, zsh]

      tip: a similar value exists: 'zsh'

    For more information, try '--help'.
    ");
}

#[test]
fn settings_that_make_no_sense_do_not_matter() {
    let sandbox = Sandbox::new();
    let settings = sandbox.path("settings.toml");
    std::fs::write(&settings, "nonsense").unwrap();
    for command in [&["completions", "bash"][..], &["man"]] {
        succeed(sandbox.dvcfs(command).arg("--config").arg(&settings));
    }
}
