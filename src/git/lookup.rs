//! Finds what the base of a revision names: an id, a ref or `HEAD`.

use git2::{ErrorCode, Object, Oid};

use super::{
    error::GitError,
    id::{CommitId, GitId},
    refs::{Namespaces, branch_of_head},
    resolve::{Resolved, RevisionKind},
};

/// Answers with one libgit2 handle.
pub(super) struct Lookup<'a> {
    pub(super) repo: &'a git2::Repository,
    pub(super) namespaces: Namespaces,
}

impl Lookup<'_> {
    /// The commit of a revision without steps; nothing if it does not exist.
    pub(super) fn base(&self, name: &str) -> Result<Option<Resolved>, GitError> {
        if let Some(commit) = GitId::parse(name).map_or(Ok(None), |id| self.object(id.oid()))? {
            return Ok(Some(Resolved { commit, kind: RevisionKind::Commit }));
        }
        for (full_name, kind) in self.candidates(name) {
            if let Some(commit) = self.reference(&full_name)? {
                return Ok(Some(Resolved { commit, kind }));
            }
        }
        if let Some(commit) = self.short_id(name)? {
            return Ok(Some(Resolved { commit, kind: RevisionKind::Commit }));
        }
        if name == "HEAD" { self.head() } else { Ok(None) }
    }

    /// The full ref names that `name` could mean, in the order in which they count.
    fn candidates(&self, name: &str) -> Vec<(String, RevisionKind)> {
        if name.starts_with("refs/") {
            return vec![self.full_name(name)];
        }
        let Namespaces { branches, tags } = self.namespaces;
        vec![
            (format!("{branches}{name}"), RevisionKind::Branch(name.to_owned())),
            (format!("{tags}{name}"), RevisionKind::Tag(name.to_owned())),
            (format!("refs/remotes/{name}"), RevisionKind::Branch(name.to_owned())),
            self.full_name(&format!("refs/{name}")),
        ]
    }

    fn full_name(&self, name: &str) -> (String, RevisionKind) {
        let Namespaces { branches, tags } = self.namespaces;
        if let Some(branch) = name.strip_prefix("refs/heads/") {
            (format!("{branches}{branch}"), RevisionKind::Branch(branch.to_owned()))
        } else if let Some(tag) = name.strip_prefix("refs/tags/") {
            (format!("{tags}{tag}"), RevisionKind::Tag(tag.to_owned()))
        } else {
            (name.to_owned(), RevisionKind::Expression)
        }
    }

    /// The commit behind a ref; nothing if there is no such ref or it stands for something else.
    fn reference(&self, name: &str) -> Result<Option<CommitId>, GitError> {
        let reference = match self.repo.find_reference(name).and_then(|r| r.resolve()) {
            Ok(reference) => reference,
            Err(e) if matches!(e.code(), ErrorCode::NotFound | ErrorCode::InvalidSpec) => {
                return Ok(None);
            }
            Err(e) => return Err(GitError::reference("read", name, &e)),
        };
        let Some(target) = reference.target() else {
            return Ok(None);
        };
        let object = self.repo.find_object(target, None);
        let commit = object.and_then(|object| peel(&object));
        commit.map_err(|e| GitError::object(target, &e))
    }

    /// The commit that an object is or, for an annotated tag, stands for; nothing if there is no
    /// such object or it is of another kind.
    fn object(&self, id: Oid) -> Result<Option<CommitId>, GitError> {
        let object = self.repo.find_object(id, None);
        match object.and_then(|object| peel(&object)) {
            Ok(commit) => Ok(commit),
            Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
            Err(e) => Err(GitError::object(id, &e)),
        }
    }

    fn short_id(&self, digits: &str) -> Result<Option<CommitId>, GitError> {
        let is_short = (4..40).contains(&digits.len());
        if !is_short || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let (Ok(prefix), Ok(odb)) = (Oid::from_str(digits), self.repo.odb()) else {
            return Ok(None);
        };
        match odb.exists_prefix(prefix, digits.len()) {
            Ok(id) => self.object(id),
            Err(e) if e.code() == ErrorCode::Ambiguous => only_commit(&odb, digits),
            Err(_) => Ok(None),
        }
    }

    fn head(&self) -> Result<Option<Resolved>, GitError> {
        let Some(commit) = self.reference("HEAD")? else {
            return Ok(None);
        };
        let head = self.repo.find_reference("HEAD").ok();
        let branch = head.as_ref().and_then(|head| branch_of_head(head, self.namespaces.branches));
        let kind =
            branch.map_or(RevisionKind::Commit, |name| RevisionKind::Branch(name.to_owned()));
        Ok(Some(Resolved { commit, kind }))
    }
}

/// Of all objects whose id begins with `digits`, the one that is a commit.
fn only_commit(odb: &git2::Odb<'_>, digits: &str) -> Result<Option<CommitId>, GitError> {
    let digits = digits.to_ascii_lowercase();
    let mut ids = Vec::new();
    odb.foreach(|id| {
        if id.to_string().starts_with(&digits) {
            ids.push(*id);
        }
        true
    })
    .map_err(|e| GitError::reference("list ids that begin with", &digits, &e))?;
    let is_commit =
        |id: &Oid| odb.read_header(*id).is_ok_and(|(_, kind)| kind == git2::ObjectType::Commit);
    let mut candidates: Vec<GitId> = ids.into_iter().filter(is_commit).map(GitId::from).collect();
    candidates.sort_unstable();
    candidates.dedup();
    match candidates[..] {
        [] => Ok(None),
        [commit] => Ok(Some(CommitId(commit))),
        _ => Err(GitError::AmbiguousRevision { revision: digits, candidates }),
    }
}

/// Follows annotated tags to a commit; nothing if they end elsewhere.
fn peel(object: &Object<'_>) -> Result<Option<CommitId>, git2::Error> {
    match object.peel_to_commit() {
        Ok(commit) => Ok(Some(commit.id().into())),
        Err(e) if matches!(e.code(), ErrorCode::Peel | ErrorCode::InvalidSpec) => Ok(None),
        Err(e) => Err(e),
    }
}
