//! For any document: it is parsed as a campaign that survives a round trip and whose webhooks send everything that is
//! configured, or it is refused with violations that reveal no secret.

use std::collections::HashSet;

use chrono::DateTime;
use serde_json::Value;
use waypost_core::Delivery;
use waypost_core::campaign::{Campaign, WebhookPlace};
use waypost_core::document::{MAX_DOCUMENT_BYTES, UrlPolicy, WebhookDocument, from_value, parse, read};
use waypost_core::egress::HttpUrls;
use waypost_core::event::StepEvent;
use waypost_core::ids::EventId;
use waypost_core::request::render;
use waypost_core::secret_encryption::is_encrypted;
use waypost_core::violation::Violation;

use super::{are_told, is_kept, now};

/// The fields with customers' secrets. A URL can have secrets in its path or query.
const SECRET_FIELDS: [&str; 3] = ["headers", "secret", "url"];

pub(crate) fn holds(bytes: &[u8]) {
    let strict = read(bytes, HttpUrls::Refused, None);
    let lenient = read(bytes, HttpUrls::Allowed, None);
    match &lenient {
        Ok(campaign) => check_campaign(campaign),
        Err(faults) => are_told(faults),
    }
    match &strict {
        Ok(_) => assert_eq!(strict, lenient, "allowing plain http changed a document without it"),
        Err(faults) => are_told(faults),
    }
    check_value_matches_text(bytes);
    check_secrets_hidden(bytes);
}

const ANY_URL: UrlPolicy<'static> = UrlPolicy::Scheme(HttpUrls::Allowed);

/// A parsed JSON value follows the same rules as its text.
fn check_value_matches_text(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return };
    // serde_json reads an object with one of its private keys as another value, whose nesting may be unlimited.
    let Ok(document) = serde_json::from_str::<Value>(&document.to_string()) else { return };
    let text = document.to_string();
    assert_eq!(from_value(&document, ANY_URL), parse(text.as_bytes(), ANY_URL), "{text}");
}

fn check_campaign(campaign: &Campaign) {
    let written = is_kept(campaign);
    let document = serde_json::to_value(campaign).expect("JSON");
    assert_eq!(
        from_value(&document, ANY_URL),
        read(&written, HttpUrls::Allowed, None),
        "a campaign equals its document"
    );
    // A webhook is longer than its document if it contains defaults that the document omits.
    if written.len() <= MAX_DOCUMENT_BYTES {
        for previous in [None, Some(campaign)] {
            assert_eq!(read(&written, HttpUrls::Allowed, previous).as_ref(), Ok(campaign));
        }
    }
    check_keywords_distinct(campaign, &written);
    let ids: HashSet<&str> = campaign.places().map(|place| place.webhook.id.as_str()).collect();
    assert_eq!(ids.len(), campaign.places().count(), "an id belongs to one webhook");
    assert!(!ids.contains(""), "a webhook has an id");
    for place in campaign.places() {
        let path = campaign.path_of(place.webhook.id.as_str());
        assert!(path.starts_with("$.sections["), "{path}");
        let own = serde_json::to_vec(place.webhook).expect("JSON");
        let again = WebhookDocument::parse(&own, ANY_URL).at(&campaign.id, &place);
        assert_eq!(again.as_ref(), Ok(place.webhook.as_ref()), "a single webhook follows the same rules");
        check_webhook_request(&place);
    }
}

/// All keywords of a menu differ, and a second entry with an existing keyword is refused.
fn check_keywords_distinct(campaign: &Campaign, written: &[u8]) {
    for (number, section) in campaign.sections.iter().enumerate() {
        let forms: HashSet<String> = section.menu.iter().map(|entry| entry.keyword.normal_form().into_text()).collect();
        assert_eq!(forms.len(), section.menu.len(), "two keywords are the same");
        let Some(entry) = section.menu.first() else { continue };
        let form = entry.keyword.normal_form().into_text();
        assert!(!form.is_empty(), "an empty keyword");
        let mut document: Value = serde_json::from_slice(written).expect("JSON");
        let menu = document["sections"][number]["menu"].as_array_mut().expect("a menu");
        menu.push(serde_json::json!({ "keyword": format!(" \u{200b}{}\u{feff}", form.to_uppercase()) }));
        let last = format!("$.sections[{number}].menu[{}].keyword", section.menu.len());
        let document = document.to_string();
        // Other texts may change when they are converted to upper case.
        if form.is_ascii() && document.len() <= MAX_DOCUMENT_BYTES {
            let faults = read(document.as_bytes(), HttpUrls::Allowed, Some(campaign))
                .expect_err("a duplicate keyword is refused");
            assert!(faults.iter().any(|fault| fault.path == last), "{faults:?}");
        }
    }
}

/// A request contains every header, parameter and signature that was accepted.
fn check_webhook_request(place: &WebhookPlace<'_>) {
    let event = StepEvent {
        campaign_id: "1".to_owned(),
        label: place.section.label.clone(),
        phone_number: "5511999990000".to_owned(),
        date: DateTime::UNIX_EPOCH,
        response: None,
        option: None,
        keyword: None,
        event_id: EventId::new("event-1"),
    };
    let webhook = place.webhook;
    let request = render(&Delivery::new(event, place.target(), None), now());
    for (name, value) in &webhook.headers {
        let value = value.as_str().expect("a header's value is text");
        let sent = request.headers.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not sent"));
        assert_eq!(sent.as_bytes(), value.as_bytes(), "{name}");
    }
    let sent: Value = serde_json::from_slice(&request.body.contiguous()).expect("JSON");
    let sent = sent.as_object().expect("an object");
    let parameters = webhook.body.to_value();
    let parameters = parameters.as_object().expect("an object");
    assert!(parameters.iter().all(|(name, value)| sent.get(name) == Some(value)), "{sent:?}");
    if let Some(secret) = webhook.secret.as_deref().filter(|secret| !is_encrypted(secret)) {
        assert!(request.headers.contains_key("webhook-signature"), "the secret {secret} does not sign");
    }
}

/// If the document's secrets change, no violation repeats them.
fn check_secrets_hidden(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else { return };
    // A text that does not occur in the document.
    let text = document.to_string();
    let canary = (0..).map(|n| format!("c4n4ry-{n}")).find(|canary| !text.contains(canary)).expect("an unused text");
    let changes: [&dyn Fn(&str) -> String; 2] =
        [&|secret| format!("{secret}{canary}"), &|secret| format!("{canary}{secret}")];
    for change in changes {
        let mut changed = document.clone();
        change_secrets(&mut changed, false, change);
        if let Err(faults) = read(changed.to_string().as_bytes(), HttpUrls::Refused, None) {
            let tells = |fault: &&Violation| fault.path.contains(&canary) || fault.message.contains(&canary);
            assert_eq!(faults.iter().find(tells), None, "a violation contains a secret");
        }
    }
}

fn change_secrets(value: &mut Value, is_secret: bool, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) if is_secret => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| change_secrets(item, is_secret, change)),
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| {
            change_secrets(value, is_secret || SECRET_FIELDS.contains(&name.as_str()), change);
        }),
        _ => {}
    }
}
