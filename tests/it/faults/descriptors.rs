//! What the daemon has open: what failing files cost, and nothing of its caller's.

use std::fs;

use crate::support::{DATE, EIO, Sandbox, eventually, md5_of, noise, registry_on_disk, succeed};

fn descriptors(pid: u64) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn a_thousand_opens_of_failing_files_leave_no_descriptor_behind() {
    const FILES: u64 = 50;
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    // A third is missing, a third damaged while small, a third while large.
    for number in 0..FILES {
        let size = if number % 3 == 2 { 9 << 20 } else { 1000 };
        let blob = registry.put(&noise(number, if number % 3 == 2 { 1 } else { size })).unwrap();
        let object = registry.objects().join(blob.path());
        fs::remove_file(&object).unwrap();
        if number % 3 != 0 {
            fs::File::create(&object).unwrap().set_len(size as u64).unwrap();
        }
        let text = format!("outs:\n- md5: {}\n  hash: md5\n  path: f{number}\n", blob.md5());
        registry.text(&format!("f{number}.dvc"), &text).unwrap();
    }
    registry.text("good", "good\n").unwrap();
    registry.commit("Add files", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main"]);
    let pid = mount.pid();
    let round = || {
        for number in 0..FILES {
            let failed = md5_of(&mount.path(format!("f{number}"))).unwrap_err();
            assert_eq!(failed.raw_os_error(), Some(EIO), "f{number}");
        }
    };
    round();
    let before = descriptors(pid);
    for _ in 1..1000 / FILES {
        round();
    }
    eventually("the descriptors are as few as before", || descriptors(pid) <= before + 3);
    assert_eq!(fs::read(mount.path("good")).unwrap(), b"good\n");
    assert!(mount.log().len() < 1 << 20, "the log has {} bytes", mount.log().len());
}

#[test]
fn a_mount_in_the_background_holds_no_lock_of_its_caller() {
    const SCRIPT: &str = r#"
        exec 9> lock
        flock 9
        "$PROGRAM" mount registry mnt
        exec 9>&-
        code=0
        flock --nonblock lock true || code=$?
        "$PROGRAM" umount mnt
        exit $code
    "#;
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("text", "text\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    sandbox.folder("mnt");
    let mut shell = sandbox.tool("sh");
    succeed(shell.args(["-euc", SCRIPT]).env("PROGRAM", env!("CARGO_BIN_EXE_dvcfs")));
}
