//! Taking messages from a queue, no more at a time than the window allows.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};

use super::acks::{AckTask, Acks};
use super::removal::Removals;
use super::{BrokerError, DELIVERY_COUNT, REPLAY_ID, REPLAY_OF, number_header, text_header};
use crate::delivery::TraceContext;
use crate::delivery::ids::ReplayRef;
use crate::delivery::ids::{DeadLetterId, ReplayId};

/// A quorum queue can lose acknowledgements that are followed at once by the end of their channel: 3 of 8 runs under
/// load gave messages out twice, and none of 18 with this pause.
const SETTLE_PAUSE: Duration = Duration::from_millis(300);

/// The last acknowledgements have reached the broker within this time, or never will: on a connection that stands still it gives out
/// again what it does not hear of.
pub const ACK_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A message in hand.
#[derive(Debug)]
pub struct Message {
    /// Names it to [`Acks`].
    pub tag: u64,
    /// Its bytes.
    pub body: Vec<u8>,
    /// Whether the broker delivered it before.
    pub redelivered: bool,
    /// How often it was returned to a queue, as the broker's delivery limit counts.
    pub returns: u64,
    /// The AMQP `message_id`.
    pub message_id: Option<String>,
    /// The `x-stream-offset`, where it comes from a stream.
    pub offset: Option<u64>,
    /// The headers `traceparent` and `tracestate`.
    pub trace: Option<TraceContext>,
    /// Which dead letter it is, sent again.
    pub replay: Option<ReplayRef>,
    /// When a broker removed it from a queue, if it comes from a stream.
    pub removals: Option<Removals>,
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        let headers = delivery.properties.headers().as_ref();
        let trace = TraceContext::read(text_header(headers, "traceparent"), text_header(headers, "tracestate"));
        let replay = text_header(headers, REPLAY_OF).zip(text_header(headers, REPLAY_ID)).map(|(letter, replay)| {
            ReplayRef { dead_letter: DeadLetterId::new(letter), replay: ReplayId::new(replay) }
        });
        let offset = number_header(headers, "x-stream-offset");
        Self {
            replay,
            removals: offset.and_then(|_| Removals::read(headers)),
            tag: delivery.delivery_tag,
            redelivered: delivery.redelivered,
            // At its first delivery, a message may have this header from another queue or from its publisher.
            returns: if delivery.redelivered { number_header(headers, DELIVERY_COUNT).unwrap_or(0) } else { 0 },
            offset,
            message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            trace,
            body: delivery.data,
        }
    }
}

/// Where reading of a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At its first record.
    First,
    /// At the first record of its last chunk.
    Last,
    /// At this offset; at the first one kept, where that is later.
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

/// A queue's messages, on a channel of their own.
pub struct Subscription {
    channel: Channel,
    consumer: Consumer,
    acks: Acks,
    acknowledging: AckTask,
}

impl Subscription {
    /// Starts consuming `queue` with at most `window` messages in hand.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open(connection: &Connection, queue: &str, window: u16) -> Result<Self, BrokerError> {
        Self::consume(connection, queue, window, FieldTable::default()).await
    }

    /// Starts reading `stream`.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open_stream(
        connection: &Connection,
        stream: &str,
        window: u16,
        from: StartAt,
    ) -> Result<Self, BrokerError> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), from.argument());
        Self::consume(connection, stream, window, arguments).await
    }

    async fn consume(
        connection: &Connection,
        queue: &str,
        window: u16,
        arguments: FieldTable,
    ) -> Result<Self, BrokerError> {
        let channel = connection.create_channel().await.map_err(BrokerError::lost("opening a channel"))?;
        // Before consuming: a consumer is given messages by the window it started with.
        channel.basic_qos(window, BasicQosOptions::default()).await.map_err(BrokerError::lost("setting the window"))?;
        let consumer = channel
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments)
            .await
            .map_err(BrokerError::lost("consuming"))?;
        let (acks, acknowledging) = Acks::start(channel.clone(), window);
        Ok(Self { channel, consumer, acks, acknowledging })
    }

    /// Where its messages are acknowledged.
    pub fn acks(&self) -> Acks {
        self.acks.clone()
    }

    /// Whether most messages need an acknowledgement of their own, because an earlier one hangs.
    pub fn is_stuck(&self) -> bool {
        self.acknowledging.is_stuck()
    }

    /// Whether none of its messages is unfinished.
    pub fn is_idle(&self) -> bool {
        // One is this subscription's own.
        self.acks.unfinished().count() <= 1
    }

    /// The next message. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`] when there will be no more on this channel.
    pub async fn next(&mut self) -> Result<Message, BrokerError> {
        let cancelled =
            || BrokerError::ChannelFailed { doing: "consuming", error: "the broker cancelled the consumer".to_owned() };
        self.next_before_end().await?.ok_or_else(cancelled)
    }

    /// The next message; none where the consumer was cancelled and all that the broker had given it before have come.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn next_before_end(&mut self) -> Result<Option<Message>, BrokerError> {
        let next = self.consumer.next().await.transpose().map_err(BrokerError::lost("consuming"))?;
        Ok(next.map(Message::from))
    }

    /// Asks the broker for no more messages.
    pub async fn cancel(&self) {
        // Where this fails the channel is gone, and with it the consumer.
        let _ = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await;
    }

    /// Writes the last acknowledgements, waits until the broker has them, and closes the channel. All clones of [`Self::acks`]
    /// must have been dropped.
    pub async fn finish(self) {
        drop(self.acks);
        self.acknowledging.ended().await;
        tokio::time::sleep(SETTLE_PAUSE).await;
        // Where this fails the channel is gone already.
        let _ = self.channel.close(200, "finished".into()).await;
    }
}
