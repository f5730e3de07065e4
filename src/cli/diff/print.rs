//! Text, Markdown and JSON, byte for byte as `dvc diff` prints them.

use std::io;

use serde::Serialize;
use serde_json::{
    ser::{Formatter, PrettyFormatter},
    value::RawValue,
};
use unicode_width::UnicodeWidthStr;

use super::report::{Change, Report};
use crate::{dvc::json::quote, path::escape};

/// How a report is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) with_hashes: bool,
    pub(super) is_terminal: bool,
}

/// A list of changes, its name and its colour.
type Section<'a> = (&'static str, &'static str, &'a [Change]);

fn sections(report: &Report) -> [Section<'_>; 4] {
    [
        ("added", "32", &report.added),
        ("deleted", "31", &report.deleted),
        ("renamed", "32", &report.renamed),
        ("modified", "33", &report.modified),
    ]
}

impl Output {
    /// Lists with headings, and how many files are in each.
    pub(super) fn text(self, report: &Report) -> Vec<u8> {
        let mut text = Vec::new();
        for (name, color, changes) in sections(report).into_iter().filter(|s| !s.2.is_empty()) {
            let heading = [&name[..1].to_uppercase(), &name[1..]].concat();
            let heading = if self.is_terminal {
                format!("\x1b[{color}m{heading}\x1b[0m:\n")
            } else {
                format!("{heading}:\n")
            };
            text.extend(heading.into_bytes());
            for change in changes {
                let hash = self.with_hashes.then(|| short_hash(change)).flatten();
                let hash = hash.map_or(String::new(), |hash| hash + "  ");
                text.extend([b"    ", hash.as_bytes(), &self.path(change), b"\n"].concat());
            }
            text.push(b'\n');
        }
        let counts = report.counts().into_iter().filter(|(_, count)| *count > 0);
        let counts: Vec<_> = counts.map(|(name, count)| format!("{count} {name}")).collect();
        if !counts.is_empty() {
            text.extend(format!("files summary: {}\n", counts.join(", ")).into_bytes());
        }
        text
    }

    /// The path or paths of a change; on a terminal nothing in them can steer that.
    fn path(self, change: &Change) -> Vec<u8> {
        let path = change.shown();
        if self.is_terminal { escape(&path).into_bytes() } else { path }
    }

    /// A table.
    pub(super) fn markdown(self, report: &Report) -> Vec<u8> {
        let row = |name: &str, hash: &str, path: Vec<u8>| {
            let hash = self.with_hashes.then(|| hash.as_bytes().to_vec());
            [Some(name.as_bytes().to_vec()), hash, Some(path)].into_iter().flatten().collect()
        };
        let mut rows: Vec<Vec<Vec<u8>>> = vec![row("Status", "Hash", b"Path".to_vec())];
        for (name, _, changes) in sections(report) {
            rows.extend(changes.iter().map(|change| {
                row(name, &short_hash(change).unwrap_or_default(), self.path(change))
            }));
        }
        table(&rows)
    }

    /// Objects by what happened.
    pub(super) fn json(self, report: &Report) -> Vec<u8> {
        if report.is_empty() {
            return b"{}\n".to_vec();
        }
        let lines = |changes: &[Change]| changes.iter().map(|c| self.line(c)).collect();
        let lists = Lists {
            added: lines(&report.added),
            deleted: lines(&report.deleted),
            modified: lines(&report.modified),
            renamed: lines(&report.renamed),
        };
        let mut text = Vec::new();
        let written = if self.is_terminal {
            let pretty = PrettyFormatter::with_indent(b"  ");
            lists.serialize(&mut serde_json::Serializer::with_formatter(&mut text, pretty))
        } else {
            lists.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Spaced))
        };
        written.expect("texts in a vector are written");
        text.push(b'\n');
        text
    }

    fn line(self, change: &Change) -> Line {
        let path = |path: &[u8]| RawValue::from_string(quote(path)).expect("a quoted text is JSON");
        let hash = |place: &Option<super::report::Place>| place.as_ref()?.hash();
        let (old, new) = (hash(&change.old), hash(&change.new));
        let (path, hash) = match (&change.old, &change.new) {
            (Some(before), Some(after)) if before.path != after.path => {
                let (before, after) = (path(&before.shown()), path(&after.shown()));
                (OneOrTwo::Two { old: before, new: after }, OneOrTwo::One(old))
            }
            (Some(before), Some(_)) => {
                (OneOrTwo::One(path(&before.shown())), OneOrTwo::Two { old, new })
            }
            _ => (OneOrTwo::One(path(&change.shown())), OneOrTwo::One(old.or(new))),
        };
        Line { path, hash: self.with_hashes.then_some(hash) }
    }
}

#[derive(Serialize)]
struct Lists {
    added: Vec<Line>,
    deleted: Vec<Line>,
    modified: Vec<Line>,
    renamed: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    path: OneOrTwo<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<OneOrTwo<Option<String>>>,
}

/// What both revisions have in common, or what each has.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrTwo<T> {
    One(T),
    Two { old: T, new: T },
}

/// Blanks where Python puts them.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        to.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        to.write_all(b": ")
    }
}

/// The first eight digits of a hash, or of both.
fn short_hash(change: &Change) -> Option<String> {
    let short =
        |place: &Option<super::report::Place>| Some(place.as_ref()?.hash()?[..8].to_owned());
    let (old, new) = (short(&change.old), short(&change.new));
    match (&change.old, &change.new) {
        (Some(before), Some(after)) if before.path == after.path => {
            let is_known = old.is_some() || new.is_some();
            let both = [old, new].map(|hash| hash.unwrap_or_else(|| "-".to_owned()));
            is_known.then(|| both.join(".."))
        }
        _ => old.or(new),
    }
}

/// A table as GitHub reads it, each column as wide as its widest cell.
fn table(rows: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let width = |cell: &Vec<u8>| String::from_utf8_lossy(cell).width();
    let columns = rows.first().map_or(0, Vec::len);
    // Headings get two blanks more than they need, as in DVC.
    let widths: Vec<_> = (0..columns)
        .map(|at| {
            let cells = rows.iter().skip(1).map(|row| width(&row[at])).max().unwrap_or(0);
            cells.max(width(&rows[0][at]) + 2)
        })
        .collect();
    let line = |row: &Vec<Vec<u8>>| {
        let cells = row.iter().zip(&widths).map(|(cell, wide)| {
            let padding = " ".repeat(wide.saturating_sub(width(cell)));
            [b"| ", &cell[..], padding.as_bytes(), b" "].concat()
        });
        [cells.collect::<Vec<_>>().concat(), b"|\n".to_vec()].concat()
    };
    let rule: Vec<_> = widths.iter().map(|wide| "-".repeat(wide + 2)).collect();
    let mut text = rows.first().map(line).unwrap_or_default();
    text.extend(format!("|{}|\n", rule.join("|")).into_bytes());
    text.extend(rows.iter().skip(1).flat_map(line));
    text.push(b'\n');
    text
}
