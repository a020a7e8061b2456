//! For any response: after a final status line, the status counts, whatever follows and however the bytes are split.

use waypost_engine::sender::response::{BodyReader, Framing, HeadReader, NotHttp, ResponseHead, Reuse};

const MOST_KEPT: usize = 1024;

pub(crate) fn holds(bytes: &[u8]) {
    let (head, used) = match read_head(bytes, usize::MAX) {
        Ok(found) => found,
        Err(error) => {
            assert_eq!(read_head(bytes, 1), Err(error), "the result depends on the pieces");
            assert_eq!(status(bytes), None, "the status line is parsed");
            return;
        }
    };
    for piece in [1, 7] {
        assert_eq!(read_head(bytes, piece), Ok((head.clone(), used)), "the result depends on the pieces");
    }
    let Some(head) = head else {
        assert_eq!(status(bytes), None, "the status line is parsed");
        return;
    };
    assert!(matches!(head.status, 101 | 200..=999), "an interim answer: {}", head.status);
    if let Some(status) = status(bytes) {
        assert_eq!(head.status, status);
    }
    if head.reuse == Reuse::Allowed {
        assert!(matches!(head.framing, Framing::Length(_) | Framing::Chunked), "{head:?}");
    }
    has_a_body(head.framing, &bytes[used..]);
}

fn has_a_body(framing: Framing, bytes: &[u8]) {
    let read = |size: usize| {
        let mut reader = BodyReader::new(framing, MOST_KEPT);
        let used: usize = bytes.chunks(size).map(|piece| reader.push(piece)).sum();
        (used, reader.is_complete(), reader.is_over(), reader.into_kept())
    };
    let (used, is_complete, is_over, kept) = read(bytes.len().max(1));
    assert_eq!(read(1), (used, is_complete, is_over, kept.clone()), "the result depends on the pieces");
    assert!(kept.len() <= MOST_KEPT.min(used), "{} bytes kept of {used}", kept.len());
    assert!(is_over || used == bytes.len(), "{used} of {} bytes", bytes.len());
    assert!(is_over || !is_complete);
    if let Framing::Length(length) = framing {
        assert_eq!(used as u64, length.min(bytes.len() as u64));
        assert_eq!(is_complete, used as u64 == length);
    }
}

/// Reads the head of a response in pieces of `size` bytes until the connection ends. Returns the number of bytes used
/// too.
fn read_head(bytes: &[u8], size: usize) -> Result<(Option<ResponseHead>, usize), NotHttp> {
    let mut reader = HeadReader::default();
    let mut read = 0;
    for piece in bytes.chunks(size) {
        if let Some((head, used)) = reader.push(piece)? {
            return Ok((Some(head), read + used));
        }
        read += piece.len();
    }
    Ok((reader.finish(), read))
}

/// The status of bytes that begin with a canonical status line, if the status is final.
fn status(bytes: &[u8]) -> Option<u16> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 ")?;
    let (status, rest) = rest.split_at_checked(3)?;
    let ends = rest.starts_with(b"\r\n") || rest.starts_with(b" ") && rest.contains(&b'\n');
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    (ends && matches!(status, 101 | 200..=999)).then_some(status)
}
