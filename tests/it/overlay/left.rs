//! What a snapshot leaves in the overlay, and why: the rest is recorded, and nothing is lost.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::Writable;
use crate::support::succeed;

impl Writable {
    fn replace_folder(&self, name: &str, by: &str) {
        let place = self.path(name);
        fs::remove_dir_all(&place).unwrap();
        match by {
            "link" => symlink("elsewhere", &place).unwrap(),
            "pipe" => _ = succeed(Command::new("mkfifo").arg(&place)),
            _ => fs::write(&place, by).unwrap(),
        }
    }
}

#[test]
fn what_took_the_place_of_a_folder_and_is_not_chosen_stays() {
    for by in ["a file", "link", "pipe"] {
        let mut writable = Writable::new();
        writable.replace_folder("docs", by);
        writable.replace_folder("data", by);
        fs::write(writable.path("new.txt"), "new\n").unwrap();
        let commit = writable.snapshot(&["new.txt"]);
        assert_eq!(writable.touched(&commit), ["new.txt"], "{by}");
        let told = writable.changes();
        writable.remount();
        assert_eq!(writable.changes(), told, "{by}");
        for name in ["docs", "data"] {
            let place = writable.path(name);
            assert!(!fs::symlink_metadata(&place).unwrap().is_dir(), "{by}");
            if by == "a file" {
                assert_eq!(fs::read_to_string(place).unwrap(), by);
            }
        }
    }
}

#[test]
fn a_dry_run_counts_what_would_be_recorded_and_ends_as_the_snapshot_does() {
    let writable = Writable::new();
    let dry_run = || {
        let (code, said) = writable.run("snapshot", &["--dry-run"]);
        (code, said.lines().last().unwrap_or_default().to_owned())
    };
    assert_eq!(dry_run(), (Some(1), "would be recorded: none".to_owned()));
    fs::write(writable.path("data/x.dvc"), "x").unwrap();
    assert_eq!(dry_run(), (Some(1), "would be recorded: none".to_owned()));
    fs::write(writable.path("note"), "note").unwrap();
    assert_eq!(dry_run(), (Some(1), "would be recorded: 1 added (4 B)".to_owned()));
    fs::remove_file(writable.path("data/x.dvc")).unwrap();
    fs::create_dir_all(writable.path(".dvc/tmp")).unwrap();
    fs::write(writable.path(".dvc/tmp/lock"), "ignored").unwrap();
    assert_eq!(dry_run(), (Some(0), "would be recorded: 1 added (4 B)".to_owned()));
    writable.snapshot(&[]);
}
