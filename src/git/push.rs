//! Publishing a commit: the user's own git pushes it to a branch of the upstream.

use super::{
    error::GitError, id::CommitId, location::redact, repository::Repository,
    transport::TransportOptions,
};
use crate::path::escape;

/// What the upstream did with a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// The branch is at the commit now.
    Updated,
    /// The branch was there already.
    UpToDate,
    /// The branch has commits that this one does not build on; nothing was changed.
    Behind,
    /// The upstream refused, for this reason in its own words: a protected branch, a hook, no
    /// permission to write; nothing was changed.
    Rejected(String),
}

impl Repository {
    /// Pushes `commit` to `branch` of the remote that is configured as `remote`, such as `origin`.
    ///
    /// Never forces. Hooks of this repository are not run: those that people have there push data
    /// or check a work tree, and neither is theirs to do here.
    pub fn push(
        &self,
        remote: &str,
        commit: CommitId,
        branch: &str,
        options: &TransportOptions,
    ) -> Result<Pushed, GitError> {
        let mut git = self.own_git(options)?;
        git.name = self.url_of(remote)?;
        let target = format!("refs/heads/{branch}");
        if !git2::Reference::is_valid_name(&target) {
            let reason = "not the name of a branch".to_owned();
            return Err(GitError::Reference { action: "push to", reference: target, reason });
        }
        let refspec = format!("{commit}:{target}");
        let volume = if options.progress.is_some() { "--progress" } else { "--no-progress" };
        let arguments = [
            "push",
            "--porcelain",
            "--no-verify",
            "--no-follow-tags",
            volume,
            "--",
            remote,
            &refspec,
        ];
        let output = git.run(&arguments)?;
        match parse(&String::from_utf8_lossy(&output.stdout), &target) {
            Some(pushed) => Ok(pushed),
            None => Err(git.failed(&output)),
        }
    }

    /// The URL of a remote, without secrets.
    fn url_of(&self, remote: &str) -> Result<String, GitError> {
        self.with(|repo| {
            let unknown = |e: &git2::Error| GitError::InvalidLocation {
                location: escape(remote.as_bytes()),
                reason: match e.code() {
                    git2::ErrorCode::NotFound => "no remote has this name",
                    _ => "not the name of a remote",
                },
            };
            let remote = repo.find_remote(remote).map_err(|e| unknown(&e))?;
            let url = remote.pushurl().ok().flatten().or_else(|| remote.url().ok());
            Ok(redact(url.unwrap_or_default()))
        })
    }
}

/// Reads git's report on one branch: `<flag> TAB <from>:<to> TAB <summary>`.
fn parse(report: &str, target: &str) -> Option<Pushed> {
    let line = report.lines().find(|line| {
        let refs = line.split('\t').nth(1).unwrap_or_default();
        refs.split_once(':').is_some_and(|(_, to)| to == target)
    })?;
    let summary = line.split('\t').nth(2).unwrap_or_default();
    Some(match line.chars().next()? {
        '=' => Pushed::UpToDate,
        '!' => {
            const BEHIND: [&str; 4] =
                ["fetch first", "non-fast-forward", "needs force", "stale info"];
            let is_behind = summary.starts_with("[rejected]")
                && BEHIND.iter().any(|words| summary.contains(words));
            if is_behind || is_lost_race(summary) {
                Pushed::Behind
            } else {
                Pushed::Rejected(escape(redact(summary).as_bytes()))
            }
        }
        _ => Pushed::Updated,
    })
}

/// Whether somebody else moved the branch between our look and our write.
fn is_lost_race(summary: &str) -> bool {
    const RACES: [&str; 3] = ["failed to update ref", "cannot lock ref", "incorrect old value"];
    RACES.iter().any(|words| summary.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{CommitId, fixture::Fixture};
    use std::path::PathBuf;

    /// A work tree with a bare upstream of its own.
    fn with_upstream() -> (Fixture, Repository, PathBuf) {
        let fixture = Fixture::new();
        let upstream = fixture.outside("upstream.git");
        fixture.git(&[
            "init",
            "--quiet",
            "--bare",
            "--initial-branch=main",
            upstream.to_str().unwrap(),
        ]);
        fixture.git(&["remote", "add", "origin", upstream.to_str().unwrap()]);
        let repository = Repository::open(&fixture.path()).unwrap();
        (fixture, repository, upstream)
    }

    fn push(repository: &Repository, commit: CommitId) -> Result<Pushed, GitError> {
        repository.push("origin", commit, "main", &TransportOptions::default())
    }

    #[test]
    fn a_branch_is_made_moved_and_never_forced() {
        let (fixture, repository, upstream) = with_upstream();
        let first = fixture.id("HEAD");
        let at = || fixture.git_in(&upstream, &["rev-parse", "main"]);
        assert_eq!(push(&repository, first).unwrap(), Pushed::Updated);
        assert_eq!(push(&repository, first).unwrap(), Pushed::UpToDate);
        let second = fixture.commit("b", "two");
        assert_eq!(push(&repository, second).unwrap(), Pushed::Updated);
        assert_eq!(at(), second.to_string());
        fixture.git(&["reset", "--quiet", "--hard", &first.to_string()]);
        let other = fixture.commit("c", "three");
        assert_eq!(push(&repository, other).unwrap(), Pushed::Behind);
        assert_eq!(at(), second.to_string());
    }

    #[test]
    fn commits_that_only_the_upstream_knows_are_behind_too() {
        let (fixture, repository, upstream) = with_upstream();
        push(&repository, fixture.id("HEAD")).unwrap();
        let elsewhere = fixture.outside("elsewhere");
        let (from, to) = (upstream.to_str().unwrap(), elsewhere.to_str().unwrap());
        fixture.git(&["clone", "--quiet", from, to]);
        fixture.git_in(&elsewhere, &["commit", "--quiet", "--allow-empty", "-m", "theirs"]);
        fixture.git_in(&elsewhere, &["push", "--quiet", "origin", "HEAD:main"]);
        let ours = fixture.commit("b", "two");
        assert_eq!(push(&repository, ours).unwrap(), Pushed::Behind);
    }

    #[test]
    fn a_refusal_comes_with_the_words_of_the_upstream() {
        use std::os::unix::fs::PermissionsExt;
        let (fixture, repository, upstream) = with_upstream();
        let hook = upstream.join("hooks/pre-receive");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\necho no >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        let pushed = push(&repository, fixture.id("HEAD")).unwrap();
        let Pushed::Rejected(reason) = pushed else { panic!("{pushed:?}") };
        assert!(reason.contains("pre-receive hook declined"), "{reason}");
    }

    #[test]
    fn hooks_of_the_repository_do_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let (fixture, repository, _upstream) = with_upstream();
        let hook = fixture.path().join(".git/hooks/pre-push");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(push(&repository, fixture.id("HEAD")).unwrap(), Pushed::Updated);
    }

    #[test]
    fn an_upstream_that_is_gone_or_has_no_name_is_an_error() {
        let (fixture, repository, upstream) = with_upstream();
        let head = fixture.id("HEAD");
        let options = TransportOptions::default();
        let error = repository.push("nobody", head, "main", &options).unwrap_err();
        assert!(matches!(error, GitError::InvalidLocation { .. }), "{error}");
        let error = repository.push("origin", head, "a..b", &options).unwrap_err();
        assert!(matches!(error, GitError::Reference { .. }), "{error}");
        std::fs::remove_dir_all(upstream).unwrap();
        let error = push(&repository, head).unwrap_err();
        assert!(matches!(error, GitError::NotARepository { .. }), "{error}");
    }

    #[test]
    fn reports_are_read_by_their_branch() {
        let read = |line: &str| parse(&format!("To x\n{line}\nDone\n"), "refs/heads/main");
        let rejected = |why: &str| read(&format!("!\tabc:refs/heads/main\t{why}"));
        assert_eq!(read("*\tabc:refs/heads/main\t[new branch]"), Some(Pushed::Updated));
        assert_eq!(read(" \tabc:refs/heads/main\t1..2"), Some(Pushed::Updated));
        assert_eq!(read("=\tabc:refs/heads/main\t[up to date]"), Some(Pushed::UpToDate));
        assert_eq!(rejected("[rejected] (fetch first)"), Some(Pushed::Behind));
        assert_eq!(rejected("[remote rejected] (cannot lock ref 'refs/x')"), Some(Pushed::Behind));
        let protected = rejected("[remote rejected] (protected branch hook declined)");
        assert!(matches!(protected, Some(Pushed::Rejected(_))));
        assert_eq!(read("!\tabc:refs/heads/other\t[rejected] (fetch first)"), None);
    }
}
