//! The functional core: every decision of a delivery, as plain functions over plain values.
//!
//! Nothing in this module does I/O, reads a clock or draws a random number: `now` and all else that varies is an
//! argument. The journey it decides: [`event`] (decode) → [`resolve`] → [`request`] (render) → [`outcome`] (classify) →
//! [`retry`] (decide) → a retry, or a [`dead_letter`].

pub mod campaign;
pub mod dead_letter;
pub mod document;
pub mod duration;
pub mod egress;
pub mod endpoint;
pub mod event;
pub mod explain;
pub mod ids;
pub mod normal_form;
pub mod outcome;
pub mod reason;
pub mod redact;
pub mod replay;
pub mod request;
pub mod resolve;
pub mod retry;
pub mod secret_encryption;
pub mod signing;
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

/// Attempts kept in a delivery's history. Older ones are dropped, the count of attempts made is not.
pub const ATTEMPTS_KEPT: usize = 50;

/// What a schema is given for the default of a field that may be left out of what is sent to us. There is none to show:
/// the field is made up by other rules than serde's.
pub(crate) fn left_out() -> OmittedDefault {
    OmittedDefault
}

pub(crate) struct OmittedDefault;

/// One step event on its way to one webhook: what waits in the delay ladder, and what a dead letter is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The same on every attempt, redelivery and replay; sent as `webhook-id`.
    pub id: DeliveryId,
    /// The event, as published.
    pub event: StepEvent,
    /// The webhook as it is configured at the attempt; while the delivery waits, only which one it is.
    pub target: Target,
    /// Attempts made so far; may exceed the history's length.
    pub attempts_made: u32,
    /// When the first attempt began; `retry.maxAge` counts from here.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    pub first_attempt_at: Option<DateTime<Utc>>,
    /// The latest [`ATTEMPTS_KEPT`] attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// When it was first parked, if that was before its first attempt: `retry.maxAge` counts from here then.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    pub parked_at: Option<DateTime<Utc>>,
    /// When the next attempt may begin. Absent before the first attempt, unless it was parked.
    #[serde(with = "timestamp::optional", default, skip_serializing_if = "Option::is_none")]
    pub due: Option<DateTime<Utc>>,
    /// The W3C trace context that came with the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// The receipt of its event. Absent if it was sent by a replay, or began to wait under a version without receipts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptId>,
}

impl Delivery {
    /// A delivery of the event that this `receipt` is of.
    pub fn received(event: StepEvent, target: Target, trace: Option<TraceContext>, receipt: ReceiptId) -> Self {
        Self { receipt: Some(receipt), ..Self::new(event, target, trace) }
    }

    /// A delivery of `event` to `target` that has not been attempted yet.
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

    /// The deliveries of a message in which they have waited: one, or a JSON array of several that were parked together.
    ///
    /// # Errors
    /// Where it is neither.
    pub fn read_waiting(body: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        match body.first() {
            Some(b'[') => match serde_json::from_slice::<Vec<Self>>(body)? {
                // It would be settled, and nobody had seen it.
                none if none.is_empty() => Err(serde::de::Error::custom("an array without a delivery")),
                several => Ok(several),
            },
            _ => Ok(vec![serde_json::from_slice(body)?]),
        }
    }

    /// The delivery as it waits until `due`. It does not carry its webhook's configuration, which may be thousands of times
    /// larger than the event: it is looked up again for the next attempt.
    pub fn wait_until(&mut self, due: DateTime<Utc>) {
        self.due = Some(due);
        self.target = self.target.reference();
    }

    /// Adds an attempt to the history.
    pub fn record(&mut self, attempt: Attempt) {
        self.first_attempt_at.get_or_insert(attempt.at);
        self.attempts_made = self.attempts_made.saturating_add(1);
        if self.attempts.len() >= ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}

/// One HTTP request of a delivery, as the history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began.
    #[serde(with = "timestamp")]
    #[schemars(with = "DateTime<Utc>")]
    pub at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The HTTP status, where there was an answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// How it ended, in the words of the metrics.
    pub cause: Cause,
    /// What went wrong, for people. None where an answer came.
    #[serde(default)]
    pub error: Option<String>,
    /// The first bytes of the answer's body, as text.
    #[serde(default)]
    pub answer: Option<String>,
}

/// A `tracestate` longer than this is not passed on: nobody has to take more (W3C Trace Context, 3.3.1.5).
const MOST_TRACESTATE: usize = 512;

/// W3C trace context: passed on to the receiver untouched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceContext {
    /// The `traceparent` header.
    pub traceparent: String,
    /// The `tracestate` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// What came with an event. A `traceparent` that is none is as if it were not there: receivers would be sent whatever a publisher
    /// got wrong, and refuse it.
    pub fn read(traceparent: Option<String>, tracestate: Option<String>) -> Option<Self> {
        let traceparent = traceparent.filter(|text| trace_id(text).is_some())?;
        Some(Self { traceparent, tracestate: tracestate.filter(|text| text.len() <= MOST_TRACESTATE) })
    }

    /// The trace's id.
    pub fn id(&self) -> Option<&str> {
        trace_id(&self.traceparent)
    }
}

/// That of `00-ID-PARENT-FLAGS`, all in lower-case hex digits. A later version may have more parts.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let mut part = |digits| {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        parts.next().filter(|part| part.len() == digits && part.bytes().all(hex))
    };
    let (version, id, parent, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_one = version != "ff" && (version != "00" || parts.next().is_none()) && traceparent.len() <= MOST_TRACESTATE;
    let is_zero = |part: &str| part.bytes().all(|digit| digit == b'0');
    (is_one && !is_zero(id) && !is_zero(parent)).then_some(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use campaign::Configuration;

    /// As it waited when deliveries carried their webhook, its secrets masked.
    fn written_before() -> String {
        let webhook = json!({ "id": "wh_1", "url": "https://example.com/hook", "enabled": true, "body": { "source": "chatbot" },
            "headers": { "X-Api-Key": "********" }, "timeoutMs": 15000 });
        let event = json!({ "campaignId": "1", "label": "s", "phoneNumber": "1", "date": "2024-06-18T23:26:14.000Z",
            "eventId": "e" });
        let delivery = json!({ "id": "dlv_1", "event": event, "target": { "webhook": webhook, "kind": "underlying" },
            "attemptsMade": 0, "attempts": [], "due": "2024-06-18T23:26:19.000Z" });
        delivery.to_string()
    }

    #[test]
    fn what_waited_with_its_configuration_is_read_and_waits_on_without() {
        let old = written_before();
        let together = format!("[{old},{old}]");
        assert_eq!(Delivery::read_waiting(together.as_bytes()).expect("deliveries").len(), 2);
        let mut delivery = Delivery::read_waiting(old.as_bytes()).expect("a delivery").remove(0);
        assert_eq!(delivery.target.configuration, Configuration::Whole);
        let due = DateTime::from_timestamp(1_718_753_184, 0).expect("a time");
        delivery.wait_until(due);
        let written = serde_json::to_string(&delivery).expect("JSON");
        assert!(!written.contains("chatbot") && !written.contains("X-Api-Key"), "{written}");
        let mut read = Delivery::read_waiting(written.as_bytes()).expect("a delivery");
        assert_eq!(read, std::slice::from_ref(&delivery));
        assert_eq!((read[0].due, read[0].target.webhook.url.as_str()), (Some(due), "https://example.com/hook"));
        read[0].wait_until(due);
        assert_eq!(read[0], delivery, "it may wait several times");
    }

    #[test]
    fn a_trace_context_is_read_or_left_out() {
        let (id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let read = |traceparent: &str| {
            let read = TraceContext::read(Some(traceparent.to_owned()), None)?;
            assert_eq!(read.traceparent, traceparent);
            read.id().map(str::to_owned)
        };
        assert_eq!(read(&format!("00-{id}-{parent}-01")).as_deref(), Some(id));
        assert_eq!(read(&format!("cc-{id}-{parent}-01-what-comes-later")).as_deref(), Some(id));
        for none in [
            String::new(),
            format!("00-{id}-{parent}"),
            format!("00-{id}-{parent}-01-more"),
            format!("ff-{id}-{parent}-01"),
            format!("00-{}-{parent}-01", id.to_uppercase()),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{id}-{}-01", "0".repeat(16)),
            format!("cc-{id}-{parent}-01-{}", "a".repeat(1000)),
        ] {
            assert_eq!(read(&none), None, "{none}");
        }
        let state = |length: usize| {
            let parent = format!("00-{id}-{parent}-01");
            TraceContext::read(Some(parent), Some("a".repeat(length))).expect("a context").tracestate
        };
        assert_eq!((state(512).is_some(), state(513)), (true, None));
        assert_eq!(TraceContext::read(None, Some("a=b".to_owned())), None, "a state of no trace");
    }
}
