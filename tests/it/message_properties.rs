//! Messages with unusual properties and headers are delivered, and so are all others.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Broker;
use crate::support::raw_amqp::{RawMessage, TextProperty, long_bytes, nested, publish_raw, short_string};
use crate::test_app::{SLOW_TIMEOUT, TestApp, events_with_keyword, step_event};

/// Not UTF-8: `José` in Latin-1, and a UUID as 16 bytes.
const LATIN_1: &[u8] = b"Jos\xE9";
const UUID: &[u8] = &[0x8F, 0x14, 0xE4, 0x5F, 0xCE, 0xEA, 0x46, 0x7F, 0x9B, 0x02, 0, 0xFF, 0x10, 0x80, 0xC0, 0xAF];

/// The number of events published before and after the unusual messages.
const NEIGHBOR_COUNT: usize = 40;

/// A message with an event that has this id or none.
fn event(event_id: Option<&str>) -> RawMessage {
    let mut event = step_event().keyword(3).id(event_id.unwrap_or_default()).json();
    if event_id.is_none() {
        event.as_object_mut().expect("an object").remove("eventId");
    }
    RawMessage::new(b"13010", event)
}

fn header(name: &[u8], value: Vec<u8>) -> Vec<u8> {
    [short_string(name), value].concat()
}

fn text(value: &[u8]) -> Vec<u8> {
    [b"S".as_slice(), &long_bytes(value)].concat()
}

/// Messages that lapin alone can't read, each with its own event.
fn unusual_messages() -> Vec<RawMessage> {
    use TextProperty::{AppId, ClusterId, ContentEncoding, ContentType, CorrelationId, ReplyTo, Type};
    let properties = [ContentType, ContentEncoding, CorrelationId, ReplyTo, Type, AppId, ClusterId];
    let mut messages: Vec<RawMessage> = properties
        .into_iter()
        .flat_map(|property| {
            [LATIN_1, UUID].map(|bytes| event(Some(&format!("{property:?}-{}", bytes.len()))).text(property, bytes))
        })
        .collect();
    let headers = [
        header(LATIN_1, text(b"a key")),
        header(b"arrays", nested(b'A', 2000)),
        header(b"tables", nested(b'F', 2000)),
        header(b"traceparent", nested(b'F', 2000)),
        header(b"table", [b"F".as_slice(), &long_bytes(&header(LATIN_1, b"V".to_vec()))].concat()),
        header(b"large", text(&[b'x'; 130_000])),
        header(b"text", text(LATIN_1)),
    ];
    messages.extend(
        headers.iter().enumerate().map(|(number, table)| event(Some(&format!("header-{number}"))).headers(table)),
    );
    messages.push(RawMessage::new(LATIN_1, step_event().keyword(3).id("routing-key").json()));
    messages
}

#[tokio::test]
async fn unusual_properties_do_not_disturb_other_messages() {
    let app = TestApp::builder().process().start().await;
    let (broker, events) = (Broker::shared().await, format!("{}.events", app.prefix));
    let neighbours: Vec<Value> = events_with_keyword(2 * NEIGHBOR_COUNT, 3);
    app.amqp.publish_events(&app.prefix, &neighbours[..NEIGHBOR_COUNT]).await;
    let odd = unusual_messages();
    let expected = odd.len() + 2 * NEIGHBOR_COUNT;
    publish_raw(broker, events.as_bytes(), odd).await;
    app.amqp.publish_events(&app.prefix, &neighbours[NEIGHBOR_COUNT..]).await;
    app.receiver.expect_any().at_least(expected).within(SLOW_TIMEOUT).await;
    app.amqp.wait_for_depth(&events, 0).await;
    let ids: BTreeSet<String> = app.receiver.requests().iter().map(|request| request.webhook_id().to_owned()).collect();
    assert_eq!((ids.len(), app.receiver.requests().len()), (expected, expected), "each once");
    let reconnected = app.waypost.log_lines().into_iter().find(|line| line.contains("reconnecting"));
    assert_eq!(reconnected, None);
}

#[tokio::test]
async fn message_ids_may_be_any_bytes() {
    let app = TestApp::start().await;
    let (broker, events) = (Broker::shared().await, format!("{}.events", app.prefix));
    let by_id = |id: &[u8]| event(None).text(TextProperty::MessageId, id);
    let messages = [LATIN_1, b"Jos\xE8", UUID, LATIN_1].map(by_id);
    publish_raw(broker, events.as_bytes(), messages.to_vec()).await;
    app.receiver.expect_any().times(4).await;
    let ids: BTreeSet<String> = app.receiver.requests().iter().map(|request| request.webhook_id().to_owned()).collect();
    assert_eq!(ids.len(), 3, "the same bytes are the same event");
}
