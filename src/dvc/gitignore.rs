//! The lines of a `.gitignore` that keep outputs out of git, as `dvc add` writes them.

use itertools::Itertools as _;

/// The text with a line for the output `name`, which lies in the folder of the file; nothing if it
/// has that line already.
///
/// DVC adds no line for an output that git ignores anyway, which is for the caller to know.
pub fn add(text: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let line = line(name);
    if lines(text).any(|old| old == without_return(&line)) {
        return None;
    }
    let gap: &[u8] = if text.is_empty() || text.ends_with(b"\n") { b"" } else { b"\n" };
    Some([text, gap, &line, b"\n"].concat())
}

/// What remains of a text without the line for the output `name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// There is no such line.
    Unchanged,
    /// The new text.
    Text(Vec<u8>),
    /// Nothing: the file is to be deleted.
    Empty,
}

/// The text without the line for the output `name`. As with DVC, `\r\n` becomes `\n` throughout.
///
/// DVC looks for the name as it is and so leaves a line with escapes behind, which would go on to
/// hide that name from git; here it goes as well.
pub fn remove(text: &[u8], name: &[u8]) -> Removed {
    let escaped = line(name);
    let bare = [b"/", name].concat();
    let is_its =
        |line: &&[u8]| *line == without_return(&escaped) || line.trim_ascii() == bare.trim_ascii();
    if !lines(text).any(|line| is_its(&line)) {
        return Removed::Unchanged;
    }
    let kept: Vec<_> = lines(text).filter(|line| !is_its(line)).collect();
    if kept.is_empty() {
        return Removed::Empty;
    }
    let mut text = kept.join(&b'\n');
    text.push(b'\n');
    Removed::Text(text)
}

/// Merges the changes of two sides to a `base`: lines that ours took away leave theirs, lines that
/// it added follow at the end.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Vec<u8> {
    if ours == base || ours == theirs {
        return theirs.to_vec();
    }
    if theirs == base {
        return ours.to_vec();
    }
    let has = |text: &[u8], line: &[u8]| lines(text).contains(&line);
    let kept = lines(theirs).filter(|line| has(ours, line) || !has(base, line));
    let added = lines(ours).filter(|line| !has(base, line) && !has(theirs, line));
    let mut merged = Vec::new();
    for line in kept.chain(added) {
        merged.extend_from_slice(line);
        merged.push(b'\n');
    }
    merged
}

/// The line that ignores `name` in the folder of the file, without its end.
fn line(name: &[u8]) -> Vec<u8> {
    let mut line = vec![b'/'];
    for byte in name {
        if b"\\[]!*#?".contains(byte) {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line
}

/// The lines without their ends.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = if text.is_empty() { 0 } else { usize::MAX };
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n').take(count);
    lines.map(without_return)
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str, name: &str) -> Option<String> {
        add(text.as_bytes(), name.as_bytes()).map(|text| String::from_utf8(text).unwrap())
    }

    fn merged(base: &str, ours: &str, theirs: &str) -> String {
        String::from_utf8(merge(base.as_bytes(), ours.as_bytes(), theirs.as_bytes())).unwrap()
    }

    #[test]
    fn a_line_is_added_at_the_end() {
        assert_eq!(added("", "a.txt").unwrap(), "/a.txt\n");
        assert_eq!(added("/x\n", "a.txt").unwrap(), "/x\n/a.txt\n");
        assert_eq!(added("/x", "a.txt").unwrap(), "/x\n/a.txt\n");
        assert_eq!(added("/x\r\n", "a.txt").unwrap(), "/x\r\n/a.txt\n");
    }

    #[test]
    fn what_means_something_to_git_is_escaped() {
        assert_eq!(added("", "#[h]!*?\\").unwrap(), "/\\#\\[h\\]\\!\\*\\?\\\\\n");
        assert_eq!(added("", " b \u{fc}").unwrap(), "/ b \u{fc}\n");
    }

    #[test]
    fn no_line_comes_twice() {
        for text in ["/a\n", "/b\n/a\n", "/a\r\n/b\r\n", "/b\n/a"] {
            assert_eq!(added(text, "a"), None, "{text:?}");
        }
        assert_eq!(added("/ab\n", "a").unwrap(), "/ab\n/a\n");
    }

    #[test]
    fn the_line_goes_and_an_empty_file_with_it() {
        assert_eq!(remove(b"/a\n/b\n", b"a"), Removed::Text(b"/b\n".to_vec()));
        assert_eq!(remove(b"# x\r\n/a\r\n", b"a"), Removed::Text(b"# x\n".to_vec()));
        assert_eq!(remove(b"/a", b"a"), Removed::Empty);
        assert_eq!(remove(b"/b\n", b"a"), Removed::Unchanged);
        assert_eq!(remove(b"", b"a"), Removed::Unchanged);
        assert_eq!(remove(b"/\\#a\n/b\n", b"#a"), Removed::Text(b"/b\n".to_vec()));
    }

    #[test]
    fn both_sides_changes_are_merged() {
        assert_eq!(merged("/a\n/b\n", "/a\n/b\n/o\n", "/a\n/b\n/t\n"), "/a\n/b\n/t\n/o\n");
        assert_eq!(merged("/a\n/b\n", "/b\n", "/a\n/b\n/t\n"), "/b\n/t\n");
        assert_eq!(merged("", "/x\n", "/x\n/y\n"), "/x\n/y\n");
        assert_eq!(merged("/a\n", "/a\n", ""), "");
        assert_eq!(merged("/a\n", "", "/a\n/b\n"), "/b\n");
    }
}
