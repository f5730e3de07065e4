//! Branches and tags, and the refs that keep commits from git's collection.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use git2::{ErrorCode, Reference};

use super::{
    error::GitError,
    id::{CommitId, GitId},
    repository::Repository,
};
use crate::atomic::Draft;

/// Where a repository has its branches and tags; each ends in a slash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespaces {
    pub(super) branches: &'static str,
    pub(super) tags: &'static str,
}

impl Namespaces {
    /// As git lays out a repository.
    pub(super) const PLAIN: Self = Self { branches: "refs/heads/", tags: "refs/tags/" };
    /// As the module's head lays out a mirror.
    pub(super) const MIRROR: Self =
        Self { branches: "refs/remotes/origin/", tags: "refs/upstream/tags/" };
}

/// The branches and tags of a repository at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// Branches by name; in a mirror those of the upstream.
    pub branches: BTreeMap<String, CommitId>,
    /// Tags by name, annotated ones with the commit they stand for.
    pub tags: BTreeMap<String, CommitId>,
    /// The branch that `HEAD` names, if it is one of `branches`.
    pub default_branch: Option<String>,
    /// What cannot be shown by name.
    pub refused: Vec<RefusedRef>,
}

/// A branch or tag that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRef {
    /// Its full name.
    pub name: Vec<u8>,
    /// Why it was left out: no UTF-8, so no text can ask for it (its commit's id still works), or
    /// no readable commit behind it.
    pub reason: &'static str,
}

impl Repository {
    /// Whether it is a mirror, whose branches are those of the upstream.
    pub fn is_mirror(&self) -> bool {
        self.namespaces().branches == Namespaces::MIRROR.branches
    }

    /// The ref of a branch; in a mirror of one of the upstream.
    pub fn branch_ref(&self, branch: &str) -> String {
        format!("{}{branch}", self.namespaces().branches)
    }

    /// The commit that a ref points at, if it is there.
    pub fn tip_of(&self, name: &str) -> Result<Option<CommitId>, GitError> {
        self.with(|repo| match repo.refname_to_id(name) {
            Ok(id) => Ok(Some(id.into())),
            Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
            Err(e) => Err(GitError::reference("read", name, &e)),
        })
    }

    /// Reads all branches and tags.
    pub fn refs(&self) -> Result<Refs, GitError> {
        let Namespaces { branches, tags } = self.namespaces();
        self.with(|repo| {
            let mut refs = Refs::default();
            refs.branches = collect(repo, branches, &mut refs.refused)?;
            refs.tags = collect(repo, tags, &mut refs.refused)?;
            let head = repo.find_reference("HEAD").ok();
            let head = head.as_ref().and_then(|head| branch_of_head(head, branches));
            refs.default_branch =
                head.filter(|name| refs.branches.contains_key(*name)).map(Into::into);
            Ok(refs)
        })
    }

    /// Full names and targets of all branches and tags, to see whether any changed.
    pub(super) fn targets(&self) -> Result<BTreeMap<Vec<u8>, GitId>, GitError> {
        let Namespaces { branches, tags } = self.namespaces();
        self.with(|repo| {
            let mut targets = BTreeMap::new();
            for namespace in [branches, tags] {
                for_each(repo, namespace, |reference| {
                    if let Some(target) = reference.target() {
                        targets.insert(reference.name_bytes().to_vec(), target.into());
                    }
                })?;
            }
            Ok(targets)
        })
    }

    /// Keeps a commit and all it needs from git's collection until `holder` releases it.
    ///
    /// `holder` is one component of a ref's name, such as the id of a mount. Fails on repositories
    /// that the user may not write to.
    pub(super) fn keep(&self, commit: CommitId, holder: &str) -> Result<(), GitError> {
        let name = keeper(commit, holder);
        self.write_ref(&name, commit, || Ok(()))
    }

    /// Points a ref of ours at a commit, if `check` agrees once nobody else can change it. It has its
    /// content before it has its name, also after a loss of power: git takes a repository with an
    /// empty ref for damaged.
    pub(super) fn write_ref(
        &self,
        name: &str,
        commit: CommitId,
        check: impl FnOnce() -> Result<(), GitError>,
    ) -> Result<(), GitError> {
        if !Reference::is_valid_name(name) {
            let reason = "git takes no such name".to_owned();
            return Err(GitError::Reference {
                action: "write",
                reference: name.to_owned(),
                reason,
            });
        }
        let place = self.with(|repo| Ok(repo.commondir().join(name)))?;
        let draft = Draft::new(&place, 0o644, |file| writeln!(file, "{commit}"));
        let draft = draft.map_err(GitError::io("write", &place))?;
        let _lock = Lock::of(name, &place)?;
        check()?;
        draft.place().map_err(GitError::io("write", &place))
    }

    /// What is kept, and by whom, in the order of names.
    pub(super) fn kept(&self) -> Result<Vec<(String, CommitId)>, GitError> {
        self.with(|repo| {
            let mut kept = Vec::new();
            for_each(repo, KEEP, |reference| {
                let name = reference.name().ok().and_then(|name| name.strip_prefix(KEEP));
                if let Some((holder, commit)) = name.and_then(|name| name.split_once('/'))
                    && let Some(id) = GitId::parse(commit)
                {
                    kept.push((holder.to_owned(), CommitId(id)));
                }
            })?;
            kept.sort();
            Ok(kept)
        })
    }

    /// Ends what [`Repository::keep`] began; not an error if there is nothing to end.
    pub(super) fn release(&self, commit: CommitId, holder: &str) -> Result<(), GitError> {
        let name = keeper(commit, holder);
        let failed = |e: &git2::Error| GitError::reference("delete", &name, e);
        self.with(|repo| match repo.find_reference(&name) {
            Ok(mut reference) => reference.delete().map_err(|e| failed(&e)),
            Err(e) if e.code() == ErrorCode::NotFound => Ok(()),
            Err(e) => Err(failed(&e)),
        })
    }
}

/// Git's own lock of a ref, without which it would pack or delete the ref while it is written.
struct Lock(PathBuf);

impl Lock {
    fn of(name: &str, place: &Path) -> Result<Self, GitError> {
        let mut lock = place.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        for _ in 0..LOCK_TRIES {
            match File::options().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    thread::sleep(LOCK_PAUSE);
                }
                Err(error) => return Err(GitError::io("lock", &lock)(error)),
            }
        }
        let reason = format!("{} is there; remove it if no git is at work", lock.display());
        Err(GitError::Reference { action: "lock", reference: name.to_owned(), reason })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever finds it is told where it is.
        _ = fs::remove_file(&self.0);
    }
}

/// How often a ref is looked at that git has locked, with a pause after each; together as long as
/// git itself waits.
const LOCK_TRIES: usize = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Where keepers have their refs.
const KEEP: &str = "refs/dvcfs/keep/";

fn keeper(commit: CommitId, holder: &str) -> String {
    format!("{KEEP}{holder}/{commit}")
}

/// The branch that a symbolic `HEAD` names, whether or not it exists.
pub(super) fn branch_of_head<'a>(head: &'a Reference<'_>, branches: &str) -> Option<&'a str> {
    head.symbolic_target().ok().flatten()?.strip_prefix(branches)
}

fn collect(
    repo: &git2::Repository,
    namespace: &str,
    refused: &mut Vec<RefusedRef>,
) -> Result<BTreeMap<String, CommitId>, GitError> {
    let mut found = BTreeMap::new();
    for_each(repo, namespace, |reference| {
        let name = reference.name_bytes();
        match describe(reference, namespace) {
            Ok((name, commit)) => _ = found.insert(name, commit),
            Err(reason) => refused.push(RefusedRef { name: name.to_vec(), reason }),
        }
    })?;
    Ok(found)
}

fn describe(
    reference: &Reference<'_>,
    namespace: &str,
) -> Result<(String, CommitId), &'static str> {
    let short = reference.name_bytes().get(namespace.len()..).unwrap_or_default();
    let name = str::from_utf8(short).map_err(|_not_utf8| "its name is not UTF-8")?;
    let commit = reference.peel_to_commit().map_err(|error| match error.code() {
        ErrorCode::NotFound => "its commit is missing",
        ErrorCode::Peel | ErrorCode::InvalidSpec => "it does not stand for a commit",
        _ => "its commit cannot be read",
    })?;
    Ok((name.to_owned(), commit.id().into()))
}

fn for_each(
    repo: &git2::Repository,
    namespace: &str,
    mut visit: impl FnMut(&Reference<'_>),
) -> Result<(), GitError> {
    let pattern = format!("{namespace}*");
    let failed = |e: &git2::Error| GitError::reference("list", &pattern, e);
    for reference in repo.references_glob(&pattern).map_err(|e| failed(&e))? {
        visit(&reference.map_err(|e| failed(&e))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::fixture::Fixture;

    #[test]
    fn branches_and_tags_come_with_their_commits() {
        let fixture = Fixture::new();
        let first = fixture.id("HEAD");
        fixture.git(&["tag", "light"]);
        fixture.git(&["tag", "-a", "-m", "x", "annotated"]);
        fixture.git(&["tag", "-a", "-m", "x", "of-tag", "annotated"]);
        fixture.git(&["branch", "team/work"]);
        let second = fixture.commit("b", "two");

        let refs = Repository::open(&fixture.path()).unwrap().refs().unwrap();
        let branches = [("main".to_owned(), second), ("team/work".to_owned(), first)];
        assert_eq!(refs.branches, branches.into());
        let tags = ["annotated", "light", "of-tag"].map(|name| (name.to_owned(), first));
        assert_eq!(refs.tags, tags.into());
        assert_eq!(refs.default_branch.as_deref(), Some("main"));
        assert!(refs.refused.is_empty());
    }

    #[test]
    fn what_no_text_can_name_is_refused_one_by_one() {
        use std::os::unix::ffi::OsStrExt;
        let fixture = Fixture::new();
        fixture.git(&["tag", "a-tree", "HEAD^{tree}"]);
        let main = fixture.path().join(".git/refs/heads/main");
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        std::fs::copy(&main, main.with_file_name(name)).unwrap();
        std::fs::write(main.with_file_name("gone"), format!("{}\n", "1".repeat(40))).unwrap();

        let refs = Repository::open(&fixture.path()).unwrap().refs().unwrap();
        assert_eq!(refs.branches.keys().collect::<Vec<_>>(), ["main"]);
        let mut refused = refs.refused;
        refused.sort_by(|a, b| a.name.cmp(&b.name));
        let expected = [
            (&b"refs/heads/caf\xe9"[..], "its name is not UTF-8"),
            (b"refs/heads/gone", "its commit is missing"),
            (b"refs/tags/a-tree", "it does not stand for a commit"),
        ];
        let expected = expected.map(|(name, reason)| RefusedRef { name: name.to_vec(), reason });
        assert_eq!(refused, expected);
    }

    #[test]
    fn a_kept_commit_survives_collection_until_released() {
        let fixture = Fixture::new();
        let lost = fixture.commit("b", "two");
        let repository = Repository::open(&fixture.path()).unwrap();
        repository.keep(lost, "mount-1").unwrap();
        repository.keep(lost, "mount-2").unwrap();
        let collect = || {
            fixture.git(&["reset", "--quiet", "--hard", "main"]);
            fixture.git(&["reflog", "expire", "--expire=now", "--all"]);
            fixture.git(&["gc", "--quiet", "--prune=now"]);
            Repository::open(&fixture.path()).unwrap().commit(lost)
        };
        fixture.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
        repository.release(lost, "mount-1").unwrap();
        repository.release(lost, "mount-1").unwrap();
        collect().unwrap();
        repository.release(lost, "mount-2").unwrap();
        assert!(matches!(collect(), Err(GitError::Missing { .. })));
    }

    #[test]
    fn a_holder_that_is_no_ref_name_is_an_error() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let error = repository.keep(fixture.id("HEAD"), "../../heads/main").unwrap_err();
        assert!(matches!(error, GitError::Reference { .. }), "{error}");
    }
}
