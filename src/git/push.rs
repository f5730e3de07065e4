//! Publishing a commit: the user's own git pushes it to a branch of the upstream.
//!
//! A repository without remotes that was opened by its path is its own upstream ([`ITSELF`]).

use std::collections::HashSet;

use super::{
    error::GitError,
    id::CommitId,
    location::redact,
    repository::Repository,
    transport::{TransportOptions, words_of_server},
};
use crate::path::escape;

/// What git calls the repository itself where it wants the name of a remote.
const ITSELF: &str = ".";

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
    /// The remote that a branch is pushed to: the one that it is configured to follow, else
    /// `origin`; the repository itself if it has neither.
    pub fn upstream_of(&self, branch: &str) -> Result<String, GitError> {
        self.with(|repo| {
            let config = repo.config().and_then(|mut config| config.snapshot());
            let follows = config.and_then(|it| it.get_string(&format!("branch.{branch}.remote")));
            let names = [follows.ok().as_deref(), Some("origin")].map(|it| it.map(str::to_owned));
            let mut names = names.into_iter().flatten();
            let known = names.find(|name| repo.find_remote(name).is_ok());
            Ok(known.unwrap_or_else(|| ITSELF.to_owned()))
        })
    }

    /// Where a branch is upstream now.
    pub fn upstream_tip(
        &self,
        remote: &str,
        branch: &str,
        options: &TransportOptions,
    ) -> Result<Option<CommitId>, GitError> {
        let mut git = self.own_git(options)?;
        git.name = self.url_of(remote)?;
        let target = format!("refs/heads/{branch}");
        let answer = git.git(&["ls-remote", "--", remote, &target])?;
        let text = String::from_utf8_lossy(&answer);
        let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
        let found = lines.find(|(_, name)| *name == target);
        Ok(found.and_then(|(id, _)| CommitId::parse(id)))
    }

    /// The ref that tells where a branch was upstream when that was last looked at.
    pub fn upstream_ref(&self, remote: &str, branch: &str) -> String {
        format!("{}{branch}", self.tracking(remote))
    }

    /// Where the branches of a remote are noted. A repository that mirrors a remote, as
    /// `git clone --mirror` makes it, has them as its own.
    fn tracking(&self, remote: &str) -> String {
        let is_mirrored = self.with(|repo| {
            let config = repo.config().and_then(|mut config| config.snapshot());
            Ok(config.is_ok_and(|it| it.get_bool(&mirrors(remote)).unwrap_or(false)))
        });
        if remote == ITSELF || is_mirrored.unwrap_or(false) {
            "refs/heads/".to_owned()
        } else {
            format!("refs/remotes/{remote}/")
        }
    }

    /// Where a branch was upstream when that was last looked at.
    fn last_seen(&self, remote: &str, branch: &str) -> Result<Option<CommitId>, GitError> {
        self.tip_of(&self.upstream_ref(remote, branch))
    }

    /// Fetches a branch of the upstream, and notes where it is; nothing if there is none.
    pub fn fetch_branch(
        &self,
        remote: &str,
        branch: &str,
        options: &TransportOptions,
    ) -> Result<Option<CommitId>, GitError> {
        if remote != ITSELF {
            let mut git = self.own_git(options)?;
            git.name = self.url_of(remote)?;
            let refspec = format!("+refs/heads/{branch}:{}", self.upstream_ref(remote, branch));
            let volume = if options.progress.is_some() { "--progress" } else { "--quiet" };
            let quiet = ["--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"];
            let command = ["fetch", volume, "--no-recurse-submodules", "--", remote, &refspec];
            git.git(&[&command[..2], &quiet, &command[2..]].concat())?;
        }
        self.last_seen(remote, branch)
    }

    /// The commits that `tip` builds on and that the upstream did not have when that was last looked
    /// at, and those since `base` whatever the upstream has; `tip` among them, newest first.
    pub fn to_push(
        &self,
        tip: CommitId,
        remote: &str,
        base: Option<CommitId>,
    ) -> Result<Vec<CommitId>, GitError> {
        let mut commits =
            self.history(tip, |walk| walk.hide_glob(&format!("{}*", self.tracking(remote))))?;
        let since = base.map_or(Ok(Vec::new()), |base| self.between(base, tip))?;
        let seen: HashSet<_> = commits.iter().copied().collect();
        commits.extend(since.into_iter().filter(|commit| !seen.contains(commit)));
        Ok(commits)
    }

    /// The commits from `tip` back to `base`, which is left out, without what was merged into them;
    /// newest first.
    pub fn between(&self, base: CommitId, tip: CommitId) -> Result<Vec<CommitId>, GitError> {
        self.history(tip, |walk| {
            walk.simplify_first_parent()?;
            walk.hide(base.0.oid())
        })
    }

    fn history(
        &self,
        tip: CommitId,
        hide: impl Fn(&mut git2::Revwalk<'_>) -> Result<(), git2::Error>,
    ) -> Result<Vec<CommitId>, GitError> {
        self.with(|repo| {
            let failed = |e: &git2::Error| GitError::object(tip.0, e);
            let mut walk = repo.revwalk().map_err(|e| failed(&e))?;
            walk.push(tip.0.oid()).and_then(|()| hide(&mut walk)).map_err(|e| failed(&e))?;
            walk.map(|id| id.map(CommitId::from).map_err(|e| failed(&e))).collect()
        })
    }

    /// Whether a commit is another one or builds on it; not if the other one is not here.
    pub fn builds_on(&self, commit: CommitId, other: CommitId) -> Result<bool, GitError> {
        self.with(|repo| {
            let (one, other) = (commit.0.oid(), other.0.oid());
            let is_here = one == other || repo.find_commit(other).is_ok();
            let descends = || repo.graph_descendant_of(one, other);
            Ok(is_here
                && (one == other || descends().map_err(|e| GitError::object(commit.0, &e))?))
        })
    }

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
        // With that git would push every ref, and takes no other words.
        let not_all = format!("{}=false", mirrors(remote));
        let arguments = [
            "-c",
            &not_all,
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
            Some(Pushed::Rejected(why)) => {
                let words = [why, words_of_server(&output.stderr)];
                let said = words.iter().map(String::as_str).filter(|words| !words.is_empty());
                Ok(Pushed::Rejected(said.collect::<Vec<_>>().join(": ")))
            }
            Some(pushed) => Ok(pushed),
            None => Err(git.failed(&output)),
        }
    }

    /// The URL of a remote, without secrets.
    pub fn url_of(&self, remote: &str) -> Result<String, GitError> {
        if remote == ITSELF {
            let folder = self.work_dir().unwrap_or_else(|| self.git_dir().to_owned());
            return Ok(folder.display().to_string().trim_end_matches('/').to_owned());
        }
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

/// The setting that says that a repository mirrors a remote.
fn mirrors(remote: &str) -> String {
    format!("remote.{remote}.mirror")
}

/// Whether this can be the name of a branch.
pub fn is_branch_name(name: &str) -> bool {
    git2::Branch::name_is_valid(name).unwrap_or(false)
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
    use crate::git::GitId;
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
    fn the_upstream_is_asked_and_what_it_lacks_is_known() {
        let (fixture, repository, upstream) = with_upstream();
        let options = TransportOptions::default();
        let tip = || repository.upstream_tip("origin", "main", &options).unwrap();
        let (first, second) = (fixture.id("HEAD"), fixture.commit("b", "two"));
        assert_eq!((tip(), repository.last_seen("origin", "main").unwrap()), (None, None));
        assert_eq!(repository.to_push(second, "origin", None).unwrap(), [second, first]);
        push(&repository, first).unwrap();
        assert_eq!(tip(), Some(first));
        assert_eq!(repository.last_seen("origin", "main").unwrap(), Some(first));
        assert_eq!(repository.to_push(second, "origin", None).unwrap(), [second]);
        push(&repository, second).unwrap();
        assert_eq!(repository.to_push(second, "origin", None).unwrap(), []);
        assert_eq!(repository.to_push(second, "origin", Some(first)).unwrap(), [second]);
        fixture.git_in(&upstream, &["update-ref", "-d", "refs/heads/main"]);
        assert_eq!(tip(), None);
        assert_eq!(repository.last_seen("origin", "main").unwrap(), Some(second));
        assert!(repository.builds_on(second, first).unwrap());
        assert!(repository.builds_on(first, first).unwrap());
        assert!(!repository.builds_on(first, second).unwrap());
        assert!(!repository.builds_on(first, CommitId(GitId([7; 20]))).unwrap());
    }

    #[test]
    fn a_branch_goes_to_the_remote_it_follows_or_stays_here() {
        let (fixture, repository, upstream) = with_upstream();
        assert_eq!(repository.upstream_of("main").unwrap(), "origin");
        fixture.git(&["remote", "add", "other", upstream.to_str().unwrap()]);
        fixture.git(&["config", "branch.main.remote", "other"]);
        assert_eq!(repository.upstream_of("main").unwrap(), "other");
        fixture.git(&["config", "branch.main.remote", "gone"]);
        assert_eq!(repository.upstream_of("main").unwrap(), "origin");
        let own = Repository::open(&upstream).unwrap();
        assert_eq!(own.upstream_of("main").unwrap(), ".");
        let first = fixture.id("HEAD");
        push(&repository, first).unwrap();
        let second = fixture.commit("b", "two");
        fixture.git(&["push", "--quiet", "origin", "HEAD:refs/dvcfs/x"]);
        assert_eq!(own.to_push(second, ".", None).unwrap(), [second]);
        let pushed = own.push(".", second, "main", &TransportOptions::default()).unwrap();
        assert_eq!(pushed, Pushed::Updated);
        assert_eq!(fixture.git_in(&upstream, &["rev-parse", "main"]), second.to_string());
        assert!(is_branch_name("a/b") && !is_branch_name("a..b") && !is_branch_name("-x"));
    }

    #[test]
    fn a_mirror_of_the_users_has_the_branches_of_the_upstream_as_its_own() {
        let (fixture, repository, upstream) = with_upstream();
        push(&repository, fixture.id("HEAD")).unwrap();
        let folder = fixture.outside("mirror.git");
        let (from, to) = (upstream.to_str().unwrap(), folder.to_str().unwrap());
        fixture.git(&["clone", "--quiet", "--mirror", from, to]);
        let mirror = Repository::open(&folder).unwrap();
        let first = fixture.id("HEAD");
        assert_eq!(mirror.last_seen("origin", "main").unwrap(), Some(first));
        assert_eq!(mirror.to_push(first, "origin", None).unwrap(), []);
        fixture.git_in(&upstream, &["branch", "other"]);
        let second = fixture.commit("b", "two");
        fixture.git(&["push", "--quiet", to, "HEAD:refs/dvcfs/x"]);
        assert_eq!(push(&mirror, second).unwrap(), Pushed::Updated);
        assert_eq!(fixture.git_in(&upstream, &["rev-parse", "main"]), second.to_string());
        fixture.git_in(&upstream, &["rev-parse", "other"]);
        let fetched = mirror.fetch_branch("origin", "main", &TransportOptions::default());
        assert_eq!(fetched.unwrap(), Some(second));
        assert_eq!(mirror.branch_ref("main"), mirror.upstream_ref("origin", "main"));
    }

    #[test]
    fn a_refusal_comes_with_the_words_of_the_upstream() {
        use std::os::unix::fs::PermissionsExt;
        let (fixture, repository, upstream) = with_upstream();
        let hook = upstream.join("hooks/pre-receive");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\necho 'ask Ann' >&2\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        let pushed = push(&repository, fixture.id("HEAD")).unwrap();
        let Pushed::Rejected(reason) = pushed else { panic!("{pushed:?}") };
        assert_eq!(reason, "[remote rejected] (pre-receive hook declined): ask Ann");
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
