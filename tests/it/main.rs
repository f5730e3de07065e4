//! Integration tests: the real program on real mounts, against registries that DVC made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/registry_builder.rs"]
mod registry_builder;
#[path = "../support/s3server/mod.rs"]
mod s3server;
mod support;

mod crashes;
mod fixtures;
mod follow;
mod fuzz_corpus;
mod layers;
mod model;
mod programs;
mod semantics;
mod unprivileged;
