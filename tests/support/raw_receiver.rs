//! A receiver without an HTTP library: it can answer with any bytes and close at any point.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, Clone)]
pub(crate) struct RawRequest {
    /// The number of the connection, from 0.
    pub(crate) connection: usize,
    /// The number of earlier requests on the same connection.
    pub(crate) earlier: usize,
    /// The request line and the headers.
    pub(crate) head: String,
    /// Empty if the script answered before the body was read.
    pub(crate) body: Vec<u8>,
}

impl RawRequest {
    /// The value of a header; `name` is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(given, _)| *given == name)
            .map(|(_, value)| value)
    }

    fn content_length(&self) -> usize {
        self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default()
    }
}

/// How the receiver handles a request.
#[derive(Debug, Clone)]
pub(crate) struct RawAnswer {
    body: ReadBody,
    delay: Duration,
    answer: Vec<u8>,
    after: AfterAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadBody {
    BeforeAnswer,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterAnswer {
    /// Waits for another request on the connection.
    KeepAlive,
    /// FIN; over TLS after a close_notify.
    Close,
    /// FIN without a close_notify.
    CloseAbruptly,
    /// RST.
    Reset,
    /// Writes nothing more, and keeps the connection open.
    Hang,
}

impl RawAnswer {
    /// Reads the request, writes these bytes, and keeps the connection open.
    pub(crate) fn answer(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            body: ReadBody::BeforeAnswer,
            delay: Duration::ZERO,
            answer: bytes.into(),
            after: AfterAnswer::KeepAlive,
        }
    }

    /// 200 without a body.
    pub(crate) fn ok() -> Self {
        Self::answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    }

    /// Reads the request and closes without an answer.
    pub(crate) fn close() -> Self {
        Self::answer("").then_close()
    }

    /// Reads the request and resets the connection.
    pub(crate) fn reset() -> Self {
        Self { after: AfterAnswer::Reset, ..Self::answer("") }
    }

    /// Closes after the answer.
    pub(crate) fn then_close(self) -> Self {
        Self { after: AfterAnswer::Close, ..self }
    }

    /// Closes after the answer, over TLS without a close_notify.
    pub(crate) fn then_close_abruptly(self) -> Self {
        Self { after: AfterAnswer::CloseAbruptly, ..self }
    }

    /// Keeps the connection open after the answer, without reading or writing.
    pub(crate) fn then_hang(self) -> Self {
        Self { after: AfterAnswer::Hang, ..self }
    }

    /// Delays all of this.
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Answers without reading the body.
    pub(crate) fn without_reading_body(self) -> Self {
        Self { body: ReadBody::Never, ..self }
    }
}

type Script = dyn Fn(&RawRequest) -> RawAnswer + Send + Sync;

/// A receiver on a free port of 127.0.0.1.
pub(crate) struct RawReceiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<RawRequest>>>,
    /// The certificate that a sender must trust. `None` without TLS.
    certificate: Option<rcgen::Certificate>,
    server: JoinHandle<()>,
}

impl RawReceiver {
    /// Starts a receiver that calls `script` for each request.
    pub(crate) async fn start(script: impl Fn(&RawRequest) -> RawAnswer + Send + Sync + 'static) -> Self {
        Self::serve(Box::new(script), None).await
    }

    /// Starts a receiver with TLS, as `localhost`.
    pub(crate) async fn start_tls(script: impl Fn(&RawRequest) -> RawAnswer + Send + Sync + 'static) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .expect("a TLS configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve(Box::new(script), Some((acceptor, certified.cert))).await
    }

    /// Starts two receivers that handle every request in the same way, the second with TLS.
    pub(crate) async fn start_plain_and_tls(act: &RawAnswer) -> [Self; 2] {
        let (plain, tls) = (act.clone(), act.clone());
        [Self::start(move |_| plain.clone()).await, Self::start_tls(move |_| tls.clone()).await]
    }

    async fn serve(script: Box<Script>, tls: Option<(TlsAcceptor, rcgen::Certificate)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the receiver's address");
        let requests: Arc<Mutex<Vec<RawRequest>>> = Arc::default();
        let (acceptor, certificate) = tls.unzip();
        let (script, seen): (Arc<Script>, _) = (script.into(), Arc::clone(&requests));
        let server = tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("the receiver accepts");
                let (script, seen, acceptor) = (Arc::clone(&script), Arc::clone(&seen), acceptor.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    // An error of a connection does not end the receiver.
                    let _ = match acceptor {
                        None => serve_plain(stream, connection, &*script, &seen).await,
                        Some(acceptor) => serve_tls(&acceptor, stream, connection, &*script, &seen).await,
                    };
                });
            }
        });
        Self { address, requests, certificate, server }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        match self.certificate {
            None => format!("http://{}{path}", self.address),
            Some(_) => format!("https://localhost:{}{path}", self.address.port()),
        }
    }

    /// The certificate that a sender must trust, if the receiver uses TLS.
    pub(crate) fn certificate(&self) -> Option<&rcgen::Certificate> {
        self.certificate.as_ref()
    }

    pub(crate) fn requests(&self) -> Vec<RawRequest> {
        lock(&self.requests).clone()
    }

    /// The connection of each request, and the number of earlier requests on it, in order of arrival.
    pub(crate) fn request_positions(&self) -> Vec<(usize, usize)> {
        lock(&self.requests).iter().map(|request| (request.connection, request.earlier)).collect()
    }

    /// One line for each request, for panic messages.
    pub(crate) fn describe_requests(&self) -> String {
        self.requests().iter().fold(String::new(), |mut text, request| {
            let line = request.head.lines().next().unwrap_or_default();
            let _ = writeln!(text, "connection {}, request {}: {line}", request.connection, request.earlier);
            text
        })
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(requests: &Mutex<Vec<RawRequest>>) -> MutexGuard<'_, Vec<RawRequest>> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_plain(
    mut stream: TcpStream,
    connection: usize,
    script: &Script,
    seen: &Mutex<Vec<RawRequest>>,
) -> io::Result<()> {
    match serve_connection(&mut stream, connection, script, seen).await? {
        AfterAnswer::Reset => stream.set_zero_linger(),
        _ => stream.shutdown().await,
    }
}

async fn serve_tls(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    connection: usize,
    script: &Script,
    seen: &Mutex<Vec<RawRequest>>,
) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    match serve_connection(&mut stream, connection, script, seen).await? {
        AfterAnswer::Reset => stream.get_ref().0.set_zero_linger(),
        AfterAnswer::CloseAbruptly => Ok(()),
        _ => stream.shutdown().await,
    }
}

/// Handles requests until an answer ends the connection.
async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    connection: usize,
    script: &Script,
    seen: &Mutex<Vec<RawRequest>>,
) -> io::Result<AfterAnswer> {
    for earlier in 0.. {
        let Some(head) = read_head(stream).await? else { break };
        let mut request = RawRequest { connection, earlier, head, body: Vec::new() };
        let act = script(&request);
        if act.body == ReadBody::BeforeAnswer {
            request.body = vec![0; request.content_length()];
            stream.read_exact(&mut request.body).await?;
        }
        lock(seen).push(request);
        tokio::time::sleep(act.delay).await;
        stream.write_all(&act.answer).await?;
        stream.flush().await?;
        match act.after {
            AfterAnswer::KeepAlive => {}
            AfterAnswer::Hang => std::future::pending().await,
            then => return Ok(then),
        }
    }
    Ok(AfterAnswer::Close)
}

/// The request line and headers. `None` if the sender has closed.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}
