//! Files of the base that get bytes in the upper folder.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Weak},
};

use rustix::fs::{copy_file_range, ioctl_ficlone};

use super::{
    super::{
        Answer, Ino, ROOT_INO, Vfs, VfsError,
        files::{Content, OpenFile},
        run_blocking,
    },
    Stop, Upper, View,
    view::{Standing, no_origin},
};
use crate::{
    cache::CachedBlob,
    overlay::{self, Draft, Kind, Time, Times},
    path::{Name, RepoPath},
    steps,
    tree::Index,
};

/// How much of the old content a file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    /// All of it.
    All,
    /// So many bytes of it, if it has more. It is cut before it gets its place, or whoever reads what
    /// is cut off finds zeros for as long as the kernel does not know the new size.
    First(u64),
    /// Nothing, which takes nothing from the network.
    None,
}

/// How much is copied at a time.
const PIECE: usize = 1 << 20;

impl Vfs {
    /// The file of an inode in the upper folder, open for reading and writing; one of the base is
    /// copied up first.
    pub(super) fn with_own_bytes(&self, ino: Ino, bytes: Bytes) -> Answer<Arc<File>> {
        match self.on_disk(|view| view.own_file(ino)) {
            Err(error) => Answer::Now(Err(error)),
            Ok(Some(file)) => Answer::Now(Ok(file)),
            Ok(None) => {
                let vfs = self.myself();
                Answer::later(async move {
                    vfs.copy_up(ino, bytes).await?;
                    let file = vfs.on_disk(|view| view.own_file(ino))?;
                    file.ok_or(VfsError::Stale)
                })
            }
        }
    }

    /// Gives a file of the merged view bytes of its own.
    pub async fn give_bytes(self: &Arc<Self>, path: &RepoPath) -> Result<(), VfsError> {
        let mut ino = ROOT_INO;
        for name in path.components() {
            let name = Name::new(name).ok().ok_or(VfsError::NotFound)?;
            ino = self.ask_until(|view| view.ino_at(ino, &name)).await?;
        }
        self.copy_up(ino, Bytes::All).await
    }

    /// Asks what needs nothing but the upper disk.
    pub(super) fn on_disk<T>(
        &self,
        question: impl FnOnce(View<'_>) -> Result<T, Stop>,
    ) -> Result<T, VfsError> {
        match self.with_view(question) {
            Ok(answer) => Ok(answer),
            Err(Stop::Failed(error)) => Err(error),
            // The kernel knows the inode, so its folder's manifest is at hand.
            Err(Stop::Wants(_)) => Err(VfsError::Stale),
        }
    }

    async fn copy_up(self: &Arc<Self>, ino: Ino, bytes: Bytes) -> Result<(), VfsError> {
        let turn = self.upper.get().ok_or(VfsError::ReadOnly)?.turn(ino);
        let _held = turn.lock().await;
        let Some(index) = self.ask_until(|view| view.content_below(ino)).await? else {
            return Ok(());
        };
        let vfs = Arc::clone(self);
        let draft = run_blocking(move || vfs.on_disk(|view| Ok(view.upper.overlay.draft()?)));
        let mut draft = draft.await?;
        if bytes != Bytes::None {
            draft = self.fill(index, draft).await?;
        }
        let vfs = Arc::clone(self);
        run_blocking(move || {
            if let Bytes::First(size) = bytes
                && size < draft.file().metadata()?.len()
            {
                draft.file().set_len(size)?;
            }
            if bytes != Bytes::None {
                // Once it has its name it hides what the base has, also after a loss of power.
                draft.file().sync_data()?;
            }
            vfs.on_disk(|view| view.put_up(ino, index, (draft, bytes)))?;
            steps::reached("copied up");
            Ok(())
        })
        .await
    }

    /// Writes the content of a node of the base into a draft.
    async fn fill(self: &Arc<Self>, index: Index, draft: Draft) -> Result<Draft, VfsError> {
        let epoch = self.upper.get().ok_or(VfsError::ReadOnly)?.epoch();
        let file = self.open_node(epoch, index).wait().await?;
        let OpenFile { content, .. } = file;
        let reader = match content {
            Content::Failed(error) => return Err(error),
            Content::Bytes(bytes) => {
                return run_blocking(move || {
                    draft.file().write_all_at(&bytes, 0)?;
                    Ok(draft)
                })
                .await;
            }
            Content::Cached(blob) => return copy_cached(blob, draft).await,
            Content::Streamed(reader) => reader,
        };
        reader.verified().await?;
        if let Some(blob) = reader.fetch().cached() {
            return copy_cached(blob, draft).await;
        }
        let (mut draft, mut at, size) = (draft, 0, reader.fetch().size().await?);
        while at < size {
            let piece = reader.read_at(at, PIECE).await?;
            if piece.is_empty() {
                return Err(VfsError::WrongSize { shown: size, actual: at });
            }
            let length = piece.len() as u64;
            draft = run_blocking(move || {
                draft.file().write_all_at(&piece, at)?;
                Ok(draft)
            })
            .await?;
            at += length;
        }
        Ok(draft)
    }
}

async fn copy_cached(blob: Arc<CachedBlob>, draft: Draft) -> Result<Draft, VfsError> {
    run_blocking(move || {
        copy(&blob, draft.file())?;
        Ok(draft)
    })
    .await
}

/// Copies a cached blob: by sharing its blocks where the disk can, else within the kernel, else as
/// everybody can.
fn copy(blob: &CachedBlob, to: &File) -> io::Result<()> {
    if ioctl_ficlone(to, blob.file()).is_ok() {
        return Ok(());
    }
    let (mut from_at, mut to_at) = (0, 0);
    while from_at < blob.size() {
        match copy_file_range(blob.file(), Some(&mut from_at), to, Some(&mut to_at), PIECE) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let mut buffer = vec![0; PIECE];
    while to_at < blob.size() {
        let count = blob.read_at(&mut buffer, to_at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all_at(&buffer[..count], to_at)?;
        to_at += count as u64;
    }
    Ok(())
}

impl Upper {
    /// What whoever copies a file up holds meanwhile.
    fn turn(&self, ino: Ino) -> Arc<tokio::sync::Mutex<()>> {
        let mut copying = self.copying.lock();
        if let Some(turn) = copying.get(&ino).and_then(Weak::upgrade) {
            return turn;
        }
        copying.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        copying.insert(ino, Arc::downgrade(&turn));
        turn
    }
}

impl View<'_> {
    fn ino_at(&self, folder: Ino, name: &Name) -> Result<Ino, Stop> {
        let mut names = self.names()?;
        let child = self.present(&names, folder, name)?;
        self.identify(&mut names, (folder, name), &child)
    }

    /// The file in the upper folder of an inode that has bytes there.
    pub(super) fn own_file(&self, ino: Ino) -> Result<Option<Arc<File>>, Stop> {
        if let Some(file) = self.upper.open_file(ino) {
            return Ok(Some(file));
        }
        let names = self.names()?;
        match self.standing(&names, ino)? {
            Standing::Upper(path, entry) if Self::has_own_bytes(&entry.kind) => {
                Ok(Some(Arc::new(self.upper.overlay.open_file(&path, true)?)))
            }
            Standing::Upper(_, entry) if !matches!(entry.kind, Kind::File { .. }) => {
                Err(VfsError::IsAFolder.into())
            }
            _ => Ok(None),
        }
    }

    /// The node of the base that an inode has its content from; nothing if it has bytes of its own.
    fn content_below(&self, ino: Ino) -> Result<Option<Index>, Stop> {
        if self.upper.open_file(ino).is_some() {
            return Ok(None);
        }
        let standing = self.standing(&*self.names()?, ino)?;
        if let Standing::Upper(_, entry) = standing
            && Self::has_own_bytes(&entry.kind)
        {
            return Ok(None);
        }
        let index = self.index_of(ino).ok_or_else(no_origin)?;
        if self.is_base_folder(index)? {
            return Err(VfsError::IsAFolder.into());
        }
        Ok(Some(index))
    }

    /// Puts a file with bytes of its own where an inode is now.
    fn put_up(&self, ino: Ino, index: Index, (draft, bytes): (Draft, Bytes)) -> Result<(), Stop> {
        let mut names = self.names()?;
        let file = draft.file().try_clone()?;
        let overlay = &self.upper.overlay;
        match self.standing(&names, ino)? {
            Standing::Upper(_, entry) if Self::has_own_bytes(&entry.kind) => return Ok(()),
            Standing::Upper(path, entry) => overlay.put_draft(draft, &path, &entry.stat)?,
            Standing::Base(path, _) => {
                let (folder, name) = self.seat(&names, ino)?;
                let stat = self.base_stat(index)?;
                self.make_parents(&names, (folder, &path))?;
                overlay.put_draft(draft, &path, &stat)?;
                names.put(ino, folder, &name);
                names.note_change();
            }
            // It lives on in whoever has it open.
            Standing::Gone(_) => match self.upper.nameless(ino) {
                Some(before) => overlay.dress_like(&draft, &*before)?,
                None => overlay.dress(&draft, &self.base_stat(index)?)?,
            },
        }
        if bytes != Bytes::All {
            overlay::set_times(&file, Times { accessed: Time::Kept, modified: Time::Now })?;
        }
        if let Some(open) = self.upper.open.lock().get_mut(&ino) {
            open.file = Some(Arc::new(file));
        }
        Ok(())
    }
}
