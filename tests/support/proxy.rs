//! A TCP proxy between the product and the broker. It simulates network failures: connections that break, stall, are
//! refused or are slow.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::background_server::BackgroundServer;

/// The proxy skips a server that accepts no connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The current behavior of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct ProxyState {
    /// Incremented to cut all connections of earlier generations.
    generation: u64,
    stalled: bool,
    refusing: bool,
    delay: Duration,
}

/// A proxy on a free port of 127.0.0.1. The port stays the same when the broker restarts.
pub(crate) struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<ProxyState>,
    _server: BackgroundServer,
}

impl Proxy {
    /// Starts a proxy in front of a port of 127.0.0.1.
    pub(crate) fn start(port: u16) -> Self {
        Self::start_with_fallbacks(vec![SocketAddr::from(([127, 0, 0, 1], port))])
    }

    /// Starts a proxy that forwards each connection to the first address that accepts it, like a load balancer in front
    /// of a cluster.
    pub(crate) fn start_with_fallbacks(addresses: Vec<SocketAddr>) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a nonblocking socket");
        let address = listener.local_addr().expect("the proxy's address");
        let (weather, forecast) = watch::channel(ProxyState::default());
        let server = BackgroundServer::start("proxy", move || async move {
            let listener = TcpListener::from_std(listener).expect("the proxy's socket");
            loop {
                let (client, _) = listener.accept().await.expect("the proxy accepts");
                let (forecast, addresses) = (forecast.clone(), addresses.clone());
                if forecast.borrow().refusing {
                    continue;
                }
                tokio::spawn(async move {
                    for address in addresses {
                        // Connecting to a node may be slow if its network loses packets.
                        if let Ok(Ok(server)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                            return forward(client, server, forecast).await;
                        }
                    }
                });
            }
        });
        Self { address, weather, _server: server }
    }

    /// The broker's URL through the proxy.
    pub(crate) fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// The address of the proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections. New ones are forwarded.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
    }

    /// Cuts all connections, and closes new ones, until [`resume`](Self::resume).
    pub(crate) fn refuse(&self) {
        self.weather.send_modify(|weather| {
            weather.generation += 1;
            weather.refusing = true;
        });
    }

    /// Stops forwarding without closing connections until [`resume`](Self::resume). No byte is lost.
    pub(crate) fn stall(&self) {
        self.weather.send_modify(|weather| weather.stalled = true);
    }

    /// Delays the bytes of each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Forwards again, without delay.
    pub(crate) fn resume(&self) {
        self.weather.send_modify(|weather| {
            *weather = ProxyState { generation: weather.generation, ..ProxyState::default() };
        });
    }
}

/// Forwards both ways until one side closes or the connection is cut. Then closes both sides.
async fn forward(client: TcpStream, server: TcpStream, mut forecast: watch::Receiver<ProxyState>) {
    let born = forecast.borrow().generation;
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let upstream = copy_bytes(client_reads, server_writes, forecast.clone());
    let downstream = copy_bytes(server_reads, client_writes, forecast.clone());
    tokio::select! {
        _ = upstream => (),
        _ = downstream => (),
        _ = forecast.wait_for(|weather| weather.generation != born) => (),
    }
}

/// Copies one direction until it ends.
async fn copy_bytes(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut forecast: watch::Receiver<ProxyState>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let delay = forecast.borrow().delay;
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        if forecast.wait_for(|weather| !weather.stalled).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}
