//! One output: a file or folder that DVC tracks, as a `.dvc` file or a lock file describes it.

use crate::dvc::place::check_relpath;
use crate::dvc::yaml::{Map, Node};
use crate::dvc::{BadEntry, Flaw};
use crate::id::{BlobId, Digest, Scheme, TreeId, parse_digest};
use crate::path::RepoPath;

/// A tracked file or folder and where its content is known by.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, none excludes another")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it lies in the repository.
    pub path: RepoPath,
    /// What names its content.
    pub content: Content,
    /// Its bytes, as claimed by the file: the store may know better.
    pub size: Option<u64>,
    /// How many files a tracked folder holds, as claimed by the file.
    pub file_count: Option<u64>,
    /// Whether a single file is executable.
    pub is_exec: bool,
    /// The remote this output is pinned to, in lower case as remotes are named.
    pub remote: Option<String>,
    /// False if DVC does not store the content (`cache: false`): git has it or nobody.
    pub is_cached: bool,
    /// False if DVC leaves the content out of what it pushes (`push: false`).
    pub is_pushed: bool,
    /// Whether a bucket keeps the content under its own name, by version, instead of under its
    /// hash; the hash then serves the cache only.
    pub is_versioned: bool,
    /// Where the data comes from.
    pub origin: Origin,
    /// True if a template could not be worked out and the lock file alone says that this exists.
    pub is_inferred: bool,
    /// The stage of a pipeline that makes it.
    pub stage: Option<Box<Stage>>,
}

/// The stage that makes an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name; of generated ones `name@key`.
    pub name: String,
    /// The folder that the paths of the stage start from.
    pub folder: RepoPath,
}

/// What names the content of an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A single file.
    Blob(BlobId),
    /// A folder, listed by a manifest.
    Tree(TreeId),
    /// A folder that the entry itself lists, as buckets with versions have them.
    Files(Vec<ListedFile>),
    /// Nothing that can be fetched, for this reason; the output is listed all the same.
    Unavailable(String),
}

/// A file of a folder that is listed in place of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Its place below the output: components joined by `/`, checked as for [`RepoPath`].
    pub relpath: RepoPath,
    /// Its content, where a hash is given.
    pub blob: Option<BlobId>,
    /// Its bytes, as claimed by the file.
    pub size: Option<u64>,
    /// Whether it is executable.
    pub is_exec: bool,
    /// As for [`Output::is_versioned`].
    pub is_versioned: bool,
}

/// Where the data of an output comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Made in this repository.
    Own,
    /// Imported from another repository, whose remotes have it: this one's never do.
    Import(Box<Source>),
    /// Imported from a URL; this repository's remote has a copy.
    ImportUrl,
}

/// The place in another repository that an import was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The repository, a git URL or a local path as typed.
    pub url: String,
    /// The revision that was asked for; absent for the default branch.
    pub rev: Option<String>,
    /// The commit that was taken.
    pub rev_lock: Option<String>,
    /// The path in that repository.
    pub path: String,
}

impl Output {
    /// Reads the `entry` that describes the output at `path`. Files of its own listing that cannot
    /// be shown go to `bad`.
    pub(super) fn read(path: RepoPath, entry: &Map, bad: &mut Vec<BadEntry>) -> Self {
        Self {
            path,
            content: content(entry, bad),
            size: number(entry, "size"),
            file_count: number(entry, "nfiles"),
            is_exec: flag(entry, "isexec") == Some(true),
            remote: text(entry, "remote").map(str::to_lowercase),
            is_cached: flag(entry, "cache") != Some(false),
            is_pushed: flag(entry, "push") != Some(false),
            is_versioned: is_versioned(entry) || entry.contains_key("files"),
            origin: Origin::Own,
            is_inferred: false,
            stage: None,
        }
    }

    /// An output of which nothing is known but `reason`.
    pub(super) fn unavailable(path: RepoPath, reason: impl Into<String>) -> Self {
        Self {
            content: Content::Unavailable(reason.into()),
            ..Self::read(path, &Map::new(), &mut Vec::new())
        }
    }
}

/// A truth value of an entry.
pub(super) fn flag(entry: &Map, key: &str) -> Option<bool> {
    entry.get(key)?.as_bool()
}

/// The text of a scalar in an entry; nothing if it is absent, null or empty.
pub(super) fn text<'a>(entry: &'a Map, key: &str) -> Option<&'a str> {
    entry.get(key)?.text().filter(|text| !text.is_empty())
}

fn number(entry: &Map, key: &str) -> Option<u64> {
    entry.get(key)?.as_u64()
}

fn is_versioned(entry: &Map) -> bool {
    let has_cloud = entry.get("cloud").and_then(Node::as_map).is_some_and(|map| !map.is_empty());
    has_cloud || text(entry, "version_id").is_some()
}

fn content(entry: &Map, bad: &mut Vec<BadEntry>) -> Content {
    let scheme = match scheme(entry) {
        Ok(scheme) => scheme,
        Err(reason) => return Content::Unavailable(reason),
    };
    if let Some(files) = entry.get("files").filter(|files| !files.is_null()) {
        let Some(files) = files.as_list() else {
            return Content::Unavailable("`files` is not a list".to_owned());
        };
        return Content::Files(listed_files(files, scheme, bad));
    }
    hashed(entry, scheme).unwrap_or_else(Content::Unavailable)
}

fn scheme(entry: &Map) -> Result<Scheme, String> {
    match text(entry, "hash") {
        None | Some("md5-dos2unix") => Ok(Scheme::Dos2Unix),
        Some("md5") => Ok(Scheme::Md5),
        Some(other) => Err(format!("hashed by {other:?}, which DVC does not store by")),
    }
}

fn hashed(entry: &Map, scheme: Scheme) -> Result<Content, String> {
    let Some(md5) = text(entry, "md5") else {
        let other = ["etag", "checksum"].into_iter().find(|key| text(entry, key).is_some());
        return Err(other.map_or("no hash".to_owned(), |key| format!("only {key}, no hash")));
    };
    let (hash, is_tree) = md5.strip_suffix(".dir").map_or((md5, false), |hash| (hash, true));
    let digest = parse_digest(hash).map_err(|error| error.to_string())?;
    Ok(if is_tree {
        Content::Tree(TreeId { digest, scheme })
    } else {
        Content::Blob(BlobId { digest, scheme })
    })
}

fn listed_files(files: &[Node], scheme: Scheme, bad: &mut Vec<BadEntry>) -> Vec<ListedFile> {
    let mut listed = Vec::with_capacity(files.len());
    for file in files {
        match listed_file(file, scheme) {
            Ok(file) => listed.push(file),
            Err(entry) => bad.push(entry),
        }
    }
    listed
}

fn listed_file(file: &Node, scheme: Scheme) -> Result<ListedFile, BadEntry> {
    let Some(entry) = file.as_map() else {
        return Err(BadEntry::new(b"files", Flaw::Shape("not a mapping")));
    };
    let name = text(entry, "relpath").unwrap_or_default().as_bytes();
    let digest: Option<Digest> = text(entry, "md5").and_then(|md5| parse_digest(md5).ok());
    check_relpath(name).map_err(|flaw| BadEntry::new(name, flaw))?;
    Ok(ListedFile {
        relpath: RepoPath::new(name).map_err(|error| BadEntry::new(name, error))?,
        blob: digest.map(|digest| BlobId { digest, scheme }),
        size: number(entry, "size"),
        is_exec: flag(entry, "isexec") == Some(true),
        is_versioned: is_versioned(entry),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dvc::yaml;

    fn read(text: &str) -> (Output, Vec<BadEntry>) {
        let node = yaml::parse(text.as_bytes()).unwrap();
        let mut bad = Vec::new();
        let path = RepoPath::new(b"out").unwrap();
        let output = Output::read(path, node.as_map().unwrap(), &mut bad);
        (output, bad)
    }

    fn reason(text: &str) -> String {
        match read(text).0.content {
            Content::Unavailable(reason) => reason,
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_hash_key_decides_the_scheme() {
        let md5 = "md5: d41d8cd98f00b204e9800998ecf8427e";
        let blob = |text: &str| match read(text).0.content {
            Content::Blob(id) => id.scheme,
            other => panic!("{other:?}"),
        };
        assert_eq!(blob(&format!("{md5}\nhash: md5\n")), Scheme::Md5);
        assert_eq!(blob(md5), Scheme::Dos2Unix);
        let tree = read(&format!("{md5}.dir\nnfiles: 3\n")).0;
        assert!(matches!(tree.content, Content::Tree(id) if id.scheme == Scheme::Dos2Unix));
        assert_eq!(tree.file_count, Some(3));
    }

    #[test]
    fn hashes_that_look_like_numbers_are_hashes() {
        for md5 in ["12345678901234567890123456789012", "1234567890123456789012345678e012"] {
            assert!(matches!(read(&format!("md5: {md5}")).0.content, Content::Blob(_)), "{md5}");
        }
    }

    #[test]
    fn what_names_no_object_is_unavailable_and_says_why() {
        for text in ["{}", "md5:", "md5: ''", "md5: null"] {
            assert_eq!(reason(text), "no hash", "{text}");
        }
        assert_eq!(reason("etag: abc"), "only etag, no hash");
        assert!(reason("hash: sha256\nmd5: d41d8cd98f00b204e9800998ecf8427e").contains("sha256"));
        for md5 in ["ab", "../../../evil", "D41D8CD98F00B204E9800998ECF8427E", "{a: b}.dir"] {
            assert!(reason(&format!("md5: '{md5}'")).contains("32 lower-case hex"), "{md5}");
        }
    }

    #[test]
    fn sizes_are_claims_and_dropped_when_odd() {
        assert_eq!(read("size: 4").0.size, Some(4));
        assert_eq!(read("size: '4'").0.size, None);
        assert_eq!(read("size: -4").0.size, None);
    }

    #[test]
    fn flags_are_read() {
        let output = read("isexec: true\ncache: false\nremote: COLD\n").0;
        assert!(output.is_exec && !output.is_cached);
        assert_eq!(output.remote.as_deref(), Some("cold"));
    }

    #[test]
    fn a_versioned_file_keeps_its_hash() {
        let text = "md5: d41d8cd98f00b204e9800998ecf8427e\nsize: 0\nhash: md5\n\
                    cloud:\n  va: {etag: x, version_id: y}\n";
        let output = read(text).0;
        assert!(output.is_versioned);
        assert!(matches!(output.content, Content::Blob(_)));
    }

    #[test]
    fn listed_files_are_checked_one_by_one() {
        let text = "hash: md5\nfiles:\n- relpath: '1'\n  md5: b026324c6904b2a9cb4b88d6d61c81d1\n  \
                    size: 2\n  cloud: {v: {version_id: q}}\n- relpath: s/2\n- relpath: ../evil\n- 7\n";
        let (output, bad) = read(text);
        let Content::Files(files) = output.content else { panic!("no list") };
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].relpath.as_bytes(), b"1");
        assert!(files[0].is_versioned && files[0].blob.is_some() && files[0].size == Some(2));
        assert!(!files[1].is_versioned && files[1].blob.is_none());
        assert_eq!(bad.len(), 2);
    }
}
