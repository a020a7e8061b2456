//! Writes dead letters for the messages that the broker itself put into the stream.
//!
//! The stream has such a message as it was in its queue. The view lists the message until its letters are in the stream
//! too, so a crash loses nothing. All workers do this. They derive the same ids, and a second letter with the same id
//! changes nothing.

use std::convert::Infallible;
use std::time::Duration;

use chrono::Utc;
use futures_util::StreamExt as _;
use waypost_broker::publisher::PublishError;
use waypost_broker::stream_writer::AppendError;
use waypost_core::dead_letter::DeadLetter;
use waypost_core::dead_letter::removed::RemovedMessage;
use waypost_core::dead_letter_record::{DeadLetterRecord, RemovedMessageDone};
use waypost_store::dead_letters::RecordOutcome;

use super::{DeadLetterError, DeadLetters};
use crate::delivery_event::DeliveryEvent;
use crate::view_sync::FollowError;

/// Messages whose letters are written at the same time.
const CONCURRENCY: usize = 32;

/// Maximum number of messages read from the view at once.
const MAX_BATCH_MESSAGES: usize = 256;

/// Maximum number of bytes of messages read from the view at once. The first message may exceed them.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Time until the next attempt, if the stream cannot be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl DeadLetters {
    /// Writes letters for removed messages, until the store fails.
    pub(crate) async fn rewrite_removed(&self) -> Result<Infallible, FollowError> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            // Each worker begins at a random offset, so two workers seldom write the same letters.
            let from = uuid::Uuid::now_v7().as_u64_pair().1;
            let messages =
                tokio::task::block_in_place(|| self.view.removed_messages(from, MAX_BATCH_MESSAGES, MAX_BATCH_BYTES))?;
            if messages.is_empty() {
                // `changed` does not fail: `self` has the sender.
                let _ = changes.changed().await;
                continue;
            }
            let mut results = futures_util::stream::iter(messages)
                .map(|(offset, message)| self.rewrite(offset, message))
                .buffer_unordered(CONCURRENCY);
            let mut failure = None;
            while let Some(result) = results.next().await {
                failure = result.err().or(failure);
            }
            match failure {
                None => {}
                Some(DeadLetterError::Store(error)) => return Err(error.into()),
                Some(error) => {
                    tracing::warn!(%error, "dead letters of removed messages not written, will retry");
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn rewrite(&self, offset: u64, message: RemovedMessage) -> Result<(), DeadLetterError> {
        if !tokio::task::block_in_place(|| self.view.has_removed_message(offset))? {
            return Ok(());
        }
        let retries_queue = self.names.retries();
        // All workers derive the same ids from the offset.
        for letter in message.letters(&offset, &retries_queue, Utc::now()) {
            if self.append_letter(&letter).await? == RecordOutcome::Letters(1) {
                DeliveryEvent::Removed { letter: &letter, queue: &message.removal.queue }.emit(&self.metrics);
            }
        }
        let done = DeadLetterRecord::RemovedMessageDone(RemovedMessageDone { offset });
        // Only the worker that appended the record first counts the message.
        if self.append(done).await? == RecordOutcome::Letters(1) && message.is_from(&retries_queue) {
            DeliveryEvent::DelayedMessageSettled.emit(&self.metrics);
        }
        Ok(())
    }

    /// Appends a letter. Shortens its large parts if RabbitMQ refuses the size.
    async fn append_letter(&self, letter: &DeadLetter) -> Result<RecordOutcome, DeadLetterError> {
        match self.appender.append(serde_json::to_vec(letter)?).await {
            Err(AppendError::Publish(PublishError::TooLarge { limit, .. })) => {
                let shortened = letter.clone().shortened(limit);
                Ok(self.appender.append(serde_json::to_vec(&shortened)?).await?)
            }
            result => Ok(result?),
        }
    }
}
