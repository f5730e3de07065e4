//! Where an output lies: from the text in a file to a checked path in the repository.

use crate::dvc::Flaw;
use crate::path::{PathError, RepoPath};

/// Longer paths cannot be opened on Linux; the limit also bounds the work of resolving one.
const PATH_MAX: usize = 4096;

/// The folder that the paths of a file start from, and the project they must stay inside.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub(super) file_dir: &'a RepoPath,
    pub(super) project_root: &'a RepoPath,
}

impl Base<'_> {
    /// Resolves an output's `path` from the stage's `wdir`, both as the file has them.
    pub(super) fn place(&self, wdir: Option<&str>, path: &str) -> Result<RepoPath, Flaw> {
        let resolved = self.resolve(wdir, path)?;
        let inside = resolved.strip_prefix(self.project_root).unwrap_or_default();
        if inside.is_empty() {
            return Err(Flaw::External);
        }
        if is_reserved(inside) {
            return Err(Flaw::Reserved);
        }
        if inside.ends_with(b".dvc") || resolved.file_name() == Some(b"dvc.yaml") {
            return Err(Flaw::DvcFile);
        }
        Ok(resolved)
    }

    /// Resolves lexically, staying inside the repository only.
    pub(super) fn resolve(&self, wdir: Option<&str>, path: &str) -> Result<RepoPath, Flaw> {
        let wdir = wdir.unwrap_or(".");
        if path.is_empty() {
            return Err(Flaw::Shape("no path"));
        }
        if wdir.len() + path.len() > PATH_MAX {
            return Err(Flaw::TooLong);
        }
        if has_scheme(wdir) || has_scheme(path) || path.starts_with('/') {
            return Err(Flaw::External);
        }
        let text = format!("{wdir}/{path}");
        self.file_dir.resolve(text.as_bytes()).map_err(|error| match error {
            PathError::Absolute | PathError::Escapes => Flaw::External,
            error => Flaw::Name(error),
        })
    }
}

/// Checks a path below an output, as manifests and `files:` lists have them.
pub(super) fn check_relpath(relpath: &[u8]) -> Result<(), Flaw> {
    if relpath.is_empty() {
        return Err(Flaw::Shape("no path"));
    }
    if relpath.len() > PATH_MAX {
        return Err(Flaw::TooLong);
    }
    if relpath[0] == b'/' {
        return Err(PathError::Absolute.into());
    }
    relpath.split(|byte| *byte == b'/').try_for_each(crate::path::check_name)?;
    if is_reserved(relpath) { Err(Flaw::Reserved) } else { Ok(()) }
}

/// Whether `text` begins like `s3://`.
pub(super) fn has_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_alphanumeric() || c == '_')
    })
}

fn is_reserved(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| matches!(name, b".git" | b".dvc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(wdir: Option<&str>, path: &str) -> Result<String, Flaw> {
        let file_dir = RepoPath::new(b"proj/dvc_files").unwrap();
        let project_root = RepoPath::new(b"proj").unwrap();
        let base = Base { file_dir: &file_dir, project_root: &project_root };
        base.place(wdir, path).map(|path| path.to_string())
    }

    #[test]
    fn paths_start_from_the_working_directory_of_the_stage() {
        assert_eq!(place(None, "a.wav").unwrap(), "proj/dvc_files/a.wav");
        assert_eq!(place(Some("../sounds"), ".//sub/../a.wav").unwrap(), "proj/sounds/a.wav");
        assert_eq!(place(None, "../../proj/b/").unwrap(), "proj/b");
    }

    #[test]
    fn what_leaves_the_project_is_external() {
        for path in ["../..", "../../other/x", "../../../x", "/abs", "s3://bucket/x", ".."] {
            assert_eq!(place(None, path), Err(Flaw::External), "{path}");
        }
        assert_eq!(place(Some("/abs"), "x"), Err(Flaw::External));
        assert_eq!(place(Some("../../.."), "x"), Err(Flaw::External));
    }

    #[test]
    fn reserved_and_unusable_paths_are_refused() {
        assert_eq!(place(None, "../.git/hooks/x"), Err(Flaw::Reserved));
        assert_eq!(place(None, "../sub/.dvc"), Err(Flaw::Reserved));
        assert_eq!(place(None, "x.dvc"), Err(Flaw::DvcFile));
        assert_eq!(place(None, "sub/dvc.yaml"), Err(Flaw::DvcFile));
        assert_eq!(place(None, "a\0b"), Err(Flaw::Name(PathError::Nul)));
        assert_eq!(place(None, ""), Err(Flaw::Shape("no path")));
        assert_eq!(place(None, &"n".repeat(256)), Err(Flaw::Name(PathError::TooLong)));
        assert_eq!(place(None, &"n/".repeat(2049)), Err(Flaw::TooLong));
    }

    #[test]
    fn names_with_colons_and_dots_are_ordinary() {
        assert_eq!(place(None, "a:b").unwrap(), "proj/dvc_files/a:b");
        assert_eq!(place(None, "...").unwrap(), "proj/dvc_files/...");
    }

    #[test]
    fn relpaths_are_plain_components_only() {
        for bad in ["", "/abs", "../evil", "./a", "b//c", "a/", "a\0b", ".git/x", "s/.dvc/config"] {
            assert!(check_relpath(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check_relpath(b"sub/b\xff").is_ok());
    }
}
