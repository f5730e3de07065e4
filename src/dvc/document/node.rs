//! Values with the comments that belong to them.

use super::kind::Kind;

/// A comment with what follows it, down to the next value: `# text\n`, blank lines, more comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comment {
    pub(super) text: String,
    /// Where it began.
    pub(super) column: usize,
}

/// The comments of one value or key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Comments {
    /// What follows it.
    pub(super) post: Option<Comment>,
    /// What stands before it; an empty list and none at all are written differently.
    pub(super) pre: Option<Vec<Comment>>,
}

/// How a scalar is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalarStyle {
    /// Plain if that is possible, else in quotes.
    Any,
    /// Line by line, behind `|`.
    Literal,
    /// Line by line and folded, behind `>`; `\u{7}` in the text marks the folds.
    Folded,
}

/// A string, number, truth value, date or null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// The text of a string; of anything else the text that is written for it.
    pub(super) text: String,
    pub(super) kind: Kind,
    pub(super) style: ScalarStyle,
    /// What stands behind the `|` or `>`.
    pub(super) header: String,
}

impl Scalar {
    /// A string.
    pub fn string(text: impl Into<String>) -> Self {
        Self::new(text.into(), Kind::String)
    }

    /// A whole number.
    pub fn number(value: u64) -> Self {
        Self::new(value.to_string(), Kind::Integer)
    }

    /// A truth value.
    pub fn boolean(value: bool) -> Self {
        Self::new(value.to_string(), Kind::Boolean)
    }

    /// The absent value.
    pub fn null() -> Self {
        Self::new(String::new(), Kind::Null)
    }

    pub(super) fn new(text: String, kind: Kind) -> Self {
        Self { text, kind, style: ScalarStyle::Any, header: String::new() }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        (self.kind == Kind::String).then_some(self.text.as_str())
    }

    /// The text that is written for it, but for quotes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What kind of value this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

/// One value of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string, number, truth value, date or null.
    Scalar(Scalar),
    /// A sequence.
    List(List),
    /// A mapping.
    Map(Map),
}

impl Value {
    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// The mapping, if it is one.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// The sequence, if it is one.
    pub fn as_list_mut(&mut self) -> Option<&mut List> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// The scalar, if it is one.
    pub fn as_scalar(&self) -> Option<&Scalar> {
        if let Self::Scalar(scalar) = self { Some(scalar) } else { None }
    }

    fn replace(&mut self, value: Self) {
        match (self, value) {
            (Self::Scalar(old), Self::Scalar(new))
                if old.kind == Kind::String && new.kind == Kind::String =>
            {
                old.text = new.text;
            }
            (old, value) => *old = value,
        }
    }

    /// The same value as if it were new: without comments, within no brackets.
    #[must_use]
    pub fn plain(&self) -> Self {
        match self {
            Self::Scalar(scalar) => {
                let text = scalar.text.replace('\u{7}', "");
                let is_block = scalar.style != ScalarStyle::Any;
                let text = if is_block { text } else { scalar.text.clone() };
                Self::Scalar(Scalar::new(text, scalar.kind))
            }
            Self::List(list) => {
                let mut plain = List::default();
                plain.replace(list.iter().map(Self::plain));
                Self::List(plain)
            }
            Self::Map(map) => {
                let entries = map.entries.iter().map(|entry| Entry {
                    key: entry.key.clone(),
                    value: entry.value.plain(),
                    comments: None,
                });
                Self::Map(Map { layout: Layout::default(), entries: entries.collect() })
            }
        }
    }

    /// Whether Python takes it for false: null, an empty string or collection, zero, `false`.
    pub fn is_falsy(&self) -> bool {
        match self {
            Self::Scalar(scalar) => match scalar.kind {
                Kind::Null => true,
                Kind::String => scalar.text.is_empty(),
                Kind::Boolean => scalar.text == "false",
                Kind::Integer | Kind::Float => !scalar.text.contains(|c| ('1'..='9').contains(&c)),
                Kind::Date => false,
            },
            Self::List(list) => list.items.is_empty(),
            Self::Map(map) => map.entries.is_empty(),
        }
    }
}

/// What lists and mappings have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Whether it is written within brackets.
    pub(super) is_flow: bool,
    /// Its own comments, unless they are those of the place it stands at.
    pub(super) comments: Option<Comments>,
    /// What stands after its last value.
    pub(super) end: Vec<Comment>,
}

/// A sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    pub(super) layout: Layout,
    pub(super) items: Vec<Item>,
}

/// A value of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Value,
    /// The comments of the place it stands at.
    pub(super) comments: Option<Comments>,
}

impl List {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.items.iter().map(|item| &item.value)
    }

    /// The values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.items.iter_mut().map(|item| &mut item.value)
    }

    /// Puts other values in the place of all; comments between the old ones go with them.
    pub fn replace(&mut self, values: impl IntoIterator<Item = Value>) {
        self.items = values.into_iter().map(|value| Item { value, comments: None }).collect();
    }
}

/// A mapping, in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map {
    pub(super) layout: Layout,
    pub(super) entries: Vec<Entry>,
}

/// A key of a mapping and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Scalar,
    pub(super) value: Value,
    /// The comments of the key and of the place the value stands at; nothing if there are none.
    pub(super) comments: Option<Box<EntryComments>>,
}

/// The comments of one entry of a mapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EntryComments {
    pub(super) key: Comments,
    pub(super) value: Comments,
}

impl Map {
    /// The value of a key that is a string.
    pub fn get(&self, key: &str) -> Option<&Value> {
        Some(&self.entries.iter().find(|entry| entry.key.as_str() == Some(key))?.value)
    }

    /// The value of a key that is a string.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        Some(&mut self.entries.iter_mut().find(|entry| entry.key.as_str() == Some(key))?.value)
    }

    /// The keys that are strings.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.key.as_str())
    }

    /// Gives a key a value: in its place if it is there, else at the end. A text that is written
    /// line by line stays so.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.get_mut(key) {
            Some(old) => old.replace(value),
            None => {
                self.entries.push(Entry { key: Scalar::string(key), value, comments: None });
            }
        }
    }

    /// Takes a key away, with the comments behind it.
    pub fn remove(&mut self, key: &str) {
        self.entries.retain(|entry| entry.key.as_str() != Some(key));
    }
}
