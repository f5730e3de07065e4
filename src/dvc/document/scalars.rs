//! Scanning of scalars: plain, in quotes, and line by line.

use super::DocumentError;
use super::chars::{Mark, is_blank_or_end, is_break, is_end};
use super::node::{Comment, ScalarStyle};
use super::scanner::{Scanner, is_flow_mark};
use super::token::{Token, TokenKind};

fn scalar(text: String, is_plain: bool, style: ScalarStyle, start: Mark, end: Mark) -> Token {
    Token::new(TokenKind::Scalar { text, is_plain, style, header: String::new() }, start, end)
}

impl Scanner {
    pub(super) fn scan_plain(&mut self) -> Token {
        let start = self.chars.mark();
        let mut end = start;
        let indent = self.indent + 1;
        let mut text = String::new();
        let mut spaces: Vec<String> = Vec::new();
        while self.chars.peek() != '#' {
            let length = self.plain_length();
            if length == 0 {
                break;
            }
            self.may_start_key = false;
            text.extend(spaces.drain(..));
            text.push_str(&self.chars.take(length));
            end = self.chars.mark();
            spaces = self.scan_plain_spaces();
            let is_dedented = !self.is_flow() && (self.chars.column() as isize) < indent;
            if spaces.is_empty() || self.chars.peek() == '#' || is_dedented {
                break;
            }
        }
        let mut token = scalar(text, true, ScalarStyle::Any, start, end);
        if spaces.first().is_some_and(|first| first == "\n") {
            let text = format!("{}\n", spaces.concat());
            token.set_post(Comment { text, column: start.column });
        }
        token
    }

    /// How many characters belong to the word that comes.
    fn plain_length(&self) -> usize {
        let mut length = 0;
        loop {
            let c = self.chars.peek_at(length);
            let is_followed = !is_blank_or_end(self.chars.peek_at(length + 1));
            let is_inside = c == ':' && is_followed || c == '?';
            let is_over = is_blank_or_end(c)
                || !self.is_flow() && c == ':'
                || self.is_flow() && is_flow_mark(c);
            if !is_inside && is_over {
                return length;
            }
            length += 1;
        }
    }

    /// Passes over what stands between two words, and returns what it counts for; nothing at the
    /// end of the document.
    fn scan_plain_spaces(&mut self) -> Vec<String> {
        let mut count = 0;
        while self.chars.peek_at(count) == ' ' {
            count += 1;
        }
        let blanks = self.chars.take(count);
        let Some(first) = self.chars.line_break() else {
            return if blanks.is_empty() { Vec::new() } else { vec![blanks] };
        };
        self.may_start_key = true;
        if self.is_document_mark("---") || self.is_document_mark("...") {
            return Vec::new();
        }
        let mut breaks = Vec::new();
        loop {
            if self.chars.peek() == ' ' {
                self.chars.forward();
            } else if let Some(c) = self.chars.line_break() {
                breaks.push(c.to_string());
                if self.is_document_mark("---") || self.is_document_mark("...") {
                    return Vec::new();
                }
            } else {
                break;
            }
        }
        joined_lines(first, breaks)
    }

    pub(super) fn scan_quoted(&mut self, quote: char) -> Result<Token, DocumentError> {
        let start = self.chars.mark();
        self.chars.forward();
        let mut text = String::new();
        self.scan_quoted_words(quote, &mut text)?;
        while self.chars.peek() != quote {
            self.scan_quoted_spaces(&mut text)?;
            self.scan_quoted_words(quote, &mut text)?;
        }
        self.chars.forward();
        Ok(scalar(text, false, ScalarStyle::Any, start, self.chars.mark()))
    }

    fn scan_quoted_words(&mut self, quote: char, text: &mut String) -> Result<(), DocumentError> {
        let is_double = quote == '"';
        loop {
            let c = self.chars.peek();
            match c {
                '\'' if !is_double && self.chars.peek_at(1) == '\'' => {
                    text.push('\'');
                    self.chars.take(2);
                }
                '\\' if is_double => {
                    self.chars.forward();
                    self.scan_escape(text)?;
                }
                _ if c == quote || is_blank_or_end(c) => return Ok(()),
                _ => {
                    text.push(c);
                    self.chars.forward();
                }
            }
        }
    }

    fn scan_escape(&mut self, text: &mut String) -> Result<(), DocumentError> {
        let c = self.chars.peek();
        if is_break(c) {
            self.chars.line_break();
            text.extend(self.scan_quoted_breaks()?);
            return Ok(());
        }
        let length = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if length == 0 {
            text.push(unescaped(c).ok_or_else(|| self.syntax("unknown escape"))?);
            self.chars.forward();
            return Ok(());
        }
        self.chars.forward();
        let digits = self.chars.take(length);
        let is_hex = digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
        text.push(code.and_then(char::from_u32).ok_or_else(|| self.syntax("wrong escape"))?);
        Ok(())
    }

    fn scan_quoted_spaces(&mut self, text: &mut String) -> Result<(), DocumentError> {
        let mut count = 0;
        while matches!(self.chars.peek_at(count), ' ' | '\t') {
            count += 1;
        }
        let blanks = self.chars.take(count);
        if self.chars.peek() == '\0' {
            return Err(self.syntax("a quote that is not closed"));
        }
        match self.chars.line_break() {
            None => text.push_str(&blanks),
            Some(first) => {
                let breaks = self.scan_quoted_breaks()?;
                text.extend(joined_lines(first, breaks));
            }
        }
        Ok(())
    }

    fn scan_quoted_breaks(&mut self) -> Result<Vec<String>, DocumentError> {
        let mut breaks = Vec::new();
        loop {
            if self.is_document_mark("---") || self.is_document_mark("...") {
                return Err(self.syntax("the document ends inside quotes"));
            }
            while matches!(self.chars.peek(), ' ' | '\t') {
                self.chars.forward();
            }
            match self.chars.line_break() {
                Some(c) => breaks.push(c.to_string()),
                None => return Ok(breaks),
            }
        }
    }

    pub(super) fn scan_block_scalar(&mut self, is_folded: bool) -> Result<Token, DocumentError> {
        let start = self.chars.mark();
        self.chars.forward();
        let header = self.scan_block_header()?;
        let least = self.indent + 1;
        let (indent, mut breaks, mut end) = match header.increment {
            None => {
                let (breaks, deepest, end) = self.scan_block_indent()?;
                (least.max(deepest as isize) as usize, breaks, end)
            }
            Some(increment) => {
                let indent = least.max(1) as usize + increment - 1;
                let (breaks, end) = self.scan_block_breaks(indent);
                (indent, breaks, end)
            }
        };
        let mut text = String::new();
        let mut last_break = None;
        while self.chars.column() == indent && self.chars.peek() != '\0' {
            text.extend(breaks.drain(..));
            let is_text = !matches!(self.chars.peek(), ' ' | '\t');
            while !is_end(self.chars.peek()) {
                text.push(self.chars.peek());
                self.chars.forward();
            }
            last_break = self.chars.line_break();
            (breaks, end) = self.scan_block_breaks(indent);
            let at_mark = self.is_document_mark("---") || self.is_document_mark("...");
            let is_over = self.chars.column() != indent || self.chars.peek() == '\0';
            if is_over || least == 0 && at_mark {
                break;
            }
            let is_newline = last_break == Some('\n');
            if is_folded && is_newline {
                text.push('\u{7}');
            }
            if is_folded && is_newline && is_text && !matches!(self.chars.peek(), ' ' | '\t') {
                if breaks.is_empty() {
                    text.push(' ');
                }
            } else {
                text.extend(last_break);
            }
        }
        if header.chomping != Some(false) {
            text.extend(last_break);
        }
        let mut trailing = String::new();
        if header.chomping == Some(true) {
            text.extend(breaks);
        } else {
            trailing.extend(breaks);
        }
        let style = if is_folded { ScalarStyle::Folded } else { ScalarStyle::Literal };
        let kind = TokenKind::Scalar { text, is_plain: false, style, header: header.comment };
        let mut token = Token::new(kind, start, end);
        if !trailing.is_empty() {
            while let Some((comment, mark)) = self.skip_to_token() {
                trailing.push_str(&" ".repeat(mark.column));
                trailing.push_str(&comment.text);
            }
            token.set_post(Comment { text: trailing, column: end.column });
        }
        Ok(token)
    }

    fn scan_block_header(&mut self) -> Result<Header, DocumentError> {
        let mut header = Header { chomping: None, increment: None, comment: String::new() };
        loop {
            match self.chars.peek() {
                c @ ('+' | '-') if header.chomping.is_none() => header.chomping = Some(c == '+'),
                c @ '1'..='9' if header.increment.is_none() => {
                    header.increment = c.to_digit(10).map(|digit| digit as usize);
                }
                _ => break,
            }
            self.chars.forward();
        }
        let mut comment = String::new();
        while self.chars.peek() == ' ' {
            comment.push(' ');
            self.chars.forward();
        }
        if self.chars.peek() == '#' {
            while !is_end(self.chars.peek()) {
                comment.push(self.chars.peek());
                self.chars.forward();
            }
            header.comment = comment;
        }
        if !is_end(self.chars.peek()) {
            return Err(self.syntax("text behind `|` or `>`"));
        }
        self.chars.line_break();
        Ok(header)
    }

    /// Passes over the blank lines before the text; returns them and the deepest indent.
    fn scan_block_indent(&mut self) -> Result<(Vec<String>, usize, Mark), DocumentError> {
        let mut breaks = Vec::new();
        let mut end = self.chars.mark();
        let (mut first, mut deepest) = (None, 0);
        loop {
            let column = self.chars.column();
            if self.chars.peek() == ' ' {
                self.chars.forward();
                deepest = deepest.max(self.chars.column());
            } else if let Some(c) = self.chars.line_break() {
                first.get_or_insert(column);
                breaks.push(c.to_string());
                end = self.chars.mark();
            } else {
                break;
            }
        }
        match first {
            Some(first) if first > 0 && deepest > first => {
                Err(self.syntax("a first line that is indented less than the next"))
            }
            _ => Ok((breaks, deepest, end)),
        }
    }

    fn scan_block_breaks(&mut self, indent: usize) -> (Vec<String>, Mark) {
        let mut breaks = Vec::new();
        let mut end = self.chars.mark();
        loop {
            while self.chars.column() < indent && self.chars.peek() == ' ' {
                self.chars.forward();
            }
            match self.chars.line_break() {
                Some(c) => {
                    breaks.push(c.to_string());
                    end = self.chars.mark();
                }
                None => return (breaks, end),
            }
        }
    }
}

/// What stands behind the `|` or `>` of a block scalar.
struct Header {
    /// Whether the blank lines after the text belong to it; nothing if only its own line end does.
    chomping: Option<bool>,
    increment: Option<usize>,
    comment: String,
}

/// What a line break and further ones count for between two words.
fn joined_lines(first: char, breaks: Vec<String>) -> Vec<String> {
    let mut spaces = Vec::new();
    if first != '\n' {
        spaces.push(first.to_string());
    } else if breaks.is_empty() {
        spaces.push(" ".to_owned());
    }
    spaces.extend(breaks);
    spaces
}

fn unescaped(c: char) -> Option<char> {
    Some(match c {
        '0' => '\0',
        'a' => '\x07',
        'b' => '\x08',
        't' | '\t' => '\t',
        'n' => '\n',
        'v' => '\x0b',
        'f' => '\x0c',
        'r' => '\r',
        'e' => '\x1b',
        ' ' | '"' | '/' | '\\' => c,
        'N' => '\u{85}',
        '_' => '\u{a0}',
        'L' => '\u{2028}',
        'P' => '\u{2029}',
        _ => return None,
    })
}
