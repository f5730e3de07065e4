use super::*;
use proptest::prelude::*;

fn round_trip(text: &str) -> String {
    compose(&parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}")))
}

/// The path `text` as it is written.
fn written(text: &str) -> String {
    let mut map = Map::default();
    map.set("path", Value::Scalar(Scalar::string(text)));
    let line = compose(&Value::Map(map));
    line.strip_prefix("path:").unwrap().trim_matches([' ', '\n']).to_owned()
}

#[test]
fn what_dvc_writes_stays() {
    for text in [
        "outs:\n- md5: b1946ac92492d2347c6235b4d2611184\n  size: 6\n  hash: md5\n  path: a.txt\n",
        "frozen: true\ndeps:\n- path: a\n  repo:\n    url: ../src\n    rev_lock: 6de4\nouts: []\n",
    ] {
        assert_eq!(round_trip(text), text);
    }
}

#[test]
fn texts_are_quoted_where_they_would_be_read_as_something_else() {
    for plain in [
        "a:b", "x#y", "-dash", "a]", "12:30:45", "yes", "NaN", "~a", "0x", "e1", "1.2.3", "it's",
        "ü",
    ] {
        assert_eq!(written(plain), plain);
    }
    for quoted in [
        "",
        "123",
        "1.5",
        "1e3",
        "1_000",
        "012",
        "08",
        "0o17",
        "0b11",
        "0x1F",
        "+1",
        ".5",
        "0.",
        "true",
        "TRUE",
        "null",
        "~",
        ".inf",
        "2024-01-01",
        "2001-1-1 1:00:00",
        "#a",
        "&a",
        "*",
        "!x",
        "|",
        ">",
        "\"a",
        "%",
        "@",
        "{",
        "[",
        "`",
        "- a",
        "? a",
        "=",
        "<<",
        "-",
        "?",
        "---",
        "...",
        "a: b",
        "a:",
        "a #b",
        " a",
        "a ",
    ] {
        assert_eq!(written(quoted).trim_matches(' '), format!("'{quoted}'"));
    }
    for (text, escaped) in [
        ("a\tb", r#""a\tb""#),
        ("a\nb", r#""a\nb""#),
        ("\u{1b}\u{7f}\u{feff}", r#""\e\x7F\uFEFF""#),
        ("'a", r#""'a""#),
    ] {
        assert_eq!(written(text), escaped);
    }
}

#[test]
fn long_plain_texts_are_folded() {
    let (w, x) = ("w".repeat(90), "x".repeat(90));
    let mut map = Map::default();
    map.set("path", Value::Scalar(Scalar::string(format!("{w} word {x}.txt"))));
    let mut list = List::default();
    list.replace([Value::Map(map)]);
    let text = compose(&Value::List(list));
    assert_eq!(text, format!("- path: \n    {w}\n    word \n    {x}.txt\n"));
}

#[test]
fn comments_stay_where_they_are() {
    let text = "# head\n\n# second\nouts:   # behind\n  # before\n  - md5: a   # first\n    # between\n    \
                path: b\n\n  # after\nmeta:\n    deep: [a, b]  # flow\n    # last\n";
    let expected = "# head\n\n# second\nouts:   # behind\n  # before\n- md5: a     # first\n    # between\n  \
                    path: b\n\n  # after\nmeta:\n  deep: [a, b]    # flow\n    # last\n";
    assert_eq!(round_trip(text), expected);
}

#[test]
fn values_are_written_as_the_library_writes_them() {
    for (text, expected) in [
        ("a: \"x\"\nb: 'y: z'\nc:   d\n", "a: x\nb: 'y: z'\nc: d\n"),
        ("a: ~\nb: null\nc: TRUE\nd: +7\ne: -012\n", "a:\nb:\nc: true\nd: 7\ne: -12\n"),
        ("a: [x, {y: 1}, {y: 1, z: 2}]\n", "a: [x, y: 1, {y: 1, z: 2}]\n"),
        ("a: {x: , y: ~}\n", "a: {x: null, y: null}\n"),
        (
            "a: |\n    one\n    two\nb: >-\n  fold\n  me\n",
            "a: |\n  one\n  two\nb: >-\n  fold\n  me\n",
        ),
        ("a: |-  # c\n  x\n", "a: |-  # c\n  x\n"),
        ("---\na: 1\n...\n", "a: 1\n"),
        ("\u{feff}a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("a:\n  - x\n  -\n    - y\n", "a:\n- x\n- - y\n"),
        ("a: [1e-3, -1.5E3, 6.02e+23, 12e03]\n", "a: [1e-3, -1.5E3, 6.02e+23, 12e03]\n"),
    ] {
        assert_eq!(round_trip(text), expected, "{text:?}");
    }
}

#[test]
fn what_is_not_rewritten_is_an_error_that_says_so() {
    for text in [
        "a: &x 1\n",
        "a: *x\n",
        "a: !t b\n",
        "? a\n: b\n",
        "a: 1_000\n",
        "a: 1.e3\n",
        "a: .5e-3\n",
        "a: 1e-0\n",
        "a: 9.833102653345E-35\n",
        "a: 2e400\n",
        "%YAML 1.2\n---\na: 1\n",
        "a: 1\n---\nb: 2\n",
        "",
        "[a]: b\n",
        "<<: {a: 1}\n",
        "=: x\n",
        "a: 0x1F\n",
        "a: 2024-02-30\n",
    ] {
        let error = parse(text).unwrap_err();
        assert!(matches!(error, DocumentError::Unsupported { .. }), "{text:?}: {error}");
    }
    for text in ["a: [b\n", "a: 'b\n", "a: b: c\n", "a: 1\n]\n", "\"\\q\": a\n"] {
        parse(text).unwrap_err();
    }
}

#[test]
fn deep_nesting_is_refused() {
    for deep in ["[", "- ", "{a: "] {
        parse(&deep.repeat(5000)).unwrap_err();
    }
}

#[test]
fn keys_are_set_in_place_or_at_the_end() {
    let mut document = parse("b: 1 # one\na: |\n  x\nc: 2\n").unwrap();
    let map = document.as_map_mut().unwrap();
    map.set("b", Value::Scalar(Scalar::number(7)));
    map.set("a", Value::Scalar(Scalar::string("y\n")));
    map.set("d", Value::Scalar(Scalar::boolean(true)));
    map.remove("c");
    assert_eq!(compose(&document), "b: 7 # one\na: |\n  y\nd: true\n");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(text in "([a-c]|[-:#' \n\"|>]|- |: | # x\n|\n  ){0,40}") {
        // A comment between a key and its block scalar is written into the scalar, as DVC's does.
        let is_kept = !text.contains('#') || !text.contains(['|', '>']);
        if is_kept && let Ok(document @ Value::Map(_)) = parse(&text) {
            let written = compose(&document);
            prop_assert_eq!(parse(&written).map(|again| again.plain()), Ok(document.plain()));
        }
    }
}

#[test]
fn comments_go_where_they_do_with_dvc() {
    // Of blank lines in front the first is lost.
    assert_eq!(round_trip("\n\n\nouts:\n- a: 1\n"), "\n\nouts:\n- a: 1\n");
    assert_eq!(round_trip("\n\n# c\nouts: 1\n"), "\n# c\nouts: 1\n");
    assert_eq!(round_trip("\nouts: 1\n"), "outs: 1\n");
    // So is what stands behind a `|`, but in a mapping.
    assert_eq!(round_trip("a:\n- | # c\n  x\n- b\n"), "a:\n- |\n  x\n- b\n");
    assert_eq!(round_trip("a: | # c\n  x\n"), "a: | # c\n  x\n");
}
