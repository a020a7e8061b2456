//! Receives messages of a queue or stream on a channel of its own. At most `prefetch` messages are unacknowledged.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};
use waypost_core::TraceContext;
use waypost_core::ids::ReplayRef;
use waypost_core::ids::{DeadLetterId, ReplayId};

use super::acks::{AckTask, Acks};
use super::removal::Removals;
use super::{BrokerError, DELIVERY_COUNT, REPLAY_ID, REPLAY_OF, number_header, text_header};

/// A quorum queue can lose acknowledgements if the channel closes right after them. Messages were delivered twice in 3
/// of 8 runs under load, and in none of 18 runs with this pause.
const PAUSE_BEFORE_CLOSE: Duration = Duration::from_millis(300);

/// The last acknowledgements reach the broker within this time, or the connection is considered stalled. The broker
/// then delivers the messages again.
pub const ACK_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A received message that is not acknowledged yet.
#[derive(Debug)]
pub struct Message {
    /// Identifies the message to [`Acks`].
    pub tag: u64,
    pub body: Vec<u8>,
    /// Whether the broker delivered it before.
    pub redelivered: bool,
    /// How often the message was requeued. Counts against the broker's delivery limit.
    pub requeues: u64,
    /// The AMQP `message_id`.
    pub message_id: Option<String>,
    /// `None` if the message does not come from a stream.
    pub offset: Option<u64>,
    pub trace: Option<TraceContext>,
    /// For a replayed dead letter.
    pub replay: Option<ReplayRef>,
    /// Why the broker removed the message from a queue. Only for a message from a stream.
    pub removals: Option<Removals>,
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        let headers = delivery.properties.headers().as_ref();
        let trace = TraceContext::from_headers(text_header(headers, "traceparent"), text_header(headers, "tracestate"));
        let replay = text_header(headers, REPLAY_OF).zip(text_header(headers, REPLAY_ID)).map(|(letter, replay)| {
            ReplayRef { dead_letter: DeadLetterId::new(letter), replay: ReplayId::new(replay) }
        });
        let offset = number_header(headers, "x-stream-offset");
        Self {
            replay,
            removals: offset.and_then(|_| Removals::from_headers(headers)),
            tag: delivery.delivery_tag,
            redelivered: delivery.redelivered,
            // At the first delivery, the header may come from another queue or from the publisher.
            requeues: if delivery.redelivered { number_header(headers, DELIVERY_COUNT).unwrap_or(0) } else { 0 },
            offset,
            message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            trace,
            body: delivery.data,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The first record.
    First,
    /// The first record of the last chunk.
    Last,
    /// This offset, or the first record if the stream begins after the offset.
    Offset(u64),
}

impl StartAt {
    fn argument(self) -> AMQPValue {
        match self {
            Self::First => AMQPValue::LongString("first".into()),
            Self::Last => AMQPValue::LongString("last".into()),
            Self::Offset(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
        }
    }
}

pub struct Subscription {
    channel: Channel,
    consumer: Consumer,
    acks: Acks,
    ack_task: AckTask,
}

impl Subscription {
    /// Starts consuming `queue` with at most `prefetch` messages in flight.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open(connection: &Connection, queue: &str, prefetch: u16) -> Result<Self, BrokerError> {
        Self::consume(connection, queue, prefetch, FieldTable::default()).await
    }

    /// Starts reading `stream`.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open_stream(
        connection: &Connection,
        stream: &str,
        prefetch: u16,
        start_at: StartAt,
    ) -> Result<Self, BrokerError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), start_at.argument());
        Self::consume(connection, stream, prefetch, arguments).await
    }

    async fn consume(
        connection: &Connection,
        queue: &str,
        prefetch: u16,
        arguments: FieldTable,
    ) -> Result<Self, BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::channel_failed("opening a channel"))?;
        // Before consuming: the prefetch applies to consumers that start later.
        let limited = channel.basic_qos(prefetch, BasicQosOptions::default()).await;
        limited.map_err(BrokerError::channel_failed("setting the prefetch"))?;
        let consumer = channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments)
            .await
            .map_err(BrokerError::channel_failed("consuming"))?;
        let (acks, ack_task) = Acks::start(channel.clone(), prefetch);
        Ok(Self { channel, consumer, acks, ack_task })
    }

    pub fn acks(&self) -> Acks {
        self.acks.clone()
    }

    /// Whether most messages need their own acknowledgement because an earlier message hangs.
    pub fn is_stuck(&self) -> bool {
        self.ack_task.is_stuck()
    }

    /// Whether all received messages are finished.
    pub fn is_idle(&self) -> bool {
        // The subscription itself holds one clone.
        self.acks.unacked_count().count() <= 1
    }

    /// The next message. No message is lost if the future is dropped.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`] if this channel will deliver no more messages.
    pub async fn next(&mut self) -> Result<Message, BrokerError> {
        let cancelled = || BrokerError::ChannelFailed {
            operation: "consuming",
            error: "the broker cancelled the consumer".to_owned(),
        };
        self.next_before_end().await?.ok_or_else(cancelled)
    }

    /// The next message; `None` if the consumer was cancelled and there are no more messages that were sent before.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn next_before_end(&mut self) -> Result<Option<Message>, BrokerError> {
        let next = self.consumer.next().await.transpose().map_err(BrokerError::channel_failed("consuming"))?;
        Ok(next.map(Message::from))
    }

    /// Stops consuming. Messages that the broker has already sent still arrive.
    pub async fn cancel(&self) {
        // Cancelling fails if the channel is closed, and the consumer with it.
        let _ = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await;
    }

    /// Writes the last acknowledgements, waits until the broker has them, and closes the channel. The caller must have
    /// dropped all clones of [`Self::acks`].
    pub async fn finish(self) {
        drop(self.acks);
        self.ack_task.wait().await;
        tokio::time::sleep(PAUSE_BEFORE_CLOSE).await;
        // Closing fails if the broker has closed the channel already.
        let _ = self.channel.close(200, "finished".into()).await;
    }
}
