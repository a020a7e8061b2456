//! The two kinds of queues that a worker consumes.

/// Each kind has its own window, so that many retries do not delay events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConsumedQueue {
    Events,
    Retries,
}
