//! What is passed on is read by lapin's own parser.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use lapin::types::{AMQPValue, ShortString};
use proptest::prelude::*;

use super::*;

fn short(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_short_string(&mut bytes, text);
    bytes
}

fn long(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    push_long_bytes(&mut bytes, content);
    bytes
}

/// The payload of a content header with these flags and properties.
fn header(flags: u16, properties: &[Vec<u8>]) -> Vec<u8> {
    let (class_weight_and_size, flags) = ([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], flags.to_be_bytes());
    [class_weight_and_size.as_slice(), &flags, &properties.concat()].concat()
}

fn header_with_table(table: &[u8]) -> Vec<u8> {
    header(HEADERS_FLAG, &[long(0, table)[1..].to_vec()])
}

/// What lapin makes of a header's payload, after it was repaired if that was needed.
fn parsed(payload: &[u8]) -> lapin::BasicProperties {
    let payload = repair_header(payload).unwrap_or_else(|| payload.to_vec());
    assert!(payload.len() <= MAX_HEADER_BYTES, "{} bytes", payload.len());
    let size = u32::try_from(payload.len()).expect("a size").to_be_bytes();
    let frame = [&[2, 0, 1], size.as_slice(), &payload, &[0xCE]].concat();
    match parse_frame(frame.as_slice()) {
        Ok(([], AMQPFrame::Header(1, header))) => {
            assert_eq!(header.body_size, 9);
            header.properties
        }
        other => panic!("{other:?}"),
    }
}

fn text_of(properties: &lapin::BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(&ShortString::from(name))? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn message_id(properties: &lapin::BasicProperties) -> Option<String> {
    properties.message_id().as_ref().map(ToString::to_string)
}

#[test]
fn what_lapin_can_read_stays_as_it_is() {
    let table = [short(b"traceparent"), long(b'S', b"00-1"), short(b"n"), vec![b'l', 0, 0, 0, 0, 0, 0, 0, 7]].concat();
    let clean = header(
        0xFFFC,
        &[
            short(b"application/json"),
            short(b""),
            long(0, &table)[1..].to_vec(),
            vec![2],
            vec![0],
            short("José".as_bytes()),
            short(b"reply"),
            short(b"60000"),
            short(b"id"),
            vec![0; 8],
            short(b"type"),
            short(b"guest"),
            short(b"app"),
            short(b""),
        ],
    );
    assert_eq!(repair_header(&clean), None);
    assert_eq!(text_of(&parsed(&clean), "traceparent").as_deref(), Some("00-1"));
}

#[test]
fn any_short_string_may_be_bytes() {
    for (bit, property) in PROPERTIES.into_iter().enumerate() {
        if property != Property::ShortString && property != Property::MessageId {
            continue;
        }
        let payload = header(0x8000 >> bit, &[short(b"Jos\xE9")]);
        assert!(repair_header(&payload).is_some(), "bit {bit}");
        let properties = parsed(&payload);
        assert_eq!(message_id(&properties).is_some(), property == Property::MessageId, "bit {bit}");
    }
}

#[test]
fn message_ids_that_differ_stay_different() {
    let id = |bytes: &[u8]| message_id(&parsed(&header(MESSAGE_ID_FLAG, &[short(bytes)]))).expect("an id");
    assert_eq!(id(b"plain"), "plain");
    assert!(id(b"Jos\xE9").starts_with("Jos?~"), "{}", id(b"Jos\xE9"));
    assert_ne!(id(b"Jos\xE9"), id(b"Jos\xE8"));
    assert_eq!(id(b"Jos\xE9"), id(b"Jos\xE9"));
    let longest = |last: u8| [&[0xC3, 0xA9].repeat(127), [last].as_slice()].concat();
    assert_ne!(id(&longest(0xFF)), id(&longest(0xFE)));
    assert!(id(&longest(0xFF)).len() <= MAX_SHORT_STRING);
}

#[test]
fn what_waypost_reads_is_kept_beside_what_nobody_can() {
    let nested = |kind: u8, depth: usize| {
        (0..depth).fold(Vec::new(), |inner, _| match kind {
            b'A' => long(b'A', &inner),
            _ => [long(b'F', &inner)].concat(),
        })
    };
    let nested_tables = (0..3000).fold(vec![b'V'], |inner: Vec<u8>, _| long(b'F', &[short(b"k"), inner].concat()));
    for stranger in [
        [short(b"bad"), nested(b'A', 2000)].concat(),
        [short(b"bad"), nested_tables.clone()].concat(),
        [short(b"traceparent"), nested(b'A', 2000)].concat(),
        [short(b"k\xFF"), vec![b'V']].concat(),
        [short(b"t"), long(b'F', &[short(b"\xFF"), vec![b't', 1]].concat())].concat(),
        [short(b"large"), long(b'S', &[b'x'; 130_000])].concat(),
    ] {
        let known =
            [short(b"x-stream-offset"), vec![b'l', 0, 0, 0, 0, 0, 0, 0, 7], short(b"tracestate"), long(b'S', b"a=b")]
                .concat();
        let properties = parsed(&header_with_table(&[stranger, known].concat()));
        assert_eq!(text_of(&properties, "x-stream-offset").as_deref(), Some("LongLongInt(7)"));
        assert_eq!(text_of(&properties, "tracestate").as_deref(), Some("a=b"));
        assert_eq!(properties.headers().as_ref().map(|headers| headers.inner().len()), Some(2));
    }
}

#[test]
fn of_a_long_history_the_most_recent_death_is_kept() {
    let death = |queue: &str| {
        long(b'F', &[short(b"queue"), long(b'S', queue.as_bytes()), short(b"reason"), long(b'S', b"expired")].concat())
    };
    let deaths: Vec<u8> = (0..200).flat_map(|number| death(&format!("waypost.delay.{number}"))).collect();
    let properties = parsed(&header_with_table(&[short(b"x-death"), long(b'A', &deaths)].concat()));
    let kept = text_of(&properties, "x-death").expect("kept");
    // `waypost.delay.0`, the first of them.
    assert!(kept.contains("108, 97, 121, 46, 48]") && kept.matches("queue").count() == 1, "{kept}");
}

#[test]
fn a_header_that_is_cut_short_loses_its_properties_only() {
    let whole = header(0xFFFC, &[short(b"application/json"), short(b"")]);
    assert_eq!(parsed(&whole).content_type(), &None);
    assert!(repair_header(&whole).is_some());
    // A continued list of flags, which nobody sends.
    assert!(parsed(&header(1, &[vec![0, 0]])).headers().as_ref().is_some_and(|headers| headers.inner().is_empty()));
}

#[test]
fn methods_keep_their_length() {
    let deliver = |exchange: &[u8], key: &[u8]| {
        [&[0, 60, 0, 60], short(b"amq.ctag-1").as_slice(), &[0; 9], &short(exchange), &short(key)].concat()
    };
    assert_eq!(repair_method(&deliver(b"waypost.events", "13010é".as_bytes())), None);
    assert_eq!(repair_method(&deliver(b"e\xE9x", b"k\xFF\xFE")), Some(deliver(b"e?x", b"k??")));
    let close = |text: &[u8]| [&[0, 20, 0, 40, 1, 148], short(text).as_slice(), &[0, 50, 0, 10]].concat();
    assert_eq!(repair_method(&close(b"no queue '\x80'")), Some(close(b"no queue '?'")));
    for other in [b"".as_slice(), &[0, 60], &[0, 60, 0, 80, 0xFF], &[0, 10, 0, 10, 0xFF, 0xFF]] {
        assert_eq!(repair_method(other), None);
    }
}

proptest! {
    /// Whatever a content header has, lapin reads what it is given.
    #[test]
    fn any_header_is_readable(flags: u16, properties in prop::collection::vec(any::<u8>(), 0..200), cut in 0..14_usize) {
        parsed(&header(flags, std::slice::from_ref(&properties)));
        let _ = repair_header(&header(flags, &[properties])[..cut]);
    }

    /// The same with tables that are nearly right.
    #[test]
    fn any_table_is_readable(entries in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..12), prop::sample::select(b"FASxtbBsUuIilLfdDTVz".to_vec()), prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
        let entry = |(name, kind, content): &(Vec<u8>, u8, Vec<u8>)| [short(name), match kind {
            b'F' | b'A' | b'S' | b'x' => long(*kind, content),
            _ => [&[*kind], content.as_slice()].concat(),
        }].concat();
        let table: Vec<u8> = entries.iter().flat_map(entry).collect();
        parsed(&header_with_table(&table));
    }
}
