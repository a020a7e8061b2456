//! Waiting on a condition: the only place of the tests that sleeps.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How long to wait for what should happen soon. Long, because the machine may be busy; nobody waits it out but a failure.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Asks `probe` again and again until it has something, and gives that back; panics once `deadline` has passed.
#[track_caller]
pub(crate) fn wait_until<T>(
    what: &str,
    deadline: Duration,
    probe: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        match poll_until(deadline, probe).await {
            Some(found) => found,
            None => panic!("waited {deadline:?} in vain for {what} ({caller})"),
        }
    }
}

/// Waits until `probe` has seen the same so many times in a row, which shows that a thing has come to rest, and gives it
/// back.
pub(crate) async fn wait_until_stable<T: PartialEq>(what: &str, times: usize, mut probe: impl AsyncFnMut() -> T) -> T {
    let (mut last, mut seen) = (None, 0);
    wait_until(&format!("{what} to come to rest"), DEFAULT_TIMEOUT, async || {
        let now = probe().await;
        seen = if last.as_ref() == Some(&now) { seen + 1 } else { 1 };
        last = Some(now);
        if seen < times { None } else { last.take() }
    })
    .await
}

/// As [`wait_until`], but `None` once `deadline` has passed, for who has more to say in its panic.
pub(crate) async fn poll_until<T>(deadline: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        // A probe may hang (a request to a stalled server): the deadline holds for it, too.
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(POLL_INTERVAL), probe()).await {
            Ok(Some(found)) => return Some(found),
            Ok(None) if Instant::now() < end => tokio::time::sleep(POLL_INTERVAL).await,
            Ok(None) | Err(_) => return None,
        }
    }
}
