//! Appending to a log, and waiting until this node has applied what was appended: so whoever gets the answer reads
//! their own write here. A record that must not be lost is published again if it is not read back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::publisher::{Destination, OutboundMessage, PublishError, Publisher};

/// Why it is not known that a record was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It was not published.
    #[error(transparent)]
    Unpublished(#[from] PublishError),
    /// It was not confirmed, or not read back, in time.
    #[error(
        "the change was not made within {} s; it may yet be: read what you wanted to change before you repeat it", .0.as_secs()
    )]
    Late(Duration),
    /// Waypost is stopping.
    #[error("Waypost is stopping")]
    Stopping,
}

/// Whether this node reads the log, so that it is worth waiting for an own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBack {
    /// The log is read, or will be again within seconds.
    On,
    /// The log is not read, or old records are read first: a confirm has to do.
    Off,
}

/// Appends to one log. `T` is what applying a record results in. Cheap to clone.
pub struct StreamWriter<T> {
    publisher: Publisher,
    log: String,
    timeout: Duration,
    /// Callers whose record has not been applied yet, by its message id.
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<T>>>>,
    read_back: Arc<watch::Sender<ReadBack>>,
}

impl<T> Clone for StreamWriter<T> {
    fn clone(&self) -> Self {
        let (publisher, log) = (self.publisher.clone(), self.log.clone());
        let (waiting, read_back) = (self.waiting.clone(), self.read_back.clone());
        Self { publisher, log, timeout: self.timeout, waiting, read_back }
    }
}

impl<T> StreamWriter<T> {
    /// Appends to the stream `log`. A record is to be published, confirmed and applied within `timeout`.
    pub fn new(publisher: Publisher, log: String, timeout: Duration) -> Self {
        Self {
            publisher,
            log,
            timeout,
            waiting: Arc::default(),
            read_back: Arc::new(watch::Sender::new(ReadBack::Off)),
        }
    }

    /// Publishes a record until this node has applied it: RabbitMQ can confirm a record that the stream does not have after it has
    /// lost its leader. The record must have the same effect if the log has it twice. Returns how often it was published.
    ///
    /// With [`ReadBack::Off`] the confirm has to do.
    ///
    /// # Errors
    /// [`PublishError::Stopping`] and [`PublishError::TooLarge`].
    pub async fn publish_until_applied(&self, outgoing: OutboundMessage) -> Result<u32, PublishError> {
        let mut read_back = self.read_back.subscribe();
        let mut publishes = 0;
        loop {
            let (sender, applied) = oneshot::channel();
            self.waiting().insert(outgoing.message_id.clone(), sender);
            let _waiting = Waiting { appender: self, message_id: outgoing.message_id.clone() };
            self.publisher.publish_with_retry(outgoing.clone()).await?;
            publishes += 1;
            let confirmed = Instant::now();
            tokio::select! {
                applied = tokio::time::timeout(self.timeout, applied) => if applied.is_ok() { return Ok(publishes) },
                _ = read_back.wait_for(|read_back| *read_back == ReadBack::Off) => return Ok(publishes),
            }
            let message_id = outgoing.message_id.as_str();
            tracing::warn!(log = self.log, message_id, publishes, "confirmed record not read back");
            // RabbitMQ may drop all that this channel publishes.
            self.publisher.replace_connection(confirmed);
        }
    }

    /// Sets whether records are read back.
    pub fn set_read_back(&self, read_back: ReadBack) {
        self.read_back.send_replace(read_back);
    }

    /// Appends a record, and waits until [`Self::applied`] is told of it.
    ///
    /// # Errors
    /// [`AppendError`].
    pub async fn append(&self, body: Vec<u8>) -> Result<T, AppendError> {
        let message_id = uuid::Uuid::now_v7().to_string();
        let (sender, applied) = oneshot::channel();
        self.waiting().insert(message_id.clone(), sender);
        let _waiting = Waiting { appender: self, message_id: message_id.clone() };
        let outgoing = OutboundMessage::new(Destination::Queue(self.log.clone()), message_id, body);
        let appended = tokio::time::timeout(self.timeout, async {
            self.publisher.publish(outgoing).await?;
            applied.await.map_err(|_| AppendError::Stopping)
        });
        appended.await.unwrap_or(Err(AppendError::Late(self.timeout)))
    }

    /// This node has applied the record with this message id; whoever appended it here is told the result.
    pub fn applied(&self, message_id: &str, result: T) {
        if let Some(caller) = self.waiting().remove(message_id) {
            // A caller that has gone away does not want to know.
            let _ = caller.send(result);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<T>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller that waits for its record, until it goes away.
struct Waiting<'a, T> {
    appender: &'a StreamWriter<T>,
    message_id: String,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        self.appender.waiting().remove(&self.message_id);
    }
}
