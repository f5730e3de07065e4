//! Small servers on loopback: one that answers as a test likes, and a proxy.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct WebRequest {
    /// The method.
    pub(crate) method: String,
    /// What is asked for, with the query.
    pub(crate) target: String,
    /// The headers, by names in lower case.
    headers: Vec<(String, String)>,
    /// The body as text.
    pub(crate) body: String,
}

impl WebRequest {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = self.headers.iter().find(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Reads one; nothing where the connection ends instead.
    fn read(from: &mut BufReader<TcpStream>) -> io::Result<Option<(Self, Vec<u8>)>> {
        let mut head = Vec::new();
        let mut lines = Vec::new();
        loop {
            let start = head.len();
            if from.read_until(b'\n', &mut head)? == 0 {
                return Ok(None);
            }
            match String::from_utf8_lossy(&head[start..]).trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut first = lines.first().map_or("", String::as_str).split(' ').map(str::to_owned);
        let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        let headers = lines.iter().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        let request = Self { method, target, headers: headers.collect(), body: String::new() };
        Ok(Some((request, head)))
    }
}

/// What a [`WebServer`] says.
pub(crate) struct WebAnswer {
    /// The status code.
    pub(crate) status: u16,
    /// Headers beside the length.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl WebAnswer {
    /// A good answer.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into() }
    }

    /// An answer of another kind, without body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A web server; dropping it ends it.
pub(crate) struct WebServer(Listening);

impl WebServer {
    pub(crate) fn start(answer: impl Fn(&WebRequest) -> WebAnswer + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", answer)
    }

    /// Listens on another address of loopback than the usual one.
    pub(crate) fn start_on(
        address: &str,
        answer: impl Fn(&WebRequest) -> WebAnswer + Send + Sync + 'static,
    ) -> Self {
        Self(Listening::start(address, move |stream, log| {
            let mut reader = BufReader::new(stream.try_clone()?);
            while let Some((mut request, _)) = WebRequest::read(&mut reader)? {
                let length = request.header("content-length").and_then(|text| text.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                reader.read_exact(&mut body)?;
                request.body = String::from_utf8_lossy(&body).into_owned();
                let WebAnswer { status, headers, body } = answer(&request);
                let told: String = headers
                    .iter()
                    .map(|(name, value)| [name, ": ", value, "\r\n"].concat())
                    .collect();
                let head =
                    format!("HTTP/1.1 {status} told\r\ncontent-length: {}\r\n{told}", body.len());
                let is_head = request.method == "HEAD";
                log.lock().unwrap().push(request);
                (&stream).write_all(format!("{head}\r\n").as_bytes())?;
                (&stream).write_all(if is_head { &[] } else { &body })?;
            }
            Ok(())
        }))
    }

    /// The URL to reach it by.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What was asked so far.
    pub(crate) fn log(&self) -> Vec<WebRequest> {
        self.0.log.lock().unwrap().clone()
    }
}

/// A proxy that leads every request to one server, whatever host it names; dropping it ends it.
pub(crate) struct Proxy(Listening);

impl Proxy {
    pub(crate) fn to(server: SocketAddr) -> Self {
        Self(Listening::start("127.0.0.1:0", move |stream, log| {
            let mut reader = BufReader::new(stream.try_clone()?);
            let Some((request, head)) = WebRequest::read(&mut reader)? else { return Ok(()) };
            let onward = TcpStream::connect(server)?;
            if request.method == "CONNECT" {
                (&stream).write_all(b"HTTP/1.1 200 go ahead\r\n\r\n")?;
            } else {
                (&onward).write_all(&head)?;
            }
            log.lock().unwrap().push(request);
            let (mut up, mut down) = (onward.try_clone()?, stream.try_clone()?);
            let upward = thread::spawn(move || {
                // Either side may go away.
                drop(io::copy(&mut reader, &mut up));
                drop(up.shutdown(Shutdown::Write));
            });
            drop(io::copy(&mut &onward, &mut down));
            drop(down.shutdown(Shutdown::Both));
            upward.join().unwrap();
            Ok(())
        }))
    }

    /// Its address, with a name and a password for it where some are wanted.
    pub(crate) fn url(&self, user: &str) -> String {
        format!("http://{user}{}", self.0.address)
    }

    /// The first request of each connection.
    pub(crate) fn log(&self) -> Vec<WebRequest> {
        self.0.log.lock().unwrap().clone()
    }
}

type Log = Mutex<Vec<WebRequest>>;

/// A socket with a thread for each of its connections.
struct Listening {
    address: SocketAddr,
    log: Arc<Log>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    fn start(
        address: &str,
        serve: impl Fn(TcpStream, &Log) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (log, is_over) = (Arc::<Log>::default(), Arc::<AtomicBool>::default());
        let (of_thread, ends, serve) = (Arc::clone(&log), Arc::clone(&is_over), Arc::new(serve));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                let (log, serve) = (Arc::clone(&of_thread), Arc::clone(&serve));
                // Clients that go away are no failure.
                thread::spawn(move || drop(serve(stream, &log)));
            }
        });
        Self { address, log, is_over, thread: Some(thread) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
