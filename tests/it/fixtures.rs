//! Every revision of every fixture, mounted and compared with what DVC made of it, in every open mode
//! from a cold cache.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    s3server::{Options, S3Server},
    support::{
        Content, EIO, Entry, FIXTURES, Fixture, Listing, Mount, Place, Revision, Sandbox,
        assert_same, differences, in_each_open_mode, list,
    },
};

/// A fixture, unpacked and mounted with every revision as a folder.
struct Mounted {
    fixture: Fixture,
    place: Place,
    mount: Mount,
    /// Last, so that it outlives the mount.
    sandbox: Sandbox,
}

impl Mounted {
    fn new(name: &'static str) -> Self {
        let sandbox = Sandbox::new();
        let fixture = Fixture::read(name);
        let place = fixture.unpack(&sandbox);
        let mount = sandbox.mount(place.work_tree());
        Self { fixture, place, mount, sandbox }
    }

    fn tag(&self, tag: &str) -> Listing {
        list(&self.mount.path("tags").join(tag))
    }
}

/// Every revision of a fixture equals its manifest: as a tag, as a commit and as the only one.
fn equals_its_manifest(name: &'static str) {
    let mounted = Mounted::new(name);
    for (tag, revision) in &mounted.fixture.manifest.revisions {
        let found = mounted.tag(tag);
        if revision.is_whole() {
            assert_same(&format!("tags/{tag}"), &revision.tree(), &found);
        } else {
            holds_and_refuses_the_rest(tag, &revision.tree(), &found);
        }
        let commit = mounted.mount.path("commits").join(&revision.commit);
        assert_same(&format!("commits of {tag}"), &found, &list(&commit));
    }
    let (tag, revision) = mounted.fixture.manifest.revisions.last_key_value().unwrap();
    let single = mounted.sandbox.mount_with(mounted.place.work_tree(), &["--rev", tag]);
    if revision.is_whole() {
        assert_same(&format!("--rev {tag}"), &revision.tree(), &list(single.dir()));
    }
}

macro_rules! whole_fixtures {
    ($($test:ident: $name:literal,)*) => {
        $(fn $test() {
            equals_its_manifest($name);
        })*

        in_each_open_mode! {
            $($test,)*
            imports_are_listed_and_unreadable_but_for_what_the_own_remote_holds,
            what_only_the_versions_of_a_bucket_hold_is_listed_with_sizes_and_unreadable,
            of_hostile_revisions_all_that_is_sound_is_there_and_nothing_outside_is_touched,
        }

        const WHOLE: &[&str] = &[$($name),*];
    };
}

whole_fixtures! {
    an_audio_registry_equals_its_manifest: "audio-registry",
    links_submodules_and_lfs_pointers_equal_their_manifest: "git-extras",
    layouts_of_dvc_files_equal_their_manifest: "layouts",
    data_of_dvc_1_and_2_equals_its_manifest: "legacy-2x",
    data_of_dvc_2_and_3_mixed_equals_its_manifest: "mixed-2-3",
    modes_equal_their_manifest: "modes",
    deep_folders_equal_their_manifest: "nested-dirs",
    odd_names_equal_their_manifest: "odd-names",
    pipelines_equal_their_manifest: "pipeline",
    outputs_in_several_remotes_equal_their_manifest: "remotes",
    subrepos_equal_their_manifest: "subrepos",
}

#[test]
fn no_fixture_is_left_out() {
    let apart = ["cloud-versioned", "hostile", "imports"];
    let tested: BTreeSet<_> = WHOLE.iter().chain(&apart).collect();
    assert_eq!(tested, FIXTURES.iter().collect());
}

/// Asserts that what is listed beyond `known` has no bytes to give, and that `known` is there.
fn holds_and_refuses_the_rest(tag: &str, known: &Listing, found: &Listing) {
    for (path, entry) in found.iter().filter(|(path, _)| !known.contains_key(*path)) {
        let refused = match entry {
            Entry::File { content: Content::Refused(errno), .. } | Entry::ClosedFolder(errno) => {
                *errno
            }
            Entry::Folder => continue,
            Entry::Link(_) | Entry::File { .. } => {
                panic!("{tag}: {} is {entry:?}", path.escape_ascii())
            }
        };
        assert_eq!(refused, EIO, "{tag}: {}", path.escape_ascii());
    }
    assert_same(tag, known, &part(found, known));
}

/// What two trees both have, as it is in the first.
fn part(tree: &Listing, other: &Listing) -> Listing {
    let common = tree.iter().filter(|(path, _)| other.contains_key(*path));
    common.map(|(path, entry)| (path.clone(), entry.clone())).collect()
}

fn imports_are_listed_and_unreadable_but_for_what_the_own_remote_holds() {
    const OWN: [&[u8]; 3] = [b"plain.bin", b"url_dir", b"url_one.txt"];
    let mounted = Mounted::new("imports");
    for (tag, revision) in &mounted.fixture.manifest.revisions {
        let found = mounted.tag(tag);
        let top = |path: &[u8]| path.split(|byte| *byte == b'/').next().unwrap().to_vec();
        let is_own = |path: &Vec<u8>| OWN.contains(&&top(path)[..]);
        let mut known = revision.git_part();
        known.extend(revision.tree().into_iter().filter(|(path, _)| is_own(path)));
        holds_and_refuses_the_rest(tag, &known, &found);
        let names =
            |listing: &Listing| listing.keys().map(|path| top(path)).collect::<BTreeSet<_>>();
        assert_eq!(names(&revision.tree()), names(&found), "{tag}");
    }
    assert!(mounted.mount.log().contains("import"), "{}", mounted.mount.log());
}

fn what_only_the_versions_of_a_bucket_hold_is_listed_with_sizes_and_unreadable() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read("cloud-versioned");
    let place = fixture.unpack(&sandbox);
    let nobody = "endpointurl = http://127.0.0.1:9\n";
    place.local_config(&format!("['remote \"va\"']\n    {nobody}['remote \"wt\"']\n    {nobody}"));
    let mount = sandbox.mount(place.work_tree());
    for (tag, revision) in &fixture.manifest.revisions {
        let found = list(&mount.path("tags").join(tag));
        holds_and_refuses_the_rest(tag, &revision.git_part(), &found);
        if revision.is_whole() {
            let names: Vec<_> = revision.tree().into_keys().collect();
            assert_eq!(names, found.keys().cloned().collect::<Vec<_>>(), "{tag}");
            assert_eq!(sizes(&revision.tree()), sizes(&found), "{tag}");
        }
    }
}

fn sizes(listing: &Listing) -> Vec<(&[u8], u64)> {
    let sizes = listing.iter().filter_map(|(path, entry)| match entry {
        Entry::File { size, .. } => Some((&path[..], *size.as_ref().unwrap())),
        Entry::Folder | Entry::ClosedFolder(_) | Entry::Link(_) => None,
    });
    sizes.collect()
}

/// What a hostile revision shows beside what DVC gives.
struct Expectation {
    /// Paths that DVC wrote although no name may be like that, or that the defect spoils.
    spoilt: &'static [&'static [u8]],
    /// Whether the objects of sound outputs can be found at all.
    has_remote: bool,
}

fn expectation(tag: &str) -> Expectation {
    let (spoilt, has_remote): (&[&[u8]], bool) = match tag {
        "config-broken" | "config-no-remote" => (&[], false),
        "dir-escape" => (&[b"sub/evil.bin"], true),
        "dir-dots" => (&[b"sub/c/a.bin", b"sub/c/b"], true),
        "size-wrong" | "duplicate-out-differs" => (&[b"c.bin"], true),
        _ => (&[], true),
    };
    Expectation { spoilt, has_remote }
}

/// What a tolerant reader shows of a hostile revision, at least.
fn tolerant_tree(tag: &str, base: &Revision, revision: &Revision) -> Listing {
    let Expectation { spoilt, has_remote } = expectation(tag);
    let mut tree = Listing::new();
    if has_remote {
        let sound = [&b"good.bin"[..], b"gooddir", b"gooddir/g.txt"];
        tree.extend(base.tree().into_iter().filter(|(path, _)| sound.contains(&&path[..])));
    }
    tree.extend(revision.tree());
    tree.retain(|path, _| !spoilt.contains(&&path[..]));
    tree
}

fn of_hostile_revisions_all_that_is_sound_is_there_and_nothing_outside_is_touched() {
    let mounted = Mounted::new("hostile");
    let before = list(&mounted.place.top);
    let contents = contents_of(&before, &mounted);
    let revisions = &mounted.fixture.manifest.revisions;
    let mut failures = Vec::new();
    for (tag, revision) in revisions {
        let found = mounted.tag(tag);
        let expected = tolerant_tree(tag, &revisions["base"], revision);
        let tolerated = |path: &[u8], entry: &Entry| match entry {
            Entry::File { content: Content::Md5(md5), .. } => contents.contains(md5),
            Entry::File { content: Content::Refused(errno), .. } | Entry::ClosedFolder(errno) => {
                *errno == EIO
            }
            Entry::Link(_) => false,
            Entry::Folder => !path.windows(4).any(|part| part == b"evil"),
        };
        let extra = found.iter().filter(|(path, _)| !expected.contains_key(*path));
        let bad = extra.filter(|(path, entry)| !tolerated(path, entry));
        let bad = bad.map(|(path, entry)| format!("{tag}/{}: {entry:?}", path.escape_ascii()));
        failures.extend(bad);
        failures.extend(
            differences(&expected, &part(&found, &expected))
                .iter()
                .map(|line| format!("{tag}/{line}")),
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_same("around the mount", &before, &list(&mounted.place.top));
    assert!(!mounted.mount.log().contains("panicked"), "{}", mounted.mount.log());
}

/// The MD5 of everything that the registry may show: its objects and its git files.
fn contents_of(place: &Listing, mounted: &Mounted) -> BTreeSet<String> {
    let objects = place.iter().filter(|(path, _)| path.starts_with(b"store/"));
    let objects = objects.map(|(_, entry)| entry.clone());
    let revisions = mounted.fixture.manifest.revisions.values();
    let git = revisions.flat_map(|revision| revision.git_part().into_values());
    let contents = objects.chain(git).filter_map(|entry| match entry {
        Entry::File { content: Content::Md5(md5), .. } => Some(md5),
        _ => None,
    });
    contents.collect()
}

#[test]
fn a_bare_repository_shows_what_git_holds_and_the_names_of_the_rest() {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read("audio-registry");
    let place = fixture.unpack(&sandbox);
    let mount = sandbox.mount(place.top.join("repo.git"));
    let revision = &fixture.manifest.revisions["v2.1"];
    let found = list(&mount.path("tags/v2.1"));
    for (path, entry) in revision.git_part() {
        assert_eq!(found.get(&path), Some(&entry), "{}", path.escape_ascii());
    }
}

/// A fixture's revisions over S3: cold, then warm by a daemon that asks the server for nothing,
/// then without any server.
fn equals_its_manifest_over_s3(name: &'static str) {
    let sandbox = Sandbox::new();
    let fixture = Fixture::read(name);
    let place = fixture.unpack(&sandbox);
    let root = sandbox.folder("s3");
    let bucket = sandbox.folder(Path::new("s3/bucket").join(name));
    fs::rename(place.top.join("store"), bucket.join("store")).unwrap();
    let server = S3Server::start(root, Options::default());
    let endpoint = server.endpoint();
    place.local_config(&format!(
        "['remote \"main\"']\n    url = s3://bucket/{name}/store\n    endpointurl = {endpoint}\n"
    ));
    let check = |what: &str| {
        let mount = sandbox.mount(place.work_tree());
        for (tag, revision) in &fixture.manifest.revisions {
            let found = list(&mount.path("commits").join(&revision.commit));
            assert_same(&format!("{tag}, {what}"), &revision.tree(), &found);
        }
    };
    check("cold");
    assert!(server.requests("GET") > 0);
    server.reset();
    check("warm");
    assert!(server.log().is_empty(), "{:?}", server.log());
    drop(server);
    check("offline");
}

#[test]
fn an_audio_registry_equals_its_manifest_over_s3_cold_warm_and_offline() {
    equals_its_manifest_over_s3("audio-registry");
}

#[test]
fn data_of_dvc_1_and_2_equals_its_manifest_over_s3_cold_warm_and_offline() {
    equals_its_manifest_over_s3("legacy-2x");
}
