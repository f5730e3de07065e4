//! `dvc.lock`: what the outputs of a pipeline hashed to when it last ran.

use std::collections::{BTreeMap, HashMap};

use crate::dvc::FormatError;
use crate::dvc::document::{self, List, Map as DocumentMap, Scalar, Value};
use crate::dvc::output::text;
use crate::dvc::record::{Change, RecordError, Recorded, set_hash};
use crate::dvc::yaml::{self, Map, Node};
use crate::path::RepoPath;

/// The stages of a lock file.
///
/// It knows neither the working directory of a stage nor what is cached: `dvc.yaml` does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    stages: Map,
}

impl Lock {
    /// Reads a lock file, of schema 2.0 or of the first kind, which had no schema key and its
    /// stages at the top.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut root = match yaml::parse(bytes)? {
            Node::Map(root) => root,
            node if node.is_null() => Map::new(),
            _ => return Err(FormatError::Shape("not a mapping")),
        };
        let stages = match text(&root, "schema") {
            None => Node::Map(root),
            Some("2.0") => root.swap_remove("stages").unwrap_or_else(Node::null),
            Some(_) => return Err(FormatError::Shape("unknown schema")),
        };
        match stages {
            Node::Map(stages) => Ok(Self { stages }),
            node if node.is_null() => Ok(Self::default()),
            _ => Err(FormatError::Shape("`stages` is not a mapping")),
        }
    }

    /// The outputs of a stage by their path as the lock file has it.
    ///
    /// Generated stages are named `name@key`.
    pub fn outputs(&self, stage: &str) -> HashMap<&str, &Map> {
        let outs =
            self.stages.get(stage).and_then(Node::as_map).and_then(|stage| stage.get("outs"));
        let entries = outs.and_then(Node::as_list).unwrap_or_default().iter();
        let entries = entries.filter_map(Node::as_map);
        entries.filter_map(|entry| Some((text(entry, "path")?, entry))).collect()
    }

    /// The names of the stages that were generated from the one called `name`.
    pub fn generated_from(&self, name: &str) -> impl Iterator<Item = &str> {
        self.stages
            .keys()
            .map(String::as_str)
            .filter(move |stage| stage.strip_prefix(name).is_some_and(|rest| rest.starts_with('@')))
    }
}

/// Writes a lock file anew with other content for what stages read and make; nothing if that is what
/// it has. `content` gives it for the name of a stage and a path as the lock file has it. The bytes
/// are those that `dvc commit -f` would leave behind.
///
/// Like DVC it writes a changed stage as if it were new, without comments.
pub fn update(
    bytes: &[u8],
    content: &dyn Fn(&str, &str) -> Option<Recorded>,
) -> Result<Option<String>, RecordError> {
    Lock::parse(bytes)?;
    // Sound, or the line above would have failed.
    let text = String::from_utf8_lossy(bytes);
    let mut document = document::parse(&text)?;
    let Some(root) = document.as_map_mut() else { return Ok(None) };
    if root.get("schema").is_none() {
        return Err(RecordError::OldLock);
    }
    let Some(stages) = root.get_mut("stages").and_then(Value::as_map_mut) else { return Ok(None) };
    let names: Vec<_> = stages.keys().map(str::to_owned).collect();
    let mut is_changed = false;
    for name in names {
        let Some(old) = stages.get(&name).map(Value::plain) else { continue };
        let mut stage = old.clone();
        for key in ["deps", "outs"] {
            let list = stage.as_map_mut().and_then(|stage| stage.get_mut(key)?.as_list_mut());
            for listed in list.into_iter().flat_map(List::iter_mut) {
                let path = listed.as_map().and_then(|map| map.get("path")?.as_scalar()?.as_str());
                if let Some((path, content)) = path.and_then(|it| Some((it, content(&name, it)?))) {
                    *listed = Value::Map(entry(path, &content));
                }
            }
        }
        if stage != old {
            stages.set(&name, stage);
            is_changed = true;
        }
    }
    Ok(is_changed.then(|| document::compose(&document)))
}

/// The same for all stages that start from the folder of the lock file; the text as it is if that is
/// what it has.
pub(super) fn update_files(
    bytes: &[u8],
    file_dir: &RepoPath,
    changes: &BTreeMap<RepoPath, Change>,
) -> Result<String, RecordError> {
    let content = |_: &str, path: &str| match changes.get(&file_dir.resolve(path.as_bytes()).ok()?)
    {
        Some(Change::Content(content)) => Some(*content),
        Some(Change::Renamed(..) | Change::Removed) | None => None,
    };
    let updated = update(bytes, &content)?;
    Ok(updated.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned()))
}

/// An entry in the order of lock files.
fn entry(path: &str, content: &Recorded) -> DocumentMap {
    let mut entry = DocumentMap::default();
    entry.set("path", Value::Scalar(Scalar::string(path)));
    entry.set("hash", Value::Scalar(Scalar::string("md5")));
    set_hash(&mut entry, content);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &[u8] = b"schema: '2.0'\nstages:\n  build@en:\n    cmd: x\n    outs:\n    - path: 1.0\n      md5: a\n  build@fr: {}\n  builder: {}\n";
    const OLD: &[u8] = b"stg:\n  cmd: cp x o3\n  outs:\n  - path: o3\n    md5: b\n";

    #[test]
    fn both_kinds_of_lock_are_read() {
        let new = Lock::parse(NEW).unwrap();
        assert_eq!(text(new.outputs("build@en")["1.0"], "md5"), Some("a"));
        let old = Lock::parse(OLD).unwrap();
        assert_eq!(text(old.outputs("stg")["o3"], "md5"), Some("b"));
    }

    #[test]
    fn generated_stages_are_found_by_their_name() {
        let lock = Lock::parse(NEW).unwrap();
        assert_eq!(lock.generated_from("build").collect::<Vec<_>>(), ["build@en", "build@fr"]);
    }

    #[test]
    fn stages_without_outputs_and_unknown_stages_are_empty() {
        let lock =
            Lock::parse(b"schema: '2.0'\nstages: {a: {outs: 7}, b: 7, c: {outs: [7, {}]}}\n");
        let lock = lock.unwrap();
        for stage in ["a", "b", "c", "d"] {
            assert!(lock.outputs(stage).is_empty(), "{stage}");
        }
    }

    #[test]
    fn new_content_of_an_output_leaves_all_else() {
        let old = b"schema: '2.0'\nstages:\n  # made by hand\n  a:\n    cmd: x   # says it\n    outs:\n    \
            - path: o\n      md5: d41d8cd98f00b204e9800998ecf8427e\n      size: 0\n    - path: p\n      \
            hash: md5\n      md5: d41d8cd98f00b204e9800998ecf8427e\n  b: {cmd: y} # other\n";
        let content = Recorded::File { digest: [0x1a; 16], size: 7, is_exec: false };
        let of_a = |stage: &str, path: &str| (stage == "a" && path == "o").then_some(content);
        let new = update(old, &of_a).unwrap().unwrap();
        assert_eq!(update(new.as_bytes(), &of_a), Ok(None));
        let md5 = "1a".repeat(16);
        assert_eq!(
            new,
            format!(
                "schema: '2.0'\nstages:\n  # made by hand\n  a:\n    cmd: x\n    outs:\n    \
                 - path: o\n      hash: md5\n      md5: {md5}\n      size: 7\n    - path: p\n      \
                 hash: md5\n      md5: d41d8cd98f00b204e9800998ecf8427e\n  b: {{cmd: y}} # other\n"
            )
        );
    }

    #[test]
    fn paths_start_from_the_folder_of_the_lock_and_what_is_the_same_stays() {
        let place = |text: &str| RepoPath::new(text.as_bytes()).unwrap();
        let content = Recorded::File { digest: [0x1a; 16], size: 7, is_exec: false };
        let update = |text: &str, path: &str| {
            let changes = [(place(path), Change::Content(content))].into();
            update_files(text.as_bytes(), &place("sub"), &changes).unwrap()
        };
        let old = "schema: '2.0'\nstages:\n  a:\n    cmd: x\n    deps:\n    - path: o\n      md5: a\n    \
            outs:\n    - path: ../o\n      md5: a\n";
        assert_eq!(update(old, "other"), old);
        let entry = format!("hash: md5\n      md5: {}\n      size: 7\n", "1a".repeat(16));
        let [head, dep, out] = [0, 1, 2].map(|at| old.split("md5: a\n").nth(at).unwrap());
        assert_eq!(update(old, "sub/o"), format!("{head}{entry}{dep}md5: a\n{out}"));
        assert_eq!(update(old, "o"), format!("{head}md5: a\n{dep}{entry}"));
    }

    #[test]
    fn what_the_lock_does_not_have_is_not_put_in() {
        let content = Recorded::File { digest: [1; 16], size: 7, is_exec: false };
        assert_eq!(update(NEW, &|_, path| (path == "2").then_some(content)), Ok(None));
        assert_eq!(update(OLD, &|_, _| Some(content)), Err(RecordError::OldLock));
    }

    #[test]
    fn an_empty_lock_is_sound_and_a_strange_one_is_not() {
        assert_eq!(Lock::parse(b"").unwrap(), Lock::default());
        assert_eq!(Lock::parse(b"schema: '2.0'\n").unwrap(), Lock::default());
        for text in [&b"schema: '3.0'\n"[..], b"- a\n", b"schema: '2.0'\nstages: 7\n"] {
            assert!(matches!(Lock::parse(text), Err(FormatError::Shape(_))));
        }
    }
}
