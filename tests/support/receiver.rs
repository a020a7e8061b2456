//! An HTTP server in the place of the customers' endpoints. It records every request and sends scripted answers.

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
use super::expectation::Expectation;
use super::wait::{DEFAULT_TIMEOUT, poll_until};

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// In order of arrival, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// When the last byte of the request arrived.
    pub(crate) at: Instant,
}

impl Request {
    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// The first value of a header. `name` is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The `webhook-id`, or an empty string.
    pub(crate) fn webhook_id(&self) -> &str {
        self.header("webhook-id").unwrap_or_default()
    }

    /// Panics if the body is not JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// How the receiver handles a request.
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
    /// Sends the body one byte at a time, with this pause before each.
    Trickle(Duration),
    /// Repeats the body until the sender closes.
    Endless,
}

impl Answer {
    /// 200 without a body.
    pub(crate) fn ok() -> Self {
        Self::status(200)
    }

    /// A status without a body.
    pub(crate) fn status(status: u16) -> Self {
        let (headers, body, delay) = (Vec::new(), Bytes::new(), Duration::ZERO);
        Self { status, headers, body, delay, gate: None, ending: AnswerEnding::Answered }
    }

    /// No answer: the sender must time out.
    pub(crate) fn never() -> Self {
        Self { ending: AnswerEnding::NoAnswer, ..Self::ok() }
    }

    /// Reads the request, then resets the connection without an answer.
    pub(crate) fn reset() -> Self {
        Self { ending: AnswerEnding::Reset, ..Self::ok() }
    }

    /// Sends the body one byte at a time, with a pause before each.
    pub(crate) fn trickling(self, pause: Duration) -> Self {
        Self { ending: AnswerEnding::Trickle(pause), ..self }
    }

    /// Repeats the body until the sender closes.
    pub(crate) fn endless(self) -> Self {
        Self { ending: AnswerEnding::Endless, ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Delays the answer.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Delays the answer until the test cancels the token.
    pub(crate) fn gated_by(mut self, gate: &CancellationToken) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

/// Answers in the order of requests.
pub(crate) trait IntoReplies {
    fn into_replies(self) -> Vec<Answer>;
}

impl IntoReplies for u16 {
    fn into_replies(self) -> Vec<Answer> {
        vec![Answer::status(self)]
    }
}

impl<const N: usize> IntoReplies for [u16; N] {
    fn into_replies(self) -> Vec<Answer> {
        self.map(Answer::status).into()
    }
}

impl IntoReplies for Answer {
    fn into_replies(self) -> Vec<Answer> {
        vec![self]
    }
}

impl<const N: usize> IntoReplies for [Answer; N] {
    fn into_replies(self) -> Vec<Answer> {
        self.into()
    }
}

impl IntoReplies for Vec<Answer> {
    fn into_replies(self) -> Vec<Answer> {
        self
    }
}

/// A receiver on a free port of 127.0.0.1. By default it answers 200 to everything.
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    _server: BackgroundServer,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a nonblocking socket");
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

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets the answers to further requests to `path`, in this order: a status, an [`Answer`], or an array of either.
    /// The last answer repeats.
    pub(crate) fn reply(&self, path: &str, replies: impl IntoReplies) {
        let answers = replies.into_replies();
        assert!(!answers.is_empty(), "no answers to give");
        self.reply_with(path, move |_, earlier| answers[earlier.min(answers.len() - 1)].clone());
    }

    /// Calls `script` for each further request to `path`, with the number of earlier requests.
    pub(crate) fn reply_with(&self, path: &str, script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) {
        let script = Script { seen: AtomicUsize::new(0), answer: Box::new(script) };
        self.state.lock().scripts.insert(path.to_owned(), Arc::new(script));
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().requests.clone()
    }

    /// The requests to a path, or to all paths.
    pub(super) fn requests_to(&self, path: Option<&str>) -> Vec<Request> {
        self.state.lock().requests_to(path).cloned().collect()
    }

    pub(super) fn count_requests_to(&self, path: Option<&str>) -> usize {
        self.state.lock().requests_to(path).count()
    }

    /// The number of requests with each `webhook-id`.
    pub(crate) fn requests_by_webhook_id(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in &self.state.lock().requests {
            *counts.entry(request.webhook_id().to_owned()).or_default() += 1;
        }
        counts
    }

    /// The highest number of concurrent requests to `path`.
    pub(crate) fn max_concurrent(&self, path: &str) -> usize {
        self.state.lock().in_flight.get(path).map_or(0, |in_hand| in_hand.max)
    }

    /// Forgets all requests. The scripts keep their state.
    pub(crate) fn clear_requests(&self) {
        self.state.lock().requests.clear();
    }

    /// Awaited, waits for requests to `path`. One request, if nothing else is said.
    #[track_caller]
    pub(crate) fn expect(&self, path: &str) -> Expectation<'_> {
        Expectation::new(self, Some(path.to_owned()))
    }

    /// Like [`expect`](Self::expect), for requests to all paths.
    #[track_caller]
    pub(crate) fn expect_any(&self) -> Expectation<'_> {
        Expectation::new(self, None)
    }

    /// Waits until `condition` holds for the requests, and returns them. Panics with the requests otherwise.
    #[track_caller]
    pub(crate) fn wait_until(&self, condition: impl Fn(&[Request]) -> bool) -> impl Future<Output = Vec<Request>> {
        self.wait_until_within(DEFAULT_TIMEOUT, condition)
    }

    /// Like [`wait_until`](Self::wait_until), with a deadline.
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
                None => panic!("no expected requests within {deadline:?} ({caller}): {}", self.describe_requests()),
            }
        }
    }

    /// The last requests, for a message.
    pub(super) fn describe_requests(&self) -> String {
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

impl Inner {
    fn requests_to(&self, path: Option<&str>) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(move |request| path.is_none_or(|path| request.path() == path))
    }
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
    /// A condition that panics poisons the lock, but the data stay consistent.
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
        // The sender closed in the middle of the request, so it does not count.
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

/// Sends a body byte by byte, with a pause before each.
fn trickle(body: Bytes, pause: Duration) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(body, move |mut body| async move {
        tokio::time::sleep(pause).await;
        (!body.is_empty()).then(|| (Ok(body.split_to(1)), body))
    })
}

/// Counts a request from its first byte until it is answered or its sender closes.
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
        // Answers are small, and Nagle's algorithm would delay them.
        let _ = stream.set_nodelay(true);
        (ResettableStream { stream, resetter: Resetter::default() }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Allows a handler to reset its connection.
#[derive(Clone, Default)]
struct Resetter(Arc<AtomicBool>);

impl Resetter {
    /// The next write to the connection resets it.
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
            // Without lingering, the close after the error is a TCP reset.
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
