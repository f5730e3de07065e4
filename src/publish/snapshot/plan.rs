//! Which changes a snapshot records, and where each of them goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Ground, HasManifest, SnapshotError,
    ignores::{IGNORE, refuse_without_ignore},
    records::{is_let_go, refuse_unwritable, refuse_without_manifest},
};
use crate::{
    git::Repository,
    overlay::Overlay,
    path::RepoPath,
    publish::{
        changes::{Change, Changes, New},
        route::{KeptOut, Route, Router, Rules},
    },
    tree::{Node, OutputId, Tree},
};

/// Why a change stays in the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It cannot be recorded, for this reason.
    Refused(String),
    /// It is not meant to be recorded.
    Ignored(KeptOut),
    /// It was not asked for.
    NotChosen,
}

/// Every change by the place where it is recorded.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) git: Vec<Change>,
    /// Outputs whose content is in git alone.
    pub(super) uncached: BTreeSet<OutputId>,
    /// By output that is a file.
    pub(super) files: BTreeMap<OutputId, Change>,
    /// By output that is a folder.
    pub(super) folders: BTreeMap<OutputId, Vec<Change>>,
    pub(super) new_files: Vec<Change>,
    pub(super) new_folders: BTreeMap<RepoPath, Vec<Change>>,
    /// The `.dvc` files of new files and folders.
    pub(super) records: BTreeMap<RepoPath, RepoPath>,
    /// What came or went together with the `.dvc` file that declares it.
    pub(super) along: Vec<Change>,
    /// Outputs of the base by the paths that they are moved to.
    pub(super) moved: BTreeMap<RepoPath, OutputId>,
    /// Those of them whose `.dvc` files stay, since they have other names.
    pub(super) renamed_within: BTreeSet<OutputId>,
    /// Those of them that are imports, moved with their `.dvc` files.
    pub(super) imports: BTreeSet<RepoPath>,
    /// Outputs that are gone as a whole.
    pub(super) removed: BTreeSet<OutputId>,
    pub(super) left: Vec<(Change, Left)>,
}

impl Plan {
    pub(super) fn new(
        (ground, changes): (&Ground<'_>, &Changes),
        rules: &Rules,
        chosen: &[RepoPath],
    ) -> Result<Self, SnapshotError> {
        let Ground { overlay, tree, repository, .. } = *ground;
        let has_manifest = Some(ground.has_manifest);
        let mut router = Router::new(rules, (overlay, tree, repository), changes)?;
        let (list, ties) = tied((&mut router, tree), changes, chosen, has_manifest)?;
        let Router { moved, imports, .. } = router;
        ties.check(&list)?;
        let touched: BTreeSet<_> = list.iter().map(|routed| routed.change.path.clone()).collect();
        let mut plan =
            Self { removed: changes.removed_outputs.clone(), moved, imports, ..Self::default() };
        for Routed { change, route, left, .. } in list {
            match (left, &route) {
                (Some(left), _) => plan.leave(change, left),
                (None, Route::Dotfile(output))
                    if touched.contains(&tree.tracked(*output).declared_in) =>
                {
                    plan.along.push(change);
                }
                (None, _) => plan.add(tree, change, route),
            }
        }
        plan.add_empty(tree, changes, chosen);
        let moved = plan.moved.iter().filter(|(path, output)| {
            plan.records.get(*path) == Some(&tree.tracked(**output).declared_in)
        });
        plan.renamed_within = moved.map(|(_, output)| *output).collect();
        Ok(plan)
    }

    /// Adds folders that are gone and had no files, so that no change tells of them.
    fn add_empty(&mut self, tree: &Tree, changes: &Changes, chosen: &[RepoPath]) {
        let is_empty = |output: &&OutputId| {
            let tracked = tree.tracked(**output);
            let path = &tracked.output.path;
            let is_chosen = chosen.is_empty()
                || chosen.iter().any(|chosen| path.strip_prefix(chosen).is_some());
            let is_by_hand = changes.list.iter().any(|change| change.path == tracked.declared_in);
            tracked.output.file_count == Some(0)
                && is_chosen
                && !is_by_hand
                && !tracked.is_of_pipeline()
        };
        let empty: Vec<_> = self.removed.iter().filter(is_empty).copied().collect();
        for output in empty {
            self.folders.entry(output).or_default();
        }
    }

    fn leave(&mut self, change: Change, left: Left) {
        if let Some(Node::Blob { output, .. }) = change.old {
            // What stays of it is still there.
            self.removed.remove(&output);
        }
        self.left.push((change, left));
    }

    fn add(&mut self, tree: &Tree, change: Change, route: Route) {
        match route {
            Route::Refused(_) | Route::Ignored(_) => {}
            Route::Git => self.git.push(change),
            Route::Uncached(output) => {
                self.uncached.insert(output);
                self.git.push(change);
            }
            Route::Dotfile(output) => {
                let is_tracked = tree.tracked(output).output.path == change.path;
                if is_tracked {
                    self.files.insert(output, change);
                }
            }
            Route::Manifest(output) => self.folders.entry(output).or_default().push(change),
            Route::NewFile(record) => {
                self.records.insert(change.path.clone(), record);
                let is_import = self.imports.contains(&change.path);
                let list = if is_import { &mut self.along } else { &mut self.new_files };
                list.push(change);
            }
            Route::NewFolder { folder, record } => {
                self.records.insert(folder.clone(), record);
                if self.imports.contains(&folder) {
                    self.along.push(change);
                } else {
                    self.new_folders.entry(folder).or_default().push(change);
                }
            }
        }
    }

    /// Everything that goes to DVC, with the output of the base that it is or was part of.
    pub(super) fn to_dvc(&self) -> impl Iterator<Item = (Option<OutputId>, &Change)> {
        let moved = |path: &RepoPath| self.moved.get(path).copied();
        let files = self.files.iter().map(|(output, change)| (Some(*output), change));
        let new_files = self.new_files.iter().map(move |change| (moved(&change.path), change));
        let folders = self.folders.iter().map(|(id, list)| (Some(*id), list));
        let new_folders = self.new_folders.iter().map(move |(path, list)| (moved(path), list));
        let in_folders = folders.chain(new_folders);
        let in_folders = in_folders.flat_map(|(id, list)| list.iter().map(move |it| (id, it)));
        files.chain(new_files).chain(in_folders)
    }

    /// The paths of everything that is recorded.
    pub(super) fn recorded(&self) -> impl Iterator<Item = &RepoPath> {
        let to_dvc = self.to_dvc().map(|(_, change)| change);
        self.git.iter().chain(to_dvc).chain(&self.along).map(|change| &change.path)
    }
}

/// A change and what a snapshot does with it.
#[derive(Debug)]
pub struct Routed {
    /// The change.
    pub change: Change,
    /// Where it is recorded.
    pub route: Route,
    /// Why it is not recorded, if so.
    pub left: Option<Left>,
    /// What else comes of it that is easily overlooked.
    pub note: Option<String>,
    /// Whether it is the other side of a change of the list: that what was renamed is gone from
    /// where it was.
    pub is_source: bool,
}

impl Routed {
    pub(super) fn refuse(&mut self, why: String) {
        self.route = Route::Refused(why.clone());
        self.left = Some(Left::Refused(why));
    }
}

/// What a snapshot does with each of the changes that an overlay makes to a tree of a repository;
/// only those at or below the chosen paths are recorded if there are any, and those without which
/// they make no sense.
pub fn routed(
    ground: (&Overlay, &Tree, &Repository),
    changes: &Changes,
    rules: &Rules,
    chosen: &[RepoPath],
) -> Result<Vec<Routed>, SnapshotError> {
    let mut router = Router::new(rules, ground, changes)?;
    tied((&mut router, ground.1), changes, chosen, None).map(|(list, _)| list)
}

fn tied(
    (router, tree): (&mut Router<'_>, &Tree),
    changes: &Changes,
    chosen: &[RepoPath],
    has_manifest: Option<&HasManifest<'_>>,
) -> Result<(Vec<Routed>, Ties), SnapshotError> {
    let sources = changes.list.iter().filter_map(|change| {
        let Some(New::Same { node, .. }) = change.new else { return None };
        let path = change.renamed_from.clone()?;
        Some((Change { path, old: Some(node), new: None, renamed_from: None }, true))
    });
    let mut all: Vec<_> =
        sources.chain(changes.list.iter().map(|change| (change.clone(), false))).collect();
    all.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let (mut list, mut let_go) = (Vec::with_capacity(all.len()), HashMap::new());
    for (change, is_source) in all {
        let mut route = router.route(&change)?;
        if let (Route::Refused(_), None, Some(Node::Blob { output, .. })) =
            (&route, change.new, change.old)
        {
            let known = let_go.get(&output).copied();
            let is_let_go = known.map_or_else(|| is_let_go(router, tree, output), Ok)?;
            let_go.insert(output, is_let_go);
            if is_let_go {
                route = Route::Dotfile(output);
            }
        }
        let route = possible(tree, &change, route);
        let note = if route == Route::Git { router.entails(&change)? } else { None };
        list.push(Routed { change, route, left: None, note, is_source });
    }
    refuse_unwritable(&mut list, router)?;
    refuse_without_ignore(&mut list, tree)?;
    let ties = Ties::of(&list, tree)?;
    let is_chosen = ties.choose(&list, chosen);
    for (routed, is_chosen) in list.iter_mut().zip(is_chosen) {
        routed.left = match &routed.route {
            _ if !is_chosen => Some(Left::NotChosen),
            Route::Refused(why) => Some(Left::Refused(why.clone())),
            Route::Ignored(by) => Some(Left::Ignored(*by)),
            _ => None,
        };
    }
    if let Some(has_manifest) = has_manifest {
        refuse_without_manifest(&mut list, (router, tree), has_manifest)?;
    }
    ties.refuse(&mut list);
    Ok((list, ties))
}

/// A route that the content of the change can take.
fn possible(tree: &Tree, change: &Change, route: Route) -> Route {
    let refused = |why: &str| Route::Refused(why.to_owned());
    let Some(New::Same { node: Node::Blob { id, output, .. }, .. }) = change.new else {
        return route;
    };
    match route {
        Route::Git | Route::Uncached(_) => refused("its bytes are with DVC, not here"),
        Route::Refused(_) | Route::Ignored(_) => route,
        _ if id.is_none() => refused("nothing tells what its content is"),
        _ if tree.tracked(output).output.is_versioned => {
            refused("a bucket keeps its content by version, where only DVC can move it")
        }
        route => route,
    }
}

/// Which changes hang together, by their places in the list.
#[derive(Default)]
struct Ties {
    /// One lies below the other: a file came where a folder was, or the reverse.
    nested: Vec<(usize, usize)>,
    /// The first shows content that the base has at the path of the second.
    shown: Vec<(usize, usize)>,
    /// The first is tracked from now on, or no longer, and the second is the `.gitignore` for it.
    ignored: Vec<(usize, usize)>,
    /// The first is tracked from now on, and the second is its `.dvc` file, written by hand.
    recorded: Vec<(usize, usize)>,
    /// The first is gone, and the second is the `.dvc` file that no longer declares it.
    let_go: Vec<(usize, usize)>,
}

impl Ties {
    fn of(list: &[Routed], tree: &Tree) -> Result<Self, SnapshotError> {
        let by_path: HashMap<_, _> =
            list.iter().enumerate().map(|(at, routed)| (&routed.change.path, at)).collect();
        let mut ties = Self::default();
        for (at, Routed { change, route, .. }) in list.iter().enumerate() {
            let folders = change.path.folders();
            let around = folders.filter_map(|folder| by_path.get(&folder).copied());
            ties.nested.extend(around.map(|folder| (at, folder)));
            if let Some(New::Same { index, .. }) = change.new {
                let origin = by_path.get(&tree.path(index)?).copied();
                ties.shown.extend(origin.filter(|origin| *origin != at).map(|origin| (at, origin)));
            }
            if let Route::NewFile(record) | Route::NewFolder { record, .. } = route {
                ties.recorded.extend(by_path.get(record).map(|record| (at, *record)));
            }
            if let Route::Dotfile(output) = route {
                let record = by_path.get(&tree.tracked(*output).declared_in);
                ties.let_go.extend(record.map(|record| (at, *record)));
            }
            let output = match route {
                Route::NewFile(_) => Some(&change.path),
                Route::NewFolder { folder, .. } => Some(folder),
                Route::Dotfile(output) | Route::Manifest(output) if change.new.is_none() => {
                    Some(&tree.tracked(*output).output.path)
                }
                _ => None,
            };
            let folder = output.and_then(RepoPath::parent);
            let ignore = folder.and_then(|folder| folder.resolve(IGNORE).ok());
            let ignore = ignore.and_then(|ignore| by_path.get(&ignore).copied());
            ties.ignored.extend(ignore.map(|ignore| (at, ignore)));
        }
        Ok(ties)
    }

    /// Which changes are at or below the chosen paths, or hang together with such.
    fn choose(&self, list: &[Routed], chosen: &[RepoPath]) -> Vec<bool> {
        let is_in = |Routed { change, .. }: &Routed| {
            chosen.is_empty() || chosen.iter().any(|path| change.path.strip_prefix(path).is_some())
        };
        let mut is_chosen: Vec<_> = list.iter().map(is_in).collect();
        loop {
            let mut is_done = true;
            let mut choose = |at: usize, is_chosen: &mut Vec<bool>| {
                is_done &= is_chosen[at];
                is_chosen[at] = true;
            };
            let (placed, declared) = (self.nested.iter().chain(&self.shown), &self.recorded);
            for (a, b) in placed.chain(declared).chain(&self.let_go) {
                if is_chosen[*a] || is_chosen[*b] {
                    choose(*a, &mut is_chosen);
                    choose(*b, &mut is_chosen);
                }
            }
            for (output, ignore) in &self.ignored {
                if is_chosen[*output] {
                    choose(*ignore, &mut is_chosen);
                }
            }
            if is_done {
                return is_chosen;
            }
        }
    }

    /// Refuses also what makes no sense, or takes away what is shown, without something refused.
    fn refuse(&self, list: &mut [Routed]) {
        // Of what is nested one is gone where the other came.
        let nested = self.nested.iter().flat_map(both);
        let nested = nested.filter(|(at, _)| list[*at].change.new.is_none());
        let recorded = self.recorded.iter().map(|(at, record)| (*record, *at));
        let let_go = self.let_go.iter().flat_map(both);
        let shown = self.shown.iter().flat_map(|(at, origin)| {
            let is_moved = list[*origin].change.new.is_none();
            [(*at, *origin)].into_iter().chain(is_moved.then_some((*origin, *at)))
        });
        let mut needed_by = HashMap::<_, Vec<_>>::new();
        for (at, other) in nested.chain(shown).chain(recorded).chain(let_go) {
            needed_by.entry(at).or_default().push(other);
        }
        let is_refused = |at: &usize| matches!(list[*at].left, Some(Left::Refused(_)));
        let mut refused: Vec<_> = (0..list.len()).filter(is_refused).collect();
        while let Some(at) = refused.pop() {
            for other in needed_by.remove(&at).unwrap_or_default() {
                if list[other].left.is_none() {
                    let path = &list[at].change.path;
                    let is_same = list[other].change.renamed_from.as_ref() == Some(path);
                    let why = match &list[at].left {
                        Some(Left::Refused(why)) if is_same => why.clone(),
                        _ => format!("it goes with {path}, which cannot be recorded"),
                    };
                    list[other].refuse(why);
                    refused.push(other);
                }
            }
        }
    }

    /// What is meant to stay must not lose what it shows to what is recorded.
    fn check(&self, list: &[Routed]) -> Result<(), SnapshotError> {
        let shown = self.shown.iter().filter(|(at, other)| {
            matches!((&list[*at].left, &list[*other].left), (Some(Left::Ignored(_)), None))
        });
        let bare: Vec<_> = shown.map(|(at, _)| list[*at].change.path.clone()).collect();
        if bare.is_empty() { Ok(()) } else { Err(SnapshotError::Bare(bare)) }
    }
}

fn both((a, b): &(usize, usize)) -> [(usize, usize); 2] {
    [(*a, *b), (*b, *a)]
}
