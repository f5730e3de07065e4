//! Cache directories that are full, closed, somebody else's or no directory at all: they cost
//! time, never a read.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    time::{Duration, SystemTime},
};

use super::{LARGE, SMALL, assert_prints, in_namespace, three_files};
use crate::{
    registry_builder::{Blob, RegistryBuilder},
    support::{Sandbox, md5_of, noise, registry_on_disk, succeed, text},
};

/// `nobody`, who owns nothing on any system.
const USER: u32 = 65534;

fn registry(sandbox: &Sandbox) -> (RegistryBuilder, [Blob; 2]) {
    let registry = registry_on_disk(sandbox);
    let blobs = three_files(&registry);
    (registry, blobs)
}

fn assert_all_is_printed(sandbox: &Sandbox, registry: &RegistryBuilder) {
    let repository = registry.repository();
    assert_prints(sandbox, repository, "text", b"text\n");
    assert_prints(sandbox, repository, "small", &noise(1, SMALL));
    assert_prints(sandbox, repository, "large", &noise(2, LARGE));
}

/// Reads through a mount and without one, in a namespace of its own that `prepare` sets up.
fn assert_all_is_read(prepare: &str) {
    let sandbox = Sandbox::new();
    let (_, blobs) = registry(&sandbox);
    let script = format!(
        r#"mkdir -p "$TOP/mnt" "$DVCFS_CACHE_DIR"
        {prepare}
        "$PROGRAM" mount --rev main --min-free 0 "$TOP/registry" "$TOP/mnt" >&2
        trap '"$PROGRAM" umount "$TOP/mnt"' EXIT
        md5sum < "$TOP/mnt/small"
        md5sum < "$TOP/mnt/large"
        tail -c 100 "$TOP/mnt/large" | md5sum
        "$PROGRAM" cat "$TOP/registry" large | md5sum"#
    );
    let printed = text(&mut in_namespace(&sandbox, &script));
    let tail = sandbox.path("tail");
    fs::write(&tail, &noise(2, LARGE)[LARGE - 100..]).unwrap();
    let [small, large] = blobs.map(|blob| blob.md5());
    let expected = [small, large.clone(), md5_of(&tail).unwrap().0, large];
    let expected: Vec<_> = expected.iter().map(|md5| format!("{md5}  -")).collect();
    assert_eq!(printed, expected.join("\n"), "{prepare}");
}

#[test]
fn a_full_disk() {
    // Room for the small file, and for a part of the large one.
    assert_all_is_read(r#"mount -t tmpfs -o size=1m tmpfs "$DVCFS_CACHE_DIR""#);
    // Room for nothing.
    assert_all_is_read(
        r#"mount -t tmpfs -o size=64k tmpfs "$DVCFS_CACHE_DIR"
        head -c 1m /dev/zero > "$DVCFS_CACHE_DIR/full" || true"#,
    );
}

#[test]
fn a_disk_without_inodes() {
    assert_all_is_read(r#"mount -t tmpfs -o nr_inodes=2 tmpfs "$DVCFS_CACHE_DIR""#);
}

#[test]
fn a_disk_that_cannot_be_written_to() {
    assert_all_is_read(r#"mount -t tmpfs -o ro tmpfs "$DVCFS_CACHE_DIR""#);
}

#[test]
fn a_state_directory_that_is_full_or_cannot_be_written_to() {
    assert_all_is_read(
        r#"mkdir -p "$DVCFS_STATE_DIR"; mount -t tmpfs -o ro tmpfs "$DVCFS_STATE_DIR""#,
    );
    assert_all_is_read(
        r#"mkdir -p "$DVCFS_STATE_DIR"; mount -t tmpfs -o size=4k tmpfs "$DVCFS_STATE_DIR"
        head -c 1m /dev/zero > "$DVCFS_STATE_DIR/full" || true"#,
    );
}

#[test]
fn a_file_where_the_directory_should_be() {
    let sandbox = Sandbox::new();
    let (registry, _) = registry(&sandbox);
    fs::write(sandbox.cache(), "not a folder").unwrap();
    assert_all_is_printed(&sandbox, &registry);
    assert_eq!(fs::read(sandbox.cache()).unwrap(), b"not a folder");
}

#[test]
fn a_link_to_a_directory_elsewhere_is_as_good_as_one() {
    let sandbox = Sandbox::new();
    let (registry, [small, _]) = registry(&sandbox);
    let elsewhere = sandbox.folder("elsewhere");
    symlink(&elsewhere, sandbox.cache()).unwrap();
    assert_all_is_printed(&sandbox, &registry);
    assert!(elsewhere.join(small.path()).exists());
}

#[test]
fn a_link_that_leads_nowhere() {
    let sandbox = Sandbox::new();
    let (registry, _) = registry(&sandbox);
    symlink(sandbox.path("none/at all"), sandbox.cache()).unwrap();
    assert_all_is_printed(&sandbox, &registry);
}

#[test]
fn links_inside_it_are_not_believed_and_not_written_through() {
    let sandbox = Sandbox::new();
    let (registry, [small, large]) = registry(&sandbox);
    let mine = sandbox.path("mine");
    fs::write(&mine, "my own text").unwrap();
    for blob in [&small, &large] {
        let place = sandbox.cache().join(blob.path());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(&mine, place).unwrap();
    }
    assert_all_is_printed(&sandbox, &registry);
    assert_eq!(fs::read(&mine).unwrap(), b"my own text");
    assert_eq!(mine.metadata().unwrap().mode() & 0o777, 0o644);
}

#[test]
fn a_directory_of_another_user_that_is_closed_to_us() {
    // The user may look into it and nothing more.
    const SCRIPT: &str = r#"
        mkdir -p "$DVCFS_CACHE_DIR/files"
        chown -R -h 65534:65534 "$TOP"
        chown -R root:root "$DVCFS_CACHE_DIR"
        chmod -R 755 "$DVCFS_CACHE_DIR"
        exec setpriv --reuid=65534 --regid=65534 --clear-groups \
            "$PROGRAM" cat "$TOP/registry" large
    "#;
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let printed = succeed(&mut in_namespace(&sandbox, SCRIPT));
    assert!(printed == noise(2, LARGE), "{} other bytes", printed.len());
}

/// Changes a cached blob without changing its size and time.
fn falsify(path: &Path, bytes: &[u8]) {
    let before = path.metadata().unwrap();
    assert_eq!(before.len(), bytes.len() as u64);
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(before.mtime() as u64);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
}

#[test]
fn files_of_another_user_are_checked_whatever_time_they_carry() {
    let sandbox = Sandbox::new();
    let (registry, blobs) = registry(&sandbox);
    // The first run caches and stamps them.
    assert_all_is_printed(&sandbox, &registry);
    succeed(&mut sandbox.dvcfs(["cache", "check"]));
    for blob in &blobs {
        let path = sandbox.cache().join(blob.path());
        falsify(&path, &noise(9, blob.size as usize));
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    assert_all_is_printed(&sandbox, &registry);
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    assert!(fs::read(mount.path("small")).unwrap() == noise(1, SMALL));
    assert!(fs::read(mount.path("large")).unwrap() == noise(2, LARGE));
}

#[test]
fn files_that_were_changed_are_checked_again() {
    let sandbox = Sandbox::new();
    let (registry, blobs) = registry(&sandbox);
    let damages: [fn(&Path); 4] = [
        |path| File::options().write(true).open(path).unwrap().set_len(1000).unwrap(),
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, vec![0; path.metadata().unwrap().len() as usize]).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ];
    for damage in damages {
        assert_all_is_printed(&sandbox, &registry);
        for blob in &blobs {
            let path = sandbox.cache().join(blob.path());
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            damage(&path);
        }
        assert_all_is_printed(&sandbox, &registry);
        fs::remove_dir_all(sandbox.cache()).unwrap();
    }
}

#[test]
fn a_cache_without_room_for_anything() {
    let sandbox = Sandbox::new().with("DVCFS_CACHE_SIZE", "0");
    let (registry, _) = registry(&sandbox);
    assert_all_is_printed(&sandbox, &registry);
    let keeping_free = Sandbox::new().with("DVCFS_MIN_FREE", "1000T");
    let (registry, _) = self::registry(&keeping_free);
    assert_all_is_printed(&keeping_free, &registry);
}
