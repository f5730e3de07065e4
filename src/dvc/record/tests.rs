use super::*;
use crate::dvc::dotfile;
use crate::dvc::output::Content;
use crate::id::parse_digest;
use proptest::prelude::*;

const OLD: &str = "0cc175b9c0f1b6a831c399e269772661";
const NEW: &str = "92eb5ffee6ae2fec3ad71c777531578f";

fn file(size: u64) -> Recorded {
    Recorded::File { digest: parse_digest(NEW).unwrap(), size, is_exec: false }
}

fn folder(size: Option<u64>) -> Recorded {
    Recorded::Folder { digest: parse_digest(NEW).unwrap(), size, file_count: 3 }
}

fn changed(text: &str, changes: &[(&str, Change)]) -> Result<Option<String>, RecordError> {
    let path = |text: &str| RepoPath::new(text.as_bytes()).unwrap();
    let changes = changes.iter().map(|(name, change)| (path(name), change.clone())).collect();
    update(text.as_bytes(), &path("dir"), &RepoPath::root(), &changes)
}

fn with_content(text: &str, content: Recorded) -> String {
    changed(text, &[("dir/x", Change::Content(content))]).unwrap().unwrap()
}

fn why(name: &[u8]) -> NameFlaw {
    match create(name, &file(1)) {
        Err(RecordError::Name { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_file_is_written_as_dvc_add_writes_it() {
    let text = create(b"a.txt", &file(6)).unwrap();
    assert_eq!(text, format!("outs:\n- md5: {NEW}\n  size: 6\n  hash: md5\n  path: a.txt\n"));
    let exec = Recorded::File { digest: parse_digest(NEW).unwrap(), size: 15, is_exec: true };
    let text = create(b"tool.sh", &exec).unwrap();
    assert_eq!(
        text,
        format!("outs:\n- md5: {NEW}\n  size: 15\n  isexec: true\n  hash: md5\n  path: tool.sh\n")
    );
    let text = create(b"data", &folder(Some(9))).unwrap();
    assert_eq!(
        text,
        format!("outs:\n- md5: {NEW}.dir\n  size: 9\n  nfiles: 3\n  hash: md5\n  path: data\n")
    );
}

#[test]
fn hashes_that_look_like_numbers_are_quoted() {
    let digest = parse_digest("01234567890123456789012345678901").unwrap();
    let text = create(b"x", &Recorded::File { digest, size: 1, is_exec: false }).unwrap();
    assert!(text.contains("md5: '01234567890123456789012345678901'\n"), "{text}");
    let digest = parse_digest("0123456789e123456789012345678901").unwrap();
    let text = create(b"x", &Recorded::File { digest, size: 1, is_exec: false }).unwrap();
    assert!(text.contains("md5: '0123456789e123456789012345678901'\n"), "{text}");
}

#[test]
fn names_that_dvc_cannot_hold_are_refused() {
    assert_eq!(why(b"b\xff"), NameFlaw::NotUtf8);
    assert_eq!(why("a\u{85}b".as_bytes()), NameFlaw::Changes);
    assert_eq!(why(format!("a  {}", "y".repeat(90)).as_bytes()), NameFlaw::Changes);
    for name in ["x.dvc", "dvc.yaml", "dvc.lock", ".git"] {
        assert_eq!(why(name.as_bytes()), NameFlaw::DvcFile, "{name}");
    }
    assert_eq!(why(&[b'n'; 252]), NameFlaw::TooLong);
    assert!(create(&[b'n'; 251], &file(1)).is_ok());
    assert_eq!(why(b"a/b"), NameFlaw::Invalid(PathError::Slash));
}

#[test]
fn values_change_in_place_and_all_else_stays() {
    let text = format!(
        "# head\nouts:\n    # out comment\n    - path: x      # path first\n      desc: \"the 'data'\"\n      \
         labels: [x, y]\n      md5: {OLD}  # hash\n      size: 1\n      hash: md5\n# tail\n"
    );
    let expected = format!(
        "# head\nouts:\n    # out comment\n- path: x          # path first\n  desc: the 'data'\n  \
         labels: [x, y]\n  md5: {NEW}      # hash\n  size: 5\n  hash: md5\n# tail\n"
    );
    assert_eq!(with_content(&text, file(5)), expected);
}

#[test]
fn a_legacy_output_is_upgraded_at_its_end() {
    let text = format!("outs:\n- md5: {OLD}.dir\n  size: 1\n  nfiles: 1\n  path: x\n");
    let expected =
        format!("outs:\n- md5: {NEW}.dir\n  size: 9\n  nfiles: 3\n  path: x\n  hash: md5\n");
    assert_eq!(with_content(&text, folder(Some(9))), expected);
    let expected = format!("outs:\n- md5: {NEW}.dir\n  nfiles: 3\n  path: x\n  hash: md5\n");
    assert_eq!(with_content(&text, folder(None)), expected);
    let expected = format!("outs:\n- md5: {NEW}\n  size: 4\n  path: x\n  hash: md5\n");
    assert_eq!(with_content(&text, file(4)), expected);
}

#[test]
fn what_is_said_about_an_output_stays_if_it_says_anything() {
    let text = format!(
        "outs:\n- md5: {OLD}\n  size: 1\n  hash: md5\n  path: x\n  cache: false\n  push: false\n  \
         remote: cold\n  persist: false\n  desc: ''\n  isexec: true\n  type: model\n"
    );
    let expected = format!(
        "outs:\n- md5: {NEW}\n  size: 1\n  hash: md5\n  path: x\n  cache: false\n  push: false\n  \
         remote: cold\n  type: model\n"
    );
    assert_eq!(with_content(&text, file(1)), expected);
    let text = format!("outs:\n- md5: {OLD}\n  path: x\n  cache: true\n  push: true\n");
    let expected = format!("outs:\n- md5: {NEW}\n  path: x\n  size: 1\n  hash: md5\n");
    assert_eq!(with_content(&text, file(1)), expected);
}

#[test]
fn the_stage_keeps_what_says_anything() {
    let text = format!(
        "desc: mine\nfrozen: false\nlocked: true\nwdir: ../dir/./\nmeta: {{a: 1}}\nouts:\n- md5: {OLD}\n  \
         size: 1\n  hash: md5\n  path: ./x\n"
    );
    let expected = format!(
        "desc: mine\nfrozen: true\nmeta: {{a: 1}}\nouts:\n- md5: {NEW}\n  size: 1\n  hash: md5\n  path: x\n"
    );
    assert_eq!(with_content(&text, file(1)), expected);
}

#[test]
fn the_other_outputs_of_a_file_stay() {
    let two = format!(
        "wdir: ../dir\nouts:\n# one\n- md5: {OLD}\n  path: x\n# two\n- md5: {OLD}\n  path: sub/y # y\n  \
         labels: [b]\n"
    );
    let expected = format!(
        "outs:\n# one\n- md5: {NEW}\n  path: x\n# two\n  size: 1\n  hash: md5\n- md5: {OLD}\n  \
         path: sub/y # y\n  labels: [b]\n"
    );
    assert_eq!(with_content(&two, file(1)), expected);
    let one = changed(&two, &[("dir/x", Change::Removed)]).unwrap().unwrap();
    assert_eq!(one, format!("outs:\n# one\n- md5: {OLD}\n  path: sub/y\n  labels:\n  - b\n"));
    let none = [("dir/x", Change::Removed), ("dir/sub/y", Change::Removed)];
    assert_eq!(changed(&two, &none).unwrap(), None);
}

#[test]
fn what_cannot_be_rewritten_is_an_error() {
    let text = |extra: &str| format!("outs:\n- md5: {OLD}\n  path: x\n{extra}");
    let change = [("dir/x", Change::Content(file(1)))];
    for extra in
        ["  meta: &a {b: 1}\n", "  meta: !tag x\n", "meta:\n  ? a\n  : b\n", "meta: 1_000\n"]
    {
        let error = changed(&text(extra), &change).unwrap_err();
        assert!(
            matches!(error, RecordError::Document(DocumentError::Unsupported { .. })),
            "{error}"
        );
    }
    let error = changed(&text("  cloud: {s: {version_id: v}}\n"), &change).unwrap_err();
    assert!(matches!(error, RecordError::Versioned(_)), "{error}");
    let error = changed(&text(""), &[("dir/y", Change::Removed)]).unwrap_err();
    assert!(matches!(error, RecordError::Absent(_)), "{error}");
    for text in ["[]", "outs: 7\n", "outs:\n- 7\n", "x: [\n"] {
        assert!(matches!(changed(text, &change), Err(RecordError::Format(_))), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_created_is_read_back(name in "[^/\u{0}]{1,40}", size: u64) {
        let Ok(text) = create(name.as_bytes(), &file(size)) else { return Ok(()) };
        let root = RepoPath::root();
        let parsed = dotfile::parse(text.as_bytes(), &root, &root).unwrap();
        prop_assert_eq!(parsed.bad, []);
        let [output] = parsed.outputs.as_slice() else { panic!("{text:?}") };
        prop_assert_eq!(output.path.as_bytes(), name.as_bytes());
        prop_assert_eq!(output.size, Some(size));
        prop_assert!(matches!(output.content, Content::Blob(_)));
        // And what is written again stays.
        let changes = [(output.path.clone(), Change::Content(file(size)))].into();
        prop_assert_eq!(update(text.as_bytes(), &root, &root, &changes).unwrap().unwrap(), text);
    }
}

#[test]
fn a_stage_that_takes_nothing_in_has_no_hash_of_its_own() {
    let text = format!("md5: {OLD}\nouts:\n- md5: {OLD}\n  path: x\n- md5: {OLD}\n  path: y\n");
    let changed = with_content(&text, file(1));
    assert!(changed.starts_with("outs:\n"), "{changed}");
    let import = format!("md5: {OLD}\ndeps:\n- path: s3://b/y\nouts:\n- md5: {OLD}\n  path: x\n");
    let changed = with_content(&import, file(1));
    assert!(changed.starts_with(&format!("md5: {OLD}\n")), "{changed}");
}
