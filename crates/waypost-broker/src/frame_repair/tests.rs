//! Tests that lapin's own parser reads every repaired frame.

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

/// The payload of a content header. Its body size is 9.
fn header(flags: u16, properties: &[Vec<u8>]) -> Vec<u8> {
    let (class_weight_and_size, flags) = ([0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], flags.to_be_bytes());
    [class_weight_and_size.as_slice(), &flags, &properties.concat()].concat()
}

fn header_with_table(table: &[u8]) -> Vec<u8> {
    header(HEADERS_FLAG, &[long(0, table)[1..].to_vec()])
}

/// Repairs the payload of a content header if necessary, and parses it with lapin.
fn repair_and_parse(payload: &[u8]) -> lapin::BasicProperties {
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

fn header_text(properties: &lapin::BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(&ShortString::from(name))? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn message_id(properties: &lapin::BasicProperties) -> Option<String> {
    properties.message_id().as_ref().map(ToString::to_string)
}

#[test]
fn a_header_that_lapin_can_read_is_not_rewritten() {
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
    assert_eq!(header_text(&repair_and_parse(&clean), "traceparent").as_deref(), Some("00-1"));
}

#[test]
fn invalid_utf8_in_any_short_string_is_repaired() {
    for (bit, property) in PROPERTIES.into_iter().enumerate() {
        if property != Property::ShortString && property != Property::MessageId {
            continue;
        }
        let payload = header(0x8000 >> bit, &[short(b"Jos\xE9")]);
        assert!(repair_header(&payload).is_some(), "bit {bit}");
        let properties = repair_and_parse(&payload);
        assert_eq!(message_id(&properties).is_some(), property == Property::MessageId, "bit {bit}");
    }
}

#[test]
fn different_message_ids_stay_different() {
    let id = |bytes: &[u8]| message_id(&repair_and_parse(&header(MESSAGE_ID_FLAG, &[short(bytes)]))).expect("an id");
    assert_eq!(id(b"plain"), "plain");
    assert!(id(b"Jos\xE9").starts_with("Jos?~"), "{}", id(b"Jos\xE9"));
    assert_ne!(id(b"Jos\xE9"), id(b"Jos\xE8"));
    assert_eq!(id(b"Jos\xE9"), id(b"Jos\xE9"));
    let max_length = |last: u8| [&[0xC3, 0xA9].repeat(127), [last].as_slice()].concat();
    assert_ne!(id(&max_length(0xFF)), id(&max_length(0xFE)));
    assert!(id(&max_length(0xFF)).len() <= MAX_SHORT_STRING_BYTES);
}

#[test]
fn headers_that_waypost_reads_survive_beside_unreadable_ones() {
    let nested = |kind: u8, depth: usize| {
        (0..depth).fold(Vec::new(), |inner, _| match kind {
            b'A' => long(b'A', &inner),
            _ => [long(b'F', &inner)].concat(),
        })
    };
    let nested_tables = (0..3000).fold(vec![b'V'], |inner: Vec<u8>, _| long(b'F', &[short(b"k"), inner].concat()));
    for unreadable in [
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
        let properties = repair_and_parse(&header_with_table(&[unreadable, known].concat()));
        assert_eq!(header_text(&properties, "x-stream-offset").as_deref(), Some("LongLongInt(7)"));
        assert_eq!(header_text(&properties, "tracestate").as_deref(), Some("a=b"));
        assert_eq!(properties.headers().as_ref().map(|headers| headers.inner().len()), Some(2));
    }
}

#[test]
fn only_the_most_recent_death_of_a_long_history_is_kept() {
    let death = |queue: &str| {
        long(b'F', &[short(b"queue"), long(b'S', queue.as_bytes()), short(b"reason"), long(b'S', b"expired")].concat())
    };
    let deaths: Vec<u8> = (0..200).flat_map(|number| death(&format!("waypost.delay.{number}"))).collect();
    let properties = repair_and_parse(&header_with_table(&[short(b"x-death"), long(b'A', &deaths)].concat()));
    let death = header_text(&properties, "x-death").expect("kept");
    // The bytes of `waypost.delay.0`, the first of the deaths.
    assert!(death.contains("108, 97, 121, 46, 48]") && death.matches("queue").count() == 1, "{death}");
}

#[test]
fn a_truncated_header_loses_only_its_properties() {
    let whole = header(0xFFFC, &[short(b"application/json"), short(b"")]);
    assert_eq!(repair_and_parse(&whole).content_type(), &None);
    assert!(repair_header(&whole).is_some());
    // Flags that continue in another word, which no broker sends.
    assert!(
        repair_and_parse(&header(1, &[vec![0, 0]]))
            .headers()
            .as_ref()
            .is_some_and(|headers| headers.inner().is_empty())
    );
}

#[test]
fn repaired_methods_keep_their_length() {
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
    #[test]
    fn lapin_reads_every_repaired_header(
        flags: u16,
        properties in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0..14_usize,
    ) {
        repair_and_parse(&header(flags, std::slice::from_ref(&properties)));
        let _ = repair_header(&header(flags, &[properties])[..cut]);
    }

    #[test]
    fn lapin_reads_every_repaired_table(
        entries in prop::collection::vec(
            (
                prop::collection::vec(any::<u8>(), 0..12),
                prop::sample::select(b"FASxtbBsUuIilLfdDTVz".to_vec()),
                prop::collection::vec(any::<u8>(), 0..40),
            ),
            0..8,
        ),
    ) {
        let entry = |(name, kind, content): &(Vec<u8>, u8, Vec<u8>)| [short(name), match kind {
            b'F' | b'A' | b'S' | b'x' => long(*kind, content),
            _ => [&[*kind], content.as_slice()].concat(),
        }].concat();
        let table: Vec<u8> = entries.iter().flat_map(entry).collect();
        repair_and_parse(&header_with_table(&table));
    }
}
