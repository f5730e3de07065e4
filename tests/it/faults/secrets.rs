//! Secrets that the program is given stay out of logs, messages, arguments, files and the mount.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Fault, S3Server},
    support::{DATE, PREFIX, Sandbox, noise, output, registry_on_disk, registry_on_s3, succeed},
};

const SECRETS: [&str; 3] = ["xyzzy-of-environment", "xyzzy-of-settings", "xyzzy-token"];

fn assert_tells_nothing(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} tells {secret}: {text}");
    }
}

/// Every regular file below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => files.extend(files_below(&entry.path())),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files
}

/// A registry with a file in a bucket; the keys are in the environment and in the settings.
fn with_keys() -> (Sandbox, RegistryBuilder, S3Server) {
    let sandbox = Sandbox::new()
        .with("AWS_SECRET_ACCESS_KEY", SECRETS[0])
        .with("AWS_SESSION_TOKEN", SECRETS[2]);
    let (registry, server) = registry_on_s3(&sandbox);
    let blob = registry.put(&noise(1, 1000)).unwrap();
    registry.track_file("file", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    (sandbox, registry, server)
}

fn assert_a_mount_tells_nothing(
    sandbox: &Sandbox,
    registry: &RegistryBuilder,
    server: &S3Server,
    log_format: Option<&str>,
) {
    let mut args = vec!["-v", "-v", "--rev", "main"];
    args.extend(log_format.iter().flat_map(|format| ["--log-format", format]));
    let mount = sandbox.mount_with(registry.repository(), &args);
    for fault in [Fault::Status(403, "SignatureDoesNotMatch"), Fault::Page] {
        server.fail_always(fault);
        fs::read(mount.path("file")).unwrap_err();
    }
    server.heal();
    // The server knows neither of the keys.
    fs::read(mount.path("file")).unwrap_err();
    for report in ["stats", "missing", "version"] {
        assert_tells_nothing(report, &fs::read(mount.path(".dvcfs").join(report)).unwrap());
    }
    let mut status = sandbox.dvcfs(["status", "--json"]);
    let status = succeed(status.arg(mount.dir()));
    assert_tells_nothing("status", &status);
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let pid = status[0]["pid"].as_u64().unwrap();
    assert_tells_nothing("arguments", &fs::read(format!("/proc/{pid}/cmdline")).unwrap());
    assert_tells_nothing("the mount table", &fs::read("/proc/self/mounts").unwrap());
    let log = mount.log();
    assert!(log.contains("file"), "the failures are not in the log: {log}");
    assert_tells_nothing("log", log.as_bytes());
    drop(mount);
    for folder in ["state", "run", "cache"] {
        for file in files_below(&sandbox.path(folder)) {
            assert_tells_nothing(&file.display().to_string(), &fs::read(&file).unwrap());
        }
    }
}

#[test]
fn keys_of_the_environment() {
    let (sandbox, registry, server) = with_keys();
    assert_a_mount_tells_nothing(&sandbox, &registry, &server, None);
    let mut cat = sandbox.dvcfs(["cat", "-v", "-v"]);
    let failed = output(cat.arg(registry.repository()).arg("file"));
    assert_eq!(failed.status.code(), Some(5));
    assert_tells_nothing("cat", &failed.stderr);
}

#[test]
fn keys_of_the_settings() {
    let (sandbox, registry, server) = with_keys();
    sandbox.user_config(&format!(
        "['remote \"s3\"']\n    url = s3://{PREFIX}\n    endpointurl = {}\n    \
         access_key_id = AKIDOTHER\n    secret_access_key = {}\n    session_token = {}\n",
        server.endpoint(),
        SECRETS[1],
        SECRETS[2],
    ));
    assert_a_mount_tells_nothing(&sandbox, &registry, &server, Some("json"));
}

#[test]
fn a_password_in_the_url_of_a_remote() {
    let (sandbox, registry, _server) = with_keys();
    sandbox.user_config(&format!(
        "['remote \"s3\"']\n    url = http://ann:{}@127.0.0.1:1/store\n    \
         connect_timeout = 1\n",
        SECRETS[1]
    ));
    let mut cat = sandbox.dvcfs(["cat", "-v", "-v"]);
    let failed = output(cat.arg(registry.repository()).arg("file"));
    assert_eq!(failed.status.code(), Some(6), "{}", String::from_utf8_lossy(&failed.stderr));
    assert_tells_nothing("cat", &failed.stderr);
}

/// A `git` before the real one that writes down what it was called with.
fn watch_git(sandbox: Sandbox) -> (Sandbox, PathBuf) {
    let (bin, calls) = (sandbox.folder("bin"), sandbox.path("calls"));
    let path = std::env::var("PATH").unwrap();
    let script =
        format!("#!/bin/sh\necho \"$@\" >> '{}'\nPATH='{path}' exec git \"$@\"\n", calls.display());
    fs::write(bin.join("git"), script).unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{path}", bin.display());
    (sandbox.with("PATH", path), calls)
}

#[test]
fn a_password_in_the_url_of_a_repository() {
    let (sandbox, calls) = watch_git(Sandbox::new());
    let url = format!("http://ann:{}@127.0.0.1:1/registry.git", SECRETS[0]);
    let mut mount = sandbox.dvcfs(["mount", "-v", "-v", &url]);
    let failed = output(mount.arg(sandbox.folder("mnt")));
    assert_eq!(failed.status.code(), Some(6));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("127.0.0.1:1/registry.git"), "{said}");
    assert_tells_nothing("mount", &failed.stderr);
    let calls = fs::read(calls).unwrap();
    assert!(!calls.is_empty());
    assert_tells_nothing("the arguments of git", &calls);
}

#[test]
fn a_repository_that_is_mounted_by_a_url_with_a_password_is_shown_without() {
    let sandbox = Sandbox::new();
    let registry = registry_on_disk(&sandbox);
    registry.text("text", "text\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    // Git ignores who is named in the URL of a file.
    let url = format!("file://ann:{}@localhost{}", SECRETS[0], registry.repository().display());
    let mut cat = sandbox.dvcfs(["cat", "-v", "-v", &url, "text"]);
    let output = output(&mut cat);
    assert_tells_nothing("cat", &output.stderr);
}
