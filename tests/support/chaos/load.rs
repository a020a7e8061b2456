//! What is published: step events with a number each, of campaigns whose webhooks are at the drill's receivers. From a
//! number follows everything about the event, and from what a receiver or a dead letter has of it, its number.

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::support::json::section;

/// Of so many events one has a keyword, which fires a second webhook.
const KEYWORD_EVERY: u64 = 3;

/// Of so many events one can't be read.
const MALFORMED_EVERY: u64 = 101;

/// Attempts of a delivery, spread over half a minute: one that dies does so while the drill lasts.
pub(crate) const MAX_ATTEMPTS: usize = 8;

/// The paths of a receiver's two webhooks.
pub(crate) const WEBHOOK_PATHS: [(&str, WebhookKind); 2] =
    [("/section", WebhookKind::Section), ("/entry", WebhookKind::Entry)];

/// Where an event goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum WebhookKind {
    /// The section's webhook.
    Section,
    /// The menu entry's webhook.
    Entry,
    /// To the dead letters: it can't be read.
    NoWebhook,
}

/// An event on its way to one place: what has to be delivered, or dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ExpectedDelivery {
    pub(crate) event: u64,
    pub(crate) webhook: WebhookKind,
}

/// An event as it is published.
#[derive(Debug)]
pub(crate) struct PublishedEvent {
    pub(crate) routing_key: String,
    pub(crate) message_id: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// What an event has to reach.
pub(crate) fn expected_deliveries(event: u64) -> Vec<ExpectedDelivery> {
    let hooks: &[WebhookKind] = match event {
        _ if is_malformed(event) => &[WebhookKind::NoWebhook],
        _ if event.is_multiple_of(KEYWORD_EVERY) => &[WebhookKind::Section, WebhookKind::Entry],
        _ => &[WebhookKind::Section],
    };
    hooks.iter().map(|hook| ExpectedDelivery { event, webhook: *hook }).collect()
}

/// The event with a number. Half of them have their identity in the body, the others in the message's properties.
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

/// The number of the event that a text was made of: a request's body, a dead letter's event.
pub(crate) fn event_number(text: &str) -> Option<u64> {
    event_numbers(text).next()
}

/// The same, of a text that was made of several.
pub(crate) fn event_numbers(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split(EVENT_TEXT).skip(1).filter_map(|rest| rest.split_once('.')?.0.parse().ok())
}

/// The campaign whose webhooks are at one receiver. Its edition is in two places, and changes nothing for events.
pub(crate) fn campaign(receiver: usize, edition: u64, url: impl Fn(&str) -> String) -> Value {
    let retry = json!({ "initialDelay": "1s", "multiplier": 1.5, "maxAttempts": MAX_ATTEMPTS });
    let webhook = |path: &str| json!({ "url": url(path), "timeoutMs": 1000, "retry": retry });
    let [(section, _), (entry, _)] = WEBHOOK_PATHS;
    json!({ "id": campaign_id(receiver), "name": edition.to_string(), "sections": [
        { "label": LABEL, "kind": "welcomeMessage", "message": edition.to_string(), "webhook": webhook(section), "menu": [
            { "keyword": 1, "redirect": { "type": "webhook" }, "webhook": webhook(entry) } ] } ] })
}

/// The edition that a campaign says it is; `None` if its two places differ.
pub(crate) fn revision_of(campaign: &Value) -> Option<u64> {
    let name = campaign["name"].as_str()?;
    (section(campaign, LABEL)["message"] == name).then(|| name.parse().ok())?
}

const LABEL: &str = "Welcome Message";

/// Comes before an event's number.
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
