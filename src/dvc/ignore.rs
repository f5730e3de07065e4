//! `.dvcignore`: which paths DVC does not see.
//!
//! The patterns are those of `.gitignore`, relative to the folder of their file; a deeper file
//! overrides a higher one, and nothing below an ignored folder comes back. DVC's own defaults
//! stand first.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::path::{Name, RepoPath};

/// What DVC never looks into; [`is_ignored_by_default`] says the same.
const DEFAULTS: &[u8] = b".hg/\n.git/\n.git\n.dvc/\n";
/// Longer files are cut off here, at the end of a line.
const TEXT_MAX: usize = 1 << 20;

/// The rules of one project.
#[derive(Debug)]
pub struct Ignore {
    root: RepoPath,
    defaults: Gitignore,
    by_folder: BTreeMap<RepoPath, Gitignore>,
}

impl Ignore {
    /// The defaults, for the DVC project at `root`.
    pub fn new(root: RepoPath) -> Self {
        let (defaults, _) = rules(DEFAULTS);
        Self { root, defaults, by_folder: BTreeMap::new() }
    }

    /// Adds the `.dvcignore` that lies in `folder`, and returns a warning for each pattern that
    /// cannot be used.
    ///
    /// To be called from the root down, and not for a file that is itself ignored.
    pub fn add(&mut self, folder: &RepoPath, text: &[u8]) -> Vec<String> {
        let (rules, warnings) = rules(text);
        // `dvc init` leaves a file of comments in every project.
        if !rules.is_empty() {
            self.by_folder.insert(folder.clone(), rules);
        }
        warnings
    }

    /// Whether DVC does not see `path`, by itself or because a folder above it is ignored.
    pub fn is_ignored(&self, path: &RepoPath, is_dir: bool) -> bool {
        let Some(inside) = path.strip_prefix(&self.root).filter(|inside| !inside.is_empty()) else {
            return false;
        };
        if self.by_folder.is_empty() {
            return is_ignored_by_default(inside, is_dir);
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
fn rules(text: &[u8]) -> (Gitignore, Vec<String>) {
    let mut builder = GitignoreBuilder::new("");
    let mut warnings = Vec::new();
    let text = &text[..text.len().min(TEXT_MAX)];
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let added = match std::str::from_utf8(line) {
            Ok(line) => builder
                .add_line(None, &literal_braces(line.trim()))
                .map(drop)
                .map_err(|e| e.to_string()),
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
