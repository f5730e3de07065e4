//! Integration tests.

#![allow(clippy::unwrap_used, reason = "in a helper of a test, too, a panic is the failure")]

#[path = "../support/s3server/mod.rs"]
mod s3server;

mod fuzz_corpus;
mod remote_contract;
mod s3server_dvc;
