//! Colours of names, from `LS_COLORS` as DVC reads it.

use std::collections::HashMap;

use super::Entry;

/// What stands in when `LS_COLORS` is empty.
const DEFAULT: &str = "rs=0:di=01;34:ex=01;32";

/// Which code paints which name.
#[derive(Debug)]
pub(super) struct Colors {
    by_kind: HashMap<String, String>,
    by_extension: HashMap<Vec<u8>, String>,
}

impl Colors {
    /// Reads a value of `LS_COLORS`; what makes no sense is left out.
    pub(super) fn new(text: &str) -> Self {
        let text = if text.is_empty() { DEFAULT } else { text };
        let mut colors = Self { by_kind: HashMap::new(), by_extension: HashMap::new() };
        for (what, code) in text.split(':').filter_map(|item| item.split_once('=')) {
            if what.starts_with("*.") {
                colors.by_extension.insert(what.as_bytes()[1..].to_vec(), code.to_owned());
            } else {
                colors.by_kind.insert(what.to_owned(), code.to_owned());
            }
        }
        colors
    }

    /// Paints the name of an entry.
    pub(super) fn paint(&self, entry: &Entry, name: Vec<u8>) -> Vec<u8> {
        let code = match () {
            () if entry.is_out && self.by_kind.contains_key("out") => self.by_kind.get("out"),
            () if entry.is_folder => self.by_kind.get("di"),
            () if entry.is_exec => self.by_kind.get("ex"),
            () => self.by_extension.get(extension(&entry.name)),
        };
        let Some(code) = code.filter(|code| !code.is_empty()) else { return name };
        let reset = self.by_kind.get("rs").map_or("0", String::as_str);
        [b"\x1b[", code.as_bytes(), b"m", &name, b"\x1b[", reset.as_bytes(), b"m"].concat()
    }
}

/// From the last dot of the last component; a name that begins with its only dot is all extension
/// if it stands alone.
fn extension(path: &[u8]) -> &[u8] {
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let name = &path[start..];
    let dots = name.iter().take_while(|byte| **byte == b'.').count();
    match name[dots..].iter().rposition(|byte| *byte == b'.') {
        Some(dot) => &name[dots + dot..],
        None if path.starts_with(b".") => path,
        None => b"",
    }
}

/// Takes colours out again, for an output that is no terminal.
pub(super) fn strip(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = memchr::memchr(0x1b, rest) {
        let (before, sequence) = rest.split_at(start);
        plain.extend_from_slice(before);
        let length = sequence_len(sequence);
        plain.extend_from_slice(&sequence[..usize::from(length.is_none())]);
        rest = &sequence[length.unwrap_or(1)..];
    }
    plain.extend_from_slice(rest);
    plain
}

/// The length of the control sequence that begins here.
fn sequence_len(text: &[u8]) -> Option<usize> {
    let parameters = text.strip_prefix(b"\x1b[")?;
    let count = parameters.iter().take_while(|b| b.is_ascii_digit() || **b == b';').count();
    parameters.get(count)?.is_ascii_alphabetic().then_some(count + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry {
            name: name.into(),
            depth: 1,
            is_out: false,
            is_folder: false,
            is_exec: false,
            size: None,
            hash: None,
            blob: None,
        }
    }

    fn painted(colors: &str, entry: &Entry) -> String {
        String::from_utf8(Colors::new(colors).paint(entry, entry.name.clone())).unwrap()
    }

    #[test]
    fn folders_and_programs_have_colours_without_settings() {
        let folder = Entry { is_folder: true, is_out: true, ..entry("d") };
        assert_eq!(painted("", &folder), "\x1b[01;34md\x1b[0m");
        assert_eq!(painted("", &Entry { is_exec: true, ..entry("x") }), "\x1b[01;32mx\x1b[0m");
        assert_eq!(painted("", &entry("a.wav")), "a.wav");
    }

    #[test]
    fn outputs_and_extensions_have_those_of_the_settings() {
        let colors = "out=1:di=2:*.wav=3:*.gitignore=4:nonsense:ex=";
        assert_eq!(painted(colors, &Entry { is_out: true, ..entry("o") }), "\x1b[1mo\x1b[0m");
        assert_eq!(painted(colors, &entry("d.x/a.b.wav")), "\x1b[3md.x/a.b.wav\x1b[0m");
        assert_eq!(painted(colors, &entry(".gitignore")), "\x1b[4m.gitignore\x1b[0m");
        assert_eq!(painted(colors, &entry("d/.gitignore")), "d/.gitignore");
        assert_eq!(painted(colors, &Entry { is_exec: true, ..entry("x") }), "x");
    }

    #[test]
    fn stripping_leaves_everything_but_whole_sequences() {
        assert_eq!(strip(b"a\x1b[01;34mb c\x1b[0md"), b"ab cd");
        assert_eq!(strip(b"\x1b[1;\x1bx\x1b["), b"\x1b[1;\x1bx\x1b[");
    }
}
