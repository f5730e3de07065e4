//! The moment from which on a snapshot is done, and what is left to do after it.
//!
//! Files go from the overlay to the outbox in two steps: first they get a second name there, then
//! the overlay lets go of the first. A journal tells of both, so that a crash between them is undone
//! if the snapshot was not decided on, and brought to its end if it was. Which of both, the ref says,
//! whatever went wrong on the way. Where neither can be done now the overlay is left unfinished, so
//! that nothing is written that a later end would take away.

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
    if overlay.base()?.is_some_and(|base| base.commit != prepared.above.to_string()) {
        return Err(SnapshotError::OtherBase);
    }
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
    match resume(overlay, outbox, repository) {
        Ok(true) => Ok(()),
        Ok(false) => Err(decided.err().unwrap_or(SnapshotError::OtherBase)),
        Err(error) => {
            overlay.leave_unfinished();
            Err(SnapshotError::Unfinished { commit, source: Box::new(error) })
        }
    }
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

/// Does what is left to do of a snapshot that was decided on; undoes one that was not. Tells whether
/// there was one that was decided on. The repository is the one that the overlay belongs to.
pub fn resume(
    overlay: &Overlay,
    outbox: &Outbox,
    repository: &Repository,
) -> Result<bool, SnapshotError> {
    let root = RepoPath::root();
    let place = overlay.dir().join(JOURNAL);
    let text = match fs::read(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        read => read.map_err(disk(&root))?,
    };
    let journal = serde_json::from_slice::<Journal>(&text).map_err(io::Error::other);
    let journal = journal.map_err(disk(&root))?;
    let commit = repository.own_ref(&journal.reference)?.map(|commit| commit.to_string());
    let is_decided = commit.as_ref() == Some(&journal.commit);
    let moving = journal.moving.into_iter().filter_map(Moving::parts);
    if is_decided {
        // The ref may not be on the disk yet, and is all that holds what the overlay lets go of.
        repository.sync()?;
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
    overlay.forget_note(&place).map_err(disk(&root))?;
    Ok(is_decided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dvc::md5::Md5, git::fixture::Fixture, overlay::Owner};

    const REF: &str = "refs/dvcfs/snapshots/lab";

    /// An overlay with one file, which goes to the outbox as it is.
    struct Lab {
        fixture: Fixture,
        repository: Repository,
        overlay: Option<Overlay>,
        outbox: Outbox,
        prepared: Prepared,
    }

    impl Lab {
        fn new() -> Self {
            let fixture = Fixture::new();
            let repository = Repository::open(&fixture.path()).unwrap();
            let overlay = Overlay::open(&fixture.outside("overlay")).unwrap();
            let path = RepoPath::new(b"new").unwrap();
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            let owner = Owner { uid: uid.as_raw(), gid: gid.as_raw() };
            io::Write::write_all(&mut overlay.create_file(&path, 0o644, owner).unwrap(), b"new")
                .unwrap();
            let above = fixture.id("HEAD");
            let prepared = Prepared {
                tree: repository.commit(above).unwrap().tree,
                recorded: 1,
                bytes: 3,
                left: Vec::new(),
                above,
                mark: Mark::of(&overlay).unwrap(),
                kept: BTreeMap::new(),
                moving: BTreeMap::from([(path, Md5::of(b"new"))]),
            };
            let outbox = Outbox::open(&fixture.state()).unwrap();
            Self { fixture, repository, overlay: Some(overlay), outbox, prepared }
        }

        fn overlay(&self) -> &Overlay {
            self.overlay.as_ref().unwrap()
        }

        fn settle(&self, expected: Option<CommitId>) -> Result<(), SnapshotError> {
            let overlay = (self.overlay(), &self.outbox);
            let commit = (&self.repository, self.prepared.above);
            let keeping = Keeping { name: REF, expected };
            settle(overlay, &self.prepared, commit, (&keeping, &BTreeSet::new()))
        }

        /// Opens the overlay again, as the next mount does.
        fn resume(&mut self) -> bool {
            drop(self.overlay.take());
            self.overlay = Some(Overlay::open(&self.fixture.outside("overlay")).unwrap());
            resume(self.overlay(), &self.outbox, &self.repository).unwrap()
        }

        fn has_journal(&self) -> bool {
            self.overlay().dir().join(JOURNAL).exists()
        }

        /// Where the file is: in the overlay, in the outbox.
        fn is_in(&self) -> [bool; 2] {
            let in_outbox = self.outbox.find(
                &crate::id::BlobId { digest: Md5::of(b"new"), scheme: crate::id::Scheme::Md5 }
                    .into(),
            );
            [!self.overlay().is_empty().unwrap(), in_outbox.is_some()]
        }
    }

    #[test]
    fn a_snapshot_is_decided_on_once_the_ref_has_moved_whatever_its_move_came_to() {
        let lab = Lab::new();
        lab.repository.move_ref(REF, lab.prepared.above, None).unwrap();
        lab.settle(None).unwrap();
        assert_eq!(lab.is_in(), [false, true]);
        assert!(!lab.has_journal());
    }

    #[test]
    fn what_is_not_decided_on_is_undone() {
        let mut lab = Lab::new();
        lab.settle(Some(lab.prepared.above)).unwrap_err();
        assert_eq!(lab.is_in(), [true, false]);
        assert!(!lab.has_journal());
        lab.prepared.mark = Mark::of(lab.overlay()).unwrap();
        lab.settle(None).unwrap();
        assert_eq!(lab.is_in(), [false, true]);
    }

    #[test]
    fn where_nobody_knows_what_is_decided_nothing_goes_on_until_somebody_does() {
        let mut lab = Lab::new();
        let place = lab.fixture.path().join(".git").join(REF);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, "no commit\n").unwrap();
        let error = lab.settle(None).unwrap_err();
        assert!(matches!(error, SnapshotError::Unfinished { .. }), "{error}");
        lab.overlay().check().unwrap_err();
        assert!(lab.has_journal());
        fs::remove_file(&place).unwrap();
        assert!(!lab.resume());
        assert_eq!(lab.is_in(), [true, false]);
        assert!(!lab.has_journal());
        lab.overlay().check().unwrap();
    }

    #[test]
    fn a_snapshot_above_another_base_is_refused() {
        let lab = Lab::new();
        let commit = lab.fixture.commit("b.txt", "two").to_string();
        lab.overlay().set_base(&Base { commit, ..Base::default() }).unwrap();
        let error = lab.settle(None).unwrap_err();
        assert!(matches!(error, SnapshotError::OtherBase), "{error}");
        assert_eq!(lab.is_in(), [true, false]);
    }
}
