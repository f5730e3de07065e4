//! The characters of a text, one at a time, with line and column.

/// A place in the text, both numbers from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A text that is read from its start to its end. Beyond its end there is NUL.
pub(super) struct Chars {
    text: Vec<char>,
    index: usize,
    line: usize,
    column: usize,
}

impl Chars {
    /// Takes a text; `\r\n` and `\r` become `\n`, as in files that Python opens for reading.
    pub(super) fn new(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut chars = Vec::with_capacity(text.len());
        let mut is_return = false;
        for c in text.chars() {
            if !(c == '\n' && is_return) {
                chars.push(if c == '\r' { '\n' } else { c });
            }
            is_return = c == '\r';
        }
        Self { text: chars, index: 0, line: 0, column: 0 }
    }

    /// The character that comes next.
    pub(super) fn peek(&self) -> char {
        self.peek_at(0)
    }

    /// The character after `count` others.
    pub(super) fn peek_at(&self, count: usize) -> char {
        self.text.get(self.index + count).copied().unwrap_or('\0')
    }

    /// Passes over one character.
    pub(super) fn forward(&mut self) {
        let Some(c) = self.text.get(self.index) else { return };
        self.index += 1;
        if is_break(*c) {
            self.line += 1;
            self.column = 0;
        } else if *c != '\u{feff}' {
            self.column += 1;
        }
    }

    /// Passes over `count` characters and returns them.
    pub(super) fn take(&mut self, count: usize) -> String {
        let end = (self.index + count).min(self.text.len());
        let text = self.text[self.index..end].iter().collect();
        (0..count).for_each(|_| self.forward());
        text
    }

    /// Whether `text` comes next.
    pub(super) fn starts_with(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(at, c)| self.peek_at(at) == c)
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn column(&self) -> usize {
        self.column
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { line: self.line, column: self.column }
    }

    /// Passes over a line break and returns it as it counts: `\n`, or one of Unicode's own.
    pub(super) fn line_break(&mut self) -> Option<char> {
        let c = self.peek();
        is_break(c).then(|| {
            self.forward();
            if c == '\u{85}' { '\n' } else { c }
        })
    }
}

/// Whether a character ends a line.
pub(super) fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether a character ends a line or the text.
pub(super) fn is_end(c: char) -> bool {
    is_break(c) || c == '\0'
}

/// Whether a character ends a line, the text or a word.
pub(super) fn is_blank_or_end(c: char) -> bool {
    is_end(c) || matches!(c, ' ' | '\t')
}
