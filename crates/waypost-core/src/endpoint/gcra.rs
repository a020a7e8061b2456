//! A rate limit by spacing requests: the generic cell rate algorithm (ITU-T I.371). Its state is a single number.

use std::time::Duration;

/// Requests may be early by this time, so that the rate is reached even if requests do not arrive evenly. No second
/// exceeds the rate by more than a tenth.
const BURST: Duration = Duration::from_millis(100);

/// The rate limiter of one endpoint or webhook. All times have the same origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gcra {
    /// When the next request is due if requests are evenly spaced.
    next_send: Duration,
}

impl Gcra {
    /// The delay of the next request. Zero if it may be sent now.
    pub fn wait(&self, per_second: f64, now: Duration) -> Duration {
        let wait = self.next_send.saturating_sub(now);
        // Low rates have no burst, because one request is more than a tenth of the rate.
        if wait <= BURST.saturating_sub(interval(per_second)) { Duration::ZERO } else { wait }
    }

    /// Records that a request is sent.
    pub fn record_sent(&mut self, per_second: f64, now: Duration) {
        self.next_send = self.next_send.max(now).saturating_add(interval(per_second));
    }

    /// Tells if a request may be sent at `now`, for any rate.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.next_send <= now
    }
}

/// The time between two requests.
pub fn interval(per_second: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_spaced() {
        let mut gcra = Gcra::default();
        let now = Duration::from_secs(10);
        assert_eq!(gcra.wait(2.0, now), Duration::ZERO);
        gcra.record_sent(2.0, now);
        assert_eq!(gcra.wait(2.0, now), Duration::from_millis(500));
        assert_eq!(gcra.wait(2.0, now + Duration::from_millis(400)), Duration::from_millis(100));
        assert_eq!(gcra.wait(2.0, now + Duration::from_millis(500)), Duration::ZERO);
        assert!(!gcra.is_idle(now) && gcra.is_idle(now + Duration::from_millis(500)));
    }

    #[test]
    fn extreme_rates_do_not_panic() {
        let mut gcra = Gcra::default();
        for per_second in [f64::MIN_POSITIVE, 0.0, f64::MAX] {
            gcra.record_sent(per_second, Duration::from_secs(1));
            let _ = gcra.wait(per_second, Duration::from_secs(1));
        }
    }

    proptest! {
        /// For any arrival times, no second has more requests than the rate plus the burst.
        #[test]
        fn no_second_exceeds_the_rate(per_second in 0.5_f64..500.0, gaps in proptest::collection::vec(0_u64..40, 1..400)) {
            let mut gcra = Gcra::default();
            let mut now = Duration::from_secs(5);
            let mut sent: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if gcra.wait(per_second, now).is_zero() {
                    gcra.record_sent(per_second, now);
                    sent.push(now);
                }
            }
            let limit = per_second * 1.1 + 1.0;
            for (i, first) in sent.iter().enumerate() {
                let count = sent[i..].iter().take_while(|time| **time < *first + Duration::from_secs(1)).count();
                prop_assert!(count as f64 <= limit, "{count} in a second at {per_second}");
            }
        }
    }
}
