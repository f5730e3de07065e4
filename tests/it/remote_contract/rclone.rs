//! A third S3 server: `rclone serve s3` of the tests' Python environment, over a folder.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::moto::program;
use crate::s3server::{ACCESS_KEY, SECRET_KEY};

/// A running `rclone serve s3`; dropping it ends it.
pub(super) struct Rclone {
    child: Child,
    endpoint: String,
}

impl Rclone {
    /// Serves the folders of `root` as buckets, and waits for the line that names the port.
    pub(super) fn start(root: &Path) -> Self {
        let mut child = Command::new(program("rclone"))
            .args(["serve", "s3", "--addr", "127.0.0.1:0", "--config", "/dev/null"])
            .args(["--auth-key", &format!("{ACCESS_KEY},{SECRET_KEY}")])
            .arg(root)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("rclone: {error}"));
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let endpoint = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("http://")?;
            let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
            Some(format!("http://{}", &rest[..end.unwrap_or(rest.len())]))
        });
        // The rest is read away, so that the server never waits for a full pipe.
        drop(std::thread::spawn(move || lines.for_each(drop)));
        Self { child, endpoint: endpoint.expect("rclone says where it listens") }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop((self.child.kill(), self.child.wait()));
    }
}
