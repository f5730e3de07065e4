//! A file system over a registry on this disk, without a kernel.

use std::{sync::Arc, time::SystemTime};

use dvcfs::{
    blobs::{self, Blobs},
    cache::{self, BlobCache},
    git::Location,
    registry::{AwsFiles, Registry, RegistryOptions, Trusted},
    segments::Segments,
    sizes::SizeIndex,
    stats::Stats,
    vfs::{Event, FileKind, Ino, InodeTable, Layout, Listed, Lookup, ROOT_INO, Vfs, VfsOptions},
};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::registry_builder::RegistryBuilder;

/// Files in the folder `data`.
pub(crate) const FILES: usize = 10_000;

/// Bytes of the file `large`, which is in the cache once it was opened.
pub(crate) const LARGE: usize = 8 << 20;

/// The file system, and all that it stands on.
pub(crate) struct Lab {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) runtime: tokio::runtime::Runtime,
    _events: UnboundedReceiver<Event>,
    _folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let builder = RegistryBuilder::start(&at("registry"), &at("store")).unwrap();
        let remote = "['remote \"disk\"']\n    url = ../../store\n";
        builder.init(&format!("[core]\n    remote = disk\n{remote}")).unwrap();
        let names: Vec<_> = (0..FILES).map(|n| format!("{n:05}.wav")).collect();
        let small = builder.put(b"small").unwrap();
        let files: Vec<_> = names.iter().map(|name| (&name[..], small)).collect();
        builder.track_folder("data", &files).unwrap();
        builder.track_file("large", &builder.put(&vec![7; LARGE]).unwrap()).unwrap();
        builder.commit("Add files", "2026-01-15T16:30:00+00:00").unwrap();

        let runtime = tokio::runtime::Runtime::new().unwrap();
        let stats = Arc::<Stats>::default();
        let cache = BlobCache::open(
            cache::Options {
                dir: at("cache"),
                neighbours: Vec::new(),
                seen: at("seen"),
                max_bytes: 1 << 40,
                min_free_bytes: 0,
            },
            Arc::clone(&stats),
        );
        let sizes = Arc::new(SizeIndex::open(&at("sizes")));
        let options = blobs::Options::new(mpsc::channel(1).0);
        let handle = runtime.handle().clone();
        let blobs = Arc::new(Blobs::new(cache, sizes, stats, handle.clone(), options));
        let location = Location::parse(builder.repository().to_str().unwrap(), folder.path());
        let registry = RegistryOptions {
            state_dir: at("state"),
            dvc_system_config: at("none"),
            dvc_global_config: at("none"),
            home: None,
            ssh_command: None,
            is_interactive: false,
            progress: None,
            trusted: Trusted::Everything,
            remote: None,
            wanted: vec!["main".into()],
            aws: AwsFiles::default(),
        };
        let registry = Arc::new(Registry::open(&location.unwrap(), registry).unwrap());
        let commit = registry.repository().resolve("main").unwrap().commit;
        let layout = Layout::One { revision: "main".into(), commit, follows: None };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let options = VfsOptions {
            uid: 0,
            gid: 0,
            only_inner_links: false,
            verify_before_open: false,
            mounted_at: now.as_secs() as i64,
            descriptors: 256,
            tree_memory: u64::MAX,
        };
        let (events, received) = mpsc::unbounded_channel();
        let kept = (InodeTable::in_memory(), Arc::new(Segments::new(Some(&at("segments")))));
        let vfs = Vfs::new(registry, blobs, (layout, options), kept, events, handle).unwrap();
        let lab = Self { vfs, runtime, _events: received, _folder: folder };
        lab.learn();
        lab
    }

    /// Has every size and the large file at hand.
    fn learn(&self) {
        let data = self.find(ROOT_INO, "data");
        let listed = self.list(data);
        let mut files = Vec::new();
        let walked = self.vfs.walk(&listed, 0, |entry| {
            files.push(entry.ino);
            true
        });
        walked.unwrap();
        for ino in files {
            self.runtime.block_on(self.vfs.getattr(ino).wait()).unwrap();
        }
        let large = self.find(ROOT_INO, "large");
        drop(self.runtime.block_on(self.vfs.open(large).wait()).unwrap());
    }

    /// The inode of a name.
    pub(crate) fn find(&self, folder: Ino, name: &str) -> Ino {
        let found = self.runtime.block_on(self.vfs.lookup(folder, name.as_bytes()).wait());
        match found.unwrap() {
            Lookup::Found { attr, .. } => attr.ino,
            Lookup::Absent(_) => panic!("there is no {name}"),
        }
    }

    /// A folder's listing.
    pub(crate) fn list(&self, folder: Ino) -> Listed {
        let (attr, _) = self.runtime.block_on(self.vfs.getattr(folder).wait()).unwrap();
        assert_eq!(attr.kind, FileKind::Folder);
        self.runtime.block_on(self.vfs.list(folder, 0).wait()).unwrap()
    }
}
