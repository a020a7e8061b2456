//! Tests of the sender against real sockets: responses, failures and their causes, timing.

mod lenient;
#[path = "../../../../tests/support/raw_receiver.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod raw_receiver;
mod reuse;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use waypost_core::egress::AllowRule;
use waypost_core::egress::HttpUrls;
use waypost_core::outcome::{Blame, RequestPhase};

use super::*;
use raw_receiver::RawReceiver;

fn sender() -> Sender {
    sender_with(Vec::new(), None)
}

/// A sender that trusts the receiver's certificate.
fn sender_trusting(receiver: &RawReceiver) -> Sender {
    sender_with(receiver.certificate().map(|certificate| certificate.der().clone()).into_iter().collect(), None)
}

fn sender_with(extra_roots: Vec<CertificateDer<'static>>, proxy: Option<SecretString>) -> Sender {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let allowed = ["127.0.0.0/8", "::1/128"].map(|network| AllowRule::Network(network.parse().expect("a network")));
    let rules = EgressRules::new(HttpUrls::Allowed, allowed.to_vec());
    let connect_timeout = Duration::from_millis(500);
    Sender::new(SenderSettings { rules, connect_timeout, extra_roots, proxy }).expect("a sender")
}

fn request(url: &str) -> Request {
    Request { url: url.to_owned().into(), headers: http::HeaderMap::new(), body: b"{}".to_vec().into() }
}

async fn send(url: &str) -> SendResult {
    sender().send(request(url), Duration::from_millis(700), &Span::none()).await.0
}

/// Serves one connection: reads the request, then runs `answer`. Returns the port.
async fn start_server<F, Fut>(answer: F) -> u16
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        answer(stream).await;
    });
    port
}

async fn send_and_answer(answer: &'static [u8]) -> SendResult {
    let port = start_server(async move |mut stream| stream.write_all(answer).await.expect("written")).await;
    send(&format!("http://127.0.0.1:{port}/")).await
}

#[tokio::test]
async fn status_retry_after_and_body_of_an_answer_are_read() {
    let send_result = send_and_answer(b"HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy").await;
    let retry_after = Some("7".to_owned());
    assert_eq!(send_result, SendResult::Response { status: 503, retry_after, body: b"busy".to_vec() });
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let send_result =
        send_and_answer(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(send_result.cause(), Cause::Status3xx);
}

#[tokio::test]
async fn a_status_counts_even_if_the_body_is_cut_or_never_ends() {
    let send_result = send_and_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    assert_eq!(send_result.cause(), Cause::Ok);
    let (closed, is_closed) = tokio::sync::oneshot::channel();
    let endless = start_server(async move |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
        let _ = closed.send(());
    })
    .await;
    let sender = sender();
    let span = Span::none();
    let sending = sender.send(request(&format!("http://127.0.0.1:{endless}/")), Duration::from_secs(60), &span);
    // Half of the request's own timeout: the sender did not read until then.
    let (send_result, _) = tokio::time::timeout(Duration::from_secs(30), sending).await.expect("a response");
    let SendResult::Response { status: 200, body, .. } = send_result else {
        panic!("no response: {send_result:?}");
    };
    assert_eq!(body.len(), RESPONSE_BYTES_KEPT);
    tokio::time::timeout(Duration::from_secs(30), is_closed).await.expect("a closed connection").expect("no panic");
}

#[tokio::test]
async fn each_failure_has_its_cause() {
    let closing = start_server(async move |stream| drop(stream)).await;
    let silent = start_server(async move |stream| {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let plain = start_server(async move |mut stream| stream.write_all(b"no TLS here").await.expect("written")).await;
    for (url, cause) in [
        (format!("http://127.0.0.1:{closing}/"), Cause::Reset),
        (format!("http://127.0.0.1:{silent}/"), Cause::Timeout),
        (format!("http://127.0.0.1:{unused}/"), Cause::Connect),
        (format!("https://127.0.0.1:{plain}/"), Cause::Tls),
        ("http://no-such-host.invalid/".to_owned(), Cause::Dns),
        ("http://10.0.0.1/".to_owned(), Cause::ForbiddenAddress),
        ("http://[fd00::1]/".to_owned(), Cause::ForbiddenAddress),
    ] {
        let send_result = send(&url).await;
        assert_eq!(send_result.cause(), cause, "{url}: {send_result:?}");
    }
    assert_eq!(send_and_answer(b"SSH-2.0-OpenSSH\r\n\r\n").await.cause(), Cause::Protocol);
}

#[tokio::test]
async fn failures_of_the_egress_proxy_are_told_from_those_of_the_endpoint() {
    let answering = async |answer: &'static [u8]| {
        start_server(async move |mut stream| stream.write_all(answer).await.expect("written")).await
    };
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let needs_credentials = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    let unreachable = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    for (proxy, url, blame) in [
        (unused, "https://hooks.invalid/", Blame::Proxy),
        (unused, "http://hooks.invalid/", Blame::Proxy),
        (answering(needs_credentials).await, "https://hooks.invalid/", Blame::Proxy),
        (answering(needs_credentials).await, "http://hooks.invalid/", Blame::Proxy),
        (answering(b"").await, "https://hooks.invalid/", Blame::Proxy),
        (answering(unreachable).await, "https://hooks.invalid/", Blame::Tcp),
        (answering(unreachable).await, "http://hooks.invalid/", Blame::Server),
    ] {
        let sender = sender_with(Vec::new(), Some(format!("http://127.0.0.1:{proxy}").into()));
        let (send_result, _) = sender.send(request(url), Duration::from_secs(5), &Span::none()).await;
        assert_eq!(send_result.blame(), Some(blame), "{url} through {proxy}: {send_result:?}");
    }
}

#[tokio::test]
async fn a_name_with_a_forbidden_address_is_forbidden() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = SenderSettings {
        rules: EgressRules::new(HttpUrls::Allowed, Vec::new()),
        connect_timeout: Duration::from_secs(1),
        proxy: None,
        extra_roots: Vec::new(),
    };
    let sender = Sender::new(settings).expect("a sender");
    let (send_result, _) = sender.send(request("http://localhost:1/"), Duration::from_secs(1), &Span::none()).await;
    assert_eq!(send_result.cause(), Cause::ForbiddenAddress, "{send_result:?}");
}

#[tokio::test]
async fn a_timeout_names_the_phase_of_the_request() {
    // The system accepts connections, but no process answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("an address");
    let answer_timeout = send(&format!("http://{silent}/")).await;
    assert_eq!(answer_timeout, SendResult::TimedOut { phase: RequestPhase::AwaitingResponse });
    assert_eq!(answer_timeout.blame().map(Blame::as_str), Some("timeout_answering"));
    // Shorter than the connect timeout.
    let timeout = Duration::from_millis(200);
    let (connecting, _) = sender().send(request(&format!("https://{silent}/")), timeout, &Span::none()).await;
    assert_eq!(connecting, SendResult::TimedOut { phase: RequestPhase::Connecting });
    assert!(connecting.error().is_some_and(|error| error.contains("connection was still being made")));
}

#[tokio::test]
async fn a_connect_timeout_is_blamed_on_connecting() {
    // The connect timeout is shorter than the timeout of the request.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let send_result = send(&format!("https://{}/", silent.local_addr().expect("an address"))).await;
    assert_eq!(send_result.cause(), Cause::Connect, "{send_result:?}");
    assert_eq!(send_result.blame().map(Blame::as_str), Some("timeout_connecting"), "{send_result:?}");
}

#[tokio::test]
async fn the_parts_of_a_request_are_measured() {
    let answer_each = async |mut stream: TcpStream| {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let mut buffer = [0; 4096];
        stream.write_all(answer).await.expect("a response");
        while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
            stream.write_all(answer).await.expect("a response");
        }
    };
    let url = format!("http://localhost:{}/", start_server(answer_each).await);
    let sender = sender();
    let (send_result, first) = sender.send(request(&url), Duration::from_secs(5), &Span::none()).await;
    assert_eq!(send_result.cause(), Cause::Ok, "{send_result:?}");
    assert!(first.resolve.is_some() && first.connect.is_some(), "{first:?}");
    assert!(first.first_byte.is_some(), "{first:?}");
    let (_, second) = sender.send(request(&url), Duration::from_secs(5), &Span::none()).await;
    assert_eq!((second.resolve, second.connect), (None, None), "the connection is reused");
    assert!(second.first_byte.is_some(), "{second:?}");
}

#[tokio::test]
async fn an_error_does_not_contain_the_url() {
    let SendResult::Failure { error, .. } = send("http://127.0.0.1:1/path?token=secret").await else {
        panic!("a response");
    };
    assert!(!error.contains("secret"), "{error}");
}
