//! Requests that go to the receiver itself, over HTTP/1.1. A connection is used for one request at a time, and only an exchange
//! that has ended as announced gives it to another.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, header};
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

use super::answer::{BodyReader, Framing, Head, HeadReader, NotHttp, Reuse};
use super::dial::{Dialer, is_of_tls};
use super::pool::{Connection, Pool};
use super::stream::{Exchange, Stream};
use super::timing::{Clock, connecting};
use super::{ANSWER_BYTES_KEPT, ANSWER_BYTES_READ, failure};
use crate::delivery::outcome::{Cause, Reply};
use crate::delivery::request::RequestBody;

/// An answer is read in pieces of at most this size.
const PIECE_BYTES: usize = 4 * 1024;

/// If the headers do not tell how the body ends, what comes within this time is read.
const UNCLEAR_BODY_WAIT: Duration = Duration::from_millis(500);

/// Sends requests to receivers.
pub(super) struct Direct {
    dialer: Dialer,
    pool: Arc<Pool>,
    connect_timeout: Duration,
}

/// No answer came of an exchange.
enum NoAnswer {
    /// The connection ended before the first byte.
    Silent(io::Error),
    /// The connection ended before the status line was complete.
    CutShort(io::Error),
    NotHttp(NotHttp),
    TimedOut,
}

impl Direct {
    pub(super) fn new(dialer: Dialer, connect_timeout: Duration) -> Self {
        Self { dialer, pool: Arc::default(), connect_timeout }
    }

    /// Posts a body. A kept connection that ends before the first byte of an answer was closed by the receiver meanwhile, most
    /// likely: the same request is sent once more, on a new connection.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: RequestBody,
        deadline: Instant,
        clock: &Clock,
    ) -> Reply {
        let [own, shared] = body.into_parts();
        let mut first = encode_head(&Method::POST, url, headers, own.len() + shared.len());
        first.extend_from_slice(&own);
        let request = [first.as_slice(), &shared];
        if let Some(connection) = self.pool.take(origin(url)) {
            match self.exchange(connection, url, request, deadline, clock).await {
                Err(NoAnswer::Silent(_)) => clock.resent(),
                other => return other.unwrap_or_else(|none| none.reply(clock)),
            }
        }
        match self.dial(url, deadline, clock).await {
            Ok(stream) => {
                let answer = self.exchange(Connection::new(stream), url, request, deadline, clock).await;
                answer.unwrap_or_else(|none| none.reply(clock))
            }
            Err(reply) => reply,
        }
    }

    /// Asks for the head of a URL, on a connection of its own.
    pub(super) async fn head(&self, url: &Url, deadline: Instant, clock: &Clock) -> Reply {
        let request = encode_head(&Method::HEAD, url, &HeaderMap::new(), 0);
        let mut stream = match self.dial(url, deadline, clock).await {
            Ok(stream) => stream,
            Err(reply) => return reply,
        };
        match read_head(&mut Exchange::begin(&mut stream, [&request, &[]]), &mut vec![0; PIECE_BYTES], deadline).await {
            Ok((Head { status, retry_after, .. }, _)) => Reply::Answer { status, retry_after, body: Vec::new() },
            Err(none) => none.reply(clock),
        }
    }

    async fn dial(&self, url: &Url, deadline: Instant, clock: &Clock) -> Result<Stream, Reply> {
        let limit = deadline.min(Instant::now() + self.connect_timeout);
        match timeout_at(limit, connecting(self.dialer.dial(url))).await {
            Ok(dialled) => dialled.map_err(|error| failure(error.cause(), error.to_string())),
            Err(_) if limit == deadline => Err(Reply::TimedOut { phase: clock.phase() }),
            Err(_) => {
                let error = "no connection within endpoint.connectTimeout".to_owned();
                Err(Reply::NotConnected { phase: clock.phase(), error })
            }
        }
    }

    /// Writes a request and reads its answer. Once there is a status it counts, whatever becomes of the body.
    async fn exchange(
        &self,
        mut connection: Connection,
        url: &Url,
        request: [&[u8]; 2],
        deadline: Instant,
        clock: &Clock,
    ) -> Result<Reply, NoAnswer> {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut exchange = Exchange::begin(&mut connection.stream, request);
        let (head, behind) = read_head(&mut exchange, &mut buffer, deadline).await?;
        clock.answered();

        let mut body = BodyReader::new(head.framing, ANSWER_BYTES_KEPT);
        let mut read = behind.len();
        let mut surplus = read - body.push(&buffer[behind]);
        let body_deadline = match head.framing {
            Framing::Unclear => deadline.min(Instant::now() + UNCLEAR_BODY_WAIT),
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => deadline,
        };
        while !body.is_over()
            && read < ANSWER_BYTES_READ
            && let Ok(Ok(bytes @ 1..)) = timeout_at(body_deadline, exchange.read(&mut buffer)).await
        {
            read += bytes;
            surplus += bytes - body.push(&buffer[..bytes]);
        }
        if head.reuse == Reuse::Allowed && body.is_complete() && surplus == 0 && exchange.is_sent() {
            self.pool.put(origin(url), connection);
        }
        Ok(Reply::Answer { status: head.status, retry_after: head.retry_after, body: body.into_kept() })
    }
}

/// Reads an answer up to its body. Returns the head, and where in `buffer` the first bytes behind it are.
async fn read_head(
    exchange: &mut Exchange<'_>,
    buffer: &mut [u8],
    deadline: Instant,
) -> Result<(Head, Range<usize>), NoAnswer> {
    let mut reader = HeadReader::default();
    let mut no_answer: fn(io::Error) -> NoAnswer = NoAnswer::Silent;
    let ended = loop {
        let error = match timeout_at(deadline, exchange.read(buffer)).await {
            Ok(Ok(bytes @ 1..)) => {
                no_answer = NoAnswer::CutShort;
                match reader.push(&buffer[..bytes]) {
                    Ok(Some((head, used))) => return Ok((head, used..bytes)),
                    Ok(None) => continue,
                    Err(error) => return Err(NoAnswer::NotHttp(error)),
                }
            }
            Ok(Ok(0)) => no_answer(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => no_answer(error),
            Err(_) => NoAnswer::TimedOut,
        };
        break error;
    };
    match reader.finish() {
        Some(head) => Ok((head, 0..0)),
        None => Err(ended),
    }
}

impl NoAnswer {
    fn reply(self, clock: &Clock) -> Reply {
        match self {
            Self::Silent(error) | Self::CutShort(error) if is_of_tls(&error) => {
                failure(Cause::Tls, format!("TLS: {error}"))
            }
            Self::Silent(error) => {
                failure(Cause::Reset, format!("the connection ended before an answer: {}", describe(&error)))
            }
            Self::CutShort(error) => {
                failure(Cause::Reset, format!("the connection ended within the answer: {}", describe(&error)))
            }
            Self::NotHttp(error) => failure(Cause::Protocol, error.to_string()),
            Self::TimedOut => Reply::TimedOut { phase: clock.phase() },
        }
    }
}

/// An end without an error is the receiver's, whatever TLS thinks of its manners.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the receiver closed it".to_owned(),
        _ => error.to_string(),
    }
}

/// Scheme, host and port, as the URL has them.
fn origin(url: &Url) -> &str {
    &url[..Position::BeforePath]
}

/// A request up to its body, with room for a small one.
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
    fn a_request_is_written_as_http() {
        let url = Url::parse("https://example.com:443/hooks/ä?q=1 2#part").expect("a URL");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().expect("a value"))]);
        let written = encode_head(&Method::POST, &url, &headers, 2);
        let expected = "POST /hooks/%C3%A4?q=1%202 HTTP/1.1\r\ncontent-type: application/json\r\n\
            accept: */*\r\nhost: example.com\r\ncontent-length: 2\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&written), expected);
        let url = Url::parse("http://[::1]:8080").expect("a URL");
        let written = encode_head(&Method::HEAD, &url, &HeaderMap::new(), 0);
        assert_eq!(String::from_utf8_lossy(&written), "HEAD / HTTP/1.1\r\naccept: */*\r\nhost: [::1]:8080\r\n\r\n");
    }
}
