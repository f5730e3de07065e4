//! What the tests stand on: places of their own, mounts that end with them, trees to compare.

mod dvc;
mod fixture;
mod listing;
mod mount;
mod open_mode;
mod registry;
mod relay;
mod run;
mod sandbox;
mod terminal;
mod web;

use std::{
    thread,
    time::{Duration, Instant},
};

pub(crate) use self::{
    dvc::Dvc,
    fixture::{FIXTURES, Fixture, Place, Revision},
    listing::{Content, Entry, Listing, assert_same, differences, list, md5_of},
    mount::{Mount, is_mounted},
    open_mode::{in_each_open_mode, in_open_mode, with_open_mode},
    registry::{DATE, PREFIX, lose_manifests, noise, registry_on_disk, registry_on_s3},
    relay::Relay,
    run::{output, succeed, text},
    sandbox::Sandbox,
    terminal::Terminal,
    web::{Proxy, WebAnswer, WebRequest, WebServer},
};

/// What the system says of bytes that cannot be had.
pub(crate) const EIO: i32 = 5;

/// How long a test waits for what must come soon; only a failing one waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until a condition holds that no event tells.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::park_timeout(Duration::from_millis(3));
    }
}
