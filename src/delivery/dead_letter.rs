//! Dead letters: what has ended without success, with everything needed to inspect it and to send it again.
//!
//! [`filter`] and [`selection`] choose among them, [`record`] is what is written of them afterwards.

pub mod filter;
pub mod record;
pub mod removed;
pub mod selection;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::campaign::{Configuration, MASK, Target};
use super::event::StepEvent;
use super::ids::{DeadLetterId, DeliveryId, EventId, ReplayId, ReplayRef, WebhookId};
use super::outcome::Cause;
use super::reason::DeadLetterReason;
use super::violation::Violation;
use super::{Attempt, Delivery, TraceContext, timestamp};

/// The most of an unreadable body that is kept, in bytes. Twice as long as the longest event, and so short that a reader of the
/// log may have a hundred letters in memory.
pub const BODY_BYTES_KEPT: usize = 512 * 1024;

/// A dead letter as it is appended to its stream: of a delivery, or of an event that could not be read, which has
/// `body` and `errors` instead of the delivery's fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Its identity. A delivery that waited and whose last attempt is made twice, because an acknowledgement was lost,
    /// dies with the same one. Two messages with the same event die with different ones.
    pub id: DeadLetterId,
    /// Every letter is appended as pending; replays and discards are records of their own.
    pub state: LetterState,
    /// Why.
    pub reason: DeadLetterReason,
    /// When it was given up.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub dead_at: DateTime<Utc>,
    /// The event's campaign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<String>,
    /// The event's section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_id: Option<WebhookId>,
    /// The delivery; also the `webhook-id` its requests carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<DeliveryId>,
    /// The event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// Where the latest attempt went.
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
    /// The event, as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<StepEvent>,
    /// The webhook as it was configured at the latest attempt, for a replay with the original configuration. Absent if the
    /// delivery died while it waited: what waits does not carry its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub target: Option<Target>,
    /// The trace context of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The letter that was sent again and failed again, where this is the letter of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<DeadLetterId>,
    /// The replay that sent it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_id: Option<ReplayId>,
    /// The AMQP `message_id` of an unreadable event, which may be its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The unreadable body, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The unreadable body as base64, if it is not text or full of control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// Why the body could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

impl DeadLetter {
    /// The dead letter of a delivery.
    pub fn of_delivery(mut delivery: Delivery, reason: DeadLetterReason, now: DateTime<Utc>) -> Self {
        delivery.target.mask();
        let id = id_of(&delivery, now);
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
            target: (delivery.target.configuration == Configuration::Whole).then_some(delivery.target),
            trace: delivery.trace,
            replay_of: None,
            replay_id: None,
            message_id: None,
            body: None,
            body_base64: None,
            errors: Vec::new(),
        }
    }

    /// The dead letter of a message that could not be dealt with. `seen` tells apart equal bodies that came twice.
    pub fn of_body(
        body: &[u8],
        mut errors: Vec<Violation>,
        seen: &str,
        reason: DeadLetterReason,
        now: DateTime<Utc>,
    ) -> Self {
        let kept = &body[..body.len().min(BODY_BYTES_KEPT)];
        if kept.len() < body.len() {
            let message = format!("only the first {BODY_BYTES_KEPT} of its {} bytes are kept", body.len());
            errors.push(Violation::new("$", message));
        }
        let (text, base64) = match std::str::from_utf8(kept) {
            Ok(text) if escapes(kept) <= kept.len() / 3 => (Some(text.to_owned()), None),
            Ok(_) | Err(_) => (None, Some(STANDARD.encode(kept))),
        };
        Self {
            id: DeadLetterId::derive(&[body, seen.as_bytes()]),
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

    /// The letter of something that was sent again and failed again. Its identity comes from both, so that a replay
    /// that is cut short and sends it once more leaves one letter, not two.
    #[must_use]
    pub fn of_replay(self, link: ReplayRef) -> Self {
        let id = DeadLetterId::derive(&[link.dead_letter.as_str().as_bytes(), link.replay.as_str().as_bytes()]);
        Self { id, replay_of: Some(link.dead_letter), replay_id: Some(link.replay), ..self }
    }

    /// The letter of something that was to be sent again and could not be: the attempts of before are not its own.
    #[must_use]
    pub fn unsent(self, reason: DeadLetterReason) -> Self {
        Self { reason, status: None, cause: None, first_attempt_at: None, attempts: Vec::new(), ..self }
    }

    /// Whether it is of a delivery, and not of a message that was none yet.
    pub fn is_of_delivery(&self) -> bool {
        self.delivery_id.is_some()
    }

    /// Whether it is about the person with this phone number: of its event, or somewhere in a body that could not be read.
    pub fn is_about(&self, phone_number: &str) -> bool {
        // Some writers of JSON escape the plus.
        let forms =
            [phone_number.to_owned(), phone_number.replace('+', "\\u002B"), phone_number.replace('+', "\\u002b")];
        let has = |body: &[u8], form: &str| body.windows(form.len()).any(|window| window == form.as_bytes());
        let in_body = |body: &[u8]| forms.iter().any(|form| has(body, form));
        self.event.as_ref().is_some_and(|event| event.phone_number == phone_number)
            || self.body.as_ref().is_some_and(|body| in_body(body.as_bytes()))
            || self.body_base64.as_ref().and_then(|body| STANDARD.decode(body).ok()).is_some_and(|body| in_body(&body))
    }

    /// The letter without what it tells of a person: phone number, answer, choice, what was typed, and what receivers said of it.
    #[must_use]
    pub fn erased(mut self) -> Self {
        if let Some(event) = &mut self.event {
            event.phone_number = MASK.to_owned();
            (event.response, event.option, event.keyword) = (None, None, None);
        }
        self.attempts.iter_mut().for_each(|attempt| attempt.answer = None);
        Self { body: None, body_base64: None, message_id: None, errors: Vec::new(), ..self }
    }

    /// The letter without what may be large, for a broker that takes no message of its size: the configuration of its webhook,
    /// and a body that could not be read.
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

    /// The unreadable body, byte for byte; `None` for a delivery, and where only its beginning was kept.
    pub fn whole_body(&self) -> Option<Vec<u8>> {
        let body = match (&self.body, &self.body_base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).ok()?,
            (None, None) => return None,
        };
        // What is longer was cut there.
        (body.len() < BODY_BYTES_KEPT).then_some(body)
    }
}

/// How many bytes longer a text is as JSON. As base64 it is longer by a third.
fn escapes(text: &[u8]) -> usize {
    let escape = |byte: &u8| match byte {
        b'"' | b'\\' => 1,
        0..=0x1F => 5,
        _ => 0,
    };
    text.iter().map(escape).sum()
}

/// The identity of a delivery's letter. One that began to wait before there were receipts is told apart by when it began.
fn id_of(delivery: &Delivery, now: DateTime<Utc>) -> DeadLetterId {
    if let Some(receipt) = delivery.receipt {
        return DeadLetterId::of_delivery(&delivery.id, receipt);
    }
    let began = delivery.first_attempt_at.or(delivery.parked_at).unwrap_or(now).timestamp_millis();
    DeadLetterId::derive(&[delivery.id.as_str().as_bytes(), &began.to_be_bytes()])
}

/// The state of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "DeadLetterState")]
#[repr(u8)]
pub enum LetterState {
    /// Nobody has dealt with it.
    Pending,
    /// It is being sent again.
    Replaying,
    /// It was sent again.
    Replayed,
    /// Somebody gave it up for good.
    Discarded,
}

impl LetterState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Replaying, Self::Replayed, Self::Discarded];

    /// The name in the API and in the metrics.
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
    use crate::delivery::document::tests::example;
    use crate::delivery::event;
    use crate::delivery::ids::ReceiptId;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn delivery(receipt: Option<ReceiptId>) -> Delivery {
        let body = br#"{"campaignId":"c","label":"l","phoneNumber":"1","date":"2024-06-18T23:26:14Z","eventId":"e"}"#;
        let event = event::decode(body, None).expect("an event");
        let target = example().places().next().expect("a webhook").target();
        Delivery { receipt, ..Delivery::new(event, target, None) }
    }

    fn id(delivery: &Delivery, now: DateTime<Utc>) -> DeadLetterId {
        DeadLetter::of_delivery(delivery.clone(), DeadLetterReason::Exhausted, now).id
    }

    #[test]
    fn each_message_has_its_letter_even_if_the_events_are_the_same() {
        let received = |number| delivery(Some(ReceiptId::new(7, number)));
        let (one, other) = (received(1), received(2));
        assert_eq!(one.id, other.id, "receivers discard the second");
        assert_ne!(id(&one, NOW), id(&other, NOW), "dead in the same millisecond");
    }

    #[test]
    fn a_copy_of_what_waited_dies_with_the_same_identity() {
        let mut waited = delivery(Some(ReceiptId::new(7, 1)));
        waited.parked_at = Some(NOW);
        let body = serde_json::to_vec(&waited).expect("JSON");
        let mut copy = Delivery::read_waiting(&body).expect("a delivery").remove(0);
        copy.first_attempt_at = Some(NOW + TimeDelta::seconds(5));
        assert_eq!(id(&waited, NOW), id(&copy, NOW + TimeDelta::hours(1)));
    }

    /// What waited when receipts were introduced keeps the identity it would have had.
    #[test]
    fn what_waits_without_a_receipt_is_told_apart_by_when_it_began() {
        let old = Delivery { first_attempt_at: Some(NOW + TimeDelta::milliseconds(5)), ..delivery(None) };
        assert!(!serde_json::to_string(&old).expect("JSON").contains("receipt"));
        let expected = DeadLetterId::derive(&[old.id.as_str().as_bytes(), &5_i64.to_be_bytes()]);
        assert_eq!(id(&old, NOW), expected);
        let parked = Delivery { parked_at: Some(NOW), ..delivery(None) };
        assert_eq!(id(&parked, NOW), id(&parked, NOW + TimeDelta::hours(1)), "every worker makes the same of it");
    }
}
