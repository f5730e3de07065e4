//! Branches that move while programs look.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    registry_builder::RegistryBuilder,
    support::{
        DATE, Listing, Mount, Sandbox, eventually, in_each_open_mode, list, noise,
        registry_on_disk, succeed,
    },
};

const FILES: u64 = 40;

in_each_open_mode! {
    an_open_file_keeps_its_bytes_and_new_lookups_see_the_new_commit,
    a_walk_during_moves_ends_and_every_tree_opened_by_its_folder_is_whole,
    tags_keep_their_bytes_and_inodes_while_branches_move,
    history_that_was_rewritten_upstream_is_followed_and_old_commits_stay,
    branches_and_tags_come_and_go_in_listings,
    a_branch_that_is_followed_moves_by_itself,
}

/// A registry whose every commit replaces the whole content: commit `n` has `n` in each file.
struct Moving {
    sandbox: Sandbox,
    registry: RegistryBuilder,
    commits: Vec<String>,
}

impl Moving {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let registry = registry_on_disk(&sandbox);
        let mut moving = Self { sandbox, registry, commits: Vec::new() };
        moving.advance();
        moving
    }

    /// Commits the next content, of the same sizes as the one before.
    fn advance(&mut self) {
        let number = self.commits.len() as u64;
        let blob = |n| self.registry.put(&content(number, n)).unwrap();
        let names: Vec<_> = (0..FILES).map(|n| format!("part {}/clip {n}", n % 4)).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip((0..FILES).map(blob)).collect();
        self.registry.track_folder("data", &files).unwrap();
        self.registry.track_file("single.bin", &blob(FILES)).unwrap();
        self.registry.text("version.txt", &format!("version {number}\n")).unwrap();
        self.commits.push(self.registry.commit(&format!("version {number}"), DATE).unwrap());
    }

    fn mount(&self, args: &[&str]) -> Mount {
        self.sandbox.mount_with(self.registry.repository(), args)
    }

    fn refresh(&self, mount: &Mount) {
        let args = ["refresh".as_ref(), mount.dir().as_os_str()];
        succeed(&mut self.sandbox.dvcfs(args));
    }
}

fn content(number: u64, file: u64) -> Vec<u8> {
    noise(number * 1000 + file, 3000)
}

/// The number of the version that a tree is, wholly.
///
/// # Panics
///
/// When it is a mixture of versions.
fn version_of(tree: &Listing, versions: &[Listing]) -> usize {
    let found = versions.iter().position(|version| version == tree);
    found.unwrap_or_else(|| panic!("a mixture of versions: {tree:#?}"))
}

/// Whether a tree is that of a version, by the name that the kernel is told of last.
fn shows(root: &Path, number: u64) -> bool {
    fs::read_to_string(root.join("version.txt")).unwrap() == format!("version {number}\n")
}

/// How the tree of the followed branch is reached in each layout.
fn layouts(moving: &Moving) -> [(Mount, PathBuf); 2] {
    let all = moving.mount(&[]);
    let one = moving.mount(&["--rev", "main"]);
    let (below, root) = (all.path("branches/main"), one.dir().to_owned());
    [(all, below), (one, root)]
}

fn an_open_file_keeps_its_bytes_and_new_lookups_see_the_new_commit() {
    let mut moving = Moving::new();
    for (mount, root) in layouts(&moving).into_iter().collect::<Vec<_>>() {
        let number = moving.commits.len() as u64 - 1;
        moving.refresh(&mount);
        eventually("the present commit is seen", || shows(&root, number));
        let names = ["data/part 1/clip 1", "data/part 1/clip 5", "single.bin", "version.txt"];
        let files = names.map(|name| File::open(root.join(name)).unwrap());
        let mut begun = vec![0; 100];
        files[0].read_exact_at(&mut begun, 0).unwrap();
        let folder = File::open(root.join("data")).unwrap();

        moving.advance();
        moving.refresh(&mount);
        let [one, five, single, mut version] = files;
        for (file, index) in [(&one, 1), (&five, 5), (&single, FILES)] {
            let mut bytes = vec![0; 3000];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes == content(number, index), "an open file of version {number} changed");
        }
        let mut text = String::new();
        version.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("version {number}\n"));
        assert!(folder.metadata().unwrap().is_dir());

        eventually("the new commit is seen", || shows(&root, number + 1));
        for (name, index) in [(names[0], 1), (names[1], 5), (names[2], FILES)] {
            let bytes = fs::read(root.join(name)).unwrap();
            assert!(bytes == content(number + 1, index), "{name} is not of the new commit");
        }
    }
}

fn a_walk_during_moves_ends_and_every_tree_opened_by_its_folder_is_whole() {
    let mut moving = Moving::new();
    let mounts = layouts(&moving);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let walkers = mounts.each_ref().map(|(_, root)| {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut walks = 0;
                while !is_over.load(Ordering::Relaxed) || walks == 0 {
                    walk(root);
                    walks += 1;
                }
            })
        });
        for _ in 0..6 {
            moving.advance();
            for (mount, _) in &mounts {
                moving.refresh(mount);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        for walker in walkers {
            walker.join().unwrap();
        }
    });
    let versions: Vec<_> =
        moving.commits.iter().map(|sha| list(&mounts[0].0.path("commits").join(sha))).collect();
    for (_, root) in &mounts {
        eventually("the last commit is seen", || {
            version_of(&list(root), &versions) == versions.len() - 1
        });
    }
}

/// Walks a tree as `find` does, and reads what it finds. Names may vanish under it.
fn walk(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map_while(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path()),
            Ok(_) => drop(fs::read(entry.path()).unwrap()),
            Err(error) => panic!("{}: {error}", entry.path().display()),
        }
    }
}

/// Inode numbers below a folder.
fn inodes(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.path(), entry.metadata().unwrap().ino())).collect()
}

fn tags_keep_their_bytes_and_inodes_while_branches_move() {
    let mut moving = Moving::new();
    moving.registry.git(&["tag", "v0"]).unwrap();
    let mount = moving.mount(&[]);
    let tag = mount.path("tags/v0");
    let (tree, numbers) = (list(&tag), inodes(&tag));
    for _ in 0..3 {
        moving.advance();
        moving.refresh(&mount);
        assert_eq!(list(&tag), tree);
        assert_eq!(inodes(&tag), numbers);
    }
}

fn history_that_was_rewritten_upstream_is_followed_and_old_commits_stay() {
    let mut moving = Moving::new();
    moving.advance();
    let upstream = format!("file://{}", moving.registry.repository().display());
    let mount = moving.sandbox.mount(&upstream);
    let old = mount.path("commits").join(&moving.commits[1]);
    let before = list(&old);
    moving.registry.git(&["reset", "--quiet", "--hard", &moving.commits[0]]).unwrap();
    moving.registry.text("version.txt", "rewritten\n").unwrap();
    let rewritten = moving.registry.commit("Rewrite", DATE).unwrap();
    moving.refresh(&mount);
    eventually("the rewritten commit is seen", || {
        fs::read_to_string(mount.path("main/version.txt")).unwrap() == "rewritten\n"
    });
    assert_eq!(list(&mount.path("branches/main")), list(&mount.path("commits").join(rewritten)));
    assert_eq!(list(&old), before);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn branches_and_tags_come_and_go_in_listings() {
    let moving = Moving::new();
    for repository in [
        moving.registry.repository().display().to_string(),
        format!("file://{}", moving.registry.repository().display()),
    ] {
        let mount = moving.sandbox.mount(&repository);
        assert_eq!(names(&mount.path("branches")), ["main"]);
        assert_eq!(names(mount.dir()), ["HEAD", "at", "branches", "commits", "main", "tags"]);
        assert!(fs::metadata(mount.path("branches/review")).is_err());

        moving.registry.git(&["branch", "review/sound"]).unwrap();
        moving.registry.git(&["branch", "trial"]).unwrap();
        moving.registry.git(&["tag", "fresh"]).unwrap();
        moving.refresh(&mount);
        let seen = |names: Vec<String>, expected: &[&str]| names == expected;
        eventually("new names are listed", || {
            seen(names(&mount.path("branches")), &["main", "review", "trial"])
                && seen(names(&mount.path("branches/review")), &["sound"])
                && seen(names(&mount.path("tags")), &["fresh"])
                && names(mount.dir()).contains(&"trial".into())
        });
        assert_eq!(list(&mount.path("branches/review/sound")), list(&mount.path("tags/fresh")));
        let kept = File::open(mount.path("trial/version.txt")).unwrap();

        moving.registry.git(&["branch", "-D", "review/sound", "trial"]).unwrap();
        moving.registry.git(&["tag", "-d", "fresh"]).unwrap();
        moving.refresh(&mount);
        eventually("gone names vanish", || {
            seen(names(&mount.path("branches")), &["main"])
                && !names(mount.dir()).contains(&"trial".into())
                && fs::metadata(mount.path("branches/trial")).is_err()
        });
        let mut text = vec![0; 9];
        kept.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(text, b"version 0");
    }
}

fn a_branch_that_is_followed_moves_by_itself() {
    let mut moving = Moving::new();
    let mount = moving.mount(&["--rev", "main", "--follow=1s"]);
    assert_eq!(fs::read_to_string(mount.path("version.txt")).unwrap(), "version 0\n");
    moving.advance();
    eventually("the new commit is seen", || {
        fs::read_to_string(mount.path("version.txt")).unwrap() == "version 1\n"
    });
    let pinned = moving.mount(&["--rev", "main", "--no-follow"]);
    moving.advance();
    moving.refresh(&pinned);
    assert_eq!(fs::read_to_string(pinned.path("version.txt")).unwrap(), "version 1\n");
}
