//! Dead letters as the stream records them.

use serde_json::Value;

use super::load::{
    ExpectedDelivery, MAX_ATTEMPTS, WEBHOOK_PATHS, WebhookKind, event_number, event_numbers, expected_deliveries,
};
use crate::support::amqp::Record;

/// A dead letter of the drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// `None` if RabbitMQ itself wrote the record because it removed the message from a queue.
    pub(crate) id: Option<String>,
    pub(crate) delivery: ExpectedDelivery,
    /// The `webhook-id` of the requests. `None` if the event was malformed or the broker removed the message.
    pub(crate) delivery_id: Option<String>,
    pub(crate) reason: String,
    /// Whether the letter results from a replay, which makes one attempt.
    pub(crate) replayed: bool,
    pub(crate) attempts: usize,
    /// The status of the last attempt.
    pub(crate) status: Option<u16>,
}

impl DeadLetter {
    /// Returns whether the delivery had all its attempts before it was given up.
    pub(crate) fn has_reached_its_end(&self) -> bool {
        match self.reason.as_str() {
            "exhausted" => self.attempts == MAX_ATTEMPTS || self.replayed,
            "gone" => self.status == Some(410),
            _ => self.delivery.webhook == WebhookKind::NoWebhook,
        }
    }
}

/// All letters, and the records that can't be parsed as one.
pub(crate) fn parse_dead_letters(records: &[Record]) -> (Vec<DeadLetter>, Vec<String>) {
    let (mut letters, mut strange) = (Vec::new(), Vec::new());
    for record in records {
        // A worker appends a record without a body to find the end of the stream.
        if record.body.is_empty() || is_state_record(record) {
            continue;
        }
        match parse_record(record) {
            Some(found) => letters.extend(found),
            None => strange.push(format!("a dead letter of no event: {}", String::from_utf8_lossy(&record.body))),
        }
    }
    (letters, strange)
}

/// Returns whether a record is a replay or a discard. They are in the same stream as the letters.
fn is_state_record(record: &Record) -> bool {
    record.body.starts_with(br#"{"mark":"#)
}

/// The letters in a record. A message that the broker removed is recorded unchanged: an event, a delivery, or several
/// deliveries.
fn parse_record(record: &Record) -> Option<Vec<DeadLetter>> {
    let body: Value = serde_json::from_slice(&record.body).ok()?;
    if let Some(why) = record.header("x-first-death-reason") {
        let text = String::from_utf8_lossy(&record.body);
        let letter = |delivery| DeadLetter {
            id: None,
            delivery,
            delivery_id: None,
            reason: format!("poison ({why})"),
            replayed: false,
            attempts: 0,
            status: None,
        };
        return Some(event_numbers(&text).flat_map(expected_deliveries).map(letter).collect());
    }
    let event = event_number(&body.to_string())?;
    let webhook = match body["url"].as_str() {
        None => WebhookKind::NoWebhook,
        Some(url) => WEBHOOK_PATHS.iter().find(|(path, _)| url.ends_with(path))?.1,
    };
    Some(vec![DeadLetter {
        id: Some(body["id"].as_str()?.to_owned()),
        delivery: ExpectedDelivery { event, webhook },
        delivery_id: body["deliveryId"].as_str().map(str::to_owned),
        reason: body["reason"].as_str()?.to_owned(),
        replayed: body["replayId"].is_string(),
        attempts: body["attempts"].as_array().map_or(0, Vec::len),
        status: body["status"].as_u64().and_then(|status| u16::try_from(status).ok()),
    }])
}
