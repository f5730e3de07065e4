//! What may use what: the floors of `src/lib.rs`, kept by reading the source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The floor of each module, from the table in the crate's documentation.
fn floors() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | "));
    let rows = rows.filter(|row| row.starts_with(|first: char| first.is_ascii_digit()));
    let floors = rows.flat_map(|row| {
        let floor: usize = row.split(' ').next().unwrap().parse().unwrap();
        let modules =
            row.split("[`").skip(1).map(|rest| rest.split('`').next().unwrap().to_owned());
        modules.map(move |module| (module, floor))
    });
    floors.collect()
}

/// The module of the crate's root that a file belongs to.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// A file's text without its comments and its unit tests.
fn production_text(file: &Path) -> String {
    if file.file_stem().is_some_and(|stem| stem == "tests") {
        return String::new();
    }
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a text names after `crate::`, within groups too.
fn uses(text: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.extend([word(rest)]),
            Some(group) => used.extend(top_level_parts(group).into_iter().map(word)),
        }
    }
    used
}

/// The parts of `a::{b, c}, d}`: those that are not in a group of their own.
fn top_level_parts(group: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn groups_of_uses_are_read() {
    let text = "use crate::{\n    id::{BlobId, Key},\n    path,\n};\nlet x = crate::git::open();";
    let expected = ["git", "id", "path"].map(String::from);
    assert_eq!(uses(text), BTreeSet::from(expected));
}

#[test]
fn a_module_uses_lower_floors_only() {
    let floors = floors();
    let mut breaches = Vec::new();
    for file in rust_files(&source()) {
        let module = module_of(&file);
        if ["lib", "main"].contains(&&module[..]) {
            continue;
        }
        let own = *floors.get(&module).unwrap_or_else(|| panic!("{module} is on no floor"));
        for used in uses(&production_text(&file)).iter().filter(|used| **used != module) {
            let Some(floor) = floors.get(used) else { continue };
            if *floor >= own {
                breaches
                    .push(format!("{}: {module} ({own}) uses {used} ({floor})", file.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_module_is_on_a_floor() {
    let on_disk = rust_files(&source()).iter().map(|file| module_of(file)).collect::<BTreeSet<_>>();
    let known = floors().into_keys().chain(["lib".into(), "main".into()]);
    assert_eq!(on_disk, known.collect::<BTreeSet<_>>());
}

/// The files outside `allowed` modules that have one of the words.
fn files_with(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust_files(&source()) {
        if allowed.contains(&&module_of(&file)[..]) {
            continue;
        }
        let text = production_text(&file);
        let hits = words.iter().filter(|word| text.contains(**word));
        found.extend(hits.map(|word| format!("{}: {word}", file.display())));
    }
    found
}

#[test]
fn only_fuse_chooses_what_errno_the_kernel_gets() {
    let words = ["fuser::", "from_raw_os_error", "libc::E"];
    assert_eq!(files_with(&words, &["fuse"]), Vec::<String>::new());
}

#[test]
fn nothing_below_the_command_line_prints_exits_or_reads_the_environment() {
    let words =
        ["println!", "eprintln!", "print!(", "eprint!(", "dbg!", "process::exit", "env::var"];
    assert_eq!(files_with(&words, &["cli", "main"]), Vec::<String>::new());
}

/// The file that has to declare a module, by the module's file.
fn declaring_file(file: &Path) -> (PathBuf, String) {
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let folder = file.parent().unwrap();
    let (folder, module) = match name(file).as_str() {
        "mod" => (folder.parent().unwrap(), name(folder)),
        module => (folder, module.to_owned()),
    };
    let candidates = [folder.join("main.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
    let declaring = candidates.into_iter().find(|candidate| candidate.exists());
    (declaring.unwrap_or_else(|| panic!("no module has {}", file.display())), module)
}

#[test]
fn every_file_of_this_folder_is_part_of_the_suite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for file in rust_files(&folder) {
        if file == folder.join("main.rs") {
            continue;
        }
        let (declaring, module) = declaring_file(&file);
        let text = fs::read_to_string(&declaring).unwrap();
        let mut lines = text.lines().map(|line| line.trim_start_matches("pub(crate) "));
        let is_declared = lines.any(|line| line == format!("mod {module};"));
        assert!(is_declared, "{} does not declare {module}", declaring.display());
    }
}
