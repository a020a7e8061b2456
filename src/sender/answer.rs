//! Reading an answer. Its status is what counts, so everything after the status line is read leniently: unusual header lines
//! only decide whether the connection can be used again. Pure: bytes come in pieces of any size.

use std::mem;

/// The most that is read of the header lines of an answer, interim answers included. After that, the status counts as it is.
pub const HEADER_BYTES_READ: usize = 1024 * 1024;

/// The most that is kept of one header line while it is read. What is needed of an answer is far shorter.
const LINE_BYTES_KEPT: usize = 8 * 1024;

/// What every status line begins with.
const VERSION: &[u8] = b"HTTP/1.";

/// An answer up to its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its status, which is final: an interim one is skipped, except 101.
    pub status: u16,
    /// Its first `Retry-After`.
    pub retry_after: Option<String>,
    /// How its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection, once the body has ended.
    pub reuse: Reuse,
}

/// How the body of an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With the chunk of length 0.
    Chunked,
    /// With the connection.
    UntilClose,
    /// The headers do not tell.
    Unclear,
}

/// Whether a connection may be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The end of the answer is certain, and neither side wants to close.
    Allowed,
    /// Anything else.
    Refused,
}

/// What came is not an answer of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer does not begin with an HTTP/1 status line")]
pub struct NotHttp;

/// Reads an answer up to its body.
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
    /// Takes the next bytes. Returns the head, and how many of the bytes belong to it, once it is complete.
    ///
    /// # Errors
    /// [`NotHttp`], as soon as that is certain.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, NotHttp> {
        let mut used = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // No more is looked at than may be read.
            let piece = &piece[..piece.len().min(HEADER_BYTES_READ - self.read)];
            used += piece.len();
            self.read += piece.len();
            let room = LINE_BYTES_KEPT - self.line.len();
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            self.line.extend_from_slice(&text[..text.len().min(room)]);
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

    /// No more bytes come. The head as far as it was read, if its status line was complete.
    pub fn finish(mut self) -> Option<Head> {
        let status = self.status.filter(|line| !is_interim(line.status))?;
        self.end_header();
        Some(Head { framing: Framing::Length(0), reuse: Reuse::Refused, ..self.headers.head(status) })
    }

    fn end_line(&mut self) -> Result<Option<Head>, NotHttp> {
        let mut line = mem::take(&mut self.line);
        while line.last() == Some(&b'\r') {
            line.pop();
        }
        let Some(status) = self.status else {
            // Empty lines before an answer are skipped.
            if !line.is_empty() {
                self.status = Some(status_line(&line).ok_or(NotHttp)?);
            }
            return Ok(None);
        };
        if line.first().is_some_and(|first| is_blank(*first)) {
            let room = LINE_BYTES_KEPT - self.header.len();
            self.header.extend_from_slice(&line[..line.len().min(room)]);
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
        Ok(Some(headers.head(status)))
    }

    fn end_header(&mut self) {
        let header = mem::take(&mut self.header);
        let Some(colon) = header.iter().position(|byte| *byte == b':') else { return };
        self.headers.take(header[..colon].trim_ascii(), header[colon + 1..].trim_ascii());
    }
}

/// An interim answer precedes the final one. After 101 none follows: the protocol is another.
fn is_interim(status: u16) -> bool {
    matches!(status, 100 | 102..=199)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a line may yet become a status line, or an empty line before it.
fn may_be_status_line(line: &[u8]) -> bool {
    let known = line.len().min(VERSION.len());
    line[..known] == VERSION[..known] || line.iter().all(|byte| *byte == b'\r')
}

fn status_line(line: &[u8]) -> Option<StatusLine> {
    let (version, rest) = line.strip_prefix(VERSION)?.split_first()?;
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

/// What is needed of the header lines.
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
    Given(u64),
    /// Given more than once and not the same. The least of them.
    Disputed(u64),
    Unreadable,
}

/// The last transfer coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

impl Headers {
    fn take(&mut self, name: &[u8], value: &[u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let items = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        if is("retry-after") {
            let is_text = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
            if is_text && self.retry_after.is_none() {
                self.retry_after = Some(String::from_utf8_lossy(value).into_owned());
            }
        } else if is("content-length") {
            self.length = items().fold(self.length, |length, item| length.and(number(item)));
        } else if is("transfer-encoding") {
            let last = items().next_back().unwrap_or_default();
            self.coding = Some(if last.eq_ignore_ascii_case(b"chunked") { Coding::Chunked } else { Coding::Other });
        } else if is("connection") {
            self.close |= items().any(|item| item.eq_ignore_ascii_case(b"close"));
            self.keep_alive |= items().any(|item| item.eq_ignore_ascii_case(b"keep-alive"));
        }
    }

    fn head(self, line: StatusLine) -> Head {
        let keeps = match line.version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 => !self.close,
        };
        let (framing, certain) = match (line.status, self.coding, self.length) {
            (101, ..) => (Framing::Length(0), false),
            // They have no body. What announces one may send it all the same.
            (204 | 304, coding, length) => {
                (Framing::Length(0), coding.is_none() && matches!(length, Length::Absent | Length::Given(0)))
            }
            // Both, or a coding that HTTP/1.0 does not have: what is behind the body may be anything.
            (_, Some(Coding::Chunked), length) => {
                (Framing::Chunked, length == Length::Absent && line.version == Version::Http11)
            }
            (_, Some(Coding::Other), _) | (_, None, Length::Absent) => (Framing::UntilClose, false),
            (_, None, Length::Given(length)) => (Framing::Length(length), true),
            (_, None, Length::Disputed(least)) => (Framing::Length(least), false),
            (_, None, Length::Unreadable) => (Framing::Unclear, false),
        };
        let reuse = if keeps && certain { Reuse::Allowed } else { Reuse::Refused };
        Head { status: line.status, retry_after: self.retry_after, framing, reuse }
    }
}

impl Length {
    fn and(self, given: Option<u64>) -> Self {
        match (self, given) {
            (Self::Unreadable, _) | (_, None) => Self::Unreadable,
            (Self::Absent, Some(given)) => Self::Given(given),
            (Self::Given(length), Some(given)) if length == given => self,
            (Self::Given(length) | Self::Disputed(length), Some(given)) => Self::Disputed(length.min(given)),
        }
    }
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// Reads the body of an answer, and keeps its beginning.
#[derive(Debug)]
pub struct BodyReader {
    state: Body,
    kept: Vec<u8>,
    most_kept: usize,
}

/// What comes next of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    UntilClose,
    /// The line before a chunk: its length so far.
    ChunkLength(Option<u64>),
    /// The rest of that line.
    ChunkExtension(u64),
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailer(TrailerLine),
    Complete,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrailerLine {
    Empty,
    Begun,
}

impl BodyReader {
    /// Reads a body that ends like this, and keeps at most its first `most_kept` bytes.
    pub fn new(framing: Framing, most_kept: usize) -> Self {
        let state = match framing {
            Framing::Length(0) => Body::Complete,
            Framing::Length(length) => Body::Bytes(length),
            Framing::Chunked => Body::ChunkLength(None),
            Framing::UntilClose | Framing::Unclear => Body::UntilClose,
        };
        Self { state, kept: Vec::new(), most_kept }
    }

    /// Takes the next bytes. Returns how many of them belong to the body, which is all of them until it is over.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over() {
            rest = match self.state {
                Body::Bytes(left) => {
                    let (rest, left) = self.keep(rest, left);
                    self.state = if left == 0 { Body::Complete } else { Body::Bytes(left) };
                    rest
                }
                Body::Chunk(left) => {
                    let (rest, left) = self.keep(rest, left);
                    self.state = if left == 0 { Body::ChunkEnd } else { Body::Chunk(left) };
                    rest
                }
                Body::UntilClose => self.keep(rest, u64::MAX).0,
                state => {
                    self.state = state.after(rest[0]);
                    &rest[1..]
                }
            };
        }
        bytes.len() - rest.len()
    }

    /// Whether it came to its end as announced.
    pub fn is_complete(&self) -> bool {
        self.state == Body::Complete
    }

    /// Whether nothing more is to be read: it is complete, or no body.
    pub fn is_over(&self) -> bool {
        matches!(self.state, Body::Complete | Body::Broken)
    }

    /// What was kept.
    pub fn into_kept(self) -> Vec<u8> {
        self.kept
    }

    /// Keeps what there is room for of at most `left` bytes of content. Returns what is behind these, and how many are left.
    fn keep<'a>(&mut self, bytes: &'a [u8], left: u64) -> (&'a [u8], u64) {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (content, rest) = bytes.split_at(taken);
        let room = self.most_kept - self.kept.len();
        self.kept.extend_from_slice(&content[..taken.min(room)]);
        (rest, left - taken as u64)
    }
}

impl Body {
    /// What comes after a byte that is not content.
    fn after(self, byte: u8) -> Self {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (self, byte) {
            (Self::ChunkLength(Some(0)) | Self::ChunkExtension(0), b'\n') => Self::Trailer(TrailerLine::Empty),
            (Self::ChunkLength(Some(length)) | Self::ChunkExtension(length), b'\n') => Self::Chunk(length),
            (Self::ChunkExtension(_), _) | (Self::ChunkEnd | Self::Trailer(_), b'\r') => self,
            (Self::ChunkLength(Some(length)), b'\r' | b';' | b' ' | b'\t') => Self::ChunkExtension(length),
            (Self::ChunkLength(length), _) => {
                let longer = digit.and_then(|digit| length.unwrap_or(0).checked_mul(16)?.checked_add(digit));
                longer.map_or(Self::Broken, |length| Self::ChunkLength(Some(length)))
            }
            (Self::ChunkEnd, b'\n') => Self::ChunkLength(None),
            (Self::Trailer(TrailerLine::Empty), b'\n') => Self::Complete,
            (Self::Trailer(TrailerLine::Begun), b'\n') => Self::Trailer(TrailerLine::Empty),
            (Self::Trailer(_), _) => Self::Trailer(TrailerLine::Begun),
            (
                Self::Bytes(_) | Self::UntilClose | Self::Chunk(_) | Self::ChunkEnd | Self::Complete | Self::Broken,
                _,
            ) => Self::Broken,
        }
    }
}
