//! The state of the consumer, from which readiness is derived.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// If no message was settled for this long although messages are in flight or ready, the consumer is stalled.
/// Longer than the longest attempt.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerPhase {
    Connecting {
        /// Why the last connection was lost or could not be made.
        error: String,
    },
    /// Connected, and reading the configuration. Messages may still be in flight.
    CatchingUp,
    Consuming,
    /// Finishing messages in flight, because the worker stops.
    Draining,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ConsumerStatus(Arc<ConsumerState>);

struct ConsumerState {
    phase: RwLock<ConsumerPhase>,
    in_flight: AtomicUsize,
    /// Messages that are ready in each consumed queue, as last read.
    ready: Mutex<BTreeMap<String, u32>>,
    started: Instant,
    /// When a message was last settled, or the first one received. In milliseconds after `started`.
    progress_ms: AtomicU64,
    /// Notified when a message leaves.
    message_done: Notify,
}

impl Default for ConsumerStatus {
    fn default() -> Self {
        Self(Arc::new(ConsumerState {
            phase: RwLock::new(ConsumerPhase::Connecting { error: "just started".to_owned() }),
            in_flight: AtomicUsize::new(0),
            ready: Mutex::default(),
            started: Instant::now(),
            progress_ms: AtomicU64::new(0),
            message_done: Notify::new(),
        }))
    }
}

impl ConsumerStatus {
    pub fn phase(&self) -> ConsumerPhase {
        self.0.phase.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages that were received and are not settled yet.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// How long no message was settled although there are messages to settle. `None` if that is not too long.
    pub fn stalled_for(&self) -> Option<Duration> {
        let progress_at = Duration::from_millis(self.0.progress_ms.load(Ordering::Relaxed));
        let stalled = self.0.started.elapsed().saturating_sub(progress_at);
        let has_messages = self.in_flight() > 0 || self.0.ready().values().any(|ready| *ready > 0);
        (has_messages && stalled > STALL_TIMEOUT).then_some(stalled)
    }

    /// Waits until at most this many messages are in flight.
    pub async fn wait_until_at_most(&self, messages: usize) {
        loop {
            let mut message_done = pin!(self.0.message_done.notified());
            // Listen before looking, so that a message that leaves in between is not missed.
            message_done.as_mut().enable();
            if self.in_flight() <= messages {
                return;
            }
            message_done.await;
        }
    }

    /// Sets how many messages are ready in a consumed queue.
    pub(super) fn set_ready(&self, queue: &str, messages: u32) {
        let mut ready = self.0.ready();
        if messages > 0 && self.in_flight() == 0 && ready.values().all(|ready| *ready == 0) {
            self.0.record_progress();
        }
        ready.insert(queue.to_owned(), messages);
    }

    pub(super) fn set_phase(&self, phase: ConsumerPhase) {
        if phase == ConsumerPhase::Consuming {
            // Numbers from before the connection are outdated.
            self.0.ready().clear();
            self.0.record_progress();
        }
        *self.0.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Counts a message as in flight until the guard is dropped.
    pub(super) fn begin_message(&self) -> MessageGuard {
        if self.0.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.record_progress();
        }
        MessageGuard(self.0.clone())
    }
}

impl ConsumerState {
    fn ready(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_progress(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress_ms.store(now, Ordering::Relaxed);
    }
}

/// A message in flight.
pub(super) struct MessageGuard(Arc<ConsumerState>);

impl MessageGuard {
    /// Records that the message was settled. Requeuing does not count as progress.
    pub(super) fn settled(&self) {
        self.0.record_progress();
    }
}

impl Drop for MessageGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.message_done.notify_waiters();
    }
}
