//! Removes what a killed git left in a mirror.
//!
//! Git removes its temporary files when it is asked to stop, but not when it is killed or the
//! power fails. A stale `*.lock` would then make every later fetch fail, and half-received packs
//! would pile up, since nothing else collects in a mirror.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Younger files may belong to a process that is still at work.
const MIN_AGE: Duration = Duration::from_hours(1);

/// Removes stale lock files and half-received packs; what cannot be removed is left.
pub(super) fn remove(mirror: &Path, now: SystemTime) {
    remove_in(mirror, now);
    remove_in(&mirror.join("objects/pack"), now);
    let mut folders = vec![mirror.join("refs")];
    while let Some(folder) = folders.pop() {
        folders.extend(remove_in(&folder, now));
    }
}

/// Removes stale files of one folder and gives the folders in it.
fn remove_in(folder: &Path, now: SystemTime) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        } else if is_stale(&entry, now) && fs::remove_file(entry.path()).is_ok() {
            tracing::info!(path = %entry.path().display(), "removed a leftover of a killed git");
        }
    }
    folders
}

fn is_stale(entry: &fs::DirEntry, now: SystemTime) -> bool {
    let name = entry.file_name();
    let name = name.as_encoded_bytes();
    let is_temporary = name.ends_with(b".lock") || name.starts_with(b"tmp_");
    let age = entry.metadata().and_then(|m| m.modified()).map(|time| now.duration_since(time));
    is_temporary && matches!(age, Ok(Ok(age)) if age > MIN_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_temporary_files_are_removed() {
        let mirror = tempfile::tempdir().unwrap();
        let path = |name: &str| mirror.path().join(name);
        let temporary = ["packed-refs.lock", "refs/a/b/x.lock", "objects/pack/tmp_pack_1"];
        let lasting = ["HEAD", "refs/a/b/x", "objects/pack/pack-1.pack"];
        for name in temporary.iter().chain(&lasting) {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), "").unwrap();
        }
        let exists = |names: &[&str]| names.iter().filter(|name| path(name).exists()).count();

        remove(mirror.path(), SystemTime::now());
        assert_eq!(exists(&temporary), 3);
        remove(mirror.path(), SystemTime::now() + 2 * MIN_AGE);
        assert_eq!((exists(&temporary), exists(&lasting)), (0, 3));
    }
}
