//! A rate limit by spacing requests: the generic cell rate algorithm (ITU-T I.371). Its state is a single number.
//!
//! A request is *due* when it follows the requests before it at even intervals. With a burst it may be early.
//! A token bucket with `B` tokens is the same limit: its burst is the time in which `B` requests are due.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    /// The requests that are due within this time may be sent at once. A burst shorter than the interval between two
    /// requests allows no request to be early.
    pub burst: Duration,
}

impl Rate {
    /// Without a burst.
    pub const fn even(per_second: f64) -> Self {
        Self { per_second, burst: Duration::ZERO }
    }

    /// The time between two requests.
    pub fn interval(self) -> Duration {
        self.time_of(1.0)
    }

    /// The time in which this many requests are due.
    fn time_of(self, requests: f64) -> Duration {
        Duration::try_from_secs_f64(requests / self.per_second).unwrap_or(Duration::MAX / 4)
    }

    /// How early a request may be.
    fn tolerance(self) -> Duration {
        self.burst.saturating_sub(self.interval())
    }
}

/// A rate limiter. All times have the same origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gcra {
    /// When the next request is due.
    due: Duration,
}

impl Gcra {
    /// The time until a request may be sent. Zero if it may be sent now.
    pub fn wait(&self, rate: Rate, now: Duration) -> Duration {
        self.due.saturating_sub(now).saturating_sub(rate.tolerance())
    }

    /// Zero if a request may be sent now, like [`Self::wait`]. Otherwise the time until the request is due, so that
    /// requests that had to wait are evenly spaced.
    pub fn wait_until_due(&self, rate: Rate, now: Duration) -> Duration {
        if self.wait(rate, now).is_zero() { Duration::ZERO } else { self.due.saturating_sub(now) }
    }

    /// Records that a request is sent.
    pub fn record_sent(&mut self, rate: Rate, now: Duration) {
        self.due = self.due.max(now).saturating_add(rate.interval());
    }

    /// Reserves the next request. Returns the time to wait before it is sent.
    pub fn reserve(&mut self, rate: Rate, now: Duration) -> Duration {
        let wait = self.wait(rate, now);
        self.record_sent(rate, now);
        wait
    }

    /// Allows further requests besides those of the rate, at most as many as the burst. `requests` may be a fraction.
    pub fn grant(&mut self, rate: Rate, requests: f64, now: Duration) {
        self.due = self.due.saturating_sub(rate.time_of(requests)).max(now);
    }

    /// Tells if a request may be sent at `now`, for any rate.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.due <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(10);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn requests_are_spaced() {
        let mut gcra = Gcra::default();
        let rate = Rate { per_second: 2.0, burst: ms(100) };
        assert_eq!(gcra.wait_until_due(rate, NOW), Duration::ZERO);
        gcra.record_sent(rate, NOW);
        assert_eq!(gcra.wait_until_due(rate, NOW), ms(500));
        assert_eq!(gcra.wait_until_due(rate, NOW + ms(400)), ms(100));
        assert_eq!(gcra.wait_until_due(rate, NOW + ms(500)), Duration::ZERO);
        assert!(!gcra.is_idle(NOW) && gcra.is_idle(NOW + ms(500)));
    }

    #[test]
    fn a_burst_is_sent_at_once() {
        let mut gcra = Gcra::default();
        let rate = Rate { per_second: 100.0, burst: ms(50) };
        let sent = (0..).take_while(|_| gcra.reserve(rate, NOW).is_zero()).count();
        assert_eq!(sent, 5);
        // Six requests are reserved, the last one in 10 ms.
        assert_eq!((gcra.wait(rate, NOW), gcra.wait_until_due(rate, NOW)), (ms(20), ms(60)));
    }

    #[test]
    fn reserved_requests_are_even_also_after_a_pause() {
        let mut gcra = Gcra::default();
        let rate = Rate::even(4.0);
        for start in [NOW, NOW + ms(500), NOW + ms(60_000)] {
            let waits: Vec<Duration> = (0..3).map(|_| gcra.reserve(rate, start)).collect();
            let first = if start == NOW + ms(500) { ms(250) } else { Duration::ZERO };
            assert_eq!(waits, [first, first + ms(250), first + ms(500)], "at {start:?}");
        }
    }

    #[test]
    fn granted_requests_do_not_exceed_the_burst() {
        let rate = Rate { per_second: 100.0, burst: ms(50) };
        for (granted, sent) in [(0.05, 0), (1.0, 1), (2.5, 2), (1_000.0, 5)] {
            let mut gcra = Gcra::default();
            while gcra.wait(rate, NOW).is_zero() {
                gcra.record_sent(rate, NOW);
            }
            gcra.grant(rate, granted, NOW);
            let allowed = (0..).take_while(|_| gcra.reserve(rate, NOW).is_zero()).count();
            assert_eq!(allowed, sent, "{granted} granted");
        }
    }

    #[test]
    fn extreme_rates_do_not_panic() {
        for per_second in [f64::MIN_POSITIVE, 0.0, f64::MAX] {
            let mut gcra = Gcra::default();
            for burst in [Duration::ZERO, ms(100), Duration::MAX] {
                let rate = Rate { per_second, burst };
                gcra.record_sent(rate, NOW);
                gcra.grant(rate, 1.0, NOW);
                let _ = (gcra.reserve(rate, NOW), gcra.wait_until_due(rate, NOW));
            }
        }
    }

    /// The same limit in the usual form.
    struct TokenBucket {
        tokens: f64,
        refilled_at: Duration,
    }

    impl TokenBucket {
        fn try_send(&mut self, rate: Rate, now: Duration) -> bool {
            let capacity = rate.per_second * rate.burst.as_secs_f64();
            let earned = (now - self.refilled_at).as_secs_f64() * rate.per_second;
            (self.tokens, self.refilled_at) = ((self.tokens + earned).min(capacity), now);
            let is_allowed = self.tokens >= 1.0;
            self.tokens -= if is_allowed { 1.0 } else { 0.0 };
            is_allowed
        }
    }

    proptest! {
        /// For any arrival times, no second has more requests than the rate plus the burst.
        #[test]
        fn no_second_exceeds_the_rate(per_second in 0.5_f64..500.0, gaps in proptest::collection::vec(0_u64..40, 1..400)) {
            let rate = Rate { per_second, burst: ms(100) };
            let mut gcra = Gcra::default();
            let mut now = Duration::from_secs(5);
            let mut sent: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += ms(gap);
                if gcra.wait(rate, now).is_zero() {
                    gcra.record_sent(rate, now);
                    sent.push(now);
                }
            }
            let limit = per_second * 1.1 + 1.0;
            for (i, first) in sent.iter().enumerate() {
                let count = sent[i..].iter().take_while(|time| **time < *first + Duration::from_secs(1)).count();
                prop_assert!(count as f64 <= limit, "{count} in a second at {per_second}");
            }
        }

        #[test]
        fn the_limit_is_that_of_a_token_bucket(gaps in proptest::collection::vec(0_u64..20_000, 1..400)) {
            let rate = Rate { per_second: 250.0, burst: ms(128) };
            let mut gcra = Gcra::default();
            let mut bucket = TokenBucket { tokens: 32.0, refilled_at: NOW };
            let mut now = NOW;
            for gap in gaps {
                // The nanosecond keeps off the times at which rounding would decide.
                now += Duration::from_micros(gap) + Duration::from_nanos(1);
                // More requests than the rate, so that the burst is used up.
                for _ in 0..3 {
                    let is_allowed = gcra.wait(rate, now).is_zero();
                    if is_allowed {
                        gcra.record_sent(rate, now);
                    }
                    prop_assert_eq!(is_allowed, bucket.try_send(rate, now), "at {:?}", now);
                }
            }
        }
    }
}
