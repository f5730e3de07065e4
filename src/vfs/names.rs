//! The names above commits: `branches/`, `tags/`, `commits/`, `at/` and the links beside them.
//!
//! Everything here is worked out from a [`Refs`] snapshot and the name asked for; nothing does I/O.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

use crate::{
    git::{CommitId, Refs},
    path::check_name,
};

/// A folder above commits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Spot {
    /// The root of a mount that shows every revision.
    Root,
    /// `branches/`, or the folder of the branches that begin with the prefix (`feature/`).
    Branches(String),
    /// `tags/`, likewise.
    Tags(String),
    /// `commits/`, which lists nothing.
    Commits,
    /// `at/`, which lists nothing.
    At,
    /// `.revs/` of a mount that shows one revision; lists nothing.
    Revs,
    /// `.dvcfs/`, which lists nothing.
    Hidden,
}

/// What a name above commits stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Another folder above commits.
    Folder(Spot),
    /// The tree of a commit.
    Commit(CommitId),
    /// The tree of a revision that git still has to resolve.
    Revision(String),
    /// A short hash: a link to the full one, once git has resolved it.
    ShortHash(String),
    /// A symbolic link.
    Link(String),
    /// A file made at the moment of the look-up.
    Report(ReportKind),
}

/// The files in `.dvcfs/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ReportKind {
    /// Counters, as JSON.
    Stats,
    /// The program's version.
    Version,
    /// Objects that were asked for and are on no remote.
    Missing,
}

const HIDDEN: &str = ".dvcfs";
const RESERVED: [&str; 7] = ["branches", "tags", "commits", "at", "HEAD", HIDDEN, ".revs"];

impl Spot {
    /// Its path from the mount's root, without a slash at the end.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Branches(prefix) => format!("branches/{prefix}").trim_end_matches('/').into(),
            Self::Tags(prefix) => format!("tags/{prefix}").trim_end_matches('/').into(),
            Self::Commits => "commits".into(),
            Self::At => "at".into(),
            Self::Revs => ".revs".into(),
            Self::Hidden => HIDDEN.into(),
        }
    }

    /// What a name in this folder stands for.
    pub(super) fn lookup(&self, refs: &Refs, name: &[u8]) -> Option<Target> {
        let name = std::str::from_utf8(name).ok()?;
        match self {
            Self::Root => lookup_root(refs, name),
            Self::Branches(prefix) => lookup_refs(&refs.branches, prefix, name, Self::Branches),
            Self::Tags(prefix) => lookup_refs(&refs.tags, prefix, name, Self::Tags),
            Self::Commits => lookup_commit(name),
            Self::At | Self::Revs => lookup_expression(name),
            Self::Hidden => lookup_report(name),
        }
    }

    /// The names that this folder lists, in order.
    pub(super) fn list(&self, refs: &Refs) -> Vec<(String, Target)> {
        match self {
            Self::Root => list_root(refs),
            Self::Branches(prefix) => list_refs(&refs.branches, prefix, Self::Branches),
            Self::Tags(prefix) => list_refs(&refs.tags, prefix, Self::Tags),
            Self::Commits | Self::At | Self::Revs | Self::Hidden => Vec::new(),
        }
    }
}

/// The names of `.dvcfs/` and `.revs/` at the root of a mount that shows one revision.
pub(super) fn lookup_beside_tree(name: &[u8]) -> Option<Spot> {
    match name {
        b".dvcfs" => Some(Spot::Hidden),
        b".revs" => Some(Spot::Revs),
        _ => None,
    }
}

fn lookup_root(refs: &Refs, name: &str) -> Option<Target> {
    match name {
        "branches" => Some(Target::Folder(Spot::Branches(String::new()))),
        "tags" => Some(Target::Folder(Spot::Tags(String::new()))),
        "commits" => Some(Target::Folder(Spot::Commits)),
        "at" => Some(Target::Folder(Spot::At)),
        HIDDEN => Some(Target::Folder(Spot::Hidden)),
        "HEAD" => refs.default_branch.as_ref().map(branch_link),
        _ if has_own_link(name) => refs.branches.contains_key(name).then(|| branch_link(name)),
        _ => None,
    }
}

fn branch_link(name: impl AsRef<str>) -> Target {
    Target::Link(format!("branches/{}", name.as_ref()))
}

fn has_own_link(branch: &str) -> bool {
    !branch.contains('/') && !RESERVED.contains(&branch) && check_name(branch.as_bytes()).is_ok()
}

fn list_root(refs: &Refs) -> Vec<(String, Target)> {
    let fixed = ["HEAD", "at", "branches", "commits", "tags"];
    let fixed = fixed.iter().filter_map(|name| Some(((*name).into(), lookup_root(refs, name)?)));
    let links = refs.branches.keys().filter(|name| has_own_link(name));
    fixed.chain(links.map(|name| (name.clone(), branch_link(name)))).collect()
}

type Named = BTreeMap<String, CommitId>;

fn lookup_refs(
    named: &Named,
    prefix: &str,
    name: &str,
    folder: fn(String) -> Spot,
) -> Option<Target> {
    let full = format!("{prefix}{name}");
    if let Some(commit) = named.get(&full) {
        return Some(Target::Commit(*commit));
    }
    let inside = full + "/";
    let first = named.range(inside.clone()..).next()?.0;
    first.starts_with(&inside).then(|| Target::Folder(folder(inside)))
}

fn list_refs(named: &Named, prefix: &str, folder: fn(String) -> Spot) -> Vec<(String, Target)> {
    let mut list: Vec<(String, Target)> = Vec::new();
    let matching =
        named.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
    for (full, commit) in matching {
        let rest = &full[prefix.len()..];
        let (name, target) = match rest.split_once('/') {
            None => (rest, Target::Commit(*commit)),
            Some((first, _)) => (first, Target::Folder(folder(format!("{prefix}{first}/")))),
        };
        let is_new = list.last().is_none_or(|(last, _)| last != name);
        if is_new && check_name(name.as_bytes()).is_ok() {
            list.push((name.to_owned(), target));
        }
    }
    list
}

fn lookup_commit(name: &str) -> Option<Target> {
    let is_hash = (4..=40).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match name.len() {
        40 if is_hash => Some(Target::Revision(name.to_owned())),
        _ if is_hash => Some(Target::ShortHash(name.to_owned())),
        _ => None,
    }
}

fn lookup_expression(name: &str) -> Option<Target> {
    let decoded = percent_decode(name.as_bytes()).decode_utf8().ok()?;
    Some(Target::Revision(decoded.into_owned()))
}

fn lookup_report(name: &str) -> Option<Target> {
    match name {
        "stats" => Some(Target::Report(ReportKind::Stats)),
        "version" => Some(Target::Report(ReportKind::Version)),
        "missing" => Some(Target::Report(ReportKind::Missing)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(byte: u8) -> CommitId {
        CommitId(crate::git::GitId([byte; 20]))
    }

    fn refs() -> Refs {
        let branches = [("main", 1), ("tags", 2), ("feature/a", 3), ("feature/b/c", 4)];
        Refs {
            branches: branches.iter().map(|(name, n)| ((*name).into(), commit(*n))).collect(),
            tags: [("v1".to_owned(), commit(1))].into(),
            default_branch: Some("main".into()),
            refused: Vec::new(),
        }
    }

    fn names(spot: &Spot) -> Vec<String> {
        spot.list(&refs()).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn the_root_lists_folders_and_links_but_nothing_hidden() {
        assert_eq!(names(&Spot::Root), ["HEAD", "at", "branches", "commits", "tags", "main"]);
    }

    #[test]
    fn a_branch_whose_name_is_taken_has_no_link() {
        let tags = Spot::Root.lookup(&refs(), b"tags");
        assert_eq!(tags, Some(Target::Folder(Spot::Tags(String::new()))));
        let branches = Spot::Branches(String::new());
        assert_eq!(branches.lookup(&refs(), b"tags"), Some(Target::Commit(commit(2))));
    }

    #[test]
    fn branches_with_slashes_become_folders() {
        let branches = Spot::Branches(String::new());
        assert_eq!(names(&branches), ["feature", "main", "tags"]);
        let feature = Spot::Branches("feature/".into());
        assert_eq!(branches.lookup(&refs(), b"feature"), Some(Target::Folder(feature.clone())));
        assert_eq!(names(&feature), ["a", "b"]);
        assert_eq!(feature.path(), "branches/feature");
        assert_eq!(branches.lookup(&refs(), b"feat"), None);
    }

    #[test]
    fn commits_are_found_by_hash_only_and_never_listed() {
        assert_eq!(Spot::Commits.lookup(&refs(), b"main"), None);
        assert_eq!(Spot::Commits.lookup(&refs(), b"abc"), None);
        let short = Spot::Commits.lookup(&refs(), b"abcd");
        assert_eq!(short, Some(Target::ShortHash("abcd".into())));
        assert!(names(&Spot::Commits).is_empty());
    }

    #[test]
    fn expressions_are_one_percent_encoded_component() {
        let target = Spot::At.lookup(&refs(), b"feature%2Fa~1");
        assert_eq!(target, Some(Target::Revision("feature/a~1".into())));
        assert_eq!(Spot::At.lookup(&refs(), b"%ff"), None);
    }
}
