use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use super::*;

fn path(text: &str) -> RepoPath {
    RepoPath::new(text.as_bytes()).unwrap()
}

fn opened() -> (tempfile::TempDir, Overlay) {
    let dir = tempfile::tempdir().unwrap();
    let overlay = Overlay::open(dir.path()).unwrap();
    (dir, overlay)
}

fn owner() -> Owner {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    Owner { uid: uid.as_raw(), gid: gid.as_raw() }
}

fn kind(overlay: &Overlay, name: &str) -> Option<Kind> {
    overlay.find(&path(name)).unwrap().map(|entry| entry.kind)
}

fn write(overlay: &Overlay, name: &str, text: &str) {
    let mut file = overlay.create_file(&path(name), 0o644, owner()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn read(overlay: &Overlay, name: &str) -> String {
    let mut text = String::new();
    overlay.open_file(&path(name), false).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn held(overlay: &Overlay, name: &str) -> OwnedFd {
    overlay.look_at(&path(name)).unwrap().unwrap()
}

const PLAIN: Kind = Kind::File { origin: None };

#[test]
fn one_process_has_an_overlay_at_a_time_and_the_next_finds_all_of_it() {
    let (dir, overlay) = opened();
    write(&overlay, "a", "one");
    assert!(matches!(Overlay::open(dir.path()), Err(OverlayError::Busy { .. })));
    fs::write(dir.path().join("work/left"), "over").unwrap();
    fs::create_dir_all(dir.path().join("work/folder/in")).unwrap();
    drop(overlay);
    let again = Overlay::open(dir.path()).unwrap();
    assert_eq!(read(&again, "a"), "one");
    assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
}

#[test]
fn the_base_is_noted_and_a_note_that_makes_no_sense_is_an_error() {
    let (dir, overlay) = opened();
    assert_eq!(overlay.base().unwrap(), None);
    let base = Base {
        repository: "r".into(),
        commit: "c".into(),
        branch: Some("main".into()),
        since: Some("b".into()),
        seen: [("refs/heads/main".into(), "b".into())].into(),
    };
    overlay.set_base(&base).unwrap();
    assert_eq!(overlay.base().unwrap(), Some(base));
    fs::write(dir.path().join("base.json"), "{").unwrap();
    assert!(matches!(overlay.base(), Err(OverlayError::Damaged { .. })));
}

#[test]
fn what_is_removed_leaves_a_whiteout_only_where_the_base_has_the_name() {
    let (_dir, overlay) = opened();
    write(&overlay, "own", "x");
    overlay.remove(&path("own"), false).unwrap();
    assert_eq!(kind(&overlay, "own"), None);
    overlay.remove(&path("of the base"), true).unwrap();
    assert_eq!(kind(&overlay, "of the base"), Some(Kind::Whiteout));
    write(&overlay, "of the base", "again");
    assert_eq!(kind(&overlay, "of the base"), Some(PLAIN));
    assert_eq!(read(&overlay, "of the base"), "again");
}

#[test]
fn a_folder_takes_the_place_of_a_whiteout_and_leaves_one_again() {
    let (_dir, overlay) = opened();
    overlay.remove(&path("d"), true).unwrap();
    overlay.create_folder(&path("d"), 0o755, owner(), &Shows::Nothing).unwrap();
    assert_eq!(kind(&overlay, "d"), Some(Kind::Folder(Shows::Nothing)));
    write(&overlay, "d/a", "x");
    overlay.remove(&path("d/a"), true).unwrap();
    overlay.remove_folder(&path("d"), true).unwrap();
    assert_eq!(kind(&overlay, "d"), Some(Kind::Whiteout));
    overlay.remove_folder(&path("only in the base"), true).unwrap();
    assert_eq!(kind(&overlay, "only in the base"), Some(Kind::Whiteout));
}

#[test]
fn parents_are_made_with_the_attributes_of_what_they_go_on_from() {
    let (dir, overlay) = opened();
    let stat = Stat { mode: 0o750, modified: (1_000_000_007, 5), ..Stat::default() };
    let stat = Stat { uid: owner().uid, gid: owner().gid, ..stat };
    overlay.make_parents(&path("a/b/c"), &|_| Ok(stat)).unwrap();
    let made = overlay.find(&path("a/b")).unwrap().unwrap();
    assert_eq!(made.kind, Kind::Folder(Shows::Same));
    assert_eq!((made.stat.mode, made.stat.modified), (0o750, (1_000_000_007, 5)));
    assert!(!dir.path().join("upper/a/b/c").exists());
}

#[test]
fn a_file_stands_in_for_one_of_the_base_until_it_is_copied_up() {
    let (dir, overlay) = opened();
    let stat = Stat { mode: 0o600, modified: (1_234_567_890, 0), ..Stat::default() };
    let stat = Stat { uid: owner().uid, gid: owner().gid, ..stat };
    overlay.stand_in(&path("a"), &path("old/place"), &stat).unwrap();
    let origin = Some(path("old/place"));
    assert_eq!(kind(&overlay, "a"), Some(Kind::File { origin: origin.clone() }));
    set_attribute(held(&overlay, "a"), "user.note", b"kept").unwrap();
    overlay.rename(&path("a"), &path("b"), Renaming::default()).unwrap();
    assert_eq!(kind(&overlay, "b"), Some(Kind::File { origin }));
    let draft = overlay.draft().unwrap();
    draft.file().write_all(b"bytes").unwrap();
    overlay.put_draft(draft, &path("b"), &stat).unwrap();
    let found = overlay.find(&path("b")).unwrap().unwrap();
    assert_eq!((found.kind, found.stat.mode), (PLAIN, 0o600));
    assert_eq!(found.stat.modified, (1_234_567_890, 0));
    assert_eq!(attribute(held(&overlay, "b"), "user.note").unwrap(), Some(b"kept".to_vec()));
    assert_eq!(attribute_names(held(&overlay, "b")).unwrap(), [b"user.note"]);
    drop(overlay.draft().unwrap());
    assert_eq!(read(&overlay, "b"), "bytes");
    assert_eq!(fs::read_dir(dir.path().join("work")).unwrap().count(), 0);
}

#[test]
fn renames_leave_whiteouts_and_go_over_files_whiteouts_and_empty_folders() {
    let (_dir, overlay) = opened();
    let of_base = Renaming { leaves_whiteout: true, replaces_folder: false };
    write(&overlay, "a", "a");
    write(&overlay, "b", "b");
    overlay.rename(&path("a"), &path("b"), of_base).unwrap();
    assert_eq!((kind(&overlay, "a"), kind(&overlay, "b")), (Some(Kind::Whiteout), Some(PLAIN)));
    assert_eq!(read(&overlay, "b"), "a");
    overlay.rename(&path("b"), &path("a"), Renaming::default()).unwrap();
    assert_eq!((kind(&overlay, "a"), kind(&overlay, "b")), (Some(PLAIN), None));

    overlay.create_folder(&path("d"), 0o755, owner(), &Shows::Same).unwrap();
    write(&overlay, "d/in", "x");
    overlay.remove(&path("gone"), true).unwrap();
    overlay.rename(&path("d"), &path("gone"), of_base).unwrap();
    assert_eq!(kind(&overlay, "d"), Some(Kind::Whiteout));
    assert_eq!(read(&overlay, "gone/in"), "x");

    overlay.create_folder(&path("empty"), 0o755, owner(), &Shows::Same).unwrap();
    overlay.remove(&path("empty/of the base"), true).unwrap();
    let over = Renaming { replaces_folder: true, ..Renaming::default() };
    overlay.rename(&path("gone"), &path("empty"), over).unwrap();
    assert_eq!(read(&overlay, "empty/in"), "x");
    assert_eq!(overlay.list(&path("empty")).unwrap().len(), 1);
}

#[test]
fn links_and_pipes_are_what_they_are() {
    let (dir, overlay) = opened();
    overlay.create_link(&path("l"), b"../anywhere", owner()).unwrap();
    overlay.create_pipe(&path("p"), 0o640, owner()).unwrap();
    assert_eq!(kind(&overlay, "l"), Some(Kind::Link));
    assert_eq!(overlay.read_link(&path("l")).unwrap(), b"../anywhere");
    assert_eq!(kind(&overlay, "p"), Some(Kind::Pipe));
    assert!(fs::metadata(dir.path().join("upper/p")).unwrap().file_type().is_fifo());
    assert_eq!(overlay.find(&path("p")).unwrap().unwrap().stat.mode, 0o640);
}

#[test]
fn nothing_is_reached_by_way_of_a_link_that_somebody_put_there() {
    let (dir, overlay) = opened();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("upper/way")).unwrap();
    assert!(overlay.open_file(&path("way/secret"), false).is_err());
    assert_eq!(overlay.find(&path("way/secret")).unwrap(), None);
    assert!(overlay.create_file(&path("way/new"), 0o644, owner()).is_err());
    assert!(overlay.list(&path("way")).unwrap().is_empty());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn modes_that_would_shut_us_out_are_shown_all_the_same() {
    let (dir, mut overlay) = opened();
    overlay.is_privileged = false;
    write(&overlay, "a", "x");
    overlay.set_mode(held(&overlay, "a"), 0o044).unwrap();
    assert_eq!(overlay.find(&path("a")).unwrap().unwrap().stat.mode, 0o044);
    assert_eq!(fs::metadata(dir.path().join("upper/a")).unwrap().mode() & 0o777, 0o644);
    assert_eq!(read(&overlay, "a"), "x");
    overlay.set_mode(held(&overlay, "a"), 0o640).unwrap();
    assert!(attribute(held(&overlay, "a"), marks::MODE).unwrap().is_none());
    overlay.create_folder(&path("d"), 0o111, owner(), &Shows::Same).unwrap();
    assert_eq!(overlay.find(&path("d")).unwrap().unwrap().stat.mode, 0o111);
    write(&overlay, "d/in", "y");
    overlay.set_mode(held(&overlay, "d"), 0o700).unwrap();
    assert_eq!(overlay.find(&path("d")).unwrap().unwrap().stat.mode, 0o700);
}

#[test]
fn names_are_listed_in_order_with_whiteouts_told_apart() {
    let (_dir, overlay) = opened();
    write(&overlay, "b", "x");
    write(&overlay, "a", "x");
    overlay.remove(&path("c"), true).unwrap();
    let listed = overlay.list(&RepoPath::root()).unwrap();
    let listed: Vec<_> =
        listed.iter().map(|entry| (entry.name.as_bytes(), entry.is_whiteout())).collect();
    assert_eq!(listed, [(&b"a"[..], false), (b"b", false), (b"c", true)]);
    assert!(overlay.list(&path("no/such")).unwrap().is_empty());
    overlay.sync_folder(&path("no/such")).unwrap();
}

#[test]
fn what_is_kept_shows_above_a_base_that_has_the_rest() {
    for is_half_done in [false, true] {
        let (_dir, overlay) = opened();
        let file = |name: &str| overlay.create_file(&path(name), 0o644, owner()).unwrap();
        let folder = |name: &str, shows| {
            overlay.create_folder(&path(name), 0o755, owner(), &shows).unwrap();
        };
        folder("new", Shows::Nothing);
        file("new/recorded");
        file("new/left");
        folder("moved", Shows::Of(path("old")));
        file("moved/recorded");
        overlay.remove(&path("old"), true).unwrap();
        overlay.remove(&path("gone"), true).unwrap();
        folder("whole", Shows::Of(path("elsewhere")));
        folder("bare", Shows::Of(path("elsewhere")));
        file("bare/left");
        file("bare/recorded");
        let content = Kept::Content { origin: path("old/a"), mode: 0o755, modified: 7 };
        let kept = [
            (path("new/left"), Kept::Entry),
            (path("moved/a"), content),
            (path("old/a"), Kept::Gone),
            (path("whole"), Kept::Entry),
            (path("bare"), Kept::Opaque),
            (path("bare/left"), Kept::Entry),
        ];
        let kept = kept.into();
        if is_half_done {
            overlay.take_out(&path("gone")).unwrap();
            overlay.take_out(&path("old")).unwrap();
            folder("old", Shows::Same);
        }
        overlay.keep_only(&kept).unwrap();
        overlay.keep_only(&kept).unwrap();
        assert_eq!(kind(&overlay, "new"), Some(Kind::Folder(Shows::Same)));
        assert_eq!(kind(&overlay, "new/left"), Some(Kind::File { origin: None }));
        assert_eq!(kind(&overlay, "new/recorded"), None);
        assert_eq!(kind(&overlay, "moved"), Some(Kind::Folder(Shows::Same)));
        assert_eq!(kind(&overlay, "moved/a"), Some(Kind::File { origin: Some(path("old/a")) }));
        let stat = overlay.find(&path("moved/a")).unwrap().unwrap().stat;
        assert_eq!((stat.mode, stat.modified), (0o755, (7, 0)));
        assert_eq!(kind(&overlay, "moved/recorded"), None);
        assert_eq!(kind(&overlay, "old"), Some(Kind::Folder(Shows::Same)));
        assert_eq!(kind(&overlay, "old/a"), Some(Kind::Whiteout));
        assert_eq!(kind(&overlay, "gone"), None);
        assert_eq!(kind(&overlay, "bare"), Some(Kind::Folder(Shows::Nothing)));
        assert_eq!(kind(&overlay, "bare/recorded"), None);
        assert_eq!(kind(&overlay, "whole"), Some(Kind::Folder(Shows::Of(path("elsewhere")))));
    }
}

#[test]
fn below_what_is_no_folder_nothing_needs_a_mark() {
    let (_dir, overlay) = opened();
    write(&overlay, "code", "a file by now");
    overlay.create_link(&path("link"), b"x", owner()).unwrap();
    write(&overlay, "recorded", "");
    let kept = [
        (path("code"), Kept::Entry),
        (path("code/deep/x"), Kept::Gone),
        (path("link"), Kept::Entry),
        (path("link/x"), Kept::Gone),
    ];
    overlay.keep_only(&kept.into()).unwrap();
    assert_eq!(read(&overlay, "code"), "a file by now");
    assert_eq!(kind(&overlay, "link"), Some(Kind::Link));
    assert_eq!(kind(&overlay, "recorded"), None);
}

#[test]
fn a_file_gets_a_second_name_outside() {
    let (dir, overlay) = opened();
    write(&overlay, "a", "text");
    let place = dir.path().join("b");
    assert!(!overlay.is_file(&path("a"), &place).unwrap());
    overlay.name_also(&path("a"), &place).unwrap();
    assert!(overlay.is_file(&path("a"), &place).unwrap());
    assert!(!overlay.is_file(&path("c"), &place).unwrap());
    overlay.take_out(&path("a")).unwrap();
    assert_eq!(std::fs::read(place).unwrap(), b"text");
}

#[test]
fn a_path_that_is_longer_than_the_kernel_takes_is_walked_in_pieces() {
    let (_dir, overlay) = opened();
    for first in 53..=58 {
        let names = std::iter::once("f".repeat(first)).chain(vec!["x".repeat(100); 40]);
        let mut at = RepoPath::root();
        for name in names {
            at = at.join(&crate::path::Name::new(name.as_bytes()).unwrap());
            overlay.create_folder(&at, 0o755, owner(), &Shows::Same).unwrap();
        }
        let file = at.join(&crate::path::Name::new(b"file").unwrap());
        overlay.create_file(&file, 0o644, owner()).unwrap().write_all(b"text").unwrap();
        let mut text = String::new();
        overlay.open_file(&file, false).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert_eq!(overlay.list(&at).unwrap().len(), 1);
        overlay.sync_folder(&at).unwrap();
        let link = at.join(&crate::path::Name::new(b"link").unwrap());
        overlay.create_link(&link, b".", owner()).unwrap();
        let through = link.join(&crate::path::Name::new(b"file").unwrap());
        assert!(overlay.open_file(&through, false).is_err(), "links are not followed");
    }
    assert_eq!(overlay.list(&RepoPath::root()).unwrap().len(), 6);
    overlay.take_out_together(&[]).unwrap();
    assert!(overlay.is_empty().unwrap());
}

#[test]
fn what_is_done_at_a_name_is_done_in_the_folder_that_is_there_now() {
    let (_dir, overlay) = opened();
    let make = |name| overlay.create_folder(&path(name), 0o755, owner(), &Shows::Same).unwrap();
    make("a");
    make("a/in");
    write(&overlay, "a/in/x", "first");
    overlay.rename(&path("a"), &path("b"), Renaming::default()).unwrap();
    assert_eq!((kind(&overlay, "a/in"), kind(&overlay, "a/in/x")), (None, None));
    make("a");
    make("a/in");
    write(&overlay, "a/in/x", "second");
    assert_eq!([read(&overlay, "b/in/x"), read(&overlay, "a/in/x")], ["first", "second"]);
    overlay.take_out(&path("a")).unwrap();
    overlay
        .make_parents(&path("a/in/x"), &|_| Ok(Stat { mode: 0o755, ..Stat::default() }))
        .unwrap();
    write(&overlay, "a/in/x", "third");
    assert_eq!(read(&overlay, "a/in/x"), "third");
    overlay.remove(&path("a/in/x"), false).unwrap();
    overlay.remove_folder(&path("a/in"), false).unwrap();
    overlay.prune(&path("a/in")).unwrap();
    assert_eq!(kind(&overlay, "a"), None);
    make("a");
    write(&overlay, "a/x", "fourth");
    assert_eq!(read(&overlay, "a/x"), "fourth");
}

#[test]
fn what_a_folder_shows_is_told_as_it_is_once_that_changes() {
    let (_dir, overlay) = opened();
    overlay.create_folder(&path("a"), 0o755, owner(), &Shows::Same).unwrap();
    write(&overlay, "a/x", "");
    for shows in [Shows::Nothing, Shows::Of(path("b")), Shows::Same] {
        overlay.set_shows(&path("a"), &shows).unwrap();
        assert_eq!(kind(&overlay, "a"), Some(Kind::Folder(shows)));
    }
    for mode in [0o500, 0o755] {
        overlay.set_mode(held(&overlay, "a"), mode).unwrap();
        assert_eq!(overlay.find(&path("a")).unwrap().unwrap().stat.mode, mode);
    }
}

#[test]
fn what_is_large_and_has_a_name_is_worth_writing_to_the_disk_at_once() {
    let (_dir, overlay) = opened();
    let file = overlay.create_file(&path("a"), 0o644, owner()).unwrap();
    assert!(!is_worth_writing_back(&file));
    file.set_len(1 << 20).unwrap();
    assert!(is_worth_writing_back(&file));
    file.set_len(20 << 20).unwrap();
    let asked = std::cell::Cell::new(0);
    write_back(&file, || asked.replace(asked.get() + 1) < 2).unwrap();
    assert_eq!(asked.get(), 3, "it goes on for two of three pieces");
    overlay.remove(&path("a"), false).unwrap();
    assert!(!is_worth_writing_back(&file));
}
