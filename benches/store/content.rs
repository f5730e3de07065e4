//! A part of a file on its way, no faster than one connection may be.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes that are read and sent together.
const STEP: u64 = 256 << 10;

/// What is left to send.
pub(crate) struct Content {
    file: File,
    left: Range<u64>,
    /// 0 where the speed is not limited.
    mb_per_s: u64,
    pause: Pin<Box<Sleep>>,
    count: Arc<AtomicU64>,
}

impl Content {
    pub(crate) fn open(
        path: &Path,
        range: Range<u64>,
        mb_per_s: u64,
        count: Arc<AtomicU64>,
    ) -> Self {
        let file = File::open(path).unwrap();
        Self { file, left: range, mb_per_s, pause: Box::pin(sleep_until(Instant::now())), count }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if self.mb_per_s > 0 {
            ready!(self.pause.as_mut().poll(context));
        }
        let mut bytes = vec![0; STEP.min(self.left.end - self.left.start) as usize];
        if let Err(error) = self.file.read_exact_at(&mut bytes, self.left.start) {
            return Poll::Ready(Some(Err(error)));
        }
        let length = bytes.len() as u64;
        self.left.start += length;
        self.count.fetch_add(length, Relaxed);
        if let Some(micros) = length.checked_div(self.mb_per_s) {
            // From when it was due, or rounding would make every connection slower.
            let due = self.pause.deadline() + Duration::from_micros(micros);
            self.pause.as_mut().reset(due);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.end - self.left.start)
    }
}
