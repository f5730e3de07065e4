//! The contents of files that go to DVC: their hashes, and their way into the outbox.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::{self, Cursor, Read as _},
    num::NonZero,
    os::unix::fs::MetadataExt as _,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{Bytes, Ground, MOST_IN_GIT, SnapshotError, disk, ended_early, plan::Plan};
use crate::{
    dvc::{md5, output::Origin},
    id::{BlobId, Digest, Scheme},
    path::RepoPath,
    publish::{
        changes::{Change, New},
        outbox::hashed,
    },
    tree::{Node, OutputId},
};

/// What was hashed.
pub(super) struct Contents {
    /// Hash and size in bytes by path.
    by_path: BTreeMap<RepoPath, (Digest, u64)>,
    /// What became of contents that were known by the hashes of DVC 2.
    upgraded: HashMap<Digest, (Digest, u64)>,
    /// Files that go to the outbox as they are.
    pub(super) moving: BTreeMap<RepoPath, Digest>,
    /// The bytes that were hashed.
    pub(super) bytes: u64,
}

/// Larger files are hashed one by one, as they are read.
const SMALL: u64 = 1 << 20;

/// How many small files are hashed together.
const TOGETHER: usize = 8;

/// Something to be hashed.
enum Job<'a> {
    /// Files of the overlay: small ones together, or a large one.
    Files(Vec<&'a Change>),
    /// A file of the base, whose content has to come to another place.
    Node(&'a Change, Node),
    /// A content of a folder that DVC 2 recorded.
    Old(OutputId, BlobId),
}

/// What came of it.
#[derive(Clone, Copy)]
struct Hashed {
    digest: Digest,
    size: u64,
    /// Whether its bytes are still in the overlay alone.
    stays: bool,
}

impl Contents {
    /// Hashes, on as many threads as there are cores, every file that goes to DVC and is not known
    /// by its hash, and takes those into the outbox that cannot go there as they are: because
    /// somebody has them open, or from another disk.
    pub(super) fn of(
        ground: &Ground<'_>,
        plan: &Plan,
        open: &BTreeSet<RepoPath>,
    ) -> Result<Self, SnapshotError> {
        let (mut jobs, mut small) = (Vec::new(), Vec::new());
        for (output, change) in plan.to_dvc() {
            match change.new {
                Some(New::File(stat)) if stat.size <= SMALL => small.push(change),
                Some(New::File(_)) => jobs.push(Job::Files(vec![change])),
                Some(New::Same { node, .. }) if !is_at_hand(ground, (output, change), node) => {
                    jobs.push(Job::Node(change, node));
                }
                _ => {}
            }
        }
        for (output, list) in &plan.folders {
            if is_of_dvc_2(ground, *output) && !plan.removed.contains(output) {
                let old = old_contents(ground, *output, list)?;
                jobs.extend(old.into_iter().map(|blob| Job::Old(*output, blob)));
            }
        }
        jobs.extend(small.chunks(TOGETHER).map(|files| Job::Files(files.to_vec())));
        let done = in_parallel(&jobs, |job| hash(ground, job, open))?;
        let mut contents = Self {
            by_path: BTreeMap::new(),
            upgraded: HashMap::new(),
            moving: BTreeMap::new(),
            bytes: 0,
        };
        for (job, done) in jobs.iter().zip(done) {
            match job {
                Job::Files(files) => {
                    for (change, hashed) in files.iter().zip(done) {
                        contents.add(change, hashed);
                    }
                }
                Job::Node(change, _) => {
                    for hashed in done {
                        contents.add(change, hashed);
                    }
                }
                Job::Old(_, blob) => {
                    for Hashed { digest, size, .. } in done {
                        contents.bytes += size;
                        contents.upgraded.insert(blob.digest, (digest, size));
                    }
                }
            }
        }
        Ok(contents)
    }

    fn add(&mut self, change: &Change, Hashed { digest, size, stays }: Hashed) {
        self.bytes += size;
        self.by_path.insert(change.path.clone(), (digest, size));
        if stays {
            self.moving.insert(change.path.clone(), digest);
        }
    }

    /// What a path was hashed to, and the size in bytes.
    pub(super) fn at(&self, path: &RepoPath) -> Option<(Digest, u64)> {
        self.by_path.get(path).copied()
    }

    /// What the hash of DVC 2 became.
    pub(super) fn upgraded(&self, old: Digest) -> Option<(Digest, u64)> {
        self.upgraded.get(&old).copied()
    }
}

/// Whether a folder was recorded by the hashes of DVC 2.
pub(super) fn is_of_dvc_2(ground: &Ground<'_>, output: OutputId) -> bool {
    ground.tree.manifest(output).is_some_and(|id| id.scheme == Scheme::Dos2Unix)
}

/// Whether the content of a node can be named where it comes to, since the remotes of that place
/// have it.
fn is_at_hand(
    ground: &Ground<'_>,
    (target, change): (Option<OutputId>, &Change),
    node: Node,
) -> bool {
    let Node::Blob { id: Some(id), output, .. } = node else { return false };
    let from = ground.tree.tracked(output);
    let remote = target.and_then(|to| ground.tree.tracked(to).output.remote.as_ref());
    id.scheme == Scheme::Md5
        && from.output.origin == Origin::Own
        && from.output.remote.as_ref() == remote
        && Some(from.project) == ground.tree.project_around(&change.path)
}

/// The contents that stay in a folder that DVC 2 recorded, each once.
fn old_contents(
    ground: &Ground<'_>,
    output: OutputId,
    list: &[Change],
) -> Result<BTreeSet<BlobId>, SnapshotError> {
    let path = &ground.tree.tracked(output).output.path;
    let changed: BTreeSet<_> =
        list.iter().filter_map(|change| change.path.strip_prefix(path)).collect();
    let files = ground.files_of(output)?.into_iter();
    let digests = files.filter(|(path, _)| !changed.contains(&path[..])).filter_map(|file| file.1);
    Ok(digests.map(|digest| BlobId { digest, scheme: Scheme::Dos2Unix }).collect())
}

/// What came of each part of a job, in order.
fn hash(
    ground: &Ground<'_>,
    job: &Job<'_>,
    open: &BTreeSet<RepoPath>,
) -> Result<Vec<Hashed>, SnapshotError> {
    let taken = |source: Bytes| {
        let (digest, size) = ground.outbox.add(source)?;
        Ok(vec![Hashed { digest, size, stays: false }])
    };
    match job {
        Job::Files(files) => hash_files(ground, files, open),
        Job::Node(Change { path, .. }, node) => match *node {
            Node::GitFile { id, .. } => {
                let bytes = ground.repository.blob(id, MOST_IN_GIT)?;
                taken(Box::new(Cursor::new(bytes))).map_err(disk(path))
            }
            Node::Blob { id: Some(id), output, .. } => {
                (ground.blob)(output, id).and_then(taken).map_err(disk(path))
            }
            _ => Err(disk(path)(io::Error::other("it is no file"))),
        },
        Job::Old(output, blob) => {
            let path = &ground.tree.tracked(*output).output.path;
            (ground.blob)(*output, *blob).and_then(taken).map_err(disk(path))
        }
    }
}

/// A file that was taken note of.
enum Taken {
    Hashed(Hashed),
    /// All its bytes, to be hashed with others.
    Read(Vec<u8>),
}

/// Hashes files of the overlay.
fn hash_files(
    ground: &Ground<'_>,
    files: &[&Change],
    open: &BTreeSet<RepoPath>,
) -> Result<Vec<Hashed>, SnapshotError> {
    let take = |Change { path, .. }: &&Change| {
        let file = ground.overlay.open_file(path, false);
        let taken = file.and_then(|file| take(ground, file, open.contains(path)));
        taken.map_err(disk(path))
    };
    let taken = files.iter().map(take).collect::<Result<Vec<_>, _>>()?;
    let read = taken.iter().filter_map(|taken| match taken {
        Taken::Read(bytes) => Some(&bytes[..]),
        Taken::Hashed(_) => None,
    });
    let mut digests = md5::of_each(&read.collect::<Vec<_>>()).into_iter();
    let hashed = taken.iter().filter_map(|taken| match taken {
        Taken::Hashed(hashed) => Some(*hashed),
        Taken::Read(bytes) => {
            Some(Hashed { digest: digests.next()?, size: bytes.len() as u64, stays: true })
        }
    });
    let hashed: Vec<_> = hashed.collect();
    let staying = hashed.iter().filter(|hashed| hashed.stays).map(|hashed| hashed.digest);
    ground.outbox.expect(staying).map_err(disk(&RepoPath::root()))?;
    Ok(hashed)
}

/// Takes the clone of a file where the disk has such, itself where it can go to the outbox as it is,
/// else its copy.
fn take(ground: &Ground<'_>, mut file: File, is_open: bool) -> io::Result<Taken> {
    let moved = |(digest, size)| Ok(Taken::Hashed(Hashed { digest, size, stays: false }));
    if let Some(done) = ground.outbox.add_clone(&file)? {
        return moved(done);
    }
    let metadata = file.metadata()?;
    if is_open || !ground.outbox.is_on(metadata.dev())? {
        return ground.outbox.add(file).and_then(moved);
    }
    if metadata.len() <= SMALL {
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        // What it has grown by since is told by its size, and the snapshot is not made.
        file.take(SMALL).read_to_end(&mut bytes)?;
        return Ok(Taken::Read(bytes));
    }
    let (digest, size) = hashed(&mut file, |_| Ok(()))?;
    Ok(Taken::Hashed(Hashed { digest, size, stays: true }))
}

/// Does the work for each item, on as many threads as there are cores; the results are in the order
/// of the items.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, SnapshotError> + Sync,
) -> Result<Vec<R>, SnapshotError> {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        while let Some((at, item)) = Some(next.fetch_add(1, Ordering::Relaxed))
            .and_then(|at| items.get(at).map(|item| (at, item)))
        {
            match work(item) {
                Ok(result) => done.push((at, result)),
                Err(error) => {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let threads = thread::available_parallelism().map_or(2, NonZero::get).min(items.len());
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let ended = |_| Err(disk(&RepoPath::root())(ended_early()));
        let results = workers.into_iter().map(|worker| worker.join().unwrap_or_else(ended));
        results.collect::<Result<Vec<_>, _>>()
    })?;
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
