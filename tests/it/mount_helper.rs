//! `mount.dvcfs`: mount(8), `/etc/fstab`, and what boot asks of them.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use insta::assert_snapshot;
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process, kill_process_group},
};

use crate::{
    bad_input::{in_namespace, without_places},
    support::{DATE, Sandbox, eventually, is_mounted, output, registry_on_disk, succeed},
};

/// A registry with a tag `v1`; what lies in git suffices.
fn registry(sandbox: &Sandbox) -> PathBuf {
    let registry = registry_on_disk(sandbox);
    registry.text("text", "one\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    registry.git(&["tag", "v1"]).unwrap();
    registry.text("text", "two\n").unwrap();
    registry.commit("Change it", DATE).unwrap();
    registry.repository().to_owned()
}

/// The program by the name that mount(8) calls, in a sandbox.
pub(crate) fn helper(sandbox: &Sandbox, args: &[&str]) -> Command {
    let program = sandbox.path("mount.dvcfs");
    if !program.exists() {
        symlink(env!("CARGO_BIN_EXE_dvcfs"), &program).unwrap();
    }
    let mut command = sandbox.tool(program);
    command.args(args);
    command
}

/// How a run of it ended and what it said.
fn said(sandbox: &Sandbox, command: &mut Command) -> String {
    let Output { status, stderr, .. } = output(command);
    let said = String::from_utf8(stderr).unwrap();
    format!("exit {}\n{}", status.code().unwrap(), without_places(sandbox, &said))
}

/// A mount that goes with this.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if is_mounted(&self.0) {
            // What the test says matters more than what is left.
            _ = unmount(&self.0, UnmountFlags::DETACH);
        }
    }
}

/// Puts the program where mount(8) looks for it, for this script alone.
const INSTALL: &str = r#"
    sbin=$(readlink -f /sbin)
    mkdir "$TOP/layers" "$TOP/mnt"
    mount -t tmpfs tmpfs "$TOP/layers"
    mkdir "$TOP/layers/upper" "$TOP/layers/work"
    mount -t overlay -o "lowerdir=$sbin,upperdir=$TOP/layers/upper,workdir=$TOP/layers/work" \
        overlay "$sbin"
    ln -s "$PROGRAM" "$sbin/mount.dvcfs"
    ln -s "$PROGRAM" "$sbin/mount.fuse.dvcfs"
"#;

/// What a script prints when `mount` and the rest do.
fn with_mount(sandbox: &Sandbox, script: &str) -> String {
    let printed = succeed(&mut in_namespace(sandbox, &format!("{INSTALL}{script}")));
    without_places(sandbox, &String::from_utf8(printed).unwrap())
}

#[test]
fn mount_8_mounts_with_options_and_the_tree_answers_when_it_returns() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = r#"
        mount -t dvcfs -o rev=v1,ro,noatime,noexec,_netdev,nofail,x-test=1,cache-size=1G \
            "$TOP/registry" "$TOP/mnt"
        cat "$TOP/mnt/text"
        findmnt --noheadings --output FSTYPE,SOURCE,VFS-OPTIONS "$TOP/mnt" | tr -s ' '
        "$PROGRAM" umount "$TOP/mnt"
        mount -t fuse.dvcfs -o ro,uid=7,gid=8 "$TOP/registry" "$TOP/mnt"
        stat --format '%u %g' "$TOP/mnt/main/text"
        umount "$TOP/mnt"
    "#;
    assert_snapshot!(with_mount(&sandbox, script), @r"
    one
    fuse.dvcfs [SANDBOX]/registry ro,nosuid,nodev,noexec,relatime
    7 8
    ");
}

#[test]
fn options_that_are_the_kernels_reach_it() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = r#"
        ln -s text "$TOP/registry/link"
        git -C "$TOP/registry" add link
        git -C "$TOP/registry" commit --quiet --message "Add a link"
        mount -t dvcfs -o rev=main,nosymfollow "$TOP/registry" "$TOP/mnt"
        readlink "$TOP/mnt/link"
        cat "$TOP/mnt/text"
        if cat "$TOP/mnt/link" 2> /dev/null; then exit 1; fi
        "$PROGRAM" umount "$TOP/mnt"
        mount -t dvcfs -o 'rev=v1,context="system_u:object_r:var_t:s0:c1,c2"' \
            "$TOP/registry" "$TOP/mnt"
        cat "$TOP/mnt/text"
        umount "$TOP/mnt"
    "#;
    assert_snapshot!(with_mount(&sandbox, script), @r"
    text
    two
    one
    ");
    // Without mount(8), which leaves labels out where the kernel has none, the kernel decides.
    let has_labels = Path::new("/sys/fs/selinux/enforce").exists();
    let dir = sandbox.folder("mnt");
    let _mounted = Mounted(dir.clone());
    let mut labelled = helper(&sandbox, &["-o", "context=system_u:object_r:tmp_t:s0"]);
    let labelled = output(labelled.arg(sandbox.path("registry")).arg(&dir));
    assert_eq!(labelled.status.success(), has_labels);
}

#[test]
fn a_line_of_fstab_is_mounted_once() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = r#"
        echo "$TOP/registry $TOP/mnt dvcfs rev=v1,_netdev,nofail,user,x-systemd.automount 0 0" \
            > "$TOP/fstab"
        mount --fstab "$TOP/fstab" --all
        mount --fstab "$TOP/fstab" --all
        cat "$TOP/mnt/text"
        findmnt --noheadings "$TOP/mnt" | wc -l
        umount "$TOP/mnt"
        mount --fstab "$TOP/fstab" "$TOP/mnt"
        cat "$TOP/mnt/text"
        "$PROGRAM" umount "$TOP/mnt"
    "#;
    assert_snapshot!(with_mount(&sandbox, script), @r"
    one
    1
    one
    ");
}

#[test]
fn lines_of_fstab_that_make_no_sense_say_so_with_the_codes_of_mount_8() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = r#"
        try() {
            echo "$TOP/registry $TOP/mnt dvcfs $1 0 0" > "$TOP/fstab"
            shift
            code=0
            mount --fstab "$TOP/fstab" "$@" "$TOP/mnt" 2>&1 || code=$?
            echo "exit $code"
        }
        try rev=v1,folow
        try rev=none,nofail
        try cache-size=big
        try rev=v1,folow -s
        cat "$TOP/mnt/text"
        try rev=v1 -o remount
        "$PROGRAM" umount "$TOP/mnt"
    "#;
    assert_snapshot!(with_mount(&sandbox, script), @r#"
    error: mount on [SANDBOX]/mnt: there is no option folow
    hint: did you mean follow?
    exit 1
    error: mount [SANDBOX]/registry: unknown revision `none`
    hint: git log, git branch -a and git tag show what there is
    exit 32
    error: mount on [SANDBOX]/mnt: invalid value 'big' for 'cache-size <SIZE>': "big" is not a size; write a number with K, M, G or T, like 50G
    exit 1
    warning: there is no option folow
    exit 0
    one
    error: mount on [SANDBOX]/mnt: there is no option remount
    hint: unmount it, and mount it again with other options
    exit 1
    "#);
}

#[test]
fn root_without_an_environment_has_the_folders_of_the_system() {
    let sandbox = Sandbox::new();
    registry(&sandbox);
    let script = r#"
        for folder in /var/cache /var/lib /run /root; do
            mount -t tmpfs tmpfs "$folder"
        done
        env --ignore-environment PATH="$PATH" \
            mount -t dvcfs -o rev=v1 "$TOP/registry" "$TOP/mnt"
        cat "$TOP/mnt/text"
        ls -d /var/cache/dvcfs /var/lib/dvcfs /run/dvcfs
        env --ignore-environment "$PROGRAM" umount "$TOP/mnt"
        ls -A /root
    "#;
    assert_snapshot!(with_mount(&sandbox, script), @r"
    one
    /run/dvcfs
    /var/cache/dvcfs
    /var/lib/dvcfs
    ");
}

#[test]
fn the_command_line_of_the_helper() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let dir = sandbox.folder("mnt");
    let (repository, dir) = (repository.to_str().unwrap(), dir.to_str().unwrap());
    let _mounted = Mounted(dir.into());
    let said = |args: &[&str]| said(&sandbox, &mut helper(&sandbox, args));
    assert!(said(&[repository]).starts_with("exit 1\nerror: "));
    assert_snapshot!(said(&[repository, dir, "-o", "uid=ann"]), @r"
    exit 1
    error: mount on [SANDBOX]/mnt: invalid value 'ann' for 'uid <UID>': invalid digit found in string
    ");
    assert_snapshot!(said(&[repository, dir, "-f", "-o", "rev=v1"]), @"exit 0");
    assert!(!is_mounted(Path::new(dir)));
    assert_snapshot!(said(&[repository, dir, "-o", "rw,rev=main,overlay,ro"]), @r"
    exit 1
    error: mount on [SANDBOX]/mnt: it cannot be read-only and have an overlay
    ");
    assert_snapshot!(said(&[repository, dir, "-o", "rev=none"]), @r"
    exit 32
    error: mount [SANDBOX]/registry: unknown revision `none`
    hint: git log, git branch -a and git tag show what there is
    ");
    assert_snapshot!(said(&[repository, dir, "-sn", "-t", "dvcfs", "-o", "rw,rev=v1,so,such"]), @r"
    exit 0
    warning: there is no option so
    warning: there is no option such
    ");
    assert_eq!(fs::read_to_string(Path::new(dir).join("text")).unwrap(), "one\n");
    assert_snapshot!(said(&[repository, dir, "-o", "rev=v1"]), @r"
    exit 32
    error: mount on [SANDBOX]/mnt: it is a mount already
    hint: end it first: dvcfs umount [SANDBOX]/mnt
    ");
    let umount = succeed(&mut sandbox.dvcfs(["umount", dir]));
    assert!(umount.is_empty() && !is_mounted(Path::new(dir)));
}

#[test]
fn a_folder_that_is_not_empty_is_covered_as_by_any_mount() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let dir = sandbox.folder("mnt");
    let _mounted = Mounted(dir.clone());
    fs::write(dir.join("below"), "").unwrap();
    succeed(helper(&sandbox, &["-o", "rev=v1"]).arg(&repository).arg(&dir));
    assert!(!dir.join("below").exists() && dir.join("text").exists());
    succeed(sandbox.dvcfs(["umount"]).arg(&dir));
    assert!(dir.join("below").exists());
}

#[test]
fn an_overlay_makes_it_writable() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let dir = sandbox.folder("mnt");
    let _mounted = Mounted(dir.clone());
    succeed(helper(&sandbox, &["-o", "rw,rev=main,overlay"]).arg(&repository).arg(&dir));
    fs::write(dir.join("text"), "three\n").unwrap();
    assert_eq!(fs::read_to_string(dir.join("text")).unwrap(), "three\n");
    succeed(sandbox.dvcfs(["umount"]).arg(&dir));
}

#[test]
fn what_the_system_lacks_and_what_cannot_be_recorded_have_codes_of_their_own() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    fs::write(sandbox.path("file"), "").unwrap();
    let dir = sandbox.folder("mnt");
    let mut unrecorded = helper(&sandbox, &["-o", "runtime-dir=file"]);
    assert_snapshot!(said(&sandbox, unrecorded.arg(&repository).arg(&dir)), @r"
    exit 16
    error: make [SANDBOX]/file: File exists (os error 17)
    ");
    assert!(!is_mounted(&dir));
    let script = r#"
        ln -s "$PROGRAM" "$TOP/mount.dvcfs"
        mkdir "$TOP/dev"
        mknod -m 666 "$TOP/dev/null" c 1 3
        mount --bind "$TOP/dev" /dev
        exec "$TOP/mount.dvcfs" "$TOP/registry" "$TOP/mnt"
    "#;
    fs::remove_file(sandbox.path("mount.dvcfs")).unwrap();
    assert_snapshot!(said(&sandbox, &mut in_namespace(&sandbox, script)), @r"
    exit 2
    error: /dev/fuse cannot be used: No such file or directory (os error 2)
    hint: load the fuse module (modprobe fuse); in a container pass --device /dev/fuse
    ");
}

#[test]
fn a_user_who_gives_up_while_the_server_is_silent() {
    let sandbox = Sandbox::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/registry.git", server.local_addr().unwrap());
    let dir = sandbox.folder("mnt");
    let mut command = helper(&sandbox, &[&url]);
    command.arg(&dir).process_group(0).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    server.set_nonblocking(true).unwrap();
    let mut silent = None;
    eventually("git asks", || {
        silent = server.accept().ok();
        silent.is_some()
    });
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(8));
    assert!(!is_mounted(&dir));
    drop(silent);
}

#[test]
fn a_helper_whose_process_is_killed_could_not_mount() {
    let sandbox = Sandbox::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/registry.git", server.local_addr().unwrap());
    let dir = sandbox.folder("mnt");
    let mut helper = helper(&sandbox, &[&url]);
    let helper = helper.arg(&dir).stderr(Stdio::piped()).spawn().unwrap();
    let (silent, _) = server.accept().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", helper.id());
    let child = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    let Output { status, stderr, .. } = helper.wait_with_output().unwrap();
    assert_eq!(status.code(), Some(32));
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(said, "error: wait for the mount: its process was killed\n");
    drop(silent);
}

/// A URL on this machine that nobody answers.
fn refusing_url() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}/team/registry.git")
}

/// Has git find a URL's repository on this disk, as long as the file is there.
fn network(sandbox: &Sandbox, url: &str, repository: &Path) -> PathBuf {
    let config = sandbox.path("home/.gitconfig");
    let text = format!("[url \"file://{}\"]\n\tinsteadOf = {url}\n", repository.display());
    fs::write(&config, text).unwrap();
    config
}

#[test]
fn boot_without_a_network_mounts_what_is_mirrored_and_fails_soon_for_the_rest() {
    let sandbox = Sandbox::new();
    let repository = registry(&sandbox);
    let url = refusing_url();
    let dir = sandbox.folder("mnt");
    let _mounted = Mounted(dir.clone());
    let mount = |options: &str| {
        let mut command = helper(&sandbox, &["-o", options, &url]);
        said(&sandbox, command.arg(&dir))
    };
    let text = || fs::read_to_string(dir.join("text")).unwrap();
    let umount = || drop(succeed(sandbox.dvcfs(["umount"]).arg(&dir)));
    let refused = mount("rev=v1,_netdev,nofail");
    assert!(refused.starts_with("exit 32\nerror: open http://[SERVER]/team/registry.git: "));
    assert!(refused.contains("Failed to connect"), "{refused}");
    assert_eq!(refused.lines().count(), 2, "{refused}");
    assert!(!is_mounted(&dir));

    let config = network(&sandbox, &url, &repository);
    assert_eq!(mount("rev=v1,_netdev,nofail"), "exit 0\n");
    umount();
    fs::remove_file(config).unwrap();
    assert_eq!(mount("rev=v1,_netdev,nofail"), "exit 0\n");
    assert_eq!(text(), "one\n");
    umount();
    let branch = mount("rev=main,_netdev,nofail");
    assert!(branch.starts_with("exit 0\n") && branch.contains("mirrored before"), "{branch}");
    assert_eq!(text(), "two\n");
    umount();
    let unknown = mount("rev=none,_netdev,nofail");
    assert!(unknown.starts_with("exit 32\n"), "{unknown}");
    assert!(!is_mounted(&dir));
}
