//! Programs on a terminal of their own.

use std::{
    io::{Read, Write},
    process::{Child, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use super::{PATIENCE, Sandbox};

/// A program on a terminal that `script` makes for it.
pub(crate) struct Terminal {
    child: Child,
    pieces: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    /// Runs a line of shell, with the program under test in `$DVCFS`.
    pub(crate) fn run(sandbox: &Sandbox, line: &str) -> Self {
        let mut script = sandbox.tool("script");
        let line = format!("stty columns 120; {line}");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env("DVCFS", env!("CARGO_BIN_EXE_dvcfs"));
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = script.spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (sender, pieces) = mpsc::channel();
        thread::spawn(move || {
            let mut piece = vec![0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                // Nobody looks any more once the test has failed.
                drop(sender.send(piece[..length].to_vec()));
            }
        });
        Self { child, pieces, shown: String::new() }
    }

    /// Types this.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits until something is shown.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let piece = self.pieces.recv_timeout(PATIENCE);
            let piece = piece.unwrap_or_else(|_| panic!("{text:?} is not in {:?}", self.shown));
            self.shown += &String::from_utf8_lossy(&piece);
        }
    }

    /// Waits for the end; gives the exit code and all that was shown.
    pub(crate) fn end(mut self) -> (i32, String) {
        while let Ok(piece) = self.pieces.recv_timeout(PATIENCE) {
            self.shown += &String::from_utf8_lossy(&piece);
        }
        let status = self.child.wait().unwrap();
        (status.code().unwrap(), std::mem::take(&mut self.shown))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        drop((self.child.kill(), self.child.wait()));
    }
}
