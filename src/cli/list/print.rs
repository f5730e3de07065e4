//! Lines, tables, trees and JSON, byte for byte as DVC prints them.
//!
//! DVC paints names always and takes the colours out when they do not go to a terminal. So do we,
//! because the order matters: a table loses blanks around a name unless it is painted.

use std::fmt::Write;

use super::{
    Entry,
    colors::{self, Colors},
};
use crate::{dvc::json::quote, path::escape};

/// Which columns a table has beside the names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub(super) size: bool,
    pub(super) hash: bool,
}

/// How entries are printed for people.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) colors: Colors,
    pub(super) columns: Columns,
    pub(super) is_terminal: bool,
}

impl Output {
    /// A name a line, or a table.
    pub(super) fn list(&self, entries: &[Entry]) -> Vec<u8> {
        let names: Vec<_> = entries.iter().map(|entry| self.name(entry)).collect();
        if self.columns.size || self.columns.hash {
            self.table(entries, &names, true)
        } else {
            self.finish(&names)
        }
    }

    /// A tree from its top, with the columns before it.
    pub(super) fn tree(&self, entries: &[Entry]) -> Vec<u8> {
        let names = entries.iter().zip(branches(entries));
        let names = names.map(|(entry, branch)| [branch.into_bytes(), self.name(entry)].concat());
        self.table(entries, &names.collect::<Vec<_>>(), false)
    }

    /// A painted name; on a terminal nothing in it can steer that.
    fn name(&self, entry: &Entry) -> Vec<u8> {
        let name =
            if self.is_terminal { escape(&entry.name).into_bytes() } else { entry.name.clone() };
        self.colors.paint(entry, name)
    }

    fn table(&self, entries: &[Entry], names: &[Vec<u8>], trims: bool) -> Vec<u8> {
        let sizes: Vec<String> = entries.iter().map(size_cell).collect();
        let width = sizes.iter().map(String::len).max().unwrap_or(0);
        let hashes = entries.iter().filter_map(|entry| entry.hash.as_ref());
        let hash_width = hashes.map(String::len).max().unwrap_or(1);
        let splits = names.iter().any(|name| name.iter().any(|b| matches!(b, b'\r' | b'\n')));
        let mut rows = Vec::with_capacity(entries.len());
        for ((entry, size), name) in entries.iter().zip(&sizes).zip(names) {
            let name = if trims { trim(name) } else { name };
            let lines = if splits { lines(name) } else { vec![name] };
            for (at, line) in lines.into_iter().enumerate() {
                let mut row = String::new();
                let (size, hash) = match at {
                    0 => (size.as_str(), entry.hash.as_deref().unwrap_or("-")),
                    _ => ("", ""),
                };
                if self.columns.size {
                    // Writing to a String cannot fail.
                    _ = write!(row, "{size:>width$}  ");
                }
                if self.columns.hash {
                    _ = write!(row, "{hash:<hash_width$}  ");
                }
                rows.push(trim_end(&[row.as_bytes(), line].concat()).to_vec());
            }
        }
        self.finish(&rows)
    }

    fn finish(&self, lines: &[Vec<u8>]) -> Vec<u8> {
        if lines.is_empty() {
            return Vec::new();
        }
        let mut text = lines.join(&b'\n');
        text.push(b'\n');
        if self.is_terminal { text } else { colors::strip(&text) }
    }
}

/// The lines drawn before each entry of a tree, which are in the order of a walk.
fn branches(entries: &[Entry]) -> Vec<String> {
    // From the end, whether something follows at each depth is known when an entry is reached.
    let mut follows: Vec<bool> = Vec::new();
    let mut branches: Vec<String> = entries
        .iter()
        .rev()
        .map(|entry| {
            follows.resize(entry.depth + 1, false);
            let has_next = std::mem::replace(&mut follows[entry.depth], true);
            let mut branch = String::new();
            for follows in follows.iter().take(entry.depth).skip(1) {
                branch.push_str(if *follows { "│   " } else { "    " });
            }
            if entry.depth > 0 {
                branch.push_str(if has_next { "├── " } else { "└── " });
            }
            branch
        })
        .collect();
    branches.reverse();
    branches
}

fn size_cell(entry: &Entry) -> String {
    match entry.size {
        None => String::new(),
        Some(0) if entry.is_folder => String::new(),
        Some(size) => natural_size(size),
    }
}

/// A size in steps of 1024, in at most four characters and the unit.
fn natural_size(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut number = bytes as f64;
    for unit in ["", "k", "M", "G", "T", "P"] {
        match number {
            ..9.995 => return format!("{number:.2}{unit}"),
            ..99.95 => return format!("{number:.1}{unit}"),
            ..999.5 => return format!("{number:.0}{unit}"),
            _ => number /= 1024.0,
        }
    }
    format!("{number:.2}E")
}

/// What Python takes for blank.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn trim(name: &[u8]) -> &[u8] {
    std::str::from_utf8(name).map_or(name, |name| name.trim_matches(is_blank).as_bytes())
}

fn trim_end(row: &[u8]) -> &[u8] {
    std::str::from_utf8(row).map_or(row, |row| row.trim_end_matches(is_blank).as_bytes())
}

/// The lines of a name, as DVC's tables break it: at everything Python breaks at, but into no more
/// lines than `\r` and `\n` make. At least one, which may be empty.
fn lines(name: &[u8]) -> Vec<&[u8]> {
    let Ok(text) = std::str::from_utf8(name) else { return vec![name] };
    let is_break = |c| {
        matches!(
            c,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let count = text.split(['\r', '\n']).count();
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_break) {
        lines.push(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        let one = rest.chars().next().map_or(0, char::len_utf8);
        rest = rest.strip_prefix("\r\n").unwrap_or(&rest[one..]);
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest.as_bytes());
    }
    lines.truncate(count);
    lines
}

/// A list of objects, on one line or, for people, on many.
pub(super) fn json(entries: &[Entry], is_indented: bool) -> Vec<u8> {
    if entries.is_empty() {
        return b"[]\n".to_vec();
    }
    let [start, comma, end, outer_start, outer_comma, outer_end] = if is_indented {
        ["{\n    ", ",\n    ", "\n  }", "[\n  ", ",\n  ", "\n]\n"]
    } else {
        ["{", ", ", "}", "[", ", ", "]\n"]
    };
    let objects: Vec<_> = entries
        .iter()
        .map(|entry| {
            let size = entry.size.map_or("null".to_owned(), |size| size.to_string());
            let hash = entry.hash.as_ref().map_or("null".to_owned(), |hash| format!("\"{hash}\""));
            let fields = [
                format!("\"isout\": {}", entry.is_out),
                format!("\"isdir\": {}", entry.is_folder),
                format!("\"isexec\": {}", entry.is_exec),
                format!("\"size\": {size}"),
                format!("\"md5\": {hash}"),
                format!("\"path\": {}", quote(&entry.name)),
            ];
            format!("{start}{}{end}", fields.join(comma))
        })
        .collect();
    format!("{outer_start}{}{outer_end}", objects.join(outer_comma)).into_bytes()
}
