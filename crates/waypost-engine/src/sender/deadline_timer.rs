//! A timer for the deadlines of many waits, one after the other. Most waits end long before their deadline, so the timer
//! is not set again for each of them: it is left at an earlier deadline, and moved only when it fires too early. Setting
//! and removing a timer take a lock of the runtime.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) struct DeadlineTimer(Pin<Box<Sleep>>);

impl DeadlineTimer {
    pub(crate) fn new(deadline: Instant) -> Self {
        Self(Box::pin(sleep_until(deadline)))
    }

    /// Ready when `deadline` has passed. The deadline may differ from call to call.
    pub(crate) fn poll_elapsed(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.0.deadline() {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if self.0.deadline() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_wait_ends_at_its_own_deadline() {
        let start = Instant::now();
        let mut timer = DeadlineTimer::new(start + Duration::from_secs(600));
        for milliseconds in [5, 20, 10, 30, 30] {
            let deadline = start + Duration::from_millis(milliseconds);
            let wait = poll_fn(|cx| timer.poll_elapsed(cx, deadline));
            timeout(Duration::from_secs(60), wait).await.expect("not the first deadline");
            assert!(Instant::now() >= deadline, "{milliseconds} ms");
        }
    }

    #[tokio::test]
    async fn a_timer_that_fires_too_early_does_not_end_the_wait() {
        let start = Instant::now();
        let mut timer = DeadlineTimer::new(start);
        let deadline = start + Duration::from_millis(20);
        poll_fn(|cx| timer.poll_elapsed(cx, deadline)).await;
        assert!(Instant::now() >= deadline);
    }
}
