//! The metrics as plain values at one moment, so that two moments can be compared.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Metric as _};
use prometheus::proto::Metric;
use prometheus::{Histogram, IntGaugeVec};
use waypost_core::dead_letter::LetterState;
use waypost_core::outcome::Cause;

use super::ledger::DeliverySource;
use super::{EventResult, Metrics};

/// The counters of a process. All begin at zero and only grow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Settled messages of the events queue, indexed by [`EventResult`].
    pub events: [u64; EventResult::ALL.len()],
    /// Requests that ended, indexed by [`Cause`].
    pub attempts: [u64; Cause::ALL.len()],
    /// Retries put into a delay queue.
    pub retries_scheduled: u64,
    /// Deliveries put into a delay queue without an attempt.
    pub parked: u64,
    pub dead_letters: u64,
    /// Seconds.
    pub attempt_duration: HistogramSnapshot,
    /// Seconds from an event's `date` to the 2xx.
    pub delivery_latency: HistogramSnapshot,
}

impl Counts {
    /// Requests answered with 2xx.
    pub fn delivered(&self) -> u64 {
        self.attempts[Cause::Ok as usize]
    }

    /// Requests that were not answered with 2xx.
    pub fn failed(&self) -> u64 {
        self.attempts.iter().sum::<u64>() - self.delivered()
    }
}

/// The values of a histogram, counted by bucket and not cumulatively.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Upper bounds in ascending order, with the number of values above the bound before.
    pub buckets: Vec<(f64, u64)>,
    /// The number of values above the highest bound.
    pub overflow: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantile {
    /// Interpolated between two bounds.
    About(f64),
    /// Above the highest bound, which this is.
    MoreThan(f64),
}

impl HistogramSnapshot {
    fn from_histogram(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let histogram = metric.get_histogram();
        let mut below = 0;
        let mut buckets = Vec::with_capacity(histogram.get_bucket().len());
        for bucket in histogram.get_bucket() {
            buckets.push((bucket.upper_bound(), bucket.cumulative_count().saturating_sub(below)));
            below = bucket.cumulative_count();
        }
        Self { buckets, overflow: histogram.get_sample_count().saturating_sub(below) }
    }

    /// The values that were added after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let earlier_count = |index: usize| earlier.buckets.get(index).map_or(0, |(_, count)| *count);
        let buckets = self.buckets.iter().enumerate();
        Self {
            buckets: buckets
                .map(|(index, (bound, count))| (*bound, count.saturating_sub(earlier_count(index))))
                .collect(),
            overflow: self.overflow.saturating_sub(earlier.overflow),
        }
    }

    /// The number of all values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum::<u64>() + self.overflow
    }

    /// The value that a share of the values (0.99) does not exceed. It assumes that the values between two bounds are
    /// spread evenly. `None` if there are no values.
    pub fn quantile(&self, share: f64) -> Option<Quantile> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share.clamp(0.0, 1.0) * count as f64;
        let (mut below, mut lower_bound) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                let position = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(Quantile::About(lower_bound + (bound - lower_bound) * position));
            }
            below += count;
            lower_bound = *bound;
        }
        Some(Quantile::MoreThan(lower_bound))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// HTTP requests in flight.
    pub requests_in_flight: i64,
    /// Messages that are ready, by queue. Empty while the broker can't be asked.
    pub queues: BTreeMap<String, u64>,
    /// Stored dead letters, indexed by [`LetterState`]. `None` while their number is not known.
    pub dead_letters: Option<[u64; LetterState::ALL.len()]>,
    /// Workers that consume, as last read.
    pub workers: i64,
    /// The offset of the last configuration change that was applied.
    pub config_version: i64,
    pub balance: Balance,
}

/// Deliveries by state: begun, delivered, dead, waiting, requeued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// Begun from events.
    pub from_events: u64,
    /// Begun from delay queues.
    pub from_delay_queues: u64,
    pub delivered: u64,
    pub dead: u64,
    /// Put into a delay queue after a failed attempt.
    pub retried: u64,
    /// Put into a delay queue without an attempt.
    pub parked: u64,
    /// The message was requeued.
    pub requeued: u64,
    /// Not settled yet.
    pub in_flight: u64,
}

impl Balance {
    /// All deliveries that were begun.
    pub fn begun(&self) -> u64 {
        self.from_events + self.from_delay_queues
    }

    /// All deliveries that are accounted for. While deliveries are in flight, the number can differ from
    /// [`begun`](Self::begun) for a moment.
    pub fn accounted(&self) -> u64 {
        self.delivered + self.dead + self.retried + self.parked + self.requeued + self.in_flight
    }
}

impl Metrics {
    pub fn counts(&self) -> Counts {
        let mut attempts = [0; Cause::ALL.len()];
        for (labels, count) in counter_values(&self.attempts) {
            let cause = Cause::ALL.into_iter().find(|cause| labels.contains(&cause.as_str().to_owned()));
            if let Some(cause) = cause {
                attempts[cause as usize] += count;
            }
        }
        Counts {
            events: std::array::from_fn(|index| self.events[index].get()),
            attempts,
            retries_scheduled: self.retries_scheduled.get(),
            parked: counter_values(&self.parked).map(|(_, count)| count).sum(),
            dead_letters: counter_values(&self.dead_letters).map(|(_, count)| count).sum(),
            attempt_duration: HistogramSnapshot::from_histogram(&self.attempt_duration),
            delivery_latency: HistogramSnapshot::from_histogram(&self.delivery_latency),
        }
    }

    pub fn gauges(&self) -> Gauges {
        let stored: BTreeMap<String, u64> = gauge_values(&self.dead_letters_stored).collect();
        let in_state = |state: LetterState| stored.get(state.as_str()).copied().unwrap_or_default();
        Gauges {
            requests_in_flight: self.ledger.requests_in_flight(),
            queues: gauge_values(&self.queue_messages).collect(),
            dead_letters: (!stored.is_empty()).then(|| LetterState::ALL.map(in_state)),
            workers: self.workers.get(),
            config_version: self.config_version.get(),
            balance: Balance {
                from_events: self.ledger.begun(DeliverySource::Event),
                from_delay_queues: self.ledger.begun(DeliverySource::DelayQueue),
                delivered: self.delivered.get(),
                dead: self.dead.get(),
                retried: self.retries_scheduled.get(),
                parked: counter_values(&self.parked).map(|(_, count)| count).sum(),
                requeued: self.ledger.requeued(),
                in_flight: self.ledger.in_flight(),
            },
        }
    }
}

/// Each counter of a family, with the values of its labels.
fn counter_values(family: &impl Collector) -> impl Iterator<Item = (Vec<String>, u64)> {
    metrics(family).map(|metric| {
        let labels = metric.get_label().iter().map(|label| label.value().to_owned()).collect();
        (labels, metric.get_counter().get_value() as u64)
    })
}

/// Each gauge of a family with one label, with the label's value.
fn gauge_values(family: &IntGaugeVec) -> impl Iterator<Item = (String, u64)> {
    metrics(family).map(|metric| {
        let label = metric.get_label().first().map(|label| label.value().to_owned()).unwrap_or_default();
        (label, metric.get_gauge().get_value() as u64)
    })
}

fn metrics(family: &impl Collector) -> impl Iterator<Item = Metric> {
    family.collect().into_iter().flat_map(|mut family| family.take_metric())
}

#[cfg(test)]
mod tests {
    use waypost_core::outcome::{RequestPhase, SendResult};

    use super::*;
    use crate::metrics::AttemptOutcome;

    fn histogram(counts: &[u64], overflow: u64) -> HistogramSnapshot {
        let bounds = [0.1, 0.2, 0.4, 1.0];
        HistogramSnapshot { buckets: bounds.into_iter().zip(counts.iter().copied()).collect(), overflow }
    }

    fn estimate(quantile: Option<Quantile>) -> f64 {
        match quantile {
            Some(Quantile::About(value)) => (value * 1e6).round() / 1e6,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn quantiles_are_interpolated_between_the_bounds() {
        let even = histogram(&[10, 10, 0, 0], 0);
        for (share, expected) in [(0.0, 0.0), (0.25, 0.05), (0.5, 0.1), (0.75, 0.15), (0.95, 0.19), (1.0, 0.2)] {
            assert_eq!(estimate(even.quantile(share)), expected, "{share}");
        }
        // Empty buckets are skipped: the third quarter is in the last bucket.
        let apart = histogram(&[1, 0, 0, 1], 0);
        assert_eq!((estimate(apart.quantile(0.5)), estimate(apart.quantile(0.75))), (0.1, 0.7));
        assert_eq!(estimate(histogram(&[0, 0, 1, 0], 0).quantile(0.99)), 0.398);
    }

    #[test]
    fn a_quantile_above_the_highest_bound_is_not_estimated() {
        assert_eq!(histogram(&[98, 0, 0, 0], 2).quantile(0.99), Some(Quantile::MoreThan(1.0)));
        assert_eq!(estimate(histogram(&[98, 0, 0, 0], 2).quantile(0.5)), 0.05102);
        assert_eq!(histogram(&[0, 0, 0, 0], 0).quantile(0.5), None);
        assert_eq!(HistogramSnapshot::default().quantile(0.5), None);
    }

    #[test]
    fn since_is_the_difference_of_two_snapshots() {
        let (earlier, later) = (histogram(&[5, 1, 0, 2], 1), histogram(&[7, 1, 3, 2], 4));
        assert_eq!(later.since(&earlier), histogram(&[2, 0, 3, 0], 3));
        assert_eq!(later.since(&earlier).count(), 8);
        assert_eq!(later.since(&HistogramSnapshot::default()), later);
        assert_eq!(earlier.since(&later).count(), 0, "no count is negative");
    }

    #[test]
    fn snapshots_have_the_counted_values() {
        let metrics = Metrics::new().expect("metrics");
        assert_eq!(metrics.counts().failed(), 0);
        assert_eq!(metrics.gauges().dead_letters, None, "not known yet");
        let success = SendResult::Response { status: 200, retry_after: None, body: Vec::new() };
        let timeout = SendResult::TimedOut { phase: RequestPhase::AwaitingResponse };
        metrics.record_attempt(AttemptOutcome::Delivered, &success);
        metrics.record_attempt(AttemptOutcome::Retry, &timeout);
        metrics.record_attempt(AttemptOutcome::Dead, &timeout);
        metrics.record_delivered(0.02);
        metrics.record_delivered(1e9);
        metrics.set_queue_depth("waypost.events", 7);
        metrics.set_dead_letters_stored([3, 0, 2, 1]);
        let counts = metrics.counts();
        assert_eq!((counts.delivered(), counts.failed(), counts.attempts[Cause::Timeout as usize]), (1, 2, 2));
        assert_eq!((counts.delivery_latency.count(), counts.delivery_latency.overflow), (2, 1));
        assert_eq!(estimate(counts.delivery_latency.quantile(0.5)), 0.025);
        let gauges = metrics.gauges();
        assert_eq!(gauges.queues, BTreeMap::from([("waypost.events".to_owned(), 7)]));
        assert_eq!(gauges.dead_letters, Some([3, 0, 2, 1]));
        metrics.clear_queue_depths();
        metrics.clear_dead_letters_stored();
        assert_eq!((metrics.gauges().queues.len(), metrics.gauges().dead_letters), (0, None));
    }

    #[test]
    fn the_balance_follows_the_ledger() {
        let metrics = Metrics::new().expect("metrics");
        let balance = || {
            let balance = metrics.gauges().balance;
            (balance.begun(), balance.accounted(), balance.in_flight, balance.requeued)
        };
        let first = metrics.ledger.begin(DeliverySource::Event);
        let second = metrics.ledger.begin(DeliverySource::DelayQueue);
        assert_eq!(balance(), (2, 2, 2, 0));
        metrics.record_delivered(0.1);
        first.settled();
        drop(second);
        assert_eq!(balance(), (2, 2, 0, 1));
    }
}
