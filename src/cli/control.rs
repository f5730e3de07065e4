//! The control socket: how commands talk to a running mount.
//!
//! One request and one answer a connection, each one line of JSON. The socket lies in a folder
//! that only its owner can enter.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    exit::{Code, Failure},
    mounts::Record,
    prefetch::Task,
    snapshot::Typed,
};

/// What a command may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// What the mount shows and what it did so far.
    Status,
    /// Look for new commits now; answers when that is done.
    Refresh,
    /// Have changes and commits go on from this commit of upstream.
    Merge {
        /// The commit.
        commit: String,
        /// The ref by which upstream's branch is known here.
        reference: String,
    },
    /// Have changes lie above the commit that was made of a merge.
    Move {
        /// The commit.
        commit: String,
    },
    /// Fill the cache, or look how full it is; answers with the number of the job.
    Prefetch(Task),
    /// How far a job has come. One that nobody asks for is given up.
    Job(u64),
    /// What a writable mount changes, path by path.
    Changes {
        /// What the user says about things that are new.
        rules: Typed,
    },
    /// Make a tree of the changes.
    Prepare {
        /// What the user says about things that are new.
        rules: Typed,
    },
    /// Let go of the changes, which are in a commit of that tree.
    Settle {
        /// The commit.
        commit: String,
    },
    /// What is recorded and not pushed.
    Unpushed,
    /// A commit was pushed.
    Pushed {
        /// The commit.
        commit: String,
        /// Whether the remotes have what it needs, too.
        is_over: bool,
    },
    /// Drop what was changed at these paths, or all of it if there are none.
    Discard {
        /// As bytes from the root of the mount.
        paths: Vec<Vec<u8>>,
    },
}

/// What the mount answers: a value, or why there is none.
pub(super) type Response = Result<serde_json::Value, String>;

/// A request is never longer.
const MAX_REQUEST: u64 = 16 << 20;

/// Nor an answer, which may list a million paths.
const MAX_ANSWER: u64 = 1 << 29;

/// Asks a mount. A mount that does not answer within `deadline` is an error.
pub(super) fn ask(socket: &Path, request: &Request, deadline: Duration) -> io::Result<Response> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    send(&stream, request)?;
    receive(&stream, MAX_ANSWER)
}

impl Record {
    /// Asks this mount; it is a failure if it does not answer.
    pub(super) fn ask(
        &self,
        request: &Request,
        deadline: Duration,
    ) -> Result<serde_json::Value, Failure> {
        let failed = |why: String| Failure::new(Code::Failed, why);
        let error = match ask(&self.socket, request, deadline) {
            Ok(answer) => return answer.map_err(failed),
            Err(error) => error,
        };
        Err(match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => failed(
                "the daemon of this mount has died".to_owned(),
            )
            .hint("mount there again with the same options; what was changed and recorded is kept"),
            _ => failed(error.to_string()),
        })
    }
}

/// Answers requests for as long as the process lives. Each connection has a thread, so that
/// a slow refresh does not keep others from asking for the status.
pub(super) fn serve<F>(listener: &UnixListener, answer: F)
where
    F: Fn(Request) -> Response + Clone + Send + 'static,
{
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Such as too many open files, which passes.
                tracing::warn!("control connection refused: {error}");
                std::thread::sleep(Duration::from_secs(1));
                continue;
            }
        };
        let answer = answer.clone();
        let serve_one = move || {
            let answered = stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .and_then(|()| receive(&stream, MAX_REQUEST))
                .and_then(|request| send(&stream, &answer(request)));
            if let Err(error) = answered {
                tracing::debug!("control connection: {error}");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("control".into()).spawn(serve_one) {
            tracing::warn!("control connection refused: {error}");
        }
    }
}

fn send(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn receive<T: for<'a> Deserialize<'a>>(stream: &UnixStream, most: u64) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(most)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_and_an_unreadable_one_costs_its_connection_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            serve(&listener, |request| match request {
                Request::Status => Ok(serde_json::json!({"mounted": true})),
                _ => Err("no network".into()),
            });
        });
        let deadline = Duration::from_secs(10);
        UnixStream::connect(&path).unwrap().write_all(b"nonsense\n").unwrap();
        let status = ask(&path, &Request::Status, deadline).unwrap().unwrap();
        assert_eq!(status["mounted"], true);
        let refused = ask(&path, &Request::Refresh, deadline).unwrap();
        assert_eq!(refused, Err("no network".into()));
    }
}
