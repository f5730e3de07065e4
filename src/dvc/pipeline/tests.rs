use super::*;
use crate::dvc::output::Content;

const MD5: &str = "b026324c6904b2a9cb4b88d6d61c81d1";

/// Reads a pipeline in folder `p` beside the given other files of the commit.
fn read(yaml: &str, lock: Option<&str>, files: &[(&str, &str)]) -> Parsed {
    let dir = RepoPath::new(b"p").unwrap();
    let read = |path: &RepoPath| {
        let file = files.iter().find(|(name, _)| name.as_bytes() == path.as_bytes());
        file.map(|(_, text)| text.as_bytes().to_vec())
    };
    parse(yaml.as_bytes(), lock.map(str::as_bytes), &dir, &RepoPath::root(), &read).unwrap()
}

/// A lock file with one output per pair of stage and path.
fn lock(outputs: &[(&str, &str)]) -> String {
    let mut text = "schema: '2.0'\nstages:\n".to_owned();
    for (stage, path) in outputs {
        text = format!(
            "{text}  {stage}:\n    outs:\n    - path: {path}\n      hash: md5\n      md5: {MD5}\n      size: 2\n"
        );
    }
    text
}

/// The places of the outputs: `?` after those that nothing can be fetched of, `~` if inferred.
fn places(parsed: &Parsed) -> Vec<String> {
    let place = |output: &Output| {
        let is_lost = matches!(output.content, Content::Unavailable(_));
        let marks = [(is_lost, "?"), (output.is_inferred, "~")];
        let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
        format!("{}{marks}", output.path)
    };
    parsed.outputs.iter().map(place).collect()
}

#[test]
fn outputs_take_their_hash_from_the_lock_and_their_flags_from_the_pipeline() {
    let yaml = "stages:\n  a:\n    cmd: x\n    wdir: w\n    outs:\n    - o:\n        remote: COLD\n    \
                - ../never\n    metrics:\n    - m.json:\n        cache: false\n    plots: [plot.csv]\n";
    let parsed = read(yaml, Some(&lock(&[("a", "o")])), &[]);
    assert_eq!(places(&parsed), ["p/w/o", "p/never?", "p/w/m.json?", "p/w/plot.csv?"]);
    assert_eq!(parsed.outputs[0].remote.as_deref(), Some("cold"));
    assert_eq!(parsed.outputs[0].size, Some(2));
    assert!(!parsed.outputs[2].is_cached && parsed.outputs[3].is_cached);
}

#[test]
fn locks_of_old_have_no_schema_and_legacy_hashes() {
    let lock = format!("a:\n  outs:\n  - path: o\n    md5: {MD5}\n");
    let parsed = read("stages: {a: {outs: [o]}}\n", Some(&lock), &[]);
    let Content::Blob(id) = parsed.outputs[0].content else { panic!("{parsed:?}") };
    assert_eq!(id.scheme, crate::id::Scheme::Dos2Unix);
}

#[test]
fn templates_use_params_and_vars() {
    let yaml = "vars:\n- conf/x.yaml\n- local: here\nstages:\n  a:\n    vars: [{own: 1.50}]\n    outs:\n    \
                - ${names.dir}:\n        desc: d\n    - ${local}${sfx}-${own}\n";
    let files = [("p/params.yaml", "names: {dir: prepared}\n"), ("p/conf/x.yaml", "sfx: .out\n")];
    let parsed = read(yaml, None, &files);
    assert_eq!(places(&parsed), ["p/prepared?", "p/here.out-1.5?"]);
    assert_eq!(parsed.bad, []);
}

#[test]
fn foreach_over_lists_and_maps_names_stages_by_item_or_key() {
    let yaml = "stages:\n  s:\n    foreach: ${splits}\n    do: {outs: ['${item}.txt']}\n  \
                l:\n    foreach: {en: {rate: 8}, fr: {rate: 16}}\n    do:\n      wdir: work/${key}\n      \
                outs: ['${item.rate}']\n  i:\n    foreach: [{n: a}, b]\n    do: {outs: ['i-${item.n}']}\n";
    let locked =
        lock(&[("s@train", "train.txt"), ("s@0.5", "0.5.txt"), ("l@en", "8"), ("i@0", "i-a")]);
    let parsed = read(yaml, Some(&locked), &[("p/params.yaml", "splits: [train, 0.50]\n")]);
    let expected = ["p/train.txt", "p/0.5.txt", "p/work/en/8", "p/work/fr/16?", "p/i-a"];
    assert_eq!(places(&parsed), expected);
    assert_eq!(parsed.bad.len(), 1, "item.n of a scalar");
}

#[test]
fn matrix_joins_its_values_in_the_order_of_the_dimensions() {
    let yaml = "stages:\n  g:\n    matrix:\n      size: [s, l]\n      kind: [{n: x}, 1.0]\n    \
                outs: ['${key}/${item.size}']\n";
    let names = ["s-kind0", "s-1.0", "l-kind0", "l-1.0"];
    let locked: Vec<_> =
        names.iter().map(|key| (format!("g@{key}"), format!("{key}/{}", &key[..1]))).collect();
    let locked: Vec<_> =
        locked.iter().map(|(stage, path)| (stage.as_str(), path.as_str())).collect();
    let parsed = read(yaml, Some(&lock(&locked)), &[]);
    assert_eq!(places(&parsed), names.map(|key| format!("p/{key}/{}", &key[..1])));
}

#[test]
fn what_cannot_be_worked_out_is_inferred_from_the_lock() {
    let yaml = "stages:\n  a:\n    wdir: w\n    outs: [known, '${nope}.txt']\n  f:\n    foreach: ${nope}\n    \
                do: {outs: [x]}\n  hidden:\n    foreach: ${nope}\n    do: {wdir: '${item}', outs: [x]}\n  \
                nowhere:\n    wdir: ${nope}\n    outs: [x]\n";
    let locked = "schema: '2.0'\nstages:\n  a:\n    outs: [{path: known}, {path: lost.txt}]\n  \
                  f@1: {outs: [{path: f1}]}\n  f@2: {outs: [{path: f2}]}\n  hidden@1: {outs: [{path: h}]}\n";
    let parsed = read(yaml, Some(locked), &[]);
    assert_eq!(places(&parsed), ["p/w/known?", "p/w/lost.txt?~", "p/f1?~", "p/f2?~"]);
    assert_eq!(parsed.bad.len(), 4);
}

#[test]
fn a_broken_or_missing_lock_makes_outputs_unavailable() {
    let yaml = "stages: {a: {outs: [o]}}\n";
    for (lock, reason) in
        [(Some("a:\n<<<<<<< HEAD\nb: 1\n=======\n"), "merge conflict"), (None, "no dvc.lock")]
    {
        let parsed = read(yaml, lock, &[]);
        let Content::Unavailable(why) = &parsed.outputs[0].content else { panic!("{parsed:?}") };
        assert!(why.contains(reason), "{why}");
    }
}

#[test]
fn strange_shapes_cost_only_themselves() {
    let yaml = "stages:\n  a: 7\n  b: {outs: 7}\n  c: {outs: [[x], null, ok]}\n  d: {foreach: [1]}\n  \
                e: {foreach: 7, do: {}}\n  f: {matrix: [1]}\n  g: {matrix: {a: 1}}\n  h: {matrix: {a: []}}\n  \
                i: {outs: [../../x, /abs, .dvc/config]}\n";
    let parsed = read(yaml, None, &[]);
    assert_eq!(places(&parsed), ["p/ok?"]);
    assert_eq!(parsed.bad.len(), 10);
}

#[test]
fn files_without_stages_are_sound_and_others_are_errors() {
    for yaml in ["", "stages:\n", "stages: {}\n", "vars: [a: 1]\n"] {
        assert_eq!(read(yaml, None, &[]), Parsed::default(), "{yaml}");
    }
    let root = RepoPath::root();
    for yaml in ["- a\n", "stages: 7\n", "stages:\n  a:\n    cmd: [\n"] {
        assert!(parse(yaml.as_bytes(), None, &root, &root, &|_| None).is_err(), "{yaml}");
    }
}

#[test]
fn an_enormous_matrix_is_stopped() {
    let list = format!("[{}]", vec!["1"; 1000].join(","));
    let yaml =
        format!("stages: {{m: {{matrix: {{a: {list}, b: {list}, c: {list}}}, outs: [x]}}}}\n");
    let parsed = read(&yaml, None, &[]);
    assert!(parsed.outputs.len() <= STEPS_MAX);
    assert_eq!(parsed.bad.len(), 1);
}
