//! Retries after failed attempts, and the content of the dead letters.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::dead_letters::text_field;
use crate::support::json::{find_by, first_attempt, only, remove_entry, section_mut, webhook_mut};
use crate::support::{Answer, DEFAULT_TIMEOUT, wait_until};
use crate::test_app::{SLOW_TIMEOUT, TestApp, events_with_keyword, example_campaign, step_event};

#[tokio::test]
async fn a_failing_delivery_is_retried_with_the_same_id_until_it_succeeds() {
    let app = TestApp::start().await;
    // The reset is on a new connection, because a request on a reused one is sent again immediately.
    let redirect = Answer::status(302).header("location", "/elsewhere").header("connection", "close");
    app.receiver.reply("/offers", [Answer::status(500), redirect, Answer::reset(), Answer::ok()]);
    app.publish(step_event().keyword(4)).await;
    let requests = app.receiver.expect("/offers").times(4).same_webhook_id().same_body().await;
    assert_eq!(app.receiver.requests().len(), 4, "the redirect was followed");
    for pair in requests.windows(2) {
        let wait = pair[1].at - pair[0].at;
        assert!(wait >= Duration::from_millis(950), "waited {wait:?} instead of 1 s");
    }
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", 1.0).await;
    assert_eq!(app.waypost.metric("waypost_retries_scheduled_total").await, 3.0);
    for cause in ["status_5xx", "status_3xx", "reset"] {
        let name = format!("waypost_attempts_total{{cause=\"{cause}\",outcome=\"retry\"}}");
        assert_eq!(app.waypost.metric(&name).await, 1.0, "{name}");
    }
}

#[tokio::test]
async fn retry_after_delays_the_next_attempt() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", [Answer::status(429).header("retry-after", "3"), Answer::ok()]);
    app.publish(step_event().keyword(4)).await;
    let requests = app.receiver.expect("/offers").times(2).same_webhook_id().await;
    let wait = requests[1].at - requests[0].at;
    assert!(wait >= Duration::from_millis(2_950), "waited {wait:?} instead of 3 s");
    assert_eq!(app.waypost.metric("waypost_retries_scheduled_total").await, 1.0, "waits on several delay queues");
}

#[tokio::test]
async fn a_delivery_that_is_never_accepted_becomes_a_dead_letter_with_its_history() {
    let app = TestApp::builder().set("retry.maxAttempts", 3).start().await;
    app.receiver.reply("/offers", Answer::status(503).body("overloaded"));
    app.publish(step_event().keyword(4).id("e-1")).await;
    let letters = app.dead_letters(1).await;
    let letter = only(&letters);
    let requests = app.receiver.requests();
    assert_eq!(requests.len(), 3);
    for (field, expected) in [
        ("state", json!("pending")),
        ("reason", json!("exhausted")),
        ("campaignId", json!("13010")),
        ("label", json!("Welcome Message")),
        ("deliveryId", json!(requests[0].webhook_id())),
        ("eventId", json!("e-1")),
        ("url", json!(app.receiver.url("/offers"))),
        ("status", json!(503)),
        ("cause", json!("status_5xx")),
    ] {
        assert_eq!(letter[field], expected, "{field} of {letter:#}");
    }
    let attempts = letter["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 3);
    for attempt in attempts {
        assert_eq!((&attempt["status"], &attempt["answer"]), (&json!(503), &json!("overloaded")));
        assert!(attempt["at"].is_string() && attempt["durationMs"].is_u64(), "{attempt:#}");
    }
    assert_eq!(letter["firstAttemptAt"], first_attempt(letter)["at"]);
    assert_eq!(letter["event"]["keyword"], json!(4));
    assert_eq!(letter["target"]["webhook"]["headers"], json!({ "X-Api-Key": "********" }), "a secret in a dead letter");
    assert_eq!(letter["event"]["date"], json!("2024-06-18T23:26:14.206Z"));
    app.waypost.wait_for_metric("waypost_dead_letters_total{reason=\"exhausted\"}", 1.0).await;
}

#[tokio::test]
async fn a_webhooks_own_policy_takes_precedence() {
    let app = TestApp::start().await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 4)["retry"] = json!({ "maxAttempts": 2, "permanentStatuses": [404] });
    app.waypost.put_campaign(&campaign).await;
    app.receiver.reply("/offers", [410, 410, 404]);
    app.publish(step_event().keyword(4).id("e-1")).await;
    let letters = app.dead_letters(1).await;
    assert_eq!(only(&letters)["reason"], "exhausted", "410 is no permanent status here");
    app.publish(step_event().keyword(4).id("e-2")).await;
    let letters = app.dead_letters(2).await;
    assert_eq!(find_by(&letters, "eventId", "e-2")["reason"], "gone");
    assert_eq!(app.receiver.requests().len(), 3);
}

#[tokio::test]
async fn permanent_failures_are_not_retried() {
    let app = TestApp::start().await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 5)["url"] = json!("http://10.255.255.1/never-dialled");
    app.put_campaign_allowed_earlier(&campaign).await;
    app.receiver.reply("/offers", 410);
    app.publish(step_event().keyword(4).id("e-1")).await;
    app.publish(step_event().keyword(5).id("e-2")).await;
    let letters = app.dead_letters(2).await;
    let gone = find_by(&letters, "eventId", "e-1");
    assert_eq!((&gone["reason"], &gone["status"]), (&json!("gone"), &json!(410)));
    let forbidden = find_by(&letters, "eventId", "e-2");
    assert_eq!(
        (text_field(forbidden, "reason"), text_field(forbidden, "cause")),
        ("forbidden_address", "forbidden_address")
    );
    assert_eq!(forbidden["status"], Value::Null);
}

#[tokio::test]
async fn a_waiting_delivery_is_dead_when_its_webhook_is_removed() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", 500);
    app.receiver.reply("/survey", 500);
    app.publish(step_event().keyword(4).id("e-deleted")).await;
    app.publish(step_event().keyword(5).id("e-disabled")).await;
    app.receiver.expect_any().at_least(2).await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 5)["enabled"] = json!(false);
    remove_entry(&mut campaign, "Welcome Message", 4);
    app.waypost.put_campaign(&campaign).await;
    let letters = app.dead_letters(2).await;
    let reason = |event: &str| text_field(find_by(&letters, "eventId", event), "reason");
    assert_eq!((reason("e-deleted"), reason("e-disabled")), ("webhook_deleted", "webhook_disabled"));
    // Both keep the destination and status of their last attempt.
    assert!(letters.iter().all(|letter| letter["url"].is_string() && letter["status"] == 500), "{letters:#?}");
}

#[tokio::test]
async fn a_retry_uses_the_current_webhook() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", 500);
    app.publish(step_event().keyword(4).id("e-1")).await;
    app.receiver.expect("/offers").at_least(1).await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 4)["url"] = json!(app.receiver.url("/mended"));
    webhook_mut(&mut campaign, "Welcome Message", 4)["body"] = json!({ "source": "mended" });
    app.waypost.put_campaign(&campaign).await;
    let requests = app.receiver.expect("/mended").await;
    assert_eq!(only(&requests).json()["source"], "mended");
    assert_eq!(app.receiver.requests_by_webhook_id().len(), 1, "the same delivery");
}

#[tokio::test]
async fn a_waiting_retry_is_in_the_broker_and_survives_its_worker() {
    let app = TestApp::builder().process().set("retry.initialDelay", "4s").start().await;
    app.receiver.reply("/offers", [500, 200]);
    app.publish(step_event().keyword(4).id("e-1")).await;
    app.waypost.wait_for_metric("waypost_retries_scheduled_total", 1.0).await;
    let rung = format!("{}.delay.4", app.prefix);
    wait_until("the delivery in its delay queue", DEFAULT_TIMEOUT, async || {
        (app.amqp.depth(&rung).await == Some(1)).then_some(())
    })
    .await;
    app.waypost.kill().await;
    app.waypost.restart().await;
    app.receiver.expect("/offers").times(2).same_webhook_id().await;
}

#[tokio::test]
async fn deliveries_that_fail_together_share_messages() {
    const DELIVERIES: usize = 200;
    let app = TestApp::builder().set("retry.initialDelay", "2s").start().await;
    app.receiver.reply("/agent", 500);
    app.amqp.publish_events(&app.prefix, &events_with_keyword(DELIVERIES, 3)).await;
    app.waypost.wait_for_metric("waypost_retries_scheduled_total", DELIVERIES as f64).await;
    let messages = app.waypost.metric("waypost_ladder_messages_total{movement=\"put\"}").await;
    assert!(messages <= DELIVERIES as f64 / 2.0, "{messages} messages for {DELIVERIES} deliveries");
    app.receiver.reply("/agent", 200);
    app.receiver.expect("/agent").times(2 * DELIVERIES).within(SLOW_TIMEOUT).await;
    let attempts = app.receiver.requests_by_webhook_id();
    assert_eq!(attempts.len(), DELIVERIES);
    assert!(attempts.values().all(|attempts| *attempts == 2), "a delivery was sent too often: {attempts:?}");
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"delivered\"}", DELIVERIES as f64).await;
}

#[tokio::test]
async fn a_worker_killed_between_the_retry_and_the_acknowledgement_loses_nothing() {
    // As many requests as an unknown receiver gets at once.
    const EVENTS: usize = 8;
    let app = TestApp::builder().process().set("retry.initialDelay", "4s").start().await;
    let mut campaign = example_campaign(&app.receiver);
    // Each event has two deliveries. One hangs, so the event is not acknowledged although the other one waits for its
    // retry.
    section_mut(&mut campaign, "Welcome Message")["webhook"] =
        json!({ "url": app.receiver.url("/hangs"), "timeoutMs": 30_000 });
    app.waypost.put_campaign(&campaign).await;
    app.receiver.reply("/hangs", Answer::never());
    app.receiver.reply("/agent", 500);
    app.amqp.publish_events(&app.prefix, &events_with_keyword(EVENTS, 3)).await;
    app.waypost.wait_for_metric("waypost_retries_scheduled_total", EVENTS as f64).await;
    let messages = app.waypost.metric("waypost_ladder_messages_total{movement=\"put\"}").await;
    assert!(messages < EVENTS as f64, "{messages} messages for {EVENTS} deliveries");
    app.waypost.kill().await;
    app.receiver.reply("/hangs", 200);
    app.receiver.reply("/agent", 200);
    app.waypost.restart().await;
    // The events are delivered again, and the retries come back.
    app.receiver.expect("/agent").times(3 * EVENTS).within(SLOW_TIMEOUT).await;
    app.receiver.expect("/hangs").times(2 * EVENTS).within(SLOW_TIMEOUT).await;
    let mut attempts: Vec<usize> = app.receiver.requests_by_webhook_id().into_values().collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [[2; EVENTS], [3; EVENTS]].concat());
}

#[tokio::test]
async fn a_long_wait_delays_no_other_delivery() {
    let app = TestApp::start().await;
    app.receiver.reply("/survey", Answer::status(503).header("retry-after", "3600"));
    app.receiver.reply("/offers", [500, 200]);
    app.publish(step_event().keyword(5).id("e-long")).await;
    app.waypost.wait_for_metric("waypost_retries_scheduled_total", 1.0).await;
    app.publish(step_event().keyword(4).id("e-short")).await;
    app.receiver.expect("/offers").times(2).same_webhook_id().await;
    assert_eq!(app.amqp.depth(&format!("{}.delay.2048", app.prefix)).await, Some(1));
}
