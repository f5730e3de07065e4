//! Which way of writing a text allows, and which one ruamel.yaml chooses.

use super::chars::{is_blank_or_end, is_break};
use super::kind::{self, Kind};
use super::node::{Scalar, ScalarStyle};

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Single,
    Double,
    Literal,
    Folded,
}

/// What a text would be misread for, or cannot be, in some ways of writing it.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, none excludes another")]
#[derive(Default)]
struct Analysis {
    is_multiline: bool,
    is_no_flow_plain: bool,
    is_no_block_plain: bool,
    is_no_single: bool,
}

/// Chooses for a scalar within brackets or not, as a key or as a value.
pub(super) fn choose(scalar: &Scalar, is_flow: bool, is_key: bool) -> Style {
    let text = scalar.text.as_str();
    let analysis = analyze(text);
    let is_implicit = scalar.kind != Kind::String || kind::plain(text) == Some(Kind::String);
    if scalar.style == ScalarStyle::Any && is_implicit {
        let is_bad_key = is_key && (text.is_empty() || analysis.is_multiline);
        let is_bad = if is_flow { analysis.is_no_flow_plain } else { analysis.is_no_block_plain };
        if !is_bad_key && !is_bad {
            return Style::Plain;
        }
    }
    match scalar.style {
        ScalarStyle::Literal if !is_flow && !is_key => return Style::Literal,
        ScalarStyle::Folded if !is_flow && !is_key => return Style::Folded,
        ScalarStyle::Literal | ScalarStyle::Folded => return Style::Double,
        ScalarStyle::Any => {}
    }
    if text.contains(['\'', '\n']) || analysis.is_no_single || is_key && analysis.is_multiline {
        return Style::Double;
    }
    Style::Single
}

fn analyze(text: &str) -> Analysis {
    let Some(first) = text.chars().next() else {
        return Analysis { is_no_flow_plain: true, ..Analysis::default() };
    };
    let mut analysis = Analysis::default();
    let is_mark = text.starts_with("---") || text.starts_with("...");
    let mut is_no_block = is_mark;
    let mut is_no_flow = is_mark;
    let chars: Vec<char> = text.chars().collect();
    let is_followed =
        |at: usize| chars.get(at + 1).is_none_or(|c| is_blank_or_end(*c) || *c == '\r');
    if ",[]{}#&*!|>'\"%@`".contains(first) || first == '-' && is_followed(0) {
        (is_no_block, is_no_flow) = (true, true);
    }
    if matches!(first, '?' | ':') {
        is_no_flow |= chars.len() == 1 || is_followed(0);
        is_no_block |= is_followed(0);
    }
    let mut is_special = false;
    let mut is_break_space = false;
    let mut is_space_break = false;
    for (at, c) in chars.iter().copied().enumerate() {
        let before = at.checked_sub(1).map(|at| chars[at]);
        if at > 0 {
            is_no_flow |= matches!(c, ',' | '[' | ']' | '{' | '}');
            let is_colon = c == ':' && is_followed(at);
            let is_comment = c == '#' && before.is_some_and(|c| is_blank_or_end(c) || c == '\r');
            is_no_flow |= is_colon || is_comment;
            is_no_block |= is_colon || is_comment;
        }
        analysis.is_multiline |= is_break(c);
        is_special |= !is_ordinary(c);
        is_break_space |= c == ' ' && before.is_some_and(is_break);
        is_space_break |= is_break(c) && before == Some(' ');
    }
    let is_edge = |c: Option<&char>| c.is_some_and(|c| *c == ' ' || is_break(*c));
    let is_no_plain = is_edge(chars.first())
        || is_edge(chars.last())
        || is_break_space
        || is_space_break
        || is_special
        || analysis.is_multiline;
    analysis.is_no_flow_plain = is_no_plain || is_no_flow;
    analysis.is_no_block_plain = is_no_plain || is_no_block;
    analysis.is_no_single = is_break_space || is_space_break || is_special;
    analysis
}

/// Whether a character needs no escape.
pub(super) fn is_ordinary(c: char) -> bool {
    let is_printable =
        matches!(c, '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}') || c >= '\u{10000}';
    is_printable && c != '\u{feff}'
}
