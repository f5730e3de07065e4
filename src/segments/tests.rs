//! A compiled manifest against what a plain map of its paths says.

use std::{collections::BTreeMap, fmt::Write as _, fs, ops::ControlFlow};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    dvc::manifest::{Entry, write::compose},
    id::{BlobId, Digest, Scheme},
    path::RepoPath,
};

const ID: TreeId = TreeId { digest: [7; 16], scheme: Scheme::Md5 };

/// A store that keeps every image in a file.
struct Lab {
    folder: tempfile::TempDir,
    segments: Segments,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let segments = Segments { small: 0, ..Segments::new(Some(folder.path())) };
        Self { folder, segments }
    }

    /// The same files, as another process finds them.
    fn again(&self) -> Segments {
        Segments { small: 0, ..Segments::new(Some(self.folder.path())) }
    }

    fn compile(&self, text: &str) -> Segment {
        self.segments.compile(ID, || Ok(text.as_bytes())).unwrap().segment
    }

    fn file(&self) -> std::path::PathBuf {
        self.segments.blocks.path(ID).unwrap()
    }
}

fn manifest(entries: &[(String, u8)]) -> String {
    let mut text = "[".to_owned();
    for (at, (path, byte)) in entries.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        let hex = crate::id::hex(&[*byte; 16]);
        let path = crate::dvc::json::quote(path.as_bytes());
        write!(text, "{separator}{{\"md5\": \"{hex}\", \"relpath\": {path}}}").unwrap();
    }
    text + "]"
}

fn entries(list: &[(&str, u8)]) -> Vec<(String, u8)> {
    list.iter().map(|(path, byte)| ((*path).to_owned(), *byte)).collect()
}

fn file(byte: u8) -> RowKind {
    RowKind::File(Some(BlobId { digest: [byte; 16], scheme: Scheme::Md5 }))
}

fn names(segment: &Segment, folder: RowId) -> Vec<String> {
    let mut names = Vec::new();
    let rows = segment.children(folder).unwrap();
    let walked = segment.walk(rows, |_, name, _| {
        names.push(String::from_utf8(name.to_vec()).unwrap());
        ControlFlow::Continue(())
    });
    walked.unwrap();
    names
}

fn kind(segment: &Segment, path: &str) -> Option<RowKind> {
    let row = segment.find(path.as_bytes()).unwrap()?;
    Some(segment.row(row).unwrap().kind())
}

/// What a list of entries means, by path: the later of two equal ones counts, folders win.
fn model(entries: &[(String, u8)]) -> BTreeMap<Vec<u8>, Option<u8>> {
    let mut files = BTreeMap::new();
    for (path, byte) in entries {
        files.insert(path.clone().into_bytes(), Some(*byte));
    }
    let mut tree = files.clone();
    for path in files.keys() {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            tree.insert(path[..at].to_vec(), None);
        }
    }
    tree
}

/// Every path that can be reached from the top, by listing and by its parts.
fn check(segment: &Segment, model: &BTreeMap<Vec<u8>, Option<u8>>) {
    let mut found = BTreeMap::new();
    let mut open = vec![(Segment::ROOT, Vec::new())];
    while let Some((folder, path)) = open.pop() {
        let mut before: Option<Vec<u8>> = None;
        let rows = segment.children(folder).unwrap();
        let walked = segment.walk(rows.clone(), |row, name, kind| {
            assert!(before.as_deref().is_none_or(|before| before < name));
            before = Some(name.to_vec());
            assert_eq!(segment.child(folder, name).unwrap(), Some(row));
            assert_eq!(segment.parent(row).unwrap(), folder);
            let seen = segment.row(row).unwrap();
            assert_eq!((seen.name(), seen.kind()), (name, kind));
            let path = [&path[..], name].join(&b'/');
            let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
            assert_eq!(segment.find(&path).unwrap(), Some(row));
            match kind {
                RowKind::Folder => {
                    open.push((row, path.clone()));
                    found.insert(path, None);
                }
                RowKind::File(blob) => {
                    assert!(segment.children(row).unwrap().is_empty());
                    found.insert(path, Some(blob.unwrap().digest[0]));
                }
            }
            ControlFlow::Continue(())
        });
        walked.unwrap();
        for absent in [&b""[..], b"\x01", b"zzzz", b"a\xff"] {
            let is_there = rows.clone().any(|row| segment.row(row).unwrap().name() == absent);
            assert_eq!(segment.child(folder, absent).unwrap().is_some(), is_there);
        }
    }
    assert_eq!(&found, model);
    assert_eq!(segment.len() as usize, model.len() + 1);
}

#[test]
fn an_empty_manifest_is_an_empty_folder() {
    let lab = Lab::new();
    let segment = lab.compile("[]");
    assert!(segment.is_empty());
    assert_eq!(segment.children(Segment::ROOT).unwrap(), 1..1);
    assert_eq!(segment.find(b"x").unwrap(), None);
    assert_eq!(segment.parent(Segment::ROOT).unwrap(), Segment::ROOT);
}

#[test]
fn children_are_sorted_by_name_whatever_the_order_of_the_manifest() {
    let list = entries(&[("a/b", 1), ("a-b", 2), ("z", 3), ("a.b", 4), ("a/a/c", 5), ("A", 6)]);
    let segment = Lab::new().compile(&manifest(&list));
    assert_eq!(names(&segment, Segment::ROOT), ["A", "a", "a-b", "a.b", "z"]);
    let a = segment.find(b"a").unwrap().unwrap();
    assert_eq!(names(&segment, a), ["a", "b"]);
    assert_eq!(kind(&segment, "a/a/c"), Some(file(5)));
    assert_eq!(segment.find(b"a/b/c").unwrap(), None);
}

#[test]
fn the_later_of_two_equal_paths_counts_and_a_folder_hides_the_file_of_its_name() {
    let list = entries(&[("x", 1), ("a/b", 1), ("x", 3), ("a", 2), ("a!", 3)]);
    let lab = Lab::new();
    let text = manifest(&list);
    let compiled = lab.segments.compile(ID, || Ok(text.as_bytes())).unwrap();
    assert_eq!(kind(&compiled.segment, "x"), Some(file(3)));
    assert_eq!(kind(&compiled.segment, "a"), Some(RowKind::Folder));
    assert_eq!(names(&compiled.segment, Segment::ROOT), ["a", "a!", "x"]);
    assert_eq!(compiled.hidden.count, 1);
    assert_eq!(compiled.hidden.paths, [RepoPath::new(b"a").unwrap()]);
}

#[test]
fn a_file_without_content_is_listed() {
    let segment = Lab::new().compile(r#"[{"relpath": "x"}]"#);
    assert_eq!(kind(&segment, "x"), Some(RowKind::File(None)));
}

#[test]
fn what_cannot_be_shown_is_left_out_and_told() {
    let text = r#"[{"relpath": "../up"}, {"relpath": "/abs"}, {"relpath": "ok/x"}, 7]"#;
    let compiled = Lab::new().segments.compile(ID, || Ok(text.as_bytes())).unwrap();
    assert_eq!(compiled.refused.count, 3);
    assert_eq!(names(&compiled.segment, Segment::ROOT), ["ok"]);
}

#[test]
fn deep_nesting_is_a_chain_of_folders() {
    let path = vec!["d"; 2000].join("/");
    let segment = Lab::new().compile(&manifest(&[(path.clone(), 1)]));
    assert_eq!(segment.len(), 2001);
    assert_eq!(kind(&segment, &path), Some(file(1)));
}

#[test]
fn more_folders_than_anybody_shows_are_refused_before_they_fill_the_memory() {
    let mut builder = Builder::default();
    for n in 0..8_500 {
        let path = format!("{n}{}", "/d".repeat(2000));
        builder.take(Entry { relpath: path.as_bytes(), digest: None });
    }
    let built = builder.build(ID, io::sink());
    assert!(matches!(built, Err(BuildError::TooLarge)));
}

#[test]
fn a_damaged_manifest_leaves_no_file() {
    let lab = Lab::new();
    let text = r#"[{"relpath": "a"}, {"relp"#;
    assert!(lab.segments.compile(ID, || Ok(text.as_bytes())).is_err());
    assert_eq!(fs::read_dir(lab.folder.path()).unwrap().count(), 0);
}

/// Enough rows for several blocks of rows and of folders.
fn large() -> Vec<(String, u8)> {
    (0..4000).map(|n| (format!("folder-{:04}/file-{n}", n / 2), n as u8)).collect()
}

#[test]
fn the_next_process_finds_the_file_and_reads_what_it_looks_at() {
    let lab = Lab::new();
    let list = large();
    check(&lab.compile(&manifest(&list)), &model(&list));
    let again = lab.again();
    let segment = again.open(ID).unwrap();
    assert_eq!(again.blocks_read(), 0);
    assert_eq!(kind(&segment, "folder-1999/file-3999"), Some(file(3999_u32 as u8)));
    let first = again.blocks_read();
    assert!(first < 12, "{first} blocks");
    assert_eq!(kind(&segment, "folder-1999/file-3998"), Some(file(3998_u32 as u8)));
    assert_eq!(again.blocks_read(), first);
    check(&segment, &model(&list));
    assert_eq!(again.blocks_read(), u64::from(segment.len().div_ceil(256)) + 2);
}

#[test]
fn small_ones_stay_in_memory_and_so_do_those_that_no_disk_takes() {
    let folder = tempfile::tempdir().unwrap();
    let segments = Segments::new(Some(folder.path()));
    let list = entries(&[("a/b", 1)]);
    let text = manifest(&list);
    check(&segments.compile(ID, || Ok(text.as_bytes())).unwrap().segment, &model(&list));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    fs::write(folder.path().join("taken"), "").unwrap();
    let segments = Segments::new(Some(&folder.path().join("taken")));
    let list = large();
    let text = manifest(&list);
    check(&segments.compile(ID, || Ok(text.as_bytes())).unwrap().segment, &model(&list));
    assert!(segments.open(ID).is_none());
}

#[test]
fn a_file_that_is_damaged_anywhere_is_noticed() {
    let lab = Lab::new();
    let list = large();
    let text = manifest(&list);
    lab.compile(&text);
    let whole = fs::read(lab.file()).unwrap();
    let places = (0..whole.len()).step_by(991).chain(whole.len() - 40..whole.len());
    for at in places {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(lab.file(), &damaged).unwrap();
        let Some(segment) = lab.again().open(ID) else { continue };
        let row = (0..segment.len())
            .find(|row| segment.row(*row).is_err() || segment.children(*row).is_err());
        assert!(row.is_some(), "byte {at}");
        assert!(segment.is_broken());
    }
    for length in [0, 10, 64, 5000, whole.len() - 1] {
        fs::write(lab.file(), &whole[..length]).unwrap();
        assert!(lab.again().open(ID).is_none(), "{length}");
    }
    fs::write(lab.file(), [&whole[..], b"x"].concat()).unwrap();
    assert!(lab.again().open(ID).is_none());
    // A sound file of another manifest.
    fs::write(lab.file(), &whole).unwrap();
    let other = TreeId { digest: [8; 16], ..ID };
    fs::rename(lab.file(), lab.segments.blocks.path(other).unwrap()).unwrap();
    assert!(lab.again().open(other).is_none());
}

#[test]
fn a_broken_segment_is_made_whole_once() {
    let lab = Lab::new();
    let list = large();
    let text = manifest(&list);
    lab.compile(&text);
    let damage = || {
        let file = fs::File::options().write(true).open(lab.file()).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length / 2).unwrap();
        file.set_len(length).unwrap();
    };
    let whole = fs::read(lab.file()).unwrap();
    let segments = lab.again();
    let segment = segments.open(ID).unwrap();
    damage();
    let end = segment.len() - 1;
    assert!(segment.row(end).is_err());
    assert!(segment.is_broken());
    segments.mend(&segment, || Ok(text.as_bytes())).unwrap();
    assert!(!segment.is_broken());
    check(&segment, &model(&list));
    assert_eq!(fs::read(lab.file()).unwrap(), whole);

    // Another look at the same segment, in a process that keeps no block of it.
    let segments = lab.again();
    let segment = segments.open(ID).unwrap();
    damage();
    assert!(segment.row(end).is_err());
    segments.mend(&segment, || Ok(text.as_bytes())).unwrap();
    damage();
    assert!(segment.row(end).is_err());
    assert!(segments.mend(&segment, || Ok(text.as_bytes())).is_err());
    assert!(segment.row(0).is_ok(), "what can be read is");
}

#[test]
fn the_oldest_files_go_when_there_are_too_many() {
    let lab = Lab::new();
    let segments = Segments { max_folder: 200 << 10, ..lab.again() };
    let text = manifest(&large());
    let id = |byte| TreeId { digest: [byte; 16], ..ID };
    for byte in 0..6 {
        segments.compile(id(byte), || Ok(text.as_bytes())).unwrap();
        let path = segments.blocks.path(id(byte)).unwrap();
        let made = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(byte));
        fs::File::options().write(true).open(path).unwrap().set_modified(made).unwrap();
    }
    assert!(segments.open(id(0)).is_none());
    assert!(segments.open(id(5)).is_some());
}

#[test]
fn an_entry_takes_about_35_bytes() {
    let lab = Lab::new();
    let list: Vec<_> = (0..20_000).map(|n| (format!("clip_{n:08}.wav"), n as u8)).collect();
    lab.compile(&manifest(&list));
    let bytes = fs::metadata(lab.file()).unwrap().len();
    assert!(bytes < 20_000 * 37, "{bytes}");
}

#[test]
fn what_dvc_writes_and_any_other_order_come_out_the_same() {
    let list = large();
    let digests: Vec<_> = list.iter().map(|(path, byte)| (path, [*byte; 16])).collect();
    let entries = digests
        .iter()
        .map(|(path, digest)| Entry { relpath: path.as_bytes(), digest: Some::<Digest>(*digest) });
    let mut written = Vec::new();
    compose(entries, &mut written).unwrap();
    let mut shuffled = list;
    shuffled.reverse();
    let (a, b) = (Lab::new(), Lab::new());
    a.compile(str::from_utf8(&written).unwrap());
    b.compile(&manifest(&shuffled));
    assert_eq!(fs::read(a.file()).unwrap(), fs::read(b.file()).unwrap());
}

proptest! {
    #[test]
    fn every_manifest_is_what_a_map_of_its_paths_says(
        list in vec(("[ab!.]{1,2}(/[ab-]{1,2}){0,3}", any::<u8>()), 0..60)
    ) {
        // Names of dots alone are refused, which another test looks at.
        let is_plain = |path: &str| path.split('/').all(|name| name != "." && name != "..");
        let list: Vec<_> = list.into_iter().filter(|(path, _)| is_plain(path)).collect();
        let text = manifest(&list);
        let lab = Lab::new();
        check(&lab.compile(&text), &model(&list));
        check(&lab.again().open(ID).unwrap(), &model(&list));
        let in_memory = Segments::new(None);
        check(&in_memory.compile(ID, || Ok(text.as_bytes())).unwrap().segment, &model(&list));
    }

    #[test]
    fn whatever_the_blocks_say_going_through_them_ends(
        list in vec("[ab]{1,2}(/[ab]{1,2}){0,3}", 1..40),
        changes in vec((any::<u16>(), any::<u8>()), 1..12),
    ) {
        let entries = list.iter().map(|path| Entry { relpath: path.as_bytes(), digest: None });
        let segments = Segments::new(None);
        let segment = segments.compile_entries(ID, entries).unwrap();
        let mut image = segment.image().unwrap().to_vec();
        let length = image.len();
        for (at, byte) in changes {
            image[usize::from(at) % length] = byte;
        }
        // Header and index have their checks; blocks in memory are taken as they are.
        let Ok(segment) = segments.adopt(image) else { return Ok(()) };
        for row in 0..segment.len() {
            let (mut at, mut steps) = (row, 0);
            while let Ok(parent) = segment.parent(at) && at != Segment::ROOT {
                prop_assert!(steps < segment.len());
                (at, steps) = (parent, steps + 1);
            }
            for name in [&b"a"[..], b"ab", b""] {
                drop(segment.child(row, name));
            }
            if let Ok(rows) = segment.children(row) {
                prop_assert!(rows.is_empty() || rows.start > row);
                drop(segment.walk(rows, |_, _, _| ControlFlow::Continue(())));
            }
        }
    }
}
