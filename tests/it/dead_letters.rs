//! The content of dead letters: the whole history of a delivery, or of a malformed event, without secrets.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Value, json};
use waypost_core::replay::ReplayState;

use crate::support::dead_letters::{header_value, ids, text_field};
use crate::support::json::{first_attempt, only, remove_entry, section_mut, webhook_mut};
use crate::support::receiver::Request;
use crate::support::{Answer, Message};
use crate::test_app::{TestApp, example_campaign, step_event};

/// Creates deliveries that end in every possible way. The events are named after the reason.
async fn create_letter_of_each_reason(app: &TestApp) -> Vec<Value> {
    let mut campaign = example_campaign(&app.receiver);
    webhook_mut(&mut campaign, "Welcome Message", 4)["retry"] = json!({ "maxAttempts": 2 });
    // Long enough to store the second configuration before the retry.
    webhook_mut(&mut campaign, "Welcome Message", 5)["retry"] = json!({ "initialDelay": "5s" });
    let menu = section_mut(&mut campaign, "Welcome Message")["menu"].as_array_mut().expect("a menu");
    for (keyword, url) in [(6, app.receiver.url("/deleted")), (7, "http://10.255.255.1/never-dialled".to_owned())] {
        let webhook = json!({ "url": url, "retry": { "initialDelay": "5s" } });
        menu.push(json!({ "keyword": keyword, "option": format!("Option {keyword}"), "webhook": webhook }));
    }
    app.put_campaign_allowed_earlier(&campaign).await;
    app.receiver.reply("/agent", Answer::status(410).body("no such agent"));
    app.receiver.reply("/offers", Answer::status(503).body("overloaded"));
    app.receiver.reply("/survey", 500);
    app.receiver.reply("/deleted", 500);
    let chosen =
        [(3, "gone"), (4, "exhausted"), (5, "webhook_disabled"), (6, "webhook_deleted"), (7, "forbidden_address")];
    for (keyword, reason) in chosen {
        app.publish(step_event().keyword(keyword).id(reason)).await;
    }
    let tried = |path: &str, requests: &[Request]| requests.iter().any(|request| request.path() == path);
    app.receiver.wait_until(|requests| tried("/survey", requests) && tried("/deleted", requests)).await;
    webhook_mut(&mut campaign, "Welcome Message", 5)["enabled"] = json!(false);
    remove_entry(&mut campaign, "Welcome Message", 6);
    app.put_campaign_allowed_earlier(&campaign).await;
    app.waypost.wait_for_letters("", chosen.len()).await
}

/// The letter has all fields of its list item, with the same values.
#[track_caller]
fn assert_matches_list_item(letter: &Value, listed: &Value) {
    for (field, value) in listed.as_object().expect("an object") {
        assert_eq!(&letter[field], value, "{field} of {letter:#}");
    }
}

/// Asserts that the fields are null or missing.
#[track_caller]
fn assert_absent(letter: &Value, fields: &[&str]) {
    for field in fields {
        assert!(letter.get(field).is_none_or(Value::is_null), "{field} in {letter:#}");
    }
}

/// Asserts that the value is a timestamp in the common format.
#[track_caller]
fn assert_timestamp(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is not a timestamp"));
    let read = chrono::DateTime::parse_from_rfc3339(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(read.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Millis, true), text);
}

#[tokio::test]
async fn a_dead_letter_has_all_details_for_each_reason() {
    let app = TestApp::start().await;
    let listed = create_letter_of_each_reason(&app).await;
    let expected = [
        ("gone", json!(410), "status_4xx", app.receiver.url("/agent"), 1),
        ("exhausted", json!(503), "status_5xx", app.receiver.url("/offers"), 2),
        ("webhook_disabled", json!(500), "status_5xx", app.receiver.url("/survey"), 1),
        ("webhook_deleted", json!(500), "status_5xx", app.receiver.url("/deleted"), 1),
        ("forbidden_address", Value::Null, "forbidden_address", "http://10.255.255.1/never-dialled".to_owned(), 1),
    ];
    for (reason, status, cause, url, count) in expected {
        let listed = listed.iter().find(|letter| letter["reason"] == reason);
        let listed = listed.unwrap_or_else(|| panic!("no letter with reason {reason}"));
        let letter = app.waypost.letter(text_field(listed, "id")).await;
        assert_matches_list_item(&letter, listed);
        assert!(text_field(&letter, "id").starts_with("dl_"), "{letter:#}");
        let fields = [
            ("state", json!("pending")),
            ("campaignId", json!("13010")),
            ("label", json!("Welcome Message")),
            ("eventId", json!(reason)),
            ("url", json!(url)),
            ("status", status.clone()),
            ("cause", json!(cause)),
            ("firstAttemptAt", first_attempt(&letter)["at"].clone()),
            ("replays", json!([])),
        ];
        for (field, value) in fields {
            assert_eq!(letter.get(field).unwrap_or(&Value::Null), &value, "{field} of {letter:#}");
        }
        assert_timestamp(&letter["deadAt"]);
        assert_absent(&letter, &["body", "bodyBase64", "errors", "replayOf", "replayId", "discard"]);
        assert_eq!(text_field(&letter["event"], "eventId"), reason);
        assert_eq!(text_field(&letter["event"], "phoneNumber"), "+15550001");

        let attempts = letter["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), count, "{letter:#}");
        for attempt in attempts {
            assert_timestamp(&attempt["at"]);
            assert!(attempt["durationMs"].is_u64(), "{attempt:#}");
            assert_eq!((attempt.get("status").unwrap_or(&Value::Null), text_field(attempt, "cause")), (&status, cause));
            assert_eq!(attempt.get("error").is_some_and(Value::is_string), status.is_null(), "{attempt:#}");
        }
        let answers = attempts.iter().filter_map(|attempt| attempt["answer"].as_str());
        let said: &[&str] = match reason {
            "gone" => &["no such agent"],
            "exhausted" => &["overloaded", "overloaded"],
            _ => &[],
        };
        assert_eq!(answers.collect::<Vec<_>>(), said);

        let webhook = text_field(&letter, "webhookId");
        assert_eq!(ids(&app.waypost.letters(&format!("webhookId={webhook}")).await), [text_field(&letter, "id")]);
        if matches!(reason, "webhook_disabled" | "webhook_deleted") {
            // The delivery died while it waited, and a waiting delivery has no configuration, so the request can't be
            // shown.
            assert_absent(&letter, &["request"]);
            continue;
        }
        let (request, id) = (&letter["request"], text_field(&letter, "deliveryId"));
        assert_eq!((text_field(request, "method"), text_field(request, "url")), ("POST", url.as_str()));
        assert_eq!(
            (header_value(request, "webhook-id"), header_value(request, "content-type")),
            (Some(id), Some("application/json"))
        );
        let sent = app.receiver.requests();
        match sent.iter().rfind(|request| request.webhook_id() == id) {
            Some(sent) => assert_eq!(text_field(request, "body").as_bytes(), &sent.body[..]),
            None => assert_eq!(reason, "forbidden_address", "{id} was never sent"),
        }
    }
}

#[tokio::test]
async fn a_malformed_message_is_shown_unchanged() {
    let app = TestApp::start().await;
    let bodies: [&[u8]; 2] = [b"no event", b"\xff\xfe{}\x00"];
    let exchange = format!("{}.events", app.prefix);
    app.amqp.publish(&exchange, bodies.map(|body| Message::raw(body).key("13010"))).await;
    let listed = app.waypost.wait_for_letters("reason=malformed", bodies.len()).await;
    for listed in &listed {
        let letter = app.waypost.letter(text_field(listed, "id")).await;
        assert_matches_list_item(&letter, listed);
        assert_eq!((text_field(&letter, "state"), text_field(&letter, "reason")), ("pending", "malformed"));
        assert_timestamp(&letter["deadAt"]);
        assert_absent(
            &letter,
            &["campaignId", "label", "webhookId", "deliveryId", "url", "status", "event", "request"],
        );
        let errors = letter["errors"].as_array().expect("errors");
        assert!(errors.iter().all(|error| error["path"] == "$" && error["message"].is_string()), "{letter:#}");
        assert!(!errors.is_empty());
    }
    let of = |field: &str| listed.iter().find_map(|letter| letter[field].as_str()).map(str::to_owned);
    assert_eq!(of("body").as_deref().map(str::as_bytes), Some(bodies[0]));
    let base64 = of("bodyBase64").expect("a body that is not UTF-8");
    assert_eq!(base64::engine::general_purpose::STANDARD.decode(base64).expect("base64"), bodies[1]);
}

#[tokio::test]
async fn events_with_the_same_id_have_a_letter_each() {
    let app = TestApp::start().await;
    app.receiver.reply("/agent", 410);
    // Enough that some die in the same millisecond.
    let events = vec![step_event().keyword(3).id("twin").json(); 600];
    app.amqp.publish_events(&app.prefix, &events).await;
    app.waypost.wait_for_metric("waypost_deliveries_total{outcome=\"dead\"}", events.len() as f64).await;
    let letters = app.waypost.wait_for_letters("", events.len()).await;
    let deliveries: BTreeSet<&str> = letters.iter().map(|letter| text_field(letter, "deliveryId")).collect();
    assert_eq!(deliveries.len(), 1, "equal events have the same delivery id");
}

#[tokio::test]
async fn letters_written_while_no_worker_ran_are_found() {
    let app = TestApp::builder().process().start().await;
    app.create_dead_letters(3, 3).await;
    app.waypost.terminate();
    assert!(app.waypost.wait_for_exit().await.success());
    let event = step_event().keyword(3).id("poison").json();
    app.create_poison_message(&event).await;
    app.waypost.restart().await;
    let letters = app.waypost.wait_for_letters("", 4).await;
    let listed = letters.iter().find(|letter| letter["reason"] == "poison").expect("a letter");
    let poison = app.waypost.letter(text_field(listed, "id")).await;
    assert_matches_list_item(&poison, listed);
    assert_eq!((text_field(&poison, "reason"), text_field(&poison, "state")), ("poison", "pending"));
    assert_eq!(text_field(&poison, "body"), event.to_string());
    assert_timestamp(&poison["deadAt"]);
    assert_eq!((text_field(&poison, "eventId"), text_field(&poison, "campaignId")), ("poison", "13010"));
    assert_absent(&poison, &["bodyBase64", "errors", "deliveryId", "request"]);

    // A new worker has the same letters.
    let new = app.start_second_worker().await;
    let poison = text_field(listed, "id");
    assert_eq!(new.wait_for_letters("", 4).await, app.waypost.letters("").await);
    assert_eq!(new.letter(poison).await, app.waypost.letter(poison).await);
}

#[tokio::test]
async fn letters_contain_no_header_values_and_secrets() {
    let app = TestApp::builder().process().start().await;
    let mut campaign = example_campaign(&app.receiver);
    let webhook = campaign.pointer_mut("/sections/0/menu/3/webhook").expect("a webhook");
    let hidden = ["the-key", "the-other-key", "whsec_c2l4dGVlbi1ieXRlcy1hcmUtdG9vLWZldy1mb3ItdGhpcw=="];
    webhook["headers"] = json!({ "X-Api-Key": hidden[0], "Authorization": format!("Bearer {}", hidden[1]) });
    webhook["secret"] = hidden[2].into();
    app.waypost.put_campaign(&campaign).await;
    app.create_dead_letters(4, 2).await;
    // A receiver that echoes the request.
    let repeated = format!("bad key: {}, {} and {}", hidden[0], hidden[1], hidden[2]);
    app.receiver.reply("/offers", Answer::status(500).body(repeated));
    let letters = ids(&app.waypost.letters("").await);
    let replay = app.waypost.create_replay(&json!({ "ids": [letters[0]] })).await;
    app.waypost.wait_for_replay(&replay, ReplayState::Done).await;
    let sent = app.receiver.requests();
    assert_eq!(sent[0].header("x-api-key"), Some(hidden[0]), "the receiver gets the real values");
    let letters = ids(&app.waypost.wait_for_letters("", 3).await);

    let mut paths = ["/v1/dead-letters", "/v1/dead-letters/summary", "/v1/replays"].map(str::to_owned).to_vec();
    paths.extend(letters.iter().map(|id| format!("/v1/dead-letters/{id}")));
    paths.push(format!("/v1/replays/{replay}"));
    for path in paths {
        let reply = app.waypost.get(&path).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        for hidden in hidden {
            assert!(!reply.body.contains(hidden), "{path} shows {hidden}: {}", reply.body);
        }
    }
    for id in &letters {
        let request = &app.waypost.letter(id).await["request"];
        // The names of headers are not secret.
        assert_eq!(
            (header_value(request, "x-api-key"), header_value(request, "authorization")),
            (Some("********"), Some("********"))
        );
    }
    let again = app.waypost.wait_for_letters("status=500", 1).await;
    let again = only(&again);
    assert_eq!(first_attempt(again)["answer"], "bad key: ********, ******** and ********", "{again:#}");
    let has_secret = |line: &String| hidden.iter().any(|hidden| line.contains(hidden));
    assert_eq!(app.waypost.log_lines().iter().find(|line| has_secret(line)), None);
}
