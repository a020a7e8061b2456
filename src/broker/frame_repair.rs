//! Checks one AMQP frame, and rewrites it if lapin could not read it.
//!
//! lapin parses every short string as UTF-8 and every table recursively. RabbitMQ checks neither, so one message of a
//! stranger would end the connection, again after each reconnect. Also, lapin refuses a frame above the size that was
//! agreed, and RabbitMQ exceeds it when it adds headers of its own. A rewritten frame keeps what Waypost reads.

use std::str::Utf8Chunk;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::wire_reader::WireReader;

/// Tables and arrays within each other, at most. 2,000 of them overflow the stack of lapin's thread.
const MAX_DEPTH: usize = 16;

/// A header frame's payload is passed on as it is up to this size, in bytes: the smallest limit that two peers can agree
/// on is 4096 for the whole frame (AMQP 0-9-1, 4.2.3).
const MAX_HEADER_BYTES: usize = 4096 - 8;

/// Headers of a rewritten frame, in bytes at most. With the identity, the frame stays below [`MAX_HEADER_BYTES`].
const MAX_KEPT_BYTES: usize = 3072;

/// The longest short string, in bytes.
const MAX_SHORT_STRING: usize = 255;

/// The headers that Waypost reads: all others are left out of a rewritten frame.
const KEPT_HEADERS: [&str; 11] = [
    "traceparent",
    "tracestate",
    super::REPLAY_OF,
    super::REPLAY_ID,
    "x-stream-offset",
    super::DELIVERY_COUNT,
    "x-death",
    "x-first-death-reason",
    "x-first-death-queue",
    "x-last-death-reason",
    "x-last-death-queue",
];

/// Bits of a content header's property flags (AMQP 0-9-1, 4.2.6.1), for the properties that are kept.
const HEADERS_FLAG: u16 = 1 << 13;
const MESSAGE_ID_FLAG: u16 = 1 << 7;

/// A property of the class `basic`.
#[derive(Clone, Copy, PartialEq)]
enum Property {
    ShortString,
    MessageId,
    Headers,
    /// Of this many bytes.
    Fixed(usize),
}

/// All properties in the order of their flags, from the highest bit down.
const PROPERTIES: [Property; 14] = [
    Property::ShortString,
    Property::ShortString,
    Property::Headers,
    Property::Fixed(1),
    Property::Fixed(1),
    Property::ShortString,
    Property::ShortString,
    Property::ShortString,
    Property::MessageId,
    Property::Fixed(8),
    Property::ShortString,
    Property::ShortString,
    Property::ShortString,
    Property::ShortString,
];

/// An argument of a method that the broker sends.
#[derive(Clone, Copy)]
enum Argument {
    ShortString,
    /// Of this many bytes.
    Fixed(usize),
}

/// The payload of a content header frame, rewritten; `None` if lapin can read it as it is.
pub(super) fn repair_header(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() <= MAX_HEADER_BYTES && is_clean_header(payload).unwrap_or(false) {
        return None;
    }
    let mut kept = RepairedTable::default();
    // What follows bytes that cannot be understood is left out.
    let _ = kept.read(payload);
    Some(kept.encode(payload))
}

/// The payload of a method frame with each byte replaced that is not UTF-8; `None` if it is clean. The length stays.
pub(super) fn repair_method(payload: &[u8]) -> Option<Vec<u8>> {
    let mut reader = WireReader(payload);
    let method = (reader.u16()?, reader.u16()?);
    let mut repaired = None;
    for argument in arguments(method) {
        match argument {
            Argument::Fixed(bytes) => drop(reader.take(*bytes)?),
            Argument::ShortString => {
                let text = reader.short_string()?;
                if std::str::from_utf8(text).is_err() {
                    let end = payload.len() - reader.0.len();
                    let whole: &mut Vec<u8> = repaired.get_or_insert_with(|| payload.to_vec());
                    whole[end - text.len()..end].copy_from_slice(&question_marks(text));
                }
            }
        }
    }
    repaired
}

/// The arguments of a method up to its last short string.
fn arguments(method: (u16, u16)) -> &'static [Argument] {
    use Argument::{Fixed, ShortString};
    match method {
        // connection.close, channel.close: code and text
        (10, 50) | (20, 40) => &[Fixed(2), ShortString],
        // connection.blocked; queue.declare-ok; basic.consume-ok, cancel, cancel-ok
        (10, 60) | (50, 11) | (60, 21 | 30 | 31) => &[ShortString],
        // basic.return: code, text, exchange, routing key
        (60, 50) => &[Fixed(2), ShortString, ShortString, ShortString],
        // basic.deliver: consumer, tag, redelivered, exchange, routing key
        (60, 60) => &[ShortString, Fixed(9), ShortString, ShortString],
        // basic.get-ok: tag, redelivered, exchange, routing key
        (60, 71) => &[Fixed(9), ShortString, ShortString],
        _ => &[],
    }
}

fn is_clean_header(payload: &[u8]) -> Option<bool> {
    let (flags, mut reader) = properties_of(payload)?;
    for property in present(flags) {
        let is_clean = match property {
            Property::ShortString | Property::MessageId => std::str::from_utf8(reader.short_string()?).is_ok(),
            Property::Headers => is_clean_table(reader.long_bytes()?, 1)?,
            Property::Fixed(bytes) => reader.take(bytes).is_some(),
        };
        if !is_clean {
            return Some(false);
        }
    }
    Some(reader.0.is_empty())
}

/// The flags of a content header, and what follows them. A continued list of flags is not in use: AMQP 0-9-1 has fewer
/// properties than one holds.
fn properties_of(payload: &[u8]) -> Option<(u16, WireReader<'_>)> {
    let mut reader = WireReader(payload);
    // Class, weight and the body's size.
    reader.take(12)?;
    let flags = reader.u16()?;
    (flags & 0b11 == 0).then_some((flags, reader))
}

fn present(flags: u16) -> impl Iterator<Item = Property> {
    PROPERTIES
        .into_iter()
        .enumerate()
        .filter(move |(bit, _)| flags & (0x8000 >> bit) != 0)
        .map(|(_, property)| property)
}

fn is_clean_table(table: &[u8], depth: usize) -> Option<bool> {
    let mut reader = WireReader(table);
    while !reader.0.is_empty() {
        if std::str::from_utf8(reader.short_string()?).is_err() || !is_clean_value(&mut reader, depth)? {
            return Some(false);
        }
    }
    Some(true)
}

fn is_clean_value(reader: &mut WireReader<'_>, depth: usize) -> Option<bool> {
    let (kind, content) = reader.value()?;
    match kind {
        b'F' | b'A' if depth >= MAX_DEPTH => Some(false),
        b'F' => is_clean_table(content, depth + 1),
        b'A' => {
            let mut elements = WireReader(content);
            while !elements.0.is_empty() {
                if !is_clean_value(&mut elements, depth + 1)? {
                    return Some(false);
                }
            }
            Some(true)
        }
        _ => Some(true),
    }
}

/// What a rewritten content header has.
#[derive(Default)]
struct RepairedTable<'a> {
    message_id: Option<Vec<u8>>,
    /// Names, and values with their type.
    headers: Vec<(&'a [u8], Vec<u8>)>,
}

impl<'a> RepairedTable<'a> {
    fn read(&mut self, payload: &'a [u8]) -> Option<()> {
        let (flags, mut reader) = properties_of(payload)?;
        for property in present(flags) {
            match property {
                Property::MessageId => self.message_id = Some(identity(reader.short_string()?)),
                Property::ShortString => drop(reader.short_string()?),
                Property::Fixed(bytes) => drop(reader.take(bytes)?),
                Property::Headers => {
                    let table = reader.long_bytes()?;
                    let _ = self.read_headers(table);
                }
            }
        }
        Some(())
    }

    fn read_headers(&mut self, table: &'a [u8]) -> Option<()> {
        let mut reader = WireReader(table);
        while !reader.0.is_empty() {
            let name = reader.short_string()?;
            let before = reader.0;
            let (kind, content) = reader.value()?;
            if KEPT_HEADERS.iter().any(|kept| kept.as_bytes() == name) {
                let value = if kind == b'A' {
                    newest_of(content)
                } else {
                    Some(before[..before.len() - reader.0.len()].to_vec())
                };
                self.headers.extend(
                    value
                        .filter(|value| is_clean_value(&mut WireReader(value), 1) == Some(true))
                        .map(|value| (name, value)),
                );
            }
        }
        Some(())
    }

    /// The smallest headers, as many as there is room for, behind the class, the weight and the body's size of `payload`.
    fn encode(mut self, payload: &[u8]) -> Vec<u8> {
        self.headers.sort_by_key(|(_, value)| value.len());
        let mut table = Vec::new();
        for (name, value) in &self.headers {
            if table.len() + 1 + name.len() + value.len() <= MAX_KEPT_BYTES {
                push_short_string(&mut table, name);
                table.extend_from_slice(value);
            }
        }
        let mut encoded = payload.get(..12).unwrap_or(payload).to_vec();
        let message_id_flag = if self.message_id.is_some() { MESSAGE_ID_FLAG } else { 0 };
        encoded.extend_from_slice(&(HEADERS_FLAG | message_id_flag).to_be_bytes());
        push_long_bytes(&mut encoded, &table);
        if let Some(message_id) = &self.message_id {
            push_short_string(&mut encoded, message_id);
        }
        encoded
    }
}

/// An array with nothing but the first element of this one: the most recent death of an `x-death`.
fn newest_of(array: &[u8]) -> Option<Vec<u8>> {
    let mut reader = WireReader(array);
    reader.value()?;
    let mut newest = vec![b'A'];
    push_long_bytes(&mut newest, &array[..array.len() - reader.0.len()]);
    Some(newest)
}

/// A message id as text. It may be an event's identity, so two ids that differ stay different: one that is not UTF-8 is
/// followed by a digest of its bytes.
fn identity(bytes: &[u8]) -> Vec<u8> {
    if std::str::from_utf8(bytes).is_ok() {
        return bytes.to_vec();
    }
    let digest = format!("~{}", URL_SAFE_NO_PAD.encode(&Sha256::digest(bytes)[..18]));
    let mut text = question_marks(bytes);
    let mut end = text.len().min(MAX_SHORT_STRING - digest.len());
    while std::str::from_utf8(&text[..end]).is_err() {
        end -= 1;
    }
    text.truncate(end);
    text.extend_from_slice(digest.as_bytes());
    text
}

/// The text with a question mark for each byte that is not UTF-8.
fn question_marks(bytes: &[u8]) -> Vec<u8> {
    let repaired = |chunk: Utf8Chunk<'_>| [chunk.valid().as_bytes(), &vec![b'?'; chunk.invalid().len()]].concat();
    bytes.utf8_chunks().flat_map(repaired).collect()
}

fn push_short_string(to: &mut Vec<u8>, text: &[u8]) {
    to.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(&text[..text.len().min(MAX_SHORT_STRING)]);
}

fn push_long_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
