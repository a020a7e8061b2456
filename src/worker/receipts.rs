//! Numbers for the messages that this worker receives.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::delivery::ids::ReceiptId;

/// Gives each receipt of a message an identity of its own.
#[derive(Debug)]
pub struct Receipts {
    /// Drawn when the process starts.
    start: u128,
    given: AtomicU64,
}

impl Receipts {
    /// Receipts that no other process gives: they begin at a UUID of version 7.
    pub fn start() -> Self {
        Self { start: uuid::Uuid::now_v7().as_u128(), given: AtomicU64::new(0) }
    }

    /// The next one.
    pub fn next(&self) -> ReceiptId {
        ReceiptId::new(self.start, self.given.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let (one, other) = (Receipts::start(), Receipts::start());
        let mut given: Vec<_> = (0..1000).flat_map(|_| [one.next(), other.next()]).collect();
        given.sort_by_key(ToString::to_string);
        given.dedup();
        assert_eq!(given.len(), 2000);
    }
}
