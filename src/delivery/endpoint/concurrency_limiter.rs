//! A gate: how many requests may be under way at once and in a second, and when what does not get through comes back.
//! An endpoint has one, and each of its webhooks that has limits of its own.

use std::time::Duration;

use super::gcra::{self, Gcra};
use super::{AskRound, Source};

/// A fresh delivery that waits for a gate in memory, where it holds a part of the events' window, waits no longer.
const MAX_QUEUE_DELAY: Duration = Duration::from_millis(400);

/// One that has been parked waits so long. The ladder gives back in one bunch what was meant to come within a second: were only a part of
/// it let wait, the gate would stand open for the rest of the second, and the others would be parked again.
const PATIENCE_AFTER_PARKING: Duration = Duration::from_millis(1200);

/// What is parked waits at least so long: the delay ladder has no shorter step.
pub const SHORTEST_PARKING: Duration = Duration::from_secs(1);

/// What is parked waits no longer, however much is parked before it.
pub const LONGEST_PARKING: Duration = Duration::from_secs(600);

/// What may pass a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Requests under way at once.
    pub concurrency: u32,
    /// Requests a second.
    pub per_second: Option<f64>,
}

impl Source {
    /// The longest that it waits for a gate in memory.
    pub fn patience(self) -> Duration {
        match self {
            Self::Event => MAX_QUEUE_DELAY,
            Self::Retry => PATIENCE_AFTER_PARKING,
        }
    }
}

/// What keeps a request from passing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitHit {
    /// As many as may be are under way.
    Concurrency,
    /// The rate, for so long.
    Rate(Duration),
}

/// A gate. All times are since the same moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConcurrencyLimiter {
    pub(super) in_flight: u32,
    /// Deliveries that wait for a request to end.
    pub(super) waiting: u32,
    rate: Gcra,
    /// When the last of those that are parked comes back: the next one comes after it.
    last_return: Duration,
}

impl ConcurrencyLimiter {
    /// What keeps a request that asks so. Who has just come does not overtake those that wait.
    pub(super) fn obstacle(&self, limits: Limits, asking: AskRound, now: Duration) -> Option<LimitHit> {
        if self.in_flight >= limits.concurrency || asking == AskRound::First && self.waiting > 0 {
            return Some(LimitHit::Concurrency);
        }
        let wait = limits.per_second.map(|rate| self.rate.wait(rate, now)).unwrap_or_default();
        (!wait.is_zero()).then_some(LimitHit::Rate(wait))
    }

    /// For how long it may wait for the gate in memory; `None` where that would be too long. `took` is what a request takes.
    pub(super) fn worth_waiting(
        &self,
        obstacle: LimitHit,
        limits: Limits,
        asking: AskRound,
        arrival: Source,
        took: Duration,
    ) -> Option<Duration> {
        let patience = arrival.patience();
        let wait = match obstacle {
            LimitHit::Concurrency => Duration::ZERO,
            LimitHit::Rate(wait) => wait,
        };
        let expected = match asking {
            AskRound::First => wait + behind(self.waiting, limits, took),
            AskRound::Again => wait,
            AskRound::Last => return None,
        };
        let most = if wait.is_zero() { patience } else { wait };
        (expected <= patience).then_some(most)
    }

    pub(super) fn enter(&mut self, per_second: Option<f64>, now: Duration) {
        self.in_flight += 1;
        if let Some(rate) = per_second {
            self.rate.sent(rate, now);
        }
    }

    pub(super) fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// How long the next one is parked: they come back one after the other, as fast as the gate lets them through.
    /// `took` is what a request takes.
    pub(super) fn park(&mut self, limits: Limits, took: Duration, now: Duration) -> Duration {
        let apart = behind(1, limits, took);
        let earliest = now + SHORTEST_PARKING;
        self.last_return = self.last_return.saturating_add(apart).clamp(earliest, now + LONGEST_PARKING);
        self.last_return - now
    }

    /// A delivery begins to wait for a request to end.
    pub fn begin_waiting(&mut self) {
        self.waiting = self.waiting.saturating_add(1);
    }

    /// It has been admitted, or does not wait any longer.
    pub fn end_waiting(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Deliveries that wait for a request to end.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Whether anybody waits.
    pub fn has_waiters(&self) -> bool {
        self.waiting > 0
    }

    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.in_flight == 0 && self.rate.is_idle(now)
    }
}

/// How long so many requests take to pass a gate one after the other, each of which takes `took`.
pub(super) fn behind(requests: u32, limits: Limits, took: Duration) -> Duration {
    let by_concurrency = took / limits.concurrency.max(1);
    let apart = limits.per_second.map_or(by_concurrency, |rate| by_concurrency.max(gcra::spacing(rate)));
    apart.saturating_mul(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn as_many_as_may_be_at_once() {
        let limits = Limits { concurrency: 2, per_second: None };
        let mut gate = ConcurrencyLimiter::default();
        for _ in 0..2 {
            assert_eq!(gate.obstacle(limits, AskRound::First, NOW), None);
            gate.enter(None, NOW);
        }
        assert_eq!(gate.obstacle(limits, AskRound::First, NOW), Some(LimitHit::Concurrency));
        gate.leave();
        assert_eq!(gate.obstacle(limits, AskRound::First, NOW), None);
        gate.leave();
        assert!(gate.is_idle(NOW));
    }

    #[test]
    fn as_many_as_may_be_in_a_second() {
        let limits = Limits { concurrency: 100, per_second: Some(4.0) };
        let mut gate = ConcurrencyLimiter::default();
        gate.enter(limits.per_second, NOW);
        assert_eq!(gate.obstacle(limits, AskRound::First, NOW), Some(LimitHit::Rate(Duration::from_millis(250))));
        assert_eq!(gate.obstacle(limits, AskRound::First, NOW + Duration::from_millis(250)), None);
    }

    #[test]
    fn what_is_parked_comes_back_one_by_one() {
        let took = Duration::from_millis(100);
        for (per_second, apart) in [(None, Duration::from_millis(10)), (Some(2.0), Duration::from_millis(500))] {
            let limits = Limits { concurrency: 10, per_second };
            let mut gate = ConcurrencyLimiter::default();
            let first = gate.park(limits, took, NOW);
            assert_eq!(first, SHORTEST_PARKING);
            assert_eq!(gate.park(limits, took, NOW), first + apart);
            for _ in 0..100_000 {
                assert!(gate.park(limits, took, NOW) <= LONGEST_PARKING);
            }
            assert_eq!(gate.park(limits, took, NOW), LONGEST_PARKING);
            let later = NOW + LONGEST_PARKING + Duration::from_secs(5);
            assert_eq!(gate.park(limits, took, later), SHORTEST_PARKING, "they have all come back");
        }
    }
}
