//! What can go wrong with an answer, and how it is done to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE},
};
use tokio::sync::Semaphore;

use super::serve::{Body, Chunk, body_of, chunks_of};

/// Holds requests back until the test opens it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // Only an open gate gives an answer, and it is an error.
        drop(self.0.acquire().await);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An S3 error, such as 503 `SlowDown`.
    Status(u16, &'static str),
    /// The connection breaks after so many bytes of the body.
    Cut(u64),
    /// The connection breaks after so many bytes that were sent here.
    CutUpload(u64),
    /// The lowest bit of one byte of the body is wrong.
    Flip(u64),
    /// The lowest bit of one byte that was sent here is wrong.
    FlipUpload(usize),
    /// So many bytes too many come, and the length says so.
    Longer(u64),
    /// So many bytes too few come, and the length says so.
    Shorter(u64),
    /// A web page with status 200.
    Page,
    /// The whole object comes whatever range was asked for.
    IgnoreRange,
    /// The range that the answer names begins one byte later than its bytes do.
    ShiftRange,
    /// Nothing comes until the gate opens.
    Stall(Gate),
    /// The body stops after so many bytes until the gate opens.
    Hang(u64, Gate),
    /// The answer comes so many milliseconds late.
    Delay(u64),
}

impl Fault {
    /// An answer without asking the store.
    pub(super) fn answer(&self, is_head: bool) -> Option<Response<Body>> {
        let (status, kind, text) = match self {
            Self::Status(status, code) => {
                let status = StatusCode::from_u16(*status).expect("a status code");
                (status, "application/xml", error_xml(code))
            }
            Self::Page => (StatusCode::OK, "text/html", "<html>Please log in</html>".into()),
            _ => return None,
        };
        let length = text.len();
        let text = if is_head { String::new() } else { text };
        let mut response = Response::new(body_of(stream::iter([Ok(Bytes::from(text))])));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        Some(response)
    }

    /// Waits as long as the fault says.
    pub(super) async fn wait(&self) {
        match self {
            Self::Stall(gate) => gate.pass().await,
            Self::Delay(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(*milliseconds)).await;
            }
            _ => {}
        }
    }

    /// Damages a right answer.
    pub(super) fn damage(&self, response: Response<Body>) -> Response<Body> {
        match self {
            Self::Cut(after) => {
                let broken = stream::once(async {
                    // What is before the cut gets out only while the body waits for a moment.
                    tokio::task::yield_now().await;
                    Err("cut on purpose".into())
                });
                let after = *after;
                response.map(|body| body_of(head(chunks_of(body), after).chain(broken)))
            }
            Self::Hang(after, gate) => {
                let (after, gate) = (*after, gate.clone());
                let hang = stream::once(async move {
                    gate.pass().await;
                    Err("hung on purpose".into())
                });
                response.map(|body| body_of(head(chunks_of(body), after).chain(hang)))
            }
            Self::Flip(at) => {
                let at = *at;
                response.map(|body| body_of(flip(chunks_of(body), at)))
            }
            Self::Longer(by) => longer(response, *by),
            Self::Shorter(by) => shorter(response, *by),
            Self::ShiftRange => shift_range(response),
            _ => response,
        }
    }
}

/// The body of an S3 error.
pub(super) fn error_xml(code: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>on purpose</Message></Error>"
    )
}

fn head(chunks: impl Stream<Item = Chunk>, length: u64) -> impl Stream<Item = Chunk> {
    let mut left = length;
    chunks
        .map(move |chunk| {
            let mut chunk = chunk?;
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= chunk.len() as u64;
            Ok(chunk)
        })
        .take_while(|chunk| {
            let is_end = matches!(chunk, Ok(bytes) if bytes.is_empty());
            std::future::ready(!is_end)
        })
}

fn flip(chunks: impl Stream<Item = Chunk>, at: u64) -> impl Stream<Item = Chunk> {
    let mut position = 0;
    chunks.map(move |chunk| {
        let mut bytes = Vec::from(chunk?);
        let index = usize::try_from(at.wrapping_sub(position)).unwrap_or(usize::MAX);
        position += bytes.len() as u64;
        if let Some(byte) = bytes.get_mut(index) {
            *byte ^= 1;
        }
        Ok(bytes.into())
    })
}

fn length_of(response: &Response<Body>) -> u64 {
    let length = response.headers().get(CONTENT_LENGTH).and_then(|text| text.to_str().ok());
    length.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn shorter(response: Response<Body>, by: u64) -> Response<Body> {
    let length = length_of(&response).saturating_sub(by);
    let mut response = response.map(|body| body_of(head(chunks_of(body), length)));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn longer(response: Response<Body>, by: u64) -> Response<Body> {
    let length = length_of(&response);
    let more = stream::iter([Ok(Bytes::from(vec![0; by as usize]))]);
    let mut response = response.map(|body| body_of(chunks_of(body).chain(more)));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length + by));
    response
}

fn shift_range(mut response: Response<Body>) -> Response<Body> {
    let shifted = response.headers().get(CONTENT_RANGE).and_then(|text| {
        let (range, size) = text.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        HeaderValue::try_from(format!("bytes {}-{}/{size}", first + 1, last + 1)).ok()
    });
    if let Some(shifted) = shifted {
        response.headers_mut().insert(CONTENT_RANGE, shifted);
    }
    response
}
