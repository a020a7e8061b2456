//! The breaker of an endpoint: whether it is worth asking at all.
//!
//! ```text
//! closed ──too many failures──▶ open ──its time is over──▶ half-open, one probe ──answered──▶ closed
//!                                ▲                               │
//!                                └────────── failed, and for longer
//! ```
//!
//! What hurts others is an endpoint that takes long to fail: it opens after a few such failures. One that fails at once
//! costs next to nothing, and its deliveries have their own delays: it opens only when nothing else has come for long.

use std::time::Duration;

/// A failure that took this long counts as slow.
pub const SLOW: Duration = Duration::from_secs(1);

/// Slow failures in a row that open it.
const SLOW_FAILURES: u32 = 5;

/// Failures in a row, of any kind, that open it, once the first of them was [`FAILING`] ago.
const FAILURES: u32 = 20;

/// See [`FAILURES`].
const FAILING: Duration = Duration::from_secs(60);

/// How long it stays open at first. Twice as long after each probe that fails.
const OPEN: Duration = Duration::from_secs(1);

/// It stays open no longer.
const LONGEST_OPEN: Duration = Duration::from_secs(60);

/// What the end of a request says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSignal {
    /// It works: any answer but those that follow.
    Success,
    /// It works, and asks for less: 429 and 503.
    Throttled,
    /// It failed at once.
    FastFailure,
    /// It took long to fail.
    SlowFailure,
}

/// What a breaker can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Duration,
    },
    /// One request is under way to find out.
    HalfOpen,
}

/// What a breaker says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerDecision {
    /// It may be sent.
    Go,
    /// It may be sent, alone: what becomes of it decides.
    Probe,
    /// Not now, and not for so long.
    Refused(Duration),
}

/// The breaker. All times are since the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    state: State,
    failures: u32,
    slow_failures: u32,
    /// When the first of the failures in a row came.
    failing_since: Duration,
    /// Openings in a row, without an answer in between.
    openings: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, slow_failures: 0, failing_since: Duration::ZERO, openings: 0 }
    }
}

impl Breaker {
    /// Asks for a request to be let through.
    pub fn ask(&mut self, now: Duration) -> BreakerDecision {
        match self.state {
            State::Closed => BreakerDecision::Go,
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                BreakerDecision::Probe
            }
            State::Open { until } => BreakerDecision::Refused(until - now),
            State::HalfOpen => BreakerDecision::Refused(OPEN),
        }
    }

    /// A request has ended. Any answer closes the breaker; of failures, those count that it had let through.
    pub fn record(&mut self, sign: HealthSignal, now: Duration) {
        let slow = match sign {
            HealthSignal::Success => {
                *self = Self::default();
                return;
            }
            // An endpoint that sheds load is there, but a row of nothing else is an outage.
            HealthSignal::Throttled | HealthSignal::FastFailure => 0,
            HealthSignal::SlowFailure => 1,
        };
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures = self.failures.saturating_add(1);
        self.slow_failures = self.slow_failures.saturating_add(slow);
        let outage = self.failures >= FAILURES && now.saturating_sub(self.failing_since) >= FAILING;
        match self.state {
            State::Closed if self.slow_failures >= SLOW_FAILURES || outage => self.open(now),
            State::HalfOpen => self.open(now),
            State::Closed | State::Open { .. } => {}
        }
    }

    /// The probe was given up before anything came of it: the next request is one.
    pub fn probe_lost(&mut self, now: Duration) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }

    fn open(&mut self, now: Duration) {
        let longer = 2_u32.saturating_pow(self.openings);
        self.openings = self.openings.saturating_add(1);
        self.state = State::Open { until: now + OPEN.saturating_mul(longer).min(LONGEST_OPEN) };
    }

    /// For how long nothing but failures has come.
    pub fn failing_for(&self, now: Duration) -> Duration {
        if self.failures == 0 { Duration::ZERO } else { now.saturating_sub(self.failing_since) }
    }

    /// For how long it lets nothing through; none where it is not open.
    pub fn refuses_for(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Open { until } => Some(until.saturating_sub(now)),
            State::Closed | State::HalfOpen => None,
        }
    }

    /// What is shown of it.
    pub fn shown(&self) -> super::BreakerState {
        match self.state {
            State::Closed => super::BreakerState::Closed,
            State::Open { .. } => super::BreakerState::Open,
            State::HalfOpen => super::BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BreakerState;
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn after(signs: &[HealthSignal], apart: Duration) -> (Breaker, Duration) {
        let mut breaker = Breaker::default();
        let mut now = seconds(1000);
        for sign in signs {
            now += apart;
            breaker.record(*sign, now);
        }
        (breaker, now)
    }

    #[test]
    fn what_opens_it_and_what_does_not() {
        use HealthSignal::{FastFailure, SlowFailure, Success, Throttled};
        let often = |sign, count| vec![sign; count];
        for (signs, apart, expected) in [
            (often(Success, 100), seconds(1), BreakerState::Closed),
            (often(SlowFailure, 4), seconds(15), BreakerState::Closed),
            (often(SlowFailure, 5), seconds(15), BreakerState::Open),
            (often(SlowFailure, 5), Duration::ZERO, BreakerState::Open),
            ([often(SlowFailure, 4), vec![Success], often(SlowFailure, 4)].concat(), seconds(1), BreakerState::Closed),
            // At once: by the thousand within a minute, or for more than a minute, but seldom.
            (often(FastFailure, 10_000), Duration::from_millis(5), BreakerState::Closed),
            (often(FastFailure, 19), seconds(60), BreakerState::Closed),
            (often(FastFailure, 21), seconds(3), BreakerState::Open),
            (often(Throttled, 21), seconds(3), BreakerState::Open),
            (
                [often(FastFailure, 19), vec![Success], often(FastFailure, 19)].concat(),
                seconds(9),
                BreakerState::Closed,
            ),
        ] {
            let (breaker, _) = after(&signs, apart);
            assert_eq!(breaker.shown(), expected, "{} × {:?}", signs.len(), signs.last());
        }
    }

    #[test]
    fn one_probe_decides_and_each_failed_one_doubles_the_wait() {
        let (mut breaker, mut now) = after(&[HealthSignal::SlowFailure; 5], seconds(1));
        for open in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(breaker.ask(now), BreakerDecision::Refused(seconds(open)));
            assert_eq!(breaker.refuses_for(now), Some(seconds(open)));
            now += seconds(open);
            assert_eq!(breaker.refuses_for(now + seconds(1)), Some(Duration::ZERO), "until somebody asks");
            assert_eq!(breaker.ask(now), BreakerDecision::Probe);
            assert_eq!(breaker.ask(now), BreakerDecision::Refused(OPEN), "a second probe");
            assert_eq!(breaker.refuses_for(now), None);
            now += seconds(15);
            breaker.record(HealthSignal::SlowFailure, now);
        }
        now += seconds(60);
        assert_eq!(breaker.ask(now), BreakerDecision::Probe);
        breaker.record(HealthSignal::Success, now);
        assert_eq!((breaker.ask(now), breaker), (BreakerDecision::Go, Breaker::default()));
    }

    #[test]
    fn a_probe_that_is_lost_is_made_by_the_next() {
        let (mut breaker, now) = after(&[HealthSignal::SlowFailure; 5], seconds(1));
        assert_eq!(breaker.ask(now + seconds(1)), BreakerDecision::Probe);
        breaker.probe_lost(now + seconds(2));
        assert_eq!(breaker.ask(now + seconds(2)), BreakerDecision::Probe);
    }

    #[test]
    fn what_was_under_way_when_it_opened_is_heard() {
        let (mut breaker, now) = after(&[HealthSignal::SlowFailure; 5], seconds(1));
        let open = breaker.clone();
        breaker.record(HealthSignal::SlowFailure, now);
        assert_eq!(breaker.ask(now), open.clone().ask(now), "a late failure prolongs nothing");
        breaker.record(HealthSignal::Success, now);
        assert_eq!(breaker.ask(now), BreakerDecision::Go);
    }

    proptest! {
        /// Whatever happens: at most one probe at a time, no refusal for longer than a minute, and an answer closes it.
        #[test]
        fn it_never_shuts_for_good(steps in proptest::collection::vec((0_u8..6, 0_u64..100_000), 1..200)) {
            let mut breaker = Breaker::default();
            let mut now = Duration::ZERO;
            let mut probing = false;
            for (step, milliseconds) in steps {
                now += Duration::from_millis(milliseconds);
                match step {
                    0 | 1 => match breaker.ask(now) {
                        BreakerDecision::Probe => {
                            prop_assert!(!probing, "two probes at once");
                            probing = true;
                        }
                        BreakerDecision::Refused(wait) => prop_assert!(wait <= LONGEST_OPEN),
                        BreakerDecision::Go => prop_assert_eq!(breaker.shown(), BreakerState::Closed),
                    },
                    2 => {
                        breaker.record(HealthSignal::Success, now);
                        prop_assert_eq!(breaker.shown(), BreakerState::Closed);
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
                        breaker.probe_lost(now);
                        probing = false;
                    }
                }
            }
            let verdict = breaker.ask(now + LONGEST_OPEN);
            prop_assert!(verdict != BreakerDecision::Refused(OPEN) || probing, "shut for good: {:?}", breaker);
        }
    }
}
