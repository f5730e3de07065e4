//! Random trees and random changes above them: what an overlay shows above another tree has to be
//! what merging maps of paths gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    sync::Arc,
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::{
    dvc::{
        manifest::{self, write},
        record::{self, Recorded},
    },
    git::{Edit, Edits, GitId},
    id::{Scheme, TreeId},
    overlay::Renaming,
    path::Name,
    publish::Mark,
    segments::Segments,
};

/// A byte of content, below three where it is upstream's and above where a program wrote it, with
/// [`EXEC`] in files that may be executed.
type Content = u8;

const EXEC: Content = 0x80;

/// Files by path. Those in the folder `t` are tracked, but for `t/g`.
type Files = BTreeMap<RepoPath, Content>;

/// What a program finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Shown {
    files: Files,
    folders: BTreeSet<RepoPath>,
}

/// What a program does.
#[derive(Debug, Clone)]
enum Doing {
    Write(RepoPath, Content),
    SetMode(RepoPath, Content),
    Remove(RepoPath),
    MakeFolder(RepoPath),
    Rename(RepoPath, RepoPath),
}

/// What upstream does: to one path, and so to what is below or in its way.
type Upstream = (RepoPath, Option<Content>);

/// Changes here, and then a commit of upstream.
type Round = (Vec<Doing>, Vec<Upstream>);

fn some_path() -> impl Strategy<Value = RepoPath> {
    "[abt](/[xg](/x)?)?".prop_map(|text| path(&text))
}

fn exec() -> impl Strategy<Value = Content> {
    prop_oneof![3 => Just(0), 1 => Just(EXEC)]
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        3 => (some_path(), 3..6u8).prop_map(|(path, byte)| Doing::Write(path, byte)),
        1 => (some_path(), exec()).prop_map(|(path, exec)| Doing::SetMode(path, exec)),
        2 => some_path().prop_map(Doing::Remove),
        2 => some_path().prop_map(Doing::MakeFolder),
        3 => (some_path(), some_path()).prop_map(|(from, to)| Doing::Rename(from, to)),
    ]
}

fn upstream(most: usize) -> impl Strategy<Value = Vec<Upstream>> {
    let content = (0..3u8, exec()).prop_map(|(byte, exec)| byte | exec);
    vec((some_path(), prop::option::weighted(0.7, content)), 0..most)
}

fn round() -> impl Strategy<Value = Round> {
    (vec(doing(), 0..5), upstream(4))
}

fn change_upstream(files: &mut Files, (path, content): &Upstream) {
    files.retain(|other, _| !are_around(path, other));
    // Manifests do not say what may be executed.
    let kept = if is_tracked(path) { !EXEC } else { !0 };
    files.extend(content.map(|content| (path.clone(), content & kept)));
}

fn is_tracked(path: &RepoPath) -> bool {
    let mut names = path.components();
    names.next() == Some(b"t") && names.next().is_some_and(|name| name != b"g")
}

/// A repository and what its contents are.
struct Lab {
    fixture: Fixture,
    repository: Repository,
    contents: BTreeMap<GitId, Content>,
}

impl Lab {
    fn new() -> Self {
        let fixture = Fixture::empty();
        let repository = Repository::open(&fixture.path()).unwrap();
        let contents = (0..3).map(|byte| (repository.write_blob(&[byte]).unwrap(), byte));
        let contents = contents.collect();
        Self { fixture, repository, contents }
    }

    fn mount<'a>(&'a self, overlay: &'a Overlay, tree: &'a Tree) -> Mount<'a> {
        Mount { lab: self, overlay, tree }
    }

    fn tree(&self, files: &Files) -> Tree {
        let (tracked, plain): (Files, Files) =
            files.clone().into_iter().partition(|(path, _)| is_tracked(path));
        let file = |bytes: &[u8], is_executable| Edit::File {
            id: self.repository.write_blob(bytes).unwrap(),
            is_executable,
        };
        let plain = plain.into_iter();
        let mut edits: Edits = plain
            .map(|(path, content)| (path, file(&[content & !EXEC], content & EXEC != 0)))
            .collect();
        edits.insert(path(".dvc/config"), file(b"", false));
        let folder = path("t");
        let entries = tracked.iter().map(|(path, content)| manifest::Entry {
            relpath: path.strip_prefix(&folder).unwrap(),
            digest: Some([*content; 16]),
        });
        let digest = write::digest(entries.clone());
        if !tracked.is_empty() {
            let file_count = tracked.len() as u64;
            let content = Recorded::Folder { digest, size: None, file_count };
            let text = record::create(b"t", &content).unwrap();
            edits.insert(path("t.dvc"), file(text.as_bytes(), false));
        }
        let commit = self.fixture.commit_tree(self.repository.edit_tree(None, &edits).unwrap());
        let tree = tree::build(&self.repository, commit, &Known::default()).unwrap();
        if !tracked.is_empty() {
            let id = TreeId { digest, scheme: Scheme::Md5 };
            let segment = Segments::new(None).compile_entries(id, entries).unwrap();
            tree.attach(0, Arc::new(segment), tree.base_len());
        }
        tree
    }
}

/// An overlay above a tree, as a mount shows and changes it.
struct Mount<'a> {
    lab: &'a Lab,
    overlay: &'a Overlay,
    tree: &'a Tree,
}

/// What both layers have at a path.
struct Child {
    upper: Option<Entry>,
    /// Where the base has it.
    base: Option<RepoPath>,
}

/// A folder that is shown.
struct Folder {
    /// The one of the base that shows through it.
    below: Option<RepoPath>,
}

impl Child {
    fn kind(&self) -> Option<&Kind> {
        self.upper.as_ref().map(|entry| &entry.kind)
    }

    fn is_shown(&self) -> bool {
        self.kind().map_or(self.base.is_some(), |kind| *kind != Kind::Whiteout)
    }
}

impl Mount<'_> {
    fn node(&self, path: &RepoPath) -> Option<Node> {
        self.tree.node(self.tree.find(path).unwrap()?).unwrap()
    }

    fn is_base_folder(&self, path: &RepoPath) -> bool {
        matches!(self.node(path), Some(Node::Folder { .. }))
    }

    /// What is at a path, if its folder is there.
    fn child(&self, path: &RepoPath) -> Option<Child> {
        let Folder { below } = self.folder(&path.parent()?)?;
        let name = Name::new(path.file_name()?).unwrap();
        let base = below.map(|below| below.join(&name)).filter(|path| self.node(path).is_some());
        Some(Child { upper: self.overlay.find(path).unwrap(), base })
    }

    fn folder(&self, path: &RepoPath) -> Option<Folder> {
        if path.is_root() {
            return Some(Folder { below: Some(RepoPath::root()) });
        }
        let child = self.child(path)?;
        let base = child.base.clone().filter(|path| self.is_base_folder(path));
        let below = match child.kind() {
            None => Some(base?),
            Some(Kind::Folder(Shows::Same)) => base,
            Some(Kind::Folder(Shows::Of(origin))) => Some(origin.clone()),
            Some(Kind::Folder(Shows::Nothing)) => None,
            Some(_) => return None,
        };
        Some(Folder { below })
    }

    /// Where the base may have what an entry of the overlay hides or shows.
    fn places(&self, path: &RepoPath) -> Vec<RepoPath> {
        let below = self.folder(&path.parent().unwrap()).and_then(|folder| folder.below);
        let name = Name::new(path.file_name().unwrap()).unwrap();
        let origin = match self.overlay.find(path).unwrap().unwrap().kind {
            Kind::File { origin } => origin,
            _ => self.folder(path).and_then(|folder| folder.below),
        };
        let below = below.map(|below| below.join(&name));
        [Some(path.clone()), below, origin].into_iter().flatten().collect()
    }

    fn shown(&self) -> Shown {
        let mut shown = Shown::default();
        self.add(&RepoPath::root(), &mut shown);
        shown
    }

    fn add(&self, folder: &RepoPath, shown: &mut Shown) {
        let below =
            self.folder(folder).unwrap().below.and_then(|path| self.tree.find(&path).unwrap());
        let below = below.map_or(Vec::new(), |index| children(self.tree, index).unwrap());
        let upper = self.overlay.list(folder).unwrap();
        let names: BTreeSet<_> = upper
            .into_iter()
            .map(|listed| listed.name)
            .chain(below.into_iter().map(|(name, _)| name))
            .collect();
        for name in names {
            let path = folder.join(&name);
            let child = self.child(&path).unwrap();
            if [b".dvc", &b"t.dvc"[..]].contains(&name.as_bytes()) || !child.is_shown() {
                continue;
            }
            if self.folder(&path).is_some() {
                self.add(&path, shown);
                shown.folders.insert(path);
            } else {
                let content = self.content(&path, &child);
                shown.files.insert(path, content);
            }
        }
    }

    fn content(&self, path: &RepoPath, child: &Child) -> Content {
        let Some(Entry { kind, stat }) = &child.upper else {
            return self.content_below(child.base.as_ref().unwrap());
        };
        let exec = if stat.mode & 0o100 == 0 { 0 } else { EXEC };
        if let Kind::File { origin: Some(origin) } = kind {
            return self.content_below(origin) & !EXEC | exec;
        }
        let mut bytes = Vec::new();
        self.overlay.open_file(path, false).unwrap().read_to_end(&mut bytes).unwrap();
        bytes[0] | exec
    }

    fn content_below(&self, path: &RepoPath) -> Content {
        match self.node(path) {
            Some(Node::GitFile { id, is_exec, .. }) => {
                self.lab.contents[&id] | if is_exec { EXEC } else { 0 }
            }
            Some(Node::Blob { id: Some(id), .. }) => id.digest[0],
            other => panic!("{path} is {other:?}"),
        }
    }

    /// Does what a program wants, unless that is not possible.
    fn apply(&self, doing: &Doing) {
        let (Doing::Write(path, _)
        | Doing::SetMode(path, _)
        | Doing::Remove(path)
        | Doing::MakeFolder(path)
        | Doing::Rename(path, _)) = doing;
        let Some(child) = self.child(path) else { return };
        match doing {
            Doing::Write(_, byte) if self.folder(path).is_none() => self.write(path, &child, *byte),
            Doing::SetMode(_, exec) if child.is_shown() => {
                if child.upper.is_none() {
                    self.raise(path, &child, |_| Shows::Same);
                }
                if self.folder(path).is_none() {
                    let entry = self.overlay.look_at(path).unwrap().unwrap();
                    self.overlay.set_mode(entry, mode(*exec)).unwrap();
                }
            }
            Doing::Remove(_) if child.is_shown() => self.remove(path),
            Doing::MakeFolder(_) if !child.is_shown() => {
                self.make_parents(path);
                let shows = if child.base.is_some() { Shows::Nothing } else { Shows::Same };
                folder_that_shows(self.overlay, &path.to_string(), &shows);
            }
            Doing::Rename(_, to) if child.is_shown() => self.rename(path, to, &child),
            _ => {}
        }
    }

    fn make_parents(&self, path: &RepoPath) {
        let stat = Stat { mode: 0o755, ..Stat::default() };
        self.overlay.make_parents(path, &|_| Ok(stat)).unwrap();
    }

    fn write(&self, path: &RepoPath, child: &Child, byte: Content) {
        self.make_parents(path);
        let is_own = child.kind() == Some(&Kind::File { origin: None });
        if is_own {
            self.overlay.open_file(path, true).unwrap().write_all(&[byte]).unwrap();
        } else if child.is_shown() {
            let draft = self.overlay.draft().unwrap();
            (&mut draft.file()).write_all(&[byte]).unwrap();
            let stat = Stat { mode: mode(self.content(path, child)), ..Stat::default() };
            self.overlay.put_draft(draft, path, &stat).unwrap();
        } else {
            let mut file = self.overlay.create_file(path, 0o644, owner()).unwrap();
            file.write_all(&[byte]).unwrap();
        }
    }

    fn raise(&self, path: &RepoPath, child: &Child, shows: impl Fn(RepoPath) -> Shows) {
        self.make_parents(path);
        let base = child.base.clone().unwrap();
        if self.is_base_folder(&base) {
            folder_that_shows(self.overlay, &path.to_string(), &shows(base));
        } else {
            let stat = Stat { mode: mode(self.content_below(&base)), ..Stat::default() };
            self.overlay.stand_in(path, &base, &stat).unwrap();
        }
    }

    fn remove(&self, path: &RepoPath) {
        let is_in_base = self.child(path).unwrap().base.is_some();
        if self.folder(path).is_none() {
            self.make_parents(path);
            return self.overlay.remove(path, is_in_base).unwrap();
        }
        let Shown { files, folders } = self.shown();
        let below = files.keys().chain(&folders);
        let is_in = |other: &&RepoPath| other.parent().as_ref() == Some(path);
        below.filter(is_in).for_each(|other| self.remove(other));
        self.make_parents(path);
        self.overlay.remove_folder(path, is_in_base).unwrap();
    }

    fn rename(&self, from: &RepoPath, to: &RepoPath, child: &Child) {
        let Some(there) = self.child(to) else { return };
        let is_folder = self.folder(from).is_some();
        if to.strip_prefix(from).is_some() {
            return;
        }
        if there.is_shown() {
            let Shown { files, folders } = self.shown();
            let is_empty = !files
                .keys()
                .chain(&folders)
                .any(|other| other.strip_prefix(to).is_some_and(|below| !below.is_empty()));
            if is_folder != self.folder(to).is_some() || !is_empty {
                return;
            }
        }
        self.make_parents(from);
        self.make_parents(to);
        match child.kind() {
            None => self.raise(from, child, Shows::Of),
            Some(Kind::Folder(Shows::Same)) => {
                let shows = self.folder(from).unwrap().below.map_or(Shows::Nothing, Shows::Of);
                self.overlay.set_shows(from, &shows).unwrap();
            }
            Some(_) => {}
        }
        let how = Renaming {
            leaves_whiteout: child.base.is_some(),
            replaces_folder: is_folder && there.is_shown(),
        };
        self.overlay.rename(from, to, how).unwrap();
    }
}

impl Shown {
    /// Does what a program wants as any file system would.
    fn apply(&mut self, doing: &Doing) {
        let is_free = |shown: &Self, path: &RepoPath| {
            let folder = path.parent().unwrap();
            let is_in_folder = folder.is_root() || shown.folders.contains(&folder);
            is_in_folder && !shown.files.contains_key(path) && !shown.folders.contains(path)
        };
        match doing {
            Doing::Write(path, byte) => {
                if let Some(content) = self.files.get_mut(path) {
                    *content = *content & EXEC | byte;
                } else if is_free(self, path) {
                    self.files.insert(path.clone(), *byte);
                }
            }
            Doing::SetMode(path, exec) => {
                if let Some(content) = self.files.get_mut(path) {
                    *content = *content & !EXEC | exec;
                }
            }
            Doing::Remove(path) => drop(self.take(path)),
            Doing::MakeFolder(path) => {
                if is_free(self, path) {
                    self.folders.insert(path.clone());
                }
            }
            Doing::Rename(from, to) => {
                let is_inside = to.strip_prefix(from).is_some();
                let is_replaced = if self.folders.contains(from) {
                    self.folders.contains(to) && self.is_empty(to)
                } else {
                    self.files.contains_key(from) && self.files.contains_key(to)
                };
                if is_inside || !(is_replaced || is_free(self, to)) {
                    return;
                }
                let moved = self.take(from);
                if moved != Self::default() {
                    self.take(to);
                }
                let there = |path: &RepoPath| match path.strip_prefix(from).unwrap() {
                    b"" => to.clone(),
                    below => to.resolve(below).unwrap(),
                };
                self.files.extend(moved.files.iter().map(|(path, byte)| (there(path), *byte)));
                self.folders.extend(moved.folders.iter().map(there));
            }
        }
    }

    fn is_empty(&self, folder: &RepoPath) -> bool {
        let mut all = self.files.keys().chain(&self.folders);
        !all.any(|path| path != folder && path.strip_prefix(folder).is_some())
    }

    /// Takes out what is at a path and below it.
    fn take(&mut self, path: &RepoPath) -> Self {
        let is_in = |other: &RepoPath| other.strip_prefix(path).is_some();
        Self {
            files: self.files.extract_if(.., |other, _| is_in(other)).collect(),
            folders: self.folders.extract_if(.., |other| is_in(other)).collect(),
        }
    }
}

fn mode(content: Content) -> u16 {
    if content & EXEC == 0 { 0o644 } else { 0o755 }
}

/// What both sides together make of a file, or that they did different things to it.
fn merged([old, ours, new]: [Option<Content>; 3]) -> Result<Option<Content>, Apart> {
    let [Some(was), Some(here), Some(there)] = [old, ours, new] else {
        return merged_part(old, ours, new);
    };
    let part = |mask: Content| merged_part(was & mask, here & mask, there & mask);
    Ok(Some(part(EXEC)? | part(!EXEC)?))
}

fn merged_part<T: PartialEq + Copy>(old: T, ours: T, new: T) -> Result<T, Apart> {
    match ours {
        _ if ours == old => Ok(new),
        _ if new == old || new == ours => Ok(ours),
        _ => Err(Apart),
    }
}

#[derive(Debug)]
struct Apart;

/// The paths that two maps have different things at.
fn differing<'a>(one: &'a Files, other: &'a Files) -> BTreeSet<&'a RepoPath> {
    one.keys().chain(other.keys()).filter(|path| one.get(*path) != other.get(*path)).collect()
}

fn are_around(one: &RepoPath, other: &RepoPath) -> bool {
    one.strip_prefix(other).is_some() || other.strip_prefix(one).is_some()
}

fn check(lab: &Lab, first: &[Upstream], rounds: &[Round]) -> Result<(), TestCaseError> {
    let mut old = Files::new();
    for change in first {
        change_upstream(&mut old, change);
    }
    let mut old_tree = lab.tree(&old);
    let dir = tempfile::tempdir().unwrap();
    let overlay = Overlay::open(dir.path()).unwrap();
    let mut ours = lab.mount(&overlay, &old_tree).shown();
    for (doings, upstream) in rounds {
        for doing in doings {
            ours.apply(doing);
            lab.mount(&overlay, &old_tree).apply(doing);
        }
        prop_assert_eq!(&lab.mount(&overlay, &old_tree).shown(), &ours);
        let mut new = old.clone();
        for change in upstream {
            change_upstream(&mut new, change);
        }
        let new_tree = lab.tree(&new);
        let [changed, by_upstream] = [differing(&old, &ours.files), differing(&old, &new)];
        let folders = old.keys().flat_map(RepoPath::folders).filter(|path| !path.is_root());
        let folders: BTreeSet<_> = folders.collect();
        let own_folders: Vec<_> = ours.folders.symmetric_difference(&folders).collect();
        let of = |path: &RepoPath| {
            merged([&old, &ours.files, &new].map(|files| files.get(path).copied()))
        };
        let mut apart = changed.iter().copied().filter(|path| of(path).is_err());
        let before = Mark::of(&overlay).unwrap();
        let rebase = Rebase::plan(&overlay, &old_tree, &new_tree).unwrap();
        prop_assert_eq!(&Mark::of(&overlay).unwrap(), &before);
        let conflicts = &rebase.conflicts;
        if conflicts.is_empty() {
            prop_assert_eq!(apart.next(), None);
            rebase.prepare(&overlay).unwrap();
            prop_assert_eq!(&lab.mount(&overlay, &old_tree).shown(), &ours);
            let paths = old.keys().chain(ours.files.keys()).chain(new.keys());
            let expected: Files =
                paths.filter_map(|path| Some((path.clone(), of(path).ok()??))).collect();
            let shown = lab.mount(&overlay, &new_tree).shown();
            prop_assert_eq!(&shown.files, &expected);
            (old, old_tree, ours) = (new, new_tree, shown);
        } else {
            let is_told =
                |path: &RepoPath| conflicts.iter().any(|conflict| are_around(&conflict.path, path));
            prop_assert_eq!(apart.find(|path| !is_told(path)), None);
            let is_below_other = |path: &RepoPath| {
                path.folders().any(|folder| conflicts.iter().any(|other| other.path == folder))
            };
            for Conflict { path, .. } in conflicts.iter().filter(|it| !is_below_other(&it.path)) {
                let places = lab.mount(&overlay, &old_tree).places(path);
                let is_near =
                    |other: &&RepoPath| places.iter().any(|place| are_around(place, other));
                // A folder that the overlay has may stand for what was once done in it.
                let is_folder = lab.mount(&overlay, &old_tree).folder(path).is_some();
                let mut here = changed.iter().chain(&own_folders);
                prop_assert!(is_folder || here.any(is_near), "{path}: nothing changed here");
                prop_assert!(by_upstream.iter().any(is_near), "{path}: nothing changed upstream");
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_shown_above_another_tree_is_the_merge_of_maps() {
    let lab = Lab::new();
    let strategy = (upstream(9), vec(round(), 1..4));
    TestRunner::new(Config { source_file: Some(file!()), ..Config::with_cases(500) })
        .run(&strategy, |(first, rounds)| check(&lab, &first, &rounds))
        .unwrap();
}

#[test]
fn what_git_has_in_a_tracked_folder_counts_beside_the_manifest() {
    let lab = Lab::new();
    let files = |names: &[&str]| names.iter().map(|name| (path(name), 0)).collect();
    let [old, new] = [&["t/x"][..], &["t/x", "t/g"]].map(|names| lab.tree(&files(names)));
    let dir = tempfile::tempdir().unwrap();
    let overlay = Overlay::open(dir.path()).unwrap();
    lab.mount(&overlay, &old).apply(&Doing::Remove(path("t")));
    let expected = Conflict { path: path("t"), why: Why::RemovedHere };
    assert_eq!(Rebase::plan(&overlay, &old, &new).unwrap().conflicts, [expected]);
}
