//! Integration tests: the real program on real mounts, against registries that DVC made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/demo_registry/mod.rs"]
mod demo_registry;
#[path = "../support/registry_builder.rs"]
mod registry_builder;
#[path = "../support/s3server/mod.rs"]
mod s3server;
mod support;

mod demo;
mod fixtures;
mod fuzz_corpus;
mod layers;
mod remote_contract;
mod s3server_dvc;
