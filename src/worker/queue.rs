//! The queues that a worker consumes.

/// A queue with a window of its own: many retries do not delay fresh events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Events,
    Retries,
}
