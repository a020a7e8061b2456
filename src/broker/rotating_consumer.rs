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
use super::acks::{Acks, Outstanding};
use super::subscription::{ACK_FLUSH_TIMEOUT, Message, Subscription};

/// A channel of this age is succeeded as soon as none of its messages is unfinished.
const RENEWAL: Duration = Duration::from_secs(30);

/// A channel of this age is succeeded though messages are unfinished: RabbitMQ may hold messages that it has counted as taken.
const BUSY_RENEWAL: Duration = Duration::from_secs(600);

/// Time between two checks for unfinished messages, if no message arrives.
const LOOK: Duration = Duration::from_secs(1);

/// A message that is delivered again within this time after a renewal counts as held for the earlier channel.
const RECOVERY: Duration = Duration::from_secs(5);

/// Bytes of message bodies of a queue that the broker may give out at once.
const BYTES_IN_HAND: f64 = 32.0 * 1024.0 * 1024.0;

/// The window of a connection's first channel, until the size of messages is known. Messages that together end a worker would
/// otherwise end the next one, too.
const FIRST_WINDOW: u16 = 16;

/// A message, and where it is acknowledged.
pub struct ReceivedMessage {
    /// The message.
    pub message: Message,
    /// Where it is acknowledged.
    pub acks: Acks,
    /// How it came.
    pub arrival: DeliveryOrigin,
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOrigin {
    /// Given out when it was ready.
    Queued,
    /// The broker held it, unacknowledged, for a channel of a worker that never got it.
    Recovered,
}

/// Messages that may be in flight at once. Follows the size of recent messages.
struct Window {
    /// The upper limit, from the settings.
    most: u16,
    current: u16,
    /// Bytes of a message, on average. The latest counts for an eighth.
    mean: f64,
    /// Messages since the window was set.
    seen: u16,
}

impl Window {
    fn new(most: u16) -> Self {
        Self { most, current: FIRST_WINDOW.min(most), mean: 0.0, seen: 0 }
    }

    fn saw(&mut self, bytes: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a mean of sizes")]
        let bytes = bytes as f64;
        self.mean = if self.mean == 0.0 { bytes } else { self.mean + (bytes - self.mean) / 8.0 };
        self.seen = self.seen.saturating_add(1);
    }

    /// Another window, if it is half of this one or twice as large.
    fn better(&self) -> Option<u16> {
        if self.seen < FIRST_WINDOW.min(self.current) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and `most`")]
        let fitting = (BYTES_IN_HAND / self.mean.max(1.0)).clamp(1.0, f64::from(self.most)) as u16;
        (fitting / 2 >= self.current || fitting <= self.current / 2).then_some(fitting)
    }

    fn set(&mut self, window: u16) {
        (self.current, self.seen) = (window, 0);
    }
}

/// Messages from a queue: no more at a time than the window allows, beside those that hang. There is no successor while these are
/// more than half a window.
pub struct RotatingConsumer<'a> {
    connection: &'a Connection,
    queue: &'a str,
    window: Window,
    current: Subscription,
    /// The last one, for as long as messages come that the broker had given it.
    predecessor: Option<Subscription>,
    retired: Vec<RetiredChannel>,
    /// When the current channel was opened.
    opened: Instant,
    /// When a channel was last succeeded because of its age.
    renewed: Option<Instant>,
}

/// A channel that gets no more messages.
struct RetiredChannel {
    unfinished: Outstanding,
    closed: JoinHandle<()>,
}

impl<'a> RotatingConsumer<'a> {
    /// Starts consuming `queue` with at most `most` messages in hand.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open(connection: &'a Connection, queue: &'a str, most: u16) -> Result<Self, BrokerError> {
        let window = Window::new(most);
        let current = Subscription::open(connection, queue, window.current).await?;
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
    /// [`BrokerError::ChannelFailed`] when there will be no more on this connection.
    pub async fn next(&mut self) -> Result<ReceivedMessage, BrokerError> {
        loop {
            if self.predecessor.is_none() && self.current.is_stuck() && self.has_room() {
                self.rotate().await?;
            } else if self.predecessor.is_none() && self.is_old() {
                self.rotate().await?;
                self.renewed = Some(Instant::now());
            } else if self.predecessor.is_none()
                && let Some(window) = self.window.better()
                && self.has_room()
            {
                self.window.set(window);
                self.rotate().await?;
            }
            if let Some(predecessor) = &mut self.predecessor {
                if let Some(message) = predecessor.next_before_end().await? {
                    return Ok(ReceivedMessage { message, acks: predecessor.acks(), arrival: DeliveryOrigin::Queued });
                }
                self.retire_predecessor();
            }
            let wait = RENEWAL.saturating_sub(self.opened.elapsed()).max(LOOK);
            if let Ok(message) = timeout(wait, self.current.next()).await {
                let (message, acks) = (message?, self.current.acks());
                self.window.saw(message.body.len());
                let arrival = self.arrival(&message);
                return Ok(ReceivedMessage { message, acks, arrival });
            }
        }
    }

    /// Whether another channel is due because of this one's age.
    fn is_old(&mut self) -> bool {
        let age = self.opened.elapsed();
        (age >= RENEWAL && self.current.is_idle()) || (age >= BUSY_RENEWAL && self.has_room())
    }

    async fn rotate(&mut self) -> Result<(), BrokerError> {
        // First, so that the broker never sees two consumers of one worker.
        self.current.cancel().await;
        let successor = Subscription::open(self.connection, self.queue, self.window.current).await?;
        self.predecessor = Some(std::mem::replace(&mut self.current, successor));
        self.opened = Instant::now();
        Ok(())
    }

    fn arrival(&self, message: &Message) -> DeliveryOrigin {
        let renewed = self.renewed.is_some_and(|renewed| renewed.elapsed() < RECOVERY);
        if !renewed || !message.redelivered {
            return DeliveryOrigin::Queued;
        }
        tracing::warn!(queue = self.queue, message_id = message.message_id, "message recovered");
        DeliveryOrigin::Recovered
    }

    fn retire_predecessor(&mut self) {
        let Some(predecessor) = self.predecessor.take() else { return };
        self.retired.retain(|retired| !retired.closed.is_finished());
        let unfinished = predecessor.acks().unfinished();
        tracing::debug!(queue = self.queue, unfinished = unfinished.count(), "a channel is succeeded");
        self.retired.push(RetiredChannel { unfinished, closed: tokio::spawn(predecessor.finish()) });
    }

    /// Whether those that hang may be more.
    fn has_room(&mut self) -> bool {
        self.retired.retain(|retired| !retired.closed.is_finished());
        let hanging: usize = self.retired.iter().map(|retired| retired.unfinished.count()).sum();
        hanging < usize::from((self.window.most / 2).max(1))
    }

    /// Asks the broker for no more messages.
    pub async fn cancel(&self) {
        self.current.cancel().await;
    }

    /// Writes the last acknowledgements, as long as that may take. All [`Acks`] of its messages must have been dropped.
    pub async fn finish(mut self) {
        self.retire_predecessor();
        let finish = async {
            self.current.finish().await;
            for retired in self.retired {
                // A task that was aborted or has panicked leaves messages unacknowledged: they come again.
                let _ = retired.closed.await;
            }
        };
        let _ = timeout(ACK_FLUSH_TIMEOUT, finish).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(most: u16, messages: usize, bytes: usize) -> Window {
        let mut window = Window::new(most);
        for _ in 0..messages {
            window.saw(bytes);
            if let Some(better) = window.better() {
                window.set(better);
            }
        }
        window
    }

    #[test]
    fn the_window_follows_the_size_of_messages() {
        assert_eq!(after(1000, 15, 150).current, FIRST_WINDOW, "too few to know");
        assert_eq!(after(1000, 16, 150).current, 1000);
        assert_eq!(after(1000, 16, 256 * 1024).current, 128);
        assert_eq!(after(1000, 40, 16 * 1024 * 1024).current, 2);
        assert_eq!(after(5, 5, 150).current, 5);
        let mut window = after(1000, 16, 150);
        for _ in 0..16 {
            window.saw(16 * 1024 * 1024);
        }
        assert!(window.better().is_some_and(|better| better < 10), "{:?}", window.better());
    }
}
