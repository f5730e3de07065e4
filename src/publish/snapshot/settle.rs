//! The moment from which on a snapshot is done, and what is left to do after it.
//!
//! Files go from the overlay to the outbox in two steps: first they get a second name there, then
//! the overlay lets go of the first. A journal tells of both, so that a crash between them is undone
//! if the snapshot was not decided on, and brought to its end if it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use serde::{Deserialize, Serialize};

use super::{Mark, Prepared, SnapshotError, disk};
use crate::{
    atomic,
    git::{CommitId, Repository},
    id::{Digest, hex, parse_digest},
    overlay::{Base, Kept, Overlay},
    path::RepoPath,
    publish::outbox::Outbox,
    steps,
};

/// What remains to be done once a commit was made.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    commit: String,
    /// The ref that points to the commit once it is decided on.
    reference: String,
    /// What stays changed.
    kept: Vec<Stays>,
    /// What goes to the outbox as it is.
    moving: Vec<Moving>,
}

/// A file of the overlay that goes to the outbox.
#[derive(Debug, Serialize, Deserialize)]
struct Moving {
    path: Vec<u8>,
    md5: String,
}

impl Moving {
    fn of((path, digest): (&RepoPath, &Digest)) -> Self {
        Self { path: path.as_bytes().to_vec(), md5: hex(digest) }
    }

    fn parts(self) -> Option<(RepoPath, Digest)> {
        Some((RepoPath::new(&self.path).ok()?, parse_digest(&self.md5).ok()?))
    }
}

/// One entry of what stays changed.
#[derive(Debug, Serialize, Deserialize)]
struct Stays {
    path: Vec<u8>,
    how: How,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    Entry,
    Opaque,
    Gone,
    Content { origin: Vec<u8>, mode: u16, modified: i64 },
}

impl Stays {
    fn of(path: &RepoPath, kept: &Kept) -> Self {
        let how = match kept {
            Kept::Entry => How::Entry,
            Kept::Opaque => How::Opaque,
            Kept::Gone => How::Gone,
            Kept::Content { origin, mode, modified } => How::Content {
                origin: origin.as_bytes().to_vec(),
                mode: *mode,
                modified: *modified,
            },
        };
        Self { path: path.as_bytes().to_vec(), how }
    }

    fn kept(self) -> Option<(RepoPath, Kept)> {
        let kept = match self.how {
            How::Entry => Kept::Entry,
            How::Opaque => Kept::Opaque,
            How::Gone => Kept::Gone,
            How::Content { origin, mode, modified } => {
                Kept::Content { origin: RepoPath::new(&origin).ok()?, mode, modified }
            }
        };
        Some((RepoPath::new(&self.path).ok()?, kept))
    }
}

/// The ref that keeps the commit of an overlay until it is pushed.
#[derive(Debug, Clone)]
pub struct Keeping<'a> {
    /// Its name.
    pub name: &'a str,
    /// The commit it had when the tree was prepared.
    pub expected: Option<CommitId>,
}

/// Has an overlay lie above a commit of the tree that was prepared from it, and lets go of what is
/// in that. To be called while nobody changes the overlay; `open` are files that somebody reads.
pub fn settle(
    (overlay, outbox): (&Overlay, &Outbox),
    prepared: &Prepared,
    (repository, commit): (&Repository, CommitId),
    (keeping, open): (&Keeping<'_>, &BTreeSet<RepoPath>),
) -> Result<(), SnapshotError> {
    let now = Mark::of(overlay).map_err(disk(&RepoPath::root()))?;
    if let Some(path) = prepared.mark.differs(&now) {
        return Err(SnapshotError::Moved(path));
    }
    let in_use = prepared.moving.keys().filter(|path| open.contains(*path));
    let in_use: Vec<_> = in_use.cloned().collect();
    if !in_use.is_empty() {
        return Err(SnapshotError::InUse(in_use));
    }
    let journal = Journal {
        commit: commit.to_string(),
        reference: keeping.name.to_owned(),
        kept: prepared.kept.iter().map(|(path, kept)| Stays::of(path, kept)).collect(),
        moving: prepared.moving.iter().map(Moving::of).collect(),
    };
    let text = serde_json::to_vec(&journal).unwrap_or_default();
    steps::reached("prepared");
    atomic::write(&overlay.dir().join(JOURNAL), &text, 0o600).map_err(disk(&RepoPath::root()))?;
    steps::reached("noted");
    let decided = decide((overlay, outbox), prepared, (repository, commit), keeping);
    // What was not decided on is undone, and what was is brought to its end.
    let resumed = resume(overlay, outbox, repository);
    decided.and(resumed)
}

fn decide(
    (overlay, outbox): (&Overlay, &Outbox),
    prepared: &Prepared,
    (repository, commit): (&Repository, CommitId),
    keeping: &Keeping<'_>,
) -> Result<(), SnapshotError> {
    for (path, digest) in &prepared.moving {
        outbox.name_also(overlay, path, *digest).map_err(disk(path))?;
    }
    steps::reached("named");
    outbox.sync().map_err(disk(&RepoPath::root()))?;
    steps::reached("synced");
    // From here on it is done.
    repository.move_ref(keeping.name, commit, keeping.expected)?;
    steps::reached("decided");
    Ok(())
}

/// The journal's name in the overlay's folder.
const JOURNAL: &str = "snapshot.json";

/// Does what is left to do of a snapshot that was decided on; undoes one that was not. The
/// repository is the one that the overlay belongs to.
pub fn resume(
    overlay: &Overlay,
    outbox: &Outbox,
    repository: &Repository,
) -> Result<(), SnapshotError> {
    let root = RepoPath::root();
    let place = overlay.dir().join(JOURNAL);
    let text = match fs::read(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(disk(&root))?,
    };
    let journal = serde_json::from_slice::<Journal>(&text).map_err(io::Error::other);
    let journal = journal.map_err(disk(&root))?;
    let commit = repository.own_ref(&journal.reference)?.map(|commit| commit.to_string());
    let moving = journal.moving.into_iter().filter_map(Moving::parts);
    if commit.as_ref() == Some(&journal.commit) {
        let base = overlay.base()?;
        for base in base.into_iter().filter(|base| base.commit != journal.commit) {
            let since = base.since.or(Some(base.commit));
            overlay.set_base(&Base { commit: journal.commit.clone(), since, ..base })?;
        }
        steps::reached("rebased");
        for (path, digest) in moving {
            outbox.protect(digest).map_err(disk(&path))?;
        }
        steps::reached("protected");
        let kept: BTreeMap<_, _> = journal.kept.into_iter().filter_map(Stays::kept).collect();
        overlay.keep_only(&kept).map_err(disk(&root))?;
        steps::reached("let go");
    } else {
        for (path, digest) in moving {
            outbox.unname(overlay, &path, digest).map_err(disk(&path))?;
        }
    }
    fs::remove_file(&place).map_err(disk(&root))
}
