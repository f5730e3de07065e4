//! Telling the kernel what it must not keep: on threads of their own, since an invalidation can wait
//! for a request that a session thread has yet to answer.
//!
//! Pages have a thread to themselves. Dropping them waits for every read of the file that is under
//! way, and such a read may itself wait until the kernel knows of a size.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, sync::mpsc::Sender, thread};

use fuser::{INodeNo, Notifier};
use tokio::sync::mpsc;

use crate::vfs::{Event, Ino};

/// Passes events on until their sender is gone.
pub(super) fn spawn(
    notifier: Notifier,
    mut events: mpsc::UnboundedReceiver<Event>,
) -> io::Result<thread::JoinHandle<()>> {
    let (pages, dropped) = std::sync::mpsc::channel::<Ino>();
    let of_pages = notifier.clone();
    thread::Builder::new().name("invalidate-pages".into()).spawn(move || {
        for ino in dropped {
            tolerate(of_pages.inval_inode(INodeNo(ino.0), 0, 0));
        }
    })?;
    thread::Builder::new().name("invalidate".into()).spawn(move || {
        while let Some(event) = events.blocking_recv() {
            pass_on(&notifier, &pages, event);
        }
    })
}

fn pass_on(notifier: &Notifier, pages: &Sender<Ino>, event: Event) {
    match event {
        Event::Folder { ino, names } => {
            let folder = INodeNo(ino.0);
            tolerate(notifier.inval_inode(folder, 0, 0));
            for name in names {
                tolerate(notifier.inval_entry(folder, OsStr::from_bytes(&name)));
            }
        }
        Event::Attributes(ino) => drop_attributes(notifier, ino),
        Event::File { ino, with_data } => {
            drop_attributes(notifier, ino);
            if with_data {
                // The other thread ends after this one.
                _ = pages.send(ino);
            }
        }
        Event::Forget { ino, name } => {
            tolerate(notifier.inval_entry(INodeNo(ino.0), OsStr::from_bytes(&name)));
        }
        // Whoever waited may have gone.
        Event::Told(waiting) => _ = waiting.send(()),
    }
}

fn drop_attributes(notifier: &Notifier, ino: Ino) {
    // A negative offset stands for the attributes alone.
    tolerate(notifier.inval_inode(INodeNo(ino.0), -1, 0));
}

/// The kernel answers with an error for what it does not hold; nothing is to be done then.
fn tolerate(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("invalidation: {error}");
    }
}
