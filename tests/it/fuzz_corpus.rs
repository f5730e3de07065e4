//! Replays the corpus of every fuzz target.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/entries.rs"]
mod entries;

fn replay(target: &str, entry: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for file in fs::read_dir(&folder).unwrap() {
        entry(&fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no corpus in {}", folder.display());
}

#[test]
fn dotfile() {
    replay("dotfile", entries::dotfile);
}

#[test]
fn pipeline() {
    replay("pipeline", entries::pipeline);
}

#[test]
fn manifest() {
    replay("manifest", entries::manifest);
}

#[test]
fn config() {
    replay("config", entries::config);
}

#[test]
fn ignore() {
    replay("ignore", entries::ignore);
}

#[test]
fn checksum() {
    replay("checksum", entries::checksum);
}

#[test]
fn location() {
    replay("location", entries::location);
}

#[test]
fn segment() {
    replay("segment", entries::segment);
}

#[test]
fn document() {
    replay("document", entries::document);
}

#[test]
fn record() {
    replay("record", entries::record);
}

#[test]
fn manifest_edit() {
    replay("manifest_edit", entries::manifest_edit);
}

#[test]
fn gitignore() {
    replay("gitignore", entries::gitignore);
}
