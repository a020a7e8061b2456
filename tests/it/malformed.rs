//! Malformed messages on the events queue are kept as dead letters, and the next event is delivered.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::amqp::Message;
use crate::support::dead_letters::text_field;
use crate::support::json::items_of;
use crate::support::{DEFAULT_TIMEOUT, wait_until};
use crate::test_app::{TestApp, step_event};

#[tokio::test]
async fn a_malformed_message_is_dead_lettered_and_the_next_event_delivered() {
    let app = TestApp::start().await;
    let mut late = step_event().keyword(3).id("e").json();
    late["date"] = "2024-06-18".into();
    let mut typed = step_event().keyword(3).id("e").json();
    typed["label"] = json!(7);
    typed["keyword"] = json!({});
    typed.as_object_mut().expect("an object").remove("phoneNumber");
    let nested = [b"{\"campaignId\":".as_slice(), &b"[".repeat(10_000), &b"]".repeat(10_000), b"}"].concat();
    let large = format!("{{\"campaignId\":\"{}\"}}", "x".repeat(300 * 1024));
    let bodies: Vec<(Vec<u8>, &[&str])> = vec![
        (b"".to_vec(), &["$"]),
        (b"hello".to_vec(), &["$"]),
        (b"[]".to_vec(), &["$"]),
        (b"null".to_vec(), &["$"]),
        (b"\xff\xfe{}".to_vec(), &["$"]),
        (b"{}".to_vec(), &["$.campaignId", "$.label", "$.phoneNumber", "$.date"]),
        (late.to_string().into_bytes(), &["$.date"]),
        (typed.to_string().into_bytes(), &["$.label", "$.phoneNumber", "$.keyword"]),
        (b"[".repeat(10_000), &["$"]),
        (nested, &["$"]),
        (large.into_bytes(), &["$"]),
    ];
    let messages: Vec<Message> = bodies.iter().map(|(body, _)| Message::raw(body.clone()).key("13010")).collect();
    app.amqp.publish(&format!("{}.events", app.prefix), messages).await;
    app.publish(step_event().keyword(3).id("the-next")).await;

    app.receiver.expect_any().await;
    let letters = app.dead_letters(bodies.len()).await;
    for (body, paths) in &bodies {
        let letter = letters.iter().find(|letter| kept_body(letter) == *body);
        let letter =
            letter.unwrap_or_else(|| panic!("no letter of {}", String::from_utf8_lossy(&body[..body.len().min(80)])));
        assert_eq!((&letter["reason"], &letter["state"]), (&json!("malformed"), &json!("pending")));
        let found: BTreeSet<&str> =
            letter["errors"].as_array().expect("errors").iter().filter_map(|error| error["path"].as_str()).collect();
        assert_eq!(found, paths.iter().copied().collect(), "{:#}", letter["errors"]);
    }
    let mut errors = letters.iter().flat_map(|letter| items_of(&letter["errors"]));
    assert!(errors.any(|error| text_field(error, "message").contains("RFC 3339")), "{letters:#?}");
    let count = bodies.len() as f64;
    app.waypost.wait_for_metric("waypost_events_total{result=\"malformed\"}", count).await;
    assert_eq!(app.waypost.metric("waypost_dead_letters_total{reason=\"malformed\"}").await, count);
}

/// The body in a letter.
fn kept_body(letter: &Value) -> Vec<u8> {
    use base64::Engine as _;
    match (letter["body"].as_str(), letter["bodyBase64"].as_str()) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(base64)) => base64::engine::general_purpose::STANDARD.decode(base64).expect("base64"),
        other => panic!("not exactly one of body and bodyBase64: {other:?}"),
    }
}

#[tokio::test]
async fn equal_malformed_bodies_have_a_letter_each() {
    let app = TestApp::start().await;
    let messages: Vec<Message> = (0..3).map(|_| Message::raw("no event")).collect();
    app.amqp.publish(&format!("{}.events", app.prefix), messages).await;
    let letters = app.dead_letters(3).await;
    let ids: BTreeSet<&str> = letters.iter().filter_map(|letter| letter["id"].as_str()).collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_poison_message_is_dead_lettered_unchanged() {
    let app = TestApp::builder().process().start().await;
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
    // In place of a worker that crashes on this event each time.
    let (queue, stream) = (format!("{}.events", app.prefix), format!("{}.dead-letters", app.prefix));
    let event = step_event().keyword(3).id("poison").json();
    app.publish(&event).await;
    let dead = app.amqp.read_stream(&stream, |records| !records.is_empty());
    let records = app.amqp.requeue_until(&queue, dead).await;
    assert_eq!(records[0].json(), event, "the body as it was published");
    assert_eq!(records[0].header("x-first-death-reason").as_deref(), Some("delivery_limit"));
    wait_until("an empty queue", DEFAULT_TIMEOUT, async || (app.amqp.depth(&queue).await == Some(0)).then_some(()))
        .await;
}
