//! The bare copy of a URL that all its mounts share; the module's head tells its layout.

use std::{fs, io, path::Path, time::SystemTime};

use super::{
    error::GitError,
    id::GitId,
    leftovers,
    location::Url,
    place::Place,
    refs::Namespaces,
    repository::Repository,
    transport::{Transport, TransportOptions},
};

const REFSPECS: [&str; 2] =
    ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/upstream/tags/*"];

/// A URL's mirror, complete as of its last fetch.
#[derive(Debug)]
pub struct Mirror {
    place: Place,
    repository: Repository,
}

impl Mirror {
    /// Opens the mirror of `url` without asking the network; nothing if there is none yet.
    pub fn open(state_dir: &Path, url: &Url) -> Result<Option<Self>, GitError> {
        Self::open_at(Place::new(state_dir, url))
    }

    /// Opens the mirror of `url`, or makes one with a first fetch. Does not fetch into one that is
    /// there already.
    pub fn open_or_clone(
        state_dir: &Path,
        url: &Url,
        options: &TransportOptions,
    ) -> Result<Self, GitError> {
        let place = Place::new(state_dir, url);
        if let Some(mirror) = Self::open_at(place.clone())? {
            return Ok(mirror);
        }
        let _lock = place.lock(options.timeout)?;
        // Another process may have made it while this one waited.
        if let Some(mirror) = Self::open_at(place.clone())? {
            return Ok(mirror);
        }
        clone_first(&place, options)?;
        Ok(Self { repository: Repository::open_mirror(&place.folder)?, place })
    }

    fn open_at(place: Place) -> Result<Option<Self>, GitError> {
        if !place.folder.exists() {
            return Ok(None);
        }
        Ok(Some(Self { repository: Repository::open_mirror(&place.folder)?, place }))
    }

    /// Brings branches, tags and the default branch up to date; `true` if any branch or tag changed.
    ///
    /// Follows what was moved or rewritten upstream and forgets what was deleted there. The default
    /// branch is asked for only when something changed or it is unknown, which saves a connection.
    pub fn fetch(&self, options: &TransportOptions) -> Result<bool, GitError> {
        let _lock = self.place.lock(options.timeout)?;
        leftovers::remove(&self.place.folder, SystemTime::now());
        fetch_into(&self.repository, &self.place.url, options)
    }

    /// The mirror's refs and objects.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What is mirrored.
    pub fn url(&self) -> &Url {
        &self.place.url
    }
}

/// Fetches into a folder beside the final one and renames it, so that whoever sees the mirror
/// sees a whole one.
fn clone_first(place: &Place, options: &TransportOptions) -> Result<(), GitError> {
    place.remove_unfinished()?;
    let fetched = init(&place.unfinished)
        .and_then(|repository| fetch_into(&repository, &place.url, options).map(drop));
    if let Err(error) = fetched {
        place.remove_unfinished()?;
        return Err(error);
    }
    fs::rename(&place.unfinished, &place.folder).map_err(GitError::io("create", &place.folder))
}

fn init(folder: &Path) -> Result<Repository, GitError> {
    let mut options = git2::RepositoryInitOptions::new();
    options.bare(true).external_template(false);
    git2::Repository::init_opts(folder, &options)
        .map_err(|e| GitError::io("create", folder)(io::Error::other(e)))?;
    Repository::open_mirror(folder)
}

fn fetch_into(
    repository: &Repository,
    url: &Url,
    options: &TransportOptions,
) -> Result<bool, GitError> {
    let folder = repository.git_dir();
    let configured_ssh = configure(repository, url)?;
    let transport = Transport { folder, name: url.redacted(), options, configured_ssh };
    let before = repository.targets()?;
    let tells_progress = options.progress.is_some() || options.silence.is_some();
    let volume = if tells_progress { "--progress" } else { "--quiet" };
    let mut arguments = vec!["fetch", volume, "--prune", "--no-tags", "--no-write-fetch-head"];
    arguments.extend(["--no-auto-maintenance", "--no-recurse-submodules", "origin"]);
    arguments.extend(REFSPECS);
    transport.git(&arguments)?;
    let has_changed = repository.targets()? != before;
    if has_changed || !knows_head(repository)? {
        let answer = transport.git(&["ls-remote", "--symref", "origin", "HEAD"])?;
        set_head(repository, &parse_head(&answer))?;
    }
    Ok(has_changed)
}

/// Tells git what to fetch from, and where a branch is noted that is pushed; reads the user's ssh
/// command. The URL goes through the configuration because other users can see a command line.
fn configure(repository: &Repository, url: &Url) -> Result<Option<String>, GitError> {
    let wanted = [("remote.origin.url", url.secret()), ("remote.origin.fetch", REFSPECS[0])];
    let failed = |e| GitError::io("configure", repository.git_dir())(io::Error::other(e));
    repository.with(|repo| {
        let mut config = repo.config().map_err(failed)?;
        for (key, value) in wanted {
            if config.get_string(key).ok().as_deref() != Some(value) {
                config.set_str(key, value).map_err(failed)?;
            }
        }
        Ok(config.get_string("core.sshcommand").ok())
    })
}

fn knows_head(repository: &Repository) -> Result<bool, GitError> {
    repository.with(|repo| Ok(repo.head().is_ok()))
}

/// Where the upstream's `HEAD` points.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Branch(String),
    Commit(GitId),
    Unknown,
}

/// Reads the answer of `ls-remote --symref`: `ref: refs/heads/<branch>` or an id, a tab, `HEAD`.
fn parse_head(answer: &[u8]) -> Head {
    let text = String::from_utf8_lossy(answer);
    let values: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix("\tHEAD")).collect();
    let branch = values.iter().find_map(|value| value.strip_prefix("ref: refs/heads/"));
    match (branch, values.iter().find_map(|value| GitId::parse(value))) {
        (Some(branch), _) => Head::Branch((*branch).to_owned()),
        (None, Some(commit)) => Head::Commit(commit),
        (None, None) => Head::Unknown,
    }
}

fn set_head(repository: &Repository, head: &Head) -> Result<(), GitError> {
    let log = "dvcfs: as upstream";
    repository.with(|repo| {
        let set = match head {
            Head::Branch(branch) => {
                let target = format!("{}{branch}", Namespaces::MIRROR.branches);
                repo.reference_symbolic("HEAD", &target, true, log)
            }
            // It may be on no branch, and then it was not fetched.
            Head::Commit(id) if repo.find_commit(id.oid()).is_err() => return Ok(()),
            Head::Commit(id) => repo.reference("HEAD", id.oid(), true, log),
            Head::Unknown => return Ok(()),
        };
        set.map(drop).map_err(|e| GitError::reference("write", "HEAD", &e))
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;
    use crate::git::{
        Pushed, Refs,
        fixture::{self, Fixture},
    };

    fn options() -> TransportOptions {
        TransportOptions { timeout: Duration::from_mins(1), ..TransportOptions::default() }
    }

    fn mirror(fixture: &Fixture) -> Mirror {
        Mirror::open_or_clone(&fixture.state(), &fixture.url(), &options()).unwrap()
    }

    fn refs(mirror: &Mirror) -> Refs {
        mirror.repository().refs().unwrap()
    }

    fn names(mirrors: &Path) -> Vec<String> {
        let entries = fs::read_dir(mirrors).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Fetches over a made-up ssh, a script with this body.
    fn fetch_over(body: &str, timeout: Duration) -> (Fixture, GitError) {
        let fixture = Fixture::empty();
        let ssh = fixture.script("ssh", body);
        let ssh_command = Some(ssh.to_str().unwrap().to_owned());
        let options = TransportOptions { timeout, ssh_command, ..options() };
        let url = fixture::url("git@git.example:team/registry.git");
        let error = Mirror::open_or_clone(&fixture.state(), &url, &options).unwrap_err();
        (fixture, error)
    }

    #[test]
    fn a_mirror_has_the_upstreams_branches_tags_and_default_branch() {
        let fixture = Fixture::new();
        fixture.git(&["tag", "-a", "-m", "x", "v1"]);
        fixture.git(&["checkout", "--quiet", "-b", "trunk"]);
        fixture.commit("b", "two");
        let plain = Repository::open(&fixture.path()).unwrap().refs().unwrap();
        let mirror = mirror(&fixture);
        assert_eq!(refs(&mirror), plain);
        assert_eq!(refs(&mirror).default_branch.as_deref(), Some("trunk"));
        assert!(mirror.repository().git_dir().starts_with(fixture.state().join("mirrors")));
    }

    #[test]
    fn fetching_again_follows_what_is_new_moved_rewritten_and_deleted() {
        let fixture = Fixture::new();
        fixture.git(&["tag", "moved"]);
        fixture.git(&["tag", "deleted"]);
        fixture.git(&["branch", "gone"]);
        fixture.git(&["branch", "a"]);
        let old = fixture.commit("b", "two");
        let mirror = mirror(&fixture);
        assert!(!mirror.fetch(&options()).unwrap());

        fixture.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
        let new = fixture.commit("b", "rewritten");
        fixture.git(&["tag", "--force", "moved"]);
        fixture.git(&["tag", "--delete", "deleted"]);
        fixture.git(&["branch", "--delete", "--force", "gone", "a"]);
        fixture.git(&["branch", "a/b"]);
        assert!(mirror.fetch(&options()).unwrap());

        let found = refs(&mirror);
        assert_eq!(found.branches, [("a/b".to_owned(), new), ("main".to_owned(), new)].into());
        assert_eq!(found.tags, [("moved".to_owned(), new)].into());
        // What was rewritten away is still there for whoever has its id.
        assert_eq!(mirror.repository().resolve(&old.to_string()).unwrap().commit, old);
    }

    #[test]
    fn fetching_leaves_our_own_refs_alone() {
        let fixture = Fixture::new();
        let mirror = mirror(&fixture);
        let commit = fixture.id("HEAD");
        mirror.repository().keep(commit, "mount").unwrap();
        fixture.commit("b", "two");
        mirror.fetch(&options()).unwrap();
        let name = format!("refs/dvcfs/keep/mount/{commit}");
        assert_eq!(mirror.repository().resolve(&name).unwrap().commit, commit);
        assert_eq!(refs(&mirror).branches.len(), 1);
    }

    #[test]
    fn what_is_pushed_from_a_mirror_is_noted_in_it() {
        let fixture = Fixture::new();
        let mirror = mirror(&fixture);
        let commit = fixture.id("HEAD");
        let pushed = mirror.repository().push("origin", commit, "new", &options()).unwrap();
        assert_eq!(pushed, Pushed::Updated);
        assert_eq!(refs(&mirror).branches.get("new"), Some(&commit));
    }

    #[test]
    fn an_existing_mirror_and_its_commits_need_no_upstream() {
        let fixture = Fixture::new();
        assert!(Mirror::open(&fixture.state(), &fixture.url()).unwrap().is_none());
        let commit = fixture.id("HEAD");
        drop(mirror(&fixture));
        fs::rename(fixture.path(), fixture.outside("away")).unwrap();
        let mirror = mirror(&fixture);
        assert_eq!(mirror.repository().resolve(&commit.to_string()).unwrap().commit, commit);
        let error = mirror.fetch(&options()).unwrap_err();
        assert!(matches!(error, GitError::NotARepository { .. }), "{error}");
    }

    #[test]
    fn an_empty_upstream_can_be_mirrored_and_filled_later() {
        let fixture = Fixture::empty();
        let mirror = mirror(&fixture);
        let error = mirror.repository().resolve("HEAD").unwrap_err();
        assert!(matches!(error, GitError::EmptyRepository { .. }), "{error}");
        let commit = fixture.commit("a", "one");
        assert!(mirror.fetch(&options()).unwrap());
        assert_eq!(mirror.repository().resolve("HEAD").unwrap().commit, commit);
    }

    #[test]
    fn an_upstream_with_sha256_ids_is_refused_with_the_reason() {
        let fixture = Fixture::empty();
        let path = fixture.outside("sha256");
        fixture.git(&["init", "--quiet", "--object-format=sha256", path.to_str().unwrap()]);
        fixture.git_in(&path, &["commit", "--quiet", "--allow-empty", "-m", "x"]);
        let url = fixture::url(&format!("file://{}", path.display()));
        let error = Mirror::open_or_clone(&fixture.state(), &url, &options()).unwrap_err();
        assert!(matches!(error, GitError::Unsupported { .. }), "{error}");
    }

    #[test]
    fn a_failed_first_fetch_leaves_nothing_and_leftovers_do_not_disturb() {
        let fixture = Fixture::new();
        let url = fixture::url(&format!("file://{}", fixture.outside("absent").display()));
        let error = Mirror::open_or_clone(&fixture.state(), &url, &options()).unwrap_err();
        assert!(matches!(error, GitError::NotARepository { .. }), "{error}");
        let left = names(&fixture.state().join("mirrors"));
        assert_eq!(left, [format!("{}.lock", url.mirror_name())]);

        let place = Place::new(&fixture.state(), &fixture.url());
        fs::create_dir_all(place.unfinished.join("objects")).unwrap();
        assert_eq!(refs(&mirror(&fixture)).branches.len(), 1);
        assert!(!place.unfinished.exists());
    }

    #[test]
    fn many_can_open_and_fetch_one_mirror_at_once() {
        let fixture = Fixture::new();
        let (state, url) = (fixture.state(), fixture.url());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mirror = Mirror::open_or_clone(&state, &url, &options()).unwrap();
                    mirror.fetch(&options()).unwrap();
                    assert_eq!(refs(&mirror).branches.len(), 1);
                });
            }
        });
        assert_eq!(names(&state.join("mirrors")).len(), 2);
    }

    #[test]
    fn a_mirror_in_use_elsewhere_is_busy_after_the_time_limit() {
        let fixture = Fixture::new();
        let mirror = mirror(&fixture);
        let place = Place::new(&fixture.state(), &fixture.url());
        // A program that another test is starting may hold what was locked here for a moment.
        let _lock: File = place.lock(Duration::from_mins(1)).unwrap();
        let hurried = TransportOptions { timeout: Duration::ZERO, ..options() };
        let error = mirror.fetch(&hurried).unwrap_err();
        assert!(matches!(error, GitError::Busy { .. }), "{error}");
    }

    #[test]
    fn a_server_that_hangs_is_left_at_the_time_limit() {
        let (fixture, error) = fetch_over("exec sleep 1000", Duration::from_millis(300));
        assert!(matches!(error, GitError::TimedOut { .. }), "{error}");
        assert_eq!(names(&fixture.state().join("mirrors")).len(), 1);
    }

    #[test]
    fn a_server_that_falls_silent_is_left_long_before_the_time_limit() {
        let fixture = Fixture::new();
        let mirror = mirror(&fixture);
        let program = fixture.script("git", "echo connecting >&2; exec sleep 1000");
        let silence = Some(Duration::from_millis(300));
        let error = mirror.fetch(&TransportOptions { program, silence, ..options() }).unwrap_err();
        assert!(matches!(error, GitError::TimedOut { limit, .. } if Some(limit) == silence));
    }

    #[test]
    fn ssh_is_told_not_to_ask_and_its_refusal_is_understood() {
        let body =
            "echo \"$@\" > \"$0.args\"; echo 'git@x: Permission denied (publickey).' >&2; exit 255";
        let (fixture, error) = fetch_over(body, Duration::from_mins(1));
        assert!(matches!(error, GitError::Denied { .. }), "{error}");
        assert!(error.to_string().contains("Permission denied (publickey)"), "{error}");
        let arguments = fs::read_to_string(fixture.outside("ssh.args")).unwrap();
        assert!(arguments.starts_with("-oBatchMode=yes"), "{arguments}");
    }

    #[test]
    fn a_server_that_closes_the_line_is_unreachable() {
        let (_fixture, error) = fetch_over("echo broken >&2; exit 1", Duration::from_mins(1));
        assert!(
            matches!(&error, GitError::Unreachable { output, .. } if output.contains("broken"))
        );
    }

    #[test]
    fn without_a_git_program_that_is_the_error() {
        let fixture = Fixture::new();
        let options = TransportOptions { program: "/nonexistent/git".into(), ..options() };
        let error = Mirror::open_or_clone(&fixture.state(), &fixture.url(), &options).unwrap_err();
        assert!(matches!(error, GitError::GitMissing { .. }), "{error}");
    }

    #[test]
    fn progress_goes_to_whoever_wants_it() {
        use std::sync::{Arc, Mutex};
        let fixture = Fixture::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let options = TransportOptions {
            progress: Some(Arc::new(move |bytes| {
                sink.lock().unwrap().extend_from_slice(bytes);
            })),
            ..options()
        };
        Mirror::open_or_clone(&fixture.state(), &fixture.url(), &options).unwrap();
        assert!(!seen.lock().unwrap().is_empty());
    }

    #[test]
    fn the_answer_about_head_may_be_a_branch_an_id_or_nothing() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let symbolic = format!("ref: refs/heads/a/b\tHEAD\n{id}\tHEAD\n");
        assert_eq!(parse_head(symbolic.as_bytes()), Head::Branch("a/b".into()));
        let detached = format!("{id}\tHEAD\n{id}\trefs/remotes/x/HEAD\n");
        assert_eq!(parse_head(detached.as_bytes()), Head::Commit(GitId::parse(id).unwrap()));
        assert_eq!(parse_head(b""), Head::Unknown);
    }
}
