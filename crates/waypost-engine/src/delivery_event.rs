//! What happens to deliveries, and what each step writes to the log, the metrics, the spans and the ledger.
//!
//! Two kinds of counts are not here, because they must also end if a task is aborted: a delivery and its request in
//! flight ([`ledger`](crate::metrics::ledger)), and a message in flight
//! ([`consumer_status`](crate::worker::consumer_status)). [`spans`] opens the spans.
//!
//! docs/LOGGING.md documents the log lines. Each line has all fields that are needed to follow one event. No line has a
//! phone number, a header, or more of a URL than its endpoint.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::Span;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::endpoint::ParkReason;
use waypost_core::event::StepEvent;
use waypost_core::outcome::{AttemptResult, Blame, RequestTiming, SendResult};
use waypost_core::replay::{ReplayId, ReplayOutcome};
use waypost_core::retry::Settlement;
use waypost_core::{Delivery, TraceContext, timestamp};

use crate::metrics::ledger::DeliverySource;
use crate::metrics::{AttemptOutcome, EventResult, Metrics};
use crate::spans;

/// The target to filter by, documented for `RUST_LOG`.
const TARGET: &str = "waypost::deliveries";

/// Something that happened to a delivery, or to the message that it came in.
///
/// An event that says that something was written or settled is emitted when that is durable.
pub(crate) enum DeliveryEvent<'a> {
    /// An event was matched with its webhooks. Emitted in the span of the event.
    Resolved { event: &'a StepEvent, webhooks: usize, trace: Option<&'a TraceContext> },
    /// A message of the events queue was settled.
    EventSettled(EventResult),
    /// A delivery begins its first request, and was not parked before.
    FirstAttempt { event: &'a StepEvent, at: DateTime<Utc> },
    /// A request ended. It may be a test of a webhook, which is no attempt. `span` is the attempt's.
    RequestEnded { span: &'a Span, send_result: &'a SendResult, timing: &'a RequestTiming },
    /// An attempt ended, and `delivery` has recorded it.
    Attempted {
        delivery: &'a Delivery,
        result: &'a AttemptResult,
        settlement: &'a Settlement,
        replay: Option<&'a ReplayId>,
    },
    /// A delivery waits in a delay queue for its next attempt.
    RetryScheduled,
    /// A delivery was put into a delay queue without an attempt.
    Parked { delivery: &'a Delivery, reason: ParkReason, due: DateTime<Utc> },
    /// Deliveries that wait equally long were put into a delay queue, as one message.
    BatchDelayed,
    /// A message that came from a delay queue was settled.
    DelayedMessageSettled,
    /// A message is not an event or a delivery. Its dead letter is not written yet.
    Malformed { letter: &'a DeadLetter, bytes: usize },
    /// A dead letter was written, after this number of publishes.
    DeadLetterWritten { letter: &'a DeadLetter, publishes: u32 },
    /// A dead letter was written for a message that the broker removed from `queue`.
    Removed { letter: &'a DeadLetter, queue: &'a str },
    /// A replay sent a dead letter again.
    Replayed(ReplayOutcome),
}

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

impl DeliveryEvent<'_> {
    pub(crate) fn emit(self, metrics: &Metrics) {
        match self {
            Self::Resolved { event, webhooks, trace } => {
                spans::resolved(&Span::current(), &event.campaign_id, event.event_id.as_str(), webhooks);
                tracing::debug!(
                    target: TARGET,
                    event = %event.event_id, trace = trace_id(trace), campaign = event.campaign_id, label = event.label,
                    webhooks,
                    "event resolved"
                );
            }
            Self::EventSettled(result) => metrics.record_event(result),
            Self::FirstAttempt { event, at } => {
                let delay = at.signed_duration_since(event.date).as_seconds_f64();
                metrics.first_attempt_delay.observe(delay.max(0.0));
            }
            Self::RequestEnded { span, send_result, timing } => {
                spans::record_result(span, send_result);
                metrics.record_timing(timing);
            }
            Self::Attempted { delivery, result, settlement, replay } => {
                let (send_result, ms) = (&result.send_result, milliseconds(result.duration));
                metrics.attempt_duration.observe(result.duration.as_secs_f64());
                let (outcome, then) = match settlement {
                    Settlement::Delivered => {
                        let latency = result.ended_at.signed_duration_since(delivery.event.date);
                        metrics.record_attempt(AttemptOutcome::Delivered, send_result);
                        // The delivery of a replay has ended before, with the letter that is sent again.
                        if replay.is_none() {
                            metrics.record_delivered(latency.as_seconds_f64());
                        }
                        log_delivery!(
                            debug,
                            delivery,
                            attempt = delivery.attempts_made,
                            status = delivery.attempts.last().and_then(|last| last.status),
                            ms,
                            latency_ms = latency.num_milliseconds(),
                            replay = replay.map(display),
                            "delivered"
                        );
                        return;
                    }
                    Settlement::Retry { due } => (AttemptOutcome::Retry, timestamp::text(due)),
                    Settlement::Dead(reason) => (AttemptOutcome::Dead, reason.as_str().to_owned()),
                };
                metrics.record_attempt(outcome, send_result);
                let last = delivery.attempts.last();
                log_delivery!(
                    info,
                    delivery,
                    attempt = delivery.attempts_made,
                    cause = send_result.cause().as_str(),
                    blame = send_result.blame().map(Blame::as_str),
                    status = last.and_then(|attempt| attempt.status),
                    error = last.and_then(|attempt| attempt.error.as_deref()),
                    ms,
                    outcome = outcome.as_str(),
                    then,
                    replay = replay.map(display),
                    "attempt failed"
                );
            }
            Self::RetryScheduled => metrics.retries_scheduled.inc(),
            Self::Parked { delivery, reason, due } => {
                metrics.record_parked(reason);
                log_delivery!(
                    debug,
                    delivery,
                    attempt = delivery.attempts_made,
                    why = reason.as_str(),
                    due = timestamp::text(&due),
                    "parked"
                );
            }
            Self::BatchDelayed => metrics.ledger.put_into_delay_queues.inc(),
            Self::DelayedMessageSettled => metrics.ledger.taken_from_delay_queues.inc(),
            // The errors name fields and repeat no values.
            Self::Malformed { letter, bytes } => tracing::warn!(
                target: TARGET,
                letter = %letter.id, error = letter.errors.first().map(ToString::to_string),
                errors = letter.errors.len(), bytes, message_id = letter.message_id,
                trace = trace_id(letter.trace.as_ref()),
                "malformed message dead-lettered"
            ),
            Self::DeadLetterWritten { letter, publishes } => {
                metrics.dead_letters_republished.inc_by(u64::from(publishes - 1));
                metrics.record_dead_letter(letter.reason);
                // The delivery of a replay has ended before, with the letter that was sent again.
                if letter.is_delivery() && letter.replay_id.is_none() {
                    metrics.record_dead();
                }
                tracing::debug!(
                    target: TARGET,
                    letter = %letter.id, reason = letter.reason.as_str(),
                    delivery = letter.delivery_id.as_ref().map(display),
                    event = letter.event_id.as_ref().map(display), trace = trace_id(letter.trace.as_ref()),
                    campaign = letter.campaign_id, label = letter.label,
                    webhook = letter.webhook_id.as_ref().map(display), attempts = letter.attempts.len(),
                    status = letter.status, replay = letter.replay_id.as_ref().map(display),
                    "dead"
                );
            }
            Self::Removed { letter, queue } => {
                metrics.record_dead_letter(letter.reason);
                if letter.is_delivery() {
                    metrics.ledger.begin(DeliverySource::DelayQueue).settled();
                    metrics.record_dead();
                }
                tracing::warn!(
                    target: TARGET,
                    letter = %letter.id, reason = letter.reason.as_str(), queue,
                    delivery = letter.delivery_id.as_ref().map(display),
                    event = letter.event_id.as_ref().map(display), trace = trace_id(letter.trace.as_ref()),
                    campaign = letter.campaign_id, label = letter.label,
                    "message removed by the broker"
                );
            }
            Self::Replayed(outcome) => metrics.record_replayed(outcome),
        }
    }
}

fn trace_id(trace: Option<&TraceContext>) -> Option<&str> {
    trace.and_then(TraceContext::id)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing::Level;
    use waypost_core::egress::HttpUrls;
    use waypost_core::ids::{DeadLetterId, ReplayRef};
    use waypost_core::outcome::{Outcome, RequestPhase};
    use waypost_core::reason::DeadLetterReason;
    use waypost_core::violation::Violation;
    use waypost_core::{Attempt, document, event};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("the log").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `report` logs, and the series that it changes, without those of buckets.
    fn report_of(report: impl FnOnce(&Metrics)) -> (Vec<Value>, Vec<String>) {
        let (metrics, log) = (Metrics::new().expect("metrics"), Log::default());
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().json().with_max_level(Level::DEBUG).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || report(&metrics));
        let log = log.0.lock().expect("the log");
        let lines = serde_json::Deserializer::from_slice(&log).into_iter().collect::<Result<_, _>>();
        let series = |metrics: &Metrics| {
            let text = String::from_utf8(metrics.to_text().expect("metrics")).expect("text");
            let is_ours = |line: &&str| line.starts_with("waypost_") && !line.contains("_bucket{");
            text.lines().filter(is_ours).map(str::to_owned).collect::<Vec<_>>()
        };
        let before = series(&Metrics::new().expect("metrics"));
        let changed = series(&metrics).into_iter().filter(|line| !before.contains(line)).collect();
        (lines.expect("JSON"), changed)
    }

    #[track_caller]
    fn assert_report(event: DeliveryEvent<'_>, line: Option<Value>, series: &[&str]) {
        let (lines, changed) = report_of(|metrics| event.emit(metrics));
        let lines: Vec<Value> = lines
            .into_iter()
            .map(|line| {
                assert_eq!(line["target"], TARGET, "{line}");
                let mut fields = line["fields"].clone();
                fields["level"] = line["level"].clone();
                fields
            })
            .collect();
        assert_eq!(lines, Vec::from_iter(line));
        let expected: Vec<String> = series.iter().map(|series| format!("waypost_{series}")).collect();
        assert_eq!(changed, expected);
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn delivery() -> Delivery {
        let document = br#"{"id":"c","sections":[{"label":"l","webhook":{"id":"w","url":"https://example.com/"}}]}"#;
        let campaign = document::read(document, HttpUrls::Refused, None).expect("a campaign");
        let body = br#"{"campaignId":"c","label":"l","phoneNumber":"1","date":"2024-06-18T23:26:14Z","eventId":"e"}"#;
        let event = event::decode(body, None).expect("an event");
        let trace = TraceContext::from_headers(Some(format!("00-{TRACE}-00f067aa0ba902b7-01")), None);
        Delivery::new(event, campaign.places().next().expect("a webhook").target(), trace)
    }

    /// A delivery with an attempt that took 30 ms and ended 2 s after the date of the event.
    fn attempted(send_result: SendResult, outcome: Outcome) -> (Delivery, AttemptResult) {
        let mut delivery = delivery();
        let status = match &send_result {
            SendResult::Response { status, .. } => Some(*status),
            _ => None,
        };
        let (cause, error) = (send_result.cause(), send_result.error().map(str::to_owned));
        let at = delivery.event.date;
        delivery.record(Attempt { at, duration_ms: 30, status, cause, error, answer: None });
        let ended_at = at + Duration::from_secs(2);
        (delivery, AttemptResult { outcome, send_result, duration: Duration::from_millis(30), ended_at })
    }

    fn response(status: u16) -> SendResult {
        SendResult::Response { status, retry_after: None, body: Vec::new() }
    }

    /// A line about `delivery` with these fields in addition to the common fields.
    fn line(delivery: &Delivery, fields: Value) -> Option<Value> {
        let mut line = json!({
            "delivery": delivery.id, "event": "e", "trace": TRACE, "campaign": "c", "label": "l", "webhook": "w",
            "endpoint": delivery.target.webhook.url.receiver_key().endpoint.to_string(),
        });
        let Value::Object(fields) = fields else { panic!("no object") };
        line.as_object_mut().expect("an object").extend(fields);
        Some(line)
    }

    const ATTEMPT_DURATION: [&str; 2] = ["attempt_duration_seconds_sum 0.03", "attempt_duration_seconds_count 1"];

    #[test]
    fn a_successful_attempt_is_reported() {
        let (delivery, result) = attempted(response(200), Outcome::Delivered);
        let replay = ReplayId::new("rp_1".to_owned());
        let attempted = |replay| DeliveryEvent::Attempted {
            delivery: &delivery,
            result: &result,
            settlement: &Settlement::Delivered,
            replay,
        };
        let fields = json!({
            "level": "DEBUG", "message": "delivered", "attempt": 1, "status": 200, "ms": 30, "latency_ms": 2000,
        });
        let mut of_replay = fields.clone();
        of_replay["replay"] = "rp_1".into();
        let attempts = "attempts_total{cause=\"ok\",outcome=\"delivered\"} 1";
        let [sum, count] = ATTEMPT_DURATION;
        let ended = [
            "deliveries_total{outcome=\"delivered\"} 1",
            "delivery_latency_seconds_sum 2",
            "delivery_latency_seconds_count 1",
        ];
        let all = [&[sum, count, attempts][..], &ended].concat();
        assert_report(attempted(None), line(&delivery, fields), &all);
        assert_report(attempted(Some(&replay)), line(&delivery, of_replay), &[sum, count, attempts]);
    }

    #[test]
    fn a_failed_attempt_is_reported_with_what_follows() {
        let timeout = SendResult::TimedOut { phase: RequestPhase::AwaitingResponse };
        let error = timeout.error().map(str::to_owned);
        let (delivery, result) = attempted(timeout, Outcome::Transient { retry_after: None });
        let (replay, due) = (ReplayId::new("rp_1".to_owned()), result.ended_at + Duration::from_secs(60));
        let [sum, count] = ATTEMPT_DURATION;
        let blame = "attempt_failures_total{blame=\"timeout_answering\"} 1";
        for (settlement, replay, outcome, then, attempts) in [
            (
                Settlement::Retry { due },
                None,
                "retry",
                "2024-06-18T23:27:16.000Z",
                "attempts_total{cause=\"timeout\",outcome=\"retry\"} 1",
            ),
            (
                Settlement::Dead(DeadLetterReason::Exhausted),
                Some(&replay),
                "dead",
                "exhausted",
                "attempts_total{cause=\"timeout\",outcome=\"dead\"} 1",
            ),
        ] {
            let mut fields = json!({
                "level": "INFO", "message": "attempt failed", "attempt": 1, "cause": "timeout",
                "blame": "timeout_answering", "error": error, "ms": 30, "outcome": outcome, "then": then,
            });
            if replay.is_some() {
                fields["replay"] = "rp_1".into();
            }
            let event =
                DeliveryEvent::Attempted { delivery: &delivery, result: &result, settlement: &settlement, replay };
            assert_report(event, line(&delivery, fields), &[sum, count, blame, attempts]);
        }
    }

    #[test]
    fn a_delivery_that_waits_is_reported() {
        let delivery = delivery();
        let at = delivery.event.date;
        let put = "ladder_messages_total{movement=\"put\"} 1";
        assert_report(DeliveryEvent::RetryScheduled, None, &["retries_scheduled_total 1"]);
        assert_report(DeliveryEvent::BatchDelayed, None, &[put]);
        let taken = "ladder_messages_total{movement=\"taken\"} 1";
        assert_report(DeliveryEvent::DelayedMessageSettled, None, &[taken]);
        let parked = DeliveryEvent::Parked { delivery: &delivery, reason: ParkReason::Slow, due: at };
        let fields = json!({
            "level": "DEBUG", "message": "parked", "attempt": 0, "why": "slow", "due": "2024-06-18T23:26:14.000Z",
        });
        assert_report(parked, line(&delivery, fields), &["deliveries_parked_total{reason=\"slow\"} 1"]);
    }

    #[test]
    fn the_steps_of_an_event_are_reported() {
        let delivery = delivery();
        for (result, series) in [
            (EventResult::Resolved, "events_total{result=\"resolved\"} 1"),
            (EventResult::NoWebhook, "events_total{result=\"no_webhook\"} 1"),
            (EventResult::Malformed, "events_total{result=\"malformed\"} 1"),
        ] {
            assert_report(DeliveryEvent::EventSettled(result), None, &[series]);
        }
        for (delay, seconds) in [(Duration::from_secs(3), "3"), (Duration::ZERO, "0")] {
            let first = DeliveryEvent::FirstAttempt { event: &delivery.event, at: delivery.event.date + delay };
            let (lines, series) = report_of(|metrics| first.emit(metrics));
            let sum = format!("waypost_first_attempt_delay_seconds_sum {seconds}");
            assert_eq!((lines.len(), series.contains(&sum)), (0, seconds != "0"), "{series:?}");
            assert!(series.contains(&"waypost_first_attempt_delay_seconds_count 1".to_owned()), "{series:?}");
        }
        let (lines, series) = report_of(|metrics| {
            let trace = delivery.trace.as_ref();
            let resolved = DeliveryEvent::Resolved { event: &delivery.event, webhooks: 2, trace };
            spans::event(Some("m"), 9, None).in_scope(|| resolved.emit(metrics));
        });
        assert_eq!((lines.len(), &series[..]), (1, &[][..]));
        let fields = json!({
            "message": "event resolved", "event": "e", "trace": TRACE, "campaign": "c", "label": "l", "webhooks": 2,
        });
        assert_eq!((&lines[0]["level"], &lines[0]["fields"]), (&json!("DEBUG"), &fields));
        let span = &lines[0]["span"];
        assert_eq!(
            [&span["waypost.campaign"], &span["waypost.event"], &span["waypost.webhooks"]],
            [&json!("c"), &json!("e"), &json!(2)]
        );
    }

    #[test]
    fn a_request_is_reported_in_its_span() {
        let timing = RequestTiming { resolve: None, connect: None, first_byte: Some(Duration::from_millis(5)) };
        let timeout = SendResult::TimedOut { phase: RequestPhase::Connecting };
        for (send_result, status, error) in [
            (response(204), json!(204), Value::Null),
            (response(500), json!(500), json!("receiver_5xx")),
            (timeout, Value::Null, json!("timeout_connecting")),
        ] {
            let (lines, series) = report_of(|metrics| {
                let span = spans::attempt(&delivery());
                let ended = DeliveryEvent::RequestEnded { span: &span, send_result: &send_result, timing: &timing };
                ended.emit(metrics);
                span.in_scope(|| tracing::info!("a line with the fields of the span"));
            });
            let span = &lines[0]["span"];
            assert_eq!(
                (lines.len(), &span["http.response.status_code"], &span["error.type"]),
                (1, &status, &error),
                "{span}"
            );
            let stage = "waypost_attempt_stage_duration_seconds";
            let expected = ["sum", "count"].map(|name| format!("{stage}_{name}{{stage=\"first_byte\"}}"));
            let names: Vec<&str> = series.iter().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn a_dead_letter_is_reported() {
        let (delivery, _) = attempted(response(410), Outcome::Permanent(DeadLetterReason::Gone));
        let id = delivery.id.to_string();
        let letter = DeadLetter::from_delivery(delivery, DeadLetterReason::Gone, DateTime::UNIX_EPOCH);
        let replay_ref =
            ReplayRef { dead_letter: DeadLetterId::new("dl_1".to_owned()), replay: ReplayId::new("rp_1".to_owned()) };
        let of_replay = letter.clone().with_replay(replay_ref);
        let dead = |letter: &DeadLetter| {
            let replay = letter.replay_id.as_ref().map(|_| ("replay".to_owned(), json!("rp_1")));
            let mut fields = json!({
                "level": "DEBUG", "message": "dead", "letter": letter.id, "reason": "gone", "delivery": id,
                "event": "e", "trace": TRACE, "campaign": "c", "label": "l", "webhook": "w", "attempts": 1,
                "status": 410,
            });
            fields.as_object_mut().expect("an object").extend(replay);
            Some(fields)
        };
        let (ended, written) = ("deliveries_total{outcome=\"dead\"} 1", "dead_letters_total{reason=\"gone\"} 1");
        let once = DeliveryEvent::DeadLetterWritten { letter: &letter, publishes: 1 };
        assert_report(once, dead(&letter), &[written, ended]);
        let again = DeliveryEvent::DeadLetterWritten { letter: &of_replay, publishes: 3 };
        assert_report(again, dead(&of_replay), &["dead_letters_republished_total 2", written]);

        let removed = DeliveryEvent::Removed { letter: &letter, queue: "waypost.retries" };
        let line = json!({
            "level": "WARN", "message": "message removed by the broker", "letter": letter.id, "reason": "gone",
            "queue": "waypost.retries", "delivery": id, "event": "e", "trace": TRACE, "campaign": "c", "label": "l",
        });
        assert_report(removed, Some(line), &[written, "deliveries_taken_total{from=\"ladder\"} 1", ended]);
    }

    #[test]
    fn a_message_that_is_no_delivery_is_reported() {
        let violations = vec![Violation::new("$.date", "not a date"), Violation::new("$.label", "missing")];
        let letter = DeadLetter::from_body(b"{}", violations, "1", DeadLetterReason::Malformed, DateTime::UNIX_EPOCH);
        let letter = DeadLetter { message_id: Some("m".to_owned()), ..letter };
        let malformed = json!({
            "level": "WARN", "message": "malformed message dead-lettered", "letter": letter.id,
            "error": letter.errors[0].to_string(), "errors": 2, "bytes": 2, "message_id": "m",
        });
        assert_report(DeliveryEvent::Malformed { letter: &letter, bytes: 2 }, Some(malformed), &[]);
        let written = "dead_letters_total{reason=\"malformed\"} 1";
        let dead = json!({
            "level": "DEBUG", "message": "dead", "letter": letter.id, "reason": "malformed", "attempts": 0,
        });
        assert_report(DeliveryEvent::DeadLetterWritten { letter: &letter, publishes: 1 }, Some(dead), &[written]);
        let removed = json!({
            "level": "WARN", "message": "message removed by the broker", "letter": letter.id, "reason": "malformed",
            "queue": "waypost.events",
        });
        assert_report(DeliveryEvent::Removed { letter: &letter, queue: "waypost.events" }, Some(removed), &[written]);
        for outcome in ReplayOutcome::ALL {
            let replayed = format!("replayed_total{{outcome=\"{}\"}} 1", outcome.as_str());
            assert_report(DeliveryEvent::Replayed(outcome), None, &[&replayed]);
        }
    }
}
