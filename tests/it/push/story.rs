//! The story of the tutorial, from an empty registry to a colleague who uses what is in it.

use std::{fs, process::Command};

use super::Lab;
use crate::{
    s3server::{Options, S3Server},
    support::{Dvc, PREFIX, Sandbox, md5_of, noise, succeed, text},
};

/// Stands for a program that transcribes: it reads the whole recording from the mount.
const TRANSCRIBE: &str = "md5sum < interview.wav | cut -d ' ' -f 1 > interview.txt";

#[test]
fn a_recording_is_added_transcribed_and_imported_by_a_colleague() {
    let sandbox = Sandbox::new();
    let (root, registry) = (sandbox.folder("s3"), sandbox.folder("registry"));
    fs::create_dir_all(root.join(PREFIX)).unwrap();
    let server = S3Server::start(root, Options::default());
    let remote = format!("['remote \"s3\"']\n    url = s3://{PREFIX}\n");
    sandbox.user_config(&format!("{remote}    endpointurl = {}\n", server.endpoint()));
    let mut dvc = Dvc::start(&sandbox);
    let mut run = |folder: &std::path::Path, command: &str, words: &[&str]| {
        let case = words.iter().map(|word| (*word).to_owned()).collect();
        let printed = dvc.run(&sandbox, folder, command, &[case]).remove(0);
        printed.unwrap_or_else(|| panic!("dvc {command} {words:?}"))
    };

    let git = |folder: &std::path::Path, args: &[&str]| text(sandbox.git(folder).args(args));
    git(&registry, &["init", "--quiet", "--initial-branch=main"]);
    run(&registry, "init", &[]);
    run(&registry, "remote", &["add", "--default", "s3", &format!("s3://{PREFIX}")]);
    git(&registry, &["add", "--all"]);
    git(&registry, &["commit", "--quiet", "--message", "Begin a registry"]);
    let origin = sandbox.path("origin.git");
    succeed(sandbox.git(&registry).args(["clone", "--quiet", "--bare", "."]).arg(&origin));

    let mut lab = Lab { sandbox, server, mount: None };
    lab.mount(&lab.url(), &["--rev", "main"]);
    let folder = lab.path("interviews");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("interview.wav"), noise(5, 300_000)).unwrap();
    lab.snapshot();
    lab.push(&[]);
    succeed(Command::new("sh").args(["-c", TRANSCRIBE]).current_dir(&folder));
    lab.snapshot();
    lab.push(&[]);
    let transcript = fs::read_to_string(folder.join("interview.txt")).unwrap();
    assert_eq!(transcript.trim(), md5_of(&folder.join("interview.wav")).unwrap().0);

    let sandbox = &lab.sandbox;
    let colleague = sandbox.folder("colleague");
    succeed(sandbox.git(&colleague).args(["init", "--quiet"]));
    let mut dvc = Dvc::start(sandbox);
    let mut run = |command: &str, words: &[&str]| {
        let case = words.iter().map(|word| (*word).to_owned()).collect();
        let printed = dvc.run(sandbox, &colleague, command, &[case]).remove(0);
        printed.unwrap_or_else(|| panic!("dvc {command} {words:?}"))
    };
    run("init", &[]);
    let url = origin.to_str().unwrap();
    run("import", &[url, "interviews/interview.wav"]);
    run("import", &[url, "interviews/interview.txt"]);
    assert!(fs::read(colleague.join("interview.wav")).unwrap() == noise(5, 300_000));
    assert_eq!(fs::read_to_string(colleague.join("interview.txt")).unwrap(), transcript);
}
