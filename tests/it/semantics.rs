//! The promises of `docs/SEMANTICS.md`, one test each.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::Path,
};

use crate::{
    s3server::{Fault, S3Server},
    support::{
        DATE, EIO, Mount, PREFIX, Sandbox, assert_same, eventually, in_each_open_mode, list,
        md5_of, noise, output, registry_on_disk, registry_on_s3, succeed,
    },
};

in_each_open_mode! {
    promise_1_a_revision_is_immutable,
    promise_2_what_you_read_is_what_was_committed,
    promise_3_absent_is_never_confused_with_unreachable,
    promise_4_reading_never_needs_more_than_it_uses,
    promise_5_the_cache_is_bounded_and_disposable,
    promise_6_a_pinned_revision_that_is_cached_works_offline,
}

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const SMALL: usize = 100 << 10;
const LARGE: usize = 12 << 20;

/// The errno of a read to the end.
fn errno_of_reading(path: &Path) -> Option<i32> {
    md5_of(path).err().and_then(|error| error.raw_os_error())
}

/// Everything `stat` and a listing tell below a folder.
fn attributes(folder: &Path) -> Vec<(String, u64, u64, i64, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        found.push((name, metadata.ino(), metadata.len(), metadata.mtime(), metadata.mode()));
        if metadata.is_dir() {
            found.extend(attributes(&entry.path()));
        }
    }
    found
}

fn promise_1_a_revision_is_immutable() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let commit = |seed| {
        let files = [("a", registry.put(&noise(seed, 900)).unwrap())];
        registry.track_folder("data", &files).unwrap();
        registry.commit("A version", DATE).unwrap()
    };
    let first = commit(1);
    registry.git(&["tag", "v1"]).unwrap();
    let all = sandbox.mount(registry.repository());
    let by_tag = sandbox.mount_with(registry.repository(), &["--rev", "v1"]);
    let by_commit = sandbox.mount_with(registry.repository(), &["--rev", &first]);
    let roots = [
        all.path("tags/v1"),
        all.path("commits").join(&first),
        by_tag.dir().to_owned(),
        by_commit.dir().to_owned(),
    ];
    let before: Vec<_> = roots.iter().map(|root| (attributes(root), list(root))).collect();
    let open = File::open(all.path("main/data/a")).unwrap();
    commit(2);
    for mount in [&all, &by_tag, &by_commit] {
        succeed(&mut sandbox.dvcfs(["refresh".as_ref(), mount.dir().as_os_str()]));
    }
    eventually("the branch moves", || fs::read(all.path("main/data/a")).unwrap() == noise(2, 900));
    let after: Vec<_> = roots.iter().map(|root| (attributes(root), list(root))).collect();
    assert_eq!(before, after);
    let mut bytes = vec![0; 900];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(1, 900), "the open file changed");
}

/// A registry on S3 with a small and a large file, mounted.
struct Served {
    sandbox: Sandbox,
    server: S3Server,
    repository: std::path::PathBuf,
}

impl Served {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let (registry, server) = registry_on_s3(&sandbox);
        let small = registry.put(&noise(1, SMALL)).unwrap();
        let large = registry.put(&noise(2, LARGE)).unwrap();
        registry.track_file("small", &small).unwrap();
        registry.track_file("large", &large).unwrap();
        let clips =
            (0..20).map(|n| (format!("clip {n}"), registry.put(&noise(100 + n, 5000)).unwrap()));
        let clips: Vec<_> = clips.collect();
        let clips: Vec<_> = clips.iter().map(|(name, blob)| (&name[..], *blob)).collect();
        registry.track_folder("clips", &clips).unwrap();
        registry.commit("Add files", DATE).unwrap();
        Self { sandbox, server, repository: registry.repository().to_owned() }
    }

    fn mount(&self, args: &[&str]) -> Mount {
        let args = [&["--rev", "main"], args].concat();
        self.sandbox.mount_with(&self.repository, &args)
    }
}

fn promise_2_what_you_read_is_what_was_committed() {
    let served = Served::new();
    for args in [&["--verify", "strict", "--open-mode", "auto"][..], &[]] {
        let mount = served.mount(args);
        for (name, seed, size) in [("small", 1, SMALL), ("large", 2, LARGE)] {
            served.server.set_rule(|request| (request.method == "GET").then_some(Fault::Flip(77)));
            match fs::read(mount.path(name)) {
                Err(error) => assert_eq!(error.raw_os_error(), Some(EIO), "{name} {args:?}"),
                Ok(bytes) => {
                    let bad =
                        bytes.iter().zip(noise(seed, size)).filter(|(a, b)| **a != *b).count();
                    panic!("{name} {args:?} was read to its end, {bad} bytes of it wrong");
                }
            }
            served.server.heal();
            let mut healed = None;
            eventually("later reads fetch anew", || {
                healed = fs::read(mount.path(name)).ok();
                healed.is_some()
            });
            assert!(healed.unwrap() == noise(seed, size), "{name} {args:?}");
        }
        assert!(mount.counter("verification_failures") >= 2);
        drop(mount);
        fs::remove_dir_all(served.sandbox.cache()).unwrap();
    }
}

fn promise_3_absent_is_never_confused_with_unreachable() {
    let served = Served::new();
    let mount = served.mount(&[]);
    assert_eq!(errno_of_reading(&mount.path("nothing")), Some(ENOENT));

    served.server.fail_always(Fault::Status(403, "AccessDenied"));
    assert_eq!(errno_of_reading(&mount.path("small")), Some(EACCES));
    served.server.fail_always(Fault::Status(404, "NoSuchKey"));
    assert_eq!(errno_of_reading(&mount.path("small")), Some(EIO));
    assert_eq!(errno_of_reading(&mount.path("large")), Some(EIO));
    served.server.heal();
    assert_eq!(fs::read(mount.path("small")).unwrap(), noise(1, SMALL));

    let Served { server, .. } = served;
    drop(server);
    assert_eq!(errno_of_reading(&mount.path("large")), Some(EIO));
    assert_eq!(fs::metadata(mount.path("large")).unwrap().len(), LARGE as u64);
    let closed = fs::read_dir(mount.path("clips")).and_then(|mut names| names.next().unwrap());
    assert_eq!(closed.unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(fs::read(mount.path("small")).unwrap(), noise(1, SMALL));
}

fn promise_4_reading_never_needs_more_than_it_uses() {
    let served = Served::new();
    served.server.reset();
    let mount = served.mount(&[]);
    assert!(served.server.log().is_empty(), "mounting asked: {:?}", served.server.log());
    assert_eq!(fs::metadata(mount.path("large")).unwrap().len(), LARGE as u64);
    assert!(served.server.log().is_empty(), "a known size was asked: {:?}", served.server.log());

    let names = fs::read_dir(mount.path("clips")).unwrap().count();
    assert_eq!(names, 20);
    let manifests = served.server.log().iter().filter(|r| r.path.ends_with(".dir")).count();
    assert_eq!(served.server.requests("GET"), manifests, "{:?}", served.server.log());

    served.server.reset();
    let listed = fs::read_dir(mount.path("clips")).unwrap();
    let sizes: u64 = listed.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(sizes, 20 * 5000);
    assert!(served.server.bytes_sent() < 20 * 5000, "sizes cost contents");

    served.server.reset();
    let file = File::open(mount.path("large")).unwrap();
    let mut header = vec![0; 64 << 10];
    file.read_exact_at(&mut header, 0).unwrap();
    assert!(header == noise(2, LARGE)[..64 << 10]);
    assert!(served.server.bytes_sent() < 4 << 20, "{} bytes", served.server.bytes_sent());
    assert!(fs::read(mount.path("large")).unwrap() == noise(2, LARGE));
    assert!(served.server.bytes_sent() <= LARGE as u64, "bytes came twice");
}

/// The bytes of the regular files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.map_while(Result::ok).map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn promise_5_the_cache_is_bounded_and_disposable() {
    const LIMIT: u64 = 1 << 20;
    let sandbox = Sandbox::new().with("DVCFS_CACHE_SIZE", "1M");
    let registry = registry_on_disk(&sandbox);
    let files: Vec<_> = (0..40).map(|n| (format!("{n:02}"), noise(n, 100_000))).collect();
    let blobs: Vec<_> =
        files.iter().map(|(name, bytes)| (&name[..], registry.put(bytes).unwrap())).collect();
    registry.track_folder("data", &blobs).unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    let read_all = |mount: &Mount| {
        for (name, bytes) in &files {
            assert!(fs::read(mount.path("data").join(name)).unwrap() == *bytes, "{name}");
        }
    };
    read_all(&mount);
    let blobs = || bytes_below(&sandbox.cache().join("files"));
    eventually("the cache is within its limit", || blobs() <= LIMIT);
    assert!(blobs() > 0, "nothing is cached");

    let open = File::open(mount.path("data/39")).unwrap();
    fs::remove_dir_all(sandbox.cache()).unwrap();
    let mut bytes = vec![0; 100_000];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == files[39].1, "an open file lost its bytes");
    let after = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    read_all(&after);

    let broken = Sandbox::new();
    fs::write(broken.cache(), "not a folder").unwrap();
    read_all(&broken.mount_with(registry.repository(), &["--rev", "main"]));
}

fn promise_6_a_pinned_revision_that_is_cached_works_offline() {
    let Served { sandbox, server, repository } = Served::new();
    let url = format!("file://{}", repository.display());
    let commit = crate::support::text(sandbox.git(&repository).args(["rev-parse", "HEAD"]));
    let online = sandbox.mount_with(&url, &["--rev", &commit]);
    let tree = list(online.dir());
    drop(online);

    drop(server);
    fs::rename(&repository, sandbox.path("gone")).unwrap();
    let offline = sandbox.mount_with(&url, &["--rev", &commit]);
    assert_same("offline", &tree, &list(offline.dir()));
    drop(offline);
    let all = sandbox.mount(&url);
    assert_same("offline", &tree, &list(&all.path("commits").join(&commit)));
}

#[test]
fn promise_9_an_untrusted_registry_can_do_no_more_than_lie_about_its_own_content() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    sandbox.user_config("");
    let endpoint = server.endpoint();
    registry
        .init(&format!(
            "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://{PREFIX}\n    endpointurl = {endpoint}\n"
        ))
        .unwrap();
    registry.track_file("a", &registry.put(b"bytes").unwrap()).unwrap();
    registry.commit("Choose an endpoint", DATE).unwrap();
    let dir = sandbox.folder("refused");
    let mut mount = sandbox.dvcfs(["mount"]);
    let refused = output(mount.arg(registry.repository()).arg(&dir));
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--trust-remote") && said.contains(&endpoint), "{said}");
    assert!(server.log().is_empty(), "a request went out: {:?}", server.log());
    let trusting = sandbox.mount_with(registry.repository(), &["--trust-remote"]);
    assert_eq!(fs::read(trusting.path("main/a")).unwrap(), b"bytes");
    drop(trusting);
    a_store_that_links_out_of_itself_gives_nothing();
}

fn a_store_that_links_out_of_itself_gives_nothing() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let secret = sandbox.path("secret");
    fs::write(&secret, "secret").unwrap();
    let blob = registry.put(b"secret").unwrap();
    let object = registry.objects().join(blob.path());
    fs::remove_file(&object).unwrap();
    symlink(&secret, &object).unwrap();
    registry.track_file("a", &blob).unwrap();
    registry.commit("Track a file", DATE).unwrap();
    let mount = sandbox.mount(registry.repository());
    let errno = errno_of_reading(&mount.path("main/a"));
    assert!([Some(EIO), Some(EACCES)].contains(&errno), "{errno:?}");
}
