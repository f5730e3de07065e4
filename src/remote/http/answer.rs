//! What the headers of an answer say about its bytes.

use std::ops::Range;

use reqwest::{
    Response, StatusCode,
    header::{self, HeaderName},
};

use crate::remote::range::content_range;

/// The size of the whole object and the range that follows, if the answer tells both.
///
/// A range past the end, which servers answer with 416, is an empty one at the end.
pub(super) fn extent(response: &Response) -> Option<(u64, Range<u64>)> {
    let length = content_length(response);
    match response.status() {
        StatusCode::OK => length.map(|size| (size, 0..size)),
        StatusCode::PARTIAL_CONTENT => {
            let (range, size) = content_range(text(response, header::CONTENT_RANGE)?)?;
            let range = range?;
            let fits = length.is_none_or(|length| length == range.end - range.start);
            fits.then_some((size, range))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let (_, size) = content_range(text(response, header::CONTENT_RANGE)?)?;
            Some((size, size..size))
        }
        _ => None,
    }
}

/// `Content-Length`, also of an answer to HEAD.
pub(super) fn content_length(response: &Response) -> Option<u64> {
    text(response, header::CONTENT_LENGTH)?.parse().ok()
}

/// The entity tag, unless it is a weak one, which does not pin bytes.
pub(super) fn strong_etag(response: &Response) -> Option<String> {
    text(response, header::ETAG).filter(|etag| !etag.starts_with("W/")).map(Into::into)
}

fn text(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}
