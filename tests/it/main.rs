//! Integration tests: the real program on real mounts, against registries that DVC made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/registry_builder.rs"]
mod registry_builder;
mod support;

mod fixtures;
mod fuzz_corpus;
mod layers;
