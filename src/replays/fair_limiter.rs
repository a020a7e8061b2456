//! The requests of all replays in flight at once, and how many of them each replay may have.

use std::collections::HashMap;

use tokio::sync::watch;

use crate::delivery::replay::{ReplayId, may_begin};

/// Who has how many. Whoever waits for a request is told when one ends.
pub(super) struct FairLimiter(watch::Sender<State>);

/// Replays at work here, each with its requests in flight.
#[derive(Default)]
struct State {
    at_work: HashMap<ReplayId, usize>,
}

/// A replay is at work for as long as this lives.
pub(super) struct AtWork<'a> {
    requests: &'a FairLimiter,
    replay: ReplayId,
}

/// A request is in flight for as long as this lives.
pub(super) struct InFlight<'a> {
    requests: &'a FairLimiter,
    replay: ReplayId,
}

impl FairLimiter {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// A replay is worked on: it has a share from now on.
    pub(super) fn work_on(&self, replay: &ReplayId) -> AtWork<'_> {
        self.0.send_if_modified(|state| {
            state.at_work.entry(replay.clone()).or_default();
            false
        });
        AtWork { requests: self, replay: replay.clone() }
    }

    /// Waits until a replay may have one request more in flight.
    pub(super) async fn begin(&self, replay: &ReplayId) -> InFlight<'_> {
        let mut changes = self.0.subscribe();
        loop {
            changes.mark_unchanged();
            if self.has_begun(replay) {
                return InFlight { requests: self, replay: replay.clone() };
            }
            // The sender lives as long as this does.
            let _ = changes.changed().await;
        }
    }

    fn has_begun(&self, replay: &ReplayId) -> bool {
        let mut begun = false;
        self.0.send_if_modified(|state| {
            let all = state.at_work.values().sum();
            let running = state.at_work.len();
            let own = state.at_work.entry(replay.clone()).or_default();
            begun = may_begin(*own, all, running);
            *own += usize::from(begun);
            // Nobody waits for less room.
            false
        });
        begun
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.requests.0.send_modify(|state| {
            state.at_work.remove(&self.replay);
        });
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.requests.0.send_modify(|state| {
            if let Some(own) = state.at_work.get_mut(&self.replay) {
                *own = own.saturating_sub(1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::delivery::replay::REQUESTS;

    #[test]
    fn one_that_hangs_leaves_the_others_their_share() {
        let requests = FairLimiter::new();
        let (one, other) = (ReplayId::new("rp_1"), ReplayId::new("rp_2"));
        let begin = |replay| requests.begin(replay).now_or_never();
        let working = requests.work_on(&one);
        let mut hanging: Vec<_> = std::iter::from_fn(|| begin(&one)).collect();
        assert_eq!(hanging.len(), REQUESTS / 2);
        let _working = requests.work_on(&other);
        let mut others: Vec<_> = std::iter::from_fn(|| begin(&other)).collect();
        assert_eq!(others.len(), REQUESTS / 3);

        // One that ends is not begun anew by who has more than its share now.
        hanging.pop();
        assert!(begin(&one).is_none() && begin(&other).is_none());
        hanging.truncate(REQUESTS / 3 - 1);
        hanging.extend(begin(&one));
        assert!(begin(&one).is_none());
        hanging.clear();
        drop(working);
        others.extend(std::iter::from_fn(|| begin(&other)));
        assert_eq!(others.len(), REQUESTS / 2);
    }

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let requests = FairLimiter::new();
        let replay = ReplayId::new("rp_1");
        let _working = requests.work_on(&replay);
        let mut flying: Vec<_> = std::iter::from_fn(|| requests.begin(&replay).now_or_never()).collect();
        let ends = async {
            tokio::task::yield_now().await;
            flying.pop();
        };
        let (_begun, ()) = tokio::join!(requests.begin(&replay), ends);
    }
}
