//! Parses an HTTP/1 response without I/O, from pieces of any size. Only the status decides the outcome, so everything
//! after the status line is read leniently. Unusual header lines only prevent that the connection is used again.

use std::mem;

/// Bytes of a response's body that are read. If the body is longer, the connection is not used again.
pub(super) const RESPONSE_BYTES_READ: usize = 64 * 1024;

/// Bytes of a response's body that are kept in the history of attempts.
pub const RESPONSE_BYTES_KEPT: usize = 1024;

/// Bytes of header lines that are read of a response, including interim responses. Further header lines are ignored.
pub const HEADER_BYTES_READ: usize = 1024 * 1024;

/// Bytes of a header line that are kept while it is read. The headers that are needed are far shorter.
const LINE_BYTES_KEPT: usize = 8 * 1024;

/// The beginning of every status line.
const STATUS_LINE_PREFIX: &[u8] = b"HTTP/1.";

/// A response up to its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The final status. Interim responses are skipped, except 101.
    pub status: u16,
    /// The first `Retry-After`.
    pub retry_after: Option<String>,
    pub framing: Framing,
    /// Whether the connection may be used again after the body has ended.
    pub reuse: Reuse,
}

/// How the body of a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the chunk of length 0.
    Chunked,
    /// When the connection ends.
    UntilClose,
    /// Not specified by the headers.
    Unclear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The end of the response is certain, and neither side wants to close the connection.
    Allowed,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response does not begin with an HTTP/1 status line")]
pub struct NotHttp;

/// Reads a response up to its body.
#[derive(Debug, Default)]
pub struct HeadReader {
    read: usize,
    line: Vec<u8>,
    /// The header line before `line`, which a folded line continues.
    header: Vec<u8>,
    status: Option<StatusLine>,
    headers: Headers,
}

#[derive(Debug, Clone, Copy)]
struct StatusLine {
    status: u16,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl HeadReader {
    /// Parses the next bytes. Once the head is complete, returns it with the number of bytes that belong to it.
    ///
    /// # Errors
    /// [`NotHttp`] as soon as the bytes can't become a status line.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<(ResponseHead, usize)>, NotHttp> {
        let mut used = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // Stay within the limit of header bytes.
            let piece = &piece[..piece.len().min(HEADER_BYTES_READ - self.read)];
            used += piece.len();
            self.read += piece.len();
            let remaining = LINE_BYTES_KEPT - self.line.len();
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            self.line.extend_from_slice(&text[..text.len().min(remaining)]);
            if self.status.is_none() && !may_be_status_line(&self.line) {
                return Err(NotHttp);
            }
            if ends && let Some(head) = self.end_line()? {
                return Ok(Some((head, used)));
            }
            if self.read == HEADER_BYTES_READ {
                let head = mem::take(self).finish().ok_or(NotHttp)?;
                return Ok(Some((head, used)));
            }
        }
        Ok(None)
    }

    /// Ends the input. Returns the head as far as it was read, or `None` if the status line was not complete.
    pub fn finish(mut self) -> Option<ResponseHead> {
        let status = self.status.filter(|line| !is_interim(line.status))?;
        self.end_header();
        Some(ResponseHead { framing: Framing::Length(0), reuse: Reuse::Refused, ..self.headers.into_head(status) })
    }

    fn end_line(&mut self) -> Result<Option<ResponseHead>, NotHttp> {
        let mut line = mem::take(&mut self.line);
        while line.last() == Some(&b'\r') {
            line.pop();
        }
        let Some(status) = self.status else {
            // Empty lines before a response are skipped.
            if !line.is_empty() {
                self.status = Some(status_line(&line).ok_or(NotHttp)?);
            }
            return Ok(None);
        };
        if line.first().is_some_and(|first| is_blank(*first)) {
            let remaining = LINE_BYTES_KEPT - self.header.len();
            self.header.extend_from_slice(&line[..line.len().min(remaining)]);
            return Ok(None);
        }
        self.end_header();
        if !line.is_empty() {
            self.header = line;
            return Ok(None);
        }
        let headers = mem::take(&mut self.headers);
        if is_interim(status.status) {
            self.status = None;
            return Ok(None);
        }
        Ok(Some(headers.into_head(status)))
    }

    fn end_header(&mut self) {
        let header = mem::take(&mut self.header);
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { return };
        self.headers.add(header[..colon].trim_ascii(), header[colon + 1..].trim_ascii());
    }
}

/// An interim response is followed by the final one. 101 is not interim: it changes the protocol.
fn is_interim(status: u16) -> bool {
    matches!(status, 100 | 102..=199)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether more bytes can make this a status line, or an empty line before it.
fn may_be_status_line(line: &[u8]) -> bool {
    let known = line.len().min(STATUS_LINE_PREFIX.len());
    line[..known] == STATUS_LINE_PREFIX[..known] || line.iter().all(|byte| *byte == b'\r')
}

fn status_line(line: &[u8]) -> Option<StatusLine> {
    let (version, rest) = line.strip_prefix(STATUS_LINE_PREFIX)?.split_first()?;
    let version = match *version {
        b'0' => Version::Http10,
        b'1'..=b'9' => Version::Http11,
        _ => return None,
    };
    let blanks = rest.iter().take_while(|byte| is_blank(**byte)).count();
    let (digits, reason) = rest.get(blanks..)?.split_at_checked(3)?;
    let ends = reason.first().is_none_or(|byte| is_blank(*byte));
    let is_status = blanks > 0 && ends && digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0')) % 10);
    is_status.then_some(StatusLine { status, version })
}

/// The contents of the headers that matter.
#[derive(Debug, Default)]
struct Headers {
    retry_after: Option<String>,
    length: Length,
    coding: Option<Coding>,
    close: bool,
    keep_alive: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Known(u64),
    /// Contradictory values, of which this is the smallest.
    Disputed(u64),
    Invalid,
}

/// The last transfer coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

impl Headers {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected.as_bytes());
        let items = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        if is("retry-after") {
            let is_text = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
            if is_text && self.retry_after.is_none() {
                self.retry_after = Some(String::from_utf8_lossy(value).into_owned());
            }
        } else if is("content-length") {
            self.length = items().fold(self.length, |length, item| length.merge(parse_length(item)));
        } else if is("transfer-encoding") {
            let last = items().next_back().unwrap_or_default();
            self.coding = Some(if last.eq_ignore_ascii_case(b"chunked") { Coding::Chunked } else { Coding::Other });
        } else if is("connection") {
            self.close |= items().any(|item| item.eq_ignore_ascii_case(b"close"));
            self.keep_alive |= items().any(|item| item.eq_ignore_ascii_case(b"keep-alive"));
        }
    }

    fn into_head(self, line: StatusLine) -> ResponseHead {
        let keeps_open = match line.version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        };
        let (framing, is_end_certain) = match (line.status, self.coding, self.length) {
            (101, ..) => (Framing::Length(0), false),
            // These have no body. A server that announces one may send it nevertheless.
            (204 | 304, coding, length) => {
                (Framing::Length(0), coding.is_none() && matches!(length, Length::Absent | Length::Known(0)))
            }
            // With a length in addition, or in HTTP/1.0, which has no codings, the end of the body is not certain.
            (_, Some(Coding::Chunked), length) => {
                (Framing::Chunked, length == Length::Absent && line.version == Version::Http11)
            }
            (_, Some(Coding::Other), _) | (_, None, Length::Absent) => (Framing::UntilClose, false),
            (_, None, Length::Known(length)) => (Framing::Length(length), true),
            (_, None, Length::Disputed(smallest)) => (Framing::Length(smallest), false),
            (_, None, Length::Invalid) => (Framing::Unclear, false),
        };
        let reuse = if keeps_open && is_end_certain { Reuse::Allowed } else { Reuse::Refused };
        ResponseHead { status: line.status, retry_after: self.retry_after, framing, reuse }
    }
}

impl Length {
    /// Adds another value. `None` is a value that is not a number.
    fn merge(self, value: Option<u64>) -> Self {
        match (self, value) {
            (Self::Invalid, _) | (_, None) => Self::Invalid,
            (Self::Absent, Some(value)) => Self::Known(value),
            (Self::Known(length), Some(value)) if length == value => self,
            (Self::Known(length) | Self::Disputed(length), Some(value)) => Self::Disputed(length.min(value)),
        }
    }
}

/// Accepts only digits, so neither a sign nor space.
fn parse_length(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// Reads the body of a response and keeps its beginning.
#[derive(Debug)]
pub struct BodyReader {
    state: BodyState,
    kept: Vec<u8>,
    max_kept: usize,
}

/// The expected next part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyState {
    Bytes(u64),
    UntilClose,
    /// The line before a chunk, with the digits of the length that were read.
    ChunkLength(Option<u64>),
    /// The rest of the line before a chunk of this length.
    ChunkExtension(u64),
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailer(TrailerLine),
    Complete,
    Invalid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrailerLine {
    Empty,
    Begun,
}

impl BodyReader {
    /// Keeps at most the first `max_kept` bytes of the body.
    pub fn new(framing: Framing, max_kept: usize) -> Self {
        let state = match framing {
            Framing::Length(0) => BodyState::Complete,
            Framing::Length(length) => BodyState::Bytes(length),
            Framing::Chunked => BodyState::ChunkLength(None),
            Framing::UntilClose | Framing::Unclear => BodyState::UntilClose,
        };
        Self { state, kept: Vec::new(), max_kept }
    }

    /// Parses the next bytes. Returns how many of them belong to the body, which is all of them until its end.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over() {
            rest = match self.state {
                BodyState::Bytes(left) => {
                    let (rest, left) = self.keep(rest, left);
                    self.state = if left == 0 { BodyState::Complete } else { BodyState::Bytes(left) };
                    rest
                }
                BodyState::Chunk(left) => {
                    let (rest, left) = self.keep(rest, left);
                    self.state = if left == 0 { BodyState::ChunkEnd } else { BodyState::Chunk(left) };
                    rest
                }
                BodyState::UntilClose => self.keep(rest, u64::MAX).0,
                state => {
                    self.state = state.after(rest[0]);
                    &rest[1..]
                }
            };
        }
        bytes.len() - rest.len()
    }

    /// Whether the body has ended as its framing says.
    pub fn is_complete(&self) -> bool {
        self.state == BodyState::Complete
    }

    /// Whether nothing more is to be read: the body is complete or invalid.
    pub fn is_over(&self) -> bool {
        matches!(self.state, BodyState::Complete | BodyState::Invalid)
    }

    pub fn into_kept(self) -> Vec<u8> {
        self.kept
    }

    /// Consumes at most `left` bytes of content and keeps them up to the limit. Returns the bytes after the content,
    /// and how many bytes of content are missing.
    fn keep<'a>(&mut self, bytes: &'a [u8], left: u64) -> (&'a [u8], u64) {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (content, rest) = bytes.split_at(length);
        let remaining = self.max_kept - self.kept.len();
        self.kept.extend_from_slice(&content[..length.min(remaining)]);
        (rest, left - length as u64)
    }
}

impl BodyState {
    /// The state after a byte that is not content.
    fn after(self, byte: u8) -> Self {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (self, byte) {
            (Self::ChunkLength(Some(0)) | Self::ChunkExtension(0), b'\n') => Self::Trailer(TrailerLine::Empty),
            (Self::ChunkLength(Some(length)) | Self::ChunkExtension(length), b'\n') => Self::Chunk(length),
            (Self::ChunkExtension(_), _) | (Self::ChunkEnd | Self::Trailer(_), b'\r') => self,
            (Self::ChunkLength(Some(length)), b'\r' | b';' | b' ' | b'\t') => Self::ChunkExtension(length),
            (Self::ChunkLength(length), _) => {
                let longer = digit.and_then(|digit| length.unwrap_or(0).checked_mul(16)?.checked_add(digit));
                longer.map_or(Self::Invalid, |length| Self::ChunkLength(Some(length)))
            }
            (Self::ChunkEnd, b'\n') => Self::ChunkLength(None),
            (Self::Trailer(TrailerLine::Empty), b'\n') => Self::Complete,
            (Self::Trailer(TrailerLine::Begun), b'\n') => Self::Trailer(TrailerLine::Empty),
            (Self::Trailer(_), _) => Self::Trailer(TrailerLine::Begun),
            (
                Self::Bytes(_) | Self::UntilClose | Self::Chunk(_) | Self::ChunkEnd | Self::Complete | Self::Invalid,
                _,
            ) => Self::Invalid,
        }
    }
}
