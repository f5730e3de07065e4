//! The variables of a pipeline: `params.yaml`, files named under `vars`, values given there.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::dvc::place::Base;
use crate::dvc::value;
use crate::dvc::yaml::{self, Map, Node};
use crate::path::RepoPath;

/// Longer files are taken as absent.
const FILE_MAX: usize = 4 << 20;

/// Reads other files of the same commit; nothing where there is none.
pub(super) type ReadFile<'a> = &'a dyn Fn(&RepoPath) -> Option<Vec<u8>>;

/// Adds what a list under `vars` gives, its files being relative to `wdir`.
///
/// Of two values for one name the first stays. A file that cannot be read gives nothing: whatever
/// needs it fails on its own.
pub(super) fn extend(
    vars: &mut Map,
    list: Option<&Node>,
    base: Base<'_>,
    wdir: Option<&str>,
    read: ReadFile<'_>,
) {
    for item in list.and_then(Node::as_list).unwrap_or_default() {
        match item {
            Node::Map(given) => merge(vars, given.clone()),
            item => {
                let file = item.text().and_then(|file| import(file, base, wdir, read));
                merge(vars, file.unwrap_or_default());
            }
        }
    }
}

/// Loads `path` or `path:key,key`.
pub(super) fn import(
    file: &str,
    base: Base<'_>,
    wdir: Option<&str>,
    read: ReadFile<'_>,
) -> Option<Map> {
    let (path, keys) = file.split_once(':').map_or((file, None), |(path, keys)| (path, Some(keys)));
    let place = base.resolve(wdir, path).ok()?;
    let mut vars = parse(path, &read(&place)?)?;
    if let Some(keys) = keys {
        vars.retain(|key, _| keys.split(',').any(|wanted| wanted.trim() == key));
    }
    Some(vars)
}

fn parse(path: &str, bytes: &[u8]) -> Option<Map> {
    if bytes.len() > FILE_MAX {
        return None;
    }
    let node = match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" => serde_json::from_slice(bytes).ok()?,
        "toml" => toml::from_str(std::str::from_utf8(bytes).ok()?).ok()?,
        "py" => Node::Map(python(std::str::from_utf8(bytes).ok()?)),
        _ => yaml::parse(bytes).ok()?,
    };
    if let Node::Map(vars) = node { Some(vars) } else { None }
}

fn merge(into: &mut Map, from: Map) {
    for (key, node) in from {
        match (into.get_mut(&key), node) {
            (Some(Node::Map(into)), Node::Map(from)) => merge(into, from),
            (Some(_), _) => {}
            (None, node) => drop(into.insert(key, node)),
        }
    }
}

/// The lines `NAME = literal` of a Python file; all else would need an interpreter.
fn python(text: &str) -> Map {
    text.lines().filter_map(python_line).collect()
}

fn python_line(line: &str) -> Option<(String, Node)> {
    let (name, literal) = line.split_once('=')?;
    let name = name.trim_end();
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if is_name { Some((name.to_owned(), python_literal(literal.trim())?)) } else { None }
}

fn python_literal(text: &str) -> Option<Node> {
    for quote in ['"', '\''] {
        if let Some((inner, rest)) = text.strip_prefix(quote).and_then(|t| t.split_once(quote)) {
            let is_simple = !inner.contains('\\') && is_end(rest);
            return is_simple.then(|| Node::string(inner));
        }
    }
    let text = text.split('#').next()?.trim();
    match text {
        "True" | "False" => Some(Node::plain(text)),
        "None" => Some(Node::null()),
        _ => value::number(text).map(Node::plain),
    }
}

fn is_end(text: &str) -> bool {
    let text = text.trim_start();
    text.is_empty() || text.starts_with('#')
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Builds nodes from JSON and TOML, which have typed values.
struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::plain(value::print_float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::string(value))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::null())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut map = Map::new();
        while let Some((key, node)) = access.next_entry()? {
            map.insert(key, node);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, bytes: &str, key: &str) -> Option<String> {
        let vars = parse(path, bytes.as_bytes())?;
        vars.get(key)?.as_scalar().map(value::display)
    }

    #[test]
    fn each_kind_of_file_gives_the_same_values() {
        for (path, bytes) in [
            ("p.yaml", "rate: 0.10\nname: x\non: true\n"),
            ("p.json", r#"{"rate": 0.10, "name": "x", "on": true}"#),
            ("p.toml", "rate = 0.10\nname = 'x'\non = true\n"),
            ("p.py", "import os\nrate = 0.10  # comment\nname = \"x\"\non = True\nbad = os.sep\n"),
        ] {
            assert_eq!(text(path, bytes, "rate").as_deref(), Some("0.1"), "{path}");
            assert_eq!(text(path, bytes, "name").as_deref(), Some("x"), "{path}");
            assert_eq!(text(path, bytes, "on").as_deref(), Some("true"), "{path}");
            assert_eq!(text(path, bytes, "bad"), None);
        }
    }

    #[test]
    fn a_file_that_is_no_mapping_gives_nothing() {
        for (path, bytes) in [("p.yaml", "- a"), ("p.json", "{"), ("p.toml", "="), ("p.json", "7")]
        {
            assert_eq!(parse(path, bytes.as_bytes()), None, "{path} {bytes}");
        }
        assert!(parse("p.json", "[".repeat(100_000).as_bytes()).is_none());
        assert!(parse("p.toml", format!("a={}", "[".repeat(100_000)).as_bytes()).is_none());
    }

    #[test]
    fn files_are_imported_whole_or_by_key_and_merged_deeply() {
        let (dir, root) = (RepoPath::new(b"sub").unwrap(), RepoPath::root());
        let base = Base { file_dir: &dir, project_root: &root };
        let read = |path: &RepoPath| match path.as_bytes() {
            b"sub/conf/x.yaml" => Some(b"a: {y: 2, z: 3}\nb: 4\nc: 5\n".to_vec()),
            _ => None,
        };
        let list =
            yaml::parse(b"- a: {y: 1}\n- conf/x.yaml:a, b\n- missing.yaml\n- [7]\n").unwrap();
        let mut vars = Map::new();
        extend(&mut vars, Some(&list), base, None, &read);
        assert_eq!(vars["a"].as_map().unwrap()["y"].text(), Some("1"));
        assert_eq!(vars["a"].as_map().unwrap()["z"].text(), Some("3"));
        assert!(vars.contains_key("b") && !vars.contains_key("c"));
    }
}
