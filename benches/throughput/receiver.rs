//! The endpoints: a minimal HTTP/1.1 server on its own thread. Each endpoint has its own address on the loopback
//! network, and either answers 200 immediately or never.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::support::background_server::BackgroundServer;
use super::support::unique::free_port;

/// Hosts in use of a network of 256, so that none ends in 0 or 255.
const HOSTS: usize = 250;

/// The shortest possible response.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The number of all events whose deliveries are retries.
pub(crate) const RETRY: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointBehavior {
    /// Answers 200 immediately.
    Healthy,
    /// Reads the request and never answers.
    Hanging,
}

pub(crate) struct Receiver {
    urls: Vec<String>,
    epoch: Instant,
    tally: Arc<Mutex<RequestStats>>,
    _server: BackgroundServer,
}

/// The measured requests at healthy endpoints.
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
    /// Retries: events with the number [`RETRY`].
    pub(crate) retries: u64,
    /// From an event's stamp to its arrival, in microseconds, in order of arrival.
    pub(crate) latencies: Vec<u32>,
}

impl Receiver {
    /// Starts an endpoint for each behavior, in order.
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

    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The zero of stamps and arrival times.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
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
    // A worker may open as many connections at once as it has messages. Connections beyond the backlog wait a second.
    socket.listen(4096)
}

async fn accept(listener: TcpListener, behaviour: EndpointBehavior, epoch: Instant, tally: Arc<Mutex<RequestStats>>) {
    loop {
        // Fails, for example if file descriptors run out, because refused connections invalidate the results.
        let (stream, _) = listener.accept().await.expect("a connection");
        match behaviour {
            // The task ends with the client's connection.
            EndpointBehavior::Healthy => drop(tokio::spawn(answer(stream, epoch, tally.clone()))),
            EndpointBehavior::Hanging => drop(tokio::spawn(discard_requests(stream))),
        }
    }
}

/// Reads until the client closes, and never answers.
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
            None if event == RETRY => self.retries += 1,
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
fn lock(tally: &Mutex<RequestStats>) -> MutexGuard<'_, RequestStats> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
