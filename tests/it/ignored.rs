//! Which paths a `.gitignore` hides, as git itself says.

use std::{collections::BTreeSet, fs, io::Write, process::Stdio};

use dvcfs::{dvc::ignore::Ignore, path::RepoPath};
use itertools::Itertools as _;

use crate::support::{Sandbox, succeed};

/// What patterns are made of.
const PIECES: [&str; 8] = ["a", ".b", "*", "?", "/", "/**/", "[ab]", "[!a]"];

/// Rules as people write them.
const RULES: [&str; 23] = [
    "*.log\n!keep.log\n",
    "build/\n!build/keep\n",
    "/build\n# a comment\n\\#hash\n\\!bang\n",
    "*\n!*/\n!*.txt\n",
    "a/**\n!a/b/\n!a/b/**\n",
    "**/tmp/**\n",
    ".env\n.env.*\n!.env.example\n",
    "trail  \nkept\\ \n  lead\n",
    "crlf\r\n*.tmp\r\n",
    "\u{feff}bom\nsecond\n",
    "[[:digit:]]*\n[a-c].txt\n",
    "[^a]x\n[!]]\n[]]b\n",
    "?[^[:alpha:]*]\n[[:lower:]-]log\n",
    "[ab\n[\n",
    "{a,b}\n*.{c,d}\n",
    "a\\*b\na\\?\n",
    "/*\n!/a\n/a/*\n!/a/b\n",
    "foo/bar\n/foo/*.txt\n",
    "\\\\\nx\\\\y\n",
    "secret.*\n*~\n.*.sw[op]\n",
    "ü*\n日本\n",
    "**\n!a/\n",
    "a*/b\n**/c/d\ne/**/f\n",
];

/// Paths that rules are tried on, relative to the folder of their file.
fn paths() -> Vec<String> {
    let names = [
        "a",
        "b",
        ".b",
        "ab",
        "a.b",
        "a!",
        "!a",
        "a*",
        "a?",
        "*",
        "?",
        "[ab]",
        "\\",
        "a\\",
        "tmp",
        "build",
        "keep",
        "x.log",
        "keep.log",
        "#hash",
        "!bang",
        ".env",
        ".env.x",
        ".env.example",
        "trail",
        "trail  ",
        "kept",
        "kept ",
        "lead",
        "  lead",
        "crlf",
        "crlf\r",
        "z.tmp",
        "bom",
        "second",
        "1x",
        "a.txt",
        "d.txt",
        "bx",
        "{a,b}",
        "x.{c,d}",
        "x.c",
        "a*b",
        "axb",
        "foo",
        "x\\y",
        "xy",
        "]",
        "]b",
        "a1",
        "-log",
        "secret.key",
        "n~",
        ".n.swp",
        "über",
        "日本",
        "c",
        "d",
        "e",
        "f",
    ];
    let two = ["a/b", "a/a", ".b/a", "a/.b", "ab/a", "build/keep", "a/tmp/x", "tmp/x", "foo/bar"];
    let more = ["a/b/c", "a/a/a", "foo/x.txt", "foo/y/x.txt", "x/foo/bar", "c/d", "x/c/d", "e/f"];
    let last = ["e/x/f", "e/x/y/f", "sub/a", "sub/.env", "sub/x.log", "sub/a/b", "b/a/.b", "ax/b"];
    [&names[..], &two, &more, &last].concat().into_iter().map(str::to_owned).collect()
}

/// The paths of a repository that git ignores.
fn ignored_by_git(sandbox: &Sandbox, folder: &std::path::Path, paths: &str) -> BTreeSet<String> {
    let mut git = sandbox.git(folder);
    git.args(["check-ignore", "--no-index", "-z", "--stdin"]);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = git.stdin.take().unwrap();
    let paths = paths.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(paths.as_bytes()).unwrap());
    let output = git.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn rules_hide_what_git_says_they_do() {
    let sandbox = Sandbox::new();
    let folder = sandbox.folder("repo");
    succeed(sandbox.git(&folder).args(["init", "--quiet"]));
    let made = (1..=4).flat_map(|length| (0..length).map(|_| PIECES).multi_cartesian_product());
    let made = made.map(|pieces| pieces.concat() + "\n");
    // Git has odd words for stars and slashes in a row.
    let made = made.filter(|text| !text.contains("//") && !text.contains("***"));
    let made = made.filter(|text| !text.replace("/**/", "").contains("**")).step_by(7);
    let rules: Vec<_> = RULES.into_iter().map(str::to_owned).chain(made).collect();
    for (number, text) in rules.iter().enumerate() {
        fs::create_dir(folder.join(number.to_string())).unwrap();
        fs::write(folder.join(number.to_string()).join(".gitignore"), text).unwrap();
    }
    let paths = paths();
    let all = (0..rules.len()).cartesian_product(&paths);
    let listed = all.map(|(number, path)| format!("{number}/{path}\0")).join("");
    let expected = ignored_by_git(&sandbox, &folder, &listed);
    assert!(expected.len() > 1000, "{}", expected.len());
    let mut wrong = Vec::new();
    for (number, text) in rules.iter().enumerate() {
        let mut ignore = Ignore::of_git();
        ignore.add(&RepoPath::new(number.to_string().as_bytes()).unwrap(), text.as_bytes());
        for path in &paths {
            let path = format!("{number}/{path}");
            let is_ignored = ignore.is_ignored(&RepoPath::new(path.as_bytes()).unwrap(), false);
            if is_ignored != expected.contains(&path) {
                wrong.push((text, path, is_ignored));
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {wrong:#?}", wrong.len());
}
