//! A YAML text that is changed and written back just as DVC would do it.
//!
//! DVC rewrites its files through the Python library ruamel.yaml: comments, key order and flow
//! style stay, while quotes, indents and line width become that library's own. For a later
//! `dvc add` to change no byte, the same must happen here, so this is that library's round trip,
//! from its scanner to its emitter, for the part of YAML that occurs in `.dvc` files. Which comment
//! belongs to which value hangs on the order in which tokens are looked at, so [`scanner`] and
//! [`parser`] keep to the original's steps.
//!
//! What is left out (anchors, tags, explicit keys, numbers in odd notations, which all would need
//! a faithful copy of Python's types) is an error that says so, never a wrong text.

mod chars;
mod emitter;
mod kind;
mod node;
mod parser;
mod scalars;
mod scanner;
mod style;
mod token;
mod writers;

pub use kind::Kind;
pub use node::{List, Map, Scalar, Value};

/// Why a text cannot be changed here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The text breaks the rules of YAML.
    #[error("line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: &'static str,
    },
    /// The text is sound but uses something that is not rewritten here; `dvc` itself can.
    #[error("line {line}: dvcfs does not rewrite {what}")]
    Unsupported {
        /// The line, from 1.
        line: usize,
        /// What it is.
        what: &'static str,
    },
}

/// Reads the single document of a text, with its comments.
///
/// The text is expected to have passed [`yaml::parse`](crate::dvc::yaml::parse), which has the
/// limits on size, nesting and expansion.
pub fn parse(text: &str) -> Result<Value, DocumentError> {
    parser::parse(text)
}

/// Writes a document as DVC does, with a newline at its end.
pub fn compose(root: &Value) -> String {
    emitter::emit(root)
}

#[cfg(test)]
mod tests;
