//! What the scanner finds in a text, comments included.

use super::chars::Mark;
use super::node::{Comment, ScalarStyle};

/// The comments of a token, and then of the value it becomes.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    /// What follows on the same line, with the comment lines and blank lines below it.
    pub(super) post: Option<Comment>,
    /// What stands before it.
    pub(super) pre: Option<Vec<Comment>>,
    /// What stands after the last value of a collection.
    pub(super) end: Option<Vec<Comment>>,
    /// Whether `post` was written behind the `:` of a value that begins on a later line. Such
    /// slots have no place for `end`.
    pub(super) is_of_key: bool,
}

#[derive(Debug, Clone)]
pub(super) enum TokenKind {
    StreamStart,
    StreamEnd,
    DocumentStart,
    DocumentEnd,
    BlockListStart,
    BlockMapStart,
    BlockEnd,
    FlowListStart,
    FlowListEnd,
    FlowMapStart,
    FlowMapEnd,
    FlowEntry,
    BlockEntry,
    Key,
    Value,
    Scalar {
        text: String,
        is_plain: bool,
        style: ScalarStyle,
        /// The comment behind the `|` or `>` of a block scalar.
        header: String,
    },
    Comment(Comment),
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: Mark,
    /// The line on which the token ends.
    pub(super) end_line: usize,
    pub(super) slots: Option<Slots>,
}

impl Token {
    pub(super) fn new(kind: TokenKind, start: Mark, end: Mark) -> Self {
        Self { kind, start, end_line: end.line, slots: None }
    }

    pub(super) fn set_post(&mut self, comment: Comment) {
        self.slots.get_or_insert_default().post = Some(comment);
    }

    pub(super) fn as_comment_mut(&mut self) -> Option<&mut Comment> {
        if let TokenKind::Comment(comment) = &mut self.kind { Some(comment) } else { None }
    }

    pub(super) fn is_comment(&self) -> bool {
        matches!(self.kind, TokenKind::Comment(_))
    }
}
