//! Writing of `.dvc` files: a new one for an output, and new content in an existing one.
//!
//! The text is the one that `dvc add` leaves behind, to the byte, so that a later `dvc add` of the
//! same content changes nothing. In an existing file DVC changes the values that differ, appends
//! keys that are new, takes away those that say nothing, and leaves all else as it was written; an
//! output whose content is new is upgraded to the hashes of DVC 3.

pub mod merge;
pub mod moved;

use std::collections::BTreeMap;

use crate::dvc::document::{self, DocumentError, List, Map, Scalar, Value};
use crate::dvc::place::Base;
use crate::dvc::{Flaw, FormatError, lockfile, yaml};
use crate::id::{Digest, hex};
use crate::path::{NAME_MAX, PathError, RepoPath, check_name, escape};

/// The content of an output, hashed as DVC 3 does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// A single file.
    File {
        /// The MD5 of its bytes.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// Whether its owner may execute it.
        is_exec: bool,
    },
    /// A folder.
    Folder {
        /// The MD5 of its manifest.
        digest: Digest,
        /// The bytes of all its files, if that is known.
        size: Option<u64>,
        /// How many files it has.
        file_count: u64,
    },
}

/// What becomes of an output in an existing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has new content.
    Content(Recorded),
    /// It came to another path, with this content if that is not the same.
    Renamed(RepoPath, Option<Recorded>),
    /// It is no longer tracked.
    Removed,
}

/// Why a `.dvc` file cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The name is not one that DVC can track.
    #[error("DVC cannot hold the name {name:?}: {why}")]
    Name {
        /// The name, safe to print.
        name: String,
        /// What is wrong with it.
        why: NameFlaw,
    },
    /// The existing file cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The existing file cannot be rewritten as DVC would.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The file does not track the path that was changed.
    #[error("the file does not track {0}")]
    Absent(RepoPath),
    /// The lock file is one of DVC 1.
    #[error("the lock file is of DVC 1, which DVC 3 does not read; dvc repro writes it anew")]
    OldLock,
    /// The output's content is kept by a bucket, under its name and version.
    #[error("{0} is kept by version in a bucket, where only DVC itself can change it")]
    Versioned(RepoPath),
}

/// Why DVC cannot track a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFlaw {
    /// The name is not valid UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// DVC writes the name but reads another one back.
    #[error("DVC would read another name from its own file")]
    Changes,
    /// The name is that of a file of DVC's own.
    #[error("files of DVC itself are not data")]
    DvcFile,
    /// The name of the `.dvc` file would be too long.
    #[error("with .dvc behind it, it is longer than 255 bytes")]
    TooLong,
    /// The name is no name at all.
    #[error(transparent)]
    Invalid(#[from] PathError),
}

/// Writes the `.dvc` file of a new output called `name`, which lies beside the file.
pub fn create(name: &[u8], content: &Recorded) -> Result<String, RecordError> {
    let fail = |why| RecordError::Name { name: escape(name), why };
    let path = check_new(name).map_err(fail)?;
    let mut output = Map::default();
    set_content(&mut output, content, path);
    let text = document::compose(&with_outputs([Value::Map(output)]));
    if path_in(&text).as_deref() == Some(path) { Ok(text) } else { Err(fail(NameFlaw::Changes)) }
}

fn check_new(name: &[u8]) -> Result<&str, NameFlaw> {
    const SUFFIX: &[u8] = b".dvc";
    check_name(name)?;
    if name.ends_with(SUFFIX) || name == b"dvc.yaml" || name == b"dvc.lock" || name == b".git" {
        return Err(NameFlaw::DvcFile);
    }
    if name.len() + SUFFIX.len() > NAME_MAX {
        return Err(NameFlaw::TooLong);
    }
    str::from_utf8(name).ok().ok_or(NameFlaw::NotUtf8)
}

fn with_outputs(outputs: impl IntoIterator<Item = Value>) -> Value {
    let (mut list, mut stage) = (List::default(), Map::default());
    list.replace(outputs);
    stage.set("outs", Value::List(list));
    Value::Map(stage)
}

/// The path of the first output, as DVC reads it.
fn path_in(text: &str) -> Option<String> {
    let mut stage = document::parse(text).ok()?;
    let outputs = stage.as_map_mut()?.get_mut("outs")?.as_list_mut()?;
    let path = outputs.iter().next()?.as_map()?.get("path")?.as_scalar()?.as_str()?.to_owned();
    Some(path)
}

/// Whether an existing `.dvc` or lock file can be written anew; where not, no [`update`] can do it.
pub fn check(bytes: &[u8]) -> Result<(), RecordError> {
    read(bytes).map(drop)
}

fn read(bytes: &[u8]) -> Result<Value, RecordError> {
    yaml::parse(bytes)?;
    // Sound, or the line above would have failed.
    Ok(document::parse(&String::from_utf8_lossy(bytes))?)
}

/// Writes an existing `.dvc` file anew with `changes` to its outputs; nothing if none remains, so
/// that the file is to be deleted.
///
/// The file lies in `file_dir` of the DVC project at `project_root`. Outputs are told apart by
/// where they lie in the repository. A lock file may be given as well; its paths are taken from its
/// own folder.
pub fn update(
    bytes: &[u8],
    file_dir: &RepoPath,
    project_root: &RepoPath,
    changes: &BTreeMap<RepoPath, Change>,
) -> Result<Option<String>, RecordError> {
    let mut document = read(bytes)?;
    let stage = document.as_map_mut().ok_or(FormatError::Shape("not a mapping"))?;
    if stage.get("stages").is_some() && stage.get("outs").is_none() {
        return lockfile::update_files(bytes, file_dir, changes).map(Some);
    }
    let base = Base { file_dir, project_root };
    let wdir = stage.get("wdir").and_then(|wdir| wdir.as_scalar()?.as_str()).map(str::to_owned);
    let outputs = stage
        .get_mut("outs")
        .and_then(Value::as_list_mut)
        .ok_or(FormatError::Shape("`outs` is not a list"))?;
    let mut left: BTreeMap<_, _> = changes.iter().collect();
    let mut removed = Vec::new();
    for (at, output) in outputs.iter_mut().enumerate() {
        let output = output.as_map_mut().ok_or(FormatError::Shape("an output is no mapping"))?;
        let path = output.get("path").and_then(|path| path.as_scalar()?.as_str());
        let place = base.place(wdir.as_deref(), path.unwrap_or_default());
        let change = place.as_ref().ok().and_then(|place| left.remove(place));
        if change == Some(&Change::Removed) {
            removed.push(at);
        } else {
            update_output(output, wdir.as_deref(), base, place, change)?;
        }
    }
    if let Some((path, _)) = left.pop_first() {
        return Err(RecordError::Absent(path.clone()));
    }
    if !removed.is_empty() {
        remove_outputs(outputs, &removed);
        if outputs.is_empty() {
            return Ok(None);
        }
    }
    update_stage(stage, wdir.as_deref(), base);
    let is_renamed = changes.values().any(|change| matches!(change, Change::Renamed(..)));
    if is_renamed && stage.get("md5").is_some() {
        let md5 = moved::stage_md5(stage);
        stage.set("md5", string(md5));
    }
    Ok(Some(document::compose(&document)))
}

fn update_output(
    output: &mut Map,
    wdir: Option<&str>,
    base: Base<'_>,
    place: Result<RepoPath, Flaw>,
    change: Option<&Change>,
) -> Result<(), RecordError> {
    let (place, content) = match change {
        Some(Change::Content(content)) => (place, Some(content)),
        Some(Change::Renamed(to, content)) => (Ok(to.clone()), content.as_ref()),
        Some(Change::Removed) | None => (place, None),
    };
    let path = place.as_ref().ok().and_then(|place| written_path(place, wdir, base));
    if let (Ok(place), Some(content)) = (place, content) {
        // A path that DVC reads is one that it can write.
        replace_content(output, content, &path.unwrap_or_default(), place)?;
    } else {
        keep_content(output);
        if let Some(path) = path {
            output.set("path", string(path));
        }
    }
    drop_silent(output);
    Ok(())
}

/// Sets what tells an output's content and path, and takes away what told another content.
fn replace_content(
    output: &mut Map,
    content: &Recorded,
    path: &str,
    place: RepoPath,
) -> Result<(), RecordError> {
    let is_versioned = |key| output.get(key).is_some_and(|value| !value.is_falsy());
    if ["cloud", "version_id", "files"].into_iter().any(is_versioned) {
        return Err(RecordError::Versioned(place));
    }
    for key in ["size", "nfiles", "isexec", "etag", "checksum", "cloud", "files"] {
        if !(has_key(content, key)) {
            output.remove(key);
        }
    }
    set_content(output, content, path);
    Ok(())
}

fn has_key(content: &Recorded, key: &str) -> bool {
    match (content, key) {
        (Recorded::File { .. }, "size") | (Recorded::Folder { .. }, "nfiles") => true,
        (Recorded::File { is_exec, .. }, "isexec") => *is_exec,
        (Recorded::Folder { size, .. }, "size") => size.is_some(),
        _ => false,
    }
}

/// Sets what tells an output's content and place, in the order in which DVC appends new keys.
fn set_content(output: &mut Map, content: &Recorded, path: &str) {
    set_hash(output, content);
    output.set("hash", string("md5"));
    output.set("path", string(path));
}

/// Sets what tells an output's content, in the order in which DVC appends new keys.
pub(super) fn set_hash(output: &mut Map, content: &Recorded) {
    let number = |value| Value::Scalar(Scalar::number(value));
    match *content {
        Recorded::File { digest, size, is_exec } => {
            output.set("md5", string(hex(&digest)));
            output.set("size", number(size));
            if is_exec {
                output.set("isexec", Value::Scalar(Scalar::boolean(true)));
            }
        }
        Recorded::Folder { digest, size, file_count } => {
            output.set("md5", string(format!("{}.dir", hex(&digest))));
            if let Some(size) = size {
                output.set("size", number(size));
            }
            output.set("nfiles", number(file_count));
        }
    }
}

fn string(text: impl Into<String>) -> Value {
    Value::Scalar(Scalar::string(text))
}

/// What DVC does to the hash of an output that it only writes again.
fn keep_content(output: &mut Map) {
    let has_hash = output.get("md5").is_some_and(|md5| !md5.is_falsy());
    let is_legacy = output.get("hash").is_none_or(Value::is_falsy);
    if is_legacy && output.get("md5").is_none() && output.get("files").is_none() {
        output.set("md5", Value::Scalar(Scalar::null()));
    } else if !is_legacy && !has_hash {
        output.remove("md5");
    }
}

/// Takes away the keys that DVC leaves out because they say nothing.
fn drop_silent(output: &mut Map) {
    const UNLESS_TRUE: [&str; 15] = [
        "hash",
        "isexec",
        "version_id",
        "etag",
        "checksum",
        "cloud",
        "fs_config",
        "desc",
        "type",
        "labels",
        "meta",
        "metric",
        "plot",
        "persist",
        "remote",
    ];
    for key in UNLESS_TRUE {
        if output.get(key).is_some_and(Value::is_falsy) {
            output.remove(key);
        }
    }
    for key in ["cache", "push"] {
        if output.get(key).is_some_and(|value| !value.is_falsy()) {
            output.remove(key);
        }
    }
}

/// Takes outputs out of the list. DVC then writes the whole list anew, without its comments.
fn remove_outputs(outputs: &mut List, removed: &[usize]) {
    let kept = outputs.iter().enumerate().filter(|(at, _)| !removed.contains(at));
    let kept = kept.filter_map(|(_, output)| output.as_map());
    let kept: Vec<_> = kept.map(|output| in_order(output, &OUTPUT_ORDER)).collect();
    outputs.replace(kept);
}

/// The order in which DVC writes what it tells of an output.
const OUTPUT_ORDER: [&str; 20] = [
    "md5",
    "size",
    "nfiles",
    "isexec",
    "version_id",
    "etag",
    "checksum",
    "cloud",
    "hash",
    "path",
    "fs_config",
    "desc",
    "type",
    "labels",
    "meta",
    "cache",
    "metric",
    "plot",
    "persist",
    "remote",
];

/// A mapping as DVC writes it anew, without its comments: keys in this order, the others behind.
fn in_order(map: &Map, order: &[&str]) -> Value {
    let rest = map.keys().filter(|key| !order.contains(key));
    let mut plain = Map::default();
    for key in order.iter().copied().chain(rest) {
        if let Some(value) = map.get(key) {
            plain.set(key, value.plain());
        }
    }
    Value::Map(plain)
}

/// Whether it is a stage that runs something, or an import.
fn takes_something_in(stage: &Map) -> bool {
    ["cmd", "deps"].iter().any(|key| stage.get(key).is_some_and(|value| !value.is_falsy()))
}

fn update_stage(stage: &mut Map, wdir: Option<&str>, base: Base<'_>) {
    if let Some(wdir) = wdir
        && let Ok(folder) = base.resolve(None, wdir)
        && let Some(wdir) = relative(base.file_dir, &folder)
    {
        stage.set("wdir", string(wdir));
    }
    if stage.get("locked").is_some_and(|locked| !locked.is_falsy()) {
        stage.set("frozen", Value::Scalar(Scalar::boolean(true)));
    }
    stage.remove("locked");
    if !takes_something_in(stage) {
        // Only those that do have it since DVC 1.
        stage.remove("md5");
    }
    if stage.get("wdir").is_some_and(|wdir| wdir.as_scalar().and_then(Scalar::as_str) == Some("."))
    {
        stage.remove("wdir");
    }
    for key in ["desc", "md5", "cmd", "wdir", "frozen", "deps", "always_changed", "meta"] {
        if stage.get(key).is_some_and(Value::is_falsy) {
            stage.remove(key);
        }
    }
}

/// How DVC writes the path of an output at `place`.
fn written_path(place: &RepoPath, wdir: Option<&str>, base: Base<'_>) -> Option<String> {
    relative(&base.resolve(None, wdir.unwrap_or(".")).ok()?, place)
}

/// The way from one folder to another place, as text; nothing if it is not UTF-8.
fn relative(from: &RepoPath, to: &RepoPath) -> Option<String> {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let ups = from.components().skip(common).map(|_| &b".."[..]);
    let names: Vec<_> = ups.chain(to.components().skip(common)).collect();
    let text = String::from_utf8(names.join(&b"/"[..])).ok()?;
    Some(if text.is_empty() { ".".to_owned() } else { text })
}

#[cfg(test)]
mod tests;
