//! Changes sorted by what happened: added, deleted, modified, renamed.

use std::collections::{HashMap, VecDeque};

use super::sides::{Side, Sides};
use crate::{
    git::{EntryKind, GitId},
    id::{BlobId, TreeId},
    path::RepoPath,
};

/// What changed between two revisions, each list sorted by path.
#[derive(Debug, Default)]
pub(in crate::cli) struct Report {
    pub(super) added: Vec<Change>,
    pub(super) deleted: Vec<Change>,
    pub(super) renamed: Vec<Change>,
    pub(super) modified: Vec<Change>,
}

/// One path, or two where something was renamed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) old: Option<Place>,
    pub(super) new: Option<Place>,
}

/// Something at a path.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: RepoPath,
    pub(super) side: Side,
}

impl Report {
    /// Sorts what differs; what vanished at one path and appeared at another was renamed.
    pub(super) fn new(sides: Sides) -> Self {
        let mut report = Self::default();
        let (mut added, mut deleted) = (Vec::new(), Vec::new());
        for (path, sides) in sides {
            match sides {
                (None, None) => {}
                (None, Some(side)) => added.push(Place { path, side }),
                (Some(side), None) => deleted.push(Place { path, side }),
                (Some(old), Some(new)) => {
                    let [old, new] =
                        [old, new].map(|side| Some(Place { path: path.clone(), side }));
                    report.modified.push(Change { old, new });
                }
            }
        }
        report.pair(added, deleted);
        report.sort();
        report
    }

    /// Finds what was renamed. Of several equal contents the first paths belong together.
    fn pair(&mut self, mut added: Vec<Place>, mut deleted: Vec<Place>) {
        for places in [&mut added, &mut deleted] {
            places.sort_by(|a, b| a.path.components().cmp(b.path.components()));
        }
        let mut vanished = HashMap::<Identity, VecDeque<usize>>::new();
        for (at, place) in deleted.iter().enumerate() {
            if let Some(identity) = Identity::of(place.side) {
                vanished.entry(identity).or_default().push_back(at);
            }
        }
        let mut deleted: Vec<_> = deleted.into_iter().map(Some).collect();
        for new in added {
            let equal = Identity::of(new.side).and_then(|identity| vanished.get_mut(&identity));
            let old = equal.and_then(VecDeque::pop_front).and_then(|at| deleted[at].take());
            let list = if old.is_some() { &mut self.renamed } else { &mut self.added };
            list.push(Change { old, new: Some(new) });
        }
        let left = deleted.into_iter().flatten();
        self.deleted.extend(left.map(|old| Change { old: Some(old), new: None }));
    }

    fn sort(&mut self) {
        for list in [&mut self.added, &mut self.deleted, &mut self.renamed, &mut self.modified] {
            list.sort_by_cached_key(Change::first_path);
        }
    }

    /// How many files were added, deleted, renamed and modified.
    pub(in crate::cli) fn counts(&self) -> [(&'static str, usize); 4] {
        let lists = [
            ("added", &self.added),
            ("deleted", &self.deleted),
            ("renamed", &self.renamed),
            ("modified", &self.modified),
        ];
        lists.map(|(name, list)| (name, list.iter().filter(|change| change.is_file()).count()))
    }

    /// Whether something changed at a path or in it.
    pub(super) fn has(&self, path: &RepoPath) -> bool {
        let is_in = |place: &Place| place.path.strip_prefix(path).is_some();
        let changes = [&self.added, &self.deleted, &self.renamed, &self.modified];
        let mut places = changes.into_iter().flatten().flat_map(|c| [&c.old, &c.new]).flatten();
        places.any(is_in)
    }

    /// Whether nothing changed.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        [&self.added, &self.deleted, &self.renamed, &self.modified].into_iter().all(Vec::is_empty)
    }
}

impl Change {
    fn first_path(&self) -> Vec<u8> {
        self.old.as_ref().or(self.new.as_ref()).map(Place::shown).unwrap_or_default()
    }

    /// How the change is printed: a path, or two.
    pub(super) fn shown(&self) -> Vec<u8> {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) if old.path != new.path => {
                [&old.shown()[..], b" -> ", &new.shown()].concat()
            }
            _ => self.first_path(),
        }
    }

    /// Whether it is about a file, not about a tracked folder as such.
    pub(super) fn is_file(&self) -> bool {
        !self.shown().ends_with(b"/")
    }
}

impl Place {
    /// The path as it is printed: that of a tracked folder ends in a slash.
    pub(super) fn shown(&self) -> Vec<u8> {
        let slash: &[u8] = if matches!(self.side, Side::Folder(_)) { b"/" } else { b"" };
        [self.path.as_bytes(), slash].concat()
    }

    /// DVC's hash of it.
    pub(super) fn hash(&self) -> Option<String> {
        match self.side {
            Side::Blob(blob) => Some(blob.to_string()),
            Side::Folder(manifest) => Some(manifest.to_string()),
            Side::Git(_) | Side::Unknown => None,
        }
    }
}

/// What two places have in common when one is the other renamed.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Identity {
    Git(GitId),
    Blob(BlobId),
    Folder(TreeId),
}

impl Identity {
    fn of(side: Side) -> Option<Self> {
        match side {
            Side::Git(EntryKind::Blob { id, .. }) => Some(Self::Git(id)),
            Side::Blob(blob) => Some(Self::Blob(blob)),
            Side::Folder(manifest) => Some(Self::Folder(manifest)),
            Side::Git(_) | Side::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Scheme;

    fn blob(byte: u8) -> Side {
        Side::Blob(BlobId { digest: [byte; 16], scheme: Scheme::Md5 })
    }

    fn report(changes: &[(&str, Option<u8>, Option<u8>)]) -> Report {
        let sides = changes.iter().map(|(path, old, new)| {
            (RepoPath::new(path.as_bytes()).unwrap(), (old.map(blob), new.map(blob)))
        });
        Report::new(sides.collect())
    }

    fn paths(changes: &[Change]) -> Vec<String> {
        let shown = |place: &Option<Place>| place.as_ref().map(|place| place.path.to_string());
        let both = |change: &Change| [shown(&change.old), shown(&change.new)];
        changes
            .iter()
            .map(|change| both(change).into_iter().flatten().collect::<Vec<_>>().join(">"))
            .collect()
    }

    #[test]
    fn equal_contents_are_paired_in_the_order_of_their_paths() {
        let report = report(&[
            ("a-b", Some(1), None),
            ("a/b", Some(1), None),
            ("c", Some(2), None),
            ("x", None, Some(1)),
            ("y", None, Some(1)),
            ("z", None, Some(1)),
        ]);
        // Component by component `a/b` comes before `a-b`, as bytes it does not.
        assert_eq!(paths(&report.renamed), ["a-b>y", "a/b>x"]);
        assert_eq!(paths(&report.added), ["z"]);
        assert_eq!(paths(&report.deleted), ["c"]);
        assert!(report.modified.is_empty());
    }

    #[test]
    fn what_nothing_names_is_never_renamed() {
        let unknown = |path: &str, is_old| {
            let sides =
                if is_old { (Some(Side::Unknown), None) } else { (None, Some(Side::Unknown)) };
            (RepoPath::new(path.as_bytes()).unwrap(), sides)
        };
        let report = Report::new([unknown("a", true), unknown("b", false)].into());
        assert_eq!((report.added.len(), report.deleted.len(), report.renamed.len()), (1, 1, 0));
    }

    #[test]
    fn a_file_that_became_a_folder_is_modified() {
        let folder = Side::Folder(TreeId { digest: [9; 16], scheme: Scheme::Md5 });
        let path = RepoPath::new(b"a").unwrap();
        let report = Report::new([(path, (Some(blob(1)), Some(folder)))].into());
        assert_eq!(report.modified.len(), 1);
        assert!(report.modified[0].is_file());
    }
}
