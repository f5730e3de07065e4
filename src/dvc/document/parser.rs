//! From tokens to values, with the comments where they belong.
//!
//! ruamel.yaml does this in three passes (events, nodes, objects) that hand comments on. The order
//! of `peek` and `next` below is that of its first pass; what the others do to the comments is done
//! at once.

use super::DocumentError;
use super::kind::{self, Kind};
use super::node::{Comments, Entry, EntryComments, Item, Layout, List, Map, Scalar, Value};
use super::scanner::Scanner;
use super::token::{Slots, Token, TokenKind};

/// Deeper nesting is refused, as it is by [`yaml::parse`](crate::dvc::yaml::parse).
const DEPTH_MAX: usize = 100;
/// Longer keys would be written behind a `?`.
const KEY_MAX: usize = 128;

pub(super) fn parse(text: &str) -> Result<Value, DocumentError> {
    let mut parser = Parser { scanner: Scanner::new(text), depth: 0 };
    let start = parser.scanner.next()?;
    parser.move_slots(start.slots, false)?;
    if let TokenKind::DocumentStart = parser.peek()? {
        parser.scanner.next()?;
    }
    if let TokenKind::StreamEnd | TokenKind::DocumentEnd = parser.peek()? {
        return Err(parser.scanner.unsupported("an empty document"));
    }
    let Node { value, slots, .. } = parser.block_node(false)?;
    if let TokenKind::DocumentEnd = parser.peek()? {
        parser.scanner.next()?;
    }
    match parser.peek()? {
        TokenKind::StreamEnd => Ok(with_own_comments(value, slots)),
        _ => Err(parser.scanner.unsupported("more than one document")),
    }
}

struct Parser {
    scanner: Scanner,
    depth: usize,
}

/// A value, with its comments still beside it.
struct Node {
    value: Value,
    slots: Option<Slots>,
}

impl Node {
    fn empty(slots: Option<Slots>) -> Self {
        Self { value: Value::Scalar(Scalar::null()), slots }
    }
}

impl Parser {
    fn peek(&mut self) -> Result<&TokenKind, DocumentError> {
        Ok(&self.scanner.peek()?.kind)
    }

    fn is_entry(&mut self) -> Result<bool, DocumentError> {
        Ok(matches!(self.peek()?, TokenKind::BlockEntry))
    }

    /// Hands the comments of a token that was taken on to the next one.
    fn move_slots(&mut self, slots: Option<Slots>, is_of_key: bool) -> Result<(), DocumentError> {
        let error = self.scanner.unsupported("comments in this place");
        let target = self.scanner.peek()?;
        let Some(mut slots) = slots else { return Ok(()) };
        if let TokenKind::StreamEnd | TokenKind::DocumentStart = target.kind {
            return Ok(());
        }
        let Some(old) = &mut target.slots else {
            slots.is_of_key |= is_of_key;
            target.slots = Some(slots);
            return Ok(());
        };
        match (&mut slots.pre, &old.pre) {
            (Some(pre), Some(after)) => pre.extend_from_slice(after),
            _ if slots.post.is_some() && old.post.is_some() => return Err(error),
            _ => {}
        }
        old.post = slots.post.or_else(|| old.post.take());
        old.pre = slots.pre.or_else(|| old.pre.take());
        Ok(())
    }

    fn block_node(&mut self, may_be_indentless: bool) -> Result<Node, DocumentError> {
        self.deeper(|parser| {
            if may_be_indentless && parser.is_entry()? {
                return parser.indentless_list();
            }
            match parser.peek()? {
                TokenKind::BlockListStart => parser.block_list(),
                TokenKind::BlockMapStart => parser.block_map(),
                _ => parser.flow_content(),
            }
        })
    }

    fn flow_node(&mut self) -> Result<Node, DocumentError> {
        self.deeper(Self::flow_content)
    }

    fn flow_content(&mut self) -> Result<Node, DocumentError> {
        match self.peek()? {
            TokenKind::Scalar { .. } => self.scalar(),
            TokenKind::FlowListStart => self.flow_list(),
            TokenKind::FlowMapStart => self.flow_map(),
            _ => Err(self.scanner.syntax("a value is missing")),
        }
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DocumentError>,
    ) -> Result<T, DocumentError> {
        if self.depth == DEPTH_MAX {
            return Err(self.scanner.unsupported("such deep nesting"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn scalar(&mut self) -> Result<Node, DocumentError> {
        let token = self.scanner.next()?;
        let line = token.start.line + 1;
        let Token { kind: TokenKind::Scalar { text, is_plain, style, header }, slots, .. } = token
        else {
            return Err(self.scanner.syntax("a value is missing"));
        };
        let unsupported = |what| DocumentError::Unsupported { line, what };
        let mut scalar = if is_plain {
            let kind = kind::plain(&text).ok_or(unsupported("`<<` and `=`"))?;
            let text = kind::rewritten(&text, kind);
            Scalar::new(text.ok_or(unsupported("numbers and dates in this notation"))?, kind)
        } else {
            Scalar::new(text, Kind::String)
        };
        scalar.style = style;
        scalar.header = header;
        Ok(Node { value: Value::Scalar(scalar), slots })
    }

    /// A list below a key whose dashes are not indented.
    fn indentless_list(&mut self) -> Result<Node, DocumentError> {
        let first = self.scanner.peek()?;
        let mut slots = None;
        if let Some(of_first) = &mut first.slots {
            if let Some(post) = of_first.post.take() {
                slots = Some(Slots { post: Some(post), pre: Some(Vec::new()), ..Slots::default() });
            } else if let Some(pre) = of_first.pre.take_if(|pre| !pre.is_empty()) {
                slots = Some(Slots { pre: Some(pre), ..Slots::default() });
            }
        }
        let mut items = Vec::new();
        while self.is_entry()? {
            let token = self.scanner.next()?;
            self.move_slots(token.slots, false)?;
            items.push(match self.peek()? {
                TokenKind::BlockEntry | TokenKind::Key | TokenKind::Value | TokenKind::BlockEnd => {
                    Node::empty(None)
                }
                _ => self.block_node(false)?,
            });
        }
        let next = self.scanner.peek()?;
        // The comments stay with the next token, but for those before it.
        let end = next.slots.as_mut().and_then(|slots| slots.pre.take());
        add_end(&mut slots, end);
        Ok(list(items, slots, false))
    }

    fn block_list(&mut self) -> Result<Node, DocumentError> {
        let token = self.scanner.peek()?;
        // The comment behind the key is the list's own; others go to its first entry.
        let has_pre = token.slots.as_ref().is_some_and(|slots| slots.pre.is_some());
        let mut slots = if has_pre {
            token.slots.clone()
        } else {
            let post = token.slots.take().and_then(|slots| slots.post);
            post.map(|post| Slots { post: Some(post), ..Slots::default() })
        };
        self.scanner.next()?;
        let mut items = Vec::new();
        while self.is_entry()? {
            let token = self.scanner.next()?;
            self.move_slots(token.slots, false)?;
            items.push(match self.peek()? {
                TokenKind::BlockEntry | TokenKind::BlockEnd => Node::empty(None),
                _ => self.block_node(false)?,
            });
        }
        let end = self.block_end()?;
        add_end(&mut slots, end.and_then(|slots| slots.pre));
        Ok(list(items, slots, false))
    }

    fn block_end(&mut self) -> Result<Option<Slots>, DocumentError> {
        match self.peek()? {
            TokenKind::BlockEnd => Ok(self.scanner.next()?.slots),
            _ => Err(self.scanner.syntax("wrong indent")),
        }
    }

    fn block_map(&mut self) -> Result<Node, DocumentError> {
        let mut slots = self.scanner.next()?.slots;
        let mut entries = Vec::new();
        while let TokenKind::Key = self.peek()? {
            let token = self.scanner.next()?;
            self.move_slots(token.slots, false)?;
            let key = match self.peek()? {
                TokenKind::Key | TokenKind::Value | TokenKind::BlockEnd => Node::empty(None),
                _ => self.block_node(true)?,
            };
            entries.push((key, self.block_value()?));
        }
        let mut end = self.block_end()?;
        // To the end of the outer collection, unless the text ends here.
        let is_last = matches!(self.peek()?, TokenKind::StreamEnd | TokenKind::DocumentStart);
        if !is_last {
            self.move_slots(end.take(), false)?;
        }
        add_end(&mut slots, end.and_then(|slots| slots.pre));
        self.map(entries, slots, false)
    }

    fn block_value(&mut self) -> Result<Node, DocumentError> {
        if !matches!(self.peek()?, TokenKind::Value) {
            return Ok(Node::empty(None));
        }
        let mut token = self.scanner.next()?;
        if !matches!(self.peek()?, TokenKind::Key) {
            let is_last = matches!(self.peek()?, TokenKind::StreamEnd | TokenKind::DocumentStart);
            if !is_last {
                self.move_slots(token.slots.take(), true)?;
            }
        }
        match self.peek()? {
            TokenKind::Key | TokenKind::Value | TokenKind::BlockEnd => {}
            _ => return self.block_node(true),
        }
        if token.slots.is_none() {
            let of_next = &mut self.scanner.peek()?.slots;
            token.slots = of_next.as_mut().map(|slots| {
                slots.is_of_key = false;
                Slots { post: slots.post.take(), ..Slots::default() }
            });
        }
        Ok(Node::empty(token.slots))
    }

    fn flow_list(&mut self) -> Result<Node, DocumentError> {
        let slots = self.scanner.next()?.slots;
        let mut items = Vec::new();
        while !matches!(self.peek()?, TokenKind::FlowListEnd) {
            if !items.is_empty() {
                self.flow_entry()?;
            }
            match self.peek()? {
                TokenKind::Key => items.push(self.deeper(Self::single_pair)?),
                TokenKind::FlowListEnd => break,
                _ => items.push(self.flow_node()?),
            }
        }
        let end = self.scanner.next()?.slots;
        Ok(list(items, flow_slots(slots, end), true))
    }

    fn flow_entry(&mut self) -> Result<(), DocumentError> {
        match self.peek()? {
            TokenKind::FlowEntry => self.scanner.next().map(drop),
            _ => Err(self.scanner.syntax("`,` or a closing bracket is missing")),
        }
    }

    /// A mapping of one key without braces, in a list.
    fn single_pair(&mut self) -> Result<Node, DocumentError> {
        self.scanner.next()?;
        let key = self.flow_node()?;
        let value = self.flow_value()?;
        self.map(vec![(key, value)], None, true)
    }

    fn flow_map(&mut self) -> Result<Node, DocumentError> {
        let slots = self.scanner.next()?.slots;
        let mut entries = Vec::new();
        while !matches!(self.peek()?, TokenKind::FlowMapEnd) {
            if !entries.is_empty() {
                self.flow_entry()?;
            }
            match self.peek()? {
                TokenKind::Key => {
                    self.scanner.next()?;
                    let key = self.flow_node()?;
                    entries.push((key, self.flow_value()?));
                }
                TokenKind::FlowMapEnd => break,
                _ => entries.push((self.flow_node()?, Node::empty(None))),
            }
        }
        let end = self.scanner.next()?.slots;
        self.map(entries, flow_slots(slots, end), true)
    }

    fn flow_value(&mut self) -> Result<Node, DocumentError> {
        if !matches!(self.peek()?, TokenKind::Value) {
            return Ok(Node::empty(None));
        }
        self.scanner.next()?;
        match self.peek()? {
            TokenKind::FlowEntry | TokenKind::FlowListEnd | TokenKind::FlowMapEnd => {
                Ok(Node::empty(None))
            }
            _ => self.flow_node(),
        }
    }

    fn map(
        &self,
        pairs: Vec<(Node, Node)>,
        slots: Option<Slots>,
        is_flow: bool,
    ) -> Result<Node, DocumentError> {
        let mut map = Map { layout: Layout { is_flow, ..Layout::default() }, entries: Vec::new() };
        for (key, value) in pairs {
            let Value::Scalar(scalar) = key.value else {
                return Err(self.scanner.unsupported("keys that are not scalars"));
            };
            let is_line = !scalar.text.contains(super::chars::is_break);
            if scalar.text.chars().count() >= KEY_MAX || !is_line || scalar.kind == Kind::Null {
                return Err(self.scanner.unsupported("such keys"));
            }
            let comments = (key.slots.is_some() || value.slots.is_some()).then(|| {
                Box::new(EntryComments {
                    key: comments(key.slots.as_ref()),
                    value: comments(value.slots.as_ref()),
                })
            });
            // Those of the value stand with its key as well, so that they outlive it.
            let value = with_own_comments(value.value, value.slots);
            map.entries.push(Entry { key: scalar, value, comments });
        }
        Ok(Node { value: Value::Map(map), slots })
    }
}

/// In brackets, what stands behind the last one counts.
fn flow_slots(start: Option<Slots>, end: Option<Slots>) -> Option<Slots> {
    let Some(mut slots) = end else { return start };
    slots.end = slots.pre.take();
    Some(slots)
}

fn add_end(slots: &mut Option<Slots>, end: Option<Vec<super::node::Comment>>) {
    let Some(end) = end.filter(|end| !end.is_empty()) else { return };
    let slots = slots.get_or_insert_default();
    if !slots.is_of_key {
        slots.end = Some(end);
    }
}

fn comments(slots: Option<&Slots>) -> Comments {
    slots.map_or_else(Comments::default, |slots| Comments {
        post: slots.post.clone(),
        pre: slots.pre.clone(),
    })
}

/// Gives a collection its comments. A scalar has none but those of its place.
fn with_own_comments(mut value: Value, slots: Option<Slots>) -> Value {
    let layout = match &mut value {
        Value::Scalar(_) => return value,
        Value::List(list) => &mut list.layout,
        Value::Map(map) => &mut map.layout,
    };
    if let Some(slots) = slots {
        layout.comments = Some(comments(Some(&slots)));
        layout.end = slots.end.unwrap_or_default();
    }
    value
}

fn list(nodes: Vec<Node>, slots: Option<Slots>, is_flow: bool) -> Node {
    let layout = Layout { is_flow, ..Layout::default() };
    // An item's comments stand with its place only, so that what stands after its end is lost, and
    // what stands behind a `|`.
    let items = nodes.into_iter().map(|mut node| {
        if let Value::Scalar(scalar) = &mut node.value {
            scalar.header.clear();
        }
        let comments = node.slots.as_ref().map(|slots| comments(Some(slots)));
        Item { value: node.value, comments }
    });
    Node { value: Value::List(List { layout, items: items.collect() }), slots }
}
