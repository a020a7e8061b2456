//! Consumes a queue and replaces its channel when the channel is stuck or old.
//!
//! One frame can acknowledge many messages, but only up to the first unacknowledged one. So a few requests that hang
//! would make each later message cost a frame of its own. The consumer then opens a new channel. The old channel gets
//! no more messages, keeps the unacknowledged ones, and closes after the last of them.
//!
//! An old channel is also replaced as soon as it has no unacknowledged messages. After a queue lost its leader,
//! RabbitMQ can hold messages for a channel that never received them, and delivers them again when the channel closes.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use lapin::Connection;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::BrokerError;
use super::acks::{Acks, UnackedCount};
use super::subscription::{ACK_FLUSH_TIMEOUT, Message, Subscription};

/// A channel of this age is replaced as soon as it has no unacknowledged messages.
const MAX_IDLE_CHANNEL_AGE: Duration = Duration::from_secs(30);

/// A channel of this age is replaced although messages are unacknowledged: RabbitMQ may hold messages that it counts as
/// delivered.
const MAX_BUSY_CHANNEL_AGE: Duration = Duration::from_secs(600);

/// Time between two checks of the channel's age if no message arrives.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A message that is redelivered within this time after a renewal counts as held for the previous channel.
const RECOVERY_WINDOW: Duration = Duration::from_secs(5);

/// Message bodies of one queue in flight, on average.
const IN_FLIGHT_BYTES: f64 = 32.0 * 1024.0 * 1024.0;

/// The window of a connection's first channel, until the size of messages is known. A larger window could
/// hold more bytes than a worker has memory for. The next worker would receive the same messages, and fail too.
const INITIAL_WINDOW: u16 = 16;

/// While messages keep arriving, the state of the channel is checked once for this number of messages.
const MESSAGES_BETWEEN_CHECKS: u16 = 32;

pub struct ReceivedMessage {
    pub message: Message,
    /// Acknowledges this message only. The next message may come from another channel.
    pub acks: Acks,
    pub source: MessageSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageSource {
    /// Delivered from the queue when the message was ready.
    Queued,
    /// The broker held the message, unacknowledged, for a previous channel that never received it.
    Recovered,
}

/// The number of messages that may be in flight. Follows the size of recent messages.
struct Window {
    /// From the settings.
    max: u16,
    current: u16,
    /// Moving average, in which the latest message counts for an eighth.
    mean_bytes: f64,
    /// Messages received since the window was set.
    samples: u16,
}

impl Window {
    fn new(max: u16) -> Self {
        Self { max, current: INITIAL_WINDOW.min(max), mean_bytes: 0.0, samples: 0 }
    }

    fn record(&mut self, bytes: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a mean of sizes")]
        let bytes = bytes as f64;
        self.mean_bytes =
            if self.mean_bytes == 0.0 { bytes } else { self.mean_bytes + (bytes - self.mean_bytes) / 8.0 };
        self.samples = self.samples.saturating_add(1);
    }

    /// A new window, if it is at most half or at least twice the current one.
    fn adjusted(&self) -> Option<u16> {
        if self.samples < INITIAL_WINDOW.min(self.current) {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and `max`")]
        let fitting = (IN_FLIGHT_BYTES / self.mean_bytes.max(1.0)).clamp(1.0, f64::from(self.max)) as u16;
        (fitting / 2 >= self.current || fitting <= self.current / 2).then_some(fitting)
    }

    fn set(&mut self, window: u16) {
        (self.current, self.samples) = (window, 0);
    }
}

/// Receives messages of a queue. At most one window of messages is in flight on the current channel, and more on retired
/// channels. A busy channel is not replaced while retired channels have half of the largest window or more.
pub struct RotatingConsumer<'a> {
    connection: &'a Connection,
    queue: &'a str,
    window: Window,
    current: Subscription,
    /// The previous channel, while it still has received messages to pass on.
    previous: Option<Subscription>,
    retired: Vec<RetiredChannel>,
    /// When the current channel was opened.
    opened_at: Instant,
    /// Messages received since the state of the channel was checked.
    unchecked: u16,
    /// When a channel was last replaced because of its age.
    renewed_at: Option<Instant>,
}

/// A channel that receives no more messages.
struct RetiredChannel {
    unacked: UnackedCount,
    /// Ends when the channel is closed.
    closing: JoinHandle<()>,
}

impl<'a> RotatingConsumer<'a> {
    /// Starts consuming `queue` with at most `max_window` messages in flight.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open(connection: &'a Connection, queue: &'a str, max_window: u16) -> Result<Self, BrokerError> {
        let window = Window::new(max_window);
        let current = Subscription::open(connection, queue, window.current).await?;
        Ok(Self {
            connection,
            queue,
            window,
            current,
            previous: None,
            retired: Vec::new(),
            opened_at: Instant::now(),
            unchecked: 0,
            renewed_at: None,
        })
    }

    /// # Errors
    /// [`BrokerError::ChannelFailed`] if this connection will deliver no more messages.
    pub async fn next(&mut self) -> Result<ReceivedMessage, BrokerError> {
        self.unchecked = 0;
        loop {
            if self.previous.is_none() && self.current.is_stuck() && self.may_rotate() {
                self.rotate().await?;
            } else if self.previous.is_none() && self.is_old() {
                self.rotate().await?;
                self.renewed_at = Some(Instant::now());
            } else if self.previous.is_none()
                && let Some(window) = self.window.adjusted()
                && self.may_rotate()
            {
                self.window.set(window);
                self.rotate().await?;
            }
            if let Some(previous) = &mut self.previous {
                if let Some(message) = previous.next_before_end().await? {
                    return Ok(ReceivedMessage { message, acks: previous.acks(), source: MessageSource::Queued });
                }
                self.retire_previous();
            }
            let wait = MAX_IDLE_CHANNEL_AGE.saturating_sub(self.opened_at.elapsed()).max(IDLE_CHECK_INTERVAL);
            if let Ok(message) = timeout(wait, self.current.next()).await {
                return Ok(self.received(message?));
            }
        }
    }

    /// A message that has arrived already. `None` also from time to time, so that the caller calls [`Self::next`], which
    /// checks the state of the channel.
    pub fn next_arrived(&mut self) -> Option<Result<ReceivedMessage, BrokerError>> {
        if self.previous.is_some() || self.unchecked >= MESSAGES_BETWEEN_CHECKS {
            return None;
        }
        self.unchecked += 1;
        let message = self.current.next().now_or_never()?;
        Some(message.map(|message| self.received(message)))
    }

    /// A message of the current channel.
    fn received(&mut self, message: Message) -> ReceivedMessage {
        self.window.record(message.body.len());
        let source = self.source(&message);
        ReceivedMessage { message, acks: self.current.acks(), source }
    }

    fn is_old(&mut self) -> bool {
        let age = self.opened_at.elapsed();
        (age >= MAX_IDLE_CHANNEL_AGE && self.current.is_idle()) || (age >= MAX_BUSY_CHANNEL_AGE && self.may_rotate())
    }

    async fn rotate(&mut self) -> Result<(), BrokerError> {
        // Cancel first, so that the broker never sees two consumers of one worker.
        self.current.cancel().await;
        let next = Subscription::open(self.connection, self.queue, self.window.current).await?;
        self.previous = Some(std::mem::replace(&mut self.current, next));
        self.opened_at = Instant::now();
        Ok(())
    }

    fn source(&self, message: &Message) -> MessageSource {
        let recently_renewed = || self.renewed_at.is_some_and(|renewed_at| renewed_at.elapsed() < RECOVERY_WINDOW);
        if !message.redelivered || !recently_renewed() {
            return MessageSource::Queued;
        }
        tracing::warn!(queue = self.queue, message_id = message.message_id, "message recovered");
        MessageSource::Recovered
    }

    fn retire_previous(&mut self) {
        let Some(previous) = self.previous.take() else { return };
        self.retired.retain(|retired| !retired.closing.is_finished());
        let unacked = previous.acks().unacked_count();
        tracing::debug!(queue = self.queue, unacked = unacked.count(), "consumer channel replaced");
        self.retired.push(RetiredChannel { unacked, closing: tokio::spawn(previous.finish()) });
    }

    /// Whether retired channels have few enough unacknowledged messages to retire another channel.
    fn may_rotate(&mut self) -> bool {
        self.retired.retain(|retired| !retired.closing.is_finished());
        let unacked: usize = self.retired.iter().map(|retired| retired.unacked.count()).sum();
        unacked < usize::from((self.window.max / 2).max(1))
    }

    /// Stops consuming. Messages that the broker has already sent still arrive.
    pub async fn cancel(&self) {
        self.current.cancel().await;
    }

    /// Writes the last acknowledgements, within [`ACK_FLUSH_TIMEOUT`]. The caller must have dropped all [`Acks`] of the
    /// messages.
    pub async fn finish(mut self) {
        self.retire_previous();
        let finish = async {
            self.current.finish().await;
            for retired in self.retired {
                // If the task panicked, messages are unacknowledged and the broker delivers them again.
                let _ = retired.closing.await;
            }
        };
        let _ = timeout(ACK_FLUSH_TIMEOUT, finish).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_after(max: u16, messages: usize, bytes: usize) -> Window {
        let mut window = Window::new(max);
        for _ in 0..messages {
            window.record(bytes);
            if let Some(adjusted) = window.adjusted() {
                window.set(adjusted);
            }
        }
        window
    }

    #[test]
    fn the_window_follows_the_size_of_messages() {
        assert_eq!(window_after(1000, 15, 150).current, INITIAL_WINDOW, "too few messages to know their size");
        assert_eq!(window_after(1000, 16, 150).current, 1000);
        assert_eq!(window_after(1000, 16, 256 * 1024).current, 128);
        assert_eq!(window_after(1000, 40, 16 * 1024 * 1024).current, 2);
        assert_eq!(window_after(5, 5, 150).current, 5);
        let mut window = window_after(1000, 16, 150);
        for _ in 0..16 {
            window.record(16 * 1024 * 1024);
        }
        assert!(window.adjusted().is_some_and(|adjusted| adjusted < 10), "{:?}", window.adjusted());
    }
}
