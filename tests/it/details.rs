//! The details of `docs/SEMANTICS.md` that programs depend on, by its headings.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use crate::{
    registry_builder::RegistryBuilder,
    support::{DATE, Mount, Sandbox, noise, registry_on_disk, text},
};

const ENOENT: Option<i32> = Some(2);

/// A registry with a tracked folder and two files of git, one executable; its first commit is
/// tagged, the second one on two branches.
fn registry(sandbox: &Sandbox) -> (RegistryBuilder, [String; 2]) {
    let registry = registry_on_disk(sandbox);
    registry.text("version", "one\n").unwrap();
    let first = registry.commit("One", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    registry.text("version", "two\n").unwrap();
    registry.text("run.sh", "#!/bin/sh\n").unwrap();
    let path = registry.repository().join("run.sh");
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let blobs = [5000, 700].map(|size| registry.put(&noise(size as u64, size)).unwrap());
    registry.track_folder("data", &[("a", blobs[0]), ("sub/b", blobs[1])]).unwrap();
    registry.track_file("single", &blobs[0]).unwrap();
    let second = registry.commit("Two", "2026-03-01T00:00:00+00:00").unwrap();
    registry.git(&["branch", "team/work"]).unwrap();
    (registry, [first, second])
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).collect()
}

fn version(root: &Path) -> String {
    fs::read_to_string(root.join("version")).unwrap()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn layout_of_every_revision() {
    let sandbox = Sandbox::new();
    let (registry, [first, second]) = registry(&sandbox);
    let mount = sandbox.mount(registry.repository());
    assert_eq!(names(mount.dir()), set(&["HEAD", "at", "branches", "commits", "main", "tags"]));
    assert_eq!(names(&mount.path("branches")), set(&["main", "team"]));
    assert_eq!(names(&mount.path("branches/team")), set(&["work"]));
    assert_eq!(names(&mount.path("tags")), set(&["v1"]));
    for link in ["HEAD", "main"] {
        assert_eq!(fs::read_link(mount.path(link)).unwrap(), Path::new("branches/main"));
        assert_eq!(version(&mount.path(link)), "two\n");
    }
    assert_eq!(version(&mount.path("branches/team/work")), "two\n");
    assert_eq!(version(&mount.path("tags/v1")), "one\n");
    for expression in [
        "main~1",
        "main^",
        "team%2Fwork~1",
        "main@{2026-02-01}",
        "refs%2Ftags%2Fv1",
        "HEAD~1",
        &first[..7],
    ] {
        assert_eq!(version(&mount.path("at").join(expression)), "one\n", "{expression}");
    }
    assert_eq!(version(&mount.path("commits").join(&first)), "one\n");
    let short = mount.path("commits").join(&second[..10]);
    assert_eq!(fs::read_link(&short).unwrap(), Path::new(&second));
    assert_eq!(version(&short), "two\n");
    for unlisted in ["at", "commits"] {
        assert_eq!(names(&mount.path(unlisted)), set(&[]), "{unlisted}");
        let absent = mount.path(unlisted).join("0123456789");
        assert_eq!(absent.metadata().unwrap_err().raw_os_error(), ENOENT, "{unlisted}");
    }
    assert!(mount.path(".dvcfs/stats").is_file());
}

#[test]
fn layout_of_one_revision() {
    let sandbox = Sandbox::new();
    let (registry, _) = registry(&sandbox);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    let shown = names(mount.dir());
    assert!(!shown.contains(".dvcfs") && !shown.contains(".revs"), "{shown:?}");
    assert!(shown.is_superset(&set(&["version", "data", "single", "run.sh"])), "{shown:?}");
    assert_eq!(version(&mount.path(".revs/v1")), "one\n");
    assert_eq!(version(&mount.path(".revs/main~1")), "one\n");
    assert_eq!(names(&mount.path(".revs")), set(&[]));
    assert_eq!(names(&mount.path(".dvcfs")), set(&[]), "looked up, not listed");
    let said = fs::read_to_string(mount.path(".dvcfs/version")).unwrap();
    assert_eq!(said, format!("dvcfs {}\n", env!("CARGO_PKG_VERSION")));
}

/// What does not depend on the mount.
fn lasting(path: &Path) -> (u32, u64, i64, i64, u64) {
    let found = path.symlink_metadata().unwrap();
    (found.mode(), found.len(), found.mtime(), found.mtime_nsec(), found.blocks())
}

#[test]
fn attributes_of_files_and_folders() {
    let sandbox = Sandbox::new();
    let (registry, _) = registry(&sandbox);
    let args = ["--rev", "main", "--uid", "1234", "--gid", "2345"];
    let (mount, other) =
        (sandbox.mount_with(registry.repository(), &args), sandbox.mount(registry.repository()));
    let paths = ["", "version", "run.sh", "data", "data/a", "data/sub/b", "single"];
    for path in paths {
        let found = mount.path(path).metadata().unwrap();
        assert_eq!((found.uid(), found.gid(), found.nlink()), (1234, 2345, 1), "{path}");
        assert_eq!(found.blocks(), found.len().div_ceil(512), "{path}");
        if !path.is_empty() {
            let at_the_other = other.path("branches/main").join(path);
            assert_eq!(lasting(&mount.path(path)), lasting(&at_the_other), "{path}");
            assert_ne!(
                other.path("branches/team/work").join(path).metadata().unwrap().ino(),
                at_the_other.metadata().unwrap().ino(),
                "{path}"
            );
        }
        let expected = match path {
            "" | "data" => 0o040_555,
            "run.sh" => 0o100_555,
            _ => 0o100_444,
        };
        assert_eq!(found.mode(), expected, "{path}");
    }
    // The same bytes have the same time wherever they are, other bytes most likely another.
    let time = |path: &str| mount.path(path).metadata().unwrap().mtime();
    assert_eq!(time("data/a"), time("single"));
    assert_ne!(time("data/a"), time("data/sub/b"));
    let (commit, day) = (time("data"), 24 * 3600);
    assert_eq!(commit, 1_772_323_200, "of the commit");
    assert!(time("single") < commit - day);
}

#[test]
fn statfs_tells_what_the_declarations_add_up_to() {
    let sandbox = Sandbox::new();
    let (registry, _) = registry(&sandbox);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    let told = rustix::fs::statvfs(mount.dir()).unwrap();
    assert_eq!(told.f_blocks * told.f_frsize, (5000_u64 + 700 + 5000).next_multiple_of(4096));
    assert_eq!((told.f_bfree, told.f_bavail, told.f_ffree, told.f_namemax), (0, 0, 0, 255));
    assert!(told.f_files >= 3, "{}", told.f_files);
}

#[test]
fn extended_attributes_tell_what_dvc_knows() {
    let sandbox = Sandbox::new();
    let (registry, [_, second]) = registry(&sandbox);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    let value = |path: &str, name: &str| {
        let mut getfattr = sandbox.tool("getfattr");
        getfattr.args(["--only-values", "-n", &format!("user.dvc.{name}")]);
        let output = crate::support::output(getfattr.arg(mount.path(path)));
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(value("single", "cached"), some("0"));
    assert!(fs::read(mount.path("single")).unwrap() == noise(5000, 5000));
    assert_eq!(value("single", "cached"), some("1"));
    assert_eq!(value("data/a", "path"), some("data/a"));
    assert_eq!(value("data/a", "out"), some("data"));
    assert_eq!(value("data/a", "rev"), Some(second));
    assert_eq!(value("single", "size"), some("5000"));
    assert_eq!(value("data", "size"), some("5700"));
    assert!(value("data", "md5").unwrap().ends_with(".dir"));
    assert!(value("single", "remote").unwrap().ends_with("/store"));
    assert_eq!(value("version", "md5"), None, "DVC knows nothing of it");
    assert_eq!(value("version", "path"), some("version"));
}

/// A registry with links of every kind, and where each leads.
fn linked(sandbox: &Sandbox) -> (RegistryBuilder, Vec<(&'static str, String, bool)>) {
    let registry = registry_on_disk(sandbox);
    registry.text("file", "of git\n").unwrap();
    registry.text("folder/inner", "inner\n").unwrap();
    let outside = sandbox.path("home").to_str().unwrap().to_owned();
    let links = vec![
        ("to-file", "file".to_owned(), true),
        ("to-folder", "./folder//inner".to_owned(), true),
        ("folder/up", "../file".to_owned(), true),
        ("folder/aside", "../folder/inner".to_owned(), true),
        // Where this leads depends on what lies at `folder`, which may be a link as well.
        ("folder/around", "../folder/../file".to_owned(), false),
        ("dangling", "not/there".to_owned(), true),
        ("absolute", outside, false),
        ("above", "../outside".to_owned(), false),
        ("folder/far", "../../../etc/passwd".to_owned(), false),
    ];
    for (name, target, _) in &links {
        symlink(target, registry.repository().join(name)).unwrap();
    }
    registry.commit("Add links", DATE).unwrap();
    (registry, links)
}

#[test]
fn links_are_shown_exactly_as_committed() {
    let sandbox = Sandbox::new();
    let (registry, links) = linked(&sandbox);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    for (name, target, _) in &links {
        assert_eq!(fs::read_link(mount.path(name)).unwrap(), Path::new(target), "{name}");
    }
}

#[test]
fn links_that_leave_the_tree_are_hidden_where_that_is_wanted() {
    let sandbox = Sandbox::new();
    let (registry, links) = linked(&sandbox);
    let args = ["--rev", "main", "--symlinks", "inside"];
    let mount = sandbox.mount_with(registry.repository(), &args);
    for (name, target, is_inner) in &links {
        let path = mount.path(name);
        let (folder, base) = (path.parent().unwrap(), path.file_name().and_then(OsStr::to_str));
        assert_eq!(names(folder).contains(base.unwrap()), *is_inner, "{name} in the listing");
        match fs::read_link(&path) {
            Ok(found) => assert!(*is_inner && found == Path::new(target), "{name}"),
            Err(error) => assert!(!is_inner && error.raw_os_error() == ENOENT, "{name}: {error}"),
        }
    }
    assert_eq!(fs::read(mount.path("folder/up")).unwrap(), b"of git\n");
}

/// The reports of all mounts, as JSON.
fn status(sandbox: &Sandbox, mounts: &[&Mount]) -> Vec<serde_json::Value> {
    let printed = text(&mut sandbox.dvcfs(["status", "--json"]));
    let reports: Vec<serde_json::Value> = serde_json::from_str(&printed).unwrap();
    assert_eq!(reports.len(), mounts.len(), "{printed}");
    reports
}

#[test]
fn status_tells_of_every_mount_at_which_commit_it_is() {
    let sandbox = Sandbox::new();
    let (registry, [first, _]) = registry(&sandbox);
    assert_eq!(text(&mut sandbox.dvcfs(["status"])), "nothing is mounted");
    let all = sandbox.mount(registry.repository());
    let one = sandbox.mount_with(registry.repository(), &["--rev", "v1"]);
    assert_eq!(version(one.dir()), "one\n");
    let reports = status(&sandbox, &[&all, &one]);
    let of = |mount: &Mount| {
        let dir = mount.dir().to_str().unwrap();
        reports.iter().find(|report| report["mount_point"] == dir).unwrap()
    };
    assert_eq!(of(&one)["revision"], "v1");
    assert_eq!(of(&one)["commit"], *first);
    assert!(of(&all)["revision"].is_null() && of(&all)["commit"].is_null(), "{}", of(&all));
    for report in &reports {
        assert_eq!(report["repository"], *registry.repository().to_str().unwrap());
        assert!(report["pid"].as_u64().unwrap() > 1);
        assert!(report["stats"]["hits"].is_u64(), "{report}");
    }
    let told = text(sandbox.dvcfs(["status"]).arg(one.dir()));
    assert!(told.contains(&first) && told.contains("v1"), "{told}");
}
