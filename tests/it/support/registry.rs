//! Registries that a test makes itself.

use std::fs;

use crate::{
    registry_builder::RegistryBuilder,
    s3server::{Options, S3Server},
};

use super::Sandbox;

/// The bucket and the prefix in it where [`registry_on_s3`] keeps its blobs.
pub(crate) const PREFIX: &str = "bucket/registry";

/// A date for commits that need no other.
pub(crate) const DATE: &str = "2026-01-15T16:30:00+00:00";

/// An empty registry in the sandbox whose remote is a folder beside it.
pub(crate) fn registry_on_disk(sandbox: &Sandbox) -> RegistryBuilder {
    let (repository, objects) = (sandbox.path("registry"), sandbox.path("store"));
    let builder = RegistryBuilder::start(&repository, &objects).unwrap();
    builder
        .init("[core]\n    remote = disk\n['remote \"disk\"']\n    url = ../../store\n")
        .unwrap();
    builder
}

/// An empty registry in the sandbox whose remote is a bucket of the server it comes with. The
/// repository names the bucket, the user's own settings name the server.
pub(crate) fn registry_on_s3(sandbox: &Sandbox) -> (RegistryBuilder, S3Server) {
    let root = sandbox.folder("s3");
    let objects = root.join(PREFIX);
    let builder = RegistryBuilder::start(&sandbox.path("registry"), &objects).unwrap();
    let remote = "['remote \"s3\"']\n";
    let url = format!("    url = s3://{PREFIX}\n");
    builder.init(&format!("[core]\n    remote = s3\n{remote}{url}")).unwrap();
    let server = S3Server::start(root, Options::default());
    sandbox.user_config(&format!("{remote}{url}    endpointurl = {}\n", server.endpoint()));
    (builder, server)
}

/// Takes every manifest out of a registry's remote.
pub(crate) fn lose_manifests(registry: &RegistryBuilder) {
    for folder in fs::read_dir(registry.objects().join("files/md5")).unwrap() {
        for object in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "dir") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

/// Bytes that look like no others, the same for the same seed.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; size.next_multiple_of(8)];
    for piece in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.copy_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
