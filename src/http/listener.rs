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
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A caller that has not shaken hands by then is gone.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that have shaken hands, and are not taken yet.
const ROOM: usize = 64;

/// Where callers come in.
pub enum Listener {
    /// Over TCP.
    Plain(TcpListener),
    /// Over TLS.
    Tls(TlsListener),
}

/// Shakes hands with each caller by itself, so that a slow one holds up no other.
pub struct TlsListener {
    shaken: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Listener {
    /// Callers of `listener`, over TLS where `tls` says how.
    ///
    /// # Errors
    /// Where the listener has no address.
    pub fn new(listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(config) = tls else { return Ok(Self::Plain(listener)) };
        let address = listener.local_addr()?;
        let (sender, shaken) = mpsc::channel(ROOM);
        tokio::spawn(shake_hands(listener, TlsAcceptor::from(config), sender));
        Ok(Self::Tls(TlsListener { shaken, address }))
    }
}

async fn shake_hands(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    shaken: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        // Axum's own way to accept waits where there are too many open files.
        let (stream, caller) = tokio::select! {
            accepted = AxumListener::accept(&mut listener) => accepted,
            () = shaken.closed() => return,
        };
        let (acceptor, shaken) = (acceptor.clone(), shaken.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                // Nobody takes it any more where the server ends.
                Ok(Ok(stream)) => drop(shaken.send((stream, caller)).await),
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
                let (stream, caller) = AxumListener::accept(listener).await;
                (Stream::Plain(stream), caller)
            }
            Self::Tls(listener) => match listener.shaken.recv().await {
                Some((stream, caller)) => (Stream::Tls(Box::new(stream)), caller),
                // The task that shakes hands ends after this listener only.
                None => std::future::pending().await,
            },
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(listener) => listener.local_addr(),
            Self::Tls(listener) => Ok(listener.address),
        }
    }
}

/// A caller's connection.
pub enum Stream {
    /// Over TCP.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
