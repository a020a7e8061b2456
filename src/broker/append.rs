//! Appending to a log, and waiting until this node has applied what was appended: so whoever gets the answer reads
//! their own write here. A record that must not be lost is published again if it is not read back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::publisher::{Destination, Outgoing, Publisher, Unpublished};

/// Why it is not known that a record was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unapplied {
    /// It was not published.
    #[error(transparent)]
    Unpublished(#[from] Unpublished),
    /// It was not confirmed, or not read back, in time.
    #[error(
        "the change was not made within {} s; it may yet be: read what you wanted to change before you repeat it", .0.as_secs()
    )]
    Late(Duration),
    /// Waypost is stopping.
    #[error("Waypost is stopping")]
    Stopping,
}

/// A record that is confirmed and not read back is published at most this many times.
const MAX_PUBLISHES: u32 = 3;

/// Appends to one log. `T` is what applying a record results in. Cheap to clone.
pub struct Appender<T> {
    publisher: Publisher,
    log: String,
    timeout: Duration,
    /// Callers whose record has not been applied yet, by its message id.
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<T>>>>,
    /// False if this node has stopped reading the log, or read nothing back for too long.
    reading: Arc<AtomicBool>,
}

impl<T> Clone for Appender<T> {
    fn clone(&self) -> Self {
        let (publisher, log) = (self.publisher.clone(), self.log.clone());
        let (waiting, reading) = (self.waiting.clone(), self.reading.clone());
        Self { publisher, log, timeout: self.timeout, waiting, reading }
    }
}

impl<T> Appender<T> {
    /// Appends to the stream `log`. A record is to be published, confirmed and applied within `timeout`.
    pub fn new(publisher: Publisher, log: String, timeout: Duration) -> Self {
        Self { publisher, log, timeout, waiting: Arc::default(), reading: Arc::new(AtomicBool::new(true)) }
    }

    /// Publishes a record until this node has applied it, and again if it is not read back in time: RabbitMQ can confirm a record
    /// that the stream does not have after it has lost its leader. The record must have the same effect if the log has it twice.
    ///
    /// After the last publish, or while this node does not read, the confirm has to do.
    ///
    /// # Errors
    /// [`Unpublished::Stopping`] and [`Unpublished::TooLarge`].
    pub async fn publish_until_applied(&self, outgoing: Outgoing) -> Result<(), Unpublished> {
        for publishes in 1..=MAX_PUBLISHES {
            let (sender, applied) = oneshot::channel();
            self.waiting().insert(outgoing.message_id.clone(), sender);
            let _waiting = Waiting { appender: self, message_id: outgoing.message_id.clone() };
            self.publisher.publish_until_taken(outgoing.clone()).await?;
            // An error says that this node stops reading.
            if !self.reading.load(Ordering::Relaxed) || tokio::time::timeout(self.timeout, applied).await.is_ok() {
                return Ok(());
            }
            tracing::warn!(
                log = self.log,
                message_id = outgoing.message_id,
                publishes,
                "confirmed record not read back"
            );
        }
        // Others need not wait for a reader that reads nothing.
        self.reading.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// This node reads the log no more: nobody waits until it has applied a record.
    pub fn stop_reading(&self) {
        self.reading.store(false, Ordering::Relaxed);
        self.waiting().clear();
    }

    /// Appends a record, and waits until [`Self::applied`] is told of it.
    ///
    /// # Errors
    /// [`Unapplied`].
    pub async fn append(&self, body: Vec<u8>) -> Result<T, Unapplied> {
        let message_id = uuid::Uuid::now_v7().to_string();
        let (sender, applied) = oneshot::channel();
        self.waiting().insert(message_id.clone(), sender);
        let _waiting = Waiting { appender: self, message_id: message_id.clone() };
        let outgoing = Outgoing::new(Destination::Queue(self.log.clone()), message_id, body);
        let appended = tokio::time::timeout(self.timeout, async {
            self.publisher.publish(outgoing).await?;
            applied.await.map_err(|_| Unapplied::Stopping)
        });
        appended.await.unwrap_or(Err(Unapplied::Late(self.timeout)))
    }

    /// This node has applied the record with this message id; whoever appended it here is told the result.
    pub fn applied(&self, message_id: &str, result: T) {
        self.reading.store(true, Ordering::Relaxed);
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
    appender: &'a Appender<T>,
    message_id: String,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        self.appender.waiting().remove(&self.message_id);
    }
}
