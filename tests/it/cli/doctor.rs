//! Diagnoses of machines and registries, sound ones and others.

use std::{fs, process::Command};

use insta::assert_snapshot;
use serde_json::Value;

use super::said;
use crate::{
    bad_input::in_namespace,
    registry_builder::RegistryBuilder,
    s3server::{Fault, S3Server},
    support::{DATE, PREFIX, Sandbox, noise, output, registry_on_disk, registry_on_s3},
};

/// What the doctor says, without what differs from machine to machine.
fn diagnosis(sandbox: &Sandbox, command: &mut Command) -> String {
    let said = said(sandbox, command);
    let line = |line: &str| {
        let (start, rest) = match line.split_once(": ") {
            Some((start @ ("ok   kernel" | "ok   git" | "ok   descriptors"), _)) => {
                (start, "[...]".into())
            }
            Some((start, rest)) => (start, without_measures(rest)),
            None => return line.to_owned(),
        };
        format!("{start}: {rest}")
    };
    said.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A text without the kind of the disk and how much of it is free.
fn without_measures(text: &str) -> String {
    let mut parts: Vec<_> = text.split(", ").map(str::to_owned).collect();
    for part in &mut parts {
        if let Some((start, _)) = part.split_once(" on ") {
            *part = format!("{start} on [DISK]");
        } else if part.ends_with(" free") {
            "[SOME] free".clone_into(part);
        }
    }
    parts.join(", ")
}

/// The lines that begin so.
fn lines<'a>(said: &'a str, starts: &[&str]) -> String {
    let is_wanted = |line: &&str| starts.iter().any(|start| line.starts_with(start));
    said.lines().filter(is_wanted).collect::<Vec<&'a str>>().join("\n")
}

/// The lines about something that is not as it should be, with their hints.
fn complaints(said: &str) -> String {
    lines(said, &["exit", "warn", "fail", "     hint"])
}

/// The doctor asked about a registry, on a disk that is large enough.
fn doctor(sandbox: &Sandbox, registry: &RegistryBuilder) -> Command {
    let mut command = sandbox.dvcfs(["doctor", "--min-free", "0"]);
    command.arg(registry.repository());
    command
}

/// A registry on S3 with a file and a folder.
fn on_s3(sandbox: &Sandbox) -> (RegistryBuilder, S3Server) {
    let (registry, server) = registry_on_s3(sandbox);
    fill(&registry);
    (registry, server)
}

fn fill(registry: &RegistryBuilder) {
    let blob = registry.put(&noise(1, 1000)).unwrap();
    registry.track_file("a.wav", &blob).unwrap();
    registry.track_folder("speech", &[("b.wav", blob)]).unwrap();
    registry.commit("Add files", DATE).unwrap();
}

#[test]
fn a_sound_machine_and_a_sound_registry() {
    let sandbox = Sandbox::new();
    let (registry, server) = on_s3(&sandbox);
    let mut command = doctor(&sandbox, &registry);
    assert_snapshot!(diagnosis(&sandbox, &mut command), @r"
    exit 0
    ok   kernel: [...]
    ok   fuse: /dev/fuse can be used
    ok   fusermount3: not needed by root
    ok   --allow-other: permitted
    ok   open mode: passthrough: the kernel reads cached files itself
    ok   descriptors: [...]
    ok   git: [...]
    ok   settings: /etc/dvcfs/config.toml (not there, which is fine)
    ok   cache: [SANDBOX]/cache: not there yet on [DISK], [SOME] free, limit 50.00 GiB, [SOME] free
    ok   state: [SANDBOX]/state: not there yet on [DISK], [SOME] free
    ok   sockets: [SANDBOX]/run/dvcfs
    ok   repository: [SANDBOX]/registry, main at 973d687065fd28cd5c9d50c96102e6a9e926787f
    ok   DVC settings: system none, global [SANDBOX]/dvc/global/config, repo .dvc/config, local none
    ok   outputs: 2 are tracked
    ok   remote s3 (default): s3://bucket/registry, credentials: AWS_ACCESS_KEY_ID in the environment
    ok   reachable: s3://bucket/registry has a.wav
    ");
    // One cheap question, whatever there is.
    let asked: Vec<_> = server.log().into_iter().map(|request| request.method).collect();
    assert_eq!(asked, ["HEAD"]);
    // Nothing was made.
    for folder in ["cache", "run/dvcfs"] {
        assert!(!sandbox.path(folder).exists(), "{folder}");
    }
}

#[test]
fn json_has_the_same_and_quiet_says_nothing_of_what_is_well() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    fill(&registry);
    let json = output(doctor(&sandbox, &registry).arg("--json"));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let checks = json["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["status"] == "ok"), "{json:#}");
    let printed = output(&mut doctor(&sandbox, &registry)).stdout;
    let printed = String::from_utf8(printed).unwrap();
    assert_eq!(printed.lines().filter(|line| line.starts_with("ok ")).count(), checks.len());
    let quiet = output(doctor(&sandbox, &registry).arg("--quiet"));
    assert!(quiet.stdout.is_empty() && quiet.status.success());
}

#[test]
fn settings_and_folders_that_cannot_be_used() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("settings.toml"), "cache-sice = '1G'\n").unwrap();
    fs::write(sandbox.path("file"), "").unwrap();
    let mut command = sandbox.dvcfs(["doctor", "--config"]);
    command.arg(sandbox.path("settings.toml"));
    for folder in ["CACHE", "STATE"] {
        command.env(format!("DVCFS_{folder}_DIR"), sandbox.path("file/folder"));
    }
    command.env("DVCFS_RUNTIME_DIR", sandbox.path("long/".repeat(20)));
    assert_snapshot!(complaints(&said(&sandbox, &mut command)), @r"
    exit 1
    fail settings: read the settings file [SANDBOX]/settings.toml: line 1: unknown field `cache-sice`, expected one of `cache-dir`, `cache-size`, `min-free`, `memory-limit`, `state-dir`, `runtime-dir`, `log-format`, `trusted-endpoints`
    warn cache: [SANDBOX]/file/folder: Not a directory (os error 20); files are read past it
         hint: give it to you with chown, or choose another with --cache-dir
    fail state: [SANDBOX]/file/folder: Not a directory (os error 20)
         hint: mirrors and indexes are kept there; choose another folder with --state-dir
    fail sockets: [SANDBOX]/long/long/long/long/long/long/long/long/long/long/long/long/long/long/long/long/long/long/long/long/: the path is too long for a socket
         hint: choose a shorter one with --runtime-dir
    ");
}

#[test]
fn a_cache_disk_that_is_too_full() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.dvcfs(["doctor", "--min-free", "1000000T"]);
    let said = complaints(&diagnosis(&sandbox, &mut command));
    assert_snapshot!(said, @r"
    exit 0
    warn cache: [SANDBOX]/cache: not there yet on [DISK], [SOME] free, limit 50.00 GiB, 976.56 PiB kept free: the disk is too full to keep anything
         hint: make room, or lower --min-free
    ");
}

#[test]
fn an_ordinary_user_on_a_system_that_cannot_mount() {
    let sandbox = Sandbox::new();
    let script = r#"
        chown -R -h 65534:65534 "$TOP"
        mount --bind /dev/null "$(command -v fusermount3)"
        mknod -m 600 "$TOP/fuse" c 10 229
        mount --bind "$TOP/fuse" /dev/fuse
        : > "$TOP/fuse.conf"
        mount --bind "$TOP/fuse.conf" /etc/fuse.conf
        exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c '
            ulimit -n 64
            exec "$PROGRAM" doctor
        '"#;
    let said = diagnosis(&sandbox, &mut in_namespace(&sandbox, script));
    let modes = ["ok   --allow", "ok   open mode"];
    assert_snapshot!(complaints(&said), @r"
    exit 1
    fail fuse: /dev/fuse cannot be opened: Permission denied (os error 13)
         hint: it should be open to all (sudo chmod 666 /dev/fuse); a container needs --device /dev/fuse
    fail fusermount3: not installed, and ordinary users mount through it
         hint: sudo apt install fuse3
         hint: to let users do so, add the line user_allow_other to /etc/fuse.conf
         hint: a mount of root, as from systemd or /etc/fstab, has it
    warn descriptors: at most 64 files can be open at a time
         hint: raise the hard limit: ulimit -Hn, or LimitNOFILE= of the service
    ");
    assert_snapshot!(lines(&said, &modes), @r"
    ok   --allow-other: only root may share mounts with other users
    ok   open mode: no-open: passthrough needs CAP_SYS_ADMIN
    ");
}

#[test]
fn a_mount_whose_daemon_has_died() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    fill(&registry);
    let mount = sandbox.mount_with(registry.repository(), &["--open-mode", "served"]);
    let living = said(&sandbox, &mut sandbox.dvcfs(["doctor"]));
    assert_snapshot!(lines(&living, &["exit", "ok   mount", "warn"]), @r"
    exit 0
    ok   mount: [SANDBOX]/mnt-0: [SANDBOX]/registry, open mode served
    ");
    let _dead = mount.kill();
    assert_snapshot!(complaints(&said(&sandbox, &mut sandbox.dvcfs(["doctor"]))), @r"
    exit 0
    warn mount: [SANDBOX]/mnt-0: its daemon has died
         hint: dvcfs umount --lazy [SANDBOX]/mnt-0
    ");
}

#[test]
fn a_server_that_is_away_and_one_that_refuses() {
    let sandbox = Sandbox::new();
    let (registry, server) = on_s3(&sandbox);
    let said = |command: &mut Command| complaints(&said(&sandbox, command));
    assert_snapshot!(said(doctor(&sandbox, &registry).env("AWS_SECRET_ACCESS_KEY", "wrong")), @r"
    exit 1
    fail reachable: s3://bucket/registry: SignatureDoesNotMatch
         hint: the secret key is not right
    ");
    server.fail_always(Fault::Status(403, "AccessDenied"));
    assert_snapshot!(said(&mut doctor(&sandbox, &registry)), @r"
    exit 1
    fail reachable: s3://bucket/registry: AccessDenied: on purpose
         hint: check the AWS profile; these credentials need s3:GetObject here, and without s3:ListBucket an object that is absent is refused too
    ");
    server.heal();
    fs::remove_dir_all(registry.objects().join("files")).unwrap();
    assert_snapshot!(said(&mut doctor(&sandbox, &registry)), @r"
    exit 0
    warn reachable: s3://bucket/registry answers, but lacks a.wav
         hint: push it from where it was added: dvc push
    ");
    fs::remove_dir_all(sandbox.path("s3/bucket")).unwrap();
    assert_snapshot!(said(&mut doctor(&sandbox, &registry)), @r"
    exit 1
    fail reachable: s3://bucket/registry: NoSuchBucket: there is no bucket bucket
         hint: check the bucket in `url`, and `endpointurl`
    ");
    drop(server);
    let away = said(&mut doctor(&sandbox, &registry));
    assert!(away.starts_with("exit 1\nfail reachable: s3://bucket/registry: "), "{away}");
}

#[test]
fn a_registry_that_asks_for_trust() {
    let sandbox = Sandbox::new();
    let (registry, server) = on_s3(&sandbox);
    let endpoint = server.endpoint();
    let config = format!(
        "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://{PREFIX}\n    endpointurl = {endpoint}\n"
    );
    registry.text(".dvc/config", &config).unwrap();
    registry.commit("Name the server", DATE).unwrap();
    sandbox.user_config("");
    let diagnosed = said(&sandbox, &mut doctor(&sandbox, &registry));
    assert_snapshot!(complaints(&diagnosed), @r"
    exit 1
    fail remote s3 (default): s3://bucket/registry: the repository sets endpointurl = http://[SERVER], and you have not agreed
         hint: if you trust this repository with your credentials, add --trust-remote
    ");
    assert!(server.log().is_empty(), "{:?}", server.log());
    let agreed = said(&sandbox, doctor(&sandbox, &registry).arg("--trust-remote"));
    assert_snapshot!(complaints(&agreed), @"exit 0");
}

#[test]
fn a_registry_that_is_not_as_it_should_be() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    let said = |command: &mut Command| complaints(&said(&sandbox, command));
    assert_snapshot!(said(&mut doctor(&sandbox, &registry)), @r"
    exit 1
    fail repository: the repository [SANDBOX]/registry/.git/ is empty: it has no commit yet
         hint: commit something first
    ");
    fill(&registry);
    registry.text("broken.dvc", "outs: [").unwrap();
    registry
        .text(
            ".dvc/config",
            "[core]\n    remote = none\n    novel = 1\n['remote \"ssh\"']\n    url = ssh://x/y\n",
        )
        .unwrap();
    registry.commit("Break things", DATE).unwrap();
    assert_snapshot!(said(&mut doctor(&sandbox, &registry)), @r#"
    exit 1
    warn DVC settings: 1 not understood, the first: Repo config: [core] novel: unknown key, ignored
         hint: dvcfs config list REPO --origin shows what counts
    warn outputs: 2 are tracked, 1 not understood, the first: broken.dvc: line 2: while parsing a node, did not find expected node content
         hint: the log of a mount names them all
    fail remote none (default): remote "none" is not configured
    fail reachable: none: remote "none" is not configured
         hint: `dvc remote list` shows what there is; --remote NAME reads from another
    "#);
    assert_snapshot!(said(doctor(&sandbox, &registry).args(["--remote", "ssh"])), @r"
    exit 1
    warn DVC settings: 1 not understood, the first: Repo config: [core] novel: unknown key, ignored
         hint: dvcfs config list REPO --origin shows what counts
    warn outputs: 2 are tracked, 1 not understood, the first: broken.dvc: line 2: while parsing a node, did not find expected node content
         hint: the log of a mount names them all
    fail reachable: ssh://x/y: ssh remotes cannot be read yet
         hint: remotes can be S3, http(s) and folders
    ");
    let plain = sandbox.path("plain");
    let plain = RegistryBuilder::start(&plain, &sandbox.path("none")).unwrap();
    plain.text("README.md", "").unwrap();
    plain.commit("Nothing of DVC", DATE).unwrap();
    assert_snapshot!(said(&mut doctor(&sandbox, &plain)), @r"
    exit 0
    warn repository: [SANDBOX]/plain, main at fb5230ce1db10be5cc59e3750ce2b59150e81313: it has no .dvc folder
         hint: is it the right one? Its files are shown as git has them
    ");
}

#[test]
fn a_url_that_is_away_since_it_was_mirrored() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    fill(&registry);
    let url = format!("file://{}", registry.repository().display());
    let said = || complaints(&said(&sandbox, &mut sandbox.dvcfs(["doctor", &url])));
    assert_snapshot!(said(), @"exit 0");
    fs::rename(registry.repository(), sandbox.path("away")).unwrap();
    let away = said();
    assert!(away.contains("as it was mirrored before"), "{away}");
}

#[test]
fn secrets_are_never_told() {
    let sandbox = Sandbox::new();
    let (registry, server) = on_s3(&sandbox);
    sandbox.user_config(&format!(
        "['remote \"s3\"']\n    url = s3://{PREFIX}\n    endpointurl = {}\n    access_key_id = AKIDTEST\n\
         \x20   secret_access_key = hunter2\n['remote \"web\"']\n    url = https://ann:hunter2@localhost/x\n",
        server.endpoint()
    ));
    let mut command = doctor(&sandbox, &registry);
    let said = said(&sandbox, command.env("AWS_SESSION_TOKEN", "hunter2").arg("-vv"));
    assert!(!said.contains("hunter2"), "{said}");
    assert_snapshot!(lines(&said, &["ok   remote", "warn remote", "fail"]), @r"
    ok   remote s3 (default): s3://bucket/registry, credentials: those in DVC's settings (global)
    ok   remote web: https://localhost/x, credentials: none needed
    fail reachable: s3://bucket/registry: SignatureDoesNotMatch
    ");
}
