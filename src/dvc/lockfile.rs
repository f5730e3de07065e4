//! `dvc.lock`: what the outputs of a pipeline hashed to when it last ran.

use std::collections::HashMap;

use crate::dvc::FormatError;
use crate::dvc::output::text;
use crate::dvc::yaml::{self, Map, Node};

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
    fn an_empty_lock_is_sound_and_a_strange_one_is_not() {
        assert_eq!(Lock::parse(b"").unwrap(), Lock::default());
        assert_eq!(Lock::parse(b"schema: '2.0'\n").unwrap(), Lock::default());
        for text in [&b"schema: '3.0'\n"[..], b"- a\n", b"schema: '2.0'\nstages: 7\n"] {
            assert!(matches!(Lock::parse(text), Err(FormatError::Shape(_))));
        }
    }
}
