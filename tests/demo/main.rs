//! Try dvcfs without an account or a network: `cargo build && cargo run --example demo`.
//!
//! Makes a small audio registry in a temporary folder, serves its objects from an S3 server of its
//! own on the loopback interface, mounts it with the real `dvcfs`, shows a tour, and waits until
//! Ctrl-C. With `--once` it ends after the tour. Everything is removed at the end.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a demonstration talks to whoever runs it"
)]

#[path = "../support/demo_registry/mod.rs"]
mod demo_registry;
mod mount;
#[expect(dead_code, reason = "tests use more of it")]
#[path = "../support/registry_builder.rs"]
mod registry_builder;
#[allow(unused_imports, reason = "the tests use more of it")]
#[path = "../support/s3server/mod.rs"]
mod s3server;
mod tour;

use std::{collections::HashMap, path::Path, process::ExitCode};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    demo_registry::{DemoRevision, REMOTE_PATH},
    mount::{Mount, Place},
    s3server::{Options, S3Server},
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let is_once = parse_arguments()?;
    let folder = tempfile::Builder::new().prefix("dvcfs-demo-").tempdir()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Whichever ends first, the mount is taken down and the folder removed after it.
    tokio::select! {
        result = show(folder.path(), is_once) => result,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

fn parse_arguments() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(false),
        ["--once"] => Ok(true),
        _ => bail!("usage: demo [--once]"),
    }
}

async fn show(folder: &Path, is_once: bool) -> Result<()> {
    println!("Making an audio registry in {} ...", folder.display());
    let place = Place::new(folder)?;
    let objects = folder.join("s3");
    let server = S3Server::start(objects.clone(), Options::default());
    let objects = objects.join(REMOTE_PATH);
    let revisions = demo_registry::make(&place.registry, &objects, &server.endpoint())?;

    println!("Mounting it on {} ...\n", place.mount_point.display());
    let mut mount = Mount::start(&place)?;
    mount.wait_until_it_answers().await?;
    let shown = place.clone();
    // On a thread of its own, so that Ctrl-C ends it wherever it is.
    tokio::task::spawn_blocking(move || present(&shown, &revisions)).await??;
    if !is_once {
        println!("\nIn another terminal, type the first line, then any of the commands above:\n");
        println!("    . {}\n", place.script.display());
        println!("Ctrl-C here ends the demonstration.");
        mount.wait_until_it_ends().await?;
    }
    Ok(())
}

/// Runs the tour, then checks every revision.
fn present(place: &Place, revisions: &[DemoRevision]) -> Result<()> {
    tour::run(place)?;
    revisions.iter().try_for_each(|revision| check(&place.mount_point, revision))
}

/// Reads every tracked file of a revision and compares it with what was recorded.
fn check(mount_point: &Path, revision: &DemoRevision) -> Result<()> {
    let kind = if revision.name.starts_with('v') { "tags" } else { "branches" };
    let root = mount_point.join(kind).join(revision.name);
    let mut wrong = HashMap::new();
    for (path, md5) in &revision.files {
        let found = tour::md5_of(&root.join(path))?;
        if found != *md5 {
            wrong.insert(path, found);
        }
    }
    if !wrong.is_empty() {
        bail!("{}: not what was recorded: {wrong:?}", root.display());
    }
    println!("All {} tracked files of {} are as recorded.", revision.files.len(), revision.name);
    Ok(())
}
