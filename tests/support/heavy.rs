//! Tests that fill the machine, one at a time.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Waits until no other heavy test of this process runs. Hold the permit until the end of the test. cargo-nextest, which runs
/// each test in a process of its own, has the same tests in `.config/nextest.toml`.
pub(crate) async fn heavy() -> SemaphorePermit<'static> {
    static TURN: Semaphore = Semaphore::const_new(1);
    TURN.acquire().await.expect("nobody closes the semaphore")
}
