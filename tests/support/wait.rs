//! Waiting for conditions. This is the only file of the tests that sleeps.

use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

/// The deadline for conditions that should soon hold. It is long for busy machines, and only failing tests wait that
/// long.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls `probe` until it returns a value, and returns it. Panics after `deadline`.
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
            None => panic!("timed out after {deadline:?} waiting for {what} ({caller})"),
        }
    }
}

/// Waits until `probe` returns the same value `times` times in a row, and returns it.
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

/// Like [`wait_until`], but returns `None` after `deadline`, for callers with their own panic message.
pub(crate) async fn poll_until<T>(deadline: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        // The deadline also applies to a probe that hangs, such as a request to a stalled server.
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(POLL_INTERVAL), probe()).await {
            Ok(Some(found)) => return Some(found),
            Ok(None) if Instant::now() < end => tokio::time::sleep(POLL_INTERVAL).await,
            Ok(None) | Err(_) => return None,
        }
    }
}
