//! Making a connection to a receiver: resolve, check, connect, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::resolver::{GuardedResolver, NotResolved};
use super::stream::Stream;
use crate::delivery::outcome::Cause;

/// If an address has not answered by then, the next one is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(300);

/// Too many open files, of the system and of the process (`errno`, the same on Linux and macOS).
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// Until the next try to connect while too many files are open.
const FILES_PAUSE: Duration = Duration::from_millis(50);

/// Makes connections to receivers.
pub(super) struct Dialer {
    resolver: GuardedResolver,
    tls: TlsConnector,
}

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(transparent)]
    NotResolved(#[from] NotResolved),
    #[error("the URL has no host that can be dialled")]
    NoHost,
    #[error("tcp connect error: {0}")]
    Tcp(io::Error),
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
}

impl DialError {
    /// The cause of an attempt that ended like this.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::NotResolved(NotResolved::Forbidden(_)) => Cause::ForbiddenAddress,
            Self::NotResolved(NotResolved::Unresolved(_)) => Cause::Dns,
            Self::Tls(error) if is_of_tls(error) || error.kind() == io::ErrorKind::UnexpectedEof => Cause::Tls,
            Self::NoHost | Self::Tcp(_) | Self::Tls(_) => Cause::Connect,
        }
    }
}

/// Whether an error is one of TLS, and not of the connection below.
pub(super) fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|within| within.is::<rustls::Error>())
}

impl Dialer {
    /// A dialer that trusts the system's authorities and `extra_roots`.
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
        Ok(Self { resolver, tls: Arc::new(config).into() })
    }

    /// Connects to the host of a URL, at one of the addresses that the egress rules permit.
    pub(super) async fn dial(&self, url: &Url) -> Result<Stream, DialError> {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(DialError::NoHost);
        };
        let addresses = match host {
            // The rules have checked it as a part of the URL.
            Host::Ipv4(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Ipv6(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Domain(name) => {
                let mut addresses = self.resolver.addresses(name).await?;
                addresses.iter_mut().for_each(|address| address.set_port(port));
                addresses
            }
        };
        let stream = connect(families_in_turn(addresses)).await.map_err(DialError::Tcp)?;
        // Requests are written at once and awaited: Nagle's algorithm would only hold them back.
        let _ = stream.set_nodelay(true);
        if url.scheme() != "https" {
            return Ok(Stream::Plain(stream));
        }
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|_| DialError::NoHost)?,
            Host::Ipv4(address) => ServerName::from(IpAddr::V4(address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::V6(address)),
        };
        let stream = Box::pin(self.tls.connect(name, stream)).await.map_err(DialError::Tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// The addresses in their order, but with those of the two families in turn, so that a family without a route costs little.
fn families_in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let prefers_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == prefers_v4);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut in_turn = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return in_turn;
        }
        in_turn.extend(pair.into_iter().flatten());
    }
}

/// Connects to an address. While too many files are open it waits, as long as the caller does: that is no fault of the receiver.
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(address).await {
            Err(error) if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => {
                tokio::time::sleep(FILES_PAUSE).await
            }
            result => return result,
        }
    }
}

/// Connects to the first address that answers.
async fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut untried = addresses.into_iter();
    let mut tries = FuturesUnordered::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if tries.is_empty() {
            match untried.next() {
                Some(address) => tries.push(open(address)),
                None => return Err(last_error),
            }
        }
        tokio::select! {
            Some(tried) = tries.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last_error = error;
                    tries.extend(untried.next().map(open));
                }
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if untried.len() > 0 => {
                tries.extend(untried.next().map(open));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns_and_the_first_stays_first() {
        let of = |addresses: &[&str]| -> Vec<SocketAddr> {
            addresses.iter().map(|address| address.parse().expect("an address")).collect()
        };
        let found = of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"]);
        assert_eq!(families_in_turn(found), of(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"]));
        assert_eq!(families_in_turn(Vec::new()), Vec::new());
    }

    #[tokio::test]
    async fn an_address_that_refuses_or_hangs_is_followed_by_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let open = listener.local_addr().expect("an address");
        let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        // Nobody is there: 192.0.2.0/24 is for documentation.
        let hanging: SocketAddr = "192.0.2.1:9".parse().expect("an address");
        for addresses in [vec![refusing, open], vec![hanging, open], vec![refusing, hanging, open]] {
            let connected = connect(addresses.clone()).await.expect("a connection");
            assert_eq!(connected.peer_addr().expect("an address"), open, "{addresses:?}");
        }
        let error = connect(vec![refusing, refusing]).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
