//! What commits have that their parents have not.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{PushError, PushGround};
use crate::{
    blobs::Sources,
    dvc::{
        manifest::{self, Entry, Sink},
        output::{Content, Origin, Output},
    },
    git::CommitId,
    id::{BlobId, Digest, Key, TreeId},
    path::RepoPath,
    remote::Remote,
    tree::{self, Known, Tracked, Tree},
};

/// Larger manifests (some ten million entries) are not read.
const MAX_MANIFEST: u64 = 1 << 30;

/// An object that a remote should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The object.
    pub key: Key,
    /// A path that has it, for people; of a manifest, the folder.
    pub path: RepoPath,
    /// The remote's place in [`Plan::remotes`].
    pub remote: usize,
}

/// What the remotes should have for some commits.
#[derive(Debug, Default)]
pub struct Plan {
    /// The remotes.
    pub remotes: Vec<Arc<dyn Remote>>,
    /// The objects, each once for a remote.
    pub objects: Vec<Object>,
    /// The URLs where clones look for some of them, though they go to a remote that was named.
    pub elsewhere: BTreeSet<String>,
}

/// Works out what commits, which are newest first, have that their parents have not, or that is
/// among what waits: a copy of what is tracked already waits as well.
pub async fn plan(
    ground: PushGround<'_>,
    commits: &[CommitId],
    waits: &BTreeSet<Key>,
) -> Result<Plan, PushError> {
    let mut planning = Planning { ground, waits, plan: Plan::default(), seen: HashSet::new() };
    let (known, mut trees) = (Known::default(), HashMap::<CommitId, Arc<Tree>>::new());
    let repository = ground.registry.repository();
    for commit in commits {
        let info = repository.commit(*commit);
        let info = info.map_err(|source| PushError::Git { commit: *commit, source })?;
        let mut tree_of = |commit: CommitId| -> Result<_, PushError> {
            if let Some(tree) = trees.get(&commit) {
                return Ok(Arc::clone(tree));
            }
            // Git's objects are on this disk.
            let built = tokio::task::block_in_place(|| tree::build(repository, commit, &known))?;
            Ok(Arc::clone(trees.entry(commit).or_insert(Arc::new(built))))
        };
        let new = tree_of(*commit)?;
        let old =
            info.parents.iter().map(|parent| tree_of(*parent)).collect::<Result<Vec<_>, _>>()?;
        planning.commit(&old, &new).await?;
        trees.remove(commit);
    }
    Ok(planning.plan)
}

struct Planning<'a> {
    ground: PushGround<'a>,
    waits: &'a BTreeSet<Key>,
    plan: Plan,
    seen: HashSet<(usize, Key)>,
}

impl Planning<'_> {
    async fn commit(&mut self, old: &[Arc<Tree>], new: &Tree) -> Result<(), PushError> {
        let mut before = HashSet::new();
        let mut folders = HashMap::new();
        for tree in old {
            for (tracked, remote) in self.stored(tree) {
                for key in keys(&tracked.output.content) {
                    before.insert((remote, key));
                }
                if let Content::Tree(id) = tracked.output.content {
                    folders.insert((remote, tracked.output.path.clone()), id);
                }
            }
        }
        for (tracked, remote) in self.stored(new) {
            let output = &tracked.output;
            let waits = self.waits;
            let is_new = |key: &Key| !before.contains(&(remote, *key)) || waits.contains(key);
            if let Content::Tree(id) = output.content {
                let old = folders.get(&(remote, output.path.clone())).copied();
                if old != Some(id) && is_new(&id.into()) {
                    self.look_elsewhere(new, tracked);
                    self.folder(remote, output, id, old).await?;
                }
                continue;
            }
            let keys: Vec<_> = keys(&output.content).filter(is_new).collect();
            if !keys.is_empty() {
                self.look_elsewhere(new, tracked);
            }
            for key in keys {
                self.add(key, &output.path, remote);
            }
        }
        Ok(())
    }

    /// The outputs of a tree that a remote stores, each with its remote.
    fn stored<'t>(&mut self, tree: &'t Tree) -> Vec<(&'t Tracked, usize)> {
        let stored = |tracked: &&Tracked| {
            let output = &tracked.output;
            // What another repository has is found there.
            let is_here = !matches!(output.origin, Origin::Import(_));
            output.is_cached && output.is_pushed && is_here
        };
        let tracked = tree.outputs().filter(stored);
        tracked
            .map(|tracked| {
                let project = &tree.projects[tracked.project];
                let project = (&project.root, project.config);
                let remote = self.ground.registry.target_of(project, &tracked.output);
                (tracked, self.place_of(remote))
            })
            .collect()
    }

    /// Notes where clones look for an output, if it does not go there.
    fn look_elsewhere(&mut self, tree: &Tree, tracked: &Tracked) {
        let project = &tree.projects[tracked.project];
        let project = (&project.root, project.config);
        self.plan.elsewhere.extend(self.ground.registry.elsewhere(project, &tracked.output));
    }

    fn place_of(&mut self, remote: Arc<dyn Remote>) -> usize {
        let remotes = &mut self.plan.remotes;
        let known = remotes.iter().position(|known| known.url() == remote.url());
        known.unwrap_or_else(|| {
            remotes.push(remote);
            remotes.len() - 1
        })
    }

    fn add(&mut self, key: Key, path: &RepoPath, remote: usize) {
        if self.seen.insert((remote, key)) {
            self.plan.objects.push(Object { key, path: path.clone(), remote });
        }
    }

    /// The manifest of a folder, and what it lists that the one before does not.
    async fn folder(
        &mut self,
        remote: usize,
        output: &Output,
        new: TreeId,
        old: Option<TreeId>,
    ) -> Result<(), PushError> {
        let path = &output.path;
        let mut known = Digests::default();
        if let Some(old) = old.filter(|old| old.scheme == new.scheme) {
            // Without it everything counts as new, and the remote says that it is there.
            if let Err(error) = self.manifest(path, remote, old, &mut known).await {
                tracing::debug!("{path}: {error}");
            }
        }
        let is_new = |digest: &Digest| {
            let key = || BlobId { digest: *digest, scheme: new.scheme }.into();
            !known.0.contains(digest) || self.waits.contains(&key())
        };
        let mut added = Added { is_new: &is_new, folder: path, found: Vec::new() };
        self.manifest(path, remote, new, &mut added).await?;
        for (path, digest) in added.found {
            self.add(BlobId { digest, scheme: new.scheme }.into(), &path, remote);
        }
        self.add(new.into(), path, remote);
        Ok(())
    }

    async fn manifest(
        &self,
        path: &RepoPath,
        remote: usize,
        id: TreeId,
        sink: &mut (dyn Sink + Send),
    ) -> Result<(), PushError> {
        let sources = Sources::from([Arc::clone(&self.plan.remotes[remote])]);
        let text = self.ground.blobs.text(id, &sources, MAX_MANIFEST).await?;
        let Some(text) = text else { return Ok(()) };
        let read = tokio::task::block_in_place(|| manifest::read(|| Ok(text.open()), sink));
        let failed = |source| PushError::Manifest { path: path.clone(), source };
        read.map(drop).map_err(failed)
    }
}

/// The hashes that a manifest lists.
#[derive(Default)]
struct Digests(HashSet<Digest>);

impl Sink for Digests {
    fn take(&mut self, entry: Entry<'_>) {
        self.0.extend(entry.digest);
    }

    fn start_over(&mut self) {
        self.0.clear();
    }
}

/// The files of a manifest whose hashes are new.
struct Added<'a> {
    is_new: &'a (dyn Fn(&Digest) -> bool + Sync),
    folder: &'a RepoPath,
    found: Vec<(RepoPath, Digest)>,
}

impl Sink for Added<'_> {
    fn take(&mut self, entry: Entry<'_>) {
        if let Some(digest) = entry.digest.filter(self.is_new) {
            let path = self.folder.resolve(entry.relpath).unwrap_or_default();
            self.found.push((path, digest));
        }
    }

    fn start_over(&mut self) {
        self.found.clear();
    }
}

/// The objects that a content is made of, without what a manifest lists.
fn keys(content: &Content) -> impl Iterator<Item = Key> + '_ {
    let (single, listed) = match content {
        Content::Blob(id) => (Some(Key::from(*id)), None),
        Content::Tree(id) => (Some(Key::from(*id)), None),
        Content::Files(files) => (None, Some(files)),
        Content::Unavailable(_) => (None, None),
    };
    let listed = listed.into_iter().flatten().filter_map(|file| file.blob.map(Key::from));
    single.into_iter().chain(listed)
}
