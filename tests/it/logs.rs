//! The log: its form, and systemd's journal in place of stderr.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    process::{Command, Stdio},
};

use rustix::fs::fstat;
use serde_json::Value;

use crate::{
    bad_input::in_namespace,
    support::{DATE, PATIENCE, Sandbox, noise, registry_on_disk, succeed},
};

/// A registry with a file that no remote has: reading it makes an entry in the log.
fn with_a_lost_file(sandbox: &Sandbox) {
    let registry = registry_on_disk(sandbox);
    let blob = registry.put(&noise(1, 1000)).unwrap();
    fs::remove_file(registry.objects().join(blob.path())).unwrap();
    registry.track_file("lost", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
}

#[test]
fn as_json_every_line_is_an_object() {
    let sandbox = Sandbox::new();
    with_a_lost_file(&sandbox);
    let args = ["--log-format", "json", "-v", "-v", "--rev", "main"];
    let mount = sandbox.mount_with(sandbox.path("registry"), &args);
    fs::read(mount.path("lost")).unwrap_err();
    let log = mount.log();
    let entries: Vec<Value> = log
        .lines()
        .filter(|line| !line.starts_with("note: "))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let told = entries.iter().find(|entry| entry["message"].as_str().unwrap().contains("lost"));
    let told = told.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(told["level"], "WARN");
    assert!(told["target"].as_str().unwrap().starts_with("dvcfs"), "{told}");
    assert!(told["timestamp"].is_string(), "{told}");
}

#[test]
fn the_form_can_be_set_in_the_settings_and_the_environment() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("settings.toml"), "log-format = 'json'\n").unwrap();
    let mut list = sandbox.dvcfs(["config", "list", "--origin", "--config", "settings.toml"]);
    let listed = String::from_utf8(succeed(&mut list)).unwrap();
    assert!(listed.contains("settings.toml\tlog-format=json\n"), "{listed}");
    let listed = String::from_utf8(succeed(list.env("DVCFS_LOG_FORMAT", "text"))).unwrap();
    assert!(listed.contains("environment DVCFS_LOG_FORMAT\tlog-format=text\n"), "{listed}");
}

/// The program in a place where the journal's socket is one of the test's.
fn with_journal(sandbox: &Sandbox, script: &str) -> (UnixDatagram, Command) {
    let socket = UnixDatagram::bind(sandbox.path("journal")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let place = r#"
        mount -t tmpfs tmpfs /run
        mkdir -p /run/systemd/journal
        : > /run/systemd/journal/socket
        mount --bind "$TOP/journal" /run/systemd/journal/socket
    "#;
    (socket, in_namespace(sandbox, &format!("{place}{script}")))
}

const READ_IN_BACKGROUND: &str = r#"
    mkdir "$TOP/mnt"
    "$PROGRAM" mount --rev main "$TOP/registry" "$TOP/mnt"
    ! cat "$TOP/mnt/lost" 2> /dev/null
    "$PROGRAM" umount "$TOP/mnt"
"#;

#[test]
fn where_systemd_reads_stderr_entries_go_to_its_journal() {
    let sandbox = Sandbox::new();
    with_a_lost_file(&sandbox);
    let (journal, mut command) = with_journal(&sandbox, READ_IN_BACKGROUND);
    let (mut reader, writer) = io::pipe().unwrap();
    let stat = fstat(&writer).unwrap();
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
    let status = command.stdin(Stdio::null()).stderr(writer).status().unwrap();
    drop(command);
    let mut stderr = String::new();
    reader.read_to_string(&mut stderr).unwrap();
    assert!(status.success(), "{stderr}");
    let mut entry = vec![0; 64 << 10];
    let entry = loop {
        let length = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..length]);
        if entry.contains("lost") {
            break entry.into_owned();
        }
    };
    // Each value with its length before it.
    for (name, value) in [("PRIORITY", "4"), ("SYSLOG_IDENTIFIER", "dvcfs")] {
        let length = char::from(value.len() as u8);
        let field = format!("{name}\n{length}\0\0\0\0\0\0\0{value}\n");
        assert!(entry.contains(&field), "no {field:?} in {entry}");
    }
    assert!(!stderr.contains("lost"), "twice: {stderr}");
    assert!(!sandbox.path("state/log").exists(), "a log that nobody needs");
}

#[test]
fn a_stderr_that_leads_elsewhere_and_a_form_that_was_asked_for_are_kept() {
    for (number, args) in [("1:1", ""), ("", "--log-format=text")].into_iter().enumerate() {
        let sandbox = Sandbox::new();
        with_a_lost_file(&sandbox);
        let (stream, args) = args;
        let script = READ_IN_BACKGROUND.replace("mount --rev", &format!("mount {args} --rev"));
        let (journal, mut command) = with_journal(&sandbox, &script);
        let log = File::create(sandbox.path("stderr")).unwrap();
        let place = log.metadata().unwrap();
        let its_own = format!("{}:{}", place.dev(), place.ino());
        command.env("JOURNAL_STREAM", if stream.is_empty() { &its_own } else { stream });
        assert!(command.stdin(Stdio::null()).stderr(log).status().unwrap().success(), "{number}");
        journal.set_nonblocking(true).unwrap();
        assert!(journal.recv(&mut [0; 1]).is_err(), "{number}: something is in the journal");
        let mut logs = fs::read_dir(sandbox.path("state/log")).unwrap();
        let log = fs::read_to_string(logs.next().unwrap().unwrap().path()).unwrap();
        assert!(log.contains("WARN") && log.contains("lost"), "{number}: {log}");
    }
}
