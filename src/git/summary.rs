//! What people are shown of a commit.

use super::{error::GitError, id::CommitId, repository::Repository};

/// A commit in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSummary {
    /// As many digits of its id as tell it from every other object, at least 7.
    pub short_id: String,
    /// The committer's date, in seconds since 1970.
    pub time: i64,
    /// The first paragraph of its message on one line; what is not UTF-8 in it is replaced.
    pub subject: String,
}

impl Repository {
    /// What people are shown of a commit.
    pub fn summary(&self, id: CommitId) -> Result<CommitSummary, GitError> {
        let failed = |error: &git2::Error| GitError::object(id.0, error);
        self.with(|repo| {
            let commit = repo.find_commit(id.0.oid()).map_err(|e| failed(&e))?;
            let short_id = commit.as_object().short_id().map_err(|e| failed(&e))?;
            let subject = commit.summary_bytes().unwrap_or_default();
            Ok(CommitSummary {
                short_id: String::from_utf8_lossy(&short_id).into_owned(),
                time: commit.time().seconds(),
                subject: String::from_utf8_lossy(subject).into_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::fixture::{FIRST_COMMIT, Fixture};

    #[test]
    fn a_commit_is_told_as_git_tells_it() {
        let fixture = Fixture::new();
        fixture.git(&["commit", "--quiet", "--allow-empty", "-m", "a subject\nin two\n\nand more"]);
        let repository = Repository::open(&fixture.path()).unwrap();
        let summary = repository.summary(fixture.id("HEAD")).unwrap();
        let expected = CommitSummary {
            short_id: fixture.git(&["rev-parse", "--short", "HEAD"]),
            time: FIRST_COMMIT + 86_400,
            subject: "a subject in two".to_owned(),
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn a_commit_that_is_not_there_is_missing() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let absent = CommitId(crate::git::GitId([1; 20]));
        assert!(matches!(repository.summary(absent), Err(GitError::Missing { .. })));
    }
}
