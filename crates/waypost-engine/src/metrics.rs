//! All Prometheus metrics of a worker. Their names are a contract with dashboards and alerts
//! (docs/reference/metrics.md). Labels are bounded: never a campaign, webhook, URL or phone number.

pub mod broker_state;
pub mod history;
pub mod ledger;
pub mod snapshot;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use waypost_core::dead_letter::LetterState;
use waypost_core::endpoint::{BreakerState, ParkReason};
use waypost_core::outcome::{Blame, Cause, RequestTiming, SendResult};
use waypost_core::reason::DeadLetterReason;
use waypost_core::replay::ReplayOutcome;

use self::broker_state::BrokerState;
use self::ledger::Ledger;

/// The result of a message of the events queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventResult {
    /// The event led to deliveries.
    Resolved,
    /// No enabled webhook is configured for the event.
    NoWebhook,
    /// The message is not a step event.
    Malformed,
}

impl EventResult {
    pub const ALL: [Self; 3] = [Self::Resolved, Self::NoWebhook, Self::Malformed];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::NoWebhook => "no_webhook",
            Self::Malformed => "malformed",
        }
    }
}

/// The state of the connection that publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublisherGauge {
    Up,
    /// The broker is short of memory or disk and accepts no messages.
    Blocked,
    Down,
}

impl PublisherGauge {
    const ALL: [Self; 3] = [Self::Up, Self::Blocked, Self::Down];

    fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Blocked => "blocked",
            Self::Down => "down",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    Delivered,
    /// Another attempt follows.
    Retry,
    Dead,
}

impl AttemptOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::Dead => "dead",
        }
    }
}

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    // Counters that each delivery increments are looked up only once.
    /// Indexed by [`EventResult`].
    events: [IntCounter; 3],
    attempts: IntCounterVec,
    attempts_ok: IntCounter,
    failures: IntCounterVec,
    /// In the order of [`PHASES`].
    phases: [Histogram; 3],
    delivered: IntCounter,
    dead: IntCounter,
    dead_letters: IntCounterVec,
    dead_letters_stored: IntGaugeVec,
    replayed: IntCounterVec,
    pub ledger: Ledger,
    pub broker_state: BrokerState,
    /// Seconds, whatever the outcome.
    pub(crate) attempt_duration: Histogram,
    /// Seconds from an event's `date` to its first attempt. Deliveries that were parked are not counted.
    pub(crate) first_attempt_delay: Histogram,
    /// Seconds from an event's `date` to the 2xx.
    delivery_latency: Histogram,
    /// Workers that consume, as last read.
    pub workers: IntGauge,
    /// Messages that are not settled yet. Set from [`crate::worker::consumer_status::ConsumerStatus`] when metrics are
    /// read.
    pub messages_in_hand: IntGauge,
    pub(crate) retries_scheduled: IntCounter,
    /// Messages that the broker held, unacknowledged, for a channel that never received them.
    pub messages_recovered: IntCounter,
    /// Dead letters published again because RabbitMQ confirmed them but the stream does not have them.
    pub(crate) dead_letters_republished: IntCounter,
    parked: IntCounterVec,
    endpoints: IntGaugeVec,
    queue_messages: IntGaugeVec,
    publisher: IntGaugeVec,
    /// Set when metrics are read.
    pub store_bytes: IntGauge,
    /// Has no labels. It is a vector so that the metric is absent until its value is known.
    store_free_bytes: IntGaugeVec,
    /// 1 while messages are consumed from the broker.
    pub broker_connected: IntGauge,
    /// The offset of the last configuration change that was applied.
    pub config_version: IntGauge,
    /// 1 while events are held because campaigns may be missing from the campaigns stream.
    pub config_log_incomplete: IntGauge,
}

/// The timed parts of an attempt, in the order in which they happen.
const PHASES: [&str; 3] = ["resolve", "connect", "first_byte"];

/// Histogram bounds: from a millisecond to the longest timeout of a webhook.
const ATTEMPT_SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];

/// Histogram bounds: from a millisecond to the 48 hours of `retry.maxAge`.
const DELIVERY_SECONDS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
    28_800.0, 172_800.0,
];

impl Metrics {
    /// Registers all metrics. Series whose labels are known exist from the start, with the value zero.
    ///
    /// # Errors
    /// If two metrics have the same name, which is a defect of this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let opts = Opts::new("waypost_store_free_bytes", "Bytes free on the disk of the folder store.path");
        let store_free_bytes = IntGaugeVec::new(opts, &[])?;
        registry.register(Box::new(store_free_bytes.clone()))?;
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let events =
            counters("waypost_events_total", "Messages of the events queue that were settled, by result", &["result"])?;
        let attempts = counters(
            "waypost_attempts_total",
            "HTTP requests of deliveries, by outcome and cause",
            &["outcome", "cause"],
        )?;
        let failures =
            counters("waypost_attempt_failures_total", "Failed HTTP requests, by cause of the failure", &["blame"])?;
        for blame in Blame::ALL {
            failures.with_label_values(&[blame.as_str()]);
        }
        let phases = HistogramVec::new(
            HistogramOpts::new(
                "waypost_attempt_stage_duration_seconds",
                "Duration of a part of an HTTP request, if the part was needed",
            )
            .buckets(ATTEMPT_SECONDS.to_vec()),
            &["stage"],
        )?;
        registry.register(Box::new(phases.clone()))?;
        let deliveries = counters("waypost_deliveries_total", "Deliveries that ended", &["outcome"])?;
        let dead_letters = counters("waypost_dead_letters_total", "Dead letters written", &["reason"])?;
        let events = EventResult::ALL.map(|result| events.with_label_values(&[result.as_str()]));
        for cause in Cause::ALL {
            let outcome = match cause {
                Cause::Ok => AttemptOutcome::Delivered,
                Cause::ForbiddenAddress => AttemptOutcome::Dead,
                _ => AttemptOutcome::Retry,
            };
            attempts.with_label_values(&[outcome.as_str(), cause.as_str()]);
        }
        let [delivered, dead] = ["delivered", "dead"].map(|outcome| deliveries.with_label_values(&[outcome]));
        for reason in DeadLetterReason::ALL {
            dead_letters.with_label_values(&[reason.as_str()]);
        }
        let replayed = counters("waypost_replayed_total", "Dead letters sent again", &["outcome"])?;
        for outcome in ReplayOutcome::ALL {
            replayed.with_label_values(&[outcome.as_str()]);
        }
        let dead_letters_stored =
            IntGaugeVec::new(Opts::new("waypost_dead_letters", "Dead letters that are stored, by state"), &["state"])?;
        registry.register(Box::new(dead_letters_stored.clone()))?;
        let retries_scheduled = IntCounter::new("waypost_retries_scheduled_total", "Retries put into a delay queue")?;
        registry.register(Box::new(retries_scheduled.clone()))?;
        let version = Opts::new("waypost_build_info", "Always 1. The label `version` is the version of this worker")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build_info = IntGauge::with_opts(version)?;
        build_info.set(1);
        registry.register(Box::new(build_info))?;
        let messages_recovered = IntCounter::new(
            "waypost_messages_recovered_total",
            "Messages that the broker held, unacknowledged, for a channel that never received them",
        )?;
        registry.register(Box::new(messages_recovered.clone()))?;
        let dead_letters_republished = IntCounter::new(
            "waypost_dead_letters_republished_total",
            "Dead letters published again because RabbitMQ confirmed them but the stream did not have them",
        )?;
        registry.register(Box::new(dead_letters_republished.clone()))?;
        let parked = counters(
            "waypost_deliveries_parked_total",
            "Deliveries put into a delay queue without an attempt, by reason",
            &["reason"],
        )?;
        for reason in ParkReason::ALL {
            parked.with_label_values(&[reason.as_str()]);
        }
        let endpoints = IntGaugeVec::new(
            Opts::new("waypost_endpoints", "Endpoints used recently, by breaker state"),
            &["breaker"],
        )?;
        registry.register(Box::new(endpoints.clone()))?;
        for state in BreakerState::ALL {
            endpoints.with_label_values(&[state.as_str()]);
        }
        let queue_messages = IntGaugeVec::new(
            Opts::new("waypost_queue_messages", "Messages that are ready in a queue, as last read"),
            &["queue"],
        )?;
        registry.register(Box::new(queue_messages.clone()))?;
        let publisher = IntGaugeVec::new(
            Opts::new("waypost_publisher", "1 for the current state of the connection that publishes to the broker"),
            &["link"],
        )?;
        registry.register(Box::new(publisher.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            ledger: Ledger::register(&registry)?,
            broker_state: BrokerState::register(&registry)?,
            workers: gauge("waypost_workers", "Workers that consume events, as last read")?,
            messages_in_hand: gauge(
                "waypost_messages_in_hand",
                "Messages of all queues that were received and are not settled yet",
            )?,
            attempt_duration: histogram(
                "waypost_attempt_duration_seconds",
                "Duration of an HTTP request",
                &ATTEMPT_SECONDS,
            )?,
            first_attempt_delay: histogram(
                "waypost_first_attempt_delay_seconds",
                "Time from the event's date to its first HTTP request, if the delivery was not parked",
                &DELIVERY_SECONDS,
            )?,
            delivery_latency: histogram(
                "waypost_delivery_latency_seconds",
                "Time from the event's date to the 2xx",
                &DELIVERY_SECONDS,
            )?,
            broker_connected: gauge("waypost_broker_connected", "1 while this worker consumes messages")?,
            store_bytes: gauge("waypost_store_bytes", "Bytes in the folder store.path")?,
            store_free_bytes,
            config_version: gauge(
                "waypost_config_version",
                "Offset of the last configuration change that was applied",
            )?,
            config_log_incomplete: gauge(
                "waypost_config_log_incomplete",
                "1 while events are held because campaigns may be missing from the campaigns stream",
            )?,
            registry,
            events,
            attempts_ok: attempts.with_label_values(&[AttemptOutcome::Delivered.as_str(), Cause::Ok.as_str()]),
            attempts,
            failures,
            phases: PHASES.map(|phase| phases.with_label_values(&[phase])),
            delivered,
            dead,
            dead_letters,
            dead_letters_stored,
            replayed,
            retries_scheduled,
            messages_recovered,
            dead_letters_republished,
            parked,
            endpoints,
            queue_messages,
            publisher,
        })
    }

    pub(crate) fn record_event(&self, result: EventResult) {
        self.events[result as usize].inc();
    }

    /// Counts an attempt, and if it failed, the cause of the failure.
    pub(crate) fn record_attempt(&self, outcome: AttemptOutcome, send_result: &SendResult) {
        match (outcome, send_result.cause()) {
            (AttemptOutcome::Delivered, Cause::Ok) => self.attempts_ok.inc(),
            (_, cause) => self.attempts.with_label_values(&[outcome.as_str(), cause.as_str()]).inc(),
        }
        if let Some(blame) = send_result.blame() {
            self.failures.with_label_values(&[blame.as_str()]).inc();
        }
    }

    pub(crate) fn record_timing(&self, timing: &RequestTiming) {
        let RequestTiming { resolve, connect, first_byte } = *timing;
        for (histogram, duration) in self.phases.iter().zip([resolve, connect, first_byte]) {
            duration.iter().for_each(|duration| histogram.observe(duration.as_secs_f64()));
        }
    }

    /// Counts a delivery that ended with a 2xx. A negative latency, from a clock that is ahead, counts as zero.
    pub(crate) fn record_delivered(&self, latency_seconds: f64) {
        self.delivered.inc();
        self.delivery_latency.observe(latency_seconds.max(0.0));
    }

    /// Counts a delivery that ended without success.
    pub(crate) fn record_dead(&self) {
        self.dead.inc();
    }

    pub(crate) fn record_parked(&self, reason: ParkReason) {
        self.parked.with_label_values(&[reason.as_str()]).inc();
    }

    pub fn set_endpoints(&self, breakers: impl Iterator<Item = BreakerState>) {
        self.endpoints.reset();
        let gauges = BreakerState::ALL.map(|state| self.endpoints.with_label_values(&[state.as_str()]));
        breakers.for_each(|breaker| gauges[breaker as usize].inc());
    }

    pub fn set_store_free_bytes(&self, bytes: u64) {
        self.store_free_bytes.with_label_values(&[] as &[&str]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn record_dead_letter(&self, reason: DeadLetterReason) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }

    /// `counts` is indexed by [`LetterState`].
    pub fn set_dead_letters_stored(&self, counts: [u64; 4]) {
        for (state, count) in LetterState::ALL.into_iter().zip(counts) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.dead_letters_stored.with_label_values(&[state.as_str()]).set(count);
        }
    }

    /// Removes the series, because an old number would look like a current one.
    pub fn clear_dead_letters_stored(&self) {
        self.dead_letters_stored.reset();
    }

    pub(crate) fn record_replayed(&self, outcome: ReplayOutcome) {
        self.replayed.with_label_values(&[outcome.as_str()]).inc();
    }

    /// `messages` counts messages that are ready, not those that a consumer has received.
    pub fn set_queue_depth(&self, queue: &str, messages: u32) {
        self.queue_messages.with_label_values(&[queue]).set(i64::from(messages));
    }

    /// Removes the series, because an old number would look like a current one.
    pub fn clear_queue_depths(&self) {
        self.queue_messages.reset();
    }

    pub fn set_publisher(&self, current: PublisherGauge) {
        for state in PublisherGauge::ALL {
            self.publisher.with_label_values(&[state.as_str()]).set(i64::from(state == current));
        }
    }

    /// All metrics in the Prometheus text format.
    ///
    /// # Errors
    /// If a metric can't be written as text, which is a defect of this file.
    pub fn to_text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
