//! Messages that the broker removes from a queue become dead letters with the broker's reason. Each is counted once and
//! can be replayed.

use std::collections::BTreeSet;

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use waypost_core::replay::ReplayState;

use crate::support::broker::broker_version;
use crate::support::dead_letters::{ids, text_field};
use crate::support::json::{first_attempt, only, webhook_mut};
use crate::support::raw_amqp::{RawMessage, Rejection, TextProperty, publish_raw, reject_raw, short_string};
use crate::support::{Answer, Broker, Message, Waypost, wait_until};
use crate::test_app::{SLOW_TIMEOUT, TestApp, events_with_keyword, example_campaign, step_event};

async fn stop_worker(app: &TestApp) {
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
}

/// The letters with a reason, each with its details, once there are `count`.
async fn letters_with_reason(waypost: &Waypost, reason: &str, count: usize) -> Vec<Value> {
    let mut letters = Vec::new();
    for id in ids(&waypost.wait_for_letters(&format!("reason={reason}"), count).await) {
        letters.push(waypost.letter(&id).await);
    }
    letters
}

/// Replays all letters with a reason, and waits until the replay is done.
async fn replay_reason(waypost: &Waypost, reason: &str) {
    let replay = waypost.create_replay(&json!({ "filter": { "reason": reason } })).await;
    waypost.wait_for_replay(&replay, ReplayState::Done).await;
}

/// Asserts that the letter contains an event that was removed before a worker consumed it.
#[track_caller]
fn assert_letter_of_event(letter: &Value, event: &Value) {
    assert_eq!(text_field(letter, "body"), event.to_string());
    for (field, value) in
        [("eventId", &event["eventId"]), ("campaignId", &event["campaignId"]), ("label", &event["label"])]
    {
        assert_eq!(&letter[field], value, "{field} of {letter:#}");
    }
    assert_eq!(letter["event"]["phoneNumber"], event["phoneNumber"]);
    for field in ["errors", "deliveryId", "webhookId", "url", "attempts"] {
        assert!(letter.get(field).is_none_or(Value::is_null), "{field} of {letter:#}");
    }
}

#[tokio::test]
async fn an_expired_event_becomes_a_letter_and_can_be_replayed() {
    let app = TestApp::builder().process().start().await;
    stop_worker(&app).await;
    let event = step_event().keyword(3).id("expired").json();
    app.amqp.publish(&format!("{}.events", app.prefix), [Message::event(&event).expiration(50)]).await;
    app.amqp.wait_for_depth(&format!("{}.events", app.prefix), 0).await;
    app.waypost.restart().await;
    assert_letter_of_event(only(&letters_with_reason(&app.waypost, "expired", 1).await), &event);
    replay_reason(&app.waypost, "expired").await;
    app.receiver.expect_any().await;
    assert_eq!(app.waypost.metric("waypost_dead_letters_total{reason=\"expired\"}").await, 1.0);
}

#[tokio::test]
async fn rejected_events_become_letters_with_any_properties() {
    let app = TestApp::builder().process().start().await;
    stop_worker(&app).await;
    let (events, event) = (format!("{}.events", app.prefix), step_event().keyword(3).id("rejected").json());
    // lapin alone would end the consumer at the first such record.
    let odd = RawMessage::new(b"13010", &event).text(TextProperty::CorrelationId, b"Jos\xE9");
    publish_raw(Broker::shared().await, events.as_bytes(), vec![odd]).await;
    app.amqp.publish(&events, [Message::raw("no event").id("the-id")]).await;
    reject_raw(Broker::shared().await, &events, 2, Rejection::Remove).await;
    app.waypost.restart().await;
    let letters = letters_with_reason(&app.waypost, "rejected", 2).await;
    let (unread, read): (Vec<&Value>, Vec<&Value>) = letters.iter().partition(|letter| letter["errors"].is_array());
    assert_letter_of_event(read[0], &event);
    assert_eq!((text_field(unread[0], "body"), text_field(unread[0], "messageId")), ("no event", "the-id"));
}

#[tokio::test]
async fn the_reason_is_the_latest_removal() {
    let app = TestApp::builder().process().start().await;
    stop_worker(&app).await;
    let events = format!("{}.events", app.prefix);
    // The platform delays messages by expiry, so its messages have expired once before they reach Waypost.
    let (channel, delay) = (app.amqp.channel().await, format!("{}.platform-delay", app.prefix));
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(10));
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(events.as_str().into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("13010".into()));
    channel.queue_declare(delay.as_str().into(), QueueDeclareOptions::default(), arguments).await.expect("a queue");
    let exchange = "amq.direct";
    let bound = channel.queue_bind(
        delay.as_str().into(),
        exchange.into(),
        delay.as_str().into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("a binding");
    let event = step_event().keyword(3).id("late").json();
    app.amqp.publish(exchange, [Message::event(&event).key(&delay)]).await;
    app.amqp.wait_for_depth(&events, 1).await;
    app.amqp.reject(&events, 1).await;
    app.waypost.restart().await;
    // Before 3.13 a stream does not keep the reason.
    let reason = if broker_version().starts_with("3.10") { "poison" } else { "rejected" };
    assert_letter_of_event(only(&letters_with_reason(&app.waypost, reason, 1).await), &event);
    app.amqp.publish(exchange, [Message::event(&step_event().keyword(3).id("later").json()).key(&delay)]).await;
    app.receiver.expect_any().await;
}

#[tokio::test]
async fn an_event_published_to_the_stream_becomes_a_letter() {
    let app = TestApp::start().await;
    let event = step_event().keyword(3).id("shovelled").json();
    app.amqp.publish(&format!("{}.dead-letters", app.prefix), [Message::event(&event)]).await;
    assert_letter_of_event(only(&letters_with_reason(&app.waypost, "rejected", 1).await), &event);
    replay_reason(&app.waypost, "rejected").await;
    app.receiver.expect_any().await;
}

#[tokio::test]
async fn a_poison_retry_becomes_a_letter_of_its_delivery() {
    let app = TestApp::builder().process().start().await;
    app.receiver.reply("/agent", Answer::status(503).body("overloaded"));
    app.publish(step_event().keyword(3).id("poison")).await;
    app.receiver.expect_any().await;
    app.waypost.wait_for_metric("waypost_retries_scheduled_total", 1.0).await;
    stop_worker(&app).await;
    // In place of a worker that crashes on it each time.
    let (retries, stream) = (format!("{}.retries", app.prefix), format!("{}.dead-letters", app.prefix));
    let dead = app.amqp.read_stream_within(SLOW_TIMEOUT, &stream, |records| !records.is_empty());
    app.amqp.requeue_until(&retries, dead).await;
    app.receiver.reply("/agent", 200);
    app.waypost.restart().await;
    let letter = letters_with_reason(&app.waypost, "poison", 1).await.remove(0);
    assert_eq!((text_field(&letter, "eventId"), &letter["status"]), ("poison", &json!(503)), "{letter:#}");
    assert_eq!(text_field(first_attempt(&letter), "answer"), "overloaded");
    let before = app.receiver.requests().len();
    replay_reason(&app.waypost, "poison").await;
    let requests = app.receiver.requests();
    assert_eq!((requests.len(), requests[before].webhook_id()), (before + 1, text_field(&letter, "deliveryId")));
}

/// RabbitMQ 4.3.6 fails to dead-letter this message, and then can't declare queues.
#[tokio::test]
async fn a_worker_dead_letters_a_message_before_its_delivery_limit() {
    let app = TestApp::builder().process().start().await;
    stop_worker(&app).await;
    let (events, event) = (format!("{}.events", app.prefix), step_event().keyword(3).id("returned").json());
    let odd = RawMessage::new(b"13010", &event).text(TextProperty::ReplyTo, b"Jos\xE9");
    publish_raw(Broker::shared().await, events.as_bytes(), vec![odd]).await;
    reject_raw(Broker::shared().await, &events, 95, Rejection::Requeue).await;
    app.waypost.restart().await;
    assert_letter_of_event(only(&letters_with_reason(&app.waypost, "poison", 1).await), &event);
    app.amqp.wait_for_depth(&events, 0).await;
    let stream = format!("{}.dead-letters", app.prefix);
    let records = app.amqp.read_stream(&stream, |records| !records.is_empty()).await;
    assert_eq!(records[0].json()["reason"], "poison", "the first record is a worker's");
    assert_eq!(app.receiver.requests().len(), 0);
    replay_reason(&app.waypost, "poison").await;
    app.receiver.expect_any().await;
    // A message may have the header from another queue.
    let count = [short_string(b"x-delivery-count"), [b"l".as_slice(), &500_i64.to_be_bytes()].concat()].concat();
    let moved = RawMessage::new(b"13010", step_event().keyword(3).id("moved").json()).headers(&count);
    publish_raw(Broker::shared().await, events.as_bytes(), vec![moved]).await;
    app.receiver.expect_any().times(2).await;
}

#[tokio::test]
async fn each_delivery_of_a_parked_batch_becomes_one_letter() {
    const DELIVERIES: usize = 60;
    let app = TestApp::builder().process().start().await;
    let other = app.start_second_worker().await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 3)["maxConcurrency"] = json!(1);
    app.waypost.put_campaign(&campaign).await;
    app.receiver.reply("/agent", Answer::never());
    app.amqp.publish_events(&app.prefix, &events_with_keyword(DELIVERIES, 3)).await;
    let parked = async || {
        let parked = parked_count(&app.waypost).await + parked_count(&other).await;
        (parked >= DELIVERIES as f64 - 4.0).then_some(())
    };
    wait_until("parked deliveries", SLOW_TIMEOUT, parked).await;
    app.waypost.kill().await;
    other.kill().await;
    // Most deliveries wait for minutes, so the test moves them to the retries queue, and rejects them with those that
    // returned on their own.
    let retries = format!("{}.retries", app.prefix);
    let waiting = take_waiting(&app).await;
    app.amqp.publish("", waiting.iter().map(|body| Message::raw(body.clone()).key(&retries))).await;
    let count = app.amqp.depth(&retries).await.expect("the queue of retries") as usize;
    let rejected = app.amqp.reject(&retries, count).await;
    // The other worker also delivers an event whose worker crashed, so a delivery may die twice.
    let dead: Vec<String> = rejected.iter().flat_map(|body| delivery_ids(body)).collect();
    let expected: BTreeSet<String> = dead.iter().cloned().collect();
    assert!(rejected.len() < dead.len(), "some deliveries share a message");
    app.receiver.reply("/agent", 200);
    app.waypost.restart().await;
    other.restart().await;

    let letters = letters_with_reason(&app.waypost, "rejected", dead.len()).await;
    let found: BTreeSet<String> = letters.iter().map(|letter| text_field(letter, "deliveryId").to_owned()).collect();
    assert_eq!(found, expected);
    let counted = async |name: &str| app.waypost.metric(name).await + other.metric(name).await;
    let rejected = "waypost_dead_letters_total{reason=\"rejected\"}";
    let count = dead.len() as f64;
    wait_until("each counted", SLOW_TIMEOUT, async || (counted(rejected).await == count).then_some(())).await;
    assert_eq!(counted("waypost_deliveries_total{outcome=\"dead\"}").await, count);
    // A new worker has the same letters and adds none.
    let new = app.start_second_worker().await;
    assert_eq!(ids(&new.wait_for_letters("reason=rejected", letters.len()).await).len(), dead.len());
    replay_reason(&app.waypost, "rejected").await;
    let delivered: BTreeSet<String> =
        app.receiver.requests().iter().map(|request| request.webhook_id().to_owned()).collect();
    assert!(delivered.is_superset(&expected));
    assert_eq!(counted(rejected).await + new.metric(rejected).await, count);
}

async fn parked_count(waypost: &Waypost) -> f64 {
    waypost.metric_sum("waypost_deliveries_parked_total").await
}

/// Takes all messages of the delay queues.
async fn take_waiting(app: &TestApp) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for seconds in (0..16).map(|power| 1 << power) {
        bodies.extend(app.amqp.take_all_messages(&format!("{}.delay.{seconds}", app.prefix)).await);
    }
    bodies
}

fn delivery_ids(body: &[u8]) -> Vec<String> {
    let one_or_several: Value = serde_json::from_slice(body).expect("JSON");
    let deliveries = one_or_several.as_array().cloned().unwrap_or_else(|| vec![one_or_several]);
    deliveries.iter().map(|delivery| text_field(delivery, "id").to_owned()).collect()
}

#[tokio::test]
async fn messages_removed_by_policies_become_letters() {
    let broker = Broker::private().await;
    let app = TestApp::builder().process().broker(&broker.url()).start().await;
    stop_worker(&app).await;
    let events = format!("{}.events", app.prefix);
    let pattern = format!("^{}$", events.replace('.', "\\."));
    let policy = async |definition| {
        broker.ctl(&["set_policy", "--apply-to", "queues", "short", &pattern, definition]).await;
    };
    policy(r#"{"message-ttl":50}"#).await;
    app.publish(step_event().keyword(3).id("event-ttl")).await;
    app.amqp.wait_for_depth(&events, 0).await;
    policy(r#"{"max-length":1,"overflow":"drop-head"}"#).await;
    app.amqp.publish_events(&app.prefix, &events_with_keyword(3, 3)).await;
    app.amqp.wait_for_depth(&events, 1).await;
    app.waypost.restart().await;
    let mut expected = vec![("event-ttl", "expired")];
    // RabbitMQ 3.10 drops them without a trace if a policy changed the overflow behavior.
    if !broker_version().starts_with("3.10") {
        expected.extend([("event-0", "maxlen"), ("event-1", "maxlen")]);
    }
    let removed = app.waypost.wait_for_letters("", expected.len()).await;
    let reasons: BTreeSet<(&str, &str)> =
        removed.iter().map(|letter| (text_field(letter, "eventId"), text_field(letter, "reason"))).collect();
    assert_eq!(reasons, expected.into_iter().collect());
}
