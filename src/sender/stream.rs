//! A connection to a receiver, plain or with TLS, and one exchange on it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_rustls::client::TlsStream;

/// A connection to a receiver.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether the receiver has neither closed nor sent anything since the last answer. What has not arrived yet can't be
    /// known: the connection may end all the same when it is used.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        // If the task has used up its budget, a constrained read is pending, whatever has arrived.
        unconstrained(poll_fn(|cx| self.poll_read(cx, &mut byte))).now_or_never().is_none()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        })?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
}

/// A request being written and its answer being read, at the same time: an answer may come before the request is complete.
pub(super) struct Exchange<'a> {
    stream: &'a mut Stream,
    /// What is left of each part of the request.
    unsent: [&'a [u8]; 2],
    sending: Sending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    Writing,
    Flushing,
    Complete,
    /// The receiver takes no more. It may have answered all the same.
    Failed,
}

impl<'a> Exchange<'a> {
    /// Begins to write a request of two parts, the second of which may be empty.
    pub(super) fn begin(stream: &'a mut Stream, request: [&'a [u8]; 2]) -> Self {
        Self { stream, unsent: request, sending: Sending::Writing }
    }

    /// Reads what comes next of the answer; 0 bytes if the receiver has closed.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| {
            self.poll_send(cx);
            self.stream.poll_read(cx, buffer)
        })
        .await
    }

    /// Whether the whole request was written.
    pub(super) fn is_sent(&self) -> bool {
        self.sending == Sending::Complete
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) {
        while self.sending == Sending::Writing {
            let Some(part) = self.unsent.iter_mut().find(|part| !part.is_empty()) else {
                self.sending = Sending::Flushing;
                break;
            };
            match self.stream.poll_write(cx, part) {
                Poll::Pending => return,
                Poll::Ready(Ok(written)) if written > 0 => *part = &part[written..],
                Poll::Ready(_) => self.sending = Sending::Failed,
            }
        }
        if self.sending == Sending::Flushing {
            self.sending = match self.stream.poll_flush(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => Sending::Complete,
                Poll::Ready(Err(_)) => Sending::Failed,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::coop;

    use super::*;

    #[tokio::test]
    async fn a_task_without_budget_sees_that_the_receiver_has_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (server, _) = listener.accept().await.expect("a connection");
        let mut stream = Stream::Plain(client);
        assert!(stream.is_quiet());
        drop(server);
        if let Stream::Plain(client) = &stream {
            client.readable().await.expect("the end arrives");
        }
        poll_fn(|cx| {
            // Far more steps than a task has.
            for _ in 0..10_000 {
                if let Poll::Ready(step) = coop::poll_proceed(cx) {
                    step.made_progress();
                }
            }
            Poll::Ready(())
        })
        .await;
        assert!(!coop::has_budget_remaining());
        assert!(!stream.is_quiet());
    }
}
