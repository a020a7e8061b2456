//! What is counted, under the names dashboards know. Labels are bounded: never a campaign, webhook, URL or phone number.

pub mod broker_state;
pub mod history;
pub mod ledger;
pub mod snapshot;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use self::broker_state::BrokerState;
use self::ledger::Ledger;
use crate::delivery::dead_letter::LetterState;
use crate::delivery::endpoint::{BreakerState, ParkReason};
use crate::delivery::outcome::{Blame, Cause, Reply, Stages};
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::replay::ReplayOutcome;

/// What became of a message of the events queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventResult {
    /// It has deliveries.
    Resolved,
    /// No webhook is configured for it.
    NoWebhook,
    /// It could not be read.
    Malformed,
}

impl EventResult {
    /// Every result, for metrics that exist before they count.
    pub const ALL: [Self; 3] = [Self::Resolved, Self::NoWebhook, Self::Malformed];

    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::NoWebhook => "no_webhook",
            Self::Malformed => "malformed",
        }
    }
}

/// Whether the broker takes what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublisherGauge {
    /// It confirms messages.
    Up,
    /// It takes none for now: it is short of memory or disk.
    Blocked,
    /// There is no connection to it.
    Down,
}

impl PublisherGauge {
    const ALL: [Self; 3] = [Self::Up, Self::Blocked, Self::Down];

    /// The metric label.
    fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Blocked => "blocked",
            Self::Down => "down",
        }
    }
}

/// What an attempt led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The receiver has it.
    Delivered,
    /// It is tried again.
    Retry,
    /// It was the last.
    Dead,
}

impl AttemptOutcome {
    /// The metric label.
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
    // Those of each delivery are looked up once.
    /// By [`EventResult`]'s number.
    events: [IntCounter; 3],
    attempts: IntCounterVec,
    attempts_ok: IntCounter,
    failures: IntCounterVec,
    /// Seconds of the parts of attempts: resolving, connecting, and until the first byte of the answer.
    stages: [Histogram; 3],
    delivered: IntCounter,
    dead: IntCounter,
    dead_letters: IntCounterVec,
    dead_letters_kept: IntGaugeVec,
    replayed: IntCounterVec,
    /// Deliveries in hand, and where they came from.
    pub account: Ledger,
    /// The broker's objects and the logs.
    pub broker_state: BrokerState,
    /// Seconds an attempt took, whatever its outcome.
    pub attempt_duration: Histogram,
    /// Seconds from an event's `date` to the beginning of its first attempt, where that was not put off for its endpoint.
    pub first_attempt_delay: Histogram,
    /// Seconds from an event's `date` to the 2xx.
    pub delivery_latency: Histogram,
    /// Workers that consume, as last seen.
    pub workers: IntGauge,
    /// Messages being dealt with, as [`crate::worker::consumer_status::ConsumerStatus`] knows them when this is read.
    pub messages_in_hand: IntGauge,
    /// Deliveries being attempted.
    pub deliveries_in_flight: IntGauge,
    /// Retries put on the delay ladder.
    pub retries_scheduled: IntCounter,
    /// Messages that the broker held, unacknowledged, for a channel that never got them.
    pub messages_recovered: IntCounter,
    /// Dead letters published again, because RabbitMQ confirmed them and the stream did not have them.
    pub dead_letters_republished: IntCounter,
    parked: IntCounterVec,
    endpoints: IntGaugeVec,
    queue_messages: IntGaugeVec,
    publisher: IntGaugeVec,
    /// Bytes of the local view's folder, as it is when this is read.
    pub store_bytes: IntGauge,
    /// Without labels, and not there until it is known.
    store_free_bytes: IntGaugeVec,
    /// 1 while messages are consumed from the broker.
    pub broker_connected: IntGauge,
    /// The offset of the last change of configuration applied.
    pub config_version: IntGauge,
    /// 1 while events are held because campaigns may be missing from their log.
    pub config_log_incomplete: IntGauge,
}

/// The parts of an attempt that are timed, in the order in which they come.
const STAGES: [&str; 3] = ["resolve", "connect", "first_byte"];

/// Attempts: from a millisecond to the longest time limit of a webhook.
const ATTEMPT_SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];

/// Deliveries: from a millisecond to the two days of `retry.maxAge`.
const DELIVERY_SECONDS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
    28_800.0, 172_800.0,
];

impl Metrics {
    /// Registers everything; what has known labels is there from the start, at zero.
    ///
    /// # Errors
    /// Where two metrics have one name: a mistake in this file.
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
        let opts = Opts::new("waypost_store_free_bytes", "Bytes free on the disk of the local view's folder");
        let store_free_bytes = IntGaugeVec::new(opts, &[])?;
        registry.register(Box::new(store_free_bytes.clone()))?;
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<Histogram, prometheus::Error> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let events =
            counters("waypost_events_total", "Messages of the events queue settled, by what they were", &["result"])?;
        let attempts = counters(
            "waypost_attempts_total",
            "HTTP requests of deliveries, by how they ended",
            &["outcome", "cause"],
        )?;
        let failures = counters(
            "waypost_attempt_failures_total",
            "Attempts that failed, by whom or what that is to be blamed on",
            &["blame"],
        )?;
        for blame in Blame::ALL {
            failures.with_label_values(&[blame.as_str()]);
        }
        let stages = HistogramVec::new(
            HistogramOpts::new(
                "waypost_attempt_stage_duration_seconds",
                "Time a part of an attempt took, where it was needed",
            )
            .buckets(ATTEMPT_SECONDS.to_vec()),
            &["stage"],
        )?;
        registry.register(Box::new(stages.clone()))?;
        let deliveries = counters("waypost_deliveries_total", "Deliveries ended", &["outcome"])?;
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
        let dead_letters_kept =
            IntGaugeVec::new(Opts::new("waypost_dead_letters", "Dead letters that are kept"), &["state"])?;
        registry.register(Box::new(dead_letters_kept.clone()))?;
        let retries_scheduled = IntCounter::new("waypost_retries_scheduled_total", "Retries put on the delay ladder")?;
        registry.register(Box::new(retries_scheduled.clone()))?;
        let version = Opts::new("waypost_build_info", "1, with the version of this worker")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let build_info = IntGauge::with_opts(version)?;
        build_info.set(1);
        registry.register(Box::new(build_info))?;
        let messages_recovered = IntCounter::new(
            "waypost_messages_recovered_total",
            "Messages that the broker held, unacknowledged, for a channel of a worker that never got them",
        )?;
        registry.register(Box::new(messages_recovered.clone()))?;
        let dead_letters_republished = IntCounter::new(
            "waypost_dead_letters_republished_total",
            "Dead letters published again, because RabbitMQ confirmed them and the stream did not have them",
        )?;
        registry.register(Box::new(dead_letters_republished.clone()))?;
        let parked = counters(
            "waypost_deliveries_parked_total",
            "Deliveries put back on the delay ladder without an attempt, by what their endpoint could not take",
            &["reason"],
        )?;
        for why in ParkReason::ALL {
            parked.with_label_values(&[why.as_str()]);
        }
        let endpoints = IntGaugeVec::new(
            Opts::new("waypost_endpoints", "Endpoints in use of late, by their breaker"),
            &["breaker"],
        )?;
        registry.register(Box::new(endpoints.clone()))?;
        for state in BreakerState::ALL {
            endpoints.with_label_values(&[state.as_str()]);
        }
        let queue_messages = IntGaugeVec::new(
            Opts::new("waypost_queue_messages", "Messages ready in a queue, as last read"),
            &["queue"],
        )?;
        registry.register(Box::new(queue_messages.clone()))?;
        let publisher = IntGaugeVec::new(
            Opts::new("waypost_publisher", "1 for how the connection that publishes to the broker is"),
            &["link"],
        )?;
        registry.register(Box::new(publisher.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            account: Ledger::register(&registry)?,
            broker_state: BrokerState::register(&registry)?,
            workers: gauge("waypost_workers", "Workers that consume the events, as last read")?,
            messages_in_hand: gauge("waypost_messages_in_hand", "Messages of all queues being dealt with")?,
            attempt_duration: histogram("waypost_attempt_duration_seconds", "Time an attempt took", &ATTEMPT_SECONDS)?,
            first_attempt_delay: histogram(
                "waypost_first_attempt_delay_seconds",
                "Time from the event's date to the beginning of its first attempt, where that was not parked",
                &DELIVERY_SECONDS,
            )?,
            delivery_latency: histogram(
                "waypost_delivery_latency_seconds",
                "Time from the event's date to the 2xx",
                &DELIVERY_SECONDS,
            )?,
            deliveries_in_flight: gauge("waypost_deliveries_in_flight", "Deliveries being attempted")?,
            broker_connected: gauge("waypost_broker_connected", "1 while messages are consumed from the broker")?,
            store_bytes: gauge("waypost_store_bytes", "Bytes of the local view's folder")?,
            store_free_bytes,
            config_version: gauge("waypost_config_version", "Offset of the last change of configuration applied")?,
            config_log_incomplete: gauge(
                "waypost_config_log_incomplete",
                "1 while events are held because campaigns may be missing from the campaigns stream",
            )?,
            registry,
            events,
            attempts_ok: attempts.with_label_values(&[AttemptOutcome::Delivered.as_str(), Cause::Ok.as_str()]),
            attempts,
            failures,
            stages: STAGES.map(|stage| stages.with_label_values(&[stage])),
            delivered,
            dead,
            dead_letters,
            dead_letters_kept,
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

    /// A message of the events queue is settled.
    pub fn event(&self, result: EventResult) {
        self.events[result as usize].inc();
    }

    /// An attempt ended.
    pub fn attempt(&self, outcome: AttemptOutcome, cause: Cause) {
        match (outcome, cause) {
            (AttemptOutcome::Delivered, Cause::Ok) => self.attempts_ok.inc(),
            _ => self.attempts.with_label_values(&[outcome.as_str(), cause.as_str()]).inc(),
        }
    }

    /// An attempt came to this; what failed is blamed on somebody.
    pub fn blamed(&self, reply: &Reply) {
        if let Some(blame) = reply.blame() {
            self.failures.with_label_values(&[blame.as_str()]).inc();
        }
    }

    /// The parts of an attempt took so long.
    pub fn stages(&self, stages: &Stages) {
        let Stages { resolve, connect, first_byte } = *stages;
        for (histogram, took) in self.stages.iter().zip([resolve, connect, first_byte]) {
            took.iter().for_each(|took| histogram.observe(took.as_secs_f64()));
        }
    }

    /// A delivery ended with a 2xx, this long after its event.
    pub fn delivered(&self, latency_seconds: f64) {
        self.delivered.inc();
        self.delivery_latency.observe(latency_seconds.max(0.0));
    }

    /// A delivery ended without success.
    pub fn dead(&self) {
        self.dead.inc();
    }

    /// A delivery was put back without an attempt.
    pub fn parked(&self, why: ParkReason) {
        self.parked.with_label_values(&[why.as_str()]).inc();
    }

    /// These are the breakers of the endpoints in use of late.
    pub fn endpoints(&self, breakers: impl Iterator<Item = BreakerState>) {
        self.endpoints.reset();
        let gauges = BreakerState::ALL.map(|state| self.endpoints.with_label_values(&[state.as_str()]));
        breakers.for_each(|breaker| gauges[breaker as usize].inc());
    }

    /// So many bytes are free on the disk of the local view's folder.
    pub fn store_free_bytes(&self, free: u64) {
        self.store_free_bytes.with_label_values(&[] as &[&str]).set(i64::try_from(free).unwrap_or(i64::MAX));
    }

    /// A dead letter was written.
    pub fn dead_letter(&self, reason: DeadLetterReason) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }

    /// So many dead letters are kept in each state, by the state's number.
    pub fn dead_letters_kept(&self, counts: [u64; 4]) {
        for (state, count) in LetterState::ALL.into_iter().zip(counts) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.dead_letters_kept.with_label_values(&[state.as_str()]).set(count);
        }
    }

    /// Nobody knows how many are kept: an old number would look like a new one.
    pub fn forget_dead_letters_kept(&self) {
        self.dead_letters_kept.reset();
    }

    /// A dead letter was sent again.
    pub fn replayed(&self, outcome: ReplayOutcome) {
        self.replayed.with_label_values(&[outcome.as_str()]).inc();
    }

    /// A queue had this many messages that nobody had in hand.
    pub fn queue_depth(&self, queue: &str, messages: u32) {
        self.queue_messages.with_label_values(&[queue]).set(i64::from(messages));
    }

    /// Nobody knows the queues' depths any more: an old number would look like a new one.
    pub fn forget_queue_depths(&self) {
        self.queue_messages.reset();
    }

    /// The connection that publishes is like this.
    pub fn publisher(&self, now: PublisherGauge) {
        for each in PublisherGauge::ALL {
            self.publisher.with_label_values(&[each.as_str()]).set(i64::from(each == now));
        }
    }

    /// The text Prometheus reads.
    ///
    /// # Errors
    /// Where a metric can't be written as text: a mistake in this file.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
