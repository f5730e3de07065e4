//! Repositories behind URLs of every form, and what mounts leave in them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    bad_input::refused,
    registry_builder::RegistryBuilder,
    s3server::{Options, S3Server},
    support::{
        DATE, Sandbox, WebAnswer, WebRequest, WebServer, noise, registry_on_disk, succeed, text,
    },
};

/// A registry of one small file in git.
fn registry(sandbox: &Sandbox) -> RegistryBuilder {
    let registry = registry_on_disk(sandbox);
    registry.text("text", "of git\n").unwrap();
    registry.commit("Add a file", DATE).unwrap();
    registry
}

fn assert_is_mounted(sandbox: &Sandbox, url: &str) {
    let mount = sandbox.mount_with(url, &["--rev", "main"]);
    assert_eq!(fs::read(mount.path("text")).unwrap(), b"of git\n", "{url}");
}

/// An `ssh` that writes down what it is asked for and serves a repository whatever that is.
fn ssh_to(sandbox: Sandbox, repository: &Path) -> (Sandbox, PathBuf) {
    let (program, log) = (sandbox.path("ssh"), sandbox.path("ssh.log"));
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{}'\nfor last; do :; done\n\
         case \"$last\" in git-upload-pack*) exec git-upload-pack '{}' ;; esac\nexit 1\n",
        log.display(),
        repository.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let command = program.to_str().unwrap().to_owned();
    (sandbox.with("GIT_SSH_COMMAND", command), log)
}

#[test]
fn urls_of_every_ssh_form_reach_the_place_that_they_name() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let (sandbox, log) = ssh_to(sandbox, registry.repository());
    for (url, asked) in [
        (
            "ssh://git@storage.invalid:2222/~team/my%20registry.git",
            "-p 2222 git@storage.invalid git-upload-pack '~team/my registry.git'",
        ),
        ("ssh://git@[::1]:2222/r.git", "-p 2222 git@::1 git-upload-pack '/r.git'"),
        ("ssh://storage.invalid/a%25b", "storage.invalid git-upload-pack '/a%b'"),
        (
            "git@storage.invalid:~/my registry.git",
            "git@storage.invalid git-upload-pack '~/my registry.git'",
        ),
        ("git@storage.invalid:a%20b", "git@storage.invalid git-upload-pack 'a%20b'"),
        ("[git@storage.invalid:2222]:r.git", "-p 2222 git@storage.invalid git-upload-pack 'r.git'"),
        ("git@[::1]:r.git", "git@::1 git-upload-pack 'r.git'"),
        ("storage.invalid:team@place/r", "storage.invalid git-upload-pack 'team@place/r'"),
    ] {
        assert_is_mounted(&sandbox, url);
        let calls = fs::read_to_string(&log).unwrap();
        assert!(calls.lines().all(|line| line.ends_with(asked)), "{url}: {calls}");
        fs::remove_file(&log).unwrap();
    }
}

#[test]
fn file_urls_and_paths_may_have_spaces_percent_signs_and_tildes() {
    let sandbox = Sandbox::new();
    let made = registry(&sandbox);
    let odd = sandbox.path("my ~ 100% registry: it's");
    fs::rename(made.repository(), &odd).unwrap();
    let path = odd.to_str().unwrap();
    assert_is_mounted(&sandbox, path);
    assert_is_mounted(&sandbox, &format!("file://{}", path.replace('%', "%25")));
    assert_is_mounted(
        &sandbox,
        &format!("file://{}", path.replace('%', "%25").replace(' ', "%20")),
    );
}

/// The files of a bare repository, for whoever knows the password.
fn files_of(folder: PathBuf) -> impl Fn(&WebRequest) -> WebAnswer {
    move |request| {
        // me:hush
        if request.header("authorization") != Some("Basic bWU6aHVzaA==") {
            return WebAnswer::status(401).with("www-authenticate", "Basic realm=\"git\"");
        }
        let path = request.target.split('?').next().unwrap_or_default();
        let path = path.trim_start_matches("/my%20registry.git/");
        fs::read(folder.join(path)).map_or_else(|_| WebAnswer::status(404), WebAnswer::ok)
    }
}

#[test]
fn a_password_in_the_url_is_used_and_told_to_nobody() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let bare = sandbox.path("bare");
    succeed(
        sandbox.git(registry.repository()).args(["clone", "--quiet", "--bare", "."]).arg(&bare),
    );
    succeed(sandbox.git(&bare).arg("update-server-info"));
    let server = WebServer::start_on("[::1]:0", files_of(bare));
    let host = server.url().replace("http://", "");
    let url = format!("http://me:hush@{host}/my%20registry.git");
    let mount = sandbox.mount_with(&url, &["-v", "-v", "--rev", "main"]);
    assert_eq!(fs::read(mount.path("text")).unwrap(), b"of git\n");
    let status = text(sandbox.dvcfs(["status", "--json"]).arg(mount.dir()));
    assert!(status.contains(&format!("http://***@{host}/my%20registry.git")), "{status}");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for told in [&status, &table, &mount.log()] {
        assert!(!told.contains("hush"), "{told}");
    }
    drop(mount);

    let wrong = format!("http://me:hush2@{host}/my%20registry.git");
    fs::remove_dir_all(sandbox.path("state")).unwrap();
    let said = refused(&sandbox, sandbox.dvcfs(["cat", &wrong, "text"]).env("NO_COLOR", "1"));
    assert!(said.starts_with("exit 5\n"), "{said}");
    assert!(said.contains("***@") && !said.contains("hush"), "{said}");
}

#[test]
fn an_https_url_is_mirrored_under_the_certificates_that_git_is_told() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let bare = sandbox.folder("web/git").join("registry.git");
    succeed(
        sandbox.git(registry.repository()).args(["clone", "--quiet", "--bare", "."]).arg(&bare),
    );
    succeed(sandbox.git(&bare).arg("update-server-info"));
    // An open bucket is a web server, too.
    let options = Options { tls: true, anonymous: true, ..Options::default() };
    let server = S3Server::start(sandbox.path("web"), options);
    let url = format!("{}/git/registry.git", server.endpoint());
    let said = refused(&sandbox, &mut sandbox.dvcfs(["cat", &url, "text"]));
    assert!(said.starts_with("exit 6\n") && said.contains("certificate"), "{said}");

    let certificate = sandbox.path("ca.pem");
    fs::write(&certificate, server.certificate().unwrap()).unwrap();
    let sandbox = sandbox.with("GIT_SSL_CAINFO", certificate.to_str().unwrap());
    assert_is_mounted(&sandbox, &url);
    // What is there already needs no server.
    let commit = registry.git(&["rev-parse", "HEAD"]).unwrap();
    drop(server);
    assert_eq!(text(&mut sandbox.dvcfs(["cat", &url, "text", "--rev", &commit])), "of git");
}

/// The commits that mounts keep in a repository.
fn kept(sandbox: &Sandbox, repository: &Path) -> Vec<String> {
    let mut git = sandbox.git(repository);
    let refs = text(git.args(["for-each-ref", "--format=%(refname)", "refs/dvcfs/keep"]));
    refs.lines().map(str::to_owned).collect()
}

#[test]
fn what_a_killed_mount_kept_goes_with_the_next_mount() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let repository = registry.repository();
    let args = ["--rev", "main"];
    let (living, killed) =
        (sandbox.mount_with(repository, &args), sandbox.mount_with(repository, &args));
    let before = kept(&sandbox, repository);
    assert_eq!(before.len(), 2, "{before:?}");
    let _dead = killed.kill();
    assert_eq!(kept(&sandbox, repository), before, "nobody has swept yet");
    let next = sandbox.mount_with(repository, &args);
    let after = kept(&sandbox, repository);
    assert_eq!(after.len(), 2, "{after:?}");
    assert_eq!(after.iter().filter(|name| before.contains(name)).count(), 1, "{after:?}");
    drop((living, next));
    assert_eq!(kept(&sandbox, repository), [""; 0]);
    let keepers = fs::read_dir(sandbox.path("state/keepers")).unwrap();
    assert_eq!(keepers.count(), 0);
}

#[test]
fn a_commit_that_is_mounted_outlives_its_branch_and_gits_collection() {
    let sandbox = Sandbox::new();
    let registry = registry(&sandbox);
    let blob = registry.put(&noise(1, 10_000)).unwrap();
    registry.track_file("tracked", &blob).unwrap();
    registry.text("folder/inner", "inner\n").unwrap();
    registry.commit("Add more", DATE).unwrap();
    let mount = sandbox.mount_with(registry.repository(), &["--rev", "main", "--no-follow"]);
    registry.git(&["reset", "--quiet", "--hard", "HEAD~1"]).unwrap();
    registry.git(&["reflog", "expire", "--expire=now", "--all"]).unwrap();
    registry.git(&["gc", "--quiet", "--prune=now"]).unwrap();
    assert_eq!(fs::read(mount.path("folder/inner")).unwrap(), b"inner\n");
    assert!(fs::read(mount.path("tracked")).unwrap() == noise(1, 10_000));
}
