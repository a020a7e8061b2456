//! Sends requests directly to receivers, over HTTP/1.1. A connection carries one request at a time. It returns to the
//! pool only if the response body is complete and nothing follows it.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, header};
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};
use waypost_core::outcome::{Cause, SendResult};
use waypost_core::request::RequestBody;

use super::dial::{Dialer, is_tls_error};
use super::pool::{Connection, Pool};
use super::response::{
    BodyReader, Framing, HeadReader, NotHttp, RESPONSE_BYTES_KEPT, RESPONSE_BYTES_READ, ResponseHead, Reuse,
};
use super::socket::{Exchange, ReadError, Socket};
use super::timing::{RequestClock, time_connect};

/// Most responses fit. The buffer is cleared for each request.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// If the headers do not say how the body ends, the body is read for this time.
const UNCLEAR_BODY_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct DirectClient {
    dialer: Dialer,
    pool: Arc<Pool>,
    connect_timeout: Duration,
}

/// Why an exchange has no response.
enum NoResponse {
    /// The connection ended before the first byte.
    ClosedBeforeResponse(io::Error),
    /// The connection ended before the status line was complete.
    ClosedWithinResponse(io::Error),
    NotHttp(NotHttp),
    TimedOut,
}

impl DirectClient {
    pub(super) fn new(dialer: Dialer, connect_timeout: Duration) -> Self {
        Self { dialer, pool: Arc::default(), connect_timeout }
    }

    /// Posts a body. If a reused connection ends before the first byte of a response, the receiver has most likely
    /// closed it while it was idle. The request is then sent again, on a new connection.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: RequestBody,
        deadline: Instant,
        clock: &RequestClock,
    ) -> SendResult {
        let [own, shared] = body.into_parts();
        let mut head_and_own = encode_head(&Method::POST, url, headers, own.len() + shared.len());
        head_and_own.extend_from_slice(&own);
        let request = [head_and_own.as_slice(), &shared];
        if let Some(connection) = self.pool.take(origin(url)) {
            match self.exchange(connection, url, request, deadline, clock).await {
                Err(NoResponse::ClosedBeforeResponse(_)) => clock.record_resend(),
                result => return result.unwrap_or_else(|no_answer| no_answer.into_send_result(clock)),
            }
        }
        match Box::pin(self.dial(url, deadline, clock)).await {
            Ok(stream) => {
                let result = self.exchange(Connection::new(stream, deadline), url, request, deadline, clock).await;
                result.unwrap_or_else(|no_answer| no_answer.into_send_result(clock))
            }
            Err(send_result) => send_result,
        }
    }

    /// Sends a HEAD request on a new connection.
    pub(super) async fn head(&self, url: &Url, deadline: Instant, clock: &RequestClock) -> SendResult {
        let request = encode_head(&Method::HEAD, url, &HeaderMap::new(), 0);
        let Connection { mut stream, mut timer, .. } = match self.dial(url, deadline, clock).await {
            Ok(stream) => Connection::new(stream, deadline),
            Err(send_result) => return send_result,
        };
        let mut exchange = Exchange::begin(&mut stream, &mut timer, [&request, &[]]);
        match read_head(&mut exchange, &mut vec![0; READ_BUFFER_BYTES], deadline).await {
            Ok((ResponseHead { status, retry_after, .. }, _)) => {
                SendResult::Response { status, retry_after, body: Vec::new() }
            }
            Err(no_answer) => no_answer.into_send_result(clock),
        }
    }

    async fn dial(&self, url: &Url, deadline: Instant, clock: &RequestClock) -> Result<Socket, SendResult> {
        let limit = deadline.min(Instant::now() + self.connect_timeout);
        match timeout_at(limit, clock.time(time_connect(self.dialer.dial(url)))).await {
            Ok(result) => result.map_err(|error| SendResult::failure(error.cause(), error.to_string())),
            Err(_) if limit == deadline => Err(SendResult::TimedOut { phase: clock.phase() }),
            Err(_) => {
                let error = "no connection within endpoint.connectTimeout".to_owned();
                Err(SendResult::NotConnected { phase: clock.phase(), error })
            }
        }
    }

    /// Writes a request and reads its response. After a status, errors of the body are ignored.
    async fn exchange(
        &self,
        mut connection: Connection,
        url: &Url,
        request: [&[u8]; 2],
        deadline: Instant,
        clock: &RequestClock,
    ) -> Result<SendResult, NoResponse> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let mut exchange = Exchange::begin(&mut connection.stream, &mut connection.timer, request);
        let (head, body_start) = read_head(&mut exchange, &mut buffer, deadline).await?;
        clock.record_first_byte();

        let mut body = BodyReader::new(head.framing, RESPONSE_BYTES_KEPT);
        let mut read = body_start.len();
        let mut surplus = read - body.push(&buffer[body_start]);
        let body_deadline = match head.framing {
            Framing::Unclear => deadline.min(Instant::now() + UNCLEAR_BODY_TIMEOUT),
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => deadline,
        };
        while !body.is_over()
            && read < RESPONSE_BYTES_READ
            && let Ok(bytes @ 1..) = exchange.read(&mut buffer, body_deadline).await
        {
            read += bytes;
            surplus += bytes - body.push(&buffer[..bytes]);
        }
        if head.reuse == Reuse::Allowed && body.is_complete() && surplus == 0 && exchange.is_sent() {
            self.pool.put(origin(url), connection);
        }
        Ok(SendResult::Response { status: head.status, retry_after: head.retry_after, body: body.into_kept() })
    }
}

/// Reads a response up to its body. Returns the head, and the range of `buffer` with the first bytes after it.
async fn read_head(
    exchange: &mut Exchange<'_>,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<(ResponseHead, Range<usize>), NoResponse> {
    let mut reader = HeadReader::default();
    let mut no_answer: fn(io::Error) -> NoResponse = NoResponse::ClosedBeforeResponse;
    let end = loop {
        let error = match exchange.read(buffer, deadline).await {
            Ok(bytes @ 1..) => {
                no_answer = NoResponse::ClosedWithinResponse;
                match reader.push(&buffer[..bytes]) {
                    Ok(Some((head, used))) => return Ok((head, used..bytes)),
                    Ok(None) => continue,
                    Err(error) => return Err(NoResponse::NotHttp(error)),
                }
            }
            Ok(0) => no_answer(io::ErrorKind::UnexpectedEof.into()),
            Err(ReadError::Failed(error)) => no_answer(error),
            Err(ReadError::TimedOut) => NoResponse::TimedOut,
        };
        break error;
    };
    match reader.finish() {
        Some(head) => Ok((head, 0..0)),
        None => Err(end),
    }
}

impl NoResponse {
    fn into_send_result(self, clock: &RequestClock) -> SendResult {
        match self {
            Self::ClosedBeforeResponse(error) | Self::ClosedWithinResponse(error) if is_tls_error(&error) => {
                SendResult::failure(Cause::Tls, format!("TLS: {error}"))
            }
            Self::ClosedBeforeResponse(error) => SendResult::failure(
                Cause::Reset,
                format!("the connection ended before a response: {}", describe(&error)),
            ),
            Self::ClosedWithinResponse(error) => SendResult::failure(
                Cause::Reset,
                format!("the connection ended during the response: {}", describe(&error)),
            ),
            Self::NotHttp(error) => SendResult::failure(Cause::Protocol, error.to_string()),
            Self::TimedOut => SendResult::TimedOut { phase: clock.phase() },
        }
    }
}

/// TLS reports an error if the receiver closes without a TLS close_notify. That is described like any other close.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the receiver closed it".to_owned(),
        _ => error.to_string(),
    }
}

/// The part of the URL with scheme, host and port, which is the key of the pool.
fn origin(url: &Url) -> &str {
    &url[..Position::BeforePath]
}

/// Encodes a request up to its body. The buffer has room for a small body.
fn encode_head(method: &Method, url: &Url, headers: &HeaderMap, body_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let host = &url[Position::BeforeHost..Position::AfterPort];
    // Writing to a vector does not fail.
    let _ = write!(bytes, "{method} {target} HTTP/1.1\r\n");
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !headers.contains_key(header::ACCEPT) {
        bytes.extend_from_slice(b"accept: */*\r\n");
    }
    let _ = write!(bytes, "host: {host}\r\n");
    if method == Method::POST {
        let _ = write!(bytes, "content-length: {body_bytes}\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_request_is_encoded_as_http_1_1() {
        let url = Url::parse("https://example.com:443/hooks/ä?q=1 2#part").expect("a URL");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().expect("a value"))]);
        let head = encode_head(&Method::POST, &url, &headers, 2);
        let expected = "POST /hooks/%C3%A4?q=1%202 HTTP/1.1\r\ncontent-type: application/json\r\n\
            accept: */*\r\nhost: example.com\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&head), expected);
        let url = Url::parse("http://[::1]:8080").expect("a URL");
        let head = encode_head(&Method::HEAD, &url, &HeaderMap::new(), 0);
        assert_eq!(String::from_utf8_lossy(&head), "HEAD / HTTP/1.1\r\naccept: */*\r\nhost: [::1]:8080\r\n\r\n");
    }
}
