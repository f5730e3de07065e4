//! Sizes that are not true, whoever says so: the file fails or is put right, and is never short.

use std::{fs, path::Path, thread};

use dvcfs::{
    id::Key,
    sizes::{Scope, Size, SizeIndex},
};

use crate::{
    registry_builder::Blob,
    support::{DATE, EIO, PREFIX, Sandbox, eventually, in_each_open_mode, noise, registry_on_s3},
};

in_each_open_mode! {
    claims_of_the_index_that_lie,
    claims_of_declarations_that_lie,
}

/// A blob that is checked before it is served, and one that streams.
const LENGTHS: [usize; 2] = [100_000, 9 << 20];

/// What is said of each: too small, a little and much too large, and of the other kind.
fn lies(length: usize) -> [usize; 5] {
    [1, length / 2, length - 1, length + 1, if length > 8 << 20 { 70_000 } else { 10 << 20 }]
}

/// A file of which a wrong size is told.
struct Liar {
    name: String,
    content: Vec<u8>,
    blob: Blob,
    lie: u64,
}

impl Liar {
    fn key(&self) -> Key {
        Key::from_path(&self.blob.path()).unwrap()
    }

    /// Reads until that works, which it must soon.
    fn assert_is_read(&self, path: &Path) {
        let what =
            format!("{} bytes, said to be {}: {}", self.content.len(), self.lie, path.display());
        for again in ["at first", "again"] {
            eventually(&what, || match fs::read(path) {
                Ok(bytes) => {
                    assert!(bytes == self.content, "{what}: {} bytes, {again}", bytes.len());
                    true
                }
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(EIO), "{what}, {again}");
                    assert_eq!(again, "at first", "{what}: it fails again");
                    false
                }
            });
        }
        assert_eq!(path.metadata().unwrap().len(), self.content.len() as u64, "{what}");
    }
}

fn liars(mut put: impl FnMut(&[u8]) -> Blob, more: &[usize]) -> Vec<Liar> {
    let mut liars = Vec::new();
    for length in LENGTHS {
        for lie in lies(length).iter().chain(more) {
            let content = noise((length + lie) as u64, length);
            let blob = put(&content);
            liars.push(Liar { name: format!("{length}-{lie}"), content, blob, lie: *lie as u64 });
        }
    }
    liars
}

/// Asserts that the index knows better now, and for good.
fn assert_is_corrected(sandbox: &Sandbox, liars: &[Liar]) {
    let index = SizeIndex::open(&sandbox.path("state/sizes"));
    for liar in liars {
        let bytes = liar.content.len() as u64;
        let known = index.get(&liar.key(), Scope::of("s3://elsewhere"));
        assert_eq!(known, Some(Size { bytes, is_verified: true }), "{}", liar.name);
    }
}

fn assert_all_are_read(mount: &Path, liars: &[Liar], folders: &[&str]) {
    thread::scope(|scope| {
        for liar in liars {
            scope.spawn(move || {
                for folder in folders {
                    liar.assert_is_read(&mount.join(folder).join(&liar.name));
                }
            });
        }
    });
}

fn claims_of_the_index_that_lie() {
    let sandbox = Sandbox::new();
    let (registry, _server) = registry_on_s3(&sandbox);
    let liars = liars(|content| registry.put(content).unwrap(), &[]);
    let files: Vec<_> = liars.iter().map(|liar| (&liar.name[..], liar.blob)).collect();
    for folder in ["one", "two"] {
        registry.track_folder(folder, &files).unwrap();
    }
    registry.commit("Add files", DATE).unwrap();
    let index = SizeIndex::open(&sandbox.folder("state").join("sizes"));
    let scope = Scope::of(&format!("s3://{PREFIX}"));
    index.record_claims(liars.iter().map(|liar| (liar.key(), liar.lie)), scope);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    // The kernel is told all of them before it learns better of any.
    for (folder, liar) in ["one", "two"].iter().flat_map(|it| liars.iter().map(move |l| (it, l))) {
        let path = mount.path(folder).join(&liar.name);
        assert_eq!(path.metadata().unwrap().len(), liar.lie, "{}", path.display());
    }
    assert_all_are_read(mount.dir(), &liars, &["one", "two"]);
    assert_is_corrected(&sandbox, &liars);
}

fn claims_of_declarations_that_lie() {
    let sandbox = Sandbox::new();
    let (registry, _server) = registry_on_s3(&sandbox);
    let liars = liars(|content| registry.put(content).unwrap(), &[0]);
    for liar in &liars {
        let mut declared = liar.blob;
        declared.size = liar.lie;
        for folder in ["one", "two"] {
            registry.track_file(&format!("{folder}/{}", liar.name), &declared).unwrap();
        }
    }
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    for path in liars.iter().map(|liar| mount.path("two").join(&liar.name)) {
        assert!(path.metadata().unwrap().len() > 0, "{}", path.display());
    }
    assert_all_are_read(mount.dir(), &liars, &["one", "two"]);
    assert_is_corrected(&sandbox, &liars);
}
