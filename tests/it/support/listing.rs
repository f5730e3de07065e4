//! A whole tree as a plain value, to be compared.

use std::{
    collections::BTreeMap,
    fs::{self, DirEntry, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
};

use md5::{Digest, Md5};

/// What lies below a folder, by path from it.
pub(crate) type Listing = BTreeMap<Vec<u8>, Entry>;

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A folder that lists its names.
    Folder,
    /// A folder that does not, and its errno.
    ClosedFolder(i32),
    /// A symbolic link and its target.
    Link(Vec<u8>),
    /// A regular file.
    File {
        /// As `stat` says, before anything was read.
        size: Result<u64, i32>,
        is_exec: bool,
        content: Content,
    },
}

/// What reading a file to its end gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// The MD5 of the bytes.
    Md5(String),
    /// An errno.
    Refused(i32),
}

/// Lists a folder and all below, and reads every file.
///
/// # Panics
///
/// When a file's bytes are more or fewer than its size.
pub(crate) fn list(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let entries = fs::read_dir(root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    add_all(&mut listing, b"", entries.map(Result::unwrap));
    listing
}

fn add_all(listing: &mut Listing, prefix: &[u8], entries: impl Iterator<Item = DirEntry>) {
    for entry in entries {
        let path = [prefix, entry.file_name().as_bytes()].concat();
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            listing.insert(path, Entry::Link(target.as_os_str().as_bytes().to_vec()));
        } else if kind.is_file() {
            listing.insert(path, file(&entry.path()));
        } else {
            let below = [&path[..], b"/"].concat();
            match fs::read_dir(entry.path()).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Ok(entries) => {
                    listing.insert(path, Entry::Folder);
                    add_all(listing, &below, entries.into_iter());
                }
                Err(error) => {
                    listing.insert(path, Entry::ClosedFolder(error.raw_os_error().unwrap()));
                }
            }
        }
    }
}

fn file(path: &Path) -> Entry {
    let errno = |error: &io::Error| error.raw_os_error().unwrap();
    let metadata = fs::symlink_metadata(path);
    let size = metadata.as_ref().map(fs::Metadata::len).map_err(errno);
    let is_exec = metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0);
    let content = match md5_of(path) {
        Ok((md5, count)) => {
            assert_eq!(size, Ok(count), "the size and the bytes of {}", path.display());
            Content::Md5(md5)
        }
        Err(error) => Content::Refused(errno(&error)),
    };
    Entry::File { size, is_exec, content }
}

/// The MD5 and the number of a file's bytes.
pub(crate) fn md5_of(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Md5::new();
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((dvcfs::id::hex(&hasher.finalize().into()), total));
        }
        hasher.update(&buffer[..count]);
        total += count as u64;
    }
}

/// What is in one tree and not in the other, one line each; nothing where they are equal.
pub(crate) fn differences(expected: &Listing, found: &Listing) -> Vec<String> {
    let name = |path: &[u8]| path.escape_ascii().to_string();
    let wrong = expected.iter().filter_map(|(path, entry)| match found.get(path) {
        None => Some(format!("{}: missing, expected {entry:?}", name(path))),
        Some(other) if other != entry => {
            Some(format!("{}: expected {entry:?}, found {other:?}", name(path)))
        }
        Some(_) => None,
    });
    let more = found.iter().filter(|(path, _)| !expected.contains_key(*path));
    let more = more.map(|(path, entry)| format!("{}: not expected, {entry:?}", name(path)));
    wrong.chain(more).collect()
}

/// Asserts that two trees are the same, and says in what they differ.
pub(crate) fn assert_same(what: &str, expected: &Listing, found: &Listing) {
    let differences = differences(expected, found);
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}
