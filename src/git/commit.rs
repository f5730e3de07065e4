//! Commits that are made beside the work tree, and the refs that keep them.
//!
//! The commit itself is made by the user's own git, so that name, dates, signature and their
//! settings are the user's. `git commit-tree` runs no hook and touches neither work tree nor index.

use std::{io::Write as _, os::unix::fs::MetadataExt as _};

use super::{
    error::GitError,
    id::{CommitId, GitId, GitTreeId},
    repository::Repository,
    transport::{Transport, TransportOptions},
};

/// Refs of ours; no fetch touches them.
const OWN_REFS: &str = "refs/dvcfs/";

impl Repository {
    /// Makes a commit of a tree and returns its id. Nothing refers to it yet.
    pub fn create_commit(
        &self,
        tree: GitTreeId,
        parents: &[CommitId],
        message: &str,
        options: &TransportOptions,
    ) -> Result<CommitId, GitError> {
        let git = self.own_git(options)?;
        let failed = GitError::io("write the message for", self.git_dir());
        let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
        let failed = GitError::io("write the message for", self.git_dir());
        file.write_all(message.as_bytes()).map_err(failed)?;
        let file = file.path().display().to_string();
        let tree = tree.to_string();
        let mut arguments = vec!["commit-tree", &tree, "-F", &file];
        let parents: Vec<_> = parents.iter().map(ToString::to_string).collect();
        arguments.extend(parents.iter().flat_map(|parent| ["-p", parent]));
        if self.is_signing() {
            // Plumbing signs only when it is told to.
            arguments.push("-S");
        }
        let answer = git.git(&arguments).map_err(not_committed)?;
        let id = str::from_utf8(&answer).ok().and_then(|text| GitId::parse(text.trim()));
        id.map(CommitId).ok_or_else(|| GitError::NotCommitted {
            location: self.git_dir().display().to_string(),
            output: "git printed no id".to_owned(),
        })
    }

    /// The command of the editor that the user wants for messages, to be run by a shell.
    pub fn editor(&self, options: &TransportOptions) -> Result<String, GitError> {
        let answer = self.own_git(options)?.git(&["var", "GIT_EDITOR"])?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// Points a ref below `refs/dvcfs/` at a commit, if it is still where the caller thinks it is:
    /// at `expected`, or nowhere. All objects are on the disk before.
    pub fn move_ref(
        &self,
        name: &str,
        commit: CommitId,
        expected: Option<CommitId>,
    ) -> Result<(), GitError> {
        check_own(name)?;
        self.sync()?;
        self.write_ref(name, commit, || {
            if self.own_ref(name)? == expected {
                return Ok(());
            }
            let reason = "somebody else has moved it".to_owned();
            Err(GitError::Reference { action: "write", reference: name.to_owned(), reason })
        })?;
        self.sync()
    }

    /// Where a ref points, if it is there.
    pub fn own_ref(&self, name: &str) -> Result<Option<CommitId>, GitError> {
        check_own(name)?;
        self.tip_of(name)
    }

    /// Removes a ref below `refs/dvcfs/` if it points at `expected`; tells whether it did.
    pub fn remove_ref_at(&self, name: &str, expected: CommitId) -> Result<bool, GitError> {
        check_own(name)?;
        self.with(|repo| match repo.find_reference(name) {
            Ok(mut reference) if reference.target() == Some(expected.0.oid()) => {
                reference.delete().map_err(|e| GitError::reference("delete", name, &e))?;
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(e) if e.code() == git2::ErrorCode::NotFound => Ok(false),
            Err(e) => Err(GitError::reference("read", name, &e)),
        })
    }

    /// Waits until everything written to the repository is on the disk. Git writes objects without
    /// that, and a ref must not outlive what it points at.
    pub fn sync(&self) -> Result<(), GitError> {
        let failed = || GitError::io("sync", self.git_dir());
        let folder = std::fs::File::open(self.git_dir()).map_err(failed())?;
        rustix::fs::syncfs(folder).map_err(|e| failed()(e.into()))
    }

    fn is_signing(&self) -> bool {
        let is_signing = self.with(|repo| {
            let config = repo.config().and_then(|mut config| config.snapshot());
            Ok(config.and_then(|config| config.get_bool("commit.gpgsign")).unwrap_or(false))
        });
        is_signing.unwrap_or(false)
    }

    /// The user's git in this repository, which has to be the user's own: its settings take effect,
    /// and some of them name programs.
    pub(super) fn own_git<'a>(
        &'a self,
        options: &'a TransportOptions,
    ) -> Result<Transport<'a>, GitError> {
        let location = || self.git_dir().display().to_string();
        let owner =
            std::fs::metadata(self.git_dir()).map_err(GitError::io("open", self.git_dir()))?;
        if owner.uid() != rustix::process::geteuid().as_raw() {
            return Err(GitError::NotOwned { location: location() });
        }
        let configured_ssh = self.with(|repo| {
            let config = repo.config().and_then(|mut config| config.snapshot());
            Ok(config.and_then(|config| config.get_string("core.sshcommand")).ok())
        })?;
        Ok(Transport { folder: self.git_dir(), name: location(), options, configured_ssh })
    }
}

fn check_own(name: &str) -> Result<(), GitError> {
    if name.starts_with(OWN_REFS) {
        return Ok(());
    }
    let reason = format!("it is not below {OWN_REFS}");
    Err(GitError::Reference { action: "use", reference: name.to_owned(), reason })
}

fn not_committed(error: GitError) -> GitError {
    match error {
        GitError::Unreachable { url, output } => {
            const WORDS: [&str; 3] = ["tell me who you are", "ident name", "email"];
            let lower = output.to_lowercase();
            if WORDS.iter().any(|words| lower.contains(words)) {
                GitError::NoIdentity { output }
            } else {
                GitError::NotCommitted { location: url, output }
            }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::{
        edit::{Edit, Edits},
        fixture::Fixture,
    };
    use crate::path::RepoPath;

    /// Git without the settings of whoever runs the tests.
    fn options(fixture: &Fixture) -> TransportOptions {
        let body = "exec env GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null git \"$@\"";
        TransportOptions {
            program: fixture.script("git-alone", body),
            ..TransportOptions::default()
        }
    }

    fn with_identity() -> (Fixture, Repository) {
        let fixture = Fixture::new();
        fixture.git(&["config", "user.name", "Ann Author"]);
        fixture.git(&["config", "user.email", "ann@example.org"]);
        let repository = Repository::open(&fixture.path()).unwrap();
        (fixture, repository)
    }

    /// A tree with one file more than the last commit's.
    fn next_tree(fixture: &Fixture, repository: &Repository) -> GitTreeId {
        let base = repository.commit(fixture.id("HEAD")).unwrap().tree;
        let id = repository.write_blob(b"more").unwrap();
        let edit = Edit::File { id, is_executable: false };
        let edits = Edits::from([(RepoPath::new(b"sub/more").unwrap(), edit)]);
        repository.edit_tree(Some(base), &edits).unwrap()
    }

    #[test]
    fn a_commit_is_the_users_and_leaves_work_tree_and_index_alone() {
        let (fixture, repository) = with_identity();
        std::fs::write(fixture.path().join("staged"), "x").unwrap();
        fixture.git(&["add", "staged"]);
        std::fs::write(fixture.path().join("a.txt"), "dirty").unwrap();
        let status = || fixture.git(&["status", "--porcelain", "--branch"]);
        let (before, head) = (status(), fixture.id("HEAD"));

        let tree = next_tree(&fixture, &repository);
        let message = "Add more\n\n# kept\nüber\n";
        let commit = repository.create_commit(tree, &[head], message, &options(&fixture)).unwrap();
        repository.move_ref("refs/dvcfs/snapshots/main", commit, None).unwrap();

        assert_eq!(status(), before);
        assert_eq!(fixture.id("HEAD"), head);
        let log =
            fixture.git(&["log", "-1", "--format=%an <%ae> %cn%n%B", "refs/dvcfs/snapshots/main"]);
        assert_eq!(log, format!("Ann Author <ann@example.org> Ann Author\n{}", message.trim_end()));
        let info = repository.commit(commit).unwrap();
        assert_eq!((info.tree, info.parents), (tree, vec![head]));
        fixture.git(&["fsck", "--strict"]);
    }

    #[test]
    fn a_commit_is_signed_if_the_user_signs() {
        let (fixture, repository) = with_identity();
        let body = "cat > /dev/null; echo '[GNUPG:] SIG_CREATED ' >&2; echo '-----SIGNED-----'";
        let gpg = fixture.script("gpg", body);
        fixture.git(&["config", "gpg.program", gpg.to_str().unwrap()]);
        fixture.git(&["config", "user.signingkey", "KEY"]);
        let tree = next_tree(&fixture, &repository);
        let raw = |signing: &str| {
            fixture.git(&["config", "commit.gpgsign", signing]);
            let commit = repository.create_commit(tree, &[], "x", &options(&fixture)).unwrap();
            fixture.git(&["cat-file", "commit", &commit.to_string()])
        };
        assert!(raw("true").contains("gpgsig -----SIGNED-----"));
        assert!(!raw("false").contains("gpgsig"));
    }

    #[test]
    fn without_an_identity_that_is_the_error() {
        let fixture = Fixture::new();
        fixture.git(&["config", "user.useConfigOnly", "true"]);
        let repository = Repository::open(&fixture.path()).unwrap();
        let tree = next_tree(&fixture, &repository);
        let error = repository.create_commit(tree, &[], "x", &options(&fixture)).unwrap_err();
        assert!(matches!(error, GitError::NoIdentity { .. }), "{error}");
    }

    #[test]
    fn a_tree_that_is_not_there_is_an_error() {
        let (fixture, repository) = with_identity();
        let tree = GitTreeId(GitId([7; 20]));
        let error = repository.create_commit(tree, &[], "x", &options(&fixture)).unwrap_err();
        assert!(matches!(error, GitError::NotCommitted { .. }), "{error}");
    }

    #[test]
    fn a_ref_moves_only_from_where_it_is_expected() {
        let (fixture, repository) = with_identity();
        let first = fixture.id("HEAD");
        let second = fixture.commit("b", "two");
        let name = "refs/dvcfs/snapshots/x";
        assert_eq!(repository.own_ref(name).unwrap(), None);
        repository.move_ref(name, second, Some(first)).unwrap_err();
        repository.move_ref(name, first, None).unwrap();
        repository.move_ref(name, second, None).unwrap_err();
        repository.move_ref(name, first, Some(second)).unwrap_err();
        assert_eq!(repository.own_ref(name).unwrap(), Some(first));
        repository.move_ref(name, second, Some(first)).unwrap();
        assert_eq!(repository.own_ref(name).unwrap(), Some(second));
        assert!(!repository.remove_ref_at(name, first).unwrap());
        assert!(repository.remove_ref_at(name, second).unwrap());
        assert!(!repository.remove_ref_at(name, second).unwrap());
        assert_eq!(repository.own_ref(name).unwrap(), None);
        for foreign in ["refs/heads/main", "HEAD"] {
            let error = repository.move_ref(foreign, first, Some(second)).unwrap_err();
            assert!(matches!(error, GitError::Reference { .. }), "{error}");
        }
    }

    #[test]
    fn a_ref_that_git_has_locked_is_not_moved() {
        let (fixture, repository) = with_identity();
        let first = fixture.id("HEAD");
        let second = fixture.commit("b", "two");
        let name = "refs/dvcfs/snapshots/x";
        repository.move_ref(name, first, None).unwrap();
        let lock = fixture.path().join(".git").join(name).with_extension("lock");
        std::fs::write(&lock, "").unwrap();
        let error = repository.move_ref(name, second, Some(first)).unwrap_err();
        assert!(error.to_string().contains("x.lock is there"), "{error}");
        assert_eq!(repository.own_ref(name).unwrap(), Some(first));
        std::fs::remove_file(&lock).unwrap();
        repository.move_ref(name, second, Some(first)).unwrap();
        let folder = std::fs::read_dir(lock.parent().unwrap()).unwrap();
        assert_eq!(folder.count(), 1, "neither the lock nor a draft is left");
        fixture.git(&["pack-refs", "--all"]);
        assert_eq!(repository.own_ref(name).unwrap(), Some(second));
        repository.move_ref(name, first, Some(second)).unwrap();
    }

    #[test]
    fn the_editor_is_the_users() {
        let (fixture, repository) = with_identity();
        fixture.git(&["config", "core.editor", "my editor --wait"]);
        let mut options = options(&fixture);
        let body =
            "exec env -u GIT_EDITOR -u VISUAL -u EDITOR GIT_CONFIG_GLOBAL=/dev/null git \"$@\"";
        options.program = fixture.script("git-bare", body);
        assert_eq!(repository.editor(&options).unwrap(), "my editor --wait");
    }
}
