//! Sizes that were told and turned out wrong: the kernel must know of that before anything else is
//! answered about the file, or it would end reads where it believes the end to be.
//!
//! Here the test stands in the kernel's place, so that it decides when the kernel knows.

use std::sync::Arc;

use dvcfs::{
    blobs::{self, Blobs},
    cache::{self, BlobCache},
    git::Location,
    registry::{AwsFiles, Registry, RegistryOptions, Trusted},
    segments::Segments,
    sizes::SizeIndex,
    vfs::{
        Event, Ino, InodeTable, Layout, Lookup, OpenedFile, ROOT_INO, Vfs, VfsError, VfsOptions,
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    registry_builder::{Blob, RegistryBuilder},
    support::{DATE, PATIENCE, Sandbox, noise, registry_on_disk},
};

const SIZE: usize = 100 << 10;

/// A tracked folder with one content under two names, and the test as its kernel.
struct Place {
    sandbox: Sandbox,
    registry: RegistryBuilder,
    blob: Blob,
    vfs: Arc<Vfs>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Place {
    async fn new() -> Self {
        let sandbox = Sandbox::new();
        let registry = registry_on_disk(&sandbox);
        let blob = registry.put(&noise(1, SIZE)).unwrap();
        registry.track_folder("data", &[("one", blob), ("two", blob)]).unwrap();
        registry.commit("Add files", DATE).unwrap();
        let runtime = tokio::runtime::Handle::current();
        let (location, options) = (location(&sandbox, &registry), options(&sandbox));
        let cache = sandbox.cache();
        let made = tokio::task::spawn_blocking(move || {
            let opened = Arc::new(Registry::open(&location, options).unwrap());
            let commit = opened.repository().resolve("main").unwrap().commit;
            let stats = Arc::default();
            let options = cache::Options {
                seen: cache.join("seen"),
                dir: cache,
                neighbours: Vec::new(),
                max_bytes: u64::MAX,
                min_free_bytes: 0,
            };
            let cache = BlobCache::open(options, Arc::clone(&stats));
            let (sizes, (invalid, _)) = (Arc::new(SizeIndex::in_memory()), mpsc::channel(1));
            let options = blobs::Options::new(invalid);
            let blobs = Arc::new(Blobs::new(cache, sizes, stats, runtime.clone(), options));
            let layout = Layout::One { revision: "main".into(), commit, follows: None };
            let (events, received) = mpsc::unbounded_channel();
            let kept = (InodeTable::in_memory(), Arc::new(Segments::new(None)));
            let vfs = Vfs::new(opened, blobs, (layout, shown()), kept, events, runtime);
            (vfs.unwrap(), received)
        });
        let (vfs, events) = made.await.unwrap();
        Self { sandbox, registry, blob, vfs, events }
    }

    fn replace(&self, bytes: &[u8]) {
        let path = self.registry.objects().join(self.blob.path());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn look_up(&self, folder: Ino, name: &str) -> Ino {
        match self.vfs.lookup(folder, name.as_bytes()).wait().await.unwrap() {
            Lookup::Found { attr, .. } => attr.ino,
            Lookup::Absent(_) => panic!("{name} is not there"),
        }
    }

    async fn files(&self) -> [Ino; 2] {
        let data = self.look_up(ROOT_INO, "data").await;
        // After a listing sizes are asked for without beginning downloads, which would find out.
        let listed = self.vfs.list(data, 0).wait().await.unwrap();
        self.vfs.walk(&listed, 0, |_| true).unwrap();
        [self.look_up(data, "one").await, self.look_up(data, "two").await]
    }

    async fn size(&self, ino: Ino) -> Result<u64, VfsError> {
        self.vfs.getattr(ino).wait().await.map(|(attr, _)| attr.size)
    }

    fn open(&self, ino: Ino) -> JoinHandle<Result<OpenedFile, VfsError>> {
        let opening = self.vfs.open(ino).wait();
        tokio::spawn(opening)
    }

    /// Opens a file, and asserts that there is no answer before the kernel was told of its size.
    async fn open_once_told(&mut self, ino: Ino) -> Result<OpenedFile, VfsError> {
        let mut opening = self.open(ino);
        let mut is_told = false;
        loop {
            let event = tokio::select! {
                answer = &mut opening => panic!("answered untold: {:?}", answer.unwrap().err()),
                event = self.events.recv() => event.unwrap(),
            };
            match event {
                Event::File { ino: file, .. } => is_told |= file == ino,
                Event::Folder { .. } | Event::Attributes(_) | Event::Forget { .. } => {}
                Event::Told(waiting) => {
                    assert!(is_told, "of another file");
                    assert!(!opening.is_finished());
                    waiting.send(()).unwrap();
                    break;
                }
            }
        }
        timeout(PATIENCE, opening).await.unwrap().unwrap()
    }

    async fn assert_is_whole(&self, opened: OpenedFile) {
        let ino = opened.ino();
        let handle = self.vfs.hold(opened);
        let bytes = self.vfs.read_bytes(ino, handle, 0, 2 * SIZE).await.unwrap();
        assert!(bytes == noise(1, SIZE), "{} other bytes", bytes.len());
    }
}

fn location(sandbox: &Sandbox, registry: &RegistryBuilder) -> Location {
    Location::parse(registry.repository().to_str().unwrap(), &sandbox.path("")).unwrap()
}

fn options(sandbox: &Sandbox) -> RegistryOptions {
    RegistryOptions {
        state_dir: sandbox.folder("state"),
        dvc_system_config: sandbox.path("dvc/system/config"),
        dvc_global_config: sandbox.path("dvc/global/config"),
        ssh_command: None,
        is_interactive: false,
        progress: None,
        home: None,
        aws: AwsFiles::default(),
        trusted: Trusted::Everything,
        remote: None,
        wanted: vec!["main".into()],
    }
}

fn shown() -> VfsOptions {
    VfsOptions {
        uid: 0,
        gid: 0,
        only_inner_links: false,
        verify_before_open: false,
        tree_memory: u64::MAX,
        mounted_at: 0,
        descriptors: 64,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_knows_of_a_wrong_size_before_the_next_open_is_answered() {
    let mut place = Place::new().await;
    place.replace(&noise(1, SIZE)[..1000]);
    let [one, two] = place.files().await;
    for ino in [one, two] {
        assert_eq!(place.size(ino).await.unwrap(), 1000, "as the remote says");
    }
    let error = place.open_once_told(one).await.err().unwrap();
    assert!(matches!(error, VfsError::Blob(blobs::BlobError::Integrity(_))), "{error}");

    place.replace(&noise(1, SIZE));
    let opened = place.open_once_told(one).await.unwrap();
    place.assert_is_whole(opened).await;
    // This one's readers were told the same; and by now the blob is cached.
    let opened = place.open_once_told(two).await.unwrap();
    place.assert_is_whole(opened).await;
    assert_eq!(place.size(two).await.unwrap(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_opens_the_first_read_fails_where_another_size_was_told() {
    let mut place = Place::new().await;
    place.replace(&noise(1, SIZE)[..1000]);
    let [one, two] = place.files().await;
    assert_eq!(place.size(two).await.unwrap(), 1000);
    drop(place.open_once_told(one).await);
    place.replace(&noise(1, SIZE));
    drop(place.open_once_told(one).await.unwrap());
    // What the kernel is told is of no use to the read that it is in.
    let (vfs, mut events) = (Arc::clone(&place.vfs), place.events);
    let telling = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Told(waiting) = event {
                waiting.send(()).unwrap();
            }
        }
    });
    for expected in [None, Some(SIZE)] {
        let mut buffer = vec![0; SIZE];
        let read = match vfs.read(two, None, 0, &mut buffer) {
            dvcfs::vfs::Read::Done(read) => read.ok(),
            dvcfs::vfs::Read::Later(read) => read.await.ok().map(|bytes| bytes.len()),
        };
        assert_eq!(read, expected);
    }
    telling.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_empty_has_no_size_to_be_told() {
    let place = Place::new().await;
    place.replace(b"");
    let [one, two] = place.files().await;
    for ino in [one, two] {
        let error = place.size(ino).await.unwrap_err();
        assert!(matches!(error, VfsError::Blob(blobs::BlobError::Integrity(_))), "{error}");
    }
    let opened = timeout(PATIENCE, place.open(one)).await.unwrap().unwrap();
    assert!(opened.is_err());
    place.replace(&noise(1, SIZE));
    assert_eq!(place.size(one).await.unwrap(), SIZE as u64);
    let opened = place.open(two).await.unwrap().unwrap();
    place.assert_is_whole(opened).await;
    assert!(place.sandbox.cache().join(place.blob.path()).exists());
}
