//! Tests that need most of the machine.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Waits until no other heavy test of this process runs. Hold the permit until the end of the test.
///
/// cargo-nextest runs each test in its own process. There, `threads-required` in `.config/nextest.toml` limits the tests
/// that run at the same time: memory tests and the fault drill use half of the threads.
pub(crate) async fn heavy() -> SemaphorePermit<'static> {
    static TURN: Semaphore = Semaphore::const_new(1);
    TURN.acquire().await.expect("the semaphore is open")
}
