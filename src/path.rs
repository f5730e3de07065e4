//! Names and relative paths, checked once at the border.
//!
//! Git names are bytes, so these are too; they are never normalised.

use std::{
    borrow::Borrow,
    fmt,
    ops::{Bound, RangeBounds},
};

/// The longest component Linux can show.
pub const NAME_MAX: usize = 255;

/// Why a text is not a usable name or path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An empty component.
    #[error("empty name")]
    Empty,
    /// `.` or `..` where a name is wanted.
    #[error("the name is `.` or `..`")]
    Dots,
    /// A slash in a single name.
    #[error("slash in a name")]
    Slash,
    /// A NUL byte.
    #[error("NUL byte in a name")]
    Nul,
    /// A component over [`NAME_MAX`] bytes.
    #[error("name longer than 255 bytes")]
    TooLong,
    /// An absolute path or a URL.
    #[error("absolute path")]
    Absolute,
    /// A path that leads above the root.
    #[error("path leads outside the repository")]
    Escapes,
}

/// One component of a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks and takes a name.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        check_name(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

/// Checks that `bytes` can be one component of a path.
pub fn check_name(bytes: &[u8]) -> Result<(), PathError> {
    match bytes {
        b"" => Err(PathError::Empty),
        b"." | b".." => Err(PathError::Dots),
        _ if bytes.len() > NAME_MAX => Err(PathError::TooLong),
        _ if bytes.contains(&b'/') => Err(PathError::Slash),
        _ if bytes.contains(&0) => Err(PathError::Nul),
        _ => Ok(()),
    }
}

/// A path relative to the repository's root; the root itself is empty.
///
/// Components are joined by `/` and each passed [`check_name`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RepoPath(Vec<u8>);

impl RepoPath {
    /// The repository's root.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Takes a path whose every component must be a plain name (no `.`, `..`, doubled slash).
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes[0] == b'/' {
            return Err(PathError::Absolute);
        }
        bytes.split(|b| *b == b'/').try_for_each(check_name)?;
        Ok(Self(bytes.into()))
    }

    /// Resolves `text` lexically from `self`, as DVC does with the paths in its files: `.`,
    /// doubled slashes and `..` are worked out, leaving the root is an error.
    pub fn resolve(&self, text: &[u8]) -> Result<Self, PathError> {
        if text.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        let mut path = self.clone();
        for component in text.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path = path.parent().ok_or(PathError::Escapes)?,
                name => {
                    check_name(name)?;
                    path.push(name);
                }
            }
        }
        Ok(path)
    }

    /// The path of a child.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut path = self.clone();
        path.push(name.as_bytes());
        path
    }

    fn push(&mut self, name: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }

    /// The folder that holds this, or nothing for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// The folders that this lies in, from its parent up to the root; none for the root.
    pub fn folders(&self) -> impl Iterator<Item = Self> + use<> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// Where a sorted collection has what lies below this folder.
    pub fn below(&self) -> Below {
        /// What follows a slash in the order of bytes.
        const AFTER_SLASH: u8 = b'/' + 1;
        if self.is_root() {
            return Below { from: Vec::new(), to: None };
        }
        let with = |last| [&self.0[..], &[last]].concat();
        Below { from: with(b'/'), to: Some(with(AFTER_SLASH)) }
    }

    /// The last component, or nothing for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().last()
    }

    /// Whether this is the repository's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// What remains of this path below `ancestor`; empty if they are equal, nothing if it is not
    /// an ancestor.
    pub fn strip_prefix(&self, ancestor: &Self) -> Option<&[u8]> {
        if ancestor.is_root() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(ancestor.0.as_slice())?;
        match rest.first() {
            None => Some(rest),
            Some(b'/') => Some(&rest[1..]),
            Some(_) => None,
        }
    }

    /// The path's bytes, joined by `/`, without one at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The paths below a folder; below the root also the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl RangeBounds<[u8]> for Below {
    fn start_bound(&self) -> Bound<&[u8]> {
        Bound::Included(&self.from)
    }

    fn end_bound(&self) -> Bound<&[u8]> {
        self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded)
    }
}

/// Paths are ordered as their bytes are.
impl Borrow<[u8]> for RepoPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        f.write_str(&escape(&self.0))
    }
}

/// Makes bytes safe to print on a terminal or in a log: control characters, bidirectional
/// overrides and bytes that are not UTF-8 come out as escapes, all else unchanged.
pub fn escape(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let is_bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}'
                | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || is_bidi {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RepoPath {
        RepoPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn resolve_works_out_dots_and_stops_at_the_root() {
        let base = path("dvc_files/deep");
        assert_eq!(base.resolve(b"../../sounds//./a.wav").unwrap(), path("sounds/a.wav"));
        assert_eq!(base.resolve(b"../..").unwrap(), RepoPath::root());
        assert_eq!(base.resolve(b"../../../x"), Err(PathError::Escapes));
        assert_eq!(base.resolve(b"/abs"), Err(PathError::Absolute));
        assert_eq!(base.resolve(b"a\0b"), Err(PathError::Nul));
    }

    #[test]
    fn what_lies_below_a_folder_is_told_from_what_is_beside_it() {
        let paths: std::collections::BTreeSet<_> =
            ["a", "a-b", "a/b", "a/b/c", "a0", "b"].map(path).into();
        let below = |folder: &RepoPath| -> Vec<_> {
            paths.range::<[u8], _>(folder.below()).map(ToString::to_string).collect()
        };
        assert_eq!(below(&path("a")), ["a/b", "a/b/c"]);
        assert_eq!(below(&path("b")), Vec::<String>::new());
        assert_eq!(below(&RepoPath::root()).len(), 6);
        let folders: Vec<_> = path("a/b/c").folders().map(|folder| folder.to_string()).collect();
        assert_eq!(folders, ["a/b", "a", "."]);
        assert_eq!(RepoPath::root().folders().count(), 0);
    }

    #[test]
    fn names_are_one_component_of_at_most_255_bytes() {
        assert!(Name::new(&[b'n'; 255]).is_ok());
        assert_eq!(Name::new(&[b'n'; 256]), Err(PathError::TooLong));
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert!(Name::new(bad).is_err());
        }
        assert!(Name::new(b"\xff line\n").is_ok());
    }

    #[test]
    fn strip_prefix_respects_component_borders() {
        assert_eq!(path("a/bc").strip_prefix(&path("a/b")), None);
        assert_eq!(path("a/b/c").strip_prefix(&path("a/b")), Some(&b"c"[..]));
        assert_eq!(path("a").strip_prefix(&path("a")), Some(&b""[..]));
        assert_eq!(path("a").strip_prefix(&RepoPath::root()), Some(&b"a"[..]));
    }

    #[test]
    fn printing_escapes_what_could_deceive_a_terminal() {
        assert_eq!(escape("ü\n\u{1b}[2J\u{202e}x".as_bytes()), "ü\\n\\u{1b}[2J\\u{202e}x");
        assert_eq!(escape(b"b\xff"), "b\\xff");
    }
}
