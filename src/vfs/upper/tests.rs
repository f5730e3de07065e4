//! Programs that come while another base is put below.

use std::{io, thread};

use super::{
    super::tests::{Lab, writable},
    *,
};
use crate::{overlay::Owner, path::RepoPath};

const READ: Opening = Opening { reads: true, writes: false, truncates: false, takes_set_id: false };
const WRITE: Opening = Opening { writes: true, ..READ };

impl Lab {
    fn wait<T: Send + 'static>(&self, answer: Answer<T>) -> Result<T, VfsError> {
        self.runtime.block_on(answer.wait())
    }

    /// A new file at the top, open for writing.
    fn create(&self, name: &str) -> (Ino, Arc<File>) {
        let name = Name::new(name.as_bytes()).unwrap();
        let owner = Owner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        let (attr, file) =
            self.wait(self.vfs.create_open(ROOT_INO, name, (0o644, owner), true)).unwrap();
        (attr.ino, file)
    }

    fn rebase<T: Send + 'static>(
        &self,
        edit: impl FnOnce(&Overlay) -> io::Result<T> + Send + 'static,
    ) -> T {
        let commit = self.vfs.commit().unwrap();
        let rebased = self.runtime.block_on(self.vfs.rebase(commit, None, |upper, _| edit(upper)));
        match rebased.unwrap() {
            Rebased::Done(done) => done.unwrap(),
            Rebased::Open(open) => panic!("{open:?}"),
            Rebased::Written => panic!("nobody wrote"),
        }
    }
}

#[test]
fn what_the_kernel_forgot_is_the_same_inode_when_it_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let lab = writable(folder.path());
    let (ino, file) = lab.create("new");
    lab.vfs.close(ino, true);
    drop(file);
    lab.vfs.forget(ino, 1);
    let Lookup::Found { attr, .. } = lab.wait(lab.vfs.lookup(ROOT_INO, b"new")).unwrap() else {
        panic!("it is there");
    };
    assert_eq!(attr.ino, ino);
    lab.wait(lab.vfs.unlink(ROOT_INO, Name::new(b"new").unwrap())).unwrap();
    let (another, _file) = lab.create("new");
    assert_ne!(another, ino, "whatever number it has on the disk");
}

#[test]
fn whoever_comes_to_write_while_the_base_changes_does_not_get_the_file_that_was() {
    let folder = tempfile::tempdir().unwrap();
    let lab = writable(folder.path());
    for truncates in [false, true] {
        let (ino, written) = lab.create("new");
        lab.vfs.close(ino, true);
        written.set_len(7).unwrap();
        // Somebody reads it, so its file is at hand.
        lab.wait(lab.vfs.open_merged(ino, READ)).unwrap();
        let (vfs, runtime) = (Arc::clone(&lab.vfs), lab.runtime.handle().clone());
        let writer = lab.rebase(move |overlay| {
            let count = {
                let vfs = Arc::clone(&vfs);
                move || vfs.upper.get().unwrap().writes.load(Ordering::SeqCst)
            };
            let before = count();
            let how = Opening { truncates, ..WRITE };
            let open = move || runtime.block_on(vfs.open_merged(ino, how).wait()).map(drop);
            let writer = thread::spawn(open);
            while count() == before {
                thread::yield_now();
            }
            overlay.take_out(&RepoPath::new(b"new").unwrap())?;
            Ok(writer)
        });
        let opened = writer.join().unwrap();
        assert!(matches!(opened, Err(VfsError::Stale)), "{opened:?}");
        assert_eq!(written.metadata().unwrap().len(), 7);
        // Nor does anybody later, as by a name in /proc.
        let opened = lab.wait(lab.vfs.open_merged(ino, WRITE));
        assert!(matches!(opened, Err(VfsError::Stale)), "{opened:?}");
        let change = Change { mode: Some(0o777), ..UNCHANGED };
        let changed = lab.wait(lab.vfs.setattr(ino, change));
        assert!(matches!(changed, Err(VfsError::ReadOnly)), "{changed:?}");
        let mut bytes = [1; 7];
        assert_eq!(lab.vfs.read_own(ino, 0, &mut bytes).unwrap().unwrap(), 7, "it is read on");
    }
}

const UNCHANGED: Change = Change {
    mode: None,
    uid: None,
    gid: None,
    size: None,
    times: crate::overlay::Times::KEPT,
    takes_set_id: false,
};

#[test]
fn what_had_no_name_when_the_base_changed_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let lab = writable(folder.path());
    let (ino, file) = lab.create("new");
    let name = Name::new(b"new").unwrap();
    lab.wait(lab.vfs.unlink(ROOT_INO, name)).unwrap();
    for size in [5, 9] {
        lab.rebase(|_| Ok(()));
        let change = Change { size: Some(size), mode: Some(0o600), ..UNCHANGED };
        lab.wait(lab.vfs.setattr(ino, change)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), size);
        lab.wait(lab.vfs.open_merged(ino, WRITE)).unwrap();
        lab.vfs.close(ino, true);
    }
}

#[test]
fn an_overlay_that_was_left_unfinished_answers_nothing_and_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lab = writable(folder.path());
    let (ino, _) = lab.create("new");
    lab.vfs.close(ino, true);
    lab.wait(lab.vfs.open_merged(ino, READ)).unwrap();
    lab.vfs.overlay().unwrap().leave_unfinished();
    let refused = |error: VfsError| assert!(matches!(error, VfsError::Disk(_)), "{error}");
    refused(lab.wait(lab.vfs.lookup(ROOT_INO, b"new")).unwrap_err());
    refused(lab.wait(lab.vfs.open_merged(ino, WRITE)).unwrap_err());
    let change = Change { mode: Some(0o600), ..UNCHANGED };
    refused(lab.wait(lab.vfs.setattr(ino, change)).unwrap_err());
    refused(lab.vfs.stillness().unwrap_err());
}
