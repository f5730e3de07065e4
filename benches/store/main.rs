//! An S3 server for benchmarks: folders as buckets, fast, and as slow as it is told.
//!
//! ```text
//! store DIR ADDRESS     serves the folders in DIR as buckets, such as on 127.0.0.1:9400
//! ```
//!
//! Signatures are taken unread, so any credentials will do and no side pays for the server's
//! checks. What there is is looked up at the start, and objects can be put by one request each.
//! Beside the buckets there are
//!
//! - `/-/stats`: requests and bytes since the start, as JSON;
//! - `/-/set?delay_ms=30&mb_per_s=90&lists=0`: how long each answer takes to begin, how fast one
//!   connection goes at most (0: as fast as it can), and whether listing is allowed.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no figure to give")]
#![allow(clippy::print_stdout, reason = "it tells that it listens")]

mod bucket;
mod content;

use std::{
    collections::HashMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;

use bucket::{Bucket, Object};
use content::Content;

/// An answer of any kind.
type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// The words behind the question mark.
type Query = HashMap<String, String>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, address] = &args[..] else {
        println!("usage: store DIR ADDRESS");
        return;
    };
    let store = Arc::new(Store::open(Path::new(root)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        println!("listening");
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let store = Arc::clone(&store);
            let answer = service_fn(move |request| Arc::clone(&store).answer(request));
            // A client that goes away is no failure of the store's.
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), answer),
            );
        }
    });
}

/// All buckets, and what was asked of them.
struct Store {
    root: PathBuf,
    buckets: HashMap<String, Bucket>,
    counts: Counts,
    delay_ms: AtomicU64,
    mb_per_s: AtomicU64,
    lists: AtomicU64,
}

#[derive(Default)]
struct Counts {
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    bytes: Arc<AtomicU64>,
}

impl Store {
    fn open(root: &Path) -> Self {
        let folders = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let buckets = folders.filter(|path| path.is_dir()).map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, Bucket::scan(&path))
        });
        Self {
            root: root.to_owned(),
            buckets: buckets.collect(),
            counts: Counts::default(),
            delay_ms: AtomicU64::new(0),
            mb_per_s: AtomicU64::new(0),
            lists: AtomicU64::new(1),
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let query = query(request.uri().query().unwrap_or_default());
        let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        if let Some(word) = path.strip_prefix("/-/") {
            return Ok(self.control(word, &query));
        }
        tokio::time::sleep(Duration::from_millis(self.delay_ms.load(Relaxed))).await;
        let path = path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let Some(found) = self.buckets.get(bucket) else {
            return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchBucket"));
        };
        Ok(match (request.method(), key) {
            (&Method::HEAD, "") => text(StatusCode::OK, ""),
            (&Method::GET, "") if query.contains_key("location") => {
                text(StatusCode::OK, "<LocationConstraint>us-east-1</LocationConstraint>")
            }
            (&Method::GET, "") => {
                self.counts.lists.fetch_add(1, Relaxed);
                if self.lists.load(Relaxed) == 0 {
                    return Ok(refusal(StatusCode::FORBIDDEN, "AccessDenied"));
                }
                text(StatusCode::OK, found.list(bucket, &query))
            }
            (method @ (&Method::GET | &Method::HEAD), key) => match found.object(key) {
                Some(object) => {
                    let path = self.root.join(bucket).join(key);
                    self.send(object, &path, method, request.headers())
                }
                None => refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
            (&Method::PUT, key) if query.is_empty() || query.contains_key("x-id") => {
                let is_conditional = request.headers().contains_key(header::IF_NONE_MATCH);
                if is_conditional && found.object(key).is_some() {
                    return Ok(refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
                }
                let object = keep(self.root.join(bucket).join(key), request).await;
                found.put(key, object);
                let tag = format!("\"{}\"", object.tag());
                Response::builder().header(header::ETAG, tag).body(nothing()).unwrap()
            }
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        })
    }

    fn send(&self, object: Object, path: &Path, method: &Method, headers: &HeaderMap) -> Answer {
        let is_head = method == Method::HEAD;
        let count = if is_head { &self.counts.heads } else { &self.counts.gets };
        count.fetch_add(1, Relaxed);
        let said = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        if said(header::IF_MATCH).is_some_and(|tag| tag.trim_matches('"') != object.tag()) {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let range = match said(header::RANGE).map(|text| object.range(text)) {
            None => None,
            Some(Some(range)) => Some(range),
            Some(None) => return refusal(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
        };
        let sent = range.clone().unwrap_or(0..object.size);
        let mut answer = Response::builder()
            .header(header::ETAG, format!("\"{}\"", object.tag()))
            .header(header::LAST_MODIFIED, object.http_date())
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_TYPE, "binary/octet-stream")
            .header(header::CONTENT_LENGTH, sent.end - sent.start);
        if range.is_some() {
            let text = format!("bytes {}-{}/{}", sent.start, sent.end - 1, object.size);
            answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, text);
        }
        if is_head {
            return answer.body(nothing()).unwrap();
        }
        let mb_per_s = self.mb_per_s.load(Relaxed);
        let content = Content::open(path, sent, mb_per_s, Arc::clone(&self.counts.bytes));
        answer.body(content.boxed()).unwrap()
    }

    fn control(&self, word: &str, query: &Query) -> Answer {
        if word == "set" {
            let settings = [
                ("delay_ms", &self.delay_ms),
                ("mb_per_s", &self.mb_per_s),
                ("lists", &self.lists),
            ];
            for (name, value) in settings {
                if let Some(number) = query.get(name).and_then(|text| text.parse().ok()) {
                    value.store(number, Relaxed);
                }
            }
        }
        let Counts { gets, heads, lists, bytes } = &self.counts;
        let [gets, heads, lists, bytes] =
            [gets, heads, lists, &**bytes].map(|count| count.load(Relaxed));
        let json = serde_json::json!({
            "gets": gets, "heads": heads, "lists": lists, "bytes": bytes,
        });
        text(StatusCode::OK, json.to_string())
    }
}

/// Takes what comes into a file.
async fn keep(path: PathBuf, request: Request<Incoming>) -> Object {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    let is_chunked = encoding.is_some_and(|encoding| encoding.as_bytes() == b"aws-chunked");
    let bytes = request.into_body().collect().await.unwrap().to_bytes();
    let kept = tokio::task::spawn_blocking(move || {
        let draft = path.with_extension("draft");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&draft, if is_chunked { joined(&bytes) } else { bytes.into() }).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        Object::of(&path.metadata().unwrap())
    });
    kept.await.unwrap()
}

/// The content of chunks, each with its length in hex before it, which what follows the last does
/// not count to.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let end = chunks.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let head = std::str::from_utf8(&chunks[..end]).unwrap();
        let digits = head.split(';').next().unwrap();
        let length = usize::from_str_radix(digits, 16).unwrap();
        if length == 0 {
            return content;
        }
        content.extend_from_slice(&chunks[end + 2..][..length]);
        chunks = &chunks[end + 2 + length + 2..];
    }
}

fn query(text: &str) -> Query {
    let decoded =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn nothing() -> BoxBody<Bytes, std::io::Error> {
    Full::default().map_err(|never| match never {}).boxed()
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let body = Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed();
    Response::builder().status(status).header("content-type", "application/xml").body(body).unwrap()
}

fn refusal(status: StatusCode, code: &str) -> Answer {
    text(status, format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
}
