//! Converts a request's body for reqwest. A body of two parts is sent without copying them into one.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use waypost_core::request::RequestBody;

/// The length of the result is known, so that the request has a `content-length` and is not sent in chunks.
pub(super) fn to_reqwest_body(body: RequestBody) -> reqwest::Body {
    match body.into_parts() {
        [own, shared] if shared.is_empty() => own.into(),
        parts => reqwest::Body::wrap(BodyParts { left: parts.map(Some) }),
    }
}

struct BodyParts {
    left: [Option<Bytes>; 2],
}

impl Body for BodyParts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.left.iter_mut().find_map(Option::take);
        Poll::Ready(next.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.iter().all(Option::is_none)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.iter().flatten().map(|part| part.len() as u64).sum())
    }
}
