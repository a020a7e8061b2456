//! The customers' endpoints: the least that is an HTTP/1.1 server, on a thread of its own. Each endpoint has an address of
//! its own on the loopback network, and either answers 200 at once or never.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::support::background_server::BackgroundServer;
use super::support::unique::free_port;

/// Hosts of a network of 256 that are used, so that none ends in 0 or 255.
const HOSTS: usize = 250;

/// What is answered, as few bytes as HTTP allows.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The number of all events whose deliveries are retries, and of no other.
pub(crate) const RETRY: u64 = u64::MAX;

/// How an endpoint behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointBehavior {
    /// Answers 200 at once.
    Healthy,
    /// Takes the request and never answers.
    Hanging,
}

/// Endpoints that listen.
pub(crate) struct Receiver {
    urls: Vec<String>,
    epoch: Instant,
    tally: Arc<Mutex<RequestStats>>,
    _server: BackgroundServer,
}

/// What the healthy endpoints have received of the events that are measured.
#[derive(Debug, Default)]
pub(crate) struct RequestStats {
    /// By an event's number, whether it has come.
    seen: Vec<bool>,
    /// Since the epoch: when the first one came.
    pub(crate) first: Duration,
    /// Since the epoch: when the last one came.
    pub(crate) last: Duration,
    /// Events, each counted once.
    pub(crate) received: u64,
    /// Events that had come before.
    pub(crate) duplicates: u64,
    /// Retries: events with the number [`RETRY`].
    pub(crate) retries: u64,
    /// From an event's stamp to its receipt, in microseconds, in the order of receipt.
    pub(crate) latencies: Vec<u32>,
}

impl Receiver {
    /// Starts an endpoint for each behaviour, in this order.
    pub(crate) fn start(behaviours: &[EndpointBehavior]) -> Self {
        let port = free_port();
        let address = |number: usize| {
            let octet = |number: usize| u8::try_from(number).expect("fewer endpoints than addresses");
            SocketAddrV4::new(Ipv4Addr::new(127, 1, octet(number / HOSTS), octet(number % HOSTS + 1)), port)
        };
        let addresses: Vec<SocketAddrV4> = (0..behaviours.len()).map(address).collect();
        let urls = addresses.iter().map(|address| format!("http://{address}/hooks/offers")).collect();
        let endpoints: Vec<_> = addresses.into_iter().zip(behaviours.iter().copied()).collect();
        let (epoch, tally) = (Instant::now(), Arc::<Mutex<RequestStats>>::default());
        let (shared, (listening, ready)) = (tally.clone(), std::sync::mpsc::channel());
        let server = BackgroundServer::start("receiver", move || async move {
            for (address, behaviour) in endpoints {
                let listener = listen(address).unwrap_or_else(|error| panic!("{address}: {error}"));
                tokio::spawn(accept(listener, behaviour, epoch, shared.clone()));
            }
            let _ = listening.send(());
            std::future::pending().await
        });
        ready.recv().expect("all endpoints listen");
        Self { urls, epoch, tally, _server: server }
    }

    /// The endpoints' URLs.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The moment from which stamps and receipts are told.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Forgets what came, and measures the events with a number below `count` from now on.
    pub(crate) fn expect(&self, count: u64) {
        let count = usize::try_from(count).expect("a count that fits into memory");
        *self.tally() = RequestStats {
            seen: vec![false; count],
            latencies: Vec::with_capacity(count),
            first: Duration::MAX,
            ..RequestStats::default()
        };
    }

    /// What has come so far. The endpoints wait while it is held.
    pub(crate) fn tally(&self) -> MutexGuard<'_, RequestStats> {
        lock(&self.tally)
    }
}

fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address.into())?;
    // A worker opens as many connections at once as it has messages in hand. Those that find no room wait a second.
    socket.listen(4096)
}

async fn accept(listener: TcpListener, behaviour: EndpointBehavior, epoch: Instant, tally: Arc<Mutex<RequestStats>>) {
    loop {
        // Out of file descriptors, for one: a benchmark of refused connections is worth nothing.
        let (stream, _) = listener.accept().await.expect("a connection");
        match behaviour {
            // The connection's end is that of its client.
            EndpointBehavior::Healthy => drop(tokio::spawn(answer(stream, epoch, tally.clone()))),
            EndpointBehavior::Hanging => drop(tokio::spawn(discard_requests(stream))),
        }
    }
}

/// Reads and never answers, until the client has had enough.
async fn discard_requests(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

async fn answer(mut stream: TcpStream, epoch: Instant, tally: Arc<Mutex<RequestStats>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let Some((head, length)) = measure(&buffer) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        lock(&tally).note(&buffer[head..length], epoch.elapsed());
        stream.write_all(OK).await?;
        buffer.drain(..length);
    }
}

/// The length of a request's head, and of the whole request, once all of it is there.
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
    /// Notes a request by its body, whose `response` is the event's number and its stamp: `"response":"17 4711"`.
    fn note(&mut self, body: &[u8], now: Duration) {
        const MARK: &[u8] = b"\"response\":";
        let at = find(body, MARK).expect("an event's number") + MARK.len();
        let text = body[at..].trim_ascii_start();
        let (event, rest) = number(&text[1..]);
        let (stamp, _) = number(&rest[1..]);
        match usize::try_from(event).ok().and_then(|event| self.seen.get_mut(event)) {
            None if event == RETRY => self.retries += 1,
            // An event to warm up.
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

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The number that stands at the beginning, and what follows it.
fn number(text: &[u8]) -> (u64, &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.iter().fold(0, |number: u64, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))), rest)
}

/// A panic of the receiver's ends the benchmark by what is missing.
fn lock(tally: &Mutex<RequestStats>) -> MutexGuard<'_, RequestStats> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
