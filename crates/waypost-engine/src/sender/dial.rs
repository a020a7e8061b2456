//! Opens a connection to a receiver: resolve the name, check the addresses, connect, TLS handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};
use waypost_core::outcome::Cause;

use super::resolver::{GuardedResolver, ResolveError};
use super::socket::Socket;

/// If an address has not answered after this time, the next one is tried concurrently.
const NEXT_ADDRESS_DELAY: Duration = Duration::from_millis(300);

/// `errno` for too many open files, in the system and in the process. The values are the same on Linux and macOS.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// How long to wait before connecting again while too many files are open.
const OPEN_FILES_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Receivers whose TLS sessions are kept, so that they need no certificate when they reconnect. A receiver takes about
/// 10 kB: its certificates and tickets. The default of rustls is 32 receivers.
const RESUMED_RECEIVERS: usize = 1_024;

/// rustls keeps at most this number of tickets for each receiver, and counts sessions by it.
const TICKETS_PER_RECEIVER: usize = 8;

pub(super) struct Dialer {
    resolver: GuardedResolver,
    tls: TlsConnector,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("the URL has no host to connect to")]
    NoHost,
    #[error("tcp connect error: {0}")]
    Tcp(io::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
}

impl DialError {
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Resolve(ResolveError::Forbidden(_)) => Cause::ForbiddenAddress,
            Self::Resolve(ResolveError::Unresolved(_)) => Cause::Dns,
            Self::Tls(error) if is_tls_error(error) || error.kind() == io::ErrorKind::UnexpectedEof => Cause::Tls,
            Self::NoHost | Self::Tcp(_) | Self::Tls(_) => Cause::Connect,
        }
    }
}

/// Whether an error comes from TLS and not from the TCP connection.
pub(super) fn is_tls_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

impl Dialer {
    /// Trusts the system's certificate authorities and `extra_roots`.
    pub(super) fn new(
        resolver: GuardedResolver,
        extra_roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::Error> {
        let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()));
        let verifier = Verifier::new_with_extra_roots(extra_roots, Arc::clone(&provider))?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(RESUMED_RECEIVERS * TICKETS_PER_RECEIVER);
        Ok(Self { resolver, tls: Arc::new(config).into() })
    }

    /// Connects to the host of a URL at an address that the egress rules permit.
    pub(super) async fn dial(&self, url: &Url) -> Result<Socket, DialError> {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(DialError::NoHost);
        };
        let addresses = match host {
            // The sender has checked the URL, and with it this address.
            Host::Ipv4(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Ipv6(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Domain(name) => {
                let mut addresses = self.resolver.addresses(name).await?;
                addresses.iter_mut().for_each(|address| address.set_port(port));
                addresses
            }
        };
        let stream = connect(interleave_families(addresses)).await.map_err(DialError::Tcp)?;
        // A request is written in one go, so Nagle's algorithm would only delay it.
        let _ = stream.set_nodelay(true);
        if url.scheme() != "https" {
            return Ok(Socket::Plain(stream));
        }
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|_| DialError::NoHost)?,
            Host::Ipv4(address) => ServerName::from(IpAddr::V4(address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::V6(address)),
        };
        let stream = Box::pin(self.tls.connect(name, stream)).await.map_err(DialError::Tls)?;
        Ok(Socket::Tls(Box::new(stream)))
    }
}

/// Alternates IPv4 and IPv6 addresses and keeps their order otherwise, so that a family without a route costs little
/// time.
fn interleave_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let prefers_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == prefers_v4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut interleaved = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return interleaved;
        }
        interleaved.extend(pair.into_iter().flatten());
    }
}

/// Connects to an address. While too many files are open, it tries again until the caller gives up, because that is not
/// an error of the receiver.
async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(address).await {
            Err(error) if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => {
                tokio::time::sleep(OPEN_FILES_RETRY_DELAY).await
            }
            result => return result,
        }
    }
}

/// Connects to the first address that answers.
async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut remaining = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if attempts.is_empty() {
            match remaining.next() {
                Some(address) => attempts.push(connect_to(address)),
                None => return Err(last_error),
            }
        }
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last_error = error;
                    attempts.extend(remaining.next().map(connect_to));
                }
            },
            () = tokio::time::sleep(NEXT_ADDRESS_DELAY), if remaining.len() > 0 => {
                attempts.extend(remaining.next().map(connect_to));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_alternate_and_the_first_address_stays_first() {
        let parse = |addresses: &[&str]| -> Vec<SocketAddr> {
            addresses.iter().map(|address| address.parse().expect("an address")).collect()
        };
        let addresses = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"]);
        assert_eq!(interleave_families(addresses), parse(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"]));
        assert_eq!(interleave_families(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn if_an_address_refuses_or_hangs_the_next_one_is_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let open = listener.local_addr().expect("an address");
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        // 192.0.2.0/24 is reserved for documentation, so no host answers.
        let hanging: SocketAddr = "192.0.2.1:9".parse().expect("an address");
        for addresses in [vec![refusing, open], vec![hanging, open], vec![refusing, hanging, open]] {
            let connected = connect(addresses.clone()).await.expect("a connection");
            assert_eq!(connected.peer_addr().expect("an address"), open, "{addresses:?}");
        }
        let error = connect(vec![refusing, refusing]).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
