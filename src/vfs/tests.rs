//! What a file system holds in memory, by counts.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use tokio::runtime::Runtime;

use super::*;
use crate::{
    blobs,
    cache::{self, BlobCache},
    git::Location,
    overlay::Overlay,
    registry::{AwsFiles, RegistryOptions, Trusted},
    sizes::SizeIndex,
};

/// Runs git in a bare repository, with a text for it to read; gives what it prints.
fn git(repository: &Path, args: &[&str], input: &str) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.env("GIT_CONFIG_NOSYSTEM", "1").spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A repository of so many commits, each with another file `x`; gives their hashes.
fn commits(repository: &Path, count: usize) -> Vec<String> {
    std::fs::create_dir_all(repository).unwrap();
    git(repository, &["init", "--quiet", "--bare", "--initial-branch=main"], "");
    let commit = |n: usize| {
        let text = n.to_string();
        let time = 1_700_000_000 + n;
        format!(
            "commit refs/heads/main\ncommitter A <a@localhost> {time} +0000\ndata 0\n\
             M 100644 inline x\ndata {}\n{text}\n\n",
            text.len()
        )
    };
    let stream: String = (0..count).map(commit).collect();
    git(repository, &["fast-import", "--quiet"], &stream);
    git(repository, &["rev-list", "main"], "").lines().map(str::to_owned).collect()
}

fn file_system(folder: &Path, repository: &Path, tree_memory: u64) -> Lab {
    laboratory(folder, repository, (Layout::AllRevisions, tree_memory))
}

/// A writable mount of a repository's only commit.
pub(super) fn writable(folder: &Path) -> Lab {
    let repository = folder.join("registry.git");
    let commit = crate::git::GitId::parse(&commits(&repository, 1)[0]).unwrap();
    let (revision, commit) = ("main".to_owned(), CommitId(commit));
    let layout = Layout::One { revision, commit, follows: None };
    let mut lab = laboratory(folder, &repository, (layout, u64::MAX));
    lab.vfs.put_over(Overlay::open(&folder.join("overlay")).unwrap());
    // Nobody is to be told of anything.
    lab.events = mpsc::unbounded_channel().1;
    lab
}

fn laboratory(folder: &Path, repository: &Path, (layout, tree_memory): (Layout, u64)) -> Lab {
    let runtime = Runtime::new().unwrap();
    let options = RegistryOptions {
        state_dir: folder.join("state"),
        dvc_system_config: folder.join("system"),
        dvc_global_config: folder.join("global"),
        home: None,
        ssh_command: None,
        is_interactive: false,
        progress: None,
        trusted: Trusted::Settings(Vec::new()),
        remote: None,
        wanted: Vec::new(),
        aws: AwsFiles::default(),
    };
    let registry = Registry::open(&Location::Path(repository.to_owned()), options).unwrap();
    let cache = cache::Options {
        dir: folder.join("cache"),
        neighbours: Vec::new(),
        seen: folder.join("checked"),
        max_bytes: 1 << 20,
        min_free_bytes: 0,
    };
    let stats = Arc::<Stats>::default();
    let cache = BlobCache::open(cache, Arc::clone(&stats));
    let sizes = Arc::new(SizeIndex::open(&folder.join("sizes")));
    let (invalid, _) = mpsc::channel(1);
    let handle = runtime.handle().clone();
    let blobs = Blobs::new(cache, sizes, stats, handle.clone(), blobs::Options::new(invalid));
    let options = VfsOptions {
        uid: 0,
        gid: 0,
        only_inner_links: false,
        verify_before_open: false,
        mounted_at: 0,
        tree_memory,
        descriptors: 64,
    };
    let table = InodeTable::open(&folder.join("inodes")).unwrap();
    let (events, received) = mpsc::unbounded_channel();
    let (registry, layout) = (Arc::new(registry), (layout, options));
    let segments = Arc::new(Segments::new(None));
    let vfs = Vfs::new(registry, Arc::new(blobs), layout, (table, segments), events, handle);
    Lab { runtime, vfs: vfs.unwrap(), events: received }
}

pub(super) struct Lab {
    pub(super) runtime: Runtime,
    pub(super) vfs: Arc<Vfs>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Lab {
    pub(super) fn look(&self, folder: Ino, name: &str) -> Ino {
        let answer = self.vfs.lookup(folder, name.as_bytes());
        match self.runtime.block_on(answer.wait()).unwrap() {
            Lookup::Found { attr, .. } => attr.ino,
            Lookup::Absent(_) => panic!("{name} is not there"),
        }
    }
}

#[test]
fn ten_thousand_revisions_one_after_another_leave_nothing_behind() {
    const COUNT: usize = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("registry.git");
    let hashes = commits(&repository, COUNT);
    assert_eq!(hashes.len(), COUNT);
    let lab = file_system(folder.path(), &repository, u64::MAX);
    let above = lab.look(ROOT_INO, "commits");
    for (n, hash) in hashes.iter().enumerate() {
        let top = lab.look(above, hash);
        let file = lab.look(top, "x");
        assert_eq!(lab.vfs.held().epochs, 1);
        if n % 100 == 0 {
            let link = lab.look(above, &hash[..16]);
            assert_eq!(lab.vfs.held().names, 2);
            lab.vfs.forget(link, 1);
        }
        lab.vfs.forget(file, 1);
        assert_eq!(lab.vfs.held().epochs, 1, "the kernel still knows its root");
        lab.vfs.forget(top, 1);
    }
    let held = lab.vfs.held();
    assert_eq!(Held { trees: 0, ..held }, Held { epochs: 0, names: 1, trees: 0, manifests: 0 });
    assert!(held.trees <= KEPT_TREES.get(), "{held:?}");
    lab.vfs.forget(above, 1);
    assert_eq!(lab.vfs.held().names, 0);

    // What is looked at again is the same inode, and a new mount would say so too.
    let table = std::fs::read_to_string(folder.path().join("inodes")).unwrap();
    assert_eq!(table.lines().filter(|line| line.starts_with("slot ")).count(), COUNT);
    let above = lab.look(ROOT_INO, "commits");
    let (first, again) = (lab.look(above, &hashes[0]), lab.look(above, &hashes[0]));
    assert_eq!(first, again);
    assert_eq!(first.slot(), 1);
}

#[test]
fn the_kernel_is_asked_to_forget_the_oldest_revisions_when_trees_take_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("registry.git");
    let hashes = commits(&repository, 5);
    let mut lab = file_system(folder.path(), &repository, 0);
    let above = lab.look(ROOT_INO, "commits");
    for hash in &hashes {
        let top = lab.look(above, hash);
        lab.look(top, "x");
    }
    let mut asked = Vec::new();
    while let Ok(event) = lab.events.try_recv() {
        let Event::Forget { ino, name } = event else { panic!("{event:?}") };
        assert_eq!(ino, above);
        asked.push(String::from_utf8(name).unwrap());
    }
    asked.sort();
    asked.dedup();
    let mut oldest = hashes[..3].to_vec();
    oldest.sort();
    assert_eq!(asked, oldest);
}

#[test]
fn a_tree_built_after_others_is_what_it_is_alone() {
    const COUNT: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("registry.git");
    std::fs::create_dir_all(&repository).unwrap();
    git(&repository, &["init", "--quiet", "--bare", "--initial-branch=main"], "");
    let mut stream = String::new();
    for n in 0..COUNT {
        let time = 1_700_000_000 + n;
        let start = format!("commit refs/heads/main\ncommitter A <a@localhost> {time} +0000\n");
        stream += &start;
        stream += "data 0\n";
        let mut file = |path: &str, text: &str| {
            let length = text.len();
            write!(stream, "M 100644 inline {path}\ndata {length}\n{text}\n").unwrap();
        };
        if n == 0 {
            file(".dvc/config", "");
            file("sub/.dvc/config", "");
        }
        // The same bytes at several places, in two projects, now and then unreadable or ignored.
        let place = ["a", "b/c", "sub/d", "b"][n % 4];
        let hash = n / 8;
        let text =
            format!("outs:\n- md5: {hash:032x}\n  size: 6\n  hash: md5\n  path: x{}\n", n % 3);
        file(&format!("{place}/x{}.dvc", n % 3), if n % 11 == 0 { "outs: 7\n" } else { &text });
        match n % 9 {
            4 => file("b/.dvcignore", "x1\n"),
            7 => file("b/.dvcignore", "# nothing\n"),
            8 => stream += "D a\n",
            _ => {}
        }
        stream += "\n";
    }
    git(&repository, &["fast-import", "--quiet"], &stream);
    let repository = crate::git::Repository::open(&repository).unwrap();
    let (known, mut shared) = (Known::default(), 0);
    for back in 0..COUNT {
        let commit = repository.resolve(&format!("main~{back}")).unwrap().commit;
        let after_others = tree::build(&repository, commit, &known).unwrap();
        let alone = tree::build(&repository, commit, &Known::default()).unwrap();
        let outputs = |tree: &Tree| tree.outputs().map(|o| (*o.output).clone()).collect::<Vec<_>>();
        assert_eq!(outputs(&after_others), outputs(&alone));
        assert_eq!(after_others.problems, alone.problems);
        assert_eq!(after_others.base_len(), alone.base_len());
        for index in 0..alone.base_len() {
            assert_eq!(after_others.node(index), alone.node(index));
            assert_eq!(after_others.path(index), alone.path(index));
        }
        shared += after_others.outputs().filter(|o| Arc::strong_count(&o.output) > 1).count();
    }
    assert!(shared > COUNT, "what is known is shared");
}
