//! The endpoints: a minimal HTTP/1.1 server on its own thread, plain or with TLS. Each endpoint has its own address on
//! the loopback network.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::certificates::Authority;
use super::process::{self, ThreadId};
use crate::support::background_server::BackgroundServer;
use crate::support::unique::free_port;

/// Hosts in use of a network of 256, so that none ends in 0 or 255.
const HOSTS: usize = 250;

/// A worker may open as many connections at once as it has messages. Connections beyond the backlog wait a second.
const BACKLOG: u32 = 4096;

/// The shortest possible responses.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const GONE: &[u8] = b"HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";

/// The number of all events whose deliveries wait already. Their stamp distinguishes them.
pub(crate) const WAITING: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointBehavior {
    /// Answers 200 immediately.
    Healthy,
    /// Reads the request and never answers.
    Hanging,
    /// Answers 503 immediately.
    Failing,
    /// Answers 410 immediately.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

pub(crate) struct Receiver {
    urls: Vec<String>,
    endpoints: Vec<Arc<Endpoint>>,
    epoch: Instant,
    tally: Arc<Mutex<RequestStats>>,
    closing: watch::Sender<()>,
    thread: ThreadId,
    /// Signs the certificates of the endpoints.
    authority: Option<Authority>,
    _server: BackgroundServer,
}

struct Endpoint {
    behavior: Mutex<EndpointBehavior>,
    tls: Option<TlsAcceptor>,
    epoch: Instant,
    tally: Arc<Mutex<RequestStats>>,
}

/// The measured requests that were answered with 200.
#[derive(Debug, Default)]
pub(crate) struct RequestStats {
    /// Whether each event has arrived, by number.
    seen: Vec<bool>,
    /// Arrival of the first event, since the epoch.
    pub(crate) first: Duration,
    /// Arrival of the last event, since the epoch.
    pub(crate) last: Duration,
    /// The number of distinct events.
    pub(crate) received: u64,
    /// Events that had already arrived.
    pub(crate) duplicates: u64,
    /// From an event's stamp to its arrival, in microseconds, in order of arrival.
    pub(crate) latencies: Vec<u32>,
    /// Whether each delivery of the number [`WAITING`] has arrived, by its stamp.
    waiting_seen: Vec<bool>,
    /// The number of distinct deliveries of the number [`WAITING`].
    pub(crate) waiting: u64,
    /// Their number in each second since the epoch.
    pub(crate) waiting_by_second: Vec<u64>,
    pub(crate) waiting_duplicates: u64,
    /// Requests that were answered with 503 or 410, or not at all.
    pub(crate) refused: u64,
    pub(crate) handshakes: HandshakeStats,
}

/// The TLS handshakes of all endpoints.
#[derive(Debug, Clone, Default)]
pub(crate) struct HandshakeStats {
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    pub(crate) failed: u64,
    /// The end of the last one, since the epoch.
    pub(crate) last: Duration,
}

impl HandshakeStats {
    pub(crate) fn total(&self) -> u64 {
        self.full + self.resumed
    }
}

impl Receiver {
    /// Starts an endpoint for each behavior, in order.
    pub(crate) fn start(behaviors: &[EndpointBehavior], transport: Transport) -> Self {
        let port = free_port();
        let address = |number: usize| {
            let octet = |number: usize| u8::try_from(number).expect("fewer endpoints than addresses");
            SocketAddrV4::new(Ipv4Addr::new(127, 1, octet(number / HOSTS), octet(number % HOSTS + 1)), port)
        };
        let (scheme, authority) = match transport {
            Transport::Plain => ("http", None),
            Transport::Tls => ("https", Some(Authority::new())),
        };
        let addresses: Vec<SocketAddrV4> = (0..behaviors.len()).map(address).collect();
        let urls = addresses.iter().map(|address| format!("{scheme}://{address}/hooks/offers")).collect();
        let (epoch, tally) = (Instant::now(), Arc::<Mutex<RequestStats>>::default());
        let acceptor = |config: ServerConfig| TlsAcceptor::from(Arc::new(config));
        let endpoint = |(address, behavior): (&SocketAddrV4, &EndpointBehavior)| {
            let tls = authority.as_ref().map(|authority| acceptor(authority.endpoint(&address.ip().to_string())));
            Arc::new(Endpoint { behavior: Mutex::new(*behavior), tls, epoch, tally: Arc::clone(&tally) })
        };
        let endpoints: Vec<Arc<Endpoint>> = addresses.iter().zip(behaviors).map(endpoint).collect();
        let (closing, closed) = watch::channel(());
        let (listening, ready) = std::sync::mpsc::channel();
        let served: Vec<_> = addresses.into_iter().zip(endpoints.iter().cloned()).collect();
        let server = BackgroundServer::start("receiver", move || async move {
            for (address, endpoint) in served {
                let listener = listen(address).unwrap_or_else(|error| panic!("{address}: {error}"));
                tokio::spawn(accept(listener, endpoint, closed.clone()));
            }
            let _ = listening.send(process::current_thread());
            std::future::pending().await
        });
        let thread = ready.recv().expect("all endpoints listen");
        Self { urls, endpoints, epoch, tally, closing, thread, authority, _server: server }
    }

    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The authority of the endpoints' certificates, if they use TLS.
    pub(crate) fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The zero of stamps and arrival times.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The CPU time of the thread of all endpoints. If it took all the time, the receiver would be the limit.
    pub(crate) fn cpu(&self) -> Duration {
        process::thread_cpu(&self.thread)
    }

    /// Changes how an endpoint answers requests that arrive from now on.
    pub(crate) fn set_behavior(&self, endpoint: usize, behavior: EndpointBehavior) {
        *lock(&self.endpoints[endpoint].behavior) = behavior;
    }

    /// Closes all connections. The endpoints accept new ones.
    pub(crate) fn close_connections(&self) {
        let _ = self.closing.send(());
    }

    /// Resets the statistics, and measures events with numbers below `count` from now on.
    pub(crate) fn expect(&self, count: u64) {
        let count = usize::try_from(count).expect("a count that fits into memory");
        *self.tally() = RequestStats {
            seen: vec![false; count],
            latencies: Vec::with_capacity(count),
            first: Duration::MAX,
            ..RequestStats::default()
        };
    }

    /// The current statistics. Endpoints block while the guard is held.
    pub(crate) fn tally(&self) -> MutexGuard<'_, RequestStats> {
        lock(&self.tally)
    }
}

fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address.into())?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, endpoint: Arc<Endpoint>, mut closing: watch::Receiver<()>) {
    // Each task ends with its client's connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Fails, for example if file descriptors run out, because refused connections invalidate the results.
                let (stream, _) = accepted.expect("a connection");
                let endpoint = Arc::clone(&endpoint);
                connections.spawn(async move { endpoint.serve(stream).await });
            }
            Ok(()) = closing.changed() => connections.abort_all(),
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Endpoint {
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return self.answer(stream).await };
        let accepted = tls.accept(stream).await;
        {
            let handshakes = &mut lock(&self.tally).handshakes;
            handshakes.last = self.epoch.elapsed();
            match &accepted {
                Ok(stream) if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) => {
                    handshakes.resumed += 1;
                }
                Ok(_) => handshakes.full += 1,
                Err(_) => handshakes.failed += 1,
            }
        }
        Box::pin(self.answer(accepted?)).await
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(4096);
        loop {
            let Some((head, length)) = measure(&buffer) else {
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
                continue;
            };
            let behavior = *lock(&self.behavior);
            let answer = {
                let mut tally = lock(&self.tally);
                match behavior {
                    EndpointBehavior::Healthy => tally.note(&buffer[head..length], self.epoch.elapsed()),
                    EndpointBehavior::Hanging | EndpointBehavior::Failing | EndpointBehavior::Gone => {
                        tally.refused += 1
                    }
                }
                match behavior {
                    EndpointBehavior::Healthy => Some(OK),
                    EndpointBehavior::Hanging => None,
                    EndpointBehavior::Failing => Some(UNAVAILABLE),
                    EndpointBehavior::Gone => Some(GONE),
                }
            };
            match answer {
                Some(answer) => {
                    stream.write_all(answer).await?;
                    stream.flush().await?;
                }
                None => return discard(stream).await,
            }
            buffer.drain(..length);
        }
    }
}

/// Reads until the client closes, and never answers.
async fn discard(mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// The length of the head and of the whole request, once it is complete.
fn measure(buffer: &[u8]) -> Option<(usize, usize)> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let header = |line: &[u8]| {
        let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
        name.eq_ignore_ascii_case(b"content-length").then(|| number(value[1..].trim_ascii_start()).0)
    };
    let length = buffer[..head].split(|byte| *byte == b'\n').find_map(header);
    let body = usize::try_from(length.expect("a request with a content-length")).expect("a length");
    (buffer.len() >= head + body).then_some((head, head + body))
}

impl RequestStats {
    /// Records a request by its body. The `response` is the event's number and stamp: `"response":"17 4711"`.
    fn note(&mut self, body: &[u8], now: Duration) {
        const MARK: &[u8] = b"\"response\":";
        let at = find(body, MARK).expect("an event's number") + MARK.len();
        let text = body[at..].trim_ascii_start();
        let (event, rest) = number(&text[1..]);
        let (stamp, _) = number(&rest[1..]);
        match usize::try_from(event).ok().and_then(|event| self.seen.get_mut(event)) {
            None if event == WAITING => self.note_waiting(stamp, now),
            // A warm-up event.
            None => {}
            Some(true) => self.duplicates += 1,
            Some(seen) => {
                *seen = true;
                self.received += 1;
                self.first = self.first.min(now);
                self.last = now;
                let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).saturating_sub(stamp);
                self.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
            }
        }
    }
}

impl RequestStats {
    fn note_waiting(&mut self, number: u64, now: Duration) {
        let index = usize::try_from(number).expect("a number that fits into memory");
        if self.waiting_seen.len() <= index {
            self.waiting_seen.resize(index + 1, false);
        }
        if std::mem::replace(&mut self.waiting_seen[index], true) {
            self.waiting_duplicates += 1;
            return;
        }
        self.waiting += 1;
        let second = usize::try_from(now.as_secs()).expect("seconds that fit into memory");
        if self.waiting_by_second.len() <= second {
            self.waiting_by_second.resize(second + 1, 0);
        }
        self.waiting_by_second[second] += 1;
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The number at the beginning, and the rest.
fn number(text: &[u8]) -> (u64, &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.iter().fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))), rest)
}

/// If the receiver panics, the benchmark fails because of missing events.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
