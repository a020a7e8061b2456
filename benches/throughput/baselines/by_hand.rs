//! HTTP/1.1 by hand: one write and one read for each request. It shows how fast a client could be. Of a response only
//! the end of the head and the content-length are read, so it is no client for unknown servers.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use url::{Position, Url};

use super::Finished;

/// The number of sockets of all endpoints together. Each endpoint has at least one.
const SOCKETS: usize = 64;

/// The sockets of an endpoint. Each has a queue of requests.
pub(super) struct Sockets {
    queues: Vec<mpsc::UnboundedSender<QueuedRequest>>,
    next: AtomicUsize,
}

struct QueuedRequest {
    body: Vec<u8>,
    tag: u64,
}

impl Sockets {
    /// Opens the endpoint's share of all sockets.
    pub(super) fn open(url: &Url, endpoints: usize, finished: &Finished) -> Self {
        let address = url[Position::BeforeHost..Position::AfterPort].to_owned();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: ",
            &url[Position::BeforePath..Position::AfterQuery]
        );
        let open = |_| {
            let (queue, requests) = mpsc::unbounded_channel();
            tokio::spawn(send_all(address.clone(), head.clone(), requests, finished.clone()));
            queue
        };
        Self { queues: (0..(SOCKETS / endpoints).max(1)).map(open).collect(), next: AtomicUsize::new(0) }
    }

    /// Sends a request on the next socket.
    pub(super) fn post(&self, body: Vec<u8>, tag: u64) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        let _ = self.queues[next].send(QueuedRequest { body, tag });
    }
}

/// Sends requests one after the other. Opens the socket again after an error.
async fn send_all(
    address: String,
    head: String,
    mut requests: mpsc::UnboundedReceiver<QueuedRequest>,
    finished: Finished,
) {
    let (mut request, mut response) = (Vec::with_capacity(1024), Vec::with_capacity(1024));
    let mut open = None;
    while let Some(QueuedRequest { body, tag }) = requests.recv().await {
        request.clear();
        // Writing to a vector does not fail.
        let _ = write!(request, "{head}{}\r\n\r\n", body.len());
        request.extend_from_slice(&body);
        let exchange = async {
            let mut stream = match open.take() {
                Some(stream) => stream,
                None => connect(&address).await?,
            };
            stream.write_all(&request).await?;
            read_response(&mut stream, &mut response).await?;
            io::Result::Ok(stream)
        };
        open = exchange.await.ok();
        let _ = finished.send(tag);
    }
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn read_response(stream: &mut TcpStream, response: &mut Vec<u8>) -> io::Result<()> {
    response.clear();
    loop {
        if stream.read_buf(response).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if response_length(response).is_some_and(|length| response.len() >= length) {
            return Ok(());
        }
    }
}

/// The length of a response with its body, once its head is complete.
fn response_length(response: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length: ";
    let head = response.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let value = response[..head].windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    let digits = response[value..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}
