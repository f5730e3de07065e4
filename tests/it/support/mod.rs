//! What the tests stand on: places of their own, mounts that end with them, trees to compare.

mod fixture;
mod listing;
mod mount;
mod run;
mod sandbox;

use std::time::{Duration, Instant};

pub(crate) use self::{
    fixture::{FIXTURES, Fixture, Manifest, Place, Revision},
    listing::{Content, Entry, Listing, differences, list, md5_of},
    mount::Mount,
    run::{output, succeed, text},
    sandbox::Sandbox,
};

/// How long a test waits for what must come soon; only a failing one waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a condition holds that no event tells.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(3));
    }
}
