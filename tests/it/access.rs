//! How one gets at a remote: credentials from every place that AWS tools know, proxies, regions,
//! certificates. Where that fails, and what is said then, is in `bad_input` and `remote_contract`.

mod certificates;
mod credentials;
mod proxies;
mod regions;

use std::process::Command;

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Options, S3Server},
    support::{DATE, PREFIX, Sandbox, noise, registry_on_s3, succeed},
};

/// Bytes of the file that is read.
const SIZE: usize = 10_000;

/// A registry in a bucket, with a tracked file `small`, that a server of any kind serves.
fn served(options: Options) -> (Sandbox, RegistryBuilder, S3Server) {
    let sandbox = Sandbox::new();
    let (registry, _) = registry_on_s3(&sandbox);
    let blob = registry.put(&noise(1, SIZE)).unwrap();
    registry.track_file("small", &blob).unwrap();
    registry.commit("Add a file", DATE).unwrap();
    let server = S3Server::start(sandbox.path("s3"), options);
    configure(&sandbox, &server.endpoint(), "");
    (sandbox, registry, server)
}

/// Has the user's own settings name an endpoint, with more lines for the remote.
fn configure(sandbox: &Sandbox, endpoint: &str, more: &str) {
    let head = format!("['remote \"s3\"']\n    url = s3://{PREFIX}\n");
    sandbox.user_config(&format!("{head}    endpointurl = {endpoint}\n{more}"));
}

/// `dvcfs cat` of the tracked file, which is not cached.
fn read(sandbox: &Sandbox, registry: &RegistryBuilder) -> Command {
    // It may not be there.
    drop(std::fs::remove_dir_all(sandbox.cache()));
    let mut command = sandbox.dvcfs(["cat"]);
    command.arg(registry.repository()).arg("small");
    command
}

fn assert_is_read(command: &mut Command) {
    assert!(succeed(command) == noise(1, SIZE), "{command:?} prints other bytes");
}
