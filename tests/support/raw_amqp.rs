//! A minimal AMQP 0-9-1 publisher that can send any bytes as message properties. lapin sends only UTF-8.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use super::broker::{Broker, run_blocking};
use super::wait::DEFAULT_TIMEOUT;

const METHOD_FRAME: u8 = 1;
const HEADER_FRAME: u8 = 2;
const BODY_FRAME: u8 = 3;
const FRAME_END: u8 = 0xCE;

/// A property that is a short string, with its bit in the flags of a content header.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TextProperty {
    ContentType = 15,
    ContentEncoding = 14,
    CorrelationId = 10,
    ReplyTo = 9,
    Expiration = 8,
    MessageId = 7,
    Type = 5,
    AppId = 3,
    ClusterId = 2,
}

const HEADERS_BIT: u16 = 13;
const DELIVERY_MODE_BIT: u16 = 12;

/// A persistent message with any bytes.
#[derive(Debug, Clone)]
pub(crate) struct RawMessage {
    routing_key: Vec<u8>,
    body: Vec<u8>,
    /// Flag bit and value of each property, the highest bit first.
    properties: Vec<(u16, Vec<u8>)>,
}

impl RawMessage {
    pub(crate) fn new(routing_key: &[u8], body: impl ToString) -> Self {
        let properties = vec![(DELIVERY_MODE_BIT, vec![2])];
        Self { routing_key: routing_key.to_vec(), body: body.to_string().into_bytes(), properties }
    }

    pub(crate) fn text(mut self, property: TextProperty, bytes: &[u8]) -> Self {
        self.properties.push((property as u16, short_string(bytes)));
        self
    }

    /// Sets the headers to the bytes of a table: names as [`short_string`], and typed values.
    pub(crate) fn headers(mut self, table: &[u8]) -> Self {
        self.properties.push((HEADERS_BIT, long_bytes(table)));
        self
    }

    fn content_header(&self) -> Vec<u8> {
        let mut properties = self.properties.clone();
        properties.sort_by_key(|(bit, _)| std::cmp::Reverse(*bit));
        let flags = properties.iter().fold(0_u16, |flags, (bit, _)| flags | 1 << bit);
        let values: Vec<u8> = properties.into_iter().flat_map(|(_, value)| value).collect();
        let size = (self.body.len() as u64).to_be_bytes();
        [&[0, 60, 0, 0], size.as_slice(), &flags.to_be_bytes(), &values].concat()
    }
}

/// A string with a length prefix of one byte.
pub(crate) fn short_string(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("at most 255 bytes");
    [&[length], bytes].concat()
}

/// Bytes with a length prefix of four bytes.
pub(crate) fn long_bytes(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a length").to_be_bytes();
    [length.as_slice(), bytes].concat()
}

/// Nested arrays (`A`) or tables (`F`), as the value of a header.
pub(crate) fn nested(kind: u8, depth: usize) -> Vec<u8> {
    (0..depth).fold(b"V".to_vec(), |inner, _| {
        let content = if kind == b'F' { [short_string(b"k"), inner].concat() } else { inner };
        [vec![kind], long_bytes(&content)].concat()
    })
}

/// Publishes messages to an exchange, and waits until each is routed and confirmed.
pub(crate) async fn publish_raw(broker: &Broker, exchange: &[u8], messages: Vec<RawMessage>) {
    let (port, exchange) = (broker.port(), exchange.to_vec());
    run_blocking(move || {
        let mut session = Session::open(port);
        for message in &messages {
            session.publish(&exchange, message);
        }
    })
    .await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    Requeue,
    Remove,
}

/// Gets a message of a queue and rejects it, `count` times. The message may have any properties.
pub(crate) async fn reject_raw(broker: &Broker, queue: &str, count: usize, rejection: Rejection) {
    let (port, queue) = (broker.port(), short_string(queue.as_bytes()));
    run_blocking(move || {
        let mut session = Session::open(port);
        for _ in 0..count {
            let tag = session.get(&queue);
            let header = session.frame();
            let mut left = u64::from_be_bytes(header[4..12].try_into().expect("the body's size"));
            while left > 0 {
                left -= session.frame().len() as u64;
            }
            session.send_method(1, (60, 90), &[tag.as_slice(), &[u8::from(rejection == Rejection::Requeue)]].concat());
        }
        // The broker answers after it has processed everything before it on the channel.
        session.call((20, 40), &[0, 200, 0, 0, 0, 0, 0], (20, 41));
    })
    .await;
}

/// A connection with one channel in confirm mode. Every method panics if the broker refuses.
struct Session {
    stream: TcpStream,
}

impl Session {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection to the broker");
        stream.set_read_timeout(Some(DEFAULT_TIMEOUT)).expect("a read timeout");
        let mut session = Self { stream };
        session.stream.write_all(b"AMQP\0\0\x09\x01").expect("the protocol header is sent");
        session.expect((10, 10));
        let login =
            [vec![0; 4], short_string(b"PLAIN"), long_bytes(b"\0guest\0guest"), short_string(b"en_US")].concat();
        session.send_method(0, (10, 11), &login);
        let tune = session.expect((10, 30));
        // No heartbeat, because the session lasts only seconds.
        session.send_method(0, (10, 31), &[&tune[..6], &[0, 0]].concat());
        session.send_method(0, (10, 40), &[short_string(b"/"), vec![0, 0]].concat());
        session.expect((10, 41));
        session.call((20, 10), &[0], (20, 11));
        session.call((85, 10), &[0], (85, 11));
        session
    }

    fn publish(&mut self, exchange: &[u8], message: &RawMessage) {
        const MANDATORY: u8 = 1;
        let to = [vec![0, 0], short_string(exchange), short_string(&message.routing_key), vec![MANDATORY]].concat();
        self.send_method(1, (60, 40), &to);
        self.send_frame(HEADER_FRAME, 1, &message.content_header());
        for piece in message.body.chunks(100_000) {
            self.send_frame(BODY_FRAME, 1, piece);
        }
        self.expect((60, 80));
    }

    /// The delivery tag of the next message of a queue. The header and body follow.
    fn get(&mut self, queue: &[u8]) -> [u8; 8] {
        const GET_OK: [u8; 4] = [0, 60, 0, 71];
        let end = Instant::now() + DEFAULT_TIMEOUT;
        loop {
            self.send_method(1, (60, 70), &[&[0, 0], queue, &[0]].concat());
            let answer = self.frame();
            if let Some(arguments) = answer.strip_prefix(&GET_OK) {
                return arguments[..8].try_into().expect("a tag");
            }
            assert!(Instant::now() < end, "the queue stays empty");
        }
    }

    fn call(&mut self, method: (u16, u16), arguments: &[u8], answer: (u16, u16)) {
        self.send_method(1, method, arguments);
        self.expect(answer);
    }

    fn send_method(&mut self, channel: u16, (class, method): (u16, u16), arguments: &[u8]) {
        self.send_frame(
            METHOD_FRAME,
            channel,
            &[&class.to_be_bytes(), method.to_be_bytes().as_slice(), arguments].concat(),
        );
    }

    fn send_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let frame = [&[kind], channel.to_be_bytes().as_slice(), &long_bytes(payload), &[FRAME_END]].concat();
        self.stream.write_all(&frame).expect("the frame is sent");
    }

    fn frame(&mut self) -> Vec<u8> {
        let mut start = [0; 7];
        self.stream.read_exact(&mut start).expect("a frame");
        let size = u32::from_be_bytes([start[3], start[4], start[5], start[6]]) as usize;
        let mut payload = vec![0; size + 1];
        self.stream.read_exact(&mut payload).expect("a frame");
        payload.pop();
        payload
    }

    /// The arguments of the next method. Panics if it is another method.
    fn expect(&mut self, (class, method): (u16, u16)) -> Vec<u8> {
        let mut payload = self.frame();
        let expected = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert!(payload.starts_with(&expected), "expected {class}.{method}: {}", String::from_utf8_lossy(&payload));
        payload.split_off(4)
    }
}
