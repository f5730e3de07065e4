//! The commits of an overlay that are not pushed, and what they build on.
//!
//! Two refs hold them in git, and the note of the overlay's base says which they are. Whoever asks
//! for them brings the refs back to what the note says, after somebody pruned them or a crash.

use super::{
    exit::{Code, Failure},
    snapshot::{base_ref_of, ref_of_name},
};
use crate::{
    git::{CommitId, GitError, Repository},
    overlay::Base,
};

/// The newest commit of an overlay of this name that is not pushed.
pub(super) fn newest(
    repository: &Repository,
    overlay: &str,
    base: Option<&Base>,
) -> Result<Option<CommitId>, GitError> {
    let held = repository.own_ref(&ref_of_name(overlay))?;
    let noted =
        base.and_then(|base| base.since.as_deref().and_then(CommitId::parse).zip(commit_of(base)));
    let Some((since, noted)) = noted else { return Ok(held) };
    if let Some(held) = held.filter(|held| *held != noted)
        && !repository.builds_on(noted, held)?
    {
        return Ok(Some(held));
    }
    // A ref to what is not there would spoil the repository.
    repository.commit(noted)?;
    if let Err(error) = hold(repository, overlay, (since, noted), held) {
        tracing::warn!("{noted} is held by no ref until it is pushed: {error}");
    }
    Ok(Some(noted))
}

/// The commits of an overlay of this name that are not pushed, newest first.
pub(super) fn all(
    repository: &Repository,
    overlay: &str,
    base: Option<&Base>,
) -> Result<Vec<CommitId>, GitError> {
    let Some(newest) = newest(repository, overlay, base)? else { return Ok(Vec::new()) };
    let since = repository.own_ref(&base_ref_of(overlay))?;
    // The newest one waits, whatever is known of those before it.
    let all = since.and_then(|since| repository.between(since, newest).ok());
    Ok(all.filter(|all| !all.is_empty()).unwrap_or_else(|| vec![newest]))
}

/// Has the refs of an overlay be where they should.
fn hold(
    repository: &Repository,
    overlay: &str,
    (since, newest): (CommitId, CommitId),
    held: Option<CommitId>,
) -> Result<(), GitError> {
    if held != Some(newest) {
        repository.move_ref(&ref_of_name(overlay), newest, held)?;
    }
    let base_ref = base_ref_of(overlay);
    let noted = repository.own_ref(&base_ref)?;
    if noted != Some(since) {
        repository.commit(since)?;
        repository.move_ref(&base_ref, since, noted)?;
    }
    Ok(())
}

/// What a base notes as its commit.
pub(super) fn commit_of(base: &Base) -> Option<CommitId> {
    CommitId::parse(&base.commit)
}

/// Notes the newest commits below that upstream has of the branch that a base is meant for. What
/// was noted before stays where they are no newer.
pub(super) fn look(repository: &Repository, base: &mut Base) -> Result<(), GitError> {
    let (Some(branch), Some(commit)) = (&base.branch, commit_of(base)) else { return Ok(()) };
    let upstream = repository.upstream_ref(&repository.upstream_of(branch)?, branch);
    for reference in [repository.branch_ref(branch), upstream] {
        let Some(tip) = repository.tip_of(&reference)? else { continue };
        let Some(common) = repository.merge_base(commit, tip)? else { continue };
        let noted = base.seen.get(&reference).and_then(|noted| CommitId::parse(noted));
        if noted.map_or(Ok(true), |noted| repository.builds_on(common, noted))? {
            base.seen.insert(reference, common.to_string());
        }
    }
    Ok(())
}

/// Where upstream's branch was when a ref last told, also after that was pruned.
pub(super) fn last_seen(
    repository: &Repository,
    base: &Base,
    reference: &str,
) -> Result<Option<CommitId>, GitError> {
    let noted = base.seen.get(reference).and_then(|seen| CommitId::parse(seen));
    let tip = repository.tip_of(reference)?;
    let is_newer = match (noted, tip) {
        (Some(noted), Some(tip)) => repository.builds_on(noted, tip)?,
        (_, tip) => tip.is_none(),
    };
    Ok(if is_newer { noted } else { tip })
}

/// A commit below that a ref had and that is not in its tip any more: there history was written
/// anew, and merging it would bring back what was taken away.
pub(super) fn dropped(
    repository: &Repository,
    base: &Base,
    (reference, tip): (&str, CommitId),
) -> Result<Option<CommitId>, GitError> {
    let seen = base.seen.get(reference).and_then(|seen| CommitId::parse(seen));
    let is_there = seen.map_or(Ok(true), |seen| repository.builds_on(tip, seen))?;
    Ok(seen.filter(|_| !is_there))
}

/// Says that `dropped` is not upstream any more.
pub(super) fn rewritten(base: &Base, dropped: CommitId, url: &str) -> Failure {
    let branch = base.branch.as_deref().unwrap_or_default();
    let message = format!(
        "{branch} at {url} does not have {dropped}, which the snapshot builds on: its history was \
         written anew"
    );
    let elsewhere = elsewhere(base);
    Failure::new(Code::Conflict, message).hint(format!("nothing is lost; {elsewhere}"))
}

/// Says how the commits of an overlay, or its changes, come to another branch.
pub(super) fn elsewhere(base: &Base) -> String {
    let since = base.since.as_ref().unwrap_or(&base.commit);
    format!("to push it as a branch of its own, mount with --rev {since} --branch NAME")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{GitId, fixture::Fixture};

    /// A repository, and three commits that build on each other.
    fn lined_up() -> (Fixture, Repository, [CommitId; 3]) {
        let fixture = Fixture::new();
        let first = fixture.id("HEAD");
        let commits = [first, fixture.commit("b", "two"), fixture.commit("c", "three")];
        let repository = Repository::open(&fixture.path()).unwrap();
        (fixture, repository, commits)
    }

    fn base(commit: CommitId, since: Option<CommitId>) -> Base {
        let since = since.map(|since| since.to_string());
        Base { commit: commit.to_string(), branch: Some("main".into()), since, ..Base::default() }
    }

    #[test]
    fn refs_follow_what_is_noted_and_newer_ones_count() {
        let (_fixture, repository, [first, second, third]) = lined_up();
        let refs = || ["snapshots", "bases"].map(|kind| format!("refs/dvcfs/{kind}/x"));
        let held = || refs().map(|name| repository.own_ref(&name).unwrap());
        let ask = |base: Option<&Base>| newest(&repository, "x", base).unwrap();
        assert_eq!((ask(None), ask(Some(&base(second, None)))), (None, None));
        assert_eq!(held(), [None, None]);
        let noted = base(second, Some(first));
        assert_eq!((ask(Some(&noted)), held()), (Some(second), [Some(second), Some(first)]));
        assert_eq!(ask(None), Some(second), "whatever became of the overlay");
        let moved = base(third, Some(first));
        assert_eq!((ask(Some(&moved)), held()), (Some(third), [Some(third), Some(first)]));
        assert_eq!(all(&repository, "x", Some(&moved)).unwrap(), [third, second]);
        // A snapshot is decided on before it is noted.
        assert_eq!((ask(Some(&noted)), held()), (Some(third), [Some(third), Some(first)]));
    }

    #[test]
    fn of_what_a_ref_tells_and_what_is_noted_the_newer_counts() {
        let (fixture, repository, [first, second, third]) = lined_up();
        let reference = "refs/heads/other";
        let seen = |noted: Option<CommitId>| {
            let seen = noted.map(|noted| (reference.to_owned(), noted.to_string()));
            let noted = Base { seen: seen.into_iter().collect(), ..base(first, None) };
            last_seen(&repository, &noted, reference).unwrap()
        };
        assert_eq!([seen(None), seen(Some(first))], [None, Some(first)]);
        fixture.git(&["update-ref", reference, &second.to_string()]);
        assert_eq!([None, Some(first)].map(seen), [Some(second); 2]);
        assert_eq!(seen(Some(third)), Some(third));
    }

    #[test]
    fn no_ref_is_made_to_a_commit_that_is_gone() {
        let (_fixture, repository, [first, ..]) = lined_up();
        let gone = CommitId(GitId([7; 20]));
        let error = newest(&repository, "x", Some(&base(gone, Some(first)))).unwrap_err();
        assert!(matches!(error, GitError::Missing { .. }), "{error}");
        assert_eq!(repository.own_ref("refs/dvcfs/snapshots/x").unwrap(), None);
        assert_eq!(newest(&repository, "x", Some(&base(first, Some(gone)))).unwrap(), Some(first));
        assert_eq!(repository.own_ref("refs/dvcfs/snapshots/x").unwrap(), Some(first));
        assert_eq!(repository.own_ref("refs/dvcfs/bases/x").unwrap(), None);
    }

    #[test]
    fn a_branch_that_has_lost_a_commit_that_it_had_was_written_anew() {
        let (fixture, repository, [first, second, third]) = lined_up();
        let branch = "refs/heads/main";
        let mut noted = base(second, None);
        look(&repository, &mut noted).unwrap();
        assert_eq!(noted.seen, [(branch.to_owned(), second.to_string())].into());
        let dropped = |noted: &Base, tip| dropped(&repository, noted, (branch, tip)).unwrap();
        assert_eq!([second, third].map(|tip| dropped(&noted, tip)), [None, None]);
        assert_eq!(dropped(&noted, first), Some(second));
        fixture.git(&["reset", "--quiet", "--hard", &first.to_string()]);
        let anew = fixture.commit("d", "anew");
        assert_eq!(dropped(&noted, anew), Some(second));
        // Looking again forgets nothing.
        look(&repository, &mut noted).unwrap();
        assert_eq!(dropped(&noted, anew), Some(second));
        assert_eq!(dropped(&base(second, None), anew), None);
    }
}
