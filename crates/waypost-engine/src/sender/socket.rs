//! A connection to a receiver, plain or with TLS, and one exchange of request and response on it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::deadline_timer::DeadlineTimer;

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Whether the receiver has neither closed the connection nor sent anything since the last response. A close that
    /// has not arrived yet is not seen, so the connection may still end when it is used.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        // If the task has used up its budget, a normal read is pending even if bytes have arrived.
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

/// Writes a request and reads its response at the same time, because a response may come before the request is
/// complete.
pub(super) struct Exchange<'a> {
    stream: &'a mut Socket,
    timer: &'a mut DeadlineTimer,
    /// The rest of each part of the request.
    unsent: [&'a [u8]; 2],
    send_state: SendState,
}

pub(super) enum ReadError {
    Failed(io::Error),
    TimedOut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SendState {
    Writing,
    Flushing,
    Complete,
    /// The receiver accepts no more bytes. It may have answered nevertheless.
    Failed,
}

impl<'a> Exchange<'a> {
    /// `request` has two parts, of which the second may be empty.
    pub(super) fn begin(stream: &'a mut Socket, timer: &'a mut DeadlineTimer, request: [&'a [u8]; 2]) -> Self {
        Self { stream, timer, unsent: request, send_state: SendState::Writing }
    }

    /// Reads the next bytes of the response. 0 bytes mean that the receiver has closed the connection.
    ///
    /// # Errors
    /// [`ReadError::TimedOut`] if nothing has arrived at the deadline.
    pub(super) async fn read(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<usize, ReadError> {
        poll_fn(|cx| {
            self.poll_send(cx);
            if let Poll::Ready(result) = self.stream.poll_read(cx, buffer) {
                return Poll::Ready(result.map_err(ReadError::Failed));
            }
            self.timer.poll_elapsed(cx, deadline).map(|()| Err(ReadError::TimedOut))
        })
        .await
    }

    /// Whether the whole request was written and flushed.
    pub(super) fn is_sent(&self) -> bool {
        self.send_state == SendState::Complete
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) {
        while self.send_state == SendState::Writing {
            let Some(part) = self.unsent.iter_mut().find(|part| !part.is_empty()) else {
                self.send_state = SendState::Flushing;
                break;
            };
            match self.stream.poll_write(cx, part) {
                Poll::Pending => return,
                Poll::Ready(Ok(written)) if written > 0 => *part = &part[written..],
                Poll::Ready(_) => self.send_state = SendState::Failed,
            }
        }
        if self.send_state == SendState::Flushing {
            self.send_state = match self.stream.poll_flush(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => SendState::Complete,
                Poll::Ready(Err(_)) => SendState::Failed,
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
        let mut stream = Socket::Plain(client);
        assert!(stream.is_quiet());
        drop(server);
        if let Socket::Plain(client) = &stream {
            client.readable().await.expect("the end arrives");
        }
        poll_fn(|cx| {
            // Far more steps than the budget of a task.
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
