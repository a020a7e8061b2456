//! The log's lines about events and deliveries, as docs/LOGGING.md has them: wide, each with all that it takes to follow one
//! event, and none with a phone number, a header, or more of a URL than its endpoint.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::broker::subscription::Message;
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::endpoint::ParkReason;
use crate::delivery::event::StepEvent;
use crate::delivery::outcome::{Blame, Reply};
use crate::delivery::replay::ReplayId;
use crate::delivery::{Delivery, TraceContext, timestamp};
use crate::metrics::AttemptOutcome;

/// For `RUST_LOG`, and for whoever reads.
const TARGET: &str = "waypost::deliveries";

/// A line about a delivery, with what all of them have.
macro_rules! line {
    ($level:ident, $delivery:expr, $($rest:tt)+) => {
        tracing::$level!(
            target: TARGET,
            delivery = %$delivery.id, event = %$delivery.event.event_id, trace = trace_id($delivery.trace.as_ref()),
            campaign = $delivery.event.campaign_id, label = $delivery.event.label,
            webhook = %$delivery.target.webhook.id, endpoint = %$delivery.target.webhook.url.place().endpoint,
            $($rest)+
        )
    };
}

/// Which webhooks an event fires was found out.
pub(super) fn resolved(event: &StepEvent, webhooks: usize, trace: Option<&TraceContext>) {
    tracing::debug!(
        target: TARGET,
        event = %event.event_id, trace = trace_id(trace), campaign = event.campaign_id, label = event.label, webhooks,
        "event resolved"
    );
}

/// A delivery was put back without an attempt.
pub(super) fn parked(delivery: &Delivery, why: ParkReason, due: DateTime<Utc>) {
    line!(debug, delivery, attempt = delivery.attempts_made, why = why.as_str(), due = timestamp::text(&due), "parked");
}

/// The receiver has it.
pub(super) fn delivered(delivery: &Delivery, took: Duration, ended: DateTime<Utc>, replay: Option<&ReplayId>) {
    line!(
        debug,
        delivery,
        attempt = delivery.attempts_made,
        status = delivery.attempts.last().and_then(|last| last.status),
        ms = millis(took),
        latency_ms = ended.signed_duration_since(delivery.event.date).num_milliseconds(),
        replay = replay.map(tracing::field::display),
        "delivered"
    );
}

/// An attempt failed. `then` is when the next one is due, or why there is none.
pub(super) fn failed(
    delivery: &Delivery,
    reply: &Reply,
    took: Duration,
    outcome: AttemptOutcome,
    then: &str,
    replay: Option<&ReplayId>,
) {
    let last = delivery.attempts.last();
    line!(
        info,
        delivery,
        attempt = delivery.attempts_made,
        cause = reply.cause().as_str(),
        blame = reply.blame().map(Blame::as_str),
        status = last.and_then(|attempt| attempt.status),
        error = last.and_then(|attempt| attempt.error.as_deref()),
        ms = millis(took),
        outcome = outcome.as_str(),
        then,
        replay = replay.map(tracing::field::display),
        "attempt failed"
    );
}

/// A message that can't be read is about to become a dead letter. Its faults name fields, and repeat no values.
pub(super) fn malformed(letter: &DeadLetter, message: &Message) {
    tracing::warn!(
        target: TARGET,
        letter = %letter.id, fault = letter.errors.first().map(ToString::to_string), faults = letter.errors.len(),
        bytes = message.body.len(), message_id = message.message_id, trace = trace_id(message.trace.as_ref()),
        "a message that can't be read becomes a dead letter"
    );
}

/// A dead letter was written: the end of a delivery, or of a message that is none.
pub(super) fn dead(letter: &DeadLetter) {
    tracing::debug!(
        target: TARGET,
        letter = %letter.id, reason = letter.reason.as_str(), delivery = letter.delivery_id.as_ref().map(tracing::field::display),
        event = letter.event_id.as_ref().map(tracing::field::display), trace = trace_id(letter.trace.as_ref()),
        campaign = letter.campaign_id, label = letter.label, webhook = letter.webhook_id.as_ref().map(tracing::field::display),
        attempts = letter.attempts.len(), status = letter.status, replay = letter.replay_id.as_ref().map(tracing::field::display),
        "dead"
    );
}

fn trace_id(trace: Option<&TraceContext>) -> Option<&str> {
    trace.and_then(TraceContext::id)
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
