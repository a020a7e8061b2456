//! What is counted, read as plain values at one moment: for whoever compares two of them.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Metric as _};
use prometheus::proto::Metric;
use prometheus::{Histogram, IntGaugeVec};

use super::ledger::Origin;
use super::{EventResult, Metrics};
use crate::delivery::dead_letter::LetterState;
use crate::delivery::outcome::Cause;

/// The counters of a process; all begin at zero and only grow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Messages of the events queue settled, by [`EventResult`]'s number.
    pub events: [u64; EventResult::ALL.len()],
    /// Requests that ended, by [`Cause`]'s number.
    pub attempts: [u64; Cause::ALL.len()],
    /// Retries put on the delay ladder.
    pub retries_scheduled: u64,
    /// Deliveries put back without an attempt.
    pub parked: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// How long requests took.
    pub attempt_duration: HistogramSnapshot,
    /// How long it took from an event's `date` to the 2xx.
    pub delivery_latency: HistogramSnapshot,
}

impl Counts {
    /// Requests answered with 2xx.
    pub fn delivered(&self) -> u64 {
        self.attempts[Cause::Ok as usize]
    }

    /// Requests that ended in any other way.
    pub fn failed(&self) -> u64 {
        self.attempts.iter().sum::<u64>() - self.delivered()
    }
}

/// A histogram: how many values were at most as great as each bound, and greater than the bound before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// The bounds with their counts, rising.
    pub bounded: Vec<(f64, u64)>,
    /// Values greater than any bound.
    pub beyond: u64,
}

/// A share of the values is at most this.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantile {
    /// About this much.
    About(f64),
    /// More than the greatest bound, nobody knows how much.
    MoreThan(f64),
}

impl HistogramSnapshot {
    fn from_histogram(histogram: &Histogram) -> Self {
        let metric = histogram.metric();
        let histogram = metric.get_histogram();
        let mut below = 0;
        let mut bounded = Vec::with_capacity(histogram.get_bucket().len());
        for bucket in histogram.get_bucket() {
            bounded.push((bucket.upper_bound(), bucket.cumulative_count().saturating_sub(below)));
            below = bucket.cumulative_count();
        }
        Self { bounded, beyond: histogram.get_sample_count().saturating_sub(below) }
    }

    /// The values that have come since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let earlier_at = |index: usize| earlier.bounded.get(index).map_or(0, |(_, count)| *count);
        let bounded = self.bounded.iter().enumerate();
        Self {
            bounded: bounded.map(|(index, (bound, count))| (*bound, count.saturating_sub(earlier_at(index)))).collect(),
            beyond: self.beyond.saturating_sub(earlier.beyond),
        }
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.bounded.iter().map(|(_, count)| count).sum::<u64>() + self.beyond
    }

    /// What this share of the values (0.99) does not exceed, as if those within two bounds were spread evenly; none where
    /// there are no values.
    pub fn quantile(&self, share: f64) -> Option<Quantile> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = share.clamp(0.0, 1.0) * count as f64;
        let (mut below, mut from) = (0.0, 0.0);
        for (bound, count) in &self.bounded {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(Quantile::About(from + (bound - from) * ((rank - below) / count).clamp(0.0, 1.0)));
            }
            below += count;
            from = *bound;
        }
        Some(Quantile::MoreThan(from))
    }
}

/// What is so at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Requests under way.
    pub in_flight: i64,
    /// Messages that wait, by queue; empty while nobody knows.
    pub queues: BTreeMap<String, u64>,
    /// Dead letters that are kept, by [`LetterState`]'s number; none while nobody knows.
    pub dead_letters: Option<[u64; LetterState::ALL.len()]>,
    /// Workers that consume, as last seen.
    pub workers: i64,
    /// The offset of the last change of configuration applied.
    pub config_version: i64,
    /// What became of the deliveries that were taken in hand.
    pub balance: Balance,
}

/// The account of deliveries, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// Taken in hand from fresh events.
    pub from_events: u64,
    /// Taken in hand from the delay ladder.
    pub from_ladder: u64,
    /// Delivered.
    pub delivered: u64,
    /// Dead.
    pub dead: u64,
    /// Put on the ladder to be tried again.
    pub retried: u64,
    /// Put on the ladder for their endpoint.
    pub parked: u64,
    /// Given back to the broker.
    pub given_back: u64,
    /// In hand.
    pub in_hand: u64,
}

impl Balance {
    /// All that were taken.
    pub fn taken(&self) -> u64 {
        self.from_events + self.from_ladder
    }

    /// All of which is known what became of them. While work is under way it is another number for a moment.
    pub fn known(&self) -> u64 {
        self.delivered + self.dead + self.retried + self.parked + self.given_back + self.in_hand
    }
}

impl Metrics {
    /// The counters.
    pub fn counts(&self) -> Counts {
        let mut attempts = [0; Cause::ALL.len()];
        for (labels, count) in counted(&self.attempts) {
            let cause = Cause::ALL.into_iter().find(|cause| labels.contains(&cause.as_str().to_owned()));
            if let Some(cause) = cause {
                attempts[cause as usize] += count;
            }
        }
        Counts {
            events: std::array::from_fn(|index| self.events[index].get()),
            attempts,
            retries_scheduled: self.retries_scheduled.get(),
            parked: counted(&self.parked).map(|(_, count)| count).sum(),
            dead_letters: counted(&self.dead_letters).map(|(_, count)| count).sum(),
            attempt_duration: HistogramSnapshot::from_histogram(&self.attempt_duration),
            delivery_latency: HistogramSnapshot::from_histogram(&self.delivery_latency),
        }
    }

    /// The gauges, and the account.
    pub fn gauges(&self) -> Gauges {
        let kept: BTreeMap<String, u64> = gauged(&self.dead_letters_kept).collect();
        let in_state = |state: LetterState| kept.get(state.as_str()).copied().unwrap_or_default();
        Gauges {
            in_flight: self.deliveries_in_flight.get(),
            queues: gauged(&self.queue_messages).collect(),
            dead_letters: (!kept.is_empty()).then(|| LetterState::ALL.map(in_state)),
            workers: self.workers.get(),
            config_version: self.config_version.get(),
            balance: Balance {
                from_events: self.account.taken(Origin::Event),
                from_ladder: self.account.taken(Origin::Ladder),
                delivered: self.delivered.get(),
                dead: self.dead.get(),
                retried: self.retries_scheduled.get(),
                parked: counted(&self.parked).map(|(_, count)| count).sum(),
                given_back: self.account.given_back(),
                in_hand: self.account.in_hand(),
            },
        }
    }
}

/// Each counter of a family, with the values of its labels.
fn counted(family: &impl Collector) -> impl Iterator<Item = (Vec<String>, u64)> {
    metrics(family).map(|metric| {
        let labels = metric.get_label().iter().map(|label| label.value().to_owned()).collect();
        (labels, metric.get_counter().get_value() as u64)
    })
}

/// Each gauge of a family that has one label, with that.
fn gauged(family: &IntGaugeVec) -> impl Iterator<Item = (String, u64)> {
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
    use super::*;
    use crate::metrics::AttemptOutcome;

    fn buckets(counts: &[u64], beyond: u64) -> HistogramSnapshot {
        let bounds = [0.1, 0.2, 0.4, 1.0];
        HistogramSnapshot { bounded: bounds.into_iter().zip(counts.iter().copied()).collect(), beyond }
    }

    fn about(quantile: Option<Quantile>) -> f64 {
        match quantile {
            Some(Quantile::About(value)) => (value * 1e6).round() / 1e6,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn quantiles_are_interpolated_between_the_bounds() {
        let even = buckets(&[10, 10, 0, 0], 0);
        for (share, expected) in [(0.0, 0.0), (0.25, 0.05), (0.5, 0.1), (0.75, 0.15), (0.95, 0.19), (1.0, 0.2)] {
            assert_eq!(about(even.quantile(share)), expected, "{share}");
        }
        // What lies between two bounds with nothing in between is in neither.
        let apart = buckets(&[1, 0, 0, 1], 0);
        assert_eq!((about(apart.quantile(0.5)), about(apart.quantile(0.75))), (0.1, 0.7));
        assert_eq!(about(buckets(&[0, 0, 1, 0], 0).quantile(0.99)), 0.398);
    }

    #[test]
    fn beyond_the_greatest_bound_nobody_knows() {
        assert_eq!(buckets(&[98, 0, 0, 0], 2).quantile(0.99), Some(Quantile::MoreThan(1.0)));
        assert_eq!(about(buckets(&[98, 0, 0, 0], 2).quantile(0.5)), 0.05102);
        assert_eq!(buckets(&[0, 0, 0, 0], 0).quantile(0.5), None);
        assert_eq!(HistogramSnapshot::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_between_is_the_difference() {
        let (earlier, later) = (buckets(&[5, 1, 0, 2], 1), buckets(&[7, 1, 3, 2], 4));
        assert_eq!(later.since(&earlier), buckets(&[2, 0, 3, 0], 3));
        assert_eq!(later.since(&earlier).count(), 8);
        assert_eq!(later.since(&HistogramSnapshot::default()), later);
        assert_eq!(earlier.since(&later).count(), 0, "no count falls below zero");
    }

    #[test]
    fn what_is_read_is_what_was_counted() {
        let metrics = Metrics::new().expect("metrics");
        assert_eq!(metrics.counts().failed(), 0);
        assert_eq!(metrics.gauges().dead_letters, None, "nobody knows yet");
        metrics.attempt(AttemptOutcome::Delivered, Cause::Ok);
        metrics.attempt(AttemptOutcome::Retry, Cause::Timeout);
        metrics.attempt(AttemptOutcome::Dead, Cause::Timeout);
        metrics.delivered(0.02);
        metrics.delivered(1e9);
        metrics.queue_depth("waypost.events", 7);
        metrics.dead_letters_kept([3, 0, 2, 1]);
        let counts = metrics.counts();
        assert_eq!((counts.delivered(), counts.failed(), counts.attempts[Cause::Timeout as usize]), (1, 2, 2));
        assert_eq!((counts.delivery_latency.count(), counts.delivery_latency.beyond), (2, 1));
        assert_eq!(about(counts.delivery_latency.quantile(0.5)), 0.025);
        let gauges = metrics.gauges();
        assert_eq!(gauges.queues, BTreeMap::from([("waypost.events".to_owned(), 7)]));
        assert_eq!(gauges.dead_letters, Some([3, 0, 2, 1]));
        metrics.forget_queue_depths();
        metrics.forget_dead_letters_kept();
        assert_eq!((metrics.gauges().queues.len(), metrics.gauges().dead_letters), (0, None));
    }

    #[test]
    fn the_account_is_read_as_it_is_kept() {
        let metrics = Metrics::new().expect("metrics");
        let balance = || {
            let balance = metrics.gauges().balance;
            (balance.taken(), balance.known(), balance.in_hand, balance.given_back)
        };
        let (first, second) = (metrics.account.take(Origin::Event), metrics.account.take(Origin::Ladder));
        assert_eq!(balance(), (2, 2, 2, 0));
        metrics.delivered(0.1);
        first.settled();
        drop(second);
        assert_eq!(balance(), (2, 2, 0, 1));
    }
}
