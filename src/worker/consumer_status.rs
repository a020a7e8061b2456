//! What the intake is doing, for whoever asks whether it is well.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// No message settled for this long, with some in hand or ready in a queue, is no progress. Longer than the longest attempt.
const STALL: Duration = Duration::from_secs(60);

/// What the intake is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Not connected.
    Connecting {
        /// What came in the way.
        trouble: String,
    },
    /// Connected, and reading the configuration.
    CatchingUp,
    /// Delivering.
    Consuming,
    /// Finishing what is in hand.
    Draining,
}

/// The intake's progress. Cheap to clone.
#[derive(Clone)]
pub struct ConsumerStatus(Arc<State>);

struct State {
    phase: RwLock<Phase>,
    in_hand: AtomicUsize,
    /// Messages ready in the queues that are worked off, as last read.
    ready: Mutex<BTreeMap<String, u32>>,
    started: Instant,
    /// When a message was last settled, or the first one taken: milliseconds after `started`.
    moved_ms: AtomicU64,
    /// Told whenever a message is settled.
    settled: Notify,
}

impl Default for ConsumerStatus {
    fn default() -> Self {
        Self(Arc::new(State {
            phase: RwLock::new(Phase::Connecting { trouble: "just started".to_owned() }),
            in_hand: AtomicUsize::new(0),
            ready: Mutex::default(),
            started: Instant::now(),
            moved_ms: AtomicU64::new(0),
            settled: Notify::new(),
        }))
    }
}

impl ConsumerStatus {
    /// The phase.
    pub fn phase(&self) -> Phase {
        self.0.phase.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages in hand.
    pub fn in_hand(&self) -> usize {
        self.0.in_hand.load(Ordering::Relaxed)
    }

    /// For how long there have been messages to settle and none was settled, where that is too long.
    pub fn stalled_for(&self) -> Option<Duration> {
        let moved = Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed));
        let stalled = self.0.started.elapsed().saturating_sub(moved);
        let to_settle = self.in_hand() > 0 || self.0.ready().values().any(|ready| *ready > 0);
        (to_settle && stalled > STALL).then_some(stalled)
    }

    /// Waits until there are at most so many messages in hand.
    pub async fn until_at_most(&self, messages: usize) {
        loop {
            let mut settled = pin!(self.0.settled.notified());
            // Before looking: what is settled in between is not missed.
            settled.as_mut().enable();
            if self.0.in_hand.load(Ordering::Relaxed) <= messages {
                return;
            }
            settled.await;
        }
    }

    /// So many messages are ready in a queue that is worked off.
    pub(super) fn ready(&self, queue: &str, messages: u32) {
        let mut ready = self.0.ready();
        if messages > 0 && self.in_hand() == 0 && ready.values().all(|ready| *ready == 0) {
            self.0.touch();
        }
        ready.insert(queue.to_owned(), messages);
    }

    pub(super) fn enter(&self, phase: Phase) {
        if phase == Phase::Consuming {
            // What was before the connection says nothing of now.
            self.0.ready().clear();
            self.0.touch();
        }
        *self.0.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// A message is taken in hand.
    pub(super) fn take(&self) -> MessageGuard {
        if self.0.in_hand.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.touch();
        }
        MessageGuard(self.0.clone())
    }
}

impl State {
    fn ready(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(now, Ordering::Relaxed);
    }
}

/// A message in hand, for as long as it lives.
pub(super) struct MessageGuard(Arc<State>);

impl MessageGuard {
    /// It is settled. To give it back is no progress.
    pub(super) fn settled(&self) {
        self.0.touch();
    }
}

impl Drop for MessageGuard {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1, Ordering::Relaxed);
        self.0.settled.notify_waiters();
    }
}
