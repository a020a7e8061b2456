//! Messages that RabbitMQ removed from their queues. They are kept until their letters are in the stream.

use waypost_core::dead_letter::removed::RemovedMessage;

use super::LetterView;
use super::keys::{from_key, to_key};
use crate::StoreError;

impl LetterView {
    /// Returns removed messages whose letters are not written yet, with their offsets. Stops at `limit` messages, or when
    /// their total size reaches `max_bytes`. `seed` is any number. It selects the first message, so that workers start
    /// with different messages.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn removed_messages(
        &self,
        seed: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, RemovedMessage)>, StoreError> {
        let (Some((first, _)), Some((last, _))) = (self.removed.first()?, self.removed.last()?) else {
            return Ok(Vec::new());
        };
        let (first, last) = (from_key(&first), from_key(&last));
        let start = first + seed % (last - first + 1);
        let (mut messages, mut total_bytes) = (Vec::new(), 0);
        for entry in self.removed.range(to_key(start)..).chain(self.removed.range(..to_key(start))) {
            let (offset, message) = entry?;
            total_bytes += message.len();
            messages.push((from_key(&offset), serde_json::from_slice(&message)?));
            if messages.len() == limit || total_bytes >= max_bytes {
                break;
            }
        }
        Ok(messages)
    }

    /// Whether letters of the removed message at `offset` are still to be written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn has_removed_message(&self, offset: u64) -> Result<bool, StoreError> {
        Ok(self.removed.contains_key(to_key(offset))?)
    }
}
