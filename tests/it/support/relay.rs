//! A way to a server that can be closed.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Passes connections on to a server, as long as it is open.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: SocketAddr,
    is_closed: AtomicBool,
    to_break: AtomicUsize,
    broken: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Opens one on a free port.
    pub(crate) fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            upstream,
            is_closed: AtomicBool::new(false),
            to_break: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let accepting = Some(accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    /// The URL to reach the server by.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks what is connected, and has nobody connect any more.
    pub(crate) fn refuse(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        // Whoever waits for a connection has to look again.
        drop(TcpStream::connect(self.address));
        self.accepting.take().map(JoinHandle::join).transpose().unwrap();
        self.shared.break_all();
    }

    /// Lets everybody connect again.
    pub(crate) fn accept(&mut self) {
        self.shared.is_closed.store(false, Ordering::Release);
        let listener = TcpListener::bind(self.address).unwrap();
        self.accepting = Some(accept(listener, self.shared.clone()));
    }

    /// Breaks what is connected, and so many of the next connections.
    pub(crate) fn break_next(&self, count: usize) {
        self.shared.to_break.store(count, Ordering::Release);
        self.shared.break_all();
    }

    /// How many connections were broken as soon as they were made.
    pub(crate) fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::Acquire)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.refuse();
        }
    }
}

impl Shared {
    fn break_all(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            // Its other end may have gone already.
            _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether a new connection is to be broken.
    fn breaks(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        let order = Ordering::AcqRel;
        let breaks = self.to_break.fetch_update(order, Ordering::Acquire, one_less).is_ok();
        self.broken.fetch_add(usize::from(breaks), order);
        breaks
    }
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.is_closed.load(Ordering::Acquire) {
                return;
            }
            let Ok(near) = stream else { continue };
            if shared.breaks() {
                continue;
            }
            let Ok(far) = TcpStream::connect(shared.upstream) else { continue };
            let ends = [near, far];
            shared.streams.lock().unwrap().extend(ends.iter().map(|end| end.try_clone().unwrap()));
            let [near, far] = ends;
            pass(near.try_clone().unwrap(), far.try_clone().unwrap());
            pass(far, near);
        }
    })
}

/// Passes on what comes from one end until that ends.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // A broken connection is what this is for.
        _ = io::copy(&mut from, &mut to);
        _ = to.shutdown(Shutdown::Write);
    });
}
