//! A second, independent S3 server: `moto_server` from the tests' Python environment.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use futures_util::{StreamExt, stream};

use super::objects::Objects;

/// A running `moto_server`; dropping it ends it.
pub(super) struct Moto {
    child: Child,
    endpoint: String,
}

/// A program of the tests' Python environment.
pub(super) fn program(name: &str) -> PathBuf {
    let venv = std::env::var_os("DVCFS_TEST_VENV").map(PathBuf::from);
    venv.expect("DVCFS_TEST_VENV must name a Python environment with tests/requirements.txt")
        .join("bin")
        .join(name)
}

impl Moto {
    /// Starts it and waits for the line that names its port.
    pub(super) fn start() -> Self {
        let program = program("moto_server");
        let mut child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let endpoint = lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.split_whitespace().find(|word| word.starts_with("http://127.")).map(Into::into)
        });
        // The rest is read away, so that the server never waits for a full pipe.
        drop(std::thread::spawn(move || lines.for_each(drop)));
        Self { child, endpoint: endpoint.expect("moto_server says where it listens") }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Makes a bucket with the objects below `prefix`.
    pub(super) async fn fill(&self, bucket: &str, prefix: &str, objects: &Objects) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let put = async |path: String, content: Vec<u8>| {
            let url = format!("{}/{bucket}{path}", self.endpoint);
            let response = client.put(url).body(content).send().await.expect("an answer");
            assert!(response.status().is_success(), "{}", response.status());
        };
        put(String::new(), Vec::new()).await;
        let all = stream::iter(objects.all());
        all.for_each_concurrent(8, |(key, content)| {
            put(format!("/{prefix}/{}", key.path()), content.clone())
        })
        .await;
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop((self.child.kill(), self.child.wait()));
    }
}
