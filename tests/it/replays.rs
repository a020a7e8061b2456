//! Replays of dead letters: requests, the resulting state of letters, and the rate.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use waypost_core::ids::WebhookId;
use waypost_core::replay::{Replay, ReplayState};

use crate::support::dead_letters::{header_value, ids, text_field};
use crate::support::json::{newest, oldest, only, only_of, remove_entry, webhook_mut};
use crate::support::receiver::Request;
use crate::support::{Answer, Message, Receiver};
use crate::test_app::{TestApp, example_campaign, step_event};

const SECOND: Duration = Duration::from_secs(1);

/// The counters of a replay: total, sent, delivered, failed. Letters that were published as events again are in none of
/// these.
fn counts(replay: &Replay) -> [u64; 4] {
    [replay.total, replay.sent, replay.delivered, replay.failed]
}

#[tokio::test]
async fn a_letter_replayed_by_id_is_sent_unchanged() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", 410);
    app.publish(step_event().keyword(4).id("e-1")).await;
    app.publish(step_event().keyword(4).id("e-2")).await;
    let letters = app.waypost.wait_for_letters("", 2).await;
    let (letter, other) = (text_field(newest(&letters), "id"), text_field(oldest(&letters), "id"));
    let delivery = text_field(newest(&letters), "deliveryId");
    app.receiver.reply("/offers", 200);

    let reply = app.waypost.post("/v1/replays", &json!({ "ids": [letter] })).await;
    assert_eq!(reply.status, 202, "{reply:?}");
    let ordered = reply.json();
    let id = text_field(&ordered, "id");
    assert!(id.starts_with("rp_"), "{ordered:#}");
    assert_eq!(
        (&ordered["ids"], &ordered["total"], &ordered["config"]),
        (&json!([letter]), &json!(1), &json!("current"))
    );
    let replay = app.waypost.wait_for_replay(id, ReplayState::Done).await;
    assert_eq!(counts(&replay), [1, 1, 1, 0], "{replay:#?}");
    assert!(replay.ended_at.is_some_and(|end| replay.created_at <= end), "{replay:#?}");
    assert!(ordered["createdBy"].is_string(), "{ordered:#}");

    let requests = app.receiver.requests();
    let sent: Vec<&Request> = requests.iter().filter(|request| request.webhook_id() == delivery).collect();
    assert_eq!((requests.len(), sent.len()), (3, 2), "one more request of the same delivery");
    assert_eq!(sent[0].body, sent[1].body);
    for name in ["content-type", "user-agent", "x-api-key"] {
        assert_eq!(sent[0].header(name), sent[1].header(name), "{name}");
    }
    app.waypost.wait_for_letter_count("state=replayed", 1).await;
    let letter = app.waypost.letter(letter).await;
    let link = only_of(&letter["replays"]);
    assert_eq!(text_field(&letter, "state"), "replayed");
    assert_eq!((text_field(link, "replayId"), text_field(link, "outcome")), (id, "delivered"));
    assert!(
        text_field(link, "at") >= text_field(&ordered, "createdAt")
            && link.get("deadLetterId").is_none_or(Value::is_null)
    );
    assert_eq!(text_field(&app.waypost.letter(other).await, "state"), "pending");
    app.waypost.wait_for_metric("waypost_replayed_total{outcome=\"delivered\"}", 1.0).await;
}

#[tokio::test]
async fn a_filter_replays_exactly_the_matching_letters() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 12).await;
    app.create_dead_letters(4, 30).await;
    let letters = app.waypost.letters("").await;
    let webhook = text_field(newest(&letters), "webhookId");
    let discarded = ids(&letters[..2]);
    app.waypost.discard(&json!({ "ids": discarded })).await;
    app.waypost.wait_for_letter_count("state=discarded", 2).await;

    let filter = json!({ "webhookId": webhook, "reason": "gone", "status": 410 });
    let replay = app.waypost.create_replay(&json!({ "filter": filter })).await;
    let replay = app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    assert_eq!(counts(&replay), [28, 28, 28, 0], "{replay:#?}");
    let webhook_of_filter = replay.filter.and_then(|filter| filter.webhook_id);
    assert_eq!(webhook_of_filter.as_ref().map(WebhookId::as_str), Some(webhook));
    let expected: BTreeMap<String, usize> =
        letters[2..30].iter().map(|letter| (text_field(letter, "deliveryId").to_owned(), 1)).collect();
    assert_eq!(app.receiver.requests_by_webhook_id(), expected);
    app.waypost.wait_for_state_counts(&[("pending", 12), ("replayed", 28), ("discarded", 2)]).await;

    // Discarded letters are replayed only if the filter names their state.
    let named = json!({ "filter": { "state": "discarded" } });
    let replay = app.waypost.create_replay(&named).await;
    assert_eq!(counts(&app.waypost.wait_for_replay(&replay, ReplayState::Done).await), [2, 2, 2, 0]);
    app.waypost.wait_for_state_counts(&[("pending", 12), ("replayed", 30)]).await;
}

#[tokio::test]
async fn a_failed_replay_creates_a_linked_letter_without_retries() {
    let app = TestApp::start().await;
    app.create_dead_letters(4, 3).await;
    let old = app.waypost.letters("").await;
    let answers =
        vec![Answer::status(500).body("still broken"), Answer::status(429).header("retry-after", "1"), Answer::reset()];
    app.receiver.reply("/offers", answers);
    let scheduled = app.waypost.metric("waypost_retries_scheduled_total").await;
    let id = app.waypost.create_replay(&json!({ "ids": ids(&old) })).await;
    let replay = app.waypost.wait_for_replay(&id, ReplayState::Done).await;
    assert_eq!(counts(&replay), [3, 3, 0, 3], "{replay:#?}");
    let new = app.waypost.wait_for_letters("state=pending", 3).await;
    app.waypost.wait_for_letter_count("state=replayed", 3).await;
    for old in &old {
        let old = app.waypost.letter(text_field(old, "id")).await;
        let link = only_of(&old["replays"]);
        assert_eq!((text_field(link, "replayId"), text_field(link, "outcome")), (id.as_str(), "dead"), "{old:#}");
        let new = new.iter().find(|new| new["id"] == link["deadLetterId"]).expect("the new letter");
        assert_eq!(
            (text_field(new, "replayOf"), text_field(new, "replayId")),
            (text_field(&old, "id"), id.as_str()),
            "{new:#}"
        );
        for same in ["deliveryId", "eventId", "campaignId", "label", "webhookId", "event"] {
            assert_eq!(new[same], old[same], "{same}");
        }
        let attempts = new["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.last().map(|attempt| &attempt["cause"]), Some(&new["cause"]), "{new:#}");
    }
    let mut causes: Vec<&str> = new.iter().map(|letter| text_field(letter, "cause")).collect();
    causes.sort_unstable();
    assert_eq!(causes, ["reset", "status_429", "status_5xx"]);

    // A retry would be waiting by now, because the result of an attempt is durable before it is reported.
    assert_eq!(app.waypost.metric("waypost_retries_scheduled_total").await, scheduled);
    assert_eq!(app.amqp.depth(&format!("{}.delay.1", app.prefix)).await, Some(0));
    // One attempt for each letter. After a reset of a reused connection, the request of that attempt is sent again.
    let requests: Vec<usize> = app.receiver.requests_by_webhook_id().into_values().collect();
    assert!(requests.len() == 3 && (3..=4).contains(&requests.iter().sum::<usize>()), "{requests:?}");
    assert!(new.iter().all(|letter| letter["attempts"].as_array().map(Vec::len) == Some(1)), "{new:#?}");
    app.waypost.wait_for_metric("waypost_replayed_total{outcome=\"dead\"}", 3.0).await;

    // The new letter can be replayed too.
    app.receiver.reply("/offers", 200);
    let id = app.waypost.create_replay(&json!({ "filter": { "reason": text_field(&new[0], "reason") } })).await;
    let replay = app.waypost.wait_for_replay(&id, ReplayState::Done).await;
    assert_eq!(replay.failed, 0, "{replay:#?}");
}

#[tokio::test]
async fn a_malformed_message_is_published_again_unchanged() {
    let app = TestApp::start().await;
    let bodies: [&[u8]; 3] = [b"no event", b"\xff\xfe{}\x00", b" { \"campaignId\" : \"13010\" , \"date\":1.50 }\n"];
    app.amqp.publish(&format!("{}.events", app.prefix), bodies.map(Message::raw)).await;
    let old = app.waypost.wait_for_letters("reason=malformed", bodies.len()).await;
    let id = app.waypost.create_replay(&json!({ "filter": { "reason": "malformed" } })).await;
    let replay = app.waypost.wait_for_replay(&id, ReplayState::Done).await;
    assert_eq!((counts(&replay), replay.requeued), ([3, 3, 0, 0], 3), "{replay:#?}");
    // They are still malformed.
    let new = app.waypost.wait_for_letters("state=pending", bodies.len()).await;
    let kept = |letters: &[Value]| {
        let mut kept: Vec<String> =
            letters.iter().map(|letter| format!("{:?} {:?}", letter.get("body"), letter.get("bodyBase64"))).collect();
        kept.sort();
        kept
    };
    assert_eq!(kept(&new), kept(&old));
    app.waypost.wait_for_state_counts(&[("pending", 3), ("replayed", 3)]).await;
    for old in ids(&old) {
        assert!(!ids(&new).contains(&old), "{old} is pending again");
        let old = app.waypost.letter(&old).await;
        let link = only_of(&old["replays"]);
        assert_eq!((text_field(link, "outcome"), text_field(link, "replayId")), ("requeued", id.as_str()));
    }
    app.waypost.wait_for_metric("waypost_events_total{result=\"malformed\"}", 6.0).await;
}

#[tokio::test]
async fn a_poison_message_is_published_as_an_event_again() {
    let app = TestApp::builder().process().start().await;
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
    app.create_poison_message(&step_event().keyword(3).id("poison").json()).await;
    app.waypost.restart().await;
    let letters = ids(&app.waypost.wait_for_letters("reason=poison", 1).await);
    let replay = app.waypost.create_replay(&json!({ "ids": letters })).await;
    app.receiver.expect("/agent").await;
    app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    app.waypost.wait_for_state_counts(&[("replayed", 1)]).await;
    assert_eq!(
        text_field(only_of(&app.waypost.letter(only::<String>(&letters)).await["replays"]), "outcome"),
        "requeued"
    );
}

#[tokio::test]
async fn current_or_original_configuration_is_used() {
    let app = TestApp::start().await;
    app.receiver.reply("/offers", 410);
    for event in ["e-1", "e-2"] {
        app.publish(step_event().keyword(4).id(event)).await;
    }
    let letters = ids(&app.waypost.wait_for_letters("", 2).await);
    let first = app.receiver.requests();
    let mut campaign = example_campaign(&app.receiver);
    let webhook = campaign.pointer_mut("/sections/0/menu/3/webhook").expect("a webhook");
    webhook["url"] = app.receiver.url("/mended").into();
    webhook["headers"] = json!({ "X-Api-Key": "the-new-key" });
    app.waypost.put_campaign(&campaign).await;
    app.receiver.reply("/offers", 200);
    app.receiver.clear_requests();

    let [current, original] = &letters[..] else { panic!("not two letters: {letters:?}") };
    for (letter, config, path) in [(current, "current", "/mended"), (original, "original", "/offers")] {
        let replay = app.waypost.create_replay(&json!({ "ids": [letter], "config": config })).await;
        let replay = app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
        assert_eq!((replay.config.as_str(), counts(&replay)), (config, [1, 1, 1, 0]), "{replay:#?}");
        let requests = app.receiver.requests();
        let request = requests.last().expect("a request");
        // Only the webhook stores the values of headers.
        assert_eq!((request.path(), request.header("x-api-key")), (path, Some("the-new-key")), "{config}");
        let earlier = first.iter().find(|first| first.webhook_id() == request.webhook_id()).expect("the same delivery");
        assert_eq!(request.body, earlier.body, "{config}");
        app.receiver.clear_requests();
    }
}

#[tokio::test]
async fn letters_of_deleted_webhooks_have_no_original_configuration() {
    let app = TestApp::start().await;
    app.receiver.reply("/survey", 503);
    let mut disabled = example_campaign(&app.receiver);
    webhook_mut(&mut disabled, "Welcome Message", 5)["enabled"] = json!(false);
    app.publish(step_event().keyword(5).id("e-1")).await;
    app.receiver.expect_any().at_least(1).await;
    app.waypost.put_campaign(&disabled).await;
    let letters = app.waypost.wait_for_letters("reason=webhook_disabled", 1).await;
    let letter = only(&letters);
    assert_eq!((text_field(letter, "url"), &letter["status"]), (&*app.receiver.url("/survey"), &json!(503)));
    app.waypost.put_campaign(&example_campaign(&app.receiver)).await;
    app.receiver.reply("/survey", 200);

    let by_id = json!({ "ids": ids(&letters), "config": "original" });
    let refused = app.waypost.post("/v1/replays", &by_id).await.expect_problem(409);
    let detail = refused.detail;
    assert!(detail.contains("no original configuration") && detail.contains("current"), "{detail}");
    let by_filter = json!({ "filter": { "reason": "webhook_disabled" }, "config": "original", "dryRun": true });
    let dry = app.waypost.post("/v1/replays", &by_filter).await.json();
    assert_eq!(dry["unsendable"], json!([{ "reason": "webhook_disabled", "count": 1 }]), "{dry:#}");

    let replay = app.waypost.create_replay(&json!({ "ids": ids(&letters), "config": "current" })).await;
    let replay = app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    assert_eq!(counts(&replay), [1, 1, 1, 0], "{replay:#?}");
}

#[tokio::test]
async fn letters_of_a_deleted_webhook_cannot_be_replayed() {
    let app = TestApp::start().await;
    app.create_dead_letters(4, 1).await;
    app.create_dead_letters(5, 2).await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 5)["enabled"] = json!(false);
    remove_entry(&mut campaign, "Welcome Message", 4);
    app.waypost.put_campaign(&campaign).await;

    let order = json!({ "filter": { "reason": "gone" }, "dryRun": true });
    let dry = app.waypost.post("/v1/replays", &order).await.json();
    let unsendable = json!([{ "reason": "webhook_disabled", "count": 2 }, { "reason": "webhook_deleted", "count": 1 }]);
    assert_eq!((&dry["total"], &dry["unsendable"]), (&json!(3), &unsendable), "{dry:#}");
    assert_eq!(dry["sample"], json!([]));
    let replay = app.waypost.create_replay(&json!({ "filter": { "reason": "gone" }, "config": "current" })).await;
    assert_eq!(counts(&app.waypost.wait_for_replay(&replay, ReplayState::Done).await), [3, 3, 0, 3]);
    app.waypost.wait_for_state_counts(&[("pending", 3), ("replayed", 3)]).await;
    for (reason, count) in [("webhook_deleted", 1), ("webhook_disabled", 2)] {
        let letters = app.waypost.wait_for_letters(&format!("reason={reason}&state=pending"), count).await;
        for letter in &letters {
            assert_eq!(letter["replayId"], json!(replay));
            // Earlier attempts belong to the old letter.
            let none = [&letter["status"], &letter["cause"], &letter["firstAttemptAt"]];
            assert!(none.iter().all(|field| field.is_null()) && letter["attempts"] == json!([]), "{letter:#}");
            let shown = app.waypost.letter(text_field(letter, "id")).await;
            assert!(shown.get("request").is_none() && shown["url"].is_string(), "{shown:#}");
        }
    }
    assert_eq!(app.receiver.requests().len(), 0);
}

#[tokio::test]
async fn a_dry_run_previews_and_changes_nothing() {
    let app = TestApp::builder().tokens().start().await;
    app.create_dead_letters(3, 4).await;
    app.create_dead_letters(4, 3).await;
    let letters = app.waypost.letters("").await;
    let send = async |role: &str, order: Value| app.send_as(role, Method::POST, "/v1/replays", Some(&order)).await;
    let chosen = json!({ "filter": { "campaignId": "13010" }, "dryRun": true });
    send("viewer", chosen.clone()).await.expect_problem(403);
    for (role, key) in [("operator", "********"), ("editor", "…")] {
        let reply = send(role, chosen.clone()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let dry = reply.json();
        let endpoints = json!([{ "endpoint": app.receiver.url(""), "count": 7 }]);
        assert_eq!(
            (&dry["total"], &dry["endpoints"], &dry["unsendable"]),
            (&json!(7), &endpoints, &json!([])),
            "{dry:#}"
        );
        let sample = dry["sample"].as_array().expect("a sample");
        assert!((1..=5).contains(&sample.len()), "{dry:#}");
        for shown in sample {
            let letter =
                letters.iter().find(|letter| letter["id"] == shown["deadLetterId"]).expect("one of the letters");
            assert_eq!((text_field(shown, "method"), &shown["url"]), ("POST", &letter["url"]));
            assert_eq!(header_value(shown, "webhook-id"), letter["deliveryId"].as_str());
            let body: Value = serde_json::from_str(text_field(shown, "body")).expect("a body of JSON");
            assert_eq!(body["phoneNumber"], "+15550001");
        }
        let id = text_field(newest(&letters), "id");
        let reply = send(role, json!({ "ids": [id], "dryRun": true })).await.json();
        let shown = only_of(&reply["sample"]);
        assert_eq!((text_field(shown, "deadLetterId"), header_value(shown, "x-api-key")), (id, Some(key)));
    }
    assert_eq!(app.receiver.requests().len(), 0);
    assert_eq!(app.waypost.letters("").await, letters);
    assert_eq!(app.waypost.get("/v1/replays").await.json(), json!({ "items": [], "next": null }));

    // The real replay records who created it.
    let reply = send("operator", json!({ "filter": { "campaignId": "13010" } })).await;
    assert_eq!((reply.status, &reply.json()["createdBy"]), (202, &json!("operator")), "{reply:?}");
    app.waypost.wait_for_replay(text_field(&reply.json(), "id"), ReplayState::Done).await;
    assert_eq!(app.receiver.requests().len(), 7);
}

#[tokio::test]
async fn the_preview_has_a_request_for_each_endpoint() {
    let app = TestApp::start().await;
    let other = Receiver::start();
    let elsewhere = |campaign: &mut Value, enabled: bool| {
        webhook_mut(campaign, "Welcome Message", 3)["enabled"] = json!(enabled);
        webhook_mut(campaign, "Welcome Message", 5)["url"] = json!(other.url("/survey"));
    };
    let mut campaign = example_campaign(&app.receiver);
    elsewhere(&mut campaign, true);
    app.waypost.put_campaign(&campaign).await;
    // The oldest letters can't be sent, and only the newest goes to another destination.
    app.create_dead_letters(3, 6).await;
    app.create_dead_letters(4, 6).await;
    other.reply("/survey", 410);
    app.publish(step_event().keyword(5).id("elsewhere")).await;
    app.waypost.wait_for_letter_count("", 13).await;
    elsewhere(&mut campaign, false);
    app.waypost.put_campaign(&campaign).await;

    let letters = app.waypost.letters("").await;
    for order in [json!({ "filter": {}, "dryRun": true }), json!({ "ids": ids(&letters), "dryRun": true })] {
        let dry = app.waypost.post("/v1/replays", &order).await.json();
        let sample = dry["sample"].as_array().expect("a sample");
        let mut urls: Vec<&str> = sample.iter().map(|request| text_field(request, "url")).collect();
        urls.sort_unstable();
        let mut expected = vec![other.url("/survey")];
        expected.extend(vec![app.receiver.url("/offers"); 4]);
        expected.sort_unstable();
        assert_eq!(urls, expected, "{dry:#}");
    }
}

#[tokio::test]
async fn the_requested_rate_is_kept() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 20).await;
    let order = json!({ "filter": { "reason": "gone" }, "ratePerSecond": 10 });
    let replay = app.waypost.create_replay(&order).await;
    let replay = app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    assert_eq!((counts(&replay), replay.rate_per_second), ([20, 20, 20, 0], Some(10.0)));
    let times: Vec<Instant> = app.receiver.requests().iter().map(|request| request.at).collect();
    let took = times[19] - times[0];
    assert!(took >= Duration::from_millis(1_850), "20 at 10 a second took {took:?}");
    // Requests that a busy machine delayed may follow sooner, but not all at once.
    let within_a_second =
        |start: Instant| times.iter().filter(move |at| **at >= start && **at - start < SECOND).count();
    let most = times.iter().copied().map(within_a_second).max().unwrap_or_default();
    assert!(most <= 14, "{most} requests in a second");
}

#[tokio::test]
async fn a_hanging_endpoint_delays_only_its_own_replay() {
    let app = TestApp::start().await;
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 3)["timeoutMs"] = json!(30_000);
    app.waypost.put_campaign(&campaign).await;
    app.create_dead_letters(3, 100).await;
    app.receiver.reply("/agent", Answer::never());
    let hanging = json!({ "filter": { "reason": "gone" }, "ratePerSecond": 1000 });
    app.waypost.create_replay(&hanging).await;
    app.receiver.expect_any().at_least(32).await;

    app.create_dead_letters(5, 10).await;
    let replay = app.waypost.create_replay(&json!({ "filter": { "reason": "gone" } })).await;
    // Long before the first hanging request times out.
    let replay = app.waypost.wait_for_replay_within(20 * SECOND, &replay, ReplayState::Done).await;
    assert_eq!(counts(&replay), [10, 10, 10, 0], "{replay:#?}");
}

#[tokio::test]
async fn letters_written_during_a_replay_are_not_included() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 15).await;
    app.receiver.reply("/agent", 410);
    let order = json!({ "filter": { "status": 410 }, "ratePerSecond": 10 });
    let replay = app.waypost.create_replay(&order).await;
    app.receiver.expect_any().at_least(3).await;
    for number in 0..5 {
        app.publish(step_event().keyword(3).id(&format!("fresh-{number}"))).await;
    }
    let replay = app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    assert_eq!(counts(&replay), [15, 15, 0, 15], "{replay:#?}");
    app.waypost.wait_for_state_counts(&[("pending", 20), ("replayed", 15)]).await;
    let requests = app.receiver.requests_by_webhook_id();
    assert!(requests.len() == 20 && requests.values().all(|count| *count == 1), "{requests:?}");
}
