//! Sends the request of a delivery, and describes it as an attempt.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use waypost_core::campaign::Webhook;
use waypost_core::outcome::{AttemptResult, SendResult, classify};
use waypost_core::redact::{self, Truncation};
use waypost_core::{Attempt, Delivery, request};

use super::Worker;
use crate::delivery_event::DeliveryEvent;
use crate::metrics::ledger::DeliveryGuard;
use crate::sender::RESPONSE_BYTES_KEPT;
use crate::spans;

impl Worker {
    /// Makes an attempt, and records it in the delivery. The caller decides what follows, and reports the attempt.
    pub(super) async fn attempt_once(&self, delivery: &mut Delivery, guard: &mut DeliveryGuard<'_>) -> AttemptResult {
        guard.request_started();
        let (attempt, result) = self.send_request(delivery).await;
        guard.request_ended();
        delivery.record(attempt);
        result
    }

    /// Sends a delivery's request. This alone is a test of a webhook: no attempt is counted, and the delivery is left as
    /// it is.
    pub(crate) async fn send_request(&self, delivery: &Delivery) -> (Attempt, AttemptResult) {
        let started_at = Utc::now();
        let started = Instant::now();
        let webhook = &delivery.target.webhook;
        let timeout = Duration::from_millis(webhook.timeout_ms);
        let request = request::render(delivery, started_at);
        let span = spans::attempt(delivery);
        let (send_result, timing) = self.sender.send(request, timeout, &span).await;
        DeliveryEvent::RequestEnded { span: &span, send_result: &send_result, timing: &timing }.emit(&self.metrics);
        let duration = started.elapsed();
        let ended_at = Utc::now();
        let (overridden, defaults) = (webhook.retry.permanent_statuses.as_ref(), self.retry_policy.load());
        let outcome = classify(&send_result, overridden.unwrap_or(&defaults.permanent_statuses), ended_at);
        let attempt = attempt_record(&send_result, started_at, duration, webhook);
        (attempt, AttemptResult { outcome, send_result, duration, ended_at })
    }
}

/// The history entry of an attempt. Secrets of the request that the response repeats are masked.
fn attempt_record(send_result: &SendResult, at: DateTime<Utc>, duration: Duration, webhook: &Webhook) -> Attempt {
    let (status, answer) = match send_result {
        SendResult::Response { status, body, .. } => {
            let truncation =
                if body.len() < RESPONSE_BYTES_KEPT { Truncation::Complete } else { Truncation::Truncated };
            let answer = || redact::mask_secrets(&String::from_utf8_lossy(body), truncation, webhook);
            (Some(*status), (!body.is_empty()).then(answer))
        }
        SendResult::ProxyFailure { .. }
        | SendResult::NotConnected { .. }
        | SendResult::TimedOut { .. }
        | SendResult::Failure { .. } => (None, None),
    };
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Attempt {
        at,
        duration_ms,
        status,
        cause: send_result.cause(),
        error: send_result.error().map(str::to_owned),
        answer,
    }
}
