//! Messages that the broker removed from a queue and put into the dead-letter stream unchanged. A worker writes their
//! dead letters: one for each delivery of the message.

use std::fmt::Display;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::DeadLetter;
use crate::ids::ReplayRef;
use crate::{Delivery, TraceContext, event, reason::DeadLetterReason, timestamp, violation::Violation};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    pub queue: String,
    /// One of `poison`, `expired`, `rejected` and `maxlen`.
    pub reason: DeadLetterReason,
    /// When the message was removed. `None` if the broker does not tell.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

/// A removed message in the dead-letter stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemovedMessage {
    /// The latest removal.
    pub removal: Removal,
    /// As published: an event, or waiting deliveries.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub body: Vec<u8>,
    /// The AMQP `message_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The dead letter that was replayed with this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayRef>,
}

impl RemovedMessage {
    /// Messages from the queue of retries contain deliveries. Other messages contain events.
    pub fn is_from(&self, queue: &str) -> bool {
        self.removal.queue == queue
    }

    /// Creates the dead letters of the message. Their ids are derived from `position`, the place in the stream.
    pub fn letters(&self, position: &impl Display, retries_queue: &str, now: DateTime<Utc>) -> Vec<DeadLetter> {
        let (reason, dead_at) = (self.removal.reason, self.removal.at.unwrap_or(now));
        if self.is_from(retries_queue) {
            return match Delivery::decode_waiting(&self.body) {
                Ok(deliveries) => deliveries
                    .into_iter()
                    .map(|delivery| DeadLetter::from_delivery(delivery, reason, dead_at))
                    .collect(),
                Err(error) => {
                    vec![self.letter_with_body(
                        position,
                        vec![Violation::new("$", format!("not a delivery: {error}"))],
                        dead_at,
                    )]
                }
            };
        }
        let letter = match event::decode(&self.body, self.message_id.as_deref()) {
            Err(violations) => self.letter_with_body(position, violations, dead_at),
            Ok(event) => DeadLetter {
                campaign_id: Some(event.campaign_id.clone()),
                label: Some(event.label.clone()),
                event_id: Some(event.event_id.clone()),
                event: Some(event),
                ..self.letter_with_body(position, Vec::new(), dead_at)
            },
        };
        vec![letter]
    }

    /// A letter with the bytes of the message.
    fn letter_with_body(&self, position: &impl Display, errors: Vec<Violation>, dead_at: DateTime<Utc>) -> DeadLetter {
        let origin = format!("removed from {} {position}", self.removal.queue);
        let letter = DeadLetter::from_body(&self.body, errors, &origin, self.removal.reason, dead_at);
        let letter = DeadLetter { message_id: self.message_id.clone(), trace: self.trace.clone(), ..letter };
        match &self.replay {
            Some(replay_ref) => letter.with_replay(replay_ref.clone()),
            None => letter,
        }
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::document::tests::example;
    use crate::ids::{DeadLetterId, ReceiptId};
    use crate::replay::ReplayId;

    const EVENT: &[u8] = br#"{"campaignId":"c","label":"l","phoneNumber":"1","date":"2024-06-18T23:26:14Z"}"#;
    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn removed(queue: &str, body: &[u8]) -> RemovedMessage {
        RemovedMessage {
            removal: Removal { queue: queue.to_owned(), reason: DeadLetterReason::Rejected, at: None },
            body: body.to_vec(),
            message_id: Some("m".to_owned()),
            trace: None,
            replay: None,
        }
    }

    fn letters(message: &RemovedMessage, offset: u64) -> Vec<DeadLetter> {
        message.letters(&offset, "p.retries", NOW)
    }

    #[test]
    fn a_removed_event_becomes_a_letter_with_its_fields() {
        let letter = letters(&removed("p.events", EVENT), 7).remove(0);
        assert_eq!((letter.reason, letter.dead_at, letter.errors.len()), (DeadLetterReason::Rejected, NOW, 0));
        assert_eq!((letter.campaign_id.as_deref(), letter.label.as_deref()), (Some("c"), Some("l")));
        assert_eq!(letter.event_id.as_ref().map(|id| id.as_str()), Some("m"), "the event has the id of the message");
        assert_eq!((letter.delivery_id, letter.body.as_deref()), (None, std::str::from_utf8(EVENT).ok()));
    }

    #[test]
    fn invalid_bytes_become_a_letter_with_violations() {
        for queue in ["p.events", "p.retries", "the platform's own"] {
            let letter = letters(&removed(queue, b"\xFF"), 7).remove(0);
            assert_eq!((letter.event, letter.errors.len()), (None, 1));
            assert_eq!(letter.body_base64.as_deref(), Some("/w=="));
        }
    }

    #[test]
    fn each_delivery_of_a_batch_becomes_a_letter() {
        let event = event::decode(EVENT, None).expect("an event");
        let target = example().places().next().expect("a webhook").target();
        let delivery = |number| Delivery::with_receipt(event.clone(), target.clone(), None, ReceiptId::new(7, number));
        let batch = serde_json::to_vec(&[delivery(1), delivery(2), delivery(3)]).expect("JSON");
        let letters = letters(&removed("p.retries", &batch), 7);
        let ids: BTreeSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
        assert_eq!((ids.len(), letters.iter().all(|letter| letter.delivery_id.is_some())), (3, true));
    }

    #[test]
    fn ids_are_derived_from_the_position_in_the_stream() {
        let message = removed("p.events", EVENT);
        assert_eq!(
            letters(&message, 7)[0].id,
            message.letters(&7, "p.retries", NOW + chrono::TimeDelta::hours(1))[0].id
        );
        assert_ne!(letters(&message, 7)[0].id, letters(&message, 8)[0].id);
        let replay_ref = ReplayRef { dead_letter: DeadLetterId::new("dl_1"), replay: ReplayId::new("rp_1") };
        let again = RemovedMessage { replay: Some(replay_ref), ..message };
        assert_eq!(letters(&again, 7)[0].id, letters(&again, 8)[0].id, "the id depends on the replay only");
    }

    #[test]
    fn a_removed_message_survives_serialization() {
        let message = RemovedMessage {
            removal: Removal { at: Some(NOW), ..removed("q", b"").removal },
            ..removed("q", b"\xFF\0")
        };
        let stored = serde_json::to_vec(&message).expect("JSON");
        assert_eq!(serde_json::from_slice::<RemovedMessage>(&stored).expect("a message"), message);
    }
}
