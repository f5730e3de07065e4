//! The commit of a snapshot: whose it is, how it is signed, where its message comes from.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::Writable;
use crate::support::{Terminal, output, succeed, text};

impl Writable {
    /// A program for git or a shell to run.
    fn script(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.sandbox.path(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Has commits be signed by a program that does something else as well.
    fn sign_by(&self, lines: &str) {
        let signature = "-----BEGIN PGP SIGNATURE-----\n\nsigned\n-----END PGP SIGNATURE-----";
        let lines = format!(
            "cat > /dev/null\n{lines}\nprintf '\\n[GNUPG:] SIG_CREATED x\\n' >&2\ncat <<'END'\n{signature}\nEND"
        );
        let program = self.script("gpg", &lines);
        for (key, value) in [("commit.gpgsign", "true"), ("gpg.program", program.to_str().unwrap())]
        {
            let mut git = self.sandbox.git(self.registry.repository());
            succeed(git.args(["config", key, value]));
        }
    }

    fn message_of(&self, commit: &str) -> String {
        let mut git = self.sandbox.git(self.registry.repository());
        text(git.args(["log", "-1", "--format=%B", commit]))
    }

    pub(super) fn snapshot_ref(&self) -> String {
        let mut git = self.sandbox.git(self.registry.repository());
        text(git.args(["for-each-ref", "--format=%(objectname)", "refs/dvcfs/snapshots"]))
    }
}

#[test]
fn a_commit_is_signed_where_the_user_signs() {
    let writable = Writable::new();
    writable.sign_by("");
    fs::write(writable.path("data/new"), "x").unwrap();
    let commit = writable.snapshot(&[]);
    let mut git = writable.sandbox.git(writable.registry.repository());
    let raw = text(git.args(["cat-file", "commit", &commit]));
    assert!(raw.contains("gpgsig -----BEGIN PGP SIGNATURE-----"), "{raw}");
}

#[test]
fn what_is_written_while_the_commit_is_made_is_not_lost() {
    let writable = Writable::new();
    let file = writable.path("data/new");
    fs::write(&file, "first").unwrap();
    let reference = writable.sandbox.path("reference");
    fs::write(&reference, "").unwrap();
    // As many bytes as before, with the time from before.
    writable.sign_by(&format!(
        "touch -r {file} {reference}; printf other > {file}; touch -r {reference} {file}",
        file = file.display(),
        reference = reference.display(),
    ));
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(9), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "other");
    assert_eq!(writable.changes(), ["added data/new manifest data.dvc"]);
    assert_eq!(writable.snapshot_ref(), "");
    let mut git = writable.sandbox.git(writable.registry.repository());
    succeed(git.args(["config", "commit.gpgsign", "false"]));
    writable.snapshot(&[]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "other");
}

#[test]
fn what_is_replaced_while_the_commit_is_made_is_in_the_next_try() {
    let writable = Writable::new();
    fs::write(writable.path("data/new"), "first").unwrap();
    fs::write(writable.path("draft"), "other").unwrap();
    let (data, draft) = (writable.path("data/new"), writable.path("draft"));
    writable.sign_by(&format!(
        "[ ! -e {draft} ] || mv {draft} {data}",
        draft = draft.display(),
        data = data.display()
    ));
    let commit = writable.snapshot(&[]);
    assert_eq!(fs::read_to_string(&data).unwrap(), "other");
    assert_eq!(writable.changes(), Vec::<String>::new());
    assert_eq!(
        (writable.snapshot_ref(), writable.message_of(&commit)),
        (commit.clone(), "Change things".to_owned())
    );
    assert!(!writable.tree_of(&commit).contains_key("draft"));
}

#[test]
fn what_is_replaced_at_every_try_stays_a_change() {
    let writable = Writable::new();
    fs::write(writable.path("data/new"), "first").unwrap();
    let (data, away) = (writable.path("data/new"), writable.path("data/away"));
    let tries = writable.sandbox.path("tries");
    writable.sign_by(&format!(
        "mv {data} {away}; mv {away} {data}; echo try >> {tries}",
        data = data.display(),
        away = away.display(),
        tries = tries.display(),
    ));
    let (code, said) = writable.run("snapshot", &["-m", "x"]);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("was changed meanwhile"), "{said}");
    assert_eq!(fs::read_to_string(&tries).unwrap().lines().count(), 3);
    assert_eq!(writable.changes(), ["added data/new manifest data.dvc"]);
    assert_eq!(writable.snapshot_ref(), "");
}

#[test]
fn what_is_opened_while_the_commit_is_made_keeps_its_bytes() {
    let writable = Writable::new();
    let file = writable.path("data/new");
    fs::write(&file, "first").unwrap();
    let held = writable.sandbox.path("held");
    // Reads until the snapshot is there; its end is the end of the sleep.
    writable.sign_by(&format!(
        "(exec 3< {file}; echo open > {held}; sleep 2; cat <&3 > {held}) > /dev/null 2>&1 &\n\
         while [ ! -s {held} ]; do :; done",
        file = file.display(),
        held = held.display(),
    ));
    writable.snapshot(&[]);
    crate::support::eventually("the reader has read", || {
        fs::read_to_string(&held).unwrap() == "first"
    });
    assert_eq!(fs::read_to_string(&file).unwrap(), "first");
    let writes = fs::File::options().append(true).open(&file);
    std::io::Write::write_all(&mut writes.unwrap(), b" second").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "first second");
}

#[test]
fn without_a_name_there_is_no_commit() {
    let writable = Writable::new();
    fs::write(writable.path("data/new"), "x").unwrap();
    let mut git = writable.sandbox.git(writable.registry.repository());
    succeed(git.args(["config", "user.useConfigOnly", "true"]));
    let mut snapshot = writable.sandbox.dvcfs(["snapshot", "-m", "x"]);
    for who in ["AUTHOR", "COMMITTER"] {
        for what in ["NAME", "EMAIL"] {
            snapshot.env_remove(format!("GIT_{who}_{what}"));
        }
    }
    let output = output(snapshot.arg(writable.mounted().dir()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("identity") && said.contains("git config --global user.email"), "{said}");
    assert_eq!(writable.changes(), ["added data/new manifest data.dvc"]);
    assert_eq!(writable.snapshot_ref(), "");
}

#[test]
fn an_editor_asks_for_the_message_on_a_terminal() {
    let writable = Writable::new();
    fs::write(writable.path("data/new"), "x").unwrap();
    let editor =
        writable.script("editor", "grep -q '^#.*data/new' \"$1\" && sed -i '1i By hand\\n' \"$1\"");
    let dir = writable.mounted().dir();
    let line = format!("EDITOR={} \"$DVCFS\" snapshot {}", editor.display(), dir.display());
    let (code, shown) = Terminal::run(&writable.sandbox, &line).end();
    assert_eq!(code, 0, "{shown}");
    assert_eq!(writable.message_of(&writable.snapshot_ref()), "By hand\n\n".trim_end());

    fs::write(writable.path("data/more"), "x").unwrap();
    let line = format!("EDITOR=true \"$DVCFS\" snapshot {}", dir.display());
    let (code, shown) = Terminal::run(&writable.sandbox, &line).end();
    assert_eq!(code, 2, "{shown}");
    assert!(shown.contains("the message is empty"), "{shown}");
    let line = format!("EDITOR=false \"$DVCFS\" snapshot {}", dir.display());
    let (code, shown) = Terminal::run(&writable.sandbox, &line).end();
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("the editor failed"), "{shown}");
    let (code, said) = writable.run("snapshot", &[]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("give one with -m"), "{said}");
    assert_eq!(writable.changes(), ["added data/more manifest data.dvc"]);
}
