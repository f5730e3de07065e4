//! Telling the kernel what it must not keep: on a thread of its own, since an invalidation can wait
//! for a read of the same file that a session thread has yet to answer.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, thread};

use fuser::{INodeNo, Notifier};
use tokio::sync::mpsc;

use crate::vfs::Event;

/// Passes events on until their sender is gone.
pub(super) fn spawn(
    notifier: Notifier,
    mut events: mpsc::UnboundedReceiver<Event>,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("invalidate".into()).spawn(move || {
        while let Some(event) = events.blocking_recv() {
            pass_on(&notifier, event);
        }
    })
}

fn pass_on(notifier: &Notifier, event: Event) {
    match event {
        Event::Folder { ino, names } => {
            let folder = INodeNo(ino.0);
            tolerate(notifier.inval_inode(folder, 0, 0));
            for name in names {
                tolerate(notifier.inval_entry(folder, OsStr::from_bytes(&name)));
            }
        }
        Event::File { ino, with_data: true } => {
            tolerate(notifier.inval_inode(INodeNo(ino.0), 0, 0));
        }
        Event::File { ino, with_data: false } => {
            // A negative offset stands for the attributes alone.
            tolerate(notifier.inval_inode(INodeNo(ino.0), -1, 0));
        }
        // Whoever waited may have gone.
        Event::Told(waiting) => _ = waiting.send(()),
    }
}

/// The kernel answers with an error for what it does not hold; nothing is to be done then.
fn tolerate(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("invalidation: {error}");
    }
}
