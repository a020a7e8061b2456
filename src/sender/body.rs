//! A request's body for the HTTP client: in one part, or in two that are sent one after the other without being joined.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::delivery::request::RequestBody;

/// The body as the client takes it. Its length is known, so that it is announced and not sent in chunks.
pub(super) fn from_request_body(body: RequestBody) -> reqwest::Body {
    match body.into_parts() {
        [own, shared] if shared.is_empty() => own.into(),
        parts => reqwest::Body::wrap(Parts { left: parts.map(Some) }),
    }
}

struct Parts {
    left: [Option<Bytes>; 2],
}

impl Body for Parts {
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
