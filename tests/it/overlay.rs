//! Writable mounts: an overlay above one revision.

mod changes;
mod choices;
mod commits;
mod drops;
mod ends;
mod files;
mod ignore_lines;
mod kept_out;
mod kills;
mod left;
mod model;
mod names;
mod records;
mod refresh;
mod refusals;
mod renames;
mod snapshots;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    registry_builder::RegistryBuilder,
    support::{DATE, Mount, Sandbox, noise, registry_on_disk},
};

/// A small registry, a writable mount of its branch, and what the mount keeps.
struct Writable {
    registry: RegistryBuilder,
    upper: PathBuf,
    mount: Option<Mount>,
    /// Last, so that it outlives the mount.
    sandbox: Sandbox,
}

/// A large file of the registry.
const LARGE: usize = 9 << 20;

/// A small file of the registry.
const SMALL: usize = 20_000;

impl Writable {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let registry = registry_on_disk(&sandbox);
        let put = |seed, size| registry.put(&noise(seed, size)).unwrap();
        let files = [("a.bin", put(1, SMALL)), ("b.bin", put(2, 10)), ("sub/c.bin", put(3, 5000))];
        registry.track_folder("data", &files).unwrap();
        registry.track_file("large.bin", &put(4, LARGE)).unwrap();
        registry.text("README.md", "read me\n").unwrap();
        registry.text("docs/deep/page.txt", "a page\n").unwrap();
        std::os::unix::fs::symlink("README.md", registry.repository().join("link")).unwrap();
        registry.commit("Add data", DATE).unwrap();
        let upper = sandbox.path("overlay");
        let mut writable = Self { sandbox, registry, upper, mount: None };
        writable.mount();
        writable
    }

    fn mount(&mut self) {
        let overlay = format!("--overlay={}", self.upper.display());
        let dir = self.sandbox.folder("mnt");
        let args = ["--rev", "main", &overlay];
        self.mount = Some(self.sandbox.mount_at(&dir, self.registry.repository(), &args));
    }

    /// Ends the mount and begins it again.
    fn remount(&mut self) {
        self.mount = None;
        self.mount();
    }

    fn mounted(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mounted().path(name)
    }

    /// What the upper folder has at a path.
    fn kept(&self, name: &str) -> PathBuf {
        self.upper.join("upper").join(name)
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(name).map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Makes tests of functions: one for the best way to answer opens that the user may have, and one
/// for the way that everybody may have.
macro_rules! in_both_open_modes {
    ($($test:ident,)*) => {
        crate::support::in_open_mode!(auto, "auto": $($test,)*);
        crate::support::in_open_mode!(served, "served": $($test,)*);
    };
}
use in_both_open_modes;
