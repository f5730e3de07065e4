//! Reading of every format DVC writes: bytes to values, no disk, no network.
//!
//! All of it may come from strangers. A file that cannot be read at all is an error of that file;
//! one entry that cannot be used costs only itself and is reported as a [`BadEntry`]; nothing
//! panics, recurses without bound or grows past a limit that is a constant here.

pub mod checksum;
pub mod config;
pub mod document;
pub mod dotfile;
pub mod gitignore;
pub mod ignore;
pub mod json;
pub mod lockfile;
pub mod manifest;
pub(crate) mod md5;
pub mod output;
pub mod pipeline;
pub mod record;
pub mod template;
pub mod yaml;

mod place;
mod value;
mod vars;

use crate::path::{PathError, escape};

/// Why a whole file of DVC's cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes are no UTF-8, which DVC demands of its files.
    #[error("not valid UTF-8 (at byte {offset})")]
    NotUtf8 {
        /// Where the first wrong byte is.
        offset: usize,
    },
    /// Git left its conflict markers in the file.
    #[error("unresolved merge conflict (markers at line {line})")]
    Conflict {
        /// The line of the first marker, from 1.
        line: usize,
    },
    /// The text breaks the rules of its language.
    #[error("line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// One mapping has the same key twice.
    #[error("line {line}: key {key:?} appears twice")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The line of its second use, from 1.
        line: usize,
    },
    /// The file, its nesting or what its aliases expand to is past a limit.
    #[error("too large or too deeply nested: {0}")]
    TooLarge(&'static str),
    /// Sound syntax, but not what this file must hold.
    #[error("{0}")]
    Shape(&'static str),
}

/// What one file of DVC's says about the tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The usable outputs, in the order of the file; two may have the same path.
    pub outputs: Vec<output::Output>,
    /// The entries that are no part of the tree, each with the reason.
    pub bad: Vec<BadEntry>,
}

/// One entry that cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEntry {
    /// What the file calls it, safe to print and cut to a sensible length.
    pub what: String,
    /// Why it is left out.
    pub why: Flaw,
}

impl BadEntry {
    fn new(what: &[u8], why: impl Into<Flaw>) -> Self {
        const SHOWN: usize = 200;
        Self { what: escape(&what[..what.len().min(SHOWN)]), why: why.into() }
    }
}

/// Why one entry is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A URL, an absolute path, or a path that leaves the project: DVC tracks such data outside
    /// the tree, so that this is no fault.
    #[error("lies outside the project, so it is not part of the tree")]
    External,
    /// The path is `.git` or `.dvc`, or passes through one.
    #[error("leads into .git or .dvc")]
    Reserved,
    /// The path names a DVC file, which cannot be an output.
    #[error("a DVC file cannot be an output")]
    DvcFile,
    /// The path is longer than Linux can open.
    #[error("path longer than 4096 bytes")]
    TooLong,
    /// A component of the path is not a usable name.
    #[error(transparent)]
    Name(#[from] PathError),
    /// The entry has another form than DVC writes.
    #[error("{0}")]
    Shape(&'static str),
    /// A `${...}` of a pipeline cannot be worked out.
    #[error(transparent)]
    Template(#[from] template::TemplateError),
}
