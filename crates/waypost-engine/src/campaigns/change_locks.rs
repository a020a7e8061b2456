//! Locks of changes. Changes of different campaigns are made at once, so that they share the broker's confirms and one
//! transaction of the store. Changes of one campaign wait for each other: a worker does not race against itself.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Each campaign has one of these locks. A few campaigns share a lock and wait for each other.
const LOCKS: usize = 256;

pub(super) struct ChangeLocks {
    /// Locked for writing while no campaign may change.
    all: RwLock<()>,
    campaigns: Vec<Mutex<()>>,
}

/// Held during a change of a campaign.
pub(super) struct ChangeGuard<'a> {
    _all: RwLockReadGuard<'a, ()>,
    _campaign: MutexGuard<'a, ()>,
}

impl Default for ChangeLocks {
    fn default() -> Self {
        Self { all: RwLock::default(), campaigns: (0..LOCKS).map(|_| Mutex::default()).collect() }
    }
}

impl ChangeLocks {
    /// Waits for other changes of the campaign, and while no campaign may change.
    pub(super) async fn lock_campaign(&self, id: &str) -> ChangeGuard<'_> {
        let all = self.all.read().await;
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        // The remainder is smaller than the number of locks.
        let lock = (hasher.finish() % LOCKS as u64) as usize;
        ChangeGuard { _all: all, _campaign: self.campaigns[lock].lock().await }
    }

    /// Waits for all changes. No campaign changes while the guard is held.
    pub(super) async fn lock_all(&self) -> RwLockWriteGuard<'_, ()> {
        self.all.write().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn changes_of_one_campaign_wait_and_those_of_others_do_not() {
        let locks = ChangeLocks::default();
        let first = locks.lock_campaign("a").now_or_never().expect("free");
        assert!(locks.lock_campaign("a").now_or_never().is_none());
        // At least one of these campaigns has another lock.
        let others: Vec<_> = (0..20).filter_map(|id| locks.lock_campaign(&format!("b{id}")).now_or_never()).collect();
        assert!(!others.is_empty());
        assert!(locks.lock_all().now_or_never().is_none(), "changes are being made");
        drop((first, others));
        let all = locks.lock_all().now_or_never().expect("free");
        assert!(locks.lock_campaign("a").now_or_never().is_none());
        drop(all);
        assert!(locks.lock_campaign("a").now_or_never().is_some());
    }
}
