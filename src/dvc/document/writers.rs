//! Writing of scalars, folded and quoted as ruamel.yaml folds and quotes.

use super::chars::is_break;
use super::emitter::{Emitter, WIDTH};
use super::style::is_ordinary;

/// The part of a text that a loop over it is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Word,
    Spaces,
    Breaks,
}

impl Run {
    fn of(c: char) -> Self {
        if c == ' ' {
            Self::Spaces
        } else if is_break(c) {
            Self::Breaks
        } else {
            Self::Word
        }
    }
}

fn collect(chars: &[char]) -> String {
    chars.iter().collect()
}

impl Emitter {
    pub(super) fn write_plain(&mut self, text: &str, may_fold: bool) {
        if text.is_empty() {
            return;
        }
        if !self.is_after_blank {
            self.write(" ");
        }
        self.end_indent();
        let chars: Vec<char> = text.chars().collect();
        let mut run = Run::Word;
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            match run {
                Run::Spaces if c != Some(' ') => {
                    if start + 1 == end && self.column >= WIDTH && may_fold {
                        self.write_indent();
                        self.end_indent();
                    } else {
                        self.write(&collect(&chars[start..end]));
                    }
                    start = end;
                }
                Run::Word if c.is_none_or(|c| Run::of(c) != Run::Word) => {
                    let is_too_long = end - start + self.column > WIDTH;
                    if is_too_long && self.indent.is_some_and(|indent| self.column > indent) {
                        self.write_indent();
                    }
                    self.write(&collect(&chars[start..end]));
                    start = end;
                }
                _ => {}
            }
            if let Some(c) = c {
                run = Run::of(c);
            }
        }
    }

    fn end_indent(&mut self) {
        self.is_after_blank = false;
        self.is_in_indent = false;
    }

    /// Writes the line breaks of a text where the way of writing needs one more of them.
    fn write_breaks(&mut self, breaks: &[char]) {
        if breaks.first() == Some(&'\n') {
            self.write_line_break('\n');
        }
        for c in breaks {
            self.write_line_break(*c);
        }
    }

    pub(super) fn write_single(&mut self, text: &str, may_fold: bool) {
        self.write_indicator("'", true, false, false);
        let chars: Vec<char> = text.chars().collect();
        let mut run = Run::Word;
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            match run {
                Run::Spaces if c != Some(' ') => {
                    let is_inside = start != 0 && end != chars.len();
                    if start + 1 == end && self.column > WIDTH && may_fold && is_inside {
                        self.write_indent();
                    } else {
                        self.write(&collect(&chars[start..end]));
                    }
                    start = end;
                }
                Run::Breaks if c.is_none_or(|c| !is_break(c)) => {
                    self.write_breaks(&chars[start..end]);
                    self.write_indent();
                    start = end;
                }
                Run::Word if c.is_none_or(|c| Run::of(c) != Run::Word || c == '\'') => {
                    self.write(&collect(&chars[start..end]));
                    start = end;
                }
                _ => {}
            }
            if c == Some('\'') {
                self.write("''");
                start = end + 1;
            }
            if let Some(c) = c {
                run = Run::of(c);
            }
        }
        self.write_indicator("'", false, false, false);
    }

    pub(super) fn write_double(&mut self, text: &str, may_fold: bool) {
        self.write_indicator("\"", true, false, false);
        let chars: Vec<char> = text.chars().collect();
        let (mut start, mut end) = (0, 0);
        while end <= chars.len() {
            let c = chars.get(end).copied();
            if c.is_none_or(needs_escape) {
                if start < end {
                    self.write(&collect(&chars[start..end]));
                    start = end;
                }
                if let Some(c) = c {
                    self.write(&escape(c));
                    start = end + 1;
                }
            }
            let is_inside = 0 < end && end + 1 < chars.len();
            let is_gap = c == Some(' ') || start >= end;
            let column = (self.column + end).saturating_sub(start);
            if is_inside && is_gap && column > WIDTH && may_fold {
                start = self.fold_double(&chars, start, end);
            }
            end += 1;
        }
        self.write_indicator("\"", false, false, false);
    }

    /// Ends a line within double quotes; returns where the text goes on.
    fn fold_double(&mut self, chars: &[char], start: usize, end: usize) -> usize {
        let needs_backslash = !is_clean_fold(chars, start, end);
        let mark = if needs_backslash { "\\" } else { "" };
        let word = if start < end { collect(&chars[start..end]) } else { String::new() };
        self.write(&format!("{word}{mark}"));
        let mut start = start.max(end);
        self.write_indent();
        self.end_indent();
        if chars.get(start) == Some(&' ') {
            if needs_backslash {
                self.write("\\");
            } else {
                // The line break is read as this one.
                start += 1;
            }
        }
        start
    }

    pub(super) fn write_literal(&mut self, text: &str, header: &str) {
        let hints = self.begin_block('|', text, header);
        let chars: Vec<char> = text.chars().collect();
        let mut is_breaks = true;
        let mut start = 0;
        for end in 0..=chars.len() {
            let c = chars.get(end).copied();
            let is_end = c.is_none_or(is_break);
            if is_breaks && !c.is_some_and(is_break) {
                chars[start..end].iter().for_each(|c| self.write_line_break(*c));
                if c.is_some() {
                    self.write_indent();
                }
                start = end;
            } else if !is_breaks && is_end {
                self.write_uncounted(&chars[start..end]);
                if c.is_none() {
                    self.write_line_break('\n');
                }
                start = end;
            }
            is_breaks = c.map_or(is_breaks, is_break);
        }
        self.is_open_ended |= hints;
    }

    /// Writes a line whose length does not count.
    fn write_uncounted(&mut self, chars: &[char]) {
        let column = self.column;
        self.write(&collect(chars));
        self.column = column;
    }

    /// Writes the first line of a block scalar; returns whether the text ends with blank lines.
    fn begin_block(&mut self, mark: char, text: &str, header: &str) -> bool {
        let mut indicator = String::from(mark);
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            indicator.push('2');
        }
        let mut last = text.chars().rev();
        let is_open = match (last.next(), last.next()) {
            (None, _) => false,
            (Some(c), _) if !is_break(c) => {
                indicator.push('-');
                false
            }
            (Some(_), before) => before.is_none_or(is_break),
        };
        if is_open {
            indicator.push('+');
        }
        indicator.push_str(header);
        self.write_indicator(&indicator, true, false, false);
        self.write_line_break('\n');
        is_open
    }

    pub(super) fn write_folded(&mut self, text: &str, header: &str) {
        let chars = sound_folds(text);
        let is_open = self.begin_block('>', &collect(&chars), header);
        let mut run = Run::Breaks;
        let mut is_after_space = true;
        let (mut start, mut end) = (0, 0);
        let fold = '\u{7}';
        while end <= chars.len() {
            let c = chars.get(end).copied();
            match run {
                Run::Breaks if c.is_none_or(|c| !is_break(c) && c != fold) => {
                    let is_newline = chars.get(start) == Some(&'\n');
                    if !is_after_space && c.is_some_and(|c| c != ' ') && is_newline {
                        self.write_line_break('\n');
                    }
                    is_after_space = c == Some(' ');
                    chars[start..end].iter().for_each(|c| self.write_line_break(*c));
                    if c.is_some() {
                        self.write_indent();
                    }
                    start = end;
                }
                Run::Spaces if c != Some(' ') => {
                    if start + 1 == end && self.column > WIDTH {
                        self.write_indent();
                    } else {
                        self.write(&collect(&chars[start..end]));
                    }
                    start = end;
                }
                Run::Word if c.is_none_or(|c| Run::of(c) != Run::Word || c == fold) => {
                    self.write(&collect(&chars[start..end]));
                    if c == Some(fold) {
                        self.write_line_break('\n');
                        self.write_indent();
                        // The mark, and the blank that the line break is read as.
                        end += 2;
                    }
                    if c.is_none() {
                        self.write_line_break('\n');
                    }
                    start = end;
                }
                _ => {}
            }
            if let Some(c) = c {
                run = Run::of(c);
            }
            end += 1;
        }
        self.is_open_ended |= is_open;
    }
}

/// The text with only those fold marks that stand before a single blank between two words.
fn sound_folds(text: &str) -> Vec<char> {
    let marked: Vec<char> = text.chars().collect();
    let is_word = |c: Option<&char>| c.is_some_and(|c| !c.is_whitespace());
    let mut chars: Vec<char> = Vec::with_capacity(marked.len());
    for (at, c) in marked.iter().enumerate() {
        let is_sound = || {
            marked.get(at + 1) == Some(&' ') && is_word(chars.last()) && is_word(marked.get(at + 2))
        };
        if *c != '\u{7}' || is_sound() {
            chars.push(*c);
        }
    }
    chars
}

/// Whether a line may end here without a backslash.
fn is_clean_fold(chars: &[char], start: usize, end: usize) -> bool {
    let Some(space) = chars.iter().skip(end).position(|c| *c == ' ').map(|at| at + end) else {
        return false;
    };
    let newline = chars[end..space].iter().position(|c| *c == '\n').map(|at| at + end);
    let at = newline.unwrap_or(space);
    let next = chars.get(at + 1).copied();
    if chars[at] == '\n' && next.is_some_and(|c| c != ' ') {
        return false;
    }
    let has_quotes = chars[end..at].iter().any(|c| matches!(c, '"' | '\''));
    let is_double_space = end > 0 && chars[end - 1..=end] == [' ', ' '];
    !has_quotes
        && next.is_some_and(|c| !matches!(c, ' ' | '\n'))
        && !is_double_space
        && start != end
}

fn needs_escape(c: char) -> bool {
    !is_ordinary(c) || matches!(c, '\n' | '"' | '\\' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\x07' => 'a',
        '\x08' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\x0b' => 'v',
        '\x0c' => 'f',
        '\r' => 'r',
        '\x1b' => 'e',
        '"' | '\\' => c,
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            let code = u32::from(c);
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}
