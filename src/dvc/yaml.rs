//! YAML as DVC reads it: a tree whose scalars keep their text.
//!
//! A reader of DVC's files must take `path: 2024-01-01` and `md5: 0123456789e12345` as written, and
//! must drop one bad entry without losing its neighbours. Both need an untyped tree that has not
//! turned scalars into numbers, so this is built from the parser's events rather than by a
//! deserializer. It is also where the limits are: on the text, on nesting, and on memory
//! including what aliases expand to.

use std::collections::HashMap;

use indexmap::IndexMap;
use indexmap::map::Entry;
use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::dvc::FormatError;

/// Longer texts are refused: a lock file of 32 MiB names some 200,000 outputs.
const TEXT_MAX: usize = 32 << 20;
/// Deeper nesting is refused; DVC's own files nest seven deep.
const DEPTH_MAX: usize = 100;
/// What the tree may take in memory, in bytes, counted as [`NODE_COST`] and text per node.
const COST_MAX: usize = 128 << 20;
const NODE_COST: usize = 64;

/// A mapping in the order of the text.
pub type Map = IndexMap<String, Node>;

/// One value of a YAML text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A string, number, boolean, date or null: its text tells.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Self>),
    /// A mapping; merges (`<<`) are already worked out.
    Map(Map),
}

/// A scalar as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text, unquoted, unescaped and unfolded.
    pub text: String,
    /// Whether it had neither quotes nor a string tag, so that it may be more than a string.
    pub is_plain: bool,
}

impl Scalar {
    /// Whether this is the absent value: nothing, `~` or `null`.
    pub fn is_null(&self) -> bool {
        self.is_plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self.text.as_str() {
            "true" | "True" | "TRUE" if self.is_plain => Some(true),
            "false" | "False" | "FALSE" if self.is_plain => Some(false),
            _ => None,
        }
    }
}

impl Node {
    /// The absent value.
    pub fn null() -> Self {
        Self::plain("")
    }

    /// A scalar without quotes.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::Scalar(Scalar { text: text.into(), is_plain: true })
    }

    /// A string, whatever it looks like.
    pub fn string(text: impl Into<String>) -> Self {
        Self::Scalar(Scalar { text: text.into(), is_plain: false })
    }

    /// Whether this is the absent value.
    pub fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(Scalar::is_null)
    }

    /// The scalar, null included.
    pub fn as_scalar(&self) -> Option<&Scalar> {
        if let Self::Scalar(scalar) = self { Some(scalar) } else { None }
    }

    /// The text of a scalar as written, unless it is null.
    pub fn text(&self) -> Option<&str> {
        self.as_scalar().filter(|scalar| !scalar.is_null()).map(|scalar| scalar.text.as_str())
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        self.as_scalar()?.as_bool()
    }

    /// The number, if it is one without sign, quotes or fraction.
    pub fn as_u64(&self) -> Option<u64> {
        let scalar = self.as_scalar().filter(|scalar| scalar.is_plain)?;
        let is_digits = scalar.text.bytes().all(|byte| byte.is_ascii_digit());
        if is_digits { scalar.text.parse().ok() } else { None }
    }

    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// The sequence, if it is one.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }
}

/// Reads the single document of a text; an empty one is null.
///
/// A byte order mark and `\r\n` are accepted. Duplicate keys, several documents and keys that are
/// not scalars are errors, as they are for DVC.
pub fn parse(bytes: &[u8]) -> Result<Node, FormatError> {
    if bytes.len() > TEXT_MAX {
        return Err(FormatError::TooLarge("over 32 MiB"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| FormatError::NotUtf8 { offset: error.valid_up_to() })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    parse_text(text).map_err(|error| conflict(text).unwrap_or(error))
}

/// The more helpful error for a text that git left in conflict.
fn conflict(text: &str) -> Option<FormatError> {
    let line = text.lines().position(|line| line.starts_with("<<<<<<< "))?;
    Some(FormatError::Conflict { line: line + 1 })
}

fn parse_text(text: &str) -> Result<Node, FormatError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| FormatError::Syntax {
            line: error.marker().line(),
            message: error.info().to_owned(),
        })?;
        builder.line = span.start.line();
        builder.take(event)?;
    }
    Ok(builder.root.unwrap_or_else(Node::null))
}

/// A collection whose end has not come yet.
struct Open {
    content: Content,
    anchor: usize,
    cost_before: usize,
}

enum Content {
    List(Vec<Node>),
    Map { map: Map, key: Option<Scalar>, merged: Vec<Map> },
}

impl Content {
    fn map() -> Self {
        Self::Map { map: Map::new(), key: None, merged: Vec::new() }
    }
}

/// An anchored value and what a copy of it costs.
struct Anchored {
    node: Node,
    cost: usize,
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    cost: usize,
    line: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), FormatError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_string =
                    tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let is_plain = style == ScalarStyle::Plain && !is_string;
                let before = self.cost;
                self.charge(NODE_COST + text.len())?;
                let node = Node::Scalar(Scalar { text: text.into_owned(), is_plain });
                self.finish(node, anchor, before)
            }
            Event::SequenceStart(anchor, _) => self.open(Content::List(Vec::new()), anchor),
            Event::MappingStart(anchor, _) => self.open(Content::map(), anchor),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.copy(anchor),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(FormatError::Shape("more than one document"))
            }
            _ => Ok(()),
        }
    }

    fn charge(&mut self, cost: usize) -> Result<(), FormatError> {
        self.cost += cost;
        if self.cost > COST_MAX {
            return Err(FormatError::TooLarge("expands to over 128 MiB"));
        }
        Ok(())
    }

    fn open(&mut self, content: Content, anchor: usize) -> Result<(), FormatError> {
        if self.open.len() == DEPTH_MAX {
            return Err(FormatError::TooLarge("nested more than 100 deep"));
        }
        let cost_before = self.cost;
        self.charge(NODE_COST)?;
        self.open.push(Open { content, anchor, cost_before });
        Ok(())
    }

    fn close(&mut self) -> Result<(), FormatError> {
        let Some(Open { content, anchor, cost_before }) = self.open.pop() else {
            return Err(self.syntax("unexpected end of a collection"));
        };
        let node = match content {
            Content::List(list) => Node::List(list),
            Content::Map { mut map, merged, .. } => {
                for (key, value) in merged.into_iter().flatten() {
                    map.entry(key).or_insert(value);
                }
                Node::Map(map)
            }
        };
        self.finish(node, anchor, cost_before)
    }

    fn finish(&mut self, node: Node, anchor: usize, before: usize) -> Result<(), FormatError> {
        if anchor != 0 {
            let cost = self.cost - before;
            self.charge(cost)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), cost });
        }
        self.place(node)
    }

    fn copy(&mut self, anchor: usize) -> Result<(), FormatError> {
        let Some(cost) = self.anchors.get(&anchor).map(|anchored| anchored.cost) else {
            return Err(self.syntax("alias of a value that is not complete"));
        };
        // Before the copy is made, so that a refused one is never in memory.
        self.charge(cost)?;
        let node = self.anchors[&anchor].node.clone();
        self.place(node)
    }

    /// Puts a finished value where it belongs: the root, a list, a key or a key's value.
    fn place(&mut self, node: Node) -> Result<(), FormatError> {
        let line = self.line;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(list) => list.push(node),
            Content::Map { map, key, merged } => match key.take() {
                None => *key = Some(as_key(node, line)?),
                Some(key) if key.is_plain && key.text == "<<" => merged.extend(as_merge(node)?),
                Some(key) => match map.entry(key.text) {
                    Entry::Vacant(place) => _ = place.insert(node),
                    Entry::Occupied(place) => {
                        return Err(FormatError::DuplicateKey { key: place.key().clone(), line });
                    }
                },
            },
        }
        Ok(())
    }

    fn syntax(&self, message: &str) -> FormatError {
        FormatError::Syntax { line: self.line, message: message.to_owned() }
    }
}

fn as_key(node: Node, line: usize) -> Result<Scalar, FormatError> {
    match node {
        Node::Scalar(scalar) => Ok(scalar),
        _ => Err(FormatError::Syntax { line, message: "a key that is not a scalar".to_owned() }),
    }
}

/// The mappings that `<<` merges: one, or a list of them of which the earlier win.
fn as_merge(node: Node) -> Result<Vec<Map>, FormatError> {
    let nodes = if let Node::List(nodes) = node { nodes } else { vec![node] };
    nodes
        .into_iter()
        .map(|node| match node {
            Node::Map(map) => Ok(map),
            _ => Err(FormatError::Shape("`<<` merges something that is not a mapping")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map {
        match parse(text.as_bytes()) {
            Ok(Node::Map(map)) => map,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn scalars_keep_their_text() {
        for text in [
            "2024-01-01",
            "123",
            "012",
            "1e10",
            "1_000",
            "0x1F",
            "0o17",
            "1.50",
            ".5",
            "true",
            "yes",
            "12345678901234567890123456789012",
            "0123456789e12345",
            "=",
            "a:b",
            "x#y",
            "12:30:45",
            "back\\slash",
            "-dash",
            "'quoted'",
            "\"quoted\"",
            "!!str tagged",
        ] {
            let bare = text.trim_matches(['\'', '"']).trim_start_matches("!!str ");
            assert_eq!(map(&format!("path: {text}\n"))["path"].text(), Some(bare), "{text}");
        }
    }

    #[test]
    fn quotes_and_string_tags_make_null_a_name() {
        for text in ["null", "~", ""] {
            assert!(map(&format!("path: {text}\n"))["path"].is_null());
            assert_eq!(map(&format!("path: '{text}'\n"))["path"].text(), Some(text));
        }
        assert_eq!(map("path: !!str null\n")["path"].text(), Some("null"));
    }

    #[test]
    fn folded_plain_and_quoted_scalars_are_joined() {
        let plain = "path: \n    wwww\n    word \n    xxxx.txt\n";
        assert_eq!(map(plain)["path"].text(), Some("wwww word xxxx.txt"));
        assert_eq!(map("path: 'a\n  b'\n")["path"].text(), Some("a b"));
        assert_eq!(
            map("path: \"a\\tb\\n\\e\\x7F\\uFEFF\"\n")["path"].text(),
            Some("a\tb\n\u{1b}\x7f\u{feff}")
        );
    }

    #[test]
    fn byte_order_mark_and_crlf_are_accepted() {
        assert_eq!(map("\u{feff}a: 1\r\nb: x\r\n")["b"].text(), Some("x"));
    }

    #[test]
    fn merges_give_way_to_own_keys_and_to_earlier_ones() {
        let text = "- &a {x: 1, y: 1}\n- &b {y: 2, z: 2}\n- {z: own, <<: [*a, *b]}\n";
        let list = parse(text.as_bytes()).unwrap();
        let merged = list.as_list().unwrap()[2].as_map().unwrap();
        assert_eq!(merged["x"].text(), Some("1"));
        assert_eq!(merged["y"].text(), Some("1"));
        assert_eq!(merged["z"].text(), Some("own"));
    }

    #[test]
    fn an_empty_text_is_null() {
        for text in ["", "# only a comment\n", "---\n", "\u{feff}"] {
            assert!(parse(text.as_bytes()).unwrap().is_null(), "{text:?}");
        }
    }

    #[test]
    fn what_dvc_refuses_is_refused() {
        assert!(matches!(parse(b"a: \xe9"), Err(FormatError::NotUtf8 { offset: 3 })));
        assert!(matches!(parse(b"a: 1\na: 2\n"), Err(FormatError::DuplicateKey { line: 2, .. })));
        assert!(matches!(parse(b"a: 1\n---\nb: 2\n"), Err(FormatError::Shape(_))));
        assert!(matches!(parse(b"cmd: [\n"), Err(FormatError::Syntax { .. })));
        let conflict = b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n";
        assert_eq!(parse(conflict), Err(FormatError::Conflict { line: 1 }));
    }

    #[test]
    fn an_alias_bomb_is_stopped() {
        let mut text = "a0: &a0 [lol, lol]\n".to_owned();
        for i in 1..40 {
            text = format!("{text}a{i}: &a{i} [*a{j}, *a{j}, *a{j}]\n", j = i - 1);
        }
        assert!(matches!(parse(text.as_bytes()), Err(FormatError::TooLarge(_))));
    }

    #[test]
    fn deep_nesting_and_recursive_aliases_are_stopped() {
        for deep in ["[".repeat(5000), "? ".repeat(5000), "- ".repeat(5000)] {
            assert!(parse(deep.as_bytes()).is_err(), "{deep:.10}");
        }
        assert!(parse(b"a: &a [*a]\n").is_err());
        assert!(parse(b"a: *missing\n").is_err());
    }

    #[test]
    fn numbers_with_sign_or_quotes_are_no_sizes() {
        let node = map("a: 5\nb: -5\nc: '5'\nd: 5.0\ne: 99999999999999999999999\n");
        assert_eq!(node["a"].as_u64(), Some(5));
        for key in ["b", "c", "d", "e"] {
            assert_eq!(node[key].as_u64(), None, "{key}");
        }
    }
}
