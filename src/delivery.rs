//! The functional core: every decision of a delivery, as plain functions over plain values.
//!
//! Nothing in this module does I/O, reads a clock or draws a random number: `now` and all else that varies is an
//! argument. The journey it decides: [`event`] (decode) → [`resolve`] → [`request`] (render) → [`outcome`] (classify) →
//! [`retry`] (decide) → a retry, or a [`dead_letter`].

pub mod campaign;
pub mod dead_letter;
pub mod document;
pub mod duration;
pub mod echo;
pub mod egress;
pub mod endpoint;
pub mod event;
pub mod explain;
pub mod fault;
pub mod identity;
pub mod moment;
pub mod normal_form;
pub mod outcome;
pub mod reason;
pub mod replay;
pub mod request;
pub mod resolve;
pub mod retry;
pub mod sample;
pub mod sealing;
pub mod signing;
pub mod timestamp;
pub mod webhook_url;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use campaign::Target;
use event::StepEvent;
use identity::{DeliveryId, ReceiptId};
use outcome::Cause;

/// Attempts kept in a delivery's history. Older ones are dropped, the count of attempts made is not.
pub const ATTEMPTS_KEPT: usize = 50;

/// What a schema is given for the default of a field that may be left out of what is sent to us. There is none to show:
/// the field is made up by other rules than serde's.
pub(crate) fn left_out() -> LeftOut {
    LeftOut
}

pub(crate) struct LeftOut;

/// One step event on its way to one webhook: what waits in the delay ladder, and what a dead letter is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The same on every attempt, redelivery and replay; sent as `webhook-id`.
    pub id: DeliveryId,
    /// The event, as published.
    pub event: StepEvent,
    /// The webhook as it was configured at the latest attempt.
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
    use super::*;

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
