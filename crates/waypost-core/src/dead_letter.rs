//! Dead letters: deliveries and messages that ended without success, with everything needed to inspect and replay them.
//!
//! [`filter`] and [`selection`] select dead letters, and [`phone_search`] finds those about a person. [`record`] has the
//! later changes of their state.

pub mod filter;
pub mod phone_number;
pub mod phone_search;
pub mod record;
pub mod removed;
pub mod selection;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::campaign::{MASK, SecretVisibility, Target, TargetContent};
use super::event::StepEvent;
use super::ids::{DeadLetterId, DeliveryId, EventId, ReplayId, ReplayRef, WebhookId};
use super::outcome::Cause;
use super::reason::DeadLetterReason;
use super::request::{self, RequestPreview};
use super::violation::Violation;
use super::{Attempt, Delivery, TraceContext, timestamp};

/// Maximum number of bytes kept of an unreadable body. Twice the size of the largest event, and small enough that a
/// reader of the stream can hold a hundred letters in memory.
pub const BODY_BYTES_KEPT: usize = 512 * 1024;

/// A delivery that ended without success, or an unreadable event. An unreadable event has `body` and `errors` instead
/// of the delivery's fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The id is the same if the last attempt of a waiting delivery is repeated because an acknowledgement was lost.
    /// Two messages with the same event have different ids.
    pub id: DeadLetterId,
    /// Always `pending` in the stream. Replays and discards are records of their own.
    pub state: LetterState,
    /// Why there will be no more attempts.
    pub reason: DeadLetterReason,
    /// When the delivery ended.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub dead_at: DateTime<Utc>,
    /// The event's campaign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// The event's section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The delivery's webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_id: Option<WebhookId>,
    /// The delivery. Its requests had the same `webhook-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<DeliveryId>,
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// The URL of the latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The HTTP status of the latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How the latest attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// When the first attempt began.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DateTime<Utc>>")]
    pub first_attempt_at: Option<DateTime<Utc>>,
    /// The attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// The event as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<StepEvent>,
    /// The webhook as configured at the latest attempt, for a replay with the original configuration. Absent if the
    /// delivery ended while it waited, because a waiting delivery has no configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub target: Option<Target>,
    /// The trace context of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The earlier letter, if this letter comes from a failed replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<DeadLetterId>,
    /// The replay that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_id: Option<ReplayId>,
    /// The AMQP `message_id` of an unreadable event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The unreadable body, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The unreadable body as base64, if it is not text or has many control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Why the body could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

impl DeadLetter {
    /// Masks the secrets of the webhook.
    pub fn from_delivery(mut delivery: Delivery, reason: DeadLetterReason, now: DateTime<Utc>) -> Self {
        delivery.target.mask();
        let id = letter_id(&delivery, now);
        let last = delivery.attempts.last();
        Self {
            id,
            state: LetterState::Pending,
            reason,
            dead_at: now,
            campaign_id: Some(delivery.event.campaign_id.clone()),
            label: Some(delivery.event.label.clone()),
            webhook_id: Some(delivery.target.webhook.id.clone()),
            delivery_id: Some(delivery.id),
            event_id: Some(delivery.event.event_id.clone()),
            url: Some(delivery.target.webhook.url.as_str().to_owned()),
            status: last.and_then(|attempt| attempt.status),
            cause: last.map(|attempt| attempt.cause),
            first_attempt_at: delivery.first_attempt_at,
            attempts: delivery.attempts,
            event: Some(delivery.event),
            target: (delivery.target.configuration == TargetContent::Full).then_some(delivery.target),
            trace: delivery.trace,
            replay_of: None,
            replay_id: None,
            message_id: None,
            body: None,
            body_base64: None,
            errors: Vec::new(),
        }
    }

    /// The dead letter of an unreadable message. `receipt` distinguishes messages with the same body.
    pub fn from_body(
        body: &[u8],
        mut errors: Vec<Violation>,
        receipt: &str,
        reason: DeadLetterReason,
        now: DateTime<Utc>,
    ) -> Self {
        let prefix = &body[..body.len().min(BODY_BYTES_KEPT)];
        if prefix.len() < body.len() {
            let message = format!("only the first {BODY_BYTES_KEPT} of {} bytes are kept", body.len());
            errors.push(Violation::new("$", message));
        }
        let (text, base64) = match std::str::from_utf8(prefix) {
            Ok(text) if escaping_overhead(prefix) <= prefix.len() / 3 => (Some(text.to_owned()), None),
            Ok(_) | Err(_) => (None, Some(STANDARD.encode(prefix))),
        };
        Self {
            id: DeadLetterId::derive(&[body, receipt.as_bytes()]),
            state: LetterState::Pending,
            reason,
            dead_at: now,
            campaign_id: None,
            label: None,
            webhook_id: None,
            delivery_id: None,
            event_id: None,
            url: None,
            status: None,
            cause: None,
            first_attempt_at: None,
            attempts: Vec::new(),
            event: None,
            target: None,
            trace: None,
            replay_of: None,
            replay_id: None,
            message_id: None,
            body: text,
            body_base64: base64,
            errors,
        }
    }

    /// The letter of a failed replay. Its id is derived from the earlier letter and the replay: a replay that is
    /// interrupted and sends the letter again creates one letter, not two.
    #[must_use]
    pub fn with_replay(self, link: ReplayRef) -> Self {
        let id = DeadLetterId::derive(&[link.dead_letter.as_str().as_bytes(), link.replay.as_str().as_bytes()]);
        Self { id, replay_of: Some(link.dead_letter), replay_id: Some(link.replay), ..self }
    }

    /// The letter of a replay that made no attempt. Earlier attempts belong to the earlier letter.
    #[must_use]
    pub fn unsent(self, reason: DeadLetterReason) -> Self {
        Self { reason, status: None, cause: None, first_attempt_at: None, attempts: Vec::new(), ..self }
    }

    /// Whether the letter comes from a delivery, and not from an unreadable message.
    pub fn is_delivery(&self) -> bool {
        self.delivery_id.is_some()
    }

    /// The letter without personal data: phone number, the user's response and choice, and the receivers' responses.
    #[must_use]
    pub fn erased(mut self) -> Self {
        if let Some(event) = &mut self.event {
            event.phone_number = MASK.to_owned();
            (event.response, event.option, event.keyword) = (None, None, None);
        }
        self.attempts.iter_mut().for_each(|attempt| attempt.answer = None);
        Self { body: None, body_base64: None, message_id: None, errors: Vec::new(), ..self }
    }

    /// The letter without its large parts: the webhook's configuration and an unreadable body. Used if the letter
    /// exceeds `limit`, the broker's `max_message_size`.
    #[must_use]
    pub fn shortened(mut self, limit: usize) -> Self {
        self.target = None;
        if let Some(bytes) = self.body.as_ref().or(self.body_base64.as_ref()).map(String::len) {
            (self.body, self.body_base64) = (None, None);
            let message = format!("the body ({bytes} bytes) is not kept: RabbitMQ's max_message_size is {limit}");
            self.errors.push(Violation::new("$", message));
        }
        self
    }

    /// The request of the last attempt. Secrets are masked, because they are not stored.
    pub fn last_request(&self) -> Option<RequestPreview> {
        let (event, target, last) = (self.event.clone()?, self.target.clone()?, self.attempts.last()?);
        let delivery = Delivery { id: self.delivery_id.clone()?, ..Delivery::new(event, target, self.trace.clone()) };
        Some(request::render(&delivery, last.at).preview(SecretVisibility::Masked))
    }

    /// The unreadable body, byte for byte. `None` for a delivery, or if only the beginning was kept.
    pub fn whole_body(&self) -> Option<Vec<u8>> {
        let body = match (&self.body, &self.body_base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).ok()?,
            (None, None) => return None,
        };
        // A longer body was truncated to this length.
        (body.len() < BODY_BYTES_KEPT).then_some(body)
    }
}

/// The additional bytes of a text as a JSON string. As base64, a text is a third longer.
fn escaping_overhead(text: &[u8]) -> usize {
    let overhead = |byte: &u8| match byte {
        b'"' | b'\\' => 1,
        0..=0x1F => 5,
        _ => 0,
    };
    text.iter().map(overhead).sum()
}

/// The id of a delivery's letter. Deliveries of older versions have no receipt, so their start time is used instead.
fn letter_id(delivery: &Delivery, now: DateTime<Utc>) -> DeadLetterId {
    if let Some(receipt) = delivery.receipt {
        return DeadLetterId::for_delivery(&delivery.id, receipt);
    }
    let started_at = delivery.first_attempt_at.or(delivery.parked_at).unwrap_or(now).timestamp_millis();
    DeadLetterId::derive(&[delivery.id.as_str().as_bytes(), &started_at.to_be_bytes()])
}

/// The state of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeadLetterState")]
#[repr(u8)]
pub enum LetterState {
    /// Not handled yet.
    Pending,
    /// A replay has claimed the letter and not yet sent it.
    Replaying,
    /// Sent again.
    Replayed,
    /// An operator discarded the letter. It no longer waits for a replay.
    Discarded,
}

impl LetterState {
    /// In the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Replaying, Self::Replayed, Self::Discarded];

    /// The name in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Replaying => "replaying",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::document::tests::example;
    use crate::event;
    use crate::ids::ReceiptId;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn delivery(receipt: Option<ReceiptId>) -> Delivery {
        let body = br#"{"campaignId":"c","label":"l","phoneNumber":"1","date":"2024-06-18T23:26:14Z","eventId":"e"}"#;
        let event = event::decode(body, None).expect("an event");
        let target = example().places().next().expect("a webhook").target();
        Delivery { receipt, ..Delivery::new(event, target, None) }
    }

    fn id(delivery: &Delivery, now: DateTime<Utc>) -> DeadLetterId {
        DeadLetter::from_delivery(delivery.clone(), DeadLetterReason::Exhausted, now).id
    }

    #[test]
    fn messages_with_the_same_event_have_different_letters() {
        let receive = |number| delivery(Some(ReceiptId::new(7, number)));
        let (one, other) = (receive(1), receive(2));
        assert_eq!(one.id, other.id, "receivers discard the second");
        assert_ne!(id(&one, NOW), id(&other, NOW), "dead in the same millisecond");
    }

    #[test]
    fn a_copy_of_a_waiting_delivery_has_the_same_letter_id() {
        let mut waiting = delivery(Some(ReceiptId::new(7, 1)));
        waiting.parked_at = Some(NOW);
        let body = serde_json::to_vec(&waiting).expect("JSON");
        let mut copy = Delivery::decode_waiting(&body).expect("a delivery").remove(0);
        copy.first_attempt_at = Some(NOW + TimeDelta::seconds(5));
        assert_eq!(id(&waiting, NOW), id(&copy, NOW + TimeDelta::hours(1)));
    }

    /// Deliveries that waited when receipts were introduced keep their letter id.
    #[test]
    fn without_a_receipt_the_letter_id_comes_from_the_start_time() {
        let old = Delivery { first_attempt_at: Some(NOW + TimeDelta::milliseconds(5)), ..delivery(None) };
        assert!(!serde_json::to_string(&old).expect("JSON").contains("receipt"));
        let expected = DeadLetterId::derive(&[old.id.as_str().as_bytes(), &5_i64.to_be_bytes()]);
        assert_eq!(id(&old, NOW), expected);
        let parked = Delivery { parked_at: Some(NOW), ..delivery(None) };
        assert_eq!(id(&parked, NOW), id(&parked, NOW + TimeDelta::hours(1)), "every worker derives the same id");
    }
}
