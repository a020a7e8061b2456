//! The dead letters, as they are in the records of their stream.

use serde_json::Value;

use super::load::{ATTEMPTS, Errand, Hook, PATHS, errands, number_in, numbers_in};
use crate::support::amqp::Record;

/// A dead letter of the drill's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    /// None if RabbitMQ itself wrote the record, because it removed the message from a queue.
    pub(crate) id: Option<String>,
    pub(crate) errand: Errand,
    /// The `webhook-id` its requests carried; none where it could not be read, or the broker gave it up.
    pub(crate) delivery_id: Option<String>,
    pub(crate) reason: String,
    /// Whether it is of a replay, which makes one attempt.
    pub(crate) replayed: bool,
    /// How many attempts it had.
    pub(crate) attempts: usize,
    /// The status of the last attempt.
    pub(crate) status: Option<u16>,
}

impl Letter {
    /// Whether the delivery had all it was to have before it was given up.
    pub(crate) fn is_due(&self) -> bool {
        match self.reason.as_str() {
            "exhausted" => self.attempts == ATTEMPTS || self.replayed,
            "gone" => self.status == Some(410),
            _ => self.errand.hook == Hook::Nowhere,
        }
    }
}

/// All letters, and what can't be read as one.
pub(crate) fn letters(records: &[Record]) -> (Vec<Letter>, Vec<String>) {
    let (mut letters, mut strange) = (Vec::new(), Vec::new());
    for record in records {
        // A record without a body marks an end that a worker looked for.
        if record.body.is_empty() || is_mark(record) {
            continue;
        }
        match letters_of(record) {
            Some(found) => letters.extend(found),
            None => strange.push(format!("a dead letter of no event: {}", String::from_utf8_lossy(&record.body))),
        }
    }
    (letters, strange)
}

/// Whether a record says what was done with letters: replays and discards are in the same stream.
fn is_mark(record: &Record) -> bool {
    record.body.starts_with(br#"{"mark":"#)
}

/// The letter in a record. What the broker has given up by itself is there as it was: an event, a delivery, or several.
fn letters_of(record: &Record) -> Option<Vec<Letter>> {
    let body: Value = serde_json::from_slice(&record.body).ok()?;
    if let Some(why) = record.header("x-first-death-reason") {
        let text = String::from_utf8_lossy(&record.body);
        let letter = |errand| Letter {
            id: None,
            errand,
            delivery_id: None,
            reason: format!("poison ({why})"),
            replayed: false,
            attempts: 0,
            status: None,
        };
        return Some(numbers_in(&text).flat_map(errands).map(letter).collect());
    }
    let event = number_in(&body.to_string())?;
    let hook = match body["url"].as_str() {
        None => Hook::Nowhere,
        Some(url) => PATHS.iter().find(|(path, _)| url.ends_with(path))?.1,
    };
    Some(vec![Letter {
        id: Some(body["id"].as_str()?.to_owned()),
        errand: Errand { event, hook },
        delivery_id: body["deliveryId"].as_str().map(str::to_owned),
        reason: body["reason"].as_str()?.to_owned(),
        replayed: body["replayId"].is_string(),
        attempts: body["attempts"].as_array().map_or(0, Vec::len),
        status: body["status"].as_u64().and_then(|status| u16::try_from(status).ok()),
    }])
}
