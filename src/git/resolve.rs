//! From a revision to its commit, by the same rules in mirrors and in plain repositories.

use git2::{Commit, Oid};

use super::{
    error::GitError,
    id::CommitId,
    lookup::Lookup,
    refs::Refs,
    repository::Repository,
    revision::{self, Expression, Step},
};

/// How many names an unknown revision is answered with.
const SUGGESTIONS: usize = 3;
/// Longer texts are no typing errors; comparing them would only cost time.
const LONGEST_NAME: usize = 255;

/// The commit a revision stands for at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The commit.
    pub commit: CommitId,
    /// What was asked for, which tells whether it can move.
    pub kind: RevisionKind,
}

/// What kind of name a revision is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionKind {
    /// A branch, which moves; the name resolves to it again. `HEAD` on a branch is that branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// A commit's id, whole or shortened, or a `HEAD` that is on no branch.
    Commit,
    /// Any other ref, or steps from one.
    Expression,
}

impl Repository {
    /// Finds the commit of a revision.
    ///
    /// The first of these that exists counts: a whole id; a full ref name (in a mirror `refs/heads/`
    /// and `refs/tags/` mean the upstream's); a branch; a tag; a remote branch as `origin/x`;
    /// `heads/x` and `tags/x`; an id shortened to at least four digits; `HEAD`. It may be followed
    /// by `~n`, `^n`, `^{commit}`, and `@{date}`: the newest first-parent commit whose committer
    /// date is not after the start of that day in UTC, or not after that ISO date-time.
    pub fn resolve(&self, revision: &str) -> Result<Resolved, GitError> {
        let unknown =
            |nearest| GitError::UnknownRevision { revision: revision.to_owned(), nearest };
        let Some(expression) = revision::parse(revision) else {
            return Err(unknown(Vec::new()));
        };
        let namespaces = self.namespaces();
        match self.with(|repo| Lookup { repo, namespaces }.base(expression.base))? {
            Some(base) => self.walk(base, &expression)?.ok_or_else(|| unknown(Vec::new())),
            None => Err(self.none_such(expression.base, unknown)?),
        }
    }

    /// The error for a base that does not exist.
    fn none_such(
        &self,
        base: &str,
        unknown: impl FnOnce(Vec<String>) -> GitError,
    ) -> Result<GitError, GitError> {
        let refs = self.refs()?;
        if refs.branches.is_empty() && refs.tags.is_empty() {
            let location = self.git_dir().display().to_string();
            return Ok(GitError::EmptyRepository { location });
        }
        Ok(unknown(nearest(base, &refs)))
    }

    fn walk(
        &self,
        base: Resolved,
        expression: &Expression<'_>,
    ) -> Result<Option<Resolved>, GitError> {
        if expression.steps.is_empty() {
            return Ok(Some(base));
        }
        self.with(|repo| {
            let mut commit = Some(find_commit(repo, base.commit.0.oid())?);
            for step in &expression.steps {
                let Some(from) = commit else { break };
                commit = take_step(repo, from, *step)?;
            }
            let kind = RevisionKind::Expression;
            Ok(commit.map(|commit| Resolved { commit: commit.id().into(), kind }))
        })
    }
}

fn find_commit(repo: &git2::Repository, id: Oid) -> Result<Commit<'_>, GitError> {
    repo.find_commit(id).map_err(|e| GitError::object(id, &e))
}

/// Takes one step from a commit; nothing if history ends before.
fn take_step<'r>(
    repo: &'r git2::Repository,
    mut commit: Commit<'r>,
    step: Step,
) -> Result<Option<Commit<'r>>, GitError> {
    match step {
        Step::Parent(0) => Ok(Some(commit)),
        Step::Parent(number) => parent(repo, &commit, number as usize - 1),
        Step::Ancestor(count) => {
            for _ in 0..count {
                let Some(next) = parent(repo, &commit, 0)? else {
                    return Ok(None);
                };
                commit = next;
            }
            Ok(Some(commit))
        }
        Step::At(time) => {
            while commit.time().seconds() > time {
                let Some(next) = parent(repo, &commit, 0)? else {
                    return Ok(None);
                };
                commit = next;
            }
            Ok(Some(commit))
        }
    }
}

fn parent<'r>(
    repo: &'r git2::Repository,
    commit: &Commit<'_>,
    index: usize,
) -> Result<Option<Commit<'r>>, GitError> {
    commit.parent_id(index).ok().map(|id| find_commit(repo, id)).transpose()
}

/// The names that differ least from `name`, best first.
fn nearest(name: &str, refs: &Refs) -> Vec<String> {
    if name.len() > LONGEST_NAME {
        return Vec::new();
    }
    let tolerance = 2.max(name.chars().count() / 3);
    let mut names: Vec<(usize, &String)> = refs
        .branches
        .keys()
        .chain(refs.tags.keys())
        .filter(|known| known.len() <= LONGEST_NAME)
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= tolerance)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().take(SUGGESTIONS).map(|(_, known)| known.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{GitId, Mirror, TransportOptions, fixture::Fixture};

    /// Three commits, a merge of a side branch, and a tag of each kind.
    fn history() -> Fixture {
        let fixture = Fixture::new();
        fixture.git(&["tag", "-a", "-m", "x", "v1"]);
        fixture.commit("b", "two");
        fixture.git(&["tag", "v2"]);
        fixture.git(&["checkout", "--quiet", "-b", "team/side", "v1"]);
        fixture.commit("c", "side");
        fixture.git(&["checkout", "--quiet", "main"]);
        fixture.git(&["merge", "--quiet", "--no-edit", "team/side"]);
        fixture
    }

    fn plain(fixture: &Fixture) -> Repository {
        Repository::open(&fixture.path()).unwrap()
    }

    fn unknown(repository: &Repository, revision: &str) -> Vec<String> {
        match repository.resolve(revision) {
            Err(GitError::UnknownRevision { revision: named, nearest }) if named == revision => {
                nearest
            }
            other => panic!("{revision}: {other:?}"),
        }
    }

    #[test]
    fn every_form_means_what_git_says_in_plain_repositories_and_mirrors() {
        let fixture = history();
        let mirror =
            Mirror::open_or_clone(&fixture.state(), &fixture.url(), &TransportOptions::default());
        let mirror = mirror.unwrap();
        let id = fixture.id("main~1").to_string();
        let (short, upper) = (&id[..10], id.to_uppercase());
        for revision in [
            "main",
            "team/side",
            "v1",
            "v2",
            "HEAD",
            "@",
            "refs/heads/main",
            "refs/tags/v1",
            "heads/team/side",
            "tags/v1",
            "main~1",
            "HEAD~2",
            "main^2",
            "main^2~1",
            "main^0",
            "main~",
            "v1^{commit}",
            "v1^{}",
            "v2~1",
            &id,
            short,
            &upper,
        ] {
            let expected = fixture.id(&format!("{revision}^{{commit}}"));
            for repository in [&plain(&fixture), mirror.repository()] {
                assert_eq!(repository.resolve(revision).unwrap().commit, expected, "{revision}");
            }
        }
        assert_eq!(mirror.repository().resolve("origin/main").unwrap().commit, fixture.id("main"));
    }

    #[test]
    fn the_kind_tells_what_can_move() {
        let fixture = history();
        let repository = plain(&fixture);
        let kind = |revision: &str| repository.resolve(revision).unwrap().kind;
        assert_eq!(kind("main"), RevisionKind::Branch("main".into()));
        assert_eq!(kind("HEAD"), RevisionKind::Branch("main".into()));
        assert_eq!(kind("refs/heads/team/side"), RevisionKind::Branch("team/side".into()));
        assert_eq!(kind("v1"), RevisionKind::Tag("v1".into()));
        assert_eq!(kind(&fixture.id("main").to_string()), RevisionKind::Commit);
        assert_eq!(kind("main~1"), RevisionKind::Expression);
        fixture.git(&["checkout", "--quiet", "--detach"]);
        assert_eq!(kind("HEAD"), RevisionKind::Commit);
    }

    #[test]
    fn a_branch_counts_before_a_tag_and_both_before_a_short_id() {
        let fixture = history();
        let first = fixture.id("v1^{commit}");
        let digits = &first.to_string()[..6];
        fixture.git(&["branch", "both", "v1"]);
        fixture.git(&["tag", "both", "v2"]);
        fixture.git(&["tag", digits, "v2"]);
        let repository = plain(&fixture);
        assert_eq!(repository.resolve("both").unwrap().commit, first);
        assert_eq!(repository.resolve(digits).unwrap().commit, fixture.id("v2"));
    }

    #[test]
    fn dates_find_the_newest_first_parent_commit_before_them() {
        let fixture = Fixture::new();
        let second = fixture.commit("b", "two");
        fixture.commit("c", "three");
        let repository = plain(&fixture);
        // The commits are of 2023-11-14, -15 and -16 at 22:13:20 UTC.
        let found = |revision: &str| repository.resolve(revision).map(|found| found.commit);
        assert_eq!(found("main@{2023-11-16}").unwrap(), second);
        assert_eq!(found("@{2023-11-16T22:13:19}").unwrap(), second);
        assert_eq!(found("main@{2023-11-16T22:13:20}").unwrap(), fixture.id("main"));
        assert_eq!(found("main@{2023-11-16}~1").unwrap(), fixture.id("main~2"));
        unknown(&repository, "main@{2023-11-14}");
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest() {
        let fixture = history();
        let repository = plain(&fixture);
        assert_eq!(unknown(&repository, "mian"), ["main"]);
        assert_eq!(unknown(&repository, "v3"), ["v1", "v2"]);
        assert_eq!(unknown(&repository, "team/sied~2"), ["team/side"]);
        assert_eq!(unknown(&repository, "quite-something-else"), [""; 0]);
        for revision in
            ["main~99", "main^3", "main@{upstream}", "main:a.txt", "..", "-x", "a\0b", ""]
        {
            unknown(&repository, revision);
        }
        unknown(&repository, &"1".repeat(40));
        unknown(&repository, &"x".repeat(100_000));
        let error = repository.resolve("mian").unwrap_err().to_string();
        assert_eq!(error, "unknown revision `mian`; nearest: main");
    }

    #[test]
    fn short_ids_skip_other_objects_and_several_commits_are_ambiguous() {
        let fixture = Fixture::new();
        let repository = plain(&fixture);
        let write = |kind, prefix: &str, content: &dyn Fn(u32) -> String| {
            let made = |n| git2::Oid::hash_object(kind, content(n).as_bytes()).unwrap();
            let n = (0..10_000_000).find(|n| made(*n).to_string().starts_with(prefix)).unwrap();
            let written = repository
                .with(|repo| Ok(repo.odb().unwrap().write(kind, content(n).as_bytes()).unwrap()));
            GitId::from(written.unwrap())
        };
        let head = fixture.id("main");
        let digits = &head.to_string()[..4];
        let blob = write(git2::ObjectType::Blob, digits, &|n| n.to_string());
        assert!(blob.to_string().starts_with(digits));
        assert_eq!(repository.resolve(digits).unwrap().commit, head);

        let raw = fixture.git(&["cat-file", "commit", "main"]);
        let twin = write(git2::ObjectType::Commit, digits, &|n| format!("{raw}{n}\n"));
        let mut expected = [head.0, twin];
        expected.sort_unstable();
        match repository.resolve(digits) {
            Err(GitError::AmbiguousRevision { candidates, .. }) => assert_eq!(candidates, expected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_repository_without_commits_says_so() {
        for revision in ["HEAD", "main", "v1~1"] {
            let error = plain(&Fixture::empty()).resolve(revision).unwrap_err();
            assert!(matches!(error, GitError::EmptyRepository { .. }), "{error}");
        }
    }

    #[test]
    fn the_history_of_a_shallow_clone_ends_where_it_was_cut() {
        let fixture = history();
        let shallow = fixture.outside("shallow");
        let url = format!("file://{}", fixture.path().display());
        fixture.git(&["clone", "--quiet", "--depth=1", &url, shallow.to_str().unwrap()]);
        let repository = Repository::open(&shallow).unwrap();
        assert_eq!(repository.resolve("main").unwrap().commit, fixture.id("main"));
        unknown(&repository, "main~1");
    }
}
