//! Integration tests: the real program on real mounts, against registries that DVC made.

#![allow(clippy::unwrap_used, reason = "in a helper of a test, too, a panic is the failure")]
#![allow(clippy::print_stdout, reason = "what a failing test prints is its report")]
#![allow(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "names are compared as DVC compares them"
)]

#[path = "../support/demo_registry/mod.rs"]
mod demo_registry;
#[path = "../support/registry_builder.rs"]
mod registry_builder;
#[path = "../support/s3server/mod.rs"]
mod s3server;
mod support;

mod access;
mod bad_input;
mod cli;
mod cold_reads;
mod crashes;
mod demo;
mod details;
mod diff;
mod dvc_writes;
mod faults;
mod fixtures;
mod follow;
mod fuzz_corpus;
mod ignored;
mod kernel;
mod layers;
mod list;
mod logs;
mod manifests;
mod mappings;
mod model;
mod mount_helper;
mod open_modes;
mod overlay;
mod package;
mod pressure;
mod programs;
mod push;
mod read_only;
mod remote_contract;
mod round_trip;
mod s3server_dvc;
mod semantics;
mod service;
mod sizes;
mod stats;
mod told_sizes;
mod unprivileged;
mod upstream;
