//! The functional core: every decision about a delivery, as pure functions over plain values.
//!
//! Nothing in this module does I/O, reads a clock or draws a random number. The current time and random numbers are
//! arguments. A delivery passes through [`event`] (decode), [`resolve`], [`request`] (render), [`outcome`] (classify)
//! and [`retry`] (decide). The last step leads to a retry or a [`dead_letter`].

pub mod access;
pub mod campaign;
pub mod dead_letter;
pub mod dead_letter_record;
pub mod document;
pub mod duration;
pub mod egress;
pub mod endpoint;
pub mod event;
pub mod explain;
pub mod flow;
pub mod gcra;
pub mod ids;
pub mod normal_form;
pub mod outcome;
pub mod reason;
pub mod redact;
pub mod replay;
pub mod request;
pub mod resolve;
pub mod retry;
pub mod schema_default;
pub mod secret_encryption;
pub mod signing;
pub mod stream_position;
pub mod suggestion;
pub mod test_event;
pub mod time_spec;
pub mod timestamp;
pub mod violation;
pub mod webhook_url;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use campaign::Target;
use event::StepEvent;
use ids::{DeliveryId, ReceiptId};
use outcome::Cause;
pub use schema_default::omitted_default;

/// Maximum number of attempts kept in a delivery's history. Older attempts are dropped but still counted.
pub const ATTEMPTS_KEPT: usize = 50;

/// One step event for one webhook. This is the message in the delay queues, and the source of a dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The same on every attempt, redelivery and replay; sent as `webhook-id`.
    pub id: DeliveryId,
    pub event: StepEvent,
    /// The webhook as configured at the attempt. While the delivery waits, this is only a reference.
    pub target: Target,
    /// May exceed the length of `attempts`.
    pub attempts_made: u32,
    /// When the first attempt began; `retry.maxAge` counts from here.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    pub first_attempt_at: Option<DateTime<Utc>>,
    /// The latest [`ATTEMPTS_KEPT`] attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// When the delivery was first parked, if that was before its first attempt. `retry.maxAge` counts from here then.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    pub parked_at: Option<DateTime<Utc>>,
    /// When the next attempt may begin. Absent before the first attempt, unless the delivery was parked.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// The W3C trace context that came with the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The receipt of the event. Absent if a replay sent the delivery, or if an older version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptId>,
}

impl Delivery {
    pub fn with_receipt(event: StepEvent, target: Target, trace: Option<TraceContext>, receipt: ReceiptId) -> Self {
        Self { receipt: Some(receipt), ..Self::new(event, target, trace) }
    }

    pub fn new(event: StepEvent, target: Target, trace: Option<TraceContext>) -> Self {
        Self {
            id: DeliveryId::derive(&event.event_id, &target.webhook.id),
            event,
            target,
            attempts_made: 0,
            first_attempt_at: None,
            attempts: Vec::new(),
            parked_at: None,
            due: None,
            trace,
            receipt: None,
        }
    }

    /// Decodes a message from a delay queue: one delivery, or a JSON array of deliveries that waited together.
    ///
    /// # Errors
    /// If `body` is neither, or is an empty array.
    pub fn decode_waiting(body: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        match body.first() {
            Some(b'[') => match serde_json::from_slice::<Vec<Self>>(body)? {
                // An empty message would be acknowledged without a trace.
                deliveries if deliveries.is_empty() => Err(serde::de::Error::custom("an array without a delivery")),
                deliveries => Ok(deliveries),
            },
            _ => Ok(vec![serde_json::from_slice(body)?]),
        }
    }

    /// Prepares the delivery for a delay queue. Drops the webhook's configuration, which may be thousands of times
    /// larger than the event. The next attempt looks the configuration up again.
    pub fn wait_until(&mut self, due: DateTime<Utc>) {
        self.due = Some(due);
        self.target = self.target.reference();
    }

    pub fn record(&mut self, attempt: Attempt) {
        self.first_attempt_at.get_or_insert(attempt.at);
        self.attempts_made = self.attempts_made.saturating_add(1);
        if self.attempts.len() >= ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}

/// One HTTP request of a delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When the attempt began.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// The duration in milliseconds.
    pub duration_ms: u64,
    /// The HTTP status, if there was a response.
    #[serde(default)]
    pub status: Option<u16>,
    /// How the attempt ended, as in the metrics.
    pub cause: Cause,
    /// What went wrong, for people. Null if there was a response.
    #[serde(default)]
    pub error: Option<String>,
    /// The first bytes of the response's body, as text.
    #[serde(default)]
    pub answer: Option<String>,
}

/// Longer headers are not passed on, because no receiver has to accept more (W3C Trace Context, 3.3.1.5).
const MAX_TRACE_HEADER_BYTES: usize = 512;

/// A W3C trace context, passed on to the receiver unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: String,
    /// The `tracestate` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Returns `None` if `traceparent` is missing or invalid: receivers may refuse a request with an invalid one.
    pub fn from_headers(traceparent: Option<String>, tracestate: Option<String>) -> Option<Self> {
        let traceparent = traceparent.filter(|text| trace_id(text).is_some())?;
        Some(Self { traceparent, tracestate: tracestate.filter(|text| text.len() <= MAX_TRACE_HEADER_BYTES) })
    }

    /// The trace id, 32 hexadecimal digits.
    pub fn id(&self) -> Option<&str> {
        trace_id(&self.traceparent)
    }
}

/// The id in `00-ID-PARENT-FLAGS`, all in lower-case hexadecimal digits. A later version may have more parts.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let mut part = |digits| {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        parts.next().filter(|part| part.len() == digits && part.bytes().all(is_hex))
    };
    let (version, id, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_valid =
        version != "ff" && (version != "00" || parts.next().is_none()) && traceparent.len() <= MAX_TRACE_HEADER_BYTES;
    let is_zero = |part: &str| part.bytes().all(|digit| digit == b'0');
    (is_valid && !is_zero(id) && !is_zero(parent)).then_some(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use campaign::TargetContent;

    /// A waiting delivery of an older version, which stored the webhook with masked secrets.
    fn waiting_in_old_format() -> String {
        let webhook = json!({ "id": "wh_1", "url": "https://example.com/hook", "enabled": true, "body": { "source": "chatbot" },
            "headers": { "X-Api-Key": "********" }, "timeoutMs": 15000 });
        let event = json!({ "campaignId": "1", "label": "s", "phoneNumber": "1", "date": "2024-06-18T23:26:14.000Z",
            "eventId": "e" });
        let delivery = json!({ "id": "dlv_1", "event": event, "target": { "webhook": webhook, "kind": "underlying" },
            "attemptsMade": 0, "attempts": [], "due": "2024-06-18T23:26:19.000Z" });
        delivery.to_string()
    }

    #[test]
    fn a_delivery_in_the_old_format_is_decoded_and_loses_its_configuration() {
        let old = waiting_in_old_format();
        let batch = format!("[{old},{old}]");
        assert_eq!(Delivery::decode_waiting(batch.as_bytes()).expect("deliveries").len(), 2);
        let mut delivery = Delivery::decode_waiting(old.as_bytes()).expect("a delivery").remove(0);
        assert_eq!(delivery.target.configuration, TargetContent::Full);
        let due = DateTime::from_timestamp(1_718_753_184, 0).expect("a time");
        delivery.wait_until(due);
        let encoded = serde_json::to_string(&delivery).expect("JSON");
        assert!(!encoded.contains("chatbot") && !encoded.contains("X-Api-Key"), "{encoded}");
        let mut decoded = Delivery::decode_waiting(encoded.as_bytes()).expect("a delivery");
        assert_eq!(decoded, std::slice::from_ref(&delivery));
        assert_eq!((decoded[0].due, decoded[0].target.webhook.url.as_str()), (Some(due), "https://example.com/hook"));
        decoded[0].wait_until(due);
        assert_eq!(decoded[0], delivery, "a delivery may wait several times");
    }

    #[test]
    fn an_invalid_trace_context_is_ignored() {
        let (id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let parse = |traceparent: &str| {
            let context = TraceContext::from_headers(Some(traceparent.to_owned()), None)?;
            assert_eq!(context.traceparent, traceparent);
            context.id().map(str::to_owned)
        };
        assert_eq!(parse(&format!("00-{id}-{parent}-01")).as_deref(), Some(id));
        assert_eq!(parse(&format!("cc-{id}-{parent}-01-a-later-field")).as_deref(), Some(id));
        for invalid in [
            String::new(),
            format!("00-{id}-{parent}"),
            format!("00-{id}-{parent}-01-more"),
            format!("ff-{id}-{parent}-01"),
            format!("00-{}-{parent}-01", id.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{id}-{}-01", "0".repeat(16)),
            format!("cc-{id}-{parent}-01-{}", "a".repeat(1000)),
        ] {
            assert_eq!(parse(&invalid), None, "{invalid}");
        }
        let tracestate = |length: usize| {
            let parent = format!("00-{id}-{parent}-01");
            TraceContext::from_headers(Some(parent), Some("a".repeat(length))).expect("a context").tracestate
        };
        assert_eq!((tracestate(512).is_some(), tracestate(513)), (true, None));
        assert_eq!(TraceContext::from_headers(None, Some("a=b".to_owned())), None, "tracestate without traceparent");
    }
}
