//! Fresh events come first: while they flow, retries get a share of the worker, and else all of it.
//!
//! They have a queue and a window of their own, so that they hold up no event in the broker; but a hundred thousand that
//! are due at once would still have every core to themselves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Events that are further apart than this leave room between them.
const GAP: Duration = Duration::from_millis(5);

/// Beside events so many retries are begun in a second, whatever the events' number.
const RETRIES_PER_SECOND: f64 = 250.0;

/// And for each event so much of one.
const RETRIES_PER_EVENT: f64 = 0.05;

/// So many retries may be begun at once, where none were for a while.
const BURST: f64 = 32.0;

/// What is taken in hand after fresh events. Cheap to clone.
#[derive(Clone)]
pub struct RetryThrottle(Arc<State>);

struct State {
    share: Mutex<Share>,
    /// Retries wait in a row: only the first of them looks at the clock.
    row: tokio::sync::Mutex<()>,
    started: Instant,
}

impl Default for RetryThrottle {
    fn default() -> Self {
        Self(Arc::new(State { share: Mutex::default(), row: tokio::sync::Mutex::default(), started: Instant::now() }))
    }
}

impl RetryThrottle {
    /// A fresh event is taken in hand.
    pub(super) fn event_started(&self) {
        self.share(|share, now| share.event_started(now));
    }

    /// Waits until a retry may be taken in hand.
    pub(super) async fn turn(&self) {
        let _first = self.0.row.lock().await;
        while let Some(wait) = self.share(Share::retry) {
            sleep(wait).await;
        }
    }

    fn share<T>(&self, ask: impl FnOnce(&mut Share, Duration) -> T) -> T {
        let mut share = self.0.share.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut share, self.0.started.elapsed())
    }
}

/// The share of the retries. All times are since the same moment.
#[derive(Debug, Default)]
struct Share {
    last_event: Option<Duration>,
    /// Retries that may be begun.
    retries: f64,
    counted_at: Duration,
}

impl Share {
    fn event_started(&mut self, now: Duration) {
        self.last_event = Some(now);
        self.retries = (self.retries + RETRIES_PER_EVENT).min(BURST);
    }

    /// Begins a retry, or tells how long to wait before asking again.
    fn retry(&mut self, now: Duration) -> Option<Duration> {
        let earned = now.saturating_sub(self.counted_at).as_secs_f64() * RETRIES_PER_SECOND;
        self.retries = (self.retries + earned).min(BURST);
        self.counted_at = now;
        if self.last_event.is_none_or(|last| now.saturating_sub(last) > GAP) {
            return None;
        }
        if self.retries >= 1.0 {
            self.retries -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64((1.0 - self.retries) / RETRIES_PER_SECOND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries begun in ten seconds of which the events come at this rate, and retries always wait.
    fn retries_beside(events_per_second: u64) -> u64 {
        let mut share = Share::default();
        let (mut retries, mut next_event, mut next_retry) = (0, 0, Duration::ZERO);
        for microsecond in (0..10_000_000).step_by(20) {
            let now = Duration::from_micros(microsecond);
            if events_per_second > 0 && microsecond >= next_event {
                share.event_started(now);
                next_event += 1_000_000 / events_per_second;
            }
            if now >= next_retry {
                match share.retry(now) {
                    None => retries += 1,
                    Some(wait) => next_retry = now + wait,
                }
            }
        }
        retries
    }

    #[test]
    fn retries_get_a_share_while_events_flow_and_all_where_they_do_not() {
        assert_eq!(retries_beside(0), 500_000, "as fast as they are asked for");
        for (events_per_second, least, most) in [(1_000, 2_900, 3_100), (10_000, 7_200, 7_800)] {
            let retries = retries_beside(events_per_second);
            assert!((least..most).contains(&retries), "{retries} beside {events_per_second} events a second");
        }
        assert!(retries_beside(50) > 300_000, "between events that are far apart");
    }

    #[tokio::test]
    async fn a_retry_without_events_waits_for_nobody() {
        let precedence = RetryThrottle::default();
        for _ in 0..10_000 {
            precedence.turn().await;
        }
        precedence.event_started();
        // Those that have been earned, and then one after the other.
        for _ in 0..100 {
            precedence.turn().await;
        }
    }
}
