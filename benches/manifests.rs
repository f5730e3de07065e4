//! Manifests: parsed, compiled, opened, looked up, listed; and the tree of a registry with many
//! `.dvc` files, built first and once more after a change.

use std::{
    fmt::Write as _,
    fs,
    hint::black_box,
    ops::ControlFlow,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dvcfs::{
    dvc::manifest::{Entry, Sink, read},
    git::Repository,
    id::{Scheme, TreeId, hex},
    segments::{Segment, Segments},
    tree::{self, Known},
};

const ID: TreeId = TreeId { digest: [7; 16], scheme: Scheme::Md5 };

/// A manifest as DVC writes it, of folders of a thousand files each.
fn manifest(count: usize) -> String {
    let mut text = String::with_capacity(count * 90);
    for n in 0..count {
        let digest = (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
        let digest = hex(&digest.to_be_bytes());
        let start = if n == 0 { "[" } else { ", " };
        let (folder, name) = (n / 1000, n % 1000);
        write!(
            text,
            "{start}{{\"md5\": \"{digest}\", \"relpath\": \"speaker_{folder:05}/clip_{name:06}.wav\"}}"
        )
        .expect("a string takes everything");
    }
    text + "]"
}

struct Count(u64);

impl Sink for Count {
    fn take(&mut self, entry: Entry<'_>) {
        self.0 += entry.relpath.len() as u64;
    }

    fn start_over(&mut self) {
        self.0 = 0;
    }
}

fn list_all(segment: &Segment) -> u64 {
    let (mut open, mut bytes) = (vec![Segment::ROOT], 0);
    while let Some(folder) = open.pop() {
        let rows = segment.children(folder).expect("a sound file");
        let walked = segment.walk(rows, |row, name, kind| {
            bytes += name.len() as u64;
            if kind == dvcfs::segments::RowKind::Folder {
                open.push(row);
            }
            ControlFlow::Continue(())
        });
        walked.expect("a sound file");
    }
    bytes
}

fn manifests(criterion: &mut Criterion) {
    const COUNT: usize = 100_000;
    let text = manifest(COUNT);
    let folder = tempfile::tempdir().expect("a folder");
    let segments = Segments::new(Some(folder.path()));
    let mut group = criterion.benchmark_group("manifest compile");
    group.sample_size(10);
    group.bench_function("parse 100k", |bencher| {
        bencher.iter(|| read(|| Ok(text.as_bytes()), &mut Count(0)).expect("a sound text"));
    });
    group.bench_function("compile 100k", |bencher| {
        bencher.iter(|| segments.compile(ID, || Ok(text.as_bytes())).expect("a sound text"));
    });
    group.bench_function("open 100k", |bencher| {
        bencher.iter(|| segments.open(ID).expect("it was compiled"));
    });
    let segment = segments.open(ID).expect("it was compiled");
    group.bench_function("list 100k", |bencher| bencher.iter(|| list_all(&segment)));
    let mut n = 0_usize;
    group.bench_function("look up a path", |bencher| {
        bencher.iter_batched(
            || {
                n = (n + 76_543) % COUNT;
                format!("speaker_{:05}/clip_{:06}.wav", n / 1000, n % 1000)
            },
            |path| black_box(segment.find(path.as_bytes())),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    if std::env::var_os("DVCFS_BENCH_LARGE").is_some() {
        large();
        many_dotfiles();
    }
}

/// Resident memory of this process now and at its highest, in MB.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1000
    };
    (value("VmRSS:"), value("VmHWM:"))
}

fn tell(what: &str, since: Instant) {
    use std::io::Write as _;
    let (now, most) = memory();
    let seconds = since.elapsed().as_secs_f64();
    let line = format!("{what}: {seconds:.4} s, {now} MB resident, {most} MB at most\n");
    // A closed terminal is no reason to fail.
    _ = std::io::stderr().write_all(line.as_bytes());
}

/// A million entries, once each: what is measured is the first time and the memory.
fn large() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("manifest");
    fs::write(&path, manifest(1_000_000)).expect("room on the disk");
    // What writing the text took is not to count.
    _ = fs::write("/proc/self/clear_refs", "5");
    let segments = Segments::new(Some(&folder.path().join("compiled")));
    tell("before", Instant::now());
    let open = || Ok(std::io::BufReader::with_capacity(64 << 10, fs::File::open(&path)?));
    let since = Instant::now();
    let compiled = segments.compile(ID, open).expect("a sound text");
    tell("1M entries compiled", since);
    drop(compiled);
    let again = Segments::new(Some(&folder.path().join("compiled")));
    let since = Instant::now();
    let segment = again.open(ID).expect("it was compiled");
    let row = segment.find(b"speaker_00500/clip_000500.wav").expect("a sound file");
    assert!(row.is_some());
    tell("opened again, one path looked up", since);
    let since = Instant::now();
    let bytes = list_all(&segment);
    tell(&format!("listed, {bytes} bytes of names"), since);
}

/// A hundred thousand `.dvc` files in a thousand folders.
fn many_dotfiles() {
    const COUNT: usize = 100_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut stream = "commit refs/heads/main\ncommitter A <a@localhost> 1700000000 +0000\n\
                      data 0\nM 100644 inline .dvc/config\ndata 0\n\n"
        .to_owned();
    let file = |stream: &mut String, n: usize, seed: usize| {
        let digest = hex(&((n + seed) as u128).to_be_bytes());
        let text = format!("outs:\n- md5: {digest}\n  size: 6\n  hash: md5\n  path: {n:06}.wav\n");
        let (folder, length) = (n / 100, text.len());
        write!(stream, "M 100644 inline d{folder:04}/{n:06}.wav.dvc\ndata {length}\n{text}\n")
            .expect("a string takes everything");
    };
    (0..COUNT).for_each(|n| file(&mut stream, n, 0));
    stream += "commit refs/heads/main\ncommitter A <a@localhost> 1700000001 +0000\ndata 0\n";
    file(&mut stream, 54_321, 7_000_000);
    let repository = import(folder.path(), &stream);
    let known = Known::default();
    for revision in ["main~1", "main", "main~1"] {
        let commit = repository.resolve(revision).expect("it was imported").commit;
        let since = Instant::now();
        let tree = tree::build(&repository, commit, &known).expect("a sound commit");
        assert_eq!(tree.outputs().count(), COUNT);
        tell(&format!("tree of {revision} with 100k .dvc files"), since);
    }
}

fn import(folder: &Path, stream: &str) -> Repository {
    use std::io::Write as _;
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(folder).args(args).stdin(Stdio::piped());
        command.spawn().expect("git is there")
    };
    let status = git(&["init", "--quiet", "--bare", "--initial-branch=main"]).wait();
    assert!(status.is_ok_and(|status| status.success()));
    let mut child = git(&["fast-import", "--quiet"]);
    child.stdin.take().expect("it was asked for").write_all(stream.as_bytes()).expect("git reads");
    assert!(child.wait().is_ok_and(|status| status.success()));
    Repository::open(folder).expect("it was made")
}

criterion_group!(benches, manifests);
criterion_main!(benches);
