//! Statistics of the recent requests of a receiver: an exponentially decaying failure ratio, and the number of parked
//! deliveries. Single requests are not stored.

use std::collections::VecDeque;
use std::time::Duration;

/// Requests of this age count half, so the failure ratio covers about the last minute.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// There is no failure ratio if the last request is older.
const MAX_AGE: Duration = Duration::from_secs(120);

/// The numbers of requests with and without a 2xx response, decaying with time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DecayingRatio {
    ok: f64,
    failed: f64,
    /// The time of both numbers.
    at: Duration,
    /// The end of the last request.
    last: Duration,
}

impl DecayingRatio {
    pub(super) fn add(&mut self, is_ok: bool, now: Duration) {
        *self = Self { last: now, ..self.at(now) };
        if is_ok {
            self.ok += 1.0;
        } else {
            self.failed += 1.0;
        }
    }

    #[must_use]
    pub fn at(self, now: Duration) -> Self {
        let factor = 0.5_f64.powf(now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64());
        Self { ok: self.ok * factor, failed: self.failed * factor, at: now, ..self }
    }

    /// The sum of both. They must have the same time.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            ok: self.ok + other.ok,
            failed: self.failed + other.failed,
            at: self.at,
            last: self.last.max(other.last),
        }
    }

    /// The share of requests without a 2xx response. `None` if there was no request recently.
    pub fn failure_ratio(self) -> Option<f64> {
        let total = self.ok + self.failed;
        (total > 0.0 && self.at.saturating_sub(self.last) <= MAX_AGE).then(|| self.failed / total)
    }
}

const SPAN_SECONDS: u64 = 5;

/// Counts parked deliveries by the time when they are due, in spans of `SPAN_SECONDS`.
#[derive(Debug, Clone, Default)]
pub struct Parked {
    /// The number of the first span since time 0.
    first_span: u64,
    /// The deliveries that are due in each span.
    spans: VecDeque<u32>,
}

impl Parked {
    pub(super) fn add(&mut self, until: Duration, now: Duration) {
        let current = now.as_secs() / SPAN_SECONDS;
        let expired =
            usize::try_from(current.saturating_sub(self.first_span)).unwrap_or(usize::MAX).min(self.spans.len());
        self.spans.drain(..expired);
        self.first_span = self.first_span.max(current);
        let span =
            usize::try_from((until.as_secs() / SPAN_SECONDS).saturating_sub(self.first_span)).unwrap_or(usize::MAX);
        if self.spans.len() <= span {
            self.spans.resize(span + 1, 0);
        }
        self.spans[span] = self.spans[span].saturating_add(1);
    }

    /// The deliveries that are not due at `now`.
    pub fn count(&self, now: Duration) -> u32 {
        let expired = (now.as_secs() / SPAN_SECONDS).saturating_sub(self.first_span);
        self.spans.iter().skip(usize::try_from(expired).unwrap_or(usize::MAX)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn parked_deliveries_are_counted_until_they_are_due() {
        let mut parked = Parked::default();
        let now = seconds(1_000);
        for time in [1, 1, 30, 600] {
            parked.add(now + seconds(time), now);
        }
        let count = |after| parked.count(now + seconds(after));
        assert_eq!((count(0), count(10), count(40), count(700)), (4, 2, 1, 0));
        parked.add(seconds(5_001), seconds(5_000));
        assert_eq!((parked.count(seconds(5_000)), parked.spans.len()), (1, 1), "past spans take no memory");
    }

    #[test]
    fn failures_decay() {
        let mut recent = DecayingRatio::default();
        assert_eq!(recent.failure_ratio(), None);
        for is_ok in [true, true, true, false] {
            recent.add(is_ok, seconds(100));
        }
        assert_eq!(recent.failure_ratio(), Some(0.25));
        recent.add(true, seconds(130));
        assert_eq!(recent.failure_ratio(), Some(0.5 / 3.0));
        for number in 0..10_000 {
            recent.add(number == 0, seconds(130));
        }
        assert!(recent.at(seconds(250)).failure_ratio().is_some_and(|ratio| ratio > 0.99));
        assert_eq!(recent.at(seconds(251)).failure_ratio(), None, "the last request is too old");
        let both = recent.at(seconds(130)).merge(recent.at(seconds(130)));
        assert_eq!(both.failure_ratio(), recent.failure_ratio());
    }
}
