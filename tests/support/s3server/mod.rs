//! An S3 server inside the process, over a plain folder, for tests and the demonstration.
//!
//! Objects are files at `<root>/<bucket>/<key>`, so tests can put and damage them directly. The
//! server runs on a thread and runtime of its own; blocking and async tests can use it alike. It
//! remembers what it was asked and fails on demand.

#![allow(dead_code, unreachable_pub, reason = "shared by tests that use different parts of it")]

mod backend;
mod faults;
mod listing;
mod serve;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use tokio::sync::oneshot;

pub use faults::{Fault, Gate};

/// The access key of every server that asks for one.
pub const ACCESS_KEY: &str = "AKIDTEST";
/// The secret key that goes with it.
pub const SECRET_KEY: &str = "test-secret";

/// How a server behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether unsigned requests are served.
    pub anonymous: bool,
    /// The region that signatures must name; any if absent.
    pub region: Option<String>,
    /// How a signature that names another region is refused.
    pub telling: Telling,
    /// Whether to speak TLS, with a certificate that only `S3Server::certificate` vouches for.
    pub tls: bool,
}

/// How a server says that a bucket lies in another region.
#[derive(Debug, Clone, Copy, Default)]
pub enum Telling {
    /// 400 with a header, as Amazon does.
    #[default]
    Malformed,
    /// 301 with a header, as Amazon does, too.
    Moved,
    /// 400 with the region in the body alone, as other vendors do.
    InBody,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// The bucket and the key below it, without leading slash.
    pub path: String,
    /// The query string.
    pub query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The names of all headers, in lower case.
    pub headers: Vec<String>,
}

type Rule = Arc<dyn Fn(&Request) -> Option<Fault> + Send + Sync>;

/// What the server's thread and its owner share.
#[derive(Default)]
struct State {
    log: Mutex<Vec<Request>>,
    rule: Mutex<Option<Rule>>,
    bytes_sent: AtomicU64,
}

/// A running server; dropping it ends it.
pub struct S3Server {
    address: SocketAddr,
    certificate: Option<String>,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Serves the buckets, which are the folders of `root`, on a free port of 127.0.0.1.
    pub fn start(root: PathBuf, options: Options) -> Self {
        let state = Arc::new(State::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port that was bound");
        let (certificate, acceptor) = if options.tls { serve::tls() } else { (None, None) };
        let (stop, stopped) = oneshot::channel();
        let service = serve::Service::new(root, options, state.clone());
        let thread = std::thread::spawn(move || {
            serve::run(listener, acceptor.as_ref(), &service, stopped);
        });
        Self { address, certificate, state, stop: Some(stop), thread: Some(thread) }
    }

    /// The URL to reach it by.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate in PEM form, if it speaks TLS.
    pub fn certificate(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// Lets `rule` decide over every request from now on.
    pub fn set_rule(&self, rule: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.state.rule) = Some(Arc::new(rule));
    }

    /// Gives the next requests these faults, in order, and later ones none.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut faults: Vec<Fault> = faults.into_iter().collect();
        faults.reverse();
        let faults = Mutex::new(faults);
        self.set_rule(move |_| lock(&faults).pop());
    }

    /// Gives every request this fault.
    pub fn fail_always(&self, fault: Fault) {
        self.set_rule(move |_| Some(fault.clone()));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        *lock(&self.state.rule) = None;
    }

    /// What was asked since the start or the last reset, in order.
    pub fn log(&self) -> Vec<Request> {
        lock(&self.state.log).clone()
    }

    /// How many requests of a method there were.
    pub fn requests(&self, method: &str) -> usize {
        lock(&self.state.log).iter().filter(|request| request.method == method).count()
    }

    /// How many bytes of bodies were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.state.bytes_sent.load(Ordering::Relaxed)
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        lock(&self.state.log).clear();
        self.state.bytes_sent.store(0, Ordering::Relaxed);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            drop(thread.join());
        }
    }
}

/// Puts an object straight into a server's folder.
pub fn put(root: &Path, bucket: &str, key: &str, content: &[u8]) {
    let path = root.join(bucket).join(key);
    std::fs::create_dir_all(path.parent().expect("a key below a bucket")).expect("folders");
    std::fs::write(path, content).expect("an object");
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
