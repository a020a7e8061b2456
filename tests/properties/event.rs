//! For any message body: it is an event that is stored and sent unchanged, or it is refused with violations.

use serde_json::Value;
use waypost_core::Delivery;
use waypost_core::event::{Keyword, MAX_CAMPAIGN_ID_CHARS, MAX_EVENT_BYTES, StepEvent, decode};
use waypost_core::normal_form::NormalForm;
use waypost_core::request::render;

use super::{are_told, is_kept, now, sample_delivery};

pub(crate) fn holds(body: &[u8]) {
    for message_id in [None, Some("message-1")] {
        match decode(body, message_id) {
            Ok(event) => is_an_event(body, &event),
            Err(faults) => are_told(&faults),
        }
    }
}

fn is_an_event(body: &[u8], event: &StepEvent) {
    assert!(body.len() <= MAX_EVENT_BYTES);
    assert!((1..=MAX_CAMPAIGN_ID_CHARS).contains(&event.campaign_id.chars().count()));
    assert!(!event.event_id.as_str().is_empty(), "events without an id would be equal");
    let written = is_kept(event);
    // A program that publishes the event of a dead letter again publishes the same event.
    if written.len() <= MAX_EVENT_BYTES {
        assert_eq!(decode(&written, Some("message-2")), Ok(event.clone()));
    }
    is_sent(event);
    if let Some(keyword) = &event.keyword {
        has_a_normal_form(keyword);
    }
}

/// Normalizing a keyword is idempotent, and ignores case and invisible characters.
fn has_a_normal_form(keyword: &Keyword) {
    let form = keyword.normal_form();
    let text = form.clone().into_text();
    assert_eq!(NormalForm::from_text(&text), form);
    assert_eq!(NormalForm::from_text(&text).into_text(), text);
    let seen_alike = format!("\u{feff} {text}\u{200b} ");
    assert!(keyword.matches(&Keyword::Text(seen_alike)), "{keyword:?}");
    if let Keyword::Number(number) = keyword {
        let once = format!("{number}e0");
        if let Ok(same) = serde_json::from_str(&once) {
            assert!(keyword.matches(&Keyword::Number(same)), "{once}");
        }
    }
}

/// A receiver gets the published event.
fn is_sent(event: &StepEvent) {
    let delivery = Delivery::new(event.clone(), sample_delivery().target, None);
    let request = render(&delivery, now());
    let sent: Value = serde_json::from_slice(&request.body.contiguous()).expect("JSON");
    let text = |name: &str| sent.get(name).and_then(Value::as_str);
    assert_eq!(text("campaignId"), Some(event.campaign_id.as_str()));
    assert_eq!(text("label"), Some(event.label.as_str()));
    assert_eq!(text("phoneNumber"), Some(event.phone_number.as_str()));
    assert_eq!(text("response"), event.response.as_deref());
    assert_eq!(text("option"), event.option.as_deref());
    assert_eq!(sent.get("keyword").cloned(), event.keyword.as_ref().map(Keyword::to_json));
    let date = text("date").expect("a date");
    assert!(date.len() == "2024-06-18T23:26:14.206Z".len() && date.ends_with('Z'), "{date}");
    assert_eq!(request.headers.get("webhook-id").and_then(|id| id.to_str().ok()), Some(delivery.id.as_str()));
}
