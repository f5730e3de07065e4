//! `.dvcignore`: which paths DVC does not see; and `.gitignore`, which has the same patterns.
//!
//! They are relative to the folder of their file; a deeper file overrides a higher one, and nothing
//! below an ignored folder comes back. DVC's own defaults stand first, git has none.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::{Name, RepoPath};

/// What DVC never looks into; [`is_ignored_by_default`] says the same.
const DEFAULTS: &[u8] = b".hg/\n.git/\n.git\n.dvc/\n";
/// Longer `.dvcignore` files are cut off here.
const DVC_TEXT_MAX: usize = 1 << 20;
/// Longer `.gitignore` files are cut off here: they may have a line for each output.
const GIT_TEXT_MAX: usize = 32 << 20;

/// The rules of one project of DVC, or those of git.
#[derive(Debug)]
pub struct Ignore {
    root: RepoPath,
    reader: Reader,
    defaults: Gitignore,
    by_folder: BTreeMap<RepoPath, Gitignore>,
}

/// Who reads the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Dvc,
    Git,
}

impl Ignore {
    /// The defaults, for the DVC project at `root`.
    pub fn new(root: RepoPath) -> Self {
        let (defaults, _) = rules(DEFAULTS, Reader::Dvc);
        Self { root, reader: Reader::Dvc, defaults, by_folder: BTreeMap::new() }
    }

    /// None yet, for `.gitignore` files.
    pub fn of_git() -> Self {
        let (root, by_folder) = Default::default();
        Self { root, reader: Reader::Git, defaults: Gitignore::empty(), by_folder }
    }

    /// Adds the file of rules that lies in `folder`, and returns a warning for each pattern that
    /// cannot be used.
    ///
    /// To be called from the root down, and not for a file that is itself ignored.
    pub fn add(&mut self, folder: &RepoPath, text: &[u8]) -> Vec<String> {
        let (rules, warnings) = rules(text, self.reader);
        // `dvc init` leaves a file of comments in every project.
        if !rules.is_empty() {
            self.by_folder.insert(folder.clone(), rules);
        }
        warnings
    }

    /// Whether the rules hide `path`, by itself or because a folder above it is ignored.
    pub fn is_ignored(&self, path: &RepoPath, is_dir: bool) -> bool {
        let Some(inside) = path.strip_prefix(&self.root).filter(|inside| !inside.is_empty()) else {
            return false;
        };
        if self.by_folder.is_empty() {
            return self.reader == Reader::Dvc && is_ignored_by_default(inside, is_dir);
        }
        let mut folders = vec![self.root.clone()];
        let mut names = inside.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            let is_dir = is_dir || names.peek().is_some();
            let (Some(folder), Ok(name)) = (folders.last(), Name::new(name)) else {
                return false;
            };
            let path = folder.join(&name);
            if self.is_ignored_itself(&folders, &path, is_dir) {
                return true;
            }
            folders.push(path);
        }
        false
    }

    /// Asks the rules of the deepest folder first; the first that has an opinion decides.
    fn is_ignored_itself(&self, folders: &[RepoPath], path: &RepoPath, is_dir: bool) -> bool {
        let deepest_first = folders.iter().rev();
        let own = deepest_first.filter_map(|folder| Some((folder, self.by_folder.get(folder)?)));
        for (folder, rules) in own.chain([(&self.root, &self.defaults)]) {
            let relative = path.strip_prefix(folder).unwrap_or_default();
            match rules.matched(Path::new(OsStr::from_bytes(relative)), is_dir) {
                Match::None => {}
                decided => return decided.is_ignore(),
            }
        }
        false
    }
}

/// Compiles the lines of a file, with a warning for each that cannot be used.
fn rules(text: &[u8], reader: Reader) -> (Gitignore, Vec<String>) {
    let mut builder = GitignoreBuilder::new("");
    let mut warnings = Vec::new();
    let max = if reader == Reader::Git { GIT_TEXT_MAX } else { DVC_TEXT_MAX };
    let text = &text[..text.len().min(max)];
    let text = text.strip_prefix(b"\xef\xbb\xbf").filter(|_| reader == Reader::Git).unwrap_or(text);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let added = match std::str::from_utf8(line) {
            Ok(line) => {
                builder.add_line(None, &pattern(line, reader)).map(drop).map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = added {
            warnings.push(format!("line {}: {reason}, ignored", index + 1));
        }
    }
    let rules = builder.build().unwrap_or_else(|error| {
        warnings.push(format!("all patterns ignored: {error}"));
        Gitignore::empty()
    });
    (rules, warnings)
}

/// A line in the words of the pattern engine.
fn pattern(line: &str, reader: Reader) -> String {
    match reader {
        Reader::Dvc => literal_braces(line.trim()),
        Reader::Git => {
            let line = line.trim_end_matches('\r');
            let (not, pattern) = line.split_at(usize::from(line.starts_with('!')));
            // A slash in a class is none that ties a pattern to its folder.
            let anywhere = if pattern.trim_end_matches('/').contains('/') { "" } else { "**/" };
            match classes(pattern) {
                spelled if spelled == pattern => literal_braces(line),
                spelled => literal_braces(&[not, anywhere, &spelled].concat()),
            }
        }
    }
}

/// Spells out the classes of characters that the engine reads in another way than git: some have
/// names, and none that is given by what it lacks has a slash.
fn classes(line: &str) -> String {
    let mut spelled = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let escaped = rest.chars().nth(1).filter(|_| c == '\\');
        let (piece, len) = class(rest).unwrap_or_else(|| {
            let len = c.len_utf8() + escaped.map_or(0, char::len_utf8);
            (rest[..len].to_owned(), len)
        });
        spelled.push_str(&piece);
        rest = &rest[len..];
    }
    spelled
}

/// The class that a text begins with, spelled out, and how long it was.
fn class(text: &str) -> Option<(String, usize)> {
    const NAMED: [(&str, &str); 8] = [
        ("[:alnum:]", "0-9A-Za-z"),
        ("[:alpha:]", "A-Za-z"),
        ("[:blank:]", " \t"),
        ("[:digit:]", "0-9"),
        ("[:lower:]", "a-z"),
        ("[:space:]", " \t\r"),
        ("[:upper:]", "A-Z"),
        ("[:xdigit:]", "0-9A-Fa-f"),
    ];
    let inside = text.strip_prefix('[')?;
    let lacking = inside.strip_prefix(['!', '^']);
    let mut rest = lacking.unwrap_or(inside);
    let mut spelled = String::new();
    // A bracket that comes first is one of the characters.
    while spelled.is_empty() || !rest.starts_with(']') {
        let named = NAMED.iter().find(|(name, _)| rest.starts_with(name));
        let next = rest.chars().next()?.len_utf8();
        let (ranges, len) =
            named.map_or((&rest[..next], next), |(name, ranges)| (*ranges, name.len()));
        spelled.push_str(ranges);
        rest = &rest[len..];
    }
    if lacking.is_some() {
        // Where it is no end of a range.
        let place = spelled.find(|c| !matches!(c, ']' | '-')).unwrap_or(spelled.len());
        spelled.insert(place, '/');
    }
    let head = if lacking.is_some() { "[!" } else { "[" };
    Some((format!("{head}{spelled}]"), text.len() - rest.len() + 1))
}

/// Escapes braces, which are ordinary characters for git but a choice for the pattern engine.
fn literal_braces(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    let mut is_escape = false;
    for c in line.chars() {
        if matches!(c, '{' | '}') && !is_escape {
            escaped.push('\\');
        }
        is_escape = c == '\\' && !is_escape;
        escaped.push(c);
    }
    escaped
}

/// Whether the defaults alone ignore a path: most projects have no other rules, and a registry may
/// have a hundred thousand paths to ask for.
fn is_ignored_by_default(inside: &[u8], is_dir: bool) -> bool {
    let mut names = inside.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let is_dir = is_dir || names.peek().is_some();
        if name == b".git" || (is_dir && matches!(name, b".hg" | b".dvc")) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> RepoPath {
        RepoPath::new(bytes).unwrap()
    }

    fn ignored(files: &[(&str, &str)], paths: &[&str]) -> Vec<bool> {
        let mut ignore = Ignore::new(RepoPath::root());
        for (folder, text) in files {
            assert_eq!(ignore.add(&path(folder.as_bytes()), text.as_bytes()), [""; 0]);
        }
        let is_ignored = |text: &&str| {
            let (name, is_dir) = text.strip_suffix('/').map_or((*text, false), |name| (name, true));
            ignore.is_ignored(&path(name.as_bytes()), is_dir)
        };
        paths.iter().map(is_ignored).collect()
    }

    #[test]
    fn the_defaults_hide_the_folders_of_git_and_dvc() {
        let paths = [".git/", ".git", ".hg/", ".dvc/", "sub/.dvc/config", ".dvcignore", ".hg", "x"];
        let expected = [true, true, true, true, true, false, false, false];
        assert_eq!(ignored(&[], &paths), expected);
    }

    #[test]
    fn patterns_are_those_of_git_relative_to_their_folder() {
        let files = [("", "# comment\n/hidden.bin.dvc\n*.tmp\nsub/hid*\n!keep.tmp\n  spaced  \n")];
        let paths = [
            "hidden.bin.dvc",
            "other/hidden.bin.dvc",
            "a/x.tmp",
            "sub/hid.txt",
            "keep.tmp",
            "spaced",
        ];
        assert_eq!(ignored(&files, &paths), [true, false, true, true, false, true]);
        assert_eq!(ignored(&[("s", "/x\n")], &["s/x", "x", "s/s/x"]), [true, false, false]);
    }

    #[test]
    fn deeper_files_override_but_nothing_below_an_ignored_folder_comes_back() {
        let files = [("", "*.log\ndata/\n"), ("sub", "!a.log\n"), ("data", "!x\n")];
        let paths = ["sub/a.log", "a.log", "sub/b.log", "data/x", "data/", "data"];
        assert_eq!(ignored(&files, &paths), [false, true, true, true, true, false]);
    }

    #[test]
    fn names_that_are_not_utf_8_are_matched() {
        let mut ignore = Ignore::new(RepoPath::root());
        ignore.add(&RepoPath::root(), b"*.tmp\n\xff\n");
        assert!(ignore.is_ignored(&path(b"b\xff.tmp"), false));
        assert!(!ignore.is_ignored(&path(b"b\xff.txt"), false));
    }

    #[test]
    fn braces_are_ordinary() {
        assert_eq!(ignored(&[("", "{a,b}\n")], &["a", "{a,b}"]), [false, true]);
    }

    #[test]
    fn a_bad_pattern_is_reported_and_costs_only_itself() {
        let mut ignore = Ignore::new(RepoPath::root());
        let warnings = ignore.add(&RepoPath::root(), b"[z-a]\n\xff\n*.tmp\n");
        assert_eq!(warnings.len(), 2);
        assert!(ignore.is_ignored(&path(b"x.tmp"), false));
    }

    #[test]
    fn rules_of_a_subproject_start_at_its_root() {
        let mut ignore = Ignore::new(path(b"proj"));
        ignore.add(&path(b"proj"), b"/x\n");
        assert!(ignore.is_ignored(&path(b"proj/x"), false));
        assert!(!ignore.is_ignored(&path(b"x"), false));
        assert!(!ignore.is_ignored(&path(b"proj"), true));
    }

    #[test]
    fn the_defaults_without_patterns_say_what_their_patterns_say() {
        let plain = Ignore::new(RepoPath::root());
        let mut with_rules = Ignore::new(RepoPath::root());
        with_rules.add(&RepoPath::root(), b"/none\n");
        for name in [".git", ".hg", ".dvc", ".gitx", "git", ".dvcignore", "a"] {
            for path in
                [name.to_owned(), format!("a/{name}"), format!("{name}/b"), format!("a/{name}/b/c")]
            {
                let path = RepoPath::new(path.as_bytes()).unwrap();
                for is_dir in [false, true] {
                    assert_eq!(
                        plain.is_ignored(&path, is_dir),
                        with_rules.is_ignored(&path, is_dir),
                        "{path} {is_dir}"
                    );
                }
            }
        }
    }
}
