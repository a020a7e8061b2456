//! Tests with frames of any type, received and read in pieces of any size.

use proptest::prelude::*;

use super::*;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a size").to_be_bytes();
    [&[kind, 0, 1], size.as_slice(), payload, &[FRAME_END]].concat()
}

/// A `basic.deliver` frame.
fn deliver(routing_key: &[u8]) -> Vec<u8> {
    let length = u8::try_from(routing_key.len()).expect("a short string");
    frame(METHOD, &[&[0, 60, 0, 60, 1, b'c'], [0; 9].as_slice(), &[0, length], routing_key].concat())
}

fn header(correlation_id: &[u8]) -> Vec<u8> {
    let length = u8::try_from(correlation_id.len()).expect("a short string");
    frame(HEADER, &[&[0, 60], [0; 10].as_slice(), &[0x04, 0, length], correlation_id].concat())
}

/// The output for an input that is received and read in pieces of these sizes.
fn filter(input: &[u8], receive_bytes: usize, read_bytes: usize) -> Vec<u8> {
    let mut filter = FrameFilter::default();
    let mut output = Vec::new();
    for piece in input.chunks(receive_bytes) {
        filter.free_space()[..piece.len()].copy_from_slice(piece);
        filter.received(piece.len());
        loop {
            let mut out = vec![0; read_bytes];
            let count = filter.read(&mut out);
            if count == 0 {
                break;
            }
            output.extend_from_slice(&out[..count]);
        }
    }
    output
}

#[test]
fn clean_frames_pass_unchanged() {
    let frames = [
        b"AMQP\x00\x00\x09\x01".to_vec(),
        deliver(b"13010"),
        header(b"id"),
        frame(BODY, &[0xFF; 300_000]),
        frame(HEARTBEAT, b""),
    ]
    .concat();
    for (receive_bytes, read_bytes) in [(1, 1), (7, 64), (20_000, 1000), (30_000, 500_000)] {
        assert!(filter(&frames, receive_bytes, read_bytes) == frames, "{receive_bytes} {read_bytes}");
    }
}

#[test]
fn bytes_that_are_not_amqp_pass_unchanged() {
    let other = b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(9);
    assert_eq!(filter(&other, 10, 10), other);
}

proptest! {
    #[test]
    fn repaired_and_clean_frames_keep_their_order_however_the_bytes_are_cut(
        bodies in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 1..20),
        receive_bytes in 1..300_usize,
        read_bytes in 1..300_usize,
    ) {
        let message = |routing_key: &[u8], header: Vec<u8>, body: &[u8]| {
            [deliver(routing_key), header, frame(BODY, body)].concat()
        };
        let (mut input, mut expected) = (Vec::new(), Vec::new());
        for (body, is_clean) in &bodies {
            if *is_clean {
                input.extend(message(b"key", header(b"id"), body));
                expected.extend(message(b"key", header(b"id"), body));
            } else {
                input.extend(message(b"k\xFF", header(b"i\xFF"), body));
                let emptied_header = frame(HEADER, &[&[0, 60], [0; 10].as_slice(), &[0x20, 0, 0, 0, 0, 0]].concat());
                expected.extend(message(b"k?", emptied_header, body));
            }
        }
        prop_assert_eq!(filter(&input, receive_bytes, read_bytes), expected);
    }
}
