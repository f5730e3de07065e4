//! One function per fuzz target: feeds bytes to a parser and checks what must hold for any input.
//!
//! The integration tests replay the corpus through the same functions.
#![allow(dead_code, reason = "each target uses one of them")]

use std::collections::BTreeMap;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::Path;

use dvcfs::dvc::checksum::Checker;
use dvcfs::dvc::config::{Config, Folders, Level, RawConfig};
use dvcfs::dvc::ignore::Ignore;
use dvcfs::dvc::manifest::edit::Changes;
use dvcfs::dvc::manifest::{Entry, Sink};
use dvcfs::dvc::output::Content;
use dvcfs::dvc::record::{Change, Recorded};
use dvcfs::dvc::{Parsed, document, dotfile, gitignore, manifest, pipeline, record};
use dvcfs::git::Location;
use dvcfs::id::{Digest, Scheme, TreeId};
use dvcfs::path::{RepoPath, check_name};
use dvcfs::segments::{RowKind, Segment, SegmentError, Segments};

/// A `.dvc` file in a folder of a subproject; one in the form that DVC writes means the same with a
/// comment in front, which leaves it to the YAML reader.
pub(crate) fn dotfile(data: &[u8]) {
    let (dir, root) = (path(b"proj/sub"), path(b"proj"));
    if let Ok(parsed) = dotfile::parse(data, &dir, &root) {
        check_outputs(&parsed, &root);
        if data.starts_with(b"outs:\n- md5: ") {
            let commented = [b"#\n", data].concat();
            assert_eq!(dotfile::parse(&commented, &dir, &root), Ok(parsed));
        }
    }
}

/// A YAML text, written again.
pub(crate) fn document(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(document) = document::parse(&text) {
        document::compose(&document);
    }
}

/// A `.dvc` file whose first output changes, and a name for a new one.
pub(crate) fn record(data: &[u8]) {
    let (dir, root) = (path(b"proj/sub"), path(b"proj"));
    let new = Recorded::File { digest: [0x5a; 16], size: 7, is_exec: false };
    if let Ok(text) = record::create(data, &new) {
        let parsed = dotfile::parse(text.as_bytes(), &dir, &root).expect("sound");
        assert_eq!(parsed.outputs[0].path.file_name(), Some(data));
    }
    let Ok(parsed) = dotfile::parse(data, &dir, &root) else {
        return;
    };
    let Some(output) = parsed.outputs.first() else {
        return;
    };
    for change in [Change::Content(new), Change::Removed] {
        let changes = BTreeMap::from([(output.path.clone(), change)]);
        _ = record::update(data, &dir, &root, &changes);
    }
    record::merge::merge([Some(b""), Some(data), Some(b"outs: []")], &root, &root);
}

/// A manifest and, behind NUL bytes, paths to add and to remove by turns.
pub(crate) fn manifest_edit(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let old = parts.next().unwrap_or_default();
    let paths = parts.filter(|path| manifest::write::check_new(path).is_ok()).enumerate();
    let changes: Changes =
        paths.map(|(at, path)| (path.to_vec(), (at % 2 == 0).then_some([at as u8; 16]))).collect();
    let mut out = Vec::new();
    let Ok(written) = manifest::edit::edit(|| Ok(old), &changes, &mut out, &mut |_| ()) else {
        return;
    };
    let read = |text: &[u8]| {
        let mut files = BTreeMap::new();
        let refused = manifest::parse(text, &mut |entry| {
            files.insert(entry.relpath.to_vec(), entry.digest);
        });
        assert_eq!(refused.expect("sound").count, 0);
        files
    };
    let mut expected = read(old);
    for (path, digest) in changes {
        match digest {
            Some(_) => expected.insert(path, digest),
            None => expected.remove(&path),
        };
    }
    assert_eq!(written.file_count, expected.len() as u64);
    assert_eq!(read(&out), expected);
}

/// A `.gitignore` and, behind a NUL byte, a name.
pub(crate) fn gitignore(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let name = parts.next().unwrap_or(b"x");
    if check_name(name).is_err() || name.contains(&b'\n') {
        return;
    }
    let added = gitignore::add(text, name).unwrap_or_else(|| text.to_vec());
    assert_eq!(gitignore::add(&added, name), None);
    assert_ne!(gitignore::remove(&added, name), gitignore::Removed::Unchanged);
    assert_eq!(gitignore::merge(text, &added, text), added);
    gitignore::merge(b"/x\n", text, &added);
}

/// A `dvc.yaml`, a `dvc.lock` and the `params.yaml` beside them, separated by NUL bytes.
pub(crate) fn pipeline(data: &[u8]) {
    let (dir, root) = (path(b"proj/sub"), path(b"proj"));
    let mut files = data.split(|byte| *byte == 0);
    let (yaml, lock, params) = (files.next().unwrap_or_default(), files.next(), files.next());
    let read = |_: &RepoPath| params.map(<[u8]>::to_vec);
    if let Ok(parsed) = pipeline::parse(yaml, lock, &dir, &root, &read) {
        check_outputs(&parsed, &root);
    }
}

/// The files of a manifest.
#[derive(Default)]
struct Files(Vec<(Vec<u8>, Option<Digest>)>);

impl Sink for Files {
    fn take(&mut self, entry: Entry<'_>) {
        check_components(entry.relpath);
        self.0.push((entry.relpath.to_vec(), entry.digest));
    }

    fn start_over(&mut self) {
        self.0.clear();
    }
}

/// A `.dir` manifest, read in one piece and byte by byte, and with the scanner for DVC's own form.
pub(crate) fn manifest(data: &[u8]) {
    let parse = |capacity| {
        let mut files = Files::default();
        let reader = BufReader::with_capacity(capacity, data);
        let refused = manifest::parse(reader, &mut |entry| files.take(entry));
        (files.0, refused.ok())
    };
    let parsed = parse(4096);
    assert_eq!(parse(1), parsed);
    let mut files = Files::default();
    let refused = manifest::read(|| Ok(data), &mut files).ok();
    assert_eq!((files.0, refused), parsed);
}

/// A manifest, and after a NUL byte changes to what it is compiled to: each a place in two bytes and
/// a third to put there. Whatever the blocks say then, going through them comes to an end.
pub(crate) fn segment(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let text = parts.next().unwrap_or_default();
    let segments = Segments::new(None);
    let id = TreeId { digest: [7; 16], scheme: Scheme::Md5 };
    let Ok(compiled) = segments.compile(id, || Ok(text)) else { return };
    let mut image = compiled.segment.image().expect("it has nowhere else to be").to_vec();
    go_through(&compiled.segment).expect("nothing is damaged");
    let length = image.len();
    for change in parts.next().unwrap_or_default().chunks_exact(3) {
        image[usize::from(u16::from_le_bytes([change[0], change[1]])) % length] = change[2];
    }
    if let Ok(segment) = segments.adopt(image) {
        // What is damaged may be an error.
        _ = go_through(&segment);
    }
}

fn go_through(segment: &Segment) -> Result<(), SegmentError> {
    let mut open = vec![Segment::ROOT];
    let mut left = 10_000;
    while let Some(folder) = open.pop() {
        segment.walk(segment.children(folder)?, |row, name, kind| {
            open.extend((kind == RowKind::Folder).then_some(row));
            // Failures show in what is asked next.
            _ = (segment.child(folder, name), segment.parent(row), segment.row(row));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if left == 0 {
            break;
        }
    }
    for row in 0..segment.len().min(100) {
        let mut at = row;
        while at != Segment::ROOT {
            at = segment.parent(at)?;
        }
    }
    Ok(())
}

/// A configuration file, taken as two levels.
pub(crate) fn config(data: &[u8]) {
    let folders = Folders { file: Path::new("/repo/.dvc"), home: None };
    let raw = RawConfig::parse(data, folders);
    let config = Config::merge([(Level::Local, raw.clone()), (Level::Repo, raw)]);
    let name = config.core_remote().map_or_else(|| "r".to_owned(), |setting| setting.value);
    if let Ok(remote) = config.remote(&name) {
        assert!(!remote.url.value.is_empty());
    }
}

/// A `.dvcignore`, then a path after a NUL byte.
pub(crate) fn ignore(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == 0);
    let mut ignore = Ignore::new(RepoPath::root());
    ignore.add(&RepoPath::root(), parts.next().unwrap_or_default());
    let Ok(path) = RepoPath::new(parts.next().unwrap_or(b"a/b")) else {
        return;
    };
    if path.parent().is_some_and(|parent| ignore.is_ignored(&parent, true)) {
        assert!(ignore.is_ignored(&path, false));
    }
}

/// Content, hashed whole and in chunks of a size that its first byte gives; what follows the
/// first two bytes is repeated to reach beyond a piece.
pub(crate) fn checksum(data: &[u8]) {
    let [size, times, unit @ ..] = data else {
        return;
    };
    let content = unit.repeat(1 + usize::from(*times) * (8192 / (unit.len() + 1)));
    let hash = |chunk_size: usize| {
        let mut checker = Checker::new(Scheme::Dos2Unix, false);
        for chunk in content.chunks(chunk_size) {
            checker.update(chunk);
        }
        checker.finish()
    };
    assert_eq!(hash(usize::MAX), hash(1 + usize::from(*size) * 61));
}

/// What a user types as a repository.
pub(crate) fn location(data: &[u8]) {
    let parse = |text| Location::parse(text, Path::new("/nonexistent"));
    let Some(location) = str::from_utf8(data).ok().and_then(|text| parse(text).ok()) else {
        return;
    };
    let shown = location.to_string();
    assert!(!shown.contains(char::is_control));
    // Nothing is left to be hidden.
    if let (Location::Url(_), Ok(Location::Url(again))) = (&location, parse(&shown)) {
        assert_eq!(again.to_string(), shown);
    }
    if let Location::Url(url) = location {
        assert!(url.local_path().is_none_or(|path| path.is_absolute()));
    }
}

fn path(bytes: &[u8]) -> RepoPath {
    RepoPath::new(bytes).expect("a sound path")
}

fn check_outputs(parsed: &Parsed, root: &RepoPath) {
    for output in &parsed.outputs {
        let inside = output.path.strip_prefix(root).expect("inside the project");
        check_components(inside);
        if let Content::Files(files) = &output.content {
            for file in files {
                check_components(file.relpath.as_bytes());
            }
        }
    }
}

fn check_components(path: &[u8]) {
    for name in path.split(|byte| *byte == b'/') {
        check_name(name).expect("a sound name");
        assert!(name != b".git" && name != b".dvc");
    }
}
