//! An opened repository: objects by their ids.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Once,
};

use git2::{ErrorClass, ErrorCode, ObjectType, RepositoryOpenFlags};
use parking_lot::Mutex;

use super::{
    error::GitError,
    id::{CommitId, GitId, GitTreeId},
    listing::{self, Listing},
    refs::Namespaces,
};

/// How many handles are kept for the next question; more threads than this open one for each.
const IDLE_HANDLES: usize = 8;

/// A repository on this disk: a work tree's, a bare one, or a mirror.
///
/// It may be shared between threads, which do not wait for each other: each question takes a
/// libgit2 handle of its own from a small pool.
pub struct Repository {
    git_dir: PathBuf,
    namespaces: Namespaces,
    idle: Mutex<Vec<git2::Repository>>,
}

/// What a commit says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// The committer's date, in seconds since 1970.
    pub time: i64,
    /// The listing of its root folder.
    pub tree: GitTreeId,
    /// Its parents; the first is the one it was made on.
    pub parents: Vec<CommitId>,
}

impl Repository {
    /// Opens the repository that `path` belongs to: a bare one, a work tree or any folder in it, a
    /// linked work tree or a submodule.
    ///
    /// Repositories of other users are opened too: nothing of their configuration is run.
    pub fn open(path: &Path) -> Result<Self, GitError> {
        Self::open_with(path, RepositoryOpenFlags::empty(), Namespaces::PLAIN)
    }

    /// Opens a mirror at exactly this folder.
    pub(super) fn open_mirror(folder: &Path) -> Result<Self, GitError> {
        Self::open_with(folder, RepositoryOpenFlags::NO_SEARCH, Namespaces::MIRROR)
    }

    fn open_with(
        path: &Path,
        flags: RepositoryOpenFlags,
        namespaces: Namespaces,
    ) -> Result<Self, GitError> {
        let handle = open_handle(path, flags)?;
        let git_dir = handle.path().to_owned();
        Ok(Self { git_dir, namespaces, idle: Mutex::new(vec![handle]) })
    }

    /// The repository's own folder, such as `registry/.git` or `registry.git`.
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The work tree, unless the repository is bare.
    pub fn work_dir(&self) -> Option<PathBuf> {
        let work_dir = self.with(|repo| Ok(repo.workdir().map(Path::to_owned)));
        work_dir.ok().flatten()
    }

    pub(super) fn namespaces(&self) -> Namespaces {
        self.namespaces
    }

    /// What a commit says about itself.
    pub fn commit(&self, id: CommitId) -> Result<CommitInfo, GitError> {
        self.with(|repo| {
            let commit = repo.find_commit(id.0.oid()).map_err(|e| GitError::object(id.0, &e))?;
            Ok(CommitInfo {
                time: commit.time().seconds(),
                tree: commit.tree_id().into(),
                parents: commit.parent_ids().map(CommitId::from).collect(),
            })
        })
    }

    /// What a folder holds.
    pub fn entries(&self, tree: GitTreeId) -> Result<Listing, GitError> {
        let bytes = self.read(tree.0, ObjectType::Tree, u64::MAX)?;
        let reason = || "the tree is cut off or malformed".to_owned();
        listing::parse(&bytes).ok_or_else(|| GitError::Unreadable { id: tree.0, reason: reason() })
    }

    /// The content of a file or the target of a link; an error if it has more than `limit` bytes.
    pub fn blob(&self, id: GitId, limit: u64) -> Result<Vec<u8>, GitError> {
        self.read(id, ObjectType::Blob, limit)
    }

    /// The size of a blob in bytes, without unpacking it.
    pub fn blob_size(&self, id: GitId) -> Result<u64, GitError> {
        self.object_size(id, ObjectType::Blob)
    }

    /// The size of a folder's own listing in bytes, as git stores it.
    pub fn tree_size(&self, tree: GitTreeId) -> Result<u64, GitError> {
        self.object_size(tree.0, ObjectType::Tree)
    }

    fn object_size(&self, id: GitId, kind: ObjectType) -> Result<u64, GitError> {
        self.with(|repo| {
            let odb = repo.odb().map_err(|e| GitError::object(id, &e))?;
            size_of(&odb, id, kind)
        })
    }

    fn read(&self, id: GitId, kind: ObjectType, limit: u64) -> Result<Vec<u8>, GitError> {
        self.with(|repo| {
            let odb = repo.odb().map_err(|e| GitError::object(id, &e))?;
            let size = size_of(&odb, id, kind)?;
            if size > limit {
                return Err(GitError::TooLarge { id, size, limit });
            }
            let object = odb.read(id.oid()).map_err(|e| GitError::object(id, &e))?;
            Ok(object.data().to_vec())
        })
    }

    /// Asks with a handle that no other thread uses meanwhile.
    pub(super) fn with<T>(
        &self,
        ask: impl FnOnce(&git2::Repository) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let idle = self.idle.lock().pop();
        let handle = match idle {
            Some(handle) => handle,
            None => open_handle(&self.git_dir, RepositoryOpenFlags::NO_SEARCH)?,
        };
        let answer = ask(&handle);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_HANDLES {
            idle.push(handle);
        }
        answer
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("git_dir", &self.git_dir).finish_non_exhaustive()
    }
}

fn open_handle(path: &Path, flags: RepositoryOpenFlags) -> Result<git2::Repository, GitError> {
    static SETTINGS: Once = Once::new();
    SETTINGS.call_once(set_up_libgit2);
    git2::Repository::open_ext(path, flags, std::iter::empty::<&Path>()).map_err(|error| {
        let location = path.display().to_string();
        match (error.code(), error.class()) {
            (ErrorCode::NotFound, _) => GitError::NotARepository { location },
            (_, ErrorClass::Os) => GitError::Io {
                action: "open",
                path: path.into(),
                source: std::io::Error::other(error),
            },
            _ => GitError::Unsupported { location, reason: error.message().to_owned() },
        }
    })
}

fn set_up_libgit2() {
    // What is worth keeping is kept above as trees; libgit2's own cache would only use memory.
    git2::opts::enable_caching(false);
    // SAFETY: the setting is a plain global of libgit2, changed once before the first repository
    // is opened and never again.
    //
    // Owner validation protects users from running what another user configured. Nothing is run
    // here, and registries on shared disks belong to others as a rule.
    let set = unsafe { git2::opts::set_verify_owner_validation(false) };
    if let Err(error) = set {
        tracing::warn!("repositories of other users will be refused: {error}");
    }
}

/// An object's size in bytes, from its header alone, after a check of its kind.
fn size_of(odb: &git2::Odb<'_>, id: GitId, wanted: ObjectType) -> Result<u64, GitError> {
    let (size, kind) = odb.read_header(id.oid()).map_err(|e| GitError::object(id, &e))?;
    if kind != wanted {
        let reason = format!("it is a {kind}, not a {wanted}");
        return Err(GitError::Unreadable { id, reason });
    }
    Ok(size as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::git::{
        EntryKind, Refusal,
        fixture::{FIRST_COMMIT, Fixture},
    };

    fn root(repository: &Repository) -> GitTreeId {
        let head = repository.resolve("HEAD").unwrap();
        repository.commit(head.commit).unwrap().tree
    }

    fn blob_id(repository: &Repository, name: &str) -> GitId {
        let listing = repository.entries(root(repository)).unwrap();
        let entry = listing.entries.iter().find(|e| e.name.as_bytes() == name.as_bytes());
        match entry.unwrap().kind {
            EntryKind::Blob { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_repository_opens_from_every_place_that_belongs_to_it() {
        let fixture = Fixture::new();
        let head = fixture.id("HEAD");
        fs::create_dir(fixture.path().join("sub")).unwrap();
        let (bare, linked) = (fixture.outside("bare.git"), fixture.outside("linked"));
        fixture.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        fixture.git(&["worktree", "add", "--quiet", "-b", "other", linked.to_str().unwrap()]);
        for path in [
            fixture.path(),
            fixture.path().join("sub"),
            fixture.path().join(".git"),
            bare,
            linked.clone(),
        ] {
            let repository = Repository::open(&path).unwrap();
            assert_eq!(repository.resolve("HEAD").unwrap().commit, head, "{}", path.display());
        }
        // A second handle is opened from the folder that the first one found.
        let linked = Repository::open(&linked).unwrap();
        linked.with(|_busy| linked.commit(head).map(drop)).unwrap();
    }

    #[test]
    fn elsewhere_there_is_no_repository() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), &folder.path().join("absent")] {
            let error = Repository::open(path).unwrap_err();
            assert!(matches!(error, GitError::NotARepository { .. }), "{error}");
        }
    }

    #[test]
    fn a_repository_with_sha256_ids_is_refused_with_the_reason() {
        let fixture = Fixture::empty();
        let folder = fixture.outside("sha256");
        fixture.git(&["init", "--quiet", "--object-format=sha256", folder.to_str().unwrap()]);
        let error = Repository::open(&folder).unwrap_err();
        assert!(matches!(error, GitError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("sha256"), "{error}");
    }

    #[test]
    fn commits_tell_their_time_tree_and_parents() {
        let fixture = Fixture::new();
        let first = fixture.id("HEAD");
        let second = fixture.commit("b.txt", "two");
        let repository = Repository::open(&fixture.path()).unwrap();
        let info = repository.commit(second).unwrap();
        assert_eq!((info.time, &info.parents[..]), (FIRST_COMMIT + 86_400, &[first][..]));
        assert_eq!(info.tree.0, fixture.id("HEAD^{tree}").0);
        let entry = "100644 a.txt".len() + 1 + 20;
        assert_eq!(repository.tree_size(info.tree).unwrap(), 2 * entry as u64);
    }

    #[test]
    fn blobs_are_read_up_to_a_limit() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let id = blob_id(&repository, "a.txt");
        assert_eq!(repository.blob_size(id).unwrap(), 3);
        assert_eq!(repository.blob(id, 3).unwrap(), b"one");
        let error = repository.blob(id, 2).unwrap_err();
        assert!(matches!(error, GitError::TooLarge { size: 3, limit: 2, .. }), "{error}");
    }

    #[test]
    fn missing_and_wrong_objects_are_told_apart() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let absent = repository.blob(GitId([1; 20]), 10).unwrap_err();
        assert!(matches!(absent, GitError::Missing { id: GitId(bytes) } if bytes == [1; 20]));
        let wrong = repository.blob(root(&repository).0, 1000).unwrap_err();
        assert!(matches!(wrong, GitError::Unreadable { .. }), "{wrong}");
    }

    #[test]
    fn an_object_with_a_flipped_byte_is_unreadable() {
        let fixture = Fixture::new();
        let id = blob_id(&Repository::open(&fixture.path()).unwrap(), "a.txt");
        let hex = id.to_string();
        let file = fixture.path().join(format!(".git/objects/{}/{}", &hex[..2], &hex[2..]));
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 6;
        bytes[last] ^= 0xff;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
        let error = Repository::open(&fixture.path()).unwrap().blob(id, 100).unwrap_err();
        assert!(matches!(error, GitError::Unreadable { id: found, .. } if found == id), "{error}");
    }

    #[test]
    fn hostile_entries_leave_the_rest_readable() {
        let fixture = Fixture::new();
        let id = blob_id(&Repository::open(&fixture.path()).unwrap(), "a.txt");
        let mut raw = Vec::new();
        for name in ["..", ".git", "a/b", "good"] {
            raw.extend_from_slice(format!("100644 {name}\0").as_bytes());
            raw.extend_from_slice(&id.0);
        }
        let repository = Repository::open(&fixture.path()).unwrap();
        let tree =
            repository.with(|repo| Ok(repo.odb().unwrap().write(ObjectType::Tree, &raw).unwrap()));
        let listing = repository.entries(tree.unwrap().into()).unwrap();
        assert_eq!(listing.entries.len(), 1);
        assert_eq!(listing.refused.len(), 3);
        assert_eq!(listing.refused[1].reason, Refusal::DotGit);
    }

    #[test]
    fn nothing_in_an_opened_repository_runs() {
        let fixture = Fixture::new();
        let mark = fixture.outside("ran");
        let spy = fixture.script("spy", &format!("touch {}", mark.display()));
        let spy = spy.to_str().unwrap();
        let hooks = fixture.path().join(".git/hooks");
        fs::create_dir_all(&hooks).unwrap();
        for hook in ["post-checkout", "reference-transaction", "post-index-change"] {
            fs::copy(spy, hooks.join(hook)).unwrap();
        }
        for key in ["core.fsmonitor", "core.sshCommand", "core.pager", "filter.x.smudge"] {
            fixture.git(&["config", key, spy]);
        }
        drop(fs::remove_file(&mark));
        let repository = Repository::open(&fixture.path()).unwrap();
        repository.refs().unwrap();
        repository.blob(blob_id(&repository, "a.txt"), 10).unwrap();
        repository.keep(repository.resolve("main").unwrap().commit, "test").unwrap();
        assert!(!mark.exists());
    }

    #[test]
    fn many_threads_read_at_once() {
        let fixture = Fixture::new();
        let repository = Repository::open(&fixture.path()).unwrap();
        let id = blob_id(&repository, "a.txt");
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(repository.blob(id, 10).unwrap(), b"one"));
            }
        });
        assert!(repository.idle.lock().len() <= IDLE_HANDLES);
    }
}
