//! A request's body for the HTTP client: in one part, or in two that are sent one after the other without being joined.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::delivery::request::RequestBody;

/// The body as the client takes it. Its length is known, so that it is announced and not sent in chunks.
pub(super) fn of(body: RequestBody) -> reqwest::Body {
    of_parts(body.into_parts())
}

/// A second request that is the same. `reqwest::Request::try_clone` makes none if the body has two parts.
pub(super) fn duplicate(request: &mut reqwest::Request) -> Option<reqwest::Request> {
    let parts = request.body_mut().take().map(into_parts);
    let duplicate = request.try_clone();
    *request.body_mut() = parts.clone().map(of_parts);
    let mut duplicate = duplicate?;
    *duplicate.body_mut() = parts.map(of_parts);
    Some(duplicate)
}

fn of_parts(parts: [Bytes; 2]) -> reqwest::Body {
    match parts {
        [own, shared] if shared.is_empty() => own.into(),
        parts => reqwest::Body::wrap(Parts { left: parts.map(Some) }),
    }
}

/// The parts of a body made by [`of_parts`]. Each is ready at once.
fn into_parts(mut body: reqwest::Body) -> [Bytes; 2] {
    let mut next = || match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        Poll::Ready(Some(Err(_)) | None) | Poll::Pending => Bytes::new(),
    };
    [next(), next()]
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
