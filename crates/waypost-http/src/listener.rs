//! The listener: plain TCP, or TLS if the settings have a certificate.

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

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of connections after their TLS handshake that are not accepted yet.
const HANDSHAKE_QUEUE_LENGTH: usize = 64;

/// Maximum number of open connections, including those in a TLS handshake. Each takes a file descriptor that deliveries
/// need too. Other connections wait.
const MAX_CONNECTIONS: usize = 512;

/// A connection without traffic for this long is closed. A response that waits for the broker takes at most 40 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

pub enum Listener {
    Plain(LimitedListener),
    Tls(TlsListener),
}

/// Accepts connections up to `MAX_CONNECTIONS`.
pub struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl LimitedListener {
    async fn accept(&mut self) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        // Axum's `accept` waits if the process has too many open files.
        let (stream, peer) = AxumListener::accept(&mut self.listener).await;
        (stream, peer, permit)
    }
}

/// Runs each TLS handshake in its own task, so that a slow client delays no other.
pub struct TlsListener {
    connections: mpsc::Receiver<(ClientConnection, SocketAddr)>,
    address: SocketAddr,
}

impl Listener {
    pub fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let listener = LimitedListener { listener, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
        let Some(config) = tls else { return Ok(Self::Plain(listener)) };
        let (sender, connections) = mpsc::channel(HANDSHAKE_QUEUE_LENGTH);
        tokio::spawn(run_handshakes(listener, TlsAcceptor::from(config), sender));
        Ok(Self::Tls(TlsListener { connections, address }))
    }
}

async fn run_handshakes(
    mut listener: LimitedListener,
    acceptor: TlsAcceptor,
    connections: mpsc::Sender<(ClientConnection, SocketAddr)>,
) {
    loop {
        let (stream, peer, permit) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = connections.closed() => return,
        };
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // Sending fails if the server has stopped.
                Ok(Ok(stream)) => {
                    drop(
                        connections.send((ClientConnection::new(Transport::Tls(Box::new(stream)), permit), peer)).await,
                    );
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
            }
        });
    }
}

impl AxumListener for Listener {
    type Io = ClientConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ClientConnection, SocketAddr) {
        match self {
            Self::Plain(listener) => {
                let (stream, peer, permit) = listener.accept().await;
                (ClientConnection::new(Transport::Plain(stream), permit), peer)
            }
            Self::Tls(listener) => match listener.connections.recv().await {
                Some(connections) => connections,
                // The handshake task ends only after this listener.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(limited) => limited.listener.local_addr(),
            Self::Tls(listener) => Ok(listener.address),
        }
    }
}

/// A client's connection, which counts towards `MAX_CONNECTIONS`.
pub struct ClientConnection {
    transport: Transport,
    /// Expires after [`IDLE_TIMEOUT`] without traffic.
    idle_timer: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientConnection {
    fn new(transport: Transport, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { transport, idle_timer: Box::pin(sleep(IDLE_TIMEOUT)), _permit: permit }
    }

    fn reset_idle_timer(&mut self) {
        self.idle_timer.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let result = match &mut stream.transport {
            Transport::Plain(transport) => Pin::new(transport).poll_read(cx, buffer),
            Transport::Tls(transport) => Pin::new(transport).poll_read(cx, buffer),
        };
        if result.is_ready() {
            stream.reset_idle_timer();
        } else if stream.idle_timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let result = match &mut stream.transport {
            Transport::Plain(transport) => Pin::new(transport).poll_write(cx, bytes),
            Transport::Tls(transport) => Pin::new(transport).poll_write(cx, bytes),
        };
        if result.is_ready() {
            stream.reset_idle_timer();
        } else if stream.idle_timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(transport) => Pin::new(transport).poll_flush(cx),
            Transport::Tls(transport) => Pin::new(transport).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(transport) => Pin::new(transport).poll_shutdown(cx),
            Transport::Tls(transport) => Pin::new(transport).poll_shutdown(cx),
        }
    }
}
