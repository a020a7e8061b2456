//! A real HTTP server in the place of the customers' endpoints: records every request, and answers as the test scripts it,
//! well or badly.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request as HttpRequest, State as Shared};
use axum::http::{Method, Response, Uri};
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::background_server::BackgroundServer;
use super::wait::{DEFAULT_TIMEOUT, poll_until};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// In the order in which they came, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// When its last byte was there.
    pub(crate) at: Instant,
}

impl Request {
    /// The path it was sent to, without a query.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// The value of a header (name in lower case), the first where there are several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Its `webhook-id`; empty where it has none.
    pub(crate) fn webhook_id(&self) -> &str {
        self.header("webhook-id").unwrap_or_default()
    }

    /// Its body as JSON; panics where it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    delay: Duration,
    gate: Option<CancellationToken>,
    ending: AnswerEnding,
}

#[derive(Debug, Clone, Copy)]
enum AnswerEnding {
    Answered,
    NoAnswer,
    Reset,
    /// Its body comes a byte at a time, each after this time.
    Trickle(Duration),
    /// Its body is repeated for ever.
    Endless,
}

impl Answer {
    /// 200, no body.
    pub(crate) fn ok() -> Self {
        Self::status(200)
    }

    /// A status, no body.
    pub(crate) fn status(status: u16) -> Self {
        let (headers, body, delay) = (Vec::new(), Bytes::new(), Duration::ZERO);
        Self { status, headers, body, delay, gate: None, ending: AnswerEnding::Answered }
    }

    /// Nothing, ever: the sender has to give up by itself.
    pub(crate) fn never() -> Self {
        Self { ending: AnswerEnding::NoAnswer, ..Self::ok() }
    }

    /// The request is read; then the connection is reset without an answer.
    pub(crate) fn reset() -> Self {
        Self { ending: AnswerEnding::Reset, ..Self::ok() }
    }

    /// Its body comes a byte at a time, with a pause before each.
    pub(crate) fn trickling(self, pause: Duration) -> Self {
        Self { ending: AnswerEnding::Trickle(pause), ..self }
    }

    /// Its body is repeated until the sender has had enough.
    pub(crate) fn endless(self) -> Self {
        Self { ending: AnswerEnding::Endless, ..self }
    }

    /// With a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a body.
    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Only after this time.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Only when the test cancels the token.
    pub(crate) fn gated_by(mut self, gate: &CancellationToken) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

/// The receiver: on 127.0.0.1, on a port of its own. Until told otherwise, it answers 200 to everything.
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    _server: BackgroundServer,
}

impl Receiver {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("the receiver's address");
        let state = Arc::new(State::default());
        let router = Router::new().fallback(handle_request).with_state(Arc::clone(&state));
        let server = BackgroundServer::start("receiver", move || async move {
            let sockets = ResettableListener(TcpListener::from_std(listener).expect("the receiver's socket"));
            let service = router.into_make_service_with_connect_info::<Resetter>();
            axum::serve(sockets, service).await.expect("the receiver serves");
        });
        Self { address, state, _server: server }
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on answers each request to `path` like this.
    pub(crate) fn reply(&self, path: &str, answer: Answer) {
        self.reply_with(path, move |_, _| answer.clone());
    }

    /// From now on answers the requests to `path` with these in turn, and with the last one ever after.
    pub(crate) fn reply_in_turn(&self, path: &str, answers: Vec<Answer>) {
        assert!(!answers.is_empty(), "no answers to give");
        self.reply_with(path, move |_, earlier| answers[earlier.min(answers.len() - 1)].clone());
    }

    /// From now on asks `script` what to answer to a request to `path`, telling it how many there have been before.
    pub(crate) fn reply_with(&self, path: &str, script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) {
        let script = Script { seen: AtomicUsize::new(0), answer: Box::new(script) };
        self.state.lock().scripts.insert(path.to_owned(), Arc::new(script));
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    /// How many requests have come with each `webhook-id`.
    pub(crate) fn requests_by_webhook_id(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in &self.state.lock().requests {
            *counts.entry(request.webhook_id().to_owned()).or_default() += 1;
        }
        counts
    }

    /// The most requests to `path` that have been in hand at once.
    pub(crate) fn max_concurrent(&self, path: &str) -> usize {
        self.state.lock().in_flight.get(path).map_or(0, |in_hand| in_hand.max)
    }

    /// Forgets all requests; the scripts stay, and go on where they are.
    pub(crate) fn clear_requests(&self) {
        self.state.lock().requests.clear();
    }

    /// Waits until the requests satisfy `condition`, and gives them back; panics with what there was otherwise.
    #[track_caller]
    pub(crate) fn wait_until(&self, condition: impl Fn(&[Request]) -> bool) -> impl Future<Output = Vec<Request>> {
        self.wait_until_within(DEFAULT_TIMEOUT, condition)
    }

    /// As [`wait_until`](Self::until), with a deadline of its own.
    #[track_caller]
    pub(crate) fn wait_until_within(
        &self,
        deadline: Duration,
        condition: impl Fn(&[Request]) -> bool,
    ) -> impl Future<Output = Vec<Request>> {
        let caller = Location::caller();
        async move {
            let satisfied = async || {
                let inner = self.state.lock();
                condition(&inner.requests).then(|| inner.requests.clone())
            };
            match poll_until(deadline, satisfied).await {
                Some(requests) => requests,
                None => panic!("waited {deadline:?} in vain ({caller}) for requests; {}", self.describe_requests()),
            }
        }
    }

    fn describe_requests(&self) -> String {
        let requests = self.requests();
        let mut text = format!("{} came", requests.len());
        let last = requests.len().saturating_sub(20);
        for request in &requests[last..] {
            let body: String = String::from_utf8_lossy(&request.body).chars().take(300).collect();
            let _ = write!(text, "\n{} {} {} {body}", request.method, request.uri, request.webhook_id());
        }
        text
    }
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    requests: Vec<Request>,
    scripts: HashMap<String, Arc<Script>>,
    in_flight: HashMap<String, InFlight>,
}

#[derive(Default)]
struct InFlight {
    now: usize,
    max: usize,
}

type AnswerScript = dyn Fn(&Request, usize) -> Answer + Send + Sync;

struct Script {
    seen: AtomicUsize,
    answer: Box<AnswerScript>,
}

impl State {
    /// A condition that panics in a test poisons the lock; what it guards is whole all the same.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn handle_request(
    Shared(state): Shared<Arc<State>>,
    ConnectInfo(resetter): ConnectInfo<Resetter>,
    request: HttpRequest,
) -> Response<Body> {
    let _visit = InFlightGuard::begin(&state, request.uri().path());
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        // The sender has gone in the middle of its request, which is thus none.
        return Response::default();
    };
    let headers = head.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let (method, uri, headers) = (head.method, head.uri, headers.collect());
    let request = Request { method, uri, headers, body, at: Instant::now() };

    let script = {
        let mut inner = state.lock();
        inner.requests.push(request.clone());
        inner.scripts.get(request.path()).cloned()
    };
    let answer = match script {
        Some(script) => (script.answer)(&request, script.seen.fetch_add(1, Ordering::Relaxed)),
        None => Answer::ok(),
    };
    tokio::time::sleep(answer.delay).await;
    if let Some(gate) = &answer.gate {
        gate.cancelled().await;
    }
    let body = match answer.ending {
        AnswerEnding::Answered => Body::from(answer.body),
        AnswerEnding::NoAnswer => std::future::pending().await,
        AnswerEnding::Reset => {
            resetter.reset();
            Body::empty()
        }
        AnswerEnding::Trickle(pause) => Body::from_stream(trickle(answer.body, pause)),
        AnswerEnding::Endless => {
            let again = move || Ok::<_, io::Error>(answer.body.clone());
            Body::from_stream(futures_util::stream::repeat_with(again))
        }
    };
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(body).expect("a scripted answer is HTTP")
}

/// A body byte by byte, with a pause before each.
fn trickle(body: Bytes, pause: Duration) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(body, move |mut body| async move {
        tokio::time::sleep(pause).await;
        (!body.is_empty()).then(|| (Ok(body.split_to(1)), body))
    })
}

/// A request is in hand from its first byte until it is answered, or its sender has gone.
struct InFlightGuard {
    state: Arc<State>,
    path: String,
}

impl InFlightGuard {
    fn begin(state: &Arc<State>, path: &str) -> Self {
        let mut inner = state.lock();
        let in_hand = inner.in_flight.entry(path.to_owned()).or_default();
        in_hand.now += 1;
        in_hand.max = in_hand.max.max(in_hand.now);
        Self { state: Arc::clone(state), path: path.to_owned() }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.state.lock().in_flight.entry(self.path.clone()).or_default().now -= 1;
    }
}

/// Accepts connections that a handler can reset.
struct ResettableListener(TcpListener);

impl Listener for ResettableListener {
    type Io = ResettableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ResettableStream, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        // Answers are small and awaited: Nagle's algorithm would only hold them back.
        let _ = stream.set_nodelay(true);
        (ResettableStream { stream, resetter: Resetter::default() }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What a handler has in hand of its connection.
#[derive(Clone, Default)]
struct Resetter(Arc<AtomicBool>);

impl Resetter {
    /// The next byte written to the connection resets it instead.
    fn reset(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, ResettableListener>> for Resetter {
    fn connect_info(stream: IncomingStream<'_, ResettableListener>) -> Self {
        stream.io().resetter.clone()
    }
}

struct ResettableStream {
    stream: TcpStream,
    resetter: Resetter,
}

impl AsyncRead for ResettableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ResettableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.resetter.0.load(Ordering::Relaxed) {
            // With a zero linger, the close that follows the error is a TCP reset.
            self.stream.set_zero_linger()?;
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
