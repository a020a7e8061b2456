//! How much memory messages may take while they are dealt with. The window bounds their number; a body can be a hundred
//! bytes or a hundred megabytes, and decoded, rendered and written again it takes several times that. Events and retries have
//! room of their own, so that none waits for the other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::intake::Queue;

/// Bytes of message bodies of a queue being dealt with at once. The others wait as they came.
const BYTES: usize = 32 * 1024 * 1024;

/// What was parked together is one message, a JSON array of up to a hundred deliveries, each of which may have a request and a connection.
/// So it weighs so many times its bytes: some 3,000 deliveries at once fill the room.
const WEIGHT_OF_MANY: usize = 16;

/// Counted in these, so that what there is fits into a semaphore.
const UNIT: usize = 1024;

/// Room for message bodies. Cheap to clone.
#[derive(Clone)]
pub struct Room {
    events: Arc<Semaphore>,
    retries: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        let room = || Arc::new(Semaphore::new(BYTES / UNIT));
        Self { events: room(), retries: room() }
    }
}

impl Room {
    /// Waits for room for a body, in the order of asking. One that is larger than all there is takes all there is.
    pub(super) async fn take(&self, queue: Queue, body: &[u8]) -> Option<OwnedSemaphorePermit> {
        let (room, weight) = match queue {
            Queue::Events => (&self.events, 1),
            Queue::Retries if body.starts_with(b"[") => (&self.retries, WEIGHT_OF_MANY),
            Queue::Retries => (&self.retries, 1),
        };
        let units = (body.len() * weight).div_ceil(UNIT).clamp(1, BYTES / UNIT);
        // The semaphore is never closed.
        room.clone().acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_does_not_fit_waits() {
        let room = Room::default();
        let take = |queue, body: &[u8]| room.take(queue, body).now_or_never().flatten();
        let (half, too_large) = (vec![b'{'; BYTES / 2], vec![b'{'; BYTES * 2]);
        let taken = take(Queue::Events, &half).expect("room");
        assert!(take(Queue::Events, &too_large).is_none());
        drop(taken);
        let all = take(Queue::Events, &too_large).expect("room for what is larger than all of it");
        assert!(take(Queue::Events, b"").is_none());
        assert!(take(Queue::Retries, b"").is_some(), "retries have their own");
        drop(all);
        let many = vec![b'['; BYTES / WEIGHT_OF_MANY];
        let all = take(Queue::Retries, &many).expect("room");
        assert!(take(Queue::Retries, b"{").is_none(), "what was parked together weighs more");
        drop(all);
    }
}
