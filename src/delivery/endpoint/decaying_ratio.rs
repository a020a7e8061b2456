//! What is remembered of an endpoint's requests for a while, without keeping each of them.

use std::collections::VecDeque;
use std::time::Duration;

/// The failure ratio is that of about the last minute: what is older than this counts half.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// When there was no request for so long, nothing is said of how many fail.
const FRESH: Duration = Duration::from_secs(120);

/// Requests that were answered with 2xx, and others, fading with time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DecayingRatio {
    good: f64,
    bad: f64,
    at: Duration,
    /// When the last one was answered.
    last: Duration,
}

impl DecayingRatio {
    pub(super) fn add(&mut self, good: bool, now: Duration) {
        *self = Self { last: now, ..self.at(now) };
        if good {
            self.good += 1.0;
        } else {
            self.bad += 1.0;
        }
    }

    /// What is left of it now.
    #[must_use]
    pub fn at(self, now: Duration) -> Self {
        let left = 0.5_f64.powf(now.saturating_sub(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64());
        Self { good: self.good * left, bad: self.bad * left, at: now, ..self }
    }

    /// Both together; they must be of the same time.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { good: self.good + other.good, bad: self.bad + other.bad, at: self.at, last: self.last.max(other.last) }
    }

    /// The share of those not answered with 2xx; none where there were none of late.
    pub fn failure_ratio(self) -> Option<f64> {
        let all = self.good + self.bad;
        (all > 0.0 && self.at.saturating_sub(self.last) <= FRESH).then(|| self.bad / all)
    }
}

/// A span of time, in seconds.
const SPAN: u64 = 5;

/// How many deliveries are parked, by when their time comes: in spans of five seconds.
#[derive(Debug, Clone, Default)]
pub struct Parked {
    /// The number of the first span.
    first: u64,
    spans: VecDeque<u32>,
}

impl Parked {
    pub(super) fn add(&mut self, until: Duration, now: Duration) {
        let current = now.as_secs() / SPAN;
        let over = usize::try_from(current.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.spans.len());
        self.spans.drain(..over);
        self.first = self.first.max(current);
        let span = usize::try_from((until.as_secs() / SPAN).saturating_sub(self.first)).unwrap_or(usize::MAX);
        if self.spans.len() <= span {
            self.spans.resize(span + 1, 0);
        }
        self.spans[span] = self.spans[span].saturating_add(1);
    }

    /// Those whose time has not come.
    pub fn count(&self, now: Duration) -> u32 {
        let over = (now.as_secs() / SPAN).saturating_sub(self.first);
        self.spans.iter().skip(usize::try_from(over).unwrap_or(usize::MAX)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn parked_deliveries_are_counted_until_their_time_comes() {
        let mut parked = Parked::default();
        let now = seconds(1_000);
        for time in [1, 1, 30, 600] {
            parked.add(now + seconds(time), now);
        }
        let count = |after| parked.count(now + seconds(after));
        assert_eq!((count(0), count(10), count(40), count(700)), (4, 2, 1, 0));
        parked.add(seconds(5_001), seconds(5_000));
        assert_eq!((parked.count(seconds(5_000)), parked.spans.len()), (1, 1), "what is over takes no memory");
    }

    #[test]
    fn failures_fade() {
        let mut recent = DecayingRatio::default();
        assert_eq!(recent.failure_ratio(), None);
        for good in [true, true, true, false] {
            recent.add(good, seconds(100));
        }
        assert_eq!(recent.failure_ratio(), Some(0.25));
        recent.add(true, seconds(130));
        assert_eq!(recent.failure_ratio(), Some(0.5 / 3.0));
        for bad in 0..10_000 {
            recent.add(bad == 0, seconds(130));
        }
        assert!(recent.at(seconds(250)).failure_ratio().is_some_and(|failing| failing > 0.99));
        assert_eq!(recent.at(seconds(251)).failure_ratio(), None, "however many have failed before");
        let both = recent.at(seconds(130)).and(recent.at(seconds(130)));
        assert_eq!(both.failure_ratio(), recent.failure_ratio());
    }
}
