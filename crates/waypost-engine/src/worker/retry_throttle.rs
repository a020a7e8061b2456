//! Throttles retries while events flow, so that events come first. Without events, retries are not throttled.
//!
//! Retries have a queue and a window of their own, so they delay no event in the broker. But a hundred thousand retries
//! that are due at once would use every core.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use waypost_core::gcra::{Gcra, Rate};

/// If the last event is older than this, retries are not throttled.
const EVENT_GAP: Duration = Duration::from_millis(5);

/// Of retries while events flow, whatever the number of events. 32 retries may start at once after a while without
/// retries.
const RETRY_RATE: Rate = Rate { per_second: 250.0, burst: Duration::from_millis(128) };

/// Retries that may start in addition for each event.
const RETRIES_PER_EVENT: f64 = 0.05;

/// Cheap to clone.
#[derive(Clone)]
pub struct RetryThrottle(Arc<ThrottleState>);

struct ThrottleState {
    allowance: Mutex<RetryAllowance>,
    /// Retries wait in line, and only the first one looks at the clock.
    line: tokio::sync::Mutex<()>,
    started: Instant,
}

impl Default for RetryThrottle {
    fn default() -> Self {
        Self(Arc::new(ThrottleState {
            allowance: Mutex::default(),
            line: tokio::sync::Mutex::default(),
            started: Instant::now(),
        }))
    }
}

impl RetryThrottle {
    pub(super) fn event_started(&self) {
        self.with_allowance(|allowance, now| allowance.event_started(now));
    }

    /// Waits until a retry may start.
    pub(super) async fn wait_for_turn(&self) {
        let _first = self.0.line.lock().await;
        while let Some(wait) = self.with_allowance(RetryAllowance::start_retry) {
            sleep(wait).await;
        }
    }

    fn with_allowance<T>(&self, f: impl FnOnce(&mut RetryAllowance, Duration) -> T) -> T {
        let mut allowance = self.0.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut allowance, self.0.started.elapsed())
    }
}

/// How many retries may start. All times have the same origin.
#[derive(Debug, Default)]
struct RetryAllowance {
    last_event: Option<Duration>,
    rate_limit: Gcra,
}

impl RetryAllowance {
    fn event_started(&mut self, now: Duration) {
        self.last_event = Some(now);
        self.rate_limit.grant(RETRY_RATE, RETRIES_PER_EVENT, now);
    }

    /// Starts a retry. If none may start now, returns the time after which to ask again.
    fn start_retry(&mut self, now: Duration) -> Option<Duration> {
        if self.last_event.is_none_or(|last| now.saturating_sub(last) > EVENT_GAP) {
            return None;
        }
        let wait = self.rate_limit.wait(RETRY_RATE, now);
        if wait.is_zero() {
            self.rate_limit.record_sent(RETRY_RATE, now);
        }
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of retries that start within ten seconds beside this many events, if retries always wait.
    fn retries_beside(events_per_second: u64) -> u64 {
        let mut allowance = RetryAllowance::default();
        let (mut retries, mut next_event, mut next_retry) = (0, 0, Duration::ZERO);
        for microsecond in (0..10_000_000).step_by(20) {
            let now = Duration::from_micros(microsecond);
            if events_per_second > 0 && microsecond >= next_event {
                allowance.event_started(now);
                next_event += 1_000_000 / events_per_second;
            }
            if now >= next_retry {
                match allowance.start_retry(now) {
                    None => retries += 1,
                    Some(wait) => next_retry = now + wait,
                }
            }
        }
        retries
    }

    #[test]
    fn retries_are_throttled_only_while_events_flow() {
        assert_eq!(retries_beside(0), 500_000, "no limit without events");
        for (events_per_second, least, most) in [(1_000, 2_900, 3_100), (10_000, 7_200, 7_800)] {
            let retries = retries_beside(events_per_second);
            assert!((least..most).contains(&retries), "{retries} beside {events_per_second} events a second");
        }
        assert!(retries_beside(50) > 300_000, "between events that are far apart");
    }

    #[tokio::test]
    async fn a_retry_waits_only_after_events() {
        let throttle = RetryThrottle::default();
        for _ in 0..10_000 {
            throttle.wait_for_turn().await;
        }
        throttle.event_started();
        // The first retries use up the burst. The next ones wait.
        for _ in 0..100 {
            throttle.wait_for_turn().await;
        }
    }
}
