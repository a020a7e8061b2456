//! Log lines about events and deliveries, as documented in docs/LOGGING.md. Each line has all fields that are needed to
//! follow one event. No line has a phone number, a header, or more of a URL than its endpoint.

use std::time::Duration;

use chrono::{DateTime, Utc};
use waypost_broker::subscription::Message;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::endpoint::ParkReason;
use waypost_core::event::StepEvent;
use waypost_core::outcome::{Blame, SendResult};
use waypost_core::replay::ReplayId;
use waypost_core::{Delivery, TraceContext, timestamp};

use crate::metrics::AttemptOutcome;

/// The target to filter by, documented for `RUST_LOG`.
const TARGET: &str = "waypost::deliveries";

/// Logs a line about a delivery, with the fields that all these lines have.
macro_rules! log_delivery {
    ($level:ident, $delivery:expr, $($rest:tt)+) => {
        tracing::$level!(
            target: TARGET,
            delivery = %$delivery.id, event = %$delivery.event.event_id, trace = trace_id($delivery.trace.as_ref()),
            campaign = $delivery.event.campaign_id, label = $delivery.event.label,
            webhook = %$delivery.target.webhook.id, endpoint = %$delivery.target.webhook.url.receiver_key().endpoint,
            $($rest)+
        )
    };
}

pub(super) fn resolved(event: &StepEvent, webhooks: usize, trace: Option<&TraceContext>) {
    tracing::debug!(
        target: TARGET,
        event = %event.event_id, trace = trace_id(trace), campaign = event.campaign_id, label = event.label, webhooks,
        "event resolved"
    );
}

pub(super) fn parked(delivery: &Delivery, reason: ParkReason, due: DateTime<Utc>) {
    let (why, due) = (reason.as_str(), timestamp::text(&due));
    log_delivery!(debug, delivery, attempt = delivery.attempts_made, why, due, "parked");
}

pub(super) fn delivered(delivery: &Delivery, duration: Duration, ended_at: DateTime<Utc>, replay: Option<&ReplayId>) {
    log_delivery!(
        debug,
        delivery,
        attempt = delivery.attempts_made,
        status = delivery.attempts.last().and_then(|last| last.status),
        ms = milliseconds(duration),
        latency_ms = ended_at.signed_duration_since(delivery.event.date).num_milliseconds(),
        replay = replay.map(display),
        "delivered"
    );
}

/// `then` is when the next attempt is due, or the reason of the dead letter.
pub(super) fn failed(
    delivery: &Delivery,
    send_result: &SendResult,
    duration: Duration,
    outcome: AttemptOutcome,
    then: &str,
    replay: Option<&ReplayId>,
) {
    let last = delivery.attempts.last();
    log_delivery!(
        info,
        delivery,
        attempt = delivery.attempts_made,
        cause = send_result.cause().as_str(),
        blame = send_result.blame().map(Blame::as_str),
        status = last.and_then(|attempt| attempt.status),
        error = last.and_then(|attempt| attempt.error.as_deref()),
        ms = milliseconds(duration),
        outcome = outcome.as_str(),
        then,
        replay = replay.map(display),
        "attempt failed"
    );
}

/// Logged before the dead letter is written. The errors name fields and repeat no values.
pub(super) fn malformed(letter: &DeadLetter, message: &Message) {
    tracing::warn!(
        target: TARGET,
        letter = %letter.id, error = letter.errors.first().map(ToString::to_string), errors = letter.errors.len(),
        bytes = message.body.len(), message_id = message.message_id, trace = trace_id(message.trace.as_ref()),
        "malformed message dead-lettered"
    );
}

/// The letter may be of a delivery or of a message that is not a delivery.
pub(super) fn dead(letter: &DeadLetter) {
    tracing::debug!(
        target: TARGET,
        letter = %letter.id, reason = letter.reason.as_str(),
        delivery = letter.delivery_id.as_ref().map(display), event = letter.event_id.as_ref().map(display),
        trace = trace_id(letter.trace.as_ref()), campaign = letter.campaign_id, label = letter.label,
        webhook = letter.webhook_id.as_ref().map(display), attempts = letter.attempts.len(),
        status = letter.status, replay = letter.replay_id.as_ref().map(display),
        "dead"
    );
}

fn trace_id(trace: Option<&TraceContext>) -> Option<&str> {
    trace.and_then(TraceContext::id)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
