//! Checks one AMQP frame and rewrites it if lapin cannot read it.
//!
//! lapin parses every short string as UTF-8 and every table recursively. RabbitMQ checks neither, so a single message
//! of any publisher could end the connection, again after each reconnect. Also, lapin refuses a frame above the
//! negotiated size, which RabbitMQ exceeds when it adds headers of its own. A rewritten frame keeps the properties and
//! headers that Waypost reads.

use std::str::Utf8Chunk;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use super::wire_reader::WireReader;

/// Nested tables and arrays. 2,000 levels overflow the stack of lapin's thread.
const MAX_NESTING: usize = 16;

/// A larger payload of a header frame is rewritten: the smallest frame size that two peers can negotiate is 4096 bytes
/// (AMQP 0-9-1, 4.2.3).
const MAX_HEADER_BYTES: usize = 4096 - 8;

/// For the headers of a rewritten frame. With the message id, the frame stays below [`MAX_HEADER_BYTES`].
const MAX_TABLE_BYTES: usize = 3072;

const MAX_SHORT_STRING_BYTES: usize = 255;

/// The headers that Waypost reads. A rewritten frame has no others.
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

/// The type of a property of the class `basic`.
#[derive(Clone, Copy, PartialEq)]
enum Property {
    ShortString,
    MessageId,
    Headers,
    /// This many bytes.
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

/// The type of an argument of a method.
#[derive(Clone, Copy)]
enum Argument {
    ShortString,
    /// This many bytes.
    Fixed(usize),
}

/// Rewrites the payload of a content header frame; `None` if lapin can read it unchanged.
pub(super) fn repair_header(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() <= MAX_HEADER_BYTES && is_clean_header(payload).unwrap_or(false) {
        return None;
    }
    let mut repaired = RepairedHeader::default();
    // Reading stops at bytes that cannot be parsed. What was read before is kept.
    let _ = repaired.read(payload);
    Some(repaired.encode(payload))
}

/// Replaces each byte of a method frame's short strings that is not UTF-8; `None` if there is none. The length does not
/// change.
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
                    let copy: &mut Vec<u8> = repaired.get_or_insert_with(|| payload.to_vec());
                    copy[end - text.len()..end].copy_from_slice(&replace_invalid_utf8(text));
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
    let (flags, mut reader) = read_flags(payload)?;
    for property in present_properties(flags) {
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

/// The flags of a content header, and a reader of the properties. `None` also if the flags continue in another word,
/// which AMQP 0-9-1 never needs.
fn read_flags(payload: &[u8]) -> Option<(u16, WireReader<'_>)> {
    let mut reader = WireReader(payload);
    // Class, weight and body size.
    reader.take(12)?;
    let flags = reader.u16()?;
    (flags & 0b11 == 0).then_some((flags, reader))
}

fn present_properties(flags: u16) -> impl Iterator<Item = Property> {
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
        b'F' | b'A' if depth >= MAX_NESTING => Some(false),
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

/// The parts of a content header that are kept.
#[derive(Default)]
struct RepairedHeader<'a> {
    message_id: Option<Vec<u8>>,
    /// Names and encoded values, each with its type.
    headers: Vec<(&'a [u8], Vec<u8>)>,
}

impl<'a> RepairedHeader<'a> {
    fn read(&mut self, payload: &'a [u8]) -> Option<()> {
        let (flags, mut reader) = read_flags(payload)?;
        for property in present_properties(flags) {
            match property {
                Property::MessageId => self.message_id = Some(unique_text(reader.short_string()?)),
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
            if KEPT_HEADERS.iter().any(|header| header.as_bytes() == name) {
                let value = if kind == b'A' {
                    first_element_only(content)
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

    /// Takes class, weight and body size from `payload`. If the headers do not all fit, the largest are dropped.
    fn encode(mut self, payload: &[u8]) -> Vec<u8> {
        self.headers.sort_by_key(|(_, value)| value.len());
        let mut table = Vec::new();
        for (name, value) in &self.headers {
            if table.len() + 1 + name.len() + value.len() <= MAX_TABLE_BYTES {
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

/// The first element of an `x-death` array is the most recent death.
fn first_element_only(array: &[u8]) -> Option<Vec<u8>> {
    let mut reader = WireReader(array);
    reader.value()?;
    let mut encoded = vec![b'A'];
    push_long_bytes(&mut encoded, &array[..array.len() - reader.0.len()]);
    Some(encoded)
}

/// A message id as UTF-8. The id may identify an event, so different ids must stay different: a digest of the bytes is
/// appended to an id that is not UTF-8.
fn unique_text(bytes: &[u8]) -> Vec<u8> {
    if std::str::from_utf8(bytes).is_ok() {
        return bytes.to_vec();
    }
    let digest = format!("~{}", URL_SAFE_NO_PAD.encode(&Sha256::digest(bytes)[..18]));
    let mut text = replace_invalid_utf8(bytes);
    let mut end = text.len().min(MAX_SHORT_STRING_BYTES - digest.len());
    while std::str::from_utf8(&text[..end]).is_err() {
        end -= 1;
    }
    text.truncate(end);
    text.extend_from_slice(digest.as_bytes());
    text
}

/// Replaces each byte that is not UTF-8 by a question mark.
fn replace_invalid_utf8(bytes: &[u8]) -> Vec<u8> {
    let replace = |chunk: Utf8Chunk<'_>| [chunk.valid().as_bytes(), &vec![b'?'; chunk.invalid().len()]].concat();
    bytes.utf8_chunks().flat_map(replace).collect()
}

fn push_short_string(buffer: &mut Vec<u8>, text: &[u8]) {
    buffer.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    buffer.extend_from_slice(&text[..text.len().min(MAX_SHORT_STRING_BYTES)]);
}

fn push_long_bytes(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
