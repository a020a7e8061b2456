//! The spans of a delivery: of an event that is taken and of finding its webhooks; of each attempt, and in it of the name's
//! resolution and of the connection; of what is published in the delivery's place. Names and fields are those of
//! OpenTelemetry's conventions where it has some. Never a phone number, an answer, a header or the path of a URL.
//!
//! Where nobody exports them no span is made: the target is none that a log has.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use url::Url;

use crate::delivery::outcome::Reply;
use crate::delivery::replay::ReplayId;
use crate::delivery::{Delivery, TraceContext};

/// The target of all spans.
pub(super) const TARGET: &str = "waypost_spans";

/// A message of the events queue in hand.
pub fn event(message_id: Option<&str>, bytes: usize, trace: Option<&TraceContext>) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "event",
        otel.kind = "consumer", messaging.system = "rabbitmq", messaging.operation.type = "process",
        messaging.message.id = message_id, messaging.message.body.size = number(bytes),
        waypost.campaign = tracing::field::Empty, waypost.event = tracing::field::Empty,
        waypost.webhooks = tracing::field::Empty,
    );
    follow(&span, trace);
    span
}

/// An event's webhooks are looked up.
pub fn resolve() -> Span {
    tracing::info_span!(target: TARGET, "resolve")
}

/// Which webhooks an event fires was found out: for its own span.
pub fn resolved(span: &Span, campaign: &str, event: &str, webhooks: usize) {
    span.record("waypost.campaign", campaign)
        .record("waypost.event", event)
        .record("waypost.webhooks", number(webhooks));
}

/// A delivery that has waited, in hand again.
pub fn resumed(delivery: &Delivery) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "retry",
        otel.kind = "consumer", messaging.system = "rabbitmq", messaging.operation.type = "process",
        waypost.delivery = %delivery.id, waypost.campaign = delivery.event.campaign_id,
        waypost.event = %delivery.event.event_id,
    );
    follow(&span, delivery.trace.as_ref());
    span
}

/// A dead letter that a replay sends again.
pub fn replayed(delivery: &Delivery, replay: &ReplayId) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "replay",
        waypost.replay = %replay, waypost.delivery = %delivery.id, waypost.campaign = delivery.event.campaign_id,
        waypost.event = %delivery.event.event_id,
    );
    follow(&span, delivery.trace.as_ref());
    span
}

/// One request of a delivery.
pub fn attempt(delivery: &Delivery) -> Span {
    let webhook = &delivery.target.webhook;
    let url = webhook.url.url();
    tracing::info_span!(
        target: TARGET, "attempt",
        otel.kind = "client", otel.status_code = tracing::field::Empty, error.type = tracing::field::Empty,
        http.request.method = "POST", http.response.status_code = tracing::field::Empty,
        server.address = url.and_then(Url::host_str),
        server.port = url.and_then(Url::port_or_known_default).map(i64::from),
        http.request.resend_count = i64::from(delivery.attempts_made),
        waypost.delivery = %delivery.id, waypost.webhook = %webhook.id, waypost.resent = tracing::field::Empty,
    )
}

/// An attempt's request is sent once more: a kept connection ended before an answer.
pub fn resent(attempt: &Span) {
    attempt.record("waypost.resent", true);
}

/// The name of an attempt's host is resolved.
pub fn dns(attempt: &Span) -> Span {
    tracing::info_span!(target: TARGET, parent: attempt, "dns")
}

/// A connection is made for an attempt: the name, TCP, TLS.
pub fn connect(attempt: &Span) -> Span {
    tracing::info_span!(target: TARGET, parent: attempt, "connect")
}

/// What came of the request.
pub fn replied(span: &Span, reply: &Reply) {
    if let Reply::Answer { status, .. } = reply {
        span.record("http.response.status_code", i64::from(*status));
    }
    if let Some(blame) = reply.blame() {
        span.record("otel.status_code", "ERROR").record("error.type", blame.as_str());
    }
}

/// Something is published in the place of a delivery: its retry, or its dead letter.
pub fn publish() -> Span {
    tracing::info_span!(
        target: TARGET, "publish",
        otel.kind = "producer", messaging.system = "rabbitmq", messaging.operation.type = "send",
    )
}

/// OpenTelemetry's numbers are signed; others would be exported as text.
fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes a span the child of whatever published the event.
fn follow(span: &Span, trace: Option<&TraceContext>) {
    let Some(trace) = trace.filter(|_| !span.is_disabled()) else { return };
    let mut headers = HashMap::from([("traceparent".to_owned(), trace.traceparent.clone())]);
    headers.extend(trace.tracestate.clone().map(|tracestate| ("tracestate".to_owned(), tracestate)));
    // One that can't be read is none.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
}
