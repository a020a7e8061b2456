//! The spans of a delivery: the event and the resolution of its webhooks; each attempt with its DNS lookup and
//! connection; the publication of a retry or dead letter. Names and fields follow OpenTelemetry's conventions if there
//! are any. Spans never have a phone number, a response, a header or the path of a URL.
//!
//! Without an exporter no span is created, because no log uses their target.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use url::Url;
use waypost_core::outcome::SendResult;
use waypost_core::replay::ReplayId;
use waypost_core::{Delivery, TraceContext};

pub const TARGET: &str = "waypost_spans";

/// A worker processes a message of the events queue.
pub fn event(message_id: Option<&str>, bytes: usize, trace: Option<&TraceContext>) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "event",
        otel.kind = "consumer", messaging.system = "rabbitmq", messaging.operation.type = "process",
        messaging.message.id = message_id, messaging.message.body.size = number(bytes),
        waypost.campaign = tracing::field::Empty, waypost.event = tracing::field::Empty,
        waypost.webhooks = tracing::field::Empty,
    );
    set_parent(&span, trace);
    span
}

/// The webhooks of an event are resolved.
pub fn resolve() -> Span {
    tracing::info_span!(target: TARGET, "resolve")
}

/// Adds the resolved event to its span.
pub fn resolved(span: &Span, campaign: &str, event: &str, webhooks: usize) {
    span.record("waypost.campaign", campaign)
        .record("waypost.event", event)
        .record("waypost.webhooks", number(webhooks));
}

/// A worker processes a delivery that has waited for its retry.
pub fn resumed(delivery: &Delivery) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "retry",
        otel.kind = "consumer", messaging.system = "rabbitmq", messaging.operation.type = "process",
        waypost.delivery = %delivery.id, waypost.campaign = delivery.event.campaign_id,
        waypost.event = %delivery.event.event_id,
    );
    set_parent(&span, delivery.trace.as_ref());
    span
}

/// A replay sends a dead letter again.
pub fn replayed(delivery: &Delivery, replay: &ReplayId) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "replay",
        waypost.replay = %replay, waypost.delivery = %delivery.id, waypost.campaign = delivery.event.campaign_id,
        waypost.event = %delivery.event.event_id,
    );
    set_parent(&span, delivery.trace.as_ref());
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

/// The request is sent again because a reused connection ended before a response.
pub fn resent(attempt: &Span) {
    attempt.record("waypost.resent", true);
}

/// The DNS lookup of an attempt's host.
pub fn dns(attempt: &Span) -> Span {
    tracing::info_span!(target: TARGET, parent: attempt, "dns")
}

/// A new connection for an attempt: DNS, TCP and TLS.
pub fn connect(attempt: &Span) -> Span {
    tracing::info_span!(target: TARGET, parent: attempt, "connect")
}

/// Adds the result of the request to an attempt's span.
pub fn record_result(span: &Span, send_result: &SendResult) {
    if let SendResult::Response { status, .. } = send_result {
        span.record("http.response.status_code", i64::from(*status));
    }
    if let Some(blame) = send_result.blame() {
        span.record("otel.status_code", "ERROR").record("error.type", blame.as_str());
    }
}

/// The publication of a retry or of a dead letter.
pub fn publish() -> Span {
    tracing::info_span!(
        target: TARGET, "publish",
        otel.kind = "producer", messaging.system = "rabbitmq", messaging.operation.type = "send",
    )
}

/// OpenTelemetry's numbers are signed. Unsigned numbers would be exported as text.
fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes a span a child of the event's trace.
fn set_parent(span: &Span, trace: Option<&TraceContext>) {
    let Some(trace) = trace.filter(|_| !span.is_disabled()) else { return };
    let mut headers = HashMap::from([("traceparent".to_owned(), trace.traceparent.clone())]);
    headers.extend(trace.tracestate.clone().map(|tracestate| ("tracestate".to_owned(), tracestate)));
    // An unreadable trace context is ignored.
    let _ = span.set_parent(TraceContextPropagator::new().extract(&headers));
}
