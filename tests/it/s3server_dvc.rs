//! The test server against real DVC: what it stores for DVC, DVC finds and we read.

use std::{path::Path, process::Command};

use crate::s3server::{ACCESS_KEY, Options, S3Server, SECRET_KEY};

/// Runs a program of the Python environment, or git, and insists that it succeeds.
fn run(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder.parent().unwrap())
        .env("DVC_NO_ANALYTICS", "1")
        .env("DVC_SITE_CACHE_DIR", folder.parent().unwrap().join("site"))
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}

#[test]
fn dvc_pushes_to_the_test_server_and_pulls_again() {
    let venv = std::env::var("DVCFS_TEST_VENV")
        .expect("DVCFS_TEST_VENV must name a Python environment with dvc[s3]");
    let dvc = format!("{venv}/bin/dvc");
    let home = tempfile::tempdir().unwrap();
    let (store, work) = (home.path().join("store"), home.path().join("work"));
    std::fs::create_dir_all(store.join("bucket")).unwrap();
    std::fs::create_dir_all(work.join("data/deep")).unwrap();
    // One file is above the size from which DVC uploads in parts.
    std::fs::write(work.join("data/big"), vec![7; 101 << 20]).unwrap();
    std::fs::write(work.join("data/deep/small"), "small").unwrap();
    let server = S3Server::start(store.clone(), Options::default());

    run("git", &["init", "-q"], &work);
    run(&dvc, &["init", "-q"], &work);
    run(&dvc, &["remote", "add", "-d", "s3", "s3://bucket/store"], &work);
    run(&dvc, &["remote", "modify", "s3", "endpointurl", &server.endpoint()], &work);
    run(&dvc, &["add", "-q", "data"], &work);
    run(&dvc, &["push", "-q"], &work);
    let has_parts = server.log().iter().any(|request| request.query.contains("partNumber="));
    assert!(has_parts, "a big file comes in parts");

    std::fs::remove_dir_all(work.join("data")).unwrap();
    std::fs::remove_dir_all(work.join(".dvc/cache")).unwrap();
    run(&dvc, &["pull", "-q"], &work);
    assert_eq!(std::fs::read(work.join("data/big")).unwrap().len(), 101 << 20);
    assert_eq!(std::fs::read(work.join("data/deep/small")).unwrap(), b"small");
    assert!(run(&dvc, &["status", "-c"], &work).contains("in sync"));
}
