//! Limits the requests in flight and the requests per second, and computes when parked deliveries are due again. Each
//! endpoint, each receiver, and each webhook with its own limits has a limiter.

use std::time::Duration;

use crate::gcra::{Gcra, Rate};

/// New deliveries that wait in memory use a part of the window of events, so they wait only briefly.
const MAX_QUEUE_DELAY_OF_EVENT: Duration = Duration::from_millis(400);

/// The delay queues return all retries of a second at once, so retries may wait for more than a second. Otherwise some
/// would be parked again, and the limiter would be unused for the rest of the second.
const MAX_QUEUE_DELAY_OF_RETRY: Duration = Duration::from_millis(1200);

/// Requests may be early by this time, so that the rate is reached even if requests do not arrive evenly. No second
/// exceeds the rate by more than a tenth. Low rates have no burst, because one request is more than a tenth of the rate.
const BURST: Duration = Duration::from_millis(100);

/// The shortest delay of the delay queues.
pub const MIN_PARK_TIME: Duration = Duration::from_secs(1);

pub const MAX_PARK_TIME: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests in flight.
    pub concurrency: u32,
    pub per_second: Option<f64>,
}

impl Limits {
    pub(super) fn rate(self) -> Option<Rate> {
        self.per_second.map(|per_second| Rate { per_second, burst: BURST })
    }
}

/// How often a delivery has requested admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskRound {
    /// A new delivery, which does not overtake the waiting deliveries.
    First,
    /// The delivery has waited and may wait longer.
    Again,
    /// The delivery has waited for as long as it may.
    Last,
}

/// The queue that a delivery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The queue of events.
    Event,
    /// The delay queues.
    Retry,
}

impl Source {
    /// How long a delivery may wait in memory.
    pub fn max_queue_delay(self) -> Duration {
        match self {
            Self::Event => MAX_QUEUE_DELAY_OF_EVENT,
            Self::Retry => MAX_QUEUE_DELAY_OF_RETRY,
        }
    }
}

/// The limit that a request exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitHit {
    Concurrency,
    /// With the time until the rate allows a request.
    Rate(Duration),
}

/// All times have the same origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConcurrencyLimiter {
    pub(super) in_flight: u32,
    /// Deliveries that wait for a request to end.
    pub(super) waiting: u32,
    rate_limit: Gcra,
    /// When the last parked delivery is due. The next one is due later.
    last_due: Duration,
}

impl ConcurrencyLimiter {
    /// The limit that prevents a request, if any. A new delivery does not overtake waiting deliveries.
    pub(super) fn limit_hit(&self, limits: Limits, round: AskRound, now: Duration) -> Option<LimitHit> {
        if !self.has_room(limits.concurrency) || round == AskRound::First && self.waiting > 0 {
            return Some(LimitHit::Concurrency);
        }
        let wait = limits.rate().map(|rate| self.rate_limit.wait_until_due(rate, now)).unwrap_or_default();
        (!wait.is_zero()).then_some(LimitHit::Rate(wait))
    }

    /// How long the delivery should wait in memory at most. `None` if the expected wait is too long. `request_time` is
    /// the usual duration of a request.
    pub(super) fn max_wait(
        &self,
        limit_hit: LimitHit,
        limits: Limits,
        round: AskRound,
        source: Source,
        request_time: Duration,
    ) -> Option<Duration> {
        let max_delay = source.max_queue_delay();
        let wait = match limit_hit {
            LimitHit::Concurrency => Duration::ZERO,
            LimitHit::Rate(wait) => wait,
        };
        let expected = match round {
            AskRound::First => wait + drain_time(self.waiting, limits, request_time),
            AskRound::Again => wait,
            AskRound::Last => return None,
        };
        let max_wait = if wait.is_zero() { max_delay } else { wait };
        (expected <= max_delay).then_some(max_wait)
    }

    pub(super) fn begin_request(&mut self, rate: Option<Rate>, now: Duration) {
        self.in_flight += 1;
        if let Some(rate) = rate {
            self.rate_limit.record_sent(rate, now);
        }
    }

    pub(super) fn end_request(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// How long the next delivery is parked. Parked deliveries are due one after the other, as fast as the limits
    /// allow. `request_time` is the usual duration of a request.
    pub(super) fn park(&mut self, limits: Limits, request_time: Duration, now: Duration) -> Duration {
        let interval = drain_time(1, limits, request_time);
        let earliest = now + MIN_PARK_TIME;
        self.last_due = self.last_due.saturating_add(interval).clamp(earliest, now + MAX_PARK_TIME);
        self.last_due - now
    }

    pub fn begin_waiting(&mut self) {
        self.waiting = self.waiting.saturating_add(1);
    }

    /// Also if the delivery was admitted.
    pub fn end_waiting(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// The deliveries that wait for a request to end.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    pub fn has_waiters(&self) -> bool {
        self.waiting > 0
    }

    /// Whether this concurrency allows another request.
    pub fn has_room(&self, concurrency: u32) -> bool {
        self.in_flight < concurrency
    }

    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.in_flight == 0 && self.rate_limit.is_idle(now)
    }
}

/// How long this number of requests takes within the limits if each request takes `request_time`.
pub(super) fn drain_time(requests: u32, limits: Limits, request_time: Duration) -> Duration {
    let by_concurrency = request_time / limits.concurrency.max(1);
    let interval = limits.rate().map_or(by_concurrency, |rate| by_concurrency.max(rate.interval()));
    interval.saturating_mul(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn the_concurrency_is_limited() {
        let limits = Limits { concurrency: 2, per_second: None };
        let mut limiter = ConcurrencyLimiter::default();
        for _ in 0..2 {
            assert_eq!(limiter.limit_hit(limits, AskRound::First, NOW), None);
            limiter.begin_request(None, NOW);
        }
        assert_eq!(limiter.limit_hit(limits, AskRound::First, NOW), Some(LimitHit::Concurrency));
        limiter.end_request();
        assert_eq!(limiter.limit_hit(limits, AskRound::First, NOW), None);
        limiter.end_request();
        assert!(limiter.is_idle(NOW));
    }

    #[test]
    fn the_rate_is_limited() {
        let limits = Limits { concurrency: 100, per_second: Some(4.0) };
        let mut limiter = ConcurrencyLimiter::default();
        limiter.begin_request(limits.rate(), NOW);
        assert_eq!(limiter.limit_hit(limits, AskRound::First, NOW), Some(LimitHit::Rate(Duration::from_millis(250))));
        assert_eq!(limiter.limit_hit(limits, AskRound::First, NOW + Duration::from_millis(250)), None);
    }

    #[test]
    fn parked_deliveries_are_due_one_after_the_other() {
        let request_time = Duration::from_millis(100);
        for (per_second, interval) in [(None, Duration::from_millis(10)), (Some(2.0), Duration::from_millis(500))] {
            let limits = Limits { concurrency: 10, per_second };
            let mut limiter = ConcurrencyLimiter::default();
            let first = limiter.park(limits, request_time, NOW);
            assert_eq!(first, MIN_PARK_TIME);
            assert_eq!(limiter.park(limits, request_time, NOW), first + interval);
            for _ in 0..100_000 {
                assert!(limiter.park(limits, request_time, NOW) <= MAX_PARK_TIME);
            }
            assert_eq!(limiter.park(limits, request_time, NOW), MAX_PARK_TIME);
            let later = NOW + MAX_PARK_TIME + Duration::from_secs(5);
            assert_eq!(limiter.park(limits, request_time, later), MIN_PARK_TIME, "all parked deliveries are due");
        }
    }
}
