//! What failing files cost the daemon.

use std::fs;

use crate::support::{
    DATE, EIO, Mount, Sandbox, eventually, md5_of, noise, registry_on_disk, text,
};

/// The daemon's process id.
fn pid(sandbox: &Sandbox, mount: &Mount) -> u64 {
    let mut status = sandbox.dvcfs(["status", "--json"]);
    let status = text(status.arg(mount.dir()));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status[0]["pid"].as_u64().unwrap()
}

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
    let pid = pid(&sandbox, &mount);
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
