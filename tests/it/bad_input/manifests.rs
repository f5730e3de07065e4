//! Manifests of tracked folders that are broken: a bad entry costs itself, a bad list its folder.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use dvcfs::id::hex;
use insta::assert_snapshot;
use md5::{Digest, Md5};

use super::{cat, errno_of_listing, errno_of_reading, refused};
use crate::{
    registry_builder::RegistryBuilder,
    support::{DATE, EIO, Mount, Sandbox, registry_on_disk},
};

/// A registry with the folder `data` whose manifest is this text, and the file `good` beside it.
/// The blobs that manifests name by `GOOD` and `OTHER` hold these words.
fn registry_with(sandbox: &Sandbox, manifest: &str) -> RegistryBuilder {
    let registry = registry_on_disk(sandbox);
    let good = registry.put(b"good").unwrap();
    let other = registry.put(b"other").unwrap();
    let manifest = manifest.replace("GOOD", &good.md5()).replace("OTHER", &other.md5());
    let id = hex(&Md5::digest(&manifest).into());
    let object = registry.objects().join(format!("files/md5/{}/{}.dir", &id[..2], &id[2..]));
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::write(object, manifest).unwrap();
    registry
        .text("data.dvc", &format!("outs:\n- md5: {id}.dir\n  hash: md5\n  path: data\n"))
        .unwrap();
    registry.track_file("good", &good).unwrap();
    registry.commit("Add files", DATE).unwrap();
    registry
}

/// Such a registry, mounted.
fn mounted(manifest: &str) -> (Sandbox, Mount) {
    let sandbox = Sandbox::new();
    let registry = registry_with(&sandbox, manifest);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    (sandbox, mount)
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_vec()).collect();
    names.sort();
    names
}

#[test]
fn entries_that_name_no_place_in_the_folder_are_left_out() {
    let long = "n".repeat(256);
    let bad = [
        "",
        "/abs",
        ".",
        "..",
        "../evil",
        "a/../../evil",
        "./a",
        "a//b",
        r"nul\u0000",
        &long,
        r"lone\ud800",
        ".git/config",
        "a/.dvc/config",
    ];
    let entries: Vec<_> =
        bad.iter().map(|path| format!(r#"{{"md5": "OTHER", "relpath": "{path}"}}"#)).collect();
    let manifest = format!(
        r#"[{}, {{"md5": "GOOD", "relpath": "good"}}, {{"md5": "GOOD"}}, 7, null, [], "x"]"#,
        entries.join(", ")
    );
    let (sandbox, mount) = mounted(&manifest);
    assert_eq!(names(&mount.path("data")), [b"good"]);
    assert_eq!(fs::read(mount.path("data/good")).unwrap(), b"good");
    assert_eq!(fs::read(mount.path("good")).unwrap(), b"good");
    assert!(!sandbox.path("evil").exists());
    let said = mount.log();
    assert!(said.contains("../evil"), "{said}");
    assert!(said.lines().all(|line| !line.contains('\0') && line.len() < 1000), "{said}");
}

#[test]
fn entries_without_a_usable_hash_are_listed_and_cannot_be_read() {
    let hashes = ["null", "7", r#""""#, r#""abc""#, r#""../../etc/passwd""#, r#""GOOD.dir""#];
    let entries: Vec<_> = hashes
        .iter()
        .enumerate()
        .map(|(number, md5)| format!(r#"{{"md5": {md5}, "relpath": "bad {number}"}}"#))
        .collect();
    let manifest = format!(
        r#"[{}, {{"relpath": "bad none"}}, {{"md5": "GOOD", "relpath": "good"}}]"#,
        entries.join(", ")
    );
    let (_sandbox, mount) = mounted(&manifest);
    let found = names(&mount.path("data"));
    assert_eq!(found.len(), hashes.len() + 2);
    for name in found {
        let path = mount.path("data").join(OsStr::from_bytes(&name));
        let expected = (name != b"good").then_some(EIO);
        assert_eq!(errno_of_reading(&path), expected, "{}", path.display());
    }
}

#[test]
fn the_last_of_two_entries_counts_and_a_folder_hides_the_file_of_its_name() {
    let (_sandbox, mount) = mounted(
        r#"[{"md5": "OTHER", "relpath": "twice"}, {"md5": "OTHER", "relpath": "a"},
            {"md5": "GOOD", "relpath": "a/b"}, {"md5": "GOOD", "relpath": "twice", "size": 4}]"#,
    );
    assert_eq!(names(&mount.path("data")), [b"a".to_vec(), b"twice".to_vec()]);
    assert_eq!(fs::read(mount.path("data/twice")).unwrap(), b"good");
    assert_eq!(names(&mount.path("data/a")), [b"b"]);
    assert_eq!(fs::read(mount.path("data/a/b")).unwrap(), b"good");
}

#[test]
fn a_text_that_is_no_list_costs_its_folder_alone() {
    let cut = r#"[{"md5": "GOOD", "relpath": "good"}, {"md5": "GO"#;
    let deep = "[".repeat(200_000);
    let endless = format!(r#"[{{"md5": "GOOD", "relpath": "{}"}}]"#, "x".repeat(1 << 20));
    let page = "<html>Please log in</html>";
    for manifest in [cut, r#"{"md5": "GOOD"}"#, "7", "null", "[] []", page, &deep, &endless] {
        let what = &manifest[..manifest.len().min(40)];
        let (_sandbox, mount) = mounted(manifest);
        assert_eq!(errno_of_listing(&mount.path("data")), Some(EIO), "{what}");
        assert_eq!(errno_of_reading(&mount.path("data/good")), Some(EIO), "{what}");
        assert_eq!(fs::read(mount.path("good")).unwrap(), b"good", "{what}");
        assert!(mount.path("data").is_dir(), "{what}");
    }
}

#[test]
fn an_empty_list_is_an_empty_folder() {
    let (_sandbox, mount) = mounted("[]");
    assert!(names(&mount.path("data")).is_empty());
}

#[test]
fn each_has_its_line_and_exit_code() {
    let said = |manifest: &str| {
        let sandbox = Sandbox::new();
        let registry = registry_with(&sandbox, manifest);
        refused(&sandbox, &mut cat(&sandbox, registry.repository(), "data/good"))
    };
    assert_snapshot!(said(r#"[{"md5": "GO"#), @r"
    exit 7
    error: print data/good: the manifest 4e1d011913d68785a476361b36a2ca47.dir is damaged: EOF while parsing a string at line 1 column 12
    hint: add the folder again with `dvc add`, and push it
    ");
    assert_snapshot!(said("<html>Please log in</html>"), @r"
    exit 7
    error: print data/good: the manifest fcfe9946f2dd7c7a84f71bc174d3928b.dir is damaged: expected value at line 1 column 1
    hint: add the folder again with `dvc add`, and push it
    ");
    assert_snapshot!(said(r#"[{"relpath": "good"}]"#), @r"
    exit 4
    error: print data/good: the entry has no usable content: its manifest entry has no usable hash
    ");
    assert_snapshot!(said("[]"), @r"
    exit 1
    error: print data/good: no such file or folder: data/good
    ");
}

#[test]
fn a_manifest_that_the_remote_does_not_have_or_has_otherwise() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let blob = registry.put(b"good").unwrap();
    registry.track_folder("data", &[("good", blob)]).unwrap();
    registry.track_file("good", &blob).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let text = fs::read_to_string(registry.repository().join("data.dvc")).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("- md5: ")).unwrap();
    let object = registry.objects().join(format!("files/md5/{}/{}", &id[..2], &id[2..]));
    let said = |path| refused(&sandbox, &mut cat(&sandbox, registry.repository(), path));

    let whole = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    assert_snapshot!(said("data/good"), @r"
    exit 4
    error: print data/good: read files/md5/91/cece2118af9efa2b8d0b98cb06a32c.dir from [SANDBOX]/store: there is no such object
    hint: push it again from where it was added
    ");
    fs::write(&object, &whole[1..]).unwrap();
    assert_snapshot!(said("data/good"), @r"
    exit 7
    error: print data/good: read files/md5/91/cece2118af9efa2b8d0b98cb06a32c.dir from [SANDBOX]/store: its content does not match its name
    hint: remove this object from the remote, and push it again from where it was added
    ");
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    assert_eq!(errno_of_listing(&mount.path("data")), Some(EIO));
    assert_eq!(fs::read(mount.path("good")).unwrap(), b"good");
    fs::write(&object, whole).unwrap();
    assert_eq!(fs::read(mount.path("data/good")).unwrap(), b"good");
}
