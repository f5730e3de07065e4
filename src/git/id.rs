//! Names of git objects, one type for each use.

use std::fmt;

/// Names any git object, most often the content of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GitId(pub [u8; 20]);

impl GitId {
    /// Parses exactly 40 hex digits, in either case as git does.
    pub fn parse(text: &str) -> Option<Self> {
        let is_whole = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_whole.then(|| git2::Oid::from_str(text).ok()).flatten().map(Self::from)
    }

    pub(super) fn oid(self) -> git2::Oid {
        git2::Oid::from_bytes(&self.0).expect("20 bytes are an object id")
    }
}

impl From<git2::Oid> for GitId {
    fn from(oid: git2::Oid) -> Self {
        let mut bytes = [0; 20];
        bytes.copy_from_slice(&oid.as_bytes()[..20]);
        Self(bytes)
    }
}

impl fmt::Display for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for GitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! kinds_of_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub GitId);

        impl $name {
            /// Parses exactly 40 hex digits, in either case as git does.
            pub fn parse(text: &str) -> Option<Self> {
                GitId::parse(text).map(Self)
            }
        }

        impl From<git2::Oid> for $name {
            fn from(oid: git2::Oid) -> Self {
                Self(oid.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

kinds_of_id! {
    /// Names a commit.
    CommitId;
    /// Names a folder's listing within a commit.
    GitTreeId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forty_hex_digits() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(GitId::parse(text).unwrap().to_string(), text);
        assert_eq!(GitId::parse(&text.to_uppercase()).unwrap().to_string(), text);
        for bad in ["", "main", &text[1..], "é123456789abcdef0123456789abcdef012345678"] {
            assert_eq!(GitId::parse(bad), None, "{bad}");
        }
    }
}
