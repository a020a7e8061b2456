//! Limits the requests in flight of all replays, and gives each running replay a fair share.

use std::collections::HashMap;

use tokio::sync::watch;
use waypost_core::replay::{ReplayId, may_start_request};

/// Notifies waiting tasks when a request ends.
pub(super) struct FairLimiter(watch::Sender<LimiterState>);

#[derive(Default)]
struct LimiterState {
    /// The number of requests in flight of each running replay.
    running: HashMap<ReplayId, usize>,
}

/// Keeps a replay's share until it is dropped.
pub(super) struct ReplayGuard<'a> {
    limiter: &'a FairLimiter,
    replay: ReplayId,
}

/// Counts a request as in flight until it is dropped.
pub(super) struct RequestGuard<'a> {
    limiter: &'a FairLimiter,
    replay: ReplayId,
}

impl FairLimiter {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(LimiterState::default()))
    }

    /// Adds a running replay, which gets a share.
    pub(super) fn register(&self, replay: &ReplayId) -> ReplayGuard<'_> {
        self.0.send_if_modified(|state| {
            state.running.entry(replay.clone()).or_default();
            false
        });
        ReplayGuard { limiter: self, replay: replay.clone() }
    }

    /// Waits until the replay may have one more request in flight.
    pub(super) async fn start_request(&self, replay: &ReplayId) -> RequestGuard<'_> {
        let mut changes = self.0.subscribe();
        loop {
            changes.mark_unchanged();
            if self.try_start(replay) {
                return RequestGuard { limiter: self, replay: replay.clone() };
            }
            // `changed` does not fail: `self` has the sender.
            let _ = changes.changed().await;
        }
    }

    fn try_start(&self, replay: &ReplayId) -> bool {
        let mut started = false;
        self.0.send_if_modified(|state| {
            let all = state.running.values().sum();
            let running = state.running.len();
            let own = state.running.entry(replay.clone()).or_default();
            started = may_start_request(*own, all, running);
            *own += usize::from(started);
            // A new request frees nothing, so no task is notified.
            false
        });
        started
    }
}

impl Drop for ReplayGuard<'_> {
    fn drop(&mut self) {
        self.limiter.0.send_modify(|state| {
            state.running.remove(&self.replay);
        });
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.limiter.0.send_modify(|state| {
            if let Some(own) = state.running.get_mut(&self.replay) {
                *own = own.saturating_sub(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use waypost_core::replay::MAX_REQUESTS_IN_FLIGHT;

    use super::*;

    #[test]
    fn a_replay_that_hangs_leaves_other_replays_their_share() {
        let limiter = FairLimiter::new();
        let (one, other) = (ReplayId::new("rp_1"), ReplayId::new("rp_2"));
        let begin = |replay| limiter.start_request(replay).now_or_never();
        let guard = limiter.register(&one);
        let mut hanging: Vec<_> = std::iter::from_fn(|| begin(&one)).collect();
        assert_eq!(hanging.len(), MAX_REQUESTS_IN_FLIGHT / 2);
        let _guard = limiter.register(&other);
        let mut others: Vec<_> = std::iter::from_fn(|| begin(&other)).collect();
        assert_eq!(others.len(), MAX_REQUESTS_IN_FLIGHT / 3);

        // After a request ends, a replay above its share starts no new one.
        hanging.pop();
        assert!(begin(&one).is_none() && begin(&other).is_none());
        hanging.truncate(MAX_REQUESTS_IN_FLIGHT / 3 - 1);
        hanging.extend(begin(&one));
        assert!(begin(&one).is_none());
        hanging.clear();
        drop(guard);
        others.extend(std::iter::from_fn(|| begin(&other)));
        assert_eq!(others.len(), MAX_REQUESTS_IN_FLIGHT / 2);
    }

    #[tokio::test]
    async fn a_waiting_request_starts_when_another_ends() {
        let limiter = FairLimiter::new();
        let replay = ReplayId::new("rp_1");
        let _guard = limiter.register(&replay);
        let mut in_flight: Vec<_> = std::iter::from_fn(|| limiter.start_request(&replay).now_or_never()).collect();
        let end_one = async {
            tokio::task::yield_now().await;
            in_flight.pop();
        };
        let (_started, ()) = tokio::join!(limiter.start_request(&replay), end_one);
    }
}
