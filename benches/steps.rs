//! The cost of each pure step of a delivery, on one core and without I/O: from parsing an event to deciding what
//! follows an attempt.
//!
//! ```text
//! make steps                      # all of them
//! make steps ARGS=render          # those with this in their name
//! ```

use std::hint::black_box;

use chrono::{DateTime, TimeDelta, Utc};
use criterion::{BatchSize, Criterion};
use serde_json::{Value, json};
use waypost_core::campaign::{Campaign, Webhook};
use waypost_core::document;
use waypost_core::egress::HttpUrls;
use waypost_core::event::{self, StepEvent};
use waypost_core::outcome::{Cause, Outcome, SendResult, classify};
use waypost_core::redact::{Truncation, mask_secrets};
use waypost_core::retry::{RetryPolicy, decide};
use waypost_core::{Attempt, Delivery, request, resolve};

/// The number of sections in a large campaign.
const MANY_SECTIONS: usize = 200;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    reading(&mut criterion);
    resolving(&mut criterion);
    attempting(&mut criterion);
    waiting(&mut criterion);
    criterion.final_summary();
}

fn reading(criterion: &mut Criterion) {
    let body = body();
    criterion.bench_function("event::decode", |bencher| bencher.iter(|| event::decode(black_box(&body), None)));
    let malformed = json!({ "campaignId": 7, "label": "Welcome Message", "date": "yesterday" }).to_string();
    criterion.bench_function("event::decode, malformed", |bencher| {
        bencher.iter(|| event::decode(black_box(malformed.as_bytes()), None));
    });
    for (name, document) in [("document::read", document(1)), ("document::read, 200 sections", document(MANY_SECTIONS))]
    {
        let bytes = document.to_string().into_bytes();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| document::read(black_box(&bytes), HttpUrls::Refused, None));
        });
    }
}

fn resolving(criterion: &mut Criterion) {
    let event = event();
    for (name, sections) in [("resolve", 1), ("resolve, the last of 200 sections", MANY_SECTIONS)] {
        let campaign = campaign(sections);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| resolve::resolve(black_box(&campaign), black_box(&event)));
        });
    }
    let target = resolve::resolve(&campaign(1), &event).remove(0);
    criterion.bench_function("Delivery::new", |bencher| {
        let given = || (event.clone(), target.clone());
        bencher.iter_batched(given, |(event, target)| Delivery::new(event, target, None), BatchSize::SmallInput);
    });
}

fn attempting(criterion: &mut Criterion) {
    let (delivery, now) = (delivery(), now());
    criterion.bench_function("request::render", |bencher| bencher.iter(|| request::render(black_box(&delivery), now)));
    let answer = |status| SendResult::Response { status, retry_after: Some("120".to_owned()), body: Vec::new() };
    for (name, reply) in [("outcome::classify, 200", answer(200)), ("outcome::classify, 503", answer(503))] {
        criterion.bench_function(name, |bencher| bencher.iter(|| classify(black_box(&reply), &[410], now)));
    }
    let text = "not available: down for maintenance. ".repeat(28);
    for (name, webhook) in [("no secret", webhook(json!({}))), ("3 secrets", webhook(secret_headers()))] {
        criterion.bench_function(&format!("redact::mask_secrets, 1 KiB, {name}"), |bencher| {
            bencher.iter(|| mask_secrets(black_box(&text), Truncation::Truncated, &webhook));
        });
    }
    let policy = RetryPolicy::default();
    for (name, outcome) in [
        ("retry::decide, delivered", Outcome::Delivered),
        ("retry::decide, to try again", Outcome::Transient { retry_after: None }),
    ] {
        criterion.bench_function(name, |bencher| bencher.iter(|| decide(&policy, black_box(&delivery), &outcome, now)));
    }
}

fn waiting(criterion: &mut Criterion) {
    for (name, attempts) in [("1 attempt", 1), ("10 attempts", 10)] {
        let mut delivery = delivery();
        for number in 0..attempts {
            delivery.record(attempt(now() - TimeDelta::minutes(number)));
        }
        delivery.due = Some(now());
        let bytes = serde_json::to_vec(&delivery).expect("a delivery is JSON");
        criterion.bench_function(&format!("Delivery to JSON, {name}"), |bencher| {
            bencher.iter(|| serde_json::to_vec(black_box(&delivery)));
        });
        criterion.bench_function(&format!("Delivery from JSON, {name}"), |bencher| {
            bencher.iter(|| serde_json::from_slice::<Delivery>(black_box(&bytes)));
        });
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_718_753_174, 206_000_000).expect("a time")
}

fn body() -> Vec<u8> {
    let event = json!({
        "campaignId": "13010", "label": "Welcome Message", "phoneNumber": "+5511999990000",
        "date": "2024-06-18T23:26:14.206Z", "response": "4", "option": "Offers", "keyword": 4,
        "eventId": "0190f5a3-6d6e-7cc2-9f2b-6f0f6c2f8d11",
    });
    event.to_string().into_bytes()
}

fn event() -> StepEvent {
    event::decode(&body(), None).expect("an event")
}

/// The documented example after `sections` other sections.
fn document(sections: usize) -> Value {
    let webhook = |path: &str| json!({ "url": format!("https://example.com/hooks/{path}") });
    let interaction = |to: &str| json!({ "type": "interaction", "to": to });
    let mut all: Vec<Value> = (1..sections)
        .map(|number| json!({ "label": format!("Interaction {number:04}"), "webhook": webhook(&number.to_string()) }))
        .collect();
    let offers = json!({ "url": "https://example.com/hooks/offers", "body": { "source": "chatbot" },
        "headers": { "X-Api-Key": "the-key-of-the-customer" } });
    all.push(json!({ "label": "Welcome Message", "kind": "welcomeMessage", "message": "Choose an option", "menu": [
        { "keyword": 1, "option": "Plans", "redirect": interaction("Plans") },
        { "keyword": 2, "option": "Raffle", "redirect": { "type": "campaign", "to": "raffle-giveaway" } },
        { "keyword": 3, "redirect": { "type": "webhook" }, "webhook": webhook("agent") },
        { "keyword": 4, "option": "Offers", "redirect": interaction("Offers"), "webhook": offers },
        { "keyword": 5, "option": "Survey", "redirect": { "type": "campaign", "to": "web-polls" },
          "webhook": webhook("survey") } ] }));
    all.push(json!({ "label": "Plans", "message": "1. One month  2. Six months  3. One year" }));
    all.push(json!({ "label": "Offers", "message": "Your name?", "redirect": { "type": "webhook" },
        "webhook": webhook("name") }));
    json!({ "id": "13010", "name": "Streaming membership", "sections": all })
}

fn campaign(sections: usize) -> Campaign {
    document::read(document(sections).to_string().as_bytes(), HttpUrls::Refused, None).expect("a campaign")
}

fn webhook(headers: Value) -> Webhook {
    let webhook =
        json!({ "id": "wh_1", "url": "https://example.com/", "enabled": true, "timeoutMs": 1000, "headers": headers });
    serde_json::from_value(webhook).expect("a webhook")
}

/// The credentials after `Bearer` are secret too.
fn secret_headers() -> Value {
    json!({ "X-Api-Key": "the-key-of-the-customer", "Authorization": "Bearer 0123456789abcdef" })
}

fn delivery() -> Delivery {
    let event = event();
    let target = resolve::resolve(&campaign(1), &event).remove(0);
    let mut delivery = Delivery::new(event, target, None);
    delivery.record(attempt(now()));
    delivery
}

fn attempt(at: DateTime<Utc>) -> Attempt {
    let answer = Some(r#"{"error":"unavailable","message":"down for maintenance"}"#.to_owned());
    Attempt { at, duration_ms: 38, status: Some(503), cause: Cause::Status5xx, error: None, answer }
}
