//! The listener: plain, or with TLS where the settings give it an identity.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener as AxumListener;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A caller that has not shaken hands by then is gone.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that have shaken hands, and are not taken yet.
const ROOM: usize = 64;

/// Connections at once, those that shake hands included: each takes a file of the process that delivers. Others wait to be
/// accepted.
const MOST: usize = 512;

/// A connection on which nothing came or went for so long is closed. An answer that waits for the broker takes 40 s at most.
const IDLE: Duration = Duration::from_secs(75);

/// Where callers come in.
pub enum Listener {
    /// Over TCP.
    Plain(LimitedListener),
    /// Over TLS.
    Tls(TlsListener),
}

/// Accepts connections, no more at once than there may be.
pub struct LimitedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl LimitedListener {
    async fn accept(&mut self) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        // The semaphore is never closed.
        let place = self.places.clone().acquire_owned().await.ok();
        // Axum's own way to accept waits where there are too many open files.
        let (stream, caller) = AxumListener::accept(&mut self.listener).await;
        (stream, caller, place)
    }
}

/// Shakes hands with each caller by itself, so that a slow one holds up no other.
pub struct TlsListener {
    shaken: mpsc::Receiver<(Stream, SocketAddr)>,
    address: SocketAddr,
}

impl Listener {
    /// Callers of `listener`, over TLS where `tls` says how.
    ///
    /// # Errors
    /// Where the listener has no address.
    pub fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = LimitedListener { listener, places: Arc::new(Semaphore::new(MOST)) };
        let Some(config) = tls else { return Ok(Self::Plain(listener)) };
        let (sender, shaken) = mpsc::channel(ROOM);
        tokio::spawn(shake_hands(listener, TlsAcceptor::from(config), sender));
        Ok(Self::Tls(TlsListener { shaken, address }))
    }
}

async fn shake_hands(mut listener: LimitedListener, acceptor: TlsAcceptor, shaken: mpsc::Sender<(Stream, SocketAddr)>) {
    loop {
        let (stream, caller, place) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shaken.closed() => return,
        };
        let (acceptor, shaken) = (acceptor.clone(), shaken.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // Nobody takes it any more where the server ends.
                Ok(Ok(stream)) => {
                    drop(shaken.send((Stream::new(Transport::Tls(Box::new(stream)), place), caller)).await);
                }
                Ok(Err(error)) => tracing::debug!(%caller, %error, "no TLS handshake"),
                Err(_) => tracing::debug!(%caller, "no TLS handshake in time"),
            }
        });
    }
}

impl AxumListener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        match self {
            Self::Plain(listener) => {
                let (stream, caller, place) = listener.accept().await;
                (Stream::new(Transport::Plain(stream), place), caller)
            }
            Self::Tls(listener) => match listener.shaken.recv().await {
                Some(shaken) => shaken,
                // The task that shakes hands ends after this listener only.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(accepting) => accepting.listener.local_addr(),
            Self::Tls(listener) => Ok(listener.address),
        }
    }
}

/// A caller's connection, in its place among those there may be.
pub struct Stream {
    wire: Transport,
    /// When it ends, unless something comes or goes before.
    idle: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn new(wire: Transport, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { wire, idle: Box::pin(sleep(IDLE)), _place: place }
    }

    fn touch(&mut self) {
        self.idle.as_mut().reset(Instant::now() + IDLE);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let read = match &mut stream.wire {
            Transport::Plain(wire) => Pin::new(wire).poll_read(cx, buffer),
            Transport::Tls(wire) => Pin::new(wire).poll_read(cx, buffer),
        };
        if read.is_ready() {
            stream.touch();
        } else if stream.idle.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let written = match &mut stream.wire {
            Transport::Plain(wire) => Pin::new(wire).poll_write(cx, bytes),
            Transport::Tls(wire) => Pin::new(wire).poll_write(cx, bytes),
        };
        if written.is_ready() {
            stream.touch();
        } else if stream.idle.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Transport::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Transport::Tls(wire) => Pin::new(wire).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Transport::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Transport::Tls(wire) => Pin::new(wire).poll_shutdown(cx),
        }
    }
}
