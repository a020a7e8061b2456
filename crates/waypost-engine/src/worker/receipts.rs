//! Unique ids for the messages that this worker receives.

use std::sync::atomic::{AtomicU64, Ordering};

use waypost_core::ids::ReceiptId;

/// Generates a unique id for each message that is received.
#[derive(Debug)]
pub struct Receipts {
    /// A UUID of version 7, so that the ids of two processes differ.
    start: u128,
    count: AtomicU64,
}

impl Receipts {
    pub fn start() -> Self {
        Self { start: uuid::Uuid::now_v7().as_u128(), count: AtomicU64::new(0) }
    }

    pub fn next(&self) -> ReceiptId {
        ReceiptId::new(self.start, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_two_processes_are_distinct() {
        let (first, second) = (Receipts::start(), Receipts::start());
        let mut ids: Vec<_> = (0..1000).flat_map(|_| [first.next(), second.next()]).collect();
        ids.sort_by_key(ToString::to_string);
        ids.dedup();
        assert_eq!(ids.len(), 2000);
    }
}
