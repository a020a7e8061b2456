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
use identity::DeliveryId;
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
}

impl Delivery {
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
    /// The trace's id, of a `traceparent` that can be read: `00-ID-PARENT-FLAGS`.
    pub fn id(&self) -> Option<&str> {
        let id = self.traceparent.split('-').nth(1)?;
        (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    }
}
