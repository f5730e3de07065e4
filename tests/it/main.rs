//! Integration tests.

#[path = "../support/s3server/mod.rs"]
mod s3server;

mod remote_contract;
mod s3server_dvc;
