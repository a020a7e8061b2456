//! Messages that RabbitMQ removed from their queues, until their letters are written.

use super::{LetterView, key, number};
use crate::delivery::dead_letter::removed::RemovedMessage;
use crate::store::StoreError;

impl LetterView {
    /// Removed messages whose letters are to be written, with their offsets: at most `limit`, and no more after the first that
    /// reaches `bytes`. `from` is any number: it chooses where to begin, so that several workers begin at different places.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn removed_messages(
        &self,
        from: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(u64, RemovedMessage)>, StoreError> {
        let (Some((first, _)), Some((last, _))) = (self.removed.first()?, self.removed.last()?) else {
            return Ok(Vec::new());
        };
        let (first, last) = (number(&first), number(&last));
        let begin = first + from % (last - first + 1);
        let (mut messages, mut read) = (Vec::new(), 0);
        for entry in self.removed.range(key(begin)..).chain(self.removed.range(..key(begin))) {
            let (offset, message) = entry?;
            read += message.len();
            messages.push((number(&offset), serde_json::from_slice(&message)?));
            if messages.len() == limit || read >= bytes {
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
        Ok(self.removed.contains_key(key(offset))?)
    }
}
