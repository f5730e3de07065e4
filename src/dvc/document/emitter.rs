//! From values to text.
//!
//! The state is that of ruamel.yaml's emitter: where a line ends or a blank is written hangs on it.

use super::node::{Comment, Comments, Entry, List, Map, Scalar, Value};
use super::style::{self, Style};

/// Lines are folded, where they can be, once they are longer.
pub(super) const WIDTH: usize = 80;
const INDENT: usize = 2;

pub(super) fn emit(root: &Value) -> String {
    let mut emitter = Emitter::new();
    let comments = match root {
        Value::Scalar(_) => None,
        Value::List(list) => list.layout.comments.as_ref(),
        Value::Map(map) => map.layout.comments.as_ref(),
    };
    emitter.node(root, Place { comments, ..Place::default() });
    emitter.write_indent();
    if emitter.is_open_ended {
        emitter.write_indicator("...", true, false, false);
        emitter.write_indent();
    }
    emitter.text
}

/// What a value is to the collection around it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    #[default]
    Root,
    Item,
    Key,
    Value,
}

/// Where a value stands.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    comments: Option<&'a Comments>,
    role: Role,
    /// Whether the comments before it are written already.
    is_pre_written: bool,
}

impl<'a> Place<'a> {
    fn post(&self) -> Option<&'a Comment> {
        self.comments?.post.as_ref()
    }

    fn pre(&self) -> Option<&'a [Comment]> {
        self.comments?.pre.as_deref()
    }

    fn has_pre(&self) -> bool {
        self.pre().is_some_and(|pre| !pre.is_empty())
    }
}

#[expect(clippy::struct_excessive_bools, reason = "the state is that of ruamel.yaml")]
pub(super) struct Emitter {
    text: String,
    pub(super) column: usize,
    /// Whether the last character was blank.
    pub(super) is_after_blank: bool,
    /// Whether nothing but indent, dashes and `:` is on the line.
    pub(super) is_in_indent: bool,
    /// Whether the next indent stays on the line.
    is_no_newline: bool,
    pub(super) indent: Option<usize>,
    /// The outer indents, and whether each was that of a list.
    indents: Vec<(Option<usize>, bool)>,
    /// The brackets that are open; `None` for a mapping without braces.
    flow: Vec<Option<char>>,
    pub(super) is_open_ended: bool,
}

impl Emitter {
    fn new() -> Self {
        Self {
            text: String::new(),
            column: 0,
            is_after_blank: true,
            is_in_indent: true,
            is_no_newline: false,
            indent: None,
            indents: Vec::new(),
            flow: Vec::new(),
            is_open_ended: false,
        }
    }

    fn node(&mut self, value: &Value, place: Place<'_>) {
        match value {
            Value::Scalar(scalar) => self.scalar(scalar, place),
            Value::List(list) => self.list(list, place),
            Value::Map(map) => self.map(map, place),
        }
    }

    fn scalar(&mut self, scalar: &Scalar, place: Place<'_>) {
        self.increase_indent(true, false, false);
        let is_flow = !self.flow.is_empty();
        let is_key = place.role == Role::Key;
        let mut style = style::choose(scalar, is_flow, is_key);
        let mut text = scalar.text.as_str();
        if scalar.kind == super::Kind::Null && text.is_empty() && style == Style::Single {
            (style, text) = (Style::Plain, "null");
        }
        if place.role == Role::Item && !is_flow {
            self.write_indent();
        }
        match style {
            Style::Plain => self.write_plain(text, !is_key),
            Style::Single => self.write_single(text, !is_key),
            Style::Double => self.write_double(text, !is_key),
            Style::Literal => self.write_literal(text, &scalar.header),
            Style::Folded => self.write_folded(text, &scalar.header),
        }
        if let Some(post) = place.post() {
            let is_block = matches!(style, Style::Literal | Style::Folded);
            let indent = self.indent.unwrap_or(0);
            if is_block && post.column >= indent {
                // Else it would be read as part of the text.
                let column = indent.saturating_sub(1);
                self.write_comment(&Comment { column, text: post.text.clone() }, false);
            } else {
                self.write_comment(post, false);
            }
        }
        self.decrease_indent();
    }

    fn list(&mut self, list: &List, place: Place<'_>) {
        let is_flow = list.layout.is_flow;
        let was_in_indent = self.is_in_indent;
        let mut is_forced = false;
        if place.comments.is_some() {
            if let Some(post) = place.post().filter(|_| !is_flow) {
                self.write_comment(post, false);
                self.is_in_indent = false;
                self.is_no_newline = true;
            }
            let column = self.column;
            if let Some(pre) = place.pre() {
                if !place.is_pre_written {
                    self.write_pre(pre);
                }
                is_forced = is_flow && self.indents.last().is_some_and(|(_, is_list)| !is_list);
                self.is_in_indent = was_in_indent;
                self.is_no_newline = !was_in_indent;
            }
            if is_flow {
                self.column = column;
            }
        }
        if !self.flow.is_empty() || is_flow || list.items.is_empty() {
            self.flow_list(list, place, is_forced);
        } else {
            self.block_list(list, place);
        }
    }

    fn block_list(&mut self, list: &List, place: Place<'_>) {
        let is_indentless = place.role == Role::Value && !self.is_in_indent;
        self.increase_indent(false, true, is_indentless);
        self.settle_nested_list();
        for item in &list.items {
            let comments = item.comments.as_ref();
            let place = Place { comments, role: Role::Item, ..Place::default() };
            if place.has_pre() {
                self.write_pre(place.pre().unwrap_or_default());
            }
            let is_same_line = self.is_no_newline && self.column == 0;
            self.write_indent();
            self.write_indicator("-", true, false, true);
            if is_same_line {
                self.is_no_newline = true;
            }
            self.node(&item.value, Place { is_pre_written: true, ..place });
        }
        self.write_pre(&list.layout.end);
        self.decrease_indent();
        self.is_no_newline = false;
    }

    /// A list that begins on the line of the dash before it goes on there.
    fn settle_nested_list(&mut self) {
        if let [.., (_, true), (_, true)] = self.indents.as_slice() {
            self.is_in_indent = true;
            self.is_no_newline = false;
        }
    }

    fn flow_list(&mut self, list: &List, place: Place<'_>, is_forced: bool) {
        self.open_flow('[', true, is_forced, Some('['));
        self.settle_nested_list();
        for (at, item) in list.items.iter().enumerate() {
            if at > 0 {
                self.write_indicator(",", false, false, false);
            }
            self.break_long_line();
            let comments = item.comments.as_ref();
            self.node(&item.value, Place { comments, role: Role::Item, ..Place::default() });
        }
        self.decrease_indent();
        self.flow.pop();
        self.write_indicator("]", false, false, false);
        self.close_flow(list.items.is_empty(), list.layout.is_flow, place);
    }

    fn map(&mut self, map: &Map, place: Place<'_>) {
        let is_flow = map.layout.is_flow;
        let mut is_forced = false;
        if let Some(post) = place.post().filter(|_| !is_flow) {
            self.write_comment(post, false);
        }
        if place.has_pre() {
            if !place.is_pre_written {
                self.write_pre(place.pre().unwrap_or_default());
            }
            is_forced = is_flow && self.indents.last().is_some_and(|(_, is_list)| !is_list);
        }
        if !self.flow.is_empty() || is_flow || map.entries.is_empty() {
            self.flow_map(map, place, is_forced);
        } else {
            self.block_map(map);
        }
    }

    fn block_map(&mut self, map: &Map) {
        self.increase_indent(false, false, false);
        for entry in &map.entries {
            let key = key_place(entry);
            if key.has_pre() {
                self.write_pre(key.pre().unwrap_or_default());
            }
            self.write_indent();
            self.pair(entry);
        }
        self.write_pre(&map.layout.end);
        self.decrease_indent();
    }

    fn pair(&mut self, entry: &Entry) {
        self.scalar(&entry.key, key_place(entry));
        self.write_indicator(":", false, false, false);
        let comments = entry.comments.as_ref().map(|comments| &comments.value);
        self.node(&entry.value, Place { comments, role: Role::Value, ..Place::default() });
    }

    fn flow_map(&mut self, map: &Map, place: Place<'_>, is_forced: bool) {
        let is_bare = map.entries.len() == 1 && self.flow.last() == Some(&Some('['));
        let bracket = if is_bare { None } else { Some('{') };
        self.open_flow('{', false, is_forced, bracket);
        for (at, entry) in map.entries.iter().enumerate() {
            if at > 0 {
                self.write_indicator(",", false, false, false);
            }
            self.break_long_line();
            self.pair(entry);
        }
        self.decrease_indent();
        self.flow.pop();
        if !is_bare {
            self.write_indicator("}", false, false, false);
        }
        self.close_flow(map.entries.is_empty(), map.layout.is_flow, place);
    }

    fn open_flow(&mut self, open: char, is_list: bool, is_forced: bool, written: Option<char>) {
        if is_forced {
            self.increase_indent(true, is_list, false);
        }
        let blanks = self.flow_align(is_forced);
        let indicator: String = std::iter::repeat_n(' ', blanks).chain(written).collect();
        self.write_indicator(&indicator, true, true, false);
        if !is_forced {
            self.increase_indent(true, is_list, false);
        }
        self.flow.push(written.filter(|written| *written == open));
    }

    /// How many blanks stand before an opening bracket.
    fn flow_align(&self, is_forced: bool) -> usize {
        let Some((base, is_list)) = self.indents.last() else { return 0 };
        if !is_forced && (self.indents.len() < 2 || !is_list) {
            return 0;
        }
        let indent = base.unwrap_or(0) + INDENT;
        if is_forced { indent } else { indent.saturating_sub(self.column + 1) }
    }

    fn break_long_line(&mut self) {
        if self.column > WIDTH {
            self.write_indent();
        }
    }

    fn close_flow(&mut self, is_empty: bool, is_flow: bool, place: Place<'_>) {
        if let Some(post) = place.post().filter(|_| is_flow) {
            self.write_comment(post, false);
        } else if !is_empty {
            self.is_no_newline = false;
        } else if self.flow.is_empty() {
            self.write_line_break('\n');
        }
    }

    fn increase_indent(&mut self, is_flow: bool, is_list: bool, is_indentless: bool) {
        self.indents.push((self.indent, is_list));
        match self.indent {
            None => self.indent = if is_flow { None } else { Some(0) },
            Some(indent) if !is_indentless => self.indent = Some(indent + INDENT),
            Some(_) => {}
        }
    }

    fn decrease_indent(&mut self) {
        self.indent = self.indents.pop().and_then(|(indent, _)| indent);
    }

    /// Writes text that is part of a line.
    pub(super) fn write(&mut self, text: &str) {
        self.column += text.chars().count();
        self.text.push_str(text);
    }

    pub(super) fn write_indicator(
        &mut self,
        indicator: &str,
        needs_blank: bool,
        is_blank: bool,
        is_indent: bool,
    ) {
        if needs_blank && !self.is_after_blank {
            self.write(" ");
        }
        self.write(indicator);
        self.is_after_blank = is_blank;
        self.is_in_indent = self.is_in_indent && is_indent;
        self.is_open_ended = false;
    }

    pub(super) fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        let is_here = self.is_in_indent
            && (self.column < indent || self.column == indent && self.is_after_blank);
        if !is_here {
            if self.is_no_newline {
                self.is_no_newline = false;
            } else {
                self.write_line_break('\n');
            }
        }
        if self.column < indent {
            self.is_after_blank = true;
            self.write(&" ".repeat(indent - self.column));
        }
    }

    pub(super) fn write_line_break(&mut self, c: char) {
        self.text.push(c);
        self.column = 0;
        self.is_after_blank = true;
        self.is_in_indent = true;
    }

    fn write_pre(&mut self, comments: &[Comment]) {
        for comment in comments {
            if self.column != 0 {
                self.write_line_break('\n');
            }
            self.write_comment(comment, true);
        }
    }

    fn write_comment(&mut self, comment: &Comment, is_pre: bool) {
        let mut text = comment.text.as_str();
        if !is_pre {
            text = text.strip_suffix('\n').unwrap_or(text);
        }
        let is_lines = comment.text.starts_with('\n');
        let column = if is_lines { self.column } else { comment.column };
        let mut blanks = column.saturating_sub(self.column);
        if self.column > 0 && blanks == 0 && !text.trim().is_empty() && !text.starts_with('\n') {
            blanks = 1;
        }
        self.text.extend(std::iter::repeat_n(' ', blanks));
        self.text.push_str(text);
        if !is_pre {
            self.write_line_break('\n');
        }
    }
}

fn key_place(entry: &Entry) -> Place<'_> {
    let comments = entry.comments.as_ref().map(|comments| &comments.key);
    Place { comments, role: Role::Key, ..Place::default() }
}
