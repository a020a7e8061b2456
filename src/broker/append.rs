//! Appending to a log, and waiting until this node has applied what was appended: so whoever gets the answer reads
//! their own write here.

use std::collections::HashMap;
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

/// Appends to one log. `T` is what applying a record results in. Cheap to clone.
pub struct Appender<T> {
    publisher: Publisher,
    log: String,
    timeout: Duration,
    /// Callers whose record has not been applied yet, by its message id.
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<T>>>>,
}

impl<T> Clone for Appender<T> {
    fn clone(&self) -> Self {
        let (publisher, log) = (self.publisher.clone(), self.log.clone());
        Self { publisher, log, timeout: self.timeout, waiting: self.waiting.clone() }
    }
}

impl<T> Appender<T> {
    /// Appends to the stream `log`. A record is to be published, confirmed and applied within `timeout`.
    pub fn new(publisher: Publisher, log: String, timeout: Duration) -> Self {
        Self { publisher, log, timeout, waiting: Arc::default() }
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
