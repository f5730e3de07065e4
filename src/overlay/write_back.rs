//! Files go to the disk before anybody asks for that, so that whoever does finds most of it done.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::fs::fstat;

/// Smaller files are not worth the call, and often gone before the kernel gets to them.
const WORTH_WRITING: i64 = 64 << 10;

/// Whether it does any good to [begin to write](write_back) a file: it is large enough and has a name.
pub fn is_worth_writing_back(file: impl AsFd) -> bool {
    fstat(file).is_ok_and(|raw| raw.st_size >= WORTH_WRITING && raw.st_nlink > 0)
}

/// How much is begun to be written at a time.
const PIECE: u64 = 8 << 20;

/// Begins to write a file to the disk, piece by piece as long as it `goes_on`, and does not wait
/// until it is there. A piece waits for room in the disk's queue.
pub fn write_back(file: impl AsFd, goes_on: impl Fn() -> bool) -> io::Result<()> {
    let size = fstat(&file)?.st_size.cast_unsigned();
    for at in (0..size).step_by(PIECE as usize).take_while(|_| goes_on()) {
        let (at, length) = (at.cast_signed(), PIECE.cast_signed());
        let begin = libc::SYNC_FILE_RANGE_WRITE;
        // SAFETY: a system call on a descriptor that is borrowed meanwhile; it takes no pointers.
        if unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), at, length, begin) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
