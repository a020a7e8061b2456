//! The published step events. Each has a number, which determines its content. The number can be read back from a
//! request or a dead letter.

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::support::json::section;

/// One of this number of events has a keyword, which fires a second webhook.
const KEYWORD_EVERY: u64 = 3;

/// One of this number of events is malformed.
const MALFORMED_EVERY: u64 = 101;

/// The attempts of a delivery take half a minute, so that deliveries become dead letters during the drill.
pub(crate) const MAX_ATTEMPTS: usize = 8;

/// The paths of a receiver's two webhooks.
pub(crate) const WEBHOOK_PATHS: [(&str, WebhookKind); 2] =
    [("/section", WebhookKind::Section), ("/entry", WebhookKind::Entry)];

/// The destination of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WebhookKind {
    Section,
    Entry,
    /// The event is malformed and becomes a dead letter.
    NoWebhook,
}

/// An event and one of its destinations. It must be delivered or become a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExpectedDelivery {
    pub(crate) event: u64,
    pub(crate) webhook: WebhookKind,
}

/// An event in its published form.
#[derive(Debug)]
pub(crate) struct PublishedEvent {
    pub(crate) routing_key: String,
    pub(crate) message_id: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// The deliveries that an event must cause.
pub(crate) fn expected_deliveries(event: u64) -> Vec<ExpectedDelivery> {
    let hooks: &[WebhookKind] = match event {
        _ if is_malformed(event) => &[WebhookKind::NoWebhook],
        _ if event.is_multiple_of(KEYWORD_EVERY) => &[WebhookKind::Section, WebhookKind::Entry],
        _ => &[WebhookKind::Section],
    };
    hooks.iter().map(|hook| ExpectedDelivery { event, webhook: *hook }).collect()
}

/// The event with a number. Half of the events have their id in the body, the others in the message properties.
pub(crate) fn build_event(number: u64, receivers: usize) -> PublishedEvent {
    let campaign = campaign_id(usize::try_from(number % receivers as u64).expect("fewer than receivers"));
    let date = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut body = json!({ "campaignId": campaign, "label": LABEL, "phoneNumber": "+15550001", "date": date,
        "response": format!("{EVENT_TEXT}{number}.") });
    let identity = format!("chaos-{number}");
    if is_malformed(number) {
        body["date"] = Value::from("yesterday");
    }
    if number.is_multiple_of(KEYWORD_EVERY) {
        body["keyword"] = Value::from(1);
    }
    let mut message_id = None;
    match number.is_multiple_of(2) {
        true => body["eventId"] = Value::from(identity),
        false => message_id = Some(identity),
    }
    PublishedEvent { routing_key: campaign, message_id, body: body.to_string().into_bytes() }
}

/// The event number in a request body or in the event of a dead letter.
pub(crate) fn event_number(text: &str) -> Option<u64> {
    event_numbers(text).next()
}

/// All event numbers in a text.
pub(crate) fn event_numbers(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split(EVENT_TEXT).skip(1).filter_map(|rest| rest.split_once('.')?.0.parse().ok())
}

/// The campaign whose webhooks are at a receiver. The edition appears in two places and does not affect events.
pub(crate) fn campaign(receiver: usize, edition: u64, url: impl Fn(&str) -> String) -> Value {
    let retry = json!({ "initialDelay": "1s", "multiplier": 1.5, "maxAttempts": MAX_ATTEMPTS });
    let webhook = |path: &str| json!({ "url": url(path), "timeoutMs": 1000, "retry": retry });
    let [(section, _), (entry, _)] = WEBHOOK_PATHS;
    json!({ "id": campaign_id(receiver), "name": edition.to_string(), "sections": [
        { "label": LABEL, "kind": "welcomeMessage", "message": edition.to_string(), "webhook": webhook(section), "menu": [
            { "keyword": 1, "redirect": { "type": "webhook" }, "webhook": webhook(entry) } ] } ] })
}

/// The edition in a campaign. `None` if its two places differ.
pub(crate) fn revision_of(campaign: &Value) -> Option<u64> {
    let name = campaign["name"].as_str()?;
    (section(campaign, LABEL)["message"] == name).then(|| name.parse().ok())?
}

const LABEL: &str = "Welcome Message";

/// The text before an event's number.
const EVENT_TEXT: &str = "this is event ";

pub(crate) fn campaign_id(receiver: usize) -> String {
    format!("chaos-{receiver}")
}

fn is_malformed(event: u64) -> bool {
    event % MALFORMED_EVERY == MALFORMED_EVERY - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_number_again() {
        for number in 0..300 {
            let event = build_event(number, 6);
            assert_eq!(event_number(&String::from_utf8(event.body).expect("text")), Some(number));
            assert_eq!(event.message_id.is_some(), number % 2 == 1);
        }
        assert_eq!(event_number("this is no event"), None);
        assert_eq!(event_numbers("[this is event 3., this is event 12.]").collect::<Vec<_>>(), [3, 12]);
    }

    #[test]
    fn some_go_to_two_places_and_some_to_none() {
        let hooks = |event| expected_deliveries(event).iter().map(|delivery| delivery.webhook).collect::<Vec<_>>();
        assert_eq!(hooks(1), [WebhookKind::Section]);
        assert_eq!(hooks(3), [WebhookKind::Section, WebhookKind::Entry]);
        assert_eq!(hooks(100), [WebhookKind::NoWebhook]);
    }
}
