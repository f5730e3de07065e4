//! The objects that each remote under test holds.

use std::{fs, path::Path};

use dvcfs::id::{Key, Scheme};
use md5::{Digest, Md5};

/// A small, an empty and a big object, one of the older layout, and a manifest.
pub(super) struct Objects(Vec<(Key, Vec<u8>)>);

/// How many objects [`Objects::crowd`] has: three pages of a listing.
pub(super) const CROWD: usize = 2050;

fn key(content: &[u8], scheme: Scheme, is_manifest: bool) -> Key {
    Key { digest: Md5::digest(content).into(), scheme, is_manifest }
}

/// Five MiB that look random and are always the same.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(5 << 20).collect()
}

impl Objects {
    pub(super) fn new() -> Self {
        let list = br#"[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "a"}]"#;
        let contents = [
            (b"small enough".to_vec(), Scheme::Md5, false),
            (Vec::new(), Scheme::Md5, false),
            (noise(), Scheme::Md5, false),
            (b"older layout".to_vec(), Scheme::Dos2Unix, false),
            (list.to_vec(), Scheme::Md5, true),
        ];
        Self(contents.map(|(bytes, scheme, dir)| (key(&bytes, scheme, dir), bytes)).into())
    }

    /// So many of both layouts in one folder that a listing takes pages, each as long as its number
    /// among three says. The remote is not to look at their content.
    pub(super) fn crowd() -> Self {
        let objects = (0..CROWD + 3).map(|n| {
            let mut digest = [0xcc; 16];
            digest[1..9].copy_from_slice(&(n as u64).wrapping_mul(NUMBERS).to_be_bytes());
            let scheme = if n < CROWD { Scheme::Md5 } else { Scheme::Dos2Unix };
            (Key { digest, scheme, is_manifest: n.is_multiple_of(5) }, vec![0; n % 3])
        });
        Self(objects.collect())
    }

    pub(super) fn all(&self) -> &[(Key, Vec<u8>)] {
        &self.0
    }

    pub(super) fn small(&self) -> (Key, &[u8]) {
        (self.0[0].0, &self.0[0].1)
    }

    pub(super) fn empty(&self) -> Key {
        self.0[1].0
    }

    pub(super) fn big(&self) -> (Key, &[u8]) {
        (self.0[2].0, &self.0[2].1)
    }

    pub(super) fn write_below(&self, folder: &Path) {
        self.0.iter().for_each(|(key, content)| write(&folder.join(key.path()), content));
    }
}

/// Puts [`STRANGERS`] into a folder.
pub(super) fn write_strangers_below(folder: &Path) {
    for name in STRANGERS {
        write(&folder.join(name), b"stranger");
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, content).expect("an object");
}

/// Odd, so that multiplying by it gives no number twice.
const NUMBERS: u64 = 0x9e37_79b9_7f4a_7c15;

/// Names beside objects that are none.
pub(super) const STRANGERS: [&str; 6] = [
    "files/md5/cc/notes.txt",
    "files/md5/cc/cccccccccccccccccccccccccccccc.tmp",
    "files/md5/CC/cccccccccccccccccccccccccccccc",
    "cc/CCCCCCCCCCCCCCCCCCCCCCCCCCCCCC",
    "cc/cccccccccccccccccccccccccccccc.unpacked/x",
    "runs/cc/cccccccccccccccccccccccccccccc",
];

/// Keys that no remote has; one is a folder where objects are files.
pub(super) fn absent() -> [Key; 3] {
    let digest = [0xee; 16];
    [
        Key { digest, scheme: Scheme::Md5, is_manifest: false },
        Key { digest, scheme: Scheme::Md5, is_manifest: true },
        Key { digest, scheme: Scheme::Dos2Unix, is_manifest: false },
    ]
}
