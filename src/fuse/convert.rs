//! Plain values to the FUSE library's types.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::vfs::{Attr, FileKind, Ttl};

pub(super) fn ttl(ttl: Ttl) -> Duration {
    match ttl {
        Ttl::Forever => Duration::from_secs(u32::MAX.into()),
        Ttl::Second => Duration::from_secs(1),
        Ttl::None | Ttl::UntilRead => Duration::ZERO,
    }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Folder => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Link => FileType::Symlink,
        FileKind::Pipe => FileType::NamedPipe,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let Some(local) = attr.local else { return fixed_attr(attr) };
    FileAttr {
        blocks: local.blocks,
        atime: exact_time(local.accessed),
        mtime: exact_time((attr.mtime, attr.mtime_nanos)),
        ctime: exact_time(local.changed),
        nlink: local.links,
        ..fixed_attr(attr)
    }
}

fn fixed_attr(attr: &Attr) -> FileAttr {
    let time = time(attr.mtime) + Duration::from_nanos(attr.mtime_nanos.into());
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(attr.kind),
        perm: attr.mode,
        // Of folders, too: programs that see 1 do not count on it for the number of subfolders.
        nlink: 1,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The attributes that go with inode 0, which says that a name does not exist.
pub(super) fn absent((uid, gid): (u32, u32)) -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid,
        gid,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// A time as a program has set it, which may lie before 1970.
fn exact_time((secs, nanos): (i64, u32)) -> SystemTime {
    let whole = Duration::from_secs(secs.unsigned_abs());
    let start =
        if secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    start.map_or(UNIX_EPOCH, |start| start + Duration::from_nanos(nanos.into()))
}

/// A time of the kernel's in seconds and nanoseconds since the epoch, from what the library makes of
/// it: before 1970 it takes the nanoseconds away instead of adding them.
pub(super) fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            (-(before.as_secs() as i64), before.subsec_nanos())
        }
    }
}

/// Times before 1970 and beyond some thirty thousand years, which commits may claim, are moved to
/// the nearest one that every program can handle.
fn time(secs: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs.clamp(0, 1 << 40).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_come_back_as_they_were() {
        let told = |secs: i64, nanos| match u64::try_from(secs) {
            Ok(secs) => UNIX_EPOCH + Duration::new(secs, nanos),
            Err(_) => UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos),
        };
        for (secs, nanos) in [(0, 0), (-1, 0), (-1, 500_000_000), (-2, 999_999_999), (5, 1)] {
            assert_eq!(since_epoch(told(secs, nanos)), (secs, nanos));
        }
        let half = Duration::from_millis(500);
        assert_eq!(exact_time((-1, 500_000_000)), UNIX_EPOCH - half);
    }

    #[test]
    fn times_that_programs_cannot_handle_are_moved_to_the_nearest() {
        assert_eq!(time(1), UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(time(i64::MIN), UNIX_EPOCH);
        assert_eq!(time(i64::MAX), UNIX_EPOCH + Duration::from_secs(1 << 40));
    }
}
