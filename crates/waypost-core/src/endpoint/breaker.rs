//! The circuit breaker of a receiver.
//!
//! ```text
//! closed ──too many failures──▶ open ──open time over──▶ half-open, one probe ──answered──▶ closed
//!                                ▲                             │
//!                                └── failed, longer open time ─┘
//! ```
//!
//! Slow failures use capacity that other receivers need, so a few of them open the breaker. Fast failures are cheap,
//! and their deliveries have retry delays, so they open the breaker only after a long time without a success.

use std::time::Duration;

/// A failure that takes at least this long is slow. So is a receiver with this latency.
pub const SLOW_THRESHOLD: Duration = Duration::from_secs(1);

/// Consecutive slow failures that open the breaker.
const SLOW_FAILURE_THRESHOLD: u32 = 5;

/// Consecutive failures of any kind that open the breaker if the first was at least [`MIN_OUTAGE`] ago.
const FAILURE_THRESHOLD: u32 = 20;

const MIN_OUTAGE: Duration = Duration::from_secs(60);

/// The open time doubles after each failed probe.
const INITIAL_OPEN_TIME: Duration = Duration::from_secs(1);

const MAX_OPEN_TIME: Duration = Duration::from_secs(60);

/// What the end of a request tells about its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSignal {
    /// Any response that is not one of the other signals.
    Success,
    /// The receiver works, but wants fewer requests: 429 and 503.
    Throttled,
    FastFailure,
    /// The failure took at least [`SLOW_THRESHOLD`].
    SlowFailure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerPhase {
    Closed,
    Open {
        until: Duration,
    },
    /// One probe is in flight.
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerDecision {
    Allow,
    /// The request may be sent as the only one. Its result closes or opens the breaker.
    Probe,
    /// The request must not be sent before this time has passed.
    Refused(Duration),
}

/// All times have the same origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: BreakerPhase,
    failures: u32,
    slow_failures: u32,
    /// The time of the first consecutive failure.
    failing_since: Duration,
    /// Without a success in between.
    consecutive_openings: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: BreakerPhase::Closed,
            failures: 0,
            slow_failures: 0,
            failing_since: Duration::ZERO,
            consecutive_openings: 0,
        }
    }
}

impl Breaker {
    pub fn admit(&mut self, now: Duration) -> BreakerDecision {
        match self.state {
            BreakerPhase::Closed => BreakerDecision::Allow,
            BreakerPhase::Open { until } if now >= until => {
                self.state = BreakerPhase::HalfOpen;
                BreakerDecision::Probe
            }
            BreakerPhase::Open { until } => BreakerDecision::Refused(until - now),
            BreakerPhase::HalfOpen => BreakerDecision::Refused(INITIAL_OPEN_TIME),
        }
    }

    /// Records the end of a request. A success closes the breaker.
    pub fn record(&mut self, signal: HealthSignal, now: Duration) {
        let slow_count = match signal {
            HealthSignal::Success => {
                *self = Self::default();
                return;
            }
            // A receiver that sheds load works, but only such responses for a long time are an outage.
            HealthSignal::Throttled | HealthSignal::FastFailure => 0,
            HealthSignal::SlowFailure => 1,
        };
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures = self.failures.saturating_add(1);
        self.slow_failures = self.slow_failures.saturating_add(slow_count);
        let outage = self.failures >= FAILURE_THRESHOLD && now.saturating_sub(self.failing_since) >= MIN_OUTAGE;
        match self.state {
            BreakerPhase::Closed if self.slow_failures >= SLOW_FAILURE_THRESHOLD || outage => self.open(now),
            BreakerPhase::HalfOpen => self.open(now),
            BreakerPhase::Closed | BreakerPhase::Open { .. } => {}
        }
    }

    /// The probe was cancelled without a result. The next request becomes the probe.
    pub fn probe_cancelled(&mut self, now: Duration) {
        if self.state == BreakerPhase::HalfOpen {
            self.state = BreakerPhase::Open { until: now };
        }
    }

    fn open(&mut self, now: Duration) {
        let factor = 2_u32.saturating_pow(self.consecutive_openings);
        self.consecutive_openings = self.consecutive_openings.saturating_add(1);
        self.state = BreakerPhase::Open { until: now + INITIAL_OPEN_TIME.saturating_mul(factor).min(MAX_OPEN_TIME) };
    }

    /// The time since the first consecutive failure.
    pub fn failing_for(&self, now: Duration) -> Duration {
        if self.failures == 0 { Duration::ZERO } else { now.saturating_sub(self.failing_since) }
    }

    /// The time until the next probe. `None` if the breaker is not open.
    pub fn open_for(&self, now: Duration) -> Option<Duration> {
        match self.state {
            BreakerPhase::Open { until } => Some(until.saturating_sub(now)),
            BreakerPhase::Closed | BreakerPhase::HalfOpen => None,
        }
    }

    pub fn state(&self) -> super::BreakerState {
        match self.state {
            BreakerPhase::Closed => super::BreakerState::Closed,
            BreakerPhase::Open { .. } => super::BreakerState::Open,
            BreakerPhase::HalfOpen => super::BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::BreakerState;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker_after(signals: &[HealthSignal], interval: Duration) -> (Breaker, Duration) {
        let mut breaker = Breaker::default();
        let mut now = seconds(1000);
        for signal in signals {
            now += interval;
            breaker.record(*signal, now);
        }
        (breaker, now)
    }

    #[test]
    fn slow_failures_and_long_outages_open_the_breaker() {
        use HealthSignal::{FastFailure, SlowFailure, Success, Throttled};
        let repeat = |signal, count| vec![signal; count];
        for (signals, interval, expected) in [
            (repeat(Success, 100), seconds(1), BreakerState::Closed),
            (repeat(SlowFailure, 4), seconds(15), BreakerState::Closed),
            (repeat(SlowFailure, 5), seconds(15), BreakerState::Open),
            (repeat(SlowFailure, 5), Duration::ZERO, BreakerState::Open),
            (
                [repeat(SlowFailure, 4), vec![Success], repeat(SlowFailure, 4)].concat(),
                seconds(1),
                BreakerState::Closed,
            ),
            // Fast failures: thousands within a minute, or few in more than a minute.
            (repeat(FastFailure, 10_000), Duration::from_millis(5), BreakerState::Closed),
            (repeat(FastFailure, 19), seconds(60), BreakerState::Closed),
            (repeat(FastFailure, 21), seconds(3), BreakerState::Open),
            (repeat(Throttled, 21), seconds(3), BreakerState::Open),
            (
                [repeat(FastFailure, 19), vec![Success], repeat(FastFailure, 19)].concat(),
                seconds(9),
                BreakerState::Closed,
            ),
        ] {
            let (breaker, _) = breaker_after(&signals, interval);
            assert_eq!(breaker.state(), expected, "{} × {:?}", signals.len(), signals.last());
        }
    }

    #[test]
    fn each_failed_probe_doubles_the_open_time() {
        let (mut breaker, mut now) = breaker_after(&[HealthSignal::SlowFailure; 5], seconds(1));
        for open in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(breaker.admit(now), BreakerDecision::Refused(seconds(open)));
            assert_eq!(breaker.open_for(now), Some(seconds(open)));
            now += seconds(open);
            assert_eq!(breaker.open_for(now + seconds(1)), Some(Duration::ZERO), "until the next request");
            assert_eq!(breaker.admit(now), BreakerDecision::Probe);
            assert_eq!(breaker.admit(now), BreakerDecision::Refused(INITIAL_OPEN_TIME), "a second probe");
            assert_eq!(breaker.open_for(now), None);
            now += seconds(15);
            breaker.record(HealthSignal::SlowFailure, now);
        }
        now += seconds(60);
        assert_eq!(breaker.admit(now), BreakerDecision::Probe);
        breaker.record(HealthSignal::Success, now);
        assert_eq!((breaker.admit(now), breaker), (BreakerDecision::Allow, Breaker::default()));
    }

    #[test]
    fn after_a_cancelled_probe_the_next_request_is_a_probe() {
        let (mut breaker, now) = breaker_after(&[HealthSignal::SlowFailure; 5], seconds(1));
        assert_eq!(breaker.admit(now + seconds(1)), BreakerDecision::Probe);
        breaker.probe_cancelled(now + seconds(2));
        assert_eq!(breaker.admit(now + seconds(2)), BreakerDecision::Probe);
    }

    #[test]
    fn requests_in_flight_when_the_breaker_opens_are_recorded() {
        let (mut breaker, now) = breaker_after(&[HealthSignal::SlowFailure; 5], seconds(1));
        let before = breaker.clone();
        breaker.record(HealthSignal::SlowFailure, now);
        assert_eq!(breaker.admit(now), before.clone().admit(now), "a late failure does not extend the open time");
        breaker.record(HealthSignal::Success, now);
        assert_eq!(breaker.admit(now), BreakerDecision::Allow);
    }

    proptest! {
        /// For any events: at most one probe at a time, no refusal for longer than a minute, and a success closes the
        /// breaker.
        #[test]
        fn the_breaker_never_stays_open_forever(steps in proptest::collection::vec((0_u8..6, 0_u64..100_000), 1..200)) {
            let mut breaker = Breaker::default();
            let mut now = Duration::ZERO;
            let mut probing = false;
            for (step, milliseconds) in steps {
                now += Duration::from_millis(milliseconds);
                match step {
                    0 | 1 => match breaker.admit(now) {
                        BreakerDecision::Probe => {
                            prop_assert!(!probing, "two probes at once");
                            probing = true;
                        }
                        BreakerDecision::Refused(wait) => prop_assert!(wait <= MAX_OPEN_TIME),
                        BreakerDecision::Allow => prop_assert_eq!(breaker.state(), BreakerState::Closed),
                    },
                    2 => {
                        breaker.record(HealthSignal::Success, now);
                        prop_assert_eq!(breaker.state(), BreakerState::Closed);
                        probing = false;
                    }
                    3 => {
                        breaker.record(HealthSignal::FastFailure, now);
                        probing = false;
                    }
                    4 => {
                        breaker.record(HealthSignal::SlowFailure, now);
                        probing = false;
                    }
                    _ => {
                        breaker.probe_cancelled(now);
                        probing = false;
                    }
                }
            }
            let decision = breaker.admit(now + MAX_OPEN_TIME);
            let refused = BreakerDecision::Refused(INITIAL_OPEN_TIME);
            prop_assert!(decision != refused || probing, "open forever: {:?}", breaker);
        }
    }
}
