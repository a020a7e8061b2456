//! Bounds the retries in progress while events flow, so that events come first.
//!
//! Retries have a queue and a window of their own, so they delay no event in the broker. But a hundred thousand retries
//! that are due at once would use every core. An event then waits at most for the retries that hold a slot. Without
//! events, retries need no slot.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// If the last event is older than this, retries need no slot.
const EVENT_GAP: Duration = Duration::from_millis(100);

/// Retries in progress while events flow.
const SLOTS: usize = 64;

/// A retry that takes longer waits for its receiver and uses no CPU, so its slot is free for another one. Otherwise
/// receivers that hang would hold all slots.
const MAX_HOLD_TIME: Duration = Duration::from_millis(5);

/// Cheap to clone.
#[derive(Clone)]
pub struct RetrySlots(Arc<Shared>);

struct Shared {
    table: Mutex<SlotTable>,
    /// Retries wait in line, and only the first one looks at the clock.
    line: tokio::sync::Mutex<()>,
    /// Notified when a slot becomes free.
    slot_freed: Notify,
    started: Instant,
    /// When the last event began, in milliseconds after `started`. 0 if there was none.
    last_event_ms: AtomicU64,
}

impl Default for RetrySlots {
    fn default() -> Self {
        Self(Arc::new(Shared {
            table: Mutex::default(),
            line: tokio::sync::Mutex::default(),
            slot_freed: Notify::new(),
            started: Instant::now(),
            last_event_ms: AtomicU64::new(0),
        }))
    }
}

impl RetrySlots {
    pub(super) fn event_started(&self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_event_ms.store(now.max(1), Ordering::Relaxed);
    }

    /// Waits until a retry may use the CPU. It should drop the slot before it waits for the broker.
    pub(super) async fn acquire(&self) -> RetrySlot {
        let _first = self.0.line.lock().await;
        loop {
            let decision = self.0.table().acquire(self.0.event_flow(), self.0.started.elapsed());
            match decision {
                SlotDecision::Free(number) => return RetrySlot { shared: self.0.clone(), number },
                SlotDecision::Wait(time) => {
                    // The permit of an earlier release only means that this task looks again.
                    let _ = timeout(time, self.0.slot_freed.notified()).await;
                }
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, SlotTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event_flow(&self) -> EventFlow {
        let last = self.last_event_ms.load(Ordering::Relaxed);
        let gap = self.started.elapsed().saturating_sub(Duration::from_millis(last));
        if last > 0 && gap <= EVENT_GAP { EventFlow::Flowing } else { EventFlow::Idle }
    }
}

/// The right to use the CPU for a retry.
pub(super) struct RetrySlot {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for RetrySlot {
    fn drop(&mut self) {
        self.shared.table().release(self.number);
        self.shared.slot_freed.notify_one();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventFlow {
    Flowing,
    Idle,
}

#[derive(Debug, PartialEq, Eq)]
enum SlotDecision {
    /// With the number under which the slot is released.
    Free(u64),
    /// Until a slot is released, at most for this time.
    Wait(Duration),
}

/// The slots in use. All times have the same origin.
#[derive(Debug, Default)]
struct SlotTable {
    /// When each retry got its slot, by number. Numbers count up, so the first one is the oldest.
    held: BTreeMap<u64, Duration>,
    next_number: u64,
}

impl SlotTable {
    fn acquire(&mut self, events: EventFlow, now: Duration) -> SlotDecision {
        while let Some(oldest) = self.held.first_entry() {
            let age = now.saturating_sub(*oldest.get());
            if age < MAX_HOLD_TIME {
                if events == EventFlow::Flowing && self.held.len() >= SLOTS {
                    return SlotDecision::Wait(MAX_HOLD_TIME - age);
                }
                break;
            }
            oldest.remove();
        }
        let number = self.next_number;
        self.next_number += 1;
        self.held.insert(number, now);
        SlotDecision::Free(number)
    }

    /// A slot that was held for too long is free already.
    fn release(&mut self, number: u64) {
        self.held.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn free_slots(table: &mut SlotTable, events: EventFlow, now: Duration) -> usize {
        (0..10 * SLOTS).take_while(|_| matches!(table.acquire(events, now), SlotDecision::Free(_))).count()
    }

    #[test]
    fn retries_need_a_slot_only_while_events_flow() {
        for (events, expected) in [(EventFlow::Flowing, SLOTS), (EventFlow::Idle, 10 * SLOTS)] {
            assert_eq!(free_slots(&mut SlotTable::default(), events, NOW), expected, "{events:?}");
        }
    }

    #[test]
    fn a_slot_is_free_when_it_is_released_or_was_held_too_long() {
        let after = |time: u64| NOW + Duration::from_millis(time);
        let mut table = SlotTable::default();
        let SlotDecision::Free(first) = table.acquire(EventFlow::Flowing, NOW) else { panic!("no free slot") };
        assert_eq!(free_slots(&mut table, EventFlow::Flowing, after(2)), SLOTS - 1);
        let waits = |table: &mut SlotTable, now| table.acquire(EventFlow::Flowing, now);
        assert_eq!(waits(&mut table, after(3)), SlotDecision::Wait(MAX_HOLD_TIME - Duration::from_millis(3)));
        table.release(first);
        assert_eq!(free_slots(&mut table, EventFlow::Flowing, after(4)), 1, "the released slot");
        table.release(first);
        assert_eq!(free_slots(&mut table, EventFlow::Flowing, after(4)), 0, "a slot was released twice");
        assert_eq!(free_slots(&mut table, EventFlow::Flowing, after(2) + MAX_HOLD_TIME), SLOTS - 1, "held too long");
        assert_eq!(free_slots(&mut table, EventFlow::Flowing, after(4) + MAX_HOLD_TIME), 1, "the slot taken last");
    }

    #[tokio::test]
    async fn retries_that_hang_hold_no_slot_for_long() {
        let slots = RetrySlots::default();
        let hang = async {
            let mut held = Vec::new();
            for _ in 0..5 * SLOTS {
                slots.event_started();
                held.push(slots.acquire().await);
            }
            held.len()
        };
        assert_eq!(timeout(Duration::from_secs(30), hang).await, Ok(5 * SLOTS));
    }
}
