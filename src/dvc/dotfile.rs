//! `.dvc` files: outputs that were added, imported or made by a single-stage file of old.

mod written;

use crate::dvc::output::{Origin, Output, Source, text};
use crate::dvc::place::Base;
use crate::dvc::yaml::{self, Map, Node};
use crate::dvc::{BadEntry, Flaw, FormatError, Parsed};
use crate::path::RepoPath;

/// Whether a file of this name is a `.dvc` file.
pub fn is_name(name: &[u8]) -> bool {
    name.len() > b".dvc".len() && name.ends_with(b".dvc")
}

/// Reads a `.dvc` file that lies in `file_dir` of the DVC project at `project_root`.
///
/// Unknown keys are ignored. An entry that cannot be used costs only itself.
pub fn parse(
    bytes: &[u8],
    file_dir: &RepoPath,
    project_root: &RepoPath,
) -> Result<Parsed, FormatError> {
    let base = Base { file_dir, project_root };
    match written::scan(bytes, base) {
        Some(output) => Ok(Parsed { outputs: vec![output], bad: Vec::new() }),
        None => parse_yaml(bytes, base),
    }
}

fn parse_yaml(bytes: &[u8], base: Base<'_>) -> Result<Parsed, FormatError> {
    let stage = match yaml::parse(bytes)? {
        Node::Map(stage) => stage,
        Node::List(list) if list.is_empty() => return Ok(Parsed::default()),
        node if node.is_null() => return Ok(Parsed::default()),
        _ => return Err(FormatError::Shape("not a mapping")),
    };
    let entries = list(&stage, "outs").ok_or(FormatError::Shape("`outs` is not a list"))?;
    let origin = origin(&stage);
    let mut parsed = Parsed::default();
    for entry in entries {
        match output(entry, text(&stage, "wdir"), base, &mut parsed.bad) {
            Ok(output) => parsed.outputs.push(Output { origin: origin.clone(), ..output }),
            Err(entry) => parsed.bad.push(entry),
        }
    }
    Ok(parsed)
}

fn output(
    entry: &Node,
    wdir: Option<&str>,
    base: Base<'_>,
    bad: &mut Vec<BadEntry>,
) -> Result<Output, BadEntry> {
    let Some(entry) = entry.as_map() else {
        return Err(BadEntry::new(b"outs", Flaw::Shape("an output that is not a mapping")));
    };
    let path = text(entry, "path").unwrap_or_default();
    let place = base.place(wdir, path).map_err(|flaw| BadEntry::new(path.as_bytes(), flaw))?;
    Ok(Output::read(place, entry, bad))
}

/// The list under `key`, empty if absent or null; nothing if it is something else.
fn list<'a>(stage: &'a Map, key: &str) -> Option<&'a [Node]> {
    match stage.get(key) {
        None => Some(&[]),
        Some(node) if node.is_null() => Some(&[]),
        Some(node) => node.as_list(),
    }
}

/// Whether the file is an import, which DVC tells by its form: no command, one dependency, one
/// output.
fn origin(stage: &Map) -> Origin {
    let (Some([dependency]), Some([_])) = (list(stage, "deps"), list(stage, "outs")) else {
        return Origin::Own;
    };
    match dependency.as_map() {
        Some(dependency) if text(stage, "cmd").is_none() => {
            source(dependency).map_or(Origin::ImportUrl, |source| Origin::Import(Box::new(source)))
        }
        _ => Origin::Own,
    }
}

fn source(dependency: &Map) -> Option<Source> {
    let repo = dependency.get("repo")?.as_map()?;
    let owned = |map, key| text(map, key).map(str::to_owned);
    Some(Source {
        url: owned(repo, "url").unwrap_or_default(),
        rev: owned(repo, "rev"),
        rev_lock: owned(repo, "rev_lock"),
        path: owned(dependency, "path").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dvc::output::Content;

    const MD5: &str = "b1946ac92492d2347c6235b4d2611184";

    fn read(text: &str) -> Parsed {
        parse_in("", text).unwrap()
    }

    fn parse_in(dir: &str, text: &str) -> Result<Parsed, FormatError> {
        let dir = RepoPath::new(dir.as_bytes()).unwrap();
        parse(text.as_bytes(), &dir, &RepoPath::root())
    }

    #[test]
    fn what_dvc_add_writes() {
        let text =
            format!("outs:\n- md5: {MD5}\n  size: 6\n  isexec: true\n  hash: md5\n  path: a.txt\n");
        let parsed = parse_in("sub", &text).unwrap();
        assert_eq!(parsed.bad, []);
        let [output] = parsed.outputs.as_slice() else { panic!("{parsed:?}") };
        assert_eq!(output.path.as_bytes(), b"sub/a.txt");
        assert!(matches!(output.content, Content::Blob(_)));
        assert_eq!((output.size, output.is_exec), (Some(6), true));
        assert_eq!(output.origin, Origin::Own);
    }

    #[test]
    fn files_without_outputs_are_sound() {
        for text in ["", "[]", "{}", "outs:\n", "outs: []\n", "desc: nothing yet\n"] {
            assert_eq!(read(text), Parsed::default(), "{text:?}");
        }
    }

    #[test]
    fn other_documents_are_errors_of_the_file() {
        for text in ["just some text\n", "- a\n- b\n", "outs: 7\n", "outs: {a: b}\n"] {
            assert!(matches!(parse_in("", text), Err(FormatError::Shape(_))), "{text:?}");
        }
    }

    #[test]
    fn one_bad_output_costs_only_itself() {
        let text = format!(
            "outs:\n- {{path: [a]}}\n- 7\n- {{md5: {MD5}}}\n- {{path: ../../x, md5: {MD5}}}\n\
             - {{path: good, md5: {MD5}, surprise: {{deep: 1}}}}\n"
        );
        let parsed = read(&text);
        assert_eq!(parsed.outputs.len(), 1);
        assert_eq!(parsed.bad.len(), 4);
        assert_eq!(parsed.bad[3].why, Flaw::External);
    }

    #[test]
    fn paths_start_from_wdir_and_merges_are_honoured() {
        let text = format!(
            "wdir: ../sounds\nouts:\n- &o {{md5: {MD5}, path: 1.50}}\n- <<: *o\n  path: b\n"
        );
        let parsed = parse_in("dvc_files", &text).unwrap();
        let paths: Vec<_> = parsed.outputs.iter().map(|o| o.path.to_string()).collect();
        assert_eq!(paths, ["sounds/1.50", "sounds/b"]);
    }

    #[test]
    fn a_repository_import_names_its_source() {
        let text = format!(
            "frozen: true\ndeps:\n- path: data/sub\n  repo:\n    url: ../src\n    rev: 1.0\n    \
             rev_lock: 6de42fba5869af45ece25b7073c8617a4643328a\nouts:\n- {{md5: {MD5}.dir, path: sub}}\n"
        );
        let Origin::Import(source) = &read(&text).outputs[0].origin else { panic!("no import") };
        assert_eq!(source.url, "../src");
        assert_eq!(source.rev.as_deref(), Some("1.0"));
        assert_eq!(source.path, "data/sub");
    }

    #[test]
    fn a_url_import_has_a_dependency_without_repository() {
        let text =
            format!("deps:\n- {{etag: x, path: s3://b/x}}\nouts:\n- {{md5: {MD5}, path: x}}\n");
        assert_eq!(read(&text).outputs[0].origin, Origin::ImportUrl);
        assert_eq!(read(&format!("cmd: make\n{text}")).outputs[0].origin, Origin::Own);
    }

    #[test]
    fn paths_of_a_subproject_stay_inside_it() {
        let dir = RepoPath::new(b"proj/a").unwrap();
        let text = format!("outs:\n- {{md5: {MD5}, path: ../b/x}}\n");
        let parsed = parse(text.as_bytes(), &dir, &dir).unwrap();
        assert_eq!(parsed.bad[0].why, Flaw::External);
    }

    /// What the scanner for DVC's own form says, and what the YAML reader says.
    fn both_ways(text: &str) -> (Option<Output>, Result<Parsed, FormatError>) {
        let (file_dir, project_root) =
            (RepoPath::new(b"p/sub").unwrap(), RepoPath::new(b"p").unwrap());
        let base = Base { file_dir: &file_dir, project_root: &project_root };
        (written::scan(text.as_bytes(), base), parse_yaml(text.as_bytes(), base))
    }

    #[test]
    fn the_form_that_dvc_writes_is_read_without_the_yaml_reader() {
        for lines in [
            format!("{MD5}\n  size: 6\n  hash: md5\n  path: a.txt\n"),
            format!("{MD5}.dir\n  size: 6\n  nfiles: 2\n  hash: md5\n  path: a b (1)/ü\n"),
            format!("{MD5}\n  size: 6\n  isexec: true\n  path: _x-1\n"),
            format!("{MD5}\n  path: 2024-01-01\n"),
        ] {
            let (scanned, parsed) = both_ways(&format!("outs:\n- md5: {lines}"));
            assert!(scanned.is_some(), "{lines}");
            assert_eq!(
                scanned.map(|output| vec![output]),
                parsed.ok().map(|parsed| parsed.outputs)
            );
        }
    }

    proptest! {
        #[test]
        fn a_text_that_is_scanned_says_what_the_yaml_reader_says(
            md5 in "([0-9]{32}|[0-9a-f]{31,33}|b1946ac92492d2347c6235b4d2611184)(|[.]dir)",
            size in "(|  size: [0-9]{1,21}\n|  size: 0x1\n)",
            rest in "(|  nfiles: 1\n)(|  isexec: true\n)(|  hash: md5\n|  hash: md6\n)",
            path in "([a-z~#'\"&*!:.,/0-9(){}= ü\u{85}\u{2028}-]{1,6}|null|[a-z]{3}.dvc|[.]git/x)(|\n|\n )",
        ) {
            let text = format!("outs:\n- md5: {md5}\n{size}{rest}  path: {path}\n");
            if let (Some(scanned), parsed) = both_ways(&text) {
                let parsed = parsed.map(|parsed| (parsed.outputs, parsed.bad));
                prop_assert_eq!(parsed, Ok((vec![scanned], vec![])), "{}", text);
            }
        }
    }
}
