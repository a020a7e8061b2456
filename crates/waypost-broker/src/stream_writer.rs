//! Appends records to a stream and waits until this worker has applied them, so that the caller reads its own write. A
//! record that must not be lost is published again if it is not read back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::publisher::{Destination, OutboundMessage, PublishError, Publisher};

/// Why it is unknown whether a record was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record was not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The record was not confirmed or not read back in time.
    #[error(
        "no confirmation within {} s. The change may still apply. Check the current state before you retry",
        .0.as_secs()
    )]
    Timeout(Duration),
    #[error("Waypost is stopping")]
    Stopping,
}

/// Whether this worker reads the stream, so that a writer can wait for its own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBack {
    /// The stream is read, or will be again within seconds.
    On,
    /// The stream is not read, or old records are read first. The broker's confirm is sufficient.
    Off,
}

/// Appends to one stream. `T` is the result of applying a record. Cheap to clone.
pub struct StreamWriter<T> {
    publisher: Publisher,
    stream: String,
    timeout: Duration,
    /// Callers whose record has not been applied yet, by message id.
    waiters: Arc<Mutex<HashMap<String, oneshot::Sender<T>>>>,
    read_back: Arc<watch::Sender<ReadBack>>,
}

impl<T> Clone for StreamWriter<T> {
    fn clone(&self) -> Self {
        let (publisher, stream) = (self.publisher.clone(), self.stream.clone());
        let (waiters, read_back) = (self.waiters.clone(), self.read_back.clone());
        Self { publisher, stream, timeout: self.timeout, waiters, read_back }
    }
}

impl<T> StreamWriter<T> {
    /// A record must be published, confirmed and applied within `timeout`.
    pub fn new(publisher: Publisher, stream: String, timeout: Duration) -> Self {
        Self {
            publisher,
            stream,
            timeout,
            waiters: Arc::default(),
            read_back: Arc::new(watch::Sender::new(ReadBack::Off)),
        }
    }

    /// Publishes a record again until this worker has applied it: after a stream lost its leader, RabbitMQ can confirm
    /// records that the stream does not have. The record must be idempotent. Returns how often it was published.
    ///
    /// With [`ReadBack::Off`] the broker's confirm is sufficient.
    ///
    /// # Errors
    /// [`PublishError::Stopping`] and [`PublishError::TooLarge`].
    pub async fn publish_until_applied(&self, message: OutboundMessage) -> Result<u32, PublishError> {
        let mut read_back = self.read_back.subscribe();
        let mut publishes = 0;
        loop {
            let (sender, applied) = oneshot::channel();
            self.waiters().insert(message.message_id.clone(), sender);
            let _guard = WaiterGuard { writer: self, message_id: message.message_id.clone() };
            self.publisher.publish_with_retry(message.clone()).await?;
            publishes += 1;
            let confirmed_at = Instant::now();
            tokio::select! {
                applied = tokio::time::timeout(self.timeout, applied) => if applied.is_ok() { return Ok(publishes) },
                _ = read_back.wait_for(|read_back| *read_back == ReadBack::Off) => return Ok(publishes),
            }
            let message_id = message.message_id.as_str();
            tracing::warn!(stream = self.stream, message_id, publishes, "confirmed record not read back");
            // RabbitMQ may drop all records that this channel publishes to the stream.
            self.publisher.replace_connection(confirmed_at);
        }
    }

    pub fn set_read_back(&self, read_back: ReadBack) {
        self.read_back.send_replace(read_back);
    }

    /// Appends a record and waits until [`Self::notify_applied`] is called for it.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(&self, body: Vec<u8>) -> Result<T, AppendError> {
        let message_id = uuid::Uuid::now_v7().to_string();
        let (sender, applied) = oneshot::channel();
        self.waiters().insert(message_id.clone(), sender);
        let _guard = WaiterGuard { writer: self, message_id: message_id.clone() };
        let message = OutboundMessage::new(Destination::Queue(self.stream.clone()), message_id, body);
        let appended = tokio::time::timeout(self.timeout, async {
            self.publisher.publish(message).await?;
            applied.await.map_err(|_| AppendError::Stopping)
        });
        appended.await.unwrap_or(Err(AppendError::Timeout(self.timeout)))
    }

    /// Call this after applying a record. Passes the result to the caller that appended the record on this worker.
    pub fn notify_applied(&self, message_id: &str, result: T) {
        if let Some(waiter) = self.waiters().remove(message_id) {
            // Sending fails if the caller stopped waiting.
            let _ = waiter.send(result);
        }
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<T>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a waiter when its caller stops waiting.
struct WaiterGuard<'a, T> {
    writer: &'a StreamWriter<T>,
    message_id: String,
}

impl<T> Drop for WaiterGuard<'_, T> {
    fn drop(&mut self) {
        self.writer.waiters().remove(&self.message_id);
    }
}
