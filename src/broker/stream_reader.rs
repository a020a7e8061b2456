//! Reading a log: a RabbitMQ stream, from where the local view left off.
//!
//! A position is an offset *and* the message id found there. Reading goes on at the position itself, so that its
//! record is seen again: where it is another one, or none, the log is not the one the view was built from (it was
//! deleted and made anew, or has lost its tail), and the view must be rebuilt from the log's beginning. Asked for an
//! offset past its end, a stream just waits.
//!
//! Where a log ends, AMQP 0-9-1 does not tell either. So a marker is appended, a record that carries nothing, and who has
//! read that has read all there was. Where the broker takes no messages, and in a log that others read too, who would take
//! a marker for a record, the last chunk is read instead.

use std::time::Duration;

use futures_util::FutureExt as _;
use lapin::Connection;
use serde::{Deserialize, Serialize};

use super::BrokerError;
use super::acks::Acks;
use super::publisher::{Destination, OutboundMessage, Publisher};
use super::removal::Removals;
use super::subscription::{Message, StartAt, Subscription};
use crate::delivery::TraceContext;
use crate::delivery::ids::ReplayRef;

/// Records in hand at once. A record may be a document of a megabyte, so not more of them.
const WINDOW: u16 = 100;

/// An existing record arrives within this time. Taking a slow broker for a lost record costs a needless rebuild.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// A broker that takes messages has confirmed the marker by then.
const MARKER_TIMEOUT: Duration = Duration::from_secs(3);

/// A log from which nothing comes for this long has been read to its end, or as good as that.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// A record of a log.
#[derive(Debug, Clone)]
pub struct StreamRecord {
    /// Its place.
    pub position: StreamPosition,
    /// Its bytes. The record that was only written so that the log has an end to be found is empty.
    pub body: Vec<u8>,
    /// Its trace context.
    pub trace: Option<TraceContext>,
    /// The dead letter that is sent again by it.
    pub replay: Option<ReplayRef>,
    /// Why the broker put it here; `None` if a worker did.
    pub removals: Option<Removals>,
}

/// A place in a log, and proof that it is the same log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamPosition {
    /// The stream's offset.
    pub offset: u64,
    /// The id of the message there.
    pub message_id: String,
}

/// How a view can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamContinuity {
    /// The log is the one the view was built from.
    Continued,
    /// It is not: the view must be cleared before the first record.
    Restarted,
}

/// How the end of a log is found.
#[derive(Clone, Copy)]
pub enum EndDetection<'a> {
    /// By a record that this publisher appends.
    ByMarker(&'a Publisher),
    /// By reading what is there until nothing more comes, which takes a second.
    ByLastChunk,
}

/// A log being read.
pub struct StreamReader {
    subscription: Subscription,
    acks: Acks,
    end: End,
}

/// Where the log ended when reading started.
#[derive(Clone)]
enum End {
    /// At the record with this message id.
    Marker(String),
    /// At this offset.
    Offset(u64),
    /// Behind what has been read.
    Reached,
}

impl StreamReader {
    /// Starts reading `stream` after `position`, or from its beginning.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn open(
        connection: &Connection,
        stream: &str,
        find_end: EndDetection<'_>,
        position: Option<&StreamPosition>,
    ) -> Result<(Self, StreamContinuity), BrokerError> {
        let marker = match find_end {
            EndDetection::ByMarker(publisher) => append_marker(publisher, stream).await,
            EndDetection::ByLastChunk => None,
        };
        let end = match marker {
            Some(message_id) => End::Marker(message_id),
            None => end_of_last_chunk(connection, stream).await?,
        };
        if let Some(position) = position {
            let at = StartAt::Offset(position.offset);
            let mut reader = Self::start(connection, stream, at, end.clone()).await?;
            let found = tokio::time::timeout(RECORD_TIMEOUT, reader.next()).await.ok().transpose()?;
            if found.is_some_and(|record| record.position == *position) {
                return Ok((reader, StreamContinuity::Continued));
            }
        }
        Ok((Self::start(connection, stream, StartAt::First, end).await?, StreamContinuity::Restarted))
    }

    async fn start(connection: &Connection, stream: &str, at: StartAt, end: End) -> Result<Self, BrokerError> {
        let subscription = Subscription::open_stream(connection, stream, WINDOW, at).await?;
        Ok(Self { acks: subscription.acks(), subscription, end })
    }

    /// The next record.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub async fn next(&mut self) -> Result<StreamRecord, BrokerError> {
        let message = self.subscription.next().await?;
        // On a stream an acknowledgement only asks for more: the position is kept by the view.
        self.acks.acknowledge(message.tag);
        let offset = message.offset.ok_or_else(|| BrokerError::ChannelFailed {
            doing: "reading a log",
            error: "a record has no x-stream-offset: the queue is no stream".to_owned(),
        })?;
        let position = StreamPosition { offset, message_id: message.message_id.clone().unwrap_or_default() };
        if self.end.is(&position) {
            self.end = End::Reached;
        }
        let Message { body, trace, replay, removals, .. } = message;
        Ok(StreamRecord { position, body, trace, replay, removals })
    }

    /// The next record, where it is here already: by it records are applied many at once.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub fn next_ready(&mut self) -> Result<Option<StreamRecord>, BrokerError> {
        self.next().now_or_never().transpose()
    }

    /// Whether what has been read is all that the log held when reading started.
    pub fn is_current(&self) -> bool {
        matches!(self.end, End::Reached)
    }
}

impl End {
    fn is(&self, position: &StreamPosition) -> bool {
        match self {
            Self::Marker(message_id) => position.message_id == *message_id,
            Self::Offset(offset) => position.offset >= *offset,
            Self::Reached => true,
        }
    }
}

/// Appends a marker, and tells its message id; `None` where the broker does not take it.
async fn append_marker(publisher: &Publisher, stream: &str) -> Option<String> {
    let message_id = uuid::Uuid::now_v7().to_string();
    let to = Destination::Queue(stream.to_owned());
    let marker = OutboundMessage::new(to, message_id.clone(), Vec::new());
    let published = tokio::time::timeout(MARKER_TIMEOUT, publisher.publish(marker)).await;
    published.is_ok_and(|published| published.is_ok()).then_some(message_id)
}

/// Reads the log's last chunk until nothing more of it comes.
async fn end_of_last_chunk(connection: &Connection, stream: &str) -> Result<End, BrokerError> {
    let mut last = StreamReader::start(connection, stream, StartAt::Last, End::Reached).await?;
    let mut end = End::Reached;
    let read = async {
        while let Ok(record) = tokio::time::timeout(QUIET_TIME, last.next()).await {
            end = End::Offset(record?.position.offset);
        }
        Ok::<(), BrokerError>(())
    };
    // Where it does not end, others are writing: what comes now is newer than the start.
    tokio::time::timeout(RECORD_TIMEOUT, read).await.unwrap_or(Ok(()))?;
    Ok(end)
}
