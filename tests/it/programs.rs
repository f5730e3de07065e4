//! Real programs on a real mount.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use crate::{
    registry_builder::RegistryBuilder,
    support::{
        DATE, Fixture, Listing, Mount, Sandbox, assert_same, list, noise, registry_on_disk,
        registry_on_s3, succeed, text,
    },
};

/// The audio registry, mounted, and what its tag `v2.1` holds.
struct Audio {
    mount: Mount,
    tree: Listing,
    /// Last, so that it outlives the mount.
    sandbox: Sandbox,
}

impl Audio {
    fn mounted() -> Self {
        let sandbox = Sandbox::new();
        let fixture = Fixture::read("audio-registry");
        let place = fixture.unpack(&sandbox);
        let mount = sandbox.mount(place.work_tree());
        Self { mount, tree: fixture.manifest.revisions["v2.1"].tree(), sandbox }
    }

    fn root(&self) -> PathBuf {
        self.mount.path("tags/v2.1")
    }

    /// Every wav file.
    fn sounds(&self) -> Vec<PathBuf> {
        let names = self.tree.keys().map(|path| String::from_utf8(path.clone()).unwrap());
        let sounds = names.filter(|name| name.ends_with(".wav")).map(|name| self.root().join(name));
        let sounds: Vec<_> = sounds.collect();
        assert!(sounds.len() > 5);
        sounds
    }
}

/// The Python that the suite's set-up made, with DVC beside it.
fn python_folder() -> PathBuf {
    let folder = std::env::var_os("DVCFS_TEST_VENV");
    let folder = folder.expect("DVCFS_TEST_VENV names a virtual environment with DVC");
    Path::new(&folder).join("bin")
}

fn python(sandbox: &Sandbox, script: &str, args: &[PathBuf]) -> String {
    text(sandbox.tool(python_folder().join("python")).args(["-c", script]).args(args))
}

#[test]
fn ls_and_find_see_every_name_kind_and_size() {
    let audio = Audio::mounted();
    let listed = text(audio.sandbox.tool("ls").arg("-lR").arg(audio.root()));
    assert!(listed.contains("track 1.wav"), "{listed}");
    assert!(!listed.contains('?'), "{listed}");
    let printed = succeed(audio.sandbox.tool("find").arg(audio.root()).args(["-printf", "%P\\0"]));
    let found: BTreeSet<_> =
        printed.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    assert_eq!(found, audio.tree.keys().map(|path| &path[..]).collect());
}

#[test]
fn cp_copies_the_whole_tree() {
    let audio = Audio::mounted();
    let copy = audio.sandbox.path("copy");
    succeed(audio.sandbox.tool("cp").arg("-a").args([&audio.root(), &copy]));
    assert_same("the copy", &audio.tree, &list(&copy));
}

#[test]
fn tar_packs_the_whole_tree() {
    let audio = Audio::mounted();
    let (archive, unpacked) = (audio.sandbox.path("all.tar"), audio.sandbox.folder("unpacked"));
    let mut tar = audio.sandbox.tool("tar");
    succeed(tar.arg("-cf").arg(&archive).arg("-C").arg(audio.root()).arg("."));
    succeed(audio.sandbox.tool("tar").arg("-xf").arg(&archive).arg("-C").arg(&unpacked));
    assert_same("what was unpacked", &audio.tree, &list(&unpacked));
}

#[test]
fn md5sum_agrees_with_the_extended_attributes() {
    let audio = Audio::mounted();
    for sound in audio.sounds() {
        let sum = text(audio.sandbox.tool("md5sum").arg("--zero").arg(&sound));
        let mut getfattr = audio.sandbox.tool("getfattr");
        let attribute = text(getfattr.args(["--only-values", "-n", "user.dvc.md5"]).arg(&sound));
        assert_eq!(sum.split(' ').next(), Some(&attribute[..]), "{}", sound.display());
    }
}

#[test]
fn getfattr_dumps_what_dvc_knows_of_a_file() {
    let audio = Audio::mounted();
    let sound = audio.sounds().remove(0);
    let mut getfattr = audio.sandbox.tool("getfattr");
    let dump = text(getfattr.args(["--dump", "--absolute-names"]).arg(&sound));
    let size = fs::metadata(&sound).unwrap().len();
    let rev = text(
        audio
            .sandbox
            .git(&audio.sandbox.path("fixture/audio-registry/repo.git"))
            .args(["rev-parse", "v2.1"]),
    );
    assert!(dump.contains(&format!("user.dvc.size=\"{size}\"")), "{dump}");
    assert!(dump.contains(&format!("user.dvc.rev=\"{rev}\"")), "{dump}");
    for name in ["md5", "path", "out", "cached", "remote"] {
        assert!(dump.contains(&format!("user.dvc.{name}=")), "{dump}");
    }
}

#[test]
fn rsync_copies_exactly_the_file_whose_bytes_changed_under_the_same_size() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let names = ["a.bin", "b.bin", "c.bin"];
    for (tag, seeds) in [("v1", [1, 2, 3]), ("v2", [1, 20, 3])] {
        let blobs = seeds.map(|seed| registry.put(&noise(seed, 5000)).unwrap());
        let files: Vec<_> = names.into_iter().zip(blobs).collect();
        registry.track_folder("data", &files).unwrap();
        registry.commit(tag, DATE).unwrap();
        registry.git(&["tag", tag]).unwrap();
    }
    let mount = sandbox.mount(registry.repository());
    let target = sandbox.folder("target");
    let copied = |tag: &str| {
        let mut source = mount.path("tags").join(tag).join("data").into_os_string();
        source.push("/");
        let mut rsync = sandbox.tool("rsync");
        let printed = text(rsync.args(["-a", "--out-format=%n"]).arg(source).arg(&target));
        let files = printed.lines().filter(|name| !name.ends_with('/'));
        files.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(copied("v1"), names);
    assert_eq!(copied("v1"), [""; 0]);
    assert_eq!(copied("v2"), ["b.bin"]);
    assert_same("the copy", &list(&mount.path("tags/v2/data")), &list(&target));
}

#[test]
fn sox_and_ffprobe_play_what_is_mounted() {
    let audio = Audio::mounted();
    for sound in audio.sounds() {
        let rate = text(audio.sandbox.tool("soxi").arg("-r").arg(&sound));
        succeed(audio.sandbox.tool("sox").arg(&sound).args(["-n", "stat"]));
        let mut ffprobe = audio.sandbox.tool("ffprobe");
        ffprobe.args(["-v", "error", "-show_entries", "stream=sample_rate", "-of", "csv=p=0"]);
        assert_eq!(text(ffprobe.arg(&sound)), rate, "{}", sound.display());
    }
}

#[test]
fn python_reads_with_wave_and_through_a_memory_map() {
    const SCRIPT: &str = "
import hashlib, mmap, sys, wave
for name in sys.argv[1:]:
    with wave.open(name) as sound:
        assert len(sound.readframes(sound.getnframes())) > 0
    with open(name, 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        print(hashlib.md5(view).hexdigest(), hashlib.md5(open(name, 'rb').read()).hexdigest())
";
    let audio = Audio::mounted();
    let sounds = audio.sounds();
    let printed = python(&audio.sandbox, SCRIPT, &sounds);
    assert_eq!(printed.lines().count(), sounds.len());
    for line in printed.lines() {
        let (mapped, read) = line.split_once(' ').unwrap();
        assert_eq!(mapped, read);
    }
}

#[test]
fn sqlite_queries_a_tracked_database() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let database = sandbox.path("made.db");
    let make = "create table t(x); with recursive n(x) as (select 1 union all select x + 1 from n \
                where x < 20000) insert into t select x from n; create index i on t(x);";
    succeed(sandbox.tool("sqlite3").arg(&database).arg(make));
    let blob = registry.put_file(&database).unwrap();
    registry.track_file("words.db", &blob).unwrap();
    registry.commit("Add a database", DATE).unwrap();
    let mount = sandbox.mount(registry.repository());
    let mut query = sandbox.tool("sqlite3");
    query.arg("-readonly").arg(mount.path("main/words.db"));
    assert_eq!(
        text(query.arg("select sum(x), count(*) from t where x > 10000")),
        "150005000|10000"
    );
}

/// A registry on S3 with one file, `big.bin`, of these bytes.
fn one_file_on_s3(sandbox: &Sandbox, bytes: &[u8]) -> (RegistryBuilder, crate::s3server::S3Server) {
    let (registry, server) = registry_on_s3(sandbox);
    let blob = registry.put(bytes).unwrap();
    registry.track_file("big.bin", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    (registry, server)
}

/// Sixteen threads and four processes read one cold file at once, and get all of it.
fn read_by_many(sandbox: &Sandbox, file: &Path, expected: &[u8]) {
    let sums: Vec<_> = thread::scope(|scope| {
        let processes =
            (0..4).map(|_| scope.spawn(|| text(sandbox.tool("md5sum").arg("--zero").arg(file))));
        let processes: Vec<_> = processes.collect();
        let threads = (0..16).map(|_| scope.spawn(|| assert!(fs::read(file).unwrap() == expected)));
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        processes.into_iter().map(|process| process.join().unwrap()).collect()
    });
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
}

#[test]
fn one_get_serves_all_who_read_a_cold_small_file_at_once() {
    let sandbox = Sandbox::new();
    let bytes = noise(1, 3 << 20);
    let (registry, server) = one_file_on_s3(&sandbox, &bytes);
    let mount = sandbox.mount(registry.repository());
    server.reset();
    read_by_many(&sandbox, &mount.path("main/big.bin"), &bytes);
    assert_eq!(server.requests("GET"), 1, "{:?}", server.log());
    assert_eq!(server.bytes_sent(), bytes.len() as u64);
}

#[test]
fn each_byte_is_sent_once_to_all_who_read_a_cold_large_file_at_once() {
    let sandbox = Sandbox::new();
    let bytes = noise(2, 20 << 20);
    let (registry, server) = one_file_on_s3(&sandbox, &bytes);
    let mount = sandbox.mount(registry.repository());
    server.reset();
    read_by_many(&sandbox, &mount.path("main/big.bin"), &bytes);
    assert_eq!(server.bytes_sent(), bytes.len() as u64, "{:?}", server.log());
}

#[test]
fn reading_a_header_of_a_gigabyte_fetches_less_than_4_mib() {
    const MD5_OF_ZEROS: &str = "cd573cfaace07e7949bc0c46028904ff";
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    let zeros = sandbox.path("zeros");
    File::create(&zeros).unwrap().set_len(1 << 30).unwrap();
    let blob = registry.put_known(&zeros, dvcfs::id::parse_digest(MD5_OF_ZEROS).unwrap()).unwrap();
    registry.track_file("long.wav", &blob).unwrap();
    registry.commit("Add a long recording", DATE).unwrap();
    let mount = sandbox.mount(registry.repository());
    server.reset();
    let mut header = vec![1; 64 << 10];
    File::open(mount.path("main/long.wav")).unwrap().read_exact(&mut header).unwrap();
    assert!(header.iter().all(|byte| *byte == 0));
    assert!(server.bytes_sent() < 4 << 20, "{} bytes", server.bytes_sent());

    // So does reading at the end, as programs do that look for an index there.
    let file = File::open(mount.path("main/long.wav")).unwrap();
    file.read_exact_at(&mut header, (1 << 30) - (64 << 10)).unwrap();
    assert!(server.bytes_sent() < 8 << 20, "{} bytes", server.bytes_sent());
}

/// DVC, with its cache at the mount's.
fn dvc(sandbox: &Sandbox, work_tree: &Path, args: &[&str]) -> Command {
    let mut command = sandbox.tool(python_folder().join("dvc"));
    command.current_dir(work_tree).args(args);
    command
}

/// How many blobs were sent; manifests and the like are not blobs.
fn blobs_sent(server: &crate::s3server::S3Server) -> usize {
    let log = server.log();
    let sent = |request: &&crate::s3server::Request| {
        request.method == "GET"
            && request.path.contains("files/md5/")
            && !request.path.ends_with(".dir")
    };
    log.iter().filter(sent).count()
}

#[test]
fn two_mounts_and_dvc_share_one_cache_in_both_directions() {
    let sandbox = Sandbox::new();
    let (registry, server) = registry_on_s3(&sandbox);
    for (tag, first) in [("v1", 0), ("v2", 100)] {
        let blobs: Vec<_> =
            (0..10).map(|n| registry.put(&noise(first + n, 9000)).unwrap()).collect();
        let names: Vec<_> = (0..10).map(|n| format!("clip {n}.wav")).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(blobs).collect();
        registry.track_folder("clips", &files).unwrap();
        registry.track_file("one.bin", &registry.put(&noise(first + 50, 7)).unwrap()).unwrap();
        registry.commit(tag, DATE).unwrap();
        registry.git(&["tag", tag]).unwrap();
    }
    let clone = sandbox.path("clone");
    let mut git = sandbox.git(&sandbox.folder("home"));
    succeed(git.args(["clone", "--quiet"]).arg(registry.repository()).arg(&clone));
    let cache = sandbox.cache();
    let config = ["config", "--local", "cache.dir", cache.to_str().unwrap()];
    succeed(&mut dvc(&sandbox, &clone, &config));

    // What the mounts fetched, DVC takes from the cache.
    let (one, two) = (sandbox.mount(registry.repository()), sandbox.mount(registry.repository()));
    let listings = thread::scope(|scope| {
        let roots = [&one, &two].map(|mount| mount.path("tags/v1"));
        let listings = roots.map(|root| scope.spawn(move || list(&root)));
        listings.map(|listing| listing.join().unwrap())
    });
    assert_same("the two mounts", &listings[0], &listings[1]);
    server.reset();
    succeed(sandbox.git(&clone).args(["checkout", "--quiet", "v1"]));
    succeed(&mut dvc(&sandbox, &clone, &["pull"]));
    assert_eq!(blobs_sent(&server), 0, "{:?}", server.log());
    assert_eq!(text(&mut dvc(&sandbox, &clone, &["status"])), "Data and pipelines are up to date.");

    // What DVC fetched, the mounts take from the cache.
    succeed(sandbox.git(&clone).args(["checkout", "--quiet", "v2"]));
    succeed(&mut dvc(&sandbox, &clone, &["pull"]));
    server.reset();
    let mounted = list(&one.path("tags/v2/clips"));
    assert_same("the folder", &list(&clone.join("clips")), &mounted);
    assert_same("the folder", &list(&two.path("tags/v2/clips")), &mounted);
    assert_eq!(blobs_sent(&server), 0, "{:?}", server.log());
}
