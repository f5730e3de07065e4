//! From characters to tokens, comments among them.
//!
//! A comment belongs to the token before it if that is a scalar, or something that ends on the same
//! line; else to the token after it. What decides is which tokens have been read when one is asked
//! for, so that tokens are fetched exactly when ruamel.yaml fetches them.

use std::collections::{BTreeMap, VecDeque};

use super::DocumentError;
use super::chars::{Chars, Mark, is_blank_or_end, is_break, is_end};
use super::node::Comment;
use super::token::{Token, TokenKind};

/// A token that may turn out to be a key, once a `:` follows.
struct PossibleKey {
    token_number: usize,
    is_required: bool,
    index: usize,
    mark: Mark,
}

/// Reads tokens on demand.
pub(super) struct Scanner {
    pub(super) chars: Chars,
    tokens: VecDeque<Token>,
    /// How many tokens were given out or dropped.
    taken: usize,
    is_done: bool,
    /// The column of the innermost block collection, -1 outside of any.
    pub(super) indent: isize,
    indents: Vec<isize>,
    /// The brackets that are open.
    flow: Vec<char>,
    pub(super) may_start_key: bool,
    possible_keys: BTreeMap<usize, PossibleKey>,
}

/// A key must end after so many characters.
const KEY_MAX: usize = 1024;

impl Scanner {
    pub(super) fn new(text: &str) -> Self {
        let start = Mark { line: 0, column: 0 };
        Self {
            chars: Chars::new(text),
            tokens: [Token::new(TokenKind::StreamStart, start, start)].into(),
            taken: 0,
            is_done: false,
            indent: -1,
            indents: Vec::new(),
            flow: Vec::new(),
            may_start_key: true,
            possible_keys: BTreeMap::new(),
        }
    }

    /// The next token, with the comments before it.
    pub(super) fn peek(&mut self) -> Result<&mut Token, DocumentError> {
        while self.needs_more()? {
            self.fetch()?;
        }
        self.gather_comments()?;
        let error = self.syntax("unexpected end");
        self.tokens.front_mut().ok_or(error)
    }

    /// Takes the next token, with the comments before it and, where they belong to it, after it.
    pub(super) fn next(&mut self) -> Result<Token, DocumentError> {
        self.peek()?;
        self.take_post_comment()?;
        self.taken += 1;
        self.tokens.pop_front().ok_or_else(|| self.syntax("unexpected end"))
    }

    pub(super) fn syntax(&self, message: &'static str) -> DocumentError {
        DocumentError::Syntax { line: self.chars.line() + 1, message }
    }

    pub(super) fn unsupported(&self, what: &'static str) -> DocumentError {
        DocumentError::Unsupported { line: self.chars.line() + 1, what }
    }

    pub(super) fn is_flow(&self) -> bool {
        !self.flow.is_empty()
    }

    fn gather_comments(&mut self) -> Result<(), DocumentError> {
        let mut comments = Vec::new();
        self.take_comment(&mut comments);
        while self.needs_more()? {
            self.fetch()?;
            self.take_comment(&mut comments);
        }
        if !comments.is_empty() {
            let error = self.unsupported("comments in this place");
            let slots = self.tokens.front_mut().map(|token| token.slots.get_or_insert_default());
            match slots {
                Some(slots) if slots.pre.is_none() => slots.pre = Some(comments),
                _ => return Err(error),
            }
        }
        if !self.is_done && self.tokens.len() < 2 {
            self.fetch()?;
        }
        Ok(())
    }

    fn take_comment(&mut self, comments: &mut Vec<Comment>) {
        if self.tokens.front().is_some_and(Token::is_comment)
            && let Some(Token { kind: TokenKind::Comment(comment), .. }) = self.tokens.pop_front()
        {
            self.taken += 1;
            comments.push(comment);
        }
    }

    fn take_post_comment(&mut self) -> Result<(), DocumentError> {
        let [token, comment] = [0, 1].map(|at| self.tokens.get(at));
        let (Some(token), Some(comment)) = (token, comment) else { return Ok(()) };
        let is_scalar = matches!(token.kind, TokenKind::Scalar { .. });
        let ends_value =
            matches!(token.kind, TokenKind::Value | TokenKind::FlowListEnd | TokenKind::FlowMapEnd);
        let is_same_line = token.end_line == comment.start.line;
        if !comment.is_comment() || !(is_scalar || ends_value && is_same_line) {
            return Ok(());
        }
        let lines_between = comment.start.line.saturating_sub(token.end_line);
        let Some(mut comment) = self.remove_comment() else { return Ok(()) };
        if !is_same_line {
            let indent = " ".repeat(comment.column);
            comment.text = format!("{}{indent}{}", "\n".repeat(lines_between), comment.text);
        }
        self.fetch()?;
        while self.tokens.get(1).is_some_and(Token::is_comment) {
            if let Some(next) = self.remove_comment() {
                comment.text.push_str(&" ".repeat(next.column));
                comment.text.push_str(&next.text);
            }
            self.fetch()?;
        }
        if let Some(token) = self.tokens.front_mut() {
            token.set_post(comment);
        }
        Ok(())
    }

    /// Takes the comment behind the first token.
    fn remove_comment(&mut self) -> Option<Comment> {
        self.taken += 1;
        let mut token = self.tokens.remove(1)?;
        token.as_comment_mut().map(|comment| Comment {
            text: std::mem::take(&mut comment.text),
            column: comment.column,
        })
    }

    fn needs_more(&mut self) -> Result<bool, DocumentError> {
        if self.is_done {
            return Ok(false);
        }
        if self.tokens.is_empty() {
            return Ok(true);
        }
        self.drop_stale_keys()?;
        let next_key = self.possible_keys.values().map(|key| key.token_number).min();
        Ok(next_key == Some(self.taken))
    }

    fn fetch(&mut self) -> Result<(), DocumentError> {
        if let Some((mut comment, start)) = self.skip_to_token() {
            let end = self.chars.mark();
            comment.text.truncate(comment.text.trim_end_matches(' ').len());
            self.tokens.push_back(Token::new(TokenKind::Comment(comment), start, end));
            return Ok(());
        }
        self.drop_stale_keys()?;
        self.close_blocks();
        let c = self.chars.peek();
        let is_word = !is_blank_or_end(self.chars.peek_at(1));
        match c {
            '\0' => self.fetch_end(),
            '%' if self.chars.column() == 0 => Err(self.unsupported("directives")),
            '-' if self.is_document_mark("---") => self.fetch_mark(TokenKind::DocumentStart),
            '.' if self.is_document_mark("...") => self.fetch_mark(TokenKind::DocumentEnd),
            '[' => self.fetch_flow_start(TokenKind::FlowListStart),
            '{' => self.fetch_flow_start(TokenKind::FlowMapStart),
            ']' => self.fetch_flow_end(TokenKind::FlowListEnd),
            '}' => self.fetch_flow_end(TokenKind::FlowMapEnd),
            ',' => self.fetch_flow_entry(),
            '-' if !is_word => self.fetch_block_entry(),
            '?' if self.is_flow() || !is_word => Err(self.unsupported("keys behind `?`")),
            ':' if self.is_value() => self.fetch_value(),
            '*' | '&' => Err(self.unsupported("anchors and aliases")),
            '!' => Err(self.unsupported("tags")),
            '|' | '>' if !self.is_flow() => {
                self.may_start_key = true;
                self.drop_possible_key()?;
                let token = self.scan_block_scalar(c == '>')?;
                self.tokens.push_back(token);
                Ok(())
            }
            '\'' | '"' => self.fetch_scalar(|scanner| scanner.scan_quoted(c)),
            _ if self.is_plain_start(c) => self.fetch_scalar(|scanner| Ok(scanner.scan_plain())),
            _ => Err(self.syntax("a character that cannot begin anything")),
        }
    }

    /// Passes over blanks and line breaks, up to a token or past one comment or run of blank lines.
    pub(super) fn skip_to_token(&mut self) -> Option<(Comment, Mark)> {
        loop {
            while self.chars.peek() == ' ' || self.is_flow() && self.chars.peek() == '\t' {
                self.chars.forward();
            }
            if self.chars.peek() == '#' {
                return Some(self.scan_comment());
            }
            self.chars.line_break()?;
            if !self.is_flow() {
                self.may_start_key = true;
            }
            if self.chars.peek() == '\n' {
                return Some(self.scan_blank_lines());
            }
        }
    }

    fn scan_comment(&mut self) -> (Comment, Mark) {
        let start = self.chars.mark();
        let mut text = String::new();
        loop {
            let c = self.chars.peek();
            if c == '\0' {
                text.push('\n');
                break;
            }
            text.push(c);
            self.chars.forward();
            if is_break(c) {
                break;
            }
        }
        while let Some(c) = self.chars.line_break() {
            text.push(c);
        }
        if !self.is_flow() {
            self.may_start_key = true;
        }
        (Comment { text, column: start.column }, start)
    }

    fn scan_blank_lines(&mut self) -> (Comment, Mark) {
        let start = self.chars.mark();
        let mut text = String::new();
        loop {
            let c = self.chars.peek();
            match self.chars.line_break() {
                Some(c) => text.push(c),
                None if matches!(c, ' ' | '\t') => {
                    self.chars.forward();
                    text.push(c);
                }
                None => break,
            }
        }
        if self.chars.peek() == '#' {
            let end = text.rfind('\n').unwrap_or(text.len());
            text.truncate(end);
            text.push('\n');
        }
        (Comment { text, column: start.column }, start)
    }

    fn drop_stale_keys(&mut self) -> Result<(), DocumentError> {
        let (line, index) = (self.chars.line(), self.chars.index());
        let is_stale = |key: &PossibleKey| key.mark.line != line || index - key.index > KEY_MAX;
        if self.possible_keys.values().any(|key| is_stale(key) && key.is_required) {
            return Err(self.syntax("a key without `:`"));
        }
        self.possible_keys.retain(|_, key| !is_stale(key));
        Ok(())
    }

    fn save_possible_key(&mut self) -> Result<(), DocumentError> {
        let mark = self.chars.mark();
        let is_required = !self.is_flow() && self.indent == mark.column as isize;
        if self.may_start_key {
            self.drop_possible_key()?;
            let token_number = self.taken + self.tokens.len();
            let index = self.chars.index();
            let key = PossibleKey { token_number, is_required, index, mark };
            self.possible_keys.insert(self.flow.len(), key);
        }
        Ok(())
    }

    fn drop_possible_key(&mut self) -> Result<(), DocumentError> {
        match self.possible_keys.remove(&self.flow.len()) {
            Some(key) if key.is_required => Err(self.syntax("a key without `:`")),
            _ => Ok(()),
        }
    }

    /// Ends the block collections that are indented deeper than what comes.
    fn close_blocks(&mut self) {
        if !self.is_flow() {
            self.close_blocks_beyond(self.chars.column() as isize);
        }
    }

    fn close_blocks_beyond(&mut self, column: isize) {
        let mark = self.chars.mark();
        while self.indent > column {
            self.indent = self.indents.pop().unwrap_or(-1);
            self.push(TokenKind::BlockEnd, mark);
        }
    }

    fn add_indent(&mut self, column: usize) -> bool {
        let is_deeper = self.indent < column as isize;
        if is_deeper {
            self.indents.push(self.indent);
            self.indent = column as isize;
        }
        is_deeper
    }

    fn push(&mut self, kind: TokenKind, mark: Mark) {
        self.tokens.push_back(Token::new(kind, mark, mark));
    }

    fn push_chars(&mut self, kind: TokenKind, count: usize) {
        let start = self.chars.mark();
        self.chars.take(count);
        self.tokens.push_back(Token::new(kind, start, self.chars.mark()));
    }

    fn fetch_end(&mut self) -> Result<(), DocumentError> {
        if self.is_flow() {
            return Err(self.syntax("a bracket that is not closed"));
        }
        let mark = self.chars.mark();
        self.close_blocks_beyond(-1);
        self.drop_possible_key()?;
        self.may_start_key = false;
        self.possible_keys.clear();
        self.push(TokenKind::StreamEnd, mark);
        self.is_done = true;
        Ok(())
    }

    pub(super) fn is_document_mark(&self, text: &str) -> bool {
        self.chars.column() == 0
            && self.chars.starts_with(text)
            && is_blank_or_end(self.chars.peek_at(text.len()))
    }

    fn fetch_mark(&mut self, kind: TokenKind) -> Result<(), DocumentError> {
        self.close_blocks_beyond(-1);
        self.drop_possible_key()?;
        self.may_start_key = false;
        self.push_chars(kind, 3);
        Ok(())
    }

    fn fetch_flow_start(&mut self, kind: TokenKind) -> Result<(), DocumentError> {
        self.save_possible_key()?;
        self.flow.push(self.chars.peek());
        self.may_start_key = true;
        self.push_chars(kind, 1);
        Ok(())
    }

    fn fetch_flow_end(&mut self, kind: TokenKind) -> Result<(), DocumentError> {
        self.drop_possible_key()?;
        let open = if self.chars.peek() == ']' { '[' } else { '{' };
        if self.flow.pop() != Some(open) {
            return Err(self.syntax("a bracket that was not opened"));
        }
        self.may_start_key = false;
        self.push_chars(kind, 1);
        Ok(())
    }

    fn fetch_flow_entry(&mut self) -> Result<(), DocumentError> {
        self.may_start_key = true;
        self.drop_possible_key()?;
        self.push_chars(TokenKind::FlowEntry, 1);
        Ok(())
    }

    fn fetch_block_entry(&mut self) -> Result<(), DocumentError> {
        if !self.is_flow() {
            if !self.may_start_key {
                return Err(self.syntax("a list entry where none can be"));
            }
            let mark = self.chars.mark();
            if self.add_indent(mark.column) {
                self.push(TokenKind::BlockListStart, mark);
            }
        }
        self.may_start_key = true;
        self.drop_possible_key()?;
        self.push_chars(TokenKind::BlockEntry, 1);
        Ok(())
    }

    fn is_value(&self) -> bool {
        let is_word = !is_blank_or_end(self.chars.peek_at(1));
        let follows_value =
            self.tokens.back().is_some_and(|token| matches!(token.kind, TokenKind::Value));
        match self.flow.last() {
            None | Some('[') => !is_word,
            Some(_) => !(follows_value && is_word),
        }
    }

    fn fetch_value(&mut self) -> Result<(), DocumentError> {
        let Some(key) = self.possible_keys.remove(&self.flow.len()) else {
            return Err(self.unsupported("values without a key on their line"));
        };
        let at = key.token_number.saturating_sub(self.taken).min(self.tokens.len());
        self.tokens.insert(at, Token::new(TokenKind::Key, key.mark, key.mark));
        if !self.is_flow() && self.add_indent(key.mark.column) {
            self.tokens.insert(at, Token::new(TokenKind::BlockMapStart, key.mark, key.mark));
        }
        self.may_start_key = false;
        self.push_chars(TokenKind::Value, 1);
        Ok(())
    }

    fn fetch_scalar(
        &mut self,
        scan: impl FnOnce(&mut Self) -> Result<Token, DocumentError>,
    ) -> Result<(), DocumentError> {
        self.save_possible_key()?;
        self.may_start_key = false;
        let token = scan(self)?;
        self.tokens.push_back(token);
        Ok(())
    }

    fn is_plain_start(&self, c: char) -> bool {
        let next = self.chars.peek_at(1);
        let is_indicator = "-?:,[]{}#&*!|>'\"%@`".contains(c);
        if !is_blank_or_end(c) && !is_indicator {
            return true;
        }
        match c {
            '-' => !is_blank_or_end(next),
            ':' if self.is_flow() => !matches!(next, ' ' | '\t'),
            '?' | ':' => !self.is_flow() && !is_blank_or_end(next),
            _ => false,
        }
    }
}

/// Whether a character ends a plain scalar inside brackets.
pub(super) fn is_flow_mark(c: char) -> bool {
    matches!(c, ',' | ':' | '?' | '[' | ']' | '{' | '}') || is_end(c)
}
