//! For any bytes from a broker: a frame keeps its position, type and channel, and lapin can parse a rewritten frame.

use amq_protocol::frame::parse_frame;
use waypost_broker::frame_filter::FrameFilter;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const HEARTBEAT: u8 = 8;
const FRAME_START_BYTES: usize = 7;
const PROTOCOL_HEADER_BYTES: usize = 8;

const RECEIVED_AT_ONCE: usize = 16 * 1024;

pub(crate) fn holds(bytes: &[u8]) {
    let filtered = filter(bytes, RECEIVED_AT_ONCE, RECEIVED_AT_ONCE);
    for (receive, read) in [(1, 1), (7, 64)] {
        assert!(filter(bytes, receive, read) == filtered, "the result depends on the pieces");
    }
    let ((before, rest), (after, passed)) = (frames(bytes), frames(&filtered));
    assert_eq!(before.len(), after.len(), "a frame is lost");
    assert!(rest.starts_with(passed), "an incomplete frame is changed");
    for (before, after) in before.into_iter().zip(after) {
        if before != after {
            assert!(matches!(before[0], METHOD | HEADER), "a frame of type {} is changed", before[0]);
            assert_eq!(before[..3], after[..3], "the type or the channel is changed");
            assert_eq!(filter(after, RECEIVED_AT_ONCE, RECEIVED_AT_ONCE), after, "filtering again changes the frame");
        }
        if after[0] == HEADER && before != after {
            let (unread, _) = parse_frame(after).unwrap_or_else(|error| panic!("{error}: {after:?}"));
            assert!(unread.is_empty(), "{} bytes are left", unread.len());
        }
    }
}

/// The bytes that lapin gets if they are received and read in pieces of these sizes.
fn filter(bytes: &[u8], receive: usize, read: usize) -> Vec<u8> {
    let (mut filter, mut filtered) = (FrameFilter::default(), Vec::new());
    let mut out = vec![0; read];
    for piece in bytes.chunks(receive) {
        filter.free_space()[..piece.len()].copy_from_slice(piece);
        filter.received(piece.len());
        loop {
            let count = filter.read(&mut out);
            if count == 0 {
                break;
            }
            filtered.extend_from_slice(&out[..count]);
        }
    }
    filtered
}

/// The complete frames and protocol headers, and the remaining bytes.
fn frames(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut frames = Vec::new();
    loop {
        let size = match bytes {
            [b'A', ..] => PROTOCOL_HEADER_BYTES,
            [METHOD..=3 | HEARTBEAT, _, _, a, b, c, d, ..] => {
                FRAME_START_BYTES + u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1
            }
            _ => return (frames, bytes),
        };
        let Some((frame, rest)) = bytes.split_at_checked(size) else { return (frames, bytes) };
        frames.push(frame);
        bytes = rest;
    }
}
