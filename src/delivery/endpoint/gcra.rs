//! A limit of requests a second, kept by spacing them: the generic cell rate algorithm, as ATM networks have it
//! (ITU-T I.371). It needs one number of state, and forgets what it does not need.

use std::time::Duration;

/// Requests that come together after a pause may be ahead of their spacing by this time: so a rate is reached although
/// requests do not come evenly, and no second has more than a tenth over its rate.
const BURST: Duration = Duration::from_millis(100);

/// The requests of one endpoint or webhook that has a limit. All times are since the same moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gcra {
    /// When the next request would be sent, were all of them evenly spaced.
    next: Duration,
}

impl Gcra {
    /// How long the next request must wait; zero where it may be sent now.
    pub fn wait(&self, per_second: f64, now: Duration) -> Duration {
        let ahead = self.next.saturating_sub(now);
        // A rate of a few a second has no burst: one request is more than a tenth of it.
        if ahead <= BURST.saturating_sub(spacing(per_second)) { Duration::ZERO } else { ahead }
    }

    /// A request is sent.
    pub fn sent(&mut self, per_second: f64, now: Duration) {
        self.next = self.next.max(now).saturating_add(spacing(per_second));
    }

    /// Whether it would let a request through that comes now, whatever the rate.
    pub fn is_idle(&self, now: Duration) -> bool {
        self.next <= now
    }
}

/// The time between two requests.
pub fn spacing(per_second: f64) -> Duration {
    Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_spaced() {
        let mut rate = Gcra::default();
        let now = Duration::from_secs(10);
        assert_eq!(rate.wait(2.0, now), Duration::ZERO);
        rate.sent(2.0, now);
        assert_eq!(rate.wait(2.0, now), Duration::from_millis(500));
        assert_eq!(rate.wait(2.0, now + Duration::from_millis(400)), Duration::from_millis(100));
        assert_eq!(rate.wait(2.0, now + Duration::from_millis(500)), Duration::ZERO);
        assert!(!rate.is_idle(now) && rate.is_idle(now + Duration::from_millis(500)));
    }

    #[test]
    fn a_rate_that_nobody_could_wait_for_is_no_panic() {
        let mut rate = Gcra::default();
        for per_second in [f64::MIN_POSITIVE, 0.0, f64::MAX] {
            rate.sent(per_second, Duration::from_secs(1));
            let _ = rate.wait(per_second, Duration::from_secs(1));
        }
    }

    proptest! {
        /// Of requests that come as they like, and are sent when they may be, no second has more than the rate and a burst.
        #[test]
        fn no_second_has_more(per_second in 0.5_f64..500.0, gaps in proptest::collection::vec(0_u64..40, 1..400)) {
            let mut rate = Gcra::default();
            let mut now = Duration::from_secs(5);
            let mut sent: Vec<Duration> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if rate.wait(per_second, now).is_zero() {
                    rate.sent(per_second, now);
                    sent.push(now);
                }
            }
            let most = per_second * 1.1 + 1.0;
            for (i, first) in sent.iter().enumerate() {
                let within = sent[i..].iter().take_while(|at| **at < *first + Duration::from_secs(1)).count();
                prop_assert!(within as f64 <= most, "{within} in a second at {per_second}");
            }
        }
    }
}
