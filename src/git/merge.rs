//! What merging two commits takes of git: where they parted, and text that changed on both sides.

use git2::{ErrorCode, MergeFileInput, MergeFileOptions};

use super::{
    error::GitError,
    id::{CommitId, GitId, GitTreeId},
    listing::EntryKind,
    repository::Repository,
};
use crate::path::RepoPath;

/// Text with a NUL byte so early is none, to git.
const HEAD: usize = 8000;

impl Repository {
    /// The newest commit that both descend from; nothing if they have nothing in common.
    pub fn merge_base(&self, one: CommitId, other: CommitId) -> Result<Option<CommitId>, GitError> {
        self.with(|repo| {
            for commit in [one, other] {
                repo.find_commit(commit.0.oid()).map_err(|e| GitError::object(commit.0, &e))?;
            }
            match repo.merge_base(one.0.oid(), other.0.oid()) {
                Ok(base) => Ok(Some(base.into())),
                Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
                Err(e) => Err(GitError::object(one.0, &e)),
            }
        })
    }

    /// What stands at a path; nothing if nothing does.
    pub fn entry_at(
        &self,
        tree: GitTreeId,
        path: &RepoPath,
    ) -> Result<Option<EntryKind>, GitError> {
        let mut found = EntryKind::Folder { id: tree };
        for name in path.components() {
            let EntryKind::Folder { id } = found else { return Ok(None) };
            let entries = self.entries(id)?.entries;
            match entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name)) {
                Ok(at) => found = entries[at].kind,
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    /// The content of a file with the changes of both sides, as git merges text; nothing if they
    /// touch the same lines, or if it is no text. An error if one of the three has more than
    /// `limit` bytes.
    pub fn merge_text(
        &self,
        [base, ours, theirs]: [GitId; 3],
        limit: u64,
    ) -> Result<Option<Vec<u8>>, GitError> {
        let [base, ours, theirs] =
            [self.blob(base, limit)?, self.blob(ours, limit)?, self.blob(theirs, limit)?];
        let is_text = |bytes: &[u8]| !bytes[..bytes.len().min(HEAD)].contains(&0);
        if ![&base, &ours, &theirs].into_iter().all(|bytes| is_text(bytes)) {
            return Ok(None);
        }
        let (mut inputs, mut options) =
            ([(); 3].map(|()| MergeFileInput::new()), MergeFileOptions::new());
        for (input, bytes) in inputs.iter_mut().zip([&base, &ours, &theirs]) {
            input.content(bytes);
        }
        let [base, ours, theirs] = &inputs;
        let merged = git2::merge_file(base, ours, theirs, Some(&mut options));
        let merged = merged.map_err(|e| GitError::Io {
            action: "merge in",
            path: self.git_dir().to_owned(),
            source: std::io::Error::other(e),
        })?;
        Ok(merged.is_automergeable().then(|| merged.content().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::fixture::Fixture;

    fn merged(base: &str, ours: &str, theirs: &str) -> Option<String> {
        let fixture = Fixture::empty();
        let repository = Repository::open(&fixture.path()).unwrap();
        let ids = [base, ours, theirs].map(|text| repository.write_blob(text.as_bytes()).unwrap());
        let merged = repository.merge_text(ids, 1000).unwrap();
        merged.map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn changes_of_different_lines_are_both_in_the_text() {
        let text = |first: &str, last: &str| format!("{first}\n1\n2\n3\n4\n{last}\n");
        let both = merged(&text("a", "b"), &text("A", "b"), &text("a", "B"));
        assert_eq!(both.unwrap(), text("A", "B"));
        assert_eq!(merged("a\n", "b\n", "c\n"), None);
        assert_eq!(merged("", "b\n", "c\n"), None);
        assert_eq!(merged("a\0\n1\n2\n3\nb\n", "a\0\n1\n2\n3\nB\n", "A\0\n1\n2\n3\nb\n"), None);
        let empty = merged("a\n1\n2\n3\n", "1\n2\n3\n", "a\n1\n2\n").unwrap();
        assert_eq!(empty, "1\n2\n");
    }

    #[test]
    fn the_base_is_where_both_parted() {
        let fixture = Fixture::new();
        let first = fixture.id("HEAD");
        let ours = fixture.commit("b", "ours");
        fixture.git(&["reset", "--quiet", "--hard", &first.to_string()]);
        let theirs = fixture.commit("c", "theirs");
        fixture.git(&["checkout", "--quiet", "--orphan", "alone"]);
        let alone = fixture.commit("d", "alone");
        let repository = Repository::open(&fixture.path()).unwrap();
        assert_eq!(repository.merge_base(ours, theirs).unwrap(), Some(first));
        assert_eq!(repository.merge_base(first, theirs).unwrap(), Some(first));
        assert_eq!(repository.merge_base(alone, theirs).unwrap(), None);
        let missing = CommitId(GitId([7; 20]));
        let error = repository.merge_base(missing, ours).unwrap_err();
        assert!(matches!(error, GitError::Missing { .. }), "{error}");
    }

    #[test]
    fn an_entry_is_found_by_its_path() {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.path().join("sub")).unwrap();
        let commit = fixture.commit("sub/x", "x");
        let repository = Repository::open(&fixture.path()).unwrap();
        let tree = repository.commit(commit).unwrap().tree;
        let at = |path: &str| {
            repository.entry_at(tree, &RepoPath::new(path.as_bytes()).unwrap()).unwrap()
        };
        assert!(matches!(at("sub/x"), Some(EntryKind::Blob { .. })));
        assert!(matches!(at("sub"), Some(EntryKind::Folder { .. })));
        assert_eq!((at("sub/x/y"), at("sub/y"), at("no/x")), (None, None, None));
    }
}
