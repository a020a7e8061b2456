//! How much memory messages may take while they are dealt with. The window bounds their number; a body can be a hundred
//! bytes or a hundred megabytes, and decoded, rendered and written again it takes several times that.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of message bodies being dealt with at once. The others wait as they came.
const BYTES: usize = 32 * 1024 * 1024;

/// Counted in these, so that what there is fits into a semaphore.
const UNIT: usize = 1024;

/// Room for message bodies. Cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BYTES / UNIT)))
    }
}

impl Room {
    /// Waits for room for a body, in the order of asking. One that is larger than all there is takes all there is.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(UNIT).clamp(1, BYTES / UNIT);
        // The semaphore is never closed.
        self.0.clone().acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn what_does_not_fit_waits() {
        let room = Room::default();
        let half = room.take(BYTES / 2).now_or_never().expect("room");
        assert!(room.take(BYTES * 10).now_or_never().is_none());
        drop(half);
        let all = room.take(BYTES * 10).now_or_never().expect("room for what is larger than all of it");
        assert!(room.take(0).now_or_never().is_none());
        drop(all);
    }
}
