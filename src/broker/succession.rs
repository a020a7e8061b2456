//! A queue worked off over one channel after the other. Acknowledgements of many messages in one frame reach only as far as
//! the first unfinished one, so a few requests that hang would make every later message cost a frame of its own. Such a
//! channel is succeeded by another: it gets no more messages, keeps those that are unfinished, and closes after the last.
//!
//! A channel that is old is succeeded as well, as soon as none of its messages is unfinished. After the loss of a queue's leader, RabbitMQ can
//! hold messages for a channel that never got them, and gives them out again when the channel closes.

use std::time::{Duration, Instant};

use lapin::Connection;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::BrokerError;
use super::acks::{Acks, Unfinished};
use super::consumer::{LAST_ACKS, Message, Subscription};

/// A channel of this age is succeeded as soon as none of its messages is unfinished.
const RENEWAL: Duration = Duration::from_secs(30);

/// Whether any is unfinished is looked at so often, if no message comes.
const LOOK: Duration = Duration::from_secs(1);

/// What the broker gives out again within this time after a renewal, it held for the channel of before.
const RECOVERY: Duration = Duration::from_secs(5);

/// A message, and where it is acknowledged.
pub struct Taken {
    /// The message.
    pub message: Message,
    /// Where it is acknowledged.
    pub acks: Acks,
    /// How it came.
    pub arrival: Arrival,
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Given out when it was ready.
    Usual,
    /// The broker held it, unacknowledged, for a channel of a worker that never got it.
    Recovered,
}

/// Messages from a queue: no more at a time than the window allows, beside those that hang. There is no successor while these are
/// more than half a window.
pub struct Succession<'a> {
    connection: &'a Connection,
    queue: &'a str,
    window: u16,
    current: Subscription,
    /// The last one, for as long as messages come that the broker had given it.
    predecessor: Option<Subscription>,
    retired: Vec<Retired>,
    /// Since when the current channel is there.
    opened: Instant,
    /// When a channel was last succeeded because of its age.
    renewed: Option<Instant>,
}

/// A channel that gets no more messages.
struct Retired {
    unfinished: Unfinished,
    closed: JoinHandle<()>,
}

impl<'a> Succession<'a> {
    /// Starts consuming `queue` with at most `window` messages in hand.
    ///
    /// # Errors
    /// [`BrokerError::Lost`].
    pub async fn open(connection: &'a Connection, queue: &'a str, window: u16) -> Result<Self, BrokerError> {
        let current = Subscription::open(connection, queue, window).await?;
        Ok(Self {
            connection,
            queue,
            window,
            current,
            predecessor: None,
            retired: Vec::new(),
            opened: Instant::now(),
            renewed: None,
        })
    }

    /// The next message.
    ///
    /// # Errors
    /// [`BrokerError::Lost`] when there will be no more on this connection.
    pub async fn next(&mut self) -> Result<Taken, BrokerError> {
        loop {
            if self.predecessor.is_none() && self.current.is_stuck() && self.has_room() {
                self.succeed().await?;
            } else if self.predecessor.is_none() && self.opened.elapsed() >= RENEWAL && self.current.is_idle() {
                self.succeed().await?;
                self.renewed = Some(Instant::now());
            }
            if let Some(predecessor) = &mut self.predecessor {
                if let Some(message) = predecessor.next_before_end().await? {
                    return Ok(Taken { message, acks: predecessor.acks(), arrival: Arrival::Usual });
                }
                self.retire();
            }
            let wait = RENEWAL.saturating_sub(self.opened.elapsed()).max(LOOK);
            if let Ok(message) = timeout(wait, self.current.next()).await {
                let (message, acks) = (message?, self.current.acks());
                let arrival = self.arrival(&message);
                return Ok(Taken { message, acks, arrival });
            }
        }
    }

    async fn succeed(&mut self) -> Result<(), BrokerError> {
        // First, so that the broker never sees two consumers of one worker.
        self.current.cancel().await;
        let successor = Subscription::open(self.connection, self.queue, self.window).await?;
        self.predecessor = Some(std::mem::replace(&mut self.current, successor));
        self.opened = Instant::now();
        Ok(())
    }

    fn arrival(&self, message: &Message) -> Arrival {
        let renewed = self.renewed.is_some_and(|renewed| renewed.elapsed() < RECOVERY);
        if !renewed || !message.redelivered {
            return Arrival::Usual;
        }
        tracing::warn!(queue = self.queue, message_id = message.message_id, "message recovered");
        Arrival::Recovered
    }

    fn retire(&mut self) {
        let Some(predecessor) = self.predecessor.take() else { return };
        self.retired.retain(|retired| !retired.closed.is_finished());
        let unfinished = predecessor.acks().unfinished();
        tracing::debug!(queue = self.queue, unfinished = unfinished.count(), "a channel is succeeded");
        self.retired.push(Retired { unfinished, closed: tokio::spawn(predecessor.finish()) });
    }

    /// Whether those that hang may be more.
    fn has_room(&mut self) -> bool {
        self.retired.retain(|retired| !retired.closed.is_finished());
        let hanging: usize = self.retired.iter().map(|retired| retired.unfinished.count()).sum();
        hanging < usize::from(self.window / 2)
    }

    /// Asks the broker for no more messages.
    pub async fn cancel(&self) {
        self.current.cancel().await;
    }

    /// Writes the last acknowledgements, as long as that may take. All [`Acks`] of its messages must have been dropped.
    pub async fn finish(mut self) {
        self.retire();
        let finish = async {
            self.current.finish().await;
            for retired in self.retired {
                // A task that was aborted or has panicked leaves messages unacknowledged: they come again.
                let _ = retired.closed.await;
            }
        };
        let _ = timeout(LAST_ACKS, finish).await;
    }
}
