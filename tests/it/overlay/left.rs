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
